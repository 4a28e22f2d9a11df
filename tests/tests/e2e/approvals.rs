//! Statements that wait for a person, from the client to the approver's terminal.

use std::{fs, os::unix::fs::PermissionsExt, process::Command, thread};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tidegate_tests::{Account, World};

use crate::together::{Session, eventually};

/// What waits in these tests.
pub(crate) const DELETE: &str = "DELETE FROM store.wishes WHERE id = 1";

/// Deletes of `store.wishes` wait for `ops`, and count for half an hour in their session.
pub(crate) fn hold(world: &World, terms: &str) -> Result<()> {
    hold_by(world, &format!("by: {{users: [\"{}\"]}}", world.ops.uid), terms)
}

/// The same, for these people.
pub(crate) fn hold_by(world: &World, by: &str, terms: &str) -> Result<()> {
    hold_what(world, "{statement: delete, table: store.wishes}", by, terms)
}

/// This action waits for these people.
fn hold_what(world: &World, what: &str, by: &str, terms: &str) -> Result<()> {
    hold_where(world, what, by, terms, None)
}

/// The same, where something else of the bundle is changed, too.
fn hold_where(world: &World, what: &str, by: &str, terms: &str, change: Option<(&str, &str)>) -> Result<()> {
    world.server.sql("shop", "CREATE TABLE store.wishes (id int); GRANT ALL ON store.wishes TO app")?;
    world.server.sql("shop", "INSERT INTO store.wishes VALUES (1), (1)")?;
    let rule = format!(
        "  - name: ask\n    subjects: [ci]\n    resources: [shop]\n    \
         hold: [{what}]\n    \
         approve: {{{by}, {terms}}}\n\n  - name: no-drop"
    );
    let changes: Vec<_> = [("  - name: no-drop", &*rule)].into_iter().chain(change).collect();
    world.change_bundle_in(&changes)?;
    world.agent.ask(&["reload"])?;
    // The world is private to root: the socket is for every account.
    let runtime = world.agent.runtime();
    for directory in [runtime.as_path(), runtime.parent().context("the agent's directory")?] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o711))?;
    }
    Ok(())
}

/// `tidegate approvals ...` as somebody.
pub(crate) fn approvals(world: &World, who: &Account, arguments: &[&str]) -> Result<(bool, String)> {
    let told = world.agent.command(&[]);
    let runtime = world.agent.runtime();
    let mut command = who.command(told.get_program());
    command.arg("approvals").args(arguments).arg("--runtime").arg(runtime);
    said(who, &mut command)
}

fn said(who: &Account, command: &mut Command) -> Result<(bool, String)> {
    let output = who.output(command)?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

/// The question that waits, once it does.
pub(crate) fn waiting(world: &World, who: &Account) -> Result<String> {
    let mut id = String::new();
    eventually("a question waits", || {
        let (_, listed) = approvals(world, who, &["list", "--json"])?;
        let listed: Value = serde_json::from_str(&listed).with_context(|| listed.clone())?;
        let first = listed.as_array().and_then(|all| all.iter().find(|one| one["state"] == "waiting"));
        id = first.map_or("", |one| one["id"].as_str().unwrap_or_default()).to_owned();
        Ok(!id.is_empty())
    })?;
    Ok(id)
}

pub(crate) fn wishes(world: &World) -> Result<String> {
    world.server.sql("shop", "SELECT count(*) FROM store.wishes")
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_held_delete_is_approved_by_another_account_and_goes_on_in_its_connection() -> Result<()> {
    World::with(|world| {
        hold(world, "wait: 10m, reason: required")?;
        let mut session = Session::open(&world.ci)?;
        session.say("BEGIN")?;
        session.say(DELETE)?;
        let id = waiting(world, &world.ops)?;
        let (_, shown) = approvals(world, &world.ops, &["show", &id])?;
        for part in [DELETE, "with database: shop", "psql", "rule       ask"] {
            ensure!(shown.contains(part), "no {part:?} in:\n{shown}");
        }
        let (done, own) = approvals(world, &world.ci, &["approve", &id, "--reason", "me"])?;
        ensure!(!done && own.contains("you asked"), "{own}");
        let (done, silent) = approvals(world, &world.ops, &["approve", &id])?;
        ensure!(!done && silent.contains("--reason"), "{silent}");
        let (done, stranger) = approvals(world, &world.stranger, &["approve", &id, "--reason", "x"])?;
        ensure!(!done && stranger.contains("no question"), "{stranger}");
        ensure!(wishes(world)? == "2", "it ran unapproved");
        let (done, said) = approvals(world, &world.ops, &["approve", &id, "--reason", "ticket 7"])?;
        ensure!(done && said.contains("is approved"), "{said}");
        // The same session, the same transaction.
        ensure!(session.ask("SELECT count(*) FROM store.wishes")? == "0", "it did not run");
        session.say("COMMIT")?;
        let complaints = session.end()?;
        ensure!(complaints.contains("NOTICE") && complaints.contains(&id), "{complaints}");
        ensure!(wishes(world)? == "0", "it was not committed");
        let record = last_record(world)?;
        for part in ["held by ask", &format!("approval {id} asked"), "seen by", "ticket 7"] {
            ensure!(record.contains(part), "no {part:?} in:\n{record}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_denied_delete_is_an_error_and_the_session_goes_on() -> Result<()> {
    World::with(|world| {
        hold(world, "wait: 10m")?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        let id = waiting(world, &world.ops)?;
        approvals(world, &world.ops, &["deny", &id, "--reason", "not today"])?;
        ensure!(session.ask("SELECT 'here'")? == "here", "the session is gone");
        let complaints = session.end()?;
        ensure!(complaints.contains("42501") && complaints.contains("not today"), "{complaints}");
        ensure!(wishes(world)? == "2", "it ran");
        let record = last_record(world)?;
        ensure!(record.contains(&format!("approval {id} denied by")), "{record}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_delete_that_nobody_answers_is_an_error_and_the_session_goes_on() -> Result<()> {
    World::with(|world| {
        hold(world, "wait: 2s")?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        ensure!(session.ask("SELECT 'here'")? == "here", "the session is gone");
        let complaints = session.end()?;
        ensure!(
            complaints.contains("42501") && complaints.contains("nobody answered in time"),
            "{complaints}"
        );
        ensure!(wishes(world)? == "2", "it ran");
        let record = last_record(world)?;
        ensure!(record.contains("expired"), "{record}");
        Ok(())
    })
}

/// What the record of the newest session shows.
pub(crate) fn last_record(world: &World) -> Result<String> {
    let sessions = world.agent.ask(&["sessions", "list", "--json"])?;
    let sessions: Value = serde_json::from_str(&sessions)?;
    let newest = sessions.pointer("/0/id").and_then(Value::as_str).context("a session")?;
    world.agent.ask(&["sessions", "show", newest])
}

/// Two hundred clients at once, each of which deletes one wish; those that could are printed.
const TWO_HUNDRED: &str = "\
import asyncio, asyncpg
async def delete(number):
    connection = await asyncpg.connect()
    try:
        await connection.execute(f'DELETE FROM store.wishes WHERE id = {number}')
        return [number]
    except asyncpg.PostgresError:
        return []
    finally:
        await connection.close()
async def all():
    return await asyncio.gather(*[delete(number) for number in range(200)])
print(*sum(asyncio.run(all()), []))
";

/// Approves the deletes of even wishes and denies the others, until so many are answered.
fn answer_by_number(world: &World, most: usize) -> Result<()> {
    let mut answered = 0;
    eventually("all are answered", || {
        let (_, listed) = approvals(world, &world.ops, &["list", "--json"])?;
        let listed: Vec<Value> = serde_json::from_str(&listed).with_context(|| listed.clone())?;
        for question in listed.iter().filter(|question| question["state"] == "waiting") {
            let (id, text) = (&question["id"], &question["text"]);
            let (id, text) = (id.as_str().context("an id")?, text.as_str().context("a text")?);
            let number: u32 = text.rsplit(' ').next().unwrap_or_default().parse()?;
            let say = if number.is_multiple_of(2) { "approve" } else { "deny" };
            let (done, said) = approvals(world, &world.ops, &[say, id])?;
            ensure!(done, "{said}");
            answered += 1;
        }
        Ok(answered == most)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn clients_that_wait_at_once_get_each_its_own_answer() -> Result<()> {
    World::with(|world| {
        hold(world, "wait: 10m")?;
        world.server.sql("shop", "INSERT INTO store.wishes SELECT generate_series(2, 199)")?;
        let deleted = std::thread::scope(|scope| {
            let clients = scope.spawn(|| world.ci.python(TWO_HUNDRED)?.clean());
            answer_by_number(world, 200)?;
            clients.join().map_err(|_| anyhow::anyhow!("the clients panicked"))?
        })?;
        let even: Vec<String> = (0..200).step_by(2).map(|number: u32| number.to_string()).collect();
        ensure!(deleted == even.join(" "), "{deleted}");
        ensure!(wishes(world)? == "101", "more or less than those was deleted: {}", wishes(world)?);
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_revoked_approval_ends_the_session_that_it_let_in() -> Result<()> {
    World::with(|world| {
        let by = format!("by: {{users: [\"{}\"]}}", world.ops.uid);
        hold_what(world, "{action: login}", &by, "wait: 10m, grant: 30m")?;
        let (mut session, id) = std::thread::scope(|scope| -> Result<_> {
            let opening = scope.spawn(|| Session::open(&world.ci));
            let id = waiting(world, &world.ops)?;
            approvals(world, &world.ops, &["approve", &id])?;
            let session = opening.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
            Ok((session, id))
        })?;
        let (done, said) = approvals(world, &world.ops, &["revoke", &id, "--reason", "shift is over"])?;
        ensure!(done, "{said}");
        eventually("the session is gone", || {
            let record = world.agent.ask(&["sessions", "list", "--json"])?;
            let sessions: Value = serde_json::from_str(&record)?;
            Ok(sessions[0]["end"].is_string())
        })?;
        session.say("SELECT 1")?;
        let complaints = session.end()?;
        for part in ["57P01", &format!("approval {id} was revoked"), "shift is over"] {
            ensure!(complaints.contains(part), "no {part:?} in:\n{complaints}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_yes_does_not_count_for_the_same_bytes_under_another_search_path() -> Result<()> {
    const UNQUALIFIED: &str = "DELETE FROM wishes WHERE id = 1";
    World::with(|world| {
        hold(world, "wait: 10m, grant: 10m")?;
        let other = "CREATE TABLE public.wishes (id int); GRANT ALL ON public.wishes TO app";
        world.server.sql("shop", other)?;
        world.server.sql("shop", "INSERT INTO public.wishes VALUES (1)")?;
        let mut session = Session::open(&world.ci)?;
        session.say("SET search_path = public")?;
        session.say(UNQUALIFIED)?;
        let id = waiting(world, &world.ops)?;
        let (_, shown) = approvals(world, &world.ops, &["show", &id])?;
        ensure!(shown.contains("SET search_path = public"), "{shown}");
        approvals(world, &world.ops, &["approve", &id])?;
        ensure!(session.ask("SELECT count(*) FROM public.wishes")? == "0", "it did not run");
        session.say("SET search_path = store")?;
        session.say(UNQUALIFIED)?;
        let again = waiting(world, &world.ops)?;
        ensure!(again != id, "the question is another one");
        approvals(world, &world.ops, &["deny", &again])?;
        session.end()?;
        ensure!(wishes(world)? == "2", "it ran unasked in the other schema");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn no_yes_lets_a_cursor_choose_the_row_that_is_deleted() -> Result<()> {
    const BY_CURSOR: &str = "DELETE FROM store.wishes WHERE CURRENT OF c";
    World::with(|world| {
        hold(world, "wait: 10m, grant: 10m")?;
        let mut session = Session::open(&world.ci)?;
        session.say("BEGIN")?;
        session.say("DECLARE c CURSOR FOR SELECT id FROM store.wishes FOR UPDATE")?;
        ensure!(session.ask("FETCH c")? == "1", "the cursor stands on no row");
        session.say(BY_CURSOR)?;
        session.say("ROLLBACK")?;
        ensure!(session.ask("SELECT 'here'")? == "here", "the session is gone");
        let complaints = session.end()?;
        for part in ["nobody can be shown which row", "name the row by its key"] {
            ensure!(complaints.contains(part), "no {part:?} in:\n{complaints}");
        }
        let (_, listed) = approvals(world, &world.ops, &["list", "--json"])?;
        ensure!(!listed.contains("CURRENT OF"), "somebody was asked: {listed}");
        ensure!(wishes(world)? == "2", "it ran");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_yes_does_not_count_for_the_same_parameter_as_another_type() -> Result<()> {
    World::with(|world| {
        hold(world, "wait: 10m, grant: 10m")?;
        world.server.sql("shop", "INSERT INTO store.wishes VALUES (5), (6), (7)")?;
        let before = wishes(world)?;
        let said = thread::scope(|scope| {
            let client = scope.spawn(|| world.ci.python(include_str!("../../clients/typed.py")));
            let first = waiting(world, &world.ops)?;
            approvals(world, &world.ops, &["approve", &first])?;
            let second = waiting(world, &world.ops)?;
            ensure!(first != second, "the same question");
            approvals(world, &world.ops, &["deny", &second, "--reason", "another type"])?;
            client.join().map_err(|_| anyhow::anyhow!("the client's thread"))??.clean()
        })?;
        ensure!(said.split_whitespace().eq("int4 DELETE 0 float4 refused".split_whitespace()), "{said}");
        ensure!(wishes(world)? == before, "rows were deleted: {said}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_yes_does_not_count_for_what_others_define_anew() -> Result<()> {
    let audit = |says: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION store.audit() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RAISE NOTICE ''{says}''; RETURN old; END'"
        )
    };
    World::with(|world| {
        hold(world, "wait: 10m, grant: 10m")?;
        world.server.sql("shop", &audit("one"))?;
        let trigger =
            "CREATE TRIGGER audit BEFORE DELETE ON store.wishes FOR EACH ROW EXECUTE FUNCTION store.audit()";
        world.server.sql("shop", trigger)?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        let id = waiting(world, &world.ops)?;
        world.server.sql("shop", &audit("two"))?;
        approvals(world, &world.ops, &["approve", &id])?;
        ensure!(session.ask("SELECT 'here'")? == "here", "the session is gone");
        ensure!(wishes(world)? == "2", "it ran by what nobody had looked at");
        session.say(DELETE)?;
        let again = waiting(world, &world.ops)?;
        approvals(world, &world.ops, &["approve", &again])?;
        ensure!(session.ask("SELECT count(*) FROM store.wishes")? == "0", "it did not run");
        session.say(DELETE)?;
        ensure!(session.ask("SELECT 'here'")? == "here", "a yes that stands counts");
        world.server.sql("shop", &audit("three"))?;
        session.say(DELETE)?;
        let third = waiting(world, &world.ops)?;
        approvals(world, &world.ops, &["deny", &third])?;
        let complaints = session.end()?;
        ensure!(complaints.contains("what others have defined"), "{complaints}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_yes_for_one_server_of_a_resource_does_not_count_on_another() -> Result<()> {
    World::with(|world| {
        let port = world.server.address.port();
        let (one, two) =
            (format!("[\"127.0.0.1:{port}\"]"), format!("[\"127.0.0.1:{port}\", \"[::1]:{port}\"]"));
        let (what, by) =
            ("{statement: delete, table: store.wishes}", format!("by: {{users: [\"{}\"]}}", world.ops.uid));
        hold_where(world, what, &by, "wait: 1m, grant: 10m, sessions: any", Some((&one, &two)))?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        let id = waiting(world, &world.ops)?;
        let (_, shown) = approvals(world, &world.ops, &["show", &id])?;
        ensure!(shown.contains(&format!("127.0.0.1:{port}")), "it isn't shown which server: {shown}");
        approvals(world, &world.ops, &["approve", &id])?;
        ensure!(session.ask("SELECT count(*) FROM store.wishes")? == "0");
        world.server.sql("shop", "INSERT INTO store.wishes VALUES (1)")?;
        session.say(DELETE)?;
        ensure!(session.ask("SELECT count(*) FROM store.wishes")? == "0", "a yes that stands counts here");
        let address = format!("[::1]:{port}").parse()?;
        let mut other = Session::open(&Account::new(world.ci.uid, address, ""))?;
        other.say(DELETE)?;
        waiting(world, &world.ops).map(drop)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_cancel_from_psql_takes_the_question_back() -> Result<()> {
    World::with(|world| {
        hold(world, "wait: 10m")?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        let id = waiting(world, &world.ops)?;
        session.process().signal(Signal::SIGINT)?;
        eventually("the question is taken back", || {
            let (_, shown) = approvals(world, &world.ops, &["show", &id])?;
            Ok(shown.contains("(cancelled)"))
        })?;
        let (done, late) = approvals(world, &world.ops, &["approve", &id])?;
        ensure!(!done && late.contains("cancelled already"), "{late}");
        ensure!(wishes(world)? == "2", "it ran");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_killed_agent_loses_no_question_and_the_answer_counts_for_the_retry() -> Result<()> {
    World::with(|world| {
        hold(world, "wait: 10m")?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        let id = waiting(world, &world.ops)?;
        world.agent.kill();
        drop(session);
        world.agent.launch()?;
        ensure!(waiting(world, &world.ops)? == id, "another question waits");
        approvals(world, &world.ops, &["approve", &id])?;
        let other = world.ci.run(
            "timeout",
            &["3", "psql", "-XqAt", "-c", "DELETE FROM store.wishes WHERE id = 2"],
            "",
        )?;
        ensure!(other.code == 124, "a yes counted for something else: {other:?}");
        world.ci.psql(&format!("{DELETE};"))?.clean()?;
        ensure!(wishes(world)? == "0", "it did not run");
        Ok(())
    })
}
