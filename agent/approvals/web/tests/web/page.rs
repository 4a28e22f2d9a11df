//! The page as browsers see it, and as those see it who would answer in somebody else's name.

use super::world::*;

#[tokio::test]
async fn whoever_has_not_logged_in_is_sent_to_the_issuer_and_told_nothing() {
    let world = World::start().await;
    let id = world.ask(false).await;
    let sent = world.browser().get(&format!("/approvals/{id}")).await;
    assert_eq!(sent.status, 303);
    assert!(sent.place().starts_with("https://login.example/?state="), "{}", sent.place());
    assert_eq!(sent.body, "");
    let cookie = &sent.cookies[0];
    for attribute in ["__Host-", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    // The same for a question that does not exist: nobody can tell them apart.
    assert_eq!(world.browser().get("/approvals/aaaa-bbbb").await.status, 303);
}

#[tokio::test]
async fn an_approver_sees_exactly_what_will_run_and_approves_it() {
    let world = World::start().await;
    let id = world.ask(true).await;
    let (mut browser, page) = world.logged_in("ann-dba", &id).await;
    assert_eq!(page.status, 200);
    for part in [
        "DELETE FROM t; --&lt;/pre&gt;&lt;script&gt;",
        "\\u{202e}",
        "with database",
        "ask: by group dba",
        "ann-dba",
        "ci-dba",
        "repository",
        "acme/&lt;shop&gt;",
    ] {
        assert!(page.body.contains(part), "no {part:?} in {}", page.body);
    }
    assert!(!page.body.contains("<script>"));
    for (name, value) in [("cache-control", "no-store"), ("x-frame-options", "DENY")] {
        assert_eq!(page.headers[name], value);
    }
    assert!(page.headers["content-security-policy"].contains("default-src 'none'"));
    assert_eq!(world.state(&id).await.last().unwrap().step, "seen");
    let path = format!("/approvals/{id}");
    let silent = browser.post(&path, Some(ORIGIN), &page.form("approve", "")).await;
    assert_eq!(silent.status, 409);
    assert!(silent.body.contains("needs a reason"), "{}", silent.body);
    let said = browser.post(&path, Some(ORIGIN), &page.form("approve", "ticket+7")).await;
    assert_eq!((said.status, said.place()), (303, &*path));
    let after = world.state(&id).await;
    assert_eq!(after.state, State::Approved);
    assert_eq!(after.last().unwrap().reason.as_deref(), Some("ticket 7"));
    assert_eq!(after.last().unwrap().by.as_deref(), Some("ann-dba of people"));
    let late = browser.post(&path, Some(ORIGIN), &page.form("deny", "x")).await;
    assert_eq!(late.status, 409);
    assert!(late.body.contains("approved already"), "{}", late.body);
}

#[tokio::test]
async fn neither_the_asker_nor_somebody_else_can_answer() {
    let world = World::start().await;
    let id = world.ask(false).await;
    let path = format!("/approvals/{id}");
    let (mut asker, own) = world.logged_in("ci-dba", &id).await;
    assert_eq!(own.status, 200);
    assert!(!own.body.contains("value=\"approve\""), "{}", own.body);
    // They may take it back, so there is a form; its approval is refused all the same.
    let said = asker.post(&path, Some(ORIGIN), &own.form("approve", "")).await;
    assert_eq!(said.status, 409);
    assert!(said.body.contains("you asked"), "{}", said.body);
    let (_, other) = world.logged_in("bob-dev", &id).await;
    assert_eq!(other.status, 404);
    assert!(other.body.contains("no question") && !other.body.contains("DELETE"), "{}", other.body);
    assert_eq!(world.state(&id).await.state, State::Waiting);
}

#[tokio::test]
async fn a_form_from_elsewhere_is_refused() {
    let world = World::start().await;
    let id = world.ask(false).await;
    let path = format!("/approvals/{id}");
    let (mut browser, page) = world.logged_in("ann-dba", &id).await;
    let form = page.form("approve", "");
    for origin in [None, Some("null"), Some("https://evil.example"), Some("http://tidegate.example")] {
        assert_eq!(browser.post(&path, origin, &form).await.status, 403, "{origin:?}");
    }
    // A GET does nothing, whatever it says.
    browser.get(&format!("{path}?{form}")).await;
    let seal = page.field("seal");
    for form in [
        "answer=approve".to_owned(),
        format!("seal={seal}&token=&answer=approve"),
        form.replace("seal=", "seal=0"),
    ] {
        assert_eq!(browser.post(&path, Some(ORIGIN), &form).await.status, 403, "{form}");
    }
    assert_eq!(world.state(&id).await.state, State::Waiting);
}

#[tokio::test]
async fn a_form_counts_for_its_login_and_its_question_alone() {
    let world = World::start().await;
    let (first, second) = (world.ask(false).await, world.ask(false).await);
    assert_ne!(first, second);
    let (mut ann, page) = world.logged_in("ann-dba", &first).await;
    let (mut eve, _) = world.logged_in("eve-dba", &first).await;
    let form = page.form("approve", "");
    assert_eq!(eve.post(&format!("/approvals/{first}"), Some(ORIGIN), &form).await.status, 403);
    assert_eq!(ann.post(&format!("/approvals/{second}"), Some(ORIGIN), &form).await.status, 403);
    for id in [&first, &second] {
        assert_eq!(world.state(id).await.state, State::Waiting);
    }
}

#[tokio::test]
async fn an_answer_to_what_was_not_shown_is_refused() {
    let world = World::start().await;
    let id = world.ask(false).await;
    let person = Person { identities: [identity("ann-dba")].into(), ..Person::default() };
    let other = Answered { say: Say::Approve, reason: None, shown: Some("0000") };
    let refused = world.desk.answer(&person, &id, other).await.unwrap_err().to_string();
    assert!(refused.contains("is not what you were shown"), "{refused}");
    let seal = world.state(&id).await.seal();
    let same = Answered { say: Say::Approve, reason: None, shown: Some(&seal) };
    assert_eq!(world.desk.answer(&person, &id, same).await.unwrap().state, State::Approved);
}

#[tokio::test]
async fn nobody_comes_in_by_an_answer_to_somebody_else_s_login() {
    let world = World::start().await;
    let id = world.ask(false).await;
    let mut thief = world.browser();
    let state =
        thief.get(&format!("/approvals/{id}")).await.place().split_once("state=").unwrap().1.to_owned();
    // The victim's browser is made to take the thief's answer, without a login of its own and with one.
    let callback = format!("/callback?code=thief-dba&state={state}&iss=people");
    let mut victim = world.browser();
    assert_eq!(victim.get(&callback).await.status, 403);
    victim.get(&format!("/approvals/{id}")).await;
    assert_eq!(victim.get(&callback).await.status, 403);
    assert!(!victim.cookies.contains_key("__Host-tidegate"));
    // A cookie of one's own making has no state that anybody knows.
    victim
        .cookies
        .insert("__Host-tidegate-login".into(), format!("00.{}.{id}", jiff::Timestamp::now().as_second()));
    assert_eq!(victim.get(&callback).await.status, 403);
    // Another issuer's answer.
    assert_eq!(thief.get(&callback.replace("iss=people", "iss=evil")).await.status, 403);
}

#[tokio::test]
async fn a_login_ends_with_its_issuer_and_by_logging_out() {
    let world = World::start().await;
    let id = world.ask(false).await;
    let (_, gone) = world.logged_in("gone-dba", &id).await;
    assert_eq!(gone.status, 303, "an issuer that is gone still counts");
    let (mut ann, page) = world.logged_in("ann-dba", &id).await;
    let before = ann.clone();
    assert_eq!(ann.post("/logout", Some("https://evil.example"), "").await.status, 403);
    assert_eq!(ann.post("/logout", Some(ORIGIN), "").await.status, 200);
    // Even for a copy of the cookie.
    let mut copy = before;
    let form = page.form("approve", "");
    assert_eq!(copy.post(&format!("/approvals/{id}"), Some(ORIGIN), &form).await.status, 303);
    assert_eq!(world.state(&id).await.state, State::Waiting);
}

#[tokio::test]
async fn what_is_no_request_of_ours_is_answered_and_changes_nothing() {
    let world = World::start().await;
    let id = world.ask(false).await;
    let (mut ann, page) = world.logged_in("ann-dba", &id).await;
    assert_eq!(ann.get("/").await.status, 404);
    assert_eq!(ann.get("/approvals/../../etc/passwd").await.status, 404);
    assert_eq!(ann.get("/approvals/%0d%0aset-cookie:x=1").await.status, 404);
    assert_eq!(ann.request("PUT / HTTP/1.1\r\nhost: x\r\n", "").await.status, 405);
    let long = format!("{}&reason={}", page.form("approve", ""), "x".repeat(10_000));
    assert_eq!(ann.post(&format!("/approvals/{id}"), Some(ORIGIN), &long).await.status, 413);
    assert_eq!(ann.get("/style.css").await.headers["content-type"], "text/css; charset=utf-8");
    assert_eq!(world.state(&id).await.state, State::Waiting);
}
