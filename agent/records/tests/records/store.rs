//! Records are written, read back, listed and shown.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use tidegate_gate::{
    Entry, Records,
    policy::{Effect, Identity, Unproven},
};
use tidegate_records::{
    Checkpoint, Expected, Filter, Pace, Reader, Sessions, Settings, Store, StoreError, SyncMode,
    export_asciicast, export_lines, follow, replay, verify,
};

use crate::common::*;

#[test]
fn a_written_line_is_in_the_file_with_all_that_was_noted_before() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let mut record = session(&store, 2);
    record.write(&action(3, "SELECT 3", Effect::Allow)).unwrap();
    let path = &records(directory.path())[0];
    assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 1 + 2 * 2 + 1);
}

#[test]
fn a_note_reaches_the_file_without_another_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let mut record = session(&store, 0);
    let mut lines = follow(&records(directory.path())[0]).unwrap();
    assert!(matches!(lines.next().unwrap().unwrap().entry, Entry::Open { .. }));
    record.note(&outcome(1, 1));
    assert!(matches!(lines.next().unwrap().unwrap().entry, Entry::Outcome { .. }));
}

#[test]
fn following_ends_with_the_closing_line() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let mut record = session(&store, 1);
    let lines = follow(&records(directory.path())[0]).unwrap();
    let writer = std::thread::spawn(move || {
        record.write(&action(2, "SELECT 2", Effect::Allow)).unwrap();
        record.close("client left");
    });
    let seen: Vec<u64> = lines.map(|line| line.unwrap().seq).collect();
    writer.join().unwrap();
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

#[test]
fn a_record_that_is_dropped_is_closed_once_as_abandoned() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    drop(session(&store, 1));
    session(&store, 1).close("done");
    drop(store);
    let reasons: Vec<Vec<String>> = records(directory.path()).iter().map(|path| closings(path)).collect();
    assert_eq!(reasons.concat(), ["abandoned", "done"]);
    assert!(reasons.iter().all(|closings| closings.len() == 1));
    assert_sound(directory.path());
}

fn closings(path: &std::path::Path) -> Vec<String> {
    let lines = Reader::open(path).unwrap().map(Result::unwrap);
    lines
        .filter_map(
            |line| if let Entry::Close { reason } = line.entry { Some(reason.into_owned()) } else { None },
        )
        .collect()
}

#[test]
fn only_the_owner_may_read_what_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("records");
    let store = store(&root);
    session(&store, 1).close("done");
    drop(store);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut files = records(&root);
    files.extend(
        ["log/leaves", "log/checkpoint", "log/key", "log/key.pub", "index.sqlite"]
            .map(|name| root.join(name)),
    );
    assert!(
        files.iter().all(|file| mode(file) == 0o600),
        "{:?}",
        files.iter().map(|f| mode(f)).collect::<Vec<_>>()
    );
    assert!([root.clone(), root.join("sessions"), root.join("log")].iter().all(|path| mode(path) == 0o700));
}

#[test]
fn two_stores_cannot_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = store(directory.path());
    let error = Store::open(settings(directory.path())).unwrap_err();
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    drop(first);
    store(directory.path());
}

#[test]
fn every_way_of_syncing_makes_a_sound_store() {
    for sync in [SyncMode::Never, SyncMode::Checkpoints, SyncMode::Always] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Settings { sync, ..settings(directory.path()) }).unwrap();
        session(&store, 2).close("done");
        drop(store);
        assert_eq!(assert_sound(directory.path()).unsigned_leaves, 0);
    }
}

#[test]
fn a_name_that_a_signed_note_cannot_bear_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for origin in ["", "two words", "a+b"] {
        let settings = Settings { origin: origin.into(), ..settings(directory.path()) };
        assert!(matches!(Store::open(settings), Err(StoreError::Malformed { .. })), "{origin}");
    }
}

#[test]
fn sessions_of_a_directory_without_a_store_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Sessions::open(directory.path()), Err(StoreError::Io { .. })));
}

#[test]
fn sixty_four_threads_of_sessions_make_a_sound_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                for statements in 0..8 {
                    session(&store, statements).close("done");
                }
            });
        }
    });
    drop(store);
    let report = assert_sound(directory.path());
    assert_eq!((report.sessions, report.leaves, report.unsigned_leaves), (512, 1024, 0));
    assert_eq!(Sessions::open(directory.path()).unwrap().list(&Filter::default()).unwrap().len(), 512);
}

#[test]
fn an_open_session_beside_a_running_agent_is_reported_as_open() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let _record = session(&store, 1);
    let report = assert_sound(directory.path());
    assert!(report.live);
    assert_eq!(report.open.len(), 1);
}

#[test]
fn a_store_is_sound_at_every_moment_while_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    std::thread::scope(|scope| {
        let write = || (0..100).for_each(|_| session(&store, 3).close("done"));
        let writers: Vec<_> = (0..4).map(|_| scope.spawn(write)).collect();
        loop {
            let last = writers.iter().all(|writer| writer.is_finished());
            let report = check(directory.path());
            assert!(report.live && report.is_sound(), "{report}");
            if last {
                break;
            }
        }
    });
}

#[test]
fn a_log_continues_its_saved_checkpoint_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("records");
    let first = store(&root);
    let key = first.public_key().clone();
    session(&first, 1).close("done");
    drop(first);
    let saved = fs::read_to_string(root.join("log/checkpoint")).unwrap();
    assert_eq!(Checkpoint::verify(&saved, &key).unwrap().size, 2);
    let again = store(&root);
    session(&again, 1).close("done");
    drop(again);
    let expected = Expected { key: Some(key), since: Some(saved.clone()) };
    let report = verify(&root, &expected).unwrap();
    assert!(report.is_sound() && report.checkpoint.is_some_and(|checkpoint| checkpoint.size == 4));

    // The same key over another history.
    let other = directory.path().join("other");
    fs::create_dir_all(other.join("log")).unwrap();
    fs::copy(root.join("log/key"), other.join("log/key")).unwrap();
    let forked = store(&other);
    session(&forked, 1).close("done");
    drop(forked);
    assert_sound(&other);
    let report = verify(&other, &expected).unwrap();
    assert!(!report.is_sound());
}

#[test]
fn another_key_than_the_expected_one_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let (root, other) = (directory.path().join("a"), directory.path().join("b"));
    let expected = Expected { key: Some(store(&other).public_key().clone()), since: None };
    drop(store(&root));
    assert_eq!(verify(&root, &expected).unwrap().findings.len(), 2);
}

#[test]
fn sessions_are_listed_by_what_the_filter_asks() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let mut denied = store.open(opening("bob", "stock")).unwrap();
    let id = denied.session().clone();
    denied.write(&action(1, "DROP TABLE t", Effect::Deny)).unwrap();
    denied.close("client left");
    session(&store, 3).close("client left");
    drop(store);
    // A second agent, so that one session is open beside a running one.
    let store = crate::common::store(directory.path());
    let _open = session(&store, 2);
    let sessions = || Sessions::open(directory.path()).unwrap();
    let count = |filter: Filter| sessions().list(&filter).unwrap().len();
    let bob = sessions().list(&Filter { user: Some("bob".into()), ..Filter::default() }).unwrap();
    assert_eq!((bob.len(), bob[0].actions, bob[0].refused), (1, 1, 1));
    assert_eq!(bob[0].reason.as_deref(), Some("client left"));
    assert_eq!(count(Filter { denied_only: true, ..Filter::default() }), 1);
    assert_eq!(count(Filter { subject: Some("bob".into()), ..Filter::default() }), 1);
    assert_eq!(count(Filter { resource: Some("none".into()), ..Filter::default() }), 0);
    assert_eq!(count(Filter { until: Some(bob[0].start), ..Filter::default() }), 0);
    assert_eq!(count(Filter { limit: Some(1), ..Filter::default() }), 1);
    assert_eq!(sessions().record(&id[..id.len() - 1]).unwrap(), sessions().record(&id).unwrap());
    assert!(matches!(sessions().record("0"), Err(StoreError::Ambiguous(_))));
    assert!(matches!(sessions().record("../.."), Err(StoreError::Unknown(_))));
}

#[test]
fn an_index_that_is_missing_or_of_another_version_is_made_from_the_records() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    session(&store, 3).close("done");
    drop(store);
    let list = || Sessions::open(directory.path()).unwrap().list(&Filter::default()).unwrap();
    let before = list();
    assert_eq!((before.len(), before[0].actions, before[0].rows, before[0].bytes), (1, 3, 6, 60));
    let index = directory.path().join("index.sqlite");
    fs::remove_file(&index).unwrap();
    let rebuilt = list();
    assert_eq!((rebuilt[0].actions, rebuilt[0].rows, &rebuilt[0].reason), (3, 6, &before[0].reason));
    rusqlite::Connection::open(&index).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(list(), rebuilt);
    fs::write(&index, "not a database").unwrap();
    assert_eq!(list(), rebuilt);
}

#[test]
fn a_replay_shows_who_vouched_for_whoever_asked_and_which_tokens_did_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let mut opening = opening("runner", "shop");
    let Entry::Open { principal, .. } = &mut opening else { panic!("no opening") };
    let principal = principal.to_mut();
    let claims = serde_json::json!({"repository": "acme/shop", "protected": true});
    principal.identities = Arc::new([Identity {
        issuer: "github".into(),
        url: "https://token.example".into(),
        account: None,
        subject: "repo:acme/\u{1b}shop".into(),
        groups: vec!["dba".into()],
        expires: 7,
        claims: claims.as_object().unwrap().clone(),
    }]);
    let why = "it expired 3 s ago".into();
    principal.unproven = Arc::new([Unproven { issuer: "people".into(), why }]);
    store(directory.path()).open(opening).unwrap().close("client left");
    let mut text = Vec::new();
    replay(Reader::open(&records(directory.path())[0]).unwrap(), &mut text, Pace::Instant).unwrap();
    let text = String::from_utf8(text).unwrap();
    for part in [
        "github says: ",
        "shop, group: dba, protected: true, repository: acme/shop",
        "a token of people does not count: it expired 3 s ago",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn a_replay_shows_actions_and_rows_and_no_terminal_escapes() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let mut record = store.open(opening("ann", "shop")).unwrap();
    record.write(&action(1, "SELECT '\u{1b}[2J'", Effect::Allow)).unwrap();
    record.note(&Entry::Shown { id: 1, data: "ann\t****1111".into() });
    record.note(&outcome(1, 1));
    record.write(&action(2, "DROP TABLE t", Effect::Deny)).unwrap();
    record.close("client left");
    let path = &records(directory.path())[0];
    let mut text = Vec::new();
    replay(Reader::open(path).unwrap(), &mut text, Pace::Instant).unwrap();
    let text = String::from_utf8(text).unwrap();
    for part in [
        "ann (/usr/bin/psql, pid 4711) -> shop",
        "****1111",
        "1 row, 10 bytes, 1.234 ms",
        "REFUSED by read-shop",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{1b}'));

    let mut cast = Vec::new();
    export_asciicast(Reader::open(path).unwrap(), &mut cast).unwrap();
    let cast = String::from_utf8(cast).unwrap();
    let mut lines = cast.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert_eq!(lines.next().unwrap()["version"], 2);
    assert!(lines.clone().all(|event| event[0].is_number() && event[1] == "o" && event[2].is_string()));
    assert_eq!(lines.count(), 6);

    let mut lines = Vec::new();
    export_lines(Reader::open(path).unwrap(), &mut lines).unwrap();
    assert_eq!(lines, fs::read(path).unwrap());
}
