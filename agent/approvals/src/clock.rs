//! What tells a desk the time.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

/// By how much it is told that it is ahead of the system's clock.
const AHEAD: Duration = Duration::from_secs(2);

/// What tells the time.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where the latest time is kept that it has shown.
    kept: Option<Arc<Path>>,
}

/// A clock that nobody sets back.
struct Steady<W, P> {
    wall: W,
    /// How much time has passed since some moment, whatever the wall's clock says.
    passed: P,
    /// What it showed last, and when.
    shown: Mutex<(Timestamp, Duration)>,
}

impl<W: Fn() -> Timestamp, P: Fn() -> Duration> Steady<W, P> {
    fn new(wall: W, passed: P, mark: Option<Timestamp>) -> Self {
        let shown = Mutex::new((mark.unwrap_or(Timestamp::MIN), passed()));
        Self { wall, passed, shown }
    }

    fn now(&self) -> Timestamp {
        let (wall, passed) = ((self.wall)(), (self.passed)());
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, then) = *shown;
        let least = last.checked_add(passed.saturating_sub(then)).unwrap_or(Timestamp::MAX);
        *shown = (wall.max(least), passed.max(then));
        shown.0
    }
}

impl Clock {
    /// A clock that somebody else winds.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), kept: None }
    }

    /// The system's, unless that is set back: then time goes on from where it was, so that nothing lasts longer than it was said
    /// to. The latest time is kept in this file, once a minute, and counts after a restart as well.
    ///
    /// # Errors
    ///
    /// The file can't be read, or is none of ours.
    pub fn steady(file: PathBuf) -> io::Result<Self> {
        let mark = match fs::read_to_string(&file) {
            Ok(text) => Some(mark(&text).ok_or_else(|| io::Error::other("it holds no time"))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let since = std::time::Instant::now();
        let steady = Steady::new(Timestamp::now, move || since.elapsed(), mark);
        Ok(Self { now: Arc::new(move || steady.now()), kept: Some(file.into()) })
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

    /// Keeps the latest time, and tells if it isn't the system's.
    pub(crate) fn keep(&self) {
        let Some(kept) = &self.kept else { return };
        let now = self.now();
        let ahead = Duration::try_from(now.duration_since(Timestamp::now())).unwrap_or_default();
        if ahead > AHEAD {
            tracing::warn!(
                ?ahead,
                "the system's clock was set back: questions and yeses go by the time that it showed before"
            );
        }
        let unfinished = kept.with_extension("new");
        let written = fs::write(&unfinished, now.as_millisecond().to_string());
        if let Err(error) = written.and_then(|()| fs::rename(&unfinished, kept)) {
            tracing::warn!(file = %kept.display(), %error, "the latest time is not kept");
        }
    }
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
    fn time_goes_on_from_where_it_was_when_the_clock_is_set_back_and_follows_one_that_is_set_ahead() {
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
        assert_eq!(after(1_000, 0), at(1_000));
        assert_eq!(after(1_010, 10), at(1_010));
        assert_eq!(after(10, 5), at(1_015), "set back");
        assert_eq!(after(70, 60), at(1_075));
        assert_eq!(after(5_000, 1), at(5_000), "set ahead");
    }

    #[test]
    fn a_clock_that_is_set_back_between_two_agents_begins_where_the_first_one_left_off() {
        let directory = std::env::temp_dir().join(format!("tidegate-clock-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let file = directory.join("approvals.clock");
        let ahead = Timestamp::now() + Duration::from_secs(3_600);
        fs::write(&file, ahead.as_millisecond().to_string()).unwrap();
        let clock = Clock::steady(file.clone()).unwrap();
        assert!(clock.now().as_millisecond() >= ahead.as_millisecond());
        clock.keep();
        assert!(mark(&fs::read_to_string(&file).unwrap()).unwrap().as_second() >= ahead.as_second());
        fs::write(&file, "soon").unwrap();
        assert!(Clock::steady(file.clone()).is_err());
        fs::remove_file(&file).unwrap();
        assert!(Clock::steady(file).is_ok());
        fs::remove_dir(&directory).unwrap();
    }
}
