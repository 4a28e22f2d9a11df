//! Promises about actions that wait for people, and about those that only somebody an issuer knows may do.

use std::mem;

use tokio::time::timeout;

use super::{Memory, PATIENCE, SILENCE, Stage, Words, contains};
use crate::Step;

/// A held action does not arrive before somebody says yes; then it does, in the same connection, which goes on.
pub async fn a_held_action_waits_for_a_yes_and_goes_on_in_its_connection(words: Words) {
    let mut stage = Stage::holding(&words).await;
    let ((_, marker), (allowed, known_by)) = (&words.held, &words.allowed);
    stage.rig.people.approve("q1");
    stage.upstream_gets(marker).await;
    let heard = stage.hear(&words).await;
    assert!(!(words.is_refusal)(&heard), "it was refused after a yes: {}", heard.escape_ascii());
    stage.say(allowed).await;
    stage.upstream_gets(known_by).await;
    assert!(!(words.is_refusal)(&stage.hear(&words).await), "the session is not usable afterwards");
    assert_eq!(stage.steps(), ["asked", "approved"]);
}

/// A held action that nobody says yes to never arrives and is refused in the protocol's own terms, with what became of the
/// question; the session goes on.
pub async fn a_held_action_without_a_yes_is_refused_and_the_session_goes_on(words: Words) {
    for (word, by, told) in [("denied", Some("ann"), "denied"), ("expired", None, "nobody answered in time")]
    {
        let mut stage = Stage::holding(&words).await;
        let ((_, marker), (allowed, known_by)) = (&words.held, &words.allowed);
        let refused = Step::Refused { word: word.into(), by: by.map(Into::into), reason: None };
        stage.rig.people.answer("q1", refused);
        let heard = stage.hear(&words).await;
        assert!((words.is_refusal)(&heard), "not a refusal: {}", heard.escape_ascii());
        assert!(contains(&heard, told.as_bytes()), "it is not told of: {}", heard.escape_ascii());
        let received = stage.upstream_gets_within(SILENCE).await;
        assert!(!contains(&received, marker), "it arrived: {}", received.escape_ascii());
        stage.say(allowed).await;
        stage.upstream_gets(known_by).await;
        assert!(!(words.is_refusal)(&stage.hear(&words).await), "the session is not usable afterwards");
        assert_eq!(stage.steps(), ["asked", word]);
    }
}

/// A client that goes away takes its question back, and what it asked for never arrives.
pub async fn a_client_that_goes_away_takes_its_question_back(words: Words) {
    let mut stage = Stage::holding(&words).await;
    let (other, session) = stage.rig.connect().await;
    session.abort();
    drop(mem::replace(&mut stage.rig.client, other));
    let withdrawn = stage.rig.people.withdrawn(1).await;
    assert!(withdrawn.iter().all(|(id, _)| id == "q1"), "{withdrawn:?}");
    let ended = timeout(PATIENCE, &mut stage.rig.session).await;
    assert!(ended.is_ok(), "the session does not end");
    let received = stage.upstream_gets_within(SILENCE).await;
    assert!(!contains(&received, words.held.1), "it arrived: {}", received.escape_ascii());
}

/// An agent that stops leaves the question standing: the answer counts when the client comes back.
pub async fn an_agent_that_stops_leaves_a_question_standing(words: Words) {
    let mut stage = Stage::holding(&words).await;
    stage.rig.stop();
    stage.rig.grace_ends();
    let ended = timeout(PATIENCE, &mut stage.rig.session).await;
    assert!(ended.is_ok(), "the session does not end");
    assert!(stage.rig.people.withdrawn(0).await.is_empty(), "the question was taken back");
    let received = stage.upstream_gets_within(SILENCE).await;
    assert!(!contains(&received, words.held.1), "it arrived: {}", received.escape_ascii());
}

/// What a rule allows to whom an issuer knows is allowed for as long as it does.
pub async fn what_an_identity_lets_do_ends_with_it(words: Words) {
    let mut stage = Stage::signed_in(&words, Memory::default()).await;
    let ((vouched, marker), (allowed, known_by)) = (&words.vouched, &words.allowed);
    stage.say(vouched).await;
    assert!((words.is_refusal)(&stage.hear(&words).await), "nobody vouched for it");
    stage.rig.identify(&["ann"]);
    let received = stage.upstream_gets_within(SILENCE).await;
    assert!(!contains(&received, marker), "it arrived: {}", received.escape_ascii());
    stage.say(vouched).await;
    stage.upstream_gets(marker).await;
    let heard = stage.hear(&words).await;
    assert!(!(words.is_refusal)(&heard), "an issuer vouched for it: {}", heard.escape_ascii());
    stage.upstream_gets_within(SILENCE).await;
    stage.rig.identify(&[]);
    stage.say(vouched).await;
    assert!((words.is_refusal)(&stage.hear(&words).await), "nobody vouches for it any more");
    let received = stage.upstream_gets_within(SILENCE).await;
    assert!(!contains(&received, marker), "it arrived: {}", received.escape_ascii());
    stage.say(allowed).await;
    stage.upstream_gets(known_by).await;
    assert!(!(words.is_refusal)(&stage.hear(&words).await), "the session is not usable afterwards");
}

impl Stage {
    /// Signed in, with an action that waits for people: the first question. Nothing of it has arrived.
    async fn holding(words: &Words) -> Self {
        let mut stage = Self::signed_in(words, Memory::default()).await;
        let (held, marker) = &words.held;
        stage.say(held).await;
        stage.rig.people.question(1).await;
        let early = stage.upstream_gets_within(SILENCE).await;
        assert!(!contains(&early, marker), "it arrived before anybody said yes: {}", early.escape_ascii());
        stage
    }

    /// The steps of approvals that the record tells of.
    fn steps(&self) -> Vec<String> {
        let lines = self.rig.memory.lines();
        let steps = lines.iter().filter(|line| line["type"] == "approval");
        steps.map(|line| line["step"].as_str().unwrap_or_default().to_owned()).collect()
    }
}
