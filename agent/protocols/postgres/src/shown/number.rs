//! Numbers in binary, as the server would write them.

use std::fmt::Write;

use super::{
    read::{Malformed, Reader},
    types::Kind,
};

/// The decimal text of a binary number.
pub(super) fn text(kind: Kind, value: &[u8]) -> Result<String, Malformed> {
    let malformed = Malformed("a number of the wrong length");
    Ok(match kind {
        Kind::Numeric => return numeric(value),
        Kind::Float => match value.len() {
            4 => f32::from_be_bytes(value.try_into().map_err(|_| malformed)?).to_string(),
            _ => f64::from_be_bytes(value.try_into().map_err(|_| malformed)?).to_string(),
        },
        _ => match value.len() {
            2 => i16::from_be_bytes(value.try_into().map_err(|_| malformed)?).to_string(),
            4 => i32::from_be_bytes(value.try_into().map_err(|_| malformed)?).to_string(),
            _ => i64::from_be_bytes(value.try_into().map_err(|_| malformed)?).to_string(),
        },
    })
}

/// A float's text without an exponent.
pub(super) fn plain(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.parse::<f64>().map_or_else(|_| text.clone().into_owned(), |number| number.to_string())
}

/// Count, weight, sign and scale, then digits of base 10 000 (`numeric_send` in `numeric.c`).
fn numeric(value: &[u8]) -> Result<String, Malformed> {
    const NEGATIVE: u16 = 0x4000;
    const SPECIAL: u16 = 0xC000;
    let mut reader = Reader::new(value);
    let count = reader.i16()?;
    let weight = reader.i16()?;
    let sign = u16::from_be_bytes(reader.array()?);
    let scale = usize::from(u16::from_be_bytes(reader.array()?));
    if sign & SPECIAL == SPECIAL {
        return Ok("NaN".into());
    }
    let mut digits = Vec::new();
    for _ in 0..count {
        digits.push(reader.i16()?);
    }
    reader.finish()?;
    // The group that counts 10 000^power.
    let group = |power: i32| {
        let index = usize::try_from(i32::from(weight) - power).ok();
        index.and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::from(if sign == NEGATIVE { "-" } else { "" });
    let whole = (0..=i32::from(weight)).rev().map(group);
    let mut leading = true;
    for digits in whole {
        // Writing to a string cannot fail.
        let _ = if leading { write!(text, "{digits}") } else { write!(text, "{digits:04}") };
        leading = false;
    }
    if leading {
        text.push('0');
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + scale;
        let mut power = -1;
        while text.len() < end {
            let _ = write!(text, "{:04}", group(power));
            power -= 1;
        }
        text.truncate(end);
    }
    Ok(text)
}
