//! What the gate knows of a database's relations, functions and types.
//!
//! An unqualified name stands for every relation or function of that name in any schema, so nothing depends on
//! `search_path`. Facts are asked for by name, in three queries over the gate's own connection, and kept until
//! [`Catalog::clear`], names that don't exist included.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde::Deserialize;
use thiserror::Error;
use tidegate_policy::Path;

use super::suppose;

/// How many names are remembered before all are forgotten: names that nothing bears cost their inventor nothing.
const MOST: usize = 20_000;

/// Names that must be looked up before a statement can be understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CatalogRequest {
    /// For [`RELATIONS`](super::RELATIONS).
    pub(crate) relations: BTreeSet<Arc<str>>,
    /// For [`FUNCTIONS`](super::FUNCTIONS).
    pub(crate) functions: BTreeSet<Arc<str>>,
    /// For [`TYPES`](super::TYPES).
    pub(crate) types: BTreeSet<Arc<str>>,
}

/// The rows that the catalog's queries gave for a request.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Of [`RELATIONS`](super::RELATIONS).
    pub(crate) relations: Vec<String>,
    /// Of [`FUNCTIONS`](super::FUNCTIONS).
    pub(crate) functions: Vec<String>,
    /// Of [`TYPES`](super::TYPES).
    pub(crate) types: Vec<String>,
}

impl CatalogRequest {
    pub(super) fn len(&self) -> usize {
        self.relations.len() + self.functions.len() + self.types.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Also asks for what `other` does.
    pub(super) fn append(&mut self, mut other: Self) {
        self.relations.append(&mut other.relations);
        self.functions.append(&mut other.functions);
        self.types.append(&mut other.types);
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
    /// It is a materialized view: reading it doesn't run its query.
    #[serde(default)]
    pub(crate) materialized: bool,
    /// How many transactions ago a view was given its query, or a materialized view its rows, at the latest.
    #[serde(default, deserialize_with = "absent_is_default")]
    pub(crate) age: i32,
    /// Its columns in order.
    #[serde(default, deserialize_with = "absent_is_default")]
    pub(crate) columns: Vec<Attribute>,
    /// The tables above and below it in its inheritance or partition tree, as `schema.name`.
    #[serde(default, deserialize_with = "absent_is_default")]
    pub(crate) relatives: Vec<String>,
    /// The columns that decide which partition a row is in; all, where an expression does.
    #[serde(default, deserialize_with = "absent_is_default")]
    pub(crate) partitioned_by: Vec<Arc<str>>,
}

/// A column of a relation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attribute {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// `pg_attribute.attnum`; 0 where nobody told.
    #[serde(default)]
    pub(crate) number: i16,
    /// Its type's oid.
    #[serde(rename = "type")]
    pub(crate) type_oid: u32,
    /// It goes with somebody's temporary relations or types: it is made of one.
    #[serde(default)]
    pub(crate) fleeting: bool,
    /// It is computed from other columns of its row.
    pub(crate) generated: bool,
    /// From these.
    #[serde(deserialize_with = "absent_is_default")]
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
    /// The names of its result's columns, where they are declared; empty where PostgreSQL makes one.
    #[serde(default)]
    pub(crate) outputs: Option<Vec<Arc<str>>>,
    /// It returns one column, unless `outputs` says otherwise.
    pub(crate) scalar: bool,
    /// It is written in a language that runs statements, as SQL and PL/pgSQL do: in none of C's.
    #[serde(default)]
    pub(crate) scripted: bool,
}

/// A type whose values take somebody's functions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Type {
    /// Its name, in whichever schema.
    pub(crate) name: Arc<str>,
    /// What may run, as `schema.name`.
    pub(crate) functions: Vec<Arc<str>>,
}

impl Relation {
    pub(super) fn path(&self) -> Path {
        format!("{}.{}", self.schema, self.name).into()
    }

    /// The columns whose values one of its own holds, if it is no view: that, the same above and below it, and what it is made of.
    pub(super) fn sources(&self, column: &Attribute) -> impl Iterator<Item = Path> {
        let path = self.path();
        let tables = std::iter::once(path.to_string()).chain(self.relatives.iter().cloned());
        let names: Vec<Arc<str>> = std::iter::once(&column.name).chain(&column.made_from).cloned().collect();
        tables.flat_map(move |table| {
            names.clone().into_iter().map(move |name| Path::from(format!("{table}.{name}")))
        })
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
            scripted: false,
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
    /// Relations by their oids. They stay when the rest is forgotten: until one is read anew, what was known of it tells whether
    /// the server shows a column of it.
    oids: HashMap<u32, Arc<[Relation]>>,
    functions: HashMap<Arc<str>, Arc<[Function]>>,
    types: HashMap<Arc<str>, Arc<[Type]>>,
}

impl Known {
    /// Forgets all that is found by name.
    fn forget(&mut self) {
        let (generation, oids) = (self.generation + 1, mem::take(&mut self.oids));
        *self = Self { generation, oids, ..Self::default() };
    }

    fn note_origins(&mut self, of: impl IntoIterator<Item = (u32, Arc<[Relation]>)>) {
        if self.oids.len() > MOST {
            self.oids.clear();
        }
        self.oids.extend(of);
    }
}

impl Catalog {
    /// Forgets everything but [origins](Self::sources): something was created, altered or dropped.
    pub(crate) fn clear(&self) {
        self.write().forget();
    }

    /// Changes with every [`clear`](Self::clear).
    pub(crate) fn generation(&self) -> u64 {
        self.read().generation
    }

    /// Takes in the rows for a request that was made at `generation`; what was read before a later `clear` is dropped.
    /// Names without rows are remembered as unknown to the server, or, if types', as harmless.
    pub(crate) fn learn(
        &self,
        generation: u64,
        request: &CatalogRequest,
        rows: &Rows,
    ) -> Result<(), CatalogError> {
        let relations =
            by_name(&request.relations, &rows.relations, |relation: &Relation| relation.name.clone())?;
        let functions =
            by_name(&request.functions, &rows.functions, |function: &Function| function.name.clone())?;
        let types = by_name(&request.types, &rows.types, |one: &Type| one.name.clone())?;
        let mut known = self.write();
        if known.relations.len() + known.functions.len() + known.types.len() > MOST {
            known.forget();
        }
        known.note_origins(relations.values().flat_map(|all| all.iter().map(|one| (one.oid, all.clone()))));
        if known.generation == generation {
            known.relations.extend(relations);
            known.functions.extend(functions);
            known.types.extend(types);
        }
        Ok(())
    }

    /// Takes in what is only supposed, at no server's word.
    pub(super) fn suppose(&self, text: &str, request: &CatalogRequest) {
        let mut known = self.write();
        known.relations.extend(suppose::relations(text, request));
        known.functions.extend(suppose::functions(request));
        known.types.extend(request.types.iter().map(|name| (name.clone(), Arc::from([]))));
    }

    pub(super) fn relations(&self, name: &str) -> Option<Arc<[Relation]>> {
        self.read().relations.get(name).cloned()
    }

    pub(super) fn functions(&self, name: &str) -> Option<Arc<[Function]>> {
        self.read().functions.get(name).cloned()
    }

    /// Takes in where another one's columns come from.
    pub(crate) fn note_origins(&self, other: &Self) {
        let origins = other.read().oids.clone();
        self.write().note_origins(origins);
    }

    /// The columns whose values one holds that the server names by its relation's oid and its own number; none where the relation
    /// was never looked up.
    pub(crate) fn sources(&self, oid: u32, number: i16) -> Vec<Path> {
        let known = self.read();
        let all = known.oids.get(&oid);
        let Some(relation) = all.and_then(|all| all.iter().find(|relation| relation.oid == oid)) else {
            return Vec::new();
        };
        let column = relation.columns.iter().find(|column| column.number == number);
        column.map_or_else(Vec::new, |column| relation.sources(column).collect())
    }

    /// The types of that name, of those whose values take somebody's functions.
    pub(super) fn types(&self, name: &str) -> Option<Arc<[Type]>> {
        self.read().types.get(name).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn by_name<T: for<'de> Deserialize<'de>>(
    asked: &BTreeSet<Arc<str>>,
    rows: &[String],
    name: impl Fn(&T) -> Arc<str>,
) -> Result<HashMap<Arc<str>, Arc<[T]>>, CatalogError> {
    let mut found: HashMap<Arc<str>, Vec<T>> = asked.iter().map(|name| (name.clone(), Vec::new())).collect();
    for row in rows {
        let entry: T = serde_json::from_str(row).map_err(|error| CatalogError(error.to_string()))?;
        found.entry(name(&entry)).or_default().push(entry);
    }
    Ok(found.into_iter().map(|(name, entries)| (name, entries.into())).collect())
}

fn absent_is_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
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

    fn relations(row: &str) -> Rows {
        Rows { relations: vec![row.to_owned()], ..Rows::default() }
    }

    const ROW: &str = r#"{"schema":"public","name":"t","oid":7,"definition":null,"columns":
        [{"name":"a","type":23,"generated":false,"made_from":null}],"relatives":null}"#;

    #[test]
    fn names_without_rows_are_remembered() {
        let catalog = Catalog::default();
        catalog.learn(0, &request(&["t", "u"]), &relations(ROW)).unwrap();
        assert_eq!(catalog.relations("t").unwrap().len(), 1);
        assert_eq!(catalog.relations("u").unwrap().len(), 0);
        assert!(catalog.relations("v").is_none());
    }

    #[test]
    fn what_was_read_before_a_change_is_dropped() {
        let catalog = Catalog::default();
        let generation = catalog.generation();
        catalog.clear();
        catalog.learn(generation, &request(&["t"]), &relations(ROW)).unwrap();
        assert!(catalog.relations("t").is_none());
    }

    #[test]
    fn a_row_of_another_form_is_an_error() {
        assert!(Catalog::default().learn(0, &request(&["t"]), &relations("{}")).is_err());
    }
}
