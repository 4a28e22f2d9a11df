//! A message as masks show it: its texts by field and content, and of all else nothing that a mask covers. Pure.
//!
//! What is not masked stays byte for byte as it was.

use std::{borrow::Cow, sync::Arc};

use prost_reflect::{Cardinality, FieldDescriptor, MessageDescriptor};
use tidegate_gate::policy::Show;

use super::wire::{self, Value, Wire};
use crate::shown::Masks;

/// Deepest nesting: what parsers of Protocol Buffers take.
const DEEPEST: usize = 100;

/// The message as it is shown; an error says why it cannot be masked.
pub(crate) fn masked(
    declared: &MessageDescriptor,
    message: &[u8],
    masks: &Masks<'_>,
) -> Result<Vec<u8>, String> {
    let mut walk = Walk { masks, json: "body".to_owned(), declared: "body".to_owned(), depth: 0 };
    walk.message(declared, message)
}

/// On the way through a message.
struct Walk<'a> {
    masks: &'a Masks<'a>,
    /// The address of what is reached, by names as in JSON, and as they are declared: masks may have either.
    json: String,
    declared: String,
    depth: usize,
}

/// What becomes of a value.
enum Becomes {
    /// It stays as it is.
    Same,
    /// It is written so instead.
    Text(Vec<u8>),
    /// It is left out.
    Nothing,
}

impl<'a> Walk<'a> {
    fn message(&mut self, declared: &MessageDescriptor, message: &[u8]) -> Result<Vec<u8>, String> {
        if self.depth >= DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST}"));
        }
        self.depth += 1;
        let mut out = Vec::with_capacity(message.len());
        for met in wire::Fields::of(message) {
            let met = met?;
            let field = declared.get_field(met.number).ok_or_else(|| {
                format!("field {} of {} is not in the descriptors", met.number, declared.full_name())
            })?;
            let becomes = self.under(field.json_name(), field.name(), |walk| walk.field(&field, met.wire))?;
            match becomes {
                Becomes::Same => out.extend_from_slice(met.whole),
                Becomes::Text(text) => wire::put(met.number, &text, &mut out),
                Becomes::Nothing if field.cardinality() == Cardinality::Required => {
                    return Err(format!("{} is masked, and required", field.full_name()));
                }
                Becomes::Nothing => {}
            }
        }
        self.depth -= 1;
        Ok(out)
    }

    /// Does something a step further on the way.
    fn under<T>(&mut self, json: &str, declared: &str, then: impl FnOnce(&mut Self) -> T) -> T {
        let back = (self.json.len(), self.declared.len());
        for (path, name) in [(&mut self.json, json), (&mut self.declared, declared)] {
            path.push('.');
            path.push_str(name);
        }
        let done = then(self);
        self.json.truncate(back.0);
        self.declared.truncate(back.1);
        done
    }

    fn field(&mut self, field: &FieldDescriptor, wire: Wire<'_>) -> Result<Becomes, String> {
        if field.is_map() {
            return match self.show().is_some() {
                true => Ok(Becomes::Nothing),
                false => self.entry(field, wire).map(Becomes::Text),
            };
        }
        let values = wire::values(field, wire)?;
        match values.as_slice() {
            [value] => self.value(value),
            // Numbers in one piece: with one of them go all.
            packed => Ok(match packed.iter().all(|value| matches!(self.value(value), Ok(Becomes::Same))) {
                true => Becomes::Same,
                false => Becomes::Nothing,
            }),
        }
    }

    fn value(&mut self, value: &Value<'_>) -> Result<Becomes, String> {
        let masked = |shown: Option<Vec<u8>>| shown.map_or(Becomes::Nothing, Becomes::Text);
        let utf8 = |text: &[u8]| String::from_utf8_lossy(text).into_owned().into_bytes();
        let show = self.show();
        Ok(match (value, show) {
            (Value::Text(text), Some(show)) => {
                masked(self.masks.masker().show(show, text.as_bytes()).map(|shown| utf8(&shown)))
            }
            (Value::Bytes(bytes), Some(show)) => masked(self.masks.masker().show(show, bytes)),
            (_, Some(_)) => Becomes::Nothing,
            (Value::Message(declared, message), None) => Becomes::Text(self.message(declared, message)?),
            (Value::Text(text), None) => {
                self.scanned(text.as_bytes()).map_or(Becomes::Same, |text| Becomes::Text(utf8(&text)))
            }
            (Value::Bytes(bytes), None) => self.scanned(bytes).map_or(Becomes::Same, Becomes::Text),
            (Value::Bool(_) | Value::Enum(..), None) => Becomes::Same,
            (number, None) => {
                let found = number.text().and_then(|text| self.scanned(text.as_bytes()));
                found.map_or(Becomes::Same, |_| Becomes::Nothing)
            }
        })
    }

    /// An entry of a map, whose key is a name on the way to its value.
    fn entry(&mut self, field: &FieldDescriptor, wire: Wire<'_>) -> Result<Vec<u8>, String> {
        const NONE: &str = "it has a map that is none";
        let (kind, Wire::Delimited(entry)) = (field.kind(), wire) else { return Err(NONE.into()) };
        let declared = kind.as_message().ok_or(NONE)?;
        let (key, value) = wire::entry(entry)?;
        let its_value = wire::one(&declared.map_entry_value_field(), value)?;
        let its_key = wire::one(&declared.map_entry_key_field(), key)?;
        let name = its_key.text().ok_or(NONE)?;
        let becomes = self.under(&name, &name, |walk| walk.value(&its_value))?;
        let mut out = Vec::with_capacity(entry.len());
        let kept = |number| wire::Fields::of(entry).flatten().find(|field| field.number == number);
        match (self.scanned(name.as_bytes()), kept(1)) {
            (Some(shown), _) if matches!(its_key, Value::Text(_)) => {
                wire::put(1, String::from_utf8_lossy(&shown).as_bytes(), &mut out);
            }
            (None, Some(key)) => out.extend_from_slice(key.whole),
            (Some(_) | None, _) => {}
        }
        match (becomes, kept(2)) {
            (Becomes::Text(text), _) => wire::put(2, &text, &mut out),
            (Becomes::Same, Some(value)) => out.extend_from_slice(value.whole),
            (Becomes::Same, None) | (Becomes::Nothing, _) => {}
        }
        Ok(out)
    }

    /// How what stands where the way has led is shown, if it is masked.
    fn show(&self) -> Option<&'a Arc<Show>> {
        self.masks.field(&self.json).or_else(|| self.masks.field(&self.declared))
    }

    /// The text without what is looked for by content, if there is any.
    fn scanned(&self, text: &[u8]) -> Option<Vec<u8>> {
        match self.masks.scan(text) {
            Cow::Owned(shown) => Some(shown),
            Cow::Borrowed(_) => None,
        }
    }
}
