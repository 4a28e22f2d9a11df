//! Why a decision is what it is, rule by rule.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{
    Carried, Effect, Policy, Principal, Shape,
    decide::{Spelled, Told},
    matcher::Mismatch,
    rule::{NotFor, Rule},
};

/// Why a decision is what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was decided.
    pub effect: Effect,
    /// The rule that decided; none for the default deny.
    pub rule: Option<Arc<str>>,
    /// What the client reads, if it is not allowed.
    pub message: Arc<str>,
    /// What was asked, in words: all that rules can see of it.
    pub items: Vec<String>,
    /// Every rule of the bundle.
    pub rules: Vec<RuleExplanation>,
}

/// What one rule had to do with a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleExplanation {
    /// The rule's name.
    pub rule: Arc<str>,
    /// Its effect; none for a rule that only adds masks or records.
    pub effect: Option<Effect>,
    /// Whether it had to do with any item.
    pub matched: bool,
    /// Why it matched or did not.
    pub why: String,
    /// The masks it adds, if it matched.
    pub masks: Vec<Arc<str>>,
    /// How often it lets one principal do this, in words, if it matched and limits that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// The placeholders it fills here, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fills: Vec<String>,
    /// The client's own credentials that it lets pass here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passes: Vec<Arc<str>>,
}

impl Policy {
    /// Explains the decision on an action.
    pub fn explain(&self, principal: &Principal, resource: &str, shape: &Shape) -> Explanation {
        let verdict = self.decide(principal, resource, shape);
        let rules = self.engine.rules().iter().map(|rule| {
            let outcome = self.outcome(rule, principal, resource, shape);
            let lets_all = outcome.is_ok()
                && self
                    .engine
                    .vocabulary(resource)
                    .is_some_and(|vocabulary| rule.grants_all(&shape.items, vocabulary));
            let carried = if lets_all { rule.carried.clone() } else { Carried::default() };
            let masks = if outcome.is_ok() { self.engine.masks_of(rule).collect() } else { Vec::new() };
            RuleExplanation {
                rule: rule.name.clone(),
                effect: rule.effect,
                matched: outcome.is_ok(),
                rate: rule.rate.filter(|_| outcome.is_ok()).map(|rate| rate.to_string()),
                why: outcome.unwrap_or_else(|why| why),
                masks: masks.into_iter().map(|mask| mask.name.clone()).collect(),
                fills: carried.fills.iter().map(ToString::to_string).collect(),
                passes: carried.passes,
            }
        });
        Explanation {
            effect: verdict.effect,
            rule: verdict.rule,
            message: verdict.message,
            items: shape.items.iter().map(|item| Spelled(item).to_string()).collect(),
            rules: rules.collect(),
        }
    }

    /// What the rule matched, or why it did not.
    fn outcome(
        &self,
        rule: &Rule,
        principal: &Principal,
        resource: &str,
        shape: &Shape,
    ) -> Result<String, String> {
        if !rule.resources.contains(resource) {
            return Err("it is for other resources".into());
        }
        if !principal.subjects.iter().any(|subject| rule.subjects.contains(subject)) {
            return Err("it is for other subjects".into());
        }
        if let Err(why) = rule.is_for(principal) {
            return Err(match why {
                NotFor::Process(what) => format!("it is for other {what}"),
                NotFor::Unknown(who) => format!("issuer {:?} does not say who is asking", who.issuer),
                NotFor::Other(who, what) => {
                    format!("it is for others: `{what}` is another, as issuer {:?} says", who.issuer)
                }
            });
        }
        let Some(vocabulary) = self.engine.vocabulary(resource) else {
            return Err("the resource is not known".into());
        };
        let mut nearest = "the action does nothing".to_owned();
        let mut matched = None;
        for item in &shape.items {
            match rule.reaches(item, vocabulary) {
                Ok(()) if rule.effect == Some(Effect::Allow) => match rule.grants(item, vocabulary) {
                    Ok(()) => matched = matched.or(Some(format!("allows {}", Told(item)))),
                    Err(mismatch) => {
                        nearest = worded(mismatch);
                        matched =
                            matched.or(Some(format!("about {}, without allowing it: {nearest}", Told(item))));
                    }
                },
                Ok(()) => matched = matched.or(Some(format!("matches {}", Told(item)))),
                Err(mismatch) => nearest = worded(mismatch),
            }
        }
        matched.ok_or(nearest)
    }
}

fn worded(mismatch: Option<Mismatch>) -> String {
    match mismatch {
        None => "it has no match block for this protocol".into(),
        Some(Mismatch::Absent(field)) => format!("the action has no `{field}`"),
        Some(Mismatch::Present(field)) => format!("the action has a `{field}`"),
        Some(Mismatch::Differs(field)) => format!("`{field}` is another"),
        Some(Mismatch::Unnamed(field)) => format!("its match block does not spell out `{field}`"),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "asked: {item}")?;
        }
        write!(f, "{}", self.effect)?;
        match (&self.rule, &*self.message) {
            (_, message) if !message.is_empty() => writeln!(f, ": {message}")?,
            (Some(rule), _) => writeln!(f, ": by rule {rule:?}")?,
            (None, _) => writeln!(f)?,
        }
        for rule in &self.rules {
            let sign = if rule.matched { '+' } else { '-' };
            let effect = rule.effect.map_or("adds".into(), |effect| effect.to_string());
            write!(f, "  {sign} {} ({effect}): {}", rule.rule, rule.why)?;
            if !rule.masks.is_empty() {
                write!(f, "; masks {}", rule.masks.join(", "))?;
            }
            if let Some(rate) = &rule.rate {
                write!(f, "; at most {rate}")?;
            }
            if !rule.fills.is_empty() {
                write!(f, "; fills {}", rule.fills.join(" and "))?;
            }
            if !rule.passes.is_empty() {
                write!(f, "; passes {}", rule.passes.join(", "))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Hold => "hold",
            Self::Deny => "deny",
        })
    }
}
