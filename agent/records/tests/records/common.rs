//! What the tests of the store share.

use std::{
    borrow::Cow,
    fs, io,
    path::{Path, PathBuf},
};

use tidegate_gate::{
    Entry, Record, Records,
    policy::{Effect, Principal, Process},
};
use tidegate_records::{Expected, Report, Settings, Store, SyncMode, verify};

pub(crate) fn settings(directory: &Path) -> Settings {
    Settings { directory: directory.to_owned(), sync: SyncMode::Never, origin: "tidegate.test/host".into() }
}

pub(crate) fn store(directory: &Path) -> Store {
    Store::open(settings(directory)).unwrap()
}

pub(crate) fn opening(user: &str, resource: &str) -> Entry<'static> {
    let process = Process {
        pid: 4711,
        uid: 1000,
        user: Some(user.into()),
        command: "psql".into(),
        executable: Some("/usr/bin/psql".into()),
        ..Process::default()
    };
    Entry::Open {
        principal: Cow::Owned(Principal {
            subjects: vec!["ci".into(), user.into()],
            process,
            ..Principal::default()
        }),
        destination: "192.0.2.7:5432".parse().unwrap(),
        resource: resource.to_owned().into(),
        protocol: "postgres".into(),
        policy: "0f".repeat(32).into(),
        tier: "full".into(),
    }
}

pub(crate) fn action(id: u64, text: &str, decision: Effect) -> Entry<'_> {
    Entry::Action {
        id,
        action: "statement".into(),
        text: text.into(),
        decision,
        rule: Some("read-shop".into()),
        reason: (decision == Effect::Deny).then(|| "no".into()),
        policy: None,
    }
}

pub(crate) fn outcome(id: u64, rows: u64) -> Entry<'static> {
    Entry::Outcome {
        id,
        outcome: "done".into(),
        error: None,
        rows,
        bytes: rows * 10,
        sent: 0,
        answer: None,
        waited: None,
        microseconds: 1234,
    }
}

/// A session of so many allowed statements, open.
pub(crate) fn session(store: &Store, statements: u64) -> Box<dyn Record> {
    let mut record = store.open(opening("ann", "shop")).unwrap();
    for id in 1..=statements {
        record.write(&action(id, &format!("SELECT {id}"), Effect::Allow)).unwrap();
        record.note(&outcome(id, id));
    }
    record
}

/// All records' files, in order.
pub(crate) fn records(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.join("sessions")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

pub(crate) fn check(directory: &Path) -> Report {
    verify(directory, &Expected::default()).unwrap()
}

#[track_caller]
pub(crate) fn assert_sound(directory: &Path) -> Report {
    let report = check(directory);
    assert!(report.is_sound(), "{report}");
    report
}

/// Copies a store. What a running one takes away meanwhile, as the file that becomes the next checkpoint, is left out.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
            continue;
        }
        match fs::copy(source, target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
}
