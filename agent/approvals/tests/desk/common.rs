//! Questions, people, and both stores.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tempfile::TempDir;
use tidegate_approvals::{
    Answered, Audience, Clock, Desk, Failed, Inquiry, Limits, Person, Say, State,
    store::{Postgres, Settings, Sqlite, Store, StoreError},
};
use tidegate_gate::{
    Answer, Approvals, BoxFuture, Credential, CredentialError, Credentials, Inquiry as Asking, Question,
    Secret, Step,
    policy::{Approval, Held, Identity, People, Principal, Process, Scope, Sessions},
};
use tokio_postgres::{Config, NoTls, config::SslMode};

/// How long anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A store of its own for one test.
pub(crate) struct Kept {
    pub(crate) store: Arc<dyn Store>,
    /// A second way to the same, as after a restart or from another host.
    pub(crate) again: Arc<dyn Store>,
    place: Place,
}

enum Place {
    File(TempDir),
    Server(Box<Settings>),
}

/// Credentials by name: their passwords.
#[derive(Default)]
pub(crate) struct Safe(Mutex<HashMap<String, String>>);

impl Safe {
    pub(crate) fn put(&self, name: &str, password: &str) {
        self.0.lock().unwrap().insert(name.into(), password.into());
    }
}

impl Credentials for Safe {
    fn credential<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        let password = self.0.lock().unwrap().get(name).cloned();
        Box::pin(async move {
            let password = password.ok_or_else(|| CredentialError::Missing(name.into()))?;
            Ok(Credential { password: Some(Secret::new(password.into_bytes())), ..Credential::default() })
        })
    }
}

impl Kept {
    async fn at(place: Place) -> Self {
        let (store, again) = (open(&place).await.unwrap(), open(&place).await.unwrap());
        Self { store, again, place }
    }

    /// Opens it once more.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        open(&self.place).await
    }

    /// Runs statements on it, past what keeps it.
    pub(crate) async fn run(&self, statements: &str) {
        match &self.place {
            Place::File(directory) => {
                let file = rusqlite::Connection::open(directory.path().join("approvals.db")).unwrap();
                file.execute_batch(statements).unwrap();
            }
            Place::Server(settings) => {
                superuser(&settings.connection).await.batch_execute(statements).await.unwrap();
            }
        }
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.place, Place::Server(_))
    }
}

async fn open(place: &Place) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match place {
        Place::File(directory) => Arc::new(Sqlite::open(&directory.path().join("approvals.db"))?),
        Place::Server(settings) => {
            let store = Postgres::open(Settings::clone(settings))?;
            store.changed(None).await?;
            Arc::new(store)
        }
    })
}

/// A connection past the store.
pub(crate) async fn superuser(config: &Config) -> tokio_postgres::Client {
    let mut config = config.clone();
    config.user(variable("PGUSER")).password(variable("PGPASSWORD"));
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

pub(crate) async fn sqlite() -> Kept {
    Kept::at(Place::File(tempfile::tempdir().unwrap())).await
}

/// On the server that libpq's variables name, in a schema of its own.
pub(crate) async fn postgres() -> Kept {
    Kept::at(Place::Server(Box::new(fleet().await))).await
}

/// How a fleet reaches that schema.
pub(crate) async fn fleet() -> Settings {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let schema = format!("approvals_{}_{number}", std::process::id());
    let mut connection = Config::new();
    connection
        .host(variable("PGHOST"))
        .port(variable("PGPORT").parse().unwrap())
        .user(variable("PGUSER"))
        .dbname("postgres")
        .ssl_mode(SslMode::Disable);
    superuser(&connection).await.batch_execute(&format!("create schema {schema}")).await.unwrap();
    connection.options(format!("-c search_path={schema}"));
    let safe = Safe::default();
    safe.put("fleet", &variable("PGPASSWORD"));
    Settings { connection, ca: None, credentials: Arc::new(safe), credential: "fleet".into() }
}

pub(crate) const LIMITS: Limits = Limits { all: 1000, of_account: 400, a_minute: 1000 };

pub(crate) fn desk(store: &Arc<dyn Store>) -> Desk {
    desk_of("host", store)
}

pub(crate) fn desk_of(host: &str, store: &Arc<dyn Store>) -> Desk {
    Desk::open(host, store.clone(), LIMITS, Audience::default())
}

/// A clock that stands still until it is wound.
#[derive(Clone, Default)]
pub(crate) struct Wound(Arc<AtomicU64>);

impl Wound {
    pub(crate) fn desk(&self, store: &Arc<dyn Store>) -> Desk {
        self.desk_with(store, LIMITS)
    }

    pub(crate) fn desk_with(&self, store: &Arc<dyn Store>, limits: Limits) -> Desk {
        let (start, wound) = (Timestamp::now(), self.0.clone());
        let now = move || start + Duration::from_millis(wound.load(Ordering::Relaxed));
        Desk::open_by(Clock::new(now), "host", store.clone(), limits, Audience::default())
    }

    pub(crate) fn wind(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

/// Answers, in a word.
pub(crate) trait Says {
    async fn say(&self, person: &Person, id: &str, say: Say, reason: Option<&str>)
    -> Result<Inquiry, Failed>;

    async fn approve(&self, person: &Person, id: &str, reason: Option<&str>) -> Result<Inquiry, Failed> {
        self.say(person, id, Say::Approve, reason).await
    }

    async fn deny(&self, person: &Person, id: &str, reason: Option<&str>) -> Result<Inquiry, Failed> {
        self.say(person, id, Say::Deny, reason).await
    }

    async fn break_glass(&self, person: &Person, id: &str, reason: Option<&str>) -> Result<Inquiry, Failed> {
        self.say(person, id, Say::BreakGlass, reason).await
    }

    async fn review(&self, person: &Person, id: &str, reason: Option<&str>) -> Result<Inquiry, Failed> {
        self.say(person, id, Say::Review, reason).await
    }

    async fn revoke(&self, person: &Person, id: &str, reason: Option<&str>) -> Result<Inquiry, Failed> {
        self.say(person, id, Say::Revoke, reason).await
    }
}

impl Says for Desk {
    async fn say(
        &self,
        person: &Person,
        id: &str,
        say: Say,
        reason: Option<&str>,
    ) -> Result<Inquiry, Failed> {
        self.answer(person, id, Answered { say, reason, shown: None }).await
    }
}

/// By group dba, once, within a minute.
pub(crate) fn terms() -> Approval {
    Approval {
        by: People {
            groups: vec!["dba".into()],
            issuer: Some("acme".into()),
            users: vec!["ann".into()],
            ..People::default()
        },
        approvers: 1,
        scope: Scope::Action,
        wait: Duration::from_secs(60),
        grant: None,
        sessions: Sessions::One,
        reason: false,
        break_glass: None,
    }
}

pub(crate) fn held(rule: &str, approval: Approval) -> Held {
    Held { rule: rule.into(), what: "".into(), approval: Arc::new(approval) }
}

/// Asked by uid 1000 in this session; `exact` and `shape` stand for what is asked.
pub(crate) fn question(session: &str, holds: Vec<Held>, (exact, shape): (u8, u8)) -> Question {
    let process = Process { pid: 7, uid: 1000, user: Some("ci".into()), ..Process::default() };
    Question {
        session: session.into(),
        principal: Principal { subjects: vec!["ci".into()], process, ..Principal::default() },
        resource: "shop".into(),
        protocol: "postgres".into(),
        policy: "digest".into(),
        action: 3,
        name: "statement".into(),
        text: format!("delete from orders where id = {exact}"),
        particulars: vec![("database".into(), "shop".into())],
        holds,
        exact: [exact; 32],
        shape: [shape; 32],
    }
}

pub(crate) fn account(uid: u32, user: &str) -> Person {
    Person { host: "host".into(), uid: Some(uid), user: Some(user.into()), ..Person::default() }
}

pub(crate) fn member(uid: u32, subject: &str, group: &str) -> Person {
    let identity = Identity {
        issuer: "acme".into(),
        url: "https://acme.example".into(),
        account: None,
        subject: subject.into(),
        groups: vec![group.into()],
        expires: i64::MAX,
        claims: serde_json::Map::new(),
    };
    Person { identities: [identity].into(), ..account(uid, subject) }
}

/// Somebody in a browser: known to an issuer, and by no account.
pub(crate) fn browser(subject: &str, group: &str) -> Person {
    Person { identities: member(0, subject, group).identities, ..Person::default() }
}

pub(crate) fn ann() -> Person {
    account(2000, "ann")
}

/// Puts a question that nobody has answered.
pub(crate) async fn ask(desk: &Desk, question: Question) -> Box<dyn Asking> {
    match desk.put(question).await.unwrap() {
        Answer::Waits(waits) => waits,
        Answer::Known(yeses) => panic!("{yeses:?} cover it"),
    }
}

/// Whether a yes covers it.
pub(crate) async fn is_known(desk: &Desk, question: Question) -> bool {
    match desk.put(question).await.unwrap() {
        Answer::Known(_) => true,
        Answer::Waits(waits) => {
            let id = waits.id().clone();
            waits.withdraw("withdrawn");
            settled(desk, &id).await;
            false
        }
    }
}

pub(crate) async fn next(waits: &mut Box<dyn Asking>) -> Step {
    tokio::time::timeout(PATIENCE, waits.next()).await.expect("something happens").unwrap()
}

/// What becomes of it in the end.
pub(crate) async fn end(waits: &mut Box<dyn Asking>) -> Result<String, String> {
    loop {
        match next(waits).await {
            Step::Approved { by, .. } => return Ok(by),
            Step::Refused { word, .. } => return Err(word),
            Step::Seen { .. } | Step::Agreed { .. } => {}
        }
    }
}

/// The question, once it no longer waits.
pub(crate) async fn settled(desk: &Desk, id: &str) -> Inquiry {
    let mut changes = desk.changes();
    let waiting = async {
        loop {
            let inquiry = desk.show(&account(0, "root"), id).await.unwrap();
            if inquiry.state != State::Waiting {
                return inquiry;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it is settled")
}
