//! The socket where people answer questions, for every account: one JSON request a connection, and an answer, or
//! answers without end for one who watches.
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

use nix::unistd::{Group, Uid, User, getgrouplist};
use serde::{Deserialize, Serialize};
use tidegate_approvals::{Answered, Desk, Inquiry, Person, Say};
use tidegate_gate::Identities;
use tidegate_kernel::Peer;
use tidegate_policy::{Identity, Process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::OwnedWriteHalf},
    time::timeout,
};

use crate::{admin::Socket, error::Error};

/// Longest request, in bytes.
const LONGEST: u64 = 8 * 1024;
/// How long a peer may take to write its request, or to read an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the command line waits for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Connections of one user at once.
const MOST_PER_USER: usize = 32;
/// Most questions in one answer.
const MOST: u32 = 1000;
/// How often one who watches is told of what came in through other agents of a fleet.
const LOOK: Duration = Duration::from_secs(1);

/// What can be asked about questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// Those that the caller may know of.
    List {
        /// Settled ones, too.
        all: bool,
    },
    /// The same, and every change from now on: an answer each.
    Watch,
    /// One of them.
    Show {
        /// Its id.
        id: String,
    },
    /// Answer one, or take an answer back.
    Answer {
        /// Its id.
        id: String,
        /// What to say.
        answer: Say,
        /// Why.
        reason: Option<String>,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "kebab-case")]
pub(crate) enum Told {
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
pub(crate) struct Answering {
    desk: Desk,
    identities: Arc<dyn Identities>,
    connections: Mutex<HashMap<u32, usize>>,
}

/// One connection of a user, counted until dropped.
struct Counted {
    answering: Arc<Answering>,
    uid: u32,
}

impl Answering {
    /// At this desk.
    pub(crate) fn new(desk: Desk, identities: Arc<dyn Identities>) -> Arc<Self> {
        Arc::new(Self { desk, identities, connections: Mutex::default() })
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
            Err(error) => return tracing::debug!(%error, "approvals connection"),
        };
        let Some(_counted) = self.count(peer.uid) else {
            return tracing::warn!(uid = peer.uid, "too many connections of one user");
        };
        if let Err(error) = self.converse(stream, peer).await {
            tracing::debug!(%error, "approvals connection");
        }
    }

    async fn converse(&self, stream: UnixStream, peer: Peer) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut reader = tokio::io::BufReader::new(read.take(LONGEST));
        let mut line = String::new();
        timeout(PATIENCE, reader.read_line(&mut line)).await??;
        let ask = match serde_json::from_str(&line) {
            Ok(ask) => ask,
            Err(error) => {
                let why = format!("not a request: {error}");
                return tell(&mut write, &Told::Failed { why }).await;
            }
        };
        let person = self.person(peer).await;
        if ask == Ask::Watch {
            // One who went away is told nothing more.
            let gone = reader.read_u8();
            return tokio::select! {
                watched = watch(&self.desk, &person, &mut write) => watched,
                _ = gone => Ok(()),
            };
        }
        tell(&mut write, &answer(&self.desk, &person, ask).await).await
    }

    async fn person(&self, peer: Peer) -> Person {
        let Peer { pid, started, uid } = peer;
        let process = Process { pid, start_time: Some(started), uid, ..Process::default() };
        let identities = self.identities.identities(&process).await.now.borrow().clone();
        let host = self.desk.host().clone();
        let nobody = Person { host: host.clone(), uid: Some(uid), ..Person::default() };
        // An account whose name and groups cannot be told is known by its number alone.
        tokio::task::spawn_blocking(move || person(&host, uid, identities)).await.unwrap_or(nobody)
    }

    fn count(self: &Arc<Self>, uid: u32) -> Option<Counted> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(uid).or_default();
        if *count >= MOST_PER_USER {
            return None;
        }
        *count += 1;
        Some(Counted { answering: self.clone(), uid })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut connections = self.answering.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.uid);
            }
        }
    }
}

/// One who does not read is not waited for.
async fn tell(write: &mut OwnedWriteHalf, told: &Told) -> io::Result<()> {
    let mut text = serde_json::to_vec(told)?;
    text.push(b'\n');
    timeout(PATIENCE, write.write_all(&text)).await?
}

/// Asks a running agent, blocking. An error means that none could be reached.
pub(crate) fn ask(socket: &Path, ask: &Ask) -> io::Result<Told> {
    let mut reader = request(socket, ask)?;
    reader.get_ref().set_read_timeout(Some(ANSWER))?;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Watches until the agent ends or `told` fails, blocking.
pub(crate) fn follow(socket: &Path, mut told: impl FnMut(Told) -> io::Result<()>) -> io::Result<()> {
    for line in request(socket, &Ask::Watch)?.lines() {
        told(serde_json::from_str(&line?)?)?;
    }
    Ok(())
}

fn request(socket: &Path, ask: &Ask) -> io::Result<BufReader<Blocking>> {
    let mut stream = Blocking::connect(socket)?;
    let mut text = serde_json::to_vec(ask)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    Ok(BufReader::new(stream))
}

/// Answers one request; a watch is answered by [`watch`].
async fn answer(desk: &Desk, person: &Person, ask: Ask) -> Told {
    let question = match ask {
        Ask::List { .. } | Ask::Watch => {
            return match desk.list(person, ask == Ask::List { all: true }, MOST).await {
                Ok(overview) => Told::Questions { questions: overview.inquiries },
                Err(error) => Told::Failed { why: error.to_string() },
            };
        }
        Ask::Show { id } => desk.show(person, &id).await,
        Ask::Answer { id, answer, reason } => {
            let answered = Answered { say: answer, reason: reason.as_deref(), shown: None };
            desk.answer(person, &id, answered).await
        }
    };
    match question {
        Ok(question) => Told::Question { question: question.into() },
        Err(error) => Told::Failed { why: error.to_string() },
    }
}

/// Tells of every question as it is and as it changes, until nobody reads any more.
async fn watch(desk: &Desk, person: &Person, write: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut changes = desk.changes();
    let mut told: HashMap<Arc<str>, usize> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let Ok(overview) = desk.list(person, !told.is_empty(), MOST).await else {
            let why = "the store of approvals does not answer".into();
            return tell(write, &Told::Failed { why }).await;
        };
        for question in overview.inquiries.into_iter().rev() {
            let steps = question.trail.len();
            if told.insert(question.id.clone(), steps) != Some(steps) {
                tell(write, &Told::Question { question: question.into() }).await?;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(LOOK), if desk.store().is_shared() => {}
        }
    }
}

/// Who an account is on this host, with what issuers say of it. Asks the name service, which may block.
fn person(host: &Arc<str>, uid: u32, identities: Arc<[Identity]>) -> Person {
    let account = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let groups = account.as_ref().map_or_else(Vec::new, |account| {
        let name = std::ffi::CString::new(account.name.as_str()).unwrap_or_default();
        getgrouplist(&name, account.gid).unwrap_or_default()
    });
    let names = groups.into_iter().filter_map(|group| Group::from_gid(group).ok().flatten());
    Person {
        host: host.clone(),
        uid: Some(uid),
        user: account.map(|account| account.name.into()),
        unix_groups: names.map(|group| group.name.into()).collect(),
        identities,
    }
}
