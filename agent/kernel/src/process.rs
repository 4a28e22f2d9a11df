//! Facts about the process behind a connection.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use procfs::process::{Process as Entry, Stat};
use procfs::ticks_per_second;

use crate::cgroup::Hierarchy;
use crate::digest::{Digests, Known, Remembered, Unread};
use crate::image::Images;
use crate::placement::Containers;
use crate::{Captured, KernelError, arguments, placement};

/// Ancestors that are named at most.
const MAX_ANCESTORS: usize = 16;
/// Bytes of a process' table of mounts that are read; whoever may mount can make it as long as they like.
const MAX_MOUNTS: u64 = 1 << 20;
const NS_PER_SECOND: u128 = 1_000_000_000;

/// Facts about one process, held by pid and start time. Of a process that was gone before it could be read, only what the
/// kernel captured is known: pid, uid, gid, command and, while it exists, the cgroup with unit and container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/pid/stat`, field 22); none if it was gone.
    pub start_time: Option<u64>,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Command name as the kernel captured it at connect.
    pub command: Arc<str>,
    /// Path of the executable.
    pub executable: Option<Arc<str>>,
    /// SHA-256 of the executable, lower-case hex.
    pub executable_sha256: Option<Arc<str>>,
    /// Command line without secrets.
    pub command_line: Vec<Arc<str>>,
    /// Path within the cgroup v2 hierarchy.
    pub cgroup: Option<Arc<str>>,
    /// Unit of the system's service manager, never of a user's own.
    pub unit: Option<Arc<str>>,
    /// Id of the outermost container, where only root can have named its cgroup.
    pub container: Option<Arc<str>>,
    /// Id of the image that this container was made from, as `sha256:` and hexadecimal.
    pub image: Option<Arc<str>>,
    /// Id of a container, or of the next within that one, by a name that its account may have made up.
    pub claimed_container: Option<Arc<str>>,
    /// Executables of the ancestors, parent first.
    pub ancestry: Vec<Arc<str>>,
}

/// Reads process facts.
#[derive(Debug)]
pub struct Processes {
    hierarchy: Hierarchy,
    digests: Digests,
    images: Images,
}

impl Processes {
    /// # Errors
    ///
    /// There is no cgroup v2 hierarchy.
    pub fn new() -> Result<Self, KernelError> {
        Ok(Self { hierarchy: Hierarchy::find()?, digests: Digests::default(), images: Images::default() })
    }

    /// Facts about the process that the kernel captured, and its executable if the digest of that is not known yet. Reads
    /// files: not for an async context. Asks no name service, which may not answer.
    pub fn facts(&self, captured: &Captured) -> (Process, Option<Unread>) {
        let cgroup: Option<Arc<str>> = self.hierarchy.path(captured.cgroup_id).map(Arc::from);
        let containers = cgroup.as_deref().map(|path| self.containers(path)).unwrap_or_default();
        let container: Option<Arc<str>> = containers.certain.map(Arc::from);
        let mut process = Process {
            pid: captured.pid,
            uid: captured.uid,
            gid: captured.gid,
            command: Arc::clone(&captured.command),
            unit: cgroup.as_deref().and_then(placement::unit).map(Arc::from),
            image: container.as_ref().and_then(|container| self.images.of(container)),
            container,
            claimed_container: containers.claimed.map(Arc::from),
            cgroup,
            ..Process::default()
        };
        let mut unread = None;
        if let Some(living) = Living::find(captured) {
            let mut read = process.clone();
            let executable = living.describe(&mut read, &self.digests);
            // What was read counts only if the id was still this process's afterwards.
            if living.is_still_there() {
                (process, unread) = (read, executable);
            }
        }
        (process, unread)
    }

    /// Id of the outermost container that a cgroup is of, where only root can have named it.
    pub fn container(&self, cgroup_id: u64) -> Option<Arc<str>> {
        let path = self.hierarchy.path(cgroup_id)?;
        self.containers(&path).certain.map(Arc::from)
    }

    /// The same of the process that has this id now.
    pub fn container_of(&self, pid: u32) -> Option<Arc<str>> {
        let groups = Entry::new(i32::try_from(pid).ok()?).ok()?.cgroups().ok()?;
        let group = groups.0.into_iter().find(|group| group.hierarchy == 0)?;
        self.containers(&group.pathname).certain.map(Arc::from)
    }

    fn containers<'a>(&self, path: &'a str) -> Containers<'a> {
        placement::containers(path, self.hierarchy.named_by_root(path))
    }

    /// SHA-256 of an executable, in lower-case hex; none if it changes meanwhile. Takes as long as reading it does.
    pub fn digest(&self, unread: Unread) -> Option<Arc<str>> {
        self.digests.read(unread).ok().flatten()
    }
}

/// A process that was there, with its start time, when it was looked for.
struct Living {
    entry: Entry,
    stat: Stat,
}

impl Living {
    /// The captured process; none if it is gone and its id another's.
    fn find(captured: &Captured) -> Option<Self> {
        let entry = Entry::new(i32::try_from(captured.pid).ok()?).ok()?;
        let stat = entry.stat().ok()?;
        let is_the_one = if captured.started == 0 {
            stat.starttime <= ticks(captured.connected_at)
        } else {
            stat.starttime == ticks(captured.started)
        };
        is_the_one.then_some(Self { entry, stat })
    }

    fn is_still_there(&self) -> bool {
        let now = Entry::new(self.entry.pid).and_then(|entry| entry.stat());
        now.is_ok_and(|stat| stat.starttime == self.stat.starttime)
    }

    /// The executable, if its digest is not known yet.
    fn describe(&self, process: &mut Process, digests: &Digests) -> Option<Unread> {
        let mut unread = None;
        process.start_time = Some(self.stat.starttime);
        if let Ok(status) = self.entry.status() {
            process.groups = status.groups;
        }
        if let Some((path, file)) = self.executable() {
            process.executable = Some(lossy(&path));
            let remembered = Remembered::of(&file).ok();
            let readable = remembered.filter(|file| file.mount.is_none_or(|mount| self.keeps_files(mount)));
            match readable.map(|remembered| digests.known(file, remembered)) {
                Some(Known::Digest(digest)) => process.executable_sha256 = digest,
                Some(Known::Unread(executable)) => unread = Some(executable),
                None => {}
            }
        }
        if let Ok(line) = self.entry.cmdline() {
            let shown = arguments::shown(line.iter().map(String::as_str));
            process.command_line = shown.into_iter().map(Arc::from).collect();
        }
        process.ancestry = ancestry(self.stat.ppid);
        unread
    }

    /// The executable's path, and the file itself: found through procfs, so that it is the one that runs even if another
    /// has taken its path. None if it was exchanged in between by an exec. It is opened for its path alone, which waits for
    /// nobody: who keeps the file may never answer.
    fn executable(&self) -> Option<(PathBuf, File)> {
        let path = self.entry.exe().ok()?;
        let link = format!("/proc/{}/exe", self.entry.pid);
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(link).ok()?;
        (self.entry.exe().ok()? == path).then_some((path, file))
    }

    /// Whether what is mounted there, as the process has it, keeps files, instead of asking a process for what they hold: that
    /// may tell us another content than it runs, or nothing, ever.
    fn keeps_files(&self, mount: u64) -> bool {
        let mounts = File::open(format!("/proc/{}/mountinfo", self.entry.pid));
        let kind = mounts.ok().and_then(|mounts| kind_of(mount, BufReader::new(mounts.take(MAX_MOUNTS))));
        kind.is_some_and(|kind| kind != "fuse" && !kind.starts_with("fuse."))
    }
}

/// A mount's kind of file system (proc(5), `/proc/pid/mountinfo`).
fn kind_of(mount: u64, mounts: impl BufRead) -> Option<String> {
    let mount = mount.to_string();
    mounts.lines().map_while(Result::ok).find_map(|line| {
        let mut fields = line.split(' ');
        (fields.next() == Some(&mount))
            .then(|| fields.skip_while(|field| *field != "-").nth(1).map(str::to_owned))?
    })
}

/// Executables of the ancestors, parent first, up to the first process of the host. One that can't be read is named by
/// its command in brackets, as ps does.
fn ancestry(parent: i32) -> Vec<Arc<str>> {
    let mut executables = Vec::new();
    let mut seen = HashSet::new();
    let mut next = parent;
    while next > 0 && executables.len() < MAX_ANCESTORS && seen.insert(next) {
        let Ok(entry) = Entry::new(next) else { break };
        let Ok(stat) = entry.stat() else { break };
        executables.push(match entry.exe() {
            Ok(path) => lossy(&path),
            Err(_) => format!("[{}]", stat.comm).into(),
        });
        next = stat.ppid;
    }
    executables
}

/// Clock ticks since boot, as `/proc/pid/stat` rounds them.
fn ticks(ns_since_boot: u64) -> u64 {
    let ticks = u128::from(ns_since_boot) * u128::from(ticks_per_second()) / NS_PER_SECOND;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

fn lossy(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn myself() -> Captured {
        captured(std::process::id())
    }

    fn captured(pid: u32) -> Captured {
        let stat = Entry::new(i32::try_from(pid).unwrap()).unwrap().stat().unwrap();
        Captured {
            socket: None,
            destination: "192.0.2.1:5432".parse().unwrap(),
            pid,
            started: stat.starttime * 1_000_000_000 / ticks_per_second(),
            uid: nix::unistd::getuid().as_raw(),
            sub_uid_of: None,
            gid: nix::unistd::getgid().as_raw(),
            cgroup_id: 0,
            command: "captured".into(),
            connected_at: u64::MAX,
            subjects: Vec::new(),
        }
    }

    #[test]
    fn a_living_process_is_described() {
        let processes = Processes::new().unwrap();
        let (process, unread) = processes.facts(&myself());
        let executable = std::env::current_exe().unwrap();
        assert_eq!(process.executable.as_deref(), executable.to_str());
        assert_eq!(process.executable_sha256, None, "nobody has read it yet");
        assert!(unread.is_some());
        assert!(process.start_time.is_some());
        assert!(!process.ancestry.is_empty());
        assert!(!process.command_line.is_empty());
        assert_eq!(&*process.command, "captured");
    }

    #[test]
    fn an_executable_s_digest_is_known_once_somebody_has_read_it() {
        use std::process::{Command, Stdio};
        // One that did not change just now.
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (processes, captured) = (Processes::new().unwrap(), captured(child.id()));
        let digest = processes.digest(processes.facts(&captured).1.unwrap()).unwrap();
        let (process, unread) = processes.facts(&captured);
        assert_eq!((process.executable_sha256, unread.is_none()), (Some(digest), true));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_mount_is_told_by_its_id_alone() {
        let table = "36 35 0:50 / /mnt/-\\040-\\040fuse rw shared:1 - ext4 /dev/a rw\n\
                     361 36 0:51 / /a rw - fuse.sshfs a rw\n37 36 0:52 / /b rw,a=- master:1 x:2 - overlay o rw\n38\n";
        let kind = |mount| kind_of(mount, table.as_bytes());
        assert_eq!(kind(36).as_deref(), Some("ext4"));
        assert_eq!(kind(361).as_deref(), Some("fuse.sshfs"));
        assert_eq!(kind(37).as_deref(), Some("overlay"));
        assert_eq!((kind(38), kind(3)), (None, None));
    }

    #[test]
    fn a_process_that_started_at_another_time_is_not_the_captured_one() {
        let mut captured = myself();
        captured.started += 1_000_000_000;
        let (process, _) = Processes::new().unwrap().facts(&captured);
        assert_eq!((process.start_time, process.executable), (None, None));
        assert_eq!(&*process.command, "captured");
    }

    #[test]
    fn without_a_captured_start_a_process_younger_than_the_connection_is_not_the_one() {
        let mut captured = myself();
        captured.started = 0;
        captured.connected_at = 1;
        assert_eq!(Processes::new().unwrap().facts(&captured).0.start_time, None);
    }
}
