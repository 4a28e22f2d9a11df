//! Sessions with a test at both ends.

mod attacks;
mod contract;
mod holding;
mod requests;
mod stage;
mod versions;
