//! The rules' Unix sockets, as the programs look them up.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tidegate_abi::shield::{MAX_SHIELD_ENTRIES, SUN_PATH_BYTES, UnixName, UnixPath, UnixWay};

use super::accounts::Accounts;
use super::folders::Host;
use crate::KernelError;
use crate::rules::{Rules, SubjectBits, bounded};
use crate::shield::{ListenerName, unix_name};
use crate::unix::UnixResource;

/// The subject of whoever is governed.
pub(crate) const EVERYBODY: u64 = u64::MAX;

/// What the programs look up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ways {
    /// Where names lead.
    pub(super) ways: BTreeMap<UnixName, UnixWay>,
    /// The agent's own sockets among that, with the names that lead there.
    pub(super) gates: BTreeMap<UnixName, UnixPath>,
}

/// Compiles rules, by the folders that a host has.
pub(super) struct Compiler<'a> {
    pub(super) host: Host,
    pub(super) accounts: Accounts<'a>,
    pub(super) bits: &'a SubjectBits,
}

/// What is a resource, by any name.
#[derive(Default)]
struct Resources {
    names: BTreeSet<PathBuf>,
    /// Devices and inodes.
    sockets: BTreeSet<(u64, u64)>,
}

impl Compiler<'_> {
    /// Where names lead. A path that somebody governed may change is left out: who connects to it is refused.
    ///
    /// # Errors
    ///
    /// [`KernelError::Rules`] if what is a resource would be passed by another name, or there are too many.
    pub(super) fn compile(&self, rules: &Rules, own: &[PathBuf]) -> Result<Ways, KernelError> {
        let mut ways = Ways::default();
        let resources = self.resources(&rules.unix_resources, &mut ways)?;
        for path in own {
            self.allow(&mut ways, &ListenerName::Path(path.clone()), EVERYBODY, &resources)?;
        }
        for rule in &rules.unix {
            let subjects = self.bits.all_of(&rule.subjects, &format!("Unix socket {:?}", rule.listener))?;
            self.allow(&mut ways, &rule.listener, subjects, &resources)?;
        }
        bounded("names of Unix sockets", ways.ways.len(), MAX_SHIELD_ENTRIES / 2)?;
        Ok(ways)
    }

    /// Whoever may change the folders on their way gains nothing: it is the name that leads to the agent.
    fn resources(&self, resources: &[UnixResource], ways: &mut Ways) -> Result<Resources, KernelError> {
        let mut found = Resources::default();
        for resource in resources {
            let listener = text(&resource.listener)?;
            ways.gates.insert(name(&resource.listener)?, text(&resource.path)?);
            for spelling in self.spellings(&resource.path) {
                ways.ways.entry(name(&spelling)?).or_insert(NOWHERE).listener = listener;
                found.names.insert(spelling);
            }
            let way = self.host.follow(&resource.path).ok();
            found.sockets.extend(way.and_then(|way| way.socket));
        }
        Ok(found)
    }

    fn allow(
        &self,
        ways: &mut Ways,
        listener: &ListenerName,
        subjects: u64,
        resources: &Resources,
    ) -> Result<(), KernelError> {
        let ListenerName::Path(path) = listener else {
            ways.ways.entry(unix_name(listener)?).or_insert(NOWHERE).subjects |= subjects;
            return Ok(());
        };
        let way = match self.host.follow(path) {
            Ok(way) => way,
            Err(error) => {
                leave_out(path, &error.to_string());
                return Ok(());
            }
        };
        let spellings = self.spellings(path);
        if spellings.iter().any(|name| resources.names.contains(name))
            || way.socket.is_some_and(|socket| resources.sockets.contains(&socket))
        {
            return Err(KernelError::Rules(format!(
                "the Unix socket {} is a resource: to pass it would lead around the gate. Take it out of `unix:`",
                path.display()
            )));
        }
        if let Err(why) = self.host.judge(&way, &self.accounts) {
            leave_out(path, &why);
            return Ok(());
        }
        for spelling in spellings {
            ways.ways.entry(name(&spelling)?).or_insert(NOWHERE).subjects |= subjects;
        }
        Ok(())
    }

    /// A path as it is written, without the links on the way to its folder, and without any.
    fn spellings(&self, path: &Path) -> BTreeSet<PathBuf> {
        let whole = self.host.follow(path).map(|way| way.real).ok();
        let beside = path.parent().zip(path.file_name()).and_then(|(folder, name)| {
            let folder = self.host.follow(folder).ok()?;
            Some(folder.real.join(name))
        });
        // Nobody can ask for a longer one.
        let fits = |other: &PathBuf| other.as_os_str().len() < SUN_PATH_BYTES;
        let others = whole.into_iter().chain(beside).filter(fits);
        others.chain([path.to_owned()]).collect()
    }
}

const NOWHERE: UnixWay = UnixWay { subjects: 0, listener: UnixPath { length: 0, path: [0; SUN_PATH_BYTES] } };

fn leave_out(path: &Path, why: &str) {
    tracing::warn!(socket = %path.display(), why, "only the shield can tell what this Unix socket is");
}

fn name(path: &Path) -> Result<UnixName, KernelError> {
    unix_name(&ListenerName::Path(path.to_owned()))
}

fn text(path: &Path) -> Result<UnixPath, KernelError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= SUN_PATH_BYTES {
        return Err(KernelError::Rules(format!("Unix socket {path:?}: longer than {SUN_PATH_BYTES} bytes")));
    }
    let mut padded = [0; SUN_PATH_BYTES];
    padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Ok(UnixPath { length: bytes.len() as u32, path: padded })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::Directory;
    use crate::rules::{Compiled, SubjectRule};
    use crate::shield::UnixRule;

    fn compile(rules: Rules, own: &[PathBuf]) -> Result<BTreeMap<UnixName, UnixWay>, KernelError> {
        let subject = SubjectRule { name: "ci".into(), uids: vec![61_001], ..SubjectRule::default() };
        let rules = Rules { subjects: vec![subject], ..rules };
        let mut bits = SubjectBits::default();
        let compiled = Compiled::new(&rules, 1, &mut bits).unwrap();
        let directory = Directory::default();
        let accounts = Accounts::new(&compiled.governed, directory.look_up());
        let compiler = Compiler { host: Host::new(true), accounts, bits: &bits };
        compiler.compile(&rules, own).map(|ways| ways.ways)
    }

    fn passing(path: &Path) -> UnixRule {
        UnixRule { listener: ListenerName::Path(path.to_owned()), subjects: vec!["ci".into()] }
    }

    fn leading(path: &Path) -> UnixResource {
        UnixResource { path: path.to_owned(), listener: "/run/gate".into(), resource: "db".into() }
    }

    fn way<'a>(ways: &'a BTreeMap<UnixName, UnixWay>, path: &Path) -> Option<&'a UnixWay> {
        ways.get(&name(path).unwrap())
    }

    #[test]
    fn a_resource_leads_to_the_agent_by_its_real_name_too() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        symlink(&real, real.join("link")).unwrap();
        let (given, real) = (real.join("link/socket"), real.join("socket"));
        let ways = compile(Rules { unix_resources: vec![leading(&given)], ..Rules::default() }, &[]).unwrap();
        for path in [given, real] {
            let listener = way(&ways, &path).unwrap().listener;
            assert_eq!((listener.length, listener.path.get(..9)), (9, Some(&b"/run/gate"[..])), "{path:?}");
        }
    }

    #[test]
    fn a_resource_cannot_be_passed_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().canonicalize().unwrap();
        let _socket = UnixListener::bind(at.join("socket")).unwrap();
        symlink(&at, at.join("link")).unwrap();
        symlink(at.join("socket"), at.join("there")).unwrap();
        std::fs::hard_link(at.join("socket"), at.join("twin")).unwrap();
        for other in ["socket", "link/socket", "there", "twin"] {
            let rules = Rules {
                unix: vec![passing(&at.join(other))],
                unix_resources: vec![leading(&at.join("socket"))],
                ..Rules::default()
            };
            let error = compile(rules, &[]).unwrap_err().to_string();
            assert!(error.contains("around the gate") && error.contains(other), "{other}: {error}");
        }
    }

    #[test]
    fn the_agents_own_are_everybodys_to_talk_to() {
        let path = Path::new("/run/own");
        let ways = compile(Rules::default(), &[path.into()]).unwrap();
        assert_eq!(way(&ways, path).map(|way| way.subjects), Some(EVERYBODY));
    }
}
