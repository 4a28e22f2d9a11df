//! What somebody has done under a rule within its time.

use std::{collections::VecDeque, time::Duration};

use tidegate_policy::Sharer;

/// Into how many parts the time of a rate is divided. What was done counts until its part is wholly over, so never for less
/// than the rate says, and for a thirtieth more at most.
const PARTS: u64 = 30;

/// The last actions of somebody under a rule.
pub(super) struct Window {
    /// Whose room it takes.
    pub(super) of: Sharer,
    pub(super) per: Duration,
    /// The numbers of parts in which something was done, the oldest first, and how much.
    parts: VecDeque<(u64, u32)>,
    /// Of all parts.
    pub(super) sum: u64,
}

impl Window {
    pub(super) fn new(of: Sharer, per: Duration) -> Self {
        Self { of, per, parts: VecDeque::new(), sum: 0 }
    }

    /// The same as of now, for this rate: what is over counts no more. Where the rule has come to say another time, all that
    /// counted counts as done just now.
    pub(super) fn at(&mut self, per: Duration, since: Duration) -> &mut Self {
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

    pub(super) fn add(&mut self, added: u32, since: Duration) {
        let now = part(self.per, since);
        self.sum += u64::from(added);
        match self.parts.back_mut() {
            // A part of later: two that ask at once may come here in another order.
            Some((number, count)) if *number >= now => *count = count.saturating_add(added),
            _ => self.parts.push_back((now, added)),
        }
    }

    /// After how long no more than so many are counted; none if it is so now.
    pub(super) fn wait(&self, most: u32, since: Duration) -> Option<Duration> {
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
