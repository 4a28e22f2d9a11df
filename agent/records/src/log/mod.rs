//! The Merkle log of records: leaves are appended at once, checkpoints are signed behind.

pub(crate) mod checkpoint;
pub(crate) mod leaf;
pub(crate) mod tree;

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    io::{self, BufReader, Write},
    os::unix::fs::MetadataExt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::{
    error::{At, StoreError},
    layout::{Layout, private, replace},
    line::Link,
    log::{
        checkpoint::{Checkpoint, PublicKey, SigningKey},
        leaf::{Leaf, Moment, WholeLines},
        tree::{Tree, leaf_hash},
    },
    session_id::day_of,
    store::SyncMode,
};

/// Shortest time between two checkpoints.
const SHORTEST_REST: Duration = Duration::from_millis(100);
const REST_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The log of one store. Dropping it signs what is pending.
#[derive(Debug)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    signer: Option<JoinHandle<()>>,
}

/// What a log held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Sessions opened and not closed.
    pub(crate) open: HashSet<String>,
    /// Sessions of the newest day and the one before it, opened or closed.
    pub(crate) recent: HashSet<String>,
    newest: String,
    since: String,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    sync: SyncMode,
    key: SigningKey,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Bytes of whole leaves.
    length: u64,
    /// A failed append may have left bytes beyond `length`.
    torn: bool,
    tree: Tree,
    /// Leaves that the checkpoint on disk covers.
    signed: u64,
    stopping: bool,
    line: Vec<u8>,
}

impl Log {
    /// Opens the log, or makes it. Refuses leaves that contradict the checkpoint: nothing may be signed on top of them.
    pub(crate) fn open(layout: &Layout, origin: &str, sync: SyncMode) -> Result<(Self, Found), StoreError> {
        let path = layout.leaves();
        let mut file = private().create(true).append(true).open(&path).at(&path)?;
        let size = file.metadata().at(&path)?.len();
        let public = layout.public_key();
        // Written last at the first start: from then on key and checkpoint must be there.
        let begun = size > 0 || public.exists();
        let key = key(layout, origin, begun)?;
        let checkpoint = signed(layout, &key, begun)?;
        if !begun {
            replace(&public, format!("{}\n", key.public()).as_bytes(), true).at(public)?;
        }
        let (tree, found, whole) = read(layout, &mut file, &checkpoint)?;
        if whole < size {
            tracing::warn!(bytes = size - whole, "an unfinished last leaf is cut off the log of records");
            file.set_len(whole).at(&path)?;
        }
        let state = State {
            file,
            length: whole,
            torn: false,
            tree,
            signed: checkpoint.size,
            stopping: false,
            line: Vec::new(),
        };
        let shared = Arc::new(Shared {
            layout: layout.clone(),
            sync,
            key,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let signer = std::thread::Builder::new().name("checkpoints".into()).spawn({
            let shared = shared.clone();
            move || shared.sign_as_leaves_come()
        });
        let signer = Some(signer.at(&path)?);
        Ok((Self { shared, signer }, found))
    }

    /// The key that checkpoints verify with.
    pub(crate) fn public_key(&self) -> &PublicKey {
        self.shared.key.public()
    }

    /// Appends a leaf; it is in the file when this returns.
    pub(crate) fn append(&self, moment: Moment, session: &str, link: Link) -> io::Result<()> {
        self.shared.lock().append(moment, session, link, self.shared.sync == SyncMode::Always)?;
        self.shared.changed.notify_one();
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(signer) = self.signer.take() {
            // It has logged its own failure, if any.
            let _ = signer.join();
        }
    }
}

impl State {
    fn append(&mut self, leaf: Moment, session: &str, link: Link, sync: bool) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        if self.file.metadata()?.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log of records was removed"));
        }
        let leaf = Leaf {
            index: self.tree.size(),
            leaf,
            session: session.into(),
            lines: link.lines,
            hash: link.hash,
        };
        self.line.clear();
        serde_json::to_writer(&mut self.line, &leaf)?;
        let hash = leaf_hash(&self.line);
        self.line.push(b'\n');
        let written = self.file.write_all(&self.line);
        if let Err(error) = written.and_then(|()| if sync { self.file.sync_data() } else { Ok(()) }) {
            self.torn = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        self.length += self.line.len() as u64;
        self.tree.push(hash);
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs whenever there are new leaves. Rests four times as long as the last signature took, so that a slow disk
    /// gets larger batches instead of more work.
    fn sign_as_leaves_come(&self) {
        let mut state = self.lock();
        loop {
            while state.tree.size() == state.signed && !state.stopping {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.tree.size() == state.signed {
                return;
            }
            let tree = state.tree.clone();
            drop(state);
            let begun = Instant::now();
            let outcome = self.sign(&tree);
            state = self.lock();
            let rest = match outcome {
                Ok(()) => {
                    state.signed = tree.size();
                    SHORTEST_REST.max(begun.elapsed() * 4)
                }
                Err(error) => {
                    tracing::error!(%error, "no checkpoint of the records could be written");
                    if state.stopping {
                        return;
                    }
                    REST_AFTER_FAILURE
                }
            };
            let until = self.changed.wait_timeout_while(state, rest, |state| !state.stopping);
            state = until.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn sign(&self, tree: &Tree) -> Result<(), StoreError> {
        let directory = self.layout.log();
        if self.sync != SyncMode::Never {
            // The records that the leaves vouch for must not be lost when the checkpoint is not.
            let file = File::open(&directory).at(&directory)?;
            nix::unistd::syncfs(file).at(&directory)?;
        }
        let note = self.key.sign(tree.size(), tree.root())?;
        let path = self.layout.checkpoint();
        replace(&path, note.as_bytes(), self.sync != SyncMode::Never).at(path)
    }
}

/// The signing key; made at the first start only.
fn key(layout: &Layout, origin: &str, begun: bool) -> Result<SigningKey, StoreError> {
    let (path, public) = (layout.key(), layout.public_key());
    match (path.exists(), begun) {
        (true, true) => {
            // The name stays that of the first start: earlier checkpoints bear it.
            let text = std::fs::read_to_string(&public).at(&public)?;
            let untrusted =
                |error: StoreError| StoreError::Untrusted { path: public, why: error.to_string() };
            SigningKey::load(&path, PublicKey::parse(&text).map_err(untrusted)?.name())
        }
        (true, false) => SigningKey::load(&path, origin),
        (false, false) => SigningKey::create(&path, origin),
        (false, true) => Err(StoreError::Untrusted {
            path,
            why:
                "the key is missing; restore it from a backup, or move the directory away to begin a new log"
                    .into(),
        }),
    }
}

/// The checkpoint on disk. A new log gets one of no leaves, so that a missing one always means something.
fn signed(layout: &Layout, key: &SigningKey, begun: bool) -> Result<Checkpoint, StoreError> {
    let path = layout.checkpoint();
    let untrusted = |why: String| StoreError::Untrusted { path: path.clone(), why };
    match std::fs::read_to_string(&path) {
        Ok(note) => Checkpoint::verify(&note, key.public()).map_err(|error| untrusted(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && begun => Err(untrusted(
            "it is missing; see `tidegate records verify`, and move the directory away to begin a new log"
                .into(),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let tree = Tree::default();
            let note = key.sign(tree.size(), tree.root())?;
            replace(&path, note.as_bytes(), true).at(&path)?;
            Ok(Checkpoint { origin: key.public().name().to_owned(), size: 0, root: tree.root() })
        }
        Err(error) => Err(error).at(path),
    }
}

/// Rebuilds the tree and learns which sessions are open. Also returns the length of the whole leaves.
fn read(layout: &Layout, file: &mut File, signed: &Checkpoint) -> Result<(Tree, Found, u64), StoreError> {
    let path = layout.leaves();
    let untrusted = |why: String| StoreError::Untrusted {
        path: path.clone(),
        why: format!("{why}; see `tidegate records verify`, and move the directory away to begin a new log"),
    };
    let (mut tree, mut found) = (Tree::default(), Found::default());
    let mut agrees = signed.size == 0;
    let mut lines = WholeLines::new(BufReader::new(file));
    while let Some(line) = lines.next().at(&path)? {
        let leaf: Leaf<'_> = serde_json::from_slice(line)
            .map_err(|error| untrusted(format!("line {} is not a leaf: {error}", tree.size() + 1)))?;
        if leaf.leaf == Moment::Opened {
            found.open.insert(leaf.session.to_string());
        } else {
            found.open.remove(&*leaf.session);
        }
        found.remember(&leaf.session);
        tree.push(leaf_hash(line));
        if tree.size() == signed.size {
            agrees = tree.root() == signed.root;
        }
    }
    if !agrees {
        return Err(untrusted(format!(
            "the leaves are not the {} that the checkpoint was signed over",
            signed.size
        )));
    }
    let whole = lines.whole;
    Ok((tree, found, whole))
}

impl Found {
    /// Keeps the ids of the newest day and the one before it.
    fn remember(&mut self, session: &str) {
        let Some(day) = day_of(session) else { return };
        if day > self.newest {
            self.since = std::mem::replace(&mut self.newest, day);
            self.recent.retain(|id| day_of(id).is_some_and(|day| day >= self.since));
        }
        self.recent.insert(session.to_owned());
    }

    /// The days in which a session that the log does not know may have begun when the agent died.
    pub(crate) fn recent_days(&self) -> BTreeSet<String> {
        let today = Timestamp::now();
        let yesterday = today.saturating_sub(SignedDuration::from_hours(24)).unwrap_or(today);
        let mut days = BTreeSet::from([self.since.clone(), self.newest.clone()]);
        days.extend(
            [yesterday, today].map(|time| time.to_zoned(TimeZone::UTC).strftime("%Y/%m/%d").to_string()),
        );
        days.retain(|day| !day.is_empty() && *day >= self.since);
        days
    }
}
