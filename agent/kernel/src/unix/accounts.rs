//! Accounts that rules govern, and others: whose folders lead where they are said to.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tidegate_abi::SubjectKind;

use crate::governed::Governed;

const ROOT: u32 = 0;

/// Who is governed, as far as accounts tell it. Where subjects are chosen by cgroup or unit, any account may be governed but root,
/// who is outside the claim.
#[derive(Debug)]
pub(super) struct Accounts<'a>(pub(super) &'a Governed);

impl Accounts<'_> {
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
        if self.governs_user(uid)? { Err(format!("{}, who is governed", whose())) } else { Ok(()) }
    }

    /// Whether nobody governed is in a group.
    ///
    /// # Errors
    ///
    /// Somebody may be. Says why.
    pub(super) fn may_write(&self, gid: u32) -> Result<(), String> {
        let whose = || format!("group {gid} may write to it");
        self.tells().map_err(|why| format!("{}, and {why}", whose()))?;
        let unknown = || format!("{}, and this host knows no such group", whose());
        let group = Group::from_gid(Gid::from_raw(gid)).map_err(|errno| errno.to_string())?;
        let group = group.ok_or_else(unknown)?;
        if self.governs_group(gid) || self.0.users().any(|uid| is_member(uid, gid)) {
            return Err(format!("{}, and is governed", whose()));
        }
        for member in &group.mem {
            let user = User::from_name(member).map_err(|errno| errno.to_string())?;
            if let Some(user) = user
                && self.governs_user(user.uid.as_raw())?
            {
                return Err(format!("{}, and {member} is governed", whose()));
            }
        }
        Ok(())
    }

    fn tells(&self) -> Result<(), &'static str> {
        if self.0.names_cgroups() {
            return Err("who is governed is chosen by cgroup or unit, and may be any user");
        }
        Ok(())
    }

    /// By its id, as somebody's sub-uid, or by its own group.
    fn governs_user(&self, uid: u32) -> Result<bool, String> {
        if self.0.of_user(uid) != 0 {
            return Ok(true);
        }
        let user = User::from_uid(Uid::from_raw(uid)).map_err(|errno| errno.to_string())?;
        Ok(user.is_some_and(|user| self.governs_group(user.gid.as_raw())))
    }

    fn governs_group(&self, gid: u32) -> bool {
        self.0.of_id(SubjectKind::Group, u64::from(gid)) != 0
    }
}

/// Whether a login of this user's would have this group. What can't be told is a yes.
fn is_member(uid: u32, gid: u32) -> bool {
    let gid = Gid::from_raw(gid);
    let Ok(found) = User::from_uid(Uid::from_raw(uid)) else { return true };
    // An id without an account has only the groups that root gives its processes.
    let Some(user) = found else { return false };
    let Ok(name) = std::ffi::CString::new(user.name) else { return true };
    user.gid == gid || getgrouplist(&name, user.gid).map_or(true, |groups| groups.contains(&gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{SubUids, SubjectRule};

    fn governed(subject: &SubjectRule) -> Governed {
        let mut governed = Governed::default();
        governed.add(subject, 1);
        governed
    }

    #[test]
    fn a_folder_may_be_anybodys_who_is_not_governed() {
        let sub_uids = vec![SubUids { owner: 61_001, start: 700_000, count: 65_536 }];
        let governed =
            governed(&SubjectRule { uids: vec![61_001], sub_uids, gids: vec![1], ..SubjectRule::default() });
        let accounts = Accounts(&governed);
        for (uid, may) in [(0, true), (61_002, true), (61_001, false), (700_005, false)] {
            assert_eq!(accounts.may_own(uid).is_ok(), may, "{uid}");
        }
        // The user `daemon`, by its group.
        assert!(accounts.may_own(1).unwrap_err().contains("governed"));
    }

    #[test]
    fn a_group_may_write_if_it_is_known_and_nobody_governed_is_in_it() {
        let governed = governed(&SubjectRule { uids: vec![1], gids: vec![9], ..SubjectRule::default() });
        let accounts = Accounts(&governed);
        assert!(accounts.may_write(0).is_ok());
        // That of the user with the id 1, the governed one, and one without a name.
        for gid in [1, 9, 3_999_999] {
            assert!(accounts.may_write(gid).is_err(), "{gid}");
        }
    }

    #[test]
    fn where_subjects_are_chosen_by_cgroup_any_account_but_root_may_be_theirs() {
        let governed = governed(&SubjectRule { cgroups: vec!["/ci".into()], ..SubjectRule::default() });
        let accounts = Accounts(&governed);
        assert!(accounts.may_own(0).is_ok());
        assert!(accounts.may_own(61_002).unwrap_err().contains("cgroup"));
        assert!(accounts.may_write(0).is_err());
    }
}
