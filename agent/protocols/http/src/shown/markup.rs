//! Character references: what a page says by them is found like what it says in letters. Pure.

use std::borrow::Cow;

use tidegate_gate::{Masker, policy::ContentMask};

/// What defines references.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Markup {
    /// HTML's own (WHATWG HTML, 13.2.5.72), as Markdown has them.
    Html,
    /// A document's own may come on top (XML 1.0, 4.1).
    Xml,
}

/// References by name that stand for ASCII or for a space.
const NAMES: [(&str, &str); 77] = [
    ("AMP", "&"),
    ("ApplyFunction", "\u{2061}"),
    ("DiacriticalGrave", "`"),
    ("GT", ">"),
    ("Hat", "^"),
    ("InvisibleComma", "\u{2063}"),
    ("InvisibleTimes", "\u{2062}"),
    ("LT", "<"),
    ("MediumSpace", "\u{205f}"),
    ("NegativeMediumSpace", "\u{200b}"),
    ("NegativeThickSpace", "\u{200b}"),
    ("NegativeThinSpace", "\u{200b}"),
    ("NegativeVeryThinSpace", "\u{200b}"),
    ("NewLine", "\n"),
    ("NoBreak", "\u{2060}"),
    ("NonBreakingSpace", "\u{a0}"),
    ("QUOT", "\""),
    ("Tab", "\t"),
    ("ThickSpace", "\u{205f}\u{200a}"),
    ("ThinSpace", "\u{2009}"),
    ("UnderBar", "_"),
    ("VerticalLine", "|"),
    ("VeryThinSpace", "\u{200a}"),
    ("ZeroWidthSpace", "\u{200b}"),
    ("amp", "&"),
    ("apos", "'"),
    ("ast", "*"),
    ("bsol", "\\"),
    ("colon", ":"),
    ("comma", ","),
    ("commat", "@"),
    ("dash", "\u{2010}"),
    ("dollar", "$"),
    ("emsp", "\u{2003}"),
    ("emsp13", "\u{2004}"),
    ("emsp14", "\u{2005}"),
    ("ensp", "\u{2002}"),
    ("equals", "="),
    ("excl", "!"),
    ("fjlig", "fj"),
    ("grave", "`"),
    ("gt", ">"),
    ("hairsp", "\u{200a}"),
    ("hyphen", "\u{2010}"),
    ("lbrace", "{"),
    ("lbrack", "["),
    ("lcub", "{"),
    ("lowbar", "_"),
    ("lpar", "("),
    ("lsqb", "["),
    ("lt", "<"),
    ("mdash", "\u{2014}"),
    ("midast", "*"),
    ("minus", "\u{2212}"),
    ("nbsp", "\u{a0}"),
    ("ndash", "\u{2013}"),
    ("num", "#"),
    ("numsp", "\u{2007}"),
    ("percnt", "%"),
    ("period", "."),
    ("plus", "+"),
    ("puncsp", "\u{2008}"),
    ("quest", "?"),
    ("quot", "\""),
    ("rbrace", "}"),
    ("rbrack", "]"),
    ("rcub", "}"),
    ("rpar", ")"),
    ("rsqb", "]"),
    ("semi", ";"),
    ("shy", "\u{ad}"),
    ("sol", "/"),
    ("thinsp", "\u{2009}"),
    ("verbar", "|"),
    ("vert", "|"),
    ("zwj", "\u{200d}"),
    ("zwnj", "\u{200c}"),
];
/// What HTML takes the numbers from 128 to 159 for, by that less 128 (WHATWG HTML, 13.2.5.80): Windows-1252. The others are what
/// they are.
const WINDOWS: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2c6}',
    '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}', '\u{2018}',
    '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}',
    '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
];
/// Those that HTML takes without their semicolon.
const WITHOUT_SEMICOLON: [&str; 10] = ["AMP", "GT", "LT", "QUOT", "amp", "gt", "lt", "nbsp", "quot", "shy"];

/// A text with its references read.
struct Read {
    text: Vec<u8>,
    references: Vec<Reference>,
}

/// A reference, where it was written and where what it stands for is.
struct Reference {
    written: (usize, usize),
    read: (usize, usize),
}

impl Markup {
    /// The text with every find shown as its mask says, however it is written.
    ///
    /// # Errors
    /// It has references of its own.
    pub(super) fn scan<'t>(
        self,
        masker: &Masker,
        mask: &ContentMask,
        text: &'t [u8],
    ) -> Result<Cow<'t, [u8]>, String> {
        if self == Self::Xml && memchr::memmem::find(text, b"!ENTITY").is_some() {
            return Err("it declares entities of its own, in which no value is known".into());
        }
        let plain = masker.scan(mask, text);
        let read = Read::of(self, &plain);
        let finds = match read.references.is_empty() {
            true => return Ok(plain),
            false => masker.finds(mask, &read.text),
        };
        let (mut shown, mut from) = (Vec::new(), 0);
        for find in finds {
            // What has no reference in it was found as it stands.
            let Some((begins, ends)) = read.written(find.span.start, find.span.end) else { continue };
            shown.extend_from_slice(plain.get(from..begins).unwrap_or_default());
            let value = read.text.get(find.span).unwrap_or_default();
            escape(&masker.show(find.show, value).unwrap_or_else(|| b"***".to_vec()), &mut shown);
            from = ends;
        }
        if from == 0 {
            return Ok(plain);
        }
        shown.extend_from_slice(plain.get(from..).unwrap_or_default());
        Ok(Cow::Owned(shown))
    }
}

impl Read {
    fn of(markup: Markup, written: &[u8]) -> Self {
        let (mut text, mut references, mut from) = (Vec::new(), Vec::new(), 0);
        for at in memchr::memchr_iter(b'&', written) {
            let rest = written.get(at + 1..).unwrap_or_default();
            let Some((stands_for, length)) = number(markup, rest).or_else(|| name(rest)) else { continue };
            text.extend_from_slice(written.get(from..at).unwrap_or_default());
            let begins = text.len();
            text.extend_from_slice(stands_for.as_bytes());
            from = at + 1 + length;
            references.push(Reference { written: (at, from), read: (begins, text.len()) });
        }
        if !references.is_empty() {
            text.extend_from_slice(written.get(from..).unwrap_or_default());
        }
        Self { text, references }
    }

    /// Where something is written that is read from here to there; none if no reference is in it.
    fn written(&self, begins: usize, ends: usize) -> Option<(usize, usize)> {
        let from = self.references.partition_point(|reference| reference.read.1 <= begins);
        let to = self.references.partition_point(|reference| reference.read.0 < ends);
        let (first, last) = (self.references.get(from)?, self.references.get(to.checked_sub(1)?)?);
        if from >= to {
            return None;
        }
        let before = first.read.0.saturating_sub(begins);
        let behind = ends.saturating_sub(last.read.1);
        Some((first.written.0 - before, last.written.1 + behind))
    }
}

/// A reference by number, behind its `&`: what it stands for and how long it is.
fn number(markup: Markup, rest: &[u8]) -> Option<(Cow<'static, str>, usize)> {
    let (radix, digits) = match rest {
        [b'#', b'x' | b'X', digits @ ..] => (16, digits),
        [b'#', digits @ ..] => (10, digits),
        _ => return None,
    };
    let mut code = 0_u32;
    let count = digits.iter().take_while(|byte| char::from(**byte).is_digit(radix)).count();
    for digit in digits.get(..count)? {
        code = code.saturating_mul(radix).saturating_add(char::from(*digit).to_digit(radix)?);
    }
    let windows = || WINDOWS.get(usize::try_from(code).ok()?.checked_sub(128)?).copied();
    let by_page = if markup == Markup::Html { windows() } else { None };
    let stands_for = by_page.or_else(|| char::from_u32(code)).filter(|_| count > 0)?;
    let end = usize::from(digits.get(count) == Some(&b';'));
    Some((stands_for.to_string().into(), rest.len() - digits.len() + count + end))
}

/// Likewise by name.
fn name(rest: &[u8]) -> Option<(Cow<'static, str>, usize)> {
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let word = std::str::from_utf8(rest.get(..length)?).ok()?;
    if rest.get(length) == Some(&b';') {
        let at = NAMES.binary_search_by_key(&word, |(name, _)| name).ok()?;
        return Some((NAMES.get(at)?.1.into(), length + 1));
    }
    let name = WITHOUT_SEMICOLON.into_iter().find(|name| word.starts_with(name))?;
    let at = NAMES.binary_search_by_key(&name, |(name, _)| name).ok()?;
    Some((NAMES.get(at)?.1.into(), name.len()))
}

/// Writes text so that it is read as it is.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            b'\'' => out.extend_from_slice(b"&#39;"),
            byte => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let read = Read::of(Markup::Html, text.as_bytes());
        if read.references.is_empty() { text.into() } else { String::from_utf8(read.text).unwrap() }
    }

    #[test]
    fn names_are_in_the_order_in_which_they_are_looked_for() {
        assert!(NAMES.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn references_are_read_as_browsers_read_them() {
        for (written, wanted) in [
            ("a&#52;b", "a4b"),
            ("&#0000000000000052;&#x34;&#X034;&#52", "4444"),
            ("&#521", "\u{209}"),
            ("ada&commat;example&period;com", "ada@example.com"),
            ("&amp;#52;", "&#52;"),
            ("&lt&ltb&nbsp4", "<<b\u{a0}4"),
            ("4&#150;1&#x96;1", "4\u{2013}1\u{2013}1"),
            ("&#128;&#129;&#159;&#160;", "\u{20ac}\u{81}\u{178}\u{a0}"),
            ("&emsp13;&ZeroWidthSpace;&NoBreak;", "\u{2004}\u{200b}\u{2060}"),
            ("&", "&"),
            (
                "&#;&#x;&#xg &nothing; &commat &#99999999999; &#xd800;",
                "&#;&#x;&#xg &nothing; &commat &#99999999999; &#xd800;",
            ),
        ] {
            assert_eq!(read(written), wanted, "{written}");
        }
    }

    #[test]
    fn a_document_of_xml_has_numbers_as_they_are() {
        let read = Read::of(Markup::Xml, b"4&#150;1");
        assert_eq!(String::from_utf8(read.text).unwrap(), "4\u{96}1");
    }

    #[test]
    fn where_something_is_written_is_known_by_where_it_is_read() {
        let written = "ab&#52;c&lt;d";
        let read = Read::of(Markup::Html, written.as_bytes());
        assert_eq!(read.text, b"ab4c<d");
        let at = |begins, ends| read.written(begins, ends).map(|(from, to)| &written[from..to]);
        assert_eq!((at(2, 3), at(1, 4)), (Some("&#52;"), Some("b&#52;c")));
        assert_eq!((at(0, 6), at(4, 6)), (Some(written), Some("&lt;d")));
        assert_eq!((at(0, 2), at(3, 4), at(5, 6)), (None, None, None));
    }
}
