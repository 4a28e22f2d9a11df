//! Where the server finds what a name means, among levels of queries and relations of one name. Each case is a way to have
//! a masked value found where the gate doesn't look.

use super::{
    lineage::{EMAIL, carried, paths},
    *,
};

/// Whether the first result may carry the e-mail.
fn may_carry(statements: &Statements) -> bool {
    let result = &statements.shape.results[0];
    match (&result.untraced, &result.among) {
        (None, _) => result.outputs.iter().any(|output| paths(&output.sources).contains(&EMAIL)),
        (Some(_), Some(among)) => paths(among).contains(&EMAIL),
        (Some(_), None) => true,
    }
}

#[test]
fn a_name_that_an_inner_query_may_lack_is_an_outer_one_as_well() {
    for text in [
        // No table has it, no view has any system column, and no join shows those of its sides.
        "select (select oid from customers limit 1) from (select email as oid from customers) o",
        "select (select ctid from mails limit 1) from (select email as ctid from customers) o",
        "select (select xmin from orders a join orders b on true limit 1) from (select email as xmin from customers) o",
        "select (select ctid from (select 1) i) from (select email as ctid from customers) o",
        // A cast names what has no name, and CASE goes before it.
        "select (select int4 from (select 1::int4::text) i) from (select email as int4 from customers) o",
        "select (select text from (select case when true then 'a' else 'b'::text end) i) \
         from (select email as text from customers) o",
        "select (select c from (select c.* from orders c) i limit 1) from (select email as c from customers) o",
        "select (select c from (select (select c.* from notes c)) i) from (select email as c from customers) o",
        // A function's column goes by its parameter's name before its alias.
        "select (select x from jsonb_array_elements('[1]') as x) from (select email as x from customers) o",
        "select (select x from unnest('a:1'::tsvector) as x) from (select email as x from customers) o",
        "select (select x from cast('(1,2)' as notes) as x) from (select email as x from customers) o",
        // One of two tables of that name has it.
        "select (select y from (select 1) one left join twice on true) from (select email as y from customers) o",
        "select (select y from (select * from twice) i limit 1) from (select email as y from customers) o",
        "select (select y from nowhere limit 1) from (select email as y from customers) o",
    ] {
        assert!(may_carry(&understood(text, &shop())), "{text}");
    }
}

#[test]
fn a_name_that_the_gate_does_not_know_is_an_inner_one_as_well() {
    for text in [
        "select (select column1 from (select (values (c.email)) from customers c) i limit 1) from (select 1 as column1) o",
        "select (select x from (select (select s.* from (select email as x from customers) s)) i) from (select 1 as x) o",
        "select (select xmlforest from (select xmlforest(email) from customers) i) from (select 1 as xmlforest) o",
        "select (select coalesce.coalesce from customers, lateral coalesce(email, 'a') limit 1) \
         from (select 1 as coalesce) coalesce",
        "select (select coalesce.lower from customers, lateral rows from (coalesce(email, 'a'), lower(email)) limit 1) \
         from (select 1 as lower) coalesce",
        "select (select column2 from ts_stat_like((select email from customers))) from (select 1 as column2) o",
    ] {
        assert!(may_carry(&understood(text, &shop())), "{text}");
    }
}

#[test]
fn a_column_goes_before_a_row_of_its_name() {
    let row = "(select p as c from (select email as id from customers) p) s, (select 1 as id) c";
    for text in [format!("select (c).id from {row}"), format!("select (c).* from {row}")] {
        assert!(may_carry(&understood(&text, &shop())), "{text}");
    }
    assert_eq!(carried("select (c).email from customers c, (select 1 as d) s"), "p");
}

#[test]
fn an_expression_in_from_that_the_server_names_is_refused_without_an_alias() {
    let is_refused = |text: &str| attempt(text, &shop(), &Overlay::default()).is_err();
    assert!(is_refused(
        "select xmlconcat.x from (select email as x from customers) xmlconcat, xmlconcat(null)"
    ));
    assert!(!is_refused("select * from xmlconcat(null) as x"));
    assert!(!is_refused("select * from current_user"));
}

#[test]
fn an_oracle_and_a_copy_by_such_a_name_are_told() {
    let text = "select 1 from (select email as oid from customers) o where exists (select 1 from orders where oid like '4%')";
    assert!(paths(&understood(text, &shop()).shape.influences).contains(&EMAIL));
    let text =
        "update notes set body = (select oid from notes limit 1) from (select email as oid from customers) o";
    assert!(paths(&understood(text, &shop()).shape.copied).contains(&EMAIL));
    for sorted in ["column1 || ''", "\"*VALUES*\".column1"] {
        let text = format!(
            "select s.column2 from customers c, (select 'x' as column1) o, (select 'y' as column1) \"*VALUES*\", \
             lateral (values (c.email, 'less'), ('a', 'more') order by {sorted} limit 1) s"
        );
        assert!(paths(&understood(&text, &shop()).shape.influences).contains(&EMAIL), "{text}");
    }
    let text = "select 1 from (select length(email) as x from customers) o, lateral \
        (select 1 from (select 2 as x) i, notes tablesample system (x)) s";
    assert!(paths(&understood(text, &shop()).shape.influences).contains(&EMAIL));
}

#[test]
fn what_stands_behind_an_unknown_number_of_columns_is_not_known_by_its_place() {
    for text in [
        "select d from (select * from jsonb_array_elements('[1]') as email natural join customers) x (a, b, c, d)",
        "select c from (select * from unnest('a:1'::tsvector) u natural join customers) x (a, b, c)",
        "select d from (select * from cast('(1,2)' as notes) n, customers) x (a, b, c, d)",
        "select f from (select * from twice right join customers p on true) x (a, b, c, d, e, f)",
        "select c from (select * from (select 1::int) i natural join customers) x (a, b, c)",
        "select d from (select * from (select 1::int) i join customers using (id)) x (a, b, c, d)",
        "select x.c from ((select 1 as \"?column?\", 'x'::text) l join \
         (select 1 as \"?column?\", email, name from customers) r using (\"?column?\")) x (a, b, c)",
        "with u as (update orders set total = 1 from customers a join customers b using (id) returning *) \
         select i from u t (a, b, c, d, e, f, g, h, i)",
        "with u as (delete from orders using customers a join customers b using (id) returning *) \
         select i from u t (a, b, c, d, e, f, g, h, i)",
    ] {
        assert!(may_carry(&understood(text, &shop())), "{text}");
    }
}

/// What a session made that these texts ran in, and then asks.
fn after(made: &[&str], text: &str) -> Arc<Statements> {
    let catalog = shop();
    let mut overlay = Overlay::default();
    for made in made {
        overlay.follow(&attempt(made, &catalog, &overlay).unwrap_or_else(|error| panic!("{made}: {error}")));
    }
    attempt(text, &catalog, &overlay).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_table_that_a_session_makes_anew_or_alters_may_have_other_columns() {
    for made in [
        [
            "create temp table notes (id int, body text, more text)",
            "create temp table notes (id int, body text)",
        ],
        ["create temp table notes (id int)", "drop table notes"],
        ["create temp table notes (id int, body text)", "alter table notes drop column body"],
        ["create temp table notes (id int, body text)", "alter table pg_temp.notes add column more text"],
        ["select 1", "alter table notes add column more text"],
        ["select 1", "alter table public.notes drop column body"],
        ["select 1", "create table notes (id int)"],
        ["select 1", "create temp view notes as select 1 as id"],
        ["select 1", "create temp sequence notes"],
        [
            "select 1",
            "create temp table t (id int generated always as identity (sequence name pg_temp.notes))",
        ],
        [
            "create temp table t (id int)",
            "alter table t alter id add generated always as identity (sequence name notes)",
        ],
        ["select 1", "explain analyze create temp table notes as select 1 as id"],
        ["select 1", "explain analyze select 1 as id into temp notes"],
        ["create temp table t (id int)", "alter table t rename to notes"],
        ["create temp table notes (id int, body text)", "create table pg_temp_3.notes (id int)"],
        ["create temp table notes (id int, body text)", "alter table pg_temp_3.notes drop column body"],
        ["create temp table x (q int) on commit drop", "create temp table notes (id int, body x)"],
        ["create temp table notes (id int, body x)", "drop table x cascade"],
        ["create temp table notes (id int, body x)", "drop type x cascade"],
        ["create temp table notes (id int, body x)", "drop owned by app"],
        ["create table notes (id int, body x)", "discard temp"],
        ["create table notes (id int, body x)", "discard all"],
        ["create temp table notes of x", "alter type x add attribute more text cascade"],
        ["select 1", "select public.makes()"],
        ["select 1", "do 'begin end'"],
        ["select 1", "call public.makes()"],
        ["create temp table notes (id int, body text)", "alter table notes inherit parent"],
    ] {
        // Each number of columns that may stand before the e-mail.
        for place in ["c", "d", "e", "f", "g"] {
            let text = format!(
                "select {place} from (select * from notes right join customers p on true) x (a, b, c, d, e, f, g)"
            );
            assert!(may_carry(&after(&made, &text)), "{made:?}; {text}");
        }
    }
    let made = ["create temp table notes (id int, body text)", "create table pg_temp_3.notes (id int)"];
    let text =
        "select e from (select * from pg_temp.notes right join public.customers p on true) v (a, b, c, d, e)";
    assert!(may_carry(&after(&made, text)));
    let shadowed = "select (select body from notes limit 1) from (select email as body from customers) o";
    for made in [
        "create temp table notes (id int)",
        "alter table notes drop column body",
        "alter table notes rename column body to text",
    ] {
        assert!(may_carry(&after(&[made], shadowed)), "{made}");
    }
    let child = "select (select secret from child limit 1) from (select email as secret from customers) o";
    for made in ["alter table parent drop column secret", "alter table parent rename column secret to x"] {
        assert!(may_carry(&after(&[made], child)), "{made}");
    }
    let made = "create temp table a (b serial)";
    let text = "select b from (select * from a_b_seq1, customers) x (a, b)";
    assert!(may_carry(&after(&[made], text)));
}

#[test]
fn rows_are_not_kept_by_their_place_in_a_table_whose_columns_are_not_known() {
    let text = "insert into public.customers select id, name, email, card from customers";
    let copied = |made: &[&str]| paths(&after(made, text).shape.copied).contains(&EMAIL);
    assert!(copied(&["alter table public.customers add column more text"]));
    assert!(!copied(&["create temp table other (id int)"]));
    let text = "copy public.notes to stdout";
    assert!(after(&["alter table public.notes drop column body"], text).shape.results[0].untraced.is_some());
}

#[test]
fn who_makes_the_same_table_again_reads_it_as_before() {
    let made = ["create temp table t (id int, body text)"; 2];
    let shape = after(&made, "select * from t, notes").shape.clone();
    assert_eq!(shape.results[0].untraced, None);
    assert_eq!(shape.results[0].outputs.len(), 4);
    let made = ["create table public.notes (id int, body text)"];
    assert_eq!(after(&made, "select * from notes").shape.results[0].untraced, None);
    for made in [
        "create table if not exists public.notes (id int)",
        "create table if not exists public.notes as select 1 as id",
        "create sequence if not exists public.notes",
    ] {
        assert_eq!(after(&[made], "select * from notes").shape.results[0].untraced, None, "{made}");
        assert!(!after(&[], made).changes_definitions(), "{made}");
    }
    for made in ["create table if not exists notes (id int)", "create table if not exists a.notes (id int)"] {
        assert!(after(&[made], "select * from notes").shape.results[0].untraced.is_some(), "{made}");
    }
}

#[test]
fn a_row_that_is_written_out_with_a_star_is_refused() {
    let attempted =
        |text: &str| attempt(text, &shop(), &Overlay::default()).map(|understood| understood.shape.clone());
    for text in [
        "select v.b from (select id, email from customers) s, lateral (values (s.*, 'x')) v (a, b)",
        "with v (a, b) as (values ((select c from customers c limit 1).*, 'x')) select b from v",
        "select v.b from customers c, lateral (values ((c).*, 'x')) v (a, b)",
        "select v.column2 from customers c, lateral (values ('x', c.id, 'y'), (c.*)) v",
        "insert into notes values ((select n from notes n limit 1).*)",
        "merge into customers t using (customers c cross join notes n) on false \
         when not matched then insert (id, name, email) values (n.*, c.email)",
    ] {
        assert!(attempted(text).is_err(), "{text}");
    }
    // One value each, whatever it is made of.
    for text in [
        "select row_to_json(n.*), row(n.*, 'a'), n.* is null, count(n.*) over (order by n.*) from notes n, customers",
        "select v.b from notes n, lateral (values (row(n.*), 'x')) v (a, b)",
        "select id from customers c where (c.id, 'a') in (select n.* from notes n)",
        "update notes n set (id, body) = row(m.*) from notes m where m.id = n.id",
    ] {
        let shape = attempted(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(shape.results.iter().all(|result| result.untraced.is_none()), "{text}");
    }
    let text = "update customers c set (id, name, email) = row(n.*, c.email) from notes n";
    assert!(paths(&attempted(text).unwrap().copied).contains(&EMAIL));
}

#[test]
fn what_may_be_lost_with_anothers_session_is_known_by_name_alone() {
    let text = "select e from (select * from perishable right join customers p on true) v (a, b, c, d, e)";
    assert!(may_carry(&understood(text, &shop())));
    assert_eq!(carried("select p.id, email from perishable p join customers c on true"), "-p");
}

#[test]
fn a_relation_that_a_function_may_have_hidden_is_known_by_name_or_with_its_schema() {
    let untraced = |text: &str| {
        let shape = after(&["select public.makes()"], text).shape.clone();
        shape.results.iter().any(|result| result.untraced.is_some())
    };
    assert!(untraced("select * from notes"));
    assert!(untraced("select * from pg_temp.notes"));
    assert!(!untraced("select * from public.notes"));
    assert!(!untraced("select id, body from notes n where n.id = 1"));
    let shape = understood("select public.pure(1); select * from notes", &shop()).shape.clone();
    assert!(shape.results.iter().all(|result| result.untraced.is_none()));
    let shape = understood("select public.makes(); select * from notes", &shop()).shape.clone();
    assert!(shape.results[1].untraced.is_some());
}

#[test]
fn where_no_position_is_known_it_may_be_known_where_all_values_are_from() {
    let among = |made: &[&str], text: &str| {
        let result = after(made, text).shape.results[0].clone();
        assert!(result.untraced.is_some(), "{made:?} {text}");
        result.among
    };
    for hides in ["do 'begin end'", "select public.makes()", "call public.makes()"] {
        let all = among(&[hides], "select * from notes n join orders o on o.customer = n.id").unwrap();
        let own = ["public.notes.body", "public.notes.id"];
        assert_eq!(
            paths(&all),
            [&own[..], &["public.orders.customer", "public.orders.id", "public.orders.total"]].concat()
        );
        assert_eq!(paths(&among(&[hides], "select n.* from notes n").unwrap()), own);
        assert!(paths(&among(&[hides], "select * from notes, mails").unwrap()).contains(&EMAIL));
    }
    for (made, text) in [
        // Columns may come that nobody has named.
        ("alter type x add attribute more text cascade", "select * from made_of_x"),
        ("alter table made_of_x inherit parent", "select * from made_of_x"),
        ("do 'begin end'", "select * from nowhere, notes"),
        ("do 'begin end'", "select *, mine() from notes"),
    ] {
        assert_eq!(among(&["create temp table made_of_x (id int)", made], text), None, "{made}; {text}");
    }
}

#[test]
fn what_is_known_by_name_stays_so_when_no_position_is() {
    let plain = |made: &[&str], text: &str| {
        let shape = after(made, text).shape.clone();
        let result = &shape.results[0];
        result.untraced.is_none() && result.outputs.iter().all(|output| !output.computed)
    };
    let made = ["alter table customers add column more text"];
    assert!(plain(&made, "select id, name, email, more from customers where more = 'a'"));
    assert!(plain(
        &["create table if not exists customers (id int, name text)"],
        "select name, card from customers"
    ));
    assert!(plain(&[], "select y from twice where x = 'a'"));
    assert!(!plain(&made, "select * from customers"));
    assert!(!plain(&["alter table customers rename column name to x"], "select x from customers"));
    assert!(!plain(&["create temp table customers (like notes)"], "select card from customers"));
    // As migrations go: the table is made, and something else is dropped by CASCADE.
    let made = ["create table customers (id int, name text, email text, card text)", "drop table x cascade"];
    assert!(plain(&made, "select id, name, email from customers where id = 1 order by name"));
    assert!(plain(&made, "select c.id, o.total from customers c join orders o on o.customer = c.id"));
    assert!(plain(&made, "insert into customers (name) values ('a') returning id, email"));
    assert!(!plain(&made, "select * from customers"));
    let made = ["drop table x cascade", "create temp table t (id int, body text)"];
    assert!(plain(&made, "select * from t"), "made after that");
}

#[test]
fn usual_queries_with_inner_queries_are_followed() {
    for (text, expected) in [
        ("select id, (select c.email from customers c where c.id = o.customer) from orders o", "-p"),
        (
            "select id, (select email from customers c where c.id = customer) as mail from orders order by id",
            "-p",
        ),
        (
            "select id, (select count(*) from orders where customer = c.id) from customers c order by name",
            "--",
        ),
        ("select o.id, (select max(total) from orders i where i.customer = o.customer) from orders o", "--"),
        (
            "select c.id, c.email from customers c where exists (select 1 from orders o where o.customer = c.id)",
            "-p",
        ),
        ("select id, email from customers where id in (select customer from orders where total > 5)", "-p"),
        (
            "select name from customers c where not exists (select from orders where customer = c.id and total > 1)",
            "-",
        ),
        (
            "select c.name, last.total from customers c left join lateral \
             (select total from orders o where o.customer = c.id order by o.id desc limit 1) last on true",
            "--",
        ),
        (
            "select c.id, n.total from customers c cross join lateral (select max(total) as total from orders where customer = c.id) n",
            "--",
        ),
        ("select id, n from customers, generate_series(1, 3) as n", "--"),
        ("select id, value from notes, jsonb_array_elements(body::jsonb) as item", "--"),
        ("select id, item from notes n, jsonb_array_elements(n.body::jsonb) as item", "--"),
        ("select c.name from customers c where c.id = any (select x from unnest('{1,2}'::int[]) as x)", "-"),
        (
            "with top as (select customer, max(total) from orders group by customer) \
          select email, max from customers join top on top.customer = customers.id order by max desc",
            "p-",
        ),
        (
            "select ctid, tableoid::regclass, id from customers where id = (select max(id) from customers)",
            "---",
        ),
        ("select id, coalesce(name, '') from customers order by id", "--"),
        (
            "select id, email from customers join unnest('{1,2}'::int[]) with ordinality u(id, ord) using (id) order by ord",
            "-p",
        ),
        (
            "update orders o set total = 1 from customers c where c.id = o.customer returning o.id, c.email",
            "-p",
        ),
    ] {
        assert_eq!(carried(text), expected, "{text}");
        let shape = understood(text, &shop()).shape.clone();
        assert!(!paths(&shape.influences).contains(&EMAIL) && shape.untraced.is_none(), "{text}");
        assert!(!paths(&shape.computed).contains(&EMAIL), "{text}");
    }
}
