//! No way to name a masked column shows it: queries made at random, as the server itself runs them.

use std::{env, fmt::Write};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{BY_COLUMNS_ALONE, World};

use generated::{RELATIONS, SENTINEL, Script, scripts};

mod generated;

/// The queries are those of this seed, unless the variable `TIDEGATE_SEED` holds another.
const SEED: u64 = 20;

/// How many queries each session asks.
const QUERIES: usize = 25;

/// How a query's rows are set apart in what psql prints.
const MARK: &str = "query ";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn no_generated_query_shows_a_masked_value() -> Result<()> {
    let seed = match env::var("TIDEGATE_SEED") {
        Ok(seed) => seed.parse().context("TIDEGATE_SEED")?,
        Err(_) => SEED,
    };
    World::with(|world| {
        let mut changes = vec![
            ("\"public.customers.card_number\"", "\"public.people.card\""),
            ("[select, transaction,", "[select, create, transaction,"),
            ("[select, insert, update,", "[select, create, alter, drop, merge, insert, update,"),
            ("\"store.*\"]", "\"store.*\", \"pg_temp.*\", \"?.*\"]"),
            ("[drop, truncate]", "[truncate]"),
        ];
        changes.extend(BY_COLUMNS_ALONE);
        world.change_bundle_in(&changes)?;
        world.agent.ask(&["reload"])?;
        world.server.sql("shop", RELATIONS)?;
        let (mut asked, mut answered, mut refused) = (0, 0, 0);
        for script in scripts(seed, QUERIES) {
            let ran = world.ci.psql(&text(&script)?)?;
            for part in ran.stdout.split(MARK).skip(1) {
                let (number, rows) = part.split_once('\n').unwrap_or((part, ""));
                let query = number.parse().ok().and_then(|number: usize| script.queries.get(number));
                ensure!(
                    !rows.contains(SENTINEL),
                    "seed {seed}, after {:?}, {}: {rows}",
                    script.setup,
                    query.context("a query")?
                );
                answered += usize::from(!rows.is_empty());
            }
            ensure!(!ran.stderr.contains(SENTINEL), "seed {seed}, after {:?}: {}", script.setup, ran.stderr);
            let first = ran.stderr.split(MARK).next().unwrap_or_default();
            ensure!(!first.contains("42501"), "{:?} was refused: {first}", script.setup);
            refused += ran.stderr.matches("42501").count();
            asked += script.queries.len();
        }
        let kept = "SELECT w::text FROM wide w UNION ALL SELECT id || name FROM people \
                    UNION ALL SELECT n::text FROM public.notes n \
                    UNION ALL SELECT n::text FROM store.notes n";
        let kept = world.server.sql("shop", kept)?;
        ensure!(!kept.contains(SENTINEL), "seed {seed}: kept in clear: {kept}");
        println!("seed {seed}: of {asked} queries {answered} were answered, {refused} refused");
        ensure!(answered > asked / 8 && refused > 0, "{answered} of {asked} ran, and {refused} were refused");
        Ok(())
    })
}

/// What psql is given. A failed query leaves a transaction that the session begins with.
fn text(script: &Script) -> Result<String> {
    let mut text = format!("SET statement_timeout = '5s';\n{};\n", script.setup);
    for (number, query) in script.queries.iter().enumerate() {
        writeln!(text, "\\echo {MARK}{number}\n\\warn {MARK}{number}")?;
        match script.setup.starts_with("BEGIN; ALTER") {
            true => writeln!(text, "SAVEPOINT s;\n{query};\nROLLBACK TO s;")?,
            false => writeln!(text, "{query};")?,
        }
    }
    Ok(text)
}
