//! Who is trusted: the host's authority in the system's store, in a mount namespace whose store is nobody else's, its change,
//! and upstreams by the system's authorities.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tidegate_tests::Process;

use super::stage::Stage;

/// Copies of what `update-ca-certificates` reads and writes, in the places of the originals.
const PRIVATE: &str = "cp -a /etc/ssl \"$1/ssl\" && mount --bind \"$1/ssl\" /etc/ssl && mkdir \"$1/local\" && \
                       mount --bind \"$1/local\" /usr/local/share/ca-certificates && echo ready && exec sleep 600";
/// As every client on a Debian does that isn't told otherwise: by the file, and by the directory.
const CLIENTS: [&[&str]; 2] = [
    &["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"],
    &[
        "openssl",
        "s_client",
        "-verify_return_error",
        "-verify_ip",
        "127.0.0.1",
        "-no-CAfile",
        "-CApath",
        "/etc/ssl/certs",
    ],
];

struct Namespace {
    holder: Process,
    _directory: TempDir,
}

impl Namespace {
    fn new() -> Result<Self> {
        let directory = TempDir::with_prefix("tidegate-store-")?;
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--mount", "--propagation", "private", "sh", "-ec", PRIVATE, "sh"])
            .arg(directory.path());
        let mut holder = Process::start(unshare.stdout(Stdio::piped()))?;
        let mut said = String::new();
        BufReader::new(holder.child().stdout.take().context("its output")?).read_line(&mut said)?;
        ensure!(said == "ready\n", "there is no namespace with a store of its own");
        Ok(Self { holder, _directory: directory })
    }

    /// Runs a command in it, without input.
    fn run(&self, command: &Command) -> Result<Output> {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--");
        inside.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        Ok(inside.output()?)
    }

    /// `tidegate ca ...` as root: its exit code, and all that it printed.
    fn ca(&self, stage: &Stage, arguments: &[&str]) -> Result<(i32, String)> {
        let output = self.run(&stage.agent.command(&[&["ca"], arguments].concat()))?;
        let printed = [output.stdout, output.stderr].concat();
        Ok((output.status.code().context("a signal ended it")?, String::from_utf8(printed)?))
    }

    /// Whether clients of the governed account trust the gate without having been told of it, all or none.
    fn trusts(&self, stage: &Stage) -> Result<bool> {
        let mut verdicts = Vec::new();
        for client in CLIENTS {
            let to = match client.contains(&"curl") {
                true => vec![format!("https://127.0.0.1:{}/things", stage.web.port)],
                false => vec!["-connect".to_owned(), format!("127.0.0.1:{}", stage.web.port)],
            };
            let (mut governed, uid) = (Command::new("setpriv"), stage.ci.uid.to_string());
            governed.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "timeout", "60"]);
            let output = self.run(governed.args(client).args(to))?;
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let trusts = output.status.success();
            ensure!(trusts || said.contains("certificate"), "{client:?} failed otherwise: {said}");
            verdicts.push(trusts);
        }
        let trusting = verdicts.iter().filter(|trusts| **trusts).count();
        ensure!(trusting == 0 || trusting == verdicts.len(), "{CLIENTS:?} differ: {verdicts:?}");
        Ok(trusting > 0)
    }
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn clients_trust_the_gate_once_its_authority_is_in_the_systems_store_and_not_after() -> Result<()> {
    Stage::with(|stage| {
        let namespace = Namespace::new()?;
        ensure!(!namespace.trusts(stage)?, "they did before");
        let (code, said) = namespace.ca(stage, &["install"])?;
        ensure!(code == 0 && said.matches("in the system's store: /usr/local/share/").count() == 1, "{said}");
        ensure!(said.contains("NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt"), "{said}");
        ensure!(namespace.trusts(stage)?, "they do not");
        let (code, said) = namespace.ca(stage, &["remove"])?;
        ensure!(code == 0 && said.contains("no longer in the system's store: "), "{said}");
        ensure!(!namespace.trusts(stage)?, "they still do");
        let (code, said) = namespace.ca(stage, &["remove"])?;
        ensure!((code, &*said) == (0, "it is not in the system's store\n"), "{code} {said}");
        for command in ["install", "remove", "renew"] {
            let ran = stage.script(&format!("{} ca {command}", stage.agent.binary().display()))?;
            ensure!(ran.code == 1, "{ran:?}");
            ran.complains(&["this needs root: nothing was changed"])?;
        }
        Ok(())
    })
}

/// Takes every lock that can be had below a directory, and keeps them.
const LOCKS: &str = "while read -r path; do exec {lock}<\"$path\" && flock -n $lock && echo \"$path\"; done \
                     < <(find \"$1\" -readable 2>/dev/null); echo held; exec sleep 600";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn whoever_locks_what_it_may_read_of_the_agents_holds_up_nothing() -> Result<()> {
    Stage::with(|stage| {
        let own = stage.agent.binary().parent().context("a directory")?;
        let mut bash = stage.ci.command("bash");
        let mut thief = Process::start(bash.args(["-c", LOCKS, "bash"]).arg(own).stdout(Stdio::piped()))?;
        let output = BufReader::new(thief.child().stdout.take().context("its output")?).lines();
        let held = output.take_while(|line| line.as_ref().is_ok_and(|line| line != "held")).count();
        ensure!(held > 1, "{held} locks are no attack");
        for arguments in [&["reload"][..], &["status"], &["ca", "renew"]] {
            let command = stage.agent.command(arguments);
            let mut bounded = Command::new("timeout");
            let output = bounded.arg("30").arg(command.get_program()).args(command.get_args()).output()?;
            ensure!(output.status.success(), "{arguments:?} with {held} locks held: {output:?}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn clients_trust_the_gate_all_through_a_change_of_its_authority() -> Result<()> {
    Stage::with(|stage| {
        let namespace = Namespace::new()?;
        let step = |arguments: &[&str], wanted: i32, words: &str| {
            let (code, said) = namespace.ca(stage, arguments)?;
            ensure!(code == wanted && said.contains(words), "ca {arguments:?} exits with {code}: {said}");
            ensure!(namespace.trusts(stage)?, "after ca {arguments:?} they trust it no more");
            Ok(said)
        };
        step(&["install"], 0, "in the system's store")?;
        let old = stage.agent.ask(&["ca", "show"])?;
        step(&["renew", "--finish"], 1, "no other authority was begun: `tidegate ca renew` does")?;
        step(&["renew"], 0, "It signs nothing before the present one is over")?;
        step(&["renew", "--finish"], 1, "`tidegate ca install` first")?;
        stage.agent.ask(&["reload"])?;
        ensure!(stage.agent.ask(&["status"])?.contains("another was begun"), "status does not tell");
        let said = step(&["install"], 0, "in the system's store")?;
        ensure!(said.matches("in the system's store: ").count() == 2, "{said}");
        let both = stage.agent.ask(&["ca", "show"])?;
        ensure!(both.starts_with(&old) && both.matches("BEGIN CERTIFICATE").count() == 2, "{both}");
        step(&["renew", "--finish"], 0, "changed for: until 20")?;
        step(&["install"], 1, "`tidegate reload` first")?;
        stage.agent.ask(&["reload"])?;
        ensure!(namespace.trusts(stage)?, "they don't trust the next one");
        let said = step(&["install"], 0, "in the system's store")?;
        ensure!(said.matches("in the system's store: ").count() == 1, "{said}");
        std::fs::write(stage.directory.path().join("old.pem"), &old)?;
        let ran = stage.script("curl -sS --cacert $DIR/old.pem $URL/things")?;
        ensure!(ran.code == 60, "the old one still signs: {ran:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn an_upstream_without_an_authority_of_its_own_is_verified_by_the_systems() -> Result<()> {
    Stage::with_mut(|stage| {
        let bundle = stage.agent.read_bundle("bundle.yaml")?;
        let own =
            format!("    tls: {{ca: {}}}\n    credential: web", stage.web.certificates.authority.display());
        ensure!(bundle.contains(&own), "{bundle}");
        stage.agent.write_bundle("bundle.yaml", &bundle.replace(&own, "    credential: web"))?;
        stage.agent.ask(&["reload"])?;
        let asks = "curl -sS --cacert $CA -w '%{http_code}' $URL/things";
        let shown = stage.script(asks)?.clean()?;
        ensure!(shown.ends_with("502") && stage.records()?.contains("invalid peer certificate"), "{shown}");
        ensure!(stage.web.asked()?.is_empty(), "it was sent something");
        stage.agent.stop()?;
        stage.agent.set_variable("SSL_CERT_FILE", stage.web.certificates.authority.clone());
        stage.agent.launch()?;
        let shown = stage.script(asks)?.clean()?;
        ensure!(shown == "a thing\n200", "{shown}");
        Ok(())
    })
}
