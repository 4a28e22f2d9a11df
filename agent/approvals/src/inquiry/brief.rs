//! A question in short, for lists: small, however large its asker made it.

use std::sync::Arc;

use serde_json::Map;
use tidegate_gate::policy::{Identity, Principal, Process};

use super::{Event, Inquiry};

/// Longest text in a brief, in bytes of JSON.
const LONGEST: usize = 256;

impl Inquiry {
    /// In short, for lists: who asks, the beginning of what would run, where, by which rules, and what happened last. It tells
    /// who may see the question as the whole does.
    pub(crate) fn brief(&self) -> Self {
        let last: Vec<Event> = self.trail.last().map(in_short).into_iter().collect();
        // What is left out may be large: it isn't copied first.
        let brief = Self {
            id: self.id.clone(),
            host: self.host.clone(),
            session: self.session.clone(),
            name: beginning(&self.name).into(),
            text: beginning(&self.text),
            particulars: Vec::new(),
            exact: String::new(),
            principal: asker(&self.principal),
            resource: self.resource.clone(),
            protocol: self.protocol.clone(),
            policy: self.policy.clone(),
            terms: self.terms.clone(),
            agreed: Vec::new(),
            claimed: self.claimed.clone(),
            trail: last,
            ..*self
        };
        brief.shown()
    }
}

/// Who asks: what a person goes by to know them, and what tells whether that person is them.
fn asker(principal: &Principal) -> Principal {
    let process = &principal.process;
    let short = |text: &Option<Arc<str>>| text.as_deref().map(|text| beginning(text).into());
    let identity = |of: &Identity| Identity {
        issuer: of.issuer.clone(),
        url: of.url.clone(),
        account: None,
        subject: of.subject.clone(),
        groups: Vec::new(),
        expires: of.expires,
        claims: Map::default(),
    };
    Principal {
        subjects: principal.subjects.clone(),
        process: Process {
            pid: process.pid,
            start_time: process.start_time,
            uid: process.uid,
            sub_uid_of: process.sub_uid_of,
            gid: process.gid,
            user: process.user.clone(),
            nameless: process.nameless,
            command: beginning(&process.command).into(),
            executable: process.executable.as_deref().map(|path| end(path).into()),
            executable_sha256: process.executable_sha256.clone(),
            unit: short(&process.unit),
            container: short(&process.container),
            ..Process::default()
        },
        identities: principal.identities.iter().map(identity).collect(),
        unproven: Arc::default(),
    }
}

fn in_short(event: &Event) -> Event {
    let short = |text: &Option<String>| text.as_deref().map(beginning);
    Event {
        time: event.time,
        step: event.step.clone(),
        by: short(&event.by),
        reason: short(&event.reason),
        seal: None,
    }
}

/// Bytes of a character in a JSON text (RFC 8259, section 7).
fn written(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

/// How many of these characters a brief has room for; none if for all.
fn room(characters: impl Iterator<Item = char>) -> Option<usize> {
    let mut bytes = 0;
    let mut length = characters.map(|character| {
        bytes += written(character);
        bytes
    });
    length.position(|length| length > LONGEST)
}

/// As much of a text as there is room for, and a sign if there is more.
fn beginning(text: &str) -> String {
    match room(text.chars()) {
        Some(most) => text.chars().take(most).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// The end of a path, which says more than its beginning, and a sign if there is more.
fn end(path: &str) -> String {
    match room(path.chars().rev()) {
        Some(most) => {
            let left_out = path.chars().count().saturating_sub(most);
            ['…'].into_iter().chain(path.chars().skip(left_out)).collect()
        }
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_what_it_takes_to_write_it() {
        assert_eq!(beginning(&"x".repeat(LONGEST)), "x".repeat(LONGEST));
        for (text, most) in [("x", LONGEST), ("é", LONGEST / 2), ("\u{1}", LONGEST / 6), ("\"", LONGEST / 2)]
        {
            let cut = beginning(&text.repeat(LONGEST + 1));
            assert_eq!(cut, text.repeat(most) + "…");
            assert!(serde_json::to_string(&cut).is_ok_and(|json| json.len() <= LONGEST + "\"\"…".len()));
        }
    }

    #[test]
    fn of_a_path_the_end_is_kept() {
        assert_eq!(end("/usr/bin/psql"), "/usr/bin/psql");
        let cut = end(&format!("/{}/psql", "é/".repeat(2_000)));
        assert!(cut.starts_with('…') && cut.ends_with("/psql"), "{cut}");
        assert!(cut.len() <= LONGEST + "…".len());
    }
}
