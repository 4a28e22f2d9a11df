//! Who is at the other end.

use std::{io, os::fd::AsFd, sync::Arc};

use tidegate_approvals::Person;
use tidegate_gate::AccountName;
use tidegate_identity::ProcessId;
use tidegate_kernel::{Owner, Peer};
use tidegate_policy::{Identity, Sharer};
use tokio::{net::UnixStream, sync::watch, task::spawn_blocking};

use super::{
    Users,
    shares::{Share, Shares},
};
use crate::accounts::Accounts;

/// Connections of one account, as far as that is known, and of all, whose process is being looked up. More than an account may
/// have, as they come from before it is known.
const COMING: (usize, usize) = (64, 512);
/// Connections at once of one account, or of one container that root made, and of all.
const CALLING: (usize, usize) = (32, 1_024);

/// What issuers say of somebody, as it changes.
pub(super) type Identities = watch::Receiver<Arc<[Identity]>>;

/// The process that connected.
#[derive(Debug)]
pub(super) struct Caller {
    /// It.
    pub(super) process: ProcessId,
    /// The user id of whoever answers for it, as `Process::account` has it: a sub-uid counts as the user whose it is.
    pub(super) account: u32,
    /// As whom it counts.
    pub(super) sharer: Sharer,
}

/// Lets connections in: of each account, and each container, so many.
pub(super) struct Door {
    accounts: Accounts,
    coming: Shares,
    calling: Shares,
}

impl Door {
    pub(super) fn new(accounts: Accounts) -> Self {
        Self { accounts, coming: Shares::new(COMING.0, COMING.1), calling: Shares::new(CALLING.0, CALLING.1) }
    }

    /// Who connected, and their share of the connections. They are counted by what is known of them before anything is waited for,
    /// and as whom they count before anything is done for them.
    ///
    /// # Errors
    ///
    /// They have as many connections as they may, are gone, or it cannot be told whose sub-uid theirs is.
    pub(super) async fn enter(&self, stream: &UnixStream) -> io::Result<(Caller, Share)> {
        let uid = stream.peer_cred()?.uid();
        let too_many = || io::Error::other(format!("uid {uid} has as many connections as it may"));
        let coming = self.coming.take(self.accounts.of_process(uid, false).0).ok_or_else(too_many)?;
        let (stream, accounts) = (stream.as_fd().try_clone_to_owned()?, self.accounts.clone());
        let looked = spawn_blocking(move || {
            let peer = tidegate_kernel::peer(&stream)?;
            Ok::<_, io::Error>((peer, accounts.container(peer.pid)))
        });
        let (Peer { pid, started, .. }, container) = looked.await??;
        let account = match self.accounts.of_process(uid, container.is_some()) {
            (account, false) => account,
            (_, true) => match self.accounts.owner_in_time(uid).await {
                Owner::Is(account) => account,
                Owner::Untold { why, .. } => return Err(io::Error::other(why)),
            },
        };
        let sharer = Sharer::of(account, container.as_ref());
        let share = self.calling.take(sharer.clone()).ok_or_else(too_many)?;
        drop(coming);
        Ok((Caller { process: ProcessId { pid, started }, account, sharer }, share))
    }

    /// What the host says of an account: what it is called, whether it is known to have no name, and its groups. One whose name
    /// cannot be told in time is known by its number alone.
    async fn told(&self, account: u32) -> (Option<Arc<str>>, bool, Vec<Arc<str>>) {
        match self.accounts.name(account, false).await {
            AccountName::Is(name) => {
                let groups = self.accounts.groups(account, &name).await;
                (Some(name), false, groups)
            }
            AccountName::None => (None, true, Vec::new()),
            AccountName::Untold => (None, false, Vec::new()),
        }
    }
}

impl Users {
    /// The caller as somebody who answers questions.
    pub(super) async fn person(&self, caller: &Caller) -> Person {
        self.person_followed(caller).await.0
    }

    /// The same, with what issuers say of them from now on.
    pub(super) async fn person_followed(&self, caller: &Caller) -> (Person, Identities) {
        let followed = self.registry.identify(caller.process, caller.sharer.clone()).await.now;
        let identities = followed.borrow().clone();
        let (user, nameless, unix_groups) = self.door.told(caller.account).await;
        let (host, uid) = (self.desk.host().clone(), Some(caller.account));
        (Person { host, uid, user, nameless, unix_groups, identities }, followed)
    }
}
