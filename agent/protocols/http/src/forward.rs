//! Which header fields go on, in either direction.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{overriding, secrets};

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
const SOMEBODY_ELSE: [&str; 3] = ["x-user", "mscrmcallerid", "callerobjectid"];

/// The same by how their names end, from the beginning or a dash on: there are more of them than anybody lists.
const ENDS_AS_SOMEBODY_ELSE: [&str; 15] = [
    "sudo",
    "as-user",
    "run-as",
    "runas",
    "runas-user",
    "switch-user",
    "remote-user",
    "remote-name",
    "remote-email",
    "remote-group",
    "remote-groups",
    "webauth-user",
    "api-username",
    "trino-user",
    "presto-user",
];

/// The same by what is in their names, dashes left out.
const SPEAKS_OF_SOMEBODY_ELSE: [&str; 8] = [
    "impersonat",
    "behalfof",
    "proxiedentit",
    "remoteextra",
    "authrequest",
    "authenticateduser",
    "clientprincipal",
    "oidcidentity",
];

/// Fields by which a proxy tells some servers who it was that asked it.
const WHO_ASKED: [&str; 6] = [
    "client-cert",
    "client-cert-chain",
    "x-client-cert",
    "true-client-ip",
    "cf-connecting-ip",
    "x-middleware-subrequest",
];

/// Fields that most messages have, in order: what a name may mean is not looked for in these.
const USUAL: [&str; 32] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "access-control-allow-origin",
    "age",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "etag",
    "expires",
    "host",
    "if-modified-since",
    "if-none-match",
    "last-modified",
    "link",
    "location",
    "origin",
    "pragma",
    "range",
    "referer",
    "server",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "x-request-id",
];

/// Whether a field is one that most messages have: neither a credential nor anything else that changes a request.
pub(crate) fn is_usual(name: &str) -> bool {
    USUAL.binary_search(&name).is_ok()
}

/// Whether a field is about one connection.
pub(crate) fn is_connections_own(name: &HeaderName) -> bool {
    CONNECTIONS_OWN.contains(&name.as_str())
}

/// Whether a field says who else is meant than who signs in. Without it the request would be another: whoever asks for less would
/// have all that the gate may do.
pub(crate) fn is_somebody_else(name: &str) -> bool {
    let ends =
        |end: &&str| name.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('-'));
    SOMEBODY_ELSE.contains(&name)
        || ENDS_AS_SOMEBODY_ELSE.iter().any(ends)
        || speaks_of_somebody_else(&name.replace('-', ""))
}

fn speaks_of_somebody_else(letters: &str) -> bool {
    SPEAKS_OF_SOMEBODY_ELSE.iter().any(|word| letters.contains(word))
}

fn is_who_asked(name: &str) -> bool {
    WHO_ASKED.contains(&name) || name.starts_with("x-ssl-client-")
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
        let is_usual = is_usual(text);
        if !is_usual && overriding::field(text) {
            return Err(format!("the header field {name} would change what the request is"));
        }
        if text.contains('_') && !pass.contains(name) {
            return Err(format!(
                "the header field {name} has an underscore, which servers read as a dash (options: {{pass: [{name}]}} lets it)"
            ));
        }
        if is_connections_own(name) || nominated.contains(name) || is_proxy_s(text) {
            continue;
        }
        let goes = if !is_usual && is_own(text) && !pass.contains(name) { &mut own } else { &mut sent };
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
    secrets::signs_in(name) || is_somebody_else(name) || is_who_asked(name)
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
            && !secrets::is_field(text)
            && !PROXIES.contains(&text)
            && !is_somebody_else(text)
            && !is_who_asked(text)
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
        ["\n", name.as_str(), ": ", &secrets::shown(name, value)].iter().for_each(|part| text.push_str(part));
    }
    text
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
            ("x-consul-token", "z"),
            ("x-registry-auth", "z"),
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
            ("as-user", "7"),
            ("sudo", "1"),
            ("x-webauth-user", "admin"),
            ("x-ssl-client-verify", "SUCCESS"),
            ("x-auth-request-email", "a@b.example"),
            ("es-security-runas-user", "admin"),
            ("x-trino-user", "admin"),
            ("x-redmine-switch-user", "admin"),
            ("x-on-behalf-of", "admin"),
            ("x-ms-on-behalf-of", "admin"),
            ("x-goog-impersonated-user", "admin"),
            ("x-proxiedentitieschain", "<admin>"),
            ("x-ms-client-principal-id", "1"),
            ("api-username", "system"),
            ("callerobjectid", "1"),
        ]);
        assert!(sent(&all, &[]).is_empty());
        let others =
            headers(&[("x-user-agent", "a"), ("x-alias-user", "b"), ("x-pseudo", "c"), ("x-run-async", "d")]);
        assert_eq!(sent(&others, &[]), others);
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
    fn what_is_usual_is_nothing_that_has_to_be_looked_at() {
        assert!(USUAL.is_sorted());
        for name in USUAL {
            let is_anything =
                overriding::field(name) || is_own(name) || secrets::is_field(name) || name.contains('_');
            assert!(!is_anything, "{name}");
        }
    }

    #[test]
    fn what_only_looks_like_a_credential_goes_on() {
        let all = headers(&[
            ("x-csrf-token", "a"),
            ("idempotency-key", "b"),
            ("lock-token", "<c>"),
            ("npm-otp", "123456"),
            ("x-goog-encryption-key", "d"),
            ("x-amz-meta-upload-token", "e"),
        ]);
        assert_eq!(sent(&all, &[]), all);
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
        let named = headers(&[("x-db-password", "hunter2")]);
        assert_eq!(recorded("GET / HTTP/1.1", &named), "GET / HTTP/1.1\nx-db-password: (withheld)");
    }
}
