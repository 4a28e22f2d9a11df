//! Jobs of CIs that put tokens into their jobs, or have them ask for some: what they say of themselves, and for which step.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_tests::{Provider, World};

use crate::{
    identity::{HERE, Shell, ask_for, got_in, is_nowhere, tidegate},
    together::eventually,
};

const AUDIENCE: &str = "tidegate";

/// An issuer of this name, with these lines of its own.
fn issuer(provider: &Provider, name: &str, lines: &str) -> String {
    format!(
        "  {name}:\n    url: {}\n    audience: {AUDIENCE}\n    ca: {}\n{lines}",
        provider.url,
        provider.ca().display(),
    )
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_gitlab_job_is_known_by_its_variable_as_the_project_ref_and_environment_that_it_is() -> Result<()> {
    World::with(|world| {
        let provider = Provider::ci()?;
        let lines = "    keep: [user_login, pipeline_id]\n    tokens: [{variable: TIDEGATE_TOKEN, siblings: true}, present]\n";
        let who = "{issuer: gitlab, claims: {project_path: acme/shop, ref: main, ref_type: branch, ref_protected: \"true\", \
                   environment: \"prod*\"}}";
        ask_for(world, who, &issuer(&provider, "gitlab", lines))?;
        let run = |token: &str| world.ci.shell(HERE, &[("TIDEGATE_TOKEN", token)]);
        let token = provider.ci_token("gitlab", AUDIENCE, &json!({}))?;
        // `script`, and then `after_script` in a shell of its own.
        got_in(run(&token)?)?;
        got_in(run(&token)?)?;
        let listed: Vec<Value> = serde_json::from_str(&world.agent.ask(&["sessions", "list", "--json"])?)?;
        let id = listed.first().and_then(|session| session["id"].as_str()).context("a session")?;
        let shown = world.agent.ask(&["sessions", "show", id])?;
        for part in [
            "gitlab says: project_path:acme/shop:ref_type:branch:ref:main",
            "user_login: alice",
            "pipeline_id: 574",
            "environment: production",
        ] {
            ensure!(shown.contains(part), "no {part:?} in:\n{shown}");
        }
        for (claims, named) in [
            (json!({"ref": "feature", "ref_path": "refs/heads/feature"}), "another `ref`"),
            (json!({"ref_type": "tag", "ref_path": "refs/tags/main"}), "another `ref_type`"),
            (json!({"project_path": "mallory/shop"}), "another `project_path`"),
            (json!({"ref_protected": "false"}), "another `ref_protected`"),
            (json!({"environment": null}), "`environment`"),
        ] {
            run(&provider.ci_token("gitlab", AUDIENCE, &claims)?)?.complains(&[named])?;
        }
        run(&provider.ci_token("gitlab", "https://vault.example.com", &json!({}))?)?
            .complains(&["it is for another audience than \"tidegate\""])?;
        is_nowhere(world, &token)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_buildkite_step_is_known_by_what_it_presents_or_has_in_a_variable_and_is_no_other_step() -> Result<()> {
    World::with(|world| {
        let (provider, folder) = (Provider::ci()?, tempfile::tempdir()?);
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let file = folder.path().join("token");
        let lines = "    step: job_id\n    tokens: [{variable: STEP_TOKEN}, present]\n";
        let who = "{issuer: buildkite, claims: {pipeline_slug: shop, build_branch: main, step_key: deploy}}";
        ask_for(world, who, &issuer(&provider, "buildkite", lines))?;
        let token = |step: &str, job: &str| {
            provider.ci_token("buildkite", AUDIENCE, &json!({"step_key": step, "job_id": job}))
        };
        let present =
            |token: &str| format!("printf %s {token} | {}", tidegate(world, "present --token-file -"));

        let first = token("deploy", "job-1")?;
        let mut deploy = Shell::open(&world.ci)?;
        let said = deploy.run(&present(&first))?;
        ensure!(said.contains("buildkite says: \"organization:acme:pipeline:shop:"), "{said}");
        ensure!(deploy.run(HERE)?.trim() == "here", "the step is not known");
        // Another step of the same account has got hold of a token of it that nobody has used.
        let mut test = Shell::open(&world.ci)?;
        let said = test.run(&present(&token("deploy", "job-1")?))?;
        ensure!(said.contains("one of the same step, was presented first by another process tree"), "{said}");
        let said = test.run(&present(&token("test", "job-2")?))?;
        ensure!(said.contains("buildkite says"), "{said}");
        ensure!(test.run(HERE)?.contains("another `step_key`"), "test deploys");
        // A tree that is one step is no other one.
        let said = test.run(&present(&token("deploy", "job-3")?))?;
        ensure!(said.contains("somebody else"), "{said}");
        drop(deploy);
        let mut later = Shell::open(&world.ci)?;
        eventually("the step's end is seen", || {
            Ok(later.run(&present(&token("deploy", "job-1")?))?.contains("by a process tree that has ended"))
        })?;

        got_in(world.ci.shell(HERE, &[("STEP_TOKEN", &token("deploy", "job-4")?)])?)?;
        world
            .ci
            .shell(HERE, &[("STEP_TOKEN", &token("deploy", "job-4")?)])?
            .complains(&["one of the same step"])?;
        fs::write(&file, token("deploy", "job-5")?)?;
        chown(&file, Some(world.ci.uid), None)?;
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
        // As the guide has it: the step runs what needs the database by `present`.
        let by_file = tidegate(world, &format!("present --token-file {}", file.display()));
        ensure!(
            world.ci.shell(&format!("{by_file} -- {HERE}"), &[])?.clean()? == "here",
            "the step is not known by its file"
        );
        is_nowhere(world, &first)
    })
}
