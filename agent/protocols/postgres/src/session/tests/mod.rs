//! The engine between a client and a server that a test plays, byte by byte.

mod attacks;
mod changes;
mod contract;
mod describing;
mod endings;
mod flows;
mod holding;
mod leaving;
mod parameters;
mod parts;
mod pressure;
mod quoting;
mod random;
mod rates;
mod redefining;
mod replication;
mod rogue_client;
mod rogue_server;
mod sign_ins;
mod stage;
mod standby;
mod understanding;
mod veil;
mod versions;
