//! Shielded files and Unix sockets, and their form in the shield's maps.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_abi::shield::{
    FileId, FileName, MAX_SHIELD_ENTRIES, NAME_BYTES, SUN_PATH_BYTES, UnixAllowed, UnixName,
};

use crate::KernelError;
use crate::rules::{Rules, SubjectBits};
use crate::unix::EVERYBODY;

/// Files that can't be opened, renamed or linked by some subjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRule {
    /// Name of the folder they lie in; none for any.
    pub folder: Option<String>,
    /// Their own name.
    pub name: NamePattern,
    /// Names of the subjects.
    pub subjects: Vec<Arc<str>>,
}

/// Names of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// This one.
    Is(String),
    /// Those that begin so.
    Begins(String),
    /// Those that end so.
    Ends(String),
}

/// A listener of an ungoverned process that some subjects may talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixRule {
    /// What it is bound to.
    pub listener: ListenerName,
    /// Names of the subjects.
    pub subjects: Vec<Arc<str>>,
}

/// What a Unix socket is bound to (unix(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerName {
    /// An absolute path.
    Path(PathBuf),
    /// An abstract name, without its leading zero.
    Abstract(String),
}

/// Entries of the shield's maps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// By prefix length in bits and key.
    pub(super) names: BTreeMap<(u32, FileName), u64>,
    /// The same of names written backwards.
    pub(super) endings: BTreeMap<(u32, FileName), u64>,
    pub(super) folders: BTreeMap<[u8; NAME_BYTES], u64>,
    pub(super) listeners: BTreeMap<UnixName, UnixAllowed>,
}

impl Compiled {
    /// The sockets in `own` are the agent's, for everybody.
    ///
    /// # Errors
    ///
    /// [`KernelError::Rules`] if a name doesn't fit, a rule names a subject that isn't there, or there are too many.
    pub(crate) fn new(rules: &Rules, own: &[PathBuf], bits: &SubjectBits) -> Result<Self, KernelError> {
        let mut compiled = Self::default();
        for path in own {
            let (name, device) = listener(&ListenerName::Path(path.clone()))?;
            compiled.listeners.insert(name, UnixAllowed { subjects: EVERYBODY, device });
        }
        for rule in &rules.files {
            let subjects = bits.all_of(&rule.subjects, "a shielded file")?;
            compiled.add_file(rule, subjects)?;
        }
        for rule in &rules.unix {
            let subjects = bits.all_of(&rule.subjects, "a Unix socket")?;
            let (name, device) = listener(&rule.listener)?;
            let entry = compiled.listeners.entry(name).or_default();
            *entry = UnixAllowed { subjects: entry.subjects | subjects, device };
        }
        let counts =
            [compiled.names.len(), compiled.endings.len(), compiled.folders.len(), compiled.listeners.len()];
        // Tries keep inner nodes beside the entries that they count.
        if counts.into_iter().any(|count| count > MAX_SHIELD_ENTRIES / 2) {
            return Err(KernelError::Rules(format!(
                "too many shielded files or Unix sockets: at most {} of a kind fit into the kernel",
                MAX_SHIELD_ENTRIES / 2
            )));
        }
        compiled.names = merged(&compiled.names);
        compiled.endings = merged(&compiled.endings);
        Ok(compiled)
    }

    fn add_file(&mut self, rule: &FileRule, subjects: u64) -> Result<(), KernelError> {
        let folder = padded(rule.folder.as_deref().unwrap_or_default())?;
        let (table, text, terminator) = match &rule.name {
            NamePattern::Is(name) => (&mut self.names, name.as_bytes().to_vec(), 1),
            NamePattern::Begins(start) => (&mut self.names, start.as_bytes().to_vec(), 0),
            NamePattern::Ends(end) => (&mut self.endings, end.bytes().rev().collect(), 0),
        };
        let name = padded_bytes(&text)?;
        let bits = 8 * (NAME_BYTES + text.len() + terminator) as u32;
        *table.entry((bits, FileName { folder, name })).or_default() |= subjects;
        if rule.folder.is_some() {
            *self.folders.entry(folder).or_default() |= subjects;
        }
        Ok(())
    }
}

/// Entries that each say what all shorter prefixes of theirs say: a lookup finds the longest alone.
fn merged(entries: &BTreeMap<(u32, FileName), u64>) -> BTreeMap<(u32, FileName), u64> {
    let covers = |(bits, prefix): &(u32, FileName), (longer, key): &(u32, FileName)| {
        let length = (*bits as usize / 8).saturating_sub(NAME_BYTES);
        bits <= longer
            && prefix.folder == key.folder
            && prefix.name.iter().zip(key.name).take(length).all(|(ours, theirs)| *ours == theirs)
    };
    let whole =
        |key| entries.iter().filter(|(prefix, _)| covers(prefix, key)).fold(0, |all, (_, one)| all | one);
    entries.keys().map(|key| (*key, whole(key))).collect()
}

fn padded(text: &str) -> Result<[u8; NAME_BYTES], KernelError> {
    padded_bytes(text.as_bytes())
}

fn padded_bytes(text: &[u8]) -> Result<[u8; NAME_BYTES], KernelError> {
    // One byte is left for the zero that ends a whole name.
    if text.len() >= NAME_BYTES || text.contains(&0) || text.contains(&b'/') {
        return Err(KernelError::Rules(format!(
            "{:?} can't be shielded: a name has at most {} bytes, and neither slashes nor zeros",
            String::from_utf8_lossy(text),
            NAME_BYTES - 1
        )));
    }
    let mut padded = [0; NAME_BYTES];
    padded.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    Ok(padded)
}

/// A listener's key, and the filesystem that it must be bound on.
fn listener(name: &ListenerName) -> Result<(UnixName, u64), KernelError> {
    let device = match name {
        ListenerName::Path(path) => device_of(path)?,
        ListenerName::Abstract(_) => 0,
    };
    Ok((unix_name(name)?, device))
}

/// A name as the programs have it.
pub(crate) fn unix_name(name: &ListenerName) -> Result<UnixName, KernelError> {
    let (bytes, abstract_length) = match name {
        ListenerName::Path(path) => {
            if !path.is_absolute() {
                return Err(KernelError::Rules(format!("Unix socket {path:?}: not an absolute path")));
            }
            (path.as_os_str().as_bytes().to_vec(), 0)
        }
        ListenerName::Abstract(name) => {
            let bytes: Vec<u8> = [0].into_iter().chain(name.bytes()).collect();
            let length = bytes.len() as u32;
            (bytes, length)
        }
    };
    if bytes.len() > SUN_PATH_BYTES {
        return Err(KernelError::Rules(format!("Unix socket {name:?}: longer than {SUN_PATH_BYTES} bytes")));
    }
    let mut path = [0; SUN_PATH_BYTES];
    path.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(UnixName { abstract_length, path })
}

/// The filesystem of the deepest folder on the way to `path` that is there.
fn device_of(path: &Path) -> Result<u64, KernelError> {
    for folder in path.ancestors().skip(1) {
        match file_id(folder) {
            Ok(id) => return Ok(id.device),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(KernelError::Rules(format!("{}: {error}", folder.display()))),
        }
    }
    Ok(0)
}

/// A file as the kernel itself knows it.
pub(super) fn file_id(path: &Path) -> std::io::Result<FileId> {
    let found = fs::metadata(path)?;
    let (major, minor) = (libc::major(found.dev()), libc::minor(found.dev()));
    Ok(FileId { device: u64::from(major) << 20 | u64::from(minor), inode: found.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::SubjectRule;

    fn compiled(files: Vec<FileRule>) -> Result<Compiled, KernelError> {
        let subject = |name: &str| SubjectRule { name: name.into(), ..SubjectRule::default() };
        let rules = Rules { subjects: vec![subject("ci"), subject("dev")], files, ..Rules::default() };
        let mut bits = SubjectBits::default();
        crate::rules::Compiled::new(&rules, 1, &mut bits)?;
        Compiled::new(&rules, &[], &bits)
    }

    fn rule(folder: Option<&str>, name: NamePattern, subject: &str) -> FileRule {
        FileRule { folder: folder.map(Into::into), name, subjects: vec![subject.into()] }
    }

    #[test]
    fn a_whole_name_has_its_terminator_in_the_prefix_and_a_beginning_has_not() {
        let compiled = compiled(vec![
            rule(None, NamePattern::Is("id".into()), "ci"),
            rule(None, NamePattern::Begins("id".into()), "dev"),
        ])
        .unwrap();
        let bits: Vec<(u32, u64)> =
            compiled.names.iter().map(|((bits, _), subjects)| (*bits, *subjects)).collect();
        // What is found for the whole name says what its beginning says, too.
        assert_eq!(bits, [(8 * 66, 0b10), (8 * 67, 0b11)]);
    }

    #[test]
    fn rules_of_other_folders_do_not_mix() {
        let compiled = compiled(vec![
            rule(Some(".ssh"), NamePattern::Begins("id_".into()), "ci"),
            rule(Some(".old"), NamePattern::Begins("id_rsa".into()), "dev"),
        ])
        .unwrap();
        assert_eq!(compiled.names.values().copied().collect::<Vec<_>>(), [0b1, 0b10]);
        assert_eq!(compiled.folders.len(), 2);
    }

    #[test]
    fn endings_are_written_backwards() {
        let compiled = compiled(vec![rule(None, NamePattern::Ends(".pem".into()), "ci")]).unwrap();
        let ((bits, key), _) = compiled.endings.first_key_value().unwrap();
        assert_eq!((*bits, key.name.get(..5)), (8 * 68, Some(&b"mep.\0"[..])));
    }

    #[test]
    fn names_that_the_shield_cannot_hold_are_refused() {
        let long = "x".repeat(NAME_BYTES);
        for name in [long.as_str(), "a/b", "a\0b"] {
            assert!(compiled(vec![rule(None, NamePattern::Is(name.into()), "ci")]).is_err(), "{name:?}");
        }
        assert!(compiled(vec![rule(None, NamePattern::Is("x".into()), "nobody")]).is_err());
    }

    #[test]
    fn an_abstract_name_is_told_from_a_path_by_its_length() {
        let (name, device) = listener(&ListenerName::Abstract("bus".into())).unwrap();
        assert_eq!((name.abstract_length, name.path.get(..5), device), (4, Some(&b"\0bus\0"[..]), 0));
        let (name, _) = listener(&ListenerName::Path("/run/x".into())).unwrap();
        assert_eq!(name.abstract_length, 0);
        assert!(listener(&ListenerName::Path("run/x".into())).is_err());
    }
}
