//! Runs the detectors of a mask over a text.

use std::ops::Range;

use tidegate_policy::{Content, ContentMask, Show};

use super::{Find, email, keys, keys::KeyShapes, numbers};

/// What a mask's detectors find in a text, in order and without overlaps.
pub(super) fn finds<'m>(shapes: &KeyShapes, mask: &'m ContentMask, bytes: &[u8]) -> Vec<Find<'m>> {
    let census = Census::of(bytes);
    let mut all = Vec::new();
    for (content, show) in &mask.finds {
        if !census.may_hold(content) {
            continue;
        }
        let mut found = |span: Range<usize>| {
            if !span.is_empty() {
                all.push(Find { span, show });
            }
        };
        match content {
            Content::Card => numbers::cards(bytes, &mut found),
            Content::Phone => numbers::phones(bytes, &mut found),
            Content::UsSsn => numbers::us_ssns(bytes, &mut found),
            Content::Iban => numbers::ibans(bytes, &mut found),
            Content::Email => email::emails(bytes, &mut found),
            Content::CloudKey => shapes.cloud_keys(bytes, &mut found),
            Content::Jwt => keys::jwts(bytes, &mut found),
            Content::PrivateKey => shapes.private_keys(bytes, &mut found),
            Content::Pattern(_, pattern) => patterns(pattern, bytes, &mut found),
        }
    }
    merge(all)
}

/// Own patterns see each stretch of valid UTF-8 as a text of its own.
fn patterns(pattern: &regex::Regex, bytes: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    let mut start = 0;
    for chunk in bytes.utf8_chunks() {
        for hit in pattern.find_iter(chunk.valid()) {
            found(start + hit.start()..start + hit.end());
        }
        start += chunk.valid().len() + chunk.invalid().len();
    }
}

/// Overlapping finds become one, shown the way that hides most.
fn merge(mut all: Vec<Find<'_>>) -> Vec<Find<'_>> {
    all.sort_by_key(|find| (find.span.start, find.span.end));
    all.dedup_by(|next, kept| {
        if next.span.start >= kept.span.end {
            return false;
        }
        kept.span.end = kept.span.end.max(next.span.end);
        if visible(next.show) < visible(kept.show) {
            kept.show = next.show;
        }
        true
    });
    all
}

/// How much of a value a mask lets be seen, for comparison.
fn visible(show: &Show) -> (u8, usize) {
    match show {
        Show::Null => (0, 0),
        Show::Redact(_) => (1, 0),
        Show::Token => (2, 0),
        Show::Keep { first, last } => (3, first.saturating_add(*last)),
    }
}

const DIGIT: u8 = 1;
const AT: u8 = 1 << 1;
const PLUS: u8 = 1 << 2;
const DASH: u8 = 1 << 3;
const DOT: u8 = 1 << 4;
/// The first byte of a full-width digit or plus sign; counts as any of them.
const WIDE: u8 = 1 << 5;
/// A letter, or what else tokens are made of.
const WORD: u8 = 1 << 6;
const SEPARATOR: u8 = 1 << 7;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let class = match byte as u8 {
            b'0'..=b'9' => DIGIT,
            b'@' => AT,
            b'+' => PLUS,
            b'-' => DASH | SEPARATOR,
            b' ' | 0xC2 | 0xE2 => SEPARATOR,
            b'.' => DOT,
            0xEF => WIDE,
            b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'/' | b'~' | b'%' => WORD,
            _ => 0,
        };
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
        {
            classes[byte] = class;
        }
        byte += 1;
    }
    classes
};

/// What bytes a text has at all: most texts are cleared by this one pass.
struct Census {
    seen: u8,
    digits: usize,
    length: usize,
    /// The longest run of bytes that tokens are made of.
    run: usize,
}

impl Census {
    fn of(bytes: &[u8]) -> Self {
        let (mut seen, mut digits) = (0, 0);
        let (mut run, mut longest) = (0_usize, 0);
        for byte in bytes {
            let class = CLASSES.get(usize::from(*byte)).copied().unwrap_or_default();
            seen |= class;
            digits += usize::from(class & DIGIT);
            run = if class & (WORD | DIGIT | DASH | DOT | PLUS) == 0 { 0 } else { run + 1 };
            longest = run.max(longest);
        }
        if seen & WIDE != 0 {
            digits = usize::MAX;
            seen |= DIGIT | PLUS;
        }
        Self { seen, digits, length: bytes.len(), run: longest }
    }

    fn may_hold(&self, content: &Content) -> bool {
        let sees = |classes: u8| self.seen & classes == classes;
        match content {
            Content::Card => self.digits >= 13,
            Content::Email => sees(AT | DOT),
            Content::Phone => sees(PLUS) && self.digits >= numbers::PHONE_DIGITS_MIN,
            Content::Iban => sees(DIGIT | WORD) && self.length >= numbers::IBAN_MIN,
            Content::UsSsn => sees(SEPARATOR) && self.digits >= 9,
            Content::CloudKey => sees(WORD) && self.run >= keys::CLOUD_KEY_MIN,
            Content::Jwt => sees(DOT | WORD) && self.run >= keys::JWT_MIN,
            Content::PrivateKey => sees(DASH | WORD) && self.length >= keys::PEM_MIN,
            Content::Pattern(..) => true,
        }
    }
}
