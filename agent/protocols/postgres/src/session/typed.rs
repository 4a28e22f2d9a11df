//! Types of parameters, and values in their binary formats (the `*_send` functions of the server's `utils/adt`), the way people
//! read them.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::{
    SignedDuration,
    civil::{Date, DateTime, Time, date},
};
use postgres_types::{FromSql, Kind, Type};

use crate::wire::reader::Reader;

/// Days and times are counted from here.
const EPOCH: Date = date(2000, 1, 1);
/// Deepest and largest array that is shown as one.
const DIMENSIONS: usize = 6;
/// Most groups of four digits before a number's point, and behind it, that are shown.
const LONGEST_NUMBER: i16 = 64;
/// The sign of a numeric, and what it has where it is none.
const NEGATIVE: u16 = 0x4000;
const NO_NUMBER: [(u16, &str); 3] = [(0xc000, "NaN"), (0xd000, "Infinity"), (0xf000, "-Infinity")];

/// A type: `float4`, `int4[]`, or `type 16403` where it is none that every server has.
pub(super) fn name(oid: u32) -> String {
    let Some(own) = Type::from_oid(oid) else { return format!("type {oid}") };
    match own.kind() {
        Kind::Array(member) => format!("{}[]", member.name()),
        _ => own.name().to_owned(),
    }
}

/// What a value in binary format stands for. None where it is none of its type's, or of a type that isn't read here.
pub(super) fn value(oid: u32, bytes: &[u8]) -> Option<String> {
    let of = Type::from_oid(oid)?;
    match of {
        Type::BOOL => read::<bool>(&of, bytes),
        Type::INT2 => read::<i16>(&of, bytes),
        Type::INT4 => read::<i32>(&of, bytes),
        Type::INT8 => read::<i64>(&of, bytes),
        Type::OID => read::<u32>(&of, bytes),
        Type::FLOAT4 => read::<f32>(&of, bytes),
        Type::FLOAT8 => read::<f64>(&of, bytes),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => read::<&str>(&of, bytes),
        Type::JSON | Type::XML => Some(std::str::from_utf8(bytes).ok()?.to_owned()),
        Type::JSONB => jsonb(bytes),
        Type::UUID => uuid(bytes),
        Type::DATE => whole(bytes, |reader| days(reader.i32("days").ok()?)),
        Type::TIME => whole(bytes, |reader| Some(time(long(reader)?)?.to_string())),
        Type::TIMESTAMP => whole(bytes, |reader| moment(long(reader)?, "")),
        Type::TIMESTAMPTZ => whole(bytes, |reader| moment(long(reader)?, "+00")),
        Type::INTERVAL => whole(bytes, interval),
        Type::NUMERIC => whole(bytes, numeric),
        Type::INET | Type::CIDR => whole(bytes, network),
        _ => match of.kind() {
            Kind::Array(member) => whole(bytes, |reader| array(reader, member)),
            _ => None,
        },
    }
}

fn read<'a, T: FromSql<'a> + ToString>(of: &Type, bytes: &'a [u8]) -> Option<String> {
    T::from_sql(of, bytes).ok().map(|value| value.to_string())
}

/// What all of the bytes are.
fn whole(bytes: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Option<String>) -> Option<String> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader)?;
    reader.is_empty().then_some(value)
}

fn long(reader: &mut Reader<'_>) -> Option<i64> {
    reader.array("a number").ok().map(i64::from_be_bytes)
}

fn jsonb(bytes: &[u8]) -> Option<String> {
    match bytes {
        [1, text @ ..] => Some(std::str::from_utf8(text).ok()?.to_owned()),
        _ => None,
    }
}

fn uuid(bytes: &[u8]) -> Option<String> {
    let all = hex::encode(<[u8; 16]>::try_from(bytes).ok()?);
    let part = |from, to| all.get(from..to);
    Some([part(0, 8)?, part(8, 12)?, part(12, 16)?, part(16, 20)?, part(20, 32)?].join("-"))
}

fn days(days: i32) -> Option<String> {
    match days {
        i32::MAX => Some("infinity".into()),
        i32::MIN => Some("-infinity".into()),
        days => Some(EPOCH.checked_add(SignedDuration::from_hours(i64::from(days) * 24)).ok()?.to_string()),
    }
}

/// Microseconds since midnight.
fn time(micros: i64) -> Option<Time> {
    Time::midnight().checked_add(SignedDuration::from_micros(micros)).ok()
}

fn moment(micros: i64, zone: &str) -> Option<String> {
    match micros {
        i64::MAX => Some("infinity".into()),
        i64::MIN => Some("-infinity".into()),
        micros => {
            let epoch: DateTime = EPOCH.into();
            let moment = epoch.checked_add(SignedDuration::from_micros(micros)).ok()?;
            Some(format!("{} {}{zone}", moment.date(), moment.time()))
        }
    }
}

fn interval(reader: &mut Reader<'_>) -> Option<String> {
    let micros = long(reader)?;
    let (days, months) = (reader.i32("days").ok()?, reader.i32("months").ok()?);
    let (seconds, part) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let sign = if micros < 0 { "-" } else { "" };
    Some(format!("{months} months {days} days {sign}{hours:02}:{minutes:02}:{seconds:02}.{part:06}"))
}

/// Digits in base 10,000, of which the first counts `weight` places from the point.
fn numeric(reader: &mut Reader<'_>) -> Option<String> {
    let mut word = || reader.u16("a number").ok();
    let (count, weight, sign, scale) = (word()?, word()?.cast_signed(), word()?, usize::from(word()?));
    if let Some((_, named)) = NO_NUMBER.iter().find(|(known, _)| *known == sign) {
        return Some((*named).to_owned());
    }
    let digits: Vec<u16> = (0..count).map(|_| word()).collect::<Option<_>>()?;
    let is_long = weight > LONGEST_NUMBER || scale > 4 * LONGEST_NUMBER.unsigned_abs() as usize;
    if is_long || ![0, NEGATIVE].contains(&sign) || digits.iter().any(|digit| *digit > 9_999) {
        return None;
    }
    let weight = i32::from(weight);
    let digit = |place: i32| -> u16 {
        let index = usize::try_from(weight - place).ok();
        index.and_then(|index| digits.get(index).copied()).unwrap_or(0)
    };
    let before: String = (0..=weight.max(0)).rev().map(|place| format!("{:04}", digit(place))).collect();
    let places = i32::try_from(scale.div_ceil(4)).ok()?;
    let after: String = (1..=places).map(|place| format!("{:04}", digit(-place))).collect();
    let shown = match before.trim_start_matches('0') {
        "" => "0",
        shown => shown,
    };
    let sign = if sign == NEGATIVE { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    // A digit beyond the scale is one that the server reads and nobody would be shown.
    let beyond = digits.len() > usize::try_from(weight + 1 + places).unwrap_or(0);
    let (shown_after, hidden) = after.split_at_checked(scale)?;
    let all = !beyond && hidden.bytes().all(|byte| byte == b'0');
    all.then(|| format!("{sign}{shown}{point}{shown_after}"))
}

fn network(reader: &mut Reader<'_>) -> Option<String> {
    let [family, bits, _, length] = reader.array("an address").ok()?;
    let (address, most) = match (family, length) {
        (2, 4) => (Ipv4Addr::from(reader.array("an address").ok()?).to_string(), 32),
        (3, 16) => (Ipv6Addr::from(reader.array::<16>("an address").ok()?).to_string(), 128),
        _ => return None,
    };
    Some(if bits == most { address } else { format!("{address}/{bits}") })
}

/// Members in the order in which they come, with the array's dimensions where it has more than one or begins elsewhere than at 1.
fn array(reader: &mut Reader<'_>, of: &Type) -> Option<String> {
    let mut number = || reader.i32("a number").ok();
    let (count, _, member) = (number()?, number()?, number()?.cast_unsigned());
    let count = usize::try_from(count).ok().filter(|count| *count <= DIMENSIONS && member == of.oid())?;
    let dimensions: Vec<(i32, i32)> =
        (0..count).map(|_| Some((number()?, number()?))).collect::<Option<_>>()?;
    let lengths = dimensions.iter().map(|(length, _)| usize::try_from(*length).ok());
    let total = lengths.into_iter().try_fold(1_usize, |total, length| total.checked_mul(length?))?;
    let total = if count == 0 { 0 } else { total };
    let mut members = Vec::new();
    for _ in 0..total {
        members.push(match reader.value("a member").ok()? {
            Some(bytes) => quoted(value(member, bytes)?),
            None => "NULL".to_owned(),
        });
    }
    let plain = matches!(&*dimensions, [] | [(_, 1)]);
    let bounds = dimensions
        .iter()
        .map(|(length, from)| format!("[{from}:{}]", i64::from(*from) + i64::from(*length) - 1));
    let bounds = if plain { String::new() } else { bounds.collect::<String>() + "=" };
    Some(format!("{bounds}{{{}}}", members.join(",")))
}

/// A member, so that none passes for another, or for several.
fn quoted(member: String) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-:".contains(&byte);
    let plain = !member.is_empty() && member.bytes().all(is_plain) && !member.eq_ignore_ascii_case("null");
    if plain { member } else { format!("{member:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_called_what_sql_calls_them() {
        for (oid, expected) in [(700, "float4"), (1042, "bpchar"), (1007, "int4[]"), (16403, "type 16403")] {
            assert_eq!(name(oid), expected);
        }
    }

    #[test]
    fn the_same_bytes_are_another_value_in_another_type() {
        let word = [0x40, 0, 0, 0];
        let long = [0x40, 0, 0, 0, 0, 0, 0, 0];
        for (oid, bytes, expected) in [
            (16, &[1][..], Some("true")),
            (21, &[0xff, 0xfe], Some("-2")),
            (23, &word, Some("1073741824")),
            (700, &word, Some("2")),
            (25, &word, Some("@\0\0\0")),
            (20, &long, Some("4611686018427387904")),
            (701, &long, Some("2")),
            (23, &long, None),
            (25, &[0xff], None),
            (1700, &long, None),
            (0, &word, None),
            (16403, &word, None),
        ] {
            assert_eq!(value(oid, bytes).as_deref(), expected, "{oid}: {bytes:?}");
        }
    }

    /// What PostgreSQL 15 sends: `select encode(TYPE_send(VALUE), 'hex')`.
    #[test]
    fn values_are_shown_as_the_server_means_them() {
        for (oid, sent, expected) in [
            (26, "00004013", "16403"),
            (2950, "6c2f6e6e3b0a4b0e8a3d1f2e3d4c5b6a", "6c2f6e6e-3b0a-4b0e-8a3d-1f2e3d4c5b6a"),
            (1082, "00002632", "2026-10-09"),
            (1082, "fffffffe", "1999-12-30"),
            (1082, "7fffffff", "infinity"),
            (1083, "0000000b79ed8710", "13:41:30.25"),
            (1114, "00030066468de320", "2026-10-09 12:30:00.5"),
            (1114, "fffc96188bae6100", "1969-07-20 20:17:40"),
            (1184, "0003006499669b20", "2026-10-09 10:30:00.5+00"),
            (1184, "8000000000000000", "-infinity"),
            (1186, "00000000d693a4000000000300000001", "1 months 3 days 01:00:00.000000"),
            (1186, "ffffffffffe91ca00000000000000000", "0 months 0 days -00:00:01.500000"),
            (114, "7b7d", "{}"),
            (3802, "017b7d", "{}"),
            (869, "02200004c0000207", "192.0.2.7"),
            (869, "02180004c0000207", "192.0.2.7/24"),
            (650, "02180104c0000200", "192.0.2.0/24"),
            (869, "0380001020010db8000000000000000000000001", "2001:db8::1"),
        ] {
            assert_eq!(value(oid, &hex::decode(sent).unwrap()).as_deref(), Some(expected), "{oid}: {sent}");
        }
    }

    #[test]
    fn numbers_are_shown_to_their_last_digit() {
        for (sent, expected) in [
            ("0000000000000000", "0"),
            ("00010000000000000001", "1"),
            ("00010000400000000001", "-1"),
            ("00010001000000000001", "10000"),
            ("0002000100000000000c0d80", "123456"),
            ("0003000100000002000109291a2c", "12345.67"),
            ("0001ffff400000011388", "-0.5"),
            ("0000000000000002", "0.00"),
            ("0002ffff00000005000107d0", "0.00012"),
            ("0001ffff000000040001", "0.0001"),
            ("0006000400000003270f270f270f270f270f2706", "99999999999999999999.999"),
            ("00010005000000000001", "100000000000000000000"),
            ("00000000c0000000", "NaN"),
            ("00000000d0000020", "Infinity"),
            ("00000000f0000020", "-Infinity"),
            ("000200000000000200011388", "1.50"),
        ] {
            assert_eq!(value(1700, &hex::decode(sent).unwrap()).as_deref(), Some(expected), "{sent}");
        }
        // A digit beyond those that would be shown, one that is none, and one that takes far more room than it has.
        for sent in ["0001ffff000000020032", "00010000000000002710", "00017fff000000000001"] {
            assert_eq!(value(1700, &hex::decode(sent).unwrap()), None, "{sent}");
        }
    }

    #[test]
    fn arrays_are_shown_with_each_member() {
        for (oid, sent, expected) in [
            (1007, "000000000000000000000017", "{}"),
            (
                1007,
                "0000000100000001000000170000000300000001000000040000000700000004ffffffffffffffff",
                "{7,-1,NULL}",
            ),
            (
                1009,
                "000000010000000100000019000000030000000100000003612262ffffffff000000044e554c4c",
                "{\"a\\\"b\",NULL,\"NULL\"}",
            ),
            (1007, "000000010000000000000017000000020000000000000004000000050000000400000006", "[0:1]={5,6}"),
            (
                1007,
                "000000020000000000000017000000020000000100000002000000010000000400000001000000040000000200000004\
                 000000030000000400000004",
                "[1:2][1:2]={1,2,3,4}",
            ),
            (
                1231,
                "0000000100000000000006a400000002000000010000000c0002000000000001000113880000000a000100000000000\
                 00002",
                "{1.5,2}",
            ),
        ] {
            assert_eq!(value(oid, &hex::decode(sent).unwrap()).as_deref(), Some(expected), "{sent}");
        }
        // Members of another type than its own, and more of them than there are.
        let texts = "0000000100000000000000190000000100000001000000046e6f6e65";
        let missing = "00000001000000000000001700000002000000010000000400000005";
        for sent in [texts, missing] {
            assert_eq!(value(1007, &hex::decode(sent).unwrap()), None, "{sent}");
        }
    }
}
