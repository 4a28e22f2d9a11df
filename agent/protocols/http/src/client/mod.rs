//! The client's side of a connection.

mod gathered;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod stream;
