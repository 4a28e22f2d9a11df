//! People at the device flow.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tidegate_policy::Issuer;
use tokio::runtime::Handle;

use super::{
    issuer::{Stub, issuer},
    minted::{CLIENT, Signer, claims},
    processes::{Told, UID, id},
};
use crate::{Defect, Login, Registry, registry::now};

const PATIENCE: Duration = Duration::from_secs(30);

/// A person's shell (20), which leads its session, and the command they run (30).
pub(super) struct World {
    pub(super) stub: Stub,
    pub(super) told: Told,
    pub(super) registry: Registry,
    /// What the issuer answers at its token endpoint, in order; the last one from then on.
    answers: Arc<Mutex<Vec<(u16, Value)>>>,
    signer: Signer,
    pub(super) url: String,
}

/// An agent's registry, which knows this issuer.
pub(super) fn begin(told: &Told, issuer: &Arc<Issuer>) -> Registry {
    let registry = Registry::on(Arc::new(told.clone()), None, Handle::current(), Box::new(|_| ())).unwrap();
    registry.adopt(registry.prepare(std::slice::from_ref(issuer)).unwrap());
    registry
}

impl World {
    pub(super) async fn new() -> Self {
        let signer = Signer::rsa("one");
        let stub = Stub::start(&[&signer]).await;
        let told = Told::default();
        for (parent, pid) in [(0, 1), (1, 10), (10, 20)] {
            told.fork(parent, pid);
        }
        told.set_uid(10, 0);
        told.set_session(20);
        told.fork(20, 30);
        let registry = begin(&told, &issuer(&stub.url, Some(&stub)));
        let answers = Arc::new(Mutex::new(Vec::<(u16, Value)>::new()));
        let (answering, url) = (answers.clone(), stub.url.clone());
        stub.on("/token", move |_| {
            let mut answers = answering.lock().unwrap();
            let (status, body) = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            (status, body.to_string())
        });
        stub.on("/revoke", |_| (200, String::new()));
        let visit = json!({
            "device_code": "dev-1", "user_code": "ABCD-EFGH", "expires_in": 60, "interval": 1,
            "verification_uri": format!("{url}/visit"),
            "verification_uri_complete": format!("{url}/visit?code=ABCD-EFGH"),
        });
        stub.on("/device", move |_| (200, visit.to_string()));
        Self { stub, told, registry, answers, signer, url }
    }

    pub(super) fn answer(&self, answers: Vec<(u16, Value)>) {
        *self.answers.lock().unwrap() = answers;
    }

    pub(super) fn tokens(&self, subject: &str, seconds: i64) -> (u16, Value) {
        let mut claims = claims(&issuer(&self.url, None), subject);
        claims["aud"] = json!(CLIENT);
        claims["exp"] = json!(now() + seconds);
        (200, json!({"id_token": self.signer.sign(&claims), "refresh_token": format!("refresh-{subject}")}))
    }

    async fn begin(&self, pid: u32) -> Result<Login, Defect> {
        self.registry.login(id(pid), None).await
    }

    pub(super) async fn log_in(&self, pid: u32) {
        self.begin(pid).await.unwrap().finish().await.unwrap();
    }

    pub(super) async fn subjects(&self, pid: u32) -> Vec<String> {
        let identified = self.registry.identify(id(pid), UID).await;
        identified.now.borrow().iter().map(|identity| identity.subject.to_string()).collect()
    }
}

#[tokio::test]
async fn a_login_waits_for_the_person_and_counts_for_the_session() {
    let world = World::new().await;
    let pending = (400, json!({"error": "authorization_pending"}));
    world.answer(vec![pending.clone(), pending, world.tokens("alice", 300)]);
    let login = world.begin(30).await.unwrap();
    assert_eq!((&*login.visit().code, login.visit().seconds), ("ABCD-EFGH", 60));
    assert!(world.subjects(30).await.is_empty());
    assert_eq!(&*login.finish().await.unwrap().subject, "alice");
    world.told.end(30);
    world.told.fork(20, 31);
    assert_eq!(world.subjects(31).await, ["alice"]);
    assert!(world.subjects(10).await.is_empty());
    let asked = world.stub.asked("/device").remove(0);
    for words in ["client_id=tidegate-cli", "scope=openid+offline_access", "code_challenge_method=S256"] {
        assert!(asked.contains(words), "{asked}");
    }
    let polled = world.stub.asked("/token");
    assert_eq!(polled.len(), 3);
    assert!(polled[0].contains("device_code=dev-1") && polled[0].contains("code_verifier="), "{}", polled[0]);
}

/// RFC 8628, section 3.5: five seconds more, from then on.
#[tokio::test]
async fn an_issuer_that_is_asked_too_often_is_asked_more_slowly() {
    let world = World::new().await;
    let slower = (400, json!({"error": "slow_down"}));
    world.answer(vec![slower, world.tokens("alice", 300)]);
    let login = world.begin(30).await.unwrap();
    let finishing = tokio::spawn(async move { login.finish().await });
    while world.stub.asked("/token").is_empty() {
        tokio::task::yield_now().await;
    }
    let asked = Instant::now();
    assert_eq!(&*finishing.await.unwrap().unwrap().subject, "alice");
    assert!(asked.elapsed() > Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(world.stub.asked("/token").len(), 2);
}

#[tokio::test]
async fn a_login_that_is_denied_or_runs_out_says_so() {
    let world = World::new().await;
    for code in ["access_denied", "expired_token"] {
        world.answer(vec![(400, json!({"error": code}))]);
        let failed = world.begin(30).await.unwrap().finish().await.unwrap_err().to_string();
        assert!(failed.contains(code), "{failed}");
    }
    assert!(world.subjects(30).await.is_empty());
}

#[tokio::test]
async fn a_token_for_another_client_logs_nobody_in() {
    let world = World::new().await;
    let claims = claims(&issuer(&world.url, None), "alice");
    world.answer(vec![(200, json!({"id_token": world.signer.sign(&claims)}))]);
    let failed = world.begin(30).await.unwrap().finish().await.unwrap_err();
    assert_eq!(failed, Defect::Audience(CLIENT.into()));
}

#[tokio::test]
async fn an_answer_that_would_play_with_the_terminal_is_not_shown() {
    let world = World::new().await;
    let url = world.url.clone();
    world.stub.on("/device", move |_| {
        let visit = json!({
            "device_code": "d", "user_code": "A\u{1b}[2J", "expires_in": 60, "verification_uri": url,
        });
        (200, visit.to_string())
    });
    assert!(world.begin(30).await.err().unwrap().to_string().contains("nothing to show to a person"));
}

#[tokio::test]
async fn a_login_is_renewed_while_its_session_lives_and_revoked_when_it_ends() {
    let world = World::new().await;
    let later = world.tokens("alice", 300);
    world.answer(vec![world.tokens("alice", 8), later]);
    world.log_in(30).await;
    let mut session = world.registry.identify(id(30), UID).await.now;
    let renewed =
        session.wait_for(|now| now.first().is_some_and(|identity| identity.expires > self::now() + 100));
    tokio::time::timeout(PATIENCE, renewed).await.unwrap().unwrap();
    assert!(world.stub.asked("/token").last().unwrap().contains("refresh_token=refresh-alice"));
    world.told.end(20);
    let ended = session.wait_for(|now| now.is_empty());
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
    let revoked = async {
        while world.stub.asked("/revoke").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, revoked).await.unwrap();
    assert!(world.stub.asked("/revoke")[0].contains("token=refresh-alice"));
}

#[tokio::test]
async fn an_issuer_that_is_asked_too_much_or_is_behind_a_proxy_that_refuses_ends_no_login() {
    let world = World::new().await;
    let (busy, proxy) = ((429, json!({"error": "too_many_requests"})), (403, json!("<html>")));
    world.answer(vec![world.tokens("alice", 8), busy, proxy, world.tokens("alice", 300)]);
    world.log_in(30).await;
    let mut session = world.registry.identify(id(30), UID).await.now;
    let is_later = |identity: &tidegate_policy::Identity| identity.expires > now() + 100;
    let renewed = session.wait_for(|now| now.first().is_none_or(is_later));
    let renewed = tokio::time::timeout(PATIENCE, renewed).await.unwrap().unwrap();
    assert_eq!(renewed.len(), 1, "she was logged out");
    assert!(world.stub.asked("/revoke").is_empty());
}

#[tokio::test]
async fn a_login_that_the_issuer_renews_no_more_ends() {
    let world = World::new().await;
    world.answer(vec![world.tokens("alice", 20), (400, json!({"error": "invalid_grant"}))]);
    world.log_in(30).await;
    let mut session = world.registry.identify(id(30), UID).await.now;
    let ended = session.wait_for(|now| now.is_empty());
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_login_counts_for_the_same_account_s_processes_of_the_login_session() {
    let world = World::new().await;
    world.told.set_login(20, 7);
    world.told.set_login(30, 7);
    world.answer(vec![world.tokens("alice", 300)]);
    world.log_in(30).await;
    // A terminal multiplexer's server, which belongs to nobody else any more, and another account's process.
    world.told.fork(1, 50);
    world.told.set_login(50, 7);
    assert_eq!(world.subjects(50).await, ["alice"]);
    world.told.fork(1, 51);
    world.told.set_login(51, 7);
    world.told.set_uid(51, UID + 1);
    assert!(world.subjects(51).await.is_empty());
}

#[tokio::test]
async fn a_login_without_a_shell_of_the_account_s_own_is_refused_before_anybody_is_sent_anywhere() {
    let world = World::new().await;
    world.told.set_uid(20, UID + 1);
    assert!(matches!(world.begin(30).await.err().unwrap(), Defect::NoTree(_)));
    assert!(world.stub.asked("/device").is_empty());
}
