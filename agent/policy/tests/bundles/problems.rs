//! What is said of mistakes: all of them at once, each with its place and what to do.

use std::sync::Arc;

use tidegate_policy::{PathForm, PathSpec, Policy, SourceFile, TlsMode, Vocabulary};

use crate::common::{VOCABULARY, load, told};

/// A sound bundle. Tests replace one of its lines, so that a problem's line is where the replacement stands.
const SOUND: &str = r#"tidegate: 1
name: test
subjects:
  ci: {users: [ci-runner]}
resources:
  shop:
    protocol: postgres
    addresses: ["10.1.2.3:5432"]
    credential: shop-app
passes: []
rules:
  - name: read
    subjects: [ci]
    resources: [shop]
    allow: [{statement: select, table: "public.*"}]
    masks: [cards]
masks:
  cards: {columns: [public.customers.card], show: token}
patterns: {employee: "EMP-[0-9]{6}"}
cases:
  - name: reads
    as: {subjects: [ci]}
    on: shop
    do: {statement: select, table: public.t}
    expect: allow
"#;

/// The problems of the sound bundle with one line replaced.
#[track_caller]
fn with(line: &str, replacement: &str) -> String {
    assert!(SOUND.contains(line), "the bundle has no {line:?}");
    match load(&SOUND.replacen(line, replacement, 1)) {
        Ok(_) => "sound".into(),
        Err(problems) => told(&problems),
    }
}

#[track_caller]
fn says(line: &str, replacement: &str, expected: &str) {
    assert_eq!(with(line, replacement).trim_end(), expected);
}

#[test]
fn a_resource_that_names_an_authority_is_verified_whole_unless_its_mode_says_otherwise() {
    let mode = |tls: &str| {
        let with = format!("credential: shop-app\n    tls: {tls}");
        let policy = load(&SOUND.replacen("credential: shop-app", &with, 1));
        policy.map(|policy| policy.resource("shop").unwrap().tls.mode).map_err(|problems| told(&problems))
    };
    assert_eq!(mode("{ca: /etc/ca.pem}").unwrap(), Some(TlsMode::VerifyFull));
    assert_eq!(mode("{ca: /etc/ca.pem, mode: verify-ca}").unwrap(), Some(TlsMode::VerifyCa));
    assert_eq!(mode("{server-name: db}").unwrap(), None);
    for nothing in ["disable", "prefer", "require"] {
        let why = mode(&format!("{{ca: /etc/ca.pem, mode: {nothing}}}")).unwrap_err();
        assert!(why.contains("this mode verifies nothing"), "{why}");
    }
}

#[test]
fn the_bundle_that_the_other_tests_break_is_sound() {
    assert_eq!(with("name: test", "name: test"), "sound");
}

#[test]
fn an_unknown_key_is_told_with_the_nearest() {
    says(
        "    credential: shop-app",
        "    credental: shop-app\n    credential: shop-app",
        "bundle.yaml:9:5: unknown key `credental:`\n    hint: did you mean \"credential\"?",
    );
}

#[test]
fn an_unknown_key_that_is_near_none_is_told_with_what_there_is() {
    says(
        "    masks: [cards]",
        "    masks: [cards]\n    record: {rows: true, data: true}",
        "bundle.yaml:17:14: unknown key `rows:`\n    hint: there is: data, limit",
    );
}

#[test]
fn a_missing_key_is_told_where_its_mapping_begins() {
    says("    protocol: postgres\n", "", "bundle.yaml:7:5: `protocol:` is missing");
}

#[test]
fn a_value_of_the_wrong_kind_is_told() {
    says(
        "{users: [ci-runner]}",
        "{users: ci-runner}",
        "bundle.yaml:4:15: expected a list, not the text \"ci-runner\"",
    );
}

#[test]
fn a_key_that_is_said_twice_is_told() {
    says(
        "    on: shop",
        "    on: shop\n    on: shop",
        "bundle.yaml:24:5: `on:` is said twice; first at bundle.yaml:23",
    );
}

#[test]
fn text_that_is_not_yaml_is_told() {
    let problems = with("subjects: [ci]", "subjects: [ci");
    assert!(problems.starts_with("bundle.yaml:1"), "{problems}");
}

#[test]
fn an_unquoted_star_is_told_with_what_to_write() {
    let problems = with("    resources: [shop]", "    resources: [*]");
    assert!(problems.starts_with("bundle.yaml:14:"), "{problems}");
    assert!(problems.contains("hint: quote values that begin with `*`: \"*\""), "{problems}");
}

#[test]
fn anchors_and_aliases_are_not_read() {
    let problems = with("  ci: {users: [ci-runner]}", "  ci: &ci {users: [ci-runner]}\n  other: *ci");
    assert!(problems.starts_with("bundle.yaml:"), "{problems}");
}

#[test]
fn another_version_of_the_format_is_told() {
    says("tidegate: 1", "tidegate: 2", "bundle.yaml:1:11: format version 2 is not known; this is version 1");
}

#[test]
fn a_bundle_without_a_name_is_told() {
    says(
        "name: test\n",
        "",
        "bundle.yaml:1:1: the bundle has no name\n    hint: add `name:` to one of its files",
    );
}

#[test]
fn a_subject_that_chooses_nobody_is_told() {
    says(
        "{users: [ci-runner]}",
        "{}",
        "bundle.yaml:4:3: subject \"ci\" chooses no process\n    hint: name `users:`, `groups:`, `cgroups:`, \
         `units:` or `containers:`",
    );
}

#[test]
fn a_unit_that_no_process_is_in_is_told() {
    for unit in ["ci", "ci.socket", "c*i.service"] {
        says(
            "{users: [ci-runner]}",
            &format!("{{units: [{unit:?}]}}"),
            &format!(
                "bundle.yaml:4:16: {unit:?} is no unit that processes are in\n    hint: write ci.service, or ci@*.service \
                 for all that begin so"
            ),
        );
    }
}

#[test]
fn a_rule_for_a_unit_that_holds_no_process_is_told() {
    for unit in ["ci", "ci.slice", "ci.socket"] {
        says(
            "    resources: [shop]",
            &format!("    resources: [shop]\n    units: [{unit}]"),
            &format!(
                "bundle.yaml:15:13: {unit:?} matches no unit that processes are in\n    hint: write ci.service or \
                 ci@*.scope; a slice chooses a subject"
            ),
        );
    }
}

#[test]
fn names_that_are_not_declared_are_told_with_the_nearest() {
    says(
        "    resources: [shop]",
        "    resources: [shop, shpo]",
        "bundle.yaml:14:23: there is no resource \"shpo\"\n    hint: did you mean \"shop\"?",
    );
    says(
        "    masks: [cards]",
        "    masks: [cards, mails-of-customers]",
        "bundle.yaml:16:20: there is no mask \"mails-of-customers\"\n    hint: there is: cards",
    );
    says(
        "    as: {subjects: [ci]}",
        "    as: {subjects: [cii]}",
        "bundle.yaml:22:21: there is no subject \"cii\"\n    hint: did you mean \"ci\"?",
    );
    says(
        "show: token}",
        "show: token, content: [employe]}",
        "bundle.yaml:18:68: there is no detector or pattern \"employe\"\n    hint: did you mean \"employee\"?",
    );
    says(
        "    expect: allow",
        "    expect: {decision: allow, rule: raed}",
        "bundle.yaml:25:37: there is no rule \"raed\"\n    hint: did you mean \"read\"?",
    );
}

#[test]
fn a_name_that_is_declared_twice_is_told_with_both_places() {
    let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
    let files = [file("a.yaml", SOUND), file("b.yaml", "tidegate: 1\nsubjects:\n  ci: {users: [root]}\n")];
    let problems = Policy::load(&files, &[&VOCABULARY]).map(|_| ()).unwrap_err();
    assert_eq!(told(&problems), "b.yaml:3:3: subject \"ci\" is declared twice; first at a.yaml:4\n");
}

#[test]
fn an_unknown_protocol_is_told() {
    says(
        "    protocol: postgres",
        "    protocol: postgers",
        "bundle.yaml:7:15: unknown protocol \"postgers\"\n    hint: did you mean \"postgres\"?",
    );
}

#[test]
fn fields_and_words_that_the_protocol_does_not_have_are_told() {
    says(
        "{statement: select, table: \"public.*\"}",
        "{statement: select, tabel: \"public.*\"}",
        "bundle.yaml:15:33: unknown field `tabel:`\n    hint: did you mean \"table\"?",
    );
    says(
        "{statement: select, table: \"public.*\"}",
        "{access: [read, change]}",
        "bundle.yaml:15:29: `access:` has no word \"change\"\n    hint: there is: read, write",
    );
    says(
        "{statement: select, table: \"public.*\"}",
        "{rows: many}",
        "bundle.yaml:15:20: `rows:` is a whole number or a range (\">= 10\") (rows at most)",
    );
    says(
        "    do: {statement: select, table: public.t}",
        "    do: {statement: selct, table: public.t}",
        "bundle.yaml:24:21: `statement:` has no word \"selct\"\n    hint: did you mean \"select\"?",
    );
}

#[test]
fn globs_patterns_and_durations_that_cannot_be_read_are_told() {
    says(
        "\"public.*\"",
        "\"public.[\"",
        "bundle.yaml:15:40: \"public.[\" is not a glob: unclosed character class; missing ']'",
    );
    says(
        "\"EMP-[0-9]{6}\"",
        "\"EMP-(\"",
        "bundle.yaml:19:22: this is not a regular expression: unclosed group",
    );
    says(
        "\"EMP-[0-9]{6}\"",
        "'(\\w{100}){100}'",
        "bundle.yaml:19:22: this pattern compiles to more than 1048576 bytes",
    );
    says(
        "\"EMP-[0-9]{6}\"",
        "\"x*\"",
        "bundle.yaml:19:22: this pattern matches nothing at all, and so everywhere",
    );
    says(
        "    credential: shop-app",
        "    credential: shop-app\n    connect-timeout: 10",
        "bundle.yaml:10:22: \"10\" is not a duration\n    hint: write a number and its unit: 500ms, 10s, 2m",
    );
    says(
        "show: token}",
        "show: blur}",
        "bundle.yaml:18:51: expected redact, token, null, {redact: text} or {keep-first: n, keep-last: n}, \
         not the text \"blur\"",
    );
}

#[test]
fn addresses_that_cannot_be_read_or_have_no_port_are_told() {
    says(
        "\"10.1.2.3:5432\"",
        "\"10.1.2.3/8:5432\"",
        "bundle.yaml:8:17: \"10.1.2.3/8:5432\" is not an address: bits are set past the prefix; the range is 10.0.0.0/8\n    \
         hint: write host:port, 10.2.0.0/16:5432 or [2001:db8::1]:5432",
    );
    says(
        "\"10.1.2.3:5432\"",
        "db.internal",
        "bundle.yaml:8:17: a resource's address needs a port\n    hint: write host:port",
    );
}

#[test]
fn a_destination_that_is_two_resources_is_told() {
    says(
        "passes: []",
        "  copy: {protocol: postgres, addresses: [\"10.1.0.0/16:5432\"], credential: c}\npasses: []",
        "bundle.yaml:10:3: no rule names resource \"copy\"\n    hint: name it in a rule's `resources:`, or remove it\n\
         bundle.yaml:10:42: this address is also resource \"shop\", at bundle.yaml:8; a destination is one resource",
    );
}

#[test]
fn a_pass_around_a_resource_is_told() {
    says(
        "passes: []",
        "passes: [{subjects: [ci], to: [10.0.0.0/8]}]",
        "bundle.yaml:10:32: this would pass connections to resource \"shop\" by the gate\n    \
         hint: narrow it down, or name a port",
    );
}

#[test]
fn what_can_have_no_effect_is_told() {
    says(
        "    masks: [cards]",
        "    masks: [cards]\n  - {name: never, subjects: [\"*\"], resources: [\"*\"], deny: [{statement: \"*\"}]}",
        "bundle.yaml:12:5: rule \"read\" never applies: rule \"never\" at bundle.yaml:17 denies all of it\n    \
         hint: order does not matter, a deny always wins; narrow one of them down",
    );
    says(
        "    subjects: [ci]\n",
        "    subjects: []\n",
        "bundle.yaml:13:15: no subject is named: this never applies\n    hint: name some, or \"*\"",
    );
    says(
        "    masks: [cards]\n",
        "",
        "bundle.yaml:17:3: no rule names mask \"cards\"\n    hint: name it in a rule's `masks:`, or remove it",
    );
    says(
        "    allow: [{statement: select, table: \"public.*\"}]\n    masks: [cards]",
        "    hint: nothing\n  - {name: m, subjects: [ci], resources: [shop], masks: [cards]}",
        "bundle.yaml:12:5: rule \"read\" does nothing\n    \
         hint: give it `allow:`, `deny:`, `hold:`, `masks:`, `record:` or `rate:`",
    );
    says(
        "    masks: [cards]",
        "    masks: [cards]\n    hold: [{table: x}]",
        "bundle.yaml:12:5: rule \"read\" has more than one effect\n    \
         hint: write one rule for each of allow, hold and deny",
    );
}

#[test]
fn a_hold_that_nobody_may_let_run_is_told() {
    let hold = "    hold: [{statement: select, table: \"public.*\"}]\n";
    let allow = "    allow: [{statement: select, table: \"public.*\"}]\n";
    let says = |approve: &str, expected: &str| says(allow, &format!("{hold}{approve}"), expected);
    says(
        "",
        "bundle.yaml:15:11: nobody may let this run\n    \
         hint: say who: `approve: {by: {groups: [dba]}}`; or write `deny:`",
    );
    says(
        "    approve: {by: {groups: []}}\n",
        "bundle.yaml:16:19: nobody is named\n    hint: name `groups:`, `users:` or `unix-groups:`",
    );
    says(
        "    approve: {by: {users: [ann]}, for: resource}\n",
        "bundle.yaml:16:14: a yes for more than one action needs an end\n    \
         hint: say how long it counts: `grant: 30m`",
    );
    says(
        "    approve: {by: {users: [ann], approvers: 0}}\n",
        "bundle.yaml:16:45: from 1 to 16 people may be asked",
    );
    says(
        "    approve: {by: {users: [ann]}, wait: 10}\n",
        "bundle.yaml:16:41: \"10\" is not a duration\n    hint: write a number and its unit: 500ms, 10s, 2m",
    );
    says(
        "    approve: {by: {users: [ann]}, wait: 300h}\n",
        "bundle.yaml:16:41: \"300h\" is not between nothing and 604800s",
    );
    says(
        "    approve: {by: {groups: [dba]}}\n",
        "bundle.yaml:16:28: no issuer vouches for groups\n    \
         hint: declare one under `issuers:`, or name `unix-groups:`",
    );
    says(
        "    approve: {by: {users: [ann], issuer: acme}}\n",
        "bundle.yaml:16:42: an issuer without groups names nobody\n    hint: name `groups:` of it, or leave it out",
    );
}

#[test]
fn terms_without_a_hold_are_told() {
    says(
        "    masks: [cards]",
        "    masks: [cards]\n    approve: {by: {users: [ann]}}",
        "bundle.yaml:17:14: `approve:` counts for what a rule holds, and this one holds nothing\n    \
         hint: write `hold:`, or leave it out",
    );
}

#[test]
fn a_digest_that_is_none_is_told() {
    says(
        "    masks: [cards]",
        "    masks: [cards]\n    sha256: [cafe]",
        "bundle.yaml:17:14: \"cafe\" is not a SHA-256 digest in hexadecimal\n    \
         hint: write what `sha256sum` prints before the path",
    );
}

#[test]
fn an_image_that_is_no_id_is_told() {
    says(
        "    masks: [cards]",
        "    masks: [cards]\n    images: [\"registry.internal/ci:7\"]",
        "bundle.yaml:17:14: \"registry.internal/ci:7\" is not the id of an image\n    \
         hint: write what `docker image inspect --format '{{.Id}}' NAME` prints; names can be moved to other images",
    );
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_file() {
    let text = SOUND
        .replace("protocol: postgres", "protocol: mysql")
        .replace("[ci]\n    resources", "[cj]\n    resources")
        .replace("show: token", "shown: token")
        .replace("expect: allow", "expect: maybe");
    let problems = load(&text).map(|_| ()).unwrap_err();
    let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [7, 13, 18, 25], "{}", told(&problems));
}

#[test]
fn a_bundle_without_files_is_told() {
    let problems = Policy::load(&[], &[&VOCABULARY]).map(|_| ()).unwrap_err();
    assert_eq!(problems.len(), 1);
}

#[test]
fn a_policy_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + std::fmt::Debug>(_: &T) {}
    let policy = load(SOUND).unwrap();
    shared(&policy);
    assert_eq!(policy.resource("shop").and_then(|resource| resource.credential.as_deref()), Some("shop-app"));
    assert_eq!(policy.name, Arc::from("test"));
}

#[test]
fn a_size_without_a_unit_is_none() {
    for size in ["64", "64MB", "0MiB", "MiB", "-1KiB", "99999999999999GiB"] {
        let told = with(
            "    masks: [cards]",
            &format!("    record: {{data: true, limit: {size}}}\n    masks: [cards]"),
        );
        assert!(told.contains("is not a size") && told.contains("64MiB, 2GiB"), "{size}: {told}");
    }
}

#[test]
fn placeholders_that_fill_nothing_or_two_things_are_told() {
    let read = "    masks: [cards]\nmasks:";
    let fill = |fill: &str| with(read, &format!("    fill: [{fill}]\n{read}"));
    assert_eq!(fill("{placeholder: \"@token@\", credential: deploy, in: [at.a]}"), "sound");
    for (written, told) in [
        ("{placeholder: \"@t@\", credential: deploy, in: [at.a]}", "\"@t@\" is no placeholder"),
        ("{placeholder: \"@my token@\", credential: deploy, in: [at.a]}", "\"@my token@\" is no placeholder"),
        ("{placeholder: \"@token@\", credential: ../x, in: [at.a]}", "cannot be the name of a credential"),
        ("{placeholder: \"@token@\", credential: deploy, in: [a]}", "16:62: \"a\" is nowhere"),
        ("{placeholder: \"@token@\", credential: deploy, in: []}", "an empty list fills nothing"),
        ("{placeholder: \"@token@\", credential: deploy}", "`in:` is missing"),
        (
            "{placeholder: \"@token@\", credential: deploy, in: [at.a]}, {placeholder: \"@token@\", credential: other, in: [at.b]}",
            "placeholder \"@token@\" stands for credential \"deploy\" already, at bundle.yaml:16",
        ),
    ] {
        assert!(fill(written).contains(told), "{written}: {}", fill(written));
    }
    assert!(with(read, &format!("    pass: [other]\n{read}")).contains("\"other\" is no field"));
    let rule = |more: &str| {
        with(
            read,
            &format!(
                "    masks: [cards]\n  - {{name: no, subjects: [ci], resources: [shop], {more}}}\nmasks:"
            ),
        )
    };
    for more in ["deny: [{statement: drop}], pass: [known]", "rate: 1/s, pass: [known]"] {
        assert!(rule(more).contains("`pass:` is about what a rule lets through"), "{more}: {}", rule(more));
    }
}

#[test]
fn a_protocol_without_credentials_in_its_actions_has_nothing_to_fill() {
    static WITHOUT: std::sync::LazyLock<Vocabulary> = std::sync::LazyLock::new(|| Vocabulary {
        protocol: VOCABULARY.protocol,
        fields: VOCABULARY.fields,
        text: VOCABULARY.text,
        path: PathSpec { written: "schema.table.column", form: PathForm::Names(3) },
        spelling: VOCABULARY.spelling,
        carries: None,
    });
    let text = SOUND.replacen("    masks: [cards]", "    pass: [known]\n    masks: [cards]", 1);
    let file = SourceFile { path: "bundle.yaml".into(), text };
    let problems = Policy::load(&[file], &[&WITHOUT]).unwrap_err();
    assert!(
        told(&problems).contains("postgres has nothing that `pass:` could be about"),
        "{}",
        told(&problems)
    );
}

#[test]
fn a_rate_that_is_none_is_told() {
    for rate in ["100", "100/d", "0/m", "-1/m", "/m", "many/m", "1000001/h", "100/m/h"] {
        let told = with("    masks: [cards]", &format!("    rate: {rate}\n    masks: [cards]"));
        assert!(told.contains("is not a rate") && told.contains("100/m"), "{rate}: {told}");
    }
    says(
        "    allow: [{statement: select, table: \"public.*\"}]\n    masks: [cards]",
        "    masks: [cards]\n  - {name: no, subjects: [ci], resources: [shop], deny: [{}], rate: 1/m}",
        "bundle.yaml:16:69: a deny lets nothing through, so it has no rate\n    hint: put it into another rule",
    );
}

#[test]
fn a_field_whose_values_have_names_takes_names() {
    let allow = |settings: &str| format!("    allow: [{{settings: {settings}}}]");
    let line = "    allow: [{statement: select, table: \"public.*\"}]";
    for settings in ["{a: 1}", "{a: [x, \">= 3\"], b.c: true, d: false}", "false"] {
        assert_eq!(with(line, &allow(settings)), "sound", "{settings}");
    }
    says(
        line,
        &allow("x"),
        "bundle.yaml:15:24: `settings:` is a mapping of names, or false for nothing (settings by name)",
    );
    says(
        line,
        &allow("{a: {b: 1}}"),
        "bundle.yaml:15:28: `settings:` is flat: write the names on the way with dots between (`a.b: value`) (settings by name)",
    );
    says(
        line,
        &allow("{a: \"< 9007199254740993\"}"),
        "bundle.yaml:15:28: \"< 9007199254740993\" compares with a number that not every server reads exactly\n    hint: \
         numbers up to 9007199254740992 are compared",
    );
    says(
        line,
        "    allow: [{table: {a: 1}}]",
        "bundle.yaml:15:21: `table:` is a value or a list of values (schema.table)",
    );
}

#[test]
fn a_column_that_no_protocol_of_its_rules_has_is_told_with_what_its_address_looks_like() {
    says(
        "columns: [public.customers.card]",
        "columns: [public.customers.card, card_number]",
        "bundle.yaml:18:44: \"card_number\" is no field's address: mask \"cards\" hides nothing by it\n    \
         hint: write schema.table.column for postgres; any part may be a glob",
    );
    for glob in ["public.customers", "shop.public.customers.card", "body.card"] {
        let problems = with("[public.customers.card]", &format!("[{glob}]"));
        assert!(problems.contains("is no field's address"), "{glob}: {problems}");
    }
    for glob in ["\"*\"", "\"*.card\"", "public.*", "Public.Customers.Card", "\"public.{a,b}.card\""] {
        assert_eq!(with("[public.customers.card]", &format!("[{glob}]")), "sound", "{glob}");
    }
}

#[test]
fn what_a_mask_keeps_is_a_small_whole_number() {
    says(
        "show: token",
        "show: {keep-last: -1}",
        "bundle.yaml:18:51: expected a whole number that isn't negative, not the number -1",
    );
    says(
        "show: token",
        "show: {keep-last: 99999999999}",
        "bundle.yaml:18:51: a mask keeps at most 1000 characters on a side, not 99999999999",
    );
}

#[test]
fn a_credential_s_name_is_one_that_a_file_can_have() {
    for name in ["\"\"", "../../etc/passwd", "a/b", ".hidden"] {
        let problems = with("credential: shop-app", &format!("credential: {name}"));
        assert!(problems.starts_with("bundle.yaml:9:17: "), "{problems}");
        assert!(problems.contains("cannot be the name of a credential"), "{problems}");
    }
}
