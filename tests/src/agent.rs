//! A running agent.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{Process, Secrets, manager::Manager, process::crash};

/// How long starting may take: loading the kernel programs is most of it, and an emulated processor takes its time.
const START_LIMIT: Duration = Duration::from_secs(240);

/// What an agent is started with.
#[derive(Debug)]
pub struct Settings<'a> {
    /// The `tidegate` binary.
    pub binary: &'a Path,
    /// The bundle's files: name and text.
    pub bundle: &'a [(&'a str, &'a str)],
    /// The credentials' files: `NAME.user`, `NAME.password` and their text.
    pub credentials: &'a [(&'a str, &'a str)],
}

/// An agent with a configuration, a bundle, credentials, pins and a state directory of its own. Dropped, it is killed, and
/// what it left in the kernel is taken down.
#[derive(Debug)]
pub struct Agent {
    binary: PathBuf,
    process: Option<Process>,
    manager: Manager,
    directory: TempDir,
    /// Where only root may make sockets: names in a folder that everybody may write to count for nothing.
    runtime: TempDir,
    pins: PathBuf,
    secrets: Secrets,
    transcript: Arc<Mutex<String>>,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Agent {
    /// Writes what it needs and starts it; returns when it says that it is ready.
    pub fn start(settings: &Settings<'_>) -> Result<Self> {
        let mut agent = Self::prepare(settings)?;
        agent.launch()?;
        Ok(agent)
    }

    /// Writes what it needs, without starting it.
    pub fn prepare(settings: &Settings<'_>) -> Result<Self> {
        let directory = TempDir::with_prefix("tidegate-agent-")?;
        let pins = own_pins();
        let binary = directory.path().join("tidegate");
        put(settings.binary, &binary)?;
        let runtime = TempDir::with_prefix_in("tidegate-agent-", "/run")?;
        let (secrets, transcript) = (Secrets::default(), Arc::default());
        let manager = Manager::new(directory.path().join("notify"));
        let agent = Self {
            binary,
            process: None,
            manager,
            directory,
            runtime,
            pins,
            secrets,
            transcript,
            variables: Vec::new(),
        };
        for name in ["bundle", "credentials", "state"] {
            DirBuilder::new().mode(0o700).create(agent.path(name))?;
        }
        // Every account may ask who it is.
        for path in [agent.directory.path(), agent.runtime.path()] {
            fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
        }
        for (name, text) in settings.bundle {
            agent.write_bundle(name, text)?;
        }
        for (name, text) in settings.credentials {
            agent.write_credential(name, text)?;
        }
        fs::write(agent.path("tidegate.yaml"), agent.configuration())?;
        Ok(agent)
    }

    /// Starts it (again); returns when it says that it is ready.
    pub fn launch(&mut self) -> Result<()> {
        self.begin()?;
        let deadline = Instant::now() + START_LIMIT;
        while !self.manager.hears_ready() {
            let ended = self.process.as_mut().map(Process::ended).transpose()?.flatten();
            if let Some(status) = ended {
                bail!("the agent ended at its start ({status}):\n{}", self.read_log()?);
            }
            ensure!(Instant::now() < deadline, "the agent did not get ready:\n{}", self.read_log()?);
        }
        Ok(())
    }

    /// Starts it (again), without waiting until it is ready.
    pub fn begin(&mut self) -> Result<()> {
        let log = OpenOptions::new().append(true).create(true).open(self.log())?;
        let mut command = self.manager.command(&self.binary)?;
        command.args(["run", "--config"]).arg(self.path("tidegate.yaml"));
        command.env_remove("CREDENTIALS_DIRECTORY").envs(self.variables.iter().cloned());
        self.process = Some(Process::start(command.stderr(log))?);
        Ok(())
    }

    /// From the next launch on, has its manager keep descriptors between two agents, as systemd does.
    pub fn keep_descriptors(&mut self) {
        self.manager.keep();
    }

    /// The names of the descriptors that its manager keeps.
    pub fn kept(&self) -> Vec<String> {
        self.manager.kept()
    }

    /// What the memory has that its manager keeps by this name.
    pub fn read_kept(&self, name: &str) -> Result<Vec<u8>> {
        self.manager.read(name)
    }

    /// Has its manager keep another file by this name.
    pub fn replace_kept(&self, name: &str, file: File) -> Result<()> {
        self.manager.replace(name, file)
    }

    /// From the next launch on, runs another build.
    pub fn replace_binary(&self, binary: &Path) -> Result<()> {
        fs::remove_file(&self.binary)?;
        put(binary, &self.binary)
    }

    /// Runs a `tidegate` command against this agent and its state.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--config").arg(self.path("tidegate.yaml"));
        command
    }

    /// What such a command printed; an error if it failed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.attempt(arguments)?;
        let complaints = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tidegate {arguments:?} failed ({}):\n{complaints}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// How such a command ended, and all that it printed.
    pub fn attempt(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.command(arguments).output().context("starting tidegate")?;
        let mut transcript = self.transcript.lock().unwrap_or_else(PoisonError::into_inner);
        for printed in [&output.stdout, &output.stderr] {
            transcript.push_str(&String::from_utf8_lossy(printed));
        }
        drop(transcript);
        Ok(output)
    }

    /// The secrets that may show up nowhere: its credentials, and whatever else a test adds.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What its commands printed, and whoever else adds to it.
    pub fn transcript(&self) -> &Arc<Mutex<String>> {
        &self.transcript
    }

    /// Checks that no secret, its own keys included, is in its log, in what it keeps, in the transcript, or in this.
    pub fn shows_no_secret(&self, told: &str) -> Result<()> {
        for entry in fs::read_dir(self.state())?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "key") {
                self.secrets.keep_file(&entry.path())?;
            }
        }
        let mut found = self.secrets.found_under(&self.state())?;
        let transcript = self.transcript.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, text) in [
            ("the agent's log", &*self.read_log()?),
            ("a client or a command", &**transcript),
            ("an error", told),
        ] {
            let hits = self.secrets.found_in(text.as_bytes());
            found.extend(hits.into_iter().map(|what| format!("{place}: {what}")));
        }
        ensure!(found.is_empty(), "secrets were shown by {}", found.join(", "));
        Ok(())
    }

    /// Replaces a file of the bundle. It counts after a reload.
    pub fn write_bundle(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.path("bundle").join(name), text)?)
    }

    /// Adds a file to the bundle that is no text.
    pub fn add_to_bundle(&self, name: &str, content: &[u8]) -> Result<()> {
        Ok(fs::write(self.path("bundle").join(name), content)?)
    }

    /// A file of the bundle.
    pub fn read_bundle(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.path("bundle").join(name))?)
    }

    /// Adds to its configuration. It counts from the next launch on.
    pub fn add_configuration(&self, text: &str) -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.path("tidegate.yaml"))?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// Adds one of the credentials' files. Whatever isn't a user's name is a secret.
    pub fn write_credential(&self, file: &str, text: &str) -> Result<()> {
        if !file.ends_with(".user") {
            self.secrets.keep(file, text.trim());
        }
        Ok(private(&self.path("credentials").join(file))?.write_all(text.as_bytes())?)
    }

    /// Sets a variable of its environment to a path. It counts from the next launch on.
    pub fn set_variable(&mut self, name: &'static str, path: PathBuf) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, path));
    }

    /// Takes one of the credentials' files away.
    pub fn remove_credential(&self, file: &str) -> Result<()> {
        Ok(fs::remove_file(self.path("credentials").join(file))?)
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::SIGTERM)?;
        let status = process.wait(Duration::from_secs(30))?;
        ensure!(status.success(), "the agent ended with {status}:\n{}", self.read_log()?);
        Ok(())
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Has it abort, as a fault would, although root has raised its limit for core files: how it ended.
    pub fn crash(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the agent is not running")?;
        crash(&mut process)
    }

    /// Has what it left in the kernel taken down; it must not be running.
    pub fn detach(&self) -> Result<String> {
        self.ask(&["detach"])
    }

    /// Where its pins are.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The running process.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("the agent is not running")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process()?.signal(signal)
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Its runtime directory, with its sockets.
    pub fn runtime(&self) -> PathBuf {
        self.runtime.path().to_owned()
    }

    /// Its binary.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Its log, one JSON object a line.
    pub fn log(&self) -> PathBuf {
        self.path("log")
    }

    /// The log's text.
    pub fn read_log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.log())?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configuration(&self) -> String {
        format!(
            "bundle: {}\nstate: {}\nruntime: {}\npins: {}\ncredentials: {{directory: {}}}\n",
            self.path("bundle").display(),
            self.path("state").display(),
            self.runtime.path().display(),
            self.pins.display(),
            self.path("credentials").display(),
        )
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if self.pins.exists()
            && let Err(error) = self.detach()
        {
            eprintln!("{} was not taken down: {error:#}", self.pins.display());
        }
    }
}

/// Puts a binary where every account can run it: where cargo built it, not every one may be able to look.
fn put(binary: &Path, place: &Path) -> Result<()> {
    Ok(fs::hard_link(binary, place).or_else(|_| fs::copy(binary, place).map(drop))?)
}

/// Where pins of test agents are; the name ends with the process that made them and a number.
const PINS: &str = "/sys/fs/bpf/tidegate-agent-";

/// A place for the pins of one agent. What processes that are gone left there is taken down: it would go on governing.
fn own_pins() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for entry in fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.to_string_lossy();
        let owner = name.strip_prefix(PINS).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
            && let Err(error) = fs::remove_dir_all(&path)
        {
            eprintln!("{}: {error}", path.display());
        }
    }
    format!("{PINS}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// A new file that only root may read.
fn private(path: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(PermissionsExt::from_mode(0o600))?;
    Ok(file)
}
