//! The decision: every rule that matches counts, so their order never matters.

use std::{collections::HashMap, fmt, sync::Arc};

use crate::{
    Carried, ContentMask, Effect, FieldMasks, Held, Issuer, Item, Principal, Resource, Shape, StandingMasks,
    Value, Verdict, Vocabulary,
    index::{Index, Indices},
    issuer::Who,
    plan::{self, Active, Planned},
    rule::{Mask, NotFor, Rule},
};

/// Rules and masks, indexed by resource and subject.
#[derive(Debug)]
pub(crate) struct Engine {
    rules: Vec<Rule>,
    masks: Vec<Mask>,
    standings: HashMap<Arc<str>, Standing>,
    /// How to present a token of each issuer.
    how_to_present: HashMap<Arc<str>, String>,
}

/// What the bundle says about one resource.
#[derive(Debug)]
struct Standing {
    vocabulary: &'static Vocabulary,
    /// The issuer in whose subjects' names it is used.
    identity: Option<Arc<str>>,
    by_subject: HashMap<Arc<str>, Index>,
}

/// What the rules alone say, before masks are planned.
struct Judgement<'a> {
    effect: Effect,
    rule: Option<&'a Rule>,
    /// The rules that have to do with any item.
    matched: Vec<&'a Rule>,
    /// The item that no rule allows.
    ungranted: Option<&'a Item>,
}

impl Engine {
    /// Indexes rules for every pair of a resource and a subject. `masks` is what the rules' indices point into.
    pub(crate) fn new(
        rules: Vec<Rule>,
        masks: Vec<Mask>,
        resources: impl IntoIterator<Item = (Arc<Resource>, &'static Vocabulary)>,
        subjects: &[Arc<str>],
        issuers: &[Arc<Issuer>],
    ) -> Self {
        let standings = resources.into_iter().map(|(resource, vocabulary)| {
            let by_subject = subjects.iter().map(|subject| {
                let applies =
                    |rule: &Rule| rule.resources.contains(&resource.name) && rule.subjects.contains(subject);
                let numbered = rules.iter().enumerate().filter(|(_, rule)| applies(rule));
                let indices: Vec<usize> = numbered.map(|(index, _)| index).collect();
                (subject.clone(), Index::new(&rules, &indices, vocabulary))
            });
            let by_subject = by_subject.collect();
            let identity = resource.identity.clone();
            (resource.name.clone(), Standing { vocabulary, identity, by_subject })
        });
        let standings = standings.collect();
        let told = issuers.iter().map(|issuer| (issuer.name.clone(), issuer.how_to_present()));
        let how_to_present = told.collect();
        Self { rules, masks, standings, how_to_present }
    }

    /// Every rule, in the bundle's order.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The masks that a rule names.
    pub(crate) fn masks_of<'a>(&'a self, rule: &'a Rule) -> impl Iterator<Item = &'a Mask> {
        rule.masks.iter().filter_map(|index| self.masks.get(*index))
    }

    /// The vocabulary of a resource's protocol.
    pub(crate) fn vocabulary(&self, resource: &str) -> Option<&'static Vocabulary> {
        self.standings.get(resource).map(|standing| standing.vocabulary)
    }

    /// Decides one action.
    pub(crate) fn decide(&self, principal: &Principal, resource: &str, shape: &Shape) -> Verdict {
        let Some(standing) = self.standings.get(resource) else {
            return refused(format!("the policy has no resource {resource:?}"));
        };
        let indices = Indices::new(principal, |subject| standing.by_subject.get(subject));
        let about: Vec<&Rule> = self.rules_for(principal, indices.about(shape)).collect();
        let judgement = judge(&about, shape, standing.vocabulary);
        let matched = judgement.matched.iter().map(|rule| rule.name.clone()).collect();
        if judgement.effect == Effect::Deny {
            let content = plan::content(&self.active(self.rules_for(principal, indices.masking())));
            let wanted = judgement
                .ungranted
                .and_then(|item| self.would_grant(standing.vocabulary, &indices, principal, item));
            let mut denied =
                wanted.unwrap_or_else(|| denied(&judgement, self.near_hint(principal, &indices)));
            if let Some((rule, who)) = judgement.rule.and_then(|rule| Some((rule, rule.who.as_ref()?)))
                && principal.identity(&who.issuer).is_none()
            {
                denied.hint = self.hint_to_present(rule, who);
            }
            return Verdict { matched, content, ..denied };
        }
        if let Some(nobody) = self.nobody(standing, principal, resource) {
            let content = plan::content(&self.active(self.rules_for(principal, indices.masking())));
            return Verdict { matched, content, ..nobody };
        }
        let matching = self.active(judgement.matched.iter().copied());
        let content = plan::content(&matching);
        // A masked column stays masked whichever rule lets an action through; content is looked for where a rule says, and
        // so are fields that are known only when the answer comes: they are of what the rule matches.
        let mut active = self.active(self.rules_for(principal, indices.masking()));
        active.retain(|one| {
            (one.mask.columns.is_some() && !shape.open)
                || matching.iter().any(|other| other.mask.name == one.mask.name)
        });
        match plan::plan(&active, content.as_ref(), shape) {
            Err(refusal) => Verdict {
                matched,
                content,
                rule: Some(refusal.rule.name.clone()),
                hint: refusal.rule.hint.clone(),
                ..refused(refusal.message)
            },
            Ok(Planned { results, fields, withhold_errors }) => Verdict {
                effect: judgement.effect,
                rule: judgement.rule.map(|rule| rule.name.clone()),
                matched,
                holds: holds(&judgement),
                message: held(&judgement).into(),
                hint: judgement
                    .rule
                    .filter(|_| judgement.effect == Effect::Hold)
                    .and_then(|rule| rule.hint.clone()),
                results,
                fields,
                content,
                withhold_errors,
                masks_columns: active.iter().any(|one| one.mask.columns.is_some()),
                record_data: judgement.matched.iter().filter_map(|rule| rule.record_data).max(),
                limits: judgement.matched.iter().filter_map(|rule| rule.limit()).collect(),
                carried: carried(&judgement.matched, shape, standing.vocabulary),
            },
        }
    }

    /// Whether a rule for this principal asks for a field that the action doesn't have yet, and all else that it asks for
    /// is so.
    pub(crate) fn depends_on(
        &self,
        field: &str,
        principal: &Principal,
        resource: &str,
        shape: &Shape,
    ) -> bool {
        let Some(standing) = self.standings.get(resource) else { return false };
        let indices = Indices::new(principal, |subject| standing.by_subject.get(subject));
        indices.name(field)
            && self.rules_for(principal, indices.about(shape)).any(|rule| {
                let blocks = rule.blocks(standing.vocabulary.protocol);
                rule.effect.is_some()
                    && blocks.iter().any(|block| shape.items.iter().any(|item| block.depends_on(field, item)))
            })
    }

    /// The masks of every rule for this principal. Where the policy doesn't know the resource, everything counts as masked.
    pub(crate) fn standing_masks(&self, principal: &Principal, resource: &str) -> StandingMasks {
        let Some(standing) = self.standings.get(resource) else {
            return StandingMasks { content: None, columns: true };
        };
        let indices = Indices::new(principal, |subject| standing.by_subject.get(subject));
        let active = self.active(self.rules_for(principal, indices.masking()));
        StandingMasks {
            content: plan::content(&active),
            columns: active.iter().any(|one| one.mask.columns.is_some()),
        }
    }

    /// Whether a mask of a rule for this principal may cover a field of this table. Says yes in doubt.
    pub(crate) fn masks_table(&self, principal: &Principal, resource: &str, table: &str) -> bool {
        let Some(standing) = self.standings.get(resource) else { return true };
        let indices = Indices::new(principal, |subject| standing.by_subject.get(subject));
        let active = self.active(self.rules_for(principal, indices.masking()));
        plan::touch(&active, table)
    }

    /// What the detectors of all masks on a resource look for, whomever they are for.
    pub(crate) fn masked_for_anybody(&self, resource: &str) -> Option<Arc<ContentMask>> {
        let rules = self.rules.iter().filter(|rule| rule.resources.contains(resource));
        plan::content(&self.active(rules))
    }

    /// The masks on fields of a resource, whomever they are for.
    pub(crate) fn fields_masked_for_anybody(&self, resource: &str) -> Option<Arc<FieldMasks>> {
        let rules = self.rules.iter().filter(|rule| rule.resources.contains(resource));
        plan::fields(&self.active(rules))
    }

    /// Those of these rules that are for this principal.
    fn rules_for<'a>(
        &'a self,
        principal: &Principal,
        indices: impl IntoIterator<Item = usize>,
    ) -> impl Iterator<Item = &'a Rule> {
        let rules = indices.into_iter().filter_map(|index| self.rules.get(index));
        rules.filter(|rule| rule.is_for(principal).is_ok())
    }

    /// What an allow that is near tells: one of this principal on this resource, the first by name.
    fn near_hint(&self, principal: &Principal, indices: &Indices<'_>) -> Option<Arc<str>> {
        let first = |of_subject: &[usize]| self.rules_for(principal, of_subject.iter().copied()).next();
        let near = indices.hinting().filter_map(first).min_by(|a, b| a.name.cmp(&b.name))?;
        near.hint.clone()
    }

    /// The refusal of an item that a rule would allow if an issuer said who is asking, or said somebody else; none if
    /// there is no such rule. The first one by name counts, and not knowing before being another.
    fn would_grant(
        &self,
        vocabulary: &Vocabulary,
        indices: &Indices<'_>,
        principal: &Principal,
        item: &Item,
    ) -> Option<Verdict> {
        let about = indices.about_items(std::slice::from_ref(item));
        let asking = about.into_iter().filter_map(|index| self.rules.get(index)).filter_map(|rule| {
            let why = rule.is_for(principal).err()?;
            let grants = rule.effect == Some(Effect::Allow) && rule.grants(item, vocabulary).is_ok();
            grants.then_some((matches!(why, NotFor::Other(..)), rule, why))
        });
        let (_, rule, why) = asking.min_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)))?;
        match why {
            NotFor::Process(_) => None,
            NotFor::Unknown(who) => {
                let message = format!(
                    "no rule allows {} without an ID token of issuer {:?} (rule {:?}){}",
                    Told(item),
                    who.issuer,
                    rule.name,
                    unproven(principal, &who.issuer),
                );
                Some(Verdict { hint: self.hint_to_present(rule, who), ..refused(message) })
            }
            NotFor::Other(who, what) => {
                let subject = principal.identity(&who.issuer).map_or("", |identity| &*identity.subject);
                let message = format!(
                    "no rule allows {} to {subject:?}, which issuer {:?} says is asking: rule {:?} is for another `{what}`",
                    Told(item),
                    who.issuer,
                    rule.name,
                );
                Some(Verdict { hint: rule.hint.clone(), ..refused(message) })
            }
        }
    }

    /// The refusal of whoever would use a resource in the name that an issuer says they have, where it says none.
    fn nobody(&self, standing: &Standing, principal: &Principal, resource: &str) -> Option<Verdict> {
        let issuer = standing.identity.as_ref().filter(|issuer| principal.identity(issuer).is_none())?;
        let message = format!(
            "{resource:?} is used in the name that issuer {issuer:?} says one has, and it says none{}",
            unproven(principal, issuer)
        );
        let hint = self.how_to_present.get(issuer).map(|how| how.as_str().into());
        Some(Verdict { hint, ..refused(message) })
    }

    /// The rule's own hint, and how to present a token of the issuer that it asks.
    fn hint_to_present(&self, rule: &Rule, who: &Who) -> Option<Arc<str>> {
        let own = rule.hint.iter().map(|hint| &**hint);
        let hints: Vec<_> = own.chain(self.how_to_present.get(&who.issuer).map(String::as_str)).collect();
        Some(hints.join("; ").into())
    }

    /// The masks of these rules, each once, by name; a mask is told of by the first of its rules by name.
    fn active<'a>(&'a self, rules: impl Iterator<Item = &'a Rule>) -> Vec<Active<'a>> {
        let hiding = rules.filter(|rule| rule.effect != Some(Effect::Deny));
        let mut active: Vec<Active<'a>> =
            hiding.flat_map(|rule| self.masks_of(rule).map(move |mask| Active { mask, rule })).collect();
        active.sort_by(|a, b| (&a.mask.name, &a.rule.name).cmp(&(&b.mask.name, &b.rule.name)));
        active.dedup_by(|later, earlier| later.mask.name == earlier.mask.name);
        active
    }
}

/// What is wrong with the token that is there, where one is.
fn unproven(principal: &Principal, issuer: &str) -> String {
    let there = principal.unproven.iter().find(|token| *token.issuer == *issuer);
    there.map_or_else(String::new, |token| format!("; the one that is there does not count: {}", token.why))
}

/// What the rules deny. Where none of them decided, the hint is that of an allow that is near.
fn denied(judgement: &Judgement<'_>, hint: Option<Arc<str>>) -> Verdict {
    if let Some(rule) = judgement.rule {
        return Verdict {
            rule: Some(rule.name.clone()),
            hint: rule.hint.clone(),
            ..refused(format!("denied by rule {:?}", rule.name))
        };
    }
    match judgement.ungranted {
        Some(item) => Verdict { hint, ..refused(format!("no rule allows {}", Told(item))) },
        None => Verdict { hint, ..refused("an action that does nothing known is not allowed".into()) },
    }
}

fn judge<'a>(rules: &[&'a Rule], shape: &'a Shape, vocabulary: &Vocabulary) -> Judgement<'a> {
    let reaching = |rule: &&&Rule| shape.items.iter().any(|item| rule.reaches(item, vocabulary).is_ok());
    let matched: Vec<&Rule> = rules.iter().filter(reaching).copied().collect();
    let first = |effect: Effect| {
        let of_effect = matched.iter().filter(|rule| rule.effect == Some(effect));
        of_effect.min_by(|a, b| a.name.cmp(&b.name)).copied()
    };
    if let Some(rule) = first(Effect::Deny) {
        return Judgement { effect: Effect::Deny, rule: Some(rule), matched, ungranted: None };
    }
    let granting = |item: &Item| {
        let granting =
            matched.iter().filter(|rule| rule.effect.is_some() && rule.grants(item, vocabulary).is_ok());
        granting.min_by(|a, b| a.name.cmp(&b.name)).copied()
    };
    let mut allowing = None;
    for item in &shape.items {
        match granting(item) {
            Some(rule) => allowing = allowing.or(Some(rule)),
            None => return Judgement { effect: Effect::Deny, rule: None, matched, ungranted: Some(item) },
        }
    }
    match (first(Effect::Hold), allowing) {
        (Some(rule), Some(_)) => {
            Judgement { effect: Effect::Hold, rule: Some(rule), matched, ungranted: None }
        }
        (None, Some(rule)) => Judgement { effect: Effect::Allow, rule: Some(rule), matched, ungranted: None },
        (_, None) => Judgement { effect: Effect::Deny, rule: None, matched, ungranted: None },
    }
}

/// What the rules that let all of an action through say of credentials in it.
fn carried(matched: &[&Rule], shape: &Shape, vocabulary: &Vocabulary) -> Carried {
    let mut all = Carried::default();
    let says =
        |rule: &&&Rule| rule.carried != Carried::default() && rule.grants_all(&shape.items, vocabulary);
    matched.iter().filter(says).for_each(|rule| all.add(&rule.carried));
    all
}

fn held(judgement: &Judgement<'_>) -> String {
    match (judgement.effect, judgement.rule) {
        (Effect::Hold, Some(rule)) => format!("held for approval by rule {:?}", rule.name),
        _ => String::new(),
    }
}

/// The terms of every rule that holds: each must be met.
fn holds(judgement: &Judgement<'_>) -> Vec<Held> {
    if judgement.effect != Effect::Hold {
        return Vec::new();
    }
    let holding = judgement.matched.iter().filter(|rule| rule.effect == Some(Effect::Hold));
    let mut holds: Vec<Held> = holding
        .filter_map(|rule| {
            Some(Held { rule: rule.name.clone(), what: rule.held.clone(), approval: rule.approval.clone()? })
        })
        .collect();
    holds.sort_by(|a, b| a.rule.cmp(&b.rule));
    holds
}

fn refused(message: String) -> Verdict {
    Verdict {
        effect: Effect::Deny,
        rule: None,
        holds: Vec::new(),
        matched: Vec::new(),
        message: message.into(),
        hint: None,
        results: Vec::new(),
        fields: None,
        content: None,
        withhold_errors: true,
        masks_columns: true,
        record_data: None,
        carried: Carried::default(),
        limits: Vec::new(),
    }
}

/// An item with all that rules can see of it: `statement delete on table public.orders (access: write, where: none)`.
pub(crate) struct Spelled<'a>(pub(crate) &'a Item);

impl fmt::Display for Spelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<_> = words(self.0).take(2).map(|(field, _)| field).collect();
        let rest = self.0.fields.iter().filter_map(|(field, value)| match value {
            Value::Text(_) => None,
            Value::Word(_) if told.contains(field) => None,
            Value::Word(word) => Some(format!("{field}: {word}")),
            Value::Set(values) => Some(format!("{field}: [{}]", values.join(", "))),
            Value::Flag(flag) => Some(format!("{field}: {flag}")),
            Value::Number(number) => Some(format!("{field}: {number}")),
            Value::Unknown => Some(format!("{field}: unknown")),
            Value::Named(values) => {
                let values: Vec<_> = values.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                Some(format!("{field}: {{{}}}", values.join(", ")))
            }
        });
        let rest: Vec<_> = rest.collect();
        write!(f, "{}", Told(self.0))?;
        if rest.is_empty() { Ok(()) } else { write!(f, " ({})", rest.join(", ")) }
    }
}

/// The fields of an item that hold words.
fn words(item: &Item) -> impl Iterator<Item = (&'static str, &'static str)> {
    item.fields.iter().filter_map(|(field, value)| match value {
        Value::Word(word) => Some((*field, *word)),
        _ => None,
    })
}

/// An item in words: `statement drop on table public.orders`.
pub(crate) struct Told<'a>(pub(crate) &'a Item);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = words(self.0);
        match (words.next(), words.next()) {
            // `action: statement, statement: drop` is statement drop; `action: request, method: GET` is request GET.
            (Some((_, kind)), Some((_, word))) => write!(f, "{kind} {word}")?,
            (Some((_, word)), None) => f.write_str(word)?,
            (None, _) => f.write_str("this")?,
        }
        let texts = self.0.fields.iter().filter_map(|(field, value)| match value {
            Value::Text(text) => Some((*field, text)),
            _ => None,
        });
        for (index, (field, text)) in texts.enumerate() {
            write!(f, "{} {field} {text}", if index == 0 { " on" } else { "," })?;
        }
        Ok(())
    }
}
