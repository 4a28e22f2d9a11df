//! The log against its checkpoint.

use std::{
    collections::{HashMap, hash_map},
    fs::{self, File},
    io::BufReader,
};

use crate::{
    error::{At, StoreError},
    hash::Hash,
    layout::Layout,
    line::Link,
    log::{
        checkpoint::{Checkpoint, PublicKey},
        leaf::{Leaf, Moment, WholeLines},
        tree::{Tree, leaf_hash},
    },
    verify::{Expected, Problem, Report},
};

/// What the log says of one session.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Hash of the first line.
    pub(super) opened: Option<Hash>,
    /// The end of the record.
    pub(super) closed: Option<Link>,
    /// Its file was found.
    pub(super) seen: bool,
}

/// Checks leaves, checkpoint and signature. Returns what the log says of each session.
pub(super) fn check(
    layout: &Layout,
    expected: &Expected,
    report: &mut Report,
) -> Result<HashMap<String, Known>, StoreError> {
    let key = key(layout, expected, report);
    let mut checkpoints = Vec::new();
    if let Some(key) = &key {
        match fs::read_to_string(layout.checkpoint())
            .at(layout.checkpoint())
            .and_then(|note| Checkpoint::verify(&note, key))
        {
            Ok(checkpoint) => {
                checkpoints.push(checkpoint.clone());
                report.checkpoint = Some(checkpoint);
            }
            Err(error) => {
                report.find(layout, &layout.checkpoint(), None, Problem::Unproven { why: error.to_string() })
            }
        }
        if let Some(note) = &expected.since {
            checkpoints.push(Checkpoint::verify(note, key)?);
        }
    }
    let known = leaves(layout, &checkpoints, Some(report))?;
    let covered = report.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
    report.unsigned_leaves = report.leaves.saturating_sub(covered);
    Ok(known)
}

/// The sessions that the log knows by now.
pub(super) fn sessions(layout: &Layout) -> Result<HashMap<String, Known>, StoreError> {
    leaves(layout, &[], None)
}

fn key(layout: &Layout, expected: &Expected, report: &mut Report) -> Option<PublicKey> {
    let path = layout.public_key();
    let own = fs::read_to_string(&path).at(&path).and_then(|text| PublicKey::parse(&text));
    let why = match (&own, &expected.key) {
        (Err(error), _) => Some(error.to_string()),
        (Ok(own), Some(expected)) if own != expected => {
            Some("it is not the key that was expected".to_owned())
        }
        _ => None,
    };
    if let Some(why) = why {
        report.find(layout, &path, None, Problem::Unproven { why });
    }
    expected.key.clone().or(own.ok())
}

fn leaves(
    layout: &Layout,
    checkpoints: &[Checkpoint],
    mut report: Option<&mut Report>,
) -> Result<HashMap<String, Known>, StoreError> {
    let path = layout.leaves();
    let mut find = |line: Option<u64>, problem| {
        if let Some(report) = &mut report {
            report.find(layout, &path, line, problem);
        }
    };
    let mut known: HashMap<String, Known> = HashMap::new();
    let mut tree = Tree::default();
    let mut next = 0;
    let compare = |tree: &Tree, find: &mut dyn FnMut(Option<u64>, Problem)| {
        for checkpoint in checkpoints.iter().filter(|checkpoint| checkpoint.size == tree.size()) {
            if checkpoint.root != tree.root() {
                find(None, Problem::TreeDiffers { size: checkpoint.size });
            }
        }
    };
    compare(&tree, &mut find);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        file => Some(file.at(&path)?),
    };
    let mut lines = file.map(|file| WholeLines::new(BufReader::new(file)));
    while let Some(line) = lines.as_mut().map_or(Ok(None), WholeLines::next).at(&path)? {
        tree.push(leaf_hash(line));
        let number = tree.size();
        match serde_json::from_slice::<Leaf<'_>>(line) {
            Ok(leaf) => {
                if leaf.index != next {
                    find(Some(number), Problem::LeafMisplaced { found: leaf.index });
                }
                next = leaf.index.saturating_add(1);
                if !note(&mut known, &leaf) {
                    find(Some(number), Problem::LeafContradicts);
                }
            }
            Err(_) => {
                find(Some(number), Problem::NotALine);
                next += 1;
            }
        }
        compare(&tree, &mut find);
    }
    for checkpoint in checkpoints.iter().filter(|checkpoint| checkpoint.size > tree.size()) {
        find(Some(tree.size().saturating_add(1)), Problem::LeavesMissing { expected: checkpoint.size });
    }
    if let Some(report) = report {
        report.leaves = tree.size();
    }
    Ok(known)
}

/// Whether a session's leaf fits the ones before it.
fn note(known: &mut HashMap<String, Known>, leaf: &Leaf<'_>) -> bool {
    let entry = known.entry(leaf.session.to_string());
    let fits = match (&entry, leaf.leaf) {
        (hash_map::Entry::Vacant(_), Moment::Opened) => leaf.lines == 1,
        (hash_map::Entry::Occupied(entry), Moment::Closed) => entry.get().closed.is_none(),
        _ => false,
    };
    let session = entry.or_default();
    match leaf.leaf {
        Moment::Opened => session.opened = Some(leaf.hash),
        Moment::Closed => session.closed = Some(Link { lines: leaf.lines, hash: leaf.hash }),
    }
    fits
}
