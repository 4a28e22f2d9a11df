//! The store: where records are begun, and what they share.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::{Mode, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};
use tidegate_gate::{Entry, Record, RecordError, Records};

use crate::{
    chain::Chain,
    error::{At, StoreError},
    flusher::Flusher,
    index::Feed,
    layout::Layout,
    line::Link,
    log::{Log, checkpoint::PublicKey, leaf::Moment},
    record::{Open, SessionRecord},
    recover::recover,
    session_id,
    summary::SessionSummary,
};

/// How records are kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where. Made for its owner only.
    pub directory: PathBuf,
    /// What survives a loss of power.
    pub sync: SyncMode,
    /// The log's name in checkpoints, fixed by the first start. Without white space and `+`; a host's name is good.
    pub origin: String,
}

/// What survives a loss of power. Whatever is chosen, what was written survives the agent's own death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// What the system happened to have written. Where that is less than the last checkpoint covers, the store does not
    /// open again and has to be moved away.
    Never,
    /// All that a checkpoint covers: the log, and the records whose leaves are in it.
    #[default]
    Checkpoints,
    /// Each line, before its action runs. Costs a disk's flush for each.
    Always,
}

/// The store of one agent. Clones are the same store; the last one, or its last record, ends it: everything is written
/// and a last checkpoint signed.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

/// What records share. Fields are dropped in this order: notes are written before the last checkpoint is signed.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) flusher: Flusher,
    feed: Feed,
    log: Log,
    /// Records whose closing failed, with the reasons why they end.
    unclosed: Mutex<Vec<(Open, String)>>,
    layout: Layout,
    sync: SyncMode,
    sessions: OwnedFd,
    _lock: File,
}

impl Store {
    /// Opens the store, or makes it. Records that an agent which died left open are sealed.
    pub fn open(settings: Settings) -> Result<Self, StoreError> {
        if settings.origin.is_empty() || settings.origin.contains(|c: char| c.is_whitespace() || c == '+') {
            let why = format!("{:?} is empty or has white space or a `+`", settings.origin);
            return Err(StoreError::Malformed { what: "name for the log of records", why });
        }
        let layout = Layout::new(&settings.directory);
        layout.create()?;
        let lock = layout.lock()?;
        let path = layout.sessions();
        let sessions = OwnedFd::from(File::open(&path).at(path)?);
        let (log, found) = Log::open(&layout, &settings.origin, settings.sync)?;
        recover(&layout, &log, found)?;
        let flusher = Flusher::start().at(layout.root())?;
        let feed = Feed::start(&layout).at(layout.root())?;
        Ok(Self(Arc::new(Inner {
            flusher,
            feed,
            log,
            unclosed: Mutex::default(),
            layout,
            sync: settings.sync,
            sessions,
            _lock: lock,
        })))
    }

    /// The key that this store's checkpoints verify with.
    pub fn public_key(&self) -> &PublicKey {
        self.0.log.public_key()
    }
}

impl Records for Store {
    fn open(&self, opening: Entry<'_>) -> Result<Box<dyn Record>, RecordError> {
        let refused = |why: String| RecordError(why);
        let now = Timestamp::now();
        let session = session_id::generate(now).map_err(|error| refused(error.to_string()))?;
        let summary = SessionSummary::begin(session.clone(), now, &opening)
            .ok_or_else(|| refused("it does not begin with an opening entry".into()))?;
        let (file, path) =
            self.0.create(&session).map_err(|error| refused(format!("no file for it: {error}")))?;
        let mut chain = Chain::new(file, Link::genesis(&session), 0, self.0.sync == SyncMode::Always);
        let begun = chain.write(&opening).and_then(|()| {
            self.0
                .log
                .append(Moment::Opened, &session, chain.written())
                .map_err(|error| format!("the log of records: {error}"))
        });
        if let Err(error) = begun {
            self.0.discard(&path);
            return Err(refused(error));
        }
        self.0.feed.send(&summary);
        self.0.close_the_unclosed();
        Ok(Box::new(SessionRecord::new(self.0.clone(), chain, summary)))
    }
}

impl Inner {
    /// Closes a record. Where that fails, it is tried again when a session could be opened; the next start does it else.
    pub(crate) fn close(&self, mut open: Open, reason: String) {
        match open.close(&self.log, &reason) {
            Ok(summary) => self.feed.send(summary),
            Err(error) => {
                tracing::error!(session = %open.session(), error, "a record could not be closed");
                self.unclosed().push((open, reason));
            }
        }
    }

    fn close_the_unclosed(&self) {
        let unclosed = std::mem::take(&mut *self.unclosed());
        for (open, reason) in unclosed {
            self.close(open, reason);
        }
    }

    fn unclosed(&self) -> MutexGuard<'_, Vec<(Open, String)>> {
        self.unclosed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new file for the session, and its path below the sessions' directory. The directory is held open: should it be
    /// removed, this fails instead of beginning another one.
    fn create(&self, session: &str) -> io::Result<(File, PathBuf)> {
        let path = session_id::record_path(session).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let open = || openat(&self.sessions, &path, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let file = match open() {
            Err(Errno::ENOENT) => {
                self.create_day(&path)?;
                open()?
            }
            other => other?,
        };
        Ok((File::from(file), path))
    }

    fn create_day(&self, path: &Path) -> io::Result<()> {
        let mut parents: Vec<_> =
            path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
        parents.reverse();
        for parent in parents {
            match mkdirat(&self.sessions, parent, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes the file of a session that could not be begun.
    fn discard(&self, path: &Path) {
        if let Err(error) = unlinkat(&self.sessions, path, UnlinkatFlags::NoRemoveDir) {
            tracing::warn!(path = %self.layout.sessions().join(path).display(), %error, "a record that was not begun stays behind");
        }
    }
}
