//! Whether all was followed that a statement runs.
//!
//! A syntax tree has many corners, and a later grammar more of them: the subscript of a column in INSERT's list, the bound of a
//! partition, the mark of a CYCLE clause. An expression in one that nobody looked at would run unseen. So calls, sub-queries
//! and casts are counted in the whole tree, by its own word on itself, as they are noted when they are followed.

use std::{
    collections::HashSet,
    fmt::{self, Debug, Write},
};

/// What runs something, by the names of its nodes.
const RUNNING: [&str; 3] = ["FuncCall", "SubLink", "TypeCast"];

/// Nodes of one tree that were followed, by their addresses.
#[derive(Debug, Default)]
pub(super) struct Followed(HashSet<usize>);

impl Followed {
    pub(super) fn note<T>(&mut self, node: &T) {
        self.0.insert(std::ptr::from_ref(node).addr());
    }

    /// Whether a tree holds more than were noted.
    pub(super) fn lacks_some_of(&self, tree: &impl Debug) -> bool {
        let mut count = Count::default();
        write!(count, "{tree:?}").is_err() || count.found != self.0.len()
    }
}

/// Counts nodes in what a tree writes of itself, outside of quotes.
#[derive(Default)]
struct Count {
    found: usize,
    quoted: bool,
    escaped: bool,
    /// The word that is being written, as far as one of those that count may be as long.
    word: String,
    /// The last word was one that counts, and what follows tells whether a node begins.
    named: bool,
}

impl Count {
    fn take(&mut self, char: char) {
        if self.quoted {
            self.quoted = self.escaped || char != '"';
            self.escaped = !self.escaped && char == '\\';
        } else if char.is_alphanumeric() || char == '_' {
            if self.word.len() <= RUNNING[0].len() {
                self.word.push(char);
            }
        } else {
            self.named |= RUNNING.contains(&self.word.as_str());
            self.word.clear();
            match char {
                ' ' => return,
                '{' => self.found += usize::from(self.named),
                '"' => self.quoted = true,
                _ => {}
            }
            self.named = false;
        }
    }
}

impl Write for Count {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().for_each(|char| self.take(char));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pg_query::NodeEnum;

    use super::*;
    use crate::sql::{Limits, parse};

    fn count(text: &str) -> usize {
        let parsed = parse(text, &Limits::default()).unwrap();
        let mut count = Count::default();
        write!(count, "{:?}", parsed.statements[0]).unwrap();
        count.found
    }

    #[test]
    fn calls_sub_queries_and_casts_are_counted_wherever_they_stand() {
        for (text, wanted) in [
            ("select 1", 0),
            ("select f(g(1), 2)", 2),
            ("select (select 1)::int", 2),
            ("insert into t (a[(select f(1))]) values (1)", 2),
            (
                "with recursive r (a) as (select 1) cycle a set c to text 'a' default text 'b' using p table r",
                2,
            ),
            ("create table t partition of p for values in (f(1)::text)", 2),
            ("call f(1)", 1),
        ] {
            assert_eq!(count(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_quoted_is_no_node() {
        for text in [
            "select 'FuncCall { }'",
            r#"select 'a"FuncCall {', '\', "FuncCall { " from "TypeCast {""#,
            "select 1 as \"SubLink\", 'SubLink' as funccall",
        ] {
            assert_eq!(count(text), 0, "{text}");
        }
    }

    #[test]
    fn a_tree_lacks_what_was_not_noted() {
        let parsed = parse("select f(1)", &Limits::default()).unwrap();
        let tree = &parsed.statements[0];
        assert!(Followed::default().lacks_some_of(tree));
        let mut followed = Followed::default();
        let select = match tree.stmt.as_ref().unwrap().node.as_ref().unwrap() {
            NodeEnum::SelectStmt(select) => select,
            other => panic!("{other:?}"),
        };
        followed.note(&select.target_list[0]);
        assert!(!followed.lacks_some_of(tree), "as many");
    }
}
