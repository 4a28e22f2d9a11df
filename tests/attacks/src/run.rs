//! Runs attacks and judges them by their canaries.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, Permissions},
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User};
use tempfile::TempDir;

use crate::{
    Attack, Canary, Outcome, Place, Privilege, Row,
    canary::marks,
    frame::Marks,
    manifest::{Control, When},
};

/// The programs, all in one executable.
static PROGRAMS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/attacks"));

/// Where file systems are not mounted `nosuid`, as a rule.
const PLACE: &str = "/var/tmp";
/// Seconds that an attack may wait for the agent.
const WAITING: &str = "60";
/// The throwaway accounts are looked for among these user ids.
const THROWAWAY: std::ops::Range<u32> = 64_100..64_900;

/// The agent that is attacked, as far as it is known. Attacks on what isn't known are not expressible.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// A user id that the agent governs: the attacker takes its label and keeps it.
    pub governed: u32,
    /// Whether the bundle passes the canary's own [destinations](Canary::passed) to the attacker.
    pub passes_canary: bool,
    /// An IPv4 destination of a declared resource.
    pub declared: Option<SocketAddr>,
    /// Port of the gate on 127.0.0.1.
    pub proxy_port: Option<u16>,
    /// Process id of the agent.
    pub agent: Option<u32>,
    /// Its admin socket.
    pub admin: Option<PathBuf>,
    /// Its state directory.
    pub state: Option<PathBuf>,
    /// The directory of its pins.
    pub pins: Option<PathBuf>,
}

/// The attacks, ready to run.
#[derive(Debug)]
pub struct Battery {
    canary: Canary,
    /// The attacker's account: without an entry in the user database, and without any file.
    attacker: u32,
    program: PathBuf,
    setuid: PathBuf,
    cgroup: Option<Cgroup>,
    directory: TempDir,
}

/// An attack that began before there was an agent.
#[derive(Debug)]
pub struct Waiting {
    attack: &'static Attack,
    marks: Marks,
    process: Attacker,
}

/// Who runs an attack.
#[derive(Debug, Clone, Copy)]
enum Account {
    /// The throwaway account with the label of this user.
    Labelled(u32),
    /// This very user.
    Itself(u32),
    /// The throwaway account, ungoverned.
    Ungoverned,
}

/// What an attack said last.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Sent,
    Took(String),
    Stopped(String),
    Missing(String),
    Nothing,
}

impl Battery {
    /// Sets up canaries and accounts. Needs root.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("tidegate-attacks-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(PLACE)?;
        let program = directory.path().join("attacks");
        install(&program, 0o755)?;
        let helpers = directory.path().join("helpers");
        DirBuilder::new().mode(0o700).create(&helpers)?;
        fs::set_permissions(&helpers, Permissions::from_mode(0o1777))?;
        let (attacker, other) = throwaway()?;
        let setuid = directory.path().join("setuid");
        install(&setuid, 0o755)?;
        chown(&setuid, Some(other), Some(other))?;
        // Only now: a change of owner clears the bit.
        fs::set_permissions(&setuid, Permissions::from_mode(0o4755))?;
        let cgroup = directory.path().file_name().and_then(|name| Cgroup::new(name.to_str()?));
        Ok(Self { canary: Canary::new()?, attacker, program, setuid, cgroup, directory })
    }

    /// The canaries, whose addresses a bundle may name.
    pub fn canary(&self) -> &Canary {
        &self.canary
    }

    /// Runs an attack as the governed account. If it was stopped, the same attack by an ungoverned account must get
    /// through, or nothing is concluded.
    pub fn run(&mut self, attack: &'static Attack, target: &Target) -> Result<Row> {
        let governed = self.once(attack, target, Account::Labelled(target.governed));
        let mut outcome = governed.with_context(|| format!("running the attack {}", attack.name))?;
        if matches!(outcome, Outcome::Stopped { .. }) && attack.control == Control::Ungoverned {
            match self.once(attack, target, Account::Ungoverned)? {
                Outcome::Passed { .. } => {}
                Outcome::Stopped { how: why } | Outcome::Inexpressible { why } => {
                    outcome =
                        Outcome::Inexpressible { why: format!("an ungoverned account fails too: {why}") };
                }
            }
        }
        Ok(Row::new(attack, outcome))
    }

    /// Begins an attack that opens its sockets before the agent governs it, as the governed account itself.
    pub fn begin(&self, attack: &'static Attack, target: &Target) -> Result<Waiting> {
        let marks = marks(attack.by_text)?;
        let mut process = self.start(attack, target, Account::Itself(target.governed), &marks)?;
        match process.line()?.as_deref() {
            Some("ready") => Ok(Waiting { attack, marks, process }),
            line => bail!("the attack {} did not begin: {line:?}", attack.name),
        }
    }

    /// Lets it go on, and judges it. There is no control: it was ungoverned when it began, and did begin.
    pub fn finish(&mut self, waiting: Waiting) -> Result<Row> {
        let Waiting { attack, marks, mut process } = waiting;
        self.canary.clear();
        process.go_on()?;
        let outcome = self.judge(process, &marks)?;
        Ok(Row::new(attack, outcome))
    }

    fn once(&mut self, attack: &Attack, target: &Target, account: Account) -> Result<Outcome> {
        let marks = marks(attack.by_text)?;
        self.canary.clear();
        let mut process = self.start(attack, target, account, &marks)?;
        if attack.when == When::Before {
            process.line()?;
            process.go_on()?;
        }
        self.judge(process, &marks)
    }

    /// Follows an attack to its end.
    fn judge(&mut self, mut process: Attacker, marks: &Marks) -> Result<Outcome> {
        let mut word = Word::Nothing;
        // Calls are hung up when all is seen.
        let mut calls: Vec<Option<TcpStream>> = Vec::new();
        while let Some(line) = process.line()? {
            match line.split_once(' ') {
                Some(("call", port)) => calls.push(self.canary.call(port.parse()?)?),
                Some(("knock", port)) => calls.extend(knock(port.parse()?)),
                _ => word = Word::parse(&line),
            }
        }
        process.end()?;
        let seen = self.canary.look(marks)?;
        Ok(match (seen, word) {
            (Some(seen), _) => Outcome::Passed { seen },
            (None, Word::Took(what)) => Outcome::Passed { seen: format!("it has {what}") },
            (None, Word::Stopped(how)) => Outcome::Stopped { how },
            (None, Word::Missing(why)) => Outcome::Inexpressible { why: in_words(&why) },
            (None, Word::Sent) => Outcome::Stopped { how: "sent, but nothing arrived".into() },
            (None, Word::Nothing) => Outcome::Stopped { how: "it never came to an end".into() },
        })
    }

    fn start(&self, attack: &Attack, target: &Target, account: Account, marks: &Marks) -> Result<Attacker> {
        let mut settings = self.settings(attack, target, marks);
        match account {
            Account::Labelled(user) => _ = settings.insert("LABEL_UID", user.to_string()),
            Account::Itself(user) => _ = settings.insert("UID", user.to_string()),
            Account::Ungoverned => {}
        }
        let mut command = Command::new(&self.program);
        command.arg(attack.program).env_clear().envs(&settings).current_dir("/");
        Attacker::start(&mut command)
    }

    fn settings(&self, attack: &Attack, target: &Target, marks: &Marks) -> BTreeMap<&'static str, String> {
        let mut settings = self.canary.settings(attack.place);
        let shown = |path: &Path| path.display().to_string();
        settings.extend([
            ("UID", self.attacker.to_string()),
            ("TOKEN", marks.token.clone()),
            ("GROUP4", marks.group4.to_string()),
            ("GROUP6", marks.group6.to_string()),
            ("SETUID", shown(&self.setuid)),
            ("DIRECTORY", format!("{}/helpers/", shown(self.directory.path()))),
        ]);
        if attack.when == When::Before {
            settings.insert("LIMIT", WAITING.into());
        }
        if attack.place == Place::Pod {
            settings.insert("NETNS", shown(&self.canary.pod()));
        }
        if attack.privilege == Privilege::NetRaw {
            settings.insert("NET_RAW", "1".into());
        }
        if target.passes_canary {
            settings.extend(self.canary.passed_settings());
        }
        if let Some(declared) = target.declared {
            settings.insert("DECLARED4", declared.ip().to_string());
            settings.insert("DECLARED_PORT", declared.port().to_string());
        }
        settings.extend(target.proxy_port.map(|port| ("PROXY_PORT", port.to_string())));
        settings.extend(target.agent.map(|id| ("AGENT_PID", id.to_string())));
        settings.extend(target.admin.as_deref().map(|path| ("ADMIN", shown(path))));
        settings.extend(target.state.as_deref().map(|path| ("STATE", shown(path))));
        settings.extend(target.pins.as_deref().map(|path| ("PINS", shown(path))));
        settings.extend(self.cgroup.as_ref().map(|cgroup| ("CGROUP", shown(&cgroup.0))));
        settings
    }
}

/// What an attack misses, as one can act on it.
fn in_words(missing: &str) -> String {
    match missing {
        "PASSED4" | "PASSED6" | "PASSED_PORT" => "the bundle passes the canary nothing".into(),
        "DECLARED4" | "DECLARED_PORT" => "the bundle declares no resource with an IPv4 address".into(),
        "WIRE6" | "LO6" => "this host has no IPv6".into(),
        "AGENT_PID" => "no agent is running".into(),
        "PINS" => "the agent keeps no pins".into(),
        "CGROUP" => "there is no cgroup v2 hierarchy to move in".into(),
        other => format!("it misses {other}"),
    }
}

/// Connects to a port of the host's own loopback addresses, as a redirected connection would.
fn knock(port: u16) -> Vec<Option<TcpStream>> {
    let addresses =
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    addresses.iter().map(|address| TcpStream::connect(address).ok()).collect()
}

fn install(path: &Path, mode: u32) -> Result<()> {
    fs::write(path, PROGRAMS)?;
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
}

/// Two user ids that are nobody's.
fn throwaway() -> Result<(u32, u32)> {
    let nobodys = |id: &u32| {
        matches!(User::from_uid(Uid::from_raw(*id)), Ok(None))
            && matches!(nix::unistd::Group::from_gid(Gid::from_raw(*id)), Ok(None))
    };
    let mut free = THROWAWAY.filter(nobodys);
    free.next().zip(free.next()).context("no user id is free for a throwaway account")
}

/// A running attack. Dropped, it is killed.
#[derive(Debug)]
struct Attacker {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Attacker {
    fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting an attack")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { child, output })
    }

    /// Its next line; none at its end.
    fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        Ok((self.output.read_line(&mut line)? > 0).then(|| line.trim_end().to_owned()))
    }

    fn go_on(&mut self) -> Result<()> {
        Ok(self.child.stdin.as_mut().context("its input")?.write_all(b"\n")?)
    }

    fn end(mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Word {
    fn parse(line: &str) -> Self {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "sent" => Self::Sent,
            "took" => Self::Took(rest.to_owned()),
            "stopped" => Self::Stopped(rest.to_owned()),
            "missing" => Self::Missing(rest.to_owned()),
            _ => Self::Nothing,
        }
    }
}

/// A cgroup for the attacker to move to; removed when dropped.
#[derive(Debug)]
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(battery: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").ok()?;
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = fields
            .filter(|fields| fields.get(2) == Some(&"cgroup2"))
            .find_map(|fields| fields.get(1).copied());
        let path = Path::new(root?).join(battery);
        fs::create_dir_all(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What could not be removed is an empty directory of the kernel's.
        fs::remove_dir(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ATTACKS;

    /// The programs' own list.
    fn programs() -> BTreeSet<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("attacks");
        install(&path, 0o755).unwrap();
        let output = Command::new(&path).arg("--list").output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_attack_has_a_program_and_every_program_an_attack() {
        let mut listed: BTreeSet<_> = ATTACKS.iter().map(|attack| attack.program.to_owned()).collect();
        // The second half of setuid_program.
        listed.insert("tcp_as_other".into());
        assert_eq!(programs(), listed);
    }

    #[test]
    fn names_are_unique_and_every_attack_says_what_it_tries() {
        let names: BTreeSet<_> = ATTACKS.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ATTACKS.len());
        assert!(ATTACKS.iter().all(|attack| attack.tries.len() > 10));
    }

    #[test]
    fn what_an_attack_says_is_understood() {
        assert_eq!(Word::parse("stopped connect EPERM"), Word::Stopped("connect EPERM".into()));
        assert_eq!(Word::parse("sent"), Word::Sent);
        assert_eq!(Word::parse("nonsense"), Word::Nothing);
    }
}
