//! Bundles as their authors see them: what they decide, and what is said of mistakes.

#![expect(clippy::unwrap_used, reason = "a helper of the tests that fails fails the test")]

mod common;
mod decisions;
mod demo;
mod identity;
mod masks;
mod problems;
mod properties;
mod shield;
mod speed;
mod subjects;
