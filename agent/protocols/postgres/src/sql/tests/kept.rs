//! Materialized views, replaced views and partitions: what the server holds or tells by definitions of another time.

use serde_json::{Value, json};

use super::*;
use crate::sql::{Fault, resolve_within};

const CARD: &str = "public.customers.card";

fn relation(oid: u32, name: &str, columns: &[&str], more: Value) -> Value {
    let column = |name: &&str| json!({"name": name, "type": 25, "generated": false, "made_from": null});
    let columns: Vec<_> = columns.iter().map(column).collect();
    let mut relation = json!({"schema": "public", "name": name, "oid": oid, "columns": columns});
    if let (Some(relation), Value::Object(more)) = (relation.as_object_mut(), more) {
        relation.extend(more);
    }
    relation
}

/// A shop in which the materialized view `m` stands on the view `v`. `v` was given its query, and `m` its rows, so many
/// transactions ago.
fn shop(shown: &str, v: i32, m: i32) -> [Value; 5] {
    let query = format!(" SELECT {shown} AS shown FROM public.customers;");
    [
        relation(1, "customers", &["id", "name", "card"], json!({"partitioned_by": ["card"]})),
        relation(2, "v", &["shown"], json!({"definition": query, "age": v})),
        relation(
            3,
            "m",
            &["shown"],
            json!({"definition": " SELECT v.shown FROM public.v;", "materialized": true, "age": m}),
        ),
        relation(4, "over", &["shown"], json!({"definition": " SELECT m.shown FROM public.m;", "age": 0})),
        relation(
            5,
            "twin",
            &["a", "b"],
            json!({"definition": " SELECT m.shown AS a, v.shown AS b FROM public.m, public.v;"}),
        ),
    ]
}

fn traced(text: &str, shop: &[Value]) -> Arc<Statements> {
    let (parsed, catalog) = (parse(text, &Limits::default()).unwrap(), Catalog::default());
    loop {
        match resolve(&parsed, &catalog, &Overlay::default()).unwrap() {
            Resolved::Known(statements) => return statements,
            Resolved::Needs(request) => {
                let asked = |row: &&Value| request.relations.contains(row["name"].as_str().unwrap());
                let relations = shop.iter().filter(asked).map(Value::to_string).collect();
                catalog.learn(0, &request, &Rows { relations, ..Rows::default() }).unwrap();
            }
        }
    }
}

fn copies_cards(text: &str, shop: &[Value]) -> bool {
    traced(text, shop).shape.copied.iter().any(|path| &**path == CARD)
}

fn tells_of_cards(text: &str) -> bool {
    traced(text, &shop("name", 9, 5)).shape.influences.iter().any(|path| &**path == CARD)
}

#[test]
fn rows_that_are_older_than_a_view_they_were_read_through_are_untraced() {
    for (v, m, is_traced) in [(9, 5, true), (5, 5, true), (4, 5, false)] {
        for text in ["select shown from m", "select shown from over", "select a from twin"] {
            let lineage = traced(text, &shop("name", v, m)).shape.results[0].clone();
            assert_eq!(lineage.untraced.is_none(), is_traced, "{text}, {v} {m}: {lineage:?}");
        }
    }
    let lineage = traced("select shown from v", &shop("card", 4, 5)).shape.results[0].clone();
    assert!(lineage.untraced.is_none() && lineage.outputs[0].sources.iter().any(|path| &**path == CARD));
}

#[test]
fn a_refresh_of_rows_that_others_were_made_from_does_not_make_those_pass_for_new() {
    let traced = |v: i32, inner: i32, outer: i32| {
        let mut shop = shop("name", v, inner).to_vec();
        let more =
            json!({"definition": " SELECT m.shown FROM public.m;", "materialized": true, "age": outer});
        shop.push(relation(6, "outermost", &["shown"], more));
        traced("select shown from outermost", &shop).shape.results[0].untraced.is_none()
    };
    assert!(traced(200, 100, 100) && traced(200, 100, 10), "refreshed from within");
    assert!(!traced(50, 10, 100) && !traced(200, 10, 100), "only the inner one was refreshed");
    assert!(!traced(50, 60, 10), "the inner one's rows are of an older view");
}

#[test]
fn what_is_older_than_the_server_can_tell_is_untraced() {
    for (v, m) in [(-9, 5), (5, -9), (-5, -9), (-9, -5)] {
        let lineage = traced("select shown from m", &shop("name", v, m)).shape.results[0].clone();
        assert!(lineage.untraced.is_some(), "{v} {m}");
    }
}

#[test]
fn nothing_but_a_refresh_makes_kept_rows_pass_for_new() {
    let stale = shop("name", 4, 5);
    for text in [
        "alter materialized view m set (fillfactor = 90)",
        "alter materialized view m owner to other",
        "alter materialized view m rename to n",
        "alter table m set tablespace other",
        "grant select on m to other",
        "cluster m using i",
        "vacuum full m",
        "vacuum full",
        "grant select on all tables in schema public to other",
        "reassign owned by a to b",
        "drop owned by a",
        "alter materialized view all in tablespace a set tablespace b",
        "refresh materialized view over; alter materialized view m set (fillfactor = 90)",
    ] {
        assert!(traced(text, &stale).shape.untraced.is_some(), "{text}");
    }
    for text in
        ["refresh materialized view m", "vacuum", "vacuum full customers", "grant select on v to other"]
    {
        assert!(traced(text, &stale).shape.untraced.is_none(), "{text}");
    }
}

#[test]
fn what_a_replaced_view_shows_no_longer_counts_as_copied() {
    let cards = shop("card", 9, 5);
    for text in [
        "create or replace view v as select name as shown from customers",
        "create or replace view public.v (shown) as select 'x'",
        "create or replace view v as select s.shown from (select name as shown, card from customers) s",
    ] {
        assert!(copies_cards(text, &cards), "{text}");
    }
    for text in [
        "create or replace view v as select card as shown, name from customers",
        "create or replace view v as select coalesce(card, '') as shown from customers",
        "create view w as select name as shown from customers",
    ] {
        assert!(!copies_cards(text, &cards), "{text}");
    }
    assert!(!copies_cards(
        "create or replace view v as select card as shown from customers",
        &shop("name", 9, 5)
    ));
}

#[test]
fn a_long_view_is_too_much_for_a_few_steps_before_it_is_read() {
    let is_tangled = |constants: usize| {
        // It can't be read: nothing of it is ever followed.
        let query =
            format!(" SELECT name AS shown FROM public.customers WHERE id IN ({}", "1,".repeat(constants));
        let shop = [
            relation(1, "customers", &["id", "name"], json!({})),
            relation(2, "v", &["shown"], json!({"definition": query})),
        ];
        let catalog = Catalog::default();
        let parsed = parse("select shown from v", &Limits::default()).unwrap();
        // Known already: in one round.
        let names = ["customers", "v"].map(Arc::from).into();
        let request = CatalogRequest { relations: names, ..CatalogRequest::default() };
        let relations = shop.iter().map(Value::to_string).collect();
        catalog.learn(0, &request, &Rows { relations, ..Rows::default() }).unwrap();
        match resolve_within(20_000, &parsed, &catalog, &Overlay::default()) {
            Ok(_) => false,
            Err(not) => {
                assert_eq!(not.fault, Fault::Tangled);
                true
            }
        }
    };
    assert!(!is_tangled(100) && is_tangled(10_000));
}

#[test]
fn whether_rows_are_there_that_a_constraint_forbids_is_an_influence() {
    for text in [
        "alter table customers alter column card set not null",
        "alter table customers add constraint c not null card",
        "alter table customers validate constraint c",
        "alter table customers alter constraint c enforced",
        "create table part partition of customers for values in ('a')",
        "create table part partition of customers default",
        "alter table customers attach partition other for values in ('a')",
    ] {
        assert!(tells_of_cards(text), "{text}");
    }
    for text in [
        "alter table customers alter column name set not null",
        "alter table customers alter column card drop not null",
        "alter table customers detach partition other",
        "alter table customers alter constraint c deferrable",
    ] {
        assert!(!tells_of_cards(text), "{text}");
    }
}
