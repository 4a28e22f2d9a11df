//! Arrays, in text (8.15.6 of the manual) and binary (`array_send` in `arrayfuncs.c`).

use super::{
    read::{Malformed, Reader, Unreadable},
    value::{BinaryPart, Look, Patch, TextPart},
};

/// `MAXDIM` of the server.
const DIMENSIONS_MAX: usize = 6;
const MALFORMED: Unreadable = Unreadable::Malformed(Malformed("an array that cannot be read"));

/// Shows each element of an array in text. Dimensions, bounds and nulls stay.
pub(super) fn text(value: &[u8], look: &mut TextPart<'_>) -> Result<Look, Unreadable> {
    let mut patch = Patch::new(value);
    let mut at = match value.first() {
        Some(b'[') => value.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)? + 1,
        _ => 0,
    };
    let mut depth = 0_usize;
    loop {
        match value.get(at) {
            Some(b'{') => depth += 1,
            Some(b'}') => {
                depth = depth.checked_sub(1).ok_or(MALFORMED)?;
                if depth == 0 {
                    break;
                }
            }
            Some(b',') if depth > 0 => {}
            Some(_) if depth > 0 => {
                at = element(value, at, look, &mut patch)?;
                continue;
            }
            Some(_) | None => return Err(MALFORMED),
        }
        at += 1;
    }
    if at + 1 == value.len() { Ok(patch.finish()) } else { Err(MALFORMED) }
}

/// One element; the position of what follows it.
fn element(
    value: &[u8],
    start: usize,
    look: &mut TextPart<'_>,
    patch: &mut Patch<'_>,
) -> Result<usize, Unreadable> {
    let is_quoted = value.get(start) == Some(&b'"');
    let mut text = Vec::new();
    let mut at = start + usize::from(is_quoted);
    loop {
        match value.get(at) {
            Some(b'\\') => {
                at += 1;
                text.push(*value.get(at).ok_or(MALFORMED)?);
            }
            Some(b'"') if is_quoted => {
                at += 1;
                break;
            }
            Some(b',' | b'}') if !is_quoted => break,
            Some(b'"' | b'{') if !is_quoted => return Err(MALFORMED),
            Some(byte) if !is_quoted && byte.is_ascii_whitespace() => return Err(MALFORMED),
            Some(byte) => text.push(*byte),
            None => return Err(MALFORMED),
        }
        at += 1;
    }
    if !matches!(value.get(at), Some(b',' | b'}')) {
        return Err(MALFORMED);
    }
    if !is_quoted && text.eq_ignore_ascii_case(b"NULL") {
        return Ok(at);
    }
    match look(&text)? {
        Look::AsIs => {}
        Look::Null => patch.replace(start..at).extend_from_slice(b"NULL"),
        Look::Instead(shown) => put_quoted(&shown, patch.replace(start..at)),
    }
    Ok(at)
}

fn put_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Shows each element of a binary array; `look` also gets the element type that the array names.
pub(super) fn binary(value: &[u8], look: &mut BinaryPart<'_>) -> Result<Look, Unreadable> {
    let mut reader = Reader::new(value);
    let dimensions = reader.count()?;
    let flags = reader.position();
    let has_null = reader.i32()?;
    let element = reader.u32()?;
    if dimensions > DIMENSIONS_MAX {
        return Err(MALFORMED);
    }
    let mut elements = usize::from(dimensions > 0);
    for _ in 0..dimensions {
        elements = elements.checked_mul(reader.count()?).ok_or(MALFORMED)?;
        reader.i32()?;
    }
    let mut makes_null = false;
    let mut looks = Vec::new();
    for _ in 0..elements {
        let start = reader.position();
        let Some(bytes) = reader.field()? else { continue };
        let shown = look(element, bytes)?;
        makes_null |= shown == Look::Null;
        if shown != Look::AsIs {
            looks.push((start..reader.position(), shown));
        }
    }
    reader.finish()?;
    let mut patch = Patch::new(value);
    if makes_null && has_null == 0 {
        patch.replace(flags..flags + 4).extend_from_slice(&1_i32.to_be_bytes());
    }
    for (span, shown) in looks {
        match shown {
            Look::Instead(shown) => patch.replace_field(span, Some(&shown))?,
            Look::Null | Look::AsIs => patch.replace_field(span, None)?,
        }
    }
    Ok(patch.finish())
}
