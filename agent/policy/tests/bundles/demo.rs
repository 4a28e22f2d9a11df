//! The bundles that come with the project, and the committed schema.

use std::path::Path;

#[test]
fn every_case_of_the_demo_passes() {
    let policy = crate::common::folder("policies/demo")
        .unwrap_or_else(|problems| panic!("{}", crate::common::told(&problems)));
    // Cases written as SQL are for a protocol that understands them: `tidegate test policies/demo`.
    const NOT_HERE: &str = "no protocol here understands it";
    let mut reports = policy.test(&|_, _| Err(NOT_HERE.to_owned()));
    reports.retain(|report| !report.failures.iter().any(|failure| failure.contains(NOT_HERE)));
    assert!(reports.len() >= 12, "only {} cases ran", reports.len());
    let failed: Vec<String> =
        reports.iter().filter(|report| !report.passed()).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_committed_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/bundle.schema.json");
    let expected = tidegate_policy::schema();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, format!("{expected:#}\n")).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let committed: serde_json::Value = serde_json::from_str(&committed).unwrap_or_default();
    assert!(committed == expected, "{} is stale: run this test with UPDATE_SCHEMA=1", path.display());
}
