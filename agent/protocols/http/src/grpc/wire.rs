//! The wire format of Protocol Buffers, field by field. Pure.
//!
//! Strict where readers differ: a number that does not fit its type, a field in another wire type than its own, groups.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

/// Longest number (64 bits in groups of seven).
const LONGEST_VARINT: usize = 10;

/// A field of a message, as it stands there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'m> {
    pub(super) number: u32,
    pub(super) wire: Wire<'m>,
    /// With its tag.
    pub(super) whole: &'m [u8],
}

/// What the wire tells of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire<'m> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Delimited(&'m [u8]),
}

/// A value, as its declaration has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'m> {
    Signed(i64),
    Unsigned(u64),
    Float(f32),
    Double(f64),
    Bool(bool),
    /// With its name, if the declaration has one for it.
    Enum(EnumDescriptor, i32),
    Text(&'m str),
    Bytes(&'m [u8]),
    Message(MessageDescriptor, &'m [u8]),
}

const BROKEN: &str = "it is not the message that the descriptors declare";

/// The fields of a message, in their order; each may be there several times.
pub(super) struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    pub(super) fn of(message: &'m [u8]) -> Self {
        Self(message)
    }

    fn read(&mut self) -> Result<Field<'m>, &'static str> {
        let begun = self.0;
        let tag = u32::try_from(varint(&mut self.0)?).map_err(|_| BROKEN)?;
        let number = tag >> 3;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => Wire::Fixed64(u64::from_le_bytes(chunk(&mut self.0)?)),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|_| BROKEN)?;
                let (value, rest) = self.0.split_at_checked(length).ok_or(BROKEN)?;
                self.0 = rest;
                Wire::Delimited(value)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(chunk(&mut self.0)?)),
            _ => return Err("it has a group"),
        };
        if number == 0 {
            return Err(BROKEN);
        }
        let whole = begun.get(..begun.len() - self.0.len()).unwrap_or_default();
        Ok(Field { number, wire, whole })
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<Field<'m>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.read().inspect_err(|_| self.0 = &[]))
    }
}

fn varint(from: &mut &[u8]) -> Result<u64, &'static str> {
    let mut number = 0_u64;
    for (place, byte) in from.iter().take(LONGEST_VARINT).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if place + 1 == LONGEST_VARINT && *byte > 1 {
            return Err(BROKEN);
        }
        number |= bits << (7 * place);
        if byte & 0x80 == 0 {
            *from = from.get(place + 1..).unwrap_or_default();
            return Ok(number);
        }
    }
    Err(BROKEN)
}

fn chunk<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (chunk, rest) = from.split_first_chunk().ok_or(BROKEN)?;
    *from = rest;
    Ok(*chunk)
}

/// The values that a field has here: several where they are packed into one.
pub(super) fn values<'m>(field: &FieldDescriptor, wire: Wire<'m>) -> Result<Vec<Value<'m>>, &'static str> {
    let kind = field.kind();
    let is_number = !matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_));
    match wire {
        // Readers take both forms, whichever is declared.
        Wire::Delimited(packed) if is_number && field.is_list() => unpacked(&kind, packed),
        wire => Ok(vec![value(&kind, wire)?]),
    }
}

fn unpacked<'m>(kind: &Kind, mut packed: &'m [u8]) -> Result<Vec<Value<'m>>, &'static str> {
    let mut all = Vec::new();
    while !packed.is_empty() {
        let wire = match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
                Wire::Fixed64(u64::from_le_bytes(chunk(&mut packed)?))
            }
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
                Wire::Fixed32(u32::from_le_bytes(chunk(&mut packed)?))
            }
            _ => Wire::Varint(varint(&mut packed)?),
        };
        all.push(value(kind, wire)?);
    }
    Ok(all)
}

fn value<'m>(kind: &Kind, wire: Wire<'m>) -> Result<Value<'m>, &'static str> {
    // A negative number of 32 bits is written as one of 64.
    let small = |number: u64| i32::try_from(number.cast_signed()).map_err(|_| BROKEN);
    let zigzag = |number: u64| (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
    Ok(match (kind, wire) {
        (Kind::Int64, Wire::Varint(number)) => Value::Signed(number.cast_signed()),
        (Kind::Int32, Wire::Varint(number)) => Value::Signed(small(number)?.into()),
        (Kind::Sint64, Wire::Varint(number)) => Value::Signed(zigzag(number)),
        (Kind::Sint32, Wire::Varint(number)) => {
            Value::Signed(zigzag(u32::try_from(number).map_err(|_| BROKEN)?.into()))
        }
        (Kind::Uint64, Wire::Varint(number)) | (Kind::Fixed64, Wire::Fixed64(number)) => {
            Value::Unsigned(number)
        }
        (Kind::Uint32, Wire::Varint(number)) => {
            Value::Unsigned(u32::try_from(number).map_err(|_| BROKEN)?.into())
        }
        (Kind::Bool, Wire::Varint(0)) => Value::Bool(false),
        (Kind::Bool, Wire::Varint(1)) => Value::Bool(true),
        (Kind::Enum(of), Wire::Varint(number)) => Value::Enum(of.clone(), small(number)?),
        (Kind::Fixed32, Wire::Fixed32(number)) => Value::Unsigned(number.into()),
        (Kind::Sfixed32, Wire::Fixed32(number)) => Value::Signed(number.cast_signed().into()),
        (Kind::Sfixed64, Wire::Fixed64(number)) => Value::Signed(number.cast_signed()),
        (Kind::Float, Wire::Fixed32(bits)) => Value::Float(f32::from_bits(bits)),
        (Kind::Double, Wire::Fixed64(bits)) => Value::Double(f64::from_bits(bits)),
        (Kind::String, Wire::Delimited(text)) => {
            Value::Text(std::str::from_utf8(text).map_err(|_| "a text in it is no UTF-8")?)
        }
        (Kind::Bytes, Wire::Delimited(bytes)) => Value::Bytes(bytes),
        (Kind::Message(of), Wire::Delimited(_)) if of.full_name() == "google.protobuf.Any" => {
            return Err("it has a google.protobuf.Any, in which there may be anything");
        }
        (Kind::Message(of), Wire::Delimited(message)) => Value::Message(of.clone(), message),
        _ => return Err(BROKEN),
    })
}

/// The value that stands for one that is not there, of what is always there.
pub(super) fn default(field: &FieldDescriptor) -> Value<'static> {
    match field.kind() {
        Kind::Double => Value::Double(0.0),
        Kind::Float => Value::Float(0.0),
        Kind::Bool => Value::Bool(false),
        Kind::String => Value::Text(""),
        Kind::Bytes => Value::Bytes(&[]),
        Kind::Message(of) => Value::Message(of, &[]),
        Kind::Enum(of) => {
            let number = of.default_value().number();
            Value::Enum(of, number)
        }
        Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => Value::Unsigned(0),
        _ => Value::Signed(0),
    }
}

impl Value<'_> {
    /// What it is as text, apart from messages.
    pub(super) fn text(&self) -> Option<String> {
        Some(match self {
            Self::Signed(number) => number.to_string(),
            Self::Unsigned(number) => number.to_string(),
            // -0.0 is 0.
            Self::Float(number) => (number + 0.0).to_string(),
            Self::Double(number) => (number + 0.0).to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::Enum(of, number) => match of.get_value(*number) {
                Some(value) => value.name().to_owned(),
                None => number.to_string(),
            },
            Self::Text(text) => (*text).to_owned(),
            Self::Bytes(_) | Self::Message(..) => return None,
        })
    }
}

/// Writes bytes as a field of this number.
pub(super) fn put(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Writes a number as a field of this number.
pub(super) fn put_number(number: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3, out);
    put_varint(value, out);
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        match number {
            0 => return out.push(low & 0x7f),
            _ => out.push(low | 0x80),
        }
    }
}

/// A map's entry: its key, if it is there, and its value.
pub(super) fn entry<'m>(message: &'m [u8]) -> Result<(Option<Wire<'m>>, Option<Wire<'m>>), &'static str> {
    let (mut key, mut value) = (None, None);
    for field in Fields::of(message) {
        let field = field?;
        let place = match field.number {
            1 => &mut key,
            2 => &mut value,
            _ => return Err(BROKEN),
        };
        if place.replace(field.wire).is_some() {
            return Err(BROKEN);
        }
    }
    Ok((key, value))
}

/// The one value of a field, or its default.
pub(super) fn one<'m>(field: &FieldDescriptor, wire: Option<Wire<'m>>) -> Result<Value<'m>, &'static str> {
    wire.map_or_else(|| Ok(default(field)), |wire| value(&field.kind(), wire))
}
