//! What a decision costs as a bundle grows: `cargo xtask bench decide`.

use std::{
    fmt::Write,
    hint::black_box,
    time::{Duration, Instant},
};

use tidegate_policy::{Effect, Policy, Principal, Shape};

use crate::common::{runner, shape, sound, statement};

/// Each figure is the median of so many rounds, unless `TIDEGATE_BENCH_ROUNDS` says otherwise, of so many decisions.
const ROUNDS: usize = 15;
const DECISIONS: u32 = 2_000;

/// Rules that cannot match, each in one way: by resource and subject, by statement, by table, by a table's prefix.
const KINDS: [&str; 5] = [
    "subjects: [other], resources: [shop], allow: [{statement: select, table: \"public.*\"}]",
    "subjects: [ci], resources: [other], allow: [{statement: select, table: \"public.*\"}]",
    "subjects: [ci], resources: [shop], deny: [{statement: [vacuum, comment], table: \"public.*\"}]",
    "subjects: [ci], resources: [shop], allow: [{statement: select, table: \"tenant-{n}.orders\"}]",
    "subjects: [ci], resources: [shop], deny: [{statement: \"*\", table: \"archive-{n}.*\"}]",
];

fn bundle(rules: usize) -> Policy {
    let mut text = String::from(
        r#"tidegate: 1
name: test
subjects: {ci: {users: [ci-runner]}, other: {users: [other]}}
resources:
  shop: {protocol: postgres, addresses: ["10.1.2.3:5432"], credential: shop-app}
  other: {protocol: postgres, addresses: ["10.1.2.4:5432"], credential: shop-app}
masks:
  cards: {columns: ["public.customers.card"], show: token}
rules:
  - {name: read, subjects: [ci], resources: [shop], allow: [{statement: select, table: "public.*"}], masks: [cards]}
  - {name: no-drop, subjects: ["*"], resources: [shop], deny: [{statement: [drop, truncate]}]}
"#,
    );
    for (number, kind) in (2..rules).zip(KINDS.iter().cycle()) {
        let kind = kind.replace("{n}", &number.to_string());
        writeln!(text, "  - {{name: r{number}, {kind}}}").unwrap();
    }
    sound(&text)
}

/// Time for one decision.
fn measure(policy: &Policy, principal: &Principal, shape: &Shape, expected: Effect) -> Duration {
    let asked = std::env::var("TIDEGATE_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let mut rounds: Vec<Duration> = (0..asked.unwrap_or(ROUNDS).max(1))
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..DECISIONS {
                let verdict = policy.decide(black_box(principal), "shop", black_box(shape));
                assert_eq!(black_box(verdict).effect, expected);
            }
            begun.elapsed() / DECISIONS
        })
        .collect();
    rounds.sort_unstable();
    let middle = rounds.len() / 2;
    rounds.into_iter().nth(middle).unwrap()
}

#[test]
#[ignore = "a measurement"]
fn a_decision_costs_the_same_however_many_rules_cannot_match() {
    let allowed = shape(vec![statement("select", "public.orders"), statement("select", "public.customers")]);
    let denied = shape(vec![statement("drop", "public.orders")]);
    let ungranted = shape(vec![statement("insert", "public.orders")]);
    println!("| rules | allowed (two tables) | denied by a rule | allowed by none |\n|---:|---:|---:|---:|");
    let mut slowest = Vec::new();
    for rules in [10, 1_000, 10_000] {
        let policy = bundle(rules);
        let times = [(&allowed, Effect::Allow), (&denied, Effect::Deny), (&ungranted, Effect::Deny)]
            .map(|(shape, expected)| measure(&policy, &runner(), shape, expected));
        let figures = times.map(|time| format!("{:.2} µs", time.as_secs_f64() * 1e6));
        println!("| {rules} | {} |", figures.join(" | "));
        slowest.extend(times.into_iter().max());
    }
    // As it is shipped: what isn't optimised takes twenty times as long.
    if cfg!(not(debug_assertions)) {
        assert!(slowest.iter().all(|time| *time < Duration::from_micros(5)), "{slowest:?}");
        let (few, many) = (slowest.first().unwrap(), slowest.last().unwrap());
        assert!(*many < *few * 2, "10 rules: {few:?}, 10,000 rules: {many:?}");
    }
}

#[test]
fn a_bundle_of_many_rules_loads_in_a_time_that_grows_with_their_number() {
    let load = |rules: usize| {
        let mut text = String::from(
            "tidegate: 1\nname: test\nsubjects: {ci: {users: [ci-runner]}}\nresources:\n  \
             shop: {protocol: postgres, addresses: [\"10.1.2.3:5432\"], credential: shop-app}\nrules:\n",
        );
        for number in 0..rules {
            let effect = if number % 2 == 0 { "deny" } else { "allow" };
            writeln!(
                text,
                "  - {{name: r{number}, subjects: [ci], resources: [shop], {effect}: [{{statement: select, table: \"t.{number}\"}}]}}"
            )
            .unwrap();
        }
        let begun = Instant::now();
        sound(&text);
        begun.elapsed()
    };
    load(100);
    let (few, many) = (load(1_000), load(8_000));
    // Eight times as many; if each looked at all others, it would be 64 times as long.
    assert!(many < few * 24, "1,000 rules: {few:?}, 8,000 rules: {many:?}");
}
