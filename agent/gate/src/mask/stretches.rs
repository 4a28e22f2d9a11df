//! Stretches of a text that could hold something by the bytes that they are made of. Most texts have none, which is found out
//! by looking at few of their bytes.

use std::ops::Range;

/// Digits.
pub(super) const DIGIT: u8 = 1;
/// What stands between groups of digits: spaces, hyphens, dashes. Full-width digits, too, and any other character
/// that isn't ASCII.
pub(super) const SEPARATOR: u8 = 1 << 1;
/// Letters of ASCII.
pub(super) const LETTER: u8 = 1 << 2;
/// What tokens have besides letters and digits: `_~.+/%-`.
pub(super) const SIGN: u8 = 1 << 3;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let class = match byte as u8 {
            b'0'..=b'9' => DIGIT,
            b'-' => SEPARATOR | SIGN,
            b' ' | 0x80..=0xFF => SEPARATOR,
            b'A'..=b'Z' | b'a'..=b'z' => LETTER,
            b'_' | b'~' | b'.' | b'+' | b'/' | b'%' => SIGN,
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

/// The stretches of a text that are made of bytes of some classes alone, as long as they come, and of `least` bytes or more.
pub(super) struct Stretches<'a> {
    text: &'a [u8],
    classes: u8,
    least: usize,
    at: usize,
}

impl<'a> Stretches<'a> {
    pub(super) fn of(text: &'a [u8], classes: u8, least: usize) -> Self {
        Self { text, classes, least: least.max(1), at: 0 }
    }

    fn belongs(&self, byte: u8) -> bool {
        CLASSES.get(usize::from(byte)).is_some_and(|class| class & self.classes != 0)
    }
}

impl Iterator for Stretches<'_> {
    type Item = Range<usize>;

    /// A stretch that begins here has `least` bytes: the last of them that doesn't belong is where none reaches over.
    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let start = self.at;
            let window = self.text.get(start..start.checked_add(self.least)?)?;
            if let Some(stranger) = window.iter().rposition(|byte| !self.belongs(*byte)) {
                self.at = start + stranger + 1;
                continue;
            }
            let rest = self.text.get(start + self.least..).unwrap_or_default();
            let more = rest.iter().position(|byte| !self.belongs(*byte)).unwrap_or(rest.len());
            self.at = start + self.least + more;
            return Some(start..self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stretches(text: &[u8], classes: u8, least: usize) -> Vec<Range<usize>> {
        Stretches::of(text, classes, least).collect()
    }

    /// Byte by byte.
    fn plainly(text: &[u8], classes: u8, least: usize) -> Vec<Range<usize>> {
        let belongs = |byte: &u8| CLASSES[usize::from(*byte)] & classes != 0;
        let mut found = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let length = text[at..].iter().take_while(|byte| belongs(byte)).count();
            if length >= least {
                found.push(at..at + length);
            }
            at += length + 1;
        }
        found
    }

    #[test]
    fn a_stretch_is_whole_wherever_it_stands() {
        assert_eq!(stretches(b"1234x123", DIGIT, 4), std::iter::once(0..4).collect::<Vec<_>>());
        assert!(stretches(b"123", DIGIT, 4).is_empty());
        assert_eq!(stretches(b"x1234x12345", DIGIT, 4), [1..5, 6..11]);
        assert!(stretches(b"", DIGIT, 1).is_empty());
    }

    proptest! {
        #[test]
        fn none_is_left_out_and_none_made_up(
            text in "([0-9]{0,9}[a-z .-]{0,3}){0,12}", classes in 1_u8..16, least in 1_usize..20,
        ) {
            let text = text.as_bytes();
            prop_assert_eq!(stretches(text, classes, least), plainly(text, classes, least));
        }
    }
}
