//! What a protocol is written against: who is asking, what is decided, how it is shown, what is recorded.
//!
//! A protocol gets a [`Gate`] for one session. [`Gate::admit`] is the only source of an [`Upstream`];
//! [`Gate::ask`] is the only source of a [`Permit`], at once or by way of a [`Hold`], and the action is in the record
//! before the permit exists.

#![forbid(unsafe_code)]

mod approvals;
mod approved;
#[cfg(feature = "contract")]
#[expect(clippy::expect_used, reason = "a broken promise is a failed test")]
pub mod contract;
mod credential;
mod export;
mod gate;
mod grounds;
mod hold;
mod identity;
mod inner;
mod mask;
mod matter;
mod opening;
mod origin;
mod pace;
mod parts;
mod permit;
mod protocol;
mod rates;
mod record;
mod refusal;
mod secret;
mod stream;
mod turns;
mod verdicts;
mod visible;
mod waiting;

pub use approvals::{Answer, ApprovalError, Approvals, Inquiry, Question, Revocation, Step, Yes};
pub use approved::Approved;
pub use credential::{Credential, CredentialError, Credentials};
pub use export::{Export, ExportFn, Recorded};
pub use gate::{Action, Gate, Login, Upstream};
pub use hold::{Hold, Put};
pub use identity::{Identified, Identities, Proof, Proofs};
pub use mask::{Find, Masker};
pub use matter::Matter;
pub use opening::{Opening, Stopping};
pub use origin::{AccountName, Arrival, Origin, OriginError, Origins, UnixSocket};
pub use pace::Pace;
pub use parts::Parts;
pub use permit::{Decision, Outcome, Permit};
pub use protocol::{BoxFuture, ClientIo, ConfigError, Protocol, ServeError, Server, options};
pub use rates::Rates;
pub use record::{Entry, Record, RecordError, Records};
pub use refusal::{Cause, Refusal};
pub use secret::Secret;
pub use stream::Stream;
pub use tidegate_policy as policy;
pub use turns::{Turn, Turns};
pub use visible::{Block, Lines, Plain};
pub use waiting::{Undecided, Waiting};
