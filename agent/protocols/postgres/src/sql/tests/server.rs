//! The catalog's queries and the statements of real clients against a real server.

use std::{
    io::{BufRead, BufReader, Write},
    process::Command,
};

use pg_query::NodeEnum;

use super::{
    super::{
        FUNCTIONS, RELATIONS, SETUP, TYPES, catalog::CatalogRequest, flow::Naming, names::output_name,
        names_parameter,
    },
    statements::words,
    *,
};

/// What `psql` 15 (`\d` and its kin), `pg_dump` 15, `pg_dumpall` and a restore send.
const CLIENTS: &str = include_str!("clients.sql");

fn rows(query: &str, parameter: &str) -> Vec<String> {
    asked(query, &[parameter])
}

/// What the server answers to a question about its catalog.
pub(super) fn asked(query: &str, parameters: &[&str]) -> Vec<String> {
    let quoted = |parameter: &str| format!("'{}'", parameter.replace('\'', "''"));
    let numbered = parameters.iter().enumerate();
    let query = numbered.fold(query.to_owned(), |query, (index, parameter)| {
        query.replace(&format!("${}", index + 1), &quoted(parameter))
    });
    let output =
        Command::new("psql").args(["-XAtq1", "-v", "ON_ERROR_STOP=1", "-c", SETUP, "-c", &query]).output();
    let output = output.expect("psql runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().skip(1).map(str::to_owned).collect()
}

fn ask(catalog: &Catalog, request: &CatalogRequest) {
    let rows = Rows {
        relations: rows(RELATIONS, &names_parameter(&request.relations)),
        functions: rows(FUNCTIONS, &names_parameter(&request.functions)),
        types: rows(TYPES, &names_parameter(&request.types)),
    };
    catalog.learn(catalog.generation(), request, &rows).unwrap();
}

fn of_server(text: &str, catalog: &Catalog) -> Result<Arc<Statements>, NotUnderstood> {
    let parsed = parse(text, &Limits::default())?;
    loop {
        match resolve(&parsed, catalog, &Overlay::default())? {
            Resolved::Known(statements) => return Ok(statements),
            Resolved::Needs(request) => ask(catalog, &request),
        }
    }
}

#[test]
#[ignore = "needs PostgreSQL: PGHOST, PGPORT and PGUSER of an empty server"]
fn statements_of_real_clients_are_understood() {
    let catalog = Catalog::default();
    for text in CLIENTS.split("\n-- next\n") {
        let statements = of_server(text, &catalog).unwrap_or_else(|error| panic!("{error}: {text}"));
        let shape = &statements.shape;
        let selects = text.trim_start().to_ascii_lowercase().starts_with("select");
        if !selects {
            continue;
        }
        let catalogs_only = shape.touched.iter().all(|table| table.starts_with("pg_catalog."));
        if catalogs_only && text.contains("pg_catalog.") {
            // A restore sets sequences, which a rule must allow by name.
            let words = words(shape).replace("select pg_catalog.setval!", "");
            assert!(!words.contains('!'), "{words}: {text}");
            let untraced: Vec<_> =
                shape.results.iter().filter_map(|result| result.untraced.as_ref()).collect();
            assert!(
                untraced.is_empty() && shape.untraced.is_none(),
                "{untraced:?} {:?}: {text}",
                shape.untraced
            );
        }
    }
}

/// A schema of views, dropped when done with.
struct Views;

impl Views {
    fn create() -> Self {
        run("create schema masked; set search_path = masked;
             create table people (id int, name text, email text);
             create table kin (id int, of int);
             create view plain as select id, email as address from people;
             create view nested as select address as a from plain where id > 0;
             create view joined as select * from people p left join kin k using (id) where p.name is not null;
             create view grouped as select k.of, max(p.email) m from kin k join people p on p.id = k.of group by 1;
             create view united as select email from people union all select name from people;
             create view tree as with recursive r(n, e) as
               (select id, email from people union all select n + 1, e from r where n < 3) select n, e from r;
             create view whole as select p as entire from people p;
             create view sub as select (select email from people limit 1) s, exists (select 1 from people) x;
             create materialized view kept as select lower(email) l from people;
             create table parts (id int, kind text, note text) partition by list (kind);
             create table ranges (id int, a text, b text) partition by range (a, lower(b));");
        Self
    }
}

impl Drop for Views {
    fn drop(&mut self) {
        run("drop schema masked cascade");
    }
}

pub(super) fn run(sql: &str) {
    assert!(
        Command::new("psql")
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .status()
            .expect("psql runs")
            .success()
    );
}

#[test]
#[ignore = "needs PostgreSQL: PGHOST, PGPORT and PGUSER of an empty server"]
fn views_carry_what_the_server_says_they_show() {
    let _views = Views::create();
    let catalog = Catalog::default();
    for (text, expected) in [
        ("select * from masked.plain", "-p"),
        ("select * from masked.nested", "p"),
        ("select * from masked.joined", "--p-"),
        ("select * from masked.grouped", "-c"),
        ("select * from united", "p"),
        ("select * from masked.tree", "-p"),
        ("select * from masked.whole", "c"),
        ("select * from masked.sub", "p-"),
        ("select * from masked.kept", "c"),
        ("select * from information_schema.columns", &"-".repeat(44)),
    ] {
        let lineage = of_server(text, &catalog).unwrap().shape.results[0].clone();
        assert_eq!(lineage.untraced, None, "{text}");
        let carries =
            |output: &tidegate_policy::Output| output.sources.iter().any(|s| &**s == "masked.people.email");
        let letter = |output| if carries(output) { if output.computed { 'c' } else { 'p' } } else { '-' };
        assert_eq!(lineage.outputs.iter().map(letter).collect::<String>(), expected, "{text}");
    }
}

#[test]
#[ignore = "needs PostgreSQL: PGHOST, PGPORT and PGUSER of an empty server"]
fn a_partition_tells_of_the_columns_that_choose_it() {
    let _views = Views::create();
    let told = |text: &str| {
        let shape = of_server(text, &Catalog::default()).unwrap().shape.clone();
        shape.influences.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        told("create table masked.p partition of masked.parts for values in ('a')"),
        ["masked.parts.kind"]
    );
    let all = ["masked.ranges.a", "masked.ranges.b", "masked.ranges.id"];
    assert_eq!(
        told("create table masked.p partition of masked.ranges default"),
        all,
        "an expression, of which column?"
    );
}

#[test]
#[ignore = "needs PostgreSQL: PGHOST, PGPORT and PGUSER of an empty server"]
fn a_view_that_was_replaced_is_younger_than_rows_that_were_not_refreshed() {
    let _views = Views::create();
    run("create materialized view masked.stands as select address from masked.plain");
    let is_traced = || {
        let shape =
            of_server("select address from masked.stands", &Catalog::default()).unwrap().shape.clone();
        shape.results[0].untraced.is_none()
    };
    assert!(is_traced(), "as it was made");
    run("create or replace view masked.plain as select id, name as address from masked.people");
    assert!(!is_traced(), "replaced");
    run("vacuum analyze masked.stands");
    assert!(!is_traced(), "vacuumed");
    run("refresh materialized view masked.stands");
    assert!(is_traced(), "refreshed");
    run("create or replace view masked.plain as select id, email as address from masked.people; \
         create unique index on masked.stands (address)");
    assert!(!is_traced(), "replaced again");
    run("refresh materialized view concurrently masked.stands");
    assert!(is_traced(), "refreshed concurrently");
}

#[test]
#[ignore = "needs PostgreSQL: PGHOST, PGPORT and PGUSER of an empty server"]
fn columns_that_go_with_somebodys_session_are_known_for_that() {
    let _views = Views::create();
    let made = "create temp table x (q int); create type pg_temp.ty as (q int); create type pg_temp.mood as enum ('a');
        create domain pg_temp.word as text;
        create domain masked.over as pg_temp.mood; create type masked.part as (f x, g int);
        create table masked.perm (a int, b x); create table masked.many (a int, b pg_temp.ty[]);
        create table masked.on_domain (a int, b masked.over);
        create table masked.made (a text, b text generated always as ((a::pg_temp.word)::text) stored);
        create table masked.entire (a masked.part, b int);
        create function masked.pieces() returns masked.part language sql as 'select null::masked.part'";
    let mut owner = Command::new("psql")
        .args(["-Xq", "-v", "ON_ERROR_STOP=1"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("psql runs");
    let (mut says, mut hears) = (owner.stdin.take().unwrap(), BufReader::new(owner.stdout.take().unwrap()));
    writeln!(says, "{made};\n\\echo made").unwrap();
    let mut line = String::new();
    hears.read_line(&mut line).unwrap();
    assert_eq!(line, "made\n");
    let star_is_traced = |from: &str| {
        let text = format!("select * from {from}");
        of_server(&text, &Catalog::default()).unwrap().shape.results[0].untraced.is_none()
    };
    for fleeting in ["masked.perm", "masked.many", "masked.on_domain", "masked.pieces()", "masked.made"] {
        assert!(!star_is_traced(fleeting), "{fleeting}");
    }
    for lasting in ["masked.people", "masked.entire"] {
        assert!(star_is_traced(lasting), "{lasting}");
    }
    drop(says);
    owner.wait().unwrap();
    // What the server then did.
    let left = |table: &str| {
        rows(
            "select attname from pg_attribute where attrelid = $1::regclass and attnum > 0 \
        and not attisdropped",
            table,
        )
    };
    for table in ["masked.perm", "masked.many", "masked.on_domain", "masked.made"] {
        assert_eq!(left(table), ["a"], "{table}");
    }
    assert_eq!(left("masked.entire"), ["a", "b"]);
}

/// Outputs that nobody named.
const EXPRESSIONS: &[&str] = &[
    "1",
    "'a'",
    "NULL",
    "1 + 1",
    "relname || 'a'",
    "relname IS NULL",
    "NOT true",
    "true AND true",
    "1 IN (1)",
    "1 = ANY ('{1}')",
    "1 IN (SELECT 1)",
    "1 = ALL (SELECT 1)",
    "relname",
    "(relname)",
    "c.relname",
    "relname COLLATE \"C\"",
    "relname::text",
    "relname::text::varchar",
    "CAST(oid AS text)",
    "1::text",
    "1::int4::text",
    "'1'::float",
    "int '1'",
    "now()::date",
    "(1 + 1)::text COLLATE \"C\"",
    "lower(relname)",
    "pg_catalog.lower(relname)",
    "lower(relname)::text",
    "relacl[1]",
    "(relacl::text[])[1]",
    "(ARRAY[1])[1]",
    "(c).relname",
    "ROW(1)",
    "(1, 2)",
    "ARRAY[1]",
    "ARRAY[1]::text[]",
    "ARRAY(SELECT 1)",
    "EXISTS (SELECT 1)",
    "(SELECT 1)",
    "(SELECT 1)::text",
    "(SELECT relname)",
    "(SELECT 1 AS a)",
    "(SELECT 1 AS a UNION SELECT 2 AS b LIMIT 1)",
    "(SELECT 1::text)",
    "(SELECT s.* FROM (SELECT 1 AS a) s)",
    "(SELECT * FROM (SELECT 1 AS a) s)",
    "(VALUES (1))",
    "((SELECT (SELECT 1 AS a)))",
    "CASE WHEN true THEN 1 END",
    "CASE WHEN true THEN 1 ELSE 2 END",
    "CASE WHEN true THEN 'a' ELSE relname END",
    "CASE WHEN true THEN 'a' ELSE 'b'::text END",
    "CASE WHEN true THEN 'a' ELSE lower('a') END::varchar",
    "COALESCE(relname, 'a')",
    "COALESCE(relname, 'a')::text",
    "NULLIF(relname, 'a')",
    "GREATEST(1, 2)",
    "LEAST(1, 2)",
    "current_user",
    "current_date",
    "current_time",
    "localtime(0)",
    "localtimestamp",
    "current_role",
    "user",
    "session_user",
    "current_catalog",
    "current_schema",
    "CURRENT_TIMESTAMP(0)",
    "EXTRACT(year FROM now())",
    "SUBSTRING('a' FROM 1)",
    "TRIM('a')",
    "POSITION('a' IN 'b')",
    "now() AT TIME ZONE 'UTC'",
    "'a' IS NORMALIZED",
    "'a' LIKE 'b' ESCAPE 'c'",
    "1 BETWEEN 0 AND 2",
    "count(*) OVER ()",
    "xmlforest(1 AS a)",
    "xmlelement(name a)",
    "interval '1' day",
    "-1",
    "$$a$$::\"char\"",
];

#[test]
#[ignore = "needs PostgreSQL: PGHOST, PGPORT and PGUSER of an empty server"]
fn a_name_that_the_gate_makes_of_an_expression_is_the_servers() {
    let mut unknown = Vec::new();
    for expression in EXPRESSIONS {
        let text = format!("SELECT {expression} FROM pg_catalog.pg_class c LIMIT 1");
        let shown = Command::new("psql").args(["-XAq", "-c", &text]).output().expect("psql runs");
        let shown = String::from_utf8(shown.stdout).unwrap();
        let parsed = parse(&text, &Limits::default()).unwrap();
        let Some(NodeEnum::SelectStmt(select)) = parsed.statements[0].stmt.as_ref().unwrap().node.as_ref()
        else {
            panic!("{text}")
        };
        let Some(NodeEnum::ResTarget(target)) = &select.target_list[0].node else { panic!("{text}") };
        let (name, naming) = output_name(target);
        match naming {
            Naming::Known => assert_eq!(Some(&*name), shown.lines().next(), "{expression}"),
            _ => unknown.push(*expression),
        }
    }
    assert!(unknown.len() < EXPRESSIONS.len() / 3, "{unknown:?}");
}
