//! Whose user ids the sub-uids of user namespaces are (subuid(5)).

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::unistd::User;

use crate::{KernelError, SubUids};

/// Which ids each user may use in user namespaces.
const TABLE: &str = "/etc/subuid";
/// How long a user whom the name service could not tell isn't asked for again.
const PAUSE: Duration = Duration::from_secs(10);

/// Whose user ids are whose, remembered until the host's table changes.
///
/// Root's own ranges count for nobody: what runs in them, as in containers that root began, may do less than any user, and must
/// never be taken for root.
#[derive(Debug)]
pub struct Accounts {
    table: PathBuf,
    read: Mutex<Option<Arc<Read>>>,
}

/// The table as it was read.
#[derive(Debug)]
struct Read {
    version: Option<Version>,
    owned: Vec<Owned>,
    /// When to ask again for users who could not be told; none if all could.
    again: Option<Instant>,
}

/// What changes when the file does.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// A line of the table, and whose it is; an error if that could not be told.
#[derive(Debug)]
struct Owned {
    start: u32,
    count: u32,
    owner: Result<u32, String>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { table: TABLE.into(), read: Mutex::default() }
    }
}

impl Accounts {
    /// The user who answers for a user id: the one whose sub-uid it is, whether anybody governs that user or not, else itself.
    /// None if the table must be read first. Asks no name service.
    pub fn of(&self, uid: u32) -> Option<io::Result<u32>> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let version = match self.version() {
            Ok(version) => version,
            Err(error) => return Some(Err(error)),
        };
        if version != read.version {
            return None;
        }
        let account = account(&read.owned, uid);
        let again = account.is_err() && read.again.is_some_and(|again| Instant::now() >= again);
        (!again).then_some(account)
    }

    /// Reads the table, and asks who its users are. Blocks as long as the name service does.
    ///
    /// # Errors
    ///
    /// It is there and can't be read.
    pub fn read(&self) -> io::Result<()> {
        let version = self.version()?;
        let text = match version {
            Some(_) => fs::read_to_string(&self.table)?,
            None => String::new(),
        };
        let owned = owned(&text, |name| User::from_name(name).map(|user| user.map(|user| user.uid.as_raw())));
        let untold = owned.iter().any(|range| range.owner.is_err());
        let again = untold.then(|| Instant::now() + PAUSE);
        let read = Arc::new(Read { version, owned, again });
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
        Ok(())
    }

    /// None if there is no table.
    fn version(&self) -> io::Result<Option<Version>> {
        match fs::metadata(&self.table) {
            Ok(file) => Ok(Some(Version {
                inode: file.ino(),
                size: file.size(),
                changed: (file.ctime(), file.ctime_nsec()),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The ranges of these users.
///
/// # Errors
///
/// [`KernelError::System`] if the table or the user database can't be read.
pub(crate) fn of_users(users: &[u32]) -> Result<Vec<SubUids>, KernelError> {
    match fs::read_to_string(TABLE) {
        Ok(text) => of_users_in(&text, users),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(KernelError::System { what: TABLE, error }),
    }
}

fn of_users_in(text: &str, users: &[u32]) -> Result<Vec<SubUids>, KernelError> {
    let mut found = Vec::new();
    for Range { user, start, count } in ranges(text) {
        let owner = match user.parse() {
            Ok(uid) => Some(uid),
            Err(_) => User::from_name(user)
                .map_err(|error| KernelError::System { what: "the user database", error: error.into() })?
                .map(|user| user.uid.as_raw()),
        };
        if let Some(owner) = owner.filter(|owner| users.contains(owner)) {
            found.push(SubUids { owner, start, count });
        }
    }
    Ok(found)
}

/// All ranges but those of root and of users who are gone.
fn owned(text: &str, uid_of: impl Fn(&str) -> nix::Result<Option<u32>>) -> Vec<Owned> {
    let owner = |user: &str| match user.parse() {
        Ok(uid) => Ok(Some(uid)),
        Err(_) => uid_of(user).map_err(|error| format!("who {user:?} in {TABLE} is: {error}")),
    };
    let owned = ranges(text).filter_map(|Range { user, start, count }| {
        let owner = owner(user).transpose()?;
        (owner != Ok(0)).then_some(Owned { start, count, owner })
    });
    owned.collect()
}

fn account(owned: &[Owned], uid: u32) -> io::Result<u32> {
    let mut account = None;
    let within = |range: &&Owned| range.start <= uid && uid - range.start < range.count;
    for range in owned.iter().filter(within) {
        let owner = range.owner.clone().map_err(io::Error::other)?;
        if account.replace(owner).is_some_and(|other| other != owner) {
            return Err(io::Error::other(format!("{TABLE}: several users have the sub-uid {uid}")));
        }
    }
    Ok(account.unwrap_or(uid))
}

/// A line of the table.
struct Range<'a> {
    user: &'a str,
    start: u32,
    count: u32,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn account_in(table: &str, uid: u32) -> io::Result<u32> {
        let users = |name: &str| match name {
            "root" => Ok(Some(0)),
            "lxd" => Ok(Some(998)),
            "dead" => Err(nix::errno::Errno::EIO),
            _ => Ok(None),
        };
        account(&owned(table, users), uid)
    }

    #[test]
    fn sub_uids_are_the_governed_users_own_by_name_or_number() {
        let table = "root:100000:65536\n61001:200000:65536\n# other\n61002:300000:65536\nroot:x:1\nroot:5:0\nroot:9\n";
        let range = |owner, start| SubUids { owner, start, count: 65_536 };
        assert_eq!(of_users_in(table, &[0, 61_001]).unwrap(), [range(0, 100_000), range(61_001, 200_000)]);
    }

    #[test]
    fn a_sub_uid_s_account_is_the_user_who_has_it_in_a_range() {
        let table = "61001:200000:65536\nnobody-there:300000:9\n61002:4294967295:65536\n";
        for (uid, account) in [
            (199_999, 199_999),
            (200_000, 61_001),
            (265_535, 61_001),
            (265_536, 265_536),
            (300_001, 300_001),
            (u32::MAX, 61_002),
        ] {
            assert_eq!(account_in(table, uid).unwrap(), account, "{uid}");
        }
    }

    #[test]
    fn a_sub_uid_of_root_is_nobody_and_never_root() {
        for table in ["root:1000000:65536\n", "0:1000000:65536\n"] {
            assert_eq!(account_in(table, 1_000_000).unwrap(), 1_000_000);
        }
        // As LXD has it: the same range twice.
        assert_eq!(account_in("lxd:1000000:65536\nroot:1000000:65536\n", 1_000_001).unwrap(), 998);
    }

    #[test]
    fn a_sub_uid_of_two_users_is_nobody_s() {
        let twice = "61001:200000:65536\n61001:200000:9\n61002:265535:9\n";
        assert_eq!(account_in(twice, 200_000).unwrap(), 61_001);
        assert!(account_in(twice, 265_535).unwrap_err().to_string().contains("265535"));
    }

    #[test]
    fn a_user_who_cannot_be_told_holds_up_nobody_else() {
        let table = "dead:100000:65536\n61001:200000:65536\n";
        assert!(account_in(table, 100_000).unwrap_err().to_string().contains("\"dead\""));
        assert_eq!(account_in(table, 200_000).unwrap(), 61_001);
        assert_eq!(account_in(table, 5).unwrap(), 5);
    }

    #[test]
    fn the_table_is_read_when_it_changes_and_not_else() {
        let directory = tempfile::tempdir().unwrap();
        let accounts = Accounts { table: directory.path().join("subuid"), read: Mutex::default() };
        assert!(accounts.of(200_000).is_none());
        accounts.read().unwrap();
        assert_eq!(accounts.of(200_000).unwrap().unwrap(), 200_000);
        fs::write(&accounts.table, "61001:200000:65536\n").unwrap();
        assert!(accounts.of(200_000).is_none());
        accounts.read().unwrap();
        assert_eq!(accounts.of(200_000).unwrap().unwrap(), 61_001);
    }
}
