//! WebSocket (RFC 6455): asking for one is decided as a request, every message as an action of its own.
//!
//! Clients ask by HTTP/1.1's upgrade or on a stream of HTTP/2 (RFC 8441), upstreams are asked by the upgrade, which every one
//! of them takes. Both handshakes are the gate's own, and so are the frames on either side: `tungstenite` reads and writes
//! them, and what goes on is made anew from whole messages. No extension is negotiated; pings are answered where they arrive.

mod relay;
mod room;

use std::fmt;

use aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

pub(crate) use relay::Switched;

use crate::{forward, request::Asked, secrets};

/// What both keys are hashed with (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest name of a subprotocol.
const LONGEST_PROTOCOL: usize = 128;

/// A client's wish for a WebSocket.
pub(crate) struct Offer {
    /// What proves to a client of HTTP/1.1 that its wish was understood.
    accept: Option<HeaderValue>,
    /// The gate's own key, for the upstream.
    key: String,
    /// Subprotocols that the client speaks, without its credentials.
    protocols: Vec<String>,
}

impl Offer {
    /// The wish, if it is one; an error says what is wrong with it. Credentials that the client has among its subprotocols, as
    /// browsers let it have no others, are no part of it unless the resource passes them.
    pub(crate) fn read(asked: &Asked, pass: &[HeaderName]) -> Result<Option<Self>, &'static str> {
        let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
        let accept = match asked.protocol.as_deref() {
            Some("websocket") if asked.length == Some(0) => None,
            Some("websocket") => return Err("a WebSocket is asked for without a body"),
            Some(_) => return Ok(None),
            None if asked.headers.get(header::UPGRADE).is_some_and(is_websocket) => Some(answer(asked)?),
            None => return Ok(None),
        };
        if one(&asked.headers, &header::SEC_WEBSOCKET_VERSION)? != b"13" {
            return Err("its Sec-WebSocket-Version is not 13");
        }
        let passes = pass.contains(&header::SEC_WEBSOCKET_PROTOCOL);
        let protocols = protocols(&asked.headers, passes).ok_or("its Sec-WebSocket-Protocol is none")?;
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).map_err(|_| "the gate has no random numbers")?;
        Ok(Some(Self { accept, key: STANDARD.encode(nonce), protocols }))
    }

    /// Removes what is this one handshake's own, such as its key: a client that asks again for the same asks the same.
    pub(crate) fn keep_protocols(&self, headers: &mut HeaderMap) {
        strip(headers);
        if !self.protocols.is_empty()
            && let Ok(value) = HeaderValue::from_str(&self.protocols.join(", "))
        {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
    }

    /// Adds what asks the upstream for it, in place of what the client asked with.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        self.keep_protocols(headers);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if let Ok(key) = HeaderValue::from_str(&self.key) {
            headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
    }

    /// The header fields that tell the client yes, made of the upstream's; an error if the upstream's are no yes. Where masks
    /// are on it, they are the handshake's alone.
    pub(crate) fn accepted(&self, upstream: &HeaderMap, is_masked: bool) -> Result<HeaderMap, &'static str> {
        let is_upgrade = upstream
            .get(header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
            && forward::has_token(upstream, &header::CONNECTION, "upgrade");
        if !is_upgrade
            || one(upstream, &header::SEC_WEBSOCKET_ACCEPT)? != accept(self.key.as_bytes()).as_bytes()
        {
            return Err("it switches protocols to another than WebSocket");
        }
        if upstream.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
            return Err("it uses a WebSocket extension that it was not offered");
        }
        let chosen = upstream.get(header::SEC_WEBSOCKET_PROTOCOL);
        let is_offered =
            |chosen: &HeaderValue| self.protocols.iter().any(|offered| chosen == offered.as_str());
        if chosen.is_some_and(|chosen| !is_offered(chosen)) {
            return Err("it chose a subprotocol that it was not offered");
        }
        let mut headers = if is_masked { HeaderMap::new() } else { forward::client(upstream) };
        strip(&mut headers);
        if let Some(accept) = &self.accept {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
        }
        headers.extend(chosen.map(|chosen| (header::SEC_WEBSOCKET_PROTOCOL, chosen.clone())));
        Ok(headers)
    }

    /// How the client is told yes: by the status that its version has for it.
    pub(crate) fn status(&self) -> StatusCode {
        if self.accept.is_some() { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK }
    }
}

/// The answer to the key of an upgrade.
fn answer(asked: &Asked) -> Result<HeaderValue, &'static str> {
    if asked.version != Version::HTTP_11 || asked.method != Method::GET || asked.length != Some(0) {
        return Err("a WebSocket is asked for by GET, in HTTP/1.1, without a body");
    }
    const NO_KEY: &str = "its Sec-WebSocket-Key is none";
    let key = one(&asked.headers, &header::SEC_WEBSOCKET_KEY)?;
    match STANDARD.decode(key) {
        Ok(decoded) if decoded.len() == 16 => HeaderValue::from_str(&accept(key)).map_err(|_| NO_KEY),
        _ => Err(NO_KEY),
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("protocols", &self.protocols).finish_non_exhaustive()
    }
}

/// The one value of a field.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], &'static str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        _ => Err("a field of its WebSocket handshake is missing, or there twice"),
    }
}

/// What answers a key (RFC 6455, 4.2.2).
fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    STANDARD.encode(context.finish())
}

fn protocols(headers: &HeaderMap, passes: bool) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for list in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        for name in list.to_str().ok()?.split(',').map(str::trim) {
            // A token (RFC 9110, 5.6.2), as methods are.
            let is_credential = secrets::is_subprotocol(name);
            Method::from_bytes(name.as_bytes())
                .ok()
                .filter(|_| is_credential || name.len() <= LONGEST_PROTOCOL)?;
            if passes || !is_credential {
                all.push(name.to_owned());
            }
        }
    }
    Some(all)
}

/// Removes whatever belongs to a handshake.
fn strip(headers: &mut HeaderMap) {
    for name in [
        header::SEC_WEBSOCKET_ACCEPT,
        header::SEC_WEBSOCKET_EXTENSIONS,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_VERSION,
    ] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(more: &[(&str, &str)], without: &str) -> Asked {
        let usual = [
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let fields = usual.iter().chain(more).filter(|(name, _)| *name != without);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Asked {
            method: Method::GET,
            authority: None,
            scheme: None,
            target: "/".into(),
            version: Version::HTTP_11,
            headers,
            length: Some(0),
            protocol: None,
        }
    }

    #[test]
    fn the_client_s_key_is_answered_as_the_rfc_says() {
        let offer = Offer::read(&asked(&[], ""), &[]).unwrap().unwrap();
        assert_eq!(offer.accept.unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_upstream_is_asked_with_the_gate_s_own_key_and_without_extensions() {
        let more =
            [("sec-websocket-extensions", "permessage-deflate"), ("sec-websocket-protocol", "chat, v2")];
        let asked = asked(&more, "");
        let offer = Offer::read(&asked, &[]).unwrap().unwrap();
        let mut headers = asked.headers;
        offer.ask(&mut headers);
        assert_ne!(headers["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(
            (&headers["sec-websocket-protocol"], headers.get("sec-websocket-extensions")),
            (&"chat, v2".parse().unwrap(), None)
        );
    }

    #[test]
    fn a_token_among_the_subprotocols_goes_up_only_where_the_resource_passes_it() {
        let bearer = format!("base64url.bearer.authorization.k8s.io.{}", "aHVudGVyMg".repeat(20));
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.x";
        let offered = format!("{bearer}, v4.channel.k8s.io, {token}");
        let asked = asked(&[("sec-websocket-protocol", &offered)], "");
        let pass = [header::SEC_WEBSOCKET_PROTOCOL];
        for (pass, goes) in [(&[][..], "v4.channel.k8s.io"), (&pass[..], &*offered)] {
            let offer = Offer::read(&asked, pass).unwrap().unwrap();
            let mut headers = asked.headers.clone();
            offer.ask(&mut headers);
            assert_eq!(headers["sec-websocket-protocol"], goes);
            let recorded = forward::recorded("", &headers);
            assert!(!recorded.contains("aHVudGVyMg") && !recorded.contains("eyJ"), "{recorded}");
            assert!(recorded.contains("v4.channel.k8s.io"), "{recorded}");
        }
    }

    #[test]
    fn a_handshake_that_is_not_whole_is_refused() {
        for missing in ["sec-websocket-version", "sec-websocket-key"] {
            assert!(Offer::read(&asked(&[], missing), &[]).is_err(), "without {missing}");
        }
        for (name, value) in [
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "a b"),
            ("sec-websocket-protocol", "a,,b"),
        ] {
            assert!(Offer::read(&asked(&[(name, value)], ""), &[]).is_err(), "{name}: {value}");
        }
        assert!(Offer::read(&Asked { length: Some(1), ..asked(&[], "") }, &[]).is_err());
        assert!(Offer::read(&Asked { method: Method::POST, ..asked(&[], "") }, &[]).is_err());
        assert!(Offer::read(&asked(&[], "upgrade"), &[]).unwrap().is_none());
    }

    #[test]
    fn an_upstream_that_says_yes_to_something_else_is_not_believed() {
        let offer = Offer::read(&asked(&[("sec-websocket-protocol", "chat")], ""), &[]).unwrap().unwrap();
        let yes = accept(offer.key.as_bytes());
        let answer = |more: &[(&str, &str)]| {
            let usual = [("upgrade", "websocket"), ("connection", "upgrade")];
            let fields = usual.iter().chain(more);
            let headers: HeaderMap = fields
                .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
                .collect();
            offer.accepted(&headers, false)
        };
        let headers =
            answer(&[("sec-websocket-accept", &yes), ("sec-websocket-protocol", "chat"), ("x", "y")])
                .unwrap();
        let told = (headers.get("sec-websocket-accept"), &headers["x"]);
        assert_eq!(told, (offer.accept.as_ref(), &"y".parse().unwrap()));
        for no in [
            &[][..],
            &[("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")],
            &[("sec-websocket-accept", &yes), ("sec-websocket-protocol", "other")],
            &[("sec-websocket-accept", &yes), ("sec-websocket-extensions", "permessage-deflate")],
        ] {
            assert!(answer(no).is_err(), "{no:?}");
        }
    }
}
