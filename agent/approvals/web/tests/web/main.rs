//! What is answered to browsers and programs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of the tests that fails fails the test"
)]

mod api;
mod page;
mod world;
