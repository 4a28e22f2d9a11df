//! The host's own certificate authority, which clients on this host may trust, and the leaves it mints.

mod folder;
mod leaf;
mod within;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DnType};
use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::{
    folder::Signer,
    leaf::{Leaf, sans},
};
pub(crate) use self::{
    folder::{Certificate, Folder},
    within::Within,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How many days before its end people are told to change an authority.
const WARNED: u64 = 90;

/// The host's own authority.
pub(crate) struct Authority {
    signer: Signer,
    /// It signs once the other is over.
    next: Option<Signer>,
    provider: Arc<CryptoProvider>,
}

/// How long the authority that signs counts, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    /// Digest of its certificate, in hex.
    pub(crate) sha256: String,
    /// The day on which it ends.
    pub(crate) ends: String,
    /// Whole days until then.
    pub(crate) days_left: u64,
    /// Whether another was begun that signs nothing yet.
    pub(crate) next: bool,
    /// The day from which on it counts, where that is to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) begins: Option<String>,
}

/// Why the authority cannot be used.
#[derive(Debug, Error)]
pub(crate) enum AuthorityError {
    /// One of its files.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no certificate.
    #[error("{}: the agent makes it when it first runs", .0.display())]
    None(PathBuf),
    /// Only one of the two files is there.
    #[error("{} is missing beside its other half; restore it, or remove both to begin a new authority", .0.display())]
    Half(PathBuf),
    /// The two files are not each other's.
    #[error(
        "{} is not the key of {}; restore the one that is, or remove both to begin a new authority",
        .0.display(), .1.display()
    )]
    Mismatched(PathBuf, PathBuf),
    /// The certificate or the key is none.
    #[error("{}: {error}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: rcgen::Error,
    },
    /// It was begun with other constraints than the configuration has now.
    #[error(
        "this host's authority vouches for {was}, and `authority.names` of the configuration asks for {asked}: change that, or \
         begin one that does by `tidegate ca renew`"
    )]
    Constrained {
        /// What it was begun with.
        was: String,
        /// What it is to have.
        asked: String,
    },
    /// Something of a resource that it may not vouch for.
    #[error(
        "no certificate for {what}: this host's authority vouches for {within} (`authority.names` of the configuration, and \
         `tidegate ca renew` to begin one that does)"
    )]
    Outside {
        /// A name, an address or a range.
        what: String,
        /// What it vouches for.
        within: String,
    },
    /// Clients trust nothing that it signs.
    #[error(
        "this host's authority ended on {0}, and clients trust it no longer: `tidegate ca renew` begins another, which signs at \
         once; then have clients trust it (`tidegate ca install`)"
    )]
    Over(String),
    /// There is none to change to.
    #[error("no other authority was begun: `tidegate ca renew` does")]
    NotBegun,
    /// A leaf could not be made.
    #[error("no certificate could be made: {0}")]
    Mint(String),
}

impl Authority {
    /// Opens the authority of a directory, or begins one. What it may vouch for stands in its certificate, so that its key is
    /// worth nothing for anything else, whoever has it. One that is over is refused, unless the next one was begun.
    pub(crate) fn open(folder: &Folder, now: SystemTime) -> Result<Self, AuthorityError> {
        let (signer, next) = folder.open(now)?;
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let authority = Self { signer, next, provider: Arc::new(provider) };
        authority.signing(now)?;
        if let Some(warning) = authority.life(now).warning() {
            tracing::warn!("{warning}");
        }
        Ok(authority)
    }

    /// How long it counts.
    pub(crate) fn life(&self, now: SystemTime) -> Life {
        let signer = self.signing(now).unwrap_or(&self.signer);
        Life {
            sha256: signer.certificate.sha256(),
            ends: signer.certificate.ends_on(),
            days_left: signer.certificate.days_left(now),
            next: self.next.as_ref().is_some_and(|next| !std::ptr::eq(next, signer)),
            begins: (!signer.certificate.counts(now)).then(|| signer.certificate.begins_on()),
        }
    }

    /// What it may vouch for.
    pub(crate) fn within(&self) -> &Within {
        &self.signing(SystemTime::now()).unwrap_or(&self.signer).certificate.within
    }

    /// What to answer TLS with as any of these names and addresses, and as the host itself. The certificate renews
    /// itself. Session tickets are off: they cost memory, and a loopback handshake is cheap.
    pub(crate) fn server_config(
        self: &Arc<Self>,
        names: &[Arc<str>],
        addresses: &[IpAddr],
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, AuthorityError> {
        let within = self.within();
        let name = names.iter().find(|name| !within.has_name(name)).map(|name| format!("{name:?}"));
        let address = addresses.iter().find(|address| !within.has_address(**address)).map(IpAddr::to_string);
        if let Some(what) = name.or(address) {
            return Err(AuthorityError::Outside { what, within: within.to_string() });
        }
        let leaf = Leaf::new(self.clone(), sans(names, addresses)?, SystemTime::now)?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| AuthorityError::Mint(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(leaf));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // The quickest that the client has: what is encrypted leaves this host by no wire.
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// The one that signs at this time. Where none counts yet, as the clock was ahead when they were begun or is behind now, it is
    /// one that will: a wrong clock keeps nobody from what needs no certificate.
    fn signing(&self, now: SystemTime) -> Result<&Signer, AuthorityError> {
        let all = || std::iter::once(&self.signer).chain(&self.next);
        let counts = all().find(|signer| signer.certificate.counts(now));
        let coming = || all().find(|signer| !signer.certificate.is_over(now));
        let over = || AuthorityError::Over(self.signer.certificate.ends_on());
        counts.or_else(coming).ok_or_else(over)
    }
}

impl Life {
    /// What is to be done before it ends, if that is soon, or where it does not count yet.
    pub(crate) fn warning(&self) -> Option<String> {
        let Self { days_left, ends, next, begins, .. } = self;
        if let Some(begins) = begins {
            return Some(format!(
                "this host's certificate authority counts only from {begins} on, and until then clients refuse what it signs: set \
                 the clock, or begin another by `tidegate ca renew`"
            ));
        }
        let what = match next {
            true => "once clients trust the next one, `tidegate ca renew --finish`",
            false => "`tidegate ca renew` begins the next one",
        };
        let days = if *days_left == 1 { "day" } else { "days" };
        (*days_left < WARNED).then(|| {
            format!("this host's certificate authority ends in {days_left} {days}, on {ends}: {what}")
        })
    }
}

impl AuthorityError {
    fn file(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::File { path: path.clone(), error }
    }
}

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// When what is made now begins to count: a day before, for clients whose clock is behind.
fn begins(now: SystemTime) -> SystemTime {
    now.checked_sub(DAY).unwrap_or(now)
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, ends: SystemTime) {
    let at = |time: SystemTime| {
        rcgen::date_time_ymd(1970, 1, 1) + time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    };
    params.not_before = at(begins(now));
    params.not_after = at(ends);
}

#[cfg(test)]
pub(crate) mod tests;
