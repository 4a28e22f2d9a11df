//! What approvers are shown of what drivers send in binary, and by numbers.

use std::thread;

use anyhow::{Result, ensure};
use tidegate_tests::World;

use crate::{
    approvals::{approvals, hold, waiting, wishes},
    together::Session,
};

/// The driver fixes no types: it asks the server for them, and sends values in binary.
const ASYNCPG: &str = "\
import asyncio, asyncpg, datetime
async def main():
    connection = await asyncpg.connect()
    day = datetime.date(2026, 10, 9)
    print(await connection.execute('DELETE FROM store.wishes WHERE id = ANY($1) AND $2 > DATE $$2001-01-01$$', [1], day))
asyncio.run(main())
";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn approvers_read_what_a_driver_sends_in_binary_of_types_that_the_server_chose() -> Result<()> {
    World::with(|world| {
        hold(world, "wait: 10m")?;
        let said = thread::scope(|scope| {
            let client = scope.spawn(|| world.ci.python(ASYNCPG));
            let id = waiting(world, &world.ops)?;
            let (_, shown) = approvals(world, &world.ops, &["show", &id])?;
            for part in ["$1 (int4[]): {1}", "$2 (date): 2026-10-09"] {
                ensure!(shown.contains(part), "no {part:?} in:\n{shown}");
            }
            approvals(world, &world.ops, &["approve", &id])?;
            client.join().map_err(|_| anyhow::anyhow!("the client's thread"))??.clean()
        })?;
        ensure!(said == "DELETE 2" && wishes(world)? == "0", "{said}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn approvers_of_a_call_by_oid_read_which_function_that_is() -> Result<()> {
    World::with(|world| {
        hold(world, "wait: 10m")?;
        let rules = format!(
            "  - name: calls\n    subjects: [ops]\n    resources: [shop]\n    allow: [{{statement: function-call}}]\n\
             \x20 - name: ask-calls\n    subjects: [ops]\n    resources: [shop]\n    hold: [{{statement: function-call}}]\n    \
             approve: {{by: {{users: [\"{}\"]}}, wait: 10m}}\n\n  - name: no-drop",
            world.stranger.uid
        );
        world.change_bundle("  - name: no-drop", &rules)?;
        world.agent.ask(&["reload"])?;
        let mut session = Session::open(&world.ops)?;
        // libpq calls what is about large objects by its oid.
        session.say("\\lo_unlink 4711\n")?;
        let id = waiting(world, &world.stranger)?;
        let (_, shown) = approvals(world, &world.stranger, &["show", &id])?;
        for part in ["pg_catalog.lo_unlink(oid)", "$1 (oid)"] {
            ensure!(shown.contains(part), "no {part:?} in:\n{shown}");
        }
        approvals(world, &world.stranger, &["deny", &id, "--reason", "whose is it?"])?;
        ensure!(session.end()?.contains("whose is it?"), "the client was not told");
        Ok(())
    })
}
