//! What is told of a question in one line each, where there is room for no more.

use serde::{Deserialize, Serialize};

use super::{Event, Inquiry};

/// What a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Whose account, on which host.
    Asker,
    /// From which program.
    Program,
    /// As whom issuers know it, and what they say of it: repository, workflow, actor.
    Job,
    /// On which resource.
    Where,
    /// On which of its servers.
    At,
    /// By which rules.
    Rule,
    /// Whom they name.
    MayApprove,
    /// Who did what is told.
    By,
    /// And why.
    Reason,
}

impl Fact {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 9] = [
        Self::Asker,
        Self::Program,
        Self::Job,
        Self::Where,
        Self::At,
        Self::Rule,
        Self::MayApprove,
        Self::By,
        Self::Reason,
    ];

    /// What stands before it.
    pub(crate) fn caption(self) -> &'static str {
        match self {
            Self::Asker => "Who asks",
            Self::Program => "Program",
            Self::Job => "Job",
            Self::Where => "Where",
            Self::At => "Server",
            Self::Rule => "Rule",
            Self::MayApprove => "May approve",
            Self::By => "By",
            Self::Reason => "Reason",
        }
    }
}

impl Inquiry {
    /// What there is to tell of what happened to it.
    pub(crate) fn facts(&self, event: &Event) -> Vec<(Fact, String)> {
        let told = |fact| (fact, self.fact(fact, event));
        let told = Fact::ALL.into_iter().map(told);
        // Who asks is told already.
        let is_news = |fact: &Fact| *fact != Fact::By || event.step != "asked";
        told.filter(|(fact, text)| is_news(fact) && !text.is_empty()).collect()
    }

    fn fact(&self, fact: Fact, event: &Event) -> String {
        match fact {
            Fact::Asker => format!("{} on {}", self.asker().name, self.host),
            Fact::Program => self.principal.process.executable.as_deref().unwrap_or_default().to_owned(),
            Fact::Job => {
                let identities = self.principal.identities.iter().map(|identity| {
                    let said = |(name, value): (&String, &serde_json::Value)| match value.as_str() {
                        Some(text) => format!("; {name}: {}", quoted(text)),
                        None => format!("; {name}: {value}"),
                    };
                    let claims: String = identity.claims.iter().map(said).collect();
                    format!("{} of {}{claims}", quoted(&identity.subject), identity.issuer)
                });
                identities.collect::<Vec<_>>().join(", ")
            }
            Fact::Where => format!("{} ({})", self.resource, self.protocol),
            Fact::At => {
                let mut at = self.particulars.iter().filter(|(name, _)| name == "at");
                at.next().map(|(_, server)| server.clone()).unwrap_or_default()
            }
            Fact::Rule => {
                let rules: Vec<&str> = self.terms.iter().map(|term| &*term.held.rule).collect();
                rules.join(", ")
            }
            Fact::MayApprove => self.asked_people(),
            Fact::By => event.by.clone().unwrap_or_default(),
            Fact::Reason => event.reason.clone().unwrap_or_default(),
        }
    }
}

/// A text that others wrote, which passes for no more than one: between quotes unless it is plain.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/@:-".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_called_a_workflow_is_one_value_however_it_is_called() {
        assert_eq!(quoted("repo:acme/shop:ref:refs/heads/main"), "repo:acme/shop:ref:refs/heads/main");
        assert_eq!(quoted("build; ref: refs/heads/main"), "\"build; ref: refs/heads/main\"");
        assert_eq!(quoted("a\" b"), "\"a\\\" b\"");
    }
}
