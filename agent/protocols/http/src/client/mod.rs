//! The client's side of a connection.

pub(crate) mod h1;
pub(crate) mod h2;
