//! Where people are asked.

use std::sync::Arc;

use thiserror::Error;
use tidegate_policy::{Held, Principal};

use crate::BoxFuture;

/// Where people are asked, and where their answers are kept.
pub trait Approvals: Send + Sync {
    /// Puts a question, durably, unless a yes that was given before covers all of it.
    ///
    /// # Errors
    ///
    /// Nobody can be asked: the action is refused.
    fn put(&self, question: Question) -> BoxFuture<'_, Result<Answer, ApprovalError>>;

    /// What ended the yes to one of these questions, if one no longer counts: it was taken back, or its time is over.
    ///
    /// # Errors
    ///
    /// It can't be known.
    fn ended<'a>(
        &'a self,
        questions: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Option<Revocation>, ApprovalError>>;

    /// Resolves when somebody has taken back the yes to one of these questions, before or after this was called.
    fn revoked<'a>(&'a self, questions: &'a [Arc<str>]) -> BoxFuture<'a, Revocation>;
}

/// May this run?
#[derive(Debug, Clone)]
pub struct Question {
    /// The session that asks.
    pub session: Arc<str>,
    /// Who asks.
    pub principal: Principal,
    /// The resource's name.
    pub resource: Arc<str>,
    /// The protocol's name.
    pub protocol: Arc<str>,
    /// Digest of the bundle in force.
    pub policy: Arc<str>,
    /// The action's number within the session.
    pub action: u64,
    /// What it is, in the protocol's words: `statement`.
    pub name: Arc<str>,
    /// The action as approvers may see it: masked.
    pub text: String,
    /// What else would run or decides where: parameters, the database. Masked.
    pub particulars: Vec<(String, String)>,
    /// Every rule that holds it, with its terms: each must be met. Never empty.
    pub holds: Vec<Held>,
    /// SHA-256 over the action's very bytes and all that it runs with and in.
    pub exact: [u8; 32],
    /// SHA-256 over what rules see of the action, and which of the resource's servers it is for.
    pub shape: [u8; 32],
}

/// What is known of an answer.
pub enum Answer {
    /// It is covered already, by these together. Never empty.
    Known(Vec<Yes>),
    /// It is asked.
    Waits(Box<dyn Inquiry>),
}

/// A yes that was given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Yes {
    /// The question that it was given for.
    pub id: Arc<str>,
    /// Who gave it.
    pub by: String,
}

/// A yes that counts no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The question that the yes was given for.
    pub question: Arc<str>,
    /// Who took it back, if anybody did.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// A question that was put. Dropped without [`withdraw`](Self::withdraw), it stands, and whoever asks the same again
/// takes it up.
pub trait Inquiry: Send {
    /// Its id, for people: short, and unique as long as anybody can mean it.
    fn id(&self) -> &Arc<str>;
    /// What happens to it next. Nothing is lost by dropping the future. After [`Step::Approved`] and
    /// [`Step::Refused`] nothing follows.
    fn next(&mut self) -> BoxFuture<'_, Result<Step, ApprovalError>>;
    /// Nobody need answer any more; `word` says why: `withdrawn`, `cancelled`.
    fn withdraw(self: Box<Self>, word: &str);
}

/// What happens to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Somebody who may answer looked at it.
    Seen {
        /// Who.
        by: String,
    },
    /// Somebody said yes, and more must.
    Agreed {
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// It may run.
    Approved {
        /// Who said so last.
        by: String,
        /// Why.
        reason: Option<String>,
        /// It was not asked for but done at once, and a review is owed.
        urgent: bool,
    },
    /// It may not.
    Refused {
        /// `denied`, `expired`, `withdrawn`, `revoked`.
        word: String,
        /// Who said so.
        by: Option<String>,
        /// Why.
        reason: Option<String>,
    },
}

/// Why nobody can be asked, worded for whoever asks.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ApprovalError(pub String);
