//! Names of users, groups and cgroups to the ids that the kernel matches.

use nix::unistd::{Group, User};

use crate::{Hierarchy, KernelError, SubUids, SubjectRule, UnitPattern, sub_uids};

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
    rule.sub_uids = sub_uids::of_users(&rule.uids)?;
    Ok(rule)
}

/// Sub-uids of whom these subjects may govern without naming them: of all users if a primary group, a cgroup or a unit does,
/// else of none.
///
/// # Errors
///
/// [`KernelError::System`] if they can't be read.
pub fn owners(subjects: &[SubjectRule]) -> Result<Vec<SubUids>, KernelError> {
    let by_place =
        |rule: &SubjectRule| !(rule.gids.is_empty() && rule.cgroups.is_empty() && rule.units.is_empty());
    if subjects.iter().any(by_place) { sub_uids::of_all() } else { Ok(Vec::new()) }
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
