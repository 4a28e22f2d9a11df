//! Texts that others wrote, made safe for whoever reads them.

use std::fmt::{self, Write};

/// Shows a text on one line: every control character, line breaks too, and everything that cannot be seen, as an escape.
/// What a client sent must not move the reader's cursor, nor look like another text.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a>(pub &'a str);

/// As [`Plain`], but with tabs as they are, and each further line marked: no text can pass for a line of ours.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a>(pub &'a str);

/// As [`Block`], but with line breaks and indentation as they are, for places that keep a text apart from ours.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| {
            if is_unsafe(character) { escape(f, character) } else { f.write_char(character) }
        })
    }
}

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\n' => f.write_str("\n    | "),
            '\t' => f.write_char(character),
            _ if is_unsafe(character) => escape(f, character),
            _ => f.write_char(character),
        })
    }
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\n' | '\t' => f.write_char(character),
            _ if is_unsafe(character) => escape(f, character),
            _ => f.write_char(character),
        })
    }
}

/// Controls, marks that reorder or join text, line separators, private use, and what is drawn as nothing (Unicode 16:
/// General_Category Cc, Cf, Zl, Zp and Co, and Default_Ignorable_Code_Point).
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || !character.is_ascii()
            && matches!(
                character,
                '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
                    | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
                    | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                    | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
                    | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
                    | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
                    | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}'
            )
}

fn escape(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    write!(f, "{}", character.escape_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_the_reader() {
        let hostile = "a\u{1b}[2Jb\r\n\u{9b}c\u{202e}\td";
        assert_eq!(Plain(hostile).to_string(), r"a\u{1b}[2Jb\r\n\u{9b}c\u{202e}\td");
        assert_eq!(Lines(hostile).to_string(), "a\\u{1b}[2Jb\\r\n\\u{9b}c\\u{202e}\td");
        assert_eq!(Block(hostile).to_string(), "a\\u{1b}[2Jb\\r\n    | \\u{9b}c\\u{202e}\td");
    }
    #[test]
    fn no_name_looks_like_another_by_what_cannot_be_seen() {
        for hidden in "\u{61c}\u{ad}\u{200b}\u{200d}\u{2028}\u{2060}\u{feff}\u{3164}\u{115f}\u{e0061}".chars()
        {
            let name = format!("cust{hidden}omers");
            let shown = format!("cust\\u{{{:x}}}omers", u32::from(hidden));
            assert_eq!(Plain(&name).to_string(), shown);
            assert_eq!((Lines(&name).to_string(), Block(&name).to_string()), (shown.clone(), shown));
        }
        let seen = "Grüße, 顧客 [Ω] «éàü» שלום 😀";
        assert_eq!(Plain(seen).to_string(), seen);
    }

    #[test]
    fn what_is_escaped_is_what_unicode_says_cannot_be_seen() {
        let unseen =
            regex::Regex::new(r"^[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Default_Ignorable_Code_Point}]$").unwrap();
        for character in '\0'..=char::MAX {
            let expected = unseen.is_match(character.encode_utf8(&mut [0; 4]));
            assert_eq!(is_unsafe(character), expected, "U+{:04X}", u32::from(character));
        }
    }
}
