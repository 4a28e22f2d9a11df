//! A server's Unix socket, and the sockets of others.

use std::{
    os::unix::{fs::PermissionsExt, fs::chown, net::UnixListener},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use nix::unistd::User;
use tempfile::TempDir;
use tidegate_tests::{Account, Ran, World};

use crate::identity::tidegate;

const CARD: &str = "SELECT card_number FROM customers WHERE id = 1";
const IN_CLEAR: &str = "4111111111111111";

/// A folder where only this user makes sockets.
fn folder(user: &str) -> Result<TempDir> {
    let folder = TempDir::with_prefix_in("tidegate-sockets-", "/run")?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
    let user = User::from_name(user)?.with_context(|| format!("there is no user {user}"))?;
    chown(folder.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    Ok(folder)
}

/// Has the server listen on a Unix socket in this folder too, which is the same resource.
fn share(world: &World, folder: &Path) -> Result<()> {
    let change = format!("ALTER SYSTEM SET unix_socket_directories = '{}'", folder.display());
    world.server.sql("postgres", &change)?;
    world.server.stop()?;
    world.server.launch()?;
    let port = world.server.address.port();
    let (address, socket) = (format!("\"127.0.0.1:{port}\""), folder.join(format!(".s.PGSQL.{port}")));
    world.change_bundle(&address, &format!("{address}, \"unix:{}\"", socket.display()))?;
    world.agent.ask(&["reload"]).map(drop)
}

fn psql(account: &Account, folder: &Path, query: &str) -> Result<Ran> {
    let host = folder.display().to_string();
    account.run("psql", &["-XqAt", "-v", "VERBOSITY=verbose", "-h", &host, "-c", query], "")
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_servers_unix_socket_leads_to_the_gate_as_its_address_does() -> Result<()> {
    World::with(|world| {
        let folder = folder("postgres")?;
        share(world, folder.path())?;
        ensure!(psql(&world.stranger, folder.path(), CARD)?.clean()? == IN_CLEAR, "it is the server's");
        let shown = psql(&world.ci, folder.path(), CARD)?.clean()?;
        ensure!(shown.ends_with("1111") && shown != IN_CLEAR, "the card is not masked: {shown}");
        psql(&world.ci, folder.path(), "DROP TABLE orders")?.refused_by_the_gate(&["no-drop"])?;
        let sessions = world.agent.ask(&["sessions", "list", "--json"])?;
        let sessions: Vec<serde_json::Value> = serde_json::from_str(&sessions)?;
        let of_shop = sessions.iter().filter(|session| session["resource"] == "shop");
        let ids: Vec<&str> = of_shop.filter_map(|session| session["id"].as_str()).collect();
        let id = ids.first().context("no session is recorded")?;
        let record = world.agent.ask(&["sessions", "export", id])?;
        let socket = format!("{}/.s.PGSQL", folder.path().display());
        ensure!(record.contains("unix-socket") && record.contains(&socket), "{record}");
        ensure!(record.contains(&format!("\"uid\":{}", world.ci.uid)), "{record}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_servers_unix_socket_leads_nowhere_without_the_agent_nor_by_another_name() -> Result<()> {
    World::with(|world| {
        let folder = folder("postgres")?;
        share(world, folder.path())?;
        let link = TempDir::with_prefix("tidegate-link-")?;
        std::fs::set_permissions(link.path(), PermissionsExt::from_mode(0o777))?;
        let by_link = link.path().join("there");
        std::os::unix::fs::symlink(folder.path(), &by_link)?;
        let reaches = |path: &Path| -> Result<bool> {
            let ran = psql(&world.ci, path, "SELECT 'reached'")?;
            Ok(ran.code == 0 || ran.stdout.contains("reached"))
        };
        ensure!(reaches(folder.path())?, "the gate does not answer");
        ensure!(!reaches(&by_link)?, "a link leads around the gate");
        world.agent.kill();
        ensure!(!reaches(folder.path())?, "it is reached without the gate");
        ensure!(!reaches(&by_link)?, "a link leads around the gate that is gone");
        ensure!(psql(&world.stranger, folder.path(), CARD)?.clean()? == IN_CLEAR, "others are cut off");
        world.agent.launch()?;
        let again = psql(&world.ci, folder.path(), "SELECT 'reached'")?.clean()?;
        ensure!(again == "reached", "the next agent does not answer: {again}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn helpers_of_the_host_are_reached_by_name_alone() -> Result<()> {
    World::with(|world| {
        let folder = folder("root")?;
        let (named, other) = (folder.path().join("named"), folder.path().join("other"));
        let _listeners = [&named, &other].map(|path| -> Result<UnixListener> {
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))?;
            Ok(listener)
        });
        let unix = format!("unix:\n  - subjects: [\"*\"]\n    to: [{}]\nresources:\n", named.display());
        world.change_bundle("resources:\n", &unix)?;
        world.agent.ask(&["reload"])?;
        let script = format!(
            "import socket
for path in [{named:?}, {other:?}]:
    try: socket.socket(socket.AF_UNIX).connect(path); print('connected')
    except OSError as error: print(error.strerror)"
        );
        let said = world.ci.python(&script)?.clean()?;
        ensure!(said == "connected\nOperation not permitted", "{said}");
        // The agent's own is everybody's to ask.
        let asked = world.ci.shell(&tidegate(world, "whoami"), &[])?;
        ensure!(asked.stdout.contains("no issuer vouches"), "{asked:?}");
        Ok(())
    })
}
