//! Messages that people read in their chat. Texts that others wrote go only where no markup is read.

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_gate::{Lines, Plain};

use crate::Fact;

/// Most characters of what will run: Slack takes 3,000 in a block, Teams 28 KB in a message. The page has the rest.
const LONGEST: usize = 2_000;
/// Most characters of any other text.
const LONGEST_FACT: usize = 300;

/// What a message says, whatever its form.
struct Words {
    title: String,
    facts: Vec<(&'static str, String)>,
    runs: String,
    link: Option<String>,
}

impl Words {
    fn of(letter: &Value, wanted: &[Fact]) -> Self {
        let text = |path: &str| letter.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let event = text("/data/event");
        let id = text("/data/question/id");
        let title = match event {
            "asked" => format!("Approval {id} is asked for"),
            "break-glass" => format!("ALERT: glass broken for {id}, a review is owed"),
            "agreed" => format!("Approval {id}: one yes, more are needed"),
            "reviewed" => format!("{id}, which ran at once, was reviewed"),
            other => format!("Approval {id} was {other}"),
        };
        let told = letter.pointer("/data/facts").and_then(Value::as_array).into_iter().flatten();
        let facts = told.filter_map(|told| {
            let fact = Fact::deserialize(told.get("fact")?).ok().filter(|fact| wanted.contains(fact))?;
            Some((fact.caption(), plain(told.get("text")?.as_str()?)))
        });
        Self {
            title,
            facts: facts.collect(),
            runs: cut(&Lines(text("/data/question/text")).to_string(), LONGEST),
            link: letter.pointer("/data/question/link").and_then(Value::as_str).map(Into::into),
        }
    }
}

/// A message with blocks (Slack's "Sending messages using incoming webhooks" and "Block Kit").
pub(super) fn slack(letter: &Value, wanted: &[Fact]) -> Value {
    let Words { title, facts, runs, link } = Words::of(letter, wanted);
    let text = |text: &str| json!({"type": "plain_text", "text": text, "emoji": false});
    let facts: Vec<Value> = facts.iter().map(|(name, fact)| text(&format!("{name}: {fact}"))).collect();
    let mut blocks = vec![json!({"type": "header", "text": text(&title)})];
    // At most ten, and not none.
    blocks.extend((!facts.is_empty()).then(|| json!({"type": "section", "fields": facts})));
    blocks.push(json!({"type": "rich_text", "elements": [
        {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": runs}]},
    ]}));
    if let Some(link) = link {
        let words = "Look at it and answer";
        blocks.push(json!({"type": "rich_text", "elements": [
            {"type": "rich_text_section", "elements": [{"type": "link", "url": link, "text": words}]},
        ]}));
    }
    json!({"text": title, "blocks": blocks})
}

/// A message with an adaptive card (Microsoft's "Create incoming webhooks with Workflows for Microsoft Teams"). Text
/// runs, unlike text blocks, read no Markdown.
pub(super) fn teams(letter: &Value, wanted: &[Fact]) -> Value {
    let Words { title, facts, runs, link } = Words::of(letter, wanted);
    let run = |text: &str, font: &str, bold: bool| {
        let weight = if bold { "Bolder" } else { "Default" };
        json!({"type": "RichTextBlock", "inlines": [
            {"type": "TextRun", "text": text, "fontType": font, "weight": weight},
        ]})
    };
    let mut body = vec![run(&title, "Default", true)];
    body.extend(facts.iter().map(|(name, fact)| run(&format!("{name}: {fact}"), "Default", false)));
    let runs: Vec<Value> = runs.lines().map(|line| run(line, "Monospace", false)).collect();
    body.push(json!({"type": "Container", "style": "emphasis", "items": runs}));
    let actions =
        link.map(|link| json!({"type": "Action.OpenUrl", "title": "Look at it and answer", "url": link}));
    json!({"type": "message", "attachments": [{
        "contentType": "application/vnd.microsoft.card.adaptive",
        "content": {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": body,
            "actions": actions.into_iter().collect::<Vec<_>>(),
        },
    }]})
}

fn plain(text: &str) -> String {
    cut(&Plain(text).to_string(), LONGEST_FACT)
}

fn cut(text: &str, most: usize) -> String {
    let mut characters = text.chars();
    let mut kept: String = characters.by_ref().take(most).collect();
    if characters.next().is_some() {
        kept.push_str(" … (cut: there is more)");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(event: &str, text: &str) -> Value {
        json!({"data": {
            "event": event, "by": "ann", "reason": "<!channel> *x*",
            "facts": [
                {"fact": "asker", "name": "Who asks", "text": "ci on runner-1"},
                {"fact": "job", "name": "Job", "text": "repo:acme/shop of github; ref: refs/heads/main"},
                {"fact": "at", "name": "Server", "text": "db-2.internal:5432"},
                {"fact": "rule", "name": "Rule", "text": "ask"},
                {"fact": "may-approve", "name": "May approve", "text": "group dba (people)"},
                {"fact": "reason", "name": "Reason", "text": "<!channel> *x*"},
                {"fact": "of-a-later-agent", "name": "?", "text": "?"},
            ],
            "question": {
                "id": "k7f2-9qmd", "host": "runner-1", "resource": "shop", "protocol": "postgres", "text": text,
                "rules": ["ask"], "may-approve": "group dba (people)", "link": "https://tidegate.example/approvals/k7f2-9qmd",
            },
            "asker": {"name": "ci", "executable": "/usr/bin/psql"},
        }})
    }

    fn slack_of(letter: &Value) -> Value {
        slack(letter, &Fact::ALL)
    }

    fn teams_of(letter: &Value) -> Value {
        teams(letter, &Fact::ALL)
    }

    /// Every text beside those of which markup is read.
    fn marked_up(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
                if matches!(kind, "mrkdwn" | "TextBlock" | "Fact") {
                    found.push(value.to_string());
                }
                object.values().for_each(|value| marked_up(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| marked_up(value, found)),
            _ => {}
        }
    }

    #[test]
    fn a_message_says_what_will_run_who_asks_and_where_to_answer() {
        for message in
            [slack_of(&letter("asked", "DELETE FROM t")), teams_of(&letter("asked", "DELETE FROM t"))]
        {
            let text = message.to_string();
            for part in [
                "k7f2-9qmd is asked for",
                "DELETE FROM t",
                "ci on runner-1",
                "Rule: ask",
                "group dba",
                "Job: repo:acme/shop of github",
                "Server: db-2.internal:5432",
            ] {
                assert!(text.contains(part), "no {part:?} in {text}");
            }
            assert!(text.contains("https://tidegate.example/approvals/k7f2-9qmd"), "{text}");
        }
    }

    #[test]
    fn what_will_run_stands_apart_and_passes_for_nothing_of_ours() {
        let hostile = letter("asked", "DELETE FROM t\nWhere: scratch (postgres)");
        let message = teams_of(&hostile);
        let body = message["attachments"][0]["content"]["body"].as_array().unwrap();
        let with_it: Vec<_> = body.iter().filter(|part| part.to_string().contains("scratch")).collect();
        assert!(matches!(&with_it[..], [only] if only["type"] == "Container"), "{with_it:?}");
        let message = slack_of(&hostile);
        let blocks = message["blocks"].as_array().unwrap();
        let with_it: Vec<_> = blocks.iter().filter(|part| part.to_string().contains("scratch")).collect();
        let [only] = with_it[..] else { panic!("{with_it:?}") };
        assert_eq!(only["elements"][0]["type"], "rich_text_preformatted");
    }

    #[test]
    fn a_receiver_is_told_the_facts_that_it_wants_and_no_others() {
        for wanted in [&[Fact::At, Fact::Rule][..], &[]] {
            for message in [slack(&letter("asked", "x"), wanted), teams(&letter("asked", "x"), wanted)] {
                let text = message.to_string();
                for fact in Fact::ALL {
                    let is_told = text.contains(&format!("{}: ", fact.caption()));
                    assert_eq!(is_told, wanted.contains(&fact), "{fact:?} in {text}");
                }
                assert!(!text.contains("\"fields\":[]"), "{text}");
            }
        }
    }

    #[test]
    fn broken_glass_is_an_alert() {
        for message in [slack_of(&letter("break-glass", "x")), teams_of(&letter("break-glass", "x"))] {
            assert!(message.to_string().contains("ALERT: glass broken"), "{message}");
        }
    }

    #[test]
    fn what_others_wrote_is_never_read_as_markup() {
        let hostile = "```<!channel> [x](https://evil.example) \u{202e}txt\u{1b}[2J";
        for message in [slack_of(&letter("denied", hostile)), teams_of(&letter("denied", hostile))] {
            let mut found = Vec::new();
            marked_up(&message, &mut found);
            assert!(found.is_empty(), "{found:?}");
            let text = message.to_string();
            assert!(!text.contains('\u{202e}') && !text.contains("\\u001b"), "{text}");
        }
        // The fallback is read with markup.
        assert_eq!(slack_of(&letter("denied", hostile))["text"], "Approval k7f2-9qmd was denied");
    }

    #[test]
    fn a_long_statement_is_cut_and_says_so() {
        let message = slack_of(&letter("asked", &"x".repeat(10_000))).to_string();
        assert!(message.len() < 4_000 && message.contains("cut: there is more"), "{}", message.len());
    }
}
