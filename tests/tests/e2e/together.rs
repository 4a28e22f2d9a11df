//! Many sessions at once, and what tests need to hold one open.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{Account, Process, World};

/// A `psql` that stays open.
pub(crate) struct Session {
    account: Account,
    process: Process,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    /// Signs in.
    pub(crate) fn open(account: &Account) -> Result<Self> {
        let mut command = account.command("psql");
        command.args(["-XqAt", "-v", "VERBOSITY=verbose", "-v", "ON_ERROR_STOP=0", "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stdin = process.child().stdin.take().context("stdin")?;
        let stdout = BufReader::new(process.child().stdout.take().context("stdout")?);
        let mut session = Self { account: account.clone(), process, stdin, stdout };
        ensure!(session.ask("SELECT 'here'")? == "here", "it did not get in");
        Ok(session)
    }

    /// Runs a query that shows one line.
    pub(crate) fn ask(&mut self, query: &str) -> Result<String> {
        self.say(query)?;
        self.answer()
    }

    /// The next line that it shows.
    pub(crate) fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        self.account.transcribe(&line);
        Ok(line.trim_end().to_owned())
    }

    /// Sends a statement without waiting for its end.
    pub(crate) fn say(&mut self, statement: &str) -> Result<()> {
        writeln!(self.stdin, "{statement};")?;
        Ok(self.stdin.flush()?)
    }

    /// The client itself.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Ends the input and returns everything it complained of.
    pub(crate) fn end(mut self) -> Result<String> {
        drop(self.stdin);
        let mut stderr = self.process.child().stderr.take().context("stderr")?;
        std::thread::scope(|scope| {
            // A client that shows more than anybody has read comes to no end.
            scope.spawn(|| std::io::copy(&mut self.stdout, &mut std::io::sink()));
            let mut complaints = String::new();
            stderr.read_to_string(&mut complaints)?;
            self.account.transcribe(&complaints);
            Ok(complaints)
        })
    }
}

/// Waits until something is so, for half a minute at most.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds()? {
        ensure!(Instant::now() < deadline, "this did not come true: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn two_accounts_at_once_follow_their_own_rules() -> Result<()> {
    World::with(|world| {
        let (mut ci, mut ops) = (Session::open(&world.ci)?, Session::open(&world.ops)?);
        let query = "SELECT card_number FROM customers WHERE id = 1";
        for _ in 0..5 {
            let (masked, clear) = (ci.ask(query)?, ops.ask(query)?);
            ensure!(masked.ends_with("1111") && masked != clear, "ci was shown {masked}");
            ensure!(clear == "4111111111111111", "ops was shown {clear}");
        }
        ops.say("INSERT INTO products (title, cents) VALUES ('x', 1)")?;
        ensure!(ops.end()?.contains("42501"), "ops may only read");
        ci.say("INSERT INTO products (title, cents) VALUES ('x', 1)")?;
        ensure!(ci.end()?.is_empty(), "ci may write");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn two_hundred_connections_at_once_get_their_own_answers() -> Result<()> {
    World::with(|world| {
        let shown = world.ci.python(include_str!("../../clients/many.py"))?.clean()?;
        ensure!(shown == "ok", "{shown}");
        Ok(())
    })
}
