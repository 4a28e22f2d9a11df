//! Where outputs come from: each case is a way to smuggle a masked value past its mask.

use super::*;

pub(super) const EMAIL: &str = "public.customers.email";

/// How each output of the first result carries the e-mail: `-` not, `p` plainly, `c` computed; `?` untraced.
pub(super) fn carried(text: &str) -> String {
    let statements = understood(text, &shop());
    let lineage = statements.shape.results.first().unwrap_or_else(|| panic!("{text} has no result"));
    if lineage.untraced.is_some() {
        return "?".into();
    }
    let letter = |output: &tidegate_policy::Output| match (
        output.sources.iter().any(|s| &**s == EMAIL),
        output.computed,
    ) {
        (false, _) => '-',
        (true, false) => 'p',
        (true, true) => 'c',
    };
    lineage.outputs.iter().map(letter).collect()
}

#[test]
fn outputs_carry_what_they_come_from() {
    for (text, expected) in [
        ("select * from customers", "--p-"),
        ("table customers", "--p-"),
        ("select c.*, 1 from customers c", "--p--"),
        ("select public.customers.email from customers", "p"),
        ("select email as name from customers", "p"),
        ("select (email) collate \"C\" from customers", "p"),
        ("select email::text from customers", "c"),
        ("select email || '' from customers", "c"),
        ("select lower(email) from customers", "c"),
        ("select c from customers c", "c"),
        ("select customers from customers", "c"),
        ("select (c).email from customers c", "p"),
        ("select (c).* from customers c", "--p-"),
        ("select c::text from customers c", "c"),
        ("select row_to_json(c) from customers c", "c"),
        ("select json_agg(c.*) from customers c", "c"),
        ("select string_agg(email, ',') from customers", "c"),
        ("select count(*) from customers", "-"),
        ("select count(email) from customers", "c"),
        ("select count(c) from customers c", "c"),
        ("select array(select email from customers)", "c"),
        ("select (select email from customers limit 1)", "p"),
        ("select exists (select email from customers)", "-"),
        ("select 'a' in (select email from customers)", "c"),
        ("select case when email like 'a%' then 1 end from customers", "c"),
        ("select coalesce(email, '') from customers", "c"),
        ("select nullif(email, 'a') from customers", "c"),
        ("select email = 'a' from customers", "c"),
        ("select email is null from customers", "c"),
        ("select row(id, email) from customers", "c"),
        ("select array[email] from customers", "c"),
        ("select s.x from (select email as x from customers) s", "p"),
        ("select x from (select id, email from customers) s (y, x)", "p"),
        ("select * from (select * from customers) s", "--p-"),
        ("select * from (values (1, (select email from customers))) v (a, b)", "-p"),
        ("select column1 from (values ('a'), ((select max(email) from customers))) v", "c"),
        ("with c as (select email from customers) select * from c", "p"),
        ("with c (a) as (select email from customers) select a from c", "p"),
        ("with a as (select email from customers), b as (select * from a) select * from b", "p"),
        ("with customers as (select 1 as email) select email from customers", "-"),
        (
            "with recursive r as (select id, name from customers union all select id, email from customers) select * from r",
            "-p",
        ),
        (
            "with recursive r (a, b) as (select email, name from customers union all select b, a from r) select a, b from r",
            "pp",
        ),
        ("select name from customers union all select email from customers", "p"),
        ("select 1 union select 2 union select email from customers", "p"),
        ("(select name from notes, customers) except all (select email from customers)", "p"),
        (
            "select o.id, e.email from orders o, lateral (select email from customers c where c.id = o.customer) e",
            "-p",
        ),
        ("select * from orders o join customers c on c.id = o.customer", "-----p-"),
        ("select * from orders join customers using (id)", "----p-"),
        ("select * from orders natural join customers", "----p-"),
        ("select j.email from (orders o join customers c using (id)) j", "p"),
        ("select j.* from (orders o join customers c using (id)) as j", "----p-"),
        ("select max(email) over (partition by id) from customers", "c"),
        ("select * from mails", "-p"),
        ("select a from mails2", "p"),
        ("select m from mails2 m", "c"),
        ("select x.e from customers c (i, n, e, k), lateral (select c.e) x", "p"),
        ("update customers set name = 'x' where id = 1 returning *", "--p-"),
        ("delete from customers where id = 1 returning email", "p"),
        ("insert into customers (id) values (1) returning customers.email", "p"),
        ("with d as (delete from customers where id = 1 returning *) select email from d", "p"),
        (
            "merge into orders o using customers c on o.id = c.id when matched then delete returning c.email",
            "p",
        ),
        // The source comes first.
        (
            "merge into orders o using customers c on o.id = c.id when matched then delete returning *",
            "--p----",
        ),
        (
            "merge into customers c using orders o on o.id = c.id when matched then delete returning *",
            "-----p-",
        ),
        ("update orders o set total = 1 from customers c where c.id = o.id returning *", "-----p-"),
        ("update customers set name = 'x' where id = 1 returning old.email, new.email, old.*", "pp--p-"),
        ("update customers set name = 'x' where id = 1 returning with (old as o) o.email, o", "pc"),
        (
            "select * from customers c, json_table(c.email, '$' columns (nested '$' columns (a text path '$'), \
             b int exists path '$'))",
            "--p-cc",
        ),
        ("copy customers to stdout", "--p-"),
        ("copy customers (email, id) to stdout csv", "p-"),
        ("copy (select email from customers) to stdout", "p"),
        ("select email(c) from customers c", "?"),
        ("select nosuch from customers", "c"),
        ("select nosuch.email from customers", "c"),
        ("select mine()", "?"),
        ("select pure(email) from customers", "c"),
        ("select query_to_xml('select email from customers', true, true, '')", "?"),
        ("select most_common_vals from pg_stats", "?"),
        ("select tablename from pg_stats", "-"),
        ("select * from odd", "?"),
        ("select * from twice", "?"),
        ("select * from nowhere", "?"),
        ("select email from nowhere", "?"),
        ("explain select email from customers", "-"),
        ("show all", "---"),
        ("fetch all from c", "?"),
        ("execute p", "?"),
    ] {
        assert_eq!(carried(text), expected, "{text}");
    }
}

pub(super) fn paths(list: &[tidegate_policy::Path]) -> Vec<&str> {
    list.iter().map(|path| &**path).collect()
}

#[test]
fn whatever_decides_rows_or_their_order_is_an_influence() {
    for text in [
        "select id from customers where email like 'a%'",
        "select id from customers order by email",
        "select id, email from customers order by 2",
        "select id, email as x from customers order by x",
        "select count(*) from customers group by email",
        "select id, email from customers group by 1, 2",
        "select count(*) from customers group by rollup (id, email)",
        "select id from customers group by id having max(email) > 'a'",
        "select distinct email from customers",
        "select distinct on (email) id from customers",
        "select rank() over (order by email) from customers",
        "select rank() over w from customers window w as (partition by email)",
        "select 1 from orders o join customers c on c.email = o.id::text",
        "select 1 from customers a join customers b using (email)",
        "select 1 from customers a natural join customers b",
        "select 1 where exists (select 1 from customers where email = 'a')",
        "select 1 from notes where body in (select email from customers)",
        "select id from orders limit (select count(email) from customers)",
        "select name from customers union select email from customers",
        "select name from customers intersect all select email from customers",
        "update orders set total = 1 from customers c where c.email = 'a'",
        "delete from orders using customers c where c.email = 'a'",
        "update customers set name = 'a' where email = 'b'",
        "merge into orders o using customers c on c.email = 'a' when matched then delete",
        "merge into orders o using customers c on true when matched and c.email = 'a' then delete",
        "insert into customers (id) values (1) on conflict (id) do update set name = 'a' where customers.email = 'b'",
        "insert into customers (id, email) values (1, 'a') on conflict (email) do nothing returning id",
        "insert into customers (id, email) values (1, 'a') on conflict (id, email) do update set name = 'b' returning id",
        "insert into customers (id, email) values (1, 'a') on conflict (lower(email)) do nothing",
        "insert into customers (id, email) values (1, 'a') on conflict on constraint customers_email_key do nothing",
        "insert into customers (id, email) values (1, 'a') on conflict do nothing",
        "select a from mails2 where a = 'x'",
        "explain analyze select 1 from customers where email = 'a'",
        "prepare p as select 1 from customers where email = 'a'",
        "declare c cursor for select 1 from customers where email = 'a'",
        "create index on customers (lower(email))",
        "create index on customers (id) where email > 'a'",
        "alter table customers add check (email > 'a')",
        // Whether these fail, or how they leave the rows, tells of the values.
        "alter table customers add unique (email)",
        "alter table customers add primary key (id, email)",
        "alter table customers add exclude using gist (email with =)",
        "alter table customers add foreign key (email) references notes (body)",
        "alter table customers alter column email type varchar(15)",
        "alter table notes add foreign key (body) references customers (email)",
        "create table t (a text references customers)",
        "create unique index on customers (id, email)",
        "create index on customers (email)",
        "create statistics s on (length(email)), id from customers",
        "cluster customers using by_email",
        "select 1 from customers tablesample system ((select count(email) from customers))",
        "create view v as select 1 from customers where email = 'a'",
        "select id from customers c where c = row(1, 'a', 'b', 'c')",
        "select id from customers order by nosuch",
        "with recursive r (a) as (select 'guess' union all select c.email from r, customers c) \
         cycle a set found using path select count(*) from r",
        "select count(*) from customers c, generate_series(1, length(c.email))",
        "select count(*) from (select generate_series(1, length(email)) from customers) s",
        "select 1 from customers, xmltable('/a' passing (email::xml) columns x text)",
        "with recursive r as (select 1 as n union all select n + 1 from r, customers where email = 'a') select n from r",
    ] {
        let statements = understood(text, &shop());
        assert!(paths(&statements.shape.influences).contains(&EMAIL), "{text}");
    }
}

#[test]
fn what_is_merely_shown_is_no_influence() {
    for text in [
        "select email from customers where id = 1 order by name",
        "select id from customers union all select id from orders",
        "insert into customers (id, email) values (1, 'a') on conflict (id) do nothing",
        "insert into customers (id, email) values (1, 'a') on conflict (id) do update set email = excluded.email",
        "select * from mails where id = 1",
        "create index on customers (id)",
        "alter table customers add unique (id)",
        "create table t (a int references customers (id))",
        "alter table customers alter column id type bigint",
    ] {
        assert!(!paths(&understood(text, &shop()).shape.influences).contains(&EMAIL), "{text}");
    }
}

#[test]
fn what_is_computed_is_told_even_if_nothing_shows_it() {
    for text in [
        "explain analyze select lower(email) from customers",
        "with c as materialized (select email::regclass from customers) select count(*) from c",
        "select count(*) from (select 1 / length(email) from customers offset 0) s",
        "declare c cursor with hold for select email::int from customers",
        "prepare p as select email::int from customers",
        "select exists (select email::int from customers)",
        "update customers set email = (email::regclass)::text where id = 1",
        "insert into orders (id) values ((select email::int from customers where id = 1))",
        "delete from orders where id = 1 returning (select email::int from customers where id = 1)",
    ] {
        let statements = understood(text, &shop());
        assert!(paths(&statements.shape.computed).contains(&EMAIL), "{text}");
    }
    for text in [
        "select * from customers",
        "select c.email from customers c",
        "copy customers to stdout",
        "select exists (select email from customers)",
        "select * from mails",
        "insert into customers (id, email) values (1, 'a') on conflict (lower(email)) do nothing",
    ] {
        assert!(!paths(&understood(text, &shop()).shape.computed).contains(&EMAIL), "{text}");
    }
}

#[test]
fn a_generated_column_is_computed_from_the_columns_it_is_made_from() {
    let statements = understood("select address from made", &shop());
    let output = &statements.shape.results[0].outputs[0];
    assert!(output.computed && paths(&output.sources).contains(&"public.made.email"));
}

#[test]
fn what_leaves_something_behind_says_so() {
    for (text, keeps) in [
        ("select id from customers where email like 'a%'", false),
        ("select lower(name) from customers order by email", false),
        ("declare c cursor for select id from customers where email like 'a%'", false),
        ("explain select id from customers where email like 'a%'", false),
        ("select id from customers where email like 'a%' for update", true),
        ("select id from (select id from customers where email like 'a%' for share) s", true),
        ("select public.makes() from customers where email like 'a%'", true),
        ("select set_config('my.x', name, false) from customers where email like 'a%'", true),
        ("select a from tells, customers where email like 'a%'", true),
        ("insert into notes select id from customers where email like 'a%'", true),
        (
            "with w as (insert into notes values (1) returning id) select 1 from w, customers where email like 'a%'",
            true,
        ),
        ("update notes set body = '' from customers c where c.email like 'a%'", true),
        ("delete from notes using customers c where c.email like 'a%'", true),
        ("merge into notes n using customers c on c.email like 'a%' when matched then delete", true),
        ("create temp table z as select id from customers where email like 'a%'", true),
        ("create temp view z as select id from customers where email like 'a%'", true),
        ("select id into temp z from customers where email like 'a%'", true),
        ("copy (select id from customers where email like 'a%') to '/tmp/x'", true),
        ("copy (select id from customers where email like 'a%') to stdout", false),
        ("explain analyze delete from notes using customers c where c.email like 'a%'", true),
        ("prepare p as delete from notes using customers c where c.email like 'a%'", true),
    ] {
        assert_eq!(understood(text, &shop()).shape.keeps, keeps, "{text}");
    }
}

#[test]
fn copies_to_other_columns_are_told() {
    for text in [
        "insert into notes (body) select email from customers",
        "insert into notes select id, email from customers",
        "insert into notes (id, body) values (1, (select email from customers))",
        "insert into notes (id) select 1 from customers on conflict (id) do update set body = (select email from customers)",
        "insert into notes (id, body) select id, email from customers on conflict (id) do update set body = excluded.body",
        "update customers set name = email where id = 1",
        "update notes set (id, body) = (select id, email from customers) where id = 1",
        "update notes set body = c.email from customers c where c.id = notes.id",
        "create table t as select * from customers",
        "create temp table t as select email as x from customers",
        "create materialized view m as select email from customers",
        "select email into t from customers",
        "select id, email into t from customers union all select 1, 'a'",
        "merge into notes n using customers c on n.id = c.id when not matched then insert values (1, c.email)",
        "merge into notes n using customers c on n.id = c.id when matched then update set body = c.email",
        "with s as (select email from customers) insert into notes (body) select * from s",
        "copy customers to '/x'",
        // A column's values are made anew from another's.
        "alter table customers alter column name type text using email",
        "alter table customers alter email type text using left(email, 8)",
        "alter table customers alter column name set expression as (email)",
        "alter table customers alter email type \"char\"",
        "alter table customers alter email type varchar(3)",
        "alter table customers alter email type \"char\" using email",
        "alter table customers add column x text generated always as (email) stored",
        "alter table customers drop column name, add column name text generated always as (email) stored",
        // Into itself, but changed: a mask that keeps the last characters would show others each time.
        "update customers set email = left(email, 8) where id = 1 returning email",
        "insert into customers select id, name, left(email, 8), card from customers",
        "insert into customers (id) values (1) on conflict (id) do update set email = left(customers.email, 8)",
        "merge into customers c using orders o on c.id = o.id when matched then update set email = left(c.email, 8)",
        // To where the session finds it again: settings, notifications, sequences, locks.
        "select 1 from (select set_config('my.mail', email, false) from customers offset 0) s",
        "select pg_notify('mails', email) from customers",
    ] {
        assert!(paths(&understood(text, &shop()).shape.copied).contains(&EMAIL), "{text}");
    }
    for text in [
        "insert into customers select * from customers",
        "update customers set email = email where id = 1",
        "alter table customers alter email type varchar using email",
        "alter table customers alter email type text",
    ] {
        assert_eq!(paths(&understood(text, &shop()).shape.copied), Vec::<&str>::new(), "{text}");
    }
}

#[test]
fn a_text_that_becomes_one_of_somebodys_type_is_made_anew() {
    let catalog = shop();
    let request = CatalogRequest { types: [Arc::from("text")].into(), ..CatalogRequest::default() };
    let theirs = r#"{"name": "text", "functions": ["public.changes"]}"#.to_owned();
    let rows = Rows { types: vec![theirs], ..Rows::default() };
    catalog.learn(catalog.generation(), &request, &rows).unwrap();
    let shape = understood("alter table customers alter email type other.text", &catalog).shape.clone();
    assert!(paths(&shape.copied).contains(&EMAIL));
}

#[test]
fn what_leaves_the_path_that_a_mask_names_counts_as_copied() {
    for text in [
        "alter table customers rename column email to x",
        "alter table customers rename to x",
        "alter table customers set schema other",
        "alter table customers inherit notes",
        "alter table notes attach partition customers default",
        "alter index customers rename to x",
    ] {
        assert!(paths(&understood(text, &shop()).shape.copied).contains(&EMAIL), "{text}");
    }
    for text in [
        "alter table customers rename column name to x",
        "alter table customers rename constraint a to b",
        "alter view mails rename to x",
        "alter view mails set schema other",
    ] {
        assert!(!paths(&understood(text, &shop()).shape.copied).contains(&EMAIL), "{text}");
    }
    for text in [
        "alter schema public rename to other",
        "alter domain d add check (value > 'a')",
        "alter domain d set not null",
        "alter domain d validate constraint c",
    ] {
        assert!(understood(text, &shop()).shape.untraced.is_some(), "{text}");
    }
    assert!(understood("alter domain d drop not null", &shop()).shape.untraced.is_none());
    let generated = understood("alter table made alter column address drop expression", &shop());
    assert!(paths(&generated.shape.copied).contains(&"public.made.email"));
}

#[test]
fn conditions_on_what_cannot_be_traced_are_told() {
    for text in [
        "select 1 from pg_stats where most_common_vals = 'a'",
        "insert into notes (body) select most_common_vals from pg_stats",
        "select id from customers where mine() = 'a'",
    ] {
        assert!(understood(text, &shop()).shape.untraced.is_some(), "{text}");
    }
    assert!(understood("select 1 from customers where id = 1", &shop()).shape.untraced.is_none());
}

#[test]
fn a_column_counts_for_its_whole_inheritance_tree() {
    for table in ["parent", "child", "only parent"] {
        let statements = understood(&format!("select secret from {table}"), &shop());
        let sources = paths(&statements.shape.results[0].outputs[0].sources);
        assert!(
            sources.contains(&"public.parent.secret") && sources.contains(&"public.child.secret"),
            "{table}"
        );
    }
}

#[test]
fn a_name_in_several_schemas_means_all_of_them() {
    let statements = understood("select id from twice", &shop());
    assert_eq!(paths(&statements.shape.results[0].outputs[0].sources), ["a.twice.id", "b.twice.id"]);
    assert_eq!(paths(&statements.shape.touched), ["a.twice", "b.twice"]);
    let statements = understood("select * from b.twice", &shop());
    assert_eq!(statements.shape.results[0].outputs.len(), 2);
}

#[test]
fn views_touch_the_tables_behind_them() {
    assert_eq!(
        paths(&understood("select a from mails2", &shop()).shape.touched),
        ["public.customers", "public.mails", "public.mails2"]
    );
}

#[test]
fn what_a_session_created_is_known_to_it() {
    let (catalog, mut overlay) = (shop(), Overlay::default());
    overlay.follow(&understood("create temp table t (id int, body text)", &catalog));
    overlay.follow(&understood("create view v as select email as x from customers", &catalog));
    let of = |text: &str| attempt(text, &catalog, &overlay).unwrap().shape.clone();
    assert_eq!(of("select * from t").results[0].outputs.len(), 2);
    assert_eq!(paths(&of("select body from t").results[0].outputs[0].sources), ["pg_temp.t.body"]);
    assert_eq!(paths(&of("select x from v").results[0].outputs[0].sources), [EMAIL]);
    overlay.follow(&understood("discard all", &catalog));
    let of = |text: &str| attempt(text, &catalog, &overlay).unwrap().shape.clone();
    let sources = of("select x from v").results[0].outputs[0].sources.clone();
    assert!(paths(&sources).contains(&EMAIL), "it may have failed");
}

#[test]
fn a_table_that_the_session_put_in_front_of_another_takes_copies_of_it() {
    let catalog = shop();
    let copies = |created: &str, text: &str| {
        let mut overlay = Overlay::default();
        overlay.follow(&understood(created, &catalog));
        let shape = attempt(text, &catalog, &overlay).unwrap().shape.clone();
        paths(&shape.copied).contains(&EMAIL)
    };
    for created in [
        "create table customers (id int, name text, email text, card text)",
        "create table customers (like notes)",
        "create view customers as select id, body as email from notes",
        "create schema store create table customers (id int, email text)",
        "create schema authorization me create table customers (id int, email text)",
        "alter table notes rename to customers",
        "alter view mails rename to customers",
    ] {
        for text in [
            "insert into customers (id, email) select id, email from public.customers",
            "insert into customers select id, name, email, card from public.customers",
            "insert into customers select 1, '', '', '', email from public.customers",
            "update customers set email = c.email from public.customers c where c.id = customers.id",
            "merge into customers t using public.customers c on c.id = t.id when matched then update set email = c.email",
            "merge into customers t using public.customers c on c.id = t.id when not matched then insert (email) values (c.email)",
        ] {
            assert!(copies(created, text), "{created}; {text}");
        }
    }
    let own = "insert into public.customers (id, email) select id, email from public.customers";
    assert!(!copies("create table customers (id int, email text)", own), "its schema is written");
    let own = "insert into customers (id, email) select id, email from customers";
    assert!(!copies("create table other (id int)", own), "of another name");
}

#[test]
fn what_a_session_renamed_shows_what_it_did_before() {
    let catalog = shop();
    let shows = |renamed: &str, text: &str| {
        let mut overlay = Overlay::default();
        overlay.follow(&understood(renamed, &catalog));
        let shape = attempt(text, &catalog, &overlay).unwrap().shape.clone();
        shape.results[0].untraced.is_some() || paths(&shape.results[0].outputs[0].sources).contains(&EMAIL)
    };
    assert!(shows("alter view mails rename to customers2", "select address from customers2"));
    assert!(shows("alter view mails rename column address to mail", "select mail from mails"));
    assert!(shows("alter view mails rename column id to address", "select id from mails"), "perhaps swapped");
    assert!(!shows("alter table notes rename column body to id", "select id from notes"));
    assert!(understood("alter table notes rename to fresh", &catalog).changes_definitions());
}

#[test]
fn a_table_of_a_name_that_others_use_changes_what_names_stand_for() {
    let catalog = shop();
    for text in [
        "create table store.customers (id int)",
        "create table customers (id int)",
        "create table if not exists customers (id int)",
        "create table b.customers as select 1 as id",
        "create table a.twice (id int)",
        "create table store.customers as select 1 as id",
        "select 1 as id into store.customers",
        "create schema store create table customers (id int)",
    ] {
        assert!(understood(text, &catalog).changes_definitions(), "{text}");
    }
    for text in [
        "create table store.fresh (id int)",
        // Migration tools say it at each start: it is there, or made where nobody has one.
        "create table if not exists public.customers (id int)",
        "create table fresh as select 1 as id",
        "create temp table customers (id int)",
        "create table pg_temp.customers (id int)",
    ] {
        assert!(!understood(text, &catalog).changes_definitions(), "{text}");
    }
}

#[test]
fn a_session_that_creates_too_many_relations_is_followed_no_more() {
    let (catalog, mut overlay) = (shop(), Overlay::default());
    overlay.follow(&understood(
        "create temp view notes as select 1 as id, email as body from customers",
        &catalog,
    ));
    for index in 0..1024 {
        overlay.follow(&understood(&format!("create temp table t{index} (id int)"), &catalog));
    }
    let shape = attempt("select body from notes", &catalog, &overlay).unwrap().shape.clone();
    assert!(
        shape.results[0].untraced.is_some() || paths(&shape.results[0].outputs[0].sources).contains(&EMAIL)
    );
    let shape = attempt("select id from t1023", &catalog, &overlay).unwrap().shape.clone();
    assert!(shape.results[0].untraced.is_some());
}

#[test]
fn prepared_statements_and_cursors_carry_what_their_query_does() {
    let catalog = shop();
    let prepared = understood("prepare p as select email from customers", &catalog);
    let super::super::Effect::Prepare { inner, .. } = &prepared.list[0].effect else { panic!() };
    let execute = understood("execute p; fetch c", &catalog);
    let cursor = || Cursor { meanings: vec![inner.clone()], certain: true, forgotten: false };
    let shape = execute.linked(|_| Some(inner.clone()), |_| cursor()).unwrap();
    assert_eq!(paths(&shape.results[0].outputs[0].sources), [EMAIL]);
    assert_eq!(paths(&shape.results[1].outputs[0].sources), [EMAIL]);
    let words = super::statements::words(&shape);
    assert!(!words.contains("execute-text") && words.contains("select public.customers read"), "{words}");
    assert!(execute.linked(|_| None, |_| Cursor::default()).is_none());
    let fetch = understood("fetch c", &catalog);
    let forgotten = fetch.linked(|_| None, |_| Cursor { forgotten: true, ..Cursor::default() }).unwrap();
    assert!(super::statements::words(&forgotten).contains("execute-text"));
    let several = || Cursor { meanings: vec![inner.clone()], certain: false, forgotten: false };
    let shape = fetch.linked(|_| None, |_| several()).unwrap();
    assert!(super::statements::words(&shape).contains("select public.customers read"));
    assert!(shape.results[0].untraced.is_some());
}
