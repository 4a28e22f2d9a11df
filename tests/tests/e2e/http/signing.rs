//! A cloud's own client, whose every request the gate signs anew.

use std::fs;

use anyhow::{Result, ensure};
use tidegate_tests::{Account, CLIENTS, ungoverned_uid};

use super::stage::Stage;

const CLIENT: &str = include_str!("../../../clients/boto.py");

fn ask(stage: &Stage, what: &str) -> Result<String> {
    fs::write(stage.directory.path().join("boto.py"), CLIENT)?;
    stage.script(&format!("{CLIENTS}/python/bin/python $DIR/boto.py {what}"))?.clean()
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn boto3_keeps_objects_with_a_key_that_it_does_not_have() -> Result<()> {
    Stage::with(|stage| {
        let _store = stage.web.store()?;
        let shown = ask(stage, "objects")?;
        ensure!(shown == "same\nsame\nsame\n['a b+c/large', 'a b+c/é=1:2~.txt']\nempty", "{shown}");
        let asked = stage.web.asked()?;
        ensure!(!asked.contains("refused"), "{asked}");
        // As the client sent it: in chunks with a checksum, with a digest of its own, and unsigned.
        for how in ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAIL 300000", "UNSIGNED-PAYLOAD 300000"] {
            ensure!(asked.contains(&format!("s3 {how}")), "{how}: {asked}");
        }
        let records = stage.records()?;
        ensure!(records.contains("PUT https://127.0.0.1") && !records.contains("AKIACLIENT"), "{records}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_signed_request_is_still_only_what_the_rules_allow() -> Result<()> {
    Stage::with(|stage| {
        let _store = stage.web.store()?;
        let shown = ask(stage, "refused")?;
        let expected = "DeleteObject 403\nListBuckets 403\npresigned 400\nScan 403\nGetItem {'id': {'S': '7'}}\nGetItem 403";
        ensure!(shown == expected, "{shown}");
        let asked = stage.web.asked()?;
        ensure!(asked.lines().count() == 1, "{asked}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn the_store_takes_nobody_s_own_key() -> Result<()> {
    Stage::with(|stage| {
        let _store = stage.web.store()?;
        let stranger = Account::new(ungoverned_uid(), ([127, 0, 0, 1], stage.web.store_port).into(), "none");
        fs::write(stage.directory.path().join("boto.py"), CLIENT)?;
        let ca = stage.web.certificates.authority.display().to_string();
        let store = format!("https://127.0.0.1:{}", stage.web.store_port);
        let script =
            format!("{CLIENTS}/python/bin/python {}/boto.py stranger", stage.directory.path().display());
        let ran = stranger.shell(&script, &[("CA", &ca), ("STORE", &store), ("TABLE", &store)])?;
        ensure!(ran.clean()? == "PutObject 403", "without the gate's key nobody gets in");
        Ok(())
    })
}
