//! What a record says: who asked, from where, what was decided by which rule, and what became of it.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_tests::{World, run};

/// A container's id, as runtimes name cgroups by.
const CONTAINER: &str = "3f1a9c0de5b74d2286c1f0a9b8e7d6c5b4a39281706f5e4d3c2b1a0918273645";

/// Supplementary groups that nobody else has.
const GROUPS: [u32; 2] = [61_250, 61_251];

/// How long the slow statement takes, in microseconds.
const SLOW: u64 = 200_000;

/// A container's cgroup within a service's, as root makes them; removed at the end.
struct Place {
    unit: String,
    folders: [PathBuf; 2],
}

impl Place {
    fn make() -> Result<Self> {
        let mounted = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = mounted.into_iter().find(|root| root.join("cgroup.procs").exists());
        let unit = format!("tidegate-e2e-{}.service", std::process::id());
        let service = root.context("there is no cgroup v2 hierarchy")?.join(&unit);
        let container = service.join(format!("docker-{CONTAINER}.scope"));
        let place = Self { unit, folders: [service, container] };
        for folder in &place.folders {
            fs::create_dir(folder)?;
        }
        Ok(place)
    }

    fn procs(&self) -> PathBuf {
        let [_, container] = &self.folders;
        container.join("cgroup.procs")
    }

    fn path(&self) -> String {
        format!("/{}/docker-{CONTAINER}.scope", self.unit)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for folder in self.folders.iter().rev().filter(|folder| folder.exists()) {
            if let Err(error) = fs::remove_dir(folder) {
                eprintln!("{}: {error}", folder.display());
            }
        }
    }
}

/// Runs `psql` as the account, in that place and with supplementary groups.
fn psql_in(world: &World, place: &Place, statements: &[&str]) -> Result<()> {
    let (uid, [one, other]) = (world.ci.uid, GROUPS);
    let script = format!(
        "echo $$ > {} && exec setpriv --reuid={uid} --regid={uid} --groups={one},{other} psql -XqAt \"$@\"",
        place.procs().display(),
    );
    let mut command = world.ci.command("sh");
    command.args(["-c", &script, "sh"]).uid(0).gid(0);
    for statement in statements {
        command.args(["-c", statement]);
    }
    world.ci.output(&mut command)?;
    Ok(())
}

/// The lines of the record of the account's only session.
fn only_record(world: &World) -> Result<Vec<Value>> {
    world.none_is_open()?;
    let list: Value =
        serde_json::from_str(&world.agent.ask(&["sessions", "list", "--subject", "ci", "--json"])?)?;
    ensure!(list.as_array().is_some_and(|list| list.len() == 1), "{list}");
    let id = list.pointer("/0/id").and_then(Value::as_str).context("an id")?;
    let lines = world.agent.ask(&["sessions", "export", id])?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn digest(path: &str) -> Result<String> {
    let printed = String::from_utf8(run(std::process::Command::new("sha256sum").arg(path))?.stdout)?;
    Ok(printed.split_whitespace().next().context("a digest")?.to_owned())
}

/// The action that a statement was, and its outcome.
fn action<'a>(lines: &'a [Value], text: &str) -> Result<(&'a Value, Option<&'a Value>)> {
    let is =
        |line: &&Value| line["type"] == "action" && line["text"].as_str().is_some_and(|is| is.contains(text));
    let action = lines.iter().find(is).with_context(|| format!("{text:?} is not recorded"))?;
    let outcome = lines.iter().find(|line| line["type"] == "outcome" && line["id"] == action["id"]);
    Ok((action, outcome))
}

/// What the first line says of the process.
fn describes(process: &Value, uid: u32, place: &Place) -> Result<()> {
    let executable = process["executable"].as_str().context("no executable")?;
    ensure!(executable.ends_with("/bin/psql"), "{executable}");
    let own = env::current_exe()?;
    let expected = json!({
        "uid": uid, "gid": uid, "groups": GROUPS, "command": "psql",
        "executable_sha256": digest(executable)?,
        "cgroup": place.path(), "unit": place.unit, "container": CONTAINER,
    });
    for (field, value) in expected.as_object().into_iter().flatten() {
        ensure!(process[field] == *value, "{field} is {}, not {value}", process[field]);
    }
    let arguments = process["command_line"].as_array().context("no command line")?;
    ensure!(arguments.contains(&json!(SELECT)), "{arguments:?}");
    let parent = process.pointer("/ancestry/0").context("no parent")?;
    ensure!(*parent == json!(own), "the parent is {parent}");
    ensure!(process["pid"].as_u64() > Some(1) && process["start_time"].as_u64() > Some(0), "{process}");
    Ok(())
}

const SELECT: &str = "SELECT id FROM orders ORDER BY id LIMIT 5";
const LONG: &str = "SELECT pg_sleep(0.2), repeat('x', 1000)";
const DROP: &str = "DROP TABLE orders";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_record_says_who_asked_what_was_decided_and_what_became_of_it() -> Result<()> {
    World::with(|world| {
        let place = Place::make()?;
        let begun = Instant::now();
        psql_in(world, &place, &[SELECT, LONG, DROP])?;
        let lines = only_record(world)?;
        let took = u64::try_from(begun.elapsed().as_micros())?;
        let open = lines.first().context("it is empty")?;
        let said = json!([open["type"], open["resource"], open["protocol"], open["principal"]["subjects"]]);
        ensure!(said == json!(["open", "shop", "postgres", ["ci"]]), "{said}");
        ensure!(open["destination"] == world.server.address.to_string(), "{}", open["destination"]);
        ensure!(open["tier"].as_str().is_some_and(|tier| !tier.is_empty()), "no tier: {open}");
        describes(&open["principal"]["process"], world.ci.uid, &place)?;
        for (text, decision, rule) in
            [(SELECT, "allow", "work"), (LONG, "allow", "session"), (DROP, "deny", "no-drop")]
        {
            let (action, _) = action(&lines, text)?;
            let decided = json!([action["action"], action["decision"], action["rule"]]);
            ensure!(decided == json!(["statement", decision, rule]), "{text}: {action}");
        }
        let login = lines.iter().find(|line| line["action"] == "login").context("no sign-in")?;
        ensure!(login["rule"] == "sign-in" && login["decision"] == "allow", "{login}");
        let (_, outcome) = action(&lines, SELECT)?;
        let outcome = outcome.context("no outcome")?;
        ensure!(outcome["outcome"] == "done" && outcome["rows"] == 5, "{outcome}");
        let (_, outcome) = action(&lines, LONG)?;
        let outcome = outcome.context("no outcome")?;
        ensure!(outcome["rows"] == 1, "{outcome}");
        ensure!(outcome["bytes"].as_u64().is_some_and(|bytes| (1000..1100).contains(&bytes)), "{outcome}");
        let spent = outcome["microseconds"].as_u64().context("no duration")?;
        ensure!((SLOW..took).contains(&spent), "{spent} of {took} microseconds");
        ensure!(action(&lines, DROP)?.1.is_none(), "what was refused has an outcome");
        ensure!(lines.last().is_some_and(|line| line["type"] == "close"), "it has no end");
        Ok(())
    })
}

/// A client that says something else than a client should, where it is signed in and where it isn't.
const RUDE: &str = r#"
import os, socket, struct
def start():
    stream = socket.create_connection((os.environ["PGHOST"], int(os.environ["PGPORT"])), timeout=60)
    body = struct.pack("!HH", 3, 0) + b"user\0app\0database\0shop\0\0"
    stream.sendall(struct.pack("!I", len(body) + 4) + body)
    heard = b""
    while b"Z\0\0\0\5I" not in heard: heard += stream.recv(4096)
    return stream
stream = start()
stream.sendall({bytes})
heard = b""
while part := stream.recv(4096): heard += part
print("told" if b"08P01" in heard else heard)
"#;

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_record_ends_with_the_reason_of_an_end_that_nobody_asked_for() -> Result<()> {
    for (bytes, reason) in
        [(r#"b"!\0\0\0\4""#, "client: '!' is no message type"), (r#"b"d\0\0\0\4Q\0\0\0\3""#, "client: ")]
    {
        World::with(|world| {
            let said = world.ci.python(&RUDE.replace("{bytes}", bytes))?.clean()?;
            ensure!(said == "told", "{bytes}: {said}");
            let lines = only_record(world)?;
            let last = lines.last().context("it is empty")?;
            let told = last["reason"].as_str().context("no reason")?;
            ensure!(last["type"] == "close" && told.contains(reason), "{bytes}: {last}");
            Ok(())
        })?;
    }
    Ok(())
}
