//! Numbers with a structure of their own: cards, telephones, IBANs, social security numbers.
//!
//! Full-width digits (U+FF10 to U+FF19) count as digits, since people type them; digits of other scripts don't.
//! A separator is one space, no-break space, hyphen or dash. Each detector reads a bounded number of digits from any
//! one place, so all take linear time.

use std::{iter, ops::Range};

use super::stretches::{DIGIT, LETTER, SEPARATOR, Stretches};

/// Shortest number taken for a telephone's: E.164 sets only a maximum.
const PHONE_DIGITS_MIN: usize = 8;
/// E.164, section 6.
const PHONE_DIGITS_MAX: usize = 15;
/// The shortest registered IBAN (Norway).
const IBAN_MIN: usize = 15;
/// ISO 13616-1, section 5.
const IBAN_MAX: usize = 34;
/// ISO/IEC 7812-1, and the shortest that a network still uses.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Nine digits and two separators.
const US_SSN_BYTES: usize = 11;

/// Payment card numbers: a valid check digit, and a first part that a payment network uses (see [`is_issued`]).
///
/// In a grouped number every group but the first and last has three digits or more, so that dates and lists of small
/// numbers aren't taken for one. A number within a longer run of digits is none, nor are a decimal's places.
pub(super) fn cards(text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    for start in runs(text, *CARD_DIGITS.start()) {
        if !is_fraction(text, start)
            && let Some(end) = card_from(text, start)
        {
            found(start..end);
        }
    }
}

/// The end of the longest card number that starts here.
fn card_from(text: &[u8], start: usize) -> Option<usize> {
    let mut luhn = Luhn::default();
    let mut prefix = 0_u16;
    let mut group = 0;
    let mut at = start;
    let mut end = None;
    while let Some((digit, length)) = digit_at(text, at) {
        luhn.push(digit);
        if luhn.digits <= 4 {
            prefix = prefix * 10 + u16::from(digit);
        }
        if luhn.digits > *CARD_DIGITS.end() {
            break;
        }
        at += length;
        group += 1;
        if digit_at(text, at).is_some() {
            continue;
        }
        if CARD_DIGITS.contains(&luhn.digits) && luhn.is_valid() && is_issued(prefix, luhn.digits) {
            end = Some(at);
        }
        let is_first = group == luhn.digits;
        let Some(separator) = separator_at(text, at).filter(|_| is_first || group >= 3) else { break };
        at += separator;
        group = 0;
    }
    end
}

/// Whether a payment network issues numbers that begin with these four digits, of this length.
///
/// As the networks publish them: Visa 4; Mastercard, Maestro, Discover, `UnionPay` and `RuPay` 5 and 6; American
/// Express, Diners Club and JCB 3; Mir, Mastercard and older Diners and JCB ranges in 2; UATP 1; `UnionPay` and `RuPay` 81
/// and 82; Troy 9792. Without this, one in ten of all timestamps in milliseconds would be a card.
fn is_issued(prefix: u16, digits: usize) -> bool {
    match prefix {
        1000..2000 => digits == 15,
        2014 | 2131 | 2149 | 2200..=2205 | 2221..=2720 | 3000..7000 | 8100..8300 | 9792 => true,
        _ => false,
    }
}

/// The check digit of ISO/IEC 7812-1, annex B, over digits that come first to last.
#[derive(Default)]
struct Luhn {
    digits: usize,
    doubled_even: usize,
    doubled_odd: usize,
}

impl Luhn {
    fn push(&mut self, digit: u8) {
        let plain = usize::from(digit);
        let doubled = if plain > 4 { plain * 2 - 9 } else { plain * 2 };
        let (even, odd) = if self.digits.is_multiple_of(2) { (doubled, plain) } else { (plain, doubled) };
        self.doubled_even += even;
        self.doubled_odd += odd;
        self.digits += 1;
    }

    fn is_valid(&self) -> bool {
        let sum = if self.digits.is_multiple_of(2) { self.doubled_even } else { self.doubled_odd };
        sum.is_multiple_of(10)
    }
}

/// Telephone numbers: a plus sign, then 8 to 15 digits, the first not 0; grouped by separators, dots, slashes, brackets.
pub(super) fn phones(text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    let mut done = 0;
    // The first bytes of a plus sign.
    for at in memchr::memchr2_iter(b'+', 0xEF, text) {
        let Some(sign) = plus_at(text, at).filter(|_| at >= done) else { continue };
        if let Some(end) = phone_end(text, at + sign).filter(|_| !ends_in_digit(text, at)) {
            found(at..end);
            done = end;
        }
    }
}

fn phone_end(text: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut digits, mut end) = (start, 0, None);
    loop {
        while let Some((digit, length)) = digit_at(text, at) {
            if digits == 0 && digit == 0 {
                return None;
            }
            digits += 1;
            at += length;
            if digits > PHONE_DIGITS_MAX {
                return end;
            }
        }
        if digits >= PHONE_DIGITS_MIN {
            end = Some(at);
        }
        // Two in a row at most: "+1 (555) 123-4567".
        for _ in 0..2 {
            at += phone_separator_at(text, at).unwrap_or_default();
        }
        if digit_at(text, at).is_none() {
            return end;
        }
    }
}

/// US social security numbers, grouped 3-2-4; the numbers that the SSA never assigns are none (RM 10201.035).
pub(super) fn us_ssns(text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    for start in runs(text, US_SSN_BYTES) {
        if let Some(end) = us_ssn_end(text, start) {
            found(start..end);
        }
    }
}

fn us_ssn_end(text: &[u8], start: usize) -> Option<usize> {
    let (area, at) = group_at(text, start, 3)?;
    let (group, at) = group_at(text, at + separator_at(text, at)?, 2)?;
    let (serial, end) = group_at(text, at + separator_at(text, at)?, 4)?;
    let is_assigned = area != 0 && area != 666 && area < 900 && group != 0 && serial != 0;
    is_assigned.then_some(end)
}

/// The number of a whole run of exactly so many digits, and where it ends.
fn group_at(text: &[u8], start: usize, digits: usize) -> Option<(u32, usize)> {
    let (mut number, mut at) = (0, start);
    for _ in 0..digits {
        let (digit, length) = digit_at(text, at)?;
        number = number * 10 + u32::from(digit);
        at += length;
    }
    digit_at(text, at).is_none().then_some((number, at))
}

/// IBANs with valid check digits, written together in either case, or in capitals by groups of four.
pub(super) fn ibans(text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    for stretch in Stretches::of(text, LETTER | DIGIT | SEPARATOR, IBAN_MIN) {
        let part = text.get(stretch.clone()).unwrap_or_default();
        ibans_in(part, &mut |span| found(stretch.start + span.start..stretch.start + span.end));
    }
}

/// Those in a text of letters, digits and separators.
fn ibans_in(text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    let mut start = 0;
    while start < text.len() {
        let length = alphanumerics_at(text, start, IBAN_MAX + 1);
        if let Some(end) = iban_end(text, start, length) {
            found(start..end);
            start = end;
        } else {
            start += length;
            while length > 0 && text.get(start).is_some_and(u8::is_ascii_alphanumeric) {
                start += 1;
            }
            start += 1;
        }
    }
}

/// The end of the longest IBAN that starts with this run of letters and digits.
fn iban_end(text: &[u8], start: usize, run: usize) -> Option<usize> {
    let [a, b, c, d] = text.get(start..)?.first_chunk::<4>()?;
    if !(a.is_ascii_alphabetic() && b.is_ascii_alphabetic() && c.is_ascii_digit() && d.is_ascii_digit()) {
        return None;
    }
    let mut number = Vec::with_capacity(IBAN_MAX);
    number.extend_from_slice(text.get(start..start + run)?);
    let mut at = start + run;
    if run != 4 {
        return ((IBAN_MIN..=IBAN_MAX).contains(&run) && is_iban(&number)).then_some(at);
    }
    let mut end = None;
    while let Some(separator) = separator_at(text, at) {
        let group = alphanumerics_at(text, at + separator, 5);
        let characters = text.get(at + separator..at + separator + group)?;
        let is_group = (1..=4).contains(&group) && !characters.iter().any(u8::is_ascii_lowercase);
        if !is_group || number.len() + group > IBAN_MAX {
            break;
        }
        number.extend_from_slice(characters);
        at += separator + group;
        if number.len() >= IBAN_MIN && is_iban(&number) {
            end = Some(at);
        }
        if group < 4 {
            break;
        }
    }
    end
}

/// ISO/IEC 7064, MOD 97-10, with the first four characters moved to the end.
fn is_iban(number: &[u8]) -> bool {
    let (country, account) = number.split_at(number.len().min(4));
    let remainder = account.iter().chain(country).fold(0_u32, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        _ => (remainder * 100 + u32::from(byte.to_ascii_uppercase().saturating_sub(b'A')) + 10) % 97,
    });
    remainder == 1
}

/// How many letters and digits stand here, counted up to `limit`.
fn alphanumerics_at(text: &[u8], at: usize, limit: usize) -> usize {
    text.get(at..)
        .unwrap_or_default()
        .iter()
        .take(limit)
        .take_while(|byte| byte.is_ascii_alphanumeric())
        .count()
}

/// Where runs of digits begin that may be the beginning of something of `least` bytes, made of digits and separators.
fn runs(text: &[u8], least: usize) -> impl Iterator<Item = usize> {
    Stretches::of(text, DIGIT | SEPARATOR, least).flat_map(move |stretch| {
        let mut at = stretch.start;
        iter::from_fn(move || {
            while at < stretch.end && digit_at(text, at).is_none() {
                at += 1;
            }
            let start = at;
            while let Some((_, length)) = digit_at(text, at) {
                at += length;
            }
            (at > start).then_some(start)
        })
    })
}

/// The digit here and its length in bytes.
fn digit_at(text: &[u8], at: usize) -> Option<(u8, usize)> {
    match text.get(at..)? {
        [digit @ b'0'..=b'9', ..] => Some((digit - b'0', 1)),
        [0xEF, 0xBC, digit @ 0x90..=0x99, ..] => Some((digit - 0x90, 3)),
        _ => None,
    }
}

/// Whether the text before `at` ends in a digit.
fn ends_in_digit(text: &[u8], at: usize) -> bool {
    match text.get(..at) {
        Some([.., b'0'..=b'9'] | [.., 0xEF, 0xBC, 0x90..=0x99]) => true,
        Some(_) | None => false,
    }
}

/// Whether the digits here are the places of a decimal number.
fn is_fraction(text: &[u8], at: usize) -> bool {
    match text.get(..at) {
        Some([before @ .., b'.']) => ends_in_digit(before, before.len()),
        Some(_) | None => false,
    }
}

/// The length of the separator here: a space, no-break space, hyphen, or dash up to U+2015.
fn separator_at(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at..)? {
        [b' ' | b'-', ..] => Some(1),
        [0xC2, 0xA0, ..] => Some(2),
        [0xE2, 0x80, 0x90..=0x95 | 0xAF, ..] => Some(3),
        _ => None,
    }
}

fn phone_separator_at(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'.' | b'/' | b'(' | b')' => Some(1),
        _ => separator_at(text, at),
    }
}

/// The length of the plus sign here, which may be full-width.
fn plus_at(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at..)? {
        [b'+', ..] => Some(1),
        [0xEF, 0xBC, 0x8B, ..] => Some(3),
        _ => None,
    }
}
