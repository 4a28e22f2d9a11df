//! The programs on the running kernel: real processes of governed users make real connections.
//!
//! Needs root, python3 and setpriv. Only processes of the users 61001 to 61099, or of a test's own cgroup, are governed.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking; the lints' own exception covers only the test functions themselves"
)]

mod before;
mod common;
mod connections;
mod guard;
mod handoff;
mod labels;
mod logs;
mod pins;
mod reload;
mod resolver;
mod shield;
mod sockets;
mod speed;
mod tier;
mod unix;
