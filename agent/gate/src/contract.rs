//! What every protocol must hold, whatever it speaks: each function is one promise, for a protocol's tests to call
//! with its own [`Words`].

mod people;
mod rig;

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};

use crate::{BoxFuture, Protocol};
pub use people::People;
pub use rig::{Memory, PATIENCE, Rig};

/// Plays the upstream on one connection, and reports every byte it gets, as it gets it.
pub type Upstream = fn(TcpStream, mpsc::UnboundedSender<Vec<u8>>) -> BoxFuture<'static, ()>;

/// A protocol's own words for what the contract speaks of. In what clients say, `{port}` stands for the resource's port.
pub struct Words {
    /// The protocol.
    pub protocol: Arc<dyn Protocol>,
    /// A bundle with a resource named `it` at `127.0.0.1:{port}` and a subject named `tester`.
    pub bundle: &'static str,
    /// What a client opens with; the bundle allows it.
    pub sign_in: Vec<u8>,
    /// The same, but not allowed.
    pub forbidden_sign_in: Vec<u8>,
    /// An action that is allowed, and a part of it by which the upstream knows it.
    pub allowed: (Vec<u8>, &'static [u8]),
    /// An action that is not allowed, and a part of it that must never reach the upstream.
    pub forbidden: (Vec<u8>, &'static [u8]),
    /// Plays the upstream.
    pub upstream: Upstream,
    /// Whether what the client got ends in a session that waits for the next action.
    pub is_ready: fn(&[u8]) -> bool,
    /// Whether what the client got is a refusal in the protocol's own terms.
    pub is_refusal: fn(&[u8]) -> bool,
}

/// No byte goes upstream, not even a connection, before the sign-in was allowed.
pub async fn nothing_reaches_the_upstream_before_admission(words: Words) {
    let mut stage = Stage::set(words, Memory::default()).await;
    stage.say(&stage.words.forbidden_sign_in.clone()).await;
    let heard = stage.hear_all().await;
    assert!((stage.words.is_refusal)(&heard), "not a refusal: {}", heard.escape_ascii());
    assert!(stage.upstream.try_recv().is_err(), "the upstream was connected to");
    stage.ends_with_one_close().await;
}

/// A refused action never arrives, is refused in the protocol's own terms, and leaves the session usable.
pub async fn a_refused_action_never_arrives_and_the_session_goes_on(words: Words) {
    let mut stage = Stage::signed_in(words, Memory::default()).await;
    let (forbidden, marker) = stage.words.forbidden.clone();
    stage.say(&forbidden).await;
    let heard = stage.hear().await;
    assert!((stage.words.is_refusal)(&heard), "not a refusal: {}", heard.escape_ascii());
    let (allowed, known_by) = stage.words.allowed.clone();
    stage.say(&allowed).await;
    let received = stage.upstream_gets(known_by).await;
    assert!(!contains(&received, marker), "the refused action arrived: {}", received.escape_ascii());
    assert!(!(stage.words.is_refusal)(&stage.hear().await), "the session is not usable after a refusal");
}

/// When an action arrives upstream, it is in the record already; the record began with the tier it was made under.
pub async fn the_record_precedes_the_action(words: Words) {
    let mut stage = Stage::signed_in(words, Memory::default()).await;
    let (allowed, known_by) = stage.words.allowed.clone();
    let before = stage.rig.memory.actions();
    stage.say(&allowed).await;
    stage.upstream_gets(known_by).await;
    assert!(stage.rig.memory.actions() > before, "the action arrived before it was recorded");
    let lines = stage.rig.memory.lines();
    assert_eq!(lines.first().and_then(|line| line["tier"].as_str()), Some("full"), "the record has no tier");
}

/// An action that cannot be recorded is refused, and never arrives.
pub async fn what_cannot_be_recorded_is_refused(words: Words) {
    let memory = Memory::default();
    let mut stage = Stage::signed_in(words, memory.clone()).await;
    memory.break_down();
    let (allowed, known_by) = stage.words.allowed.clone();
    stage.say(&allowed).await;
    let heard = stage.hear().await;
    assert!((stage.words.is_refusal)(&heard), "not a refusal: {}", heard.escape_ascii());
    let mut received = Vec::new();
    while let Ok(bytes) = stage.upstream.try_recv() {
        received.extend(bytes);
    }
    assert!(!contains(&received, known_by), "an unrecorded action arrived");
}

/// A session that is cut off at any point still closes its record, once.
pub async fn an_abort_closes_the_record_once(words: Words) {
    let mut stage = Stage::signed_in(words, Memory::default()).await;
    let (allowed, _) = stage.words.allowed.clone();
    stage.say(&allowed).await;
    stage.rig.session.abort();
    stage.ends_with_one_close().await;
}

/// A rig whose upstream is played by the protocol's words.
struct Stage {
    words: Words,
    rig: Rig,
    upstream: mpsc::UnboundedReceiver<Vec<u8>>,
    playing: JoinHandle<()>,
}

impl Stage {
    async fn set(words: Words, memory: Memory) -> Self {
        let (rig, listener) = Rig::set(words.protocol.as_ref(), words.bundle, memory).await;
        let (report, upstream) = mpsc::unbounded_channel();
        let play = words.upstream;
        let playing = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(play(stream, report.clone()));
            }
        });
        Self { words, rig, upstream, playing }
    }

    async fn signed_in(words: Words, memory: Memory) -> Self {
        let mut stage = Self::set(words, memory).await;
        stage.say(&stage.words.sign_in.clone()).await;
        let heard = stage.hear().await;
        assert!(!(stage.words.is_refusal)(&heard), "sign-in was refused: {}", heard.escape_ascii());
        stage
    }

    async fn say(&mut self, bytes: &[u8]) {
        let port = self.rig.port().to_string();
        let bytes = replaced(bytes, b"{port}", port.as_bytes());
        self.rig.client.write_all(&bytes).await.expect("the session takes what the client says");
    }

    /// What the client gets until the session waits for the next action.
    async fn hear(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let listening = async {
            while !(self.words.is_ready)(&heard) {
                let count = self.rig.client.read_buf(&mut heard).await.expect("the client can read");
                assert!(count > 0, "the session ended instead: {}", heard.escape_ascii());
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, listening).await.is_ok();
        assert!(in_time, "the session does not become ready: {}", heard.escape_ascii());
        heard
    }

    /// What the client gets until the session ends.
    async fn hear_all(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, self.rig.client.read_to_end(&mut heard)).await;
        assert!(ended.is_ok(), "the session does not end");
        heard
    }

    /// Everything the upstream gets, up to the part that is waited for.
    async fn upstream_gets(&mut self, part: &[u8]) -> Vec<u8> {
        let mut received = Vec::new();
        while !contains(&received, part) {
            let next = tokio::time::timeout(PATIENCE, self.upstream.recv()).await.ok().flatten();
            received.extend(next.expect("the action never arrived"));
        }
        received
    }

    async fn ends_with_one_close(mut self) {
        // Aborted or done: either way it is over.
        let _ = (&mut self.rig.session).await;
        assert_eq!(self.rig.memory.closes(), 1);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.playing.abort();
    }
}

fn replaced(bytes: &[u8], part: &[u8], by: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memmem::find(rest, part) {
        let (before, from) = rest.split_at(at);
        all.extend_from_slice(before);
        all.extend_from_slice(by);
        rest = from.strip_prefix(part).unwrap_or_default();
    }
    all.extend_from_slice(rest);
    all
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
