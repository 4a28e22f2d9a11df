//! The bundles that come with the project, and the committed schema.

use std::{cell::Cell, path::Path};

/// No protocol is at hand here to understand SQL. The agent's tests run those cases too, with `tidegate test`.
#[test]
fn every_case_of_the_demo_that_is_not_sql_passes() {
    const NOT_HERE: &str = "no protocol here understands SQL";
    let policy = crate::common::folder("policies/demo")
        .unwrap_or_else(|problems| panic!("{}", crate::common::told(&problems)));
    let texts = Cell::new(0);
    let reports = policy.test(&|_, _| {
        texts.set(texts.get() + 1);
        Err(NOT_HERE.into())
    });
    let others = reports.len() - texts.get();
    assert!(others >= 12, "only {others} cases ran");
    let of_sql = |failure: &String| failure.ends_with(NOT_HERE);
    let failed: Vec<String> = reports
        .iter()
        .filter(|report| !report.passed() && !report.failures.iter().all(of_sql))
        .map(ToString::to_string)
        .collect();
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
