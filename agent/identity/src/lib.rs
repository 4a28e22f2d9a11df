//! ID tokens: found, verified, and bound to the processes that presented them.
//!
//! A [`Registry`] is the agent's [`Identities`](tidegate_gate::Identities). What a governed process says of itself is never
//! taken for true: a token is verified with its issuer's keys, which the agent fetches itself, and it counts for the
//! process tree or the login session that presented it and not beyond.

#![forbid(unsafe_code)]

mod browser;
mod defect;
mod device;
mod ends;
mod environment;
mod find;
mod host;
mod json;
mod kept;
mod keyring;
mod keys;
mod ledger;
mod oauth;
mod people;
mod registry;
mod renewal;
mod shelf;
mod stolen;
#[cfg(test)]
mod tests;
mod token;
mod trees;
mod verify;

pub use browser::{Application, Terms, Tie};
pub use defect::Defect;
pub use device::Visit;
pub use host::ProcessId;
pub use kept::TakenUp;
pub use keyring::Unreachable;
pub use people::{Beneficiary, Login};
pub use registry::{Prepared, Registry};
pub use stolen::{Stolen, Witness};
