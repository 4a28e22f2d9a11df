//! The socket for every account: who am I, and let me say who I am. One JSON request a connection; one answer, or two
//! for a login.
//!
//! A peer is known by its descriptor and credentials, never by what it says.

use std::{
    collections::HashMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream as Blocking},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tidegate_identity::{ProcessId, Registry, Visit};
use tidegate_policy::{Identity, Unproven};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::OwnedWriteHalf},
};
use zeroize::Zeroizing;

use crate::{admin::Socket, error::Error};

/// Longest request, in bytes: a token and a little more.
const LONGEST: u64 = 20 * 1024;
/// How long a peer may take to write its request.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the command line waits for an answer; a login takes as long as the person does.
const ANSWER: Duration = Duration::from_secs(60);
const LOGIN: Duration = Duration::from_secs(1_000);
/// Connections of one user at once.
const MOST_PER_USER: usize = 32;

/// What can be asked.
#[derive(Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Let this token count for whoever ran the caller.
    Present {
        /// The token.
        token: Zeroizing<String>,
        /// The issuer's name in the bundle; by what the token says without it.
        issuer: Option<String>,
    },
    /// Begin a login.
    Login {
        /// The issuer's name in the bundle; the only one without it.
        issuer: Option<String>,
    },
    /// Who am I?
    Whoami,
    /// Forget what was presented and logged in with.
    Logout {
        /// The issuer's name in the bundle; all without it.
        issuer: Option<String>,
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
    /// It was not done.
    Failed {
        /// Why.
        why: String,
    },
}

/// Answers everybody.
pub(crate) struct Users {
    registry: Registry,
    connections: Mutex<HashMap<u32, usize>>,
}

/// One connection of a user, counted until dropped.
struct Counted {
    users: Arc<Users>,
    uid: u32,
}

impl Users {
    /// Answers from this registry.
    pub(crate) fn new(registry: Registry) -> Arc<Self> {
        Arc::new(Self { registry, connections: Mutex::default() })
    }

    /// Binds the socket, for every account to connect to.
    pub(crate) fn bind(path: &Path) -> Result<Socket, Error> {
        let socket = Socket::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(Error::file(path))?;
        Ok(socket)
    }

    /// Answers until dropped.
    pub(crate) async fn run(self: Arc<Self>, socket: Socket) {
        socket.accept(|stream| self.clone().serve(stream)).await;
    }

    async fn serve(self: Arc<Self>, stream: UnixStream) {
        let peer = match tidegate_kernel::peer(&stream) {
            Ok(peer) => peer,
            Err(error) => return tracing::debug!(%error, "user connection"),
        };
        let Some(_counted) = self.count(peer.uid) else {
            return tracing::warn!(uid = peer.uid, "too many connections of one user");
        };
        let caller = ProcessId { pid: peer.pid, started: peer.started };
        if let Err(error) = self.converse(stream, caller).await {
            tracing::debug!(%error, "user connection");
        }
    }

    async fn converse(&self, stream: UnixStream, caller: ProcessId) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut reader = tokio::io::BufReader::new(read.take(LONGEST));
        let mut line = Zeroizing::new(String::with_capacity(LONGEST as usize));
        tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
        let request = serde_json::from_str(&line);
        drop(line);
        let answer = match request {
            Ok(Request::Login { issuer }) => {
                let login = self.log_in(caller, issuer.as_deref(), &mut write);
                // A person who went away is waited for no longer.
                let gone = reader.read_u8();
                tokio::select! { answer = login => answer?, _ = gone => return Ok(()) }
            }
            Ok(request) => self.answer(caller, request).await,
            // What was read may hold a token: the error's words do not go back.
            Err(_) => Answer::Failed { why: "not a request".into() },
        };
        tell(&mut write, &answer).await
    }

    async fn answer(&self, caller: ProcessId, request: Request) -> Answer {
        let answered = match request {
            Request::Present { token, issuer } => self
                .registry
                .present(caller, issuer.as_deref(), token.as_bytes())
                .await
                .map(|identity| Answer::Bound { identity }),
            Request::Logout { issuer } => {
                self.registry.logout(caller, issuer.as_deref()).await.map(|ended| Answer::LoggedOut { ended })
            }
            Request::Whoami | Request::Login { .. } => {
                let known = self.registry.whoami(caller).await;
                let identities = known.now.borrow().to_vec();
                Ok(Answer::Known { identities, unproven: known.unproven.to_vec() })
            }
        };
        answered.unwrap_or_else(|defect| Answer::Failed { why: defect.to_string() })
    }

    async fn log_in(
        &self,
        caller: ProcessId,
        issuer: Option<&str>,
        write: &mut OwnedWriteHalf,
    ) -> io::Result<Answer> {
        let login = match self.registry.login(caller, issuer).await {
            Ok(login) => login,
            Err(defect) => return Ok(Answer::Failed { why: defect.to_string() }),
        };
        tell(write, &Answer::Visit(login.visit().clone())).await?;
        Ok(match login.finish().await {
            Ok(identity) => Answer::Bound { identity },
            Err(defect) => Answer::Failed { why: defect.to_string() },
        })
    }

    fn count(self: &Arc<Self>, uid: u32) -> Option<Counted> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(uid).or_default();
        if *count >= MOST_PER_USER {
            return None;
        }
        *count += 1;
        Some(Counted { users: self.clone(), uid })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut connections = self.users.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.uid);
            }
        }
    }
}

async fn tell(write: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut text = serde_json::to_vec(answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Asks a running agent, blocking; `visit` is told where a login leads. An error means that none could be reached.
pub(crate) fn ask(socket: &Path, request: &Request, visit: impl Fn(&Visit)) -> io::Result<Answer> {
    let mut stream = Blocking::connect(socket)?;
    let patience = if matches!(request, Request::Login { .. }) { LOGIN } else { ANSWER };
    stream.set_read_timeout(Some(patience))?;
    let mut text = Zeroizing::new(serde_json::to_vec(request)?);
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match serde_json::from_str(&line)? {
            Answer::Visit(where_to) => visit(&where_to),
            answer => return Ok(answer),
        }
    }
}
