//! One command of the demo: shown as typed, run, and checked.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use tidegate_tests::{Account, Agent};

use crate::shell::{quoted, shown};

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

    /// Runs it; everything it printed, in order, and whether it succeeded.
    fn run(mut self) -> Result<(String, bool)> {
        // One pipe for both, so that errors stay between the results they belong to.
        let (mut reader, writer) = std::io::pipe()?;
        self.command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = self.command.spawn().with_context(|| format!("starting {}", shown(&self.command)))?;
        let mut stdin = child.stdin.take().context("standard input")?;
        drop(self.command);
        let printed = std::thread::scope(|scope| {
            // A client that has seen enough closes its input.
            let input = self.input.as_bytes();
            scope.spawn(move || stdin.write_all(input).ok());
            std::io::read_to_string(&mut reader)
        })?;
        Ok((printed, child.wait()?.success()))
    }
}

impl Transcript {
    /// Shows a step, runs it and checks what came of it.
    pub(crate) fn play(&mut self, step: Step) -> Result<()> {
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
        let (succeeds, shows, hides) = (step.succeeds, step.shows.clone(), step.hides.clone());
        let (printed, succeeded) = step.run()?;
        print_indented(&printed);
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
