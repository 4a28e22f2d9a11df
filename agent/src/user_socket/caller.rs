//! Who is at the other end.

use std::{ffi::CString, io, os::fd::AsFd, sync::Arc};

use nix::unistd::{Group, Uid, User, getgrouplist};
use tidegate_approvals::Person;
use tidegate_identity::ProcessId;
use tidegate_kernel::Peer;
use tidegate_policy::Identity;
use tokio::{
    net::UnixStream,
    sync::{Mutex, watch},
    task::spawn_blocking,
};

use super::{
    Users,
    shares::{Share, Shares},
};

/// Connections of one user id, and of all, whose account is being looked up. More than an account may have, as they come from
/// before it is known.
const COMING: (usize, usize) = (64, 512);
/// Connections of one account at once, and of all.
const CALLING: (usize, usize) = (32, 1_024);

/// What issuers say of somebody, as it changes.
pub(super) type Identities = watch::Receiver<Arc<[Identity]>>;

/// Which user answers for a user id.
pub(super) trait Accounts: Send + Sync {
    /// That user, without waiting; none if [`read`](Self::read) is to be called first.
    fn of(&self, uid: u32) -> Option<io::Result<u32>>;
    /// Reads what it takes to tell. May block.
    fn read(&self) -> io::Result<()>;
}

impl Accounts for tidegate_kernel::Accounts {
    fn of(&self, uid: u32) -> Option<io::Result<u32>> {
        self.of(uid)
    }

    fn read(&self) -> io::Result<()> {
        self.read()
    }
}

/// The process that connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// It.
    pub(super) process: ProcessId,
    /// The user id of whoever answers for it, as `Process::account` has it: a sub-uid counts as the user whose it is.
    pub(super) account: u32,
}

/// Lets connections in: of each account so many.
pub(super) struct Door {
    accounts: Arc<dyn Accounts>,
    /// Held while that is read, so that it is read once.
    reading: Mutex<()>,
    coming: Shares,
    calling: Shares,
}

impl Door {
    pub(super) fn new(accounts: Arc<dyn Accounts>) -> Self {
        Self {
            accounts,
            reading: Mutex::default(),
            coming: Shares::new(COMING.0, COMING.1),
            calling: Shares::new(CALLING.0, CALLING.1),
        }
    }

    /// Who connected, and their share of the connections. They are counted by user id before anything is waited for, and by
    /// account before anything is done for them.
    ///
    /// # Errors
    ///
    /// They have as many connections as they may, are gone, or it cannot be told whose sub-uid theirs is.
    pub(super) async fn enter(&self, stream: &UnixStream) -> io::Result<(Caller, Share)> {
        let uid = stream.peer_cred()?.uid();
        let too_many = || io::Error::other(format!("uid {uid} has as many connections as it may"));
        let account = match self.accounts.of(uid) {
            Some(known) => known?,
            None => {
                let _coming = self.coming.take(uid).ok_or_else(too_many)?;
                self.account(uid).await?
            }
        };
        let share = self.calling.take(account).ok_or_else(too_many)?;
        // It looks at procfs.
        let stream = stream.as_fd().try_clone_to_owned()?;
        let Peer { pid, started, .. } = spawn_blocking(move || tidegate_kernel::peer(&stream)).await??;
        Ok((Caller { process: ProcessId { pid, started }, account }, share))
    }

    async fn account(&self, uid: u32) -> io::Result<u32> {
        let _reading = self.reading.lock().await;
        if let Some(known) = self.accounts.of(uid) {
            return known;
        }
        let accounts = self.accounts.clone();
        spawn_blocking(move || accounts.read()).await??;
        let changes = || Err(io::Error::other("the table of sub-uids changes all the while"));
        self.accounts.of(uid).unwrap_or_else(changes)
    }
}

impl Users {
    /// The caller as somebody who answers questions.
    pub(super) async fn person(&self, caller: Caller) -> Person {
        self.person_followed(caller).await.0
    }

    /// The same, with what issuers say of them from now on.
    pub(super) async fn person_followed(&self, caller: Caller) -> (Person, Identities) {
        let followed = self.registry.identify(caller.process, caller.account).await.now;
        let identities = followed.borrow().clone();
        let (host, account) = (self.desk.host().clone(), caller.account);
        let nobody = Person { host: host.clone(), uid: Some(account), ..Person::default() };
        let turn = self.lookups.of(account).await;
        let asked = spawn_blocking(move || {
            let person = person(host, account, identities);
            drop(turn);
            person
        });
        // An account whose name and groups cannot be told is known by its number alone.
        (asked.await.unwrap_or(nobody), followed)
    }
}

/// Who an account is on this host, with what issuers say of it. Asks the name service, which may block.
fn person(host: Arc<str>, uid: u32, identities: Arc<[Identity]>) -> Person {
    let told = User::from_uid(Uid::from_raw(uid));
    let nameless = matches!(told, Ok(None));
    let account = told.ok().flatten();
    let groups = account.as_ref().map_or_else(Vec::new, |account| {
        let name = CString::new(account.name.as_str()).unwrap_or_default();
        getgrouplist(&name, account.gid).unwrap_or_default()
    });
    let names = groups.into_iter().filter_map(|group| Group::from_gid(group).ok().flatten());
    Person {
        host,
        uid: Some(uid),
        user: account.map(|account| account.name.into()),
        nameless,
        unix_groups: names.map(|group| group.name.into()).collect(),
        identities,
    }
}
