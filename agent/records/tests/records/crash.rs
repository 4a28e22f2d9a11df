//! An agent that dies leaves records that the next one seals.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use tidegate_gate::policy::Effect;
use tidegate_records::{Filter, Sessions};

use crate::common::*;

const DIRECTORY: &str = "RECORDS_TEST_DIRECTORY";

/// The child of the test below: writes until it is killed.
#[test]
#[ignore = "started by a_killed_agents_records_are_sealed_and_sound"]
fn child_writes_until_killed() {
    let directory = std::env::var_os(DIRECTORY).expect("started by the test that kills it");
    let store = store(Path::new(&directory));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0.. {
                    let kept_open = session(&store, 20);
                    session(&store, 5).close("done");
                    drop(kept_open);
                    if round == 10 {
                        println!("\nunder way");
                    }
                }
            });
        }
    });
}

#[test]
fn a_killed_agents_records_are_sealed_and_sound() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "crash::child_writes_until_killed", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let under_way = lines.map_while(Result::ok).any(|line| line == "under way");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(under_way);

    drop(store(directory.path()));
    let report = assert_sound(directory.path());
    assert!(report.open.is_empty() && report.unsigned_leaves == 0, "{report}");
    let sessions = Sessions::open(directory.path()).unwrap().list(&Filter::default()).unwrap();
    assert_eq!(sessions.len() as u64, report.sessions);
    let sealed =
        sessions.iter().filter(|session| session.reason.as_deref().is_some_and(|r| r.starts_with(SEALED)));
    assert!(sealed.count() > 0);
}

const SEALED: &str = "the agent stopped without closing this record";

/// What is on disk while a session of one statement is open, as a crash would leave it.
fn interrupted() -> tempfile::TempDir {
    let (running, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(running.path());
    let mut record = session(&store, 0);
    record.write(&action(1, "SELECT 1", Effect::Allow)).unwrap();
    copy(running.path(), left.path());
    left
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn an_unfinished_last_line_is_cut_off_and_its_length_noted() {
    let left = interrupted();
    let path = records(left.path())[0].clone();
    append(&path, "{\"seq\":3,\"ti");
    drop(store(left.path()));
    assert_sound(left.path());
    let text = fs::read_to_string(path).unwrap();
    assert!(
        text.lines().last().unwrap().contains("12 bytes of an unfinished last line were cut off"),
        "{text}"
    );
}

#[test]
fn a_record_whose_closing_line_came_just_before_the_crash_is_not_closed_twice() {
    let left = interrupted();
    drop(store(left.path()));
    // Takes back the closed leaf and what was signed over it: as if the crash had come between line and leaf.
    let leaves = left.path().join("log/leaves");
    let first = fs::read_to_string(&leaves).unwrap().lines().next().unwrap().to_owned();
    fs::write(&leaves, format!("{first}\n")).unwrap();
    fs::copy(interrupted_checkpoint(left.path()), left.path().join("log/checkpoint")).unwrap();
    drop(store(left.path()));
    assert_sound(left.path());
    assert_eq!(fs::read_to_string(&records(left.path())[0]).unwrap().matches(SEALED).count(), 1);
}

/// A checkpoint of no leaves, signed by the store's key.
fn interrupted_checkpoint(root: &Path) -> std::path::PathBuf {
    let empty = root.join("empty");
    fs::create_dir_all(empty.join("log")).unwrap();
    fs::copy(root.join("log/key"), empty.join("log/key")).unwrap();
    drop(store(&empty));
    empty.join("log/checkpoint")
}

#[test]
fn a_record_that_was_being_opened_is_adopted_and_half_of_one_is_removed() {
    let left = interrupted();
    let record = records(left.path())[0].clone();
    let id = record.file_stem().unwrap().to_str().unwrap();
    // Ids of the same day that no leaf knows: with another last digit.
    let twin = |step: u32| {
        let last = u32::from_str_radix(&id[35..], 16).unwrap();
        record.with_file_name(format!("{}{:x}.jsonl", &id[..35], (last + step) % 16))
    };
    fs::write(twin(1), "{\"seq\":1,").unwrap();
    let first = fs::read_to_string(&record).unwrap().lines().next().unwrap().to_owned();
    fs::write(twin(2), format!("{first}\n")).unwrap();
    drop(store(left.path()));
    assert!(!twin(1).exists());
    // It was copied from another session, so its chain begins wrongly; but the log knows it.
    let report = check(left.path());
    assert_eq!((report.sessions, report.leaves, report.open.len()), (2, 4, 0));
}

#[test]
fn an_unfinished_last_leaf_is_cut_off() {
    let left = interrupted();
    append(&left.path().join("log/leaves"), "{\"index\":1,\"le");
    drop(store(left.path()));
    assert_eq!(assert_sound(left.path()).leaves, 2);
}
