//! The third act: git and curl, over HTTPS.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result};
use serde::Deserialize;
use tempfile::TempDir;
use tidegate_tests::Web;

use super::{
    HIDDEN,
    stage::Stage,
    step::{Actor, Step, Transcript},
};
use crate::shell::say;

const BUNDLE: &str = include_str!("forge.yaml");

#[derive(Deserialize)]
struct Listed {
    id: String,
    resource: String,
    refused: u64,
}

/// A forge with its clients.
struct Forge<'a> {
    stage: &'a Stage,
    web: Web,
    /// Where the clients' certificate is, and their clones.
    directory: TempDir,
}

/// Begins to govern connections to a forge, and shows what becomes of them.
pub(crate) fn act(stage: &Stage, transcript: &mut Transcript) -> Result<()> {
    let forge = Forge::set(stage)?;
    println!(
        "\nThe same for HTTPS. The server takes nobody without its token, and only the gate has that:\n"
    );
    BUNDLE.lines().skip_while(|line| *line != "rules:").for_each(|line| println!("    {line}"));
    forge.repository(transcript)?;
    forge.api(transcript)?;
    forge.record(transcript)
}

impl<'a> Forge<'a> {
    fn set(stage: &'a Stage) -> Result<Self> {
        say("starting a private nginx with a git repository and an API");
        let web = Web::start()?;
        let directory = TempDir::with_prefix("tidegate-demo-")?;
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777))?;
        let agent = stage.agent();
        fs::write(directory.path().join("ca.pem"), agent.ask(&["ca", "show"])?)?;
        agent.write_credential("forge-bot.user", "bot")?;
        agent.write_credential("forge-bot.password", &web.token)?;
        let ca = web.certificates.authority.display().to_string();
        let bundle = BUNDLE.replace("${port}", &web.port.to_string()).replace("${ca}", &ca);
        agent.write_bundle("forge.yaml", &bundle)?;
        agent.ask(&["reload"])?;
        Ok(Self { stage, web, directory })
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.web.port)
    }

    /// A client of this account's that trusts the gate.
    fn step(&self, explain: &str, program: &str, arguments: &[&str]) -> Step {
        let ca = self.directory.path().join("ca.pem").display().to_string();
        let variable = if program == "git" { "GIT_SSL_CAINFO" } else { "CURL_CA_BUNDLE" };
        self.client(self.stage.governed(), explain, program).environment(variable, &ca).arguments(arguments)
    }

    /// A client of which nobody may see the token.
    fn client(&self, actor: &Actor, explain: &str, program: &str) -> Step {
        Step::new(actor, explain, program).hides(&[&self.web.token])
    }

    fn repository(&self, transcript: &mut Transcript) -> Result<()> {
        let clone = self.directory.path().join("shop").display().to_string();
        transcript.play(
            self.step(
                "git clones, with no token anywhere in the job ...",
                "git",
                &["clone", &self.url("/git/shop.git"), &clone],
            )
            .shows(&["Cloning into"]),
        )?;
        transcript.play(
            self.step(
                "... and is told by which rule it may not push.",
                "git",
                &["-C", &clone, "push", "origin", "main"],
            )
            .fails()
            .shows(&["no-push", "main is merged by review"]),
        )
    }

    fn api(&self, transcript: &mut Transcript) -> Result<()> {
        let customers = self.url("/customers");
        let hidden: Vec<&str> = HIDDEN.iter().copied().chain([self.web.token.as_str()]).collect();
        transcript.play(
            self.step(
                "A token that the job made up goes nowhere: the gate sends its own. The JSON comes back masked.",
                "curl",
                &["-sS", "-H", "Authorization: Bearer made-up", &customers],
            )
            .shows(&["Ada", "************1111"])
            .hides(&hidden),
        )?;
        let ca = self.web.certificates.authority.display().to_string();
        transcript.play(
            self.client(self.stage.ungoverned(), "Without the gate there is no token.", "curl")
                .arguments(&["-sS", "--cacert", &ca, &customers])
                .shows(&["not signed in"]),
        )
    }

    /// The refused push, replayed, and all of it as developer tools read it.
    fn record(&self, transcript: &mut Transcript) -> Result<()> {
        let agent = self.stage.agent();
        let listed: Vec<Listed> = serde_json::from_str(&agent.ask(&["sessions", "list", "--json"])?)?;
        let of_forge: Vec<_> = listed.iter().filter(|session| session.resource == "forge").collect();
        let pushed = of_forge.iter().find(|session| session.refused > 0).context("no push is on record")?;
        transcript.play(
            Step::agent(agent, "Each request is on record.", &["sessions", "replay", &pushed.id])
                .shows(&["REFUSED by no-push", "service=git-receive-pack"])
                .hides(&[&self.web.token]),
        )?;
        let archive = self.directory.path().join("requests.har").display().to_string();
        let mut export = vec!["sessions", "export", "--format", "har", "--output", &archive];
        export.extend(of_forge.iter().map(|session| session.id.as_str()));
        transcript.play(Step::agent(agent, "All of them, for a browser's developer tools.", &export))?;
        transcript.play(Step::agent(agent, "The records are still whole.", &["records", "verify"]))
    }
}
