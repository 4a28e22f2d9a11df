//! Servers that replay what another one does.

use super::stage::*;

const READ: &str = "select card from customers";

fn reports(standby: &str) -> Vec<u8> {
    message(b'S', format!("in_hot_standby\0{standby}\0").as_bytes())
}

/// A session on a standby under this bundle.
async fn on_standby(bundle: &str) -> Stage {
    let (rig, listener) = Stage::arrive(bundle).await;
    Stage::sign_in_to(
        rig,
        listener,
        &[greeting()[..9].to_vec(), reports("on"), greeting()[9..].to_vec()].concat(),
    )
    .await
}

/// A masked query and its answer.
async fn reads(stage: &mut Stage) {
    stage.say(&query(READ)).await;
    stage.server_gets(&query(READ)).await;
    stage.answer(&[rows("card", &["4111111111111111"]), complete("SELECT 1"), ready()].concat()).await;
    stage.client_gets(&[rows("card", &["************1111"]), complete("SELECT 1"), ready()].concat()).await;
}

#[tokio::test]
async fn its_catalog_is_asked_for_each_statement_where_columns_are_masked() {
    let mut stage = on_standby(BUNDLE).await;
    for times in 1..4 {
        reads(&mut stage).await;
        assert_eq!(stage.asked(), times);
    }
    stage.say(&[parse("s", READ), sync()].concat()).await;
    stage.server_gets(&[parse("s", READ), sync()].concat()).await;
    stage.answer(&[acknowledged(b'1'), ready()].concat()).await;
    stage.client_gets(&[acknowledged(b'1'), ready()].concat()).await;
    assert_eq!(stage.asked(), 4);
    // The server plans it anew.
    stage.say(&bind("", "s")).await;
    stage.server_gets(&bind("", "s")).await;
    assert_eq!(stage.asked(), 5);
}

#[tokio::test]
async fn its_catalog_is_remembered_where_no_column_is() {
    let mut stage =
        on_standby(&BUNDLE.replace("columns: [\"public.customers.card\"]", "content: [card]")).await;
    for _ in 0..3 {
        reads(&mut stage).await;
        assert_eq!(stage.asked(), 1);
    }
}

#[tokio::test]
async fn a_standby_that_is_promoted_is_a_server_like_any_other() {
    let mut stage = on_standby(BUNDLE).await;
    reads(&mut stage).await;
    stage.answer(&reports("off")).await;
    stage.client_gets(&reports("off")).await;
    reads(&mut stage).await;
    assert_eq!(stage.asked(), 2);
    reads(&mut stage).await;
    assert_eq!(stage.asked(), 2);
}
