//! The rules' Unix sockets, as the programs look them up.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tidegate_abi::shield::{MAX_SHIELD_ENTRIES, SUN_PATH_BYTES, UnixName, UnixWay};

use super::folders::{self, Folders};
use crate::KernelError;
use crate::rules::{Rules, SubjectBits, bounded};
use crate::shield::{ListenerName, unix_name};

/// The subject of whoever is governed.
const EVERYBODY: u64 = u64::MAX;

/// Where names lead. A path that somebody governed may change is left out: who connects to it is refused.
pub(super) fn compile(
    rules: &Rules,
    own: &[PathBuf],
    bits: &SubjectBits,
) -> Result<BTreeMap<UnixName, UnixWay>, KernelError> {
    let mut ways = BTreeMap::new();
    for path in own {
        allow(&mut ways, &ListenerName::Path(path.clone()), EVERYBODY)?;
    }
    for rule in &rules.unix {
        let subjects = bits.all_of(&rule.subjects, &format!("Unix socket {:?}", rule.listener))?;
        allow(&mut ways, &rule.listener, subjects)?;
    }
    for resource in &rules.unix_resources {
        let listener = text(&resource.listener)?;
        for name in spellings(&resource.path) {
            let entry = ways.entry(unix_name(&ListenerName::Path(name))?).or_insert(NOWHERE);
            entry.listener_length = resource.listener.as_os_str().len() as u32;
            entry.listener = listener;
            // The agent's own folder is the same in all mounts that root made.
            entry.strict = 0;
        }
    }
    bounded("names of Unix sockets", ways.len(), MAX_SHIELD_ENTRIES / 2)?;
    Ok(ways)
}

const NOWHERE: UnixWay =
    UnixWay { subjects: 0, strict: 0, listener_length: 0, listener: [0; SUN_PATH_BYTES], reserved: 0 };

fn allow(
    ways: &mut BTreeMap<UnixName, UnixWay>,
    listener: &ListenerName,
    subjects: u64,
) -> Result<(), KernelError> {
    let names = match listener {
        ListenerName::Abstract(_) => vec![listener.clone()],
        ListenerName::Path(path) => spellings(path).into_iter().map(ListenerName::Path).collect(),
    };
    for name in names {
        let strict = match &name {
            ListenerName::Abstract(_) => 0,
            ListenerName::Path(path) => match folders::of(path) {
                Folders::Roots => 0,
                Folders::Shared => 1,
                Folders::Others(why) => {
                    tracing::warn!(socket = %path.display(), why, "only the shield can tell what this Unix socket is");
                    continue;
                }
            },
        };
        let entry = ways.entry(unix_name(&name)?).or_insert(NOWHERE);
        entry.subjects |= subjects;
        entry.strict |= strict;
    }
    Ok(())
}

/// A path as it is written, and without the links on its way.
fn spellings(path: &Path) -> Vec<PathBuf> {
    let mut spellings = vec![path.to_owned()];
    let real = path.parent().zip(path.file_name()).and_then(|(folder, name)| {
        let folder = folder.canonicalize().ok()?;
        Some(folder.join(name))
    });
    spellings.extend(real.filter(|real| real != path));
    spellings
}

fn text(path: &Path) -> Result<[u8; SUN_PATH_BYTES], KernelError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= SUN_PATH_BYTES {
        return Err(KernelError::Rules(format!("Unix socket {path:?}: longer than {SUN_PATH_BYTES} bytes")));
    }
    let mut padded = [0; SUN_PATH_BYTES];
    padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Ok(padded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Compiled, SubjectRule};
    use crate::shield::UnixRule;
    use crate::unix::UnixResource;

    fn compiled(rules: Rules, own: &[PathBuf]) -> BTreeMap<UnixName, UnixWay> {
        let subject = SubjectRule { name: "ci".into(), ..SubjectRule::default() };
        let rules = Rules { subjects: vec![subject], ..rules };
        let mut bits = SubjectBits::default();
        Compiled::new(&rules, 1, &mut bits).unwrap();
        compile(&rules, own, &bits).unwrap()
    }

    fn way<'a>(ways: &'a BTreeMap<UnixName, UnixWay>, path: &str) -> Option<&'a UnixWay> {
        ways.get(&unix_name(&ListenerName::Path(path.into())).unwrap())
    }

    #[test]
    fn a_path_is_known_by_its_real_name_too() {
        let folder = tempfile::tempdir_in("/run").unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
        let (given, real) = (folder.path().join("link/socket"), folder.path().join("socket"));
        let rule = UnixRule { listener: ListenerName::Path(given.clone()), subjects: vec!["ci".into()] };
        let ways = compiled(Rules { unix: vec![rule], ..Rules::default() }, &[]);
        for path in [given, real] {
            assert_eq!(way(&ways, path.to_str().unwrap()).map(|way| way.subjects), Some(1), "{path:?}");
        }
    }

    #[test]
    fn a_resource_leads_to_the_agent_even_if_it_is_allowed_as_well() {
        let path = || PathBuf::from("/run/db");
        let rule = UnixRule { listener: ListenerName::Path(path()), subjects: vec!["ci".into()] };
        let resource = UnixResource {
            path: path(),
            listener: "/run/gate".into(),
            destination: ([127, 0, 0, 1], 1).into(),
        };
        let rules = Rules { unix: vec![rule], unix_resources: vec![resource], ..Rules::default() };
        let ways = compiled(rules, &[]);
        let way = way(&ways, "/run/db").unwrap();
        assert_eq!((way.listener_length, way.listener.get(..9)), (9, Some(&b"/run/gate"[..])));
    }

    #[test]
    fn the_agents_own_are_everybodys_to_talk_to() {
        let ways = compiled(Rules::default(), &["/run/own".into()]);
        assert_eq!(way(&ways, "/run/own").map(|way| way.subjects), Some(EVERYBODY));
    }
}
