//! What statements are called and what they touch.

use tidegate_policy::{Item, Shape, Value};

use super::{super::parse::Fault, *};

/// The items as `statement table access function! where object [columns]`, absent ones left out, sorted.
pub(super) fn words(shape: &Shape) -> String {
    let field = |item: &Item, name: &str| {
        item.fields.iter().find(|(own, _)| *own == name).map(|(_, value)| match value {
            Value::Word(word) => (*word).to_owned(),
            Value::Text(text) => text.to_string(),
            other => format!("{other:?}"),
        })
    };
    let word = |item: &Item| {
        let names = ["statement", "table", "access", "function", "where", "object"];
        let shown = names.iter().filter_map(|name| field(item, name)).collect::<Vec<_>>().join(" ");
        if item.must_name.is_some() { format!("{shown}!") } else { shown }
    };
    let mut all: Vec<String> = shape.items.iter().map(word).collect();
    all.sort();
    all.join("; ")
}

pub(super) fn items(text: &str) -> String {
    words(&understood(text, &shop()).shape)
}

#[test]
fn statements_are_called_by_their_kind() {
    for (text, expected) in [
        ("select 1", "select none"),
        ("select lower('A')", "select none"),
        ("values (1)", "select none"),
        ("select name from customers", "select public.customers read"),
        ("select name from customers for update", "select public.customers read"),
        ("select 1 from customers, orders", "select public.customers read; select public.orders read"),
        ("select * from mails", "select public.mails read"),
        ("select id from twice", "select a.twice read; select b.twice read"),
        ("select * from nowhere", "select ?.nowhere read"),
        ("select * from public.nowhere", "select public.nowhere read"),
        (
            "select (select max(id) from orders) from notes",
            "select public.notes read; select public.orders read",
        ),
        ("select mine()", "select public.mine!"),
        ("select pure(1)", "select public.pure!"),
        ("select pg_read_file('x')", "select pg_catalog.pg_read_file!"),
        ("select ('x').pg_read_file", "select pg_catalog.pg_read_file!"),
        ("select n.pg_read_file from notes n", "select pg_catalog.pg_read_file!; select public.notes read"),
        ("select * from pg_read_file('x')", "select pg_catalog.pg_read_file!"),
        ("select unheard_of()", "select ?.unheard_of!"),
        ("select 1 operator(public.+) 2", "select public.+!"),
        ("select 1 <~> 2", "select ?.<~>!"),
        // A built-in name that another schema has too.
        ("select 'a'::text -> 1", "select public.->!"),
        ("select '{}'::json operator(pg_catalog.->) 'a', '{}'::json ->> 'a'", "select none"),
        ("select 1 from notes where id between 1 and 2", "select public.notes read"),
        ("select 1 from notes where id not between 1 and 2", "select public.notes read"),
        ("select 1 from notes where id between symmetric 2 and 1", "select public.notes read"),
        ("select 1 from notes where id not between symmetric 2 and 1", "select public.notes read"),
        ("select 1 from notes where body like 'a' or body not ilike 'b'", "select public.notes read"),
        ("select 1 from notes where id in (1, 2) and id not in (3)", "select public.notes read"),
        ("select nullif(id, 1) from notes where id is distinct from 1", "select public.notes read"),
        ("select id = any('{1}') from notes where id <> all('{2}')", "select public.notes read"),
        ("select pg_notify('a', 'b')", "notify none"),
        // What changes a sequence or takes a lock; a column's default does so unnamed.
        ("select nextval('s')", "select pg_catalog.nextval!"),
        ("select setval('s', 1)", "select pg_catalog.setval!"),
        ("select pg_advisory_lock(1)", "select pg_catalog.pg_advisory_lock!"),
        ("insert into notes values (nextval('s'))", "insert public.notes write; select pg_catalog.nextval!"),
        ("create table t (id int default nextval('s'))", "create ?.t table"),
        ("alter table notes alter column id set default nextval('s')", "alter public.notes table"),
        (
            "alter table notes alter column id set default setval('s', 1)",
            "alter pg_catalog.setval!; alter public.notes table",
        ),
        // Types whose values take functions.
        ("select 'a'::text, 1::int, '1'::numeric(3, 1)", "select none"),
        ("select '1'::money2", "select public.money2_in!; select public.to_money2!"),
        ("select '{1}'::other.money2[]", "select public.money2_in!; select public.to_money2!"),
        ("select money2 '1'", "select public.money2_in!; select public.to_money2!"),
        (
            "delete from notes where cast(body as money2) is null",
            "delete public.money2_in!; delete public.notes read real; delete public.notes write real; delete public.to_money2!",
        ),
        (
            "prepare p(money2) as select $1",
            "prepare none; prepare public.money2_in!; prepare public.to_money2!; select none",
        ),
        (
            "alter table notes alter column body type money2",
            "alter public.money2_in!; alter public.notes table; alter public.to_money2!",
        ),
        // What a view's query calls.
        (
            "select b from calls",
            "select public.calls read; select public.mine!; select public.money2_in!; select public.to_money2!",
        ),
        ("select count(*) from tells", "select pg_catalog.pg_notify!; select public.tells read"),
        ("select * from unread", "select public.unread read; select public.unread!"),
        ("select * from kept", "select public.kept read"),
        (
            "select * from kept; refresh materialized view kept",
            "alter public.kept materialized-view; select public.kept read; select public.mine!",
        ),
        ("refresh materialized view kept", "alter public.kept materialized-view; select public.mine!"),
        ("select set_config('datestyle', 'ISO', false)", "set none"),
        ("select set_config('role', 'x', false)", "set-role none"),
        ("insert into notes values (1, 'a')", "insert public.notes write"),
        (
            "insert into notes select id, name from customers",
            "insert public.notes write; select public.customers read",
        ),
        ("insert into notes values (1) returning id", "insert public.notes read; insert public.notes write"),
        ("update notes set body = 'a'", "update public.notes write none"),
        (
            "update notes set body = 'a' where id = 1",
            "update public.notes read real; update public.notes write real",
        ),
        ("delete from notes", "delete public.notes write none"),
        ("delete from notes where 1 = 1", "delete public.notes write constant"),
        (
            "with d as (delete from notes returning *) select 1 from d",
            "delete public.notes read none; delete public.notes write none",
        ),
        (
            "merge into notes n using orders o on n.id = o.id when matched then delete",
            "delete public.notes write real; merge public.notes read; merge public.notes write; select public.orders read",
        ),
        (
            "merge into notes n using orders o on n.id = o.id when not matched then insert values (1, 'a')",
            "insert public.notes write; merge public.notes read; merge public.notes write; select public.orders read",
        ),
        (
            "merge into notes n using (values (1)) v(x) on true when matched then do nothing",
            "merge public.notes write",
        ),
        ("truncate notes, orders", "truncate public.notes write; truncate public.orders write"),
        ("truncate notes cascade", "truncate ?.? write; truncate public.notes write"),
        ("drop table notes cascade", "drop ?.?; drop public.notes table"),
        ("drop type money2 cascade", "drop ?.?; drop none type"),
        ("alter table notes drop column body cascade", "alter public.notes table; drop ?.?"),
        ("copy notes from stdin", "copy-from public.notes write"),
        ("copy notes to stdout", "copy-to public.notes read"),
        ("copy (select id from notes) to stdout", "copy-to none; select public.notes read"),
        (
            "copy (delete from notes returning id) to stdout",
            "copy-to none; delete public.notes read none; delete public.notes write none",
        ),
        ("copy notes to program 'x'", "copy-program none; copy-to public.notes read"),
        ("copy notes from '/x'", "copy-file none; copy-from public.notes write"),
        ("create table t (id int)", "create ?.t table"),
        ("create temp table t (id int)", "create pg_temp.t table"),
        ("create table public.t as select id from notes", "create public.t table; select public.notes read"),
        ("select id into public.t from notes", "create public.t table; select public.notes read"),
        ("create view public.v as select id from notes", "create public.v view; select public.notes read"),
        ("create index on notes (id)", "create public.notes index"),
        ("create schema s", "create none schema"),
        ("create schema s create table t (id int)", "create ?.t table; create none schema"),
        ("alter table notes add column x int", "alter public.notes table"),
        ("alter table notes rename to x", "alter public.notes table"),
        ("alter table orders rename column total to x", "alter public.orders table"),
        ("drop table notes, public.orders", "drop public.notes table; drop public.orders table"),
        ("drop view mails", "drop public.mails view"),
        ("drop function mine()", "drop none function"),
        ("drop schema public cascade", "drop ?.?; drop none schema"),
        ("drop index i", "drop none index"),
        ("grant select on notes to a", "grant public.notes table"),
        ("grant a to b", "grant none role"),
        ("comment on table notes is 'x'", "comment none table"),
        ("explain delete from notes", "delete public.notes write none; explain none"),
        ("explain analyze select id from notes", "explain none; select public.notes read"),
        ("prepare p as delete from notes", "delete public.notes write none; prepare none"),
        ("declare c cursor for select id from notes", "cursor none; select public.notes read"),
        ("execute p", "execute-text none"),
        ("deallocate all", "prepare none"),
        ("fetch 1 from c", "cursor none"),
        ("close c", "cursor none"),
        ("begin", "transaction none"),
        ("rollback to savepoint a", "transaction none"),
        ("set transaction read only", "transaction none"),
        ("set datestyle = 'ISO'", "set none"),
        ("set role x", "set-role none"),
        ("set session authorization x", "set-role none"),
        ("reset all", "set none"),
        ("show all", "show none"),
        ("discard all", "set none"),
        ("listen a", "listen none"),
        ("notify a", "notify none"),
        ("lock table notes", "lock public.notes"),
        ("vacuum notes", "vacuum public.notes"),
        ("analyze", "vacuum none"),
        ("checkpoint", "other none"),
        ("load 'x'", "load none"),
        ("do 'begin end'", "do none"),
        ("call mine()", "call none; call public.mine!"),
        ("create function f() returns int language sql as 'select 1'", "create-function none function"),
        (
            "create trigger t after insert on notes execute function f()",
            "create-function public.notes trigger",
        ),
        (
            "create rule r as on insert to notes do also delete from orders",
            "create-function public.notes rule",
        ),
        ("create extension dblink", "create-extension none extension"),
        ("create server s foreign data wrapper w", "create-foreign none server"),
        ("create subscription s connection 'x' publication p", "create-foreign none subscription"),
        ("alter system set work_mem = '1MB'", "alter-system none configuration"),
        ("create role a password 'x'", "role none role"),
        ("alter role a password 'x'", "role none role"),
        ("alter user a set search_path = b", "role none role"),
        ("alter role a rename to b", "role none role"),
        ("drop role a", "role none role"),
        ("cluster notes", "vacuum public.notes table"),
        ("alter table notes set schema other", "alter public.notes table"),
        ("alter schema public rename to other", "alter none schema"),
        ("refresh materialized view mails", "alter public.mails materialized-view"),
    ] {
        assert_eq!(items(text), expected, "{text}");
    }
}

#[test]
fn what_a_definition_or_a_place_is_computed_from_is_followed() {
    for text in [
        "insert into notes (id, body[public.mine()]) values (1, 'a')",
        "insert into notes (id, body[public.mine():2]) select 1, 'a'",
        "merge into notes n using orders o on n.id = o.id when not matched then insert (id, body[public.mine()]) values (1, 'a')",
        "create table notes2 partition of notes for values in (public.mine())",
        "create table notes2 partition of notes for values from (public.mine()) to (maxvalue)",
        "alter table notes attach partition orders for values from (minvalue) to (public.mine() + 1)",
        "create table t (a int) partition by list ((public.mine()))",
        "create statistics s on (public.mine()), body from notes",
        "alter domain d set default public.mine()",
    ] {
        assert!(items(text).contains("public.mine!"), "{text}: {}", items(text));
    }
    let email = "(select email from customers)";
    for text in [
        format!("insert into notes (id, body[{email}]) values (1, 'a')"),
        format!("update notes set body[{email}] = 'a'"),
        format!("create table notes2 partition of notes for values in ({email})"),
        "update customers set email['a'] = email".to_owned(),
        "insert into customers (id, email.a) select id, email from customers".to_owned(),
    ] {
        let shape = understood(&text, &shop()).shape.clone();
        assert!(
            shape.copied.iter().any(|path| &**path == "public.customers.email"),
            "{text}: {:?}",
            shape.copied
        );
    }
}

#[test]
fn settings_are_written_through_no_view() {
    let (catalog, mut overlay) = (shop(), Overlay::default());
    for made in [
        "create temp view mine as select name, setting from pg_settings",
        "create temp view again as select * from mine",
    ] {
        overlay.follow(&attempt(made, &catalog, &overlay).unwrap());
    }
    for text in [
        "update pg_settings set setting = 'off'",
        "update set set setting = 'store' where name = 'search_path'",
        "update mine set setting = 'store'",
        "update again set setting = 'store'",
        "merge into mine using notes on true when matched then update set setting = 'store'",
        "with u as (update public.set set setting = 'store' returning 1) select 1 from u",
    ] {
        assert!(attempt(text, &catalog, &overlay).is_err(), "{text}");
    }
    assert!(attempt("select setting from mine", &catalog, &overlay).is_ok());
}

#[test]
fn the_functions_of_a_type_are_items_wherever_values_of_it_are_made() {
    for text in [
        "select ('1').money2",
        "select (select 1).money2",
        "select (n.id).money2 from notes n",
        "select money2(1)",
        "select v.money2 from unnest(array[1]) v",
        "select * from json_to_record('{}') as x (a money2)",
        "select * from rows from (json_to_record('{}') as (a money2)) as x",
        "select * from xmltable('/r' passing '<r/>' columns a money2 path '.') as x",
        "select * from json_table('{}', '$' columns (a money2 path '$.a')) as x",
        "select * from json_table('{}', '$' columns (nested path '$' columns (a money2[] path '$.a'))) as x",
        "select json_value('{}', '$' returning money2)",
        "select json_query('{}', '$' returning money2)",
        "select json_object('a': 1 returning money2)",
        "select json_array(1 returning money2)",
        "select json_array(select 1 returning money2)",
        "select json_objectagg('a': 1 returning money2)",
        "select json_arrayagg(1 returning money2)",
        "select json_serialize('{}' returning money2)",
        "with recursive r (a) as (select 1 union all select a from r) \
         cycle a set c to money2 '1' default money2 '2' using p select a from r",
    ] {
        let items = items(text);
        let all = ["select public.money2_in!", "select public.to_money2!"];
        assert!(all.iter().all(|item| items.contains(item)), "{text}: {items}");
    }
}

#[test]
fn columns_read_and_written_are_told() {
    for (text, access, expected) in [
        ("select name from customers where id = 1", "read", "id,name"),
        ("select * from notes", "read", "body,id"),
        ("select n from notes n", "read", "body,id"),
        ("select x from notes n (i, x)", "read", "body,id"),
        ("select count(*) from notes", "read", ""),
        ("insert into notes (body) values ('a')", "write", "body"),
        ("insert into notes values (1)", "write", "id"),
        ("update notes set body = 'a' where id = 1", "write", "body"),
        ("copy notes (id) to stdout", "read", "id"),
        ("delete from notes returning body", "read", "body"),
        ("delete from notes returning *", "read", "body,id"),
    ] {
        let statements = understood(text, &shop());
        let item =
            statements.shape.items.iter().find(|item| item.fields.contains(&("access", Value::Word(access))));
        let columns = item.unwrap().fields.iter().find_map(|(name, value)| match value {
            Value::Set(columns) if *name == "columns" => Some(columns),
            _ => None,
        });
        let names: Vec<&str> = columns.unwrap().iter().filter_map(|path| path.rsplit('.').next()).collect();
        assert_eq!(names.join(","), expected, "{text}");
    }
}

#[test]
fn what_changes_how_statements_are_read_is_refused() {
    for text in [
        "set standard_conforming_strings = off",
        "set local standard_conforming_strings to 'off'",
        "set client_encoding = 'SJIS'",
        "set names 'latin1'",
        "select set_config('client_encoding', 'SJIS', false)",
        "select pg_catalog.set_config('standard_conforming_strings', 'off', false)",
        "select set_config(name, 'off', false) from customers",
        "select set_config('client_encoding', name, false) from customers",
        "select set_config('standard_conforming_strings_'::varchar(27), 'off', true)",
        "select set_config('standard_conforming_strings_'::char(27), 'off', true)",
        "select set_config(cast('client_encoding_' as varchar(15)), 'SJIS', true)",
        "select set_config('client_encoding', 'utf8_'::char(0), true)",
        "select set_config('standard_conforming_' || 'strings', 'off', true)",
        "select set_config('view, foreign-table'::name, 'off', true)",
        "select set_config(name, 'view, foreign-table'::varchar(4), false) from customers",
        "select * from setter",
        "select count(*) from setter",
        "alter role a set client_encoding = 'SJIS'",
        "alter database a set standard_conforming_strings = off",
        "select 1; set client_encoding = 'SJIS'",
        "create table t as execute p",
        "explain execute p",
    ] {
        let refused = attempt(text, &shop(), &Overlay::default()).unwrap_err();
        assert_eq!(refused.fault, Fault::Bounds, "{text}");
    }
}

#[test]
fn statements_that_change_the_catalog_say_so() {
    for (text, ddl) in [
        ("create table t (id int)", true),
        ("drop table notes", true),
        ("alter table notes add x int", true),
        ("do ''", true),
        ("select 1", false),
        ("insert into notes values (1)", false),
        ("vacuum", false),
    ] {
        assert_eq!(understood(text, &shop()).ddl, ddl, "{text}");
    }
}

#[test]
fn results_belong_to_their_statements() {
    let statements =
        understood("begin; select 1; insert into notes values (1); select 2, 3; commit", &shop());
    let results: Vec<_> = statements.list.iter().map(|statement| statement.result).collect();
    assert_eq!(results, [None, Some(0), None, Some(1), None]);
    assert_eq!(statements.shape.results[1].outputs.len(), 2);
}
