//! Rules that ask an issuer who is asking.

use std::sync::Arc;

use serde_json::json;
use tidegate_policy::{Effect, Identity, Principal, Unproven, Verdict};

use crate::common::{load, runner, shape, sound, statement, told};

const BUNDLE: &str = r#"
tidegate: 1
name: identities
subjects: {ci: {users: [ci]}}
issuers:
  github:
    url: https://token.example
    audience: tidegate
    require: {repository_owner: acme}
    keep: [actor]
    tokens: [github-actions, {variable: CI_JOB_JWT, siblings: true}, present]
  people:
    url: https://login.example
    algorithms: [ES256, RS256]
    groups: [realm_access, roles]
    tokens: [{login: {client: tidegate-cli, scopes: [groups]}}]
resources:
  shop: {protocol: postgres, addresses: ["db:5432"], credential: shop}
rules:
  - name: main-only
    subjects: [ci]
    resources: [shop]
    who: {issuer: github, claims: {repository: acme/shop, ref: [refs/heads/main, "refs/heads/release-*"]}}
    allow: [{statement: [select, delete]}]
    hint: "ask #db-oncall"
  - name: dbas-insert
    subjects: [ci]
    resources: [shop]
    who: {issuer: people, groups: [dba], subject: ["u-*"]}
    allow: [{statement: insert}]
  - name: no-deletes-by-forks
    subjects: [ci]
    resources: [shop]
    who: {issuer: github, claims: {fork: true}}
    deny: [{statement: delete}]
"#;

fn identity(issuer: &str, claims: serde_json::Value) -> Identity {
    let serde_json::Value::Object(claims) = claims else { panic!("not an object") };
    Identity {
        issuer: issuer.into(),
        url: "".into(),
        account: None,
        subject: "u-1".into(),
        groups: Vec::new(),
        expires: i64::MAX,
        claims,
    }
}

fn job() -> Identity {
    identity("github", json!({"repository": "acme/shop", "ref": "refs/heads/main", "fork": false}))
}

fn decide(identities: &[Identity], unproven: Option<&str>, word: &'static str) -> Verdict {
    let unproven = unproven.map(|why| Unproven { issuer: "github".into(), why: why.into() });
    let principal =
        Principal { identities: identities.into(), unproven: unproven.into_iter().collect(), ..runner() };
    sound(BUNDLE).decide(&principal, "shop", &shape(vec![statement(word, "public.orders")]))
}

#[test]
fn an_allow_is_for_whom_the_issuer_vouches_for_alone() {
    assert_eq!(decide(&[job()], None, "select").effect, Effect::Allow);
    assert_eq!(decide(&[], None, "select").effect, Effect::Deny);
    let mut other = job();
    other.claims.insert("ref".into(), json!("refs/heads/feature"));
    assert_eq!(decide(&[other], None, "select").effect, Effect::Deny);
    assert_eq!(decide(&[Identity { issuer: "people".into(), ..job() }], None, "select").effect, Effect::Deny);
}

#[test]
fn a_group_and_a_subject_are_asked_for_together() {
    let dba = Identity { groups: vec!["dba".into()], ..identity("people", json!({})) };
    assert_eq!(decide(std::slice::from_ref(&dba), None, "insert").effect, Effect::Allow);
    let developer = Identity { groups: vec!["developer".into()], ..dba.clone() };
    assert_eq!(decide(&[developer], None, "insert").effect, Effect::Deny);
    assert_eq!(decide(&[Identity { subject: "x".into(), ..dba }], None, "insert").effect, Effect::Deny);
}

#[test]
fn a_deny_holds_where_the_issuer_does_not_say_who_is_asking() {
    let verdict = decide(&[], None, "delete");
    assert_eq!(verdict.rule.as_deref(), Some("no-deletes-by-forks"));
    assert!(verdict.hint.unwrap().contains("tidegate present"));
    assert_eq!(decide(&[job()], None, "delete").effect, Effect::Allow);
    let mut fork = job();
    fork.claims.insert("fork".into(), json!(true));
    assert_eq!(decide(&[fork], None, "delete").rule.as_deref(), Some("no-deletes-by-forks"));
}

#[test]
fn another_issuer_s_word_does_not_lift_a_deny() {
    let person = identity("people", json!({"fork": false}));
    assert_eq!(decide(&[person], None, "delete").rule.as_deref(), Some("no-deletes-by-forks"));
}

#[test]
fn a_refusal_for_want_of_a_token_says_how_to_present_one() {
    let verdict = decide(&[], None, "select");
    assert!(
        verdict.message.contains("without an ID token of issuer \"github\" (rule \"main-only\")"),
        "{}",
        verdict.message
    );
    let hint = verdict.hint.unwrap();
    for words in ["ask #db-oncall", "id-token: write", "CI_JOB_JWT", "or run `tidegate present"] {
        assert!(hint.contains(words), "{hint}");
    }
    let hint = decide(&[job()], None, "insert").hint.unwrap();
    assert!(hint.contains("tidegate login --issuer people"), "{hint}");
}

#[test]
fn a_refusal_says_why_the_token_that_is_there_does_not_count() {
    let verdict = decide(&[], Some("it expired 5 s ago"), "select");
    assert!(verdict.message.contains("does not count: it expired 5 s ago"), "{}", verdict.message);
}

#[test]
fn a_refusal_of_somebody_else_says_what_differs() {
    let mut other = job();
    other.claims.insert("ref".into(), json!("refs/heads/feature"));
    let verdict = decide(&[other], None, "select");
    assert!(verdict.message.contains("another `ref`"), "{}", verdict.message);
}

#[test]
fn claims_that_nothing_asks_for_are_not_kept() {
    let policy = sound(BUNDLE);
    let kept = |name: &str| -> Vec<Arc<str>> {
        policy.issuers.iter().find(|issuer| &*issuer.name == name).unwrap().kept.iter().cloned().collect()
    };
    assert_eq!(kept("github"), ["actor", "fork", "ref", "repository", "repository_owner"].map(Arc::from));
    assert_eq!(kept("people"), [] as [Arc<str>; 0]);
}

#[test]
fn cases_say_who_issuers_say_that_it_is() {
    let cases = r#"
cases:
  - name: main may read
    as:
      subjects: [ci]
      identities: [{issuer: github, subject: "repo:acme/shop", claims: {repository: acme/shop, ref: refs/heads/main}}]
    on: shop
    do: {action: statement, statement: select, table: public.orders}
    expect: allow
  - name: nobody may not
    as: {subjects: [ci]}
    on: shop
    do: {action: statement, statement: select, table: public.orders}
    expect: deny
"#;
    let reports = sound(&format!("{BUNDLE}{cases}")).test(&|_, _| Err("no text".into()));
    assert!(reports.iter().all(tidegate_policy::CaseReport::passed), "{reports:?}");
    assert_eq!(reports.len(), 2);
}

#[test]
fn explaining_says_which_issuer_does_not_say_who_is_asking() {
    let action = shape(vec![statement("select", "public.orders")]);
    let explained = sound(BUNDLE).explain(&runner(), "shop", &action).to_string();
    assert!(
        explained.contains("- main-only (allow): issuer \"github\" does not say who is asking"),
        "{explained}"
    );
}

#[test]
fn a_step_is_of_issuers_whose_tokens_come_from_steps_and_is_kept() {
    let sources = "[github-actions, {variable: CI_JOB_JWT, siblings: true}, present]";
    let with = |tokens: &str| load(&BUNDLE.replace("keep: [actor]", "step: job_id").replace(sources, tokens));
    let policy = with("[{variable: CI_JOB_JWT}, present]").unwrap();
    let issuer = &policy.issuers[0];
    assert_eq!(issuer.step.as_deref(), Some("job_id"));
    assert!(issuer.kept.contains("job_id"));
    for tokens in ["[{file: /run/token}]", "[present, {login: {client: tidegate}}]"] {
        assert!(told(&with(tokens).unwrap_err()).contains("tokens of a step can't come from"), "{tokens}");
    }
}

#[test]
fn mistakes_in_issuers_are_told_with_their_place() {
    for (from, to, problem) in [
        ("https://token.example", "http://token.example", "is not the URL of an issuer"),
        ("https://token.example", "https://token.example?x=1", "is not the URL of an issuer"),
        ("audience: tidegate\n", "elsewhere: refuse\n", "issuer \"github\" has no `audience:`"),
        ("[ES256, RS256]", "[HS256]", "HS256"),
        ("[ES256, RS256]", "[none]", "none"),
        ("[ES256, RS256]", "[]", "no algorithm is listed"),
        (
            "[github-actions, {variable: CI_JOB_JWT, siblings: true}, present]",
            "[]",
            "tokens come from nowhere",
        ),
        ("[github-actions,", "[{github-actions: {hosts: [\"*\"]}},", "\"*\" is not a host"),
        ("[github-actions,", "[{file: relative}, github-actions,", "relative is not an absolute path"),
        (
            "who: {issuer: github, claims: {repository",
            "who: {issuer: gitlab, claims: {repository",
            "there is no issuer \"gitlab\"",
        ),
        ("keep: [actor]", "clock-skew: 1h", "is longer than 300s"),
        ("keep: [actor]", "offline: 3", "is not a duration"),
        ("keep: [actor]", "step: ''", "no claim is named"),
        ("keep: [actor]", "step: job_id", "can't come from GitHub: its ID tokens don't say which step asks"),
    ] {
        assert!(BUNDLE.contains(from), "{from}");
        let problems = load(&BUNDLE.replace(from, to)).expect_err(to);
        assert!(told(&problems).contains(problem), "{to}: {}", told(&problems));
        assert!(problems.iter().all(|problem| problem.line > 1), "{}", told(&problems));
    }
}

#[test]
fn a_resource_that_is_used_in_somebody_s_name_is_used_by_nobody_else() {
    let named = BUNDLE.replacen("credential: shop", "credential: shop, identity: people", 1);
    let policy = sound(&named);
    assert!(policy.issuers.iter().all(|issuer| issuer.shown == (&*issuer.name == "people")));
    let decide = |identities: &[Identity], unproven: Option<&str>, word: &'static str| {
        let unproven = unproven.map(|why| Unproven { issuer: "people".into(), why: why.into() });
        let principal =
            Principal { identities: identities.into(), unproven: unproven.into_iter().collect(), ..runner() };
        policy.decide(&principal, "shop", &shape(vec![statement(word, "public.orders")]))
    };
    let person = identity("people", json!({}));
    assert_eq!(decide(&[job(), person.clone()], None, "select").effect, Effect::Allow);
    let nobody = decide(&[job()], None, "select");
    assert_eq!(nobody.effect, Effect::Deny);
    assert_eq!(
        &*nobody.message,
        "\"shop\" is used in the name that issuer \"people\" says one has, and it says none"
    );
    assert!(nobody.hint.unwrap().contains("tidegate login"));
    let expired = decide(&[job()], Some("it expired"), "select");
    assert!(
        expired.message.ends_with("; the one that is there does not count: it expired"),
        "{}",
        expired.message
    );
    assert_eq!(decide(&[person], None, "select").effect, Effect::Deny, "the rules count all the same");
    let unknown = load(&named.replacen("identity: people", "identity: peple", 1)).unwrap_err();
    assert!(told(&unknown).contains("there is no issuer \"peple\""), "{}", told(&unknown));
}
