//! Issuers, and what rules ask of identities.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use super::{Loader, entries, list, readable, texts};
use crate::{
    Identity,
    issuer::{Algorithm, Claims, Issuer, TokenSource, Who},
    matcher::{Globs, glob},
    problem::Position,
    raw::{List, RawFile, RawIdentity, RawIssuer, RawMatch, RawTokens, RawWhoIs, Scalar},
    yaml::{At, Entries},
};

const CLOCK_SKEW: Duration = Duration::from_secs(30);
const LONGEST_CLOCK_SKEW: Duration = Duration::from_secs(300);
const OFFLINE: Duration = Duration::from_secs(24 * 3600);
const LONGEST_OFFLINE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Where GitHub's own runners find the endpoint.
const GITHUB_HOSTS: &str = "*.actions.githubusercontent.com";

impl Loader<'_> {
    /// Every issuer. `asked` are the claims that rules ask for, by issuer.
    pub(super) fn issuers(&self, raw: &[RawFile], asked: &[(Arc<str>, Arc<str>)]) -> Vec<Arc<Issuer>> {
        let resources = raw.iter().flat_map(|file| entries(file.resources.as_ref()));
        let shown: BTreeSet<&String> =
            resources.filter_map(|(_, _, resource)| resource.identity.as_ref()?.get()).collect();
        let issuers = raw.iter().flat_map(|file| entries(file.issuers.as_ref()));
        let issuers = issuers.map(|(at, name, issuer)| Issuer {
            shown: shown.iter().any(|shown| *shown == name),
            ..self.issuer(at, name, issuer, asked)
        });
        issuers.map(Arc::new).collect()
    }

    fn issuer(&self, at: Position, name: &str, raw: &RawIssuer, asked: &[(Arc<str>, Arc<str>)]) -> Issuer {
        let require = self.claims(raw.require.as_ref());
        let asked = asked.iter().filter(|(issuer, _)| **issuer == *name).map(|(_, claim)| claim.clone());
        let mut kept: BTreeSet<Arc<str>> = asked.chain(require.names().cloned()).collect();
        kept.extend(texts(raw.keep.as_ref()));
        let tokens = self.tokens(raw);
        let step = self.step_claim(raw.step.as_ref(), &tokens);
        kept.extend(step.clone());
        if raw.audience.is_none() && tokens.iter().any(|source| !matches!(source, TokenSource::Login { .. }))
        {
            self.problems.report_with(
                at,
                format!("issuer {name:?} has no `audience:`"),
                "name what `aud` must be, so that a token meant for another service does not count",
            );
        }
        Issuer {
            name: name.into(),
            url: self.issuer_url(&raw.url),
            audience: raw.audience.as_ref().and_then(At::get).map_or("", String::as_str).into(),
            algorithms: self.algorithms(raw.algorithms.as_ref()),
            require,
            account: self.one_claim(raw.account.as_ref()),
            groups: texts(raw.groups.as_ref()),
            kept,
            clock_skew: self.within(raw.clock_skew.as_ref(), CLOCK_SKEW, LONGEST_CLOCK_SKEW),
            offline: self.within(raw.offline.as_ref(), OFFLINE, LONGEST_OFFLINE),
            ca: raw.ca.as_ref().and_then(At::get).map(PathBuf::from),
            tokens,
            step,
            elsewhere: raw.elsewhere.as_ref().and_then(At::get).copied().unwrap_or_default(),
            shown: false,
        }
    }

    /// The claim that says the step. A file would give one step's token to the runner, and so to all that come after.
    fn step_claim(&self, raw: Option<&At<String>>, tokens: &[TokenSource]) -> Option<Arc<str>> {
        let claim = self.one_claim(raw)?;
        if let (Some(raw), Some(source)) = (raw, tokens.iter().find(|source| is_of_no_step(source))) {
            self.problems.report_with(
                raw.at,
                format!("tokens of a step can't come from {}", named(source)),
                "take them from a variable of the step, or have it run `tidegate present --token-file FILE -- COMMAND`",
            );
        }
        Some(claim)
    }

    fn one_claim(&self, raw: Option<&At<String>>) -> Option<Arc<str>> {
        let (at, name) = raw.and_then(|raw| Some((raw.at, raw.get()?)))?;
        if name.is_empty() {
            self.problems.report(at, "no claim is named");
        }
        Some(name.as_str().into())
    }

    fn issuer_url(&self, raw: &At<String>) -> Arc<str> {
        let Some(url) = raw.get() else { return "".into() };
        let rest = url.strip_prefix("https://").unwrap_or_default();
        if rest.is_empty() || rest.starts_with('/') || rest.contains(['?', '#', '@', ' ']) {
            self.problems.report_with(
                raw.at,
                format!("{url:?} is not the URL of an issuer"),
                "write https://HOST or https://HOST/PATH, without query and fragment",
            );
        }
        url.as_str().into()
    }

    fn algorithms(&self, raw: Option<&At<List<Algorithm>>>) -> Vec<Algorithm> {
        let Some(raw) = raw else { return vec![Algorithm::RS256] };
        if raw.get().is_some_and(Vec::is_empty) {
            self.problems.report(raw.at, "no algorithm is listed: no token would count");
        }
        list(Some(raw)).map(|(_, algorithm)| *algorithm).collect()
    }

    fn tokens(&self, raw: &RawIssuer) -> Vec<TokenSource> {
        if raw.tokens.get().is_some_and(Vec::is_empty) {
            self.problems.report_with(
                raw.tokens.at,
                "tokens come from nowhere",
                "list some of github-actions, present, {variable: NAME}, {file: PATH}, {login: {client: NAME}}",
            );
        }
        list(Some(&raw.tokens)).filter_map(|(at, source)| self.source(at, source)).collect()
    }

    fn source(&self, at: Position, raw: &RawTokens) -> Option<TokenSource> {
        Some(match raw {
            RawTokens::Present => TokenSource::Present,
            RawTokens::GithubActions { hosts: None } => {
                TokenSource::GithubActions { hosts: vec![GITHUB_HOSTS.into()] }
            }
            RawTokens::GithubActions { hosts } => {
                let hosts: Vec<Arc<str>> = texts(hosts.as_ref());
                for host in hosts.iter().filter(|host| !is_host(host)) {
                    self.problems.report_with(
                        at,
                        format!("{host:?} is not a host"),
                        "write name, *.name or name:port",
                    );
                }
                TokenSource::GithubActions { hosts }
            }
            RawTokens::Variable { name, siblings } => {
                let name = name.get()?;
                if name.is_empty() || name.contains(['=', '\0']) {
                    self.problems.report(at, format!("{name:?} is not the name of a variable"));
                }
                TokenSource::Variable { name: name.as_str().into(), siblings: *siblings }
            }
            RawTokens::File(path) => {
                let path = PathBuf::from(path.get()?);
                if !path.is_absolute() {
                    self.problems.report(at, format!("{} is not an absolute path", path.display()));
                }
                TokenSource::File(path)
            }
            RawTokens::Login { client, scopes } => {
                TokenSource::Login { client: client.get()?.as_str().into(), scopes: texts(scopes.as_ref()) }
            }
        })
    }

    /// A duration that is not longer than the longest; the default without one.
    fn within(&self, raw: Option<&At<String>>, default: Duration, longest: Duration) -> Duration {
        let Some((at, text)) = raw.and_then(|raw| Some((raw.at, raw.get()?))) else { return default };
        let parsed =
            text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
        match parsed {
            Some(duration) if duration <= longest => return duration,
            Some(_) => self.problems.report(at, format!("{text:?} is longer than {}s", longest.as_secs())),
            None => self.problems.report_with(
                at,
                format!("{text:?} is not a duration"),
                "write a number and its unit: 30s, 5m, 24h",
            ),
        }
        default
    }

    /// Claims and what each must be.
    fn claims(&self, raw: Option<&At<Entries<RawMatch>>>) -> Claims {
        let mut claims = Vec::new();
        for (at, name, wanted) in entries(raw) {
            let written = scalars(wanted);
            if let RawMatch::Named(_) = wanted {
                self.problems.report(at, format!("`{name}:` is a value or a list of values"));
            } else if written.is_empty() {
                self.problems.report(at, "an empty list matches nothing");
            }
            for text in &written {
                if let Err(error) = glob(text) {
                    self.problems.report(at, format!("{text:?} is not a glob: {}", error.kind()));
                }
            }
            if let Ok(globs) = Globs::new(written.iter().map(String::as_str)) {
                claims.push((Arc::from(name), globs));
            }
        }
        Claims(claims)
    }

    /// What a rule asks of who is asking.
    pub(super) fn who(&self, raw: Option<&At<RawWhoIs>>) -> Option<Who> {
        let raw = raw?.get()?;
        let issuer = raw.issuer.get()?;
        self.declared("issuer", raw.issuer.at, issuer, &self.issuers);
        Some(Who {
            issuer: issuer.as_str().into(),
            subject: self.globs(raw.subject.as_ref()),
            claims: self.claims(raw.claims.as_ref()),
            groups: self.globs(raw.groups.as_ref()),
        })
    }

    /// Who an issuer says that a case's principal is.
    pub(super) fn identity(&self, raw: &RawIdentity) -> Option<Identity> {
        let issuer = raw.issuer.get()?;
        if !self.declared("issuer", raw.issuer.at, issuer, &self.issuers) {
            return None;
        }
        let claims = entries(raw.claims.as_ref()).map(|(_, name, value)| (name.to_owned(), claim(value)));
        Some(Identity {
            issuer: issuer.as_str().into(),
            url: "".into(),
            account: None,
            subject: raw.subject.as_ref().and_then(At::get).map_or("", String::as_str).into(),
            groups: texts(raw.groups.as_ref()),
            expires: i64::MAX,
            claims: claims.collect(),
        })
    }
}

/// Whether tokens that come from there count for more than a step, or are of none.
fn is_of_no_step(source: &TokenSource) -> bool {
    match source {
        TokenSource::File(_) | TokenSource::Login { .. } | TokenSource::GithubActions { .. } => true,
        TokenSource::Variable { .. } | TokenSource::Present => false,
    }
}

fn named(source: &TokenSource) -> &'static str {
    match source {
        TokenSource::File(_) => {
            "a file: it counts for the highest process of its account, which may be the runner"
        }
        TokenSource::Login { .. } => "a login",
        TokenSource::GithubActions { .. } => "GitHub: its ID tokens don't say which step asks",
        TokenSource::Variable { .. } => "a variable",
        TokenSource::Present => "`tidegate present`",
    }
}

/// The text of each value.
fn scalars(raw: &RawMatch) -> Vec<String> {
    let text = |scalar: &Scalar| match scalar {
        Scalar::Text(text) => text.clone(),
        Scalar::Number(number) => number.to_string(),
        Scalar::Flag(flag) => flag.to_string(),
    };
    match raw {
        RawMatch::One(one) => vec![text(one)],
        RawMatch::Many(many) => readable(many).map(|(_, one)| text(one)).collect(),
        RawMatch::Named(_) => Vec::new(),
    }
}

/// A claim as an issuer would write it.
fn claim(raw: &RawMatch) -> serde_json::Value {
    let value = |scalar: &Scalar| match scalar {
        Scalar::Text(text) => text.as_str().into(),
        Scalar::Number(number) => (*number).into(),
        Scalar::Flag(flag) => (*flag).into(),
    };
    match raw {
        RawMatch::One(one) => value(one),
        RawMatch::Many(many) => readable(many).map(|(_, one)| value(one)).collect(),
        RawMatch::Named(names) => names.iter().map(|(_, name, one)| (name.to_owned(), claim(one))).collect(),
    }
}

/// `name`, `*.name`, either with a port.
fn is_host(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}
