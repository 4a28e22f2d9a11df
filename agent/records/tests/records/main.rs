//! The store as the agent and the command line use it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;
mod crash;
mod full;
mod speed;
mod store;
mod tamper;
