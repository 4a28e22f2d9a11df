//! How much memory a text's syntax tree will take, before there is one.

use pg_query::protobuf::Token;

use super::parse::{NotUnderstood, undisturbed};

/// The most that one text's tree may take, in bytes.
pub(crate) const LARGEST: usize = 1 << 30;

/// Up to this length, in bytes, a tree is too small to matter.
pub(crate) const SHORT: usize = 4 << 10;

/// About how many bytes reading the text takes at most: by its tokens, as measured (`measure_what_a_tree_takes`). Refused
/// is what would take more than `largest`.
pub(crate) fn tree(text: &str, largest: usize) -> Result<usize, NotUnderstood> {
    if text.len() <= SHORT {
        return Ok(0);
    }
    let tokens = undisturbed(|| pg_query::scan(text)).map_err(|error| NotUnderstood::syntax(&error))?.tokens;
    let bytes = tokens.iter().map(|token| cost(token.token)).sum();
    match bytes > largest {
        true => Err(NotUnderstood::new(
            "the statement holds more names and values than the gate reads at once: send it in parts",
        )),
        false => Ok(bytes),
    }
}

/// What a token adds to the tree at most, in bytes.
fn cost(token: i32) -> usize {
    match Token::try_from(token) {
        Ok(Token::Ascii44 | Token::SqlComment | Token::CComment) => 0,
        // Brackets and dots.
        Ok(Token::Ascii40 | Token::Ascii41 | Token::Ascii46 | Token::Ascii91 | Token::Ascii93) => 1 << 10,
        Ok(
            Token::Iconst
            | Token::Fconst
            | Token::Sconst
            | Token::Usconst
            | Token::Bconst
            | Token::Xconst
            | Token::Param,
        ) => 3 << 9,
        _ => 4 << 10,
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process::Command};

    use super::*;
    use crate::sql::{Limits, parse};

    /// The texts that take most for their length, each of about so many bytes.
    fn texts(bytes: usize) -> Vec<String> {
        let list = |unit: &str, between: &str| vec![unit; bytes / (unit.len() + between.len())].join(between);
        vec![
            format!("select {}", list("1", ",")),
            format!("select {}", list("a", ",")),
            format!("select {}", list("*", ",")),
            format!("select {}", list("f()", ",")),
            format!("select {}", list("a.b", ",")),
            format!("select {}", list("1::a", ",")),
            format!("select {}", list("(select)", ",")),
            format!("select {}", list("a[1]", ",")),
            format!("select array[{}]", list("a", ",")),
            format!("select case {} end", list("when a then b", " ")),
            format!("select 1 where {}", list("a=1", " or ")),
            format!("select 1 group by {}", list("()", ",")),
            format!("insert into t values {}", list("(1,'a',2.5)", ",")),
            format!("insert into t values {}", list("(null,$1)", ",")),
            list("begin", ";"),
            list("select", ";"),
            format!("select 1 from {}", list("a", ",")),
            format!("create table t ({})", list("a b", ",")),
        ]
    }

    #[test]
    fn a_text_whose_tree_would_fill_memory_is_refused_before_there_is_one() {
        let names = format!("select {}", vec!["a"; 500_000].join(","));
        assert!(tree(&names, LARGEST).is_err());
        let rows =
            format!("insert into t values {}", vec!["(1, 'some words', 2.5, null)"; 30_000].join(", "));
        assert!(tree(&rows, LARGEST).is_ok());
        let long = format!("select '{}'", "it''s long, ".repeat(80_000));
        assert!(tree(&long, LARGEST).unwrap() < 1 << 20, "one value");
    }

    /// Each in a process of its own: what one has freed the next would take.
    #[test]
    #[ignore = "a measurement"]
    fn measure_what_a_tree_takes() {
        let texts = texts(200_000);
        let Some(which) = env::var_os("TREE").and_then(|which| which.to_str()?.parse::<usize>().ok()) else {
            for which in 0..texts.len() {
                let mut own = Command::new(env::current_exe().unwrap());
                own.args(["--ignored", "--nocapture", "measure_what_a_tree_takes"])
                    .env("TREE", which.to_string());
                assert!(own.status().unwrap().success());
            }
            return;
        };
        let text = &texts[which];
        let supposed = tree(text, LARGEST).unwrap();
        let before = resident();
        let limits = Limits { statements: usize::MAX, nesting: usize::MAX, ..Limits::default() };
        let is_read = parse(text, &limits).is_ok();
        let grown = (resident() - before) >> 10;
        println!("{grown:5} MB of {:5} MB supposed: {:.40} ({is_read})", supposed >> 20, text);
        assert!(grown <= supposed >> 20, "{text:.40}");
    }

    /// The most that this process has held since that was last reset, in kB.
    fn resident() -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
