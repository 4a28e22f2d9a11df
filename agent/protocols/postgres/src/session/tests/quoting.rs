//! Errors that quote rows which the statement doesn't name.

use super::stage::*;
use crate::wire::{ErrorFields, fields::code, write};

const CARD: &str = "4111111111111111";

/// What is told of an error of a statement that names no table.
async fn told(sqlstate: &str, table: Option<&str>) -> String {
    let mut stage = Stage::open().await;
    stage.say(&query("select 1")).await;
    stage.server_gets(&query("select 1")).await;
    let mut fields = ErrorFields::new("ERROR", sqlstate, "a constraint is violated").into_owned();
    fields = fields.with(code::DETAIL, format!("Failing row contains (1, null, {CARD})."));
    if let Some(table) = table {
        fields = fields.with(code::SCHEMA, "public".to_owned()).with(code::TABLE, table.to_owned());
    }
    stage.answer(&[said(|out| write::error_response(out, &fields)), ready()].concat()).await;
    let heard = read_until_ready(&mut stage.rig.client).await;
    stage.leaves().await;
    String::from_utf8_lossy(&heard[0].1).into_owned()
}

#[tokio::test]
async fn a_rule_of_the_database_that_writes_a_masked_table_shows_nothing_of_its_rows() {
    for (sqlstate, table) in [("23502", Some("customers")), ("23514", None), ("44000", None)] {
        let told = told(sqlstate, table).await;
        assert!(told.contains("withheld") && !told.contains(CARD), "{told}");
    }
}

#[tokio::test]
async fn errors_about_rows_that_nothing_masks_are_told() {
    for (sqlstate, table) in [("23502", Some("orders")), ("22012", None)] {
        let told = told(sqlstate, table).await;
        assert!(told.contains("a constraint is violated") && told.contains(CARD), "{told}");
    }
}
