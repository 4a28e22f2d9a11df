//! What is counted, and for whom.

use tidegate_policy::{Identity, Process, Rate};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn limit(rule: &str, count: u32, per: Duration) -> Limit {
    Limit { rule: rule.into(), rate: Rate { count, per }, issuer: None }
}

fn account(uid: u32) -> Principal {
    Principal { process: Process { uid, ..Process::default() }, ..Principal::default() }
}

fn is_let(rates: &Rates, limits: &[Limit], who: &Principal, after: Duration) -> bool {
    rates.take(1, limits, who, rates.since + after).is_ok()
}

#[test]
fn never_more_than_its_count_in_any_such_time_however_they_are_spread() {
    let (rates, limits) = (Rates::default(), [limit("r", 10, MINUTE)]);
    let mut let_through: Vec<Duration> = Vec::new();
    for tenths in 0..3000 {
        // Bursts and pauses: a prime, so that they meet each part of the minute.
        if (tenths / 37) % 2 == 0 {
            let now = Duration::from_millis(tenths * 100);
            if is_let(&rates, &limits, &account(1), now) {
                let_through.push(now);
            }
        }
    }
    assert!(let_through.len() >= 40, "the rate is used up: {}", let_through.len());
    for eleven in let_through.windows(11) {
        assert!(eleven[10] - eleven[0] >= MINUTE, "{eleven:?}");
    }
}

#[test]
fn who_is_told_when_to_come_again_is_let_through_then_and_not_before() {
    let (rates, limits) = (Rates::default(), [limit("r", 2, MINUTE)]);
    let at = |seconds| rates.since + Duration::from_secs(seconds);
    rates.take(1, &limits, &account(1), at(7)).unwrap();
    rates.take(1, &limits, &account(1), at(20)).unwrap();
    let Err(Over { why: Why::Done(again), .. }) = rates.take(1, &limits, &account(1), at(30)) else {
        panic!("it is let through")
    };
    assert!((37..=39).contains(&again.as_secs()), "{again:?}");
    let just_before = at(30) + again - Duration::from_nanos(1);
    rates.take(1, &limits, &account(1), just_before).unwrap_err();
    rates.take(1, &limits, &account(1), at(30) + again).unwrap();
    rates.take(1, &limits, &account(1), at(30) + again).unwrap_err();
}

#[test]
fn one_account_is_counted_once_whatever_its_processes_and_another_by_itself() {
    let (rates, limits) = (Rates::default(), [limit("r", 1, MINUTE)]);
    assert!(is_let(&rates, &limits, &account(1), Duration::ZERO));
    let other_process = Process { uid: 1, pid: 7, ..Process::default() };
    let sub_uid = Process { uid: 100_001, sub_uid_of: Some(1), ..Process::default() };
    for process in [other_process, sub_uid] {
        let same = Principal { process, ..Principal::default() };
        assert!(!is_let(&rates, &limits, &same, Duration::ZERO));
    }
    assert!(is_let(&rates, &limits, &account(2), Duration::ZERO));
}

#[test]
fn where_a_rule_asks_an_issuer_each_of_its_subjects_is_counted_by_itself_whatever_the_account() {
    let asked = Limit { issuer: Some("people".into()), ..limit("r", 1, MINUTE) };
    let rates = Rates::default();
    let is = |subject: &str, uid| {
        let ann = Identity {
            issuer: "people".into(),
            url: "https://id.example".into(),
            account: None,
            subject: subject.into(),
            groups: Vec::new(),
            expires: 0,
            claims: serde_json::Map::default(),
        };
        Principal { identities: [ann].into(), ..account(uid) }
    };
    let let_through = |who: &Principal| is_let(&rates, std::slice::from_ref(&asked), who, Duration::ZERO);
    assert!(let_through(&is("ann", 1)) && !let_through(&is("ann", 2)));
    assert!(let_through(&is("bob", 1)));
    assert!(let_through(&account(1)) && !let_through(&account(1)));
}

#[test]
fn what_one_limit_stops_counts_for_no_other() {
    let rates = Rates::default();
    let both = [limit("many", 2, MINUTE), limit("one", 1, MINUTE)];
    assert!(is_let(&rates, &both, &account(1), Duration::ZERO));
    for _ in 0..3 {
        let over = rates.take(1, &both, &account(1), rates.since).unwrap_err();
        assert_eq!(&*over.limit.rule, "one");
    }
    assert!(is_let(&rates, &both[..1], &account(1), Duration::ZERO));
    assert!(!is_let(&rates, &both[..1], &account(1), Duration::ZERO));
}

#[test]
fn what_does_several_things_at_once_is_let_through_whole_or_not_at_all() {
    let (rates, limits) = (Rates::default(), [limit("r", 3, MINUTE)]);
    let take = |count| rates.take(count, &limits, &account(1), rates.since);
    let never = take(4).unwrap_err();
    assert_eq!((never.count, never.why), (4, Why::Never));
    take(2).unwrap();
    assert!(matches!(take(2).unwrap_err().why, Why::Done(again) if again >= MINUTE));
    take(1).unwrap();
    take(1).unwrap_err();
    take(0).unwrap();
}

#[test]
fn a_rule_that_comes_to_say_another_rate_gives_nothing_back() {
    let rates = Rates::default();
    assert!(is_let(&rates, &[limit("r", 3, MINUTE)], &account(1), Duration::ZERO));
    assert!(is_let(&rates, &[limit("r", 3, MINUTE)], &account(1), Duration::ZERO));
    let hour = [limit("r", 3, MINUTE * 60)];
    assert!(is_let(&rates, &hour, &account(1), Duration::from_secs(1)));
    assert!(!is_let(&rates, &hour, &account(1), Duration::from_secs(1)));
    assert!(is_let(&rates, &[limit("r", 4, MINUTE)], &account(1), Duration::from_secs(2)));
}

#[test]
fn whoever_makes_up_principals_fills_no_memory_and_gets_no_more() {
    let (rates, limits) = (Rates::default(), [limit("r", 1, MINUTE)]);
    let most = u32::try_from(MOST).unwrap();
    for uid in 0..most {
        assert!(is_let(&rates, &limits, &account(uid), Duration::ZERO));
    }
    let over = rates.take(1, &limits, &account(most), rates.since).unwrap_err();
    assert_eq!(over.why, Why::Full, "one too many");
    assert!(!is_let(&rates, &limits, &account(0), Duration::ZERO), "nobody was forgotten for it");
    assert!(is_let(&rates, &limits, &account(most), MINUTE * 2), "there is room again");
}

#[test]
fn root_in_a_container_has_one_rate_with_all_its_user_ids_and_takes_nobody_s_room() {
    let (rates, limits) = (Rates::default(), [limit("r", 1, MINUTE)]);
    let contained = |uid| {
        let process = Process { uid, container: Some("4f2".into()), ..Process::default() };
        Principal { process, ..Principal::default() }
    };
    let let_through = (0..100_000).filter(|uid| is_let(&rates, &limits, &contained(*uid), Duration::ZERO));
    assert_eq!(let_through.count(), 1);
    assert!(is_let(&rates, &limits, &account(7), Duration::ZERO));
}

#[test]
fn who_acts_as_many_takes_an_eighth_of_the_room_and_is_told_the_truth() {
    let rates = Rates::default();
    let rule = |number: usize| [limit(&number.to_string(), 1, MINUTE)];
    let let_through =
        (0..MOST).filter(|rule_no| is_let(&rates, &rule(*rule_no), &account(1), Duration::ZERO));
    assert_eq!(let_through.count(), MOST_OF_ONE);
    let over = rates.take(1, &rule(MOST), &account(1), rates.since).unwrap_err();
    assert_eq!((&over.why, over.cause()), (&Why::Full, Cause::Rate(MINUTE)));
    assert!(is_let(&rates, &rule(MOST), &account(2), Duration::ZERO));
    assert!(is_let(&rates, &rule(MOST), &account(1), MINUTE * 2), "there is room again");
}

#[test]
fn to_look_whether_there_is_room_takes_none() {
    let (rates, limits) = (Rates::default(), [limit("r", 1, MINUTE)]);
    for _ in 0..3 {
        rates.look(1, &limits, &account(1), rates.since).unwrap();
    }
    assert!(is_let(&rates, &limits, &account(1), Duration::ZERO));
    rates.look(1, &limits, &account(1), rates.since).unwrap_err();
}
