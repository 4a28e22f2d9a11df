//! End-to-end tests: unmodified clients, a real PostgreSQL, the built agent, the running kernel.

#![forbid(unsafe_code)]

mod approvals;
mod attacks;
mod bad_days;
mod canary;
mod ci;
mod confinement;
mod definitions;
mod detach;
mod drivers;
mod facts;
mod failover;
mod fleet;
mod http;
mod identity;
mod kept_rows;
mod kills;
mod lineage;
mod names;
mod namespaces;
mod people;
mod policy;
mod pooler;
mod pressure;
mod psql;
mod records;
mod replication;
mod servers;
mod sessions;
mod several;
mod shown;
mod tls;
mod together;
mod tools;
mod unix_sockets;
mod upgrades;
