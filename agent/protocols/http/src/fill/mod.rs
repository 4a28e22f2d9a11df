//! A client's own credentials in its request: placeholders, filled where the rules of its permit say so and only there, and
//! what these rules pass.
//!
//! What is decided, asked about and recorded is the request with its placeholders.

mod body;

use std::{cell::RefCell, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tidegate_gate::{
    Permit, Secret,
    policy::{Carried, Fill},
};
use zeroize::Zeroizing;

use crate::{
    body::Source,
    deciding::LOOKED_INTO,
    exchange::{NotSent, Responder, Session},
    forward,
    problem::Problem,
    request::Understood,
    target, traces,
};

/// Digests of a body, which is another once it is filled.
const DIGESTS: [&str; 4] = ["content-md5", "digest", "content-digest", "repr-digest"];

/// What goes upstream in place of what was understood.
pub(crate) struct Filled {
    pub(crate) headers: HeaderMap,
    pub(crate) query: Option<String>,
    body: Option<Bytes>,
    /// All that was filled in, in the forms in which it was.
    secrets: Vec<Zeroizing<Vec<u8>>>,
}

/// What to put at an address (`header.x-api-key`) in place of a value.
type Find<'f, 's> = dyn Fn(&str, &str) -> Option<&'s [u8]> + 'f;

impl Session {
    /// Keeps of the client's own credentials those that the rules let go on: what is asked about and recorded.
    ///
    /// # Errors
    /// It says who else is meant, and nothing lets that go on.
    pub(crate) fn keep_own(&self, understood: &mut Understood) -> Result<(), Problem> {
        let own = std::mem::take(&mut understood.own);
        if own.is_empty() {
            return Ok(());
        }
        // What is denied is refused for that.
        let Ok(verdict) = self.gate.foresee(&understood.shape) else { return Ok(()) };
        for (name, value) in &own {
            if goes_on(&verdict.carried, name, value) {
                understood
                    .text
                    .push_str(&forward::recorded("", &[(name.clone(), value.clone())].into_iter().collect()));
                understood.own.append(name.clone(), value.clone());
            } else if forward::is_somebody_else(name.as_str()) {
                let why = format!(
                    "the header field {name} says who else is meant than the gate signs in as (pass: [{name}] lets it)"
                );
                self.gate.refuse(understood.action(), &understood.text, &why);
                return Err(Problem::new(StatusCode::BAD_REQUEST, why));
            }
        }
        Ok(())
    }

    /// The body, whole, where a rule fills placeholders in it.
    pub(crate) async fn fillable(
        &self,
        understood: &mut Understood,
        permit: &Permit,
        whole: Option<Bytes>,
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<Option<Bytes>, NotSent> {
        let mut places = permit.verdict().carried.fills.iter().flat_map(|fill| &fill.places);
        let is_empty = understood.length == Some(0);
        if whole.is_some()
            || is_empty
            || !places.any(|place| place.starts_with("body."))
            || body::form(understood).is_none()
        {
            return Ok(whole);
        }
        self.take_room(understood, LOOKED_INTO)?;
        responder.proceed().await?;
        let body = self.collect(source, LOOKED_INTO).await?;
        Ok(Some(body.ok_or_else(|| {
            let why = format!(
                "a rule fills placeholders in this request's body, which is longer than {LOOKED_INTO} bytes"
            );
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why)
        })?))
    }

    /// Fills the placeholders that the permit's rules fill. Without what they stand for nothing is sent.
    pub(crate) async fn fill(
        &self,
        understood: &mut Understood,
        permit: &Permit,
        whole: Option<&Bytes>,
    ) -> Result<(), NotSent> {
        let carried = &permit.verdict().carried;
        if understood.own.is_empty() && carried.fills.is_empty() {
            return Ok(());
        }
        if understood.own.iter().any(|(name, value)| !goes_on(carried, name, value)) {
            let why = "what its rules let go on of the client's own has changed since it was asked for; send it again";
            return Err(Problem::new(StatusCode::FORBIDDEN, why).into());
        }
        let mut known = Vec::new();
        for fill in placeholders(carried, understood, whole) {
            let credential = self.gate.stands_for(&fill, permit).await?;
            let secret = credential.password.ok_or_else(|| self.unusable("it has no password to fill in"))?;
            if !traces::can_be_found(secret.expose()) {
                return Err(self.unusable("it is too short to be found in what comes back").into());
            }
            self.gate.event("placeholder-filled", &fill.to_string());
            known.push((fill, secret));
        }
        let filled = Filled::new(understood, &known, whole).map_err(|why| self.unusable(why))?;
        understood.filled = Some(Box::new(filled));
        Ok(())
    }
}

impl Filled {
    fn new(
        understood: &Understood,
        known: &[(Arc<Fill>, Secret)],
        whole: Option<&Bytes>,
    ) -> Result<Self, &'static str> {
        let find = |place: &str, value: &str| {
            known.iter().find(|(fill, _)| fill.is(place, value)).map(|(_, secret)| secret.expose())
        };
        let mut secrets: Vec<_> =
            known.iter().map(|(_, secret)| Zeroizing::new(secret.expose().to_vec())).collect();
        let mut headers = HeaderMap::with_capacity(understood.headers.len() + understood.own.len());
        for (name, value) in understood.headers.iter().chain(&understood.own) {
            let filled = field(name, value, &find)?;
            // Of Basic, user and password in one.
            let pair = filled.as_ref().filter(|_| name == header::AUTHORIZATION).and_then(behind_scheme);
            secrets.extend(pair.map(|pair| Zeroizing::new(pair.to_vec())));
            headers.append(name.clone(), filled.unwrap_or_else(|| value.clone()));
        }
        let body = whole.zip(body::form(understood)).and_then(|(body, form)| form.filled(body, &find));
        if body.is_some() {
            DIGESTS.iter().for_each(|name| _ = headers.remove(*name));
        }
        let query = understood.query.as_deref().map(|written| query(written, &find));
        Ok(Self { headers, query, body, secrets })
    }

    /// The body that goes up for this one.
    pub(crate) fn body(&self, whole: Bytes) -> Bytes {
        self.body.clone().unwrap_or(whole)
    }

    /// What was filled in and must not come back.
    pub(crate) fn secrets(&self) -> &[Zeroizing<Vec<u8>>] {
        &self.secrets
    }
}

impl std::fmt::Debug for Filled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filled").finish_non_exhaustive()
    }
}

/// Whether a field of the client's own is let go on: passed, or with a placeholder in it that is filled.
fn goes_on(carried: &Carried, name: &HeaderName, value: &HeaderValue) -> bool {
    let is_there = |place: &str, value: &str| carried.fill(place, value).map(|_| &b"-"[..]);
    carried.passes(name.as_str()) || matches!(field(name, value, &is_there), Ok(Some(_)))
}

/// The placeholders that are in a request where rules fill them.
fn placeholders(carried: &Carried, understood: &Understood, whole: Option<&Bytes>) -> Vec<Arc<Fill>> {
    let there = RefCell::new(Vec::<Arc<Fill>>::new());
    let note = |place: &str, value: &str| {
        let mut there = there.borrow_mut();
        let fill = carried.fill(place, value).filter(|fill| !there.contains(fill));
        there.extend(fill.cloned());
        None
    };
    for (name, value) in understood.headers.iter().chain(&understood.own) {
        // Nothing is put anywhere, so nothing fails.
        let _ = field(name, value, &note);
    }
    understood.query.iter().for_each(|written| _ = query(written, &note));
    whole.zip(body::form(understood)).into_iter().for_each(|(body, form)| _ = form.filled(body, &note));
    there.into_inner()
}

/// A header field's value, filled; none where it stays as it is.
fn field(
    name: &HeaderName,
    value: &HeaderValue,
    find: &Find<'_, '_>,
) -> Result<Option<HeaderValue>, &'static str> {
    let Ok(text) = value.to_str() else { return Ok(None) };
    let place = format!("header.{name}");
    let filled = match find(&place, text) {
        Some(secret) => Some(Zeroizing::new(secret.to_vec())),
        None if *name == header::AUTHORIZATION => authorization(&place, text, find),
        None => None,
    };
    let Some(filled) = filled else { return Ok(None) };
    let mut value =
        HeaderValue::from_bytes(&filled).map_err(|_| "it has characters that no header field has")?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// `Authorization` where the placeholder stands behind the scheme, or is the password of Basic (RFC 7617).
fn authorization(place: &str, text: &str, find: &Find<'_, '_>) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim_start_matches(' ');
    if !scheme.eq_ignore_ascii_case("basic") {
        let secret = find(place, rest)?;
        return Some(Zeroizing::new([scheme.as_bytes(), b" ", secret].concat()));
    }
    let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    let pair = Zeroizing::new([user.as_bytes(), b":", find(place, password)?].concat());
    let encoded = Zeroizing::new(STANDARD.encode(&*pair));
    Some(Zeroizing::new(["Basic ", &encoded].concat().into_bytes()))
}

fn behind_scheme(value: &HeaderValue) -> Option<&[u8]> {
    let value = value.as_bytes();
    let at = memchr::memchr(b' ', value)?;
    value.get(at + 1..)
}

/// A query whose parameters are filled: what is between two `&`.
fn query(written: &str, find: &Find<'_, '_>) -> String {
    let filled = |pair: &str| pair_filled("query", pair, find);
    let pairs = written.split('&').map(|pair| filled(pair).unwrap_or_else(|| pair.to_owned()));
    pairs.collect::<Vec<_>>().join("&")
}

/// A parameter of a query or form, filled; none where it stays as it is.
fn pair_filled(of: &str, pair: &str, find: &Find<'_, '_>) -> Option<String> {
    let (name, value) = pair.split_once('=')?;
    let place = format!("{of}.{}", target::form_decoded(name).ok()?);
    let secret = find(&place, &target::form_decoded(value).ok()?)?;
    Some(format!("{name}={}", target::encoded(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled_in(places: &'static [&'static str]) -> impl Fn(&str, &str) -> Option<&'static [u8]> {
        move |place, value| (value == "@deploy@" && places.contains(&place)).then_some(&b"s3cret/+\"\\"[..])
    }

    fn authorization_of(value: &str, find: &Find<'_, '_>) -> Option<String> {
        let value = value.parse().unwrap();
        field(&header::AUTHORIZATION, &value, find)
            .unwrap()
            .map(|filled| String::from_utf8(filled.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn authorization_is_filled_whole_behind_its_scheme_and_as_basic_s_password() {
        let find = filled_in(&["header.authorization"]);
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert_eq!(authorization_of("@deploy@", &find).unwrap(), "s3cret/+\"\\");
        assert_eq!(authorization_of("Bearer @deploy@", &find).unwrap(), "Bearer s3cret/+\"\\");
        assert_eq!(authorization_of("token @deploy@", &find).unwrap(), "token s3cret/+\"\\");
        assert_eq!(authorization_of(&basic("bot:@deploy@"), &find).unwrap(), basic("bot:s3cret/+\"\\"));
        for other in [
            "Bearer x@deploy@".to_owned(),
            "Bearer @deploy@ @deploy@".into(),
            "Bearer @DEPLOY@".into(),
            basic("@deploy@:x"),
            basic("bot:@deploy@x"),
            basic("bot:x:@deploy@"),
            "Basic @deploy@".into(),
        ] {
            assert_eq!(authorization_of(&other, &find), None, "{other}");
        }
    }

    #[test]
    fn a_query_is_filled_encoded_in_the_parameter_of_that_name_alone() {
        let find = filled_in(&["query.key"]);
        for (written, filled) in [
            ("key=@deploy@&a=1", "key=s3cret%2F%2B%22%5C&a=1"),
            ("k%65y=%40deploy%40", "k%65y=s3cret%2F%2B%22%5C"),
            ("other=@deploy@", "other=@deploy@"),
            ("key=@deploy@x", "key=@deploy@x"),
            ("key=x@deploy@&key", "key=x@deploy@&key"),
            ("a=1;key=@deploy@", "a=1;key=@deploy@"),
        ] {
            assert_eq!(query(written, &find), filled, "{written}");
        }
    }

    #[test]
    fn what_no_header_field_can_have_is_not_sent_and_not_told() {
        let find = |_: &str, _: &str| Some(&b"hunter2\r\nX: y"[..]);
        let error = field(&header::AUTHORIZATION, &HeaderValue::from_static("x"), &find).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
