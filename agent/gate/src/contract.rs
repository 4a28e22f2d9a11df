//! What every protocol must hold, whatever it speaks: each function is one promise, for a protocol's tests to call
//! with its own [`Words`], on a runtime of several threads.

mod holds;
mod people;
mod rig;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use crate::{BoxFuture, Protocol};
pub use holds::{
    a_client_that_goes_away_takes_its_question_back,
    a_held_action_waits_for_a_yes_and_goes_on_in_its_connection,
    a_held_action_without_a_yes_is_refused_and_the_session_goes_on,
    an_agent_that_stops_leaves_a_question_standing, what_an_identity_lets_do_ends_with_it,
};
pub use people::People;
pub use rig::{Memory, PATIENCE, Rig, SERVER};

/// How long the upstream is listened to for what must not come: anything that comes was sent long before.
const SILENCE: Duration = Duration::from_millis(100);

/// Plays the upstream on one connection, and reports every byte it gets, as it gets it.
pub type Upstream = fn(TcpStream, mpsc::UnboundedSender<Vec<u8>>) -> BoxFuture<'static, ()>;

/// A protocol's own words for what the contract speaks of. In what clients say, `{port}` stands for the resource's port.
pub struct Words {
    /// The protocol.
    pub protocol: Arc<dyn Protocol>,
    /// A bundle with a resource named `it` at `127.0.0.1:{port}`, a subject named `tester`, and an issuer named `people`.
    pub bundle: &'static str,
    /// What a client opens with; the bundle allows it.
    pub sign_in: Vec<u8>,
    /// The same, but not allowed.
    pub forbidden_sign_in: Vec<u8>,
    /// An action that is allowed, and a part of it by which the upstream knows it.
    pub allowed: (Vec<u8>, &'static [u8]),
    /// An action that is not allowed, and a part of it that must never reach the upstream.
    pub forbidden: (Vec<u8>, &'static [u8]),
    /// An action that a rule of the bundle lets through once an hour, and a part of it by which the upstream knows it.
    pub limited: (Vec<u8>, &'static [u8]),
    /// An action that waits for people, and a part of it by which the upstream knows it.
    pub held: (Vec<u8>, &'static [u8]),
    /// An action that is only allowed to whom the issuer `people` knows, likewise.
    pub vouched: (Vec<u8>, &'static [u8]),
    /// Plays the upstream.
    pub upstream: Upstream,
    /// Whether what the client got ends in a session that waits for the next action.
    pub is_ready: fn(&[u8]) -> bool,
    /// Whether what the client got is a refusal in the protocol's own terms.
    pub is_refusal: fn(&[u8]) -> bool,
}

/// No byte goes upstream, not even a connection, before the sign-in was allowed.
pub async fn nothing_reaches_the_upstream_before_admission(words: Words) {
    let mut stage = Stage::set(&words, Memory::default()).await;
    stage.say(&words.forbidden_sign_in).await;
    let heard = stage.hear_all().await;
    assert!((words.is_refusal)(&heard), "not a refusal: {}", heard.escape_ascii());
    stage.ends_with_one_close().await;
    assert!(!stage.was_connected_to().await, "the upstream was connected to");
}

/// What the client says before it was admitted waits for that: while the sign-in is being recorded, nobody connects.
pub async fn the_record_precedes_the_connection(words: Words) {
    let memory = Memory::default();
    let mut stage = Stage::set(&words, memory.clone()).await;
    let held = memory.hold_back();
    stage.say(&words.sign_in).await;
    memory.holds_one_back().await;
    assert!(!stage.was_connected_to().await, "the upstream was connected to before that was recorded");
    drop(held);
    let heard = stage.hear(&words).await;
    assert!(!(words.is_refusal)(&heard), "sign-in was refused: {}", heard.escape_ascii());
}

/// A refused action never arrives, is refused in the protocol's own terms, and leaves the session usable.
pub async fn a_refused_action_never_arrives_and_the_session_goes_on(words: Words) {
    let mut stage = Stage::signed_in(&words, Memory::default()).await;
    let ((forbidden, marker), (allowed, known_by)) = (&words.forbidden, &words.allowed);
    stage.say(forbidden).await;
    let heard = stage.hear(&words).await;
    assert!((words.is_refusal)(&heard), "not a refusal: {}", heard.escape_ascii());
    stage.say(allowed).await;
    let mut received = stage.upstream_gets(known_by).await;
    assert!(!(words.is_refusal)(&stage.hear(&words).await), "the session is not usable after a refusal");
    received.extend(stage.all_that_the_upstream_got().await);
    assert!(!contains(&received, marker), "the refused action arrived: {}", received.escape_ascii());
}

/// Nothing of an action arrives upstream before the record of it is written; the record began with the tier it was made
/// under.
pub async fn the_record_precedes_the_action(words: Words) {
    let memory = Memory::default();
    let mut stage = Stage::signed_in(&words, memory.clone()).await;
    let (allowed, known_by) = &words.allowed;
    let held = memory.hold_back();
    stage.say(allowed).await;
    memory.holds_one_back().await;
    let early = stage.upstream_gets_within(SILENCE).await;
    assert!(
        !contains(&early, known_by),
        "the action arrived before it was recorded: {}",
        early.escape_ascii()
    );
    drop(held);
    stage.upstream_gets(known_by).await;
    let lines = stage.rig.memory.lines();
    assert_eq!(lines.first().and_then(|line| line["tier"].as_str()), Some("full"), "the record has no tier");
}

/// An action that cannot be recorded is refused, and never arrives.
pub async fn what_cannot_be_recorded_is_refused(words: Words) {
    let memory = Memory::default();
    let mut stage = Stage::signed_in(&words, memory.clone()).await;
    memory.break_down();
    let (allowed, known_by) = &words.allowed;
    stage.say(allowed).await;
    let heard = stage.hear(&words).await;
    assert!((words.is_refusal)(&heard), "not a refusal: {}", heard.escape_ascii());
    let received = stage.all_that_the_upstream_got().await;
    assert!(!contains(&received, known_by), "an unrecorded action arrived: {}", received.escape_ascii());
}

/// What is over a rule's rate never arrives and is refused in the protocol's own terms, and the session goes on. A principal
/// gets no more by another connection, nor by a bundle that says the same.
pub async fn what_is_over_its_rate_is_refused_and_the_session_goes_on(words: Words) {
    let mut stage = Stage::signed_in(&words, Memory::default()).await;
    let ((limited, marker), (allowed, known_by)) = (&words.limited, &words.allowed);
    stage.say(limited).await;
    stage.upstream_gets(marker).await;
    assert!(!(words.is_refusal)(&stage.hear(&words).await), "the rate leaves room for one");
    for anew in [false, true] {
        if anew {
            stage.rig.reload(words.bundle);
            let (client, session) = stage.rig.connect().await;
            (stage.rig.client, stage.rig.session) = (client, session);
            stage.say(&words.sign_in).await;
            stage.hear(&words).await;
        }
        stage.upstream_gets_within(SILENCE).await;
        stage.say(limited).await;
        let heard = stage.hear(&words).await;
        assert!((words.is_refusal)(&heard), "not a refusal: {}", heard.escape_ascii());
        let received = stage.upstream_gets_within(SILENCE).await;
        assert!(!contains(&received, marker), "what is over the rate arrived: {}", received.escape_ascii());
    }
    stage.say(allowed).await;
    stage.upstream_gets(known_by).await;
    assert!(!(words.is_refusal)(&stage.hear(&words).await), "the session is not usable afterwards");
    let lines = stage.rig.memory.lines();
    let refused = |line: &&serde_json::Value| line["decision"] == "deny" && line["rule"] == "limited";
    assert_eq!(lines.iter().filter(refused).count(), 2, "{lines:?}");
}

/// A session that is cut off still closes its record, once: after whatever part of the play, in whatever it is doing.
pub async fn an_abort_closes_the_record_once(words: Words) {
    for said in parts(&words.sign_in) {
        let mut stage = Stage::set(&words, Memory::default()).await;
        stage.say(said).await;
        stage.cut_off().await;
    }
    let ((allowed, known_by), (forbidden, _)) = (&words.allowed, &words.forbidden);
    for said in parts(allowed).chain(parts(forbidden)) {
        let mut stage = Stage::signed_in(&words, Memory::default()).await;
        stage.say(said).await;
        stage.cut_off().await;
    }
    let mut stage = Stage::signed_in(&words, Memory::default()).await;
    stage.say(allowed).await;
    stage.upstream_gets(known_by).await;
    stage.cut_off().await;
    for said in [allowed, forbidden] {
        let mut stage = Stage::signed_in(&words, Memory::default()).await;
        stage.say(said).await;
        stage.hear(&words).await;
        stage.cut_off().await;
    }
}

/// A client that leaves, after whatever part of the play, leaves one closed record.
pub async fn a_client_that_leaves_closes_the_record_once(words: Words) {
    for said in parts(&words.sign_in) {
        let mut stage = Stage::set(&words, Memory::default()).await;
        stage.say(said).await;
        stage.left().await;
    }
    for said in parts(&words.allowed.0) {
        let mut stage = Stage::signed_in(&words, Memory::default()).await;
        stage.say(said).await;
        stage.left().await;
    }
}

/// Beginnings of what is said, from nothing to all of it: a dozen.
fn parts(said: &[u8]) -> impl Iterator<Item = &[u8]> {
    const MOST: usize = 12;
    let step = said.len().div_ceil(MOST).max(1);
    (0..said.len()).step_by(step).chain([said.len()]).filter_map(|length| said.get(..length))
}

/// A rig whose upstream is played by the protocol's words.
struct Stage {
    rig: Rig,
    upstream: mpsc::UnboundedReceiver<Vec<u8>>,
    connected: mpsc::UnboundedReceiver<SocketAddr>,
    playing: JoinSet<()>,
}

impl Stage {
    async fn set(words: &Words, memory: Memory) -> Self {
        let (rig, listener) = Rig::set(words.protocol.as_ref(), words.bundle, memory).await;
        let (report, upstream) = mpsc::unbounded_channel();
        let (arrival, connected) = mpsc::unbounded_channel();
        let play = words.upstream;
        let mut playing = JoinSet::new();
        playing.spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                // Whoever does not listen any more needs no report.
                let _ = arrival.send(peer);
                tokio::spawn(play(stream, report.clone()));
            }
        });
        Self { rig, upstream, connected, playing }
    }

    async fn signed_in(words: &Words, memory: Memory) -> Self {
        let mut stage = Self::set(words, memory).await;
        stage.say(&words.sign_in).await;
        let heard = stage.hear(words).await;
        assert!(!(words.is_refusal)(&heard), "sign-in was refused: {}", heard.escape_ascii());
        stage
    }

    async fn say(&mut self, bytes: &[u8]) {
        let port = self.rig.port().to_string();
        let bytes = replaced(bytes, b"{port}", port.as_bytes());
        self.rig.client.write_all(&bytes).await.expect("the session takes what the client says");
    }

    /// What the client gets until the session waits for the next action.
    async fn hear(&mut self, words: &Words) -> Vec<u8> {
        let mut heard = Vec::new();
        let listening = async {
            while !(words.is_ready)(&heard) {
                let count = self.rig.client.read_buf(&mut heard).await.expect("the client can read");
                assert!(count > 0, "the session ended instead: {}", heard.escape_ascii());
            }
        };
        let in_time = timeout(PATIENCE, listening).await.is_ok();
        assert!(in_time, "the session does not become ready: {}", heard.escape_ascii());
        heard
    }

    /// What the client gets until the session ends.
    async fn hear_all(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let ended = timeout(PATIENCE, self.rig.client.read_to_end(&mut heard)).await;
        assert!(ended.is_ok(), "the session does not end");
        heard
    }

    /// Everything the upstream gets, up to the part that is waited for.
    async fn upstream_gets(&mut self, part: &[u8]) -> Vec<u8> {
        let mut received = Vec::new();
        while !contains(&received, part) {
            let next = timeout(PATIENCE, self.upstream.recv()).await.ok().flatten();
            received.extend(next.expect("the action never arrived"));
        }
        received
    }

    /// Everything the upstream gets in this time.
    async fn upstream_gets_within(&mut self, time: Duration) -> Vec<u8> {
        let mut received = Vec::new();
        let listening = async {
            while let Some(bytes) = self.upstream.recv().await {
                received.extend(bytes);
            }
        };
        let _ = timeout(time, listening).await;
        received
    }

    /// Whether anybody has connected to the upstream by now. Connections are taken in the order in which they come, so one
    /// of the test's own tells.
    async fn was_connected_to(&mut self) -> bool {
        let own = TcpStream::connect(("127.0.0.1", self.rig.port())).await.expect("the upstream listens");
        let own = own.local_addr().expect("a connected socket has an address");
        let first = timeout(PATIENCE, self.connected.recv()).await.ok().flatten();
        first.expect("connections are taken") != own
    }

    /// The client leaves; then everything that the upstream got and that was not looked at yet.
    async fn all_that_the_upstream_got(mut self) -> Vec<u8> {
        self.rig.client.shutdown().await.expect("the client may leave");
        let ended = timeout(PATIENCE, &mut self.rig.session).await;
        assert!(ended.is_ok(), "the session does not end when its client leaves");
        self.playing.shutdown().await;
        // With it go connections that are not the session's own.
        drop(self.rig);
        let mut received = Vec::new();
        let listening = async {
            while let Some(bytes) = self.upstream.recv().await {
                received.extend(bytes);
            }
        };
        assert!(timeout(PATIENCE, listening).await.is_ok(), "a connection to the upstream is left over");
        received
    }

    async fn cut_off(mut self) {
        self.rig.session.abort();
        self.ends_with_one_close().await;
    }

    async fn left(mut self) {
        self.rig.client.shutdown().await.expect("the client may leave");
        self.ends_with_one_close().await;
    }

    async fn ends_with_one_close(&mut self) {
        // Aborted or done: either way it is over.
        let ended = timeout(PATIENCE, &mut self.rig.session).await;
        assert!(ended.is_ok(), "the session does not end");
        assert_eq!(self.rig.memory.closes(), 1);
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
