//! The index of sessions: SQLite beside the records, and made anew from them whenever it is missing or behind.

use std::{
    fs::File,
    io::{self, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, params};

use crate::{
    error::{At, StoreError},
    layout::{Layout, private},
    log::leaf::{Leaf, Moment, WholeLines},
    reader::Reader,
    summary::SessionSummary,
};

const SCHEMA: &str = "
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY, start INTEGER NOT NULL, ended INTEGER, subjects TEXT NOT NULL, user TEXT,
        uid INTEGER NOT NULL, pid INTEGER NOT NULL, executable TEXT, resource TEXT NOT NULL, protocol TEXT NOT NULL,
        destination TEXT NOT NULL, actions INTEGER NOT NULL, refused INTEGER NOT NULL, rows INTEGER NOT NULL,
        bytes INTEGER NOT NULL, reason TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE progress (bytes INTEGER NOT NULL) STRICT;
    INSERT INTO progress VALUES (0);
";
/// A session that has ended does not open again: the queue and the log may tell of it in either order.
const PUT: &str = "
    INSERT INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
    ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, actions = excluded.actions, refused = excluded.refused,
        rows = excluded.rows, bytes = excluded.bytes, reason = excluded.reason
    WHERE ended IS NULL";
const SELECT: &str = "
    SELECT id, start, ended, subjects, user, uid, pid, executable, resource, protocol, destination, actions, refused,
        rows, bytes, reason
    FROM sessions";
const MATCHES: &str = "
    (?1 IS NULL OR EXISTS (SELECT 1 FROM json_each(subjects) WHERE value = ?1))
    AND (?2 IS NULL OR user = ?2) AND (?3 IS NULL OR resource = ?3)
    AND (?4 IS NULL OR start >= ?4) AND (?5 IS NULL OR start < ?5)
    AND (NOT ?6 OR refused > 0 OR ended IS NULL) AND (NOT ?7 OR ended IS NULL)";
/// Raised whenever the schema changes.
const VERSION: i64 = 1;
/// Summaries that may wait for the index.
const QUEUE: usize = 1024;
const BUSY: Duration = Duration::from_secs(5);

/// Which sessions to list. The default is all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those of this subject of the bundle.
    pub subject: Option<String>,
    /// Those of this user, by name.
    pub user: Option<String>,
    /// Those on this resource.
    pub resource: Option<String>,
    /// Those that began at this time or later.
    pub since: Option<Timestamp>,
    /// Those that began before this time.
    pub until: Option<Timestamp>,
    /// Those in which something was refused.
    pub denied_only: bool,
    /// Those that are open.
    pub open_only: bool,
    /// The newest so many.
    pub limit: Option<usize>,
}

/// The sessions of a store, to be read beside a running agent.
#[derive(Debug)]
pub struct Sessions {
    layout: Layout,
    index: Connection,
}

impl Sessions {
    /// Opens the index of the store in this directory; rebuilds it from the records if it is missing or of another
    /// version. Needs the right to read the records.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let layout = Layout::new(directory);
        layout.log().read_dir().at(layout.log())?;
        // Without an agent nobody else keeps the index up to date; where that cannot be done, it is made in memory.
        let kept = if layout.is_live() {
            read_only(&layout.index())
        } else {
            read_write(&layout).and_then(|mut index| catch_up(&mut index, &layout).map(|()| index))
        };
        let index = kept.or_else(|_| in_memory(&layout))?;
        Ok(Self { layout, index })
    }

    /// The sessions that the filter lets through, newest first.
    pub fn list(&self, filter: &Filter) -> Result<Vec<SessionSummary>, StoreError> {
        let mut statement = self.index.prepare(&format!("{SELECT} WHERE {MATCHES} ORDER BY id DESC"))?;
        let mut rows = statement.query(params![
            filter.subject,
            filter.user,
            filter.resource,
            filter.since.map(Timestamp::as_microsecond),
            filter.until.map(Timestamp::as_microsecond),
            filter.denied_only,
            filter.open_only,
        ])?;
        let mut sessions = Vec::new();
        while sessions.len() < filter.limit.unwrap_or(usize::MAX) {
            let Some(row) = rows.next()? else { break };
            let mut session = summary(row)?;
            if session.end.is_none() {
                // The index counts at the end of a session only.
                session = summarise(&self.layout, &session.id)?.unwrap_or(session);
            }
            if (!filter.denied_only || session.refused > 0) && (!filter.open_only || session.end.is_none()) {
                sessions.push(session);
            }
        }
        Ok(sessions)
    }

    /// The file of the session whose id begins like this.
    pub fn record(&self, id: &str) -> Result<PathBuf, StoreError> {
        if let Some(path) = self.layout.record(id).filter(|path| path.exists()) {
            return Ok(path);
        }
        let mut statement =
            self.index.prepare("SELECT id FROM sessions WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2")?;
        let ids = statement.query_map([id], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        match ids.as_slice() {
            [only] if !id.is_empty() => {
                self.layout.record(only).ok_or_else(|| StoreError::Unknown(id.to_owned()))
            }
            [] => Err(StoreError::Unknown(id.to_owned())),
            _ => Err(StoreError::Ambiguous(id.to_owned())),
        }
    }
}

/// The way from sessions to the index. Never waits: what does not fit is read from the records later.
#[derive(Debug)]
pub(crate) struct Feed {
    summaries: Option<SyncSender<SessionSummary>>,
    behind: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    pub(crate) fn start(layout: &Layout) -> io::Result<Self> {
        let (summaries, queue) = sync_channel(QUEUE);
        // What an earlier agent left out is found in the log.
        let behind = Arc::new(AtomicBool::new(true));
        let indexer = Indexer { layout: layout.clone(), queue, behind: behind.clone(), index: None };
        let thread = std::thread::Builder::new().name("session-index".into()).spawn(move || indexer.run())?;
        Ok(Self { summaries: Some(summaries), behind, thread: Some(thread) })
    }

    /// Passes on the state of a session.
    pub(crate) fn send(&self, summary: &SessionSummary) {
        let sent =
            self.summaries.as_ref().is_some_and(|summaries| summaries.try_send(summary.clone()).is_ok());
        if !sent {
            self.behind.store(true, Ordering::Release);
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.summaries = None;
        if let Some(thread) = self.thread.take() {
            // It has logged its own failure, if any.
            let _ = thread.join();
        }
    }
}

struct Indexer {
    layout: Layout,
    queue: Receiver<SessionSummary>,
    behind: Arc<AtomicBool>,
    index: Option<Connection>,
}

impl Indexer {
    fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            if let Err(error) = self.store(&batch) {
                tracing::warn!(%error, "the index of sessions is behind; the records are not concerned");
                self.index = None;
                self.behind.store(true, Ordering::Release);
            }
            batch.clear();
            match self.queue.recv() {
                Ok(summary) => batch.push(summary),
                Err(_) => return,
            }
            batch.extend(self.queue.try_iter().take(QUEUE));
        }
    }

    fn store(&mut self, batch: &[SessionSummary]) -> Result<(), StoreError> {
        let index = match &mut self.index {
            Some(index) => index,
            none => none.insert(read_write(&self.layout)?),
        };
        let transaction = index.transaction()?;
        for summary in batch {
            put(&transaction, summary)?;
        }
        transaction.commit()?;
        if self.behind.swap(false, Ordering::AcqRel) {
            catch_up(index, &self.layout)?;
        }
        Ok(())
    }
}

fn read_only(path: &Path) -> Result<Connection, StoreError> {
    let index = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    index.busy_timeout(BUSY)?;
    if version(&index)? == VERSION { Ok(index) } else { Err(rusqlite::Error::InvalidQuery.into()) }
}

/// Opens the index, or makes it. One of another version, or that is no index, is replaced.
fn read_write(layout: &Layout) -> Result<Connection, StoreError> {
    let path = layout.index();
    private().create(true).truncate(false).open(&path).at(&path)?;
    match open(&path) {
        Ok(index) => Ok(index),
        Err(_) => {
            for suffix in ["", "-wal", "-shm"] {
                match std::fs::remove_file(layout.root().join(format!("index.sqlite{suffix}"))) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at(path),
                    _ => {}
                }
            }
            private().create_new(true).open(&path).at(&path)?;
            open(&path)
        }
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let index = Connection::open(path)?;
    index.busy_timeout(BUSY)?;
    index.pragma_update(None, "journal_mode", "WAL")?;
    // It can be made anew, so it need not survive a loss of power.
    index.pragma_update(None, "synchronous", "OFF")?;
    match version(&index)? {
        0 => create(&index)?,
        VERSION => {}
        _ => return Err(rusqlite::Error::InvalidQuery.into()),
    }
    Ok(index)
}

fn in_memory(layout: &Layout) -> Result<Connection, StoreError> {
    let mut index = Connection::open_in_memory()?;
    create(&index)?;
    catch_up(&mut index, layout)?;
    Ok(index)
}

fn version(index: &Connection) -> Result<i64, StoreError> {
    Ok(index.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn create(index: &Connection) -> Result<(), StoreError> {
    index.execute_batch(SCHEMA)?;
    index.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}

/// Adds what the log knows and the index does not.
fn catch_up(index: &mut Connection, layout: &Layout) -> Result<(), StoreError> {
    let path = layout.leaves();
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.at(&path)?,
    };
    let transaction = index.transaction()?;
    let done: i64 = transaction.query_row("SELECT bytes FROM progress", [], |row| row.get(0))?;
    file.seek(SeekFrom::Start(u64::try_from(done).unwrap_or(0))).at(&path)?;
    let mut lines = WholeLines::new(BufReader::new(file));
    while let Some(line) = lines.next().at(&path)? {
        let Ok(leaf) = serde_json::from_slice::<Leaf<'_>>(line) else { continue };
        let ended: Option<bool> = transaction
            .prepare_cached("SELECT ended IS NOT NULL FROM sessions WHERE id = ?1")?
            .query_row([&*leaf.session], |row| row.get(0))
            .optional()?;
        let known = match leaf.leaf {
            Moment::Opened => ended.is_some(),
            Moment::Closed => ended == Some(true),
        };
        if !known && let Some(summary) = summarise(layout, &leaf.session)? {
            put(&transaction, &summary)?;
        }
    }
    let done = done.saturating_add_unsigned(lines.whole);
    transaction.execute("UPDATE progress SET bytes = ?1", [done])?;
    transaction.commit()?;
    Ok(())
}

/// Reads a session's summary out of its record; none if that is missing or does not begin as one.
fn summarise(layout: &Layout, session: &str) -> Result<Option<SessionSummary>, StoreError> {
    let Some(path) = layout.record(session).filter(|path| path.exists()) else { return Ok(None) };
    let mut summary: Option<SessionSummary> = None;
    for line in Reader::open(&path)? {
        // What cannot be read is for `verify` to name; the rest counts.
        let Ok(line) = line else { continue };
        match &mut summary {
            Some(summary) => summary.add(line.time, &line.entry),
            None => summary = SessionSummary::begin(session.into(), line.time, &line.entry),
        }
    }
    Ok(summary)
}

fn put(transaction: &Transaction<'_>, summary: &SessionSummary) -> Result<(), StoreError> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    transaction.prepare_cached(PUT)?.execute(params![
        &*summary.id,
        summary.start.as_microsecond(),
        summary.end.map(Timestamp::as_microsecond),
        serde_json::to_string(&summary.subjects).unwrap_or_default(),
        summary.user.as_deref(),
        summary.uid,
        summary.pid,
        summary.executable.as_deref(),
        &*summary.resource,
        &*summary.protocol,
        summary.destination.to_string(),
        signed(summary.actions),
        signed(summary.refused),
        signed(summary.rows),
        signed(summary.bytes),
        summary.reason.as_deref(),
    ])?;
    Ok(())
}

fn summary(row: &Row<'_>) -> Result<SessionSummary, rusqlite::Error> {
    let time = |at: usize| -> Result<Option<Timestamp>, rusqlite::Error> {
        Ok(row.get::<_, Option<i64>>(at)?.and_then(|time| Timestamp::from_microsecond(time).ok()))
    };
    let number = |at: usize| -> Result<u64, rusqlite::Error> {
        Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0))
    };
    let destination: String = row.get(10)?;
    Ok(SessionSummary {
        id: row.get(0)?,
        start: time(1)?.unwrap_or_default(),
        end: time(2)?,
        subjects: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
        user: row.get(4)?,
        uid: row.get(5)?,
        pid: row.get(6)?,
        executable: row.get(7)?,
        resource: row.get(8)?,
        protocol: row.get(9)?,
        destination: destination.parse().map_err(|_| rusqlite::Error::InvalidQuery)?,
        actions: number(11)?,
        refused: number(12)?,
        rows: number(13)?,
        bytes: number(14)?,
        reason: row.get(15)?,
    })
}
