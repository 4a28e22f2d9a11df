//! Session ids: UUID version 7 (RFC 9562, 5.7 and 6.2 method 3), so that they sort by time and cannot be guessed.

use std::{path::PathBuf, sync::Arc};

use jiff::{Timestamp, tz::TimeZone};

use crate::error::StoreError;

/// An id for a session that begins now: 48 bits of milliseconds, 12 of their fraction, 62 random bits.
pub(crate) fn generate(now: Timestamp) -> Result<Arc<str>, StoreError> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| StoreError::Crypto("draw random bytes"))?;
    let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let fraction = u64::try_from(now.subsec_nanosecond() % 1_000_000).unwrap_or(0) * 4096 / 1_000_000;
    let time = u128::from(milliseconds << 16 | VERSION << 12 | fraction);
    let text = format!("{:032x}", time << 64 | u128::from(u64::from_be_bytes(random) >> 2 | VARIANT << 62));
    let mut id = String::with_capacity(36);
    for (at, digit) in text.chars().enumerate() {
        if HYPHENS_BEFORE.contains(&at) {
            id.push('-');
        }
        id.push(digit);
    }
    Ok(id.into())
}

/// Where the session's record lies below the store's directory of sessions; none if this is not an id.
pub(crate) fn record_path(id: &str) -> Option<PathBuf> {
    let day = day_of(id)?;
    Some(PathBuf::from(format!("{day}/{id}.jsonl")))
}

/// The UTC day in which the session began, as `YYYY/MM/DD`; none if this is not an id.
pub(crate) fn day_of(id: &str) -> Option<String> {
    let mut digits = String::with_capacity(32);
    for (at, part) in id.split('-').enumerate() {
        if PARTS.get(at) != Some(&part.len()) {
            return None;
        }
        digits.push_str(part);
    }
    let lower_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if digits.len() != 32 || !lower_hex || digits.as_bytes().get(12) != Some(&b'7') {
        return None;
    }
    let milliseconds = i64::from_str_radix(digits.get(..12)?, 16).ok()?;
    let time = Timestamp::from_millisecond(milliseconds).ok()?.to_zoned(TimeZone::UTC);
    (0..=9999)
        .contains(&time.year())
        .then(|| format!("{:04}/{:02}/{:02}", time.year(), time.month(), time.day()))
}

const VERSION: u64 = 7;
/// RFC 9562's own, in the two highest bits.
const VARIANT: u64 = 0b10;
/// Positions in the hex digits that a hyphen precedes.
const HYPHENS_BEFORE: [usize; 4] = [8, 12, 16, 20];
/// Lengths of the parts between hyphens.
const PARTS: [usize; 5] = [8, 4, 4, 4, 12];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_lead_to_their_day() {
        let early = generate("2026-11-21T23:59:59.999999Z".parse().unwrap()).unwrap();
        let late = generate("2026-11-22T00:00:00Z".parse().unwrap()).unwrap();
        let later = generate("2026-11-22T00:00:00.000001Z".parse().unwrap()).unwrap();
        assert!(early < late && late < later);
        assert_eq!(record_path(&late), Some(PathBuf::from(format!("2026/11/22/{late}.jsonl"))));
        assert_eq!(day_of(&early).as_deref(), Some("2026/11/21"));
    }

    #[test]
    fn what_is_not_an_id_has_no_path() {
        let id = generate(Timestamp::UNIX_EPOCH).unwrap();
        for wrong in
            ["", "../../etc/passwd", &id.to_uppercase().replace('0', "A"), &id[1..], &format!("{id}0")]
        {
            assert_eq!(record_path(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ids_of_one_millisecond_differ() {
        let now = Timestamp::now();
        assert_ne!(generate(now).unwrap(), generate(now).unwrap());
    }
}
