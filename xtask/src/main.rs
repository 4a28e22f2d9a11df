//! The Tidegate agent.
fn main() {}
