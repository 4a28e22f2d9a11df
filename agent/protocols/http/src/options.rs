//! An HTTP resource's own options.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderName;
use serde::Deserialize;
use tidegate_gate::{
    ConfigError,
    policy::{Host, Resource, TlsMode},
};

use crate::{
    grpc::Descriptors,
    lasting::Files,
    request::Way,
    sign_in::{RawSignIn, SignIn},
    target::{self, Authority, Tolerated},
};

/// How long a held request waits where the resource doesn't say.
const WAIT: Duration = Duration::from_secs(60);
/// The longest that it may say.
const LONGEST_WAIT: u64 = 3600;

/// What a resource says of itself.
#[derive(Debug)]
pub(crate) struct Options {
    /// What clients may call it, apart from its addresses.
    pub(crate) hosts: BTreeSet<Arc<str>>,
    /// Those of them that it has beside its addresses'.
    pub(crate) added: BTreeSet<Arc<str>>,
    pub(crate) sign_in: SignIn,
    /// The client's own header fields that go upstream although they are credentials.
    pub(crate) pass: Vec<HeaderName>,
    pub(crate) tolerated: Tolerated,
    /// Without TLS, the server speaks HTTP/2 and nothing else (RFC 9113, 3.3).
    pub(crate) h2c: bool,
    /// How long a held request waits for its answer before the client is told to ask again.
    pub(crate) wait: Duration,
    /// A client whose request is held is told so by an interim response: some take one for the answer.
    pub(crate) interim: bool,
    /// What the messages of gRPC are, and the file that says so.
    pub(crate) descriptors: Option<Descriptors>,
    pub(crate) described_by: Option<PathBuf>,
    /// What its tunnels are for, if it is a forward proxy.
    pub(crate) proxy: Option<Tunnels>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Raw {
    hosts: Vec<String>,
    sign_in: Option<RawSignIn>,
    pass: Vec<String>,
    tolerate: Vec<Trick>,
    h2c: bool,
    /// In seconds.
    wait: Option<u64>,
    interim: bool,
    descriptors: Option<PathBuf>,
    proxy: Option<Tunnels>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Trick {
    EncodedSlash,
    EmptySegments,
    PathParameters,
    MethodParameters,
}

/// What a forward proxy's tunnels are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tunnels {
    /// TLS to the very name that they lead to.
    Tls,
    /// Whatever is in them.
    Opaque,
}

const KNOWN: &str = "hosts, sign-in (bearer, basic, {header: NAME}, {query: NAME}, {cookie: NAME}, {sigv4: {region: NAME, service: NAME}}, \
                     {oauth2: {url, scope, audience, resource, client: basic or body, ca}}), pass (names of header fields), tolerate (encoded-slash, empty-segments, path-parameters, method-parameters), h2c (true for HTTP/2 without TLS), wait (seconds), interim (true to tell whoever waits by 102), descriptors (a file of gRPC's, as protoc makes it), proxy (tls or opaque, for a forward proxy)";

impl Options {
    pub(crate) fn of(resource: &Resource) -> Result<Self, ConfigError> {
        let raw: Raw = tidegate_gate::options(&resource.options, KNOWN)?;
        if raw.h2c && resource.tls.mode != Some(TlsMode::Disable) {
            let message =
                "options: h2c is for a server without TLS; with TLS, both sides agree on the version";
            return Err(ConfigError::in_option("h2c", message));
        }
        let has = |trick| raw.tolerate.contains(&trick);
        let wait = raw.wait.map_or(WAIT, Duration::from_secs);
        if wait.as_secs() > LONGEST_WAIT {
            return Err(ConfigError::in_option(
                "wait",
                format!("options: wait is at most {LONGEST_WAIT} seconds"),
            ));
        }
        let sign_in = SignIn::of(raw.sign_in)?;
        if resource.identity.is_some() && sign_in.grant().is_none() {
            let message = "identity: only with options: {sign-in: {oauth2: ...}} does the gate sign in in others' names";
            return Err(ConfigError::new(message));
        }
        if sign_in.reads_encoded_slashes() && has(Trick::EncodedSlash) {
            let message =
                "options: S3 reads an encoded slash as a slash: a rule on one path would be for another";
            return Err(ConfigError::in_option("tolerate", message));
        }
        if raw.proxy.is_some() && !sign_in.is_for_proxies() {
            let message = "options: a forward proxy is signed in to by bearer, basic or a header field";
            return Err(ConfigError::in_option("sign-in", message));
        }
        let added = added(&raw.hosts)?;
        Ok(Self {
            hosts: hosts(resource, &added),
            added,
            sign_in,
            pass: raw.pass.iter().map(|name| passed(name)).collect::<Result<_, _>>()?,
            tolerated: Tolerated {
                encoded_slash: has(Trick::EncodedSlash),
                empty_segments: has(Trick::EmptySegments),
                path_parameters: has(Trick::PathParameters),
                method_parameters: has(Trick::MethodParameters),
            },
            h2c: raw.h2c,
            wait,
            proxy: raw.proxy,
            interim: raw.interim,
            descriptors: raw.descriptors.as_ref().map(|path| descriptors(resource, path)).transpose()?,
            described_by: raw.descriptors,
        })
    }

    /// Whether a client may call the resource this on its way to it: by a name that was told for the address that it connected
    /// to, by one that the options add, or, where the bundle has the address and not a name, by that. A server that is meant by
    /// its name may be another's, too, and what it has for its address may be nobody's.
    pub(crate) fn knows(&self, host: &Authority, way: &Way) -> bool {
        let is_destination =
            |own: std::net::IpAddr| own.to_canonical() == way.destination.ip().to_canonical();
        if way.names.is_none() && host.address().is_some_and(is_destination) {
            return true;
        }
        let is_there = way.names.as_ref().is_none_or(|names| names.contains(&host.host));
        self.added.contains(&host.host) || is_there && self.hosts.contains(&host.host)
    }
}

/// A digest of the files that a resource names: its authorities and descriptors.
pub(crate) fn files(resource: &Resource, options: &Options) -> Result<Files, ConfigError> {
    let mut context = Context::new(&SHA256);
    let ca_of_tokens = options.sign_in.grant().and_then(|grant| grant.ca.clone());
    let descriptors = options.described_by.as_ref().map(|path| resource.folder.join(path));
    for path in [resource.tls.ca.clone(), ca_of_tokens, descriptors] {
        let contents = path.as_ref().map_or_else(|| Ok(Vec::new()), std::fs::read);
        let shown = || path.as_deref().unwrap_or(Path::new("")).display().to_string();
        let contents = contents.map_err(|error| ConfigError::new(format!("{}: {error}", shown())))?;
        context.update(&(contents.len() as u64).to_le_bytes());
        context.update(&contents);
    }
    let mut digest = [0; 32];
    digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Ok(digest)
}

/// Descriptors from a file of the bundle, which its digest covers and nobody but root may change.
fn descriptors(resource: &Resource, path: &Path) -> Result<Descriptors, ConfigError> {
    let wrong = |why: String| ConfigError::in_option("descriptors", format!("options: {why}"));
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_inside || path.extension().is_none_or(|extension| extension != "binpb") {
        let shown = path.display();
        return Err(wrong(format!(
            "descriptors: {shown} is no *.binpb file of the bundle, by its path from where the resource is written"
        )));
    }
    Descriptors::read(&resource.folder.join(path)).map_err(wrong)
}

/// A header field's name that the client may send, whatever it means: as servers read it, too, which take an underscore for a dash.
fn passed(name: &str) -> Result<HeaderName, ConfigError> {
    field(&name.replace('_', "-"), "pass").and_then(|_| field(name, "pass"))
}

/// A header field's name that is not the connection's own.
pub(crate) fn field(name: &str, of: &str) -> Result<HeaderName, ConfigError> {
    let wrong = |message: String| ConfigError::in_option(of, message);
    let name: HeaderName =
        name.parse().map_err(|_| wrong(format!("options: {name:?} in {of} is no header field's name")))?;
    match crate::forward::is_connections_own(&name) {
        true => Err(wrong(format!("options: {name} in {of} is the connection's own"))),
        false => Ok(name),
    }
}

/// The names among the resource's addresses, and those that its options add.
fn hosts(resource: &Resource, added: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
    let named = resource.addresses.iter().filter_map(|address| match &address.host {
        Host::Name(name) => Some(name),
        Host::Net(_) => None,
    });
    named.chain(added).cloned().collect()
}

/// Names that the options add.
fn added(names: &[String]) -> Result<BTreeSet<Arc<str>>, ConfigError> {
    let wrong = |name: &String| {
        ConfigError::in_option("hosts", format!("options: {name:?} in hosts is no host name"))
    };
    names.iter().map(|name| Ok(target::name(name).ok_or_else(|| wrong(name))?.into())).collect()
}
