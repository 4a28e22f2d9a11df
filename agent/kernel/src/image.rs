//! Which image a container was made from, as the files say that Docker, Podman and CRI-O keep of their containers, and nobody but
//! root may change. containerd keeps it in a database that is open to itself alone.

use std::{
    collections::HashMap,
    fs::{self, Metadata, OpenOptions},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;

/// Docker's, by the id of each container.
const DOCKER: &str = "var/lib/docker/containers";
const DOCKER_FILE: &str = "config.v2.json";
/// Podman's and CRI-O's (containers/storage): of all, of those that are gone after a restart, and of those whose store is.
const STORED: [(&str, &str); 3] = [
    ("var/lib/containers/storage", "containers.json"),
    ("var/lib/containers/storage", "volatile-containers.json"),
    ("run/containers/storage", "volatile-containers.json"),
];
/// Its folders are named after how layers are kept.
const DRIVERS: [&str; 4] = ["overlay", "btrfs", "vfs", "zfs"];
/// Bytes of such a file.
const LONGEST: u64 = 4 << 20;
/// Containers that are remembered.
const MOST: usize = 4096;
/// Hexadecimal digits of an image's id.
const DIGITS: usize = 64;

/// The images of this host's containers. A container's never changes, so it is looked for once.
#[derive(Debug)]
pub(crate) struct Images {
    root: PathBuf,
    owner: u32,
    known: Mutex<HashMap<Arc<str>, Arc<str>>>,
    tables: Mutex<HashMap<PathBuf, Table>>,
}

/// Images by container, as a file of containers/storage says.
#[derive(Debug)]
struct Table {
    version: Version,
    images: HashMap<String, Arc<str>>,
}

/// What changes when the file does.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

#[derive(Deserialize)]
struct DockerContainer {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Image")]
    image: String,
}

#[derive(Deserialize)]
struct StoredContainer {
    id: String,
    #[serde(default)]
    image: String,
}

impl Default for Images {
    fn default() -> Self {
        Self { root: "/".into(), owner: 0, known: Mutex::default(), tables: Mutex::default() }
    }
}

impl Images {
    /// The id of the image that a container was made from, as `sha256:` and hexadecimal; none if that can't be told. The
    /// container's id is a runtime's that root runs. Reads files.
    pub(crate) fn of(&self, container: &Arc<str>) -> Option<Arc<str>> {
        if let Some(image) = lock(&self.known).get(container) {
            return Some(image.clone());
        }
        let docker = self.by_docker(container);
        let stored = self.tables().filter_map(|table| self.stored(&table, container));
        let mut found = docker.into_iter().chain(stored);
        // One that two runtimes tell otherwise is neither's.
        let image = found.next().filter(|first| found.all(|other| other == *first))?;
        let mut known = lock(&self.known);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(container.clone(), image.clone());
        Some(image)
    }

    fn by_docker(&self, container: &str) -> Option<Arc<str>> {
        let path = self.root.join(DOCKER).join(container).join(DOCKER_FILE);
        let (_, bytes) = self.read(&path)?;
        let found: DockerContainer = serde_json::from_slice(&bytes).ok()?;
        if found.id == *container { image(&found.image) } else { None }
    }

    fn tables(&self) -> impl Iterator<Item = PathBuf> {
        let stores = STORED.into_iter().map(|(store, file)| (self.root.join(store), file));
        let there = stores.filter(|(store, _)| store.is_dir());
        there.flat_map(|(store, file)| {
            DRIVERS.map(|driver| store.join(format!("{driver}-containers")).join(file))
        })
    }

    fn stored(&self, path: &Path, container: &str) -> Option<Arc<str>> {
        let now = Version::of(&fs::metadata(path).ok()?);
        let mut tables = lock(&self.tables);
        if tables.get(path).is_none_or(|table| table.version != now) {
            tables.remove(path);
            let (version, bytes) = self.read(path)?;
            let stored: Vec<StoredContainer> = serde_json::from_slice(&bytes).ok()?;
            let images = stored.into_iter().filter_map(|of| Some((of.id, image(&of.image)?))).collect();
            tables.insert(path.to_owned(), Table { version, images });
        }
        tables.get(path)?.images.get(container).cloned()
    }

    /// A file that root alone may change, as every folder on its way.
    fn read(&self, path: &Path) -> Option<(Version, Vec<u8>)> {
        let real = path.canonicalize().ok()?;
        let mut ways = path.ancestors().chain(real.ancestors()).skip(1);
        // What is a link counts by the folders that it leads to.
        let is_roots =
            |found: Metadata| self.is_roots(&found) || found.uid() == self.owner && found.is_symlink();
        let is_way = |folder: &Path| fs::symlink_metadata(folder).is_ok_and(is_roots);
        if !ways.all(|folder| !folder.starts_with(&self.root) || folder == path || is_way(folder)) {
            return None;
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&real).ok()?;
        let metadata = file.metadata().ok().filter(|found| found.is_file() && self.is_roots(found))?;
        let mut bytes = Vec::new();
        let length = file.take(LONGEST + 1).read_to_end(&mut bytes).ok()?;
        (length as u64 <= LONGEST).then(|| (Version::of(&metadata), bytes))
    }

    fn is_roots(&self, found: &Metadata) -> bool {
        found.uid() == self.owner && found.mode() & 0o022 == 0
    }
}

impl Version {
    fn of(file: &Metadata) -> Self {
        Self { inode: file.ino(), size: file.size(), changed: (file.ctime(), file.ctime_nsec()) }
    }
}

/// An image's id in one form: Podman writes it without its algorithm.
fn image(id: &str) -> Option<Arc<str>> {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (digits.len() == DIGITS && digits.bytes().all(is_digit)).then(|| format!("sha256:{digits}").into())
}

/// Each entry is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const OVERLAY: &str = "var/lib/containers/storage/overlay-containers";

    struct Host {
        root: tempfile::TempDir,
        images: Images,
    }

    impl Host {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().canonicalize().unwrap();
            let images = Images { root: path, owner: nix::unistd::getuid().as_raw(), ..Images::default() };
            Self { root, images }
        }

        fn write(&self, path: &str, text: &str) -> PathBuf {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        fn docker(&self, id: &str, image: &str) -> PathBuf {
            let text = format!(
                r#"{{"State": {{"Running": true}}, "ID": "{id}", "Image": "{image}", "Name": "/x"}}"#
            );
            self.write(&format!("{DOCKER}/{id}/{DOCKER_FILE}"), &text)
        }

        fn of(&self, id: &str) -> Option<String> {
            self.images.of(&id.into()).map(|image| image.to_string())
        }
    }

    fn id(letter: &str) -> String {
        letter.repeat(DIGITS)
    }

    fn sha256(letter: &str) -> String {
        format!("sha256:{}", id(letter))
    }

    #[test]
    fn a_container_of_docker_has_the_image_that_docker_made_it_from() {
        let host = Host::new();
        host.docker(&id("a"), &sha256("1"));
        assert_eq!(host.of(&id("a")), Some(sha256("1")));
        assert_eq!(host.of(&id("b")), None);
        // It is looked for once.
        host.docker(&id("a"), &sha256("2"));
        assert_eq!(host.of(&id("a")), Some(sha256("1")));
    }

    #[test]
    fn containers_of_podman_are_found_wherever_it_keeps_them_and_as_they_come() {
        let host = Host::new();
        let of = |container: &str, image: &str| {
            format!(
                r#"[{{"id": "{}", "names": ["x"], "image": "{}", "layer": "y"}}]"#,
                id(container),
                id(image)
            )
        };
        host.write(&format!("{OVERLAY}/containers.json"), &of("a", "1"));
        assert_eq!(host.of(&id("a")), Some(sha256("1")));
        host.write(&format!("{OVERLAY}/volatile-containers.json"), &of("b", "2"));
        host.write("run/containers/storage/vfs-containers/volatile-containers.json", &of("c", "3"));
        assert_eq!(host.of(&id("b")), Some(sha256("2")));
        assert_eq!(host.of(&id("c")), Some(sha256("3")));
        assert_eq!(host.of(&id("d")), None);
        fs::remove_file(host.root.path().join(OVERLAY).join("containers.json")).unwrap();
        host.write(&format!("{OVERLAY}/containers.json"), &of("d", "4"));
        assert_eq!(host.of(&id("d")), Some(sha256("4")));
    }

    #[test]
    fn what_is_no_image_is_none() {
        for image in ["", "nginx:latest", "sha256:cafe", &id("g"), &id("A"), &format!("sha512:{}", id("a"))] {
            let host = Host::new();
            host.docker(&id("a"), image);
            assert_eq!(host.of(&id("a")), None, "{image:?}");
        }
        for text in ["", "{}", "[]", "{\"ID\": 1}", "\u{0}"] {
            let host = Host::new();
            host.write(&format!("{DOCKER}/{}/{DOCKER_FILE}", id("a")), text);
            host.write(&format!("{OVERLAY}/containers.json"), text);
            assert_eq!(host.of(&id("a")), None, "{text:?}");
        }
    }

    #[test]
    fn the_state_of_another_container_counts_for_nothing() {
        let host = Host::new();
        let other = host.docker(&id("b"), &sha256("1"));
        let text = fs::read_to_string(other).unwrap();
        host.write(&format!("{DOCKER}/{}/{DOCKER_FILE}", id("a")), &text);
        assert_eq!(host.of(&id("a")), None);
    }

    #[test]
    fn one_that_two_runtimes_tell_otherwise_is_neither_s() {
        let host = Host::new();
        host.docker(&id("a"), &sha256("1"));
        let text = format!(r#"[{{"id": "{}", "image": "{}"}}]"#, id("a"), id("2"));
        host.write(&format!("{OVERLAY}/containers.json"), &text);
        assert_eq!(host.of(&id("a")), None);
    }

    #[test]
    fn what_others_than_root_may_change_says_nothing() {
        for part in ["var", "var/lib", "var/lib/docker", DOCKER] {
            let host = Host::new();
            host.docker(&id("a"), &sha256("1"));
            let writable = fs::Permissions::from_mode(0o775);
            fs::set_permissions(host.root.path().join(part), writable).unwrap();
            assert_eq!(host.of(&id("a")), None, "{part}");
        }
        let host = Host::new();
        let file = host.docker(&id("a"), &sha256("1"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(host.of(&id("a")), None);
        let mut host = Host::new();
        host.docker(&id("a"), &sha256("1"));
        host.images.owner += 1;
        assert_eq!(host.of(&id("a")), None);
    }

    #[test]
    fn a_folder_that_root_moved_elsewhere_counts_where_it_is() {
        let host = Host::new();
        host.docker(&id("a"), &sha256("1"));
        let (there, moved) = (host.root.path().join("var/lib/docker"), host.root.path().join("data"));
        fs::rename(&there, &moved).unwrap();
        symlink(&moved, &there).unwrap();
        assert_eq!(host.of(&id("a")), Some(sha256("1")));
        let host = Host::new();
        host.docker(&id("a"), &sha256("1"));
        let (there, moved) = (host.root.path().join("var/lib/docker"), host.root.path().join("data"));
        fs::rename(&there, &moved).unwrap();
        symlink(&moved, &there).unwrap();
        fs::set_permissions(&moved, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(host.of(&id("a")), None);
    }

    #[test]
    fn a_file_without_end_is_not_read() {
        let host = Host::new();
        let long = format!(r#"{{"ID": "{}", "Image": "{}"}}"#, id("a"), sha256("1"));
        let padded = long + &" ".repeat(LONGEST as usize);
        host.write(&format!("{DOCKER}/{}/{DOCKER_FILE}", id("a")), &padded);
        assert_eq!(host.of(&id("a")), None);
    }
}
