//! Accounts that rules govern, and others: whose folders lead where they are said to.

use std::cell::RefCell;

use tidegate_abi::SubjectKind;

use crate::Lookups;
use crate::directory::Told;
use crate::governed::Governed;
use crate::users::Answer;

const ROOT: u32 = 0;

/// Who is governed, as far as accounts tell it. Where subjects are chosen by cgroup or unit, any account may be governed but root,
/// who is outside the claim.
#[derive(Debug)]
pub(super) struct Accounts<'a> {
    governed: &'a Governed,
    lookups: RefCell<Lookups<'a>>,
}

impl<'a> Accounts<'a> {
    pub(super) fn new(governed: &'a Governed, lookups: Lookups<'a>) -> Self {
        Self { governed, lookups: RefCell::new(lookups) }
    }

    /// Whether a folder of this user's is nobody's who is governed.
    ///
    /// # Errors
    ///
    /// It may be. Says why.
    pub(super) fn may_own(&self, uid: u32) -> Result<(), String> {
        if uid == ROOT {
            return Ok(());
        }
        let whose = || format!("it belongs to user {uid}");
        self.tells().map_err(|why| format!("{}, and {why}", whose()))?;
        let governs = self.governs_user(uid).map_err(|why| format!("{}, and {why}", whose()))?;
        if governs { Err(format!("{}, who is governed", whose())) } else { Ok(()) }
    }

    /// Whether nobody governed is in a group.
    ///
    /// # Errors
    ///
    /// Somebody may be. Says why.
    pub(super) fn may_write(&self, gid: u32) -> Result<(), String> {
        let whose = || format!("group {gid} may write to it");
        self.tells().map_err(|why| format!("{}, and {why}", whose()))?;
        let told = self.lookups.borrow().told_group(&gid.to_string());
        let told = told.ok_or_else(|| format!("{}, and who that is was not told in time", whose()))?;
        let group = told.map_err(|errno| errno.to_string())?;
        let group = group.ok_or_else(|| format!("{}, and this host knows no such group", whose()))?;
        if self.governs_group(gid) || self.governed.users().any(|uid| self.is_member(uid, gid)) {
            return Err(format!("{}, and is governed", whose()));
        }
        for member in &group.names {
            let told = self.lookups.borrow_mut().user(member);
            let governs = match told {
                Told::Is(uid) => self.governs_user(uid),
                Told::Gone => Ok(false),
                Told::Nowhere | Told::Untold => Err(format!("no name service tells who {member:?} is")),
            };
            if governs.map_err(|why| format!("{}, and {why}", whose()))? {
                return Err(format!("{}, and {member} is governed", whose()));
            }
        }
        Ok(())
    }

    fn tells(&self) -> Result<(), &'static str> {
        if self.governed.names_cgroups() {
            return Err("who is governed is chosen by cgroup or unit, and may be any user");
        }
        Ok(())
    }

    /// By its id, as somebody's sub-uid, or by its own group.
    fn governs_user(&self, uid: u32) -> Result<bool, String> {
        if self.governed.of_user(uid) != 0 {
            return Ok(true);
        }
        if !self.governed.names_groups() {
            return Ok(false);
        }
        match self.lookups.borrow().account(uid) {
            Answer::Is(account) => Ok(self.governs_group(account.gid)),
            Answer::None => Ok(false),
            Answer::Nowhere | Answer::Untold => {
                Err(format!("no name service tells which group user {uid} has"))
            }
        }
    }

    fn governs_group(&self, gid: u32) -> bool {
        self.governed.of_id(SubjectKind::Group, u64::from(gid)) != 0
    }

    /// Whether a login of this user's would have this group. What can't be told is a yes.
    fn is_member(&self, uid: u32, gid: u32) -> bool {
        let lookups = self.lookups.borrow();
        match lookups.account(uid) {
            Answer::Is(account) => lookups.is_in(account, gid).unwrap_or(true),
            // An id without an account has only the groups that root gives its processes.
            Answer::None => false,
            Answer::Nowhere | Answer::Untold => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Directory;
    use crate::rules::{SubUids, SubjectRule};
    use crate::users::{Account, Members};

    fn governed(subject: &SubjectRule) -> Governed {
        let mut governed = Governed::default();
        governed.add(subject, 1);
        governed
    }

    /// A host whose group 7 has the member `ann`, and whose accounts all have the group 8.
    fn host(ann: fn(&str) -> Answer<u32>, account: fn(u32) -> Answer<Account>) -> Directory {
        Directory {
            local: |_| None,
            service: ann,
            group: |_| Ok(Some(Members { gid: 7, names: vec!["ann".into()] })),
            account,
            is_in: |account, gid| Some(account.gid == gid),
            ..Directory::default()
        }
    }

    #[test]
    fn a_folder_may_be_anybodys_who_is_not_governed() {
        let sub_uids = vec![SubUids { owner: 61_001, start: 700_000, count: 65_536 }];
        let governed =
            governed(&SubjectRule { uids: vec![61_001], sub_uids, gids: vec![1], ..SubjectRule::default() });
        let directory = Directory::default();
        let accounts = Accounts::new(&governed, directory.look_up());
        for (uid, may) in [(0, true), (61_002, true), (61_001, false), (700_005, false)] {
            assert_eq!(accounts.may_own(uid).is_ok(), may, "{uid}");
        }
        // The user `daemon`, by its group.
        assert!(accounts.may_own(1).unwrap_err().contains("governed"));
    }

    #[test]
    fn a_group_may_write_if_it_is_known_and_nobody_governed_is_in_it() {
        let governed = governed(&SubjectRule { uids: vec![1], gids: vec![9], ..SubjectRule::default() });
        let directory = Directory::default();
        let accounts = Accounts::new(&governed, directory.look_up());
        assert!(accounts.may_write(0).is_ok());
        // That of the user with the id 1, the governed one, and one without a name.
        for gid in [1, 9, 3_999_999] {
            assert!(accounts.may_write(gid).is_err(), "{gid}");
        }
    }

    #[test]
    fn a_member_or_an_account_that_no_service_tells_may_be_governed() {
        let group_eight: fn(u32) -> Answer<Account> = |_| Answer::Is(Account { name: "ann".into(), gid: 8 });
        let by_user = governed(&SubjectRule { uids: vec![61_001], ..SubjectRule::default() });
        for (ann, may) in [
            ((|_: &str| Answer::Is(1001)) as fn(&str) -> Answer<u32>, true),
            (|_| Answer::None, true),
            (|_| Answer::Is(61_001), false),
            (|_| Answer::Nowhere, false),
            (|_| Answer::Untold, false),
        ] {
            let directory = host(ann, group_eight);
            assert_eq!(Accounts::new(&by_user, directory.look_up()).may_write(7).is_ok(), may);
        }
        let by_group = governed(&SubjectRule { gids: vec![9], ..SubjectRule::default() });
        let known: fn(&str) -> Answer<u32> = |_| Answer::Is(1001);
        for (account, may) in [(group_eight, true), (|_| Answer::None, true), (|_| Answer::Nowhere, false)] {
            let directory = host(known, account);
            let accounts = Accounts::new(&by_group, directory.look_up());
            assert_eq!((accounts.may_write(7).is_ok(), accounts.may_own(1001).is_ok()), (may, may));
        }
        // The governed user's own groups.
        let directory = host(known, |_| Answer::Untold);
        assert!(Accounts::new(&by_user, directory.look_up()).may_write(7).is_err());
    }

    #[test]
    fn a_name_service_that_hangs_is_waited_for_once() {
        let hangs = |_: &str| loop {
            std::thread::park();
        };
        let patience = std::time::Duration::from_millis(50);
        let directory = Directory { group: hangs, patience, ..Directory::default() };
        let governed = governed(&SubjectRule { uids: vec![61_001], ..SubjectRule::default() });
        let accounts = Accounts::new(&governed, directory.look_up());
        let begun = std::time::Instant::now();
        assert!((0..100).all(|_| accounts.may_write(7).unwrap_err().contains("in time")));
        assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn where_subjects_are_chosen_by_cgroup_any_account_but_root_may_be_theirs() {
        let governed = governed(&SubjectRule { cgroups: vec!["/ci".into()], ..SubjectRule::default() });
        let directory = Directory::default();
        let accounts = Accounts::new(&governed, directory.look_up());
        assert!(accounts.may_own(0).is_ok());
        assert!(accounts.may_own(61_002).unwrap_err().contains("cgroup"));
        assert!(accounts.may_write(0).is_err());
    }
}
