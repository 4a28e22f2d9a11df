//! Cgroups of tests.

use std::path::{Path, PathBuf};

/// Where cgroups of tests are; the name ends with the process that made them.
const CGROUPS: &str = "/tidegate-test-";

/// A cgroup of this test's own with one below it; removed at the end.
pub(crate) struct Cgroup {
    root: String,
    path: String,
    inner: String,
}

impl Cgroup {
    pub(crate) fn new() -> Self {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|root| std::path::Path::new(root).join("cgroup.procs").exists())
            .expect("a cgroup v2 hierarchy");
        Self::sweep(root);
        let path = format!("{CGROUPS}{}", std::process::id());
        let inner = format!("{root}{path}/inner");
        std::fs::create_dir_all(&inner).unwrap();
        Self { root: root.to_owned(), path, inner }
    }

    /// What tests that were killed left behind.
    fn sweep(root: &str) {
        for entry in std::fs::read_dir(root).unwrap().flatten() {
            let name = format!("/{}", entry.file_name().to_string_lossy());
            if name.strip_prefix(CGROUPS).is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                drop(Self { root: root.to_owned(), inner: format!("{root}{name}/inner"), path: name });
            }
        }
    }

    /// Where the hierarchy is mounted.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Within the hierarchy.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Folder of the cgroup below it.
    pub(crate) fn inner(&self) -> &str {
        &self.inner
    }
}

impl Cgroup {
    /// Moves this process in, until the answer is dropped.
    pub(crate) fn enter(&self) -> Inside {
        move_to(&format!("{}{}", self.root, self.path));
        Inside(self.root.clone())
    }
}

/// A cgroup that is made now, with those around it, at a path within the hierarchy; they are removed when this is dropped.
pub(crate) struct Made(Vec<PathBuf>);

impl Cgroup {
    pub(crate) fn make(&self, path: &str) -> Made {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let of = |count: usize| Path::new(&self.root).join(parts[..count].join("/"));
        let missing = (1..=parts.len()).map(of).filter(|folder| !folder.exists());
        Made(missing.inspect(|folder| std::fs::create_dir(folder).unwrap()).collect())
    }
}

impl Made {
    /// The beginning of a script that is in it.
    pub(crate) fn enter(&self) -> String {
        format!("open({:?} + '/cgroup.procs', 'w').write(str(os.getpid()))\n", self.0.last().unwrap())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            if let Err(error) = tidegate_kernel::cgroup::remove(folder) {
                eprintln!("{}: {error}", folder.display());
            }
        }
    }
}

/// This process is in a test's cgroup.
pub(crate) struct Inside(String);

impl Drop for Inside {
    fn drop(&mut self) {
        move_to(&self.0);
    }
}

fn move_to(folder: &str) {
    std::fs::write(format!("{folder}/cgroup.procs"), std::process::id().to_string()).unwrap();
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in [&self.inner, &format!("{}{}", self.root, self.path)] {
            if let Err(error) = tidegate_kernel::cgroup::remove(Path::new(folder)) {
                eprintln!("{folder}: {error}");
            }
        }
    }
}
