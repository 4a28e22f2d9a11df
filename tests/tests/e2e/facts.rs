//! What the host knows of a process and its account, without any token: units, containers, executables, groups, sub-uids.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{Account, Process, World, governed_uid, programs, run};

use crate::{
    approvals::{DELETE, approvals, hold_by, waiting, wishes},
    together::eventually,
};

const SIGN_IN: &str = "  - name: sign-in\n    subjects: [ci, ops]\n    resources: [shop]\n";
const HERE: &str = "SELECT 'here'";

/// Lets nobody sign in but processes of whom this is so.
fn ask_for(world: &World, what: &str) -> Result<()> {
    world.change_bundle(SIGN_IN, &format!("{SIGN_IN}    {what}\n"))?;
    world.agent.ask(&["reload"]).map(drop)
}

/// A cgroup that root made, with those around it; removed when dropped.
struct Cgroup(Vec<PathBuf>);

impl Cgroup {
    fn new(path: &[&str]) -> Result<Self> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists());
        let mut folder = root.context("a cgroup v2 hierarchy")?.to_owned();
        let mut made = Self(Vec::new());
        for name in path {
            folder.push(name);
            fs::create_dir(&folder)?;
            made.0.push(folder.clone());
        }
        Ok(made)
    }

    /// `psql` in it, with a query, as an account's process.
    fn psql(&self, account: &Account) -> Result<String> {
        let procs = self.0.last().context("a cgroup")?.join("cgroup.procs");
        let uid = account.uid;
        let script = format!(
            "echo $$ >{} && exec setpriv --reuid {uid} --regid {uid} --clear-groups psql -XqAt -c \"{HERE}\" 2>&1",
            procs.display()
        );
        let output = account.output(account.command("sh").args(["-c", &script]).uid(0).gid(0))?;
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // What ended in it may be there for a moment.
            if let Err(error) = eventually("a cgroup is empty", || Ok(fs::remove_dir(folder).is_ok())) {
                eprintln!("{error:#}");
            }
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_unit_and_a_container_are_known_by_where_root_put_the_process() -> Result<()> {
    World::with(|world| {
        let unit = format!("tidegate-e2e-{}.service", std::process::id());
        let id = "5".repeat(64);
        let cgroup = Cgroup::new(&[&unit, &format!("docker-{id}.scope")])?;
        for what in [format!("units: [\"{unit}\"]"), format!("containers: [\"{id}\"]")] {
            ask_for(world, &what)?;
            ensure!(cgroup.psql(&world.ci)?.trim() == "here", "{what}: its own is refused");
            let outside = world.ci.psql(HERE)?;
            ensure!(outside.stdout.is_empty() && outside.stderr.contains("no rule"), "{what}: {outside:?}");
        }
        ask_for(world, &format!("containers: [\"{}\"]", "6".repeat(64)))?;
        let said = cgroup.psql(&world.ci)?;
        ensure!(said.contains("no rule"), "another container: {said}");
        Ok(())
    })
}

/// What Docker would keep of a container; what was made for it is removed when dropped.
struct DockerState {
    file: PathBuf,
    made: Vec<PathBuf>,
}

impl DockerState {
    fn new(container: &str, image: &str) -> Result<Self> {
        let folder = Path::new("/var/lib/docker/containers").join(container);
        let mut state = Self { file: folder.join("config.v2.json"), made: Vec::new() };
        let folders: Vec<&Path> = folder.ancestors().take(3).collect();
        for folder in folders.into_iter().rev().filter(|folder| !folder.exists()) {
            DirBuilder::new().mode(0o711).create(folder)?;
            state.made.push(folder.to_owned());
        }
        fs::write(&state.file, format!(r#"{{"ID": "{container}", "Image": "sha256:{image}"}}"#))?;
        fs::set_permissions(&state.file, fs::Permissions::from_mode(0o600))?;
        Ok(state)
    }
}

impl Drop for DockerState {
    fn drop(&mut self) {
        let removed = fs::remove_file(&self.file);
        let removed = removed.and_then(|()| self.made.iter().rev().try_for_each(fs::remove_dir));
        if let Err(error) = removed {
            eprintln!("{}: {error}", self.file.display());
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_container_is_known_by_the_image_that_its_runtime_made_it_from() -> Result<()> {
    World::with(|world| {
        let slice = format!("tidegate-image-{}.slice", std::process::id());
        let (good, bad) = ("a".repeat(64), "b".repeat(64));
        ask_for(world, &format!("images: [\"sha256:{good}\"]"))?;
        for (container, image, is_let) in
            [("7", Some(&good), true), ("8", Some(&bad), false), ("9", None, false)]
        {
            let id = container.repeat(64);
            let cgroup = Cgroup::new(&[&slice, &format!("docker-{id}.scope")])?;
            let _state = image.map(|image| DockerState::new(&id, image)).transpose()?;
            let said = cgroup.psql(&world.ci)?;
            ensure!((said.trim() == "here") == is_let, "{container}: {said}");
            ensure!(is_let || said.contains("no rule"), "{container}: {said}");
        }
        let outside = world.ci.psql(HERE)?;
        ensure!(outside.stdout.is_empty() && outside.stderr.contains("no rule"), "{outside:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_program_is_known_by_its_digest_and_a_copy_with_a_byte_more_is_another() -> Result<()> {
    World::with(|world| {
        let psql = programs()?.join("psql");
        let digest = String::from_utf8(run(Command::new("sha256sum").arg(&psql))?.stdout)?;
        let digest = digest.split_whitespace().next().context("a digest")?;
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let (copy, changed) = (folder.path().join("copy"), folder.path().join("changed"));
        for to in [&copy, &changed] {
            fs::copy(&psql, to)?;
        }
        OpenOptions::new().append(true).open(&changed)?.write_all(b"\n")?;
        ask_for(world, &format!("sha256: [\"{digest}\"]"))?;
        let query = ["-XqAt", "-c", HERE];
        for same in [&psql, &copy] {
            ensure!(world.ci.run(same, &query, "")?.clean()? == "here", "{} is refused", same.display());
        }
        let ran = world.ci.run(&changed, &query, "")?;
        ensure!(ran.stdout.is_empty() && ran.stderr.contains("no rule"), "{ran:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn an_approver_is_known_by_a_group_of_the_host() -> Result<()> {
    World::with(|world| {
        hold_by(world, "by: {unix-groups: [daemon]}", "wait: 10m")?;
        let mut asking = Process::start(asker(&world.ci).stdout(Stdio::null()).stderr(Stdio::null()))?;
        let daemon = Account::new(1, world.server.address, "");
        let id = waiting(world, &daemon)?;
        let (done, stranger) = approvals(world, &world.ops, &["approve", &id])?;
        ensure!(!done && stranger.contains("no question"), "{stranger}");
        let (done, said) = approvals(world, &daemon, &["approve", &id])?;
        ensure!(done && said.contains("is approved"), "{said}");
        asking.child().wait()?;
        ensure!(wishes(world)? == "0", "it did not run");
        Ok(())
    })
}

fn asker(account: &Account) -> Command {
    let mut command = account.command("psql");
    command.args(["-XqAt", "-c", DELETE]);
    command
}

/// The host's table of sub-uids with a line more; as it was when dropped.
struct SubUids(Option<Vec<u8>>);

const SUB_UIDS: &str = "/etc/subuid";

impl SubUids {
    fn with(line: &str) -> Result<Self> {
        let before = match fs::read(SUB_UIDS) {
            Ok(before) => Some(before),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let mut after = before.clone().unwrap_or_default();
        after.extend_from_slice(line.as_bytes());
        let restored = Self(before);
        fs::write(SUB_UIDS, after)?;
        Ok(restored)
    }
}

impl Drop for SubUids {
    fn drop(&mut self) {
        let restored = match &self.0 {
            Some(before) => fs::write(SUB_UIDS, before),
            None => fs::remove_file(SUB_UIDS),
        };
        if let Err(error) = restored {
            eprintln!("{SUB_UIDS}: {error}");
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn who_is_governed_by_group_and_asks_by_a_sub_uid_cannot_answer() -> Result<()> {
    World::with(|world| {
        let (owner, sub_uid) = (governed_uid(), 700_000 + governed_uid());
        let owner = Account::new(owner, world.server.address, "not-the-password");
        let _table = SubUids::with(&format!("{}:{sub_uid}:1\n", owner.uid))?;
        let by = format!("by: {{users: [\"{}\", \"{}\"]}}", owner.uid, world.ops.uid);
        hold_by(world, &by, "wait: 10m")?;
        // Governed by the group alone, whoever its members' users are.
        let bundle = world.agent.read_bundle("bundle.yaml")?;
        let named = format!("  ci: {{users: [\"{}\"]}}", world.ci.uid);
        ensure!(bundle.contains(&named), "{bundle}");
        let by_group = format!("  ci: {{groups: [\"{}\"]}}", owner.uid);
        world.agent.write_bundle("bundle.yaml", &bundle.replace(&named, &by_group))?;
        world.agent.ask(&["reload"])?;
        // As in a user namespace of the owner's.
        let mut command = asker(&owner);
        command.uid(sub_uid).stdout(Stdio::null()).stderr(Stdio::null());
        let mut asking = Process::start(&mut command)?;
        let id = waiting(world, &world.ops)?;
        let (done, own) = approvals(world, &owner, &["approve", &id])?;
        ensure!(!done && own.contains("you asked"), "{own}");
        let (done, said) = approvals(world, &world.ops, &["approve", &id])?;
        ensure!(done && said.contains("is approved"), "{said}");
        asking.child().wait()?;
        ensure!(wishes(world)? == "0", "it did not run");
        Ok(())
    })
}
