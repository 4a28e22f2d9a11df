//! The resolver that governed processes ask: it answers for names that the bundle knows and refuses all others.
//!
//! A question is read, decided, looked up with a question of the agent's own, and answered anew: nothing that a process
//! wrote travels on but a name that the bundle knows. Knows nothing of sockets towards processes, the kernel or records.

#![forbid(unsafe_code)]

mod budget;
mod question;
mod resolver;
mod upstream;

pub use question::{Question, Unreadable};
pub use resolver::{Answer, Directory, Refusal, Resolver, Standing};
pub use upstream::{Found, Lookup, LookupError, Upstream};

/// Longest message that is read or written, in bytes: what fits a datagram on any path (RFC 9715, 3).
pub const LONGEST: usize = 1232;

/// How long a process may keep an answer. Its addresses stay reachable for longer: see the agent.
pub const LONGEST_TTL: std::time::Duration = std::time::Duration::from_secs(300);
