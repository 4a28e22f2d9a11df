//! Names of users, groups and cgroups to the ids that the kernel matches.

use std::{fs, io};

use nix::unistd::{Group, User};

use crate::{Hierarchy, KernelError, SubUids, SubjectRule, UnitPattern};

/// The names that choose a subject's processes. Any one of them does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// Users, by name or number.
    pub users: &'a [String],
    /// Groups, by name or number: as primary group, and for the group's members.
    pub groups: &'a [String],
    /// Paths within the cgroup v2 hierarchy.
    pub cgroups: &'a [String],
    /// Units of the service manager, see [`UnitPattern::parse`].
    pub units: &'a [String],
}

/// Which ids each user may use in user namespaces (subuid(5)).
const SUB_UIDS: &str = "/etc/subuid";

/// Resolves names by the host's user database and its sub-uids, as they are now: a new member of a group is governed from the
/// next time the rules are replaced. Cgroups and units needn't be there yet.
///
/// # Errors
///
/// [`KernelError::Rules`] names the subject and the name that the host doesn't know or that can't be one: to govern less
/// than the bundle asks would be to fail open.
pub fn resolve(name: &str, names: Names<'_>) -> Result<SubjectRule, KernelError> {
    let mut rule = SubjectRule { name: name.into(), ..SubjectRule::default() };
    for user in names.users {
        rule.uids.push(user_id(name, user)?);
    }
    for group in names.groups {
        let found = find_group(name, group)?;
        rule.gids.push(found.gid);
        for member in &found.members {
            // Group files commonly name users that are gone.
            if let Some(user) = User::from_name(member).map_err(failed("the user database"))? {
                rule.uids.push(user.uid.as_raw());
            }
        }
    }
    for cgroup in names.cgroups {
        rule.cgroups.push(Hierarchy::absolute(cgroup).map_err(|error| unknown(name, &error.to_string()))?);
    }
    for unit in names.units {
        rule.units.push(UnitPattern::parse(unit).map_err(|error| unknown(name, &error.to_string()))?);
    }
    rule.uids.sort_unstable();
    rule.uids.dedup();
    rule.sub_uids = match fs::read_to_string(SUB_UIDS) {
        Ok(text) => sub_uids(&text, &rule.uids)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(KernelError::System { what: SUB_UIDS, error }),
    };
    Ok(rule)
}

/// The user who answers for a user id: the one whose sub-uid it is, whether anybody governs that user or not, else itself.
///
/// # Errors
///
/// [`KernelError::System`] if that cannot be told, [`KernelError::Rules`] if several users have the id in their ranges.
pub fn account(uid: u32) -> Result<u32, KernelError> {
    match fs::read_to_string(SUB_UIDS) {
        Ok(text) => account_in(&text, uid),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(uid),
        Err(error) => Err(KernelError::System { what: SUB_UIDS, error }),
    }
}

fn account_in(text: &str, uid: u32) -> Result<u32, KernelError> {
    let mut account = None;
    let within = |range: &Range<'_>| range.start <= uid && uid - range.start < range.count;
    for range in ranges(text).filter(within) {
        let Some(owner) = range.owner()? else { continue };
        if account.replace(owner).is_some_and(|other| other != owner) {
            return Err(KernelError::Rules(format!("{SUB_UIDS}: several users have the sub-uid {uid}")));
        }
    }
    Ok(account.unwrap_or(uid))
}

/// The ranges of these users in a table of them.
fn sub_uids(text: &str, users: &[u32]) -> Result<Vec<SubUids>, KernelError> {
    let mut found = Vec::new();
    for range in ranges(text) {
        let Range { start, count, .. } = range;
        if let Some(owner) = range.owner()?.filter(|owner| users.contains(owner)) {
            found.push(SubUids { owner, start, count });
        }
    }
    Ok(found)
}

/// A line of the table.
struct Range<'a> {
    user: &'a str,
    start: u32,
    count: u32,
}

impl Range<'_> {
    /// Whose it is; none for a user that is gone.
    fn owner(&self) -> Result<Option<u32>, KernelError> {
        if let Ok(uid) = self.user.parse() {
            return Ok(Some(uid));
        }
        let user = User::from_name(self.user).map_err(failed("the user database"))?;
        Ok(user.map(|user| user.uid.as_raw()))
    }
}

/// What newuidmap(1) wouldn't understand gives nobody an id.
fn ranges(text: &str) -> impl Iterator<Item = Range<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (count > 0).then_some(Range { user, start, count })
    })
}

struct FoundGroup {
    gid: u32,
    members: Vec<String>,
}

fn user_id(subject: &str, user: &str) -> Result<u32, KernelError> {
    if let Ok(id) = user.parse() {
        return Ok(id);
    }
    match User::from_name(user).map_err(failed("the user database"))? {
        Some(found) => Ok(found.uid.as_raw()),
        None => Err(unknown(subject, &format!("this host has no user {user:?}"))),
    }
}

fn find_group(subject: &str, group: &str) -> Result<FoundGroup, KernelError> {
    let database = "the group database";
    if let Ok(gid) = group.parse::<u32>() {
        let found = Group::from_gid(gid.into()).map_err(failed(database))?;
        return Ok(FoundGroup { gid, members: found.map(|group| group.mem).unwrap_or_default() });
    }
    match Group::from_name(group).map_err(failed(database))? {
        Some(found) => Ok(FoundGroup { gid: found.gid.as_raw(), members: found.mem }),
        None => Err(unknown(subject, &format!("this host has no group {group:?}"))),
    }
}

fn unknown(subject: &str, problem: &str) -> KernelError {
    KernelError::Rules(format!("subject {subject:?}: {problem}"))
}

fn failed(what: &'static str) -> impl Fn(nix::Error) -> KernelError {
    move |error| KernelError::System { what, error: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(names: Names<'_>) -> Result<SubjectRule, KernelError> {
        resolve("ci", names)
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let users = ["root".to_owned(), "61001".to_owned()];
        let rule = resolved(Names { users: &users, ..Names::default() }).unwrap();
        assert_eq!(rule.uids, [0, 61_001]);
    }

    #[test]
    fn a_group_counts_as_primary_group_and_by_its_members() {
        let root = Group::from_gid(0.into()).unwrap().unwrap();
        let groups = [root.name];
        let rule = resolved(Names { groups: &groups, ..Names::default() }).unwrap();
        assert_eq!(rule.gids, [0]);
        assert_eq!(rule.uids.is_empty(), root.mem.is_empty());
    }

    #[test]
    fn sub_uids_are_the_governed_users_own_by_name_or_number() {
        let table = "root:100000:65536\n61001:200000:65536\n# other\n61002:300000:65536\nroot:x:1\nroot:5:0\nroot:9\n";
        let range = |owner, start| SubUids { owner, start, count: 65_536 };
        assert_eq!(sub_uids(table, &[0, 61_001]).unwrap(), [range(0, 100_000), range(61_001, 200_000)]);
    }

    #[test]
    fn a_sub_uid_s_account_is_the_user_who_has_it_in_a_range() {
        let table = "root:100000:65536\n61001:200000:65536\nnobody-there:300000:9\n61002:4294967295:65536\n";
        for (uid, account) in [
            (100_000, 0),
            (165_535, 0),
            (165_536, 165_536),
            (99_999, 99_999),
            (200_033, 61_001),
            (300_001, 300_001),
            (u32::MAX, 61_002),
        ] {
            assert_eq!(account_in(table, uid).unwrap(), account, "{uid}");
        }
    }

    #[test]
    fn a_sub_uid_of_two_users_is_nobody_s() {
        let twice = "61001:200000:65536\n61001:200000:9\n61002:265535:9\n";
        assert_eq!(account_in(twice, 200_000).unwrap(), 61_001);
        assert!(account_in(twice, 265_535).unwrap_err().to_string().contains("265535"));
    }

    #[test]
    fn a_cgroup_need_not_be_there_but_its_path_must_be_possible() {
        let absent = ["no/such.slice/".to_owned()];
        assert_eq!(
            resolved(Names { cgroups: &absent, ..Names::default() }).unwrap().cgroups,
            ["/no/such.slice"]
        );
        let impossible = ["/a/../b".to_owned()];
        assert!(resolved(Names { cgroups: &impossible, ..Names::default() }).is_err());
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_subject_and_name() {
        let names = ["no-such-account".to_owned()];
        for names in [
            Names { users: &names, ..Names::default() },
            Names { groups: &names, ..Names::default() },
            Names { units: &names, ..Names::default() },
        ] {
            let error = resolved(names).unwrap_err().to_string();
            assert!(error.contains("\"ci\"") && error.contains("no-such-account"), "{error}");
        }
    }
}
