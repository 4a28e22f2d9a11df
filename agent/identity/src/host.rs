//! Processes, as the kernel tells of them through procfs.

mod place;

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use procfs::process::Process;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tidegate_gate::BoxFuture;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

pub(crate) use self::place::{Login, Place};
use crate::{Defect, ends::Ends, token::LONGEST};

/// What `/proc/pid/sessionid` says where no login session was begun (audit's unset value).
const NO_LOGIN: u32 = u32::MAX;
/// How the names of terminals begin.
const TERMINALS: [&str; 4] = ["/dev/pts/", "/dev/tty", "/dev/hvc", "/dev/console"];

/// A process: its id alone may be another's later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub started: u64,
}

/// A process as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: ProcessId,
    /// Process id of its parent.
    pub(crate) parent: u32,
    /// Process id of its session's leader.
    pub(crate) session: u32,
}

/// The host's processes.
pub(crate) trait Host: Send + Sync + 'static {
    /// The process that has this id now; none if it has ended, waited for or not.
    fn seen(&self, pid: u32) -> Option<Seen>;
    /// Its real user id.
    fn uid(&self, id: ProcessId) -> Option<u32>;
    /// Whether it is run at a terminal: that of its session is its standard input. A session may be given a terminal by what
    /// its leader opens.
    fn is_at_terminal(&self, id: ProcessId) -> bool;
    /// The cgroups that it lies in; none unless root alone can put processes there.
    fn cgroup(&self, id: ProcessId) -> Option<String>;
    /// The login session that it belongs to, as the kernel's audit counts them.
    fn login(&self, id: ProcessId) -> Option<u32>;
    /// Its environment, as it was when its program began and as it left it since.
    fn environment(&self, id: ProcessId) -> Option<Box<dyn Read>>;
    /// A file of its own account's that nobody else may read or write, as the process sees the file system.
    fn file(&self, id: ProcessId, path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Defect>;
    /// Resolves when it has ended.
    fn ended(&self, id: ProcessId) -> BoxFuture<'static, ()>;
}

/// The processes of this host.
#[derive(Debug)]
pub(crate) struct Procfs {
    ends: Ends,
    /// Where the cgroup v2 hierarchy is mounted, if it is.
    cgroups: Option<PathBuf>,
}

impl Host for Procfs {
    fn seen(&self, pid: u32) -> Option<Seen> {
        let stat = process(pid)?.stat().ok()?;
        if matches!(stat.state, 'Z' | 'X') {
            return None;
        }
        let id = ProcessId { pid, started: stat.starttime };
        Some(Seen { id, parent: u32::try_from(stat.ppid).ok()?, session: u32::try_from(stat.session).ok()? })
    }

    fn uid(&self, id: ProcessId) -> Option<u32> {
        let uid = process(id.pid)?.status().ok()?.ruid;
        self.is_still(id).then_some(uid)
    }

    fn is_at_terminal(&self, id: ProcessId) -> bool {
        let has_one =
            process(id.pid).and_then(|process| process.stat().ok()).is_some_and(|stat| stat.tty_nr != 0);
        // By its name: a file may be one that never answers.
        let input = std::fs::read_link(format!("/proc/{}/fd/0", id.pid)).unwrap_or_default();
        let input = input.to_string_lossy();
        let is_terminal = TERMINALS.iter().any(|begin| input.starts_with(begin));
        has_one && is_terminal && self.is_still(id)
    }

    fn cgroup(&self, id: ProcessId) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", id.pid)).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        (is_kept_by(0, self.cgroups.as_deref()?, path) && self.is_still(id)).then_some(text)
    }

    fn login(&self, id: ProcessId) -> Option<u32> {
        let text = std::fs::read_to_string(format!("/proc/{}/sessionid", id.pid)).ok()?;
        let login = text.trim().parse().ok().filter(|login| *login != NO_LOGIN)?;
        self.is_still(id).then_some(login)
    }

    fn environment(&self, id: ProcessId) -> Option<Box<dyn Read>> {
        // What is open is the process' memory (fs/proc/base.c, `environ_open`): no later process of that id has part in it.
        let file = File::open(format!("/proc/{}/environ", id.pid)).ok()?;
        self.is_still(id).then(|| Box::new(file) as Box<dyn Read>)
    }

    fn file(&self, id: ProcessId, path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Defect> {
        let refuse = |why: &str| Defect::NotHandedOut(format!("the token's file {why}"));
        let Some(uid) = self.uid(id) else { return Ok(None) };
        let Ok(root) = File::open(format!("/proc/{}/root", id.pid)) else { return Ok(None) };
        let path = path.strip_prefix("/").unwrap_or(path);
        // A link in a root that the process arranges must not lead out of it. Without NONBLOCK a FIFO would stop us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = match openat2(&root, path, flags, Mode::empty(), resolve) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(refuse(&format!("cannot be opened: {error}"))),
        };
        let status = fstat(&file).map_err(|_| refuse("cannot be read"))?;
        if status.st_mode & 0o170_000 != 0o100_000 {
            return Err(refuse("is not a regular file"));
        }
        if status.st_uid != uid || status.st_mode & 0o077 != 0 {
            return Err(refuse(
                "must belong to the account that connects, and be closed to others: chmod 600",
            ));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(LONGEST + 2));
        let limit = u64::try_from(LONGEST + 2).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut text).map_err(|_| refuse("cannot be read"))?;
        Ok(self.is_still(id).then_some(text))
    }

    fn ended(&self, id: ProcessId) -> BoxFuture<'static, ()> {
        let watched = self.watch(id);
        Box::pin(async move {
            match watched {
                // Not to be told any more is as good as its end.
                Ok(Some(watched)) => drop(watched.await),
                Ok(None) => {}
                Err(error) => tracing::error!(pid = id.pid, %error, "a process cannot be waited for"),
            }
        })
    }
}

impl Procfs {
    /// Starts what waits for their ends.
    pub(crate) fn open() -> io::Result<Self> {
        let cgroups = mounted_cgroups();
        if cgroups.is_none() {
            tracing::warn!(
                "no cgroup v2 hierarchy is mounted where this agent sees it: `tidegate present` binds to commands alone \
                 (`present -- COMMAND`), to no shell"
            );
        }
        Ok(Self { ends: Ends::start()?, cgroups })
    }

    fn is_still(&self, id: ProcessId) -> bool {
        self.seen(id.pid).is_some_and(|seen| seen.id == id)
    }

    /// Resolves at the process' end; none if it has ended.
    fn watch(&self, id: ProcessId) -> io::Result<Option<oneshot::Receiver<()>>> {
        let Some(pid) = i32::try_from(id.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if self.is_still(id) { self.ends.wait(descriptor).map(Some) } else { Ok(None) }
    }
}

fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

fn mounted_cgroups() -> Option<PathBuf> {
    let mounts = Process::myself().and_then(|own| own.mountinfo()).ok()?;
    let found = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2" && mount.root == "/");
    found.map(|mount| mount.mount_point)
}

/// Whether only this user can move processes into a cgroup: the folders on its way are theirs, and what lists its processes and
/// threads (cgroup(7), "Cgroups delegation").
fn is_kept_by(owner: u32, hierarchy: &Path, path: &str) -> bool {
    let is_theirs = |path: &Path| {
        std::fs::symlink_metadata(path).is_ok_and(|found| found.uid() == owner && found.mode() & 0o022 == 0)
    };
    let mut folder = hierarchy.to_owned();
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let way = is_theirs(&folder)
        && parts.all(|part| {
            folder.push(part);
            part != ".." && is_theirs(&folder)
        });
    // The hierarchy's own first cgroup, and one that others can't be put in, have no list of threads.
    let threads = folder.join("cgroup.threads");
    way && is_theirs(&folder.join("cgroup.procs")) && (!threads.exists() || is_theirs(&threads))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::unix::{fs::PermissionsExt, process::CommandExt},
        process::{Child, Command, Stdio},
    };

    use super::*;

    fn procfs() -> Procfs {
        Procfs::open().unwrap()
    }

    fn id_of(child: &Child) -> ProcessId {
        procfs().seen(child.id()).unwrap().id
    }

    /// A process that lives until its input ends, once its program has begun.
    fn sleeper(command: &mut Command) -> Child {
        use std::io::BufRead;
        let mut child = command
            .args(["sh", "-c", "echo begun; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        child
    }

    fn end(mut child: Child) {
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_descends_from_its_ancestors() {
        let child = sleeper(&mut Command::new("env"));
        let place = Place::of(&procfs(), id_of(&child));
        assert_eq!(place.lineage[0].id.pid, child.id());
        assert_eq!(place.lineage[1].id.pid, std::process::id());
        end(child);
    }

    #[test]
    fn a_process_that_started_at_another_time_is_another() {
        let child = sleeper(&mut Command::new("env"));
        let other = ProcessId { started: id_of(&child).started + 1, ..id_of(&child) };
        assert!(Place::of(&procfs(), other).lineage.is_empty());
        assert!(procfs().environment(other).is_none());
        end(child);
    }

    #[test]
    fn an_orphan_descends_from_the_leader_of_its_session() {
        // The leader's child leaves a grandchild behind, which belongs to somebody else then.
        let script = "(sh -c 'echo $$; read line' <&3 & ) 3<&0; read line";
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(leader.stdout.as_mut().unwrap()), &mut line).unwrap();
        let orphan = procfs().seen(line.trim().parse().unwrap()).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while Place::of(&procfs(), orphan.id).by_session.is_empty() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        let place = Place::of(&procfs(), orphan.id);
        assert_eq!(place.by_session.first().map(|seen| seen.id.pid), Some(orphan.session));
        leader.stdin.take().unwrap().write_all(b"\n\n").unwrap();
        leader.wait().unwrap();
    }

    #[test]
    fn an_environment_is_its_process() {
        let child = sleeper(Command::new("env").env("TOKEN_OF_TEST", "secret"));
        let mut environment = String::new();
        procfs().environment(id_of(&child)).unwrap().read_to_string(&mut environment).unwrap();
        assert!(environment.split('\0').any(|entry| entry == "TOKEN_OF_TEST=secret"), "{environment}");
        end(child);
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_none_is_refused() {
        let child = sleeper(&mut Command::new("env"));
        let (id, directory) = (id_of(&child), tempfile::tempdir().unwrap());
        let path = directory.path().join("token");
        assert_eq!(procfs().file(id, &path), Ok(None));
        std::fs::write(&path, "text").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(procfs().file(id, &path).unwrap_err().to_string().contains("closed to others"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(procfs().file(id, &path).unwrap().unwrap().as_slice(), b"text");
        assert!(procfs().file(id, directory.path()).unwrap_err().to_string().contains("regular file"));
        end(child);
    }

    #[test]
    fn a_terminal_is_one_that_is_read_from() {
        // The second leads its session and has its terminal, as a service has one that a job had it open.
        let script = "import os, pty, sys
def begin(stdin):
    pid, terminal = pty.fork()
    if pid == 0:
        if stdin: os.dup2(os.open(stdin, os.O_RDONLY), 0)
        os.execvp('sh', ['sh', '-c', 'echo begun; (cat <&1); :'])
    os.read(terminal, 5)
    return pid
print(begin(None), begin('/dev/null'), flush=True)
sys.stdin.read()";
        let mut parent = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(parent.stdout.as_mut().unwrap()), &mut line).unwrap();
        let procfs = procfs();
        let pids = line.split_whitespace().map(|pid| pid.parse().unwrap());
        let told: Vec<_> = pids.map(|pid| procfs.is_at_terminal(procfs.seen(pid).unwrap().id)).collect();
        assert_eq!(told, [true, false]);
        end(parent);
    }

    #[test]
    fn a_cgroup_that_was_given_to_an_account_tells_nothing_of_who_put_a_process_there() {
        let hierarchy = tempfile::tempdir().unwrap();
        let (slice, scope) =
            (hierarchy.path().join("user.slice"), hierarchy.path().join("user.slice/1.scope"));
        std::fs::create_dir_all(&scope).unwrap();
        for file in ["cgroup.procs", "cgroup.threads"] {
            std::fs::write(scope.join(file), "").unwrap();
        }
        let own = std::fs::metadata(&scope).unwrap().uid();
        let is_kept = || is_kept_by(own, hierarchy.path(), "/user.slice/1.scope");
        let everything = [&slice, &scope, &scope.join("cgroup.procs"), &scope.join("cgroup.threads")];
        let allow =
            |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        everything.iter().for_each(|path| allow(path, 0o755));
        assert!(is_kept());
        assert!(!is_kept_by(own + 1, hierarchy.path(), "/user.slice/1.scope"));
        assert!(!is_kept_by(own, hierarchy.path(), "/user.slice/none"));
        for path in everything {
            for mode in [0o775, 0o757] {
                allow(path, mode);
                assert!(!is_kept(), "{path:?} {mode:o}");
            }
            allow(path, 0o755);
        }
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_told() {
        let child = sleeper(&mut Command::new("env"));
        let procfs = procfs();
        let ended = procfs.ended(id_of(&child));
        end(child);
        tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.unwrap();
    }
}
