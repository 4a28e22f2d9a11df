//! The socket for every account: say who you are, see it, and answer questions that wait for people. One request a
//! connection, a line of JSON; one answer, two for a login, or answers without end for one who watches.
//!
//! A peer is known by its descriptor and credentials, never by what it says.

mod approvals;
mod caller;
mod client;
mod identity;
mod line;
mod shares;

use std::{io, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_approvals::{Desk, Inquiry, Say};
use tidegate_gate::{Pace, Turns};
use tidegate_identity::{Beneficiary, Registry, Visit};
use tidegate_policy::{Identity, Unproven};
use tokio::{io::AsyncReadExt, net::UnixStream};
use zeroize::Zeroizing;

pub(crate) use self::client::{ask, follow};
use self::{
    caller::{Caller, Door},
    line::Answers,
    shares::{Seldom, Shares},
};
use crate::{accounts::Accounts, socket::Socket};

/// Who watch questions, of one account and of all.
const WATCHERS: (usize, usize) = (4, 256);
/// Lists of questions that are told at a time, of one account and of all.
const LISTS: (usize, usize) = (1, 16);
/// Logins that one account may begin within a minute: an issuer that is asked too often refuses everybody.
const LOGINS_A_MINUTE: usize = 5;

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
        /// How many more there are, of anybody, that can't be read.
        #[serde(default)]
        unreadable: usize,
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
    door: Door,
    /// Those who watch.
    watchers: Shares,
    /// Whose turn it is to be told a list.
    lists: Turns,
    /// Logins that were begun.
    logins: Pace,
    refused: Seldom,
}

impl Users {
    /// Answers from this registry and this desk.
    pub(crate) fn new(registry: Registry, desk: Desk, accounts: Accounts) -> Arc<Self> {
        Arc::new(Self {
            registry,
            desk,
            door: Door::new(accounts),
            watchers: Shares::new(WATCHERS.0, WATCHERS.1),
            lists: Turns::new(LISTS.0, LISTS.1),
            logins: Pace::default(),
            refused: Seldom::default(),
        })
    }

    /// Answers until dropped.
    pub(crate) async fn run(self: Arc<Self>, socket: Socket) {
        socket.accept(|stream| self.clone().serve(stream)).await;
    }

    async fn serve(self: Arc<Self>, stream: UnixStream) {
        let (caller, _share) = match self.door.enter(&stream).await {
            Ok(entered) => entered,
            Err(error) => {
                if let Some(unsaid) = self.refused.is_due() {
                    tracing::warn!(%error, unsaid, "user connection refused");
                }
                return;
            }
        };
        if let Err(error) = self.converse(stream, &caller).await {
            tracing::debug!(%error, "user connection");
        }
    }

    async fn converse(&self, stream: UnixStream, caller: &Caller) -> io::Result<()> {
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
            None => Some(Answer::failed("not a request")),
        };
        match answer {
            Some(answer) => answers.tell(&answer).await,
            None => Ok(()),
        }
    }

    /// The last answer, if it isn't told already; what comes before it is.
    async fn answer(
        &self,
        caller: &Caller,
        request: Request,
        answers: &mut Answers,
    ) -> io::Result<Option<Answer>> {
        let registry = &self.registry;
        Ok(Some(match request {
            Request::Present { token, issuer, own } => {
                let of = if own { Beneficiary::Caller } else { Beneficiary::Shell };
                identity::present(registry, caller, of, &token, issuer.as_deref()).await
            }
            Request::Login { issuer } => {
                if !self.logins.take(caller.sharer.clone(), LOGINS_A_MINUTE, Timestamp::now()) {
                    let why =
                        format!("you began {LOGINS_A_MINUTE} logins within a minute, as many as may: wait");
                    return Ok(Some(Answer::failed(why)));
                }
                identity::login(registry, caller, issuer.as_deref(), answers).await?
            }
            Request::Whoami {} => identity::whoami(registry, caller).await,
            Request::Logout { issuer } => identity::logout(registry, caller, issuer.as_deref()).await,
            Request::Questions { all } => {
                let person = self.person(caller).await;
                return approvals::list(self, &caller.sharer, &person, all, answers).await;
            }
            Request::Watch {} => {
                let (person, identities) = self.person_followed(caller).await;
                approvals::watch(self, &caller.sharer, person, identities, answers).await?
            }
            Request::Question { id } => approvals::show(&self.desk, &self.person(caller).await, &id).await,
            Request::Say { id, say, reason } => {
                approvals::say(&self.desk, &self.person(caller).await, &id, say, reason.as_deref()).await
            }
        }))
    }
}

impl Answer {
    fn failed(why: impl ToString) -> Self {
        Self::Failed { why: why.to_string() }
    }
}

#[cfg(test)]
mod tests;
