//! The kernels that the programs must run on: Debian's, fetched once and kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::shell::{as_root, find, is_root, run, say};

/// Where fetched kernels are kept, each in a folder of its name.
const CACHE: &str = "/var/cache/tidegate/kernels";
/// What the archives' own keys are checked with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The smallest of Debian's images; everything that is needed is built into it.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Modules that guests load, each before those that need it by their order: a second interface, what finds and destroys
/// sockets, and two ends of a wire between namespaces.
const MODULES: [&str; 5] = ["dummy", "inet_diag", "tcp_diag", "udp_diag", "veth"];

/// A kernel of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// As it is called on the command line.
    pub(crate) name: &'static str,
    /// The agent doesn't start on it, and says why.
    pub(crate) too_old: bool,
    /// It asks programs about names of Unix sockets.
    pub(crate) unix_hooks: bool,
    archive: &'static str,
    suite: &'static str,
}

/// From the oldest to the newest.
pub(crate) const MATRIX: [Kernel; 4] = [
    Kernel { name: "5.10", too_old: true, unix_hooks: false, archive: SECURITY, suite: "bullseye-security" },
    Kernel { name: "6.1", too_old: false, unix_hooks: false, archive: SECURITY, suite: "bookworm-security" },
    Kernel { name: "6.12", too_old: false, unix_hooks: true, archive: SECURITY, suite: "trixie-security" },
    Kernel { name: "newest", too_old: false, unix_hooks: true, archive: MAIN, suite: "sid" },
];

const MAIN: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";

/// Where a kept kernel came from.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Source {
    /// The package that the image was in.
    pub(crate) package: String,
    /// The package's version.
    pub(crate) version: String,
    /// The package file's SHA-256, as the signed archive index has it.
    pub(crate) sha256: String,
}

impl Kernel {
    /// The image, if it was fetched with all that belongs to it.
    pub(crate) fn image(&self) -> Option<PathBuf> {
        let image = self.folder().join("vmlinuz");
        let complete =
            self.modules().iter().chain([&image]).all(|file| file.is_file()) && self.source().is_ok();
        complete.then_some(image)
    }

    /// Where the kept image came from.
    pub(crate) fn source(&self) -> Result<Source> {
        let path = self.folder().join("source.json");
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// Fetches the kernel's present version and keeps it in place of what was kept.
    pub(crate) fn fetch(&self) -> Result<()> {
        ensure!(cfg!(target_arch = "x86_64"), "the kernel matrix is for x86-64 only");
        say(&format!("fetching kernel {} from {} {}", self.name, self.archive, self.suite));
        let archive = Archive::open(self)?;
        let image = archive.depends_on(PACKAGE, "linux-image-")?;
        // Since 7.0 the image package is empty and its content lies in another.
        let package = archive.depends_on(&image, "linux-binary-").unwrap_or_else(|_| image.clone());
        let source = archive.source(&package)?;
        archive.unpack(&package, &source)?;
        if let Ok(modules) = archive.depends_on(&image, "linux-modules-") {
            archive.unpack(&modules, &archive.source(&modules)?)?;
        }
        let fresh = archive.directory.path().join("fresh");
        fs::create_dir(&fresh)?;
        fs::copy(archive.find("vmlinuz*")?, fresh.join("vmlinuz"))?;
        for module in MODULES {
            fs::write(fresh.join(format!("{module}.ko")), archive.module(module)?)?;
        }
        fs::write(fresh.join("source.json"), serde_json::to_vec_pretty(&source)?)?;
        let folder = self.folder();
        run(as_root("rm", &[]).arg("-rf").arg(&folder))?;
        run(as_root("mkdir", &[]).arg("-p").arg(CACHE))?;
        run(as_root("cp", &[]).arg("-r").args([&fresh, &folder]))?;
        run(as_root("chmod", &[]).args(["-R", "a+rX"]).arg(&folder))
    }

    /// The modules that guests load.
    pub(crate) fn modules(&self) -> Vec<PathBuf> {
        MODULES.iter().map(|module| self.folder().join(format!("{module}.ko"))).collect()
    }

    fn folder(&self) -> PathBuf {
        Path::new(CACHE).join(self.name)
    }
}

/// Package lists of one suite, apart from the system's own.
struct Archive {
    directory: tempfile::TempDir,
}

impl Archive {
    fn open(kernel: &Kernel) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).is_file() && find("apt-get").is_some(),
            "kernels come from Debian's archive: apt-get and the package debian-archive-keyring are needed"
        );
        let directory = tempfile::tempdir()?;
        for folder in ["lists/partial", "archives/partial", "unpacked"] {
            fs::create_dir_all(directory.path().join(folder))?;
        }
        let sources = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nArchitectures: amd64\nSigned-By: {KEYRING}\n",
            kernel.archive, kernel.suite
        );
        fs::write(directory.path().join("one.sources"), sources)?;
        let archive = Self { directory };
        run(archive.apt("apt-get").args(["update", "-qq"]))?;
        Ok(archive)
    }

    /// An apt program that sees nothing but this archive.
    fn apt(&self, program: &str) -> Command {
        let own = self.directory.path();
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::SourceList", own.join("one.sources")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::State::Lists", own.join("lists")),
            ("Dir::Cache", own.to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        if is_root() {
            // apt's own account cannot reach a private directory.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command.current_dir(own);
        command
    }

    /// The newest version's control file (deb-control(5)).
    fn control(&self, package: &str) -> Result<String> {
        let output = self.apt("apt-cache").args(["show", "--no-all-versions", package]).output()?;
        ensure!(output.status.success(), "the archive has no package {package}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The package that `package` depends on whose name begins so.
    fn depends_on(&self, package: &str, prefix: &str) -> Result<String> {
        let control = self.control(package)?;
        let depends = field(&control, "Depends")?;
        let found = depends.split([',', '|']).filter_map(|one| one.split_whitespace().next());
        match found.into_iter().find(|name| name.starts_with(prefix)) {
            Some(name) => Ok(name.to_owned()),
            None => bail!("the package {package} depends on no {prefix}*"),
        }
    }

    fn source(&self, package: &str) -> Result<Source> {
        let control = self.control(package)?;
        Ok(Source {
            package: package.to_owned(),
            version: field(&control, "Version")?.to_owned(),
            sha256: field(&control, "SHA256")?.to_owned(),
        })
    }

    /// Downloads a package, which apt checks against the signed index, and unpacks it.
    fn unpack(&self, package: &str, source: &Source) -> Result<()> {
        let downloads = self.directory.path().join(package);
        fs::create_dir(&downloads)?;
        let wanted = format!("{package}={}", source.version);
        run(self.apt("apt-get").args(["download", "-qq", &wanted]).current_dir(&downloads))?;
        let file = fs::read_dir(&downloads)?.next().context("apt-get downloaded nothing")??.path();
        run(Command::new("dpkg-deb").arg("-x").arg(file).arg(self.unpacked()))
    }

    fn unpacked(&self) -> PathBuf {
        self.directory.path().join("unpacked")
    }

    fn find(&self, name: &str) -> Result<PathBuf> {
        let found = Command::new("find").arg(self.unpacked()).args(["-name", name, "-type", "f"]).output()?;
        let found = String::from_utf8(found.stdout)?;
        found.lines().next().map(PathBuf::from).with_context(|| format!("the packages have no {name}"))
    }

    /// A module's bytes; distributions compress them.
    fn module(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.find(&format!("{name}.ko*"))?;
        if path.extension().is_some_and(|extension| extension == "ko") {
            return Ok(fs::read(path)?);
        }
        let output = Command::new("xz").arg("-dc").arg(&path).output().context("starting xz")?;
        ensure!(output.status.success(), "xz could not unpack {}", path.display());
        Ok(output.stdout)
    }
}

/// A field's first line.
fn field<'a>(control: &'a str, name: &str) -> Result<&'a str> {
    let value = control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.with_context(|| format!("a package without {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_control_file_are_found_by_their_whole_name() {
        let control = "Package: x\nInstalled-Size: 3\nSize: 4\n";
        assert_eq!(field(control, "Size").unwrap(), "4");
        assert!(field(control, "SHA256").is_err());
    }
}
