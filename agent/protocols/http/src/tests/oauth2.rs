//! Resources whose token comes from an authorization server.

use std::sync::{Arc, Mutex};

use tidegate_gate::{
    Action, Decision, Protocol,
    policy::{Item, Policy, Shape, SourceFile, Value},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::stage::{Authority, PATIENCE, Play, Reached, Stage, accept, ok};
use crate::Http;

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
async fn a_reload_gets_no_token_again() {
    let endpoint = Endpoint::answering(token).await;
    let stage = stage(&endpoint, "", ok).await;
    assert!(get(&stage, "/open/1").await.starts_with("HTTP/1.1 200"));
    let stage = stage.configured_anew();
    assert!(get(&stage, "/open/2").await.starts_with("HTTP/1.1 200"));
    assert_eq!(endpoint.received().len(), 1);
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
    // It was not the token: what refuses any is not asked with a new one each time.
    for _ in 0..20 {
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

/// Gives for each ID token an access token of its own, and none for that of `eve`.
fn exchanged(request: &str) -> String {
    let subject =
        request.split("subject_token=").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or_default();
    if subject == "id-of-eve" {
        return answer("400 Bad Request", r#"{"error": "invalid_grant", "error_description": "id-of-eve"}"#);
    }
    let kind = "urn:ietf:params:oauth:token-type:access_token";
    let body = format!(
        r#"{{"access_token": "access-for-{subject}", "token_type": "Bearer", "expires_in": 600, "issued_token_type": "{kind}"}}"#
    );
    answer("200 OK", &body)
}

/// The API is used in the name that issuer `people` says one has.
async fn in_their_names(endpoint: &Endpoint) -> Stage {
    let issuer = "issuers: {people: {url: \"https://people.test\", audience: gate, tokens: [present]}}\n";
    let options = format!("{}\n    identity: people", endpoint.options(", audience: it"));
    let rules = format!("{issuer}{RULES}");
    Stage::set(&rules, &options, Reached::Plainly, ok).await.signs_in(Some("gate"), "hunter2")
}

fn sent_as(stage: &Stage) -> String {
    let sent = stage.received().pop().unwrap();
    sent.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn each_one_s_own_token_is_exchanged_and_kept_apart() {
    let endpoint = Endpoint::answering(exchanged).await;
    let mut stage = in_their_names(&endpoint).await;
    for (subject, token) in
        [("ada", "id-of-ada"), ("bob", "id-of-bob"), ("ada", "id-of-ada"), ("ada", "id-of-ada-2")]
    {
        stage.vouched_for(subject, token);
        let told = get(&stage, "/open/1").await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        assert_eq!(sent_as(&stage), format!("access-for-{token}"));
        assert!(!told.contains(token), "{told}");
    }
    let asked = endpoint.received();
    assert_eq!(asked.len(), 3, "{asked:?}");
    for part in [
        "authorization: Basic Z2F0ZTpodW50ZXIy",
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=id-of-ada&",
        "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid_token",
        "requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&audience=it",
    ] {
        assert!(asked[0].contains(part), "{part}: {}", asked[0]);
    }
    let recorded = format!("{:?}", stage.memory.lines());
    assert!(recorded.contains("in the name of \\\"bob\\\""), "{recorded}");
    for secret in ["id-of-", "access-for", "hunter2"] {
        assert!(!recorded.contains(secret), "{secret}: {recorded}");
    }
}

#[tokio::test]
async fn whoever_is_nobody_is_refused_and_told_how_to_be_somebody() {
    let endpoint = Endpoint::answering(exchanged).await;
    let stage = in_their_names(&endpoint).await;
    let told = get(&stage, "/open/1").await;
    assert!(told.starts_with("HTTP/1.1 403") && told.contains("tidegate present"), "{told}");
    assert!(endpoint.received().is_empty() && stage.received().is_empty());
}

#[tokio::test]
async fn a_token_is_shown_by_a_permit_of_its_own_session_alone() {
    let endpoint = Endpoint::answering(exchanged).await;
    let mut stage = in_their_names(&endpoint).await;
    let ada = stage.vouched_for("ada", "id-of-ada");
    let (gate, other) = (stage.gate(), stage.gate());
    let fields = vec![
        ("action", Value::Word("request")),
        ("method", Value::Word("GET")),
        ("path", Value::Text("/open/1".into())),
    ];
    let shape = Shape { items: vec![Item { fields, must_name: None }], open: true, ..Shape::default() };
    let asked = gate.ask(Action { name: "request", shape: &shape.into(), text: "it", count: 1 }).await;
    let Decision::Permit(permit) = asked else { panic!("{asked:?}") };
    assert_eq!(&*gate.proof(&permit).unwrap().subject, "ada");
    assert!(other.proof(&permit).is_err());
    ada.ends();
    assert!(gate.proof(&permit).is_err());
}

#[tokio::test]
async fn what_is_refused_to_one_is_not_refused_to_others() {
    let endpoint = Endpoint::answering(exchanged).await;
    let mut stage = in_their_names(&endpoint).await;
    stage.vouched_for("eve", "id-of-eve");
    for _ in 0..2 {
        let told = get(&stage, "/open/1").await;
        assert!(told.starts_with("HTTP/1.1 502") && !told.contains("id-of-eve"), "{told}");
    }
    stage.vouched_for("ada", "id-of-ada");
    assert!(get(&stage, "/open/1").await.starts_with("HTTP/1.1 200"));
    assert_eq!(endpoint.received().len(), 2, "eve is left alone for a while: {:?}", endpoint.received());
    let recorded = format!("{:?}", stage.memory.lines());
    assert!(recorded.contains("status 400, invalid_grant") && !recorded.contains("id-of-eve"), "{recorded}");
}

#[tokio::test]
async fn nobody_s_name_is_used_once_they_have_logged_out() {
    let endpoint = Endpoint::answering(exchanged).await;
    let mut stage = in_their_names(&endpoint).await;
    let ada = stage.vouched_for("ada", "id-of-ada");
    let (mut client, _) = stage.connect().await;
    let request = stage.request("GET /open/1", "").replace("Connection: close\r\n", "");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut heard = [0; 15];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HTTP/1.1 200 OK");
    ada.ends();
    client.write_all(stage.request("GET /open/2", "").as_bytes()).await.unwrap();
    let mut rest = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(rest.contains("HTTP/1.1 403") && rest.contains("people"), "{rest}");
    assert_eq!(
        stage.received().len(),
        1,
        "although the token it was got for is kept: {:?}",
        stage.received()
    );
}

#[test]
fn a_resource_that_signs_in_by_another_way_is_used_in_nobody_s_name() {
    let text = "tidegate: 1\nname: it\nsubjects: {ci: {users: [\"0\"]}}\nissuers: {people: {url: \"https://people.test\", \
                audience: gate, tokens: [present]}}\nresources: {it: {protocol: http, addresses: [\"it.test:443\"], identity: \
                people, credential: it}}\nrules: [{name: all, subjects: [ci], resources: [it], allow: [{}]}]\n";
    let file = SourceFile { path: "it.yaml".into(), text: text.into() };
    let policy = Policy::load(&[file], &[Http::default().vocabulary()]).unwrap();
    let error = Http::default().configure(&policy.resources[0]).err().unwrap();
    assert!(error.message.contains("identity: only with"), "{}", error.message);
}
