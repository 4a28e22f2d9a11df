//! Which header fields go on, in either direction.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{overriding, target};

/// Fields that are about one connection (RFC 9110, 7.6.1), or that the gate makes anew.
const CONNECTIONS_OWN: [&str; 14] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "content-length",
    "host",
    "expect",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
];

/// Fields by which a client would pass for a proxy.
const PROXIES: [&str; 3] = ["forwarded", "x-real-ip", "x-client-ip"];

/// Fields by which some servers take somebody else for whom the request is from than who signed in: behind the gate's own
/// credential they would be obeyed.
const SOMEBODY_ELSE: [&str; 13] = [
    "sudo",
    "remote-user",
    "x-remote-user",
    "x-remote-group",
    "x-webauth-user",
    "x-authenticated-user",
    "x-user",
    "client-cert",
    "client-cert-chain",
    "x-client-cert",
    "true-client-ip",
    "cf-connecting-ip",
    "x-middleware-subrequest",
];

/// The same by how their names begin.
const SOMEBODY_ELSES: [&str; 5] =
    ["impersonate-", "x-remote-extra-", "x-auth-request-", "x-ssl-client-", "x-goog-authenticated-user-"];

/// Fields whose values are credentials: withheld in records, and a client's own go no further.
const SECRET: [&str; 26] = [
    "authorization",
    "cookie",
    "set-cookie",
    "api-key",
    "x-api-key",
    "x-auth-token",
    "x-access-token",
    "x-csrf-token",
    "private-token",
    "job-token",
    "deploy-token",
    "x-vault-token",
    "x-amz-security-token",
    "x-goog-api-key",
    "apikey",
    "x-apikey",
    "x-auth-key",
    "x-gitlab-token",
    "circle-token",
    "x-jfrog-art-api",
    "x-nuget-apikey",
    "x-shopify-access-token",
    "x-figma-token",
    "ocp-apim-subscription-key",
    "dd-api-key",
    "dd-application-key",
];

/// What is in the names of most fields and parameters that are credentials: records have none of them.
const SECRET_WORDS: [&str; 8] =
    ["secret", "password", "passwd", "api-key", "apikey", "api_key", "access-token", "access_token"];

/// Proves that a form is the site's own, and signs nobody in.
const CSRF: &str = "x-csrf-token";

/// Query parameters whose values are credentials.
const SECRET_PARAMETERS: [&str; 12] = [
    "x-amz-signature",
    "x-amz-security-token",
    "x-amz-credential",
    "x-goog-signature",
    "x-goog-credential",
    "refresh_token",
    "id_token",
    "private_token",
    "job_token",
    "token",
    "sig",
    "signature",
];

/// Names of fields whose values are credentials in JSON and forms, in lower case and without dashes and underscores. A `key`
/// is much else there.
const SECRET_FIELDS: [&str; 17] = [
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "privatetoken",
    "jobtoken",
    "sessiontoken",
    "token",
    "subjecttoken",
    "actortoken",
    "apikey",
    "secret",
    "clientsecret",
    "assertion",
    "clientassertion",
    "password",
    "passwd",
    "privatekey",
];

/// What stands in records for what they withhold.
pub(crate) const WITHHELD: &str = "(withheld)";

/// Whether a field is about one connection.
pub(crate) fn is_connections_own(name: &HeaderName) -> bool {
    CONNECTIONS_OWN.contains(&name.as_str())
}

fn is_somebody_else(name: &str) -> bool {
    SOMEBODY_ELSE.contains(&name) || SOMEBODY_ELSES.iter().any(|beginning| name.starts_with(beginning))
}

/// A client's header fields.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// Those that go upstream.
    pub(crate) headers: HeaderMap,
    /// Credentials of the client's own, and who else it says that is meant: they stay, unless a rule lets them go on.
    pub(crate) own: HeaderMap,
}

/// What goes upstream of a client's header fields. `pass` are credentials that may.
///
/// # Errors
/// A field that some servers would read as another, or obey instead of the request line.
pub(crate) fn upstream(headers: &HeaderMap, pass: &[HeaderName]) -> Result<Forwarded, String> {
    let nominated = nominated(headers);
    let (mut sent, mut own) = (HeaderMap::with_capacity(headers.len()), HeaderMap::new());
    for (name, value) in headers {
        let text = name.as_str();
        if overriding::field(text) {
            return Err(format!("the header field {name} would change what the request is"));
        }
        if text.contains('_') {
            return Err(format!("the header field {name} has an underscore, which servers read as a dash"));
        }
        if is_connections_own(name) || nominated.contains(name) || is_proxy_s(text) {
            continue;
        }
        let goes = if is_own(text) && !pass.contains(name) { &mut own } else { &mut sent };
        goes.append(name.clone(), value.clone());
    }
    join_cookies(&mut sent);
    join_cookies(&mut own);
    if has_token(headers, &header::TE, "trailers") {
        sent.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // What trailers there will be is said beforehand (RFC 9110, 6.6.2): some servers take no others.
    let announced: Vec<&str> = members(headers, &header::TRAILER).filter(|name| may_trail(name)).collect();
    if let (false, Ok(announced)) = (announced.is_empty(), HeaderValue::from_str(&announced.join(", "))) {
        sent.insert(header::TRAILER, announced);
    }
    Ok(Forwarded { headers: sent, own })
}

/// Whether a client's field of this name could go upstream; an error says why not.
pub(crate) fn can_go(name: &str) -> Result<(), String> {
    let parsed: HeaderName = name.parse().map_err(|_| "is no header field's name".to_owned())?;
    if parsed.as_str() != name {
        return Err(format!("is written {:?}", parsed.as_str()));
    }
    match is_connections_own(&parsed) || is_proxy_s(name) || overriding::field(name) || name.contains('_') {
        true => Err("never goes upstream".into()),
        false => Ok(()),
    }
}

/// Whether a client's field of this name stays unless something passes it; an error says why not.
pub(crate) fn can_be_passed(name: &str) -> Result<(), String> {
    can_go(name)?;
    match is_own(name) {
        true => Ok(()),
        false => Err("goes on in any case: it is known for no credential".into()),
    }
}

/// Whether it is the client's own credential, or says who else is meant.
fn is_own(name: &str) -> bool {
    SECRET.contains(&name) && name != CSRF || is_somebody_else(name)
}

fn is_proxy_s(name: &str) -> bool {
    PROXIES.contains(&name) || name.starts_with("x-forwarded-") || name.starts_with("proxy-")
}

/// What goes upstream of a client's trailers: nothing that a server could take for a part of the head that matters.
pub(crate) fn trailers(trailers: &HeaderMap) -> HeaderMap {
    let harmless = trailers.iter().filter(|(name, _)| may_trail(name.as_str()));
    harmless.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn may_trail(name: &str) -> bool {
    name.parse::<HeaderName>().is_ok_and(|name| {
        let text = name.as_str();
        let begins = ["content-", "x-forwarded-", "proxy-"];
        !is_connections_own(&name)
            && !overriding::field(text)
            && !SECRET.contains(&text)
            && !PROXIES.contains(&text)
            && !is_somebody_else(text)
            && !text.contains('_')
            && !begins.iter().any(|begins| text.starts_with(begins))
    })
}

/// What goes to the client of an upstream's header fields: nothing of its connection's, nor where else it could be asked.
pub(crate) fn client(headers: &HeaderMap) -> HeaderMap {
    let nominated = nominated(headers);
    let mut shown = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if !is_connections_own(name) && !nominated.contains(name) && name != header::ALT_SVC {
            shown.append(name.clone(), value.clone());
        }
    }
    shown
}

/// How many bytes an upstream says that its body has. Beside `Transfer-Encoding` that means nothing (RFC 9112, 6.3).
pub(crate) fn declared(headers: &HeaderMap) -> Option<u64> {
    let length =
        headers.get(header::CONTENT_LENGTH).filter(|_| !headers.contains_key(header::TRANSFER_ENCODING));
    length?.to_str().ok()?.parse().ok()
}

/// Whether a list field has this member.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    members(headers, name).any(|member| member.eq_ignore_ascii_case(token))
}

fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
}

/// Fields that a `Connection` field names: they go no further (RFC 9110, 7.6.1).
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    members(headers, &header::CONNECTION).filter_map(|name| name.parse().ok()).collect()
}

/// HTTP/2 clients send cookies one by one; HTTP/1.1 servers take one field (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let all: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if all.len() > 1
        && let Ok(mut joined) = HeaderValue::from_bytes(&all.join(&b"; "[..]))
    {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}

/// A head as records have it: credentials withheld.
pub(crate) fn recorded(first_line: &str, headers: &HeaderMap) -> String {
    let length = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 3).sum::<usize>();
    let mut text = String::with_capacity(first_line.len() + length);
    text.push_str(first_line);
    for (name, value) in headers {
        let shown = match is_secret(name, value) {
            true => WITHHELD.into(),
            false => String::from_utf8_lossy(value.as_bytes()),
        };
        ["\n", name.as_str(), ": ", &shown].iter().for_each(|part| text.push_str(part));
    }
    text
}

/// A query as records have it. `own` is a parameter by which the gate signs in.
pub(crate) fn recorded_query(query: &str, own: Option<&str>) -> String {
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value))
            if is_secret_parameter(name, value) || own.is_some_and(|own| is_named(name, own)) =>
        {
            format!("{name}={WITHHELD}")
        }
        _ => pair.to_owned(),
    });
    shown.collect::<Vec<_>>().join("&")
}

/// Whether a header field's value is a credential, for people and records.
pub(crate) fn is_secret(name: &HeaderName, value: &HeaderValue) -> bool {
    let name = name.as_str();
    value.is_sensitive() || SECRET.contains(&name) || has_secret_word(name)
}

/// Whether a parameter is of this name, however it is encoded.
fn is_named(written: &str, name: &str) -> bool {
    written == name || target::form_decoded(written).is_ok_and(|decoded| decoded == name)
}

/// Whether a key is one to a door. Where it is one to a table it says what is read or deleted, which people must see.
fn looks_secret(value: &str) -> bool {
    value.len() >= 12
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && value.bytes().any(|byte| byte.is_ascii_digit())
        && value.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// The name as servers decode it, `access%5Ftoken` too.
fn is_secret_parameter(name: &str, value: &str) -> bool {
    let name = target::form_decoded(name).unwrap_or_else(|_| name.to_owned()).to_ascii_lowercase();
    if name == "key" {
        return looks_secret(value);
    }
    SECRET_PARAMETERS.contains(&&*name) || has_secret_word(&name)
}

/// Whether one of the secret words is in a name, in one pass: each header field of each request is asked.
fn has_secret_word(name: &str) -> bool {
    let begins = |at| {
        let rest = name.get(at..).unwrap_or_default();
        SECRET_WORDS.iter().any(|word| rest.starts_with(word))
    };
    name.bytes().enumerate().any(|(at, byte)| matches!(byte, b's' | b'p' | b'a') && begins(at))
}

/// Whether what stands at this place in a body is a credential, by its name: `body.user.access_token`, `body.user[password]`.
pub(crate) fn is_secret_field(path: &str) -> bool {
    let name = path.trim_end_matches(']').rsplit(['.', '[']).next().unwrap_or_default();
    let letters = name.chars().filter(|character| !matches!(character, '-' | '_'));
    let name: String = letters.map(|character| character.to_ascii_lowercase()).collect();
    SECRET_FIELDS.contains(&&*name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn sent(headers: &HeaderMap, pass: &[HeaderName]) -> HeaderMap {
        upstream(headers, pass).unwrap().headers
    }

    #[test]
    fn nothing_of_the_connection_s_own_goes_on() {
        let client_s = headers(&[
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("accept", "*/*"),
        ]);
        assert_eq!(sent(&client_s, &[]), headers(&[("accept", "*/*"), ("te", "trailers")]));
        let server_s = headers(&[("alt-svc", "h3=\":443\""), ("keep-alive", "timeout=5"), ("etag", "x")]);
        assert_eq!(client(&server_s), headers(&[("etag", "x")]));
    }

    #[test]
    fn the_client_s_own_credentials_stay_unless_they_are_passed() {
        let all = headers(&[
            ("authorization", "Bearer x"),
            ("cookie", "a=1"),
            ("proxy-authorization", "Basic y"),
            ("private-token", "z"),
        ]);
        assert!(sent(&all, &[]).is_empty());
        assert_eq!(sent(&all, &[header::COOKIE]), headers(&[("cookie", "a=1")]));
    }

    #[test]
    fn what_stays_is_set_aside_but_what_is_the_connection_s_or_a_proxy_s() {
        let all = headers(&[("authorization", "Bearer x"), ("sudo", "1"), ("x-real-ip", "::1"), ("a", "b")]);
        assert_eq!(
            upstream(&all, &[]).unwrap().own,
            headers(&[("authorization", "Bearer x"), ("sudo", "1")])
        );
        let named = headers(&[("authorization", "Bearer x"), ("connection", "authorization")]);
        assert!(upstream(&named, &[]).unwrap().own.is_empty());
        for (name, why) in [
            ("authorization", None),
            ("sudo", None),
            ("Cookie", Some("is written \"cookie\"")),
            ("accept", Some("goes on in any case")),
            ("x-forwarded-for", Some("never goes upstream")),
            ("x-http-method-override", Some("never goes upstream")),
            ("a b", Some("is no header field's name")),
        ] {
            let told = can_be_passed(name).err();
            assert_eq!(told.is_some(), why.is_some(), "{name}: {told:?}");
            assert!(told.unwrap_or_default().starts_with(why.unwrap_or_default()), "{name}");
        }
    }

    #[test]
    fn nobody_says_who_else_is_meant_by_the_gate_s_credential() {
        let all = headers(&[
            ("impersonate-user", "root"),
            ("sudo", "1"),
            ("x-webauth-user", "admin"),
            ("x-ssl-client-verify", "SUCCESS"),
            ("x-auth-request-email", "a@b.example"),
        ]);
        assert!(sent(&all, &[]).is_empty());
        let sudo = HeaderName::from_static("sudo");
        assert_eq!(sent(&all, &[sudo]), headers(&[("sudo", "1")]));
    }

    #[test]
    fn a_trailer_is_nothing_that_belongs_in_the_head() {
        let named = headers(&[("trailer", "X-Sum, Authorization, Content-Length, X_Sum, a b")]);
        assert_eq!(sent(&named, &[]), headers(&[("trailer", "X-Sum")]));
        let came = headers(&[
            ("x-sum", "1"),
            ("authorization", "Bearer x"),
            ("content-type", "text/html"),
            ("host", "x"),
            ("x-forwarded-for", "::1"),
            ("x-http-method-override", "DELETE"),
            ("x-remote-user", "root"),
        ]);
        assert_eq!(trailers(&came), headers(&[("x-sum", "1")]));
    }

    #[test]
    fn a_secret_word_is_seen_wherever_it_stands() {
        for word in SECRET_WORDS {
            for name in [word.to_owned(), format!("x-{word}"), format!("spa{word}"), format!("é{word}s")] {
                assert!(has_secret_word(&name), "{name}");
            }
        }
        for name in ["accept", "x-pass", "api", "sec-fetch-site", "access-control-allow-origin", ""] {
            assert!(!has_secret_word(name), "{name}");
        }
    }

    #[test]
    fn what_would_change_the_request_is_refused() {
        for name in
            ["x-http-method-override", "x-original-url", "x-rewrite-path", "content_length", "x_api_key"]
        {
            assert!(upstream(&headers(&[(name, "DELETE")]), &[]).is_err(), "{name} was taken");
        }
    }

    #[test]
    fn records_withhold_credentials() {
        let text = recorded(
            "GET / HTTP/1.1",
            &headers(&[("cookie", "s=hunter2"), ("private-token", "hunter2"), ("a", "b")]),
        );
        assert_eq!(text, "GET / HTTP/1.1\ncookie: (withheld)\nprivate-token: (withheld)\na: b");
        assert_eq!(
            recorded_query(
                "q=1&Access_Token=hunter2&X-Amz-Signature=hunter2&X-Amz-Date=7&%6b=hunter2",
                Some("k")
            ),
            "q=1&Access_Token=(withheld)&X-Amz-Signature=(withheld)&X-Amz-Date=7&%6b=(withheld)"
        );
        assert_eq!(
            recorded_query("access%5Ftoken=hunter2&client_secret=hunter2", None),
            "access%5Ftoken=(withheld)&client_secret=(withheld)"
        );
        assert_eq!(recorded_query("key=prod/db", None), "key=prod/db");
        assert_eq!(recorded_query("key=AIzaSy-0123456789abc", None), "key=(withheld)");
        let named = headers(&[("x-db-password", "hunter2")]);
        assert_eq!(recorded("GET / HTTP/1.1", &named), "GET / HTTP/1.1\nx-db-password: (withheld)");
    }

    #[test]
    fn a_credential_in_a_body_is_known_by_its_name_however_that_is_written() {
        for secret in [
            "body.password",
            "body.a.access_token",
            "body.accessToken",
            "body.user[Client-Secret]",
            "body.[token]",
        ] {
            assert!(is_secret_field(secret), "{secret}");
        }
        for other in ["body", "body.key", "body.tokens", "body.password.hint", "header.x"] {
            assert!(!is_secret_field(other), "{other}");
        }
    }
}
