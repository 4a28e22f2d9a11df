//! The admin socket: one JSON request and one JSON answer a line, for root on this host alone.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream as Blocking,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tidegate_approvals::store::{Health, Trouble};
use tidegate_identity::{Registry, Unreachable};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Notify,
};

use crate::{
    live::Live,
    reload::{InForce, Reloader, Summary},
    socket::Socket,
};

/// Longest request, in bytes.
const LONGEST: u64 = 4096;
/// How long a peer may take to write its request.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the command line waits for an answer: a reload looks names up.
const ANSWER: Duration = Duration::from_secs(60);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// How the agent is.
    Status,
    /// Load the bundle again.
    Reload,
    /// End, as on SIGTERM.
    Stop,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// How the agent is.
    Status(Box<Status>),
    /// The bundle that is now in force.
    Reloaded(Summary),
    /// It will end.
    Stopping,
    /// It was not done, and why.
    Failed {
        /// Everything that is wrong.
        problems: Vec<String>,
    },
}

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Its version.
    pub(crate) version: String,
    /// Its process id.
    pub(crate) pid: u32,
    /// Seconds since its start.
    pub(crate) uptime_seconds: u64,
    /// Loopback port of the IPv4 listener.
    pub(crate) v4_port: u16,
    /// Loopback port of the IPv6 listener; 0 if there is none.
    pub(crate) v6_port: u16,
    /// Directory of what stays in the kernel without an agent.
    pub(crate) pins: String,
    /// Whether an earlier agent's programs and rules were found in force.
    pub(crate) adopted: bool,
    /// Milliseconds from the start until connections were accepted.
    pub(crate) ready_after_ms: u64,
    /// The bundle in force.
    #[serde(flatten)]
    pub(crate) in_force: Summary,
    /// Connections now.
    pub(crate) sessions_live: usize,
    /// Sessions that began since the start.
    pub(crate) sessions_served: u64,
    /// Connections refused since the start, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Since when and why people can't be asked, if they can't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unasked: Option<String>,
    /// Questions that were met since the start and can't be read.
    #[serde(default)]
    pub(crate) unreadable: usize,
    /// Uses of tokens since the start that look stolen: each is in the host's record.
    #[serde(default)]
    pub(crate) stolen_tokens: u64,
    /// Issuers that can't be asked.
    #[serde(default)]
    pub(crate) unreachable_issuers: Vec<Unreachable>,
    /// What the kernel counted since the start, by name.
    pub(crate) kernel: BTreeMap<String, u64>,
}

/// How an agent began.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// When.
    pub(crate) since: Instant,
    /// How long it took until connections were accepted.
    pub(crate) took: Duration,
    /// Where its pins are.
    pub(crate) pins: PathBuf,
    /// Whether it took over from an earlier one.
    pub(crate) adopted: bool,
}

/// Answers requests.
pub(crate) struct Admin {
    /// Replaces the bundle.
    pub(crate) reloader: Arc<Reloader>,
    /// The bundle in force.
    pub(crate) in_force: Arc<InForce>,
    /// Counters.
    pub(crate) live: Arc<Live>,
    /// Tokens that were used.
    pub(crate) registry: Registry,
    /// Ports of the listeners, IPv4's first.
    pub(crate) ports: (u16, u16),
    /// How the agent began.
    pub(crate) start: Start,
    /// How the store of questions is.
    pub(crate) questions: Box<dyn Fn() -> Health + Send + Sync>,
    /// Told to end the agent.
    pub(crate) stop: Arc<Notify>,
}

/// Answers until dropped.
pub(crate) async fn run(socket: Socket, admin: Arc<Admin>) {
    socket.accept(|stream| serve(stream, admin.clone())).await;
}

/// The peer is judged by SO_PEERCRED, not by the socket's mode alone: the file's directory may be anybody's.
async fn serve(stream: UnixStream, admin: Arc<Admin>) {
    let us = nix::unistd::Uid::effective().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == us => {
            if let Err(error) = converse(stream, &admin).await {
                tracing::debug!(%error, "admin connection");
            }
        }
        Ok(peer) => tracing::warn!(uid = peer.uid(), pid = peer.pid(), "admin connection refused"),
        Err(error) => tracing::warn!(%error, "admin connection refused"),
    }
}

async fn converse(mut stream: UnixStream, admin: &Admin) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    tokio::time::timeout(PATIENCE, tokio::io::BufReader::new(read.take(LONGEST)).read_line(&mut line))
        .await??;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => admin.answer(request).await,
        Err(error) => Answer::Failed { problems: vec![format!("not a request: {error}")] },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

impl Admin {
    async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => match self.reloader.enforcer().counters() {
                Ok(kernel) => Answer::Status(Box::new(self.status(kernel))),
                Err(error) => Answer::Failed { problems: vec![error] },
            },
            Request::Reload => match self.reloader.reload().await {
                Ok(summary) => Answer::Reloaded(summary),
                Err(error) => Answer::Failed { problems: error.problems() },
            },
            Request::Stop => {
                self.stop.notify_one();
                Answer::Stopping
            }
        }
    }

    fn status(&self, kernel: BTreeMap<String, u64>) -> Status {
        let Health { trouble, unreadable } = (self.questions)();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: self.start.since.elapsed().as_secs(),
            pins: self.start.pins.display().to_string(),
            adopted: self.start.adopted,
            ready_after_ms: u64::try_from(self.start.took.as_millis()).unwrap_or(u64::MAX),
            v4_port: self.ports.0,
            v6_port: self.ports.1,
            in_force: self.in_force.summary(),
            sessions_live: self.live.now(),
            sessions_served: self.live.served(),
            refused: self.live.refused().into_iter().map(|(name, count)| (name.into(), count)).collect(),
            unasked: trouble.map(|Trouble { since, why }| format!("since {since:.0}: {why}")),
            unreadable,
            stolen_tokens: self.registry.stolen(),
            unreachable_issuers: self.registry.unreachable(),
            kernel,
        }
    }
}

/// Asks a running agent, blocking. An error means that none could be reached.
pub(crate) fn ask(socket: &Path, request: Request) -> io::Result<Answer> {
    let mut stream = Blocking::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut text = serde_json::to_vec(&request)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tidegate_approvals::store::StoreError;

    use super::*;
    use crate::test_support::World;

    async fn asked(world: &World, request: Request) -> (Answer, Arc<Notify>) {
        let path = world.bundle.path().join("admin.sock");
        let socket = Socket::bind(&path).unwrap();
        let stop = Arc::new(Notify::new());
        let admin = Admin {
            reloader: Arc::new(world.reloader()),
            in_force: world.in_force.clone(),
            live: world.live.clone(),
            registry: world.registry.clone(),
            ports: (1, 2),
            start: Start {
                since: Instant::now(),
                took: Duration::from_millis(7),
                pins: "/sys/fs/bpf/test".into(),
                adopted: true,
            },
            questions: Box::new(|| {
                let why = StoreError::Failed("the database does not answer".into());
                Health { trouble: Some(Trouble { since: Timestamp::UNIX_EPOCH, why }), unreadable: 2 }
            }),
            stop: stop.clone(),
        };
        let serving = tokio::spawn(run(socket, Arc::new(admin)));
        let asking = path.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&asking, request)).await.unwrap().unwrap();
        serving.abort();
        let _ = serving.await;
        assert!(!path.exists());
        (answer, stop)
    }

    #[tokio::test]
    async fn status_tells_the_bundle_in_force() {
        let world = World::new().await;
        let (Answer::Status(status), _) = asked(&world, Request::Status).await else {
            panic!("not a status")
        };
        assert_eq!(status.in_force, world.in_force.summary());
        assert_eq!((status.v4_port, status.v6_port), (1, 2));
        assert_eq!((&*status.pins, status.adopted, status.ready_after_ms), ("/sys/fs/bpf/test", true, 7));
        assert_eq!(status.kernel["generations"], 1);
        let unasked = "since 1970-01-01T00:00:00Z: the store of approvals: the database does not answer";
        assert_eq!((status.unasked.as_deref(), status.unreadable), (Some(unasked), 2));
    }

    #[tokio::test]
    async fn a_failed_reload_answers_with_every_problem() {
        let world = World::new().await;
        std::fs::write(world.bundle.path().join("bundle.yaml"), "tidegate: 1\nnonsense: true\n").unwrap();
        let (Answer::Failed { problems }, _) = asked(&world, Request::Reload).await else {
            panic!("reloaded")
        };
        assert!(problems.iter().any(|problem| problem.contains("nonsense")), "{problems:?}");
    }

    #[tokio::test]
    async fn stop_tells_the_agent() {
        let world = World::new().await;
        let (answer, stop) = asked(&world, Request::Stop).await;
        assert_eq!(answer, Answer::Stopping);
        stop.notified().await;
    }
}
