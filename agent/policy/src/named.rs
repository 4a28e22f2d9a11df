//! Values by name, and what a match block asks of them.

use std::sync::Arc;

use crate::matcher::Globs;

/// A whole number up to here is exact in a double (RFC 8259, 6: what most servers read numbers into).
const EXACT: i64 = 1 << 53;

/// What a block asks of a field whose values have names: all of it must be so.
#[derive(Debug, Clone)]
pub(crate) struct Named(Vec<(String, Asked)>);

/// What is asked of the values of one name.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// There is none.
    Absent,
    /// There is one, and it is any of these.
    Any { globs: Globs, comparisons: Vec<Comparison> },
}

/// A comparison with a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Comparison {
    Least(f64),
    Above(f64),
    Most(f64),
    Below(f64),
}

impl Named {
    /// By the names as written.
    pub(crate) fn new<'a>(asked: impl IntoIterator<Item = (&'a str, Asked)>) -> Self {
        Self(asked.into_iter().map(|(name, asked)| (folded(name), asked)).collect())
    }

    /// Whether every value of every name is as it is asked to be.
    pub(crate) fn grants(&self, values: &[(Arc<str>, Arc<str>)]) -> bool {
        self.0.iter().all(|(name, asked)| {
            let mut found = of(name, values).peekable();
            match asked {
                Asked::Absent => found.peek().is_none(),
                Asked::Any { globs, comparisons } => {
                    let fits = |value: &str| {
                        let number = number(value);
                        let compares =
                            |comparison: &Comparison| number.is_some_and(|it| comparison.holds(it));
                        globs.matches(value) || comparisons.iter().any(compares)
                    };
                    found.peek().is_some() && found.all(fits)
                }
            }
        })
    }

    /// Whether any value of every name is so, or may be: a text is no number here, and some server's idea of one.
    pub(crate) fn reaches(&self, values: &[(Arc<str>, Arc<str>)]) -> bool {
        self.0.iter().all(|(name, asked)| {
            let mut found = of(name, values);
            match asked {
                Asked::Absent => found.next().is_none(),
                Asked::Any { globs, comparisons } => found.any(|value| {
                    let number = number(value);
                    let compares = |comparison: &Comparison| number.is_none_or(|it| comparison.holds(it));
                    globs.matches(value) || comparisons.iter().any(compares)
                }),
            }
        })
    }
}

impl Comparison {
    /// Reads `>= 10`, `< 3`; none for what is no comparison. The error is a number that cannot be compared exactly.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, ()>> {
        type Make = fn(f64) -> Comparison;
        let operators: [(&str, Make); 4] =
            [(">=", Self::Least), ("<=", Self::Most), (">", Self::Above), ("<", Self::Below)];
        let (operator, make) = operators.into_iter().find(|(operator, _)| text.starts_with(operator))?;
        let bound = text.strip_prefix(operator)?.trim();
        let exact = bound.parse::<i64>().ok()?.unsigned_abs() <= EXACT.unsigned_abs();
        Some(number(bound).filter(|_| exact).map(make).ok_or(()))
    }

    fn holds(self, number: f64) -> bool {
        match self {
            Self::Least(bound) => number >= bound,
            Self::Above(bound) => number > bound,
            Self::Most(bound) => number <= bound,
            Self::Below(bound) => number < bound,
        }
    }
}

fn of<'a>(name: &str, values: &'a [(Arc<str>, Arc<str>)]) -> impl Iterator<Item = &'a str> {
    let is_it = move |other: &str| match other.is_ascii() {
        true => other.eq_ignore_ascii_case(name),
        // No letter's other case is more than three times as long.
        false => other.len() <= 3 * name.len() && folded(other) == name,
    };
    values.iter().filter(move |(other, _)| is_it(other)).map(|(_, value)| &**value)
}

/// A name as it is compared. Some servers take `Role`, and even `ſ` for `s`, as well as `role`.
fn folded(name: &str) -> String {
    name.to_uppercase().to_lowercase()
}

/// A number as JSON writes it (RFC 8259, 6).
fn number(text: &str) -> Option<f64> {
    let is_part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    text.bytes().all(is_part).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(name: &str, globs: &[&str], comparisons: &[&str]) -> Named {
        let comparisons = comparisons.iter().map(|text| Comparison::parse(text).unwrap().unwrap()).collect();
        Named::new([(name, Asked::Any { globs: Globs::new(globs.iter().copied()).unwrap(), comparisons })])
    }

    fn values(values: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
        values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn an_allow_asks_for_every_value_of_a_name_and_a_deny_for_any() {
        let role = asks("role", &["user"], &[]);
        for (given, grants, reaches) in [
            (values(&[("role", "user"), ("x", "y")]), true, true),
            (values(&[("role", "user"), ("role", "admin")]), false, true),
            (values(&[("role", "user"), ("Role", "admin")]), false, true),
            (values(&[("role", "User")]), false, false),
            (values(&[("x", "user")]), false, false),
            (values(&[]), false, false),
        ] {
            assert_eq!((role.grants(&given), role.reaches(&given)), (grants, reaches), "{given:?}");
        }
    }

    #[test]
    fn a_name_in_another_case_is_the_same_name() {
        let role = asks("Masks", &["*"], &[]);
        for name in ["masks", "MASKS", "ma\u{17f}ks", "mas\u{212a}s"] {
            assert!(role.reaches(&values(&[(name, "x")])), "{name}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_granted_by_a_comparison_and_is_denied_by_it() {
        let small = asks("amount", &[], &["<= 100"]);
        for amount in ["100", "1e2", "-7", "99.99", "0"] {
            assert!(small.grants(&values(&[("amount", amount)])), "{amount}");
        }
        for amount in ["101", "100.01", "1e999", "NaN", "inf", "", "0x1", " 1", "{}", "null"] {
            assert!(!small.grants(&values(&[("amount", amount)])), "{amount}");
        }
        let large = asks("amount", &[], &["> 100"]);
        for amount in ["100.01", "1e999", "0x1000", " 101", "{}", "1_000"] {
            assert!(large.reaches(&values(&[("amount", amount)])), "{amount}");
        }
        assert!(!large.reaches(&values(&[("amount", "100")])));
    }

    #[test]
    fn a_name_can_be_asked_to_be_absent() {
        let none = Named::new([("force", Asked::Absent)]);
        assert!(none.grants(&values(&[("x", "1")])) && none.reaches(&[]));
        assert!(!none.grants(&values(&[("Force", "true")])) && !none.reaches(&values(&[("force", "true")])));
    }

    #[test]
    fn a_comparison_is_exact_or_none() {
        assert_eq!(Comparison::parse("word"), None);
        assert_eq!(Comparison::parse("> word"), None);
        assert_eq!(Comparison::parse("<=10"), Some(Ok(Comparison::Most(10.0))));
        assert_eq!(Comparison::parse("< 9007199254740993"), Some(Err(())));
    }
}
