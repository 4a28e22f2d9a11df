//! How often each principal has acted, over all its sessions and whatever they speak.

mod window;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tidegate_policy::{Effect, Limit, Principal, Sharer, Verdict};

use self::window::Window;
use crate::{Cause, inner::lock};

/// How many are counted at a time, of all rules together.
const MOST: usize = 16_384;
/// How many of those are one account's, or one container's: under many rules, or as many subjects of an issuer.
const MOST_OF_ONE: usize = MOST / 8;
/// How often at most they are all looked through for what needs no counting any more.
const SWEEP: Duration = Duration::from_secs(1);
/// How often at most the log says that there is no room.
const SELDOM: Duration = Duration::from_secs(60);

/// What everybody has done lately where rules say how often they may. One for all sessions and every bundle: a reload
/// gives nothing back.
pub struct Rates {
    since: Instant,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    windows: HashMap<Key, Window>,
    /// How many of them each has.
    of: HashMap<Sharer, usize>,
    swept: Option<Instant>,
    told: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    rule: Arc<str>,
    who: Who,
}

/// Who is counted by itself.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Who {
    /// All processes of an account and its sub-uids, or of a container.
    Sharer(Sharer),
    /// All that an issuer, by its URL, says is the same.
    Subject { issuer: Arc<str>, subject: Arc<str> },
}

/// A rule lets through no more for now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) limit: Limit,
    /// How many things it was asked for at once.
    pub(crate) count: u32,
    why: Why,
}

/// Why it lets through no more.
#[derive(Debug, PartialEq, Eq)]
enum Why {
    /// So many were done of late; after this long it lets through so many.
    Done(Duration),
    /// It never lets through so many at once.
    Never,
    /// There is no room to count whoever asks.
    Full,
}

impl Default for Rates {
    fn default() -> Self {
        Self { since: Instant::now(), counted: Mutex::default() }
    }
}

impl Rates {
    /// Counts an action that does so many things, if all limits leave room for all of them; else it counts for none.
    pub(crate) fn take(
        &self,
        count: u32,
        limits: &[Limit],
        principal: &Principal,
        now: Instant,
    ) -> Result<(), Over> {
        if let Some(mut counted) = self.with_room(count, limits, principal, now)? {
            let since = now.saturating_duration_since(self.since);
            for limit in limits {
                if let Some(window) = counted.window(limit, principal, (now, since)) {
                    window.add(count, since);
                }
            }
        }
        Ok(())
    }

    /// Whether there is room for such an action, which counts for nothing yet.
    pub(crate) fn look(
        &self,
        count: u32,
        limits: &[Limit],
        principal: &Principal,
        now: Instant,
    ) -> Result<(), Over> {
        self.with_room(count, limits, principal, now).map(drop)
    }

    /// What everybody has done, where that leaves room for this; none where nothing is counted.
    fn with_room(
        &self,
        count: u32,
        limits: &[Limit],
        principal: &Principal,
        now: Instant,
    ) -> Result<Option<MutexGuard<'_, Counted>>, Over> {
        if count == 0 || limits.is_empty() {
            return Ok(None);
        }
        let since = now.saturating_duration_since(self.since);
        let mut counted = lock(&self.counted);
        counted.check(count, limits, principal, (now, since))?;
        Ok(Some(counted))
    }
}

impl Counted {
    fn check(
        &mut self,
        count: u32,
        limits: &[Limit],
        principal: &Principal,
        (now, since): (Instant, Duration),
    ) -> Result<(), Over> {
        for limit in limits {
            let over = |why| Over { limit: limit.clone(), count, why };
            let most = limit.rate.count.checked_sub(count).ok_or_else(|| over(Why::Never))?;
            let window = self.window(limit, principal, (now, since)).ok_or_else(|| over(Why::Full))?;
            if let Some(wait) = window.wait(most, since) {
                return Err(over(Why::Done(wait)));
            }
        }
        Ok(())
    }

    /// What this principal has done under this rule up to now; none where there is no room to count it.
    fn window(
        &mut self,
        limit: &Limit,
        principal: &Principal,
        (now, since): (Instant, Duration),
    ) -> Option<&mut Window> {
        let key = Key { rule: limit.rule.clone(), who: Who::is(limit, principal) };
        let sharer = principal.process.sharer();
        if !self.windows.contains_key(&key) && !self.has_room(&sharer, (now, since)) {
            return None;
        }
        let Self { windows, of, .. } = self;
        let window = windows.entry(key).or_insert_with(|| {
            *of.entry(sharer.clone()).or_default() += 1;
            Window::new(sharer, limit.rate.per)
        });
        Some(window.at(limit.rate.per, since))
    }

    fn has_room(&mut self, sharer: &Sharer, (now, since): (Instant, Duration)) -> bool {
        let is_due = |last: Option<Instant>, pause| {
            last.is_none_or(|last| now.saturating_duration_since(last) >= pause)
        };
        if self.is_full(sharer) && is_due(self.swept, SWEEP) {
            self.swept = Some(now);
            self.windows.retain(|_, window| window.at(window.per, since).sum > 0);
            self.of.clear();
            for window in self.windows.values() {
                *self.of.entry(window.of.clone()).or_default() += 1;
            }
        }
        let full = self.is_full(sharer);
        if full && is_due(self.told, SELDOM) {
            self.told = Some(now);
            let (counted, most, most_of_one) = (self.windows.len(), MOST, MOST_OF_ONE);
            tracing::warn!(%sharer, counted, most, most_of_one, "refused: no room to count by the rates of rules whoever asks");
        }
        !full
    }

    fn is_full(&self, sharer: &Sharer) -> bool {
        self.windows.len() >= MOST || self.of.get(sharer).is_some_and(|count| *count >= MOST_OF_ONE)
    }
}

impl Over {
    pub(crate) fn cause(&self) -> Cause {
        match self.why {
            Why::Done(again) => Cause::Rate(again),
            Why::Never => Cause::TooMany,
            // Those who are counted under this rule aren't any more by then.
            Why::Full => Cause::Rate(self.limit.rate.per),
        }
    }

    /// What was allowed or held, refused for now.
    pub(crate) fn refused(&self, verdict: &Verdict) -> Verdict {
        let (rule, rate) = (&self.limit.rule, self.limit.rate);
        let (message, hint) = match self.why {
            Why::Done(again) => (
                format!("rule {rule:?} lets through {rate}, and no more for now"),
                format!("ask again in {} s", again.as_nanos().div_ceil(1_000_000_000)),
            ),
            Why::Never => (
                format!("rule {rule:?} lets through {rate}, and this is {} at once", self.count),
                "send fewer at once".to_owned(),
            ),
            Why::Full => (
                format!("rule {rule:?} lets through {rate}, and there is no room to count you"),
                "too many others act here, or your account or container acts as too many: ask again later"
                    .to_owned(),
            ),
        };
        Verdict {
            effect: Effect::Deny,
            rule: Some(rule.clone()),
            holds: Vec::new(),
            message: message.into(),
            hint: Some(hint.into()),
            limits: Vec::new(),
            ..verdict.clone()
        }
    }
}

impl Who {
    fn is(limit: &Limit, principal: &Principal) -> Self {
        let identity = limit.issuer.as_deref().and_then(|issuer| principal.identity(issuer));
        match identity {
            Some(known) => Self::Subject { issuer: known.url.clone(), subject: known.subject.clone() },
            None => Self::Sharer(principal.process.sharer()),
        }
    }
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
