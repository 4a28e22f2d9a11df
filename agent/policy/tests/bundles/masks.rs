//! How masks show results, or refuse them.

use tidegate_policy::{Effect, Lineage, Output, Policy, Shape, Show, Shown, Verdict};

use crate::common::{runner, sound, statement};

const CARD: &str = "public.customers.card";
const MAIL: &str = "public.customers.mail";
const NAME: &str = "public.customers.name";

/// A bundle with these masks, which one rule names all.
fn bundle(masks: &str) -> Policy {
    let names: Vec<&str> = masks
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once(": {").map(|(name, _)| name))
        .collect();
    sound(&format!(
        r#"
tidegate: 1
name: test
subjects: {{ci: {{users: [ci-runner]}}}}
resources:
  shop: {{protocol: postgres, addresses: ["10.1.2.3:5432"], credential: shop-app}}
rules:
  - {{name: read, subjects: [ci], resources: [shop], allow: [{{table: "*"}}], masks: [{}]}}
  - {{name: log, subjects: [ci], resources: [shop], record: {{data: true}}}}
patterns: {{employee: "EMP-[0-9]{{6}}"}}
masks:
{masks}
"#,
        names.join(", ")
    ))
}

fn plain(path: &str) -> Output {
    Output { sources: vec![path.into()], computed: false }
}

fn computed(path: &str) -> Output {
    Output { sources: vec![path.into()], computed: true }
}

fn select(outputs: Vec<Output>) -> Shape {
    Shape {
        items: vec![statement("select", "public.customers")],
        results: vec![Lineage { outputs, ..Lineage::default() }],
        touched: vec!["public.customers".into()],
        ..Shape::default()
    }
}

fn decide(policy: &Policy, shape: &Shape) -> Verdict {
    policy.decide(&runner(), "shop", shape)
}

fn shows(shown: &Shown) -> Option<&Show> {
    match shown {
        Shown::Masked(show) => Some(show),
        Shown::Plain | Shown::Scanned(_) => None,
    }
}

#[test]
fn a_masked_column_is_shown_as_its_mask_says_and_others_as_they_are() {
    let policy = bundle("  cards: {columns: [public.customers.card], show: {keep-last: 4}}");
    let verdict = decide(&policy, &select(vec![plain(NAME), plain(CARD)]));
    assert_eq!(verdict.effect, Effect::Allow);
    assert!(matches!(verdict.results[0].columns[0], Shown::Plain));
    assert_eq!(shows(&verdict.results[0].columns[1]), Some(&Show::Keep { first: 0, last: 4 }));
    assert!(verdict.withhold_errors && verdict.record_data == Some(64 << 20) && verdict.content.is_none());
}

#[test]
fn the_strictest_of_several_masks_wins() {
    let strictest = |shows_as: &[&str]| {
        let masks: Vec<String> = shows_as
            .iter()
            .enumerate()
            .map(|(index, show)| format!("  m{index}: {{columns: [public.customers.card], show: {show}}}"))
            .collect();
        let verdict = decide(&bundle(&masks.join("\n")), &select(vec![plain(CARD)]));
        shows(&verdict.results[0].columns[0]).cloned()
    };
    assert_eq!(strictest(&["{keep-last: 4}", "{keep-first: 1}"]), Some(Show::Keep { first: 1, last: 0 }));
    assert_eq!(strictest(&["{keep-last: 4}", "token"]), Some(Show::Token));
    assert_eq!(strictest(&["token", "{redact: gone}"]), Some(Show::Redact("gone".into())));
    assert_eq!(strictest(&["redact", "null"]), Some(Show::Null));
}

#[test]
fn a_computed_value_is_refused_with_the_mask_and_the_column_named() {
    let policy = bundle("  cards: {columns: [public.customers.card]}");
    let verdict = decide(&policy, &select(vec![computed(CARD)]));
    assert_eq!(verdict.effect, Effect::Deny);
    assert_eq!(verdict.rule.as_deref(), Some("read"));
    assert_eq!(
        &*verdict.message,
        "refused by mask \"cards\": a value is computed from public.customers.card"
    );
}

#[test]
fn a_computed_value_is_redacted_whole_where_the_mask_says_so() {
    let policy = bundle("  cards: {columns: [public.customers.card], show: {keep-last: 4}, derived: mask}");
    let verdict = decide(&policy, &select(vec![computed(CARD), plain(NAME)]));
    assert!(matches!(shows(&verdict.results[0].columns[0]), Some(Show::Redact(_))));
    assert!(matches!(verdict.results[0].columns[1], Shown::Plain));
}

#[test]
fn a_masked_column_may_not_decide_which_rows_are_seen() {
    let policy = bundle("  cards: {columns: [public.customers.card]}");
    let shape = Shape { influences: vec![CARD.into()], ..select(vec![plain(NAME)]) };
    let verdict = decide(&policy, &shape);
    assert_eq!(
        &*verdict.message,
        "refused by mask \"cards\": public.customers.card may not decide which rows are seen or changed"
    );
}

#[test]
fn where_derived_is_masked_an_influence_hides_every_output() {
    let policy = bundle("  cards: {columns: [public.customers.card], derived: mask}");
    let shape = Shape { influences: vec![CARD.into()], ..select(vec![plain(NAME)]) };
    let verdict = decide(&policy, &shape);
    assert_eq!(verdict.effect, Effect::Allow);
    assert!(verdict.results[0].whole.is_some() && shows(&verdict.results[0].columns[0]).is_some());
}

#[test]
fn what_a_masked_column_decides_is_kept_nowhere() {
    let policy = bundle("  cards: {columns: [public.customers.card], derived: mask}");
    let kept = |by: &str| Shape { influences: vec![by.into()], keeps: true, ..select(vec![plain(NAME)]) };
    assert_eq!(
        &*decide(&policy, &kept(CARD)).message,
        "refused by mask \"cards\": public.customers.card may not decide what is written or kept"
    );
    assert_eq!(decide(&policy, &kept(MAIL)).effect, Effect::Allow);
}

#[test]
fn what_is_computed_from_a_masked_column_is_refused_even_if_nothing_shows_it() {
    let shape = || Shape { computed: vec![CARD.into()], ..select(vec![plain(NAME)]) };
    assert_eq!(
        &*decide(&bundle("  cards: {columns: [public.customers.card]}"), &shape()).message,
        "refused by mask \"cards\": a value is computed from public.customers.card"
    );
    let masking = bundle("  cards: {columns: [public.customers.card], derived: mask}");
    assert_eq!(decide(&masking, &shape()).effect, Effect::Allow);
}

#[test]
fn an_untraced_result_is_refused_or_masked_whole() {
    let shape = || Shape {
        results: vec![Lineage { untraced: Some("two tables are called t".into()), ..Lineage::default() }],
        ..select(Vec::new())
    };
    let refusing = decide(&bundle("  cards: {columns: [public.customers.card]}"), &shape());
    assert_eq!(
        &*refusing.message,
        "refused by mask \"cards\": a result could not be traced to its columns: two tables are called t"
    );
    let masking = decide(&bundle("  cards: {columns: [public.customers.card], untraced: mask}"), &shape());
    assert_eq!(masking.effect, Effect::Allow);
    assert!(masking.results[0].whole.is_some());
}

#[test]
fn what_is_untraced_among_known_fields_is_refused_only_where_one_of_them_is_masked() {
    let shape = |among: &[&str]| {
        let untraced = Some("which columns * stands for isn't certain".into());
        let among = Some(among.iter().map(|&path| path.into()).collect());
        Shape { results: vec![Lineage { outputs: vec![plain(NAME)], untraced, among }], ..select(Vec::new()) }
    };
    let columns = bundle("  cards: {columns: [public.customers.card]}");
    assert_eq!(decide(&columns, &shape(&[NAME, CARD])).effect, Effect::Deny);
    let verdict = decide(&columns, &shape(&[NAME, MAIL]));
    assert!(verdict.results[0].is_plain(), "however many columns: {verdict:?}");
    let both = bundle("  cards: {columns: [public.customers.card], content: [card]}");
    let verdict = decide(&both, &shape(&[NAME, MAIL]));
    assert!(matches!(verdict.results[0].whole, Some(Shown::Scanned(_))), "{verdict:?}");
    let masking = bundle("  cards: {columns: [public.customers.card], untraced: mask, content: [card]}");
    assert!(decide(&masking, &shape(&[NAME, CARD])).results[0].hide_all());
}

#[test]
fn a_copy_of_a_masked_column_is_refused_even_where_derived_values_are_masked() {
    let policy = bundle("  cards: {columns: [public.customers.card], derived: mask, untraced: mask}");
    let shape = Shape { copied: vec![CARD.into()], ..select(Vec::new()) };
    assert_eq!(
        &*decide(&policy, &shape).message,
        "refused by mask \"cards\": public.customers.card may not be copied to where no mask covers it"
    );
    let other = Shape { copied: vec![NAME.into()], ..select(Vec::new()) };
    assert_eq!(decide(&policy, &other).effect, Effect::Allow);
}

#[test]
fn what_decides_rows_and_cannot_be_traced_is_refused_where_a_column_is_masked() {
    let shape = || Shape { untraced: Some("f() reads tables".into()), ..select(Vec::new()) };
    let columns = bundle("  cards: {columns: [public.customers.card], derived: mask, untraced: mask}");
    assert_eq!(
        &*decide(&columns, &shape()).message,
        "refused by mask \"cards\": what decides rows could not be traced: f() reads tables"
    );
    assert_eq!(decide(&bundle("  cards: {content: [card]}"), &shape()).effect, Effect::Allow);
}

#[test]
fn content_masks_scan_an_untraced_result_only_if_its_outputs_are_counted() {
    let policy = bundle("  cards: {content: [card]}");
    let untraced = |outputs: Vec<Output>| Shape {
        results: vec![Lineage { outputs, untraced: Some("f() is not known".into()), among: None }],
        ..select(Vec::new())
    };
    let counted = decide(&policy, &untraced(vec![Output::default()]));
    assert!(
        matches!(counted.results[0].columns[..], [Shown::Scanned(_)]) && counted.results[0].whole.is_none()
    );
    assert_eq!(decide(&policy, &untraced(Vec::new())).effect, Effect::Deny);
}

#[test]
fn content_masks_scan_what_what_no_column_mask_covers() {
    let policy = bundle(
        "  cards: {columns: [public.customers.card], content: [card, employee], show: token}\n  \
         mails: {content: [email, card], show: redact}",
    );
    let verdict = decide(&policy, &select(vec![plain(CARD), plain(MAIL)]));
    assert_eq!(shows(&verdict.results[0].columns[0]), Some(&Show::Token));
    assert!(matches!(verdict.results[0].columns[1], Shown::Scanned(_)));
    let content = verdict.content.unwrap();
    let finds: Vec<(&str, bool)> =
        content.finds.iter().map(|(content, show)| (content.name(), **show == Show::Token)).collect();
    assert_eq!(finds, [("card", false), ("email", false), ("employee", true)]);
}

#[test]
fn a_denied_action_still_carries_content_masks_for_its_record() {
    let policy = sound(
        r#"
tidegate: 1
name: test
subjects: {ci: {users: [ci-runner]}}
resources: {shop: {protocol: postgres, addresses: ["10.1.2.3:5432"], credential: shop-app}}
rules:
  - {name: no-drop, subjects: [ci], resources: [shop], deny: [{statement: drop}]}
  - {name: hide, subjects: [ci], resources: [shop], masks: [cards]}
masks: {cards: {content: [card]}}
"#,
    );
    let shape = Shape { items: vec![statement("drop", "public.t")], ..Shape::default() };
    let verdict = decide(&policy, &shape);
    assert_eq!(verdict.rule.as_deref(), Some("no-drop"));
    assert!(verdict.content.is_some());
}

#[test]
fn errors_are_withheld_only_where_a_masked_column_is_touched() {
    let policy = bundle("  cards: {columns: [\"*.customers.card\"]}");
    let mut shape = select(vec![plain(NAME)]);
    assert!(decide(&policy, &shape).withhold_errors);
    shape.touched = vec!["public.orders".into()];
    assert!(!decide(&policy, &shape).withhold_errors);
}

#[test]
fn what_the_answer_names_is_looked_up_only_where_a_masked_column_is_touched() {
    let policy = bundle("  cards: {columns: [\"*.customers.card\"]}");
    let mut shape = select(vec![plain(NAME)]);
    let fields = decide(&policy, &shape).fields.expect("the table has a masked column");
    assert!(fields.show("public.customers.card").is_some() && fields.show(NAME).is_none());
    shape.touched = vec!["public.orders".into()];
    assert!(decide(&policy, &shape).fields.is_none());
}

#[test]
fn rows_are_recorded_up_to_the_largest_limit_of_the_rules_that_say_so() {
    let limits = |records: &[&str]| {
        let rules: String = records
            .iter()
            .enumerate()
            .map(|(index, record)| {
                format!("  - {{name: log-{index}, subjects: [ci], resources: [shop], record: {record}}}\n")
            })
            .collect();
        let policy = sound(&format!(
            "tidegate: 1
name: test
subjects: {{ci: {{users: [ci-runner]}}}}
resources:
  shop: {{protocol: postgres, addresses: [\"10.1.2.3:5432\"], credential: shop-app}}
rules:
  - {{name: read, subjects: [ci], resources: [shop], allow: [{{table: \"*\"}}]}}
{rules}"
        ));
        decide(&policy, &select(vec![plain(NAME)])).record_data
    };
    assert_eq!(limits(&[]), None);
    assert_eq!(limits(&["{data: true}"]), Some(64 << 20));
    assert_eq!(limits(&["{data: true, limit: 500KiB}"]), Some(500 << 10));
    assert_eq!(limits(&["{data: true, limit: 500KiB}", "{data: true, limit: 2 GiB}"]), Some(2 << 30));
}
