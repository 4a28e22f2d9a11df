//! Names of users, groups and cgroups to the ids that the kernel matches.

use crate::{
    Hierarchy, KernelError, Lookups, SubUids, SubjectRule, UnitPattern, directory::Told, sub_uids,
    users::Members,
};

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
/// A member of a group, or somebody with sub-uids, whom a name service that is away or hangs can't tell is who they were when it
/// last could; if it never could, they are left out, and the look-ups' trouble says so.
///
/// # Errors
///
/// [`KernelError::Rules`] names the subject and the name that the host doesn't know or that can't be one: to govern less
/// than the bundle asks would be to fail open.
pub fn resolve(name: &str, names: Names<'_>, lookups: &mut Lookups<'_>) -> Result<SubjectRule, KernelError> {
    let mut rule = SubjectRule { name: name.into(), ..SubjectRule::default() };
    for user in names.users {
        rule.uids.push(user_id(name, user, lookups)?);
    }
    for group in names.groups {
        let found = find_group(name, group, lookups)?;
        rule.gids.push(found.gid);
        for member in &found.names {
            match lookups.user(member) {
                Told::Is(uid) => rule.uids.push(uid),
                // Group files commonly name users that are gone.
                Told::Gone => {}
                Told::Nowhere | Told::Untold => lookups.left_out(name, group, member),
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
    rule.sub_uids = sub_uids::of_users(&rule.uids, lookups)?;
    Ok(rule)
}

/// Sub-uids of whom these subjects may govern without naming them: of all users if a primary group, a cgroup or a unit does,
/// else of none.
///
/// # Errors
///
/// [`KernelError::System`] if they can't be read.
pub fn owners(subjects: &[SubjectRule], lookups: &mut Lookups<'_>) -> Result<Vec<SubUids>, KernelError> {
    let by_place =
        |rule: &SubjectRule| !(rule.gids.is_empty() && rule.cgroups.is_empty() && rule.units.is_empty());
    if subjects.iter().any(by_place) { sub_uids::of_all(lookups) } else { Ok(Vec::new()) }
}

fn user_id(subject: &str, user: &str, lookups: &mut Lookups<'_>) -> Result<u32, KernelError> {
    if let Ok(id) = user.parse() {
        return Ok(id);
    }
    match lookups.user(user) {
        Told::Is(uid) => Ok(uid),
        Told::Gone | Told::Nowhere => Err(unknown(subject, &format!("this host has no user {user:?}"))),
        Told::Untold => {
            let problem =
                format!("the name service did not tell in time who the user {user:?} is; try again");
            Err(unknown(subject, &problem))
        }
    }
}

fn find_group(subject: &str, group: &str, lookups: &mut Lookups<'_>) -> Result<Members, KernelError> {
    let failed = |error: nix::Error| KernelError::System { what: "the group database", error: error.into() };
    let found = lookups.group(subject, group).map_err(failed)?;
    found.ok_or_else(|| unknown(subject, &format!("this host has no group {group:?}")))
}

fn unknown(subject: &str, problem: &str) -> KernelError {
    KernelError::Rules(format!("subject {subject:?}: {problem}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::unistd::Group;

    use super::*;
    use crate::{Directory, users::Answer};

    fn resolved(names: Names<'_>) -> Result<SubjectRule, KernelError> {
        resolve("ci", names, &mut Directory::default().look_up())
    }

    /// The uids of a group of three of whom the host itself knows one, and the trouble.
    fn of_group(directory: &Directory) -> (Vec<u32>, Vec<String>) {
        let (groups, mut lookups) = (["jobs".to_owned()], directory.look_up());
        let rule = resolve("ci", Names { groups: &groups, ..Names::default() }, &mut lookups).unwrap();
        (rule.uids, lookups.into_trouble())
    }

    fn directory(service: fn(&str) -> Answer<u32>) -> Directory {
        Directory {
            local: |name| (name == "local").then_some(500),
            service,
            group: |_| {
                Ok(Some(Members { gid: 990, names: ["local", "ann", "left"].map(str::to_owned).into() }))
            },
            ..Directory::default()
        }
    }

    #[test]
    fn a_member_whom_a_service_told_once_is_governed_while_it_is_away() {
        static AWAY: AtomicBool = AtomicBool::new(false);
        let directory = directory(|name| match name {
            "left" => Answer::None,
            _ if AWAY.load(Ordering::Relaxed) => Answer::Nowhere,
            _ => Answer::Is(1001),
        });
        assert_eq!(of_group(&directory), (vec![500, 1001], vec![]));
        AWAY.store(true, Ordering::Relaxed);
        assert_eq!(of_group(&directory), (vec![500, 1001], vec![]));
    }

    #[test]
    fn a_member_whom_no_service_ever_told_is_left_out_and_named() {
        let services: [fn(&str) -> Answer<u32>; 2] = [
            |name| if name == "ann" { Answer::Nowhere } else { Answer::None },
            |name| if name == "ann" { Answer::Untold } else { Answer::None },
        ];
        for service in services {
            let (uids, trouble) = of_group(&directory(service));
            assert_eq!(uids, [500]);
            let [trouble] = trouble.as_slice() else { panic!("{trouble:?}") };
            assert!(["\"ci\"", "\"ann\"", "\"jobs\""].iter().all(|name| trouble.contains(name)), "{trouble}");
        }
    }

    #[test]
    fn a_user_whom_the_bundle_names_and_nobody_tells_is_an_error() {
        let users = ["ann".to_owned()];
        for service in [|_: &str| Answer::Nowhere, |_: &str| Answer::Untold] {
            let directory = directory(service);
            let names = Names { users: &users, ..Names::default() };
            let error = resolve("ci", names, &mut directory.look_up()).unwrap_err().to_string();
            assert!(error.contains("\"ann\""), "{error}");
        }
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
