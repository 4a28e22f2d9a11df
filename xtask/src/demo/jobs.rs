//! The second act: a rule asks who is asking, and a job of GitHub's shape is known by its own ID token.

use anyhow::{Result, ensure};
use serde_json::json;
use tidegate_tests::Provider;

use super::{
    stage::{Stage, bundle},
    step::{Step, Transcript},
};

const SIGN_IN: &str = "  - name: sign-in\n    subjects: [ci]\n    resources: [shop]\n";
const WHO: &str = "    who: {issuer: github, claims: {repository: acme/shop, ref: refs/heads/main}}\n";
const QUERY: &[&str] = &["-X", "-w", "-c", "SELECT count(*) AS orders FROM orders"];

/// Asks for jobs of one branch, and takes that back afterwards.
pub(crate) fn act(stage: &Stage, transcript: &mut Transcript) -> Result<()> {
    let job = |git_ref: &str| json!({"repository": "acme/shop", "repository_owner": "acme", "ref": git_ref, "actor": "ada"});
    let jobs = json!({"of-main": job("refs/heads/main"), "of-a-branch": job("refs/heads/feature")});
    let github = Provider::github(&jobs)?;
    ask_for_main(stage, &github)?;
    let url = format!("{}/idtoken?api-version=2.0", github.url);
    let step = |explain, token: Option<&str>| {
        let step = Step::new(stage.governed(), explain, "psql");
        let step = match token {
            Some(token) => step
                .environment("ACTIONS_ID_TOKEN_REQUEST_URL", &url)
                .secret("ACTIONS_ID_TOKEN_REQUEST_TOKEN", token),
            None => step,
        };
        step.arguments(QUERY)
    };
    println!("\nThe rule that lets the account sign in now asks an issuer, too:\n\n{SIGN_IN}{WHO}    ...");
    transcript.play(
        step("Without a token the same account is refused, and told what is missing.", None)
            .fails()
            .shows(&["without an ID token of issuer \"github\"", "id-token: write"]),
    )?;
    transcript.play(
        step("A job has this in its environment. The agent asks for its ID token itself.", Some("of-main"))
            .shows(&["10"]),
    )?;
    transcript.play(
        step("A job of another branch is known, and refused as what it is.", Some("of-a-branch"))
            .fails()
            .shows(&["repo:acme/shop:ref:refs/heads/feature", "another `ref`"]),
    )?;
    // The issuer ends with this act.
    stage.agent().write_bundle("issuers.yaml", "tidegate: 1\n")?;
    for (name, text) in bundle()? {
        stage.agent().write_bundle(&name, &text)?;
    }
    stage.agent().ask(&["reload"]).map(drop)
}

fn ask_for_main(stage: &Stage, github: &Provider) -> Result<()> {
    let issuer = format!(
        "tidegate: 1\nissuers:\n  github:\n    url: {}\n    audience: tidegate\n    ca: {}\n    \
         require: {{repository_owner: acme}}\n    tokens: [{{github-actions: {{hosts: [\"{}\"]}}}}]\n",
        github.url,
        github.ca().display(),
        github.host(),
    );
    stage.agent().write_bundle("issuers.yaml", &issuer)?;
    let mut asks = false;
    for (name, text) in bundle()? {
        asks |= text.contains(SIGN_IN);
        stage.agent().write_bundle(&name, &text.replace(SIGN_IN, &format!("{SIGN_IN}{WHO}")))?;
    }
    ensure!(asks, "the demo's bundle has no rule `sign-in` of this form:\n{SIGN_IN}");
    stage.agent().ask(&["reload"]).map(drop)
}
