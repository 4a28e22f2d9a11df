//! Who is asking: jobs with tokens, people at a device flow, and whoever took somebody else's token.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::{PermissionsExt, chown},
    process::{ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tidegate_tests::{Account, Process, Provider, Ran, World};

use crate::{policy::host_record, together::eventually};

const SIGN_IN: &str = "  - name: sign-in\n    subjects: [ci, ops]\n    resources: [shop]\n";
pub(crate) const HERE: &str = "psql -XqAt -c \"SELECT 'here'\"";

/// Long enough for any test.
pub(crate) const LIFETIME: u32 = 600;

/// Puts issuers in force, and lets nobody sign in but whom this asks for.
pub(crate) fn ask_for(world: &World, who: &str, issuers: &str) -> Result<()> {
    world.agent.write_bundle("issuers.yaml", &format!("tidegate: 1\nissuers:\n{issuers}"))?;
    world.change_bundle(
        SIGN_IN,
        &format!("{SIGN_IN}    who: {who}\n    hint: ask the owners of the shop\n"),
    )?;
    world.agent.ask(&["reload"]).map(drop)
}

pub(crate) fn jobs(provider: &Provider) -> String {
    format!(
        "  jobs:\n    url: {}\n    audience: ci-job\n    ca: {}\n    groups: [groups]\n    \
         tokens: [{{variable: CI_JOB_JWT}}, present]\n",
        provider.url,
        provider.ca().display(),
    )
}

pub(crate) fn people(provider: &Provider) -> String {
    format!(
        "  people:\n    url: {}\n    ca: {}\n    groups: [groups]\n    \
         account: preferred_username\n    \
         tokens: [{{login: {{client: tidegate-cli, scopes: [groups, offline_access]}}}}]\n",
        provider.url,
        provider.ca().display(),
    )
}

/// `tidegate` as an account's script writes it.
pub(crate) fn tidegate(world: &World, command: &str) -> String {
    format!("{} {command} --runtime {}", world.agent.binary().display(), world.agent.runtime().display())
}

/// This token may be shown by nothing: neither by what has run, nor by what runs until the test's end.
pub(crate) fn is_nowhere(world: &World, token: &str) -> Result<()> {
    let signature = token.rsplit('.').next().context("a token has parts")?;
    world.agent.secrets().keep("a token", token);
    world.agent.secrets().keep("a token's signature", signature);
    world.agent.shows_no_secret("")
}

/// A shell that stays open in a session of its own, as a job's or a person's does.
pub(crate) struct Shell {
    account: Account,
    process: Process,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    pub(crate) fn open(account: &Account) -> Result<Self> {
        let mut command = account.command("setsid");
        command.arg("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stdin = process.child().stdin.take().context("stdin")?;
        let stdout = BufReader::new(process.child().stdout.take().context("stdout")?);
        Ok(Self { account: account.clone(), process, stdin, stdout })
    }

    /// Reads a line; empty at the end.
    fn read(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        self.account.transcribe(&line);
        Ok(line)
    }

    /// Runs a command; what it printed, its errors too.
    pub(crate) fn run(&mut self, command: &str) -> Result<String> {
        writeln!(self.stdin, "{{ {command}\n}} 2>&1 </dev/null; echo ---")?;
        self.stdin.flush()?;
        self.until("---")
    }

    /// Sends a line.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}")?;
        Ok(self.stdin.flush()?)
    }

    /// The address that a login shows, with the code in it.
    pub(crate) fn address(&mut self) -> Result<String> {
        loop {
            let line = self.read()?;
            ensure!(
                !line.is_empty() && !line.contains("---") && !line.starts_with("tidegate:"),
                "no login: {line}"
            );
            if let Some(address) = line.strip_prefix("or open ") {
                return Ok(address.trim().to_owned());
            }
        }
    }

    /// What is printed before a line with this text.
    pub(crate) fn until(&mut self, text: &str) -> Result<String> {
        let mut printed = String::new();
        loop {
            let line = self.read()?;
            if line.is_empty() {
                let mut complaints = String::new();
                self.process.child().stderr.take().context("stderr")?.read_to_string(&mut complaints)?;
                bail!("the shell ended: {printed}{complaints}");
            }
            if line.contains(text) {
                return Ok(printed);
            }
            printed += &line;
        }
    }

    /// The next line.
    pub(crate) fn line(&mut self) -> Result<String> {
        let line = self.read()?;
        ensure!(!line.is_empty(), "the shell ended");
        Ok(line)
    }

    /// The next line with this text.
    pub(crate) fn until_line(&mut self, text: &str) -> Result<String> {
        loop {
            let line = self.line()?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }
}

pub(crate) fn got_in(ran: Ran) -> Result<()> {
    let shown = ran.clean()?;
    ensure!(shown.ends_with("here"), "{shown}");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_job_with_a_token_gets_in_and_the_same_command_without_it_is_told_how() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        ask_for(world, "{issuer: jobs, groups: [dba]}", &jobs(&provider))?;
        let token = provider.token("ci-job", "job1-dba")?;
        got_in(world.ci.shell(HERE, &[("CI_JOB_JWT", &token)])?)?;
        world.ci.shell(HERE, &[])?.complains(&[
            "without an ID token of issuer \"jobs\" (rule \"sign-in\")",
            "ask the owners of the shop; have the job set the variable CI_JOB_JWT",
            "run `tidegate present --token-file FILE`",
        ])?;
        let other = provider.token("ci-job", "job2-dev")?;
        world.ci.shell(HERE, &[("CI_JOB_JWT", &other)])?.complains(&["another `groups`"])?;
        is_nowhere(world, &token)?;
        let listed = world.agent.ask(&["sessions", "list", "--json"])?;
        let sessions: Vec<serde_json::Value> = serde_json::from_str(&listed)?;
        let opened = sessions
            .iter()
            .filter_map(|session| session["id"].as_str())
            .map(|id| world.agent.ask(&["sessions", "export", id]));
        let recorded = opened.collect::<Result<String>>()?;
        ensure!(recorded.contains("job1-dba") && recorded.contains("\"issuer\":\"jobs\""), "{recorded}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn forged_expired_and_misdirected_tokens_are_told_apart() -> Result<()> {
    World::with(|world| {
        let (provider, hasty) = (Provider::oidc(LIFETIME)?, Provider::oidc(1)?);
        let strict =
            jobs(&hasty).replace("  jobs:", "  hasty:").replace("audience", "clock-skew: 0s\n    audience");
        let issuers = jobs(&provider) + &strict;
        let minted = Instant::now();
        let expired = hasty.token("ci-job", "job1")?;
        ask_for(world, "{issuer: jobs}", &issuers)?;
        let refused = |token: &str, words: &str| {
            world.ci.shell(HERE, &[("CI_JOB_JWT", token)])?.complains(&["does not count", words])
        };
        let token = provider.token("ci-job", "job1")?;
        let (signed, signature) = token.rsplit_once('.').context("a token has parts")?;
        refused(
            &format!("{signed}.{}", signature.chars().rev().collect::<String>()),
            "its signature is wrong",
        )?;
        refused(&provider.token("other-service", "job1")?, "it is for another audience than \"ci-job\"")?;
        refused(&hasty.token("ci-job", "job1")?, "it is from another issuer")?;
        refused("not-a-token", "it is not a signed ID token")?;
        ask_for(world, "{issuer: hasty}", &issuers)?;
        eventually("its second is over", || Ok(minted.elapsed() > Duration::from_secs(2)))?;
        refused(&expired, "it expired")
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_presented_token_counts_for_its_shell_and_a_copy_for_nobody() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        ask_for(world, "{issuer: jobs}", &jobs(&provider))?;
        let token = provider.token("ci-job", "job1")?;
        let present = format!("printf %s {token} | {}", tidegate(world, "present --token-file -"));
        let mut job = Shell::open(&world.ci)?;
        ensure!(job.run(HERE)?.contains("without an ID token"), "nobody has presented one yet");
        // The shell runs a pipe's parts itself, so the token counts for it.
        let said = job.run(&present)?;
        ensure!(said.contains("jobs says: \"job1\""), "{said}");
        ensure!(job.run(HERE)?.trim() == "here", "the job is known");
        let said = job.run(&tidegate(world, "whoami"))?;
        ensure!(said.contains("jobs says: \"job1\""), "{said}");

        for thief in [&world.ci, &world.ops] {
            let mut thief = Shell::open(thief)?;
            ensure!(thief.run(HERE)?.contains("without an ID token"), "a neighbour is nobody");
            let said = thief.run(&present)?;
            ensure!(said.contains("presented first by another process tree"), "{said}");
            let said = thief.run(&format!("CI_JOB_JWT={token} {HERE}"))?;
            ensure!(said.contains("presented first by another process tree"), "{said}");
        }
        for uid in [world.ci.uid, world.ops.uid] {
            eventually("both uses are in the host's record", || {
                let record = host_record(world)?;
                let told = record.lines().filter(|line| line.contains("token-elsewhere"));
                Ok(told.filter(|line| line.contains(&format!("uid {uid}"))).count() >= 2)
            })?;
        }
        let status: serde_json::Value = serde_json::from_str(&world.agent.ask(&["status", "--json"])?)?;
        ensure!(status["stolen_tokens"].as_u64() >= Some(4), "{status}");
        drop(job);
        let mut later = Shell::open(&world.ci)?;
        eventually("the job's end is seen", || {
            Ok(later.run(&present)?.contains("by a process tree that has ended: get a new one"))
        })?;
        is_nowhere(world, &token)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_token_in_a_file_counts_for_the_job_that_connects_first_and_only_from_a_file_of_its_own() -> Result<()> {
    World::with(|world| {
        let (provider, folder) = (Provider::oidc(LIFETIME)?, tempfile::tempdir()?);
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let path = folder.path().join("token");
        let issuers =
            jobs(&provider).replace("{variable: CI_JOB_JWT}", &format!("{{file: \"{}\"}}", path.display()));
        ask_for(world, "{issuer: jobs}", &issuers)?;
        world.ci.shell(HERE, &[])?.complains(&["without an ID token"])?;
        let token = provider.token("ci-job", "job1")?;
        fs::write(&path, format!("{token}\n"))?;
        chown(&path, Some(world.ci.uid), None)?;
        let closed = "closed to others: chmod 600";
        world.ci.shell(HERE, &[])?.complains(&[closed])?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
        world.ops.shell(HERE, &[])?.complains(&[closed])?;
        let mut job = Shell::open(&world.ci)?;
        ensure!(job.run(HERE)?.trim() == "here", "the job is not known");
        world.ci.shell(HERE, &[])?.complains(&["presented first by another process tree"])?;
        is_nowhere(world, &token)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_file_with_a_token_is_presented_and_a_blank_one_is_not() -> Result<()> {
    World::with(|world| {
        let (provider, folder) = (Provider::oidc(LIFETIME)?, tempfile::tempdir()?);
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let path = folder.path().join("token");
        ask_for(world, "{issuer: jobs}", &jobs(&provider))?;
        let mut job = Shell::open(&world.ci)?;
        let present = tidegate(world, &format!("present --token-file {}", path.display()));
        let said = job.run(&present)?;
        ensure!(said.contains("token"), "no file: {said}");
        let token = provider.token("ci-job", "job1")?;
        for (text, known) in [("\n \n".to_owned(), false), (format!("  {token}\r\n\n"), true)] {
            fs::write(&path, text)?;
            let said = job.run(&present)?;
            ensure!(said.contains("jobs says: \"job1\"") == known, "{said}");
        }
        ensure!(job.run(HERE)?.trim() == "here", "the job is not known");
        is_nowhere(world, &token)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_job_within_its_runner_s_session_presents_its_token_for_a_command_alone() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        ask_for(world, "{issuer: jobs}", &jobs(&provider))?;
        let token = provider.token("ci-job", "job1")?;
        let present = format!("printf %s {token} | {}", tidegate(world, "present --token-file -"));
        let ran = world.ci.shell(&format!("{present} -- {HERE}"), &[])?;
        ensure!(ran.clean()? == "here", "the command is not the job");
        let token = provider.token("ci-job", "job2")?;
        let present = format!("printf %s {token} | {}", tidegate(world, "present --token-file -"));
        let ran = world.ci.shell(&format!("{present} || {HERE}"), &[])?;
        ran.complains(&["where the job has a session of its own", "without an ID token"])?;
        let ran = world.ci.shell(&format!("{present} -- no-such-command"), &[])?;
        ensure!(ran.code != 0, "a command that is none succeeded");
        ran.complains(&["no-such-command"])
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_restart_forgets_neither_used_tokens_nor_the_issuer_s_keys() -> Result<()> {
    World::with(|world| {
        let mut provider = Provider::oidc(LIFETIME)?;
        ask_for(world, "{issuer: jobs}", &jobs(&provider))?;
        let token = provider.token("ci-job", "job1")?;
        let present = format!("printf %s {token} | {}", tidegate(world, "present --token-file -"));
        let mut job = Shell::open(&world.ci)?;
        ensure!(job.run(&present)?.contains("jobs says"), "the job is not known");
        world.agent.kill();
        // Nobody can ask it for its keys any more.
        provider.stop();
        world.agent.launch()?;
        let mut thief = Shell::open(&world.ci)?;
        let said = thief.run(&present)?;
        ensure!(said.contains("presented first by another process tree"), "{said}");
        let said = job.run(&present)?;
        ensure!(said.contains("jobs says: \"job1\""), "{said}");
        drop(job);
        world.agent.stop()?;
        world.agent.launch()?;
        let said = thief.run(&present)?;
        ensure!(said.contains("by a process tree that has ended"), "{said}");
        is_nowhere(world, &token)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_session_ends_when_whoever_opened_it_is_nobody_any_more() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        ask_for(world, "{issuer: jobs}", &jobs(&provider))?;
        let token = provider.token("ci-job", "job1")?;
        let mut job = Shell::open(&world.ci)?;
        job.run(&format!("printf %s {token} | {}", tidegate(world, "present --token-file -")))?;
        // It goes on after the client, which must not be told before it is there.
        job.say("exec 3>&1; { echo \"SELECT 'open';\"; read line; echo 'SELECT 1;'; } <&0 | psql -XqAt 2>&1; echo over")?;
        job.until("open")?;
        let mut other = Shell::open(&world.ci)?;
        let said = other.run(&tidegate(world, "logout"))?;
        ensure!(said.contains("nothing to end"), "somebody else's logout ended it: {said}");
        // A logout of the job's own, from outside of the shell that waits, is its end.
        drop(other);
        world.agent.write_bundle(
            "issuers.yaml",
            &format!(
                "tidegate: 1\nissuers:\n{}",
                jobs(&provider).replace("variable: CI_JOB_JWT", "variable: OTHER")
            ),
        )?;
        world.agent.ask(&["reload"])?;
        job.say("")?;
        let said = job.until("over")?;
        ensure!(said.contains("this session is no longer allowed"), "{said}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_person_logs_in_by_the_device_flow_works_and_logs_out() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        ask_for(world, "{issuer: people, groups: [dba]}", &people(&provider))?;
        let mut person = Shell::open(&world.ci)?;
        let said = person.run(HERE)?;
        ensure!(said.contains("run `tidegate login --issuer people`"), "{said}");
        person.say(&format!("{} 2>&1; echo ---", tidegate(world, "login")))?;
        let address = person.address()?;
        provider.visit(&address, "alice-dba")?;
        let said = person.until("---")?;
        ensure!(said.contains("people says: \"alice-dba\"") && said.contains("groups: \"dba\""), "{said}");
        ensure!(person.run(HERE)?.trim() == "here", "alice is known");
        ensure!(Shell::open(&world.ci)?.run(HERE)?.contains("without an ID token"), "another shell is not");
        ensure!(person.run(&tidegate(world, "logout"))?.contains("ended: 1"), "nothing was ended");
        ensure!(person.run(HERE)?.contains("without an ID token"), "alice is nobody any more");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_login_is_renewed_at_the_provider_while_the_shell_lives() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(9)?;
        let issuers = people(&provider).replace("    groups:", "    clock-skew: 0s\n    groups:");
        ask_for(world, "{issuer: people}", &issuers)?;
        let mut person = Shell::open(&world.ci)?;
        person.say(&format!("{} 2>&1; echo ---", tidegate(world, "login")))?;
        let address = person.address()?;
        provider.visit(&address, "alice")?;
        person.until("---")?;
        let whoami = tidegate(world, "whoami --json");
        let expires = |said: &str| -> Result<i64> {
            let answer: serde_json::Value = serde_json::from_str(said)?;
            answer["identities"][0]["expires"].as_i64().context("nobody is known")
        };
        let first = expires(&person.run(&whoami)?)?;
        eventually("the login is renewed twice", || Ok(expires(&person.run(&whoami)?)? > first + 9))
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_github_job_is_known_by_its_own_endpoint_and_only_as_itself() -> Result<()> {
    World::with(|world| {
        let job = |repository: &str, git_ref: &str| {
            json!({
                "repository": repository, "repository_owner": "acme", "ref": git_ref, "workflow": "deploy",
                "actor": "alice", "environment": "production", "runner_environment": "self-hosted",
            })
        };
        let github = Provider::github(&json!({
            "token-of-main": job("acme/shop", "refs/heads/main"),
            "token-of-a-branch": job("acme/shop", "refs/heads/feature"),
        }))?;
        let issuers = format!(
            "  github:\n    url: {url}\n    audience: tidegate\n    ca: {ca}\n    require: {{repository_owner: acme}}\n    \
             keep: [actor, workflow]\n    tokens: [{{github-actions: {{hosts: [\"{host}\"]}}}}]\n",
            url = github.url,
            ca = github.ca().display(),
            host = github.host(),
        );
        let who = "{issuer: github, claims: {repository: acme/shop, ref: refs/heads/main}}";
        ask_for(world, who, &issuers)?;
        let url = format!("{}/idtoken?api-version=2.0", github.url);
        let environment = |token: &'static str| {
            [("ACTIONS_ID_TOKEN_REQUEST_URL", url.clone()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", token.into())]
        };
        let run = |account: &Account, token: &'static str, script: &str| {
            let variables = environment(token);
            let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
            account.shell(script, &variables)
        };
        got_in(run(&world.ci, "token-of-main", HERE)?)?;
        let listed: Vec<serde_json::Value> =
            serde_json::from_str(&world.agent.ask(&["sessions", "list", "--json"])?)?;
        let id = listed.first().and_then(|session| session["id"].as_str()).context("a session")?;
        let shown = world.agent.ask(&["sessions", "show", id])?;
        for part in
            ["github says: repo:acme/shop", "repository: acme/shop", "actor: alice", "workflow: deploy"]
        {
            ensure!(shown.contains(part), "no {part:?} in:\n{shown}");
        }
        run(&world.ci, "token-of-a-branch", HERE)?
            .complains(&["repo:acme/shop:ref:refs/heads/feature", "another `ref`"])?;
        run(&world.ci, "a-guess", HERE)?.complains(&["does not count", "answered 401"])?;
        world
            .ci
            .shell(HERE, &[])?
            .complains(&["give the workflow's job `permissions: {id-token: write}`"])?;
        is_nowhere(world, "x.token-of-main")
    })
}
