//! Types of parameters, and values in their binary formats, the way people read them.

use postgres_types::{FromSql, Kind, Type};

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
    match Type::from_oid(oid)? {
        of @ Type::BOOL => read::<bool>(&of, bytes),
        of @ Type::INT2 => read::<i16>(&of, bytes),
        of @ Type::INT4 => read::<i32>(&of, bytes),
        of @ Type::INT8 => read::<i64>(&of, bytes),
        of @ Type::FLOAT4 => read::<f32>(&of, bytes),
        of @ Type::FLOAT8 => read::<f64>(&of, bytes),
        of @ (Type::TEXT | Type::VARCHAR | Type::BPCHAR) => read::<&str>(&of, bytes),
        _ => None,
    }
}

fn read<'a, T: FromSql<'a> + ToString>(of: &Type, bytes: &'a [u8]) -> Option<String> {
    T::from_sql(of, bytes).ok().map(|value| value.to_string())
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
}
