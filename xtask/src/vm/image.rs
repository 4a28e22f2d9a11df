//! The guest: an initramfs of busybox, Python, the tests and the libraries they need.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::Test;
use crate::shell::{find, run};

/// The guest's first process.
const INIT: &str = include_str!("init.sh");
/// The distribution's Python, which plays the clients of tests.
const PYTHON: &str = "/usr/bin/python3";
/// Programs that tests start.
const PROGRAMS: [&str; 5] = ["setpriv", "unshare", "ip", "nsenter", "prlimit"];
/// busybox's would run programs of its own in the place of these.
const SHELL: &str = "/bin/sh";
/// Where attacks keep their programs, one of them with another account's rights.
const SHARED: &str = "var/tmp";
/// Parts of Python's library that no test imports.
const LEFT_OUT: [&str; 11] = [
    "config-3",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "test",
    "tkinter",
    "turtledemo",
    "unittest",
    "sqlite3",
    "dist-packages",
];
/// Accounts that a guest must know by name.
const ACCOUNTS: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";

/// A packed guest; removed when dropped.
pub(super) struct Image {
    file: tempfile::NamedTempFile,
}

impl Image {
    /// Packs the tests, each as `/tests/NAME`, and the agent as `/tests/tidegate`.
    pub(super) fn pack(tests: &[Test], agent: Option<&Path>) -> Result<Self> {
        let root = Root::new()?;
        let busybox = find("busybox").context("busybox is not installed: run `cargo xtask setup`")?;
        root.copy_to(&busybox, Path::new("/bin/busybox"))?;
        for program in PROGRAMS {
            root.program(&find(program).with_context(|| format!("{program} is not installed"))?)?;
        }
        root.program(Path::new(SHELL))?;
        root.python()?;
        root.write("/init", INIT, 0o755)?;
        root.write("/etc/passwd", ACCOUNTS, 0o644)?;
        // Nobody answers there: the agent only wants to know whom it would ask.
        root.write("/etc/resolv.conf", "nameserver 127.0.0.1\n", 0o644)?;
        root.write("/etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)?;
        for test in tests {
            root.built(&test.name, &test.binary)?;
        }
        if let Some(agent) = agent {
            root.built("tidegate", agent)?;
        }
        root.pack()
    }

    /// The same with a kernel's modules, and with the names to run there of each test in `/tests/NAME.names`: the kernel
    /// unpacks one archive after the other.
    pub(super) fn for_kernel(&self, modules: &[PathBuf], tests: &[Test]) -> Result<Self> {
        let root = Root::new()?;
        for test in tests {
            root.write(&format!("/tests/{}.names", test.name), &(test.names.join("\n") + "\n"), 0o644)?;
        }
        for module in modules {
            root.copy_to(module, &Path::new("/modules").join(module.file_name().context("a module")?))?;
        }
        let whole = tempfile::NamedTempFile::new()?;
        for part in [self.path(), root.pack()?.path()] {
            io::copy(&mut fs::File::open(part)?, &mut whole.as_file())?;
        }
        Ok(Self { file: whole })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}

/// The guest's files before they are packed.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Result<Self> {
        let root = Self(tempfile::tempdir()?);
        // Accounts of the guest must be able to look into its root, which a temporary directory forbids.
        fs::set_permissions(root.0.path(), fs::Permissions::from_mode(0o755))?;
        for folder in [
            "bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tests", "tmp", "usr/bin", "usr/sbin",
            SHARED,
        ] {
            fs::create_dir_all(root.0.path().join(folder))?;
        }
        fs::set_permissions(root.0.path().join(SHARED), fs::Permissions::from_mode(0o1777))?;
        Ok(root)
    }

    /// Where a path of the guest is on the host; its folder is made.
    fn within(&self, path: &Path) -> Result<PathBuf> {
        let within = self.0.path().join(path.strip_prefix("/").unwrap_or(path));
        if let Some(folder) = within.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(within)
    }

    fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        let within = self.within(Path::new(path))?;
        fs::write(&within, text)?;
        Ok(fs::set_permissions(within, fs::Permissions::from_mode(mode))?)
    }

    fn copy_to(&self, from: &Path, to: &Path) -> Result<()> {
        let within = self.within(to)?;
        fs::copy(from, within).with_context(|| from.display().to_string()).map(drop)
    }

    /// A program with its libraries, where it is on the host.
    fn program(&self, path: &Path) -> Result<()> {
        let real = fs::canonicalize(path).with_context(|| path.display().to_string())?;
        self.copy_to(&real, &real)?;
        if real != path {
            symlink(&real, self.within(path)?)?;
        }
        self.libraries(&real)
    }

    /// A program of ours, as `/tests/NAME`.
    fn built(&self, name: &str, binary: &Path) -> Result<()> {
        self.libraries(binary)?;
        // Debugging information is most of its size.
        let within = self.within(&Path::new("/tests").join(name))?;
        run(Command::new("strip").arg("--strip-debug").arg("-o").arg(within).arg(binary))
    }

    /// The shared libraries of a program or library, where they are on the host.
    fn libraries(&self, of: &Path) -> Result<()> {
        let output = Command::new("ldd").arg(of).output()?;
        let text = String::from_utf8(output.stdout)?;
        let needed: BTreeSet<_> = text.split_whitespace().filter(|word| word.starts_with('/')).collect();
        for library in needed {
            let library = Path::new(library.trim_end_matches(':'));
            let within = self.within(library)?;
            if library != of && !within.exists() {
                fs::copy(library, within).with_context(|| library.display().to_string())?;
            }
        }
        Ok(())
    }

    fn python(&self) -> Result<()> {
        self.program(Path::new(PYTHON))?;
        let real = fs::canonicalize(PYTHON)?;
        let library = Path::new("/usr/lib").join(real.file_name().context("a program without a name")?);
        self.tree(&library)?;
        for extension in fs::read_dir(library.join("lib-dynload"))? {
            self.libraries(&extension?.path())?;
        }
        Ok(())
    }

    fn tree(&self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name();
            if LEFT_OUT.iter().any(|left_out| name.to_string_lossy().starts_with(left_out)) {
                continue;
            }
            // What a symbolic link of the distribution names is not Python's own.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.tree(&entry.path())?;
            } else if kind.is_file() {
                self.copy_to(&entry.path(), &entry.path())?;
            }
        }
        Ok(())
    }

    fn pack(self) -> Result<Image> {
        let file = tempfile::NamedTempFile::new()?;
        let mut pack = Command::new("sh");
        pack.args(["-c", "find . | cpio --quiet -o -H newc -R 0:0 > \"$1\"", "sh"]).arg(file.path());
        run(pack.current_dir(self.0.path()))?;
        ensure!(file.as_file().metadata()?.len() > 0, "cpio packed nothing");
        Ok(Image { file })
    }
}
