//! What tells a desk the time.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

/// By how much it is told that it is another than the system's clock.
const APART: Duration = Duration::from_secs(2);

/// How far ahead is a leap.
const LEAP: Duration = Duration::from_secs(60);
/// For how long a leap must stand, and how long after its beginning a clock may still be set right.
const SETTLED: Duration = Duration::from_secs(600);

/// What tells the time.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where the latest time is kept that it has shown.
    kept: Option<Kept>,
}

/// Where the latest time is kept, and since when there is one.
#[derive(Clone)]
struct Kept {
    file: Arc<Path>,
    since: std::time::Instant,
}

/// A clock that nobody sets back, and that follows a leap ahead only once that has stood for a while: a machine may begin with any
/// time, and have the right one a moment later.
struct Steady<W, P> {
    wall: W,
    /// How much time has passed since it began, whatever the wall's clock says.
    passed: P,
    /// What it begins with at the least.
    mark: Timestamp,
    state: Mutex<State>,
}

struct State {
    /// What it showed last, and when.
    last: Timestamp,
    then: Duration,
    /// Since when the wall's clock is far ahead.
    ahead_since: Option<Duration>,
}

impl<W: Fn() -> Timestamp, P: Fn() -> Duration> Steady<W, P> {
    fn new(wall: W, passed: P, mark: Option<Timestamp>) -> Self {
        let mark = mark.unwrap_or(Timestamp::MIN);
        let state = Mutex::new(State { last: mark, then: Duration::ZERO, ahead_since: None });
        Self { wall, passed, mark, state }
    }

    fn now(&self) -> Timestamp {
        let (wall, passed) = ((self.wall)(), (self.passed)());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let least = match passed < SETTLED {
            true => later(self.mark, passed),
            false => later(state.last, passed.saturating_sub(state.then)),
        };
        let leaps = passed >= SETTLED && wall > later(least, LEAP);
        let since = if leaps { *state.ahead_since.get_or_insert(passed) } else { passed };
        let is_early = leaps && passed.saturating_sub(since) < SETTLED;
        if !is_early {
            state.ahead_since = None;
        }
        state.last = if is_early { least } else { wall.max(least) };
        state.then = passed;
        state.last
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

impl Clock {
    /// A clock that somebody else winds.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), kept: None }
    }

    /// The system's, unless that is set back: then time goes on from where it was, so that nothing lasts longer than it was said
    /// to. The latest time is kept in this file, once a minute, and counts after a restart as well; one that can't be read is told,
    /// and counts as none.
    pub fn steady(file: PathBuf) -> Self {
        let read = fs::read_to_string(&file);
        let known = match read.map(|text| mark(&text)) {
            Ok(Some(known)) => Some(known),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            unreadable => {
                let why =
                    unreadable.err().map_or_else(|| "it holds no time".to_owned(), |error| error.to_string());
                tracing::error!(file = %file.display(), why, "the latest time that was shown is not known");
                None
            }
        };
        let since = std::time::Instant::now();
        let steady = Steady::new(Timestamp::now, move || since.elapsed(), known);
        Self { now: Arc::new(move || steady.now()), kept: Some(Kept { file: file.into(), since }) }
    }

    /// What it shows.
    pub(crate) fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// When this time comes, as far as can be told now.
    pub(crate) fn until(&self, time: Timestamp) -> Instant {
        let left = Duration::try_from(time.duration_since(self.now())).unwrap_or_default();
        Instant::now() + left
    }

    /// Keeps the latest time once it has settled, and tells if it isn't the system's. To be called where it may wait for a disk.
    pub(crate) fn keep(&self) {
        let Some(Kept { file, since }) = &self.kept else { return };
        let (now, wall) = (self.now(), Timestamp::now());
        let apart = now.duration_since(wall).unsigned_abs();
        if apart > APART {
            tracing::warn!(
                ?apart,
                "questions and yeses go by another time than the system's clock, which was set"
            );
        }
        if since.elapsed() < SETTLED {
            return;
        }
        if let Err(error) = write(file, now) {
            tracing::warn!(file = %file.display(), %error, "the latest time is not kept");
        }
    }
}

/// Whole, or not at all.
fn write(path: &Path, time: Timestamp) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(time.as_millisecond().to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

fn mark(text: &str) -> Option<Timestamp> {
    Timestamp::from_millisecond(text.trim().parse().ok()?).ok()
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn time_goes_on_from_where_it_was_when_the_clock_is_set_back_and_follows_what_stands_ahead() {
        let (wall, passed) = (AtomicI64::new(1_000), AtomicU64::new(0));
        let clock = Steady::new(
            || at(wall.load(Relaxed)),
            || Duration::from_secs(passed.load(Relaxed)),
            Some(at(900)),
        );
        let after = |shows: i64, passes: u64| {
            wall.store(shows, Relaxed);
            passed.fetch_add(passes, Relaxed);
            clock.now()
        };
        assert_eq!(after(900_000, 0), at(900_000), "it begins with any time");
        assert_eq!(after(1_001, 1), at(1_001), "which is set right");
        assert_eq!(after(10, 1), at(902), "but not before what was shown by an earlier one");
        assert_eq!(after(1_005, 3), at(1_005));
        assert_eq!(after(1_600, 595), at(1_600));
        assert_eq!(after(10, 5), at(1_605), "set back");
        assert_eq!(after(70, 60), at(1_665));
        assert_eq!(after(900_000, 1), at(1_666), "ahead for a moment");
        assert_eq!(after(1_667, 1), at(1_667), "and right again");
        assert_eq!(after(5_000, 1), at(1_668), "ahead for long");
        assert_eq!(after(5_300, 300), at(1_968));
        assert_eq!(after(5_600, 300), at(5_600));
    }

    #[test]
    fn a_clock_that_is_set_back_between_two_agents_begins_where_the_first_one_left_off() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("approvals.clock");
        let ahead = Timestamp::now() + Duration::from_secs(3_600);
        write(&file, ahead).unwrap();
        let clock = Clock::steady(file.clone());
        assert!(clock.now().as_millisecond() >= ahead.as_millisecond());
        for unreadable in ["", "soon"] {
            fs::write(&file, unreadable).unwrap();
            let apart = Clock::steady(file.clone()).now().duration_since(Timestamp::now());
            assert!(apart.as_secs().abs() < 60, "{unreadable:?}");
        }
    }
}
