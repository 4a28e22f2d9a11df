//! Tokens that are found with a process: in its environment or in a file, and what it takes to get one from GitHub.

use std::sync::Arc;

use serde::Deserialize;
use tidegate_gate::Secret;
use tidegate_https::Https;
use tidegate_policy::{Issuer, TokenSource};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    Defect,
    environment::{self, Environments, Held},
    host::{Host, Place, ProcessId},
    token::{LONGEST, TokenKey},
};

/// Where GitHub Actions says how a job gets an ID token ("OpenID Connect reference", the job's environment).
const REQUEST_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const REQUEST_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
/// What it takes to get one.
const REQUEST: [&str; 2] = [REQUEST_URL, REQUEST_TOKEN];

/// A token, or what one is got with, and the tree that it was found with.
pub(crate) struct Found {
    /// The highest process that holds the same.
    pub(crate) root: ProcessId,
    /// Other trees of the same parent and account may use it after this one.
    pub(crate) siblings: bool,
    pub(crate) what: What,
}

/// What was found.
pub(crate) enum What {
    Token(Zeroizing<Vec<u8>>),
    Request { url: Url, bearer: Secret },
}

impl What {
    /// What it is asked for once by, as long as nothing of it is verified.
    pub(crate) fn key(&self) -> TokenKey {
        match self {
            Self::Token(text) => TokenKey::of(text),
            Self::Request { bearer, .. } => TokenKey::of(bearer.expose()),
        }
    }
}

/// What tokens of issuers can be found with: a place's processes, and what their environments hold.
pub(crate) struct Surroundings<'a> {
    host: &'a dyn Host,
    place: &'a Place,
    environments: Environments<'a>,
}

impl<'a> Surroundings<'a> {
    /// Reads what these issuers' sources need of environments.
    pub(crate) fn of(
        host: &'a dyn Host,
        place: &'a Place,
        issuers: impl Iterator<Item = &'a Issuer>,
    ) -> Self {
        let asked = issuers.flat_map(|issuer| &issuer.tokens).filter_map(|source| match source {
            TokenSource::Variable { name, .. } => Some(vec![&**name]),
            TokenSource::GithubActions { .. } => Some(REQUEST.to_vec()),
            TokenSource::File(_) | TokenSource::Present | TokenSource::Login { .. } => None,
        });
        let environments = Environments::read(host, &place.lineage, asked.collect());
        Self { host, place, environments }
    }

    /// Everything that is there for a process and could be this issuer's, in the order of its sources; or why it is not
    /// even looked at.
    pub(crate) fn look(&self, issuer: &Issuer) -> Vec<Result<Found, Defect>> {
        let sources = issuer.tokens.iter();
        sources.filter_map(|source| self.look_in(source).transpose()).collect()
    }

    fn look_in(&self, source: &TokenSource) -> Result<Option<Found>, Defect> {
        match source {
            TokenSource::Variable { name, siblings } => {
                let Some(held) = self.held(&[name])? else { return Ok(None) };
                let text = held.values.first().cloned().unwrap_or_default();
                let siblings = *siblings && self.of_one_account(held);
                Ok(Some(Found { root: held.root, siblings, what: What::Token(text) }))
            }
            TokenSource::GithubActions { hosts } => {
                let Some(held) = self.held(&REQUEST)? else { return Ok(None) };
                let [url, bearer] = &held.values[..] else { return Ok(None) };
                let what = request_with(url, bearer, hosts)?;
                Ok(Some(Found { root: held.root, siblings: self.of_one_account(held), what }))
            }
            TokenSource::File(path) => {
                let Some(own) = self.place.lineage.first() else { return Ok(None) };
                let Some(mut text) = self.host.file(own.id, path)? else { return Ok(None) };
                while text.last().is_some_and(u8::is_ascii_whitespace) {
                    text.pop();
                }
                let uid = self.host.uid(own.id);
                let of_account = self.place.lineage.iter().take_while(|seen| self.host.uid(seen.id) == uid);
                let root = of_account.last().map_or(own.id, |seen| seen.id);
                Ok(Some(Found { root, siblings: false, what: What::Token(text) }))
            }
            TokenSource::Present | TokenSource::Login { .. } => Ok(None),
        }
    }

    /// The values of variables that the nearest process has, and the highest process that has the same.
    fn held(&self, names: &[&str]) -> Result<Option<&Held>, Defect> {
        if self.environments.is_complete() {
            return Ok(self.environments.get(names));
        }
        Err(Defect::NotHandedOut(format!(
            "it is not looked for: the environments of its process and of those above it are larger than {} MiB together",
            environment::MOST >> 20
        )))
    }

    /// Whether the nearest process that has them is of the root's account.
    fn of_one_account(&self, held: &Held) -> bool {
        let uid = self.host.uid(held.nearest);
        uid.is_some() && uid == self.host.uid(held.root)
    }
}

/// What a job asks for ID tokens with, as its environment has it.
fn request_with(url: &[u8], bearer: &[u8], hosts: &[Arc<str>]) -> Result<What, Defect> {
    if url.len() > LONGEST || bearer.len() > LONGEST {
        return Err(Defect::NotHandedOut(format!("the job's {REQUEST_URL} or token for it is too long")));
    }
    let url = request_url(url, hosts)?;
    if !is_bearer(bearer) {
        return Err(Defect::NotHandedOut(format!(
            "{REQUEST_TOKEN} is not a bearer token (RFC 6750): it has blanks or other characters in it"
        )));
    }
    Ok(What::Request { url, bearer: Secret::new(bearer.to_vec()) })
}

/// The URL from a job's environment, which anybody in the job may have written: it must lead where the bundle says.
fn request_url(written: &[u8], hosts: &[Arc<str>]) -> Result<Url, Defect> {
    let refuse = |why: &str| Defect::NotHandedOut(format!("{REQUEST_URL} {why}"));
    let text = std::str::from_utf8(written).map_err(|_| refuse("is not a URL"))?;
    let url = Url::parse(text).map_err(|_| refuse("is not a URL"))?;
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if url.scheme() != "https" || !plain {
        return Err(refuse("is not a plain https URL"));
    }
    if !hosts.iter().any(|allowed| is_host(allowed, host, port)) {
        return Err(refuse(
            "leads to a host that the bundle does not name under `github-actions: {hosts: ...}`",
        ));
    }
    Ok(url)
}

/// Whether a host and port are the ones that are written as `name`, `*.name`, or either with a port.
fn is_host(written: &str, host: &str, port: u16) -> bool {
    let (name, of_port) = match written.rsplit_once(':') {
        Some((name, written)) => (name, written.parse().unwrap_or_default()),
        None => (written, 443_u16),
    };
    let named = match name.strip_prefix("*.") {
        Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => host.eq_ignore_ascii_case(name),
    };
    named && port == of_port
}

/// Whether a text is a bearer token to the byte (RFC 6750, section 2.1). A server reads others differently than they
/// are written: it leaves out the blanks around a header field's value (RFC 9110, section 5.5).
fn is_bearer(text: &[u8]) -> bool {
    let text = without_padding(text);
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}

/// What a bearer is known by when it is used again: of a signed token what is signed, since a signature can be written
/// in more than one way.
pub(crate) fn known_by(bearer: &Secret) -> TokenKey {
    let text = without_padding(bearer.expose());
    let mut parts = text.rsplitn(2, |byte| *byte == b'.');
    let signed = parts.nth(1).filter(|signed| signed.iter().filter(|byte| **byte == b'.').count() == 1);
    TokenKey::of(signed.unwrap_or(text))
}

fn without_padding(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b'='] = text {
        text = rest;
    }
    text
}

/// Asks a job's own endpoint for an ID token that is for us.
pub(crate) async fn request(
    http: &Https,
    mut url: Url,
    bearer: &Secret,
    audience: &str,
) -> Result<Zeroizing<Vec<u8>>, Defect> {
    #[derive(Deserialize)]
    struct Answer {
        value: Zeroizing<String>,
    }
    let kept: Vec<(String, String)> =
        url.query_pairs().into_owned().filter(|(name, _)| name != "audience").collect();
    url.query_pairs_mut().clear().extend_pairs(kept).append_pair("audience", audience);
    let failed = |why: String| Defect::NotHandedOut(format!("the job's endpoint for ID tokens {why}"));
    let answer =
        http.get(url, Some(bearer)).await.map_err(|why| failed(format!("cannot be asked: {why}")))?;
    if answer.status != 200 {
        return Err(failed(format!("answered {}: is the job over?", answer.status)));
    }
    let answer: Answer =
        serde_json::from_slice(&answer.body).map_err(|_| failed("answered something else".into()))?;
    Ok(Zeroizing::new(answer.value.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str) -> Result<Url, Defect> {
        request_url(url.as_bytes(), &["*.actions.example".into(), "localhost:8443".into()])
    }

    #[test]
    fn the_endpoint_of_a_job_is_asked_where_the_bundle_says() {
        for url in
            ["https://a.actions.example/x?y=1", "https://a.b.actions.example", "https://localhost:8443/"]
        {
            asked(url).unwrap();
        }
    }

    #[test]
    fn only_what_a_server_reads_as_it_is_written_is_a_bearer() {
        for bearer in ["of-the-job", "aB9-._~+/", "e30.e30.AA", "YWI=="] {
            assert!(is_bearer(bearer.as_bytes()), "{bearer}");
        }
        for text in
            ["", "=", "x ", " x", "x\t", "x\r\n", "x y", "x=y", "x,y", "x\"", "x\u{b}", "x\u{a0}", "é"]
        {
            assert!(!is_bearer(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn a_bearer_is_known_again_however_its_signature_is_written() {
        let known = |bearer: &str| known_by(&Secret::new(bearer.as_bytes().to_vec()));
        assert!(
            ["e30.e30.AB", "e30.e30.AA=", "e30.e30."].iter().all(|copy| known(copy) == known("e30.e30.AA"))
        );
        assert_eq!(known("opaque="), known("opaque"));
        assert_ne!(known("e30.e31.AA"), known("e30.e30.AA"));
        for (one, other) in [("a.b", "a.c"), ("a.b.c.d", "a.b.c.e"), ("a", "b")] {
            assert_ne!(known(one), known(other));
        }
    }

    #[test]
    fn an_endpoint_elsewhere_is_never_asked() {
        for url in [
            "http://a.actions.example/",
            "https://actions.example/",
            "https://evil-actions.example/",
            "https://a.actions.example.evil.example/",
            "https://a.actions.example@evil.example/",
            "https://user@a.actions.example/",
            "https://a.actions.example:8443/",
            "https://.actions.example/",
            "https://localhost/",
            "https://127.0.0.1:8443/",
            "https://evil.example/#.actions.example",
            "https://evil.example\\.actions.example/",
            "file:///etc/shadow",
            "",
        ] {
            assert!(asked(url).is_err(), "{url}");
        }
    }
}
