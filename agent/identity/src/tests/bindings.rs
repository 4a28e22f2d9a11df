//! For whom a token counts, and for whom it does not.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_policy::{Elsewhere, Identity, Issuer, TokenSource};
use tokio::{runtime::Handle, sync::watch};

use super::{
    issuer::{Stub, issuer},
    minted::{Signer, claims},
    processes::{Told, UID, id},
};
use crate::{Beneficiary, Defect, ProcessId, Registry, Stolen, Terms, host::Place, registry::now};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

type Seen = Arc<Mutex<Vec<String>>>;

/// An issuer and a host: the first process, a runner (10) that is a service, and a job's shell (20), which has a session of its
/// own, with a command (30).
pub(super) struct World {
    pub(super) stub: Stub,
    pub(super) signer: Signer,
    pub(super) issuer: Arc<Issuer>,
    pub(super) told: Told,
    pub(super) registry: Registry,
    /// Tokens that look stolen.
    pub(super) stolen: Seen,
    pub(super) directory: TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Issuer)) -> Self {
        let signer = Signer::rsa("one");
        let stub = Stub::start(&[&signer]).await;
        let mut issuer = issuer(&stub.url, Some(&stub));
        change(Arc::make_mut(&mut issuer));
        let told = Told::default();
        told.fork(0, 1);
        told.begin(1, 10);
        told.begin(10, 20);
        told.fork(20, 30);
        let directory = tempfile::tempdir().unwrap();
        let stolen = Seen::default();
        let registry = Self::begin(&told, &directory, &issuer, &stolen);
        Self { stub, signer, issuer, told, registry, stolen, directory }
    }

    fn begin(told: &Told, directory: &TempDir, issuer: &Arc<Issuer>, stolen: &Seen) -> Registry {
        let (told, seen) = (Arc::new(told.clone()), stolen.clone());
        let witness = Box::new(move |stolen: &Stolen| seen.lock().unwrap().push(stolen.to_string()));
        let registry = Registry::on(told, Some(directory.path()), Handle::current(), witness).unwrap();
        registry.adopt(registry.prepare(std::slice::from_ref(issuer)).unwrap());
        registry
    }

    /// As after the agent's end and its next start.
    pub(super) fn restart(&mut self) {
        self.registry = Self::begin(&self.told, &self.directory, &self.issuer, &self.stolen);
    }

    pub(super) fn token(&self, subject: &str) -> String {
        self.signer.sign(&claims(&self.issuer, subject))
    }

    pub(super) async fn subjects(&self, pid: u32) -> Vec<String> {
        subjects(&self.registry.identify(id(pid), UID).await.now.borrow())
    }

    pub(super) async fn unproven(&self, pid: u32) -> String {
        let identified = self.registry.identify(id(pid), UID).await;
        assert!(identified.now.borrow().is_empty());
        identified.unproven.iter().map(|token| token.why.to_string()).collect()
    }

    pub(super) async fn present(&self, pid: u32, token: &str) -> Result<Identity, Defect> {
        self.registry.present(id(pid), Beneficiary::Shell, None, token.as_bytes()).await
    }

    /// Answers as GitHub Actions' endpoint does, with tokens of this lifetime, which are told.
    pub(super) fn be_github(&self, seconds: i64) -> Arc<Mutex<Vec<String>>> {
        let (issuer, issued) = (self.issuer.clone(), Arc::new(Mutex::new(Vec::new())));
        let (signer, told) = (Signer::rsa("github"), issued.clone());
        self.stub.publish(&[&self.signer, &signer]);
        self.stub.on("/token", move |request| {
            if !request.to_lowercase().contains("authorization: bearer of-the-job\r\n") {
                return (401, String::new());
            }
            let mut issued = told.lock().unwrap();
            let mut claims = claims(&issuer, "repo:acme/shop");
            claims["exp"] = json!(now() + seconds);
            claims["jti"] = json!(issued.len());
            claims["aud"] = audience(request).into();
            issued.push(signer.sign(&claims));
            (200, json!({"count": 1, "value": issued.last()}).to_string())
        });
        issued
    }

    pub(super) fn github_environment(&self) -> Vec<(&'static str, String)> {
        let url = format!("{}/token?api-version=2.0&audience=of-the-attacker", self.stub.url);
        vec![("ACTIONS_ID_TOKEN_REQUEST_URL", url), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-job".into())]
    }

    pub(super) fn give(&self, pid: u32, environment: &[(&'static str, String)]) {
        let pairs: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.told.set_environment(pid, &pairs);
    }
}

pub(super) fn subjects(identities: &[Identity]) -> Vec<String> {
    identities.iter().map(|identity| identity.subject.to_string()).collect()
}

fn audience(request: &str) -> String {
    let query = request.split(' ').nth(1).unwrap().split_once('?').unwrap().1;
    let pairs = query.split('&').filter_map(|pair| pair.strip_prefix("audience="));
    pairs.collect::<Vec<_>>().join("+")
}

/// Waits until a followed session is whom it should be.
pub(super) async fn until(now: &mut watch::Receiver<Arc<[Identity]>>, wanted: &[&str]) {
    let is_so = now.wait_for(|identities| subjects(identities) == wanted);
    tokio::time::timeout(PATIENCE, is_so).await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_is_known_without_a_token() {
    let world = World::new().await;
    assert!(world.subjects(30).await.is_empty());
    assert!(world.stub.asked("/keys").is_empty());
}

#[tokio::test]
async fn a_token_in_the_environment_counts_for_the_highest_that_holds_it_and_all_below() {
    let world = World::new().await;
    let token = world.token("job-1");
    for pid in [20, 30] {
        world.told.set_environment(pid, &[("CI_TOKEN", &token)]);
    }
    assert_eq!(world.subjects(30).await, ["job-1"]);
    world.told.fork(20, 31);
    world.told.set_environment(31, &[]);
    assert_eq!(world.subjects(31).await, ["job-1"]);
    assert!(world.subjects(10).await.is_empty());
    world.told.fork(10, 21);
    assert!(world.subjects(21).await.is_empty());
    assert_eq!(world.stub.asked("/keys").len(), 1);
}

#[tokio::test]
async fn a_presented_token_counts_for_the_shell_that_ran_the_command_and_not_beyond() {
    let world = World::new().await;
    let identity = world.present(30, &format!("{}\n", world.token("job-1"))).await.unwrap();
    assert_eq!(Value::from(identity.claims), json!({"repository": "acme/shop"}));
    world.told.end(30);
    world.told.fork(20, 31);
    assert_eq!(world.subjects(31).await, ["job-1"]);
    assert!(world.subjects(10).await.is_empty());
}

#[tokio::test]
async fn a_token_is_not_presented_for_the_daemon_that_starts_commands_for_many_accounts() {
    let world = World::new().await;
    world.told.set_uid(20, 0);
    let refused = world.present(30, &world.token("job-1")).await.unwrap_err();
    assert!(matches!(refused, Defect::NoTree(_)), "{refused}");
    world.told.fork(20, 31);
    assert!(world.subjects(31).await.is_empty());
}

#[tokio::test]
async fn a_job_does_not_present_its_token_for_the_runner_that_started_it() {
    // In place of the job's shell, so that the runner is its parent.
    for session in [true, false] {
        let world = World::new().await;
        world.told.fork(10, 21);
        if session {
            world.told.set_session(21);
        }
        world.told.set_terminal(21);
        let refused = world.present(21, &world.token("evil")).await.unwrap_err();
        assert_eq!(refused, Defect::NoSession);
        world.told.fork(10, 22);
        assert!(world.subjects(22).await.is_empty(), "another job is evil's");
    }
}

#[tokio::test]
async fn a_job_without_a_session_of_its_own_presents_its_token_for_what_it_runs_alone() {
    let world = World::new().await;
    world.told.fork(10, 21);
    world.told.fork(21, 31);
    assert_eq!(world.present(31, &world.token("job-1")).await.unwrap_err(), Defect::NoSession);
    let token = world.token("job-1");
    world.registry.present(id(31), Beneficiary::Caller, None, token.as_bytes()).await.unwrap();
    world.told.fork(31, 41);
    assert_eq!(world.subjects(41).await, ["job-1"]);
    for pid in [10, 21, 20] {
        assert!(world.subjects(pid).await.is_empty(), "{pid}");
    }
}

#[tokio::test]
async fn a_runner_that_its_service_s_manager_began_is_no_job() {
    // Of the same account.
    let world = World::new().await;
    world.told.begin(1, 11);
    world.told.set_cgroup(11, "0::/system.slice/manager.service");
    world.told.begin(11, 12);
    world.told.fork(12, 22);
    world.told.set_cgroup(12, "0::/system.slice/runner.service");
    assert_eq!(world.present(22, &world.token("evil")).await.unwrap_err(), Defect::NoSession);
    // A job of that runner that has a session of its own.
    world.told.begin(12, 23);
    world.told.fork(23, 33);
    world.present(33, &world.token("job-1")).await.unwrap();
    assert_eq!(world.subjects(23).await, ["job-1"]);
    assert!(world.subjects(22).await.is_empty());
}

#[tokio::test]
async fn a_runner_that_a_job_moved_into_its_manager_s_cgroup_is_no_job() {
    // As a user may in what its own manager was given: all lie in one cgroup then.
    let world = World::new().await;
    world.told.begin(1, 11);
    world.told.give_cgroup(11);
    world.told.begin(11, 12);
    world.told.fork(12, 22);
    assert_eq!(world.present(22, &world.token("evil")).await.unwrap_err(), Defect::NoSession);
    assert!(world.subjects(12).await.is_empty());
    let token = world.token("job-1");
    world.registry.present(id(22), Beneficiary::Caller, None, token.as_bytes()).await.unwrap();
    assert_eq!(world.subjects(22).await, ["job-1"]);
}

#[tokio::test]
async fn a_shell_at_a_terminal_gives_each_command_a_group_and_presents_for_itself() {
    let world = World::new().await;
    // The terminal's own shell was begun by another service.
    world.told.set_cgroup(20, "0::/user.slice/session-7.scope");
    for pid in [20, 30] {
        world.told.set_terminal(pid);
    }
    world.present(30, &world.token("job-1")).await.unwrap();
    assert_eq!(world.subjects(20).await, ["job-1"]);
}

#[tokio::test]
async fn a_runner_that_was_begun_at_a_terminal_is_none_of_its_jobs() {
    let world = World::new().await;
    world.told.set_terminal(20);
    world.told.fork(20, 31);
    world.told.fork(31, 41);
    assert_eq!(world.present(41, &world.token("evil")).await.unwrap_err(), Defect::NoSession);
    assert!(world.subjects(31).await.is_empty());
}

#[tokio::test]
async fn a_stolen_token_does_not_count_while_the_first_lives_nor_afterwards() {
    let world = World::new().await;
    let token = world.token("job-1");
    world.present(30, &token).await.unwrap();
    world.told.begin(10, 40);
    world.told.fork(40, 50);
    assert_eq!(world.present(50, &token).await.unwrap_err(), Defect::Elsewhere);
    world.told.set_environment(50, &[("CI_TOKEN", &token)]);
    assert_eq!(world.unproven(50).await, Defect::Elsewhere.to_string());
    world.told.end(20);
    assert_eq!(world.present(50, &token).await.unwrap_err(), Defect::Replayed);
    assert_eq!(world.unproven(50).await, Defect::Replayed.to_string());
    let seen = world.stolen.lock().unwrap().clone();
    let elsewhere = "counts for the process tree of pid 20, was used by that of pid 40 uid 61090";
    let replayed = "counts for a process tree that has ended, was used by that of pid 40 uid 61090";
    assert!(seen[0].contains("\"job-1\" by ci") && seen[0].ends_with(elsewhere), "{}", seen[0]);
    assert!(seen[2].ends_with(replayed), "{}", seen[2]);
    assert_eq!(seen.len(), 4);
    assert_eq!(world.registry.stolen(), 4);
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_takes_nothing_from_the_others() {
    let world = World::new().await;
    // Whoever connects is never spoken to.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", silent.local_addr().unwrap().port());
    let mut first = issuer(&url, Some(&world.stub));
    let changed = Arc::make_mut(&mut first);
    changed.name = "silent".into();
    changed.tokens = vec![TokenSource::Variable { name: "SILENT_TOKEN".into(), siblings: false }];
    let unknown = Signer::rsa("unknown").sign(&claims(&first, "job-1"));
    let (host, witness) = (Arc::new(world.told.clone()), Box::new(|_: &Stolen| ()));
    let registry = Registry::on(host, None, Handle::current(), witness).unwrap();
    registry.adopt(registry.prepare(&[first, world.issuer.clone()]).unwrap());
    let both = [("SILENT_TOKEN", unknown), ("CI_TOKEN", world.token("job-1"))];
    world.give(30, &both);
    let asking = registry.clone();
    let identifying = tokio::spawn(async move { asking.identify(id(30), UID).await });
    let place = Place::of(&world.told, id(30));
    let bound = async {
        while registry.inner.trees.covering(&place, "ci").is_none() {
            tokio::task::yield_now().await;
        }
    };
    // Less than an issuer is waited for.
    tokio::time::timeout(Duration::from_secs(8), bound).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(PATIENCE).await;
    let identified = identifying.await.unwrap();
    assert_eq!(subjects(&identified.now.borrow()), ["job-1"]);
    assert_eq!(&*identified.unproven[0].issuer, "silent");
}

#[tokio::test]
async fn a_token_written_another_way_is_the_same_token() {
    let world = World::new().await;
    let token = world.token("job-1");
    world.present(30, &token).await.unwrap();
    world.told.begin(10, 40);
    world.told.fork(40, 50);
    // Another signature of the same claims, as only its issuer makes it, is another token; what is signed names it.
    for copy in [format!(" {token} "), format!("{token}\n")] {
        assert_eq!(world.present(50, &copy).await.unwrap_err(), Defect::Elsewhere);
    }
    assert_eq!(world.present(50, &format!("{token}=")).await.unwrap_err(), Defect::Signature);
}

#[tokio::test]
async fn a_bundle_may_let_a_token_count_elsewhere() {
    let world = World::with(|issuer| issuer.elsewhere = Elsewhere::Allow).await;
    let token = world.token("job-1");
    world.present(30, &token).await.unwrap();
    world.told.begin(10, 40);
    world.told.fork(40, 50);
    world.present(50, &token).await.unwrap();
    world.told.end(20);
    assert_eq!(world.subjects(50).await, ["job-1"]);
}

#[tokio::test]
async fn an_identity_ends_with_its_tree_and_sessions_are_told() {
    let world = World::new().await;
    world.present(30, &world.token("job-1")).await.unwrap();
    let mut session = world.registry.identify(id(30), UID).await.now;
    until(&mut session, &["job-1"]).await;
    world.told.end(20);
    until(&mut session, &[]).await;
}

#[tokio::test]
async fn an_identity_ends_with_its_token_and_sessions_are_told() {
    let world = World::with(|issuer| issuer.clock_skew = Duration::ZERO).await;
    let mut claims = claims(&world.issuer, "job-1");
    claims["exp"] = json!(now() + 2);
    world.present(30, &world.signer.sign(&claims)).await.unwrap();
    let mut session = world.registry.identify(id(30), UID).await.now;
    until(&mut session, &["job-1"]).await;
    until(&mut session, &[]).await;
    assert!(world.subjects(30).await.is_empty());
}

#[tokio::test]
async fn a_process_that_takes_over_the_id_of_a_root_is_nobody() {
    let world = World::new().await;
    world.present(30, &world.token("job-1")).await.unwrap();
    let later = ProcessId { started: 999, ..id(20) };
    assert!(world.registry.identify(later, UID).await.now.borrow().is_empty());
}

#[tokio::test]
async fn an_orphan_that_was_seen_in_the_tree_keeps_its_identity_and_a_stranger_gets_none() {
    let world = World::new().await;
    world.told.fork(30, 40);
    world.present(30, &world.token("job-1")).await.unwrap();
    assert_eq!(world.subjects(40).await, ["job-1"]);
    world.told.end(30);
    world.told.fork(40, 41);
    assert_eq!(world.subjects(41).await, ["job-1"]);
    world.told.fork(1, 42);
    assert!(world.subjects(42).await.is_empty());
}

#[tokio::test]
async fn an_orphan_in_a_session_that_the_tree_began_keeps_its_identity() {
    let world = World::new().await;
    world.told.fork(20, 31);
    world.told.fork(31, 40);
    world.present(31, &world.token("job-1")).await.unwrap();
    world.told.end(31);
    assert_eq!(world.subjects(40).await, ["job-1"]);
    // As if the tree had begun no session: that of the first process is everybody's.
    world.told.fork(30, 43);
    world.told.join(43, 1);
    world.told.end(30);
    assert!(world.subjects(43).await.is_empty());
}

#[tokio::test]
async fn a_tree_that_is_somebody_stays_it_and_may_renew_it() {
    let world = World::new().await;
    world.present(30, &world.token("job-1")).await.unwrap();
    assert_eq!(world.present(30, &world.token("job-2")).await.unwrap_err(), Defect::SomebodyElse);
    world.told.fork(30, 40);
    assert_eq!(world.present(40, &world.token("job-2")).await.unwrap_err(), Defect::SomebodyElse);
    world.told.set_environment(40, &[("CI_TOKEN", &world.token("job-2"))]);
    assert_eq!(world.subjects(40).await, ["job-1"]);
    let mut session = world.registry.identify(id(40), UID).await.now;
    let mut claims = claims(&world.issuer, "job-1");
    claims["exp"] = json!(now() + 900);
    world.present(30, &world.signer.sign(&claims)).await.unwrap();
    let renewed = session.wait_for(|now| now.iter().any(|identity| identity.expires > self::now() + 600));
    tokio::time::timeout(PATIENCE, renewed).await.unwrap().unwrap();
}

#[tokio::test]
async fn logging_out_ends_what_was_presented() {
    let world = World::new().await;
    world.present(30, &world.token("job-1")).await.unwrap();
    assert_eq!(world.registry.logout(id(30), Some("other")).await, Ok(0));
    assert_eq!(world.registry.logout(id(10), None).await, Ok(0));
    assert_eq!(world.subjects(30).await, ["job-1"]);
    assert_eq!(world.registry.logout(id(30), None).await, Ok(1));
    assert!(world.subjects(30).await.is_empty());
    world.present(30, &world.token("job-2")).await.unwrap();
}

#[tokio::test]
async fn what_a_changed_issuer_said_ends_and_what_an_unchanged_one_said_stays() {
    let world = World::new().await;
    world.present(30, &world.token("job-1")).await.unwrap();
    let terms = Terms(world.issuer.clone());
    assert!(world.registry.stands(&terms));
    let same = Arc::new((*world.issuer).clone());
    world.registry.adopt(world.registry.prepare(&[same]).unwrap());
    assert_eq!(world.subjects(30).await, ["job-1"]);
    assert!(world.registry.stands(&terms));
    let mut changed = (*world.issuer).clone();
    changed.audience = "another".into();
    world.registry.adopt(world.registry.prepare(&[Arc::new(changed)]).unwrap());
    assert!(world.subjects(30).await.is_empty());
    assert!(!world.registry.stands(&terms), "a browser's login outlives what it was made under");
    world.registry.adopt(world.registry.prepare(&[]).unwrap());
    assert!(world.subjects(30).await.is_empty());
}

#[tokio::test]
async fn a_defect_of_a_found_token_is_told() {
    let world = World::new().await;
    let mut claims = claims(&world.issuer, "job-1");
    claims["exp"] = json!(now() - 90);
    world.told.set_environment(30, &[("CI_TOKEN", &world.signer.sign(&claims))]);
    assert!(world.unproven(30).await.starts_with("it expired 9"));
}

#[tokio::test]
async fn a_present_to_an_issuer_that_takes_none_says_so() {
    let world = World::with(|issuer| issuer.tokens.clear()).await;
    let refused = world.present(30, &world.token("job-1")).await.unwrap_err().to_string();
    assert!(refused.contains("no issuer that takes tokens by `tidegate present`"), "{refused}");
}

#[tokio::test]
async fn a_restart_forgets_no_token_that_was_used() {
    let mut world = World::new().await;
    let token = world.token("job");
    world.present(30, &token).await.unwrap();
    world.restart();
    // A thief, while the job lives.
    world.told.begin(10, 40);
    world.told.fork(40, 50);
    assert_eq!(world.present(50, &token).await.unwrap_err(), Defect::Elsewhere);
    // The job itself goes on.
    world.present(30, &token).await.unwrap();
    assert_eq!(world.subjects(20).await, ["job"]);
    world.told.end(20);
    world.restart();
    assert_eq!(world.present(50, &token).await.unwrap_err(), Defect::Replayed);
    let kept = std::fs::read_to_string(world.directory.path().join("used-tokens")).unwrap();
    assert!(!kept.contains(token.rsplit('.').next().unwrap()), "the token is in {kept}");
}
