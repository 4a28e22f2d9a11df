use std::sync::{
    Condvar,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::*;

const SOON: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_secs(3600);

/// A user database whose services answer while they are not stuck. The host's own tables know `ann`, 1001.
#[derive(Default)]
pub(crate) struct Fake {
    /// Who answers for every user id; else itself.
    owner: Option<u32>,
    /// The services know nobody, and nobody beyond this host is asked.
    alone: bool,
    /// Every user id is a sub-uid whose user only the services know.
    nobody_told: bool,
    away: AtomicBool,
    stuck: Mutex<bool>,
    changed: Condvar,
    asked: AtomicUsize,
    owners_told: AtomicBool,
    /// Sub-uids are asked of a directory, too.
    directory: bool,
    /// The container that every process is in.
    container: Option<Arc<str>>,
}

impl Fake {
    /// One whose services don't answer until they are [let go](Self::let_go).
    pub(crate) fn stuck() -> Arc<Self> {
        Arc::new(Self { stuck: Mutex::new(true), ..Self::default() })
    }

    /// One of a host where this account answers for everybody.
    pub(crate) fn owned_by(owner: u32) -> Arc<Self> {
        Arc::new(Self { owner: Some(owner), ..Self::default() })
    }

    /// The same, and its services are stuck.
    pub(crate) fn stuck_for(owner: u32) -> Arc<Self> {
        Arc::new(Self { stuck: Mutex::new(true), owner: Some(owner), ..Self::default() })
    }

    /// The same, of a host that can't tell which account answers for anybody.
    pub(crate) fn stuck_for_whoever_comes() -> Arc<Self> {
        Arc::new(Self { stuck: Mutex::new(true), nobody_told: true, ..Self::default() })
    }

    pub(crate) fn let_go(&self) {
        *self.stuck.lock().unwrap() = false;
        self.changed.notify_all();
    }

    fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        drop(self.changed.wait_while(self.stuck.lock().unwrap(), |stuck| *stuck).unwrap());
    }
}

/// Services that are stuck must not hold up a test's end.
pub(crate) struct LetsGo(pub(crate) Arc<Fake>);

impl Drop for LetsGo {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// The first id of a range of sub-uids whose user the services know: 1002.
const RANGE: u32 = 200_000;

impl Database for Fake {
    fn owner(&self, uid: u32) -> Owner {
        match self.owner {
            Some(owner) => Owner::Is(owner),
            None if uid < RANGE && !self.nobody_told => Owner::Is(uid),
            None if self.owners_told.load(Ordering::Relaxed) => Owner::Is(1002),
            None => Owner::Untold { first: RANGE, why: "it is nobody's".into() },
        }
    }

    fn is_owner_due(&self) -> bool {
        self.owner.is_none() && !self.owners_told.load(Ordering::Relaxed)
    }

    fn ask_owners(&self) {
        self.ask();
        self.owners_told.store(true, Ordering::Relaxed);
    }

    fn local_name(&self, account: u32) -> Option<String> {
        (account == 1001).then(|| "ann".into())
    }

    fn name(&self, account: u32) -> Answer<String> {
        self.ask();
        match account {
            _ if self.alone => Answer::None,
            2000.. if !self.away.load(Ordering::Relaxed) => Answer::Is("late".into()),
            _ => Answer::Nowhere,
        }
    }

    fn local_groups(&self, user: &str) -> Vec<String> {
        if user == "ann" { vec!["dba".into()] } else { Vec::new() }
    }

    fn groups(&self, _user: &str) -> Option<Vec<String>> {
        self.ask();
        Some(vec!["remote".into(), "dba".into()])
    }

    fn has_untold_sub_uids(&self) -> bool {
        self.directory
    }

    fn container(&self, _pid: u32) -> Option<Arc<str>> {
        self.container.clone()
    }
}

fn is(name: &str) -> AccountName {
    AccountName::Is(name.into())
}

#[tokio::test]
async fn a_name_service_that_does_not_answer_holds_up_no_account_of_the_host_and_takes_two_threads() {
    let fake = LetsGo(Fake::stuck());
    let accounts = Accounts::of(fake.0.clone(), SOON);
    let waiting: Vec<_> = (2000..2100)
        .flat_map(|account| [account; 3])
        .map(|account| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.name(account, false).await })
        })
        .collect();
    assert_eq!(accounts.name(1001, false).await, is("ann"));
    for one in waiting {
        assert_eq!(one.await.unwrap(), AccountName::Untold);
    }
    assert!(fake.0.asked.load(Ordering::Relaxed) <= 2);
    // For a while nobody waits for it again.
    assert_eq!(accounts.known_name(2000, false), Some(AccountName::Untold));
}

#[tokio::test]
async fn a_name_is_asked_for_once_by_all_who_wait_for_it() {
    let fake = LetsGo(Fake::stuck());
    let accounts = Accounts::of(fake.0.clone(), NEVER);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.name(2000, false).await })
        })
        .collect();
    fake.0.let_go();
    for one in waiting {
        assert_eq!(one.await.unwrap(), is("late"));
    }
    assert_eq!((fake.0.asked.load(Ordering::Relaxed), accounts.name(2000, false).await), (1, is("late")));
}

#[tokio::test]
async fn an_account_that_a_service_beyond_the_host_does_not_know_is_nameless_in_containers_alone() {
    let accounts = Accounts::of(Arc::new(Fake::default()), NEVER);
    assert_eq!(accounts.name(1500, false).await, AccountName::Untold);
    assert_eq!(accounts.name(1500, true).await, AccountName::None);
    let accounts = Accounts::of(Arc::new(Fake { alone: true, ..Fake::default() }), NEVER);
    assert_eq!(accounts.name(1500, false).await, AccountName::None);
}

#[tokio::test]
async fn an_account_that_has_had_a_name_is_never_nameless() {
    let fake = Arc::new(Fake::default());
    let accounts = Accounts::of(fake.clone(), NEVER);
    assert_eq!(accounts.name(2000, true).await, is("late"));
    fake.away.store(true, Ordering::Relaxed);
    accounts.0.names.keep(2000, Some(Answer::Nowhere));
    assert_eq!(accounts.name(2000, true).await, AccountName::Untold);
}

#[tokio::test]
async fn groups_of_the_host_count_while_the_name_service_is_stuck() {
    let fake = LetsGo(Fake::stuck());
    let ann = "ann".into();
    let accounts = Accounts::of(fake.0.clone(), SOON);
    assert_eq!(accounts.groups(1001, &ann).await, ["dba".into()]);
    fake.0.let_go();
    let accounts = Accounts::of(fake.0.clone(), NEVER);
    assert_eq!(accounts.groups(1001, &ann).await, ["dba".into(), "remote".into()]);
}

#[tokio::test]
async fn an_owner_whom_only_a_service_knows_is_waited_for_and_the_others_are_not() {
    let fake = LetsGo(Fake::stuck());
    let accounts = Accounts::of(fake.0.clone(), SOON);
    let untold = Owner::Untold { first: RANGE, why: "it is nobody's".into() };
    assert_eq!(accounts.owner(RANGE + 7), untold);
    assert_eq!(accounts.owner_in_time(RANGE + 7).await, untold);
    assert_eq!(accounts.owner_in_time(1001).await, Owner::Is(1001));
    assert!(fake.0.asked.load(Ordering::Relaxed) <= 1, "one thread waits");
    fake.0.let_go();
    let accounts = Accounts::of(fake.0.clone(), NEVER);
    assert_eq!(accounts.owner_in_time(RANGE + 7).await, Owner::Is(1002));
}

#[tokio::test]
async fn what_was_not_told_at_connect_is_told_when_it_asks() {
    let process =
        Process { uid: RANGE + 7, sub_uid_of: Some(RANGE), owner_untold: true, ..Process::default() };
    let fake = LetsGo(Fake::stuck());
    let why = Accounts::of(fake.0.clone(), SOON).complete(&mut process.clone()).await.unwrap_err();
    assert!(why.contains("200007") && why.contains("nobody's"), "{why}");
    fake.0.let_go();
    let accounts = Accounts::of(fake.0.clone(), NEVER);
    let mut process = process;
    accounts.complete(&mut process).await.unwrap();
    assert_eq!((process.account(), process.owner_untold), (1002, false));
    let mut late = Process { uid: 2000, ..Process::default() };
    accounts.complete(&mut late).await.unwrap();
    assert_eq!(late.user.as_deref(), Some("late"));
}

#[tokio::test]
async fn in_a_container_that_root_made_an_id_whose_owner_nobody_tells_is_its_own() {
    let fake = LetsGo(Fake::stuck_for_whoever_comes());
    let accounts = Accounts::of(fake.0.clone(), SOON);
    assert_eq!(accounts.of_process(RANGE + 7, true), (RANGE + 7, false));
    assert_eq!(accounts.of_process(RANGE + 7, false), (RANGE, true));
    // Whose it is known to be may do there as they like, and must not answer what it asks.
    let known = Accounts::of(Fake::owned_by(1002), SOON);
    assert_eq!(known.of_process(RANGE + 7, true), (1002, false));
}

#[tokio::test]
async fn nobody_is_asked_for_an_id_that_may_be_a_sub_uid_that_only_a_directory_knows() {
    let complete = async |fake: Fake, mut process: Process| {
        let accounts = Accounts::of(Arc::new(fake), NEVER);
        accounts.complete(&mut process).await
    };
    let nameless = || Process { uid: 1500, ..Process::default() };
    let asks = || Fake { directory: true, ..Fake::default() };
    let why = complete(asks(), nameless()).await.unwrap_err();
    assert!(why.contains("1500") && why.contains("subid"), "{why}");
    complete(Fake::default(), nameless()).await.unwrap();
    // Who has a name is no sub-uid; one that `/etc/subuid` has is told; nor does root's container have any.
    complete(asks(), Process { uid: 1001, ..Process::default() }).await.unwrap();
    complete(asks(), Process { sub_uid_of: Some(1002), ..nameless() }).await.unwrap();
    complete(asks(), Process { container: Some("4f2".into()), ..nameless() }).await.unwrap();
}
