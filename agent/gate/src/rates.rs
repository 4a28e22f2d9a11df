//! How often each principal has acted, over all its sessions and whatever they speak.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tidegate_policy::{Effect, Limit, Principal, Verdict};

use crate::inner::lock;

/// Into how many parts the time of a rate is divided. What was done counts until its part is wholly over, so never for less
/// than the rate says, and for a thirtieth more at most.
const PARTS: u64 = 30;
/// How many are counted at a time, of all rules together.
const MOST: usize = 16_384;
/// How often at most they are all looked through for what needs no counting any more.
const SWEEP: Duration = Duration::from_secs(1);

/// What everybody has done lately where rules say how often they may. One for all sessions and every bundle: a reload
/// gives nothing back.
pub struct Rates {
    since: Instant,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    windows: HashMap<Key, Window>,
    swept: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    rule: Arc<str>,
    who: Who,
}

/// Who is counted by itself.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Who {
    /// All processes of it, and its sub-uids.
    Account(u32),
    /// All that an issuer, by its URL, says is the same.
    Subject { issuer: Arc<str>, subject: Arc<str> },
}

/// The last actions of somebody under a rule.
struct Window {
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
    /// After how long it lets through so many; none if it never does.
    pub(crate) again: Option<Duration>,
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
        for limit in limits {
            let Some(most) = limit.rate.count.checked_sub(count) else {
                return Err(Over { limit: limit.clone(), count, again: None });
            };
            let window = counted.window(limit, principal, (now, since));
            // Too many are counted: who is not yet must wait until others need no counting.
            let wait = window.map_or(Some(SWEEP), |window| window.wait(most, since));
            if wait.is_some() {
                return Err(Over { limit: limit.clone(), count, again: wait });
            }
        }
        for limit in limits {
            if let Some(window) = counted.window(limit, principal, (now, since)) {
                window.add(count, since);
            }
        }
        Ok(())
    }
}

impl Counted {
    /// What this principal has done under this rule up to now; none where there is no room to count it.
    fn window(
        &mut self,
        limit: &Limit,
        principal: &Principal,
        (now, since): (Instant, Duration),
    ) -> Option<&mut Window> {
        let key = Key { rule: limit.rule.clone(), who: Who::is(limit, principal) };
        if self.windows.len() >= MOST && !self.windows.contains_key(&key) {
            if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
                self.swept = Some(now);
                self.windows.retain(|_, window| window.at(window.per, since).sum > 0);
            }
            if self.windows.len() >= MOST {
                return None;
            }
        }
        let window = self.windows.entry(key).or_insert_with(|| Window::new(limit.rate.per));
        Some(window.at(limit.rate.per, since))
    }
}

impl Over {
    /// What was allowed or held, refused for now.
    pub(crate) fn refused(&self, verdict: &Verdict) -> Verdict {
        let (rule, rate) = (&self.limit.rule, self.limit.rate);
        let (message, hint) = match self.again {
            Some(again) => (
                format!("rule {rule:?} lets through {rate}, and no more for now"),
                format!("ask again in {} s", again.as_nanos().div_ceil(1_000_000_000)),
            ),
            None => (
                format!("rule {rule:?} lets through {rate}, and this is {} at once", self.count),
                "send fewer at once".to_owned(),
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
            None => Self::Account(principal.process.account()),
        }
    }
}

impl Window {
    fn new(per: Duration) -> Self {
        Self { per, parts: VecDeque::new(), sum: 0 }
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
            *self = Self { per, parts: [(part(per, since), count)].into(), sum: u64::from(count) };
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
        let over = rates.take(1, &limits, &account(1), at(30)).unwrap_err();
        assert!((37..=39).contains(&over.again.unwrap().as_secs()), "{over:?}");
        let just_before = at(30) + over.again.unwrap() - Duration::from_nanos(1);
        rates.take(1, &limits, &account(1), just_before).unwrap_err();
        rates.take(1, &limits, &account(1), at(30) + over.again.unwrap()).unwrap();
        rates.take(1, &limits, &account(1), at(30) + over.again.unwrap()).unwrap_err();
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
        assert_eq!((never.count, never.again), (4, None));
        take(2).unwrap();
        assert!(take(2).unwrap_err().again.is_some_and(|again| again >= MINUTE));
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
        assert!(!is_let(&rates, &limits, &account(most), Duration::ZERO), "one too many");
        assert!(!is_let(&rates, &limits, &account(0), Duration::ZERO), "nobody was forgotten for it");
        assert!(is_let(&rates, &limits, &account(most), MINUTE * 2), "there is room again");
    }
}
