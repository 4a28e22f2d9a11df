//! Files, Unix sockets and requirements of a bundle.

use std::path::Path;

use tidegate_policy::{FileName, FilePattern, Policy, Requirement, SourceFile, UnixAddress};

use crate::common::{VOCABULARY, told};

const SUBJECTS: &str = "tidegate: 1\nname: test\nsubjects: {ci: {users: [ci]}, dev: {users: [dev]}}\n";

fn load(text: &str) -> Result<Policy, String> {
    let file = SourceFile { path: "b.yaml".into(), text: format!("{SUBJECTS}{text}") };
    Policy::load(&[file], &[&VOCABULARY]).map_err(|problems| told(&problems))
}

#[test]
fn a_shielded_file_is_a_name_with_or_without_its_folders() {
    let policy = load("files: {all: {names: [.pgpass, .aws/credentials, .ssh/id_*, \"*.pem\"]}}").unwrap();
    let [files] = &policy.files[..] else { panic!("{:?}", policy.files) };
    assert_eq!(files.subjects, ["ci".into(), "dev".into()]);
    let pattern = |folder: Option<&str>, name| FilePattern { folder: folder.map(Into::into), name };
    assert_eq!(
        files.files,
        [
            pattern(None, FileName::Is(".pgpass".into())),
            pattern(Some(".aws"), FileName::Is("credentials".into())),
            pattern(Some(".ssh"), FileName::Begins("id_".into())),
            pattern(None, FileName::Ends(".pem".into())),
        ]
    );
}

#[test]
fn what_the_kernel_side_would_not_compare_is_refused_with_what_to_write_instead() {
    for (written, said) in [
        ("~/.pgpass", "only these two names count"),
        ("/etc/app/key", "only these two names count"),
        (".a*/key", "only these two names count"),
        ("\"*\"", "names no file"),
        ("a*b*", "names no file"),
        ("..", "names no file"),
        (&*"x".repeat(64), "is too long"),
    ] {
        let problems = load(&format!("files: {{all: {{names: [{written}]}}}}")).unwrap_err();
        assert!(problems.contains(said) && problems.contains("b.yaml:4:"), "{written}: {problems}");
    }
}

#[test]
fn a_unix_socket_is_an_absolute_path_or_an_abstract_name() {
    let policy = load("unix: [{subjects: [ci], to: [/dev/log, \"@bus\"]}]").unwrap();
    assert_eq!(
        policy.unix[0].to,
        [UnixAddress::Path("/dev/log".into()), UnixAddress::Abstract("bus".into())]
    );
    for wrong in ["run/x", "\"@\"", "/run/*.sock"] {
        let problems = load(&format!("unix: [{{subjects: [ci], to: [{wrong}]}}]")).unwrap_err();
        assert!(problems.contains("no Unix socket's name"), "{wrong}: {problems}");
    }
    for other in ["/run//db", "/run/./db", "/run/x/../db", "/run/db/"] {
        let problems = load(&format!("unix: [{{subjects: [ci], to: [{other}]}}]")).unwrap_err();
        assert!(problems.contains("each folder once"), "{other}: {problems}");
    }
    assert!(load("unix: [{subjects: [nobody], to: [/dev/log]}]").unwrap_err().contains("no subject"));
}

#[test]
fn a_bundle_can_insist_on_the_shield_on_unix_sockets_on_a_tier_and_on_a_constrained_authority() {
    assert_eq!(load("require: [shield, shield]").unwrap().required, [Requirement::Shield]);
    let both = [Requirement::ConstrainedAuthority, Requirement::Shield];
    assert_eq!(load("require: [constrained-authority, shield]").unwrap().required, both);
    let required = load("require: [unix-sockets, recommended, hardened, full]").unwrap().required;
    let (recommended, hardened) = (Requirement::Recommended, Requirement::Hardened);
    assert_eq!(required, [Requirement::UnixSockets, recommended, hardened, Requirement::Full]);
    assert!(load("require: []").unwrap().required.is_empty());
    assert!(load("require: [everything]").is_err());
}

#[test]
fn the_shipped_shield_fits_into_any_bundle() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/shield/shield.yaml");
    let shipped = SourceFile { path: "shield.yaml".into(), text: std::fs::read_to_string(path).unwrap() };
    let own = SourceFile { path: "b.yaml".into(), text: SUBJECTS.into() };
    let policy = Policy::load(&[own, shipped], &[&VOCABULARY])
        .unwrap_or_else(|problems| panic!("{}", told(&problems)));
    assert!(policy.files.len() >= 4 && policy.unix.len() == 1);
}
