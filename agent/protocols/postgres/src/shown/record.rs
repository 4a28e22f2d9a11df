//! Composite values, in text (8.16.6 of the manual) and binary (`record_send` in `rowtypes.c`).

use super::{
    read::{Malformed, Reader, Unreadable},
    value::{BinaryPart, Look, Patch, TextPart},
};

const MALFORMED: Unreadable = Unreadable::Malformed(Malformed("a record that cannot be read"));

/// Shows each field of a record in text. Nulls stay.
pub(super) fn text(value: &[u8], look: &mut TextPart<'_>) -> Result<Look, Unreadable> {
    if value.first() != Some(&b'(') {
        return Err(MALFORMED);
    }
    let mut patch = Patch::new(value);
    let mut at = 1;
    loop {
        at = field(value, at, look, &mut patch)?;
        match value.get(at) {
            Some(b',') => at += 1,
            Some(b')') if at + 1 == value.len() => return Ok(patch.finish()),
            Some(_) | None => return Err(MALFORMED),
        }
    }
}

/// One field; the position of what follows it.
fn field(
    value: &[u8],
    start: usize,
    look: &mut TextPart<'_>,
    patch: &mut Patch<'_>,
) -> Result<usize, Unreadable> {
    let is_quoted = value.get(start) == Some(&b'"');
    let mut text = Vec::new();
    let mut at = start + usize::from(is_quoted);
    loop {
        match (value.get(at), value.get(at + 1)) {
            (Some(b'"'), Some(b'"')) | (Some(b'\\'), Some(_)) if is_quoted => {
                at += 1;
                text.push(*value.get(at).ok_or(MALFORMED)?);
            }
            (Some(b'"'), _) if is_quoted => {
                at += 1;
                break;
            }
            (Some(b',' | b')'), _) if !is_quoted => break,
            (Some(b'"' | b'(' | b'\\'), _) if !is_quoted => return Err(MALFORMED),
            (Some(byte), _) if !is_quoted && byte.is_ascii_whitespace() => return Err(MALFORMED),
            (Some(byte), _) => text.push(*byte),
            (None, _) => return Err(MALFORMED),
        }
        at += 1;
    }
    if text.is_empty() && !is_quoted {
        return Ok(at);
    }
    match look(&text)? {
        Look::AsIs => {}
        Look::Null => drop(patch.replace(start..at)),
        Look::Instead(shown) => put_quoted(&shown, patch.replace(start..at)),
    }
    Ok(at)
}

fn put_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(*byte);
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Shows each field of a binary record; `look` also gets the type that the field names.
pub(super) fn binary(value: &[u8], look: &mut BinaryPart<'_>) -> Result<Look, Unreadable> {
    let mut reader = Reader::new(value);
    let mut patch = Patch::new(value);
    for _ in 0..reader.count()? {
        let oid = reader.u32()?;
        let start = reader.position();
        let Some(bytes) = reader.field()? else { continue };
        match look(oid, bytes)? {
            Look::AsIs => {}
            Look::Null => patch.replace_field(start..reader.position(), None)?,
            Look::Instead(shown) => patch.replace_field(start..reader.position(), Some(&shown))?,
        }
    }
    reader.finish()?;
    Ok(patch.finish())
}
