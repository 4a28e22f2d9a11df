//! Receivers that are told, over TLS on loopback.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::Value;
use tempfile::TempDir;
use tidegate_approvals::{
    Audience, Clock, Desk, Fact, Told,
    store::Store,
    webhooks::{Format, Retries, Target, Webhook, Webhooks},
};
use tidegate_gate::policy::Approval;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::common::{Kept, LIMITS, Safe, Says as _, account, ann, ask, held, question, terms};

const PATIENCE: Duration = Duration::from_secs(20);
const KEY: [u8; 32] = [7; 32];

/// What a receiver got.
struct Got {
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// As a receiver checks it, by the specification.
    fn is_signed(&self) -> bool {
        let (id, time) = (&self.headers["webhook-id"], &self.headers["webhook-timestamp"]);
        let age = jiff::Timestamp::now().as_second() - time.parse::<i64>().unwrap();
        let signed = [format!("{id}.{time}.").as_bytes(), &self.body].concat();
        let signature =
            STANDARD.decode(self.headers["webhook-signature"].strip_prefix("v1,").unwrap()).unwrap();
        age.abs() < 60 && hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), &signed, &signature).is_ok()
    }
}

/// A receiver that answers with these statuses in order, the last one from then on.
struct Receiver {
    url: String,
    ca: PathBuf,
    got: mpsc::UnboundedReceiver<Got>,
    serving: JoinHandle<()>,
    directory: TempDir,
}

impl Receiver {
    async fn start(statuses: &[u16]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/hook?token=t0ps3cret", listener.local_addr().unwrap().port());
        let (sender, got) = mpsc::unbounded_channel();
        let mut statuses = statuses.to_vec();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let status = if statuses.len() > 1 { statuses.remove(0) } else { statuses[0] };
                if let Some(request) = receive(stream, &acceptor, status).await {
                    sender.send(request).unwrap();
                }
            }
        });
        Self { url, ca, got, serving, directory }
    }

    async fn next(&mut self) -> Got {
        tokio::time::timeout(PATIENCE, self.got.recv()).await.expect("something is told").unwrap()
    }

    fn hook(&self, name: &str) -> Webhook {
        Webhook {
            facts: Fact::ALL.to_vec(),
            name: name.into(),
            target: Target::Url(self.url.parse().unwrap()),
            secret: Some("key".into()),
            format: Format::Json,
            events: Told::ALL.to_vec(),
            ca: Some(self.ca.clone()),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn receive(stream: TcpStream, acceptor: &TlsAcceptor, status: u16) -> Option<Got> {
    let mut stream = acceptor.accept(stream).await.ok()?;
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&chunk[..length]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let headers: HashMap<String, String> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let body = bytes[end + 4..].to_vec();
        if body.len() < headers["content-length"].parse().unwrap() {
            continue;
        }
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.shutdown().await.ok()?;
        return Some(Got { headers, body });
    }
}

fn with_key() -> Arc<Safe> {
    let safe = Safe::default();
    safe.put("key", &format!("whsec_{}", STANDARD.encode(KEY)));
    Arc::new(safe)
}

/// As soon as a test can wait.
const SOON: Retries = Retries {
    first: Duration::from_millis(20),
    longest: Duration::from_millis(100),
    pause: Duration::from_millis(50),
    end: Duration::from_secs(3600),
};

fn desk_of(store: &Arc<dyn Store>, hooks: &[Webhook]) -> Desk {
    let hooks = hooks.iter().map(|hook| (hook.name.clone(), hook.events.clone())).collect();
    Desk::open("host", store.clone(), LIMITS, Audience { hooks, page: None })
}

async fn send(desk: &Desk, hooks: Vec<Webhook>, retries: Retries) -> JoinHandle<()> {
    let webhooks = Webhooks::new(hooks, with_key(), retries).await.map_err(|why| why.join("; ")).unwrap();
    tokio::spawn(webhooks.run(desk.clone()))
}

async fn put(desk: &Desk, exact: u8) -> Arc<str> {
    let glass = Some(terms().by);
    let terms = Approval { break_glass: glass, ..terms() };
    let waits = ask(desk, question("s", vec![held("ask", terms)], (exact, exact))).await;
    // It stands: dropping it does not withdraw it.
    waits.id().clone()
}

/// Returns when no letter waits any more.
async fn none_waits(kept: &Kept) {
    let gone = async {
        while !kept.again.letters("host", "ops", Timestamp::now(), 1).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("no letter waits");
}

pub(crate) async fn what_happens_is_told_once_and_signed(kept: &Kept) {
    let mut receiver = Receiver::start(&[204]).await;
    let desk = desk_of(&kept.store, &[receiver.hook("ops")]);
    let sending = send(&desk, vec![receiver.hook("ops")], SOON).await;
    let id = put(&desk, 1).await;
    // An alert goes before what is not told yet.
    let asked = receiver.next().await;
    desk.show(&ann(), &id).await.unwrap();
    desk.break_glass(&ann(), &id, Some("fire")).await.unwrap();
    let broken = receiver.next().await;
    assert!(asked.is_signed() && broken.is_signed());
    assert_eq!(asked.headers["content-type"], "application/json");
    let (asked, broken) = (asked.json(), broken.json());
    assert_eq!((&asked["type"], &broken["type"]), (&"approval.asked".into(), &"approval.break-glass".into()));
    assert_eq!(asked["data"]["question"]["text"], "delete from orders where id = 1");
    assert_eq!((&broken["data"]["by"], &broken["data"]["reason"]), (&"ann".into(), &"fire".into()));
    assert_ne!(asked["id"], broken["id"]);
    none_waits(kept).await;
    sending.abort();
    assert!(receiver.got.try_recv().is_err(), "it was told twice");
}

pub(crate) async fn a_letter_that_was_not_taken_comes_again_under_its_id(kept: &Kept) {
    let mut receiver = Receiver::start(&[500, 403, 200]).await;
    let desk = desk_of(&kept.store, &[receiver.hook("ops")]);
    let _sending = send(&desk, vec![receiver.hook("ops")], SOON).await;
    put(&desk, 1).await;
    let attempts = [receiver.next().await, receiver.next().await, receiver.next().await];
    for attempt in &attempts {
        assert!(attempt.is_signed());
        assert_eq!(attempt.headers["webhook-id"], attempts[0].headers["webhook-id"]);
        assert_eq!(attempt.json()["id"], attempts[0].headers["webhook-id"].as_str());
        assert_eq!(attempt.body, attempts[0].body);
    }
}

pub(crate) async fn a_restart_loses_no_letter(kept: &Kept) {
    let mut receiver = Receiver::start(&[200]).await;
    let before = desk_of(&kept.store, &[receiver.hook("ops")]);
    let id = put(&before, 1).await;
    drop(before);
    let after = desk_of(&kept.again, &[receiver.hook("ops")]);
    let _sending = send(&after, vec![receiver.hook("ops")], SOON).await;
    assert_eq!(receiver.next().await.json()["data"]["question"]["id"], *id);
}

pub(crate) async fn a_dead_receiver_holds_up_neither_answers_nor_other_receivers(kept: &Kept) {
    let mut alive = Receiver::start(&[200]).await;
    // It takes connections and never says a word.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", deaf.local_addr().unwrap().port());
    let dead = Webhook { target: Target::Url(url.parse().unwrap()), ..alive.hook("dead") };
    let hooks = vec![dead, alive.hook("alive")];
    let desk = desk_of(&kept.store, &hooks);
    let _sending = send(&desk, hooks, SOON).await;
    for number in 1..=5 {
        let id = put(&desk, number).await;
        desk.approve(&ann(), &id, None).await.unwrap();
    }
    for _ in 0..10 {
        alive.next().await;
    }
    assert_eq!(kept.again.letters("host", "dead", Timestamp::now(), 20).await.unwrap().len(), 10);
}

pub(crate) async fn a_letter_that_nobody_takes_is_given_up(kept: &Kept) {
    let mut receiver = Receiver::start(&[400]).await;
    let desk = desk_of(&kept.store, &[receiver.hook("ops")]);
    let brief = Retries { end: Duration::from_millis(200), ..SOON };
    let sending = send(&desk, vec![receiver.hook("ops")], brief).await;
    put(&desk, 1).await;
    receiver.next().await;
    none_waits(kept).await;
    sending.abort();
}

pub(crate) async fn a_receiver_that_another_authority_vouches_for_is_told_nothing(kept: &Kept) {
    let (mut receiver, other) = (Receiver::start(&[200]).await, Receiver::start(&[200]).await);
    let false_ca = Webhook { ca: Some(other.directory.path().join("ca.pem")), ..receiver.hook("ops") };
    let desk = desk_of(&kept.store, std::slice::from_ref(&false_ca));
    let _sending = send(&desk, vec![false_ca], SOON).await;
    put(&desk, 1).await;
    let tried = async {
        while kept
            .again
            .letters("host", "ops", Timestamp::now(), 1)
            .await
            .unwrap()
            .iter()
            .all(|letter| letter.attempts < 2)
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.expect("it is tried");
    assert!(receiver.got.try_recv().is_err());
}

pub(crate) async fn a_chat_gets_a_message_at_its_secret_address(kept: &Kept) {
    for (number, format, title) in
        [(1, Format::Slack, "/text"), (2, Format::Teams, "/attachments/0/content/body/0/inlines/0/text")]
    {
        let mut receiver = Receiver::start(&[200]).await;
        let hook = Webhook {
            target: Target::Credential("chat".into()),
            secret: None,
            format,
            events: vec![Told::Asked],
            ..receiver.hook(&format!("chat-{number}"))
        };
        let desk = desk_of(&kept.store, std::slice::from_ref(&hook));
        let safe = with_key();
        safe.put("chat", &receiver.url);
        let webhooks = Webhooks::new(vec![hook], safe, SOON).await.map_err(|why| why.join("; ")).unwrap();
        let sending = tokio::spawn(webhooks.run(desk.clone()));
        let id = put(&desk, number).await;
        let got = receiver.next().await;
        sending.abort();
        assert!(!got.headers.contains_key("webhook-signature"));
        let message = got.json();
        let title = message.pointer(title).and_then(Value::as_str);
        assert_eq!(title, Some(&*format!("Approval {id} is asked for")), "{message}");
        let runs = format!("delete from orders where id = {number}");
        assert!(message.to_string().contains(&runs), "{message}");
    }
}

/// A clock that is two hours ahead while it tells, and is then set right.
pub(crate) async fn what_a_clock_that_was_ahead_wrote_is_told_at_once(kept: &Kept) {
    let mut receiver = Receiver::start(&[204]).await;
    for (number, ahead) in [(1, 3000), (2, 7200)] {
        let ahead = Clock::new(move || Timestamp::now() + Duration::from_secs(ahead));
        let hooks = vec![("ops".into(), Told::ALL.to_vec())];
        let audience = Audience { hooks, page: None };
        let before = Desk::open_by(ahead, "host", kept.store.clone(), LIMITS, audience);
        let id = put(&before, number).await;
        before.break_glass(&ann(), &id, Some("fire")).await.unwrap();
    }
    let after = desk_of(&kept.again, &[receiver.hook("ops")]);
    let _sending = send(&after, vec![receiver.hook("ops")], SOON).await;
    for event in ["break-glass", "break-glass", "asked", "asked"] {
        assert_eq!(receiver.next().await.json()["type"], format!("approval.{event}"));
    }
}

#[tokio::test]
async fn what_a_receiver_lacks_is_told_at_once_and_without_secrets() {
    let receiver = Receiver::start(&[200]).await;
    let safe = Safe::default();
    safe.put("weak", "hunter2");
    safe.put("plain", "http://hooks.example/hunter2");
    let lacking = |name: &str, secret: &str| Webhook { secret: Some(secret.into()), ..receiver.hook(name) };
    let hooks = vec![
        lacking("none", "missing"),
        lacking("weak", "weak"),
        Webhook { target: Target::Credential("plain".into()), ..receiver.hook("plain") },
        Webhook { ca: Some("/nonexistent/ca.pem".into()), ..receiver.hook("no-ca") },
    ];
    let problems = Webhooks::new(hooks, Arc::new(safe), SOON).await.err().unwrap();
    let words = [
        ["webhook \"none\"", "\"missing\" is in none of the configured places"],
        ["webhook \"weak\"", "weak.password is not `whsec_`"],
        ["webhook \"plain\"", "plain.password is not an https:// address"],
        ["webhook \"no-ca\"", "/nonexistent/ca.pem"],
    ];
    assert_eq!(problems.len(), words.len());
    for (problem, words) in problems.iter().zip(words) {
        assert!(words.iter().all(|word| problem.contains(word)), "{problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

pub(crate) async fn strangers_cause_no_letters(kept: &Kept) {
    let mut receiver = Receiver::start(&[200]).await;
    let desk = desk_of(&kept.store, &[receiver.hook("ops")]);
    let _sending = send(&desk, vec![receiver.hook("ops")], SOON).await;
    let id = put(&desk, 1).await;
    assert!(desk.deny(&account(3000, "bob"), &id, None).await.is_err());
    desk.deny(&ann(), &id, None).await.unwrap();
    let told = [receiver.next().await.json(), receiver.next().await.json()];
    assert_eq!(told.map(|told| told["type"].to_string()), ["\"approval.asked\"", "\"approval.denied\""]);
}
