//! Whatever is done to a closed store is found and named.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use proptest::prelude::*;
use tempfile::TempDir;
use tidegate_records::{Problem, Report};

use crate::common::*;

/// A closed store of a few records, made once.
fn original() -> &'static Path {
    static ORIGINAL: OnceLock<TempDir> = OnceLock::new();
    let directory = ORIGINAL.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        for statements in [0, 3, 6] {
            session(&store, statements).close("done");
        }
        drop(store);
        assert_sound(directory.path());
        directory
    });
    directory.path()
}

/// The report on a copy to which something was done.
fn after(change: impl FnOnce(&Path)) -> Report {
    let directory = tempfile::tempdir().unwrap();
    copy(original(), directory.path());
    change(directory.path());
    check(directory.path())
}

/// One of the files that are proven, below the store's directory.
fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        records(original()).iter().map(|path| path.strip_prefix(original()).unwrap().to_owned()).collect();
    files.push("log/leaves".into());
    files
}

fn edit_lines(path: &Path, edit: impl FnOnce(&mut Vec<String>)) {
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    edit(&mut lines);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, text).unwrap();
}

/// The lines that the report names in a file.
fn named(report: &Report, file: &Path) -> BTreeSet<u64> {
    report.findings.iter().filter(|finding| finding.file == file).filter_map(|finding| finding.line).collect()
}

fn lines_of(file: &Path) -> usize {
    fs::read_to_string(original().join(file)).unwrap().lines().count()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_flipped_byte_is_found_in_its_line(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let files: Vec<_> = files().into_iter().filter(|file| file.starts_with("sessions")).collect();
        let file = which.get(&files);
        let mut line = 0;
        let report = after(|root| {
            let mut bytes = fs::read(root.join(file)).unwrap();
            let at = at.index(bytes.len());
            line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
            bytes[at] ^= flip;
            fs::write(root.join(file), bytes).unwrap();
        });
        let named = named(&report, file);
        prop_assert!(named.contains(&line) || named.contains(&(line + 1)), "line {}: {}", line, report);
    }

    #[test]
    fn a_flipped_byte_in_the_log_is_found(name in prop::sample::select(vec!["leaves", "checkpoint", "key.pub"]), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let report = after(|root| {
            let path = root.join("log").join(name);
            let mut bytes = fs::read(&path).unwrap();
            // The newline that ends the public key is no part of it.
            let at = at.index(bytes.len() - 1);
            bytes[at] ^= flip;
            fs::write(&path, bytes).unwrap();
        });
        prop_assert!(!report.is_sound());
    }

    #[test]
    fn a_removed_line_is_found_in_its_place(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let file = which.get(&files()).clone();
        let at = at.index(lines_of(&file));
        let report = after(|root| edit_lines(&root.join(&file), |lines| drop(lines.remove(at))));
        prop_assert!(named(&report, &file).contains(&(at as u64 + 1)), "line {}: {}", at + 1, report);
    }

    #[test]
    fn swapped_lines_are_found(which in any::<prop::sample::Index>(), one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()) {
        let file = which.get(&files()).clone();
        let (one, other) = (one.index(lines_of(&file)), other.index(lines_of(&file)));
        prop_assume!(one != other);
        let report = after(|root| edit_lines(&root.join(&file), |lines| lines.swap(one, other)));
        prop_assert!(named(&report, &file).contains(&(one.min(other) as u64 + 1)), "{}", report);
    }

    #[test]
    fn a_duplicated_line_is_found(which in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let file = which.get(&files()).clone();
        let (from, to) = (from.index(lines_of(&file)), to.index(lines_of(&file) + 1));
        let report = after(|root| edit_lines(&root.join(&file), |lines| lines.insert(to, lines[from].clone())));
        // Beside its twin, which of the two was added cannot be told.
        let named = named(&report, &file);
        prop_assert!(named.contains(&(to as u64 + 1)) || named.contains(&(to as u64 + 2)), "line {}: {}", to + 1, report);
    }

    #[test]
    fn a_cut_file_is_found(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let file = which.get(&files()).clone();
        let report = after(|root| {
            let bytes = fs::read(root.join(&file)).unwrap();
            fs::write(root.join(&file), &bytes[..at.index(bytes.len())]).unwrap();
        });
        prop_assert!(report.findings.iter().any(|finding| finding.file == file), "{}", report);
    }
}

#[test]
fn a_removed_record_is_named() {
    for file in files().iter().filter(|file| file.starts_with("sessions")) {
        let report = after(|root| fs::remove_file(root.join(file)).unwrap());
        assert!(
            report.findings.iter().any(|f| f.file == *file && f.problem == Problem::FileMissing),
            "{report}"
        );
    }
}

#[test]
fn a_report_reads_as_file_line_and_problem() {
    let file = &files()[1];
    let report = after(|root| edit_lines(&root.join(file), |lines| drop(lines.remove(2))));
    let text = report.to_string();
    let place = format!("{}:3: line 4 stands where 3 belongs", file.display());
    assert!(text.contains(&place) && text.ends_with("problems"), "{text}");
    assert!(check(original()).to_string().ends_with("nothing was changed, cut, added, reordered or removed"));
}

#[test]
fn a_removed_log_file_is_found() {
    for name in ["leaves", "checkpoint", "key.pub"] {
        assert!(!after(|root| fs::remove_file(root.join("log").join(name)).unwrap()).is_sound(), "{name}");
    }
}

#[test]
fn an_added_record_is_named() {
    let mut added = PathBuf::new();
    let report = after(|root| {
        let first = records(root)[0].clone();
        let name = first.file_name().unwrap().to_str().unwrap();
        let digit = if name.ends_with("0.jsonl") { "1" } else { "0" };
        let twin = first.with_file_name(format!("{}{digit}.jsonl", &name[..name.len() - 7]));
        fs::copy(&first, &twin).unwrap();
        added = twin.strip_prefix(root).unwrap().to_owned();
    });
    assert!(report.findings.iter().any(|f| f.file == added && f.problem == Problem::FileUnknown), "{report}");
}

#[test]
fn exchanged_records_are_both_named() {
    let report = after(|root| {
        let files = records(root);
        let spare = root.join("spare");
        fs::rename(&files[0], &spare).unwrap();
        fs::rename(&files[1], &files[0]).unwrap();
        fs::rename(&spare, &files[1]).unwrap();
    });
    assert!(files()[..2].iter().all(|file| named(&report, file).contains(&1)), "{report}");
}

#[test]
fn an_agent_does_not_sign_on_top_of_a_changed_log() {
    let refuses = |change: &dyn Fn(&Path)| {
        let directory = tempfile::tempdir().unwrap();
        copy(original(), directory.path());
        change(directory.path());
        tidegate_records::Store::open(settings(directory.path())).unwrap_err().to_string()
    };
    let remove = |root: &Path, name: &str| fs::remove_file(root.join("log").join(name)).unwrap();
    let cut = refuses(&|root| edit_lines(&root.join("log/leaves"), |lines| drop(lines.pop())));
    assert!(cut.contains("not the 6 that the checkpoint was signed over"), "{cut}");
    let emptied = refuses(&|root| ["leaves", "checkpoint"].iter().for_each(|name| remove(root, name)));
    assert!(emptied.contains("checkpoint: it is missing"), "{emptied}");
    let unsigned = refuses(&|root| ["key", "checkpoint"].iter().for_each(|name| remove(root, name)));
    assert!(unsigned.contains("the key is missing"), "{unsigned}");
}
