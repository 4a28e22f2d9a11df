//! Cases.

use std::sync::Arc;

use super::{Loader, list, readable};
use crate::{
    FieldKind, Item, Lineage, Output, Principal, Process, Shape, Value, Vocabulary,
    case::{Case, Deed, Expectation},
    problem::Position,
    raw::{List, RawCase, RawDeed, RawExpect, RawFile, RawMatch, RawWho, Scalar},
    rule::Names,
    yaml::{At, Entries},
};

impl Loader<'_> {
    pub(super) fn cases(&self, raw: &[RawFile]) -> Vec<Case> {
        let cases = raw.iter().flat_map(|file| list(file.cases.as_ref()));
        cases.filter_map(|(at, case)| self.case(at, case)).collect()
    }

    fn case(&self, at: Position, raw: &RawCase) -> Option<Case> {
        let (who, on, deed) = (raw.who.get(), raw.on.get(), raw.deed.get());
        let principal = who.and_then(|who| self.principal(who));
        let expect = self.expectation(&raw.expect);
        let resource = on.filter(|name| self.declared("resource", raw.on.at, name, &self.resources))?;
        let vocabulary = self.speaks.get(resource)?;
        let deed = self.deed(raw.deed.at, deed?, vocabulary)?;
        Some(Case {
            name: raw.name.get()?.as_str().into(),
            path: self.problems.path(at),
            line: at.line,
            principal: principal?,
            resource: resource.as_str().into(),
            deed,
            expect: expect?,
        })
    }

    fn principal(&self, who: &RawWho) -> Option<Principal> {
        let subjects = match self.names("subject", &who.subjects, &self.subjects) {
            Names::These(names) => names,
            Names::All => {
                self.problems.report_with(who.subjects.at, "a case is about certain subjects", "name them");
                return None;
            }
        };
        let text = |of: &Option<At<String>>| of.as_ref().and_then(At::get).map(|text| text.as_str().into());
        let (unit, container) = (text(&who.unit), text(&who.container));
        let process = Process {
            executable: text(&who.executable),
            executable_sha256: text(&who.sha256),
            // Where it runs is known, be it nowhere.
            cgroup: Some("/".into()),
            unit,
            container,
            image: text(&who.image),
            ..Process::default()
        };
        let identities = list(who.identities.as_ref()).map(|(_, identity)| self.identity(identity));
        Some(Principal {
            subjects,
            process,
            identities: identities.collect::<Option<_>>()?,
            ..Principal::default()
        })
    }

    fn expectation(&self, raw: &At<RawExpect>) -> Option<Expectation> {
        let more = match raw.get()? {
            RawExpect::Only(effect) => {
                return Some(Expectation { effect: *effect, rule: None, masked: None, filled: None });
            }
            RawExpect::More(more) => more,
        };
        let rule = more.rule.as_ref().and_then(|rule| Some((rule.at, rule.get()?)));
        if let Some((at, name)) = rule {
            self.declared("rule", at, name, &self.rules);
        }
        Some(Expectation {
            effect: *more.decision.get()?,
            rule: rule.map(|(_, name)| name.as_str().into()),
            masked: more.masked.as_ref().map(|masked| paths(Some(masked)).into_iter().collect()),
            filled: more.filled.as_ref().map(|filled| paths(Some(filled)).into_iter().collect()),
        })
    }

    fn deed(&self, at: Position, raw: &RawDeed, vocabulary: &'static Vocabulary) -> Option<Deed> {
        let is_text = |(key, _): &&(At<String>, _)| key.get().is_some_and(|key| key == vocabulary.text);
        let text = raw.fields.iter().find(is_text);
        let ways = [
            text.is_some(),
            text.is_none() && !raw.fields.is_empty() || raw.fields.len() > 1,
            raw.items.is_some(),
        ];
        if ways.iter().filter(|given| **given).count() != 1 {
            let text = vocabulary.text;
            let message =
                format!("a case does one thing: the fields of an item, `items: [...]` or `{text}: ...`");
            self.problems.report(at, message);
            return None;
        }
        if let Some((key, value)) = text {
            let RawMatch::One(Scalar::Text(text)) = value.get()? else {
                self.problems.report(key.at, format!("`{}:` is text", vocabulary.text));
                return None;
            };
            let place = self.problems.exact_place(value.at);
            return Some(Deed::Text { text: text.as_str().into(), place });
        }
        let written: Vec<&[(At<String>, At<RawMatch>)]> = match &raw.items {
            Some(items) => list(Some(items)).map(|(_, item)| item.0.as_slice()).collect(),
            None => vec![raw.fields.as_slice()],
        };
        let items =
            written.into_iter().map(|fields| self.item(fields, vocabulary)).collect::<Option<Vec<_>>>()?;
        let outputs = paths(raw.outputs.as_ref()).into_iter();
        let outputs: Vec<Output> =
            outputs.map(|path| Output { sources: vec![path], computed: false }).collect();
        let results =
            if outputs.is_empty() { Vec::new() } else { vec![Lineage { outputs, ..Lineage::default() }] };
        let influences = paths(raw.influences.as_ref());
        Some(Deed::Shape(Shape { items, results, influences, ..Shape::default() }))
    }

    fn item(&self, fields: &[(At<String>, At<RawMatch>)], vocabulary: &'static Vocabulary) -> Option<Item> {
        let mut item = Item::default();
        let mut sound = true;
        for (key, value) in fields {
            let name = key.get()?;
            let Some(spec) = vocabulary.field(name) else {
                let known = vocabulary.fields.iter().map(|field| field.name);
                self.problems.unknown(key.at, format!("unknown field `{name}:`"), name, known);
                sound = false;
                continue;
            };
            match self.value(value, spec) {
                Some(value) => item.fields.push((spec.name, value)),
                None => sound = false,
            }
        }
        sound.then_some(item)
    }

    fn value(&self, raw: &At<RawMatch>, spec: &'static crate::FieldSpec) -> Option<Value> {
        let value = match (&spec.kind, raw.get()?) {
            (FieldKind::Word(words), RawMatch::One(Scalar::Text(text))) => {
                let Some(word) = words.iter().find(|word| word.name == text) else {
                    let names = words.iter().map(|word| word.name);
                    self.problems.unknown(
                        raw.at,
                        format!("`{}:` has no word {text:?}", spec.name),
                        text,
                        names,
                    );
                    return None;
                };
                Some(Value::Word(word.name))
            }
            (FieldKind::Text | FieldKind::Path, RawMatch::One(Scalar::Text(text))) => {
                Some(Value::Text(text.as_str().into()))
            }
            (FieldKind::Text, RawMatch::One(Scalar::Number(number))) => {
                Some(Value::Text(number.to_string().into()))
            }
            (FieldKind::Text, RawMatch::Many(texts)) => set(texts).map(Value::Set),
            (FieldKind::Named, RawMatch::Named(names)) => named(names).map(Value::Named),
            (FieldKind::Flag, RawMatch::One(Scalar::Flag(flag))) => Some(Value::Flag(*flag)),
            (FieldKind::Number, RawMatch::One(Scalar::Number(number))) => Some(Value::Number(*number)),
            _ => None,
        };
        if value.is_none() {
            self.problems.report(raw.at, format!("this is no value of `{}:` ({})", spec.name, spec.about));
        }
        value
    }
}

fn set(texts: &[At<Scalar>]) -> Option<Vec<Arc<str>>> {
    let text = |scalar: &Scalar| match scalar {
        Scalar::Text(text) => Some(Arc::from(text.as_str())),
        _ => None,
    };
    readable(texts).map(|(_, scalar)| text(scalar)).collect()
}

fn named(names: &Entries<RawMatch>) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let value = |value: &RawMatch| match value {
        RawMatch::One(Scalar::Text(text)) => Some(Arc::from(text.as_str())),
        RawMatch::One(Scalar::Number(number)) => Some(number.to_string().into()),
        RawMatch::One(Scalar::Flag(flag)) => Some(flag.to_string().into()),
        RawMatch::Many(_) | RawMatch::Named(_) => None,
    };
    names.iter().map(|(_, name, raw)| Some((name.into(), value(raw)?))).collect()
}

fn paths(raw: Option<&At<List<String>>>) -> Vec<Arc<str>> {
    super::texts(raw)
}
