//! What is a credential: one policy for all that records, archives and approvers are shown, and for which of a client's own
//! header fields go no further.
//!
//! It goes by how names end, whatever stands between their letters (`X-Api-Key`, `apiKey`, `api_key`), since there are more of
//! them than anybody lists; and in URLs that header fields hold, where anybody may have named them, by what values look like, too.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, header};

use crate::{forward, target};

/// What stands in records for what they withhold.
pub(crate) const WITHHELD: &str = "(withheld)";

/// How names of credentials end, wherever they stand.
const CREDENTIALS: [&str; 27] = [
    "token",
    "secret",
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authkey",
    "accountkey",
    "sharedkey",
    "sessionkey",
    "signingkey",
    "masterkey",
    "applicationkey",
    "subscriptionkey",
    "functionskey",
    "customerkey",
    "encryptionkey",
    "assertion",
    "jwt",
    "otp",
    "codeverifier",
    "devicecode",
    "sessionid",
];
/// The same of header fields alone: a `key` is much else in data.
const OF_FIELDS: [&str; 6] = ["auth", "authorization", "credential", "credentials", "key", "mfa"];
/// The same of parameters alone, by which URLs are signed.
const OF_PARAMETERS: [&str; 5] = ["auth", "credential", "signature", "samlresponse", "sessid"];
/// Whole names of credentials, without what stands between their letters.
const NAMED: [&str; 10] = [
    "cookie",
    "cookie2",
    "setcookie",
    "setcookie2",
    "xjfrogartapi",
    "xregistryconfig",
    "sig",
    "sid",
    "samlresponse",
    "jsessionid",
];
/// What is in names of fields and parameters that are about credentials, and may be as good as one.
const WORDS: [&str; 8] =
    ["secret", "password", "passwd", "api-key", "apikey", "api_key", "access-token", "access_token"];

/// How names end that look like a credential's and say where, what or how often.
const HARMLESS: [&str; 22] = [
    "continuationtoken",
    "nexttoken",
    "pagetoken",
    "paginationtoken",
    "synctoken",
    "resumetoken",
    "locktoken",
    "canceltoken",
    "cancellationtoken",
    "idempotencytoken",
    "idempotencykey",
    "deduplicationkey",
    "websocketkey",
    "surrogatekey",
    "partitionkey",
    "routingkey",
    "sortkey",
    "cachekey",
    "eventkey",
    "objectkey",
    "publickey",
    "allowcredentials",
];
/// How names end that are withheld, and sign nobody in: they prove that a form is the site's own or a person is there, number a
/// request, or are what the client encrypts with.
const NOBODY_S: [&str; 11] = [
    "csrftoken",
    "xsrftoken",
    "atlassiantoken",
    "verificationtoken",
    "requesttoken",
    "retrytoken",
    "customerkey",
    "encryptionkey",
    "sessionid",
    "otp",
    "mfa",
];
/// Parameters that are credentials if they look like it: else they say what is read, which people must see.
const IF_IT_LOOKS_SO: [&str; 3] = ["key", "code", "ticket"];
/// Parameters of URLs whose values look like credentials and are none.
const PLAIN: [&str; 16] = [
    "xamzdate",
    "xamzalgorithm",
    "xgoogdate",
    "xgoogalgorithm",
    "expires",
    "sha",
    "ref",
    "commit",
    "digest",
    "version",
    "versionid",
    "after",
    "before",
    "cursor",
    "marker",
    "page",
];

/// A header field's value, for people and records.
pub(crate) fn shown<'v>(name: &HeaderName, value: &'v HeaderValue) -> Cow<'v, str> {
    let is_named_so = || !forward::is_usual(name.as_str()) && is_field(name.as_str());
    match value.is_sensitive() || is_named_so() || is_credential(value.as_bytes()) {
        true => WITHHELD.into(),
        false => match String::from_utf8_lossy(value.as_bytes()) {
            list if *name == header::SEC_WEBSOCKET_PROTOCOL => subprotocols(&list).into(),
            Cow::Borrowed(text) => without_credentials(text, may_be_relative(name.as_str())),
            Cow::Owned(text) => without_credentials(&text, true).into_owned().into(),
        },
    }
}

/// A query as records have it. `own` is a parameter by which the gate signs in.
pub(crate) fn shown_query(query: &str, own: Option<&str>) -> String {
    let is_own = |name: &str| {
        own.is_some_and(|own| name == own || target::form_decoded(name).is_ok_and(|decoded| decoded == own))
    };
    pairs(query, &|name, value| is_parameter(name, value) || is_own(name) || has_url_of_credentials(value))
}

/// An authority as a client wrote it, with whatever.
pub(crate) fn shown_authority(written: &str) -> Cow<'_, str> {
    match written.rsplit_once('@') {
        Some((_, host)) => format!("{WITHHELD}@{host}").into(),
        None => written.into(),
    }
}

/// Whether a WebSocket's subprotocol is a credential: a browser's client has no other place for one. As Kubernetes has it, or a
/// token that says what it is.
pub(crate) fn is_subprotocol(name: &str) -> bool {
    const BEARER: &str = "base64url.bearer.authorization.";
    let begins = name.get(..BEARER.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(BEARER));
    begins || is_token(name.as_bytes())
}

/// Subprotocols without those that are credentials.
fn subprotocols(list: &str) -> String {
    let names = list.split(',').map(|name| if is_subprotocol(name.trim()) { WITHHELD } else { name.trim() });
    names.collect::<Vec<_>>().join(", ")
}

/// Whether a client signs itself in by a header field of this name.
pub(crate) fn signs_in(name: &str) -> bool {
    let is_named = NAMED.iter().any(|named| is(name, named));
    let is_key = ends(name, &["key"]) && !ends(name, &CREDENTIALS);
    (is_named || ends(name, &CREDENTIALS) || ends(name, &OF_FIELDS) && !is_key)
        && !ends(name, &HARMLESS)
        && !ends(name, &NOBODY_S)
        // What a store keeps of a client's own beside an object.
        && !name.contains("-meta-")
}

/// Whether the values of header fields of this name are credentials.
pub(crate) fn is_field(name: &str) -> bool {
    let ends_so = ends(name, &CREDENTIALS) || ends(name, &OF_FIELDS);
    ends_so && !ends(name, &HARMLESS) || has_word(name) || NAMED.iter().any(|named| is(name, named))
}

/// Whether what stands at this place in a body is a credential: `body.user.access_token`, `body.user[password]`.
pub(crate) fn is_in_body(path: &str) -> bool {
    let name = path.trim_end_matches(']').rsplit(['.', '[']).next().unwrap_or_default();
    // Of Vault's AppRole. AWS' SecretId is a name, and says which secret is read.
    let is_secret_id = name == "secret_id";
    ends(name, &CREDENTIALS) && !ends(name, &HARMLESS)
        || is_secret_id
        || is(name, "auth")
        || is(name, "samlresponse")
}

/// Whether a parameter of a query or fragment is a credential, by its name as servers decode it: `access%5Ftoken`, too.
fn is_parameter(name: &str, value: &str) -> bool {
    let name = &*target::form_decoded(name).map_or(Cow::Borrowed(name), Cow::Owned);
    if IF_IT_LOOKS_SO.iter().any(|named| is(name, named)) {
        return looks_secret(value);
    }
    let ends_so = ends(name, &CREDENTIALS) || ends(name, &OF_PARAMETERS);
    ends_so && !ends(name, &HARMLESS)
        || has_word(&name.to_ascii_lowercase())
        || NAMED.iter().any(|named| is(name, named))
}

/// Whether a parameter of a URL in a header field is a credential: whoever wrote the URL named it.
fn is_in_url(name: &str, value: &str) -> bool {
    let (Ok(name), Ok(value)) = (target::form_decoded(name), target::form_decoded(value)) else {
        return true;
    };
    let is_plain = PLAIN.iter().any(|plain| is(&name, plain)) || ends(&name, &HARMLESS);
    is_parameter(&name, &value)
        || !value.is_empty() && IF_IT_LOOKS_SO.iter().any(|named| is(&name, named))
        || !is_plain && looks_secret(&value)
        || has_url_of_credentials(&value)
}

/// Whether a parameter's value is a URL that has credentials of its own.
fn has_url_of_credentials(value: &str) -> bool {
    // Most values have none of the signs of one.
    if !value.bytes().any(|byte| matches!(byte, b'%' | b':')) {
        return false;
    }
    let decoded = target::form_decoded(value).map_or(Cow::Borrowed(value), Cow::Owned);
    // Within it, only what its names say: each further URL would be decoded once more, without end.
    let Some((_, rest)) = decoded.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let mut parts = rest.split(['?', '#', '&', ';']).skip(1);
    authority.contains('@')
        || parts.any(|part| part.split_once('=').is_some_and(|(name, value)| is_parameter(name, value)))
}

/// A text without the credentials of URLs in it: what stands before their hosts, and parameters behind their paths. Where it
/// `may_be_relative`, a URL needs no scheme.
fn without_credentials(text: &str, may_be_relative: bool) -> Cow<'_, str> {
    let is_any = memchr::memchr3(b'?', b'#', b'@', text.as_bytes()).is_some();
    if !is_any || !may_be_relative && !text.contains("://") {
        return text.into();
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.find(['?', '#', ':']).and_then(|at| rest.split_at_checked(at)) {
        out.push_str(before);
        let (sign, behind) = match after.strip_prefix("://") {
            Some(behind) => ("://", behind),
            None => after.split_at_checked(1).unwrap_or((after, "")),
        };
        out.push_str(sign);
        let ends_url = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '\'' | '?' | '#');
        let ends_host = |c: char| ends_url(c) || matches!(c, '/' | ',' | ';');
        let end = match sign {
            "://" => behind.find(ends_host),
            ":" => Some(0),
            _ => behind.find(ends_url),
        };
        let (part, behind) = behind.split_at_checked(end.unwrap_or(behind.len())).unwrap_or((behind, ""));
        match sign {
            "://" => out.push_str(&shown_authority(part)),
            _ => out.push_str(&pairs(part, &is_in_url)),
        }
        rest = behind;
    }
    out.push_str(rest);
    out.into()
}

/// Parameters, those withheld that are to be. One without a name is a value.
fn pairs(text: &str, is_withheld: &dyn Fn(&str, &str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(['&', ';']) {
        let pair = part.strip_suffix(['&', ';']).unwrap_or(part);
        match pair.split_once('=') {
            Some((name, value)) if is_withheld(name, value) => out.extend([name, "=", WITHHELD]),
            None if is_withheld("", pair) => out.push_str(WITHHELD),
            _ => out.push_str(pair),
        }
        out.push_str(part.get(pair.len()..).unwrap_or_default());
    }
    out
}

/// Whether a field of this name holds a URL that may be relative (RFC 3986, 4.2).
fn may_be_relative(name: &str) -> bool {
    const HOLD: [&str; 8] = ["location", "link", "referer", "refresh", "destination", "source", "url", "uri"];
    ends(name, &HOLD)
}

/// Whether a header field's value is a credential whatever its name is: an `Authorization`, or a token that says what it is (RFC
/// 7519).
fn is_credential(value: &[u8]) -> bool {
    let behind = |scheme: &[u8]| {
        let begins = value.get(..scheme.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(scheme));
        value.get(scheme.len()..).filter(|rest| begins && !rest.is_empty())
    };
    // With blanks and quotes it is a challenge.
    let is_one = |rest: &[u8]| !rest.iter().any(|byte| matches!(byte, b' ' | b'"'));
    is_token(value) || [&b"bearer "[..], b"basic "].into_iter().filter_map(behind).any(is_one)
}

/// Whether it is a JWT: three parts in Base64, of which the first is a JSON object.
fn is_token(value: &[u8]) -> bool {
    value.starts_with(b"eyJ") && value.iter().filter(|byte| **byte == b'.').count() >= 2
}

/// Whether a value is a key to a door. Where it is one to a table it says what is read or deleted, which people must see.
fn looks_secret(value: &str) -> bool {
    let has = |is: fn(&u8) -> bool| value.as_bytes().iter().any(is);
    let plain = value.trim_end_matches('=');
    let is_key = plain.len() >= 12
        && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+'))
        && has(u8::is_ascii_alphabetic);
    is_token(value.as_bytes())
        || is_key && has(u8::is_ascii_digit)
        || is_key && plain.len() >= 20 && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase)
}

/// Whether a name ends in one of these ways, whatever stands between its letters.
fn ends(name: &str, ways: &[&str]) -> bool {
    let letters =
        || name.bytes().rev().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    let Some(last) = letters().next() else { return false };
    let ends_so = |way: &&&str| {
        let mut letters = letters();
        way.bytes().rev().all(|byte| letters.next() == Some(byte))
    };
    ways.iter().filter(|way| way.as_bytes().last() == Some(&last)).any(|way| ends_so(&way))
}

/// Whether a name is this one, whatever stands between its letters.
fn is(name: &str, letters: &str) -> bool {
    let own = name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    own.eq(letters.bytes())
}

/// Whether one of the words is in a name in lower case, in one pass: each header field of each request is asked.
fn has_word(name: &str) -> bool {
    let begins = |at| {
        let rest = name.get(at..).unwrap_or_default();
        WORDS.iter().any(|word| rest.starts_with(word))
    };
    name.bytes().enumerate().any(|(at, byte)| matches!(byte, b's' | b'p' | b'a') && begins(at))
}

#[cfg(test)]
mod tests;
