//! Signing in upstream: what of a client's request stands in the way is taken off, and the gate's credential is added.

mod basic;
mod cookie;
mod oauth2;
mod options;
mod query;
mod sigv4;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use tidegate_gate::{Credential, Permit};
use zeroize::Zeroizing;

pub(crate) use self::{
    basic::pair,
    oauth2::{Grant, Kept, Tokens},
    options::RawSignIn,
    sigv4::{KEPT, Payload, Scope, Signed, Unchunked},
};
use crate::{body::Outgoing, exchange::Session, problem::Problem, target::Query, upstream::Line};

/// How the gate's credential is shown to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignIn {
    /// By `Authorization`: Basic if the credential has a user, else Bearer.
    Fitting,
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// `Authorization: Basic` (RFC 7617).
    Basic,
    /// A header field with the password as its value.
    Header(HeaderName),
    /// A query parameter.
    Query(String),
    /// A cookie.
    Cookie(String),
    /// A signature of the request with an access key (AWS Signature Version 4).
    SigV4(Scope),
    /// A token that an authorization server gives (RFC 6749, RFC 8693), as Bearer.
    OAuth2(Box<Grant>),
}

impl SignIn {
    /// Takes off a client's request what the gate's own takes the place of; how its body is to be signed.
    ///
    /// # Errors
    /// Says what cannot be signed anew.
    pub(crate) fn take_off(&self, headers: &mut HeaderMap, query: Option<&Query>) -> Result<Payload, String> {
        match self {
            Self::SigV4(scope) => sigv4::take_off(scope, headers, query)
                .map_err(|why| format!("the gate cannot sign this request: {why}")),
            Self::Header(name) => {
                // The client's own of that name is a credential, too, until it is replaced.
                if let header::Entry::Occupied(mut own) = headers.entry(name) {
                    own.iter_mut().for_each(|value| value.set_sensitive(true));
                }
                Ok(Payload::Plain)
            }
            _ => Ok(Payload::Plain),
        }
    }

    /// Whether a tunnel can be asked for so: there is nothing but header fields to sign in with.
    pub(crate) fn is_for_proxies(&self) -> bool {
        matches!(self, Self::Fitting | Self::Bearer | Self::Basic | Self::Header(_) | Self::OAuth2(_))
    }

    /// What tokens are asked for, if they are.
    pub(crate) fn grant(&self) -> Option<&Grant> {
        if let Self::OAuth2(grant) = self { Some(grant) } else { None }
    }

    /// The query parameter that it is: a client's own of that name is a credential, too.
    pub(crate) fn parameter(&self) -> Option<&str> {
        if let Self::Query(name) = self { Some(name) } else { None }
    }

    /// The cookie that it is.
    pub(crate) fn cookie(&self) -> Option<&str> {
        if let Self::Cookie(name) = self { Some(name) } else { None }
    }

    /// Whether a path's encoded slashes are read as slashes by whoever checks the signature.
    pub(crate) fn reads_encoded_slashes(&self) -> bool {
        matches!(self, Self::SigV4(scope) if scope.is_s3())
    }

    /// Whether a body must be whole before its request can be signed.
    pub(crate) fn needs_whole(&self, payload: &Payload, length: Option<u64>, tls: bool) -> bool {
        matches!(self, Self::SigV4(scope) if sigv4::needs_whole(scope, payload, length, tls))
    }

    /// Whether the credential may come back in bodies: there links have what the query had, and errors of AWS the session
    /// token.
    pub(crate) fn may_be_repeated(&self, credential: &Credential) -> bool {
        self.parameter().is_some() || credential.token.is_some()
    }

    /// Whether such a response refuses the credential: one that was changed, or has ended.
    pub(crate) fn is_refusal(&self, status: StatusCode) -> bool {
        match self {
            // As S3 says that a key is unknown, a signature another, or a token over.
            Self::SigV4(_) if matches!(status, StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) => true,
            _ => status == StatusCode::UNAUTHORIZED,
        }
    }

    /// Adds the credential to what is sent; a field of the same name that the client sent is replaced. A credential without a
    /// password adds nothing: its certificate signs in.
    ///
    /// # Errors
    /// A credential that does not fit; never with any part of it.
    pub(crate) fn add(
        &self,
        credential: &Credential,
        headers: &mut HeaderMap,
        query: &mut Option<String>,
    ) -> Result<(), &'static str> {
        let Some(password) = &credential.password else { return Ok(()) };
        let password = password.expose();
        let mut set = |name, value: &[u8]| {
            let mut value =
                HeaderValue::from_bytes(value).map_err(|_| "it has characters that no header field has")?;
            value.set_sensitive(true);
            headers.insert(name, value);
            Ok(())
        };
        match (self, credential.user.as_deref()) {
            // The whole request is signed, once it is made.
            (Self::SigV4(_), _) => Ok(()),
            (Self::Basic, None) => Err("it has no user, which Basic needs"),
            (Self::Basic | Self::Fitting, Some(user)) => {
                set(header::AUTHORIZATION, basic::authorization(user, password)?.as_bytes())
            }
            (Self::Bearer | Self::OAuth2(_) | Self::Fitting, _) => {
                set(header::AUTHORIZATION, &Zeroizing::new([b"Bearer ", password].concat()))
            }
            (Self::Header(name), _) => set(name.clone(), password),
            (Self::Cookie(name), _) => cookie::add(name, password, headers),
            (Self::Query(name), _) => {
                *query = Some(query::with(query.as_deref(), name, password));
                Ok(())
            }
        }
    }

    /// Path and query in the form in which they are sent.
    pub(crate) fn target(&self, path: &str, query: Option<String>) -> (String, Option<String>) {
        match self {
            Self::SigV4(_) => sigv4::target(path, query.as_deref()),
            _ => (path.to_owned(), query),
        }
    }

    /// Signs a request that is otherwise as it will be sent, where requests are signed.
    ///
    /// # Errors
    /// A credential that is no access key; never with any part of it.
    pub(crate) fn sign(
        &self,
        credential: &Credential,
        request: Request<Outgoing>,
        payload: &Payload,
        tls: bool,
    ) -> Result<Request<Outgoing>, &'static str> {
        match self {
            Self::SigV4(scope) => sigv4::sign(scope, credential, request, payload, tls),
            _ => Ok(request),
        }
    }
}

impl Session {
    /// What is shown to the upstream over this connection: its credential, or a token that is got with that, in the name of
    /// whoever is asking where the resource is used so.
    pub(crate) async fn credential(&self, line: &Line, permit: &Permit) -> Result<Arc<Credential>, Problem> {
        let Some(tokens) = &self.server.tokens else { return Ok(line.credential().clone()) };
        let resource = self.gate.resource();
        let proof = resource.identity.as_ref().map(|_| self.gate.proof(permit)).transpose();
        let proof = proof.map_err(|refusal| Problem::refused(&refusal))?;
        let token = tokens.token(line.credential(), proof.as_ref()).await.map_err(|why| {
            self.gate.event("token-unavailable", &why);
            let detail =
                format!("the gate could not get its token for {:?}; its record says why", resource.name);
            Problem::new(StatusCode::BAD_GATEWAY, detail)
        })?;
        if let (Some(proof), true) = (proof, token.is_new) {
            self.gate.event("token-exchanged", &format!("in the name of {:?}", proof.subject));
        }
        Ok(token.credential)
    }

    /// The upstream did not take what was shown.
    pub(crate) fn not_taken(&self, shown: &Arc<Credential>) {
        if let Some(tokens) = &self.server.tokens {
            tokens.forget(shown);
        }
    }

    /// A credential that is not what the resource takes.
    pub(crate) fn unusable(&self, why: &str) -> Problem {
        self.gate.event("credential-unusable", why);
        let detail = format!("the gate cannot use its credential for {:?}", self.gate.resource().name);
        Problem::new(StatusCode::BAD_GATEWAY, detail)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_gate::Secret;

    use super::*;

    fn credential(user: Option<&str>, password: &str) -> Credential {
        Credential {
            user: user.map(Into::into),
            password: Some(Secret::new(password.as_bytes().to_vec())),
            ..Credential::default()
        }
    }

    fn added(how: &SignIn, credential: &Credential) -> (HeaderMap, Option<String>) {
        let (mut headers, mut query) = (HeaderMap::new(), Some("a=1&key=client".to_owned()));
        headers.insert(header::COOKIE, HeaderValue::from_static("a=1"));
        headers.insert("x-key", HeaderValue::from_static("client"));
        how.add(credential, &mut headers, &mut query).unwrap();
        (headers, query)
    }

    #[test]
    fn each_way_shows_the_credential_and_nothing_of_the_client_s() {
        let named = credential(Some("bot"), "s3cret");
        assert_eq!(added(&SignIn::Fitting, &named).0["authorization"], "Basic Ym90OnMzY3JldA==");
        assert_eq!(added(&SignIn::Fitting, &credential(None, "t")).0["authorization"], "Bearer t");
        assert_eq!(added(&SignIn::Bearer, &named).0["authorization"], "Bearer s3cret");
        assert_eq!(added(&SignIn::Header("x-key".parse().unwrap()), &named).0["x-key"], "s3cret");
        assert_eq!(added(&SignIn::Cookie("sid".into()), &named).0["cookie"], "a=1; sid=s3cret");
        let (_, query) = added(&SignIn::Query("key".into()), &credential(None, "a&b"));
        assert_eq!(query.as_deref(), Some("a=1&key=a%26b"));
    }

    #[test]
    fn no_spelling_of_the_client_s_own_stands_before_the_gate_s() {
        let gate = credential(None, "GATE");
        for (written, sent) in [
            ("key=MINE&a=1", "a=1&key=GATE"),
            ("k%65y=MINE", "key=GATE"),
            ("x=1;key=MINE;y=2&z", "x=1;y=2&z&key=GATE"),
            ("%6b%65%79;q", "q&key=GATE"),
            ("a=1&&b=2", "a=1&b=2&key=GATE"),
        ] {
            let mut query = Some(written.to_owned());
            SignIn::Query("key".into()).add(&gate, &mut HeaderMap::new(), &mut query).unwrap();
            assert_eq!(query.as_deref(), Some(sent), "{written}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("a=1; sid=MINE;sid =MINE; b=sid"));
        SignIn::Cookie("sid".into()).add(&gate, &mut headers, &mut None).unwrap();
        assert_eq!(headers[header::COOKIE], "a=1; b=sid; sid=GATE");
    }

    #[test]
    fn a_credential_that_does_not_fit_is_refused_without_being_told() {
        for (how, credential) in [
            (SignIn::Basic, credential(None, "hunter2")),
            (SignIn::Basic, credential(Some("a:b"), "hunter2")),
            (SignIn::Bearer, credential(None, "hunter2\r\nX: y")),
            (SignIn::Cookie("c".into()), credential(None, "hunter2; d=e")),
        ] {
            let error = how.add(&credential, &mut HeaderMap::new(), &mut None).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_was_added_is_not_shown_by_debug() {
        let (headers, _) = added(&SignIn::Bearer, &credential(None, "hunter2"));
        assert!(!format!("{headers:?}").contains("hunter2"));
    }

    #[test]
    fn no_field_of_the_client_s_by_which_the_gate_signs_in_is_shown_however_often_it_is_there() {
        let mut headers = HeaderMap::new();
        headers.append("x-key", HeaderValue::from_static("hunter2"));
        headers.append("x-key", HeaderValue::from_static("hunter3"));
        SignIn::Header("x-key".parse().unwrap()).take_off(&mut headers, None).unwrap();
        assert!(!format!("{headers:?}").contains("hunter"), "{headers:?}");
    }
}
