//! The host's user database: its own tables, which are always there, and the services behind them (nsswitch.conf(5)), which
//! may be slow, away, or say that they know nobody while they are.

use std::{ffi::CString, fs, io, path::Path};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// The host's own accounts (passwd(5)).
const PASSWD: &str = "/etc/passwd";
/// The host's own groups (group(5)).
const GROUP: &str = "/etc/group";
/// Which services are asked, in the order in which they are looked for: some distributions put their own elsewhere.
const SERVICES: [&str; 2] = ["/etc/nsswitch.conf", "/usr/etc/nsswitch.conf"];
/// Where systemd-homed keeps accounts.
const HOMES: &str = "/var/lib/systemd/home";
/// Services that ask nobody beyond this host, and so know who is not there.
const ON_THIS_HOST: [&str; 5] = ["files", "altfiles", "systemd", "mymachines", "compat"];

/// What the database says of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// This.
    Is(T),
    /// There is no such account.
    None,
    /// No service knows such an account; but one that isn't on this host says the same while it is away.
    Nowhere,
    /// It could not be told.
    Untold,
}

/// A group and who is in it besides those whose primary group it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) gid: u32,
    pub(crate) names: Vec<String>,
}

/// An account's name and primary group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) gid: u32,
}

/// What the host's own table calls an account.
pub fn local_name(uid: u32) -> Option<String> {
    let table = table(PASSWD).unwrap_or_default();
    entries(&table).find(|entry| entry.uid == uid).map(|entry| entry.name.to_owned())
}

/// Whose name that is in the host's own table.
pub fn local_uid(name: &str) -> Option<u32> {
    let table = table(PASSWD).unwrap_or_default();
    entries(&table).find(|entry| entry.name == name).map(|entry| entry.uid)
}

/// What the services call an account. Blocks as long as they do.
pub fn name(uid: u32) -> Answer<String> {
    answer(User::from_uid(Uid::from_raw(uid)).map(|user| user.map(|user| user.name)))
}

/// Whose name that is, as the services say. Blocks as long as they do.
pub fn uid(name: &str) -> Answer<u32> {
    answer(User::from_name(name).map(|user| user.map(|user| user.uid.as_raw())))
}

/// The group of that name or number in the host's own table.
pub(crate) fn local_group(group: &str) -> Option<Members> {
    group_in(&table(GROUP).unwrap_or_default(), group)
}

/// The group of that name or number, as the services say. Blocks as long as they do.
pub(crate) fn group(group: &str) -> nix::Result<Option<Members>> {
    let found = match group.parse::<u32>() {
        Ok(gid) => Group::from_gid(gid.into()),
        Err(_) => Group::from_name(group),
    };
    Ok(found?.map(|found| Members { gid: found.gid.as_raw(), names: found.mem }))
}

/// What the services say of an account. Blocks as long as they do.
pub(crate) fn account(uid: u32) -> Answer<Account> {
    let account = |user: User| Account { name: user.name, gid: user.gid.as_raw() };
    answer(User::from_uid(Uid::from_raw(uid)).map(|user| user.map(account)))
}

/// Whether a login of this account's has a group, as the services say; none if they can't. Blocks as long as they do.
pub(crate) fn is_in(account: &Account, gid: u32) -> Option<bool> {
    let name = CString::new(account.name.as_str()).ok()?;
    let groups = getgrouplist(&name, Gid::from_raw(account.gid)).ok()?;
    Some(account.gid == gid || groups.contains(&Gid::from_raw(gid)))
}

/// The groups that the host's own tables say this account is in, by name.
pub fn local_groups(user: &str) -> Vec<String> {
    let passwd = table(PASSWD).unwrap_or_default();
    let primary = entries(&passwd).find(|entry| entry.name == user).map(|entry| entry.gid);
    groups_in(&table(GROUP).unwrap_or_default(), user, primary)
}

/// The groups that the services say this account is in, by name; none if they can't tell whose name that is. Blocks as long as
/// they do.
pub fn groups(user: &str) -> Option<Vec<String>> {
    let gid = User::from_name(user).ok()??.gid;
    let ids = getgrouplist(&CString::new(user).ok()?, gid).ok()?;
    let name = |gid: Gid| Group::from_gid(gid).ok().flatten().map(|group| group.name);
    Some(ids.into_iter().filter_map(name).collect())
}

fn answer<T>(asked: nix::Result<Option<T>>) -> Answer<T> {
    match asked {
        Ok(Some(found)) => Answer::Is(found),
        Ok(None) if knows_all() => Answer::None,
        Ok(None) => Answer::Nowhere,
        Err(_) => Answer::Untold,
    }
}

/// Whether no service beyond this host is asked for accounts.
fn knows_all() -> bool {
    let passwd = table(PASSWD).unwrap_or_default();
    services().is_some_and(|services| all_on_this_host(&services, &passwd)) && !has_homes(Path::new(HOMES))
}

/// Whether a service beyond `/etc/subuid` is asked whose sub-uids are whose.
pub fn asks_for_sub_uids() -> bool {
    services().is_none_or(|services| has_other_than_files(&services))
}

/// Which services are asked for what; none if that can't be read. Without a file, as glibc has it: `files` alone.
fn services() -> Option<String> {
    for path in SERVICES {
        match table(path) {
            Ok(services) => return Some(services),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(String::new())
}

/// Whether systemd-homed keeps accounts there: it is asked by `systemd`, which knows none of them while it is away.
fn has_homes(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut homes) => homes.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn all_on_this_host(services: &str, passwd: &str) -> bool {
    // Lines like this have `compat` ask NIS or another service.
    let elsewhere = passwd.lines().any(|line| line.starts_with(['+', '-']));
    services_of("passwd", services).all(|service| {
        ON_THIS_HOST.iter().any(|known| known.eq_ignore_ascii_case(service))
            && !(elsewhere && service.eq_ignore_ascii_case("compat"))
    })
}

fn has_other_than_files(services: &str) -> bool {
    services_of("subid", services).any(|service| !service.eq_ignore_ascii_case("files"))
}

/// The services that are asked for this.
fn services_of<'a>(wanted: &str, services: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = services.lines().filter_map(|line| line.split('#').next()?.trim().split_once(':'));
    let lines = lines.filter(move |(database, _)| database.trim() == wanted);
    // What is in brackets says what becomes of a service's answer.
    lines.flat_map(|(_, services)| services.split(['[', ']']).step_by(2).flat_map(str::split_whitespace))
}

/// One of the host's tables. A name that isn't UTF-8 is nobody's that anybody can ask for; the others are there all the same.
pub(crate) fn table(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of passwd(5).
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

fn entries(table: &str) -> impl Iterator<Item = Entry<'_>> {
    table.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = own_name(fields.next()?)?;
        Some(Entry { name, uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    })
}

fn groups_in(table: &str, user: &str, primary: Option<u32>) -> Vec<String> {
    let of_user = |line: &str| {
        let mut fields = line.split(':');
        let name = own_name(fields.next()?)?;
        let gid: u32 = fields.nth(1)?.parse().ok()?;
        let member = fields.next()?.split(',').any(|member| member.trim() == user);
        (member || Some(gid) == primary).then(|| name.to_owned())
    };
    table.lines().filter_map(of_user).collect()
}

fn group_in(table: &str, group: &str) -> Option<Members> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = own_name(fields.next()?)?;
        let gid: u32 = fields.nth(1)?.parse().ok()?;
        let names = fields.next()?.split(',').map(str::trim).filter(|name| !name.is_empty());
        (name == group || group.parse() == Ok(gid))
            .then(|| Members { gid, names: names.map(str::to_owned).collect() })
    })
}

/// A name that is the table's own: neither a comment, nor what `compat` reads as a question to another service.
fn own_name(name: &str) -> Option<&str> {
    (!name.is_empty() && !name.starts_with(['+', '-', '#'])).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_their_groups_are_as_the_host_s_tables_say() {
        let passwd = "# root:x:1:1:\nroot:x:0:0::/root:/bin/sh\nci:x:61001:7::/:\nshort:x\n+::5:5:::\n";
        let found: Vec<_> = entries(passwd).map(|entry| (entry.name, entry.uid, entry.gid)).collect();
        assert_eq!(found, [("root", 0, 0), ("ci", 61_001, 7)]);
        let group = "jobs:x:7:\ndba:x:8:ann, ci\nother:x:9:cia,\n+dba2:x:10:ci\nshort:x\n";
        assert_eq!(groups_in(group, "ci", Some(7)), ["jobs", "dba"]);
        assert_eq!(groups_in(group, "ann", None), ["dba"]);
        let dba = Members { gid: 8, names: vec!["ann".into(), "ci".into()] };
        assert_eq!((group_in(group, "dba"), group_in(group, "8")), (Some(dba.clone()), Some(dba)));
        assert_eq!((group_in(group, "dba2"), group_in(group, "short")), (None, None));
    }

    #[test]
    fn who_is_not_there_is_known_only_where_no_service_beyond_the_host_is_asked() {
        for services in [
            "passwd: files systemd",
            "passwd:\tfiles [NOTFOUND=return] mymachines\ngroup: sss",
            "passwd: compat",
            "group: files",
            "#passwd: sss\n",
        ] {
            assert!(all_on_this_host(services, "root:x:0:0::/:"), "{services}");
        }
        for services in [
            "passwd: files sss systemd",
            "passwd: sss files",
            "passwd: files [!UNAVAIL=return] ldap # remote",
            "passwd:files winbind",
        ] {
            assert!(!all_on_this_host(services, "root:x:0:0::/:"), "{services}");
        }
        assert!(!all_on_this_host("passwd: compat", "root:x:0:0::/:\n+::::::\n"));
    }

    #[test]
    fn accounts_of_systemd_homed_are_not_always_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_homes(&folder.path().join("absent")) && !has_homes(folder.path()));
        fs::write(folder.path().join("ann.identity"), "{}").unwrap();
        assert!(has_homes(folder.path()));
    }

    #[test]
    fn sub_uids_that_a_directory_knows_are_seen_to_be_asked_for() {
        for services in
            ["subid: sss", "subid: files sss", "passwd: files\nsubid:\tsss [NOTFOUND=return] files"]
        {
            assert!(has_other_than_files(services), "{services}");
        }
        for services in ["", "passwd: files sss", "subid: files", "#subid: sss"] {
            assert!(!has_other_than_files(services), "{services}");
        }
    }

    #[test]
    fn a_byte_that_is_no_text_takes_no_other_line_from_a_table() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"m\xfcller:x:1002:7:M\xfcller:/:\nann:x:1001:7::/:\n").unwrap();
        let table = table(file.path()).unwrap();
        assert_eq!(entries(&table).find(|entry| entry.name == "ann").map(|entry| entry.uid), Some(1001));
        assert_eq!(entries(&table).count(), 2);
    }
}
