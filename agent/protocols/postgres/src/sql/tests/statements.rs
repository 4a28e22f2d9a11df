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

fn items(text: &str) -> String {
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
fn a_where_is_real_only_if_it_certainly_restricts() {
    let mut wrong = Vec::new();
    for (condition, expected) in [
        ("id = 1", "real"),
        ("id in (1, 2)", "real"),
        ("id > 1 and true", "real"),
        ("id = $1", "real"),
        ("lower(body) = 'a'", "real"),
        ("body like 'a%'", "real"),
        ("body is null", "real"),
        ("id between 1 and 5", "real"),
        ("id = 1 or id = 2", "real"),
        ("id = 1 or body = 'a'", "real"),
        ("not (id = 1)", "real"),
        ("notes.id = 1", "real"),
        ("id = any (array[1, 2])", "real"),
        ("id in (select customer from orders where total > 5)", "real"),
        ("id in (select n.id from notes n where n.body = 'a')", "real"),
        ("id not in (select customer from orders where total > 5)", "real"),
        ("id in (select unnest($1::int[]))", "real"),
        ("id in (values (1), (2))", "real"),
        ("id = any ($1)", "real"),
        ("id = any (array(select customer from orders where total > 5))", "real"),
        ("id = (select max(customer) from orders where total > 5)", "real"),
        ("id <> all (array[1, 2])", "real"),
        ("not id = any (array[1, 2])", "real"),
        ("(id, body) = (1, 'a')", "real"),
        ("(id, body) in (select customer, 'a' from orders where total > 5)", "real"),
        ("body = coalesce($1, 'a')", "real"),
        ("not exists (select 1 from orders o where o.customer = notes.id)", "real"),
        ("exists (select 1 from orders o where o.id = notes.id)", "real"),
        ("ctid = '(0,1)'", "real"),
        ("current of c", "real"),
        ("body like 'a%' escape '!'", "real"),
        ("body ~ '^a[0-9]+'", "real"),
        ("body ~ '^[0-9]+@example\\.org$'", "real"),
        ("body not like 'a%'", "real"),
        ("body similar to 'a%'", "real"),
        ("body like any (array['a%', '%b'])", "real"),
        ("lower(body) like 'a%'", "real"),
        ("id::text = '1'", "real"),
        ("id + 1 > 5", "real"),
        ("now() - body::timestamp > interval '1 day'", "real"),
        ("date_trunc('day', body::timestamp) < $1", "real"),
        ("body::json ->> 'a' = 'b'", "real"),
        ("body::jsonb @> '{\"a\": 1}'", "real"),
        ("(id, body) > ($1, $2)", "real"),
        ("$1 between id and 5", "real"),
        ("id is distinct from 1", "real"),
        ("body", "real"),
        (
            "id in (select o.customer from orders o, customers c where o.customer = c.id and c.name = 'a')",
            "real",
        ),
        (
            "id in (select o.customer from orders o join customers c on c.id = o.customer where c.name = 'a')",
            "real",
        ),
        ("id in (select o.* from orders o, customers c where o.total = 1)", "real"),
        ("id in (select * from orders where total = 1)", "real"),
        ("id in (select 1 from orders where total > 5)", "real"),
        ("id in (select $1 from orders where total > 5)", "real"),
        ("id in (select customer from orders where total > 5 limit 10)", "real"),
        ("id not in (select customer from orders where total > 5 limit 10)", "real"),
        ("id not in (values (1), (2))", "real"),
        ("id not in (select 1)", "real"),
        ("exists (select * from orders o where o.customer = notes.id)", "real"),
        ("exists (select o.id from orders o where o.customer = notes.id order by o.id limit 1)", "real"),
        ("exists (select distinct o.id::text from orders o where o.customer = notes.id)", "real"),
        ("exists (select from orders o where o.customer = notes.id)", "real"),
        ("exists (select count(*) from orders o where o.customer = notes.id group by o.id)", "real"),
        ("not exists (select 1 from orders o where o.customer = notes.id limit 1)", "real"),
        ("true", "constant"),
        ("id is distinct from $1", "constant"),
        ("id is distinct from $1::int", "constant"),
        ("not (id is not distinct from $1)", "constant"),
        ("$1 is distinct from id", "constant"),
        ("exists (select count(*) from orders o where o.customer = notes.id)", "constant"),
        ("exists (select max(o.id) from orders o where o.customer = notes.id limit 1)", "constant"),
        ("exists (select o.count from orders o where o.customer = notes.id)", "constant"),
        ("exists (select (select count(o.id)) from orders o where o.customer = notes.id)", "constant"),
        ("exists (select 1 from orders o where o.customer = notes.id order by count(*))", "constant"),
        ("exists (select 1 from orders o where o.customer = notes.id having true)", "constant"),
        ("exists (select 1 from orders o where o.customer = notes.id group by ())", "constant"),
        ("exists (select 1 from orders o where o.customer = notes.id group by rollup (o.id))", "constant"),
        ("not exists (select 1 from orders o where o.customer = notes.id limit 0)", "constant"),
        ("not exists (select 1 from orders o where o.customer = notes.id limit $1)", "constant"),
        ("not exists (select 1 from orders o where o.customer = notes.id offset 9)", "constant"),
        ("id not in (select 0 where false)", "constant"),
        ("id not in (select 0 limit 0)", "constant"),
        ("id not in (select 0 having false)", "constant"),
        ("id not in (select 0 from orders where total > 5)", "constant"),
        ("id not in (select unnest($1::int[]))", "constant"),
        ("id not in (select customer from orders where total > 5 limit 0)", "constant"),
        ("id <> all (select 0 where false)", "constant"),
        ("not id = any (select 0 where false)", "constant"),
        ("id in (select generate_series(1, 1000) from orders where total > 5)", "constant"),
        ("id in (select count(*) from orders where total > 5)", "constant"),
        ("1 = 1", "constant"),
        ("'a' = 'a'", "constant"),
        ("id = id", "constant"),
        ("id + 0 = id", "constant"),
        ("id - id = 0", "constant"),
        ("id is not null", "constant"),
        ("id is not null or true", "constant"),
        ("id = 1 or true", "constant"),
        ("id = 1 or 1 = 1", "constant"),
        ("id = 1 or id <> 1", "constant"),
        ("id = 1 or not id = 1", "constant"),
        ("id < 5 or id >= 5", "constant"),
        ("not (id = 1 and 1 = 1)", "constant"),
        ("not false", "constant"),
        ("body like '%'", "constant"),
        ("body like '%'::text", "constant"),
        ("body like '%x'::char(1)", "constant"),
        ("body like '%x'::varchar(1)::text", "constant"),
        ("body like 'x%'::text", "real"),
        ("body like '%%' escape '!'", "constant"),
        ("body like '%' escape 'x'", "constant"),
        ("body like '_%'", "constant"),
        ("body like $1", "constant"),
        ("body like '%' || ''", "constant"),
        ("body like any (array['a%', '%'])", "constant"),
        ("body not like any (array['a%', 'b%'])", "constant"),
        ("like(body, '%')", "constant"),
        ("starts_with(body, '')", "constant"),
        ("body operator(pg_catalog.~~) '%'", "constant"),
        ("body ~~ '%'", "constant"),
        ("body ~~* '%'", "constant"),
        ("body operator(pg_catalog.~) ''", "constant"),
        ("body ~ ''", "constant"),
        ("body ~ '.*'", "constant"),
        ("body ~ 'a*'", "constant"),
        ("body ~ 'a|'", "constant"),
        ("body ~ '(a)?'", "constant"),
        ("body ~ 'a{0,}'", "constant"),
        ("body ~ '[^]a]*'", "constant"),
        ("body ~ '***:'", "constant"),
        ("body ~ '(?x)#a'", "constant"),
        ("body ~ '\\y'", "constant"),
        ("body similar to '%'", "constant"),
        ("body similar to '%|a'", "constant"),
        ("body similar to 'a*'", "constant"),
        ("body similar to 'a' escape 'a'", "constant"),
        ("body ^@ ''", "constant"),
        ("body::jsonb @> '{}'", "constant"),
        ("(id = 1) in (true, false)", "constant"),
        ("(id = 1) <= true", "constant"),
        ("(id = 1)::int >= 0", "constant"),
        ("(id = 1) is not unknown", "constant"),
        ("id::bool in (true, false)", "constant"),
        ("num_nonnulls(id) = 1", "constant"),
        ("left(body, 0) = ''", "constant"),
        ("length(body) >= 0", "constant"),
        ("id * 0 = 0", "constant"),
        ("id + null is null", "constant"),
        ("id + null is distinct from 1", "constant"),
        ("not (id + null is not distinct from 1)", "constant"),
        ("id is distinct from nullif(1, 1)", "constant"),
        ("1 in (id, 1)", "constant"),
        ("1 = any (array[id, 1])", "constant"),
        ("(1, id) < (2, 5)", "constant"),
        ("(1, id) <> (2, 5)", "constant"),
        ("(array[id])[2:1] = '{}'", "constant"),
        ("id in (select i.id from orders i, (values (1)) v(x) where v.x = 1)", "constant"),
        ("id in (select i.id from orders i join customers c on true where c.name = 'a')", "constant"),
        ("id in (select i.id from orders i, customers c where i.total = 1 or c.name = 'a')", "constant"),
        ("id in (select i.* from orders i, customers c where c.name = 'a')", "constant"),
        ("id in (select * from orders i, customers c where i.total = 1)", "constant"),
        ("id in (select s.id from (select id, 1 as one from orders) s where s.one = 1)", "constant"),
        ("id in (select notes.id from orders where total > 5)", "constant"),
        ("exists (select 1 from orders o where o.customer = notes.id or o.total = 1)", "constant"),
        ("coalesce(id, 1) = 1", "constant"),
        ("exists (select 1 from orders)", "constant"),
        ("exists (select 1 from orders where total > 5)", "constant"),
        ("exists (select 1 from notes n where n.id = notes.id)", "constant"),
        ("exists (select 1 from notes n where notes.id = id)", "constant"),
        ("exists (select 1 from orders o where o.customer = notes.id or true)", "constant"),
        ("exists (select notes.id)", "constant"),
        ("exists (select 1 from notes m (x, y) where m.x = notes.id)", "constant"),
        ("exists (select 1 from notes m (x, y) where x = notes.id)", "constant"),
        ("exists (select 1 from (select id as x from notes) m where x = notes.id)", "constant"),
        (
            "exists (select 1 from orders o, lateral (select notes.id as x) m where m.x = notes.id)",
            "constant",
        ),
        ("exists (with m as (select id as x from notes) select 1 from m where x = notes.id)", "constant"),
        ("exists (select 1 from orders o join customers c on true where o.customer = notes.id)", "real"),
        ("id in (select id from notes)", "constant"),
        ("id in (select id from notes where true)", "constant"),
        ("id in (select id from notes n where n.id = id)", "constant"),
        ("id in (select n.id from notes n where n.id is not null or true)", "constant"),
        ("id in (select customer from orders)", "constant"),
        ("id in (select customer from orders where total > 5 union select id from notes)", "constant"),
        ("id in (select id)", "constant"),
        ("id in (select unnest(array[id]))", "constant"),
        ("id in (1, (select notes.id))", "constant"),
        ("id in (id, 2)", "constant"),
        ("id = (select notes.id)", "constant"),
        ("id <= (select max(id) from notes)", "constant"),
        ("id = any (array(select id from notes))", "constant"),
        ("id = any (array[id])", "constant"),
        ("id <> all ('{}')", "constant"),
        ("id <> all (array[]::int[])", "constant"),
        ("id <> all ($1)", "constant"),
        ("id <> any (array[1, 2])", "constant"),
        ("not id = any ('{}')", "constant"),
        ("not id = all (array[1, 2])", "constant"),
        ("id <> any (select customer from orders where total > 5)", "constant"),
        ("(id, body) = (id, body)", "constant"),
        ("(id, 1) = (id, 1)", "constant"),
        ("id = coalesce(id, 1)", "constant"),
        ("id = case when true then id end", "constant"),
        ("(notes).id = id", "constant"),
        ("notes = notes", "constant"),
        ("notes.* is not distinct from notes.*", "constant"),
        ("now() > '2020-01-01'", "constant"),
        ("id = null", "constant"),
    ] {
        let text = format!("delete from notes where {condition}");
        if !items(&text).contains(&format!("write {expected}")) {
            wrong.push(format!("{text}: {}", items(&text)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(items("delete from notes n using orders o where o.id = n.id").contains("write real"));
    assert!(items("delete from notes using orders o where o.id = 1").contains("write constant"));
    for (using, condition) in [
        ("notes m", "m.id = n.id"),
        ("notes m (x, y)", "m.x = n.id"),
        ("notes m (x, y)", "x = n.id"),
        ("(select id as x from notes) m", "x = n.id"),
        ("(select m.id as x from (table notes) m) m", "m.x = n.id"),
    ] {
        let text = format!("delete from notes n using {using} where {condition}");
        assert!(items(&text).contains("write constant"), "{text}: {}", items(&text));
    }
    let with = "with m as (select id as x from notes)";
    for condition in ["n.id = m.x", "exists (select 1 from m k where k.x = n.id)"] {
        let text = format!("{with} delete from notes n using m where {condition}");
        assert!(items(&text).contains("write constant"), "{text}: {}", items(&text));
    }
    assert!(
        items("delete from notes n using notes m where m.id = n.id and m.body = 'a'")
            .contains("write constant")
    );
    assert!(
        items("delete from notes n using notes m where m.id = n.id and n.body = 'a'").contains("write real")
    );
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
fn a_text_that_asks_for_endless_work_is_refused() {
    let each = |count: usize, part: &dyn Fn(usize) -> String| -> String {
        (0..count).map(part).collect::<Vec<_>>().join(", ")
    };
    let doubling = each(40, &|n| format!("c{} as (select x.*, y.* from c{n} x, c{n} y)", n + 1));
    let recursive = (0..20).fold("select 1 as n".to_owned(), |inner, n| {
        format!("with recursive r{n} as (({inner}) union all select n + 1 from r{n}) select n from r{n}")
    });
    let restrictions = |column: &str| vec![format!("{column} > 1"); 5_000].join(" and ");
    for text in [
        format!("with c0 as (select 1 as a), {doubling} select 1 from c40"),
        format!("select 1 from {}", each(100_000, &|_| "notes".into())),
        format!("select * from {}", each(100_000, &|_| "notes".into())),
        format!(
            "select {} order by {}",
            each(40_000, &|n| format!("1 a{n}")),
            each(40_000, &|n| format!("a{n}"))
        ),
        format!("select 1 from {}", each(20_000, &|n| format!("nosuch{n}"))),
        format!("with recursive {} select 1", each(20_000, &|n| format!("c{n} as (select 1)"))),
        recursive,
    ] {
        assert!(attempt(&text, &shop(), &Overlay::default()).is_err(), "{}", &text[..60]);
    }
    let outputs = each(300, &|n| format!("o{n}.id"));
    let wide = each(300, &|n| format!("orders o{n}"));
    let many = format!("delete from notes where id in (select row({outputs}) from {wide} where o0.id = 1)");
    assert!(items(&many).contains("constant"), "the condition is on one range of many");
    let tangled =
        format!("delete from notes where ({}) or ({})", restrictions("id"), restrictions("length(body)"));
    assert!(words(&understood(&tangled, &shop()).shape).contains("constant"), "nothing is certain");
}

#[test]
fn copy_options_are_told() {
    let statements = understood(
        "copy notes to stdout with (format csv, delimiter ';', null 'N', quote '''', header, force_quote (id))",
        &shop(),
    );
    let super::super::Effect::CopyOut(options) = &statements.list[0].effect else { panic!() };
    assert!(options.csv && options.header && !options.binary);
    assert_eq!(options.delimiter.as_deref(), Some(";"));
    assert_eq!((options.null.as_deref(), options.quote.as_deref()), (Some("N"), Some("'")));
}

#[test]
fn a_copy_s_header_is_read_as_the_server_reads_it() {
    for (written, there) in [
        ("header", true),
        ("header true", true),
        ("header 'ON'", true),
        ("header 1", true),
        ("header false", false),
        ("header 'FALSE'", false),
        ("header \"Off\"", false),
        ("header 0", false),
    ] {
        let statements = understood(&format!("copy notes to stdout with (format csv, {written})"), &shop());
        let super::super::Effect::CopyOut(options) = &statements.list[0].effect else { panic!() };
        assert_eq!(options.header, there, "{written}");
    }
}

#[test]
fn copy_options_that_two_could_read_differently_are_refused() {
    for written in [
        "header (off)",
        "header *",
        "header 2",
        "header 'no'",
        "delimiter *",
        "delimiter ('|')",
        "delimiter",
        "null *",
        "null ('x')",
        "quote *",
        "escape (a, b)",
        "format (csv)",
        "encoding *",
        "nosuch 1",
    ] {
        let text = format!("copy notes to stdout with (force_quote *, {written})");
        assert!(attempt(&text, &shop(), &Overlay::default()).is_err(), "{written}");
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

#[test]
fn a_merge_changes_rows_as_its_clauses_do_and_is_restricted_as_they_are() {
    for (clauses, expected) in [
        ("o.id = n.id when matched then delete", "delete public.notes write real"),
        ("true when matched then delete", "delete public.notes write constant"),
        ("true when matched and n.id = 1 then delete", "delete public.notes write real"),
        ("true when matched and true then delete", "delete public.notes write constant"),
        ("true when matched then update set body = 'a'", "update public.notes write constant"),
        ("o.id = n.id when matched then update set body = 'a'", "update public.notes write real"),
        ("o.id = n.id when not matched by source then delete", "delete public.notes write none"),
        ("o.id = n.id when not matched by source and n.id = 1 then delete", "delete public.notes write real"),
        (
            "o.id = n.id when matched and n.body = 'a' then delete when not matched by source then delete",
            "delete public.notes write none",
        ),
        ("o.id = n.id when not matched then insert values (1, 'a')", "insert public.notes write"),
    ] {
        let text = format!("merge into notes n using orders o on {clauses}");
        assert!(items(&text).contains(expected), "{text}: {}", items(&text));
    }
    assert!(
        !items("merge into notes n using orders o on true when matched then do nothing").contains("delete")
    );
}

#[test]
fn a_list_of_more_outputs_than_the_server_takes_is_refused_in_its_words() {
    let stars = |n: usize| vec!["*"; n].join(", ");
    let columns = |n: usize| vec!["id"; n].join(", ");
    assert!(attempt(&format!("select {} from customers", stars(416)), &shop(), &Overlay::default()).is_ok());
    for text in [
        format!("select {} from customers", stars(417)),
        format!("select {} from customers", columns(1665)),
        format!("select count(*) from (select {} from customers) s", stars(417)),
        format!("with c as (select {} from customers) select 1 from c", stars(200_000)),
        format!("insert into notes values (1, '') returning {}", stars(1000)),
        format!("prepare p as select {} from customers", stars(417)),
        format!("declare c cursor for select {} from customers", stars(417)),
        format!("select * from json_to_record('{{}}') as r({} int)", columns(2000).replace(',', " int,")),
    ] {
        let refused = attempt(&text, &shop(), &Overlay::default()).unwrap_err();
        assert_eq!(refused.fault, Fault::TooManyOutputs, "{}", &text[..60]);
        assert_eq!(refused.reason, "target lists can have at most 1664 entries");
    }
}

#[test]
fn what_a_text_is_understood_as_takes_bounded_memory() {
    let wide = format!("select {} from customers", ["*"; 416].join(", "));
    let prepares = |count: usize| {
        let each: Vec<String> = (0..count).map(|n| format!("prepare p{n} as {wide}")).collect();
        attempt(&each.join("; "), &shop(), &Overlay::default())
    };
    let weight = prepares(20).unwrap().weight;
    assert!((20 * 1664 * size_of::<tidegate_policy::Output>()..8 << 20).contains(&weight), "{weight}");
    let refused = prepares(90).unwrap_err();
    assert_eq!(refused.reason, "what the statements do takes more memory than the gate gives");
}

#[test]
fn a_text_that_asks_for_exponentially_much_is_refused_before_it_is_made() {
    let wide = format!("select {} from customers", ["*"; 416].join(", "));
    let names: Vec<String> = (0..100_000).map(|n| format!("c{n}")).collect();
    for text in [
        [&*wide; 500].join("; "),
        format!("select {} from ({wide}) c", ["c"; 1600].join(", ")),
        format!("select * from json_to_record('{{}}') as r({} int)", names.join(" int, ")),
    ] {
        let started = std::time::Instant::now();
        assert!(attempt(&text, &shop(), &Overlay::default()).is_err(), "{}", &text[..60]);
        assert!(started.elapsed().as_secs() < 30, "{}", &text[..60]);
    }
}
