//! Whose user ids the sub-uids of user namespaces are (subuid(5)).

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    KernelError, Lookups, SubUids,
    directory::Told,
    users::{self, Answer},
};

/// Which ids each user may use in user namespaces.
const TABLE: &str = "/etc/subuid";
/// Users to whom ranges are given for what root runs: containers that Podman (`--userns=auto`) and Docker (`userns-remap:
/// default`) make, and Kubernetes' pods. Nobody runs anything as one of them.
const DAEMONS: [&str; 3] = ["containers", "dockremap", "kubelet"];
/// How long users whom the name service could not tell aren't asked for again.
const PAUSE: Duration = Duration::from_secs(60);

/// Whose user ids are whose, as the host's table says now. Users whom the host itself doesn't know are told by the name service,
/// once and again when the table changes; who was told stays known while it doesn't answer.
///
/// Root's own ranges count for nobody, nor do those of daemons that root has run containers in them: what runs in them may do less
/// than any user, and must never be taken for root; and the containers have nothing to do with each other.
#[derive(Debug)]
pub struct Accounts {
    table: PathBuf,
    local: fn(&str) -> Option<u32>,
    service: fn(&str) -> Answer<u32>,
    read: Mutex<Read>,
}

/// The user who answers for a user id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The one whose sub-uid it is, whether anybody governs that user or not, else itself.
    Is(u32),
    /// That could not be told.
    Untold {
        /// The first id of the range that it is in, by which it can be counted together with the others.
        first: u32,
        /// Why.
        why: String,
    },
}

/// The table as it was read.
#[derive(Debug, Default)]
struct Read {
    /// None before the first time; none within if there is no table.
    version: Option<Option<Version>>,
    ranges: Vec<Range>,
    /// Those who are in it.
    users: HashMap<String, User>,
    /// Whether the name service was not asked since: then those whom it told of before are asked for, too.
    is_new: bool,
    /// When to ask the name service; none if it has told all.
    due: Option<Instant>,
}

/// What changes when the file does.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    Is(u32),
    /// A user who is gone.
    Nobody,
    Untold,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { table: TABLE.into(), local: users::local_uid, service: users::uid, read: Mutex::default() }
    }
}

impl Accounts {
    /// The user who answers for a user id. Asks no name service.
    pub fn of(&self, uid: u32) -> Owner {
        match self.fresh() {
            Ok(read) => read.owner(uid),
            Err(error) => Owner::Untold { first: uid, why: format!("{TABLE}: {error}") },
        }
    }

    /// Whether the name service is to be [asked](Self::ask).
    pub fn is_due(&self) -> bool {
        self.lock().due.is_some_and(|due| Instant::now() >= due)
    }

    /// Asks the name service for the users whom the host itself doesn't know. Blocks as long as it does.
    pub fn ask(&self) {
        let unknown: Vec<String> = {
            let read = self.lock();
            let open = read.users.iter().filter(|(_, user)| match user {
                User::Is(_) => read.is_new,
                User::Untold => true,
                User::Nobody => false,
            });
            let names = open.map(|(name, _)| name).filter(|name| name.parse::<u32>().is_err());
            names.filter(|name| (self.local)(name).is_none()).cloned().collect()
        };
        let told: Vec<_> = unknown.into_iter().map(|name| ((self.service)(&name), name)).collect();
        let mut read = self.lock();
        read.is_new = false;
        for (answer, name) in told {
            let Some(user) = read.users.get_mut(&name) else { continue };
            *user = match answer {
                Answer::Is(uid) => User::Is(uid),
                Answer::None => User::Nobody,
                Answer::Nowhere | Answer::Untold => *user,
            };
        }
        let untold = read.users.values().any(|user| *user == User::Untold);
        read.due = untold.then(|| Instant::now() + PAUSE);
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table as it is now.
    fn fresh(&self) -> io::Result<MutexGuard<'_, Read>> {
        let mut read = self.lock();
        let version = match fs::metadata(&self.table) {
            Ok(file) => Some(Version {
                inode: file.ino(),
                size: file.size(),
                changed: (file.ctime(), file.ctime_nsec()),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if read.version.as_ref() != Some(&version) {
            let text = if version.is_some() { users::table(&self.table)? } else { String::new() };
            read.replace(&text, self.local);
            read.version = Some(version);
        }
        Ok(read)
    }
}

impl Read {
    /// Those whom the name service told of before stay known until it is asked again.
    fn replace(&mut self, text: &str, local: fn(&str) -> Option<u32>) {
        self.ranges = ranges(text).collect();
        let former = std::mem::take(&mut self.users);
        self.due = None;
        self.is_new = true;
        for Range { user, .. } in &self.ranges {
            if self.users.contains_key(user) {
                continue;
            }
            if DAEMONS.contains(&user.as_str()) {
                self.users.insert(user.clone(), User::Nobody);
                continue;
            }
            let known = user.parse().ok().or_else(|| local(user)).map(User::Is);
            if known.is_none() {
                self.due = Some(Instant::now());
            }
            let before = || former.get(user).copied().filter(|user| matches!(user, User::Is(_)));
            self.users.insert(user.clone(), known.or_else(before).unwrap_or(User::Untold));
        }
    }

    fn owner(&self, uid: u32) -> Owner {
        let mut owners: Vec<(u32, &Range)> = Vec::new();
        let within = |range: &&Range| range.start <= uid && uid - range.start < range.count;
        for range in self.ranges.iter().filter(within) {
            match self.users.get(&range.user) {
                Some(User::Is(0) | User::Nobody) => {}
                Some(User::Is(owner)) => owners.push((*owner, range)),
                Some(User::Untold) | None => {
                    let why = format!("who {:?} in {TABLE} is could not be told", range.user);
                    return Owner::Untold { first: range.start, why };
                }
            }
        }
        match owners.as_slice() {
            [] => Owner::Is(uid),
            [(owner, _), more @ ..] if more.iter().all(|(other, _)| other == owner) => Owner::Is(*owner),
            [(_, range), ..] => {
                let why = format!("{TABLE}: several users have the sub-uid {uid}");
                Owner::Untold { first: range.start, why }
            }
        }
    }
}

/// The ranges of these users. Whom the name service doesn't tell in time is left out, as the look-ups' trouble says.
///
/// # Errors
///
/// [`KernelError::System`] if the table can't be read.
pub(crate) fn of_users(owners: &[u32], lookups: &mut Lookups<'_>) -> Result<Vec<SubUids>, KernelError> {
    Ok(of_users_in(&table()?, owners, lookups))
}

/// All ranges but root's own, daemons', and those of users who are gone or can't be told: nobody is governed by them.
///
/// # Errors
///
/// [`KernelError::System`] if the table can't be read.
pub(crate) fn of_all(lookups: &mut Lookups<'_>) -> Result<Vec<SubUids>, KernelError> {
    Ok(of_all_in(&table()?, lookups))
}

fn of_all_in(text: &str, lookups: &mut Lookups<'_>) -> Vec<SubUids> {
    let mut found = Vec::new();
    for Range { user, start, count } in ranges(text).filter(|range| !DAEMONS.contains(&range.user.as_str())) {
        if let Told::Is(owner) = owner(&user, lookups)
            && owner != 0
        {
            found.push(SubUids { owner, start, count });
        }
    }
    found
}

fn of_users_in(text: &str, owners: &[u32], lookups: &mut Lookups<'_>) -> Vec<SubUids> {
    let mut found = Vec::new();
    // The name service isn't asked for the sake of nobody.
    for Range { user, start, count } in ranges(text).filter(|_| !owners.is_empty()) {
        match owner(&user, lookups) {
            Told::Is(owner) if owners.contains(&owner) => found.push(SubUids { owner, start, count }),
            Told::Untold => lookups.left_out_sub_uids(&user),
            // Of those whom a service that is away doesn't know, few are governed, and labels are inherited.
            Told::Is(_) | Told::Gone | Told::Nowhere => {}
        }
    }
    found
}

fn table() -> Result<String, KernelError> {
    match users::table(TABLE) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(KernelError::System { what: TABLE, error }),
    }
}

/// A user by number or name.
fn owner(user: &str, lookups: &mut Lookups<'_>) -> Told {
    user.parse().map_or_else(|_| lookups.user(user), Told::Is)
}

/// A line of the table.
#[derive(Debug)]
struct Range {
    user: String,
    start: u32,
    count: u32,
}

/// What newuidmap(1) wouldn't understand gives nobody an id.
fn ranges(text: &str) -> impl Iterator<Item = Range> + '_ {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?.to_owned();
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (count > 0).then_some(Range { user, start, count })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::Directory;

    fn accounts_of(text: &str) -> (tempfile::TempDir, Accounts) {
        let directory = tempfile::tempdir().unwrap();
        let local = |name: &str| (name == "root").then_some(0).or((name == "lxd").then_some(998));
        let service = |name: &str| match name {
            "ann" => Answer::Is(1001),
            "dead" => Answer::Untold,
            "away" => Answer::Nowhere,
            _ => Answer::None,
        };
        let accounts =
            Accounts { table: directory.path().join("subuid"), local, service, read: Mutex::default() };
        fs::write(&accounts.table, text).unwrap();
        (directory, accounts)
    }

    fn account_in(text: &str, uid: u32) -> Owner {
        let (_directory, accounts) = accounts_of(text);
        let _first = accounts.of(uid);
        accounts.ask();
        accounts.of(uid)
    }

    fn untold(owner: &Owner) -> (u32, &str) {
        let Owner::Untold { first, why } = owner else { panic!("it was told: {owner:?}") };
        (*first, why)
    }

    #[test]
    fn sub_uids_are_the_governed_users_own_by_name_or_number() {
        let table = "root:100000:65536\n61001:200000:65536\n# other\n61002:300000:65536\nroot:x:1\nroot:5:0\nroot:9\n";
        let range = |owner, start| SubUids { owner, start, count: 65_536 };
        let directory = Directory::default();
        let of = |owners: &[u32]| of_users_in(table, owners, &mut directory.look_up());
        assert_eq!(of(&[0, 61_001]), [range(0, 100_000), range(61_001, 200_000)]);
    }

    #[test]
    fn a_stuck_name_service_takes_no_range_from_whom_the_host_knows_and_no_more_than_its_time() {
        let stuck = |_: &str| loop {
            std::thread::park();
        };
        let local = |name: &str| (name == "lxd").then_some(998);
        let patience = Duration::from_millis(50);
        let directory = Directory { local, service: stuck, patience, ..Directory::default() };
        let lines: String = (0..40).map(|line| format!("user{line}:{}:9\n", 100_000 + line * 10)).collect();
        let table = format!("{lines}lxd:1000000:65536\n");
        let lxd = [SubUids { owner: 998, start: 1_000_000, count: 65_536 }];
        let (begun, mut lookups) = (Instant::now(), directory.look_up());
        assert_eq!(of_all_in(&table, &mut lookups), lxd);
        assert_eq!(of_users_in(&table, &[998], &mut lookups), lxd);
        assert!(begun.elapsed() < Duration::from_secs(3));
        let trouble = lookups.into_trouble();
        assert!(trouble.len() == 1 && trouble[0].contains("\"user0\" is (40 such"), "{trouble:?}");
    }

    #[test]
    fn a_sub_uid_s_account_is_the_user_who_has_it_in_a_range() {
        let table = "61001:200000:65536\nnobody-there:300000:9\n61002:4294967295:65536\nann:400000:9\n";
        for (uid, account) in [
            (199_999, 199_999),
            (200_000, 61_001),
            (265_535, 61_001),
            (265_536, 265_536),
            (300_001, 300_001),
            (400_000, 1001),
            (u32::MAX, 61_002),
        ] {
            assert_eq!(account_in(table, uid), Owner::Is(account), "{uid}");
        }
    }

    #[test]
    fn a_sub_uid_of_root_is_nobody_and_never_root() {
        for table in ["root:1000000:65536\n", "0:1000000:65536\n"] {
            assert_eq!(account_in(table, 1_000_000), Owner::Is(1_000_000));
        }
        // As LXD has it: the same range twice.
        assert_eq!(account_in("lxd:1000000:65536\nroot:1000000:65536\n", 1_000_001), Owner::Is(998));
    }

    #[test]
    fn ranges_of_daemons_that_root_has_run_containers_in_them_are_nobody_s() {
        let table = "kubelet:200000:65536\ncontainers:300000:65536\ndockremap:400000:65536\nann:500000:9\n";
        let service = |name: &str| match name {
            "ann" => Answer::Is(1001),
            asked => panic!("{asked} was asked for"),
        };
        let directory = Directory { local: |_| None, service, ..Directory::default() };
        let ann = [SubUids { owner: 1001, start: 500_000, count: 9 }];
        assert_eq!(of_all_in(table, &mut directory.look_up()), ann);
        for uid in [200_001, 300_001, 400_001] {
            assert_eq!(account_in(table, uid), Owner::Is(uid));
        }
        assert_eq!(account_in(table, 500_001), Owner::Is(1001));
    }

    #[test]
    fn a_line_that_is_no_text_holds_up_nobody() {
        let (_directory, accounts) = accounts_of("");
        fs::write(&accounts.table, b"# M\xfcller\nm\xfcller:100000:9\nlxd:200000:9\n").unwrap();
        assert_eq!(accounts.of(200_001), Owner::Is(998));
        assert_eq!(accounts.of(5), Owner::Is(5));
    }

    #[test]
    fn a_sub_uid_of_two_users_is_nobody_s() {
        let twice = "61001:200000:65536\n61001:200000:9\n61002:265535:9\n";
        assert_eq!(account_in(twice, 200_000), Owner::Is(61_001));
        let owner = account_in(twice, 265_535);
        assert_eq!(untold(&owner).0, 200_000);
        assert!(untold(&owner).1.contains("265535"));
    }

    #[test]
    fn a_user_who_cannot_be_told_holds_up_nobody_else() {
        for name in ["dead", "away"] {
            let table = format!("{name}:100000:65536\n61001:200000:65536\n");
            let owner = account_in(&table, 100_009);
            assert_eq!(untold(&owner).0, 100_000);
            assert!(untold(&owner).1.contains(&format!("{name:?}")));
            assert_eq!(account_in(&table, 200_000), Owner::Is(61_001));
            assert_eq!(account_in(&table, 5), Owner::Is(5));
        }
    }

    #[test]
    fn the_table_counts_as_it_is_now_and_without_the_name_service_for_whom_the_host_knows() {
        let (_directory, accounts) = accounts_of("");
        fs::remove_file(&accounts.table).unwrap();
        assert_eq!(accounts.of(200_000), Owner::Is(200_000));
        fs::write(&accounts.table, "lxd:200000:65536\n").unwrap();
        assert_eq!(accounts.of(200_000), Owner::Is(998));
        assert!(!accounts.is_due());
    }

    #[test]
    fn who_was_told_once_stays_known_while_the_name_service_is_away() {
        static AWAY: AtomicBool = AtomicBool::new(false);
        let (_directory, mut accounts) = accounts_of("ann:200000:9\n");
        accounts.service = |_| if AWAY.load(Ordering::Relaxed) { Answer::Nowhere } else { Answer::Is(1001) };
        assert!(matches!(accounts.of(200_000), Owner::Untold { .. }));
        assert!(accounts.is_due());
        accounts.ask();
        assert!(!accounts.is_due());
        AWAY.store(true, Ordering::Relaxed);
        fs::write(&accounts.table, "ann:200000:99\n").unwrap();
        assert_eq!(accounts.of(200_050), Owner::Is(1001));
        assert!(accounts.is_due());
        accounts.ask();
        assert_eq!(accounts.of(200_050), Owner::Is(1001));
    }
}
