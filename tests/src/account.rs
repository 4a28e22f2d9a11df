//! Accounts, and the unmodified clients they run.

use std::{
    ffi::OsStr,
    io::Write,
    net::SocketAddr,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};

/// Where `cargo xtask setup` puts the Python and Node drivers: readable to every account.
pub const CLIENTS: &str = "/var/cache/tidegate/clients";

/// Seconds after which a client is given up.
const LIMIT: &str = "120";

/// How a refusal of the gate's names its session, as `psql` shows it.
const NAMES_SESSION: &str = "DETAIL:  Tidegate session ";

/// A user id and the server that its clients are pointed at. No entry in the user database is needed.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user id, and the group id.
    pub uid: u32,
    server: SocketAddr,
    password: String,
    transcript: Arc<Mutex<String>>,
}

/// What a client did.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Account {
    /// An account whose clients offer this password.
    pub fn new(uid: u32, server: SocketAddr, password: &str) -> Self {
        Self { uid, server, password: password.into(), transcript: Arc::default() }
    }

    /// Everything that clients of this account printed goes here too.
    #[must_use]
    pub fn transcribed(mut self, transcript: &Arc<Mutex<String>>) -> Self {
        self.transcript = Arc::clone(transcript);
        self
    }

    /// A client program with nothing but libpq's variables in its environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .uid(self.uid)
            .gid(self.uid)
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", "/nonexistent")
            .env("PGHOST", self.server.ip().to_string())
            .env("PGPORT", self.server.port().to_string())
            .env("PGDATABASE", "shop")
            .env("PGUSER", "app")
            .env("PGPASSWORD", &self.password);
        command
    }

    /// Runs a client with this input to its end, or for two minutes.
    pub fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str], input: &str) -> Result<Ran> {
        let mut command = self.command("timeout");
        command.args(["--kill-after=5", LIMIT]).arg(program).args(arguments);
        self.finish(&mut command, input)
    }

    /// Runs a shell on a script, as a CI runner does with a step, with these variables beside its own.
    pub fn shell(&self, script: &str, variables: &[(&str, &str)]) -> Result<Ran> {
        let mut command = self.command("timeout");
        command.args(["--kill-after=5", LIMIT, "sh", "-e", "-s"]).envs(variables.iter().copied());
        self.finish(&mut command, script)
    }

    /// Runs `psql`, unaligned and with SQLSTATEs in its errors, on a script that goes on after errors.
    pub fn psql(&self, script: &str) -> Result<Ran> {
        self.run("psql", &["-XqAt", "-v", "VERBOSITY=verbose", "-f", "-"], script)
    }

    /// Runs one of the Python clients of `tests/clients`.
    pub fn python(&self, script: &str) -> Result<Ran> {
        self.run(format!("{CLIENTS}/python/bin/python"), &["-"], script)
    }

    /// Runs one of the Node clients of `tests/clients`.
    pub fn node(&self, script: &str) -> Result<Ran> {
        let mut command = self.command("timeout");
        command
            .args(["--kill-after=5", LIMIT, "node", "-"])
            .env("NODE_PATH", format!("{CLIENTS}/node/node_modules"));
        self.finish(&mut command, script)
    }

    fn finish(&self, command: &mut Command, input: &str) -> Result<Ran> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let mut stdin = child.stdin.take().context("standard input")?;
        let output = std::thread::scope(|scope| {
            // A client that has seen enough closes its input.
            scope.spawn(move || stdin.write_all(input.as_bytes()).ok());
            child.wait_with_output()
        })?;
        let ran = Ran {
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default()),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        self.transcribe(&ran.stdout);
        self.transcribe(&ran.stderr);
        Ok(ran)
    }

    /// Runs a client to its end that [`command`](Self::command) began.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        let output = command.output().with_context(|| format!("starting {command:?}"))?;
        self.transcribe(&String::from_utf8_lossy(&output.stdout));
        self.transcribe(&String::from_utf8_lossy(&output.stderr));
        Ok(output)
    }

    /// Adds what a client printed that was run in another way.
    pub fn transcribe(&self, printed: &str) {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).push_str(printed);
    }
}

impl Ran {
    /// Its output, if it succeeded and complained of nothing.
    pub fn clean(self) -> Result<String> {
        ensure!(self.code == 0, "exit code {}:\n{}{}", self.code, self.stdout, self.stderr);
        ensure!(self.stderr.is_empty(), "it complained:\n{}{}", self.stdout, self.stderr);
        Ok(self.stdout.trim_end().to_owned())
    }

    /// Checks that the gate refused it, in these words, and the server did not: the server's own refusals have the same
    /// SQLSTATE, but name no session of the gate's.
    pub fn refused_by_the_gate(&self, words: &[&str]) -> Result<()> {
        let (refusals, own) =
            (self.stderr.matches("42501").count(), self.stderr.matches(NAMES_SESSION).count());
        ensure!(refusals > 0, "it was not refused: {}{}", self.stdout, self.stderr);
        ensure!(refusals == own, "another than the gate refused it:\n{}", self.stderr);
        self.complains(words)
    }

    /// Checks that it complained with all of these words.
    pub fn complains(&self, words: &[&str]) -> Result<()> {
        for word in words {
            ensure!(self.stderr.contains(word), "no {word:?} in its complaints:\n{}", self.stderr);
        }
        Ok(())
    }
}
