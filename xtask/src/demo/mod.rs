//! The demo: unmodified clients of a governed account go through the gate. It checks what it shows.

mod approval;
mod forge;
mod jobs;
mod stage;
mod step;

use std::{env, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tidegate_tests::CLIENTS;

use crate::{
    build, setup,
    shell::{as_root, is_root, run as run_command, say},
};
use stage::Stage;
use step::{Step, Transcript};

const CUSTOMERS: &str = "SELECT name, email, card_number FROM customers ORDER BY id LIMIT 3";

/// What the masks hide.
const HIDDEN: &[&str] = &["4111111111111111", "5555555555554444", "378282246310005", "ada@example.com"];

const SESSION: &str = "DROP TABLE orders;
DELETE FROM orders;
UPDATE orders SET quantity = 3 WHERE true;
UPDATE orders SET quantity = 2 WHERE id = 1;
SELECT count(*) AS orders_still_there FROM orders;
";

/// The same for whom nothing refuses it, taken back.
const TAKEN_BACK: &str = "BEGIN;
DROP TABLE orders;
ROLLBACK;
BEGIN;
DELETE FROM orders;
ROLLBACK;
BEGIN;
UPDATE orders SET quantity = 3 WHERE true;
ROLLBACK;
SELECT count(*) AS orders_still_there FROM orders;
";

const PSYCOPG: &str = r#"import psycopg

with psycopg.connect("", autocommit=True) as connection:
    for prepare in (False, True):
        row = connection.execute(
            "SELECT name, card_number FROM customers WHERE id = %s", (1,), prepare=prepare
        ).fetchone()
        print("prepared:" if prepare else "plain:   ", row)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("DROP TABLE orders")
        print("dropped,  and rolled back")
    except psycopg.errors.InsufficientPrivilege as refusal:
        print("refused: ", refusal.diag.message_primary)
"#;

/// Sets everything up, then shows it as root.
pub(crate) fn run(binary: Option<PathBuf>) -> Result<()> {
    let binary = match binary {
        Some(binary) => binary,
        None => {
            setup::run()?;
            build::agent(false)?
        }
    };
    if is_root() {
        return show(binary);
    }
    say("the rest needs root");
    let own = env::current_exe().context("this program's own path")?;
    run_command(as_root(own, &[]).args(["demo", "--binary"]).arg(binary))
}

fn show(binary: PathBuf) -> Result<()> {
    let stage = Stage::set(binary)?;
    let mut transcript = Transcript::default();
    println!("\nEvery client below has this in its environment, and nothing else of Tidegate's:\n");
    let server = stage.server();
    println!("    PGHOST={} PGPORT={} PGDATABASE=shop PGUSER=app", server.ip(), server.port());
    governed(&stage, &mut transcript)?;
    ungoverned(&stage, &mut transcript)?;
    jobs::act(&stage, &mut transcript)?;
    approval::act(&stage, &mut transcript)?;
    records(&stage, &mut transcript)?;
    forge::act(&stage, &mut transcript)?;
    stage.end(transcript.printed())?;
    let (checked, wrong) = transcript.result();
    ensure!(wrong == 0, "{wrong} of {checked} expectations were not met: see the lines with NO above");
    println!(
        "\nAll {checked} expectations were met. Everything that was started is stopped, and its state removed."
    );
    Ok(())
}

/// What `ci-runner` sees.
fn governed(stage: &Stage, transcript: &mut Transcript) -> Result<()> {
    let step = |explain, program| Step::new(stage.governed(), explain, program);
    transcript.play(
        step("Its password is wrong, and it gets in. Cards and e-mails are masked.", "psql")
            .environment("PGPASSWORD", "wrong")
            .arguments(&["-X", "-c", CUSTOMERS])
            .shows(&["Ada Lindqvist", "1111"])
            .hides(HIDDEN),
    )?;
    transcript.play(
        step("It has no password at all (-w never asks). An alias and a sub-select don't unmask.", "psql")
            .arguments(&[
                "-X",
                "-w",
                "-c",
                "SELECT x.n AS harmless FROM (SELECT card_number AS n FROM customers) AS x",
            ])
            .shows(&["1111"])
            .hides(HIDDEN),
    )?;
    transcript.play(
        step("Refused statements are ordinary errors that name the rule, and the session goes on.", "psql")
            .arguments(&["-X", "-w"])
            .input(SESSION)
            .shows(&["no-drop", "where-required", "UPDATE 1", "orders_still_there", "10"])
            .hides(&["DROP TABLE\n", "DELETE 10", "UPDATE 10"]),
    )?;
    transcript.play(
        step("pg_dump reads what it may, masked.", "pg_dump")
            .arguments(&["-w", "--data-only", "--table=customers"])
            .shows(&["COPY public.customers", "Ada Lindqvist", "1111"])
            .hides(HIDDEN),
    )?;
    transcript.play(
        step(
            "A Python driver, plainly and with a prepared statement.",
            &format!("{CLIENTS}/python/bin/python"),
        )
        .arguments(&["-"])
        .input(PSYCOPG)
        .shows(&["plain:", "prepared:", "1111", "refused:", "no-drop"])
        .hides(HIDDEN),
    )
}

/// What an account that is not governed sees.
fn ungoverned(stage: &Stage, transcript: &mut Transcript) -> Result<()> {
    let step = |explain, program| Step::new(stage.ungoverned(), explain, program);
    let signed_in = |explain, program| step(explain, program).secret("PGPASSWORD", stage.password());
    transcript.play(
        step("An ungoverned account is untouched: the server itself refuses a wrong password...", "psql")
            .environment("PGPASSWORD", "wrong")
            .arguments(&["-X", "-c", CUSTOMERS])
            .fails()
            .shows(&["password authentication failed"]),
    )?;
    transcript.play(
        signed_in("... and with the real one it sees everything...", "psql")
            .arguments(&["-X", "-c", CUSTOMERS])
            .shows(HIDDEN),
    )?;
    transcript.play(
        signed_in("... does everything (and takes it back here)...", "psql")
            .arguments(&["-X"])
            .input(TAKEN_BACK)
            .shows(&["DROP TABLE", "DELETE 10", "UPDATE 10", "orders_still_there"])
            .hides(&["ERROR", "no-drop"]),
    )?;
    transcript.play(
        signed_in("... dumps everything...", "pg_dump")
            .arguments(&["--data-only", "--table=customers"])
            .shows(HIDDEN),
    )?;
    transcript.play(
        signed_in("... and so does its driver.", &format!("{CLIENTS}/python/bin/python"))
            .arguments(&["-"])
            .input(PSYCOPG)
            .shows(&["plain:", "prepared:", "4111111111111111", "dropped,"])
            .hides(&["refused:"]),
    )
}

/// What is known afterwards.
fn records(stage: &Stage, transcript: &mut Transcript) -> Result<()> {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
        refused: u64,
    }
    transcript.play(
        Step::agent(stage.agent(), "Every governed session is on record.", &["sessions", "list"])
            .shows(&["ci-runner", "shop"])
            .hides(&[stage.password()]),
    )?;
    let listed = stage.agent().ask(&["sessions", "list", "--json"])?;
    let sessions: Vec<Listed> = serde_json::from_str(&listed).context("sessions list --json")?;
    let session = sessions.iter().max_by_key(|session| session.refused).context("no session is listed")?;
    transcript.play(
        Step::agent(
            stage.agent(),
            "One of them, replayed: what it asked and what was decided.",
            &["sessions", "replay", &session.id],
        )
        .shows(&["DROP TABLE orders", "no-drop"])
        .hides(HIDDEN),
    )?;
    transcript.play(
        Step::agent(stage.agent(), "No record was changed, cut or removed.", &["records", "verify"])
            .hides(&[stage.password()]),
    )
}
