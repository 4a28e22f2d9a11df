//! A bundle on disk: its files, its digest and the policy they make.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;
use nix::fcntl::OFlag;
use thiserror::Error;
use tidegate_gate::{ConfigError, Server};
use tidegate_policy::{Policy, Problem, Resource, SourceFile};

use crate::{files, protocols::Protocols};

/// Most bytes of one bundle's files together.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Why a bundle does not load. Everything that was found is in it, not only the first.
#[derive(Debug, Error)]
pub(crate) enum BundleError {
    /// A file or directory can't be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No file at all.
    #[error("{}: no *.yaml file in it", .0.display())]
    Empty(PathBuf),
    /// What the files say.
    #[error("{} found\n{}", counted(.0.len()), listed(.0))]
    Problems(Vec<Problem>),
    /// Resources that cannot be served as they are written, names that do not resolve.
    #[error("{} found\n{}", counted(.0.len()), .0.join("\n"))]
    Unusable(Vec<String>),
}

impl BundleError {
    /// One text for each thing that is wrong.
    pub(crate) fn problems(&self) -> Vec<String> {
        match self {
            Self::Problems(problems) => problems.iter().map(Problem::to_string).collect(),
            Self::Unusable(problems) => problems.clone(),
            Self::Unreadable { .. } | Self::Empty(_) => vec![self.to_string()],
        }
    }
}

/// Reads and checks the bundle of a directory: every `*.yaml` in it and below, nothing hidden, and the descriptors (`*.binpb`)
/// beside them, which options name.
pub(crate) fn load(directory: &Path, protocols: &Protocols) -> Result<Policy, BundleError> {
    let files = read(directory)?;
    let mut policy = Policy::load(&files.texts, &protocols.vocabularies()).map_err(BundleError::Problems)?;
    policy.digest = digest_of(directory, &files).into();
    Ok(policy)
}

/// Whether nobody but root can change the bundle: its directories and files. Needed before it is put in force.
pub(crate) fn check_ownership(directory: &Path) -> Result<(), BundleError> {
    let mut paths = Vec::new();
    find(directory, &mut paths)?;
    let directories: BTreeSet<_> = paths.iter().filter_map(|path| path.parent()).chain([directory]).collect();
    let all = directories.into_iter().chain(paths.iter().map(PathBuf::as_path));
    let refused = all.filter_map(|path| {
        files::check_unwritable(path).err().map(|error| format!("{}: {error}", path.display()))
    });
    let problems: Vec<String> = refused.collect();
    if problems.is_empty() { Ok(()) } else { Err(BundleError::Unusable(problems)) }
}

/// A server for each resource, in the policy's order.
pub(crate) type Servers = Vec<(Arc<Resource>, Arc<dyn Server>)>;

/// Configures each resource's protocol for it.
pub(crate) fn configure(policy: &Policy, protocols: &Protocols) -> Result<Servers, BundleError> {
    let mut problems = Vec::new();
    let mut servers = Vec::new();
    for resource in &policy.resources {
        let configured = match protocols.find(&resource.protocol) {
            Some(registered) => registered.protocol.configure(resource),
            None => Err(ConfigError::new(format!("the gate does not speak {:?}", resource.protocol))),
        };
        match configured {
            Ok(server) => servers.push((resource.clone(), server)),
            Err(error) => {
                let place = policy.place_of_resource(&resource.name, error.option.as_deref());
                problems.push(format!(
                    "{}: resource {:?}: {error}",
                    place.unwrap_or_default(),
                    resource.name
                ));
            }
        }
    }
    if problems.is_empty() { Ok(servers) } else { Err(BundleError::Unusable(problems)) }
}

fn counted(problems: usize) -> String {
    if problems == 1 { "1 problem".into() } else { format!("{problems} problems") }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// A bundle's files, sorted by path.
#[derive(Debug)]
struct Files {
    texts: Vec<SourceFile>,
    /// What is no text: descriptors.
    others: Vec<(PathBuf, Vec<u8>)>,
}

fn read(directory: &Path) -> Result<Files, BundleError> {
    let mut paths = Vec::new();
    find(directory, &mut paths)?;
    paths.sort();
    let (mut texts, mut others) = (Vec::new(), Vec::new());
    let mut left = LARGEST;
    for path in paths {
        let unreadable = |error| BundleError::Unreadable { path: path.clone(), error };
        let bytes = read_file(&path, &mut left).map_err(unreadable)?;
        if has_descriptors(&path) {
            others.push((path, bytes));
            continue;
        }
        let text =
            String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        let text = text.map_err(unreadable)?;
        texts.push(SourceFile { path, text });
    }
    if texts.is_empty() {
        return Err(BundleError::Empty(directory.into()));
    }
    Ok(Files { texts, others })
}

fn read_file(path: &Path, left: &mut u64) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK a FIFO would stop whoever reads it here.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        let why =
            "it is not a regular file: take it out of the bundle's directory, or begin its name with a dot";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut bytes = Vec::new();
    let length = file.take(left.saturating_add(1)).read_to_end(&mut bytes)?;
    *left = left.checked_sub(length as u64).ok_or_else(|| {
        io::Error::new(io::ErrorKind::FileTooLarge, format!("the bundle is larger than {LARGEST} bytes"))
    })?;
    Ok(bytes)
}

fn find(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<(), BundleError> {
    let failed = |error| BundleError::Unreadable { path: directory.into(), error };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            find(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
            || has_descriptors(&path)
        {
            paths.push(path);
        }
    }
    Ok(())
}

/// Whether a file is a set of descriptors, by its name.
fn has_descriptors(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "binpb")
}

/// SHA-256 over the sorted relative paths and contents, each after its length, lower-case hex; those that are no text last.
fn digest_of(directory: &Path, files: &Files) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let texts = files.texts.iter().map(|file| (&file.path, file.text.as_bytes()));
    for (path, content) in texts.chain(files.others.iter().map(|(path, content)| (path, &**content))) {
        let name = path.strip_prefix(directory).unwrap_or(path);
        for part in [name.as_os_str().as_encoded_bytes(), content] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
    }
    hex::encode(context.finish())
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::test_support::{BUNDLE, protocols, write_bundle};

    #[test]
    fn the_digest_follows_contents_and_names_but_not_the_place() {
        let digest = |files: &[(&str, &str)]| {
            let directory = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = directory.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            digest_of(directory.path(), &read(directory.path()).unwrap())
        };
        let one = digest(&[("a.yaml", "x"), ("b.yaml", "y")]);
        assert_eq!(
            one,
            digest(&[("b.yaml", "y"), ("a.yaml", "x"), ("notes.txt", "z"), (".a.yaml.swp", "z")])
        );
        assert_ne!(one, digest(&[("a.yaml", "y"), ("b.yaml", "x")]));
        assert_ne!(one, digest(&[("a.yaml", "xb.yamly")]));
        assert_ne!(one, digest(&[("a.yaml", "x"), ("c/b.yaml", "y")]));
        let described = digest(&[("a.yaml", "x"), ("b.yaml", "y"), ("c.binpb", "z")]);
        assert_ne!(one, described);
        assert_ne!(described, digest(&[("a.yaml", "x"), ("b.yaml", "y"), ("c.binpb", "a")]));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let directory = write_bundle(BUNDLE);
        let pipe = directory.path().join("pipe.yaml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: it is not a regular file", pipe.display())), "{error}");
        fs::remove_file(&pipe).unwrap();
        std::os::unix::fs::symlink(directory.path(), &pipe).unwrap();
        assert!(read(directory.path()).is_err());
    }

    #[test]
    fn a_link_to_a_regular_file_is_read() {
        let (directory, elsewhere) = (write_bundle(BUNDLE), write_bundle("# more"));
        let (link, of) = (directory.path().join("more.yaml"), elsewhere.path().join("bundle.yaml"));
        std::os::unix::fs::symlink(of, link).unwrap();
        assert_eq!(read(directory.path()).unwrap().texts.len(), 2);
    }

    #[test]
    fn a_loaded_policy_bears_the_digest_of_its_files() {
        let directory = write_bundle(BUNDLE);
        let policy = load(directory.path(), &protocols()).unwrap();
        assert_eq!(*policy.digest, *digest_of(directory.path(), &read(directory.path()).unwrap()));
    }

    #[test]
    fn a_bundle_that_others_can_change_is_refused() {
        let directory = write_bundle(BUNDLE);
        check_ownership(directory.path()).unwrap();
        let file = directory.path().join("bundle.yaml");
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        let error = check_ownership(directory.path()).unwrap_err().to_string();
        assert!(error.contains("bundle.yaml: its mode is 0666"), "{error}");
    }

    #[test]
    fn an_empty_directory_is_no_bundle() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(load(directory.path(), &protocols()), Err(BundleError::Empty(_))));
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let directory = write_bundle(&BUNDLE.replace("subjects: [ci]", "subjects: [si]"));
        let error = load(directory.path(), &protocols()).unwrap_err();
        assert!(error.problems().iter().any(|problem| problem.contains("bundle.yaml:")), "{error}");
    }

    #[test]
    fn a_resource_that_its_protocol_cannot_serve_is_named() {
        let directory = write_bundle(&BUNDLE.replace("options: {}", "options: {broken: true}"));
        let policy = load(directory.path(), &protocols()).unwrap();
        let error = configure(&policy, &protocols()).err().unwrap();
        let told = error.to_string();
        assert!(told.contains("resource \"echo\": broken on purpose"), "{told}");
        let text = BUNDLE.replace("options: {}", "options: {broken: true}");
        let (line, written) =
            text.lines().enumerate().find(|(_, line)| line.contains("broken")).expect("it is there");
        let column = written.find("broken").unwrap() + 1;
        assert!(told.contains(&format!("bundle.yaml:{}:{column}: ", line + 1)), "{told}");
    }
}
