//! What holds for every bundle and every action.

use std::{collections::BTreeSet, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::select};
use tidegate_policy::{Effect, Item, Lineage, Output, Policy, Shape, Value, Verdict};

use crate::common::{runner, sound};

const STATEMENTS: [&str; 4] = ["select", "delete", "drop", "do"];
const TABLES: [&str; 3] = ["public.a", "public.b", "other.c"];
const COLUMNS: [&str; 3] = ["public.a.x", "public.a.y", "public.b.x"];
const BLOCKS: [&str; 9] = [
    "{}",
    "{statement: select}",
    "{statement: [select, delete], table: \"public.*\"}",
    "{statement: \"*\"}",
    "{statement: do}",
    "{table: public.a}",
    "{table: false, statement: select}",
    "{columns: [public.a.x]}",
    "{columns: [\"public.*\"], statement: select}",
];
const MASKS: &str = r#"
masks:
  m0: {columns: [public.a.x], show: {keep-last: 4}, derived: mask}
  m1: {columns: ["public.*.x"], show: token}
  m2: {content: [card], show: {redact: gone}, untraced: mask}
"#;

/// One rule as YAML, without its name.
fn rule() -> impl Strategy<Value = String> {
    let effect = select(vec!["allow", "allow", "allow", "hold"]);
    (effect, select(&BLOCKS[..]), vec(select(vec!["m0", "m1", "m2"]), 0..3), any::<bool>()).prop_map(
        |(effect, block, masks, subject)| {
            let subjects = if subject { "ci" } else { "\"*\"" };
            let masks = masks.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
            let approve = if effect == "hold" { ", approve: {by: {users: [ann]}}" } else { "" };
            format!(
                "subjects: [{subjects}], resources: [shop], {effect}: [{block}], masks: [{masks}]{approve}"
            )
        },
    )
}

fn shape() -> impl Strategy<Value = Shape> {
    let item =
        (select(&STATEMENTS[..]), prop::option::of(select(&TABLES[..])), vec(select(&COLUMNS[..]), 0..3));
    let item = (item, any::<bool>()).prop_map(|((statement, table, columns), names)| {
        let mut fields = vec![("action", Value::Word("statement")), ("statement", Value::Word(statement))];
        if let Some(table) = table {
            fields.push(("table", Value::Text(table.into())));
            fields.push(("columns", Value::Set(columns.into_iter().map(Arc::from).collect())));
        }
        Item { fields, must_name: (names && table.is_some()).then_some("table") }
    });
    let output = (vec(select(&COLUMNS[..]), 0..3), any::<bool>()).prop_map(|(sources, computed)| Output {
        sources: sources.into_iter().map(Arc::from).collect(),
        computed,
    });
    let lineage = (vec(output, 0..3), prop::option::of(any::<bool>())).prop_map(|(outputs, untraced)| {
        let all = |outputs: &[Output]| outputs.iter().flat_map(|output| output.sources.clone()).collect();
        let among = untraced.filter(|is_bounded| *is_bounded).map(|_| all(&outputs));
        Lineage { outputs, untraced: untraced.map(|_| Arc::from("unknown")), among }
    });
    (vec(item, 0..4), vec(lineage, 0..2), vec(select(&COLUMNS[..]), 0..2)).prop_map(
        |(items, results, influences)| Shape {
            items,
            results,
            influences: influences.into_iter().map(Arc::from).collect(),
            ..Shape::default()
        },
    )
}

/// The bundle of these rules, each with the name it had before any shuffling. Its last rules keep every mask in use
/// and decide nothing.
fn bundle(rules: &[(usize, String)], more: &str) -> Policy {
    let rules: String = rules.iter().map(|(name, rule)| format!("  - {{name: r{name}, {rule}}}\n")).collect();
    sound(&format!(
        r#"
tidegate: 1
name: test
subjects: {{ci: {{users: [ci-runner]}}, other: {{users: [other]}}}}
resources: {{shop: {{protocol: postgres, addresses: ["10.1.2.3:5432"], credential: shop-app}}}}
rules:
{rules}{more}
  - {{name: unused, subjects: [other], resources: [shop], masks: [m0, m1, m2]}}
{MASKS}"#
    ))
}

/// All of a verdict that may not depend on order.
fn told(verdict: &Verdict) -> String {
    let mut matched = verdict.matched.clone();
    matched.sort();
    let Verdict { effect, rule, message, results, content, withhold_errors, .. } = verdict;
    format!("{effect} {rule:?} {message} {results:?} {content:?} {withhold_errors} {matched:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_rules_never_matters(
        (rules, shuffled) in vec(rule(), 1..6).prop_flat_map(|rules| {
            let named: Vec<(usize, String)> = rules.into_iter().enumerate().collect();
            (Just(named.clone()), Just(named).prop_shuffle())
        }),
        shape in shape(),
    ) {
        let one = bundle(&rules, "").decide(&runner(), "shop", &shape);
        let other = bundle(&shuffled, "").decide(&runner(), "shop", &shape);
        prop_assert_eq!(told(&one), told(&other));
    }

    #[test]
    fn what_a_decision_finds_is_what_a_look_at_each_rule_finds(
        rules in vec(rule(), 0..8),
        shape in shape(),
    ) {
        let rules: Vec<(usize, String)> = rules.into_iter().enumerate().collect();
        let deny = "  - {name: no, subjects: [\"*\"], resources: [shop], deny: [{table: public.b}, {statement: drop}]}";
        let policy = bundle(&rules, deny);
        let looked = policy.explain(&runner(), "shop", &shape).rules;
        let looked: Vec<_> = looked.into_iter().filter(|rule| rule.matched).map(|rule| rule.rule).collect();
        prop_assert_eq!(policy.decide(&runner(), "shop", &shape).matched, looked);
    }

    #[test]
    fn another_deny_never_permits_anything(
        rules in vec(rule(), 1..6),
        deny in select(vec!["{table: public.b}", "{statement: drop}", "{columns: [public.a.y]}"]),
        shape in shape(),
    ) {
        let rules: Vec<(usize, String)> = rules.into_iter().enumerate().collect();
        let deny = format!("  - {{name: no, subjects: [ci], resources: [shop], executables: [/usr/bin/psql], deny: [{deny}]}}");
        let before = bundle(&rules, "").decide(&runner(), "shop", &shape);
        let after = bundle(&rules, &deny).decide(&runner(), "shop", &shape);
        prop_assert!(after.effect == before.effect || after.effect == Effect::Deny);
        prop_assert!(before.effect != Effect::Deny || after.effect == Effect::Deny);
    }

    #[test]
    fn whatever_is_permitted_has_a_rule_and_a_mask_for_every_result(rules in vec(rule(), 0..6), shape in shape()) {
        let rules: Vec<(usize, String)> = rules.into_iter().enumerate().collect();
        let verdict = bundle(&rules, "").decide(&runner(), "shop", &shape);
        if verdict.effect == Effect::Deny {
            prop_assert!(!verdict.message.is_empty() && verdict.results.is_empty());
        } else {
            prop_assert!(verdict.rule.is_some());
            prop_assert_eq!(verdict.results.len(), shape.results.len());
            for (masks, lineage) in verdict.results.iter().zip(&shape.results) {
                prop_assert!(masks.whole.is_some() || masks.columns.len() == lineage.outputs.len());
            }
        }
    }

    #[test]
    fn any_text_is_a_bundle_or_a_list_of_problems(text in "[ -~\n]{0,200}") {
        if let Err(problems) = crate::common::load(&text) {
            prop_assert!(!problems.is_empty());
        }
    }
}
