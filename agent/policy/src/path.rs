//! Whether a glob on the addresses of fields can match any.

use std::{iter::Peekable, str::Chars};

use crate::{PathForm, PathSpec};

/// How many alternatives of a glob with braces are looked at: of one with more, it isn't said that it matches nothing.
const MOST: usize = 1000;

impl PathSpec {
    /// Whether an address of this form could match the glob. Says yes in doubt.
    pub(crate) fn could_match(&self, glob: &str) -> bool {
        let Some(alternatives) = read(&mut glob.chars().peekable(), false) else { return true };
        alternatives.iter().any(|pieces| match self.form {
            PathForm::Names(count) => could_be_names(pieces, count.saturating_sub(1)),
            PathForm::Behind(beginnings) => beginnings.iter().any(|one| could_begin(pieces, one)),
        })
    }
}

/// What one character of a glob, or a class of them, stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Piece {
    /// Itself.
    Char(char),
    /// Any one character, or one of some.
    Any,
    /// Any text.
    Star,
}

/// A glob's alternatives, without braces; none if they are too many. Within braces, those up to the closing one.
fn read(glob: &mut Peekable<Chars<'_>>, in_braces: bool) -> Option<Vec<Vec<Piece>>> {
    let mut done = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(char) = glob.next() {
        let piece = match char {
            '{' => {
                let inner = read(glob, true)?;
                if inner.len().saturating_mul(open.len()) > MOST {
                    return None;
                }
                let with = |before: &Vec<Piece>| {
                    inner.iter().map(|more| [&before[..], more].concat()).collect::<Vec<_>>()
                };
                open = open.iter().flat_map(with).collect();
                continue;
            }
            '}' if in_braces => break,
            ',' if in_braces => {
                done.append(&mut open);
                open = vec![Vec::new()];
                continue;
            }
            '[' => {
                skip_class(glob);
                Piece::Any
            }
            '\\' => Piece::Char(glob.next()?),
            '?' => Piece::Any,
            '*' => Piece::Star,
            char => Piece::Char(char),
        };
        open.iter_mut().for_each(|pieces| pieces.push(piece));
    }
    done.append(&mut open);
    Some(done)
}

/// Goes behind a class's closing bracket, which is none where it stands first.
fn skip_class(glob: &mut Peekable<Chars<'_>>) {
    let _negation = glob.next_if(|char| matches!(char, '!' | '^'));
    let _first = glob.next();
    let _rest = glob.by_ref().find(|char| *char == ']');
}

/// Whether names with so many dots between them could match.
fn could_be_names(pieces: &[Piece], dots: usize) -> bool {
    let is_dot = |piece: &Piece| *piece == Piece::Char('.');
    let written = pieces.iter().filter(|piece| is_dot(piece)).count();
    let any = pieces.iter().filter(|piece| **piece == Piece::Any).count();
    let has_star = pieces.contains(&Piece::Star);
    let has_empty = pieces.first().is_none_or(is_dot)
        || pieces.last().is_none_or(is_dot)
        || pieces.windows(2).any(|pair| pair.iter().all(is_dot));
    !has_empty && written <= dots && (has_star || written + any >= dots)
}

/// Whether a text with this beginning, and more, could match.
fn could_begin(pieces: &[Piece], beginning: &str) -> bool {
    let mut pieces = pieces.iter();
    for wanted in beginning.chars() {
        match pieces.next() {
            Some(Piece::Star) => return true,
            Some(Piece::Any) => {}
            Some(Piece::Char(char)) if *char == wanted => {}
            Some(Piece::Char(_)) | None => return false,
        }
    }
    pieces.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: PathSpec = PathSpec { written: "schema.table.column", form: PathForm::Names(3) };
    const FIELDS: PathSpec = PathSpec { written: "body.name", form: PathForm::Behind(&["body.", "header."]) };

    #[test]
    fn a_glob_on_names_must_reach_as_many_as_there_are() {
        for glob in [
            "public.customers.card",
            "*",
            "*.card",
            "public.*",
            "*card*",
            "public.customers?card",
            "public.{customers,people}.card",
            "{card,public.customers.card}",
            "public.a?b.c",
            "Public.Customers.Card",
            "public.[a-z.]*.card",
            "a\\{b.c.d",
        ] {
            assert!(COLUMNS.could_match(glob), "{glob}");
        }
        for glob in [
            "card",
            "public.customers",
            "shop.public.customers.card",
            "public..card",
            ".customers.card",
            "public.customers.",
            "",
            "shop.*.public.customers.card",
            "{card,public.customers}",
        ] {
            assert!(!COLUMNS.could_match(glob), "{glob}");
        }
    }

    #[test]
    fn a_glob_on_what_has_a_beginning_must_reach_behind_it() {
        for glob in ["body.a.b", "header.x", "*", "b*", "{body,header}.x", "?ody.x", "*.mail"] {
            assert!(FIELDS.could_match(glob), "{glob}");
        }
        for glob in ["body", "body.", "mail", "customers.mail", "headers.x", "public.customers.card"] {
            assert!(!FIELDS.could_match(glob), "{glob}");
        }
    }

    #[test]
    fn too_many_alternatives_are_not_looked_at() {
        assert!(COLUMNS.could_match(&"{a,b}".repeat(64)));
    }
}
