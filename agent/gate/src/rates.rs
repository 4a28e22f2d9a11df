//! How often each principal has acted, over all its sessions and whatever they speak.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tidegate_policy::{Effect, Limit, Principal, Sharer, Verdict};

use crate::{Cause, inner::lock};

/// Into how many parts the time of a rate is divided. What was done counts until its part is wholly over, so never for less
/// than the rate says, and for a thirtieth more at most.
const PARTS: u64 = 30;
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

/// The last actions of somebody under a rule.
struct Window {
    /// Whose room it takes.
    of: Sharer,
    per: Duration,
    /// The numbers of parts in which something was done, the oldest first, and how much.
    parts: VecDeque<(u64, u32)>,
    /// Of all parts.
    sum: u64,
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
        if count == 0 || limits.is_empty() {
            return Ok(());
        }
        let since = now.saturating_duration_since(self.since);
        let mut counted = lock(&self.counted);
        counted.check(count, limits, principal, (now, since))?;
        for limit in limits {
            if let Some(window) = counted.window(limit, principal, (now, since)) {
                window.add(count, since);
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
        if count == 0 || limits.is_empty() {
            return Ok(());
        }
        let since = now.saturating_duration_since(self.since);
        lock(&self.counted).check(count, limits, principal, (now, since))
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

impl Window {
    fn new(of: Sharer, per: Duration) -> Self {
        Self { of, per, parts: VecDeque::new(), sum: 0 }
    }

    /// The same as of now, for this rate: what is over counts no more. Where the rule has come to say another time, all that
    /// counted counts as done just now.
    fn at(&mut self, per: Duration, since: Duration) -> &mut Self {
        let now = part(self.per, since);
        while let Some((_, count)) = self.parts.pop_front_if(|(number, _)| *number + PARTS < now) {
            self.sum -= u64::from(count);
        }
        if self.per != per {
            let count = u32::try_from(self.sum).unwrap_or(u32::MAX);
            self.per = per;
            self.parts = [(part(per, since), count)].into();
            self.sum = u64::from(count);
        }
        self
    }

    fn add(&mut self, added: u32, since: Duration) {
        let now = part(self.per, since);
        self.sum += u64::from(added);
        match self.parts.back_mut() {
            // A part of later: two that ask at once may come here in another order.
            Some((number, count)) if *number >= now => *count = count.saturating_add(added),
            _ => self.parts.push_back((now, added)),
        }
    }

    /// After how long no more than so many are counted; none if it is so now.
    fn wait(&self, most: u32, since: Duration) -> Option<Duration> {
        let mut left = self.sum;
        if left <= u64::from(most) {
            return None;
        }
        let frees = self.parts.iter().find(|(_, count)| {
            left -= u64::from(*count);
            left <= u64::from(most)
        });
        let (number, _) = frees?;
        Some(begins(self.per, number + PARTS + 1).saturating_sub(since))
    }
}

/// In which part of such a time this is, by number.
fn part(per: Duration, since: Duration) -> u64 {
    let number = since.as_nanos() * u128::from(PARTS) / per.as_nanos().max(1);
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// When a part begins.
fn begins(per: Duration, number: u64) -> Duration {
    let nanos = (per.as_nanos() * u128::from(number)).div_ceil(u128::from(PARTS));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tidegate_policy::{Identity, Process, Rate};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limit(rule: &str, count: u32, per: Duration) -> Limit {
        Limit { rule: rule.into(), rate: Rate { count, per }, issuer: None }
    }

    fn account(uid: u32) -> Principal {
        Principal { process: Process { uid, ..Process::default() }, ..Principal::default() }
    }

    fn is_let(rates: &Rates, limits: &[Limit], who: &Principal, after: Duration) -> bool {
        rates.take(1, limits, who, rates.since + after).is_ok()
    }

    #[test]
    fn never_more_than_its_count_in_any_such_time_however_they_are_spread() {
        let (rates, limits) = (Rates::default(), [limit("r", 10, MINUTE)]);
        let mut let_through: Vec<Duration> = Vec::new();
        for tenths in 0..3000 {
            // Bursts and pauses: a prime, so that they meet each part of the minute.
            if (tenths / 37) % 2 == 0 {
                let now = Duration::from_millis(tenths * 100);
                if is_let(&rates, &limits, &account(1), now) {
                    let_through.push(now);
                }
            }
        }
        assert!(let_through.len() >= 40, "the rate is used up: {}", let_through.len());
        for eleven in let_through.windows(11) {
            assert!(eleven[10] - eleven[0] >= MINUTE, "{eleven:?}");
        }
    }

    #[test]
    fn who_is_told_when_to_come_again_is_let_through_then_and_not_before() {
        let (rates, limits) = (Rates::default(), [limit("r", 2, MINUTE)]);
        let at = |seconds| rates.since + Duration::from_secs(seconds);
        rates.take(1, &limits, &account(1), at(7)).unwrap();
        rates.take(1, &limits, &account(1), at(20)).unwrap();
        let Err(Over { why: Why::Done(again), .. }) = rates.take(1, &limits, &account(1), at(30)) else {
            panic!("it is let through")
        };
        assert!((37..=39).contains(&again.as_secs()), "{again:?}");
        let just_before = at(30) + again - Duration::from_nanos(1);
        rates.take(1, &limits, &account(1), just_before).unwrap_err();
        rates.take(1, &limits, &account(1), at(30) + again).unwrap();
        rates.take(1, &limits, &account(1), at(30) + again).unwrap_err();
    }

    #[test]
    fn one_account_is_counted_once_whatever_its_processes_and_another_by_itself() {
        let (rates, limits) = (Rates::default(), [limit("r", 1, MINUTE)]);
        assert!(is_let(&rates, &limits, &account(1), Duration::ZERO));
        let other_process = Process { uid: 1, pid: 7, ..Process::default() };
        let sub_uid = Process { uid: 100_001, sub_uid_of: Some(1), ..Process::default() };
        for process in [other_process, sub_uid] {
            let same = Principal { process, ..Principal::default() };
            assert!(!is_let(&rates, &limits, &same, Duration::ZERO));
        }
        assert!(is_let(&rates, &limits, &account(2), Duration::ZERO));
    }

    #[test]
    fn where_a_rule_asks_an_issuer_each_of_its_subjects_is_counted_by_itself_whatever_the_account() {
        let asked = Limit { issuer: Some("people".into()), ..limit("r", 1, MINUTE) };
        let rates = Rates::default();
        let is = |subject: &str, uid| {
            let ann = Identity {
                issuer: "people".into(),
                url: "https://id.example".into(),
                account: None,
                subject: subject.into(),
                groups: Vec::new(),
                expires: 0,
                claims: serde_json::Map::default(),
            };
            Principal { identities: [ann].into(), ..account(uid) }
        };
        let let_through = |who: &Principal| is_let(&rates, std::slice::from_ref(&asked), who, Duration::ZERO);
        assert!(let_through(&is("ann", 1)) && !let_through(&is("ann", 2)));
        assert!(let_through(&is("bob", 1)));
        assert!(let_through(&account(1)) && !let_through(&account(1)));
    }

    #[test]
    fn what_one_limit_stops_counts_for_no_other() {
        let rates = Rates::default();
        let both = [limit("many", 2, MINUTE), limit("one", 1, MINUTE)];
        assert!(is_let(&rates, &both, &account(1), Duration::ZERO));
        for _ in 0..3 {
            let over = rates.take(1, &both, &account(1), rates.since).unwrap_err();
            assert_eq!(&*over.limit.rule, "one");
        }
        assert!(is_let(&rates, &both[..1], &account(1), Duration::ZERO));
        assert!(!is_let(&rates, &both[..1], &account(1), Duration::ZERO));
    }

    #[test]
    fn what_does_several_things_at_once_is_let_through_whole_or_not_at_all() {
        let (rates, limits) = (Rates::default(), [limit("r", 3, MINUTE)]);
        let take = |count| rates.take(count, &limits, &account(1), rates.since);
        let never = take(4).unwrap_err();
        assert_eq!((never.count, never.why), (4, Why::Never));
        take(2).unwrap();
        assert!(matches!(take(2).unwrap_err().why, Why::Done(again) if again >= MINUTE));
        take(1).unwrap();
        take(1).unwrap_err();
        take(0).unwrap();
    }

    #[test]
    fn a_rule_that_comes_to_say_another_rate_gives_nothing_back() {
        let rates = Rates::default();
        assert!(is_let(&rates, &[limit("r", 3, MINUTE)], &account(1), Duration::ZERO));
        assert!(is_let(&rates, &[limit("r", 3, MINUTE)], &account(1), Duration::ZERO));
        let hour = [limit("r", 3, MINUTE * 60)];
        assert!(is_let(&rates, &hour, &account(1), Duration::from_secs(1)));
        assert!(!is_let(&rates, &hour, &account(1), Duration::from_secs(1)));
        assert!(is_let(&rates, &[limit("r", 4, MINUTE)], &account(1), Duration::from_secs(2)));
    }

    #[test]
    fn whoever_makes_up_principals_fills_no_memory_and_gets_no_more() {
        let (rates, limits) = (Rates::default(), [limit("r", 1, MINUTE)]);
        let most = u32::try_from(MOST).unwrap();
        for uid in 0..most {
            assert!(is_let(&rates, &limits, &account(uid), Duration::ZERO));
        }
        let over = rates.take(1, &limits, &account(most), rates.since).unwrap_err();
        assert_eq!(over.why, Why::Full, "one too many");
        assert!(!is_let(&rates, &limits, &account(0), Duration::ZERO), "nobody was forgotten for it");
        assert!(is_let(&rates, &limits, &account(most), MINUTE * 2), "there is room again");
    }

    #[test]
    fn root_in_a_container_has_one_rate_with_all_its_user_ids_and_takes_nobody_s_room() {
        let (rates, limits) = (Rates::default(), [limit("r", 1, MINUTE)]);
        let contained = |uid| {
            let process = Process { uid, container: Some("4f2".into()), ..Process::default() };
            Principal { process, ..Principal::default() }
        };
        let let_through =
            (0..100_000).filter(|uid| is_let(&rates, &limits, &contained(*uid), Duration::ZERO));
        assert_eq!(let_through.count(), 1);
        assert!(is_let(&rates, &limits, &account(7), Duration::ZERO));
    }

    #[test]
    fn who_acts_as_many_takes_an_eighth_of_the_room_and_is_told_the_truth() {
        let rates = Rates::default();
        let rule = |number: usize| [limit(&number.to_string(), 1, MINUTE)];
        let let_through =
            (0..MOST).filter(|rule_no| is_let(&rates, &rule(*rule_no), &account(1), Duration::ZERO));
        assert_eq!(let_through.count(), MOST_OF_ONE);
        let over = rates.take(1, &rule(MOST), &account(1), rates.since).unwrap_err();
        assert_eq!((&over.why, over.cause()), (&Why::Full, Cause::Rate(MINUTE)));
        assert!(is_let(&rates, &rule(MOST), &account(2), Duration::ZERO));
        assert!(is_let(&rates, &rule(MOST), &account(1), MINUTE * 2), "there is room again");
    }

    #[test]
    fn to_look_whether_there_is_room_takes_none() {
        let (rates, limits) = (Rates::default(), [limit("r", 1, MINUTE)]);
        for _ in 0..3 {
            rates.look(1, &limits, &account(1), rates.since).unwrap();
        }
        assert!(is_let(&rates, &limits, &account(1), Duration::ZERO));
        rates.look(1, &limits, &account(1), rates.since).unwrap_err();
    }
}
