//! Tokens minted with keys of our own, an issuer on loopback, and processes that are only told of.

mod bindings;
mod browsers;
mod defects;
mod github;
mod issuer;
mod kept;
mod keyring;
mod logins;
mod minted;
mod pressure;
mod processes;
mod proofs;
mod speed;
mod steps;
mod stolen;
