//! One command of the demo: shown as typed, run, and checked.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tidegate_tests::{Account, Agent, Process};

use crate::shell::{quoted, shown};

/// How long a command may take to end once it has closed its output.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command, why it is run, and what must come of it.
pub(crate) struct Step {
    explain: String,
    prompt: String,
    command: Command,
    input: String,
    succeeds: bool,
    shows: Vec<String>,
    hides: Vec<String>,
}

/// Whose prompt a command is typed at.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    /// The account's name.
    pub(crate) name: &'static str,
    /// The account.
    pub(crate) account: Account,
}

/// Counts what was expected, and what did not happen.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    /// What the commands printed.
    printed: String,
    checked: usize,
    wrong: usize,
}

impl Step {
    /// A client of this account, which knows no password.
    pub(crate) fn new(actor: &Actor, explain: &str, program: &str) -> Self {
        let mut command = actor.account.command(program);
        command.env_remove("PGPASSWORD");
        Self::of(explain, format!("{}$ ", actor.name), command)
    }

    /// A `tidegate` command, as root.
    pub(crate) fn agent(agent: &Agent, explain: &str, arguments: &[&str]) -> Self {
        Self::of(explain, "root# ".to_owned(), agent.command(arguments))
    }

    fn of(explain: &str, prompt: String, command: Command) -> Self {
        Self {
            explain: explain.into(),
            prompt,
            command,
            input: String::new(),
            succeeds: true,
            shows: Vec::new(),
            hides: Vec::new(),
        }
    }

    /// A variable in the command's environment.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.prompt += &format!("{name}={} ", quoted(value));
        self.command.env(name, value);
        self
    }

    /// A variable whose value is not shown.
    pub(crate) fn secret(mut self, name: &str, value: &str) -> Self {
        self.prompt += &format!("{name}=... ");
        self.command.env(name, value);
        self
    }

    /// The command's arguments.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// What is typed into it.
    pub(crate) fn input(mut self, text: &str) -> Self {
        self.input = text.into();
        self
    }

    /// It must fail.
    pub(crate) fn fails(mut self) -> Self {
        self.succeeds = false;
        self
    }

    /// What must be among what it prints.
    pub(crate) fn shows(mut self, texts: &[&str]) -> Self {
        self.shows = texts.iter().map(ToString::to_string).collect();
        self
    }

    /// What must not be.
    pub(crate) fn hides(mut self, texts: &[&str]) -> Self {
        self.hides = texts.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts it.
    fn start(mut self) -> Result<Running> {
        // One pipe for both, so that errors stay between the results they belong to.
        let (mut reader, writer) = std::io::pipe()?;
        self.command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        let child = Process::start(&mut self.command)?;
        let Self { succeeds, shows, hides, input, command, .. } = self;
        // It holds the pipe open.
        drop(command);
        let mut running = Running {
            child,
            printed: std::thread::spawn(move || std::io::read_to_string(&mut reader)),
            expected: Expected { succeeds, shows, hides },
        };
        let mut stdin = running.child.child().stdin.take().context("standard input")?;
        // A client that has seen enough closes its input.
        std::thread::spawn(move || stdin.write_all(input.as_bytes()).ok());
        Ok(running)
    }
}

/// A command that was shown and runs. Dropped, it is ended.
pub(crate) struct Running {
    child: Process,
    printed: JoinHandle<std::io::Result<String>>,
    expected: Expected,
}

/// What must come of a command.
struct Expected {
    succeeds: bool,
    shows: Vec<String>,
    hides: Vec<String>,
}

impl Transcript {
    /// Shows a step, runs it and checks what came of it.
    pub(crate) fn play(&mut self, step: Step) -> Result<()> {
        let running = self.begin(step)?;
        self.finish(running)
    }

    /// Shows a step and starts it.
    pub(crate) fn begin(&mut self, step: Step) -> Result<Running> {
        println!("\n# {}\n", step.explain);
        println!(
            "    {}{}{}",
            step.prompt,
            shown(&step.command),
            if step.input.is_empty() { "" } else { " <<'END'" }
        );
        if !step.input.is_empty() {
            print_indented(&step.input);
            println!("    END");
        }
        step.start()
    }

    /// Waits for the end of what was begun, shows what it printed and checks it.
    pub(crate) fn finish(&mut self, running: Running) -> Result<()> {
        let Running { mut child, printed, expected: Expected { succeeds, shows, hides } } = running;
        let printed = printed.join().map_err(|_| anyhow!("reading what it printed failed"))??;
        let succeeded = child.wait(PATIENCE)?.success();
        print_indented(&printed);
        self.printed += &printed;
        self.check(succeeds == succeeded, if succeeds { "it succeeds" } else { "it fails" });
        if !shows.is_empty() {
            let missing: Vec<_> = shows.iter().filter(|text| !printed.contains(*text)).collect();
            self.check(missing.is_empty(), &format!("it shows {}", list(&shows)));
        }
        if !hides.is_empty() {
            let seen = hides.iter().any(|text| printed.contains(text));
            self.check(!seen, "it shows nothing that must stay hidden");
        }
        Ok(())
    }

    /// What the commands printed.
    pub(crate) fn printed(&self) -> &str {
        &self.printed
    }

    /// How much was expected, and how much of that did not happen.
    pub(crate) fn result(&self) -> (usize, usize) {
        (self.checked, self.wrong)
    }

    fn check(&mut self, holds: bool, what: &str) {
        self.checked += 1;
        self.wrong += usize::from(!holds);
        println!("    [{}] {what}", if holds { "yes" } else { "NO" });
    }
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("    | {line}");
    }
}

fn list(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ")
}
