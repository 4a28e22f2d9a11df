//! The cgroup v2 hierarchy: where it is mounted, and which cgroup an id names.

use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tidegate_abi::{CGROUP_PATH_BYTES, MAX_CGROUP_DEPTH};

use crate::KernelError;

/// `FILEID_KERNFS` (include/linux/exportfs.h): the handle is the cgroup's id.
const FILEID_KERNFS: i32 = 0xfe;

/// How long the kernel may take to notice that a cgroup is empty.
const EMPTY_WITHIN: Duration = Duration::from_secs(2);

/// The mounted hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    root: PathBuf,
    directory: File,
}

impl Hierarchy {
    /// Finds the mount of the whole hierarchy, in a pure setup (`/sys/fs/cgroup`) or beside v1 controllers.
    pub fn find() -> Result<Self, KernelError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| KernelError::Cgroup(format!("/proc/self/mountinfo: {error}")))?;
        let root = root_of(&mounts).ok_or_else(|| {
            KernelError::Cgroup("mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`".to_owned())
        })?;
        let directory =
            File::open(&root).map_err(|error| KernelError::Cgroup(format!("{}: {error}", root.display())))?;
        Ok(Self { root, directory })
    }

    /// The root cgroup, to attach programs to.
    pub(crate) fn directory(&self) -> &File {
        &self.directory
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path within the hierarchy in the form that the kernel gives it. There need be no such cgroup.
    ///
    /// # Errors
    ///
    /// [`KernelError::Rules`] if it can't be the path of one, or lies deeper than the kernel programs look.
    pub fn absolute(path: &str) -> Result<String, KernelError> {
        let inner = Path::new(path.trim_start_matches('/'));
        if inner.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(KernelError::Rules(format!("cgroup {path:?}: `.` and `..` have no place in it")));
        }
        if inner.components().count() >= MAX_CGROUP_DEPTH as usize {
            return Err(KernelError::Rules(format!(
                "cgroup {path:?} lies deeper than {MAX_CGROUP_DEPTH} levels, where it can't be governed"
            )));
        }
        let absolute = inner.iter().fold(String::new(), |all, part| all + "/" + &part.to_string_lossy());
        if absolute.len() >= CGROUP_PATH_BYTES {
            return Err(KernelError::Rules(format!(
                "cgroup {path:?}: a path that is {CGROUP_PATH_BYTES} bytes long can't be governed"
            )));
        }
        Ok(if absolute.is_empty() { "/".to_owned() } else { absolute })
    }

    /// Visits every cgroup, each before those in it, by path and id. One that is made or removed meanwhile may be missed.
    pub(crate) fn walk(
        &self,
        mut visit: impl FnMut(&str, u64) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let mut left = vec![self.root.clone()];
        while let Some(folder) = left.pop() {
            let (Ok(found), Ok(inner)) = (fs::metadata(&folder), folder.strip_prefix(&self.root)) else {
                continue;
            };
            visit(&format!("/{}", inner.display()), found.ino())?;
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            left.extend(
                entries
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        Ok(())
    }

    /// Path within the hierarchy of the cgroup with this id; none if it is gone.
    pub fn path(&self, id: u64) -> Option<String> {
        let opened = self.open(id).ok()?;
        let full = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok()?;
        let inner = full.strip_prefix(&self.root).ok()?.to_string_lossy();
        // What the kernel adds to the name of one that is gone, unless it is really called so.
        let gone = inner.strip_suffix(" (deleted)").filter(|_| !full.exists());
        Some(format!("/{}", gone.unwrap_or(&inner)))
    }

    /// How many components of a cgroup's path lie in cgroups of which root alone can add others to them.
    pub(crate) fn named_by_root(&self, path: &str) -> usize {
        let mut folder = self.root.clone();
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts
            .take_while(|part| {
                let is_roots =
                    fs::metadata(&folder).is_ok_and(|found| found.uid() == 0 && found.mode() & 0o022 == 0);
                folder.push(part);
                is_roots
            })
            .count()
    }

    fn open(&self, id: u64) -> io::Result<OwnedFd> {
        #[repr(C)]
        struct Handle {
            bytes: u32,
            kind: i32,
            id: u64,
        }
        let mut handle = Handle { bytes: size_of::<u64>() as u32, kind: FILEID_KERNFS, id };
        // SAFETY: `Handle` is a `struct file_handle` whose eight handle bytes follow its header, as its length says.
        let opened = unsafe {
            libc::open_by_handle_at(
                self.directory.as_raw_fd(),
                (&raw mut handle).cast(),
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if opened < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(opened) })
    }
}

/// Removes a cgroup, once the kernel has taken in the end of the last process in it: that may come a moment after the
/// process was waited for.
///
/// # Errors
///
/// A process is still in it after two seconds, or a cgroup below it.
pub fn remove(path: &Path) -> io::Result<()> {
    let mut events = File::open(path.join("cgroup.events"))?;
    let end = Instant::now() + EMPTY_WITHIN;
    loop {
        // What is read is what changes are told from (Documentation/admin-guide/cgroup-v2.rst).
        events.rewind()?;
        io::read_to_string(&events)?;
        let left = end.saturating_duration_since(Instant::now());
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && !left.is_zero() => {}
            result => return result,
        }
        let changed = PollFd::new(events.as_fd(), PollFlags::POLLPRI);
        let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [changed], patience) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Mount point of the hierarchy's own root in a `mountinfo` (proc_pid_mountinfo(5)).
fn root_of(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/").then(|| PathBuf::from(unescape(point)))
    })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    /// A cgroup that goes with the test.
    struct Made(PathBuf);

    impl Drop for Made {
        fn drop(&mut self) {
            drop(fs::remove_dir(&self.0));
        }
    }

    #[test]
    fn the_pure_hierarchy_is_found() {
        let mounts =
            "24 1 0:22 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(root_of(mounts), Some(PathBuf::from("/sys/fs/cgroup")));
    }

    #[test]
    fn the_hierarchy_beside_v1_controllers_is_found() {
        let mounts = "40 31 0:37 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(root_of(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_mount_of_a_part_of_the_hierarchy_is_not_its_root() {
        let mounts = "41 31 0:38 /user.slice /mnt rw - cgroup2 cgroup2 rw\n";
        assert_eq!(root_of(mounts), None);
    }

    #[test]
    fn spaces_in_a_mount_point_are_unescaped() {
        let mounts = "41 31 0:38 / /mnt/c\\040g rw - cgroup2 cgroup2 rw\n";
        assert_eq!(root_of(mounts), Some(PathBuf::from("/mnt/c g")));
    }

    #[test]
    fn the_hosts_root_cgroup_is_found_again_by_its_id() {
        let hierarchy = Hierarchy::find().unwrap();
        let mut visited = Vec::new();
        hierarchy
            .walk(|path, id| {
                visited.push((path.to_owned(), id));
                Ok(())
            })
            .unwrap();
        let (path, id) = visited.first().unwrap();
        assert_eq!((path.as_str(), hierarchy.path(*id).as_deref()), ("/", Some("/")));
    }

    #[test]
    #[ignore = "needs root: cargo xtask test kernel"]
    fn what_lies_in_a_cgroup_that_an_account_was_given_was_not_named_by_root() {
        let hierarchy = Hierarchy::find().unwrap();
        let name = format!("tidegate-test-{}", std::process::id());
        let made = Made(hierarchy.root().join(&name));
        fs::create_dir(&made.0).unwrap();
        let path = format!("/{name}/docker-{}.scope", "a".repeat(64));
        assert_eq!(hierarchy.named_by_root(&path), 2);
        fs::set_permissions(&made.0, fs::Permissions::from_mode(0o775)).unwrap();
        assert_eq!(hierarchy.named_by_root(&path), 1);
        fs::set_permissions(&made.0, fs::Permissions::from_mode(0o755)).unwrap();
        chown(&made.0, Some(61_099), None).unwrap();
        assert_eq!(hierarchy.named_by_root(&path), 1);
        assert_eq!(hierarchy.named_by_root(&format!("{path}/leaf")), 1);
    }

    #[test]
    fn a_path_gets_the_kernels_form_or_is_refused() {
        for (written, meant) in [("/ci.slice/", "/ci.slice"), ("a/b", "/a/b"), ("/", "/")] {
            assert_eq!(Hierarchy::absolute(written).unwrap(), meant);
        }
        for wrong in
            ["/../etc".to_owned(), "/x".repeat(MAX_CGROUP_DEPTH as usize), "x".repeat(CGROUP_PATH_BYTES)]
        {
            assert!(matches!(Hierarchy::absolute(&wrong), Err(KernelError::Rules(_))), "{wrong}");
        }
    }
}
