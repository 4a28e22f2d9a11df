//! Servers of every version that `cargo xtask setup` fetches, beside the system's own that all other tests use.

use anyhow::{Context, Result, ensure};
use tidegate_tests::{Options, SERVERS, World};

use crate::{attacks, together::eventually};

/// What a version brought: what must be refused, and what must be shown masked.
struct News {
    since: u32,
    refused: &'static [&'static str],
    masked: &'static [&'static str],
}

const NEWS: &[News] = &[
    News {
        since: 16,
        refused: &[
            "SELECT any_value(card_number) FROM customers",
            "SELECT pg_input_error_info(card_number, 'integer') FROM customers",
            "SELECT JSON_ARRAYAGG(card_number) FROM customers",
            "SELECT JSON_OBJECT('a': card_number) FROM customers",
            "SELECT c IS JSON FROM (SELECT card_number AS c FROM customers) s",
        ],
        masked: &["SELECT * FROM (SELECT id, card_number FROM customers WHERE id = 1)"],
    },
    News {
        since: 17,
        refused: &[
            "SELECT j.* FROM customers c, JSON_TABLE(to_jsonb(c), '$' COLUMNS (x text PATH '$.card_number')) j",
            "SELECT JSON_VALUE(to_jsonb(c), '$.card_number') FROM customers c",
            "SELECT JSON_SCALAR(card_number) FROM customers",
            "SELECT JSON_EXISTS(to_jsonb(c), '$ ? (@.card_number like_regex \"^41\")') FROM customers c",
            "SELECT JSON_SERIALIZE(to_json(c)) FROM customers c",
            "SELECT * FROM pg_stats WHERE tablename = 'customers'",
            "SELECT pg_column_toast_chunk_id(card_number) FROM customers",
        ],
        masked: &[
            "MERGE INTO orders o USING customers c ON c.id = o.customer AND o.id = 1 \
             WHEN MATCHED THEN UPDATE SET quantity = o.quantity RETURNING *",
            "MERGE INTO customers c USING orders o ON c.id = o.customer AND o.id = 1 \
             WHEN MATCHED THEN UPDATE SET name = c.name RETURNING *",
            "MERGE INTO customers c USING orders o ON c.id = o.customer AND o.id = 1 \
             WHEN MATCHED THEN UPDATE SET name = c.name RETURNING merge_action(), c.*, o.id",
            "WITH m AS (MERGE INTO customers c USING orders o ON c.id = o.customer AND o.id = 1 \
             WHEN MATCHED THEN UPDATE SET name = c.name RETURNING *) SELECT * FROM m",
            "SELECT j.*, c.card_number FROM customers c, JSON_TABLE(jsonb '{\"a\": [{\"b\": 1}], \"d\": 2}', '$' COLUMNS \
             (NESTED '$.a[*]' COLUMNS (b int PATH '$.b'), d int PATH '$.d')) j WHERE c.id = 1",
        ],
    },
    News {
        since: 18,
        refused: &[
            "SELECT shadow FROM customers",
            "SELECT * FROM customers",
            "SELECT id FROM customers WHERE shadow LIKE '11%'",
            "COPY (SELECT shadow FROM customers) TO STDOUT",
            "UPDATE customers SET name = name WHERE id = 1 RETURNING old.shadow",
            "UPDATE customers SET name = name WHERE id = 1 RETURNING old::text",
            "UPDATE customers SET name = name WHERE id = 1 RETURNING WITH (OLD AS o) reverse(o.card_number)",
            "DELETE FROM customers WHERE id = 1 AND name = 'x' RETURNING to_json(old)",
        ],
        masked: &[
            "UPDATE customers SET name = name WHERE id = 1 RETURNING old.card_number, new.card_number",
            "UPDATE customers SET name = name WHERE id = 1 RETURNING WITH (OLD AS o, NEW AS n) o.email, n.card_number",
            "INSERT INTO customers (name, email, card_number) VALUES ('x', 'x', 'x') RETURNING old.card_number, new.email",
            "DELETE FROM customers WHERE id = 1 AND name = 'x' RETURNING old.id, old.card_number",
            "MERGE INTO customers c USING orders o ON c.id = o.customer AND o.id = 1 \
             WHEN MATCHED THEN UPDATE SET name = c.name RETURNING old.card_number, new.email",
        ],
    },
];

/// On a server of one version, whose catalog the gate reads and whose grammar it must know.
fn essentials(world: &World, version: u32) -> Result<()> {
    let shown = world.server.sql("shop", "SHOW server_version")?;
    ensure!(shown.starts_with(&version.to_string()), "this is {shown}");
    attacks::refuses(world, attacks::PEEKING)?;
    attacks::looks(world)?;
    attacks::forbids(world)?;
    for client in [
        include_str!("../../clients/psycopg.py"),
        include_str!("../../clients/asyncpg.py"),
        include_str!("../../clients/raw.py"),
    ] {
        let shown = world.ci.python(client)?.clean()?;
        ensure!(shown == "ok", "{shown}");
    }
    let ran = world.ci.psql("BEGIN;\nINSERT INTO products (title, cents) VALUES ('lost', 1);\nDROP TABLE orders;\nCOMMIT;\nSELECT 'on'")?;
    ran.refused_by_the_gate(&["no-drop"])?;
    ensure!(ran.stdout == "on\n", "{ran:?}");
    for news in NEWS.iter().filter(|news| news.since <= version) {
        if news.since == 18 {
            virtual_column(world)?;
        }
        attacks::refuses(world, news.refused).context("what is new")?;
        for query in news.masked {
            attacks::masked(world, query).context("what is new")?;
        }
    }
    Ok(())
}

/// A column that is computed when it is read, from a masked one. It counts once the gate has asked the catalog again.
fn virtual_column(world: &World) -> Result<()> {
    let shadow = "ALTER TABLE customers ADD COLUMN shadow text GENERATED ALWAYS AS (reverse(card_number))";
    world.server.sql("shop", shadow)?;
    eventually("the new column is known", || {
        Ok(world.ci.psql("SELECT shadow FROM customers")?.stderr.contains("card_number"))
    })
}

fn on(version: u32) -> Result<()> {
    let options = Options { version: Some(version), ..Options::default() };
    World::on(&options, |world| {
        let newest = "credential: shop-app\n    options: {max-protocol-version: \"3.2\"}";
        world.change_bundle_in(&[
            ("credential: shop-app", newest),
            ("insert, update, delete, copy-to", "insert, update, delete, merge, copy-to"),
        ])?;
        world.agent.ask(&["reload"])?;
        essentials(world, version)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn the_gate_stands_before_postgresql_16() -> Result<()> {
    on(16)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn the_gate_stands_before_postgresql_17() -> Result<()> {
    on(17)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn the_gate_stands_before_postgresql_18() -> Result<()> {
    on(18)
}

#[test]
fn every_server_that_is_fetched_is_tried() {
    assert_eq!(SERVERS, [16, 17, 18]);
}
