//! Several people who must agree, or who answer at once.

use anyhow::{Context, Result, ensure};
use tidegate_tests::World;

use crate::{
    approvals::{DELETE, approvals, hold_by, last_record, waiting, wishes},
    together::Session,
};

/// Deletes wait for so many of two accounts.
fn hold_for(world: &World, approvers: u32) -> Result<()> {
    let by =
        format!("by: {{users: [\"{}\", \"{}\"], approvers: {approvers}}}", world.ops.uid, world.stranger.uid);
    hold_by(world, &by, "wait: 10m")
}

/// What both are told who answer at the same time, `ops` first.
fn at_once(world: &World, answers: [&str; 2], id: &str) -> Result<Vec<(bool, String)>> {
    let people = [&world.ops, &world.stranger].into_iter().zip(answers);
    std::thread::scope(|scope| {
        let answering = people.map(|(who, answer)| scope.spawn(move || approvals(world, who, &[answer, id])));
        let answering: Vec<_> = answering.collect();
        answering.into_iter().map(|one| one.join().ok().context("a thread")?).collect()
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_two_must_agree_to_goes_on_after_the_second_and_not_before() -> Result<()> {
    World::with(|world| {
        hold_for(world, 2)?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        let id = waiting(world, &world.ops)?;
        let (done, said) = approvals(world, &world.ops, &["approve", &id, "--reason", "ticket 7"])?;
        ensure!(done && said.contains("agreed") && !said.contains("is approved"), "{said}");
        let (done, twice) = approvals(world, &world.ops, &["approve", &id])?;
        ensure!(!done && twice.contains("you "), "{twice}");
        let (done, own) = approvals(world, &world.ci, &["approve", &id])?;
        ensure!(!done && own.contains("you asked"), "{own}");
        ensure!(wishes(world)? == "2", "it ran after one yes");
        ensure!(waiting(world, &world.stranger)? == id, "it waits for nobody any more");
        let (done, said) = approvals(world, &world.stranger, &["approve", &id])?;
        ensure!(done && said.contains("is approved"), "{said}");
        ensure!(session.ask("SELECT count(*) FROM store.wishes")? == "0", "it did not run");
        ensure!(session.end()?.contains(&id), "the client was not told");
        let record = last_record(world)?;
        for who in [&world.ops, &world.stranger] {
            ensure!(record.contains(&who.uid.to_string()), "{} is not in:\n{record}", who.uid);
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn of_two_who_answer_at_once_both_count_where_both_must_and_one_where_one_must() -> Result<()> {
    World::with(|world| {
        hold_for(world, 2)?;
        let mut session = Session::open(&world.ci)?;
        for _ in 0..4 {
            world.server.sql("shop", "INSERT INTO store.wishes VALUES (1)")?;
            session.say(DELETE)?;
            let id = waiting(world, &world.ops)?;
            let said = at_once(world, ["approve", "approve"], &id)?;
            ensure!(said.iter().all(|(done, _)| *done), "{said:?}");
            ensure!(session.ask("SELECT count(*) FROM store.wishes")? == "0", "two said yes: {said:?}");
        }
        world.agent.write_bundle(
            "bundle.yaml",
            &world.agent.read_bundle("bundle.yaml")?.replace("approvers: 2", "approvers: 1"),
        )?;
        world.agent.ask(&["reload"])?;
        for _ in 0..4 {
            world.server.sql("shop", "INSERT INTO store.wishes VALUES (1)")?;
            session.say(DELETE)?;
            let id = waiting(world, &world.ops)?;
            let said = at_once(world, ["approve", "deny"], &id)?;
            ensure!(said.iter().filter(|(done, _)| *done).count() == 1, "{said:?}");
            let left = session.ask("SELECT count(*) FROM store.wishes")?;
            ensure!((left == "0") == said[0].0, "{left} are left: {said:?}");
            world.server.sql("shop", "DELETE FROM store.wishes")?;
        }
        Ok(())
    })
}
