//! The ways around the gate: each a small C program that tries it, and canaries that see whether a byte arrived.
//!
//! `cargo xtask test` runs them as tests, `tidegate doctor --attack` on a live host. What an attack says of itself is
//! never taken as proof that it was stopped: its canary decides, and the same attack by an account that isn't governed
//! must succeed, or nothing is concluded from it.

#![forbid(unsafe_code)]

mod canary;
mod frame;
mod loopback;
mod manifest;
mod outcome;
mod run;
mod wire;

pub use canary::Canary;
pub use manifest::{ATTACKS, Attack, Layer, Place, Privilege, When};
pub use outcome::{Outcome, Row};
pub use run::{Battery, Target, Waiting};
