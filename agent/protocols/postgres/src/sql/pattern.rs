//! Whether a pattern certainly asks for something: that it doesn't match every text.

use pg_query::{NodeEnum, protobuf::Node};

use super::{
    expression::{inner, literal_text},
    tracer::strings,
};

/// How a pattern is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// 9.7.1 of the manual.
    Like,
    /// 9.7.2.
    Similar,
    /// 9.7.3.
    Regex,
    /// What an array, a range or a JSON value must contain.
    Contained,
}

/// Whether a pattern is a literal that asks for some character, or several of which each does.
pub(super) fn asks(syntax: Syntax, pattern: &Node) -> bool {
    match inner(pattern) {
        Some(NodeEnum::AConst(_)) => literal_text(pattern).is_some_and(|text| text_asks(syntax, &text)),
        Some(NodeEnum::AArrayExpr(list)) => {
            !list.elements.is_empty() && list.elements.iter().all(|one| asks(syntax, one))
        }
        // A literal that is cast to something shorter may lose what it asks for.
        Some(NodeEnum::TypeCast(cast)) => {
            let is_whole = cast.type_name.as_ref().is_some_and(|to| {
                let is_text = matches!(*strings(&to.names).as_slice(), ["text"] | ["pg_catalog", "text"]);
                to.typmods.is_empty() && (is_text || syntax == Syntax::Contained)
            });
            is_whole && cast.arg.as_deref().is_some_and(|arg| asks(syntax, arg))
        }
        Some(NodeEnum::FuncCall(call)) => match (strings(&call.funcname).last(), syntax, &*call.args) {
            (Some(&"like_escape"), Syntax::Like, [pattern, _]) => asks(syntax, pattern),
            // With another escape character, any character may be one.
            (Some(&"similar_to_escape"), Syntax::Similar, [pattern]) => asks(syntax, pattern),
            _ => false,
        },
        _ => false,
    }
}

fn text_asks(syntax: Syntax, text: &str) -> bool {
    let is_plain = |c: char| !matches!(c, '%' | '_');
    match syntax {
        // What follows an escape character is asked for.
        Syntax::Like => text.chars().any(is_plain),
        Syntax::Similar => {
            let is_read =
                |c: char| matches!(c, '|' | '*' | '+' | '?' | '{' | '}' | '(' | ')' | '[' | ']' | '\\' | '"');
            text.chars().any(is_plain) && !text.chars().any(is_read)
        }
        Syntax::Regex => regex_asks(text),
        Syntax::Contained => text.chars().any(char::is_alphanumeric) && !text.contains("empty"),
    }
}

/// Whether a regular expression without alternatives and groups has a character outside of brackets that it doesn't
/// leave out (`*`, `?`, `{`). What isn't as simple as that may match everything.
fn regex_asks(text: &str) -> bool {
    if text.starts_with("***") {
        return false;
    }
    let mut rest = text.chars().peekable();
    let mut has_asked = false;
    while let Some(c) = rest.next() {
        let is_asked = match c {
            '|' | '(' | ')' | '{' | '}' => return false,
            '[' => {
                // A bracket that comes first is one of the set.
                rest.next_if_eq(&'^');
                let first = rest.next();
                let others: String = rest.by_ref().take_while(|c| *c != ']').collect();
                if first.into_iter().chain(others.chars()).any(|c| matches!(c, '[' | '\\')) {
                    return false;
                }
                false
            }
            '\\' => match rest.next() {
                Some(escaped) if !escaped.is_alphanumeric() => true,
                _ => return false,
            },
            '.' | '^' | '$' | '*' | '+' | '?' => false,
            _ => true,
        };
        has_asked |= is_asked && !matches!(rest.peek(), Some('*' | '?' | '{'));
    }
    has_asked
}
