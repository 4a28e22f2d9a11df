//! The PostgreSQL protocol, versions 3.0 and 3.2.
#![forbid(unsafe_code)]

mod shown;
mod sql;
mod startup;
mod upstream;
mod wire;
