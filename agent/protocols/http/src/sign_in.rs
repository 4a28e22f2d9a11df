//! Showing the gate's credential to the upstream.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tidegate_gate::Credential;
use zeroize::Zeroizing;

use crate::{exchange::Session, options::SignIn, problem::Problem, target, upstream::Line};

impl Session {
    /// What is shown to the upstream over this connection: its credential, or a token that is got with that.
    pub(crate) async fn shown(&self, line: &Line) -> Result<Arc<Credential>, Problem> {
        let Some(tokens) = &self.server.tokens else { return Ok(line.credential().clone()) };
        tokens.token(line.credential()).await.map_err(|why| {
            self.gate.event("token-unavailable", &why);
            let detail = format!(
                "the gate could not get its token for {:?}; its record says why",
                self.gate.resource().name
            );
            Problem::new(StatusCode::BAD_GATEWAY, detail)
        })
    }

    /// The upstream did not take what was shown.
    pub(crate) async fn not_taken(&self, shown: &Arc<Credential>) {
        if let Some(tokens) = &self.server.tokens {
            tokens.forget(shown).await;
        }
    }

    /// A credential that is not what the resource takes.
    pub(crate) fn unusable(&self, why: &str) -> Problem {
        self.gate.event("credential-unusable", why);
        let detail = format!("the gate cannot use its credential for {:?}", self.gate.resource().name);
        Problem::new(StatusCode::BAD_GATEWAY, detail)
    }
}

/// Adds the credential to what is sent; a field of the same name that the client sent is replaced. A credential without a
/// password adds nothing: its certificate signs in.
pub(crate) fn add(
    how: &SignIn,
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
    match (how, credential.user.as_deref()) {
        // The whole request is signed, once it is made.
        (SignIn::SigV4(_), _) => Ok(()),
        (SignIn::Basic, None) => Err("it has no user, which Basic needs"),
        (SignIn::Basic | SignIn::Fitting, Some(user)) => {
            if user.contains(':') {
                return Err("its user has a colon, which Basic cannot carry");
            }
            let encoded = Zeroizing::new(format!("Basic {}", *encoded_pair(user, password)));
            set(header::AUTHORIZATION, encoded.as_bytes())
        }
        (SignIn::Bearer | SignIn::OAuth2(_) | SignIn::Fitting, _) => {
            set(header::AUTHORIZATION, &Zeroizing::new([b"Bearer ", password].concat()))
        }
        (SignIn::Header(name), _) => set(name.clone(), password),
        (SignIn::Cookie(name), _) => {
            let fits = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
            if !password.iter().all(fits) {
                return Err("it has characters that no cookie has");
            }
            let own = Zeroizing::new([name.as_bytes(), b"=", password].concat());
            let both = Zeroizing::new([&*without_cookie(headers.get(header::COOKIE), name), &own].concat());
            let mut value = HeaderValue::from_bytes(&both).map_err(|_| "it makes no cookie")?;
            value.set_sensitive(true);
            headers.insert(header::COOKIE, value);
            Ok(())
        }
        (SignIn::Query(name), _) => {
            let own = format!("{name}={}", target::encoded(password));
            let others = query.take().unwrap_or_default();
            let others = others.split('&').map(|pair| without_parameter(pair, name));
            let all: Vec<String> = others.filter(|pair| !pair.is_empty()).chain([own]).collect();
            *query = Some(all.join("&"));
            Ok(())
        }
    }
}

/// User and password as Basic has them; none without a user.
pub(crate) fn pair(credential: &Credential) -> Option<Zeroizing<String>> {
    Some(encoded_pair(credential.user.as_deref()?, credential.password.as_ref()?.expose()))
}

fn encoded_pair(user: &str, password: &[u8]) -> Zeroizing<String> {
    let pair = Zeroizing::new([user.as_bytes(), b":", password].concat());
    Zeroizing::new(STANDARD.encode(&*pair))
}

/// A client's cookies but that of this name, ready for one more.
fn without_cookie(cookies: Option<&HeaderValue>, name: &str) -> Vec<u8> {
    let mut others = Vec::new();
    for cookie in cookies.iter().flat_map(|all| all.as_bytes().split(|byte| *byte == b';')) {
        let cookie = cookie.trim_ascii();
        let named = cookie.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if !cookie.is_empty() && named != name.as_bytes() {
            others.extend_from_slice(cookie);
            others.extend_from_slice(b"; ");
        }
    }
    others
}

/// What is between two `&` without a parameter of this name, however that is encoded, for servers that split at `;` too.
fn without_parameter(pair: &str, name: &str) -> String {
    let is_other = |part: &&str| {
        let written = part.split_once('=').map_or(*part, |(written, _)| written);
        target::form_decoded(written).is_ok_and(|decoded| decoded != name)
    };
    pair.split(';').filter(is_other).collect::<Vec<_>>().join(";")
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
        add(how, credential, &mut headers, &mut query).unwrap();
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
            add(&SignIn::Query("key".into()), &gate, &mut HeaderMap::new(), &mut query).unwrap();
            assert_eq!(query.as_deref(), Some(sent), "{written}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("a=1; sid=MINE;sid =MINE; b=sid"));
        add(&SignIn::Cookie("sid".into()), &gate, &mut headers, &mut None).unwrap();
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
            let error = add(&how, &credential, &mut HeaderMap::new(), &mut None).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_was_added_is_not_shown_by_debug() {
        let (headers, _) = added(&SignIn::Bearer, &credential(None, "hunter2"));
        assert!(!format!("{headers:?}").contains("hunter2"));
    }
}
