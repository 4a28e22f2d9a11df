//! Whose user ids are whose, what accounts are called, and which groups they are in: for everybody who connects, asks or
//! answers alike, as far as the host tells it in time.

mod lookup;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidegate_gate::AccountName;
use tidegate_kernel::{
    Owner, Processes,
    users::{self, Answer},
};
use tidegate_policy::Process;
use tokio::{task::spawn_blocking, time::timeout};

use self::lookup::Lookup;

/// How long anybody waits for the name service. Without a name nobody is shut out, but who is known by a login may be whoever asks.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long names are remembered.
const NAMES_KEPT: Duration = Duration::from_secs(60);
/// How long groups are: whoever was just put into one isn't kept waiting.
const GROUPS_KEPT: Duration = Duration::from_secs(10);

/// The host's user database. What isn't told by its own tables may block.
pub(crate) trait Database: Send + Sync {
    /// The user who answers for a user id, as the host's own tables say.
    fn owner(&self, uid: u32) -> Owner;
    /// Whether the services are to be asked for owners.
    fn is_owner_due(&self) -> bool;
    /// Asks the services for the owners that the host's own tables don't say.
    fn ask_owners(&self);
    /// What the host's own tables call an account.
    fn local_name(&self, account: u32) -> Option<String>;
    /// What the services call it.
    fn name(&self, account: u32) -> Answer<String>;
    /// The groups that the host's own tables say an account is in.
    fn local_groups(&self, user: &str) -> Vec<String>;
    /// The groups that the services say it is in.
    fn groups(&self, user: &str) -> Option<Vec<String>>;
    /// Whether user ids may be somebody's sub-uids by a table that nobody but a service has.
    fn has_untold_sub_uids(&self) -> bool;
    /// The container that root made and this process is in.
    fn container(&self, pid: u32) -> Option<Arc<str>>;
}

/// This host's.
struct Host {
    owners: tidegate_kernel::Accounts,
    processes: Arc<Processes>,
}

impl Database for Host {
    fn owner(&self, uid: u32) -> Owner {
        self.owners.of(uid)
    }

    fn is_owner_due(&self) -> bool {
        self.owners.is_due()
    }

    fn ask_owners(&self) {
        self.owners.ask();
    }

    fn local_name(&self, account: u32) -> Option<String> {
        users::local_name(account)
    }

    fn name(&self, account: u32) -> Answer<String> {
        users::name(account)
    }

    fn local_groups(&self, user: &str) -> Vec<String> {
        users::local_groups(user)
    }

    fn groups(&self, user: &str) -> Option<Vec<String>> {
        users::groups(user)
    }

    fn has_untold_sub_uids(&self) -> bool {
        users::asks_for_sub_uids()
    }

    fn container(&self, pid: u32) -> Option<Arc<str>> {
        self.processes.container_of(pid)
    }
}

/// Knows accounts. A name service that does not answer stops nobody but who waits for it, and those no longer than a moment.
#[derive(Clone)]
pub(crate) struct Accounts(Arc<Inner>);

struct Inner {
    database: Arc<dyn Database>,
    patience: Duration,
    /// Held while the services are asked for owners.
    asking: Arc<tokio::sync::Mutex<()>>,
    names: Lookup<Answer<Arc<str>>>,
    groups: Lookup<Vec<String>>,
    /// Accounts that have had a name: a service that knows none of them now is away.
    named: Mutex<HashSet<u32>>,
}

impl Accounts {
    /// This host's.
    pub(crate) fn of_host(processes: Arc<Processes>) -> Self {
        Self::of(Arc::new(Host { owners: tidegate_kernel::Accounts::default(), processes }), PATIENCE)
    }

    pub(crate) fn of(database: Arc<dyn Database>, patience: Duration) -> Self {
        let (names, groups) = (database.clone(), database.clone());
        let name = move |account| match names.name(account) {
            Answer::Is(name) => Some(Answer::Is(name.into())),
            Answer::None => Some(Answer::None),
            Answer::Nowhere => Some(Answer::Nowhere),
            Answer::Untold => None,
        };
        let in_groups = move |account| {
            let of_service = || if let Answer::Is(name) = groups.name(account) { Some(name) } else { None };
            groups.groups(&groups.local_name(account).or_else(of_service)?)
        };
        Self(Arc::new(Inner {
            database,
            patience,
            asking: Arc::default(),
            names: Lookup::new((patience, NAMES_KEPT), name),
            groups: Lookup::new((patience, GROUPS_KEPT), in_groups),
            named: Mutex::default(),
        }))
    }

    /// The user who answers for a user id, without waiting. Within a runtime: has what can't be told asked for beside that.
    pub(crate) fn owner(&self, uid: u32) -> Owner {
        let owner = self.0.database.owner(uid);
        if self.0.database.is_owner_due()
            && let Ok(asking) = self.0.asking.clone().try_lock_owned()
        {
            let database = self.0.database.clone();
            drop(spawn_blocking(move || {
                database.ask_owners();
                drop(asking);
            }));
        }
        owner
    }

    /// The same, if that can't be told waiting for a moment.
    pub(crate) async fn owner_in_time(&self, uid: u32) -> Owner {
        let owner = self.owner(uid);
        if matches!(owner, Owner::Is(_)) {
            return owner;
        }
        // Whoever is asking has asked by then.
        let _asked = timeout(self.0.patience, self.0.asking.lock()).await;
        self.0.database.owner(uid)
    }

    /// Whose a process's user id is, without waiting, as [`owner`](Self::owner) has it; and whether that could not be told. In a
    /// container that root made an id is its own where nobody is known to have it.
    pub(crate) fn of_process(&self, uid: u32, contained: bool) -> (u32, bool) {
        match self.owner(uid) {
            Owner::Is(owner) => (owner, false),
            Owner::Untold { .. } if contained => (uid, false),
            Owner::Untold { first, .. } => (first, true),
        }
    }

    /// The container that root made and this process is in. Reads files.
    pub(crate) fn container(&self, pid: u32) -> Option<Arc<str>> {
        self.0.database.container(pid)
    }

    /// What an account is called. `contained`: it is asked for a process in a container that root made, whose accounts needn't
    /// be the host's.
    pub(crate) async fn name(&self, account: u32, contained: bool) -> AccountName {
        if let Some(name) = self.known_name(account, contained) {
            return name;
        }
        let database = self.0.database.clone();
        let local = spawn_blocking(move || database.local_name(account)).await.ok().flatten();
        let told = match local {
            Some(name) => {
                let name = Answer::Is(name.into());
                self.0.names.keep(account, Some(name.clone()));
                Some(name)
            }
            None => self.0.names.of(account).await,
        };
        self.counts(account, told, contained)
    }

    /// The same, of what is remembered.
    pub(crate) fn known_name(&self, account: u32, contained: bool) -> Option<AccountName> {
        let known = self.0.names.known(account)?;
        Some(self.counts(account, known, contained))
    }

    fn counts(&self, account: u32, told: Option<Answer<Arc<str>>>, contained: bool) -> AccountName {
        let mut named = self.0.named.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Some(Answer::Is(name)) => {
                named.insert(account);
                AccountName::Is(name)
            }
            _ if named.contains(&account) => AccountName::Untold,
            Some(Answer::None) => AccountName::None,
            Some(Answer::Nowhere) if contained => AccountName::None,
            _ => AccountName::Untold,
        }
    }

    /// The groups that an account is in: those that the host's own tables say, and what the services tell in time.
    pub(crate) async fn groups(&self, account: u32, user: &Arc<str>) -> Vec<Arc<str>> {
        let (database, user) = (self.0.database.clone(), user.clone());
        let mut groups = spawn_blocking(move || database.local_groups(&user)).await.unwrap_or_default();
        groups.extend(self.0.groups.of(account).await.unwrap_or_default());
        groups.sort_unstable();
        groups.dedup();
        groups.into_iter().map(Arc::from).collect()
    }

    /// Tells of a process that asks what could not be told when it connected.
    ///
    /// # Errors
    ///
    /// It can't be told whose account it is, so nobody could be told not to answer; worded for whoever asks.
    pub(crate) async fn complete(&self, process: &mut Process) -> Result<(), String> {
        if process.owner_untold {
            match self.owner_in_time(process.uid).await {
                Owner::Is(owner) => {
                    process.sub_uid_of = (owner != process.uid).then_some(owner);
                    process.owner_untold = false;
                }
                Owner::Untold { why, .. } => {
                    return Err(format!("whose the user id {} is could not be told: {why}", process.uid));
                }
            }
        }
        let contained = process.container.is_some();
        if process.user.is_none() && !process.nameless {
            self.name(process.account(), contained).await.tell(process);
        }
        if process.user.is_none() && process.sub_uid_of.is_none() && !contained {
            let database = self.0.database.clone();
            if spawn_blocking(move || database.has_untold_sub_uids()).await.unwrap_or(true) {
                let uid = process.uid;
                return Err(format!(
                    "whose the user id {uid} is could not be told: it has no name, and may be a sub-uid that only a name \
                     service knows (`subid:` in nsswitch.conf)"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
