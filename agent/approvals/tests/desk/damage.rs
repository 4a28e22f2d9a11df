//! Stores that are away, and what they keep that can't be read.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_approvals::store::{Postgres, Settings, Store};
use tidegate_gate::{
    Approvals as _,
    policy::{Approval, Scope, Sessions},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::common::{
    Kept, PATIENCE, Safe, Says as _, ann, ask, desk, end, fleet, held, is_known, question, superuser, terms,
};

pub(crate) async fn a_question_that_cannot_be_read_is_told_and_hides_no_other(kept: &Kept) {
    let before = desk(&kept.store);
    let asked = |number| question("s", vec![held("ask", terms())], (number, 1));
    let (damaged, whole) =
        (ask(&before, asked(1)).await.id().clone(), ask(&before, asked(2)).await.id().clone());
    drop(before);
    kept.run(&format!("update tidegate_questions set body = '{{}}', brief = '{{' where id = '{damaged}'"))
        .await;
    let store = kept.open().await.unwrap();
    let after = desk(&store);
    for all in [false, true] {
        let listed = after.list(&ann(), all, 9).await.unwrap();
        let ids: Vec<_> = listed.inquiries.iter().map(|inquiry| &inquiry.id).collect();
        assert_eq!((ids, listed.unreadable), (vec![&whole], 1));
    }
    assert_eq!(after.health().unreadable, 1);
    let why = after.show(&ann(), &damaged).await.unwrap_err().to_string();
    assert!(why.contains(&format!("question {damaged} can't be read: missing field")), "{why}");
    // Whoever asks it again is asked about, and who relied on its yes does no more.
    assert_ne!(*ask(&after, asked(1)).await.id(), damaged);
    let revocation = after.revoked(std::slice::from_ref(&damaged)).await;
    assert_eq!(revocation.reason.as_deref(), Some("it can't be read any more"));
}

pub(crate) async fn a_yes_that_cannot_be_read_is_none(kept: &Kept) {
    let desk = desk(&kept.store);
    let (scope, sessions) = (Scope::Resource, Sessions::Any);
    let lasting = Approval { scope, sessions, grant: Some(Duration::from_secs(60)), ..terms() };
    let mut waits = ask(&desk, question("s", vec![held("ask", lasting.clone())], (1, 1))).await;
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    end(&mut waits).await.unwrap();
    assert!(is_known(&desk, question("s", vec![held("ask", lasting.clone())], (1, 1))).await);
    kept.run("update tidegate_questions set body = '{}'").await;
    assert!(!is_known(&desk, question("s", vec![held("ask", lasting)], (1, 1))).await);
}

/// Passes everything on to the server, as long as it may.
struct Relay {
    address: SocketAddr,
    passes: watch::Sender<bool>,
}

impl Relay {
    async fn start(listener: TcpListener, settings: &Settings) -> Self {
        let address = listener.local_addr().unwrap();
        let (passes, may) = watch::channel(true);
        let tokio_postgres::config::Host::Tcp(host) = settings.connection.get_hosts()[0].clone() else {
            panic!("no host")
        };
        let port = settings.connection.get_ports()[0];
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (host, mut may) = (host.clone(), may.clone());
                tokio::spawn(async move {
                    let mut far = TcpStream::connect((&*host, port)).await.unwrap();
                    loop {
                        may.wait_for(|passes| *passes).await.unwrap();
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                            _ = may.wait_for(|passes| !*passes) => {}
                        }
                    }
                });
            }
        });
        Self { address, passes }
    }
}

fn through(address: SocketAddr, settings: &Settings) -> Settings {
    let mut connection = tokio_postgres::Config::new();
    connection
        .host(address.ip().to_string())
        .port(address.port())
        .user(settings.connection.get_user().unwrap())
        .dbname("postgres")
        .options(settings.connection.get_options().unwrap())
        .ssl_mode(tokio_postgres::config::SslMode::Disable);
    Settings { connection, ..settings.clone() }
}

async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn an_agent_that_starts_while_the_database_is_away_asks_once_it_is_there() {
    let settings = fleet().await;
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let store: Arc<dyn Store> = Arc::new(Postgres::open(through(address, &settings)).unwrap());
    let desk = desk(&store);
    let asked = || question("s", vec![held("ask", terms())], (1, 1));
    let since = Instant::now();
    let refused = desk.put(asked()).await.err().unwrap().to_string();
    assert!(refused.contains("error connecting to server"), "{refused}");
    assert!(since.elapsed() < Duration::from_secs(5), "whoever asks waited");
    assert!(desk.health().trouble.is_some());
    let _relay = Relay::start(TcpListener::bind(address).await.unwrap(), &settings).await;
    eventually("it is asked", async || desk.put(asked()).await.is_ok()).await;
    assert!(desk.health().trouble.is_none());
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn nobody_waits_for_a_database_that_hangs_for_longer_than_one_attempt() {
    let settings = fleet().await;
    let relay = Relay::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), &settings).await;
    let store: Arc<dyn Store> = Arc::new(Postgres::open(through(relay.address, &settings)).unwrap());
    let desk = desk(&store);
    let asked = |number| question("s", vec![held("ask", terms())], (number, 1));
    ask(&desk, asked(100)).await;
    relay.passes.send_replace(false);
    let mut asking = JoinSet::new();
    for number in 0..20 {
        let (desk, asked) = (desk.clone(), asked(number));
        asking.spawn(async move {
            let since = Instant::now();
            let refused = desk.put(asked).await.err().unwrap().to_string();
            (refused, since.elapsed())
        });
    }
    for (refused, waited) in asking.join_all().await {
        assert!(refused.contains("does not answer"), "{refused}");
        assert!(waited < Duration::from_secs(15), "one waited for {waited:?}");
    }
    relay.passes.send_replace(true);
    eventually("it is asked", async || desk.put(asked(50)).await.is_ok()).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn a_database_that_is_read_but_takes_nothing_is_told_until_it_does() {
    let mut settings = fleet().await;
    settings.connection.application_name(format!("hangs_{}", std::process::id()));
    let store: Arc<dyn Store> = Arc::new(Postgres::open(settings.clone()).unwrap());
    let desk = desk(&store);
    let asked = |number| question("s", vec![held("ask", terms())], (number, 1));
    ask(&desk, asked(1)).await;
    let superuser = superuser(&settings.connection).await;
    let schema = settings.connection.get_options().unwrap().rsplit('=').next().unwrap();
    let lock = format!("begin; lock table {schema}.tidegate_questions in share mode");
    superuser.batch_execute(&lock).await.unwrap();
    let refused = desk.put(asked(2)).await.err().unwrap().to_string();
    assert!(refused.contains("does not answer"), "{refused}");
    for _ in 0..5 {
        // As often as it is read.
        store.changed(None).await.unwrap();
        assert!(desk.health().trouble.is_some(), "what is read says that people can be asked");
    }
    let left = format!(
        "select pid from pg_stat_activity where application_name = 'hangs_{}' and wait_event_type = 'Lock' \
        and query like '%values ($1, $2%'",
        std::process::id()
    );
    let waits = async || superuser.query(&left, &[]).await.unwrap().len();
    assert_eq!(waits().await, 1);
    eventually("the server leaves it", async || waits().await == 0).await;
    assert!(desk.health().trouble.is_some());
    superuser.batch_execute("rollback").await.unwrap();
    eventually("nobody needs to ask for it to be over", async || desk.health().trouble.is_none()).await;
    ask(&desk, asked(3)).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn a_database_that_refuses_what_is_written_is_told_until_it_takes_it() {
    let settings = fleet().await;
    let store: Arc<dyn Store> = Arc::new(Postgres::open(settings.clone()).unwrap());
    let desk = desk(&store);
    let asked = |number| question("s", vec![held("ask", terms())], (number, 1));
    ask(&desk, asked(1)).await;
    let superuser = superuser(&settings.connection).await;
    let schema = settings.connection.get_options().unwrap().rsplit('=').next().unwrap();
    let full = format!(
        "create function {schema}.full() returns trigger language plpgsql as \
        $$ begin raise exception 'no space left on device'; end $$; \
        create trigger a_full before insert on {schema}.tidegate_questions execute function {schema}.full()"
    );
    superuser.batch_execute(&full).await.unwrap();
    let refused = desk.put(asked(2)).await.err().unwrap().to_string();
    assert!(refused.contains("no space left on device"), "{refused}");
    eventually("it is told", async || desk.health().trouble.is_some()).await;
    let why = desk.health().trouble.unwrap().why.to_string();
    assert!(why.contains("no space left on device"), "{why}");
    superuser.batch_execute(&format!("drop function {schema}.full cascade")).await.unwrap();
    eventually("nobody needs to ask for it to be over", async || desk.health().trouble.is_none()).await;
    let rows = format!("select count(*) from {schema}.tidegate_questions");
    let count: i64 = superuser.query_one(&rows, &[]).await.unwrap().get(0);
    assert_eq!(count, 1, "what was tried is left");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn a_password_that_was_changed_counts_at_the_next_connection() {
    let mut settings = fleet().await;
    let role = format!("fleet_{}", std::process::id());
    let superuser = superuser(&settings.connection).await;
    let run = async |text: String| superuser.batch_execute(&text).await.unwrap();
    let schema = settings.connection.get_options().unwrap().rsplit('=').next().unwrap().to_owned();
    run(format!("create role {role} login password 'first'; grant all on schema {schema} to {role}")).await;
    let safe = Arc::new(Safe::default());
    safe.put("fleet", "first");
    settings.connection.user(&role);
    let settings = Settings { credentials: safe.clone(), ..settings };
    let store = Postgres::open(settings).unwrap();
    store.changed(None).await.unwrap();
    let end = format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'");
    run(format!("alter role {role} password 'second'; {end}")).await;
    eventually("the old password is refused", async || store.changed(None).await.is_err()).await;
    let why = store.health().trouble.unwrap().why.to_string();
    assert!(why.contains("password authentication failed") && !why.contains("first"), "{why}");
    safe.put("fleet", "second");
    eventually("the new password counts", async || store.changed(None).await.is_ok()).await;
    drop(store);
    run(format!("{end}; drop owned by {role}; drop role {role}")).await;
}
