//! Sessions with a test at both ends.

mod attacks;
mod bodies;
mod calls;
mod coming_back;
mod contract;
mod h2_tricks;
mod holding;
mod oauth2;
mod placeholders;
mod records;
mod reloads;
mod requests;
mod signing;
mod slow;
mod stage;
mod streaming;
mod tricks;
mod tunnels;
mod untaken;
mod upstreams;
mod versions;
mod websockets;
mod websockets_h2;
