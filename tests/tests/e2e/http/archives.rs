//! Records as HTTP archives, read by a program that knows nothing of the gate.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use tidegate_tests::{CLIENTS, run};

use super::stage::Stage;

/// Prints what a reader of archives makes of one.
const READER: &str = "\
import sys
from haralyzer import HarParser

for page in HarParser.from_file(sys.argv[1]).pages:
    for entry in page.entries:
        answer = entry.response
        shown = answer.raw_entry['content'].get('text')
        print(entry.request.method, entry.request.httpVersion, answer.status, answer.bodySize, shown)
";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn an_archive_of_what_was_asked_is_read_by_others() -> Result<()> {
    Stage::with(|stage| {
        let script = "curl -sS --http2 --cacert $CA $URL/customers $URL/compressed\n\
                      curl -sS --http1.1 --cacert $CA -X DELETE $URL/things";
        stage.script(script)?.clean()?;
        let sessions = stage.sessions(&["web"])?;
        ensure!(sessions.len() == 2, "{sessions:?}");
        let archive = stage.directory.path().join("requests.har");
        let mut export = stage.agent.command(&["sessions", "export", "--format", "har"]);
        run(export.arg("--output").arg(&archive).args(&sessions))?;
        let written = fs::read_to_string(&archive)?;
        ensure!(!written.contains("4111111111111111") && !written.contains("ada@example.com"), "{written}");
        let reader = stage.directory.path().join("read.py");
        fs::write(&reader, READER)?;
        let read = run(Command::new(format!("{CLIENTS}/python/bin/python")).arg(reader).arg(&archive))?;
        let read = String::from_utf8(read.stdout)?;
        let lines: Vec<&str> = read.lines().collect();
        let [first, second, refused] = &*lines else { anyhow::bail!("not three entries: {read}") };
        for shown in [first, second] {
            ensure!(shown.starts_with("GET HTTP/2 200 ") && shown.contains("************1111"), "{read}");
        }
        ensure!(refused.starts_with("DELETE HTTP/1.1 0 "), "{read}");
        Ok(())
    })
}
