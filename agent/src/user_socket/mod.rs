//! The socket for every account: say who you are, see it, and answer questions that wait for people. One request a
//! connection, a line of JSON; one answer, two for a login, or answers without end for one who watches.
//!
//! A peer is known by its descriptor and credentials, never by what it says.

mod approvals;
mod caller;
mod client;
mod identity;
mod line;

use std::{io, sync::Arc};

use serde::{Deserialize, Serialize};
use tidegate_approvals::{Desk, Inquiry, Say};
use tidegate_identity::{Beneficiary, Registry, Visit};
use tidegate_kernel::subjects;
use tidegate_policy::{Identity, Unproven};
use tokio::{io::AsyncReadExt, net::UnixStream};
use zeroize::Zeroizing;

pub(crate) use self::client::{ask, follow};
use self::{
    caller::{Accounts, Caller, Callers},
    line::Answers,
};
use crate::socket::Socket;

/// What can be asked.
///
/// Told apart by the outermost name: where that may follow, serde keeps copies of what it has read, a token among it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Let this token count for whoever ran the caller.
    Present {
        /// The token.
        token: Zeroizing<String>,
        /// The issuer's name in the bundle; by what the token says without it.
        issuer: Option<String>,
        /// For the caller itself instead, which becomes another program.
        #[serde(default)]
        own: bool,
    },
    /// Begin a login.
    Login {
        /// The issuer's name in the bundle; the only one without it.
        issuer: Option<String>,
    },
    /// Who am I?
    Whoami {},
    /// Forget what was presented and logged in with.
    Logout {
        /// The issuer's name in the bundle; all without it.
        issuer: Option<String>,
    },
    /// The questions that the caller may know of.
    Questions {
        /// Settled ones, too.
        all: bool,
    },
    /// The same, and every change from now on: an answer each.
    Watch {},
    /// One of them.
    Question {
        /// Its id.
        id: String,
    },
    /// Answer one, or take an answer back.
    Say {
        /// Its id.
        id: String,
        /// What to say.
        say: Say,
        /// Why.
        reason: Option<String>,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// The identity counts.
    Bound {
        /// It.
        identity: Identity,
    },
    /// The person is to go there; another answer follows.
    Visit(Visit),
    /// Who the caller is.
    Known {
        /// The identities that count.
        identities: Vec<Identity>,
        /// Tokens that are there and don't count.
        unproven: Vec<Unproven>,
    },
    /// This many identities ended.
    LoggedOut {
        /// How many.
        ended: usize,
    },
    /// Questions, newest first.
    Questions {
        /// They.
        questions: Vec<Inquiry>,
    },
    /// One, as it is now.
    Question {
        /// It.
        question: Box<Inquiry>,
    },
    /// It was not done.
    Failed {
        /// Why.
        why: String,
    },
}

/// Answers everybody.
pub(crate) struct Users {
    registry: Registry,
    desk: Desk,
    callers: Callers,
    accounts: Accounts,
}

impl Users {
    /// Answers from this registry and this desk.
    pub(crate) fn new(registry: Registry, desk: Desk) -> Arc<Self> {
        Arc::new(Self { registry, desk, callers: Callers::default(), accounts: subjects::account })
    }

    /// Answers until dropped.
    pub(crate) async fn run(self: Arc<Self>, socket: Socket) {
        socket.accept(|stream| self.clone().serve(stream)).await;
    }

    async fn serve(self: Arc<Self>, stream: UnixStream) {
        let caller = match Caller::of(&stream, self.accounts).await {
            Ok(caller) => caller,
            Err(error) => return tracing::warn!(%error, "user connection refused"),
        };
        let Some(_counted) = self.callers.count(&caller) else {
            return tracing::warn!(uid = caller.account, "too many connections of one user");
        };
        if let Err(error) = self.converse(stream, caller).await {
            tracing::debug!(%error, "user connection");
        }
    }

    async fn converse(&self, stream: UnixStream, caller: Caller) -> io::Result<()> {
        let (mut read, write) = stream.into_split();
        let mut answers = Answers(write);
        let answer = match line::request(&mut read).await? {
            Some(request) => {
                let lasts = matches!(request, Request::Login { .. } | Request::Watch {});
                let answering = self.answer(caller, request, &mut answers);
                // Whoever went away is waited for no longer; but what was begun to be done is done.
                tokio::select! { answer = answering => answer?, _ = read.read_u8(), if lasts => return Ok(()) }
            }
            // What was read may hold a token: nothing of it goes back.
            None => Answer::failed("not a request"),
        };
        answers.tell(&answer).await
    }

    /// The last answer; what comes before it is told.
    async fn answer(&self, caller: Caller, request: Request, answers: &mut Answers) -> io::Result<Answer> {
        let registry = &self.registry;
        Ok(match request {
            Request::Present { token, issuer, own } => {
                let of = if own { Beneficiary::Caller } else { Beneficiary::Shell };
                identity::present(registry, caller, of, &token, issuer.as_deref()).await
            }
            Request::Login { issuer } => {
                return identity::login(registry, caller, issuer.as_deref(), answers).await;
            }
            Request::Whoami {} => identity::whoami(registry, caller).await,
            Request::Logout { issuer } => identity::logout(registry, caller, issuer.as_deref()).await,
            Request::Questions { all } => approvals::list(&self.desk, &self.person(caller).await, all).await,
            Request::Watch {} => {
                return approvals::watch(&self.desk, &self.person(caller).await, answers).await;
            }
            Request::Question { id } => approvals::show(&self.desk, &self.person(caller).await, &id).await,
            Request::Say { id, say, reason } => {
                approvals::say(&self.desk, &self.person(caller).await, &id, say, reason.as_deref()).await
            }
        })
    }
}

impl Answer {
    fn failed(why: impl ToString) -> Self {
        Self::Failed { why: why.to_string() }
    }
}

#[cfg(test)]
mod tests;
