//! Commands with which people answer questions. They need no root.

use std::{
    fmt,
    io::{self, Write},
};

use anyhow::Result;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use tidegate_approvals::{Inquiry, Say, State};
use tidegate_gate::{Block, Plain};

use super::{
    Exit, counted,
    folded::{columns, folded},
};
use crate::{
    config::Config,
    user_socket::{self, Answer as Told, Request},
};

/// Questions that wait for people.
#[derive(Debug, Subcommand)]
pub(super) enum Approvals {
    /// List the questions that you may know of
    #[command(after_help = "\
Examples:
  tidegate approvals list
  tidegate approvals list --watch --json")]
    List(List),
    /// Show one: exactly what will run, who asks, and by which rule
    Show(Show),
    /// Say yes
    #[command(after_help = "\
Example:
  tidegate approvals approve k7f2-9qmd --reason 'ticket 4711'

Never your own question. Exit code 1: it did not count, and why not is told.")]
    Approve(Answer),
    /// Say no
    Deny(Answer),
    /// Let it run at once, where the rule lets you: an alert goes out, and a review is owed
    BreakGlass(Answer),
    /// Note that you looked at what ran at once
    Review(Answer),
    /// Take a yes back: what begins from now on asks again, and a session that it let in is ended
    Revoke(Answer),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Settled ones, too
    #[arg(long, conflicts_with = "watch")]
    all: bool,
    /// Go on and print every change, until interrupted
    #[arg(long)]
    watch: bool,
    /// Print JSON: an array, or with --watch an object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The question's id
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Answer {
    /// The question's id
    id: String,
    /// Why, in one line; it is told to whoever asks, and recorded
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Approvals {
    pub(super) fn run(self, config: &Config) -> Result<Exit> {
        match self {
            Self::List(List { watch: true, json, .. }) => watch(config, json),
            Self::List(List { all, json, .. }) => ask(config, &Request::Questions { all }, json),
            Self::Show(Show { id, json }) => ask(config, &Request::Question { id }, json),
            Self::Approve(answer) => answer.say(config, Say::Approve),
            Self::Deny(answer) => answer.say(config, Say::Deny),
            Self::BreakGlass(answer) => answer.say(config, Say::BreakGlass),
            Self::Review(answer) => answer.say(config, Say::Review),
            Self::Revoke(answer) => answer.say(config, Say::Revoke),
        }
    }
}

impl Answer {
    fn say(self, config: &Config, say: Say) -> Result<Exit> {
        let Self { id, reason, json } = self;
        let told = match reach(config, &Request::Say { id, say, reason }) {
            Ok(told) => told,
            Err(exit) => return Ok(exit),
        };
        let mut out = io::stdout().lock();
        match &told {
            Told::Question { question } if !json => {
                let step = question.last().map_or("", |event| &event.step);
                writeln!(out, "{} is {}: {step}", question.id, question.state)?;
                Ok(Exit::Done)
            }
            told => print(told, json),
        }
    }
}

fn ask(config: &Config, request: &Request, json: bool) -> Result<Exit> {
    match reach(config, request) {
        Ok(told) => print(&told, json),
        Err(exit) => Ok(exit),
    }
}

fn watch(config: &Config, json: bool) -> Result<Exit> {
    let mut exit = Exit::Done;
    let told = user_socket::follow(&config.user_socket(), |told| {
        let mut out = io::stdout().lock();
        match &told {
            Told::Question { question } if !json => writeln!(out, "{}", Line(question))?,
            Told::Question { question } => writeln!(out, "{}", serde_json::to_string(question)?)?,
            other => exit = print(other, json).map_err(io::Error::other)?,
        }
        out.flush()
    });
    match told {
        Ok(()) => Ok(exit),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Ok(unreachable(config, &error)),
    }
}

/// The answer, or how to end if nobody answers.
fn reach(config: &Config, request: &Request) -> Result<Told, Exit> {
    // Only a login sends anybody anywhere.
    user_socket::ask(&config.user_socket(), request, |_| {}).map_err(|error| unreachable(config, &error))
}

fn unreachable(config: &Config, error: &io::Error) -> Exit {
    eprintln!("tidegate: no agent answers on {}: {error}", config.user_socket().display());
    Exit::Unreachable
}

fn print(told: &Told, json: bool) -> Result<Exit> {
    let mut out = io::stdout().lock();
    match told {
        Told::Failed { why } => {
            eprintln!("tidegate: {why}");
            return Ok(Exit::Failed);
        }
        Told::Questions { questions, unreadable } => {
            if json {
                writeln!(out, "{}", serde_json::to_string(questions)?)?;
            } else {
                list(&mut out, questions)?;
            }
            if *unreadable > 0 {
                let left_out = counted(*unreadable, "question");
                eprintln!(
                    "tidegate: {left_out} can't be read and not listed: the agent's log says which and why"
                );
            }
        }
        Told::Question { question } if json => writeln!(out, "{}", serde_json::to_string(question)?)?,
        Told::Question { question } => {
            let whole = Whole(question).to_string();
            match columns() {
                Some(columns) => write!(out, "{}", folded(&whole, columns))?,
                None => write!(out, "{whole}")?,
            }
        }
        Told::Bound { .. } | Told::Visit(_) | Told::Known { .. } | Told::LoggedOut { .. } => {
            anyhow::bail!("the agent answered something else: is it of another version?")
        }
    }
    Ok(Exit::Done)
}

fn list(out: &mut impl Write, questions: &[Inquiry]) -> io::Result<()> {
    if questions.is_empty() {
        return writeln!(out, "nothing waits for you");
    }
    writeln!(out, "{:<9}  {:<9}  {:<20}  {:<16}  {:<12}  WHAT", "ID", "STATE", "UNTIL", "WHO", "WHERE")?;
    questions.iter().try_for_each(|question| writeln!(out, "{}", Line(question)))
}

/// A question in a line.
struct Line<'a>(&'a Inquiry);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inquiry { id, state, expires, resource, text, .. } = self.0;
        let owed = if self.0.review_owed { " (review owed)" } else { "" };
        write!(
            f,
            "{id:<9}  {:<9}  {:<20}  {:<16}  {:<12}  {}{owed}",
            state.to_string(),
            format!("{expires:.0}"),
            Plain(&self.0.asker().name).to_string(),
            Plain(resource).to_string(),
            shortened(&Plain(text).to_string(), 60),
        )
    }
}

/// A question with all that an answer depends on.
struct Whole<'a>(&'a Inquiry);

impl fmt::Display for Whole<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let question = self.0;
        let process = &question.principal.process;
        writeln!(f, "question   {} ({})", question.id, question.state)?;
        writeln!(f, "asks       {} on {}", Plain(&question.asker().name), Plain(&question.host))?;
        let executable = process.executable.as_deref().unwrap_or(&process.command);
        writeln!(f, "process    {} (pid {}, uid {})", Plain(executable), process.pid, process.uid)?;
        if !process.command_line.is_empty() {
            writeln!(f, "command    {}", Plain(&process.command_line.join(" ")))?;
        }
        for (name, value) in
            [("unit", &process.unit), ("container", &process.container), ("image", &process.image)]
        {
            value.as_ref().map_or(Ok(()), |value| writeln!(f, "{name:<10} {}", Plain(value)))?;
        }
        for identity in &*question.principal.identities {
            writeln!(f, "vouched    {} of {}", Plain(&identity.subject), Plain(&identity.issuer))?;
            for (claim, value) in &identity.claims {
                writeln!(f, "           {}: {}", Plain(claim), Plain(&value.to_string()))?;
            }
        }
        writeln!(f, "where      {} ({})", Plain(&question.resource), Plain(&question.protocol))?;
        for term in &question.terms {
            let approval = &term.held.approval;
            writeln!(
                f,
                "rule       {}: by {approval}; counts for {}",
                Plain(&term.held.rule),
                approval.reach()
            )?;
            if !term.held.what.is_empty() {
                writeln!(f, "           holds {}", Plain(&term.held.what))?;
            }
        }
        if question.state == State::Waiting {
            let left = question.expires.duration_since(Timestamp::now()).as_secs().max(0);
            writeln!(f, "until      {:.0} (in {left} s)", question.expires)?;
        }
        writeln!(f, "session    {} (action {})", question.session, question.action)?;
        writeln!(f, "will run   ({})", Plain(&question.name))?;
        writeln!(f, "    | {}", Block(&question.text))?;
        for (name, value) in &question.particulars {
            writeln!(f, "    with {}: {}", Plain(name), Block(value))?;
        }
        writeln!(f, "happened")?;
        for event in &question.trail {
            write!(f, "    {:.0}  {}", event.time, event.step)?;
            event.by.as_ref().map_or(Ok(()), |by| write!(f, " by {}", Plain(by)))?;
            event.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {}", Plain(reason)))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

fn shortened(text: &str, most: usize) -> String {
    let mut characters = text.chars();
    let mut short: String = characters.by_ref().take(most).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tidegate_approvals::Person;
    use tidegate_gate::{Answer as Answered, Approvals as _, Question};
    use tidegate_policy::{Approval, Held, Identity, People, Principal, Process, Scope, Sessions};

    use super::*;
    use crate::test_support::World;

    fn asked() -> Question {
        let job = Identity {
            issuer: "github".into(),
            url: "https://token.actions.githubusercontent.com".into(),
            account: None,
            subject: "repo:acme/shop:ref:refs/heads/main".into(),
            groups: Vec::new(),
            expires: i64::MAX,
            claims: [("repository".to_owned(), "acme/shop\nrule       none".into())].into_iter().collect(),
        };
        let process = Process { pid: 7, uid: 1000, user: Some("ci".into()), ..Process::default() };
        let by = People { users: vec!["ann".into()], ..People::default() };
        let approval = Approval {
            by,
            approvers: 1,
            scope: Scope::Action,
            wait: Duration::from_secs(60),
            grant: None,
            sessions: Sessions::One,
            reason: false,
            break_glass: None,
        };
        Question {
            session: "s".into(),
            principal: Principal { process, identities: [job].into(), ..Principal::default() },
            resource: "shop".into(),
            protocol: "postgres".into(),
            policy: "digest".into(),
            action: 1,
            name: "statement".into(),
            text: "DELETE FROM orders\nquestion   none".into(),
            particulars: vec![("$1".into(), "7".into())],
            holds: vec![Held { rule: "ask".into(), what: "".into(), approval: Arc::new(approval) }],
            exact: [1; 32],
            shape: [1; 32],
        }
    }

    #[tokio::test]
    async fn an_approver_sees_what_will_run_for_whom_and_from_which_job() {
        let desk = World::new().await.desk();
        let Answered::Waits(waits) = desk.put(asked()).await.unwrap() else { panic!("nobody was asked") };
        let root = Person { host: "host".into(), uid: Some(0), ..Person::default() };
        let question = desk.show(&root, waits.id()).await.unwrap();
        let shown = Whole(&question).to_string();
        for line in [
            "asks       ci (repo:acme/shop:ref:refs/heads/main of github) on host",
            "vouched    repo:acme/shop:ref:refs/heads/main of github",
            "rule       ask: by user ann; counts for this action, once",
            "    with $1: 7",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "no {line:?} in:\n{shown}");
        }
        assert!(shown.contains("           repository: \"acme/shop"), "{shown}");
        // Nothing that others wrote passes for the agent's own words.
        for word in ["rule ", "question "] {
            assert_eq!(shown.lines().filter(|line| line.starts_with(word)).count(), 1, "{shown}");
        }
    }

    #[test]
    fn a_long_text_is_cut_in_a_list_and_says_so() {
        assert_eq!(shortened("abcdef", 3), "abc…");
        assert_eq!(shortened("abc", 3), "abc");
    }
}
