//! Who is at the other end.

use std::{
    collections::HashMap,
    ffi::CString,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use nix::unistd::{Group, Uid, User, getgrouplist};
use tidegate_approvals::Person;
use tidegate_identity::ProcessId;
use tidegate_kernel::{KernelError, Peer};
use tidegate_policy::Identity;
use tokio::{net::UnixStream, task::spawn_blocking};

use super::Users;

/// Connections of one account at once.
const MOST: usize = 32;

/// The user who answers for a user id. May block.
pub(super) type Accounts = fn(u32) -> Result<u32, KernelError>;

/// The process that connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// It.
    pub(super) process: ProcessId,
    /// The user id of whoever answers for it, as `Process::account` has it: a sub-uid counts as the user whose it is.
    pub(super) account: u32,
}

/// How many connections each account has.
#[derive(Clone, Default)]
pub(super) struct Callers(Arc<Mutex<HashMap<u32, usize>>>);

/// One connection of an account, counted until dropped.
pub(super) struct Counted {
    callers: Callers,
    account: u32,
}

impl Caller {
    /// Who connected this socket. An error, too, if it cannot be told whose sub-uid theirs is.
    pub(super) async fn of(stream: &UnixStream, accounts: Accounts) -> io::Result<Self> {
        let Peer { pid, started, uid } = tidegate_kernel::peer(stream)?;
        let account = spawn_blocking(move || accounts(uid)).await?.map_err(io::Error::other)?;
        Ok(Self { process: ProcessId { pid, started }, account })
    }
}

impl Callers {
    /// None if the account has as many as it may.
    pub(super) fn count(&self, caller: &Caller) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(caller.account).or_default();
        if *count >= MOST {
            return None;
        }
        *count += 1;
        Some(Counted { callers: self.clone(), account: caller.account })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.callers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.account);
            }
        }
    }
}

impl Users {
    /// The caller as somebody who answers questions.
    pub(super) async fn person(&self, caller: Caller) -> Person {
        let identities = self.registry.identify(caller.process, caller.account).await.now.borrow().clone();
        let (host, account) = (self.desk.host().clone(), caller.account);
        let nobody = Person { host: host.clone(), uid: Some(account), ..Person::default() };
        // An account whose name and groups cannot be told is known by its number alone.
        spawn_blocking(move || person(host, account, identities)).await.unwrap_or(nobody)
    }
}

/// Who an account is on this host, with what issuers say of it. Asks the name service, which may block.
fn person(host: Arc<str>, uid: u32, identities: Arc<[Identity]>) -> Person {
    let account = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let groups = account.as_ref().map_or_else(Vec::new, |account| {
        let name = CString::new(account.name.as_str()).unwrap_or_default();
        getgrouplist(&name, account.gid).unwrap_or_default()
    });
    let names = groups.into_iter().filter_map(|group| Group::from_gid(group).ok().flatten());
    Person {
        host,
        uid: Some(uid),
        user: account.map(|account| account.name.into()),
        unix_groups: names.map(|group| group.name.into()).collect(),
        identities,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(account: u32) -> Caller {
        Caller { process: ProcessId { pid: 1, started: 1 }, account }
    }

    #[test]
    fn one_account_cannot_take_the_connections_of_the_others() {
        let callers = Callers::default();
        let mut counted: Vec<_> = (0..MOST).map(|_| callers.count(&caller(61_001)).unwrap()).collect();
        assert!(callers.count(&caller(61_001)).is_none());
        drop(callers.count(&caller(61_002)).unwrap());
        counted.pop();
        drop(callers.count(&caller(61_001)).unwrap());
        drop(counted);
        assert!(callers.0.lock().unwrap().is_empty());
    }
}
