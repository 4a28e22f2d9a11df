//! What a text would do, where no catalog is at hand: for policies that are tried out without a server.

use std::sync::Arc;

use regex::Regex;

use super::catalog::{Attribute, CatalogRequest, Function, Relation};

/// A table for every relation that is asked for: in the schema that the text writes before it, or `public`, and with
/// every name in the text for a column.
pub(super) fn relations(text: &str, request: &CatalogRequest) -> Vec<(Arc<str>, Arc<[Relation]>)> {
    let names = names(text);
    let table = |name: &Arc<str>| Relation {
        schema: schema_of(text, name),
        name: name.clone(),
        oid: 0,
        definition: None,
        materialized: false,
        age: 0,
        columns: names.iter().map(column).collect(),
        relatives: Vec::new(),
        partitioned_by: Vec::new(),
    };
    request.relations.iter().map(|name| (name.clone(), Arc::from([table(name)]))).collect()
}

/// What PostgreSQL's own functions that act on the server are called, or begin with. Of others too few are known by
/// their names alone to suppose anything but that they are harmless.
const ACTING: &[&str] = &[
    "nextval",
    "pg_advisory_",
    "pg_backup_",
    "pg_cancel_backend",
    "pg_copy_",
    "pg_create_",
    "pg_drop_",
    "pg_import_system_collations",
    "pg_log_",
    "pg_logical_",
    "pg_promote",
    "pg_reload_conf",
    "pg_replication_",
    "pg_restore_",
    "pg_rotate_",
    "pg_start_backup",
    "pg_stat_reset",
    "pg_stop_backup",
    "pg_switch_wal",
    "pg_sync_",
    "pg_terminate_backend",
    "pg_try_advisory_",
    "pg_wal_replay_",
    "setval",
];

/// A built-in function for every one that is asked for: volatile if it is known to act, else without side effects.
pub(super) fn functions(request: &CatalogRequest) -> Vec<(Arc<str>, Arc<[Function]>)> {
    let acts = |name: &str| ACTING.iter().any(|acting| name.starts_with(acting));
    let built_in = |name: &Arc<str>| Function {
        volatility: if acts(name) { 'v' } else { 'i' },
        ..Function::supposed(name.clone())
    };
    request.functions.iter().map(|name| (name.clone(), Arc::from([built_in(name)]))).collect()
}

fn column(name: &Arc<str>) -> Attribute {
    Attribute {
        name: name.clone(),
        number: 0,
        type_oid: 0,
        fleeting: false,
        generated: false,
        made_from: Vec::new(),
    }
}

fn names(text: &str) -> Vec<Arc<str>> {
    let Ok(word) = Regex::new("[A-Za-z_][A-Za-z0-9_]*") else { return Vec::new() };
    let mut names: Vec<Arc<str>> =
        word.find_iter(text).map(|found| found.as_str().to_ascii_lowercase().into()).collect();
    names.sort();
    names.dedup();
    names
}

fn schema_of(text: &str, name: &str) -> Arc<str> {
    let written = Regex::new(&format!(r#"(?i)([a-z_][a-z0-9_]*)"?\s*\.\s*"?{}\b"#, regex::escape(name)));
    let written = written.ok().and_then(|written| Some(written.captures(text)?.get(1)?.as_str().to_owned()));
    written.map_or_else(|| "public".into(), |schema| schema.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use crate::sql::{Limits, shape_of};

    fn sources(text: &str) -> Vec<String> {
        let shape = shape_of(text, &Limits::default()).unwrap();
        shape.results[0].outputs.iter().flat_map(|output| &output.sources).map(ToString::to_string).collect()
    }

    #[test]
    fn a_function_that_acts_on_the_server_must_be_named_as_in_a_session() {
        let must_name = |text: &str| {
            let shape = shape_of(text, &Limits::default()).unwrap();
            shape.items.iter().any(|item| item.must_name == Some("function"))
        };
        for text in [
            "SELECT pg_terminate_backend(1)",
            "SELECT nextval('s')",
            "SELECT pg_reload_conf()",
            "SELECT pg_read_file('x')",
        ] {
            assert!(must_name(text), "{text}");
        }
        for text in [
            "SELECT now()",
            "SELECT lower(name) || 'x' FROM customers",
            "SELECT set_config('a.b', 'c', true)",
        ] {
            assert!(!must_name(text), "{text}");
        }
    }

    #[test]
    fn a_text_is_traced_to_the_columns_that_it_names() {
        assert_eq!(sources("SELECT card FROM sales.customers"), ["sales.customers.card"]);
        assert_eq!(sources("SELECT c.card FROM customers c WHERE id = 1"), ["public.customers.card"]);
        assert_eq!(sources("SELECT lower(name) FROM customers"), ["public.customers.name"]);
    }
}
