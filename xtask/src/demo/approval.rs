//! The second act's end: a statement waits inside an unmodified client until somebody else says yes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::{
    stage::Stage,
    step::{Actor, Step, Transcript},
};

const DELETE: &str = "DELETE FROM orders WHERE id = 1";
/// How long until the statement waits.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
struct Question {
    id: String,
    state: String,
}

/// Holds a statement of the governed account, and has somebody approve it.
pub(crate) fn act(stage: &Stage, transcript: &mut Transcript) -> Result<()> {
    let waits = transcript.begin(
        Step::new(
            stage.governed(),
            "A rule wants a person for this. It waits, in an ordinary psql ...",
            "psql",
        )
        .arguments(&["-X", "-w", "-c", DELETE, "-c", "SELECT count(*) AS orders_left FROM orders"])
        .shows(&["NOTICE", "waits for approval", "DELETE 1", "9"]),
    )?;
    let id = question(stage)?;
    let approvals = |actor: &Actor, explain: &str, arguments: &[&str]| {
        let runtime = stage.agent().runtime().display().to_string();
        Step::new(actor, explain, &stage.agent().binary().display().to_string())
            .arguments(&["approvals"])
            .arguments(arguments)
            .arguments(&["--runtime", &runtime])
    };
    transcript.play(
        approvals(stage.approver(), "... and another account sees exactly what will run.", &["show", &id])
            .shows(&[DELETE, "ci-runner", "delete-needs-a-person"]),
    )?;
    transcript.play(
        approvals(stage.governed(), "Whoever asks can't answer.", &["approve", &id, "--reason", "it's fine"])
            .fails()
            .shows(&["you asked"]),
    )?;
    transcript.play(
        approvals(stage.approver(), "Somebody else can.", &["approve", &id, "--reason", "ticket 4711"])
            .shows(&["is approved"]),
    )?;
    println!("\n# The psql from above has gone on, in the same connection.\n");
    transcript.finish(waits)
}

/// The id of the question that waits, once it does.
fn question(stage: &Stage) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = stage.agent().ask(&["approvals", "list", "--json"])?;
        let questions: Vec<Question> = serde_json::from_str(&listed)?;
        if let Some(waits) = questions.into_iter().find(|question| question.state == "waiting") {
            return Ok(waits.id);
        }
        ensure!(Instant::now() < deadline, "the statement did not wait for anybody");
    }
}
