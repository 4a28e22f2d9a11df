//! Texts that others wrote, made safe for whoever reads them.

use std::fmt::{self, Write};

/// Shows a text on one line: every control character, line breaks too, as an escape. What a client sent must not move
/// the reader's cursor.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a>(pub &'a str);

/// As [`Plain`], but with tabs as they are, and each further line indented: no text can pass for a line of ours.
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
            '\n' => f.write_str("\n    "),
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

/// Controls, and the marks that reorder text (Unicode UAX 9).
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
        assert_eq!(Block(hostile).to_string(), "a\\u{1b}[2Jb\\r\n    \\u{9b}c\\u{202e}\td");
    }
}
