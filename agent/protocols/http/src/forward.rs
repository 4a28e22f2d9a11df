//! Which header fields go on, in either direction.

use http::{HeaderMap, HeaderName, HeaderValue, header};

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

/// Fields by which some servers take another method or another path than the request's.
const OVERRIDING: [&str; 8] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-uri",
    "x-original-method",
    "x-override-url",
];

/// Fields whose values are credentials: withheld in records, and a client's own go no further.
const SECRET: [&str; 14] = [
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
];

/// Proves that a form is the site's own, and signs nobody in.
const CSRF: &str = "x-csrf-token";

/// Query parameters whose values are credentials.
const SECRET_PARAMETERS: [&str; 13] = [
    "access_token",
    "refresh_token",
    "id_token",
    "private_token",
    "job_token",
    "token",
    "api_key",
    "apikey",
    "key",
    "password",
    "secret",
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

/// What goes upstream of a client's header fields. `pass` are credentials that may.
///
/// # Errors
/// A field that some servers would read as another, or obey instead of the request line.
pub(crate) fn upstream(headers: &HeaderMap, pass: &[HeaderName]) -> Result<HeaderMap, String> {
    let nominated = nominated(headers);
    let mut sent = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let text = name.as_str();
        if OVERRIDING.contains(&text) {
            return Err(format!("the header field {name} would change what the request is"));
        }
        if text.contains('_') {
            return Err(format!("the header field {name} has an underscore, which servers read as a dash"));
        }
        let is_credential = SECRET.contains(&text) && name != CSRF;
        let dropped = is_connections_own(name)
            || nominated.contains(name)
            || PROXIES.contains(&text)
            || text.starts_with("x-forwarded-")
            || text.starts_with("proxy-")
            || is_credential && !pass.contains(name);
        if !dropped {
            sent.append(name.clone(), value.clone());
        }
    }
    join_cookies(&mut sent);
    if has_token(headers, &header::TE, "trailers") {
        sent.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(sent)
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
    let mut text = first_line.to_owned();
    for (name, value) in headers {
        let shown = match SECRET.contains(&name.as_str()) || value.is_sensitive() {
            true => WITHHELD.into(),
            false => String::from_utf8_lossy(value.as_bytes()),
        };
        text.push_str(&format!("\n{name}: {shown}"));
    }
    text
}

/// A query as records have it. `own` is a parameter by which the gate signs in.
pub(crate) fn recorded_query(query: &str, own: Option<&str>) -> String {
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) || own == Some(name) => format!("{name}={WITHHELD}"),
        _ => pair.to_owned(),
    });
    shown.collect::<Vec<_>>().join("&")
}

fn is_secret(parameter: &str) -> bool {
    let lower = parameter.to_ascii_lowercase();
    SECRET_PARAMETERS.contains(&&*lower) || lower.starts_with("x-amz-") || lower.starts_with("x-goog-")
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
        assert_eq!(upstream(&client_s, &[]).unwrap(), headers(&[("accept", "*/*"), ("te", "trailers")]));
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
        assert!(upstream(&all, &[]).unwrap().is_empty());
        assert_eq!(upstream(&all, &[header::COOKIE]).unwrap(), headers(&[("cookie", "a=1")]));
    }

    #[test]
    fn what_would_change_the_request_is_refused() {
        for name in OVERRIDING.into_iter().chain(["content_length", "x_api_key"]) {
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
            recorded_query("q=1&Access_Token=hunter2&X-Amz-Signature=hunter2&k=hunter2", Some("k")),
            "q=1&Access_Token=(withheld)&X-Amz-Signature=(withheld)&k=(withheld)"
        );
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
