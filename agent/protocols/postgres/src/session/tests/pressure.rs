//! Sides that take or send more than the other can keep up with.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, time::timeout};

use super::stage::*;
use crate::database::READERS;

/// Kernel buffers of two loopback connections and the gate's own, with room to spare, in bytes.
const HELD: usize = 24 << 20;

/// The rig's user id.
const ACCOUNT: u32 = 0;

/// How long nothing more is taken before a side counts as full.
const STUCK: Duration = Duration::from_millis(500);

#[tokio::test]
async fn rows_that_the_client_does_not_read_are_not_taken_from_the_server() {
    let mut stage = Stage::open().await;
    stage.say(&query("select 1")).await;
    stage.server_gets(&query("select 1")).await;
    stage.answer(&described("one")).await;
    let rows = row(&"x".repeat(64 * 1024));
    let mut taken = 0;
    while timeout(STUCK, stage.server.write_all(&rows)).await.is_ok() {
        taken += rows.len();
        assert!(taken < HELD, "the session holds what nobody reads");
    }
    stage.client_gets(&described("one")).await;
}

#[tokio::test]
async fn copy_data_that_the_server_does_not_read_is_not_taken_from_the_client() {
    let mut stage = Stage::open().await;
    stage.say(&query("copy customers from stdin")).await;
    stage.server_gets(&query("copy customers from stdin")).await;
    stage.answer(&copies_in()).await;
    stage.client_gets(&copies_in()).await;
    let data = copy_data(&"x".repeat(64 * 1024));
    let mut taken = 0;
    while timeout(STUCK, stage.rig.client.write_all(&data)).await.is_ok() {
        taken += data.len();
        assert!(taken < HELD, "the session holds what nobody reads");
    }
    stage.server_gets(&data).await;
}

#[tokio::test]
async fn pipelined_statements_that_the_server_does_not_answer_are_not_taken_without_end() {
    let mut stage = Stage::open().await;
    let some = query("select 1").repeat(1000);
    let mut taken = 0;
    while timeout(STUCK, stage.rig.client.write_all(&some)).await.is_ok() {
        taken += some.len();
        assert!(taken < HELD, "the session takes statements without end");
    }
    assert!(stage.rig.memory.actions() < 6000, "{}", stage.rig.memory.actions());
}

/// A session whose server begins to send a row that is longer than can be masked.
async fn with_a_long_row(sent: &[u8]) -> Stage {
    let mut stage = Stage::open().await;
    stage.say(sent).await;
    stage.server_gets(sent).await;
    stage.answer(&described("card")).await;
    stage.client_gets(&described("card")).await;
    stage.answer(b"D\x04\0\0\0").await;
    assert_eq!(stage.cancelled().await, cancel_request(&(42, vec![1, 2, 3, 4])));
    stage.answer(&vec![0; (64 << 20) - 4]).await;
    stage
}

#[tokio::test]
async fn a_row_longer_than_can_be_masked_is_an_error_of_its_statement_and_is_not_held() {
    let mut stage = with_a_long_row(&query("select card from customers")).await;
    let late = [row("4111"), error("57014"), ready()].concat();
    stage.answer(&late).await;
    stage.client_gets_error("54000").await;
    stage.client_gets(&ready()).await;
    stage.still_works().await;
    let memory = stage.leaves().await;
    assert_eq!(outcomes(&memory), ["done", "failed", "done"]);
}

#[tokio::test]
async fn a_server_that_completes_what_was_to_be_cancelled_ends_the_session() {
    let mut stage = with_a_long_row(&query("select card from customers")).await;
    stage.answer(&[complete("SELECT 1"), ready()].concat()).await;
    stage.ends().await.with("54000");
}

#[tokio::test]
async fn a_row_of_any_length_passes_where_nothing_is_masked() {
    let mut stage = Stage::open().await;
    let long = "x".repeat(3 << 20);
    let answer = [rows("one", &[&long]), complete("SELECT 1"), ready()].concat();
    stage.say(&query("select 1")).await;
    stage.server_gets(&query("select 1")).await;
    let Stage { rig, server, .. } = &mut stage;
    let mut shown = vec![0; answer.len()];
    let reading = tokio::io::AsyncReadExt::read_exact(&mut rig.client, &mut shown);
    let (sent, read) = within(async { tokio::join!(server.write_all(&answer), reading) }).await;
    sent.unwrap();
    read.unwrap();
    assert!(shown == answer, "the row was changed");
}

#[tokio::test]
async fn a_long_text_that_is_being_read_holds_up_no_other_session() {
    let (mut long, mut other) = (Stage::open().await, Stage::open().await);
    // None of this account's long texts is read now.
    let turn = READERS.of(ACCOUNT).await;
    let asked = query(&format!("select {}", ["1111"; 1600].join(", ")));
    long.say(&asked).await;
    other.still_works().await;
    let error = long.server.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(turn);
    long.server_gets(&asked).await;
}

#[tokio::test]
async fn a_short_text_that_takes_many_steps_holds_up_no_other_session() {
    let (mut tangled, mut other) = (Stage::open().await, Stage::open().await);
    let turn = READERS.of(ACCOUNT).await;
    let doubling: Vec<_> =
        (0..10).map(|n| format!("c{} as (select x.*, y.* from c{n} x, c{n} y)", n + 1)).collect();
    let many: Vec<_> = (0..200).map(|n| format!("c10 x{n}")).collect();
    let text =
        format!("with c0 as (select 1 as a), {} select 1 from {}", doubling.join(", "), many.join(", "));
    assert!(text.len() < 4096, "{}", text.len());
    tangled.say(&query(&text)).await;
    other.still_works().await;
    let error = tangled.server.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(turn);
    tangled.server_gets(&query(&text)).await;
}

#[tokio::test]
async fn pipelined_statements_of_wide_results_are_taken_only_as_far_as_they_weigh_little() {
    let mut stage = Stage::open().await;
    let stars = ["*"; 400].join(", ");
    for index in 0..300 {
        let wide = query(&format!("select {stars}, 1 as a{index} from customers"));
        stage.say(&wide).await;
    }
    let mut asked = 0;
    while asked < stage.rig.memory.actions() {
        asked = stage.rig.memory.actions();
        tokio::time::sleep(STUCK).await;
    }
    assert!((1..150).contains(&asked), "{asked} were asked for while none was answered");
}
