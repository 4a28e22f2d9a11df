//! Resources whose token comes from an authorization server.

use std::sync::{Arc, Mutex};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::stage::{Authority, Play, Reached, Stage, accept, ok};

const RULES: &str = r#"
rules:
  - {name: read, subjects: [tester], resources: [it], allow: [{method: GET, path: "/open/**"}]}
"#;

/// A token endpoint with TLS.
struct Endpoint {
    url: String,
    directory: tempfile::TempDir,
    received: Arc<Mutex<Vec<String>>>,
    playing: JoinHandle<()>,
}

impl Endpoint {
    async fn answering(play: Play) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
        let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let tls = TlsAcceptor::from(authority.server("localhost", &[b"http/1.1"]));
        let received = Arc::<Mutex<Vec<String>>>::default();
        let playing = tokio::spawn(accept(listener, Some(tls), play, received.clone()));
        Self { url, directory, received, playing }
    }

    fn options(&self, more: &str) -> String {
        let ca = self.directory.path().join("ca.pem");
        format!("{{sign-in: {{oauth2: {{url: \"{}\", ca: {}{more}}}}}}}", self.url, ca.display())
    }

    fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.playing.abort();
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn token(_: &str) -> String {
    answer("200 OK", r#"{"access_token": "t0ken", "token_type": "Bearer", "expires_in": 600}"#)
}

fn short(_: &str) -> String {
    answer("200 OK", r#"{"access_token": "t0ken", "token_type": "Bearer", "expires_in": 0}"#)
}

fn refused(_: &str) -> String {
    answer("401 Unauthorized", r#"{"error": "invalid_client", "error_description": "hunter2"}"#)
}

fn unauthorized(_: &str) -> String {
    "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".into()
}

async fn stage(endpoint: &Endpoint, more: &str, play: Play) -> Stage {
    Stage::set(RULES, &endpoint.options(more), Reached::Plainly, play).await.signs_in(Some("gate"), "hunter2")
}

async fn get(stage: &Stage, path: &str) -> String {
    stage.told(&stage.request(&format!("GET {path}"), "Authorization: Bearer mine\r\n")).await
}

#[tokio::test]
async fn a_token_is_got_once_for_all_and_neither_it_nor_the_secret_is_told() {
    let endpoint = Endpoint::answering(token).await;
    let stage = stage(&endpoint, ", scope: \"read write\", audience: it", ok).await;
    let all = tokio::join!(get(&stage, "/open/1"), get(&stage, "/open/2"), get(&stage, "/open/3"));
    for told in [&all.0, &all.1, &all.2] {
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    }
    let asked = endpoint.received();
    assert_eq!(asked.len(), 1, "{asked:?}");
    for part in [
        "POST /token HTTP/1.1",
        "authorization: Basic Z2F0ZTpodW50ZXIy",
        "grant_type=client_credentials&scope=read+write&audience=it",
    ] {
        assert!(asked[0].contains(part), "{part}: {}", asked[0]);
    }
    for sent in stage.received() {
        assert!(sent.contains("authorization: Bearer t0ken\r\n") && !sent.contains("mine"), "{sent}");
        assert!(!sent.contains("hunter2"), "{sent}");
    }
    let recorded = format!("{:?}", stage.memory.lines());
    assert!(!recorded.contains("t0ken") && !recorded.contains("hunter2"), "{recorded}");
}

#[tokio::test]
async fn nothing_is_asked_for_what_is_refused() {
    let endpoint = Endpoint::answering(token).await;
    let stage = stage(&endpoint, "", ok).await;
    assert!(get(&stage, "/secret").await.starts_with("HTTP/1.1 403"));
    assert!(endpoint.received().is_empty());
}

#[tokio::test]
async fn a_token_that_ends_or_is_not_taken_is_replaced() {
    let endpoint = Endpoint::answering(short).await;
    let ended = stage(&endpoint, ", client: body", ok).await;
    for _ in 0..2 {
        assert!(get(&ended, "/open/1").await.starts_with("HTTP/1.1 200"));
    }
    let asked = endpoint.received();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].ends_with("client_id=gate&client_secret=hunter2"), "{}", asked[0]);
    assert!(!asked[0].contains("authorization"), "{}", asked[0]);
    let endpoint = Endpoint::answering(token).await;
    let revoked = stage(&endpoint, "", unauthorized).await;
    for _ in 0..2 {
        assert!(get(&revoked, "/open/1").await.starts_with("HTTP/1.1 401"));
    }
    assert_eq!(endpoint.received().len(), 2);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_the_record_says_why() {
    let endpoint = Endpoint::answering(refused).await;
    let stage = stage(&endpoint, "", ok).await;
    for _ in 0..2 {
        let told = get(&stage, "/open/1").await;
        assert!(told.starts_with("HTTP/1.1 502") && !told.contains("hunter2"), "{told}");
    }
    assert!(stage.received().is_empty());
    // Whoever refuses is left alone for a while.
    assert_eq!(endpoint.received().len(), 1);
    let recorded = format!("{:?}", stage.memory.lines());
    assert!(recorded.contains("status 401, invalid_client") && !recorded.contains("hunter2"), "{recorded}");
}

#[tokio::test]
async fn an_endpoint_that_another_authority_vouches_for_gets_no_secret() {
    let (endpoint, other) = (Endpoint::answering(token).await, Endpoint::answering(token).await);
    let options = endpoint.options("").replace(&endpoint.url, &other.url);
    let stage = Stage::set(RULES, &options, Reached::Plainly, ok).await.signs_in(Some("gate"), "hunter2");
    assert!(get(&stage, "/open/1").await.starts_with("HTTP/1.1 502"));
    assert!(other.received().is_empty() && stage.received().is_empty());
    let recorded = format!("{:?}", stage.memory.lines());
    assert!(
        recorded.contains("token-unavailable") && recorded.contains("invalid peer certificate"),
        "{recorded}"
    );
}
