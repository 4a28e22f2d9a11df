//! Requests that wait for people.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{Account, ungoverned_uid};

use super::stage::Stage;

const TWO_MUST_AGREE: &str = r#"tidegate: 1
resources:
  patient:
    protocol: http
    addresses: ["127.0.0.5:${port}"]
    tls: {mode: disable}
    credential: web
    options: {wait: 0}
rules:
  - {name: read-patiently, subjects: [ci], resources: [patient], allow: [{path: "/files/**"}]}
  - name: two-first
    subjects: [ci]
    resources: [patient]
    hold: [{path: /files/held.txt}]
    approve: {by: {users: [root, "${second}"], approvers: 2}, grant: 10m, sessions: any}
"#;

/// What `tidegate approvals` says to another approver than root, if it is done.
fn second_says(stage: &Stage, second: &Account, arguments: &[&str]) -> Result<String> {
    let mut command = second.command(stage.agent.binary());
    command.arg("approvals").args(arguments).arg("--runtime").arg(stage.agent.runtime());
    let output = second.output(&mut command)?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{said}");
    Ok(said)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_held_request_goes_on_when_somebody_agrees() -> Result<()> {
    Stage::with(|stage| {
        fs::write(stage.web.file("held.txt"), "held\n")?;
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| stage.script("curl -sS $PLAIN/files/held.txt"));
            let id = loop {
                let open: serde_json::Value = serde_json::from_str(&stage.approvals(&["list", "--json"])?)?;
                if let Some(id) = open.pointer("/0/id").and_then(serde_json::Value::as_str) {
                    break id.to_owned();
                }
                ensure!(!asking.is_finished(), "nobody was asked: {:?}", asking.join());
            };
            let shown = stage.approvals(&["show", &id])?;
            ensure!(shown.contains("GET http://127.0.0.1") && shown.contains("/files/held.txt"), "{shown}");
            stage.approvals(&["approve", &id])?;
            let ran = asking.join().ok().context("the client's thread")??;
            ensure!(ran.clean()? == "held", "another file");
            Ok(())
        })
    })
}

/// Whoever agreed to what one program asks has not agreed to what another one asks, though it is the same request.
#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_yes_of_one_of_two_is_over_when_another_program_asks_the_same() -> Result<()> {
    Stage::with(|stage| {
        fs::write(stage.web.file("held.txt"), "held\n")?;
        let second = ungoverned_uid();
        let second =
            Account::new(second, ([127, 0, 0, 1], 1).into(), "none").transcribed(stage.agent.transcript());
        let bundle = TWO_MUST_AGREE.replace("${port}", &stage.web.plain_port.to_string());
        stage.agent.write_bundle("two.yaml", &bundle.replace("${second}", &second.uid.to_string()))?;
        stage.agent.ask(&["reload"])?;
        let runtime = stage.agent.runtime();
        for directory in [runtime.as_path(), runtime.parent().context("the agent's directory")?] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o711))?;
        }
        stage.script("cp $(command -v curl) $DIR/other")?.clean()?;
        let url = format!("http://127.0.0.5:{}/files/held.txt", stage.web.plain_port);
        let ask = |program: &str| stage.script(&format!("{program} -sS {url}"))?.clean();

        let told = ask("curl")?;
        let told: serde_json::Value = serde_json::from_str(&told).with_context(|| told.clone())?;
        let id = told["approval"].as_str().context("an id")?.to_owned();
        let said = stage.approvals(&["approve", &id])?;
        ensure!(said.contains("is waiting"), "{said}");
        // The same bytes from the same account, and the same question.
        ensure!(ask("$DIR/other")?.contains(&id), "another question");
        let said = second_says(stage, &second, &["approve", &id])?;
        ensure!(said.contains("is waiting"), "one saw the one program, the other the other: {said}");
        ensure!(ask("$DIR/other")?.contains(&id), "it ran");
        let shown = stage.approvals(&["show", &id])?;
        ensure!(shown.contains("must look and agree anew") && shown.contains("/other"), "{shown}");
        let said = stage.approvals(&["approve", &id])?;
        ensure!(said.contains("is approved"), "{said}");
        ensure!(ask("$DIR/other")? == "held", "both agreed");
        ensure!(stage.web.asked()?.lines().count() == 1, "{}", stage.web.asked()?);
        Ok(())
    })
}
