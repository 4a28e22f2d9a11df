//! Statements against a small shop.

mod bounds;
mod conditions;
mod copying;
mod kept;
mod levels;
mod lineage;
mod marks;
mod server;
mod statements;

use std::sync::Arc;

use super::{
    Catalog, Cursor, Limits, NotUnderstood, Overlay, Resolved, Rows, Statements, catalog::CatalogRequest,
    parse, resolve,
};

/// Schema, name, definition, columns, relatives.
type Row = (&'static str, &'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const RELATIONS: &[Row] = &[
    ("public", "customers", "", &["id", "name", "email", "card"], &[]),
    ("public", "orders", "", &["id", "customer", "total"], &[]),
    ("public", "notes", "", &["id", "body"], &[]),
    ("public", "parent", "", &["id", "secret"], &["public.child"]),
    ("public", "child", "", &["id", "secret"], &["public.parent"]),
    ("public", "made", "", &["id", "email", "address"], &[]),
    ("public", "perishable", "", &["id", "gone"], &[]),
    ("a", "twice", "", &["id", "x"], &[]),
    ("b", "twice", "", &["id", "y"], &[]),
    ("public", "mails", "SELECT c.id, c.email AS address FROM public.customers c;", &["id", "address"], &[]),
    ("public", "mails2", "SELECT m.address AS a FROM public.mails m WHERE (m.id > 0);", &["a"], &[]),
    (
        "public",
        "calls",
        "SELECT public.mine() AS a, lower(c.name) AS b, '1'::public.money2 AS c FROM public.customers c;",
        &["a", "b", "c"],
        &[],
    ),
    ("public", "tells", "SELECT pg_notify('a', 'b') AS a;", &["a"], &[]),
    ("public", "kept", "SELECT public.mine() AS a;", &["a"], &[]),
    ("public", "unread", "SELECT FROM WHERE", &["z"], &[]),
    ("public", "odd", "SELECT not sql", &["z"], &[]),
    ("public", "setter", "SELECT set_config('client_encoding', 'SJIS', false) AS z;", &["z"], &[]),
    ("pg_catalog", "pg_class", "", &["oid", "relname"], &[]),
    ("pg_catalog", "pg_settings", "", &["name", "setting"], &[]),
    ("public", "set", "SELECT s.name, s.setting FROM pg_settings s;", &["name", "setting"], &[]),
    ("pg_catalog", "pg_stats", "", &["tablename", "most_common_vals"], &[]),
];

/// Functions: schema, name, volatility.
const FUNCTIONS: &[(&str, &str, char)] = &[
    ("pg_catalog", "lower", 'i'),
    ("pg_catalog", "count", 'a'),
    ("pg_catalog", "max", 'a'),
    ("pg_catalog", "string_agg", 'a'),
    ("pg_catalog", "json_agg", 'a'),
    ("pg_catalog", "rank", 'w'),
    ("pg_catalog", "row_to_json", 's'),
    ("pg_catalog", "generate_series", 'i'),
    ("pg_catalog", "jsonb_array_elements", 'i'),
    ("pg_catalog", "unnest", 'i'),
    ("pg_catalog", "ts_stat_like", 'i'),
    ("pg_catalog", "now", 's'),
    ("pg_catalog", "set_config", 'v'),
    ("pg_catalog", "pg_notify", 'v'),
    ("pg_catalog", "nextval", 'v'),
    ("pg_catalog", "setval", 'v'),
    ("pg_catalog", "pg_advisory_lock", 'v'),
    ("pg_catalog", "pg_try_advisory_xact_lock", 'v'),
    ("pg_catalog", "pg_read_file", 'v'),
    ("pg_catalog", "query_to_xml", 'v'),
    ("public", "mine", 's'),
    ("public", "pure", 'i'),
    ("public", "makes", 'v'),
    ("public", "->", 'o'),
];

/// Types whose values take functions: name, these.
const TYPES: &[(&str, &[&str])] = &[("money2", &["public.money2_in", "public.to_money2"])];

/// Answers a request as the shop's server would.
fn answer(catalog: &Catalog, request: &CatalogRequest) {
    let relations: Vec<String> = RELATIONS
        .iter()
        .enumerate()
        .filter(|(_, relation)| request.relations.contains(relation.1))
        .map(|(oid, (schema, name, definition, columns, relatives))| {
            let column = |name: &&str| match *name {
                "address" if definition.is_empty() => {
                    serde_json::json!({"name": name, "type": 25, "generated": true, "made_from": ["email"]})
                }
                _ => serde_json::json!({"name": name, "type": 25, "generated": false, "made_from": null,
                    "fleeting": *name == "gone"}),
            };
            let columns: Vec<_> = columns.iter().map(column).collect();
            let definition = (!definition.is_empty()).then_some(definition);
            serde_json::json!({"schema": schema, "name": name, "oid": oid + 100,
                "materialized": *name == "kept", "definition": definition, "columns": columns, "relatives": relatives})
            .to_string()
        })
        .collect();
    let functions: Vec<String> = FUNCTIONS
        .iter()
        .filter(|function| request.functions.contains(function.1))
        .map(|(schema, name, volatility)| {
            let (kind, volatility) =
                if matches!(volatility, 'a' | 'w' | 'o') { (*volatility, 'i') } else { ('f', *volatility) };
            let outputs = match *name {
                "jsonb_array_elements" => Some(["value"].as_slice()),
                "ts_stat_like" => Some(["word", ""].as_slice()),
                _ => None,
            };
            serde_json::json!({"schema": schema, "name": name, "kind": kind, "volatility": volatility,
                "returns_set": *name == "generate_series", "outputs": outputs, "scalar": *name != "unnest",
                "scripted": *schema == "public"})
            .to_string()
        })
        .collect();
    let types: Vec<String> = TYPES
        .iter()
        .filter(|(name, _)| request.types.contains(*name))
        .map(|(name, functions)| serde_json::json!({"name": name, "functions": functions}).to_string())
        .collect();
    let rows = Rows { relations, functions, types };
    catalog.learn(catalog.generation(), request, &rows).unwrap();
}

pub(super) fn shop() -> Catalog {
    Catalog::default()
}

fn attempt(text: &str, catalog: &Catalog, overlay: &Overlay) -> Result<Arc<Statements>, NotUnderstood> {
    let parsed = parse(text, &Limits::default())?;
    for _ in 0..20 {
        match resolve(&parsed, catalog, overlay)? {
            Resolved::Known(statements) => return Ok(statements),
            Resolved::Needs(request) => answer(catalog, &request),
        }
    }
    panic!("{text} needs the same again and again");
}

pub(super) fn understood(text: &str, catalog: &Catalog) -> Arc<Statements> {
    attempt(text, catalog, &Overlay::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
}
