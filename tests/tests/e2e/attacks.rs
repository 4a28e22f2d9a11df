//! What somebody with a shell in the governed account tries.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tidegate_tests::{BY_COLUMNS_ALONE, Ran, World};

use crate::together::Session;

/// What the first customer's card and e-mail would show of themselves, forwards and backwards.
const TELLING: [&str; 6] = ["41111", "11114", "ada@", "@ada", "example", "elpmaxe"];

fn tells(ran: &Ran) -> Option<&'static str> {
    TELLING.into_iter().find(|part| ran.stdout.contains(part) || ran.stderr.contains(part))
}

/// Each of these would show a masked value, or something that depends on one, if it ran.
pub(crate) const PEEKING: &[&str] = &[
    // By what is made of it.
    "SELECT reverse(card_number) FROM customers",
    "SELECT customers::text FROM customers",
    "SELECT c.to_jsonb FROM customers c",
    "SELECT xmlforest(card_number) FROM customers",
    "SELECT xmlserialize(content xmlelement(name x, card_number) AS text) FROM customers",
    "SELECT to_json(c), hstore FROM customers c, (SELECT 1 AS hstore) h",
    "SELECT json_agg(c) FROM customers c",
    "SELECT (json_populate_record(c, '{}')).card_number FROM customers c",
    "SELECT card_number COLLATE \"C\" || '' FROM customers TABLESAMPLE system (100)",
    "SELECT ctid FROM customers TABLESAMPLE bernoulli (100) REPEATABLE ((SELECT left(card_number, 4)::int FROM customers LIMIT 1))",
    "SELECT format('%s', c.*) FROM customers c",
    "SELECT concat(c) FROM customers c",
    "SELECT pg_column_size(card_number), ctid FROM customers",
    "SELECT ctid FROM customers ORDER BY card_number",
    "SELECT count(*) FILTER (WHERE card_number LIKE '41%') FROM customers",
    "SELECT first_value(id) OVER (ORDER BY card_number) FROM customers",
    "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY card_number) FROM customers",
    "SELECT * FROM customers c WHERE (c.card_number, 1) > ('41', 0)",
    "SELECT id FROM customers NATURAL JOIN (SELECT '4111111111111111'::text AS card_number) g",
    "VALUES ((SELECT min(card_number) FROM customers))",
    "SELECT v.b FROM (SELECT id, card_number FROM customers) s, LATERAL (VALUES (s.*, 'x')) v (a, b)",
    "WITH v (a, b, c, d) AS (VALUES ((SELECT c FROM customers c WHERE id = 1).*, 'x')) SELECT v.d FROM v",
    "SELECT count(*) FROM customers c, LATERAL (VALUES (c.*)) v (a, b, c, d) WHERE v.d LIKE '4%'",
    "INSERT INTO store.branches (id, city, tags[(SELECT left(card_number, 9)::int FROM customers WHERE id = 1)]) VALUES (91, 'x', 'y') RETURNING tags",
    "MERGE INTO store.branches b USING (SELECT 95 AS id) x ON b.id = x.id WHEN NOT MATCHED THEN \
     INSERT (id, city, tags[(SELECT left(card_number, 9)::int FROM customers WHERE id = 1)]) VALUES (95, 'x', 'y') RETURNING tags",
    "SELECT array_agg(card_number) FROM customers",
    "SELECT x FROM customers c, LATERAL (SELECT c.card_number || '' AS x) l",
    "SELECT (SELECT c FROM customers c WHERE id = 1)::text",
    "SELECT (c).card_number FROM (SELECT k AS c FROM customers k) s, (SELECT 'x' AS card_number) c",
    // By which rows there are, and in which order.
    "SELECT id FROM customers WHERE (customers).card_number LIKE '4%'",
    "SELECT * FROM customers ORDER BY 4",
    "SELECT id FROM customers GROUP BY id HAVING min(card_number) < '5'",
    "SELECT count(*) FROM customers c, generate_series(1, left(c.card_number, 4)::int) WHERE c.id = 1",
    "SELECT count(*) FROM (SELECT generate_series(1, left(card_number, 4)::int) FROM customers WHERE id = 1) s",
    "EXPLAIN (ANALYZE, TIMING OFF) SELECT generate_series(1, left(card_number, 4)::int) FROM customers WHERE id = 1",
    "SELECT count(*) FROM customers c, xmltable('/a/b' PASSING xmlparse(content '<a>' || repeat('<b/>', \
     left(card_number, 2)::int) || '</a>') COLUMNS x text PATH '.') WHERE c.id = 1",
    // By errors and time.
    "WITH x AS MATERIALIZED (SELECT reverse(card_number)::regclass FROM customers WHERE id = 1) SELECT count(*) FROM x",
    "UPDATE customers SET card_number = (reverse(card_number)::regclass)::text WHERE id = 1",
    "UPDATE customers SET email = CASE WHEN card_number LIKE '41%' THEN (1 / 0)::text ELSE email END WHERE id = 1",
    "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT reverse(card_number)::regclass FROM customers; COMMIT",
    "SELECT count(*) FROM (SELECT CASE WHEN card_number LIKE '41%' THEN pg_sleep(0) END FROM customers OFFSET 0) s",
    // By another part of it.
    "UPDATE customers SET card_number = left(card_number, 8) WHERE id = 1 RETURNING card_number",
    "INSERT INTO customers (name, email, card_number) SELECT name, email || '.', card_number FROM customers RETURNING email",
    // By where it is kept.
    "UPDATE orders SET quantity = left(c.card_number, 4)::int FROM customers c WHERE c.id = 1 AND orders.id = 1 RETURNING quantity",
    "INSERT INTO products (title, cents) SELECT card_number, 1 FROM customers RETURNING title",
    "SELECT 1 FROM (SELECT set_config('my.x', reverse(card_number), false) FROM customers OFFSET 0) s",
    "SELECT 1 FROM (SELECT pg_advisory_lock(left(card_number, 8)::bigint) FROM customers OFFSET 0) s",
    "SELECT pg_notify('tide', reverse(card_number)) FROM customers",
    "CREATE TEMP TABLE kept AS SELECT * FROM customers",
    "SELECT lo_from_bytea(0, card_number::bytea) FROM customers",
    // By what the server knows beside the table.
    "SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE tablename = 'customers'",
    "SELECT query_to_xml('SELECT card_number FROM customers', true, true, '')",
    "SELECT table_to_xml('customers', true, true, '')",
    "SELECT query_to_xml_and_xmlschema('SELECT card_number FROM customers', true, true, '')",
    "SELECT database_to_xml(true, true, '')",
    "SELECT schema_to_xml('public', true, true, '')",
    "SELECT null_frac, avg_width, correlation FROM pg_stats WHERE tablename = 'customers'",
    "SELECT stadistinct, stawidth FROM pg_statistic",
    "SELECT n_distinct, dependencies FROM pg_stats_ext",
    "SELECT 1 FROM pg_stats WHERE tablename = 'customers' AND most_common_vals::text LIKE '%4111%'",
    "SELECT query FROM pg_stat_activity",
    "SELECT * FROM pg_stat_get_activity(NULL)",
    "SELECT data FROM pg_largeobject",
    "SELECT loread(lo_open(1, 262144), 100)",
    "SELECT * FROM pg_logical_slot_peek_changes('x', NULL, NULL)",
    "SELECT pg_read_binary_file('base/1/1')",
    "SELECT currtid2('customers', '(0,1)')",
    "SELECT ts_rewrite('a'::tsquery, 'SELECT card_number::tsquery, card_number::tsquery FROM customers')",
    "SELECT * FROM dblink('dbname=shop', 'SELECT card_number FROM customers') AS d (c text)",
    "SELECT * FROM ts_stat('SELECT to_tsvector(card_number) FROM customers')",
    // By how a copy is laid out.
    "COPY (SELECT 'a,b', card_number, 'c' FROM customers) TO STDOUT (FORMAT csv, DELIMITER *)",
    "COPY (SELECT 'a,b', card_number, 'c' FROM customers) TO STDOUT (FORMAT csv, DELIMITER ('|'))",
    "COPY customers (card_number) TO STDOUT (FORMAT csv, HEADER (off))",
    "COPY customers (card_number, name) TO STDOUT (FORMAT csv, QUOTE E'\\n')",
    // By what a copy takes for NULL.
    "COPY customers (card_number) TO STDOUT (NULL '4111111111111111')",
];

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn nothing_that_depends_on_a_masked_value_runs() -> Result<()> {
    World::with(|world| refuses(world, PEEKING))
}

/// Checks that each is refused and tells nothing.
pub(crate) fn refuses(world: &World, queries: &[&str]) -> Result<()> {
    for query in queries {
        let ran = world.ci.psql(query)?;
        ran.refused_by_the_gate(&[]).context(query.to_string())?;
        let words = ["BEGIN", "COMMIT"];
        let shown: Vec<&str> = ran.stdout.lines().filter(|line| !words.contains(line)).collect();
        ensure!(shown.is_empty(), "{query}: {shown:?}");
        let complaint = ran.stderr.replace("4111111111111111", "");
        ensure!(!TELLING.iter().any(|part| complaint.contains(part)), "{query}: {complaint}");
    }
    Ok(())
}

/// What a masked card, and a masked e-mail, show.
const BOTH: &[&str] = &["1111", "tok_"];

/// Each of these may run, and shows masked values: these at least.
const LOOKING: &[(&str, &[&str])] = &[
    ("SELECT tableoid, ctid, xmin, card_number FROM customers TABLESAMPLE system (100)", &["1111"]),
    (
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'customers'",
        &["card_number|text"],
    ),
    (
        "SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'customers'",
        &["customers"],
    ),
    ("SELECT tablename, attname FROM pg_stats WHERE tablename = 'customers'", &[]),
    ("SELECT state FROM pg_stat_activity", &["active"]),
    ("SELECT U&\"c\\0061rd_number\", U&\"em!0061il\" UESCAPE '!' FROM customers WHERE id = 1", BOTH),
    ("SELECT \"card_number\" /* a /* b */ c */, email FROM public.customers WHERE id = 1 -- x\n", BOTH),
    ("SELECT (c).card_number, (c).* FROM customers c WHERE id = 1", BOTH),
    ("SELECT a, b FROM customers AS x (id, name, a, b) WHERE id = 1", BOTH),
    ("WITH customers AS (SELECT * FROM public.customers) SELECT * FROM customers ORDER BY id LIMIT 1", BOTH),
    ("SELECT * FROM information_schema.schemata s JOIN customers ON customers.id = 1 LIMIT 1", BOTH),
    (
        "INSERT INTO customers (name, email, card_number) VALUES ('gone', 'ada@example.org', '4111111111111111'); \
         DELETE FROM customers WHERE name = 'gone' RETURNING *",
        BOTH,
    ),
    ("UPDATE customers SET name = name WHERE id = 1 RETURNING card_number AS name, email AS id", BOTH),
    ("INSERT INTO customers (name, email, card_number) VALUES ('a', 'ada@example.com', 'b')", &["23505"]),
    (
        "BEGIN; DECLARE c BINARY CURSOR FOR SELECT card_number, email FROM customers ORDER BY id; FETCH 1 FROM c; COMMIT",
        BOTH,
    ),
    ("BEGIN; DECLARE h CURSOR WITH HOLD FOR TABLE customers; COMMIT; FETCH ALL FROM h", BOTH),
    ("PREPARE p AS SELECT card_number, email FROM customers WHERE id = $1; EXECUTE p(1)", BOTH),
    ("COPY customers (card_number, email) TO STDOUT (FORMAT csv, DELIMITER '@', FORCE_QUOTE *)", BOTH),
    ("COPY customers (card_number, email) TO STDOUT (FORMAT csv, QUOTE 'a')", BOTH),
    ("COPY customers (card_number, email) TO STDOUT (FORMAT csv, HEADER 'FALSE')", BOTH),
    ("COPY customers (card_number, email) TO STDOUT (HEADER \"Off\")", BOTH),
    ("COPY customers (card_number, email) TO STDOUT (FORMAT binary)", BOTH),
    ("COPY (SELECT email, card_number FROM customers) TO STDOUT (DELIMITER '*')", BOTH),
    ("SELECT card_number FROM customers WHERE id = 1 \\gdesc", &["card_number|text"]),
    // Inner queries have no column of that name, whatever it looks like.
    (
        "SELECT (SELECT oid FROM customers LIMIT 1) FROM (SELECT card_number AS oid FROM customers) o",
        &["1111"],
    ),
    (
        "SELECT (SELECT ctid FROM pg_settings LIMIT 1) FROM (SELECT card_number AS ctid FROM customers) o",
        &["1111"],
    ),
    (
        "SELECT (SELECT xmin FROM orders a JOIN orders b ON true LIMIT 1) FROM (SELECT card_number AS xmin FROM customers) o",
        &["1111"],
    ),
    (
        "SELECT (SELECT x FROM jsonb_array_elements('[1]') AS x) FROM (SELECT card_number AS x FROM customers) o",
        &["1111"],
    ),
    (
        "SELECT (SELECT int4 FROM (SELECT 1::int4::text) i) FROM (SELECT card_number AS int4 FROM customers) o",
        &["1111"],
    ),
    // They have one, though nothing gave it that name.
    (
        "SELECT (SELECT column1 FROM (SELECT (VALUES (c.card_number)) FROM customers c WHERE c.id = 1) i) \
         FROM (SELECT 1 AS column1) o",
        &["1111"],
    ),
    (
        "WITH u AS (UPDATE orders SET quantity = 1 FROM customers a JOIN customers b USING (id) \
         WHERE orders.id = 1 AND a.id = 1 RETURNING *) SELECT h, k FROM u t (a, b, c, d, e, f, g, h, i, j, k)",
        &["1111"],
    ),
    (
        "SELECT email FROM customers WHERE id = 1 UNION ALL SELECT card_number FROM customers WHERE id = 1",
        &["tok_"],
    ),
];

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn quotes_tell_nothing_of_a_masked_value() -> Result<()> {
    World::with(|world| {
        for layout in ["NULL 'ada@example.com'", "DELIMITER '@'", "QUOTE '@'"] {
            let query = format!("COPY customers (email) TO STDOUT (FORMAT csv, {layout})");
            let ran = world.ci.psql(&query)?;
            ensure!(ran.stdout.lines().all(|line| line.starts_with("tok_")), "{layout}: {ran:?}");
            ensure!(ran.stdout.lines().count() > 1, "{layout}: {ran:?}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn however_a_masked_column_is_named_or_fetched_it_is_masked() -> Result<()> {
    World::with(|world| world.under_either_mask(looks))
}

/// Checks that each of [`LOOKING`] runs, shows what it is to show, and tells nothing.
pub(crate) fn looks(world: &World) -> Result<()> {
    for (query, shows) in LOOKING {
        let ran = masked(world, query)?;
        for part in *shows {
            let shown = ran.stdout.contains(part) || ran.stderr.contains(part);
            ensure!(shown, "{query} does not show {part:?}: {ran:?}");
        }
    }
    Ok(())
}

/// What a query shows, which runs and tells nothing.
pub(crate) fn masked(world: &World, query: &str) -> Result<Ran> {
    let ran = world.ci.psql(query)?;
    ensure!(tells(&ran).is_none(), "{query} tells {:?}: {ran:?}", tells(&ran));
    ensure!(!ran.stderr.contains("42501"), "{query} was refused: {}", ran.stderr);
    Ok(ran)
}

/// Each of these does what no rule allows, in some wrapping.
const FORBIDDEN: &[&str] = &[
    "WITH d AS (DELETE FROM orders RETURNING 1) SELECT 1",
    "PREPARE z AS DELETE FROM orders",
    "EXPLAIN ANALYZE DELETE FROM orders",
    "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    "BEGIN; DROP TABLE orders; COMMIT",
    "DELETE FROM orders WHERE id = id",
    "DELETE FROM orders WHERE id IS NOT NULL OR id IS NULL",
    "DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE true)",
    "DELETE FROM orders WHERE id <> ALL ('{}')",
    "DELETE FROM orders WHERE id = ANY (ARRAY(SELECT id FROM orders))",
    "DELETE FROM orders o WHERE EXISTS (SELECT 1 FROM orders i WHERE i.id = o.id)",
    "DELETE FROM orders o USING orders i WHERE i.id = o.id",
    "DELETE FROM orders o WHERE (o).id = id",
    "DO 'BEGIN DELETE FROM orders; END'",
    "DO $$BEGIN EXECUTE 'DROP TABLE orders'; END$$",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM orders RETURNING 1'",
    "COPY orders TO PROGRAM 'cat'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "COPY orders FROM '/etc/passwd'",
    "EXECUTE nobody_prepared_this",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT nextval('orders_id_seq')",
    "SELECT setval('orders_id_seq', 1)",
    "SELECT pg_advisory_lock(1)",
    "SELECT set_config('role', 'postgres', false)",
    "SET SESSION AUTHORIZATION DEFAULT",
    "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'",
    "SET standard_conforming_strings = off",
    "SELECT set_config('standard_conforming_strings', 'off', false)",
    "SELECT set_config(n, 'off', false) FROM (VALUES ('standard_conforming_strings')) v (n)",
    "SET NAMES 'SJIS'",
    "SET backslash_quote = on",
    "ALTER ROLE app SET standard_conforming_strings = off",
    "LOAD 'auto_explain'",
    "CREATE EXTENSION dblink",
];

/// Functions of the database's own that run where no statement names them: all delete.
const UNNAMED: &str = "
    CREATE FUNCTION public.acts(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.orders; RETURN 1; END';
    CREATE FUNCTION public.accepts(int) RETURNS boolean LANGUAGE plpgsql
      AS 'BEGIN DELETE FROM public.orders; RETURN true; END';
    CREATE TYPE public.pair AS (a int, b int);
    CREATE FUNCTION public.to_pair(int) RETURNS public.pair LANGUAGE plpgsql
      AS 'BEGIN DELETE FROM public.orders; RETURN (1, 2); END';
    CREATE CAST (int AS public.pair) WITH FUNCTION public.to_pair(int);
    CREATE FUNCTION public.from_pair(public.pair) RETURNS point LANGUAGE plpgsql
      AS 'BEGIN DELETE FROM public.orders; RETURN point(1, 2); END';
    CREATE CAST (public.pair AS point) WITH FUNCTION public.from_pair(public.pair);
    CREATE DOMAIN public.small AS int CHECK (public.accepts(VALUE));
    CREATE DOMAIN public.lower AS int CHECK (public.accepts(VALUE));
    CREATE TYPE public.holder AS (held public.small);
    CREATE VIEW public.acting AS SELECT public.acts(1) AS a;
    CREATE VIEW public.casting AS SELECT 1::public.small AS a;
    GRANT SELECT ON public.acting, public.casting TO app";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn functions_that_run_unnamed_must_be_named_by_a_rule() -> Result<()> {
    World::with(|world| {
        world.server.sql("shop", UNNAMED)?;
        for (statement, function) in [
            ("SELECT 1::pair", "to_pair"),
            ("SELECT CAST(1 AS public.pair)", "to_pair"),
            ("SELECT (ROW(1, 2)::pair)::point", "from_pair"),
            ("SELECT 1::small", "accepts"),
            ("SELECT small '1'", "accepts"),
            ("SELECT '{1}'::small[]", "accepts"),
            ("SELECT '(1)'::holder", "accepts"),
            ("SELECT count(*) FROM orders WHERE id::small = 1", "accepts"),
            ("PREPARE p (small) AS SELECT $1", "accepts"),
            ("SELECT * FROM json_to_record('{\"a\":1}') AS x(a small)", "accepts"),
            ("SELECT * FROM ROWS FROM (json_to_record('{\"a\":1}') AS (a small))", "accepts"),
            ("SELECT ('1').small", "accepts"),
            ("SELECT (SELECT 1).small", "accepts"),
            ("SELECT (quantity).small FROM orders", "accepts"),
            ("SELECT lower(1)", "accepts"),
            ("SELECT a FROM xmltable('/r' PASSING '<r>1</r>' COLUMNS a small PATH '.')", "accepts"),
            ("INSERT INTO store.branches (id, city, tags[acts(1)]) VALUES (91, 'x', 'y')", "acts"),
            (
                "WITH RECURSIVE r(a) AS (SELECT 1 UNION ALL SELECT a FROM r) CYCLE a SET c TO small '1' DEFAULT small '2' USING p SELECT a FROM r",
                "accepts",
            ),
            ("SELECT * FROM acting", "acts"),
            ("SELECT count(*) FROM casting", "accepts"),
        ] {
            world.ci.psql(statement)?.refused_by_the_gate(&[function]).context(statement)?;
        }
        ensure!(world.server.sql("shop", "SELECT count(*) FROM orders")? == "10", "something was deleted");
        let shown =
            world.ci.psql("SELECT 1::int, '1'::numeric(3, 1), count(*)::text FROM orders")?.clean()?;
        ensure!(shown == "1|1.0|10", "types of PostgreSQL's own need no rule: {shown}");
        world.agent.write_bundle("named.yaml", NAMED)?;
        world.agent.ask(&["reload"])?;
        ensure!(world.ci.psql("SELECT 1::small")?.clean()? == "1", "what a rule names does not run");
        Ok(())
    })
}

/// Names one of them.
const NAMED: &str = "tidegate: 1
rules:
  - name: named
    subjects: [ci]
    resources: [shop]
    allow:
      - {statement: select, function: public.accepts}
";

/// A trigger, and functions, that say aloud what they may read; the statements touch no masked column.
const ALOUD: &str = "
    CREATE FUNCTION store.tell() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN RAISE NOTICE ''%'', (SELECT card_number FROM public.customers WHERE id = 1); RETURN NEW; END';
    CREATE TRIGGER tell BEFORE UPDATE ON store.branches FOR EACH ROW EXECUTE FUNCTION store.tell();
    CREATE FUNCTION store.fails() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN NEW.id := (SELECT email FROM public.customers WHERE id = 1)::int; RETURN NEW; END';
    CREATE TRIGGER fails BEFORE INSERT ON store.branches FOR EACH ROW EXECUTE FUNCTION store.fails();
    GRANT USAGE ON SCHEMA store TO app; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA store TO app";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_triggers_say_of_masked_columns_is_withheld_and_the_servers_own_notices_are_not() -> Result<()> {
    World::with(|world| {
        // Columns only: by content, the card would be found in the notice as well.
        world.change_bundle_in(&BY_COLUMNS_ALONE)?;
        world.agent.ask(&["reload"])?;
        world.server.sql("shop", ALOUD)?;
        let ran = world.ci.psql(
            "UPDATE store.branches SET city = 'x' WHERE id = 1;\n\
             INSERT INTO store.branches VALUES (9, 'y');\n\
             \\copy store.branches FROM PROGRAM 'echo 10,z' (FORMAT csv)\n",
        )?;
        ran.complains(&["withheld", "22P02"])?;
        ensure!(tells(&ran).is_none(), "it tells {:?}: {ran:?}", tells(&ran));
        let own = world.ci.psql("BEGIN; BEGIN; SELECT 'x'::json")?;
        own.complains(&["there is already a transaction in progress", "JSON data, line 1: x"])?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn no_wrapping_makes_a_forbidden_statement_run() -> Result<()> {
    World::with(|world| forbids(world))
}

/// Checks that nothing runs that no rule allows.
pub(crate) fn forbids(world: &World) -> Result<()> {
    for statement in FORBIDDEN {
        world.ci.psql(statement)?.refused_by_the_gate(&[]).context(*statement)?;
    }
    ensure!(world.server.sql("shop", "SELECT count(*) FROM orders")? == "10", "something was deleted");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn startup_options_lead_to_no_other_database_or_protocol() -> Result<()> {
    World::with(|world| {
        for options in [
            "-c database=postgres",
            "--database=postgres",
            "-c user=postgres",
            "-c replication=database",
            "-c options=-cbackslash_quote=on",
            "-c standard_conforming_strings=off",
            "-c client_encoding=SJIS",
            "-f i",
        ] {
            let mut command = world.ci.command("psql");
            command.env("PGOPTIONS", options).args(["-XqAtc", "SELECT current_database()"]);
            let output = world.ci.output(&mut command)?;
            ensure!(!output.status.success(), "{options}: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(())
    })
}

/// Texts that take the gate as long as a text can, of each length that is treated differently.
fn tangled() -> Vec<String> {
    let doubling = |times: usize| {
        let step = |n: usize| format!("c{} AS (SELECT x.*, y.* FROM c{n} x, c{n} y)", n + 1);
        format!("WITH c0 AS (SELECT 1 AS a), {}", (0..times).map(step).collect::<Vec<_>>().join(", "))
    };
    let many =
        |what: &str, count: usize| (0..count).map(|n| format!("{what} x{n}")).collect::<Vec<_>>().join(", ");
    let nested = (0..3).fold("o.id = 1".to_owned(), |inner, _| {
        let sum = (0..40).map(|n| format!("x{n}.id")).collect::<Vec<_>>().join(" + ");
        format!("o.id IN (SELECT {sum} FROM orders o, {} WHERE {inner})", many("orders", 40))
    });
    vec![
        format!("{} SELECT 1 FROM c40", doubling(40)),
        format!("{} SELECT reverse(card_number) FROM customers, {}", doubling(10), many("c10", 350)),
        format!(
            "{} SELECT reverse(card_number) FROM customers, c10 x NATURAL JOIN c10 y NATURAL JOIN c10 z",
            doubling(10)
        ),
        format!("SELECT 1 FROM {}", many("orders", 50_000)),
        format!("SELECT reverse(card_number) FROM customers o WHERE {nested}"),
        format!("SELECT {}1", "NOT ".repeat(50_000)),
    ]
}

/// How long a bystander may have to wait, on a machine that has much else to do.
const HELD_UP: Duration = Duration::from_millis(1500);

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_tangled_query_holds_nobody_up() -> Result<()> {
    World::with(|world| {
        // Sessions are spread over the agent's threads: more of them than there are threads are on each.
        let threads = std::thread::available_parallelism()?.get();
        let mut bystanders =
            (0..2 * threads).map(|_| Session::open(&world.ops)).collect::<Result<Vec<_>>>()?;
        for (index, query) in tangled().iter().enumerate() {
            let slowest = std::thread::scope(|scope| {
                let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| world.ci.psql(query))).collect();
                let mut slowest = Duration::ZERO;
                while !asking.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                    for bystander in &mut bystanders {
                        let begun = Instant::now();
                        ensure!(bystander.ask("SELECT 'here'")? == "here", "another session was hit");
                        slowest = slowest.max(begun.elapsed());
                    }
                }
                for asked in asking {
                    let complaint = asked.join().map_err(|_| anyhow!("a client's thread panicked"))??;
                    ensure!(complaint.stderr.contains("ERROR"), "{complaint:?}");
                }
                Ok(slowest)
            });
            let slowest = slowest.with_context(|| format!("text {index}"))?;
            ensure!(slowest < HELD_UP, "another session waited for {slowest:?} behind text {index}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_the_table_itself_makes_of_a_masked_column_is_no_way_to_it() -> Result<()> {
    World::with(|world| {
        world.server.sql(
            "shop",
            "ALTER TABLE customers ADD COLUMN prefix text GENERATED ALWAYS AS (left(card_number, 4)) STORED; \
             CREATE VIEW prefixes AS SELECT id, left(card_number, 4) AS prefix FROM customers; \
             GRANT SELECT ON prefixes TO app; CREATE TABLE heirs (prefix2 text) INHERITS (customers); \
             INSERT INTO heirs (id, name, email, card_number) OVERRIDING SYSTEM VALUE \
             VALUES (9, 'Heir', 'heir@example.com', 'no card at all'); GRANT SELECT ON heirs TO app",
        )?;
        for query in
            ["SELECT prefix FROM customers", "SELECT * FROM customers", "SELECT prefix FROM prefixes"]
        {
            world.ci.psql(query)?.refused_by_the_gate(&["card_number"]).context(query)?;
        }
        let shown = world.ci.psql("SELECT card_number FROM heirs")?.clean()?;
        ensure!(shown == "********** all", "{shown}");
        ensure!(
            world.ci.psql("SELECT id FROM prefixes WHERE id = 1")?.clean()? == "1",
            "what isn't made of it"
        );
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_name_is_masked_by_what_it_stands_for_when_it_runs() -> Result<()> {
    World::with(|world| {
        let card = "\"public.customers.card_number\"";
        world.change_bundle(card, &format!("{card}, public.products.title"))?;
        world.agent.ask(&["reload"])?;
        let shown = world.ci.python(include_str!("../../clients/names.py"))?.clean()?;
        ensure!(shown.is_empty(), "shown in clear where {shown}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_a_transaction_touched_is_withheld_from_the_error_that_ends_it() -> Result<()> {
    World::with(|world| {
        world.server.sql(
            "shop",
            "ALTER TABLE customers ADD UNIQUE (card_number) DEFERRABLE INITIALLY DEFERRED; \
             UPDATE customers SET card_number = 'no card at all' WHERE id = 1",
        )?;
        let copy = "INSERT INTO customers (name, email, card_number) \
                    SELECT name, 'x', card_number FROM customers WHERE id = 1";
        for end in ["COMMIT", "SET CONSTRAINTS ALL IMMEDIATE", "PREPARE TRANSACTION 'x'"] {
            let ran = world.ci.psql(&format!("BEGIN;\n{copy};\n{end};\nROLLBACK;\n"))?;
            ensure!(!ran.stderr.contains("no card at all"), "{end}: {}", ran.stderr);
        }
        Ok(())
    })
}

/// Ways to take a masked column out from under its mask, or to have the server tell of its values, for who may alter tables.
const ALTERING: &[&str] = &[
    "ALTER TABLE customers RENAME COLUMN card_number TO cn",
    "ALTER TABLE customers RENAME TO clients",
    "ALTER TABLE customers SET SCHEMA pg_temp",
    "ALTER SCHEMA public RENAME TO other",
    "ALTER TABLE customers ADD UNIQUE (card_number)",
    "ALTER TABLE customers ADD FOREIGN KEY (card_number) REFERENCES products (title)",
    "ALTER TABLE customers ALTER COLUMN card_number TYPE varchar(15)",
    "ALTER TABLE customers ALTER COLUMN card_number SET NOT NULL",
    "CREATE UNIQUE INDEX ON customers (card_number)",
    "CREATE INDEX ON customers (card_number)",
    "CREATE STATISTICS told ON id, card_number FROM customers",
    "ALTER INDEX customers RENAME TO clients",
    "CREATE TEMP TABLE customers (card_number text); INSERT INTO customers SELECT card_number FROM public.customers",
    "SET search_path = pg_temp, public; CREATE TABLE customers (card_number text); INSERT INTO customers SELECT card_number FROM public.customers",
    "CREATE TEMP TABLE t2 (card_number text); ALTER TABLE t2 RENAME TO customers; INSERT INTO customers SELECT card_number FROM public.customers",
    "ALTER TABLE customers ALTER COLUMN name TYPE text USING card_number",
    "CLUSTER customers USING customers_pkey",
    // No mask, but the gate's own way in.
    "ALTER ROLE app PASSWORD 'of-my-own'",
];

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn who_may_alter_tables_takes_no_mask_off() -> Result<()> {
    World::with(|world| {
        let allowed = "insert, update, delete, create, alter, vacuum, copy-to";
        let [cards, mails] = BY_COLUMNS_ALONE;
        world.change_bundle_in(&[("insert, update, delete, copy-to", allowed), cards, mails])?;
        world.agent.ask(&["reload"])?;
        for text in ALTERING {
            world.ci.psql(text)?.refused_by_the_gate(&[]).context(*text)?;
        }
        let shown = world.ci.psql("SELECT card_number FROM customers")?.clean()?;
        ensure!(!shown.contains("4111111111111111"), "{shown}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn answers_stay_in_step_and_views_that_change_show_nothing() -> Result<()> {
    World::with(|world| {
        world.server.sql("shop", "GRANT CREATE ON SCHEMA public TO app")?;
        let allowed = "insert, update, delete, create, alter, lock, copy-to";
        let [cards, mails] = BY_COLUMNS_ALONE;
        // Who locks this table is not about to alter it: others wait for the lock, undoubting.
        let unaltered = (
            "[drop, truncate]}",
            "[drop, truncate]}\n      - {statement: [alter, create], table: public.products}",
        );
        world.change_bundle_in(&[("insert, update, delete, copy-to", allowed), unaltered, cards, mails])?;
        world.agent.ask(&["reload"])?;
        let shown = world.ci.python(include_str!("../../clients/views.py"))?.clean()?;
        ensure!(shown.is_empty(), "shown in clear by {shown}");
        Ok(())
    })
}
