//! What one text may cost.

use super::{
    super::parse::Fault,
    statements::{items, words},
    *,
};

#[test]
fn a_text_that_asks_for_endless_work_is_refused() {
    let each = |count: usize, part: &dyn Fn(usize) -> String| -> String {
        (0..count).map(part).collect::<Vec<_>>().join(", ")
    };
    let doubling = each(40, &|n| format!("c{} as (select x.*, y.* from c{n} x, c{n} y)", n + 1));
    let recursive = (0..20).fold("select 1 as n".to_owned(), |inner, n| {
        format!("with recursive r{n} as (({inner}) union all select n + 1 from r{n}) select n from r{n}")
    });
    let restrictions = |column: &str| vec![format!("{column} > 1"); 5_000].join(" and ");
    for text in [
        format!("with c0 as (select 1 as a), {doubling} select 1 from c40"),
        format!("select 1 from {}", each(100_000, &|_| "notes".into())),
        format!("select * from {}", each(100_000, &|_| "notes".into())),
        format!(
            "select {} order by {}",
            each(40_000, &|n| format!("1 a{n}")),
            each(40_000, &|n| format!("a{n}"))
        ),
        format!("select 1 from {}", each(20_000, &|n| format!("nosuch{n}"))),
        format!("with recursive {} select 1", each(20_000, &|n| format!("c{n} as (select 1)"))),
        recursive,
    ] {
        assert!(attempt(&text, &shop(), &Overlay::default()).is_err(), "{}", &text[..60]);
    }
    let outputs = each(300, &|n| format!("o{n}.id"));
    let wide = each(300, &|n| format!("orders o{n}"));
    let many = format!("delete from notes where id in (select row({outputs}) from {wide} where o0.id = 1)");
    assert!(items(&many).contains("constant"), "the condition is on one range of many");
    let tangled =
        format!("delete from notes where ({}) or ({})", restrictions("id"), restrictions("length(body)"));
    assert!(words(&understood(&tangled, &shop()).shape).contains("constant"), "nothing is certain");
}

#[test]
fn a_list_of_more_outputs_than_the_server_takes_is_refused_in_its_words() {
    let stars = |n: usize| vec!["*"; n].join(", ");
    let columns = |n: usize| vec!["id"; n].join(", ");
    assert!(attempt(&format!("select {} from customers", stars(416)), &shop(), &Overlay::default()).is_ok());
    for text in [
        format!("select {} from customers", stars(417)),
        format!("select {} from customers", columns(1665)),
        format!("select count(*) from (select {} from customers) s", stars(417)),
        format!("with c as (select {} from customers) select 1 from c", stars(200_000)),
        format!("insert into notes values (1, '') returning {}", stars(1000)),
        format!("prepare p as select {} from customers", stars(417)),
        format!("declare c cursor for select {} from customers", stars(417)),
        format!("select * from json_to_record('{{}}') as r({} int)", columns(2000).replace(',', " int,")),
    ] {
        let refused = attempt(&text, &shop(), &Overlay::default()).unwrap_err();
        assert_eq!(refused.fault, Fault::TooManyOutputs, "{}", &text[..60]);
        assert_eq!(refused.reason, "target lists can have at most 1664 entries");
    }
}

#[test]
fn what_a_text_is_understood_as_takes_bounded_memory() {
    let wide = format!("select {} from customers", ["*"; 416].join(", "));
    let prepares = |count: usize| {
        let each: Vec<String> = (0..count).map(|n| format!("prepare p{n} as {wide}")).collect();
        attempt(&each.join("; "), &shop(), &Overlay::default())
    };
    let weight = prepares(20).unwrap().weight;
    assert!((20 * 1664 * size_of::<tidegate_policy::Output>()..8 << 20).contains(&weight), "{weight}");
    let refused = prepares(90).unwrap_err();
    assert_eq!(refused.reason, "what the statements do takes more memory than the gate gives");
}

#[test]
fn a_text_that_asks_for_exponentially_much_is_refused_before_it_is_made() {
    let wide = format!("select {} from customers", ["*"; 416].join(", "));
    let names: Vec<String> = (0..100_000).map(|n| format!("c{n}")).collect();
    for text in [
        [&*wide; 500].join("; "),
        format!("select {} from ({wide}) c", ["c"; 1600].join(", ")),
        format!("select * from json_to_record('{{}}') as r({} int)", names.join(" int, ")),
    ] {
        let started = std::time::Instant::now();
        assert!(attempt(&text, &shop(), &Overlay::default()).is_err(), "{}", &text[..60]);
        assert!(started.elapsed().as_secs() < 30, "{}", &text[..60]);
    }
}
