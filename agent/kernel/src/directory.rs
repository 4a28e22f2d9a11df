//! Users and groups by name, for the rules: told within a limit in time, and who was told stays known.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::users::{self, Account, Answer, Members};

/// How long all look-ups for one set of rules take together.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many questions without an answer there may be before no more are asked.
const MOST_STUCK: usize = 8;

/// The host's users and groups, and whom its services named so far: they may be away, or slow. One for the agent's life.
#[derive(Debug)]
pub struct Directory {
    pub(crate) local: fn(&str) -> Option<u32>,
    pub(crate) service: fn(&str) -> Answer<u32>,
    pub(crate) local_group: fn(&str) -> Option<Members>,
    pub(crate) group: fn(&str) -> nix::Result<Option<Members>>,
    pub(crate) account: fn(u32) -> Answer<Account>,
    pub(crate) is_in: fn(&Account, u32) -> Option<bool>,
    pub(crate) patience: Duration,
    pub(crate) known: Mutex<HashMap<String, u32>>,
    /// Shared by the threads that wait for an answer.
    pub(crate) asking: Arc<()>,
}

/// The look-ups for one set of rules.
#[derive(Debug)]
pub struct Lookups<'a> {
    directory: &'a Directory,
    deadline: Instant,
    told: HashMap<String, Told>,
    trouble: Vec<String>,
    untold_sub_uids: BTreeSet<String>,
}

/// Whose name that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// This user's, now or when a service last knew.
    Is(u32),
    /// Nobody's.
    Gone,
    /// No service knows it, but one may be away.
    Nowhere,
    /// There was no answer in time.
    Untold,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            local: users::local_uid,
            service: users::uid,
            local_group: users::local_group,
            group: users::group,
            account: users::account,
            is_in: users::is_in,
            patience: PATIENCE,
            known: Mutex::default(),
            asking: Arc::default(),
        }
    }
}

impl Directory {
    /// Begins look-ups; the time for them runs from here.
    pub fn look_up(&self) -> Lookups<'_> {
        Lookups {
            directory: self,
            deadline: Instant::now() + self.patience,
            told: HashMap::new(),
            trouble: Vec::new(),
            untold_sub_uids: BTreeSet::new(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookups<'_> {
    /// Who may not be governed because nobody could tell who they are, for people.
    pub fn into_trouble(mut self) -> Vec<String> {
        if let Some(first) = self.untold_sub_uids.first() {
            let count = self.untold_sub_uids.len();
            self.trouble.push(format!(
                "/etc/subuid: the name service did not tell in time who {first:?} is ({count} such names in all)"
            ));
        }
        self.trouble
    }

    /// The user of that name. Each is asked for once.
    pub(crate) fn user(&mut self, name: &str) -> Told {
        if let Some(told) = self.told.get(name) {
            return *told;
        }
        let told = (self.directory.local)(name).map_or_else(|| self.ask(name), Told::Is);
        self.told.insert(name.to_owned(), told);
        told
    }

    /// The group of that name or number, as the services tell in time.
    pub(crate) fn told_group(&self, group: &str) -> Option<nix::Result<Option<Members>>> {
        let (look, name) = (self.directory.group, group.to_owned());
        self.in_time(move || look(&name))
    }

    /// An account, as the services tell in time.
    pub(crate) fn account(&self, uid: u32) -> Answer<Account> {
        let look = self.directory.account;
        self.in_time(move || look(uid)).unwrap_or(Answer::Untold)
    }

    /// Whether a login of this account's has a group; none if it isn't told in time.
    pub(crate) fn is_in(&self, account: Account, gid: u32) -> Option<bool> {
        let look = self.directory.is_in;
        self.in_time(move || look(&account, gid)).flatten()
    }

    /// The group of that name or number, for a subject; as the host's own table has it if it isn't told in time. None if there
    /// is none: of a number that no group has, nobody is a member.
    pub(crate) fn group(&mut self, subject: &str, group: &str) -> nix::Result<Option<Members>> {
        if let Some(found) = self.told_group(group) {
            let nobody = || Some(Members { gid: group.parse().ok()?, names: Vec::new() });
            return found.map(|found| found.or_else(nobody));
        }
        let found = (self.directory.local_group)(group).ok_or(nix::Error::ETIMEDOUT)?;
        self.trouble.push(format!(
            "subject {subject:?}: the name service did not tell in time who else than /etc/group says is in {group:?}"
        ));
        Ok(Some(found))
    }

    /// A member of a group counts for nobody.
    pub(crate) fn left_out(&mut self, subject: &str, group: &str, member: &str) {
        self.trouble.push(format!(
            "subject {subject:?}: no name service tells who {member:?} is, a member of the group {group:?}"
        ));
    }

    /// Sub-uids of whom that is count for nobody.
    pub(crate) fn left_out_sub_uids(&mut self, user: &str) {
        self.untold_sub_uids.insert(user.to_owned());
    }

    fn ask(&self, name: &str) -> Told {
        let (service, asked) = (self.directory.service, name.to_owned());
        let answer = self.in_time(move || service(&asked)).unwrap_or(Answer::Untold);
        let mut known = self.directory.known();
        match answer {
            Answer::Is(uid) => {
                known.insert(name.to_owned(), uid);
                Told::Is(uid)
            }
            Answer::None => {
                known.remove(name);
                Told::Gone
            }
            Answer::Nowhere => known.get(name).copied().map_or(Told::Nowhere, Told::Is),
            Answer::Untold => known.get(name).copied().map_or(Told::Untold, Told::Is),
        }
    }

    /// The answer, if there is one before the time is over. A question that hangs keeps its thread until it ends.
    fn in_time<T: Send + 'static>(&self, question: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let asking = self.directory.asking.clone();
        if left.is_zero() || Arc::strong_count(&asking) > MOST_STUCK + 1 {
            return None;
        }
        let (tell, told) = mpsc::channel();
        let ask = move || {
            let answer = question();
            drop(asking);
            // Nobody waits for a late one.
            tell.send(answer).ok();
        };
        thread::Builder::new().name("names".into()).spawn(ask).ok()?;
        told.recv_timeout(left).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn stuck<T>(_: &str) -> T {
        loop {
            thread::park();
        }
    }

    #[test]
    fn who_was_told_once_stays_known_until_a_service_says_there_is_nobody() {
        static AWAY: AtomicBool = AtomicBool::new(false);
        let service = |name: &str| match name {
            "gone" if AWAY.load(Ordering::Relaxed) => Answer::None,
            _ if AWAY.load(Ordering::Relaxed) => Answer::Nowhere,
            _ => Answer::Is(1001),
        };
        let mut directory = Directory { service, ..Directory::default() };
        for name in ["ann", "gone"] {
            assert_eq!(directory.look_up().user(name), Told::Is(1001));
        }
        AWAY.store(true, Ordering::Relaxed);
        assert_eq!(directory.look_up().user("ann"), Told::Is(1001));
        assert_eq!(directory.look_up().user("gone"), Told::Gone);
        assert_eq!(directory.look_up().user("bob"), Told::Nowhere);
        directory.service = |_| Answer::Untold;
        assert_eq!(directory.look_up().user("ann"), Told::Is(1001));
        assert_eq!(directory.look_up().user("gone"), Told::Untold);
    }

    #[test]
    fn a_stuck_service_is_waited_for_once_and_keeps_few_threads() {
        let directory = Directory {
            local: |name| (name == "lxd").then_some(998),
            service: stuck,
            local_group: |name| (name == "jobs").then(|| Members { gid: 990, names: vec!["ann".into()] }),
            group: stuck,
            patience: Duration::from_millis(50),
            ..Directory::default()
        };
        let begun = Instant::now();
        for _ in 0..MOST_STUCK + 20 {
            let mut lookups = directory.look_up();
            assert_eq!(lookups.user("ann"), Told::Untold);
            assert_eq!(lookups.user("lxd"), Told::Is(998));
            assert_eq!(lookups.group("ci", "jobs").unwrap().unwrap().gid, 990);
            assert!(lookups.group("ci", "remote").is_err());
            for name in 0..1000 {
                assert_eq!(lookups.user(&name.to_string()), Told::Untold);
            }
            assert!(lookups.into_trouble()[0].contains("\"jobs\""));
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(Arc::strong_count(&directory.asking) <= MOST_STUCK + 2);
    }
}
