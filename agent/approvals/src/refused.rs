//! Why an answer does not count.

use std::sync::Arc;

use thiserror::Error;

use crate::State;

/// Why somebody may not do what they ask for, worded for them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is none, or it is none of theirs: they cannot tell.
    #[error("there is no question {0} that you may see")]
    Unknown(String),
    /// It is settled.
    #[error("question {id} is {state} already{}", by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default())]
    Settled {
        /// Which.
        id: Arc<str>,
        /// What became of it.
        state: State,
        /// Who settled it.
        by: Option<String>,
    },
    /// They were shown another.
    #[error("question {0} is not what you were shown: look at it again")]
    NotShown(Arc<str>),
    /// They asked.
    #[error("you asked: somebody else must answer, {0}")]
    OwnQuestion(String),
    /// They are not among those who may answer.
    #[error("you may not answer this; may: {0}")]
    NotAsked(String),
    /// Nobody can tell whether they asked, or said yes already.
    #[error(
        "what the account of user id {0} is called could not be told, so it may be yours: answer from an account of the host \
         without a login, or have it asked again"
    )]
    MayBeTheirs(u32),
    /// They answered already, or somebody who may be the same.
    #[error("you said yes already; somebody else must, too")]
    Twice,
    /// The rule wants a reason.
    #[error("this needs a reason: --reason \"...\"")]
    NoReason,
    /// The reason cannot be kept.
    #[error("a reason is one line of at most 500 characters")]
    BadReason,
    /// No rule lets anybody act at once.
    #[error("the rule lets nobody act at once{0}")]
    NoGlass(String),
    /// Nothing is owed.
    #[error("question {0} owes no review")]
    NothingOwed(Arc<str>),
}
