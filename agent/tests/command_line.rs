//! The built binary: what it prints and how it exits.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_usage_exits_with_2() {
    assert_eq!(code(&tidegate(&["nonsense"])), 2);
    assert_eq!(code(&tidegate(&["explain", "bundle", "--as", "ci", "--on", "shop", "--sql", "SELECT 1"])), 2);
}

#[test]
fn no_agent_to_reach_exits_with_3_and_names_the_socket() {
    let runtime = tempfile::tempdir().unwrap();
    for command in ["status", "reload", "stop"] {
        let output = tidegate(&[command, "--runtime", text(runtime.path())]);
        assert_eq!(code(&output), 3);
        assert!(complaint(&output).contains(text(&runtime.path().join("admin.sock"))));
    }
}

#[test]
fn every_bundle_that_comes_along_is_sound_on_any_machine() {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let bundles =
        fs::read_dir(policies).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let bundles: Vec<_> = bundles.collect();
    assert!(bundles.len() >= 3, "{bundles:?}");
    for bundle in bundles {
        let output = tidegate(&["check", text(&bundle)]);
        assert_eq!(code(&output), 0, "{}", complaint(&output));
    }
}

#[test]
fn what_is_explained_may_depend_on_digest_unit_and_container() {
    let bundle = tempfile::tempdir().unwrap();
    let (digest, rules) =
        ("ab".repeat(32), ["sha256: [DIGEST]", "units: [ci.service]", "containers: [c0ffee]"]);
    let rules: String = rules
        .iter()
        .enumerate()
        .map(|(number, rule)| {
            format!(
                "  - {{name: r{number}, subjects: [ci], resources: [shop], {}, allow: [{{statement: select, table: t{number}.a}}]}}\n",
                rule.replace("DIGEST", &digest)
            )
        })
        .collect();
    let head = "tidegate: 1\nname: x\nsubjects: {ci: {users: [ci]}}\nresources: {shop: {protocol: postgres, \
                addresses: [\"10.0.0.1:5432\"], tls: {mode: disable}, credential: shop}}\nrules:\n";
    fs::write(bundle.path().join("x.yaml"), format!("{head}{rules}")).unwrap();
    for (number, (flag, value)) in
        [("--sha256", &*digest.to_uppercase()), ("--unit", "ci.service"), ("--container", "c0ffee")]
            .into_iter()
            .enumerate()
    {
        let select = format!("SELECT 1 FROM t{number}.a");
        let asked = ["explain", text(bundle.path()), "--as", "subject=ci", "--on", "shop", "--do", &select];
        let effect = |more: &[&str]| {
            let output = tidegate(&[&asked[..], &["--json"], more].concat());
            assert_eq!(code(&output), 0, "{}", complaint(&output));
            let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            told["effect"].as_str().unwrap().to_owned()
        };
        assert_eq!((effect(&[]).as_str(), effect(&[flag, value]).as_str()), ("deny", "allow"), "{flag}");
    }
}

#[test]
fn every_case_of_the_demo_passes() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/demo");
    let output = tidegate(&["test", text(&demo), "--json"]);
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(code(&output), 0, "{told}{}", complaint(&output));
    let reports: Vec<serde_json::Value> = serde_json::from_str(&told).unwrap();
    let of_sql = reports.iter().filter(|report| report["name"].as_str().unwrap().starts_with("as SQL"));
    assert!(of_sql.count() >= 5, "{told}");
}

#[test]
fn every_case_of_the_http_bundle_passes() {
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/http");
    let output = tidegate(&["test", text(&bundle)]);
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(code(&output), 0, "{told}{}", complaint(&output));
    assert!(told.matches("\nok ").count() >= 18 && told.contains(" passed, 0 failed"), "{told}");
}

#[test]
fn a_bundle_without_cases_fails_its_test() {
    let bundle = tempfile::tempdir().unwrap();
    fs::write(bundle.path().join("shop.yaml"), "tidegate: 1\nname: shop\n").unwrap();
    assert_eq!(code(&tidegate(&["check", text(bundle.path())])), 0);
    let output = tidegate(&["test", text(bundle.path())]);
    assert_eq!(code(&output), 1);
    assert!(complaint(&output).contains("has no cases"), "{}", complaint(&output));
}

#[test]
fn an_authority_that_is_not_there_is_told_of_with_its_resource_s_place() {
    let bundle = tempfile::tempdir().unwrap();
    let file = bundle.path().join("shop.yaml");
    let resource =
        "  shop:\n    protocol: postgres\n    addresses: [\"10.1.2.3:5432\"]\n    credential: shop\n";
    let tls = "    tls: {mode: verify-full, ca: /nonexistent/ca.pem, server-name: db}\n";
    let rule = "  - {name: all, subjects: [ci], resources: [shop], allow: [{action: login}]}\n";
    let rest = format!("subjects: {{ci: {{users: [ci-runner]}}}}\nrules:\n{rule}");
    fs::write(&file, format!("tidegate: 1\nname: shop\nresources:\n{resource}{tls}{rest}")).unwrap();
    let output = tidegate(&["check", text(bundle.path())]);
    assert_eq!(code(&output), 1);
    let wanted = format!("{}:4:3: resource \"shop\"", file.display());
    assert!(complaint(&output).contains(&wanted), "{}", complaint(&output));
    assert!(complaint(&output).contains("/nonexistent/ca.pem"), "{}", complaint(&output));
}

#[test]
fn a_broken_bundle_exits_with_1_and_tells_where() {
    let bundle = tempfile::tempdir().unwrap();
    let file = bundle.path().join("shop.yaml");
    fs::write(&file, "tidegate: 1\nname: shop\nsubject: {}\n").unwrap();
    let output = tidegate(&["check", text(bundle.path())]);
    assert_eq!(code(&output), 1);
    let place = format!("{}:3:1: ", file.display());
    assert!(complaint(&output).contains(&place), "{}", complaint(&output));
}

#[test]
fn a_configuration_with_an_unknown_key_exits_with_1_and_tells_where() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    fs::write(&file, "bundle: /srv/bundle\nstat: /srv/state\n").unwrap();
    let output = tidegate(&["status", "--config", text(&file)]);
    assert_eq!(code(&output), 1);
    let place = format!("{}:2:1: ", file.display());
    assert!(complaint(&output).contains(&place), "{}", complaint(&output));
}

#[test]
fn sessions_of_no_store_are_an_error_not_an_empty_list() {
    let state = tempfile::tempdir().unwrap();
    let output = tidegate(&["sessions", "list", "--state", text(state.path())]);
    assert_eq!(code(&output), 1);
    assert!(complaint(&output).contains("no records there"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("schema")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), complaint(&output)), (0, String::new()));
}
