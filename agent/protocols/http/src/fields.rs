//! The fields of a body, as rules see them: of JSON and of forms. Pure.
//!
//! A name on the way to a value stands before it with a dot between (`a.b`); arrays add nothing, so that every element
//! counts. A name that has a dot of its own is written as JSON writes it (`"a.b"`). What two servers may read
//! differently is refused: the same name twice, a form that looks like JSON.

use std::{collections::HashSet, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

use crate::target;

/// Most values of one body.
const MOST: usize = 4096;
/// Longest name of a value, with those on the way to it, in bytes.
const LONGEST: usize = 1024;

/// Names and values.
pub(crate) type Fields = Vec<(Arc<str>, Arc<str>)>;

/// The fields of a body of this media type; an error says why they can't be told.
pub(crate) fn read(kind: Option<&str>, body: &[u8]) -> Result<Fields, String> {
    match kind {
        _ if body.is_empty() => Ok(Vec::new()),
        // It names fields by paths within values (RFC 6902).
        Some("application/json-patch+json") => Err("it is a JSON patch, in which no fields are known".into()),
        Some(kind) if is_json(kind) => json(body),
        Some("application/x-www-form-urlencoded") => form(body),
        Some(kind) => Err(format!("it is {kind}, in which no fields are known")),
        None => Err("nothing says what it is".into()),
    }
}

/// Whether a media type is that of one JSON value: also as AWS names the versions of its own protocol.
pub(crate) fn is_json(kind: &str) -> bool {
    kind.ends_with("+json")
        || matches!(kind, "application/json" | "application/x-amz-json-1.0" | "application/x-amz-json-1.1")
}

/// The fields of JSON (RFC 8259). Objects are values, too: `{}`; empty arrays are `[]`.
pub(crate) fn json(text: &[u8]) -> Result<Fields, String> {
    let mut fields = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = At { fields: &mut fields, path: "" };
    let read = value.deserialize(&mut reader).and_then(|()| reader.end());
    match read {
        Ok(()) => Ok(fields),
        Err(error) => Err(format!("it is not the JSON that it says it is: {error}")),
    }
}

/// The fields of a form (WHATWG URL, 5.1).
fn form(body: &[u8]) -> Result<Fields, String> {
    if matches!(body.trim_ascii_start().first(), Some(b'{' | b'[' | b'"')) {
        return Err("it says that it is a form and looks like JSON".into());
    }
    let text = std::str::from_utf8(body).map_err(|_| "it is not UTF-8")?;
    let mut fields = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        // Some servers split at `;`, too.
        let parts = pair.split(';').filter(|part| pair.contains(';') && !part.is_empty());
        for part in std::iter::once(pair).chain(parts) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let decoded = |text| target::form_decoded(text).map_err(|why| why.0);
            let (name, value): (_, Arc<str>) = (decoded(name)?, decoded(value)?.into());
            if fields.len() >= MOST || name.len() > LONGEST {
                return Err(format!("it has more than {MOST} values, or names longer than {LONGEST} bytes"));
            }
            fields.extend(other_names(&name).into_iter().map(|other| (other.into(), value.clone())));
            fields.push((name.into(), value));
        }
    }
    Ok(fields)
}

/// The other names that servers take this one for: those which know of nesting `a.b` for `a[b]`, and `a` for `a[]` and `a[0]`;
/// PHP `a_b` for `a.b`, `a b` and `a[b`; all of them without blanks before it.
fn other_names(name: &str) -> Vec<String> {
    let trimmed = name.trim_start();
    let (first, rest) = match trimmed.split_once('[') {
        Some((first, rest)) => (first, Some(rest)),
        None => (trimmed, None),
    };
    let underscored = first.replace(['.', ' '], "_");
    let mut names = vec![nested(first, rest), nested(&underscored, rest)];
    if let Some(rest) = rest.filter(|rest| !rest.contains(']')) {
        names.push(format!("{underscored}_{rest}"));
        names.push(format!("{underscored}_{}", rest.replace(['.', ' ', '['], "_")));
    }
    names.dedup();
    names.retain(|other| other != name);
    names
}

/// A name, with what is in brackets behind it as names under it.
fn nested(first: &str, rest: Option<&str>) -> String {
    let mut name = first.to_owned();
    for inner in rest.iter().flat_map(|rest| rest.split('[')).map(|inner| inner.trim_end_matches(']')) {
        if !inner.trim().bytes().all(|byte| byte.is_ascii_digit()) {
            let dot = if name.is_empty() { "" } else { "." };
            name.extend([dot, inner]);
        }
    }
    name
}

/// A value, and where it stands.
struct At<'a> {
    fields: &'a mut Fields,
    path: &'a str,
}

impl At<'_> {
    fn add<E: Error>(self, value: &str) -> Result<(), E> {
        if self.fields.len() >= MOST {
            return Err(E::custom(format!("it has more than {MOST} values")));
        }
        self.fields.push((self.path.into(), value.into()));
        Ok(())
    }
}

impl At<'_> {
    /// Adds what was read since then once more, under the name that it has for servers which take `"a.b"` for an `a` with
    /// a `b`.
    fn nest<E: Error>(&mut self, since: usize, quoted: &str, plain: &str) -> Result<(), E> {
        let read = self.fields.get(since..).unwrap_or_default();
        let nested = read.iter().filter_map(|(name, value)| {
            Some((format!("{plain}{}", name.strip_prefix(quoted)?).into(), value.clone()))
        });
        let nested: Fields = nested.collect();
        if self.fields.len() + nested.len() > MOST {
            return Err(E::custom(format!("it has more than {MOST} values")));
        }
        self.fields.extend(nested);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.add("null")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<(), E> {
        self.add(if flag { "true" } else { "false" })
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.add(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.add(&number.to_string())
    }

    /// `1.0` and `1e0` are `1`: most servers take one for the other.
    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        // -0.0 is 0.
        self.add(&(number + 0.0).to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.add(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut is_empty = true;
        while elements.next_element_seed(At { fields: &mut *self.fields, path: self.path })?.is_some() {
            is_empty = false;
        }
        if is_empty { self.add("[]") } else { Ok(()) }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        At { fields: &mut *self.fields, path: self.path }.add("{}")?;
        let mut seen = HashSet::new();
        while let Some(Name(name)) = entries.next_key()? {
            if !seen.insert(name.to_uppercase().to_lowercase()) {
                return Err(A::Error::custom(format!("{name:?} is there twice")));
            }
            let dotted = name.contains('.').then(|| serde_json::Value::from(&*name).to_string());
            let under = |name: &str| {
                if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
            };
            let path = under(dotted.as_ref().unwrap_or(&name));
            if path.len() > LONGEST {
                return Err(A::Error::custom(format!("a name in it is longer than {LONGEST} bytes")));
            }
            let begun = self.fields.len();
            entries.next_value_seed(At { fields: &mut *self.fields, path: &path })?;
            if dotted.is_some() {
                self.nest(begun, &path, &under(&name))?;
            }
        }
        Ok(())
    }
}

/// An object's name.
#[derive(Deserialize)]
struct Name(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, body: &str) -> Result<Vec<String>, String> {
        let fields = read(Some(kind), body.as_bytes())?;
        Ok(fields.iter().map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn json_is_names_on_the_way_and_values() {
        let body = r#"{"a": {"b": "x", "c": [1, {"d": true}, []]}, "n": null, "f": 1.0, "dotted.name": 1e2, "\u0065": -0.5}"#;
        assert_eq!(
            told("application/vnd.acme+json", body).unwrap(),
            [
                "={}",
                "a={}",
                "a.b=x",
                "a.c=1",
                "a.c={}",
                "a.c.d=true",
                "a.c=[]",
                "n=null",
                "f=1",
                "\"dotted.name\"=100",
                "dotted.name=100",
                "e=-0.5"
            ]
        );
        assert_eq!(told("application/json", "7").unwrap(), ["=7"]);
        assert_eq!(told("application/x-amz-json-1.1", "7").unwrap(), ["=7"]);
    }

    #[test]
    fn a_form_is_names_and_values() {
        let told = told("application/x-www-form-urlencoded", "a=1&b%20c=%C3%A9+x&a=2&flag&&x=a=b").unwrap();
        assert_eq!(told, ["a=1", "b_c=é x", "b c=é x", "a=2", "flag=", "x=a=b"]);
    }

    #[test]
    fn a_name_that_servers_take_for_another_has_both() {
        let form = |body| told("application/x-www-form-urlencoded", body).unwrap();
        assert_eq!(form("deploy[environment]=x"), ["deploy.environment=x", "deploy[environment]=x"]);
        assert_eq!(form("env[]=x&env[0]=y"), ["env=x", "env[]=x", "env=y", "env[0]=y"]);
        assert_eq!(form("a[b][][c]=x"), ["a.b.c=x", "a[b][][c]=x"]);
        assert_eq!(form("+env=x"), ["env=x", " env=x"]);
        assert_eq!(form("a=1;env=x"), ["a=1;env=x", "a=1", "env=x"]);
        assert_eq!(form(".method=x"), ["_method=x", ".method=x"]);
        assert_eq!(form("user.id[a.b]=x"), ["user.id.a.b=x", "user_id.a.b=x", "user.id[a.b]=x"]);
        assert_eq!(form("a[b.c=x"), ["a.b.c=x", "a_b.c=x", "a_b_c=x", "a[b.c=x"]);
        assert_eq!(form("a[+]=y&[env]=x"), ["a=y", "a[ ]=y", "env=x", "[env]=x"]);
        let json = told("application/json", r#"{"a.b": {"c": 1}, "z": -0}"#).unwrap();
        assert_eq!(json, ["={}", "\"a.b\"={}", "\"a.b\".c=1", "a.b={}", "a.b.c=1", "z=0"]);
    }

    #[test]
    fn what_servers_may_read_differently_is_not_read() {
        for (kind, body) in [
            ("application/json", r#"{"role": "user", "role": "admin"}"#),
            ("application/json", r#"{"role": "user", "Role": "admin"}"#),
            ("application/json", r#"{"role": "user", "r\u006fle": "admin"}"#),
            ("application/json", "{} {}"),
            ("application/json-patch+json", r#"[{"op": "replace", "path": "/role", "value": "admin"}]"#),
            ("application/json", "{\"a\": 1,}"),
            ("application/json", "/**/{}"),
            ("application/json", "\u{feff}{}"),
            ("application/json", "a=b"),
            ("application/json", "{\"a\": \"\\ud800\"}"),
            ("application/json", "{\"a\": 1e999}"),
            ("application/x-www-form-urlencoded", r#" {"role": "admin"}"#),
            ("application/x-www-form-urlencoded", "a=%zz"),
            ("application/x-www-form-urlencoded", "a=%00"),
            ("application/x-www-form-urlencoded", "a=%ff"),
            ("multipart/form-data", "--x"),
            ("text/plain", "{}"),
        ] {
            assert!(told(kind, body).is_err(), "{kind} {body}");
        }
        assert!(read(None, b"{}").is_err());
        assert_eq!(read(None, b"").unwrap(), []);
    }

    #[test]
    fn nothing_nested_or_long_without_end_is_read() {
        assert!(told("application/json", &"[".repeat(100_000)).is_err());
        assert!(told("application/json", &format!("[{}1]", "1,".repeat(MOST))).is_err());
        assert!(told("application/json", &format!("{{\"{}\": 1}}", "n".repeat(LONGEST + 1))).is_err());
        assert!(told("application/x-www-form-urlencoded", &"a&".repeat(MOST + 1)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(Some("application/json"), &bytes);
            let _ = read(Some("application/x-www-form-urlencoded"), &bytes);
        }
    }
}
