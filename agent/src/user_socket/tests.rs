use std::time::Duration;

use tempfile::TempDir;
use tidegate_approvals::{Answered, Person};
use tidegate_gate::{self as gate, Approvals as _, Question};
use tidegate_policy::{Approval, Held, People, Principal, Process, Scope, Sessions};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    task::JoinHandle,
};

use super::*;
use crate::{
    accounts::tests::{Fake, LetsGo},
    test_support::World,
};

/// The account that answers for whoever runs these tests.
const OWNER: u32 = 61_001;

/// A host on which one account answers for all who run these tests.
fn one_owner() -> Accounts {
    Accounts::of(Fake::owned_by(OWNER), Duration::from_secs(2))
}

struct Served {
    directory: TempDir,
    desk: Desk,
    users: Arc<Users>,
    serving: JoinHandle<()>,
    _world: World,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Served {
    async fn new() -> Self {
        Self::with(one_owner()).await
    }

    async fn with(accounts: Accounts) -> Self {
        let (world, directory) = (World::new().await, tempfile::tempdir().unwrap());
        let desk = world.desk();
        let socket = Socket::bind_for_all(&directory.path().join("user.sock")).unwrap();
        let users = Users::new(world.registry.clone(), desk.clone(), accounts);
        let serving = tokio::spawn(users.clone().run(socket));
        Self { directory, desk, users, serving, _world: world }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join("user.sock")).await.unwrap()
    }

    /// What is answered to these bytes; the connection is closed behind it.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // A peer that has heard enough closes.
        let _ = stream.write_all(bytes).await;
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer).await;
        answer
    }

    async fn ask(&self, request: Request) -> Answer {
        let mut text = serde_json::to_vec(&request).unwrap();
        text.push(b'\n');
        serde_json::from_str(&self.say(&text).await).unwrap()
    }

    /// A question that an account puts, which this account may answer, and `61003` too; who asks may act at once.
    async fn held(&self, asker: u32, approver: u32) -> Box<dyn gate::Inquiry> {
        let by = People { users: vec![approver.to_string().into(), "61003".into()], ..People::default() };
        self.held_by(asker, by).await
    }

    /// The same, which these people may answer.
    async fn held_by(&self, asker: u32, by: People) -> Box<dyn gate::Inquiry> {
        let people = |uid: u32| People { users: vec![uid.to_string().into()], ..People::default() };
        let approval = Approval {
            by,
            approvers: 1,
            scope: Scope::Action,
            wait: Duration::from_secs(600),
            grant: None,
            sessions: Sessions::One,
            reason: false,
            break_glass: Some(people(asker)),
        };
        let process = Process { uid: asker, ..Process::default() };
        let question = Question {
            session: "s".into(),
            principal: Principal { process, ..Principal::default() },
            resource: "shop".into(),
            protocol: "postgres".into(),
            policy: "digest".into(),
            action: 1,
            name: "statement".into(),
            text: "DELETE".into(),
            particulars: Vec::new(),
            holds: vec![Held { rule: "ask".into(), what: "".into(), approval: Arc::new(approval) }],
            exact: [1; 32],
            shape: [1; 32],
        };
        match self.desk.put(question).await.unwrap() {
            gate::Answer::Waits(waits) => waits,
            gate::Answer::Known(_) => panic!("nobody was asked"),
        }
    }

    async fn approve(&self, id: &str) -> Answer {
        self.ask(Request::Say { id: id.to_owned(), say: Say::Approve, reason: None }).await
    }
}

#[tokio::test]
async fn who_one_is_and_what_waits_is_asked_on_one_socket() {
    let served = Served::new().await;
    let nobody = Answer::Known { identities: Vec::new(), unproven: Vec::new() };
    assert_eq!(served.ask(Request::Whoami {}).await, nobody);
    let waits = served.held(61_002, OWNER).await;
    let Answer::Questions { questions, .. } = served.ask(Request::Questions { all: false }).await else {
        panic!("no questions")
    };
    assert_eq!(questions.iter().map(|question| &question.id).collect::<Vec<_>>(), [waits.id()]);
}

#[tokio::test]
async fn a_sub_uid_cannot_answer_what_its_user_asked() {
    let served = Served::new().await;
    let own = served.held(OWNER, OWNER).await;
    let Answer::Failed { why } = served.approve(own.id()).await else { panic!("it counted") };
    assert!(why.contains("you asked"), "{why}");
}

#[tokio::test]
async fn a_sub_uid_answers_as_its_user() {
    let served = Served::new().await;
    let waits = served.held(61_002, OWNER).await;
    let Answer::Question { question } = served.approve(waits.id()).await else { panic!("it did not count") };
    assert_eq!(question.state, tidegate_approvals::State::Approved);
}

#[tokio::test]
async fn nothing_of_what_is_no_request_comes_back() {
    let served = Served::new().await;
    for text in [
        "{\"present\":{\"token\":\"hush.hush.hush\",\"hush\":1}}\n",
        "{\"hush\":{}}\n",
        "hush\n",
        "{\"present\":{\"token\":\"hush\n",
    ] {
        let answer = served.say(text.as_bytes()).await;
        assert!(answer.contains("not a request") && !answer.contains("hush"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_without_end_is_read_as_far_as_one_may_be_long() {
    let served = Served::new().await;
    let answer = served.say(&vec![b'['; line::LONGEST]).await;
    assert!(answer.contains("not a request"), "{answer}");
}

#[tokio::test]
async fn a_request_may_come_in_parts() {
    let served = Served::new().await;
    let mut stream = served.connect().await;
    for part in ["{\"who", "ami\":", "{}}", "\n"] {
        stream.write_all(part.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await.unwrap();
    assert!(answer.contains("known"), "{answer}");
}

#[tokio::test]
async fn one_who_watches_is_told_of_what_changes_until_they_go() {
    let served = Served::new().await;
    let mut stream = served.connect().await;
    stream.write_all(b"{\"watch\":{}}\n").await.unwrap();
    let waits = served.held(61_002, OWNER).await;
    let mut lines = BufReader::new(stream).lines();
    let mut told = async |step: &str| {
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            let Answer::Question { question } = serde_json::from_str(&line).unwrap() else {
                panic!("{line}")
            };
            assert_eq!(question.id, *waits.id());
            if question.last().is_some_and(|event| event.step == step) {
                break;
            }
        }
    };
    told("asked").await;
    let account = |uid| Person { host: "host".into(), uid: Some(uid), ..Person::default() };
    for (uid, say, step) in [
        (61_002, Say::BreakGlass, "break-glass"),
        (61_003, Say::Review, "reviewed"),
        (61_003, Say::Revoke, "revoked"),
    ] {
        let answered = Answered { say, reason: Some("because"), shown: None };
        served.desk.answer(&account(uid), waits.id(), answered).await.unwrap();
        told(step).await;
    }
}

#[tokio::test]
async fn a_list_is_told_as_one_answer_however_long() {
    let served = Served::new().await;
    assert_eq!(
        served.ask(Request::Questions { all: true }).await,
        Answer::Questions { questions: Vec::new(), unreadable: 0 }
    );
    let mut ids = Vec::new();
    for asker in 0..100 {
        ids.push(served.held(70_000 + asker, OWNER).await.id().clone());
    }
    let answer = served.ask(Request::Questions { all: false }).await;
    let Answer::Questions { questions, .. } = answer else { panic!("no questions") };
    let mut listed: Vec<_> = questions.into_iter().map(|question| question.id).collect();
    listed.sort_unstable();
    ids.sort_unstable();
    assert_eq!(listed, ids);
}

#[tokio::test]
async fn one_account_is_told_one_list_at_a_time() {
    let served = Served::new().await;
    let turn = served.users.lists.of(OWNER).await;
    let mut list = Box::pin(served.ask(Request::Questions { all: false }));
    let mut other = Box::pin(served.ask(Request::Whoami {}));
    tokio::select! {
        biased;
        answer = &mut list => panic!("another list is being told: {answer:?}"),
        answer = &mut other => assert!(matches!(answer, Answer::Known { .. })),
    }
    drop(turn);
    assert!(matches!(list.await, Answer::Questions { .. }));
}

#[tokio::test]
async fn one_account_watches_a_few_times_and_no_more() {
    let served = Served::new().await;
    let mut watching = Vec::new();
    for _ in 0..WATCHERS.0 {
        let mut stream = BufReader::new(served.connect().await);
        stream.write_all(b"{\"watch\":{}}\n").await.unwrap();
        watching.push(stream);
    }
    // Whoever is told of a question watches by then.
    let waits = served.held(61_002, OWNER).await;
    for stream in &mut watching {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.contains(&**waits.id()), "{line}");
    }
    let Answer::Failed { why } = served.ask(Request::Watch {}).await else { panic!("one too many") };
    assert!(why.contains("as often as one account may"), "{why}");
}

#[tokio::test]
async fn one_who_watches_is_told_of_what_they_may_know_and_each_version_once() {
    let served = Served::new().await;
    let mut lines = BufReader::new(served.connect().await);
    lines.write_all(b"{\"watch\":{}}\n").await.unwrap();
    let mut lines = lines.lines();
    let first = served.held(61_002, OWNER).await;
    let mut told = Vec::new();
    let mut next = async || {
        let Answer::Question { question } =
            serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap()
        else {
            panic!("no question")
        };
        told.push((question.id.clone(), question.last().unwrap().step.clone()));
        told.clone()
    };
    next().await;
    let hidden = served.held(61_002, 61_004).await;
    let account = |uid| Person { host: "host".into(), uid: Some(uid), ..Person::default() };
    let answered = Answered { say: Say::Deny, reason: None, shown: None };
    served.desk.answer(&account(61_004), hidden.id(), answered).await.unwrap();
    served.desk.answer(&account(61_003), first.id(), answered).await.unwrap();
    let step = |step: &str| (first.id().clone(), step.to_owned());
    assert_eq!(next().await, [step("asked"), step("denied")]);
}

#[tokio::test]
async fn one_account_begins_a_few_logins_a_minute() {
    let served = Served::new().await;
    for _ in 0..LOGINS_A_MINUTE {
        let Answer::Failed { why } = served.ask(Request::Login { issuer: None }).await else {
            panic!("a login")
        };
        assert!(why.contains("logins"), "no issuer has any: {why}");
        assert!(!why.contains("within a minute"), "{why}");
    }
    let Answer::Failed { why } = served.ask(Request::Login { issuer: None }).await else { panic!("a login") };
    assert!(why.contains("within a minute"), "{why}");
}

#[tokio::test]
async fn who_is_known_to_the_host_answers_while_the_name_service_is_stuck() {
    let fake = LetsGo(Fake::stuck_for(1001));
    let served = Served::with(Accounts::of(fake.0.clone(), Duration::from_millis(20))).await;
    let waits = served.held_by(61_002, People { unix_groups: vec!["dba".into()], ..People::default() }).await;
    let Answer::Question { question } = served.approve(waits.id()).await else { panic!("it did not count") };
    assert_eq!(question.state, tidegate_approvals::State::Approved);
}

#[tokio::test]
async fn connections_are_counted_before_their_account_is_known() {
    let fake = LetsGo(Fake::stuck_for_whoever_comes());
    let served = Served::with(Accounts::of(fake.0.clone(), Duration::from_secs(3600))).await;
    let mut coming = Vec::new();
    for _ in 0..64 {
        coming.push(served.connect().await);
    }
    let mut refused = served.connect().await;
    assert_eq!(refused.read(&mut [0]).await.unwrap(), 0, "it waits with the others");
}
