//! Tamper-evident session records: hash-chained lines in a file a session, a Merkle log with signed checkpoints over
//! them, an index for lists, and the ways to read, show and prove them.
//!
//! What lies in a store's directory:
//!
//! | path | what |
//! |---|---|
//! | `sessions/YYYY/MM/DD/ID.jsonl` | one record: JSON lines, each with the SHA-256 of the one before (without newline) |
//! | `log/leaves` | two JSON lines a session: opened (hash of its first line), closed (lines, hash of the last) |
//! | `log/checkpoint` | size and tree hash (RFC 6962) of the leaves, signed: C2SP tlog-checkpoint and signed-note |
//! | `log/key`, `log/key.pub` | the Ed25519 key (PKCS#8) and its public half (signed-note's verifier key) |
//! | `index.sqlite` | the index; it can be removed at any time |

#![forbid(unsafe_code)]

mod chain;
mod error;
mod flusher;
mod hash;
mod human;
mod index;
mod layout;
mod line;
mod log;
mod reader;
mod record;
mod recover;
mod replay;
mod session_id;
mod statement;
mod store;
mod summary;
mod verify;

pub use error::StoreError;
pub use hash::Hash;
pub use index::{Filter, Sessions};
pub use line::Line;
pub use log::checkpoint::{Checkpoint, PublicKey};
pub use reader::{Follow, Reader, follow};
pub use replay::{Pace, ShowError, export_asciicast, export_lines, replay};
pub use statement::{sign_statement, verify_statement};
pub use store::{Settings, Store, SyncMode};
pub use summary::SessionSummary;
pub use verify::{Expected, Finding, OpenSession, Problem, Report, verify};
