//! What rules decide.

use std::time::Duration;

use tidegate_policy::{Effect, Item, Misread, Policy, Principal, Scope, Sessions, Shape, Value, Verdict};

use crate::common::{runner, shape, sound, statement};

/// A bundle with one subject, one resource and these rules.
fn bundle(rules: &str) -> Policy {
    sound(&format!(
        r#"
tidegate: 1
name: test
subjects: {{ci: {{users: [ci-runner]}}, people: {{groups: [staff]}}}}
issuers: {{acme: {{url: "https://id.example", audience: tidegate, tokens: [present]}}}}
resources:
  shop: {{protocol: postgres, addresses: ["10.1.2.3:5432"], credential: shop-app}}
rules:
  - {{name: base, subjects: ["*"], resources: [shop], record: {{data: false}}, allow: [{{action: cancel}}]}}
{rules}
"#
    ))
}

fn decide(policy: &Policy, items: Vec<Item>) -> Verdict {
    policy.decide(&runner(), "shop", &shape(items))
}

const READ: &str = r#"
  - {name: read, subjects: [ci], resources: [shop], allow: [{statement: [select, insert], table: "public.*"}]}
"#;

#[test]
fn what_no_rule_allows_is_denied_in_words() {
    let verdict = decide(&bundle(READ), vec![statement("drop", "public.orders")]);
    assert_eq!(verdict.effect, Effect::Deny);
    assert_eq!(verdict.rule, None);
    assert_eq!(&*verdict.message, "no rule allows statement drop on table public.orders");
}

#[test]
fn the_default_deny_hints_at_what_a_near_allow_says() {
    let policy = bundle(
        "  - {name: read, subjects: [ci], resources: [shop], allow: [{statement: select, table: \"*\"}], hint: ask us}",
    );
    assert_eq!(decide(&policy, vec![statement("drop", "public.orders")]).hint.as_deref(), Some("ask us"));
    assert_eq!(decide(&policy, vec![statement("select", "public.orders")]).hint, None);
}

#[test]
fn an_action_without_items_is_denied() {
    assert_eq!(decide(&bundle(READ), Vec::new()).effect, Effect::Deny);
}

#[test]
fn a_resource_that_is_not_in_the_bundle_is_denied() {
    let verdict = bundle(READ).decide(&runner(), "other", &shape(vec![statement("select", "public.orders")]));
    assert_eq!(verdict.effect, Effect::Deny);
    assert_eq!(&*verdict.message, "the policy has no resource \"other\"");
}

#[test]
fn a_subject_that_no_rule_names_is_denied() {
    let stranger = Principal { subjects: vec!["people".into()], ..runner() };
    let verdict = bundle(READ).decide(&stranger, "shop", &shape(vec![statement("select", "public.orders")]));
    assert_eq!(verdict.effect, Effect::Deny);
}

#[test]
fn every_item_must_be_allowed() {
    let policy = bundle(READ);
    let allowed = decide(&policy, vec![statement("select", "public.a"), statement("insert", "public.b")]);
    assert_eq!((allowed.effect, allowed.rule.as_deref()), (Effect::Allow, Some("read")));
    let denied = decide(&policy, vec![statement("select", "public.a"), statement("select", "secret.b")]);
    assert_eq!(denied.effect, Effect::Deny);
}

#[test]
fn one_denied_item_denies_all_and_the_rule_is_named_with_its_hint() {
    let policy = bundle(&format!(
        "{READ}  - {{name: no-b, subjects: [\"*\"], resources: [\"*\"], deny: [{{table: public.b}}], hint: ask us}}"
    ));
    let verdict = decide(&policy, vec![statement("select", "public.a"), statement("select", "public.b")]);
    assert_eq!(verdict.effect, Effect::Deny);
    assert_eq!(&*verdict.message, "denied by rule \"no-b\"");
    assert_eq!(verdict.hint.as_deref(), Some("ask us"));
}

#[test]
fn a_hold_wins_over_an_allow_and_grants_only_what_it_matches() {
    let policy = bundle(&format!(
        "{READ}  - {{name: ask, subjects: [ci], resources: [shop], hold: [{{table: public.b}}], approve: {{by: {{users: [ann]}}}}}}"
    ));
    assert_eq!(decide(&policy, vec![statement("select", "public.b")]).effect, Effect::Hold);
    assert_eq!(decide(&policy, vec![statement("drop", "public.b")]).effect, Effect::Hold);
    let mixed = decide(&policy, vec![statement("drop", "public.b"), statement("drop", "public.a")]);
    assert_eq!(mixed.effect, Effect::Deny);
}

#[test]
fn a_held_verdict_carries_the_terms_of_every_rule_that_holds() {
    let policy = bundle(&format!(
        "{READ}  - {{name: z, subjects: [ci], resources: [shop], hold: [{{table: public.b}}], \
         approve: {{by: {{groups: [dba], issuer: acme, approvers: 2}}, for: shape, grant: 30m, sessions: any, reason: required}}}}\n  \
         - {{name: a, subjects: [ci], resources: [shop], hold: [{{table: public.*}}], \
         approve: {{by: {{users: [ann]}}, wait: 5s, break-glass: {{unix-groups: [oncall]}}}}}}"
    ));
    let verdict = decide(&policy, vec![statement("select", "public.b")]);
    assert_eq!(verdict.rule.as_deref(), Some("a"));
    let [a, z] = verdict.holds.as_slice() else { panic!("{:?}", verdict.holds) };
    assert_eq!((&*a.rule, a.approval.scope, a.approval.grant), ("a", Scope::Action, None));
    assert_eq!((a.approval.wait, a.approval.approvers), (Duration::from_secs(5), 1));
    assert_eq!(a.approval.break_glass.as_ref().unwrap().to_string(), "members of the host's group oncall");
    assert_eq!((&*z.rule, z.approval.scope, z.approval.reason), ("z", Scope::Shape, true));
    assert_eq!(z.approval.grant, Some(Duration::from_secs(1800)));
    assert_eq!(z.approval.to_string(), "2 of group dba (acme)");
    assert_eq!((z.approval.sessions, a.approval.sessions), (Sessions::Any, Sessions::One));
    assert_eq!((&*z.what, &*a.what), ("{table: \"public.b\"}", "{table: \"public.*\"}"));
}

#[test]
fn a_deny_leaves_nothing_to_approve() {
    let policy = bundle(&format!(
        "{READ}  - {{name: ask, subjects: [ci], resources: [shop], hold: [{{table: public.b}}], \
         approve: {{by: {{users: [ann]}}}}}}\n  \
         - {{name: never, subjects: [ci], resources: [shop], deny: [{{statement: drop}}]}}"
    ));
    let verdict = decide(&policy, vec![statement("drop", "public.b")]);
    assert_eq!((verdict.effect, verdict.holds.len()), (Effect::Deny, 0));
}

#[test]
fn a_field_that_the_item_lacks_does_not_match() {
    let item = Item {
        fields: vec![("action", Value::Word("statement")), ("statement", Value::Word("select"))],
        must_name: None,
    };
    assert_eq!(decide(&bundle(READ), vec![item.clone()]).effect, Effect::Deny);
    let absent = bundle(
        "  - {name: bare, subjects: [ci], resources: [shop], allow: [{statement: select, table: false}]}",
    );
    assert_eq!(decide(&absent, vec![item]).effect, Effect::Allow);
    assert_eq!(decide(&absent, vec![statement("select", "public.orders")]).effect, Effect::Deny);
}

#[test]
fn an_allow_matches_all_parts_of_a_set_and_a_deny_any() {
    let columns = |names: &[&str]| {
        let mut item = statement("select", "public.t");
        item.fields.push(("columns", Value::Set(names.iter().map(|name| (*name).into()).collect())));
        vec![item]
    };
    let allow = bundle("  - {name: a, subjects: [ci], resources: [shop], allow: [{columns: public.t.a}]}");
    assert_eq!(decide(&allow, columns(&["public.t.a"])).effect, Effect::Allow);
    assert_eq!(decide(&allow, columns(&["public.t.a", "public.t.b"])).effect, Effect::Deny);
    let deny = bundle(&format!(
        "{READ}  - {{name: no-b, subjects: [ci], resources: [shop], deny: [{{columns: public.t.b}}]}}"
    ));
    assert_eq!(decide(&deny, columns(&["public.t.a", "public.t.b"])).rule.as_deref(), Some("no-b"));
    assert_eq!(decide(&deny, columns(&["public.t.a"])).effect, Effect::Allow);
}

#[test]
fn a_wildcard_does_not_allow_what_must_be_spelled_out() {
    let item = || {
        let fields = vec![("action", Value::Word("statement")), ("statement", Value::Word("do"))];
        vec![Item { fields, must_name: None }]
    };
    let with = |block: &str, effect: &str| {
        let approve = if effect == "hold" { ", approve: {by: {users: [ann]}}" } else { "" };
        bundle(&format!("  - {{name: it, subjects: [ci], resources: [shop], {effect}: [{block}]{approve}}}"))
    };
    assert_eq!(decide(&with("{statement: \"*\"}", "allow"), item()).effect, Effect::Deny);
    assert_eq!(decide(&with("{}", "allow"), item()).effect, Effect::Deny);
    assert_eq!(decide(&with("{action: statement}", "allow"), item()).effect, Effect::Deny);
    assert_eq!(decide(&with("{statement: do}", "allow"), item()).effect, Effect::Allow);
    assert_eq!(decide(&with("{statement: \"*\"}", "deny"), item()).rule.as_deref(), Some("it"));
    let held = decide(&with("{statement: \"*\"}", "hold"), item());
    assert_eq!(held.effect, Effect::Deny);
}

#[test]
fn an_allow_counts_only_if_it_names_the_field_that_the_item_asks_for() {
    let item = || {
        let mut item = statement("select", "public.t");
        item.fields.push(("function", Value::Text("public.run".into())));
        item.must_name = Some("function");
        vec![item]
    };
    assert_eq!(decide(&bundle(READ), item()).effect, Effect::Deny);
    let naming =
        bundle("  - {name: f, subjects: [ci], resources: [shop], allow: [{function: \"public.*\"}]}");
    assert_eq!(decide(&naming, item()).effect, Effect::Allow);
}

#[test]
fn executables_narrow_a_rule_and_an_unknown_one_is_granted_nothing() {
    let policy = bundle(
        r#"
  - {name: psql, subjects: [ci], resources: [shop], executables: ["/usr/*/psql", /usr/bin/psql], allow: [{table: "*"}]}
  - {name: no-x, subjects: [ci], resources: [shop], executables: [/usr/bin/evil], deny: [{table: public.x}]}
"#,
    );
    let decide = |executable: Option<&str>, table: &str| {
        let mut principal = runner();
        principal.process.executable = executable.map(Into::into);
        policy.decide(&principal, "shop", &shape(vec![statement("select", table)]))
    };
    assert_eq!(decide(Some("/usr/bin/psql"), "public.x").effect, Effect::Allow);
    assert_eq!(decide(Some("/usr/bin/python3"), "public.t").effect, Effect::Deny);
    assert_eq!(decide(None, "public.t").rule, None);
    assert_eq!(decide(None, "public.x").rule.as_deref(), Some("no-x"));
}

#[test]
fn globs_are_case_sensitive_and_a_star_reaches_over_dots() {
    let policy = bundle("  - {name: g, subjects: [ci], resources: [shop], allow: [{table: \"pub*ers\"}]}");
    assert_eq!(decide(&policy, vec![statement("select", "public.orders")]).effect, Effect::Allow);
    assert_eq!(decide(&policy, vec![statement("select", "Public.orders")]).effect, Effect::Deny);
}

#[test]
fn numbers_and_flags_are_matched() {
    let policy = bundle(
        "  - {name: few, subjects: [ci], resources: [shop], allow: [{table: \"*\", rows: \"<= 10\", quiet: true}]}",
    );
    let item = |rows: i64, quiet: bool| {
        let mut item = statement("select", "public.t");
        item.fields.extend([("rows", Value::Number(rows)), ("quiet", Value::Flag(quiet))]);
        vec![item]
    };
    assert_eq!(decide(&policy, item(10, true)).effect, Effect::Allow);
    assert_eq!(decide(&policy, item(11, true)).effect, Effect::Deny);
    assert_eq!(decide(&policy, item(10, false)).effect, Effect::Deny);
}

#[test]
fn a_value_that_is_not_known_is_allowed_by_nobody_who_asks_for_it_and_denied_by_whoever_does() {
    let item = || {
        let mut item = statement("select", "public.t");
        item.fields.push(("rows", Value::Unknown));
        vec![item]
    };
    for (rules, effect) in [
        ("allow: [{table: \"*\", rows: \"<= 10\"}]}", Effect::Deny),
        ("allow: [{table: \"*\", rows: false}]}", Effect::Deny),
        ("allow: [{table: \"*\"}]}", Effect::Allow),
        (
            "allow: [{table: \"*\"}]}\n  - {name: many, subjects: [ci], resources: [shop], deny: [{rows: \"> 10\"}]}",
            Effect::Deny,
        ),
        (
            "allow: [{table: \"*\"}]}\n  - {name: few, subjects: [ci], resources: [shop], deny: [{rows: false}]}",
            Effect::Deny,
        ),
    ] {
        let policy = bundle(&format!("  - {{name: some, subjects: [ci], resources: [shop], {rules}"));
        assert_eq!(decide(&policy, item()).effect, effect, "{rules}");
    }
}

#[test]
fn an_explanation_says_of_every_rule_why_it_matched_or_not() {
    let policy = bundle(&format!(
        "{READ}  - {{name: no-drop, subjects: [\"*\"], resources: [shop], deny: [{{statement: drop}}]}}"
    ));
    let shape: Shape = shape(vec![statement("drop", "public.orders")]);
    let explanation = policy.explain(&runner(), "shop", &shape);
    assert_eq!(
        explanation.to_string(),
        "asked: statement drop on table public.orders\n\
         deny: denied by rule \"no-drop\"\n  \
         - base (allow): `action` is another\n  \
         - read (allow): `statement` is another\n  \
         + no-drop (deny): matches statement drop on table public.orders\n"
    );
}

#[test]
fn an_explanation_tells_items_apart_by_all_that_rules_see_of_them() {
    let policy = bundle("");
    let item = |rows, part: &str| {
        let mut item = statement("select", "public.t");
        let parts = Value::Set(vec![part.into(), "b".into()]);
        item.fields.extend([("rows", Value::Number(rows)), ("quiet", Value::Flag(true)), ("parts", parts)]);
        item
    };
    let explanation = policy.explain(&runner(), "shop", &shape(vec![item(1, "a"), item(2, "c")]));
    assert_eq!(
        explanation.items,
        [
            "statement select on table public.t (rows: 1, quiet: true, parts: [a, b])",
            "statement select on table public.t (rows: 2, quiet: true, parts: [c, b])"
        ]
    );
}

#[test]
fn a_case_that_fails_says_what_was_expected_and_what_was_decided() {
    let policy = bundle(&format!(
        r#"{READ}
cases:
  - name: drops
    as: {{subjects: [ci]}}
    on: shop
    do: {{action: statement, statement: drop, table: public.orders}}
    expect: allow
  - name: reads
    as: {{subjects: [ci]}}
    on: shop
    do: {{sql: "select 1"}}
    expect: {{decision: allow, rule: read}}
  - name: garbage
    as: {{subjects: [ci]}}
    on: shop
    do: {{sql: "garbage"}}
    expect: deny
  - name: a slip
    as: {{subjects: [ci]}}
    on: shop
    do: {{sql: "selec 1"}}
    expect: deny
"#
    ));
    let understand = |_: &tidegate_policy::Resource, text: &str| match text {
        "select 1" => Ok(shape(vec![statement("select", "public.orders")])),
        "garbage" => Err(Misread::Refused("no session would take it".into())),
        other => Err(Misread::Malformed(format!("syntax error in {other:?}"))),
    };
    let reports: Vec<String> = policy.test(&understand).iter().map(ToString::to_string).collect();
    assert!(reports[0].starts_with("FAIL  drops (bundle.yaml:"), "{}", reports[0]);
    assert!(
        reports[0]
            .ends_with("expected allow, got deny: no rule allows statement drop on table public.orders")
    );
    assert_eq!(reports[1..3], ["ok    reads", "ok    garbage"]);
    let (head, why) = reports[3].split_once("\n").unwrap();
    assert!(head.starts_with("FAIL  a slip (bundle.yaml:"), "{head}");
    let place = why.trim().strip_suffix(": the text cannot be read: syntax error in \"selec 1\"");
    assert!(place.is_some_and(|place| place.starts_with("bundle.yaml:")), "{why}");
}

#[test]
fn a_container_that_a_process_only_claims_to_be_in_grants_nothing() {
    let policy = bundle(
        r#"
  - {name: boxed, subjects: [ci], resources: [shop], containers: ["4f*"], allow: [{table: public.a}]}
  - {name: other, subjects: [ci], resources: [shop], containers: [bad], deny: [{table: public.a}]}
"#,
    );
    let decide = |certain: Option<&str>, claimed: Option<&str>| {
        let mut principal = runner();
        principal.process.cgroup = Some("/".into());
        principal.process.container = certain.map(Into::into);
        principal.process.claimed_container = claimed.map(Into::into);
        policy.decide(&principal, "shop", &shape(vec![statement("select", "public.a")])).effect
    };
    assert_eq!(decide(Some("4f2"), None), Effect::Allow);
    assert_eq!(decide(None, Some("4f2")), Effect::Deny);
    assert_eq!(decide(Some("5e1"), Some("4f2")), Effect::Deny);
    assert_eq!(decide(Some("4f2"), Some("5e1")), Effect::Allow);
    assert_eq!(decide(Some("4f2"), Some("bad")), Effect::Deny);
}

#[test]
fn digests_units_and_containers_narrow_a_rule_and_unknown_ones_are_granted_nothing() {
    let digest = "ab".repeat(32);
    let policy = bundle(&format!(
        r#"
  - {{name: known, subjects: [ci], resources: [shop], sha256: ["{digest}"], allow: [{{table: public.a}}]}}
  - {{name: runner, subjects: [ci], resources: [shop], units: ["runner@*.service"], allow: [{{table: public.b}}]}}
  - {{name: boxed, subjects: [ci], resources: [shop], containers: ["*"], deny: [{{table: public.a}}]}}
"#
    ));
    let decide = |change: &dyn Fn(&mut tidegate_policy::Process), table: &str| {
        let mut principal = runner();
        principal.process.cgroup = Some("/".into());
        change(&mut principal.process);
        policy.decide(&principal, "shop", &shape(vec![statement("select", table)])).effect
    };
    let known =
        |process: &mut tidegate_policy::Process| process.executable_sha256 = Some(digest.as_str().into());
    assert_eq!(decide(&known, "public.a"), Effect::Allow);
    assert_eq!(decide(&|process| process.executable_sha256 = Some("cd".into()), "public.a"), Effect::Deny);
    assert_eq!(decide(&|process| process.executable_sha256 = None, "public.a"), Effect::Deny);
    assert_eq!(decide(&|process| process.unit = Some("runner@7.service".into()), "public.b"), Effect::Allow);
    assert_eq!(decide(&|process| process.unit = Some("cron.service".into()), "public.b"), Effect::Deny);
    assert_eq!(decide(&|process| process.unit = None, "public.b"), Effect::Deny);
    // A deny applies within a container, and where it cannot be told whether it is one.
    let boxed = |process: &mut tidegate_policy::Process| {
        known(process);
        process.container = Some("4f2".into());
    };
    assert_eq!(decide(&boxed, "public.a"), Effect::Deny);
    let claims = |process: &mut tidegate_policy::Process| {
        known(process);
        process.claimed_container = Some("4f2".into());
    };
    assert_eq!(decide(&claims, "public.a"), Effect::Deny);
    let lost = |process: &mut tidegate_policy::Process| {
        known(process);
        process.cgroup = None;
    };
    assert_eq!(decide(&lost, "public.a"), Effect::Deny);
}

#[test]
fn an_image_narrows_a_rule_and_one_that_nobody_can_tell_is_granted_nothing() {
    let (built, bad) = ("ab".repeat(32), "cd".repeat(32));
    let policy = bundle(&format!(
        r#"
  - {{name: built, subjects: [ci], resources: [shop], images: ["sha256:{built}"], allow: [{{table: public.a}}]}}
  - {{name: any, subjects: [ci], resources: [shop], allow: [{{table: public.b}}]}}
  - {{name: bad, subjects: [ci], resources: [shop], images: ["{}"], deny: [{{table: public.b}}]}}
"#,
        bad.to_uppercase()
    ));
    let decide = |container: Option<&str>, image: Option<&str>, claimed: Option<&str>, table: &str| {
        let mut principal = runner();
        let process = &mut principal.process;
        process.cgroup = Some("/".into());
        process.container = container.map(Into::into);
        process.image = image.map(|image| format!("sha256:{image}").into());
        process.claimed_container = claimed.map(Into::into);
        policy.decide(&principal, "shop", &shape(vec![statement("select", table)])).effect
    };
    let (a, b) = ("public.a", "public.b");
    assert_eq!(decide(Some("4f2"), Some(&built), None, a), Effect::Allow);
    for (container, image, claimed) in [
        (Some("4f2"), Some(&*bad), None),
        (Some("4f2"), None, None),
        (None, None, None),
        (None, None, Some("4f2")),
    ] {
        assert_eq!(decide(container, image, claimed, a), Effect::Deny, "{container:?} {image:?} {claimed:?}");
    }
    // A deny by image also applies where the image, or what is within its container, can't be told.
    assert_eq!(decide(Some("4f2"), Some(&built), None, b), Effect::Allow);
    assert_eq!(decide(None, None, None, b), Effect::Allow);
    for (container, image, claimed) in [
        (Some("4f2"), Some(&*bad), None),
        (Some("4f2"), None, None),
        (Some("4f2"), Some(&*built), Some("5e1")),
    ] {
        assert_eq!(decide(container, image, claimed, b), Effect::Deny, "{container:?} {image:?} {claimed:?}");
    }
}

#[test]
fn values_that_are_not_known_are_denied_and_not_allowed() {
    let policy = bundle(
        r#"
  - {name: tune, subjects: [ci], resources: [shop], allow: [{statement: set, settings: {work_mem: "<= 64"}}]}
  - {name: explain, subjects: [ci], resources: [shop], allow: [{statement: explain}]}
  - {name: no-timing, subjects: [ci], resources: [shop], deny: [{statement: explain, settings: {timing: "*"}}]}
"#,
    );
    let of = |kind, settings: Option<&[(&str, &str)]>| {
        let mut item = statement(kind, "public.t");
        let named = |settings: &[(&str, &str)]| {
            Value::Named(settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
        };
        item.fields.extend(settings.map(|settings| ("settings", named(settings))));
        item
    };
    for (item, effect) in [
        (of("set", Some(&[("WORK_MEM", "64"), ("other", "x")])), Effect::Allow),
        (of("set", Some(&[("work_mem", "65")])), Effect::Deny),
        (of("set", Some(&[])), Effect::Deny),
        (of("set", None), Effect::Deny),
        (of("explain", Some(&[])), Effect::Allow),
        (of("explain", Some(&[("timing", "on")])), Effect::Deny),
        (of("explain", None), Effect::Deny),
    ] {
        assert_eq!(decide(&policy, vec![item.clone()]).effect, effect, "{item:?}");
    }
    let depends = |kind| policy.depends_on("settings", &runner(), "shop", &shape(vec![of(kind, None)]));
    assert!(depends("set") && depends("explain") && !depends("select"));
}

#[test]
fn the_rates_of_all_rules_that_match_count_and_name_whom_they_count() {
    let policy = bundle(
        r#"
  - {name: read, subjects: [ci], resources: [shop], allow: [{statement: select, table: "public.*"}], rate: 100/m}
  - {name: all, subjects: [ci], resources: [shop], rate: 1000/h}
  - {name: write, subjects: [ci], resources: [shop], hold: [{statement: insert}], approve: {by: {users: [ann]}}, rate: 2/s}
  - {name: also, subjects: [ci], resources: [shop], allow: [{statement: insert, table: "public.*"}]}
  - {name: who, subjects: [ci], resources: [shop], who: {issuer: acme}, rate: 5/s}
"#,
    );
    let limits = |statement: &'static str| {
        let verdict = decide(&policy, vec![crate::common::statement(statement, "public.orders")]);
        let told = |limit: &tidegate_policy::Limit| {
            format!("{}: {} by {}", limit.rule, limit.rate, limit.issuer.as_deref().unwrap_or("account"))
        };
        (verdict.effect, verdict.limits.iter().map(told).collect::<Vec<_>>().join(", "))
    };
    let common = "all: 1000 an hour by account";
    let who = "who: 5 a second by acme";
    assert_eq!(limits("select"), (Effect::Allow, format!("read: 100 a minute by account, {common}, {who}")));
    assert_eq!(limits("insert"), (Effect::Hold, format!("{common}, write: 2 a second by account, {who}")));
    assert_eq!(limits("drop"), (Effect::Deny, String::new()));
}

const CARRIED: &str = r#"
  - name: read
    subjects: [ci]
    resources: [shop]
    allow: [{statement: select, table: "public.*"}]
    fill: [{placeholder: "@token@", credential: deploy, in: [at.a, at.b]}]
    pass: [known]
  - {name: more, subjects: [ci], resources: [shop], allow: [{statement: select, table: "more.*"}]}
  - name: ask
    subjects: [ci]
    resources: [shop]
    hold: [{statement: insert, table: public.orders}]
    approve: {by: {users: [ann]}}
    fill: [{placeholder: "@token@", credential: deploy, in: [at.c]}]
  - {name: write, subjects: [ci], resources: [shop], allow: [{statement: insert}]}
  - {name: no, subjects: [ci], resources: [shop], deny: [{table: public.secret}]}
"#;

#[test]
fn placeholders_are_filled_by_a_rule_that_lets_all_of_the_action_through() {
    let policy = bundle(CARRIED);
    let carried = |items: &[(&'static str, &str)]| {
        let items = items.iter().map(|(statement, table)| crate::common::statement(statement, table));
        let verdict = decide(&policy, items.collect());
        let fills: Vec<_> = verdict.carried.fills.iter().map(ToString::to_string).collect();
        assert_eq!(verdict.carried.passes("known"), fills.join(" ").contains("at.a"));
        (verdict.effect, fills.join("; "))
    };
    let (token, held) = ("\"@token@\" by \"deploy\" in at.a, at.b", "\"@token@\" by \"deploy\" in at.c");
    assert_eq!(carried(&[("select", "public.orders")]), (Effect::Allow, token.into()));
    assert_eq!(carried(&[("insert", "public.orders")]), (Effect::Hold, held.into()));
    for (items, effect) in [
        (&[("select", "more.orders")][..], Effect::Allow),
        (&[("select", "public.orders"), ("select", "more.orders")], Effect::Allow),
        (&[("insert", "public.orders"), ("insert", "more.orders")], Effect::Hold),
        (&[("select", "public.secret")], Effect::Deny),
        (&[("drop", "public.orders")], Effect::Deny),
    ] {
        assert_eq!(carried(items), (effect, String::new()), "{items:?}");
    }
}

#[test]
fn explaining_says_what_a_rule_fills_and_passes_where_it_lets_all_through() {
    let policy = bundle(CARRIED);
    let explained = |tables: &[&str]| {
        let items = tables.iter().map(|table| crate::common::statement("select", table));
        policy.explain(&runner(), "shop", &shape(items.collect())).to_string()
    };
    let told = explained(&["public.orders"]);
    let expected = "; fills \"@token@\" by \"deploy\" in at.a, at.b; passes known\n";
    assert!(told.contains(expected), "{told}");
    let told = explained(&["public.orders", "more.orders"]);
    assert!(!told.contains("fills") && !told.contains("passes"), "{told}");
}
