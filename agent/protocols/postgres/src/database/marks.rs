//! What an answer is bound to of what others have defined in the database.

use std::{
    collections::BTreeSet,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tidegate_gate::{
    Gate, Parts,
    policy::{Shape, Value},
};
use tokio::time::timeout;

use super::{Database, Misunderstood};
use crate::sql;

/// How long it may take to read them, the turns of others before it included.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a statement runs by, as far as others may define it anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RunsBy {
    relations: BTreeSet<Arc<str>>,
    /// Functions and operators.
    functions: BTreeSet<Arc<str>>,
    /// Nothing tells what it runs: a text that is made as it goes, a library, a function by its number.
    anything: bool,
    /// It changes definitions, for which functions may be waiting.
    defines: bool,
}

/// How definitions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Another one once any of them has changed.
    pub(crate) digest: [u8; 32],
    /// Somebody's open transaction changes one.
    pub(crate) are_changing: bool,
}

/// What the catalog says then.
const CHANGING: &str = "changing";

/// What the catalog said last, and when it was asked.
#[derive(Debug, Clone)]
pub(super) struct Marked {
    by: RunsBy,
    begun: Instant,
    digest: [u8; 32],
}

impl RunsBy {
    /// What rules see of the statement names all of it: relations that it touches, in views too, and functions.
    pub(crate) fn of(shape: &Shape, defines: bool) -> Self {
        let mut by = Self { defines, ..Self::default() };
        by.relations.extend(shape.touched.iter().map(|table| Arc::from(&**table)));
        for (field, value) in shape.items.iter().flat_map(|item| &item.fields) {
            match (*field, value) {
                // Whatever CASCADE reaches.
                ("table", Value::Text(name)) if &**name == "?.?" => by.anything = true,
                ("table", Value::Text(name)) => drop(by.relations.insert(Arc::from(&**name))),
                ("function", Value::Text(name)) => drop(by.functions.insert(Arc::from(&**name))),
                ("statement", Value::Word("do" | "load" | "execute-text" | "function-call")) => {
                    by.anything = true;
                }
                _ => {}
            }
        }
        by
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// As the catalog is asked.
    fn parameters(&self) -> [String; 3] {
        let words = [self.anything.then_some("anything"), self.defines.then_some("defines")];
        let words: Vec<Arc<str>> = words.into_iter().flatten().map(Arc::from).collect();
        [
            sql::names_parameter(&self.relations),
            sql::names_parameter(&self.functions),
            sql::names_parameter(&words),
        ]
    }
}

impl Database {
    /// Another digest once any view, rule, trigger, function, policy, default or constraint has changed that it runs by; none
    /// where it runs by nothing that anybody could change.
    pub(crate) async fn marks(&self, by: &RunsBy, gate: &Gate) -> Result<Option<Marks>, Misunderstood> {
        if by.is_nothing() {
            return Ok(None);
        }
        let arrived = Instant::now();
        let read = async {
            let _turn = self.turns.of(gate.principal().process.sharer()).await;
            let mut line = self.line.lock().await;
            // Others have asked the same meanwhile: hundreds may wait at once.
            let last = self.marked().clone().filter(|last| last.begun >= arrived && last.by == *by);
            if let Some(last) = last {
                return Ok(Marks { digest: last.digest, are_changing: false });
            }
            let begun = Instant::now();
            let mut rows =
                self.answer(&mut line, sql::MARKS, &by.parameters().each_ref().map(|p| &**p), gate).await?;
            let before = rows.len();
            rows.retain(|row| row != CHANGING);
            if rows.len() < before {
                return Ok(Marks { digest: digest(rows), are_changing: true });
            }
            let digest = digest(rows);
            *self.marked() = Some(Marked { by: by.clone(), begun, digest });
            Ok(Marks { digest, are_changing: false })
        };
        let read = timeout(PATIENCE, read).await.unwrap_or_else(|_| {
            Err(Misunderstood::Catalog(format!("nobody has told within {PATIENCE:?} what is defined in it")))
        });
        read.map(Some)
    }

    fn marked(&self) -> MutexGuard<'_, Option<Marked>> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of rows in any order, some of them more than once.
fn digest(mut rows: Vec<String>) -> [u8; 32] {
    rows.sort_unstable();
    rows.dedup();
    let mut parts = Parts::new("marks");
    parts.list(rows.iter());
    parts.finish()
}

#[cfg(test)]
mod tests {
    use tidegate_gate::policy::Item;

    use super::*;

    fn item(fields: Vec<(&'static str, Value)>) -> Item {
        Item { fields, ..Item::default() }
    }

    #[test]
    fn what_names_nothing_runs_by_nothing_and_what_hides_its_text_by_anything() {
        let of = |items| RunsBy::of(&Shape { items, ..Shape::default() }, false);
        assert!(of(vec![item(vec![("statement", Value::Word("notify"))])]).is_nothing());
        assert!(of(vec![item(vec![("statement", Value::Word("do"))])]).anything);
        let named = of(vec![
            item(vec![("statement", Value::Word("delete")), ("table", Value::Text("a.b".into()))]),
            item(vec![("statement", Value::Word("delete")), ("function", Value::Text("a.f".into()))]),
        ]);
        assert_eq!(named.relations, BTreeSet::from(["a.b".into()]));
        assert_eq!(named.functions, BTreeSet::from(["a.f".into()]));
        assert!(!named.anything);
    }
}
