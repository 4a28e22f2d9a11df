//! The shield: what a governed process can't do to files, helpers and other processes. Only where BPF LSM is.

mod files;
mod processes;
mod sockets;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use tidegate_kernel::{FileRule, NamePattern, Rules, SubjectRule};

use crate::common::{Cgroup, subjects};

/// A directory that every account may use; removed at the end.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file that everybody may read and write, and its path.
    fn file(&self, name: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(b"a secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(self.0.path())) {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        shown(&path)
    }
}

fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The two subjects, and files that one of them can't open.
fn shielding(files: &[(Option<&str>, NamePattern)]) -> Rules {
    let rule = |(folder, name): &(Option<&str>, NamePattern)| FileRule {
        folder: folder.map(Into::into),
        name: name.clone(),
        subjects: vec!["governed".into()],
    };
    Rules { files: files.iter().map(rule).collect(), ..subjects() }
}

/// Rules by which everything in a cgroup is governed, root too.
fn governing(cgroup: &Cgroup) -> Rules {
    let job =
        SubjectRule { name: "job".into(), cgroups: vec![cgroup.path().to_owned()], ..SubjectRule::default() };
    Rules { subjects: vec![job], ..Rules::default() }
}

/// The beginning of a script that is governed, as root.
fn enter(cgroup: &Cgroup) -> String {
    format!("open({:?} + '/cgroup.procs', 'w').write(str(os.getpid()))\n", cgroup.inner())
}
