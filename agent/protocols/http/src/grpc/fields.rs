//! A message as JSON, by the names that its declaration has for that (ProtoJSON, but for its well-known types, which are
//! the messages that they are), and its fields as rules see them. Pure.

use std::{collections::HashSet, io};

use base64::{Engine, engine::general_purpose::STANDARD};
use prost_reflect::{FieldDescriptor, MessageDescriptor};

use super::wire::{self, Value, Wire};
use crate::fields::{self, Fields};

/// Deepest nesting: what parsers of Protocol Buffers take.
const DEEPEST: usize = 100;
/// Longest JSON of a message: names and defaults make it longer than it is itself.
const LONGEST: usize = 1024 * 1024;

/// Which of a field's two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    /// `cardNumber`.
    InJson,
    /// `card_number`.
    AsDeclared,
}

/// The fields of a message, each by either name; an error says why they can't be told.
pub(crate) fn of(declared: &MessageDescriptor, message: &[u8]) -> Result<Fields, String> {
    let read = |named| fields::json(&text(declared, message, named)?);
    let mut all = read(Named::InJson)?;
    let others = read(Named::AsDeclared)?;
    if all.len() != others.len() {
        return Err("its names mean different things in JSON and in the descriptors".into());
    }
    let differing = all.iter().zip(others).filter(|((one, _), (other, _))| one != other);
    let differing: Vec<_> = differing.map(|(_, other)| other).collect();
    all.extend(differing);
    Ok(all)
}

/// A message as JSON, for people.
pub(crate) fn shown(declared: &MessageDescriptor, message: &[u8]) -> Result<Vec<u8>, String> {
    text(declared, message, Named::InJson)
}

fn text(declared: &MessageDescriptor, message: &[u8], named: Named) -> Result<Vec<u8>, String> {
    let mut writer = Writer { out: Vec::new(), named };
    writer.message(declared, message, 0)?;
    Ok(writer.out)
}

struct Writer {
    out: Vec<u8>,
    named: Named,
}

impl Writer {
    fn message(&mut self, declared: &MessageDescriptor, message: &[u8], depth: usize) -> Result<(), String> {
        if depth >= DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST}"));
        }
        let mut met = Vec::new();
        for field in wire::Fields::of(message) {
            let field = field?;
            if declared.get_field(field.number).is_none() {
                let (number, name) = (field.number, declared.full_name());
                return Err(format!("field {number} of {name} is not in the descriptors"));
            }
            met.push((field.number, field.wire));
        }
        // Those of one field stay in their order.
        met.sort_by_key(|(number, _)| *number);
        let mut chosen = HashSet::new();
        let mut first = true;
        self.put(b"{")?;
        for field in declared.fields() {
            let begin = met.partition_point(|(number, _)| *number < field.number());
            let end = met.partition_point(|(number, _)| *number <= field.number());
            let values = met.get(begin..end).unwrap_or_default();
            if values.is_empty() && field.supports_presence() {
                continue;
            }
            if let Some(oneof) = field.containing_oneof()
                && !chosen.insert(oneof.full_name().to_owned())
            {
                return Err(format!("it has more than one of {}", oneof.full_name()));
            }
            if !std::mem::take(&mut first) {
                self.put(b", ")?;
            }
            self.name(match self.named {
                Named::InJson => field.json_name(),
                Named::AsDeclared => field.name(),
            })?;
            self.field(&field, values, depth)?;
        }
        self.put(b"}")
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        met: &[(u32, Wire<'_>)],
        depth: usize,
    ) -> Result<(), String> {
        if field.is_map() {
            return self.map(field, met, depth);
        }
        if field.is_list() {
            self.put(b"[")?;
            let mut first = true;
            for (_, wire) in met {
                for value in wire::values(field, *wire)? {
                    if !std::mem::take(&mut first) {
                        self.put(b", ")?;
                    }
                    self.value(&value, depth)?;
                }
            }
            return self.put(b"]");
        }
        match met {
            [] => self.value(&wire::default(field), depth),
            [(_, wire)] => self.value(&wire::one(field, Some(*wire))?, depth),
            // Of two, readers take the last, or put them together.
            _ => Err(format!("it has {} twice", field.full_name())),
        }
    }

    fn map(&mut self, field: &FieldDescriptor, met: &[(u32, Wire<'_>)], depth: usize) -> Result<(), String> {
        let kind = field.kind();
        let entry = kind.as_message().ok_or("it has a map that is none")?;
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        self.put(b"{")?;
        for (number, (_, wire)) in met.iter().enumerate() {
            let Wire::Delimited(entry) = wire else { return Err("it has a map that is none".into()) };
            let (its_key, its_value) = wire::entry(entry)?;
            if number > 0 {
                self.put(b", ")?;
            }
            self.name(&wire::one(&key, its_key)?.text().ok_or("a map's key in it is none")?)?;
            self.value(&wire::one(&value, its_value)?, depth)?;
        }
        self.put(b"}")
    }

    fn value(&mut self, value: &Value<'_>, depth: usize) -> Result<(), String> {
        match value {
            Value::Message(declared, message) => self.message(declared, message, depth + 1),
            Value::Bytes(bytes) => self.quoted(&STANDARD.encode(bytes)),
            Value::Text(text) => self.quoted(text),
            Value::Enum(of, number) => match of.get_value(*number) {
                Some(value) => self.quoted(value.name()),
                None => self.put(number.to_string().as_bytes()),
            },
            // What is no number is a text.
            Value::Float(number) if !number.is_finite() => self.quoted(not_finite(f64::from(*number))),
            Value::Double(number) if !number.is_finite() => self.quoted(not_finite(*number)),
            plain => self.put(plain.text().unwrap_or_default().as_bytes()),
        }
    }

    fn name(&mut self, name: &str) -> Result<(), String> {
        self.quoted(name)?;
        self.put(b": ")
    }

    fn quoted(&mut self, text: &str) -> Result<(), String> {
        self.fits(text.len())?;
        serde_json::to_writer(&mut self.out, text).map_err(|error| io::Error::from(error).to_string())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.fits(bytes.len())?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn fits(&self, more: usize) -> Result<(), String> {
        match self.out.len().saturating_add(more) <= LONGEST {
            true => Ok(()),
            false => Err(format!("its JSON is longer than {LONGEST} bytes")),
        }
    }
}

/// What ProtoJSON writes for what JSON has no number for.
fn not_finite(number: f64) -> &'static str {
    match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}
