//! What tells that others have defined something anew, against a real server.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use super::{
    super::{MARKS, names_parameter},
    server::{asked, run},
};

/// A schema that is dropped when done with.
struct Shop;

impl Shop {
    fn create() -> Self {
        run("create schema marked; set search_path = marked;
             create table orders (id int primary key, note text, price int default 1 check (price > 0));
             create table lines (id int, of int references orders on delete cascade);
             create table notes (id int, of int references orders);
             create table apart (id int);
             create view plain as select id, note from orders;
             create view nested as select id from plain;
             create materialized view kept as select id from orders;
             create table parts (id int) partition by range (id);
             create table part partition of parts for values from (0) to (9);
             create function quick(int) returns int language sql as 'select 1';
             create function other() returns int language sql as 'select 1';
             create function audit() returns trigger language plpgsql as 'begin return old; end';
             create function dull() returns trigger language plpgsql as 'begin return old; end';
             create table audited (id int); create trigger t before delete on audited execute function audit();
             create table bare (id int, twice int generated always as (id * 2) stored);");
        Self
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        run("drop schema marked cascade");
    }
}

fn marks(relation: &str, function: &str, words: &[&str]) -> Vec<String> {
    let array = |names: &[&str]| {
        let names: Vec<std::sync::Arc<str>> =
            names.iter().filter(|name| !name.is_empty()).map(|name| (*name).into()).collect();
        names_parameter(&names)
    };
    let parameters = [array(&[relation]), array(&[function]), array(words)];
    let mut marks = asked(MARKS, &parameters.each_ref().map(String::as_str));
    marks.sort();
    marks.dedup();
    marks
}

/// Whether these count as defined anew by this text, of one statement or in one transaction.
fn changes(relation: &str, function: &str, by: &str) -> bool {
    let before = marks(relation, function, &[]);
    assert!(!before.is_empty(), "{relation}{function}");
    run(by);
    marks(relation, function, &[]) != before
}

#[test]
#[ignore = "needs PostgreSQL: PGHOST, PGPORT and PGUSER of an empty server"]
fn what_a_statement_runs_by_is_marked_as_far_as_it_reaches() {
    let _shop = Shop::create();
    for (relation, by) in [
        ("marked.plain", "create or replace view plain as select id, 'x'::text as note from orders"),
        ("marked.nested", "create or replace view plain as select 0 as id, note from orders"),
        ("marked.orders", "create rule r as on delete to orders do instead nothing"),
        ("marked.orders", "create trigger t before delete on orders execute function dull()"),
        ("marked.orders", "alter table orders disable trigger t"),
        ("marked.orders", "create policy p on orders using (true)"),
        ("marked.orders", "alter table orders enable row level security"),
        ("marked.orders", "alter table orders alter price set default 2"),
        ("marked.orders", "alter table orders add check (price < 100)"),
        ("marked.orders", "alter table orders add more int"),
        ("marked.orders", "alter table orders rename note to said"),
        ("marked.orders", "create trigger t before delete on lines execute function dull()"),
        ("marked.parts", "create trigger t before delete on part for each row execute function dull()"),
        ("marked.parts", "create table further partition of parts for values from (9) to (99)"),
        ("marked.bare", "alter table bare drop twice; alter table bare add twice int"),
        (
            "marked.audited",
            "create or replace function audit() returns trigger language plpgsql as 'begin return null; end'",
        ),
        // What it calls is in its text alone.
        ("marked.audited", "create or replace function other() returns int language sql as 'select 2'"),
        ("marked.audited", "create or replace view nested as select 1 as id"),
        ("marked.orders", "drop table lines; alter table orders rename to was; create table orders (id int)"),
    ] {
        assert!(changes(relation, "", &format!("set search_path = marked; {by}")), "{relation}: {by}");
    }
    for by in [
        "create or replace function quick(int) returns int language sql as 'select 2'",
        "create function quick(text) returns int language sql as 'select 3'",
        "create or replace function other() returns int language sql as 'select 3'",
    ] {
        assert!(changes("", "marked.quick", &format!("set search_path = marked; {by}")), "{by}");
    }
}

#[test]
#[ignore = "needs PostgreSQL: PGHOST, PGPORT and PGUSER of an empty server"]
fn what_defines_nothing_that_it_runs_by_leaves_its_marks() {
    let _shop = Shop::create();
    for (relation, by) in [
        ("marked.orders", "insert into marked.orders select generate_series(1, 100)"),
        ("marked.orders", "vacuum full analyze marked.orders"),
        ("marked.orders", "truncate marked.orders cascade"),
        ("marked.orders", "create index on marked.orders (note)"),
        ("marked.orders", "alter table marked.orders set (autovacuum_enabled = off)"),
        ("marked.orders", "create or replace view marked.nested as select 1 as id"),
        ("marked.orders", "create or replace function marked.other() returns int language sql as 'select 2'"),
        ("marked.orders", "create trigger t before delete on marked.notes execute function marked.dull()"),
        ("marked.orders", "grant select on marked.orders to public"),
        ("marked.kept", "refresh materialized view marked.kept"),
        ("marked.audited", "create temp view v as select 1"),
        ("marked.audited", "create table marked.further (id int)"),
    ] {
        assert!(!changes(relation, "", by), "{relation}: {by}");
    }
}

/// Somebody who has done this in a transaction that stays open until they are gone.
fn in_a_transaction(does: &str) -> Child {
    let psql = Command::new("psql")
        .args(["-Xq", "-v", "ON_ERROR_STOP=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut psql = psql.expect("psql runs");
    writeln!(psql.stdin.as_mut().unwrap(), "begin; {does};\n\\echo done").unwrap();
    let mut line = String::new();
    BufReader::new(psql.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "done\n");
    psql
}

#[test]
#[ignore = "needs PostgreSQL: PGHOST, PGPORT and PGUSER of an empty server"]
fn what_an_open_transaction_defines_anew_is_told() {
    let _shop = Shop::create();
    let is_changing = |relation| marks(relation, "", &[]).contains(&"changing".to_owned());
    for does in [
        "create or replace function marked.audit() returns trigger language plpgsql as 'begin return null; end'",
        "savepoint s; create or replace function marked.other() returns int language sql as 'select 2'",
        "drop trigger t on marked.audited",
    ] {
        assert!(!is_changing("marked.audited"), "before {does}");
        let mut other = in_a_transaction(does);
        assert!(is_changing("marked.audited"), "{does}");
        assert!(!is_changing("marked.apart"), "{does}");
        drop(other.stdin.take());
        other.wait().unwrap();
    }
    // What came to nothing leaves its trace in the row.
    assert!(!is_changing("marked.audited"));
}

#[test]
#[ignore = "needs PostgreSQL: PGHOST, PGPORT and PGUSER of an empty server"]
fn of_a_text_that_nobody_can_read_all_that_it_may_call_is_marked() {
    let _shop = Shop::create();
    let before = marks("", "", &["anything"]);
    run("create or replace function marked.other() returns int language sql as 'select 2'");
    assert_ne!(marks("", "", &["anything"]), before);
    assert!(marks("", "", &[]).is_empty());
}
