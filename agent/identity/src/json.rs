//! JSON that means one thing only: a key that is there twice, or deep nesting, is refused.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Deeper nesting is refused: no issuer writes it.
const DEEPEST: u8 = 12;

/// Reads an object. The error says what is wrong without any of the text.
pub(crate) fn object(text: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let read = Strict { depth: DEEPEST }.deserialize(&mut deserializer);
    match read.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("it is not a JSON object"),
        Err(error) if error.to_string().starts_with(TWICE) => Err("a key is there twice in its JSON"),
        Err(error) if error.to_string().starts_with(TOO_DEEP) => Err("its JSON is nested too deeply"),
        Err(_) => Err("it is not JSON"),
    }
}

const TWICE: &str = "a key twice";
const TOO_DEEP: &str = "too deep";

/// A value that may nest this much deeper.
#[derive(Clone, Copy)]
struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        self.depth.checked_sub(1).map(|depth| Self { depth }).ok_or_else(|| E::custom(TOO_DEEP))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut members = Vec::new();
        while let Some(member) = list.next_element_seed(seed)? {
            members.push(member);
        }
        Ok(members.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(TWICE));
            }
            object.insert(key, map.next_value_seed(seed)?);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_as_it_is() {
        let read = object(br#"{"a": [1, -2, 2.5, "x", null, true], "b": {"c": {}}}"#).unwrap();
        assert_eq!(
            Value::from(read),
            serde_json::json!({"a": [1, -2, 2.5, "x", null, true], "b": {"c": {}}})
        );
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_at_any_depth_and_however_it_is_escaped() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"a":2}]}"#, r#"{"sub":1,"s\u0075b":2}"#] {
            assert_eq!(object(text.as_bytes()), Err("a key is there twice in its JSON"), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let deep = format!(r#"{{"a":{}1{}}}"#, open.repeat(5_000), close.repeat(5_000));
            assert_eq!(object(deep.as_bytes()), Err("its JSON is nested too deeply"));
        }
    }

    #[test]
    fn what_is_no_object_or_goes_on_after_it_is_refused() {
        assert_eq!(object(b"[]"), Err("it is not a JSON object"));
        for text in [&b"{} {}"[..], b"", b"{", b"{\"a\":\xff}"] {
            assert_eq!(object(text), Err("it is not JSON"));
        }
    }
}
