//! Seals the records that an agent left open when it died.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use crate::{
    chain::Chain,
    error::{At, StoreError},
    layout::{Layout, private},
    line::{Header, Link},
    log::{
        Found, Log,
        leaf::{Moment, WholeLines},
    },
};

/// Seals every session that the log has as opened and not closed, and the ones that were being opened.
pub(crate) fn recover(layout: &Layout, log: &Log, found: Found) -> Result<(), StoreError> {
    for session in found.open.iter().collect::<BTreeSet<_>>() {
        seal(layout, log, session)?;
    }
    for day in found.recent_days() {
        adopt(layout, log, &layout.sessions().join(day), &found)?;
    }
    Ok(())
}

/// A record's file as it was left.
struct Left {
    end: Link,
    /// Bytes of whole lines, and of what follows them.
    whole: u64,
    torn: u64,
    closed: bool,
}

fn seal(layout: &Layout, log: &Log, session: &str) -> Result<(), StoreError> {
    let path = match layout.record(session) {
        Some(path) if path.exists() => path,
        _ => {
            tracing::warn!(session, "the log of records has this session as open, but its record is missing");
            return Ok(());
        }
    };
    let left = inspect(&path, session).at(&path)?;
    let mut end = left.end;
    let file = private().append(true).open(&path).at(&path)?;
    if left.torn > 0 {
        file.set_len(left.whole).at(&path)?;
    }
    if !left.closed {
        let mut reason = REASON.to_owned();
        if left.torn > 0 {
            reason = format!("{reason}; {} bytes of an unfinished last line were cut off", left.torn);
        }
        let mut chain = Chain::new(file, left.end, left.whole, false);
        end = chain.close(&reason).map_err(io::Error::other).at(&path)?;
    }
    log.append(Moment::Closed, session, end).at(layout.leaves())?;
    tracing::warn!(
        session,
        lines = end.lines,
        "sealed the record of a session that an earlier agent left open"
    );
    Ok(())
}

/// Takes into the log what was written before its first leaf could be: a record of its opening line. A file that is not
/// even that is removed; a longer one was not made by an agent, and is left for `verify` to name.
fn adopt(layout: &Layout, log: &Log, day: &Path, found: &Found) -> Result<(), StoreError> {
    for (session, path) in files(day).at(day)? {
        if found.recent.contains(&session) || layout.record(&session).as_ref() != Some(&path) {
            continue;
        }
        let left = inspect(&path, &session).at(&path)?;
        match left.end.lines {
            0 => fs::remove_file(&path).at(&path)?,
            1 => {
                log.append(Moment::Opened, &session, left.end).at(layout.leaves())?;
                seal(layout, log, &session)?;
            }
            _ => tracing::warn!(session, "the log of records does not know this record"),
        }
    }
    Ok(())
}

/// The records of one day: ids and paths. None if there is no such day.
fn files(day: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(day) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(session) = path.file_stem().and_then(|stem| stem.to_str()) {
            files.push((session.to_owned(), path.clone()));
        }
    }
    files.sort();
    Ok(files)
}

fn inspect(path: &Path, session: &str) -> io::Result<Left> {
    let mut lines = WholeLines::new(BufReader::new(File::open(path)?));
    let mut end = Link::genesis(session);
    let mut closed = false;
    while let Some(line) = lines.next()? {
        end = end.after(line);
        closed = serde_json::from_slice::<Header<'_>>(line).is_ok_and(|header| header.kind == "close");
    }
    Ok(Left { end, whole: lines.whole, torn: lines.torn, closed })
}

const REASON: &str = "the agent stopped without closing this record";
