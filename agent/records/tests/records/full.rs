//! Where nothing can be written, nothing runs.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tidegate_gate::{Record, Records, policy::Effect};
use tidegate_records::Store;

use crate::common::*;

/// What README says: nothing is written for longer to a file that was removed.
const NOTICED: Duration = Duration::from_millis(50);

#[test]
fn without_its_directory_nothing_is_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let mut record = session(&store, 1);
    fs::remove_dir_all(directory.path().join("sessions")).unwrap();
    let removed = Instant::now();
    let mut write = |id| {
        let after = removed.elapsed();
        let written = record.write(&action(id, "SELECT 2", Effect::Allow));
        assert!(written.is_err() || after < NOTICED, "{after:?} after its file was removed it is written to");
        written.err()
    };
    let error = (2..).find_map(&mut write).unwrap();
    assert!(error.to_string().contains("removed"), "{error}");
    assert!(store.open(opening("ann", "shop")).is_err());
}

#[test]
fn a_removed_log_refuses_new_sessions_and_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    fs::remove_file(directory.path().join("log/leaves")).unwrap();
    let error = store.open(opening("ann", "shop")).map(drop).unwrap_err();
    assert!(error.to_string().contains("log of records was removed"), "{error}");
    assert!(records(directory.path()).is_empty());
}

/// Limits the length of files, as a full disk does: the last write before it is a partial one.
fn limit_files(bytes: u64) {
    let (_, most) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, bytes.min(most), most).unwrap();
}

fn write_until_refused(store: &Store) -> Box<dyn Record> {
    let mut record = store.open(opening("ann", "shop")).unwrap();
    for id in 1..1000 {
        record.note(&outcome(id, 1));
        if let Err(error) = record.write(&action(id, "SELECT 1", Effect::Allow)) {
            assert!(error.to_string().contains("File too large"), "{error}");
            assert!(
                record.write(&action(id, "SELECT 2", Effect::Allow)).is_err(),
                "a dead record took a line"
            );
            return record;
        }
    }
    panic!("nothing was refused");
}

/// The child of the test below.
#[test]
#[ignore = "started by a_full_disk_ends_records_with_a_whole_line_and_later_sessions_work"]
fn child_fills_its_disk() {
    let directory = std::env::var_os("RECORDS_TEST_DIRECTORY").expect("started by the test that limits it");
    let store = store(directory.as_ref());
    limit_files(3000);
    let closed_later = write_until_refused(&store);
    let closed_early = write_until_refused(&store);
    // Now its closing line does not fit either.
    limit_files(1);
    closed_early.close("client left early");
    limit_files(u64::MAX);
    session(&store, 2).close("done");
    closed_later.close("client left");
}

#[test]
fn a_full_disk_ends_records_with_a_whole_line_and_later_sessions_work() {
    let directory = tempfile::tempdir().unwrap();
    // The signal that would end a process at the limit is ignored; programs inherit that.
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --ignored --exact full::child_fills_its_disk"])
        .arg(std::env::current_exe().unwrap())
        .env("RECORDS_TEST_DIRECTORY", directory.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let report = assert_sound(directory.path());
    assert_eq!((report.sessions, report.leaves, report.open.len()), (3, 6, 0));
    for path in &records(directory.path())[..2] {
        let cut = fs::read_to_string(path).unwrap();
        assert!(cut.lines().last().unwrap().contains("could not be written: File too large"), "{cut}");
        assert_eq!(cut.matches("\"type\":\"close\"").count(), 1);
    }
}
