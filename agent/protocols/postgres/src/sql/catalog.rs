//! What the gate knows of a database's relations and functions.
//!
//! An unqualified name stands for every relation or function of that name in any schema, so nothing depends on
//! `search_path`. Facts are asked for by name, in two queries over the gate's own connection, and kept until
//! [`Catalog::clear`], names that don't exist included.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde::Deserialize;
use thiserror::Error;
use tidegate_policy::Path;

use super::suppose;

/// To be run once on the gate's own connection: with it, view definitions name every relation's schema.
pub(crate) const SETUP: &str = "SELECT pg_catalog.set_config('search_path', '', false)";

/// One row and one column (JSON as text) per relation; `$1` is a `text[]` of names.
pub(crate) const RELATIONS: &str = "\
WITH RECURSIVE found AS (
  SELECT c.oid, c.relname, c.relkind, n.nspname FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relname = ANY ($1::pg_catalog.text[]) AND c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S', 't')
    AND n.nspname NOT LIKE 'pg\\_temp\\_%'
), above AS (
  SELECT f.oid AS start, i.inhparent AS oid FROM found f JOIN pg_catalog.pg_inherits i ON i.inhrelid = f.oid
  UNION SELECT a.start, i.inhparent FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.oid
), below AS (
  SELECT f.oid AS start, i.inhrelid AS oid FROM found f JOIN pg_catalog.pg_inherits i ON i.inhparent = f.oid
  UNION SELECT b.start, i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid
)
SELECT pg_catalog.json_build_object(
  'schema', f.nspname, 'name', f.relname, 'oid', f.oid::pg_catalog.int8,
  'definition', CASE WHEN f.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(f.oid) END,
  'columns', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname,
      'type', a.atttypid::pg_catalog.int8, 'generated', a.attgenerated <> '', 'made_from',
      (SELECT pg_catalog.json_agg(DISTINCT s.attname) FROM pg_catalog.pg_attrdef d
       JOIN pg_catalog.pg_depend p ON p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid
         OR p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.objid = d.adrelid AND p.objsubid = d.adnum
       JOIN pg_catalog.pg_attribute s ON s.attrelid = p.refobjid AND s.attnum = p.refobjsubid
       WHERE a.attgenerated <> '' AND d.adrelid = a.attrelid AND d.adnum = a.attnum
         AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.refobjid = a.attrelid
         AND s.attnum <> a.attnum)) ORDER BY a.attnum)
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = f.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'relatives', (SELECT pg_catalog.json_agg(DISTINCT n.nspname || '.' || c.relname)
    FROM (SELECT oid FROM above WHERE start = f.oid UNION SELECT oid FROM below WHERE start = f.oid) r
    JOIN pg_catalog.pg_class c ON c.oid = r.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace)
)::pg_catalog.text FROM found f ORDER BY f.nspname";

/// One row and one column (JSON as text) per function, and per operator of another schema than `pg_catalog` that no
/// extension brought; `$1` is a `text[]` of names.
pub(crate) const FUNCTIONS: &str = "\
SELECT pg_catalog.json_build_object(
  'schema', n.nspname, 'name', p.proname, 'kind', p.prokind, 'volatility', p.provolatile,
  'returns_set', p.proretset,
  'outputs', CASE
    WHEN p.proargmodes IS NOT NULL AND p.proargmodes && '{o,b,t}'::pg_catalog.\"char\"[] THEN
      (SELECT pg_catalog.json_agg(COALESCE(p.proargnames[i], '') ORDER BY i)
       FROM pg_catalog.generate_subscripts(p.proargmodes, 1) i WHERE p.proargmodes[i] IN ('o', 'b', 't'))
    WHEN t.typtype = 'c' THEN
      (SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
       WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
  END,
  'scalar', t.typtype <> 'p' AND t.typtype <> 'c' AND (p.proargmodes IS NULL
    OR NOT p.proargmodes && '{o,b,t}'::pg_catalog.\"char\"[])
)::pg_catalog.text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_type t ON t.oid = p.prorettype
WHERE p.proname = ANY ($1::pg_catalog.text[])
UNION ALL
SELECT pg_catalog.json_build_object(
  'schema', n.nspname, 'name', o.oprname, 'kind', 'o', 'volatility', p.provolatile,
  'returns_set', p.proretset, 'outputs', NULL, 'scalar', true
)::pg_catalog.text
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE o.oprname = ANY ($1::pg_catalog.text[]) AND n.nspname <> 'pg_catalog' AND NOT EXISTS (
  SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = o.oid AND d.deptype = 'e'
    AND d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass)
ORDER BY 1";

/// Names as a `text[]` in PostgreSQL's text format, for `$1`.
pub(crate) fn names_parameter<'a>(names: impl IntoIterator<Item = &'a Arc<str>>) -> String {
    let quoted = |name: &Arc<str>| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", names.into_iter().map(quoted).collect::<Vec<_>>().join(","))
}

/// How many names are remembered before all are forgotten: names that nothing bears cost their inventor nothing.
const MOST: usize = 20_000;

/// Names that must be looked up before a statement can be understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CatalogRequest {
    /// For [`RELATIONS`].
    pub(crate) relations: BTreeSet<Arc<str>>,
    /// For [`FUNCTIONS`].
    pub(crate) functions: BTreeSet<Arc<str>>,
}

impl CatalogRequest {
    pub(super) fn len(&self) -> usize {
        self.relations.len() + self.functions.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.relations.is_empty() && self.functions.is_empty()
    }
}

/// A table, view, sequence or the like.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Relation {
    /// Its schema.
    pub(crate) schema: Arc<str>,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// `pg_class.oid`.
    pub(crate) oid: u32,
    /// The query of a view or materialized view.
    #[serde(default)]
    pub(crate) definition: Option<String>,
    /// Its columns in order.
    #[serde(default, deserialize_with = "absent_is_empty")]
    pub(crate) columns: Vec<Attribute>,
    /// The tables above and below it in its inheritance or partition tree, as `schema.name`.
    #[serde(default, deserialize_with = "absent_is_empty")]
    pub(crate) relatives: Vec<String>,
}

/// A column of a relation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attribute {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its type's oid.
    #[serde(rename = "type")]
    pub(crate) type_oid: u32,
    /// It is computed from other columns of its row.
    pub(crate) generated: bool,
    /// From these.
    #[serde(deserialize_with = "absent_is_empty")]
    pub(crate) made_from: Vec<Arc<str>>,
}

/// A function, aggregate, procedure or operator.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Function {
    /// Its schema.
    pub(crate) schema: Arc<str>,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// `pg_proc.prokind`, or `o` for an operator.
    pub(crate) kind: char,
    /// `pg_proc.provolatile`.
    pub(crate) volatility: char,
    /// It returns any number of rows.
    pub(crate) returns_set: bool,
    /// The names of its result's columns, where they are declared.
    #[serde(default)]
    pub(crate) outputs: Option<Vec<Arc<str>>>,
    /// It returns one column.
    pub(crate) scalar: bool,
}

impl Relation {
    pub(super) fn path(&self) -> Path {
        format!("{}.{}", self.schema, self.name).into()
    }
}

impl Function {
    /// A built-in one without side effects.
    pub(super) fn supposed(name: Arc<str>) -> Self {
        Self {
            schema: "pg_catalog".into(),
            name,
            kind: 'f',
            volatility: 'i',
            returns_set: false,
            outputs: None,
            scalar: true,
        }
    }
}

/// The server's answer to a catalog query wasn't of the form asked for.
#[derive(Debug, Error)]
#[error("the server's answer about its catalog could not be read: {0}")]
pub(crate) struct CatalogError(String);

/// Everything looked up so far in one database.
#[derive(Debug, Default)]
pub(crate) struct Catalog(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    generation: u64,
    relations: HashMap<Arc<str>, Arc<[Relation]>>,
    functions: HashMap<Arc<str>, Arc<[Function]>>,
}

impl Catalog {
    /// Forgets everything: something was created, altered or dropped.
    pub(crate) fn clear(&self) {
        let mut known = self.write();
        *known = Known { generation: known.generation + 1, ..Known::default() };
    }

    /// Changes with every [`clear`](Self::clear).
    pub(crate) fn generation(&self) -> u64 {
        self.read().generation
    }

    /// Takes in the rows that [`RELATIONS`] and [`FUNCTIONS`] gave for a request that was made at `generation`; what
    /// was read before a later `clear` is dropped. Names without rows are remembered as unknown to the server.
    pub(crate) fn learn<'a>(
        &self,
        generation: u64,
        request: &CatalogRequest,
        relations: impl IntoIterator<Item = &'a str>,
        functions: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), CatalogError> {
        let relations = by_name(&request.relations, relations, |relation: &Relation| relation.name.clone())?;
        let functions = by_name(&request.functions, functions, |function: &Function| function.name.clone())?;
        let mut known = self.write();
        if known.relations.len() + known.functions.len() > MOST {
            *known = Known { generation: known.generation + 1, ..Known::default() };
        }
        if known.generation == generation {
            known.relations.extend(relations);
            known.functions.extend(functions);
        }
        Ok(())
    }

    /// Takes in what is only supposed, at no server's word.
    pub(super) fn suppose(&self, text: &str, request: &CatalogRequest) {
        let mut known = self.write();
        known.relations.extend(suppose::relations(text, request));
        known.functions.extend(suppose::functions(request));
    }

    pub(super) fn relations(&self, name: &str) -> Option<Arc<[Relation]>> {
        self.read().relations.get(name).cloned()
    }

    pub(super) fn functions(&self, name: &str) -> Option<Arc<[Function]>> {
        self.read().functions.get(name).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn by_name<'a, T: for<'de> Deserialize<'de>>(
    asked: &BTreeSet<Arc<str>>,
    rows: impl IntoIterator<Item = &'a str>,
    name: impl Fn(&T) -> Arc<str>,
) -> Result<HashMap<Arc<str>, Arc<[T]>>, CatalogError> {
    let mut found: HashMap<Arc<str>, Vec<T>> = asked.iter().map(|name| (name.clone(), Vec::new())).collect();
    for row in rows {
        let entry: T = serde_json::from_str(row).map_err(|error| CatalogError(error.to_string()))?;
        found.entry(name(&entry)).or_default().push(entry);
    }
    Ok(found.into_iter().map(|(name, entries)| (name, entries.into())).collect())
}

fn absent_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(names: &[&str]) -> CatalogRequest {
        CatalogRequest {
            relations: names.iter().map(|&name| name.into()).collect(),
            ..CatalogRequest::default()
        }
    }

    const ROW: &str = r#"{"schema":"public","name":"t","oid":7,"definition":null,"columns":
        [{"name":"a","type":23,"generated":false,"made_from":null}],"relatives":null}"#;

    #[test]
    fn names_without_rows_are_remembered() {
        let catalog = Catalog::default();
        catalog.learn(0, &request(&["t", "u"]), [ROW], []).unwrap();
        assert_eq!(catalog.relations("t").unwrap().len(), 1);
        assert_eq!(catalog.relations("u").unwrap().len(), 0);
        assert!(catalog.relations("v").is_none());
    }

    #[test]
    fn what_was_read_before_a_change_is_dropped() {
        let catalog = Catalog::default();
        let generation = catalog.generation();
        catalog.clear();
        catalog.learn(generation, &request(&["t"]), [ROW], []).unwrap();
        assert!(catalog.relations("t").is_none());
    }

    #[test]
    fn a_row_of_another_form_is_an_error() {
        assert!(Catalog::default().learn(0, &request(&["t"]), ["{}"], []).is_err());
    }

    #[test]
    fn names_are_quoted_as_array_elements() {
        assert_eq!(
            names_parameter(request(&["a\"b", "c\\d", "e,f"]).relations.iter()),
            r#"{"a\"b","c\\d","e,f"}"#
        );
    }
}
