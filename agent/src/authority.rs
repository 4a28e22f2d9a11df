//! The host's own certificate authority, which clients on this host may trust, and the leaves it mints.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use crate::files;

/// What clients on this host may call the listener itself.
const HOST: &str = "localhost";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the authority is valid.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3653 * 24 * 60 * 60);
/// How long a leaf is valid; it is renewed when a third of that is left.
const LEAF_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Most bytes of the authority's files.
const LONGEST: usize = 64 * 1024;

/// The host's own authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// It vouches for no name that is not one of these or below; empty for any.
    within: Vec<Arc<str>>,
    provider: Arc<CryptoProvider>,
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
    /// Only one of the two files is there.
    #[error("{} is missing beside its other half; restore it, or remove both to begin a new authority", .0.display())]
    Half(PathBuf),
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
        "{}: this authority vouches for {}, and `authority.names` of the configuration asks for {}: change that, or remove \
         ca.pem and ca.key to begin a new authority, which clients must trust anew",
        path.display(), names(was), names(asked)
    )]
    Constrained {
        /// Its certificate.
        path: PathBuf,
        /// What it was begun with.
        was: Vec<Arc<str>>,
        /// What it is to have.
        asked: Vec<Arc<str>>,
    },
    /// A resource's name that it may not vouch for.
    #[error(
        "no certificate for {name:?}: this host's authority vouches for {} (`authority.names`)",
        names(within)
    )]
    Outside {
        /// The name.
        name: Arc<str>,
        /// What it vouches for.
        within: Vec<Arc<str>>,
    },
    /// A leaf could not be made.
    #[error("no certificate could be made: {0}")]
    Mint(String),
}

impl Authority {
    /// Opens the authority of this directory (`ca.pem`, `ca.key`), or begins a new one, named after the host. `within` are the
    /// names that it may vouch for, with those below, beside the host's own; empty for any. They stand in its certificate
    /// (RFC 5280, 4.2.1.10), so that its key is worth nothing for others, whoever has it.
    pub(crate) fn open(directory: &Path, host: &str, within: &[Arc<str>]) -> Result<Self, AuthorityError> {
        let (certificate, key) = (certificate_path(directory), directory.join("ca.key"));
        let issuer = match (certificate.exists(), key.exists()) {
            (true, true) => load(&certificate, &key, within)?,
            (false, false) => begin(&certificate, &key, host, within)?,
            (true, false) => return Err(AuthorityError::Half(key)),
            (false, true) => return Err(AuthorityError::Half(certificate)),
        };
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Ok(Self { issuer, within: within.to_vec(), provider: Arc::new(provider) })
    }

    /// What to answer TLS with as any of these names and addresses, and as the host itself. The certificate renews
    /// itself. Session tickets are off: they cost memory, and a loopback handshake is cheap.
    pub(crate) fn server_config(
        self: &Arc<Self>,
        names: &[Arc<str>],
        addresses: &[IpAddr],
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, AuthorityError> {
        let is_within = |name: &&Arc<str>| {
            let below = |zone: &Arc<str>| {
                name.strip_suffix(&**zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            self.within.is_empty() || ***name == *HOST || self.within.iter().any(below)
        };
        if let Some(name) = names.iter().find(|name| !is_within(name)) {
            return Err(AuthorityError::Outside { name: name.clone(), within: self.within.clone() });
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

    fn mint(&self, names: &[SanType], now: SystemTime) -> Result<Minted, AuthorityError> {
        let failed = |error: rcgen::Error| AuthorityError::Mint(error.to_string());
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Tidegate");
        params.subject_alt_names = names.to_vec();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_LIFE);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = self
            .provider
            .key_provider
            .load_private_key(secret)
            .map_err(|error| AuthorityError::Mint(error.to_string()))?;
        Ok(Minted {
            key: Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer)),
            renew_at: now + LEAF_LIFE * 2 / 3,
        })
    }
}

/// Where the authority's certificate is, for clients to trust.
pub(crate) fn certificate_path(directory: &Path) -> PathBuf {
    directory.join("ca.pem")
}

/// The certificate of one resource.
struct Leaf {
    authority: Arc<Authority>,
    names: Vec<SanType>,
    current: ArcSwap<Minted>,
    now: fn() -> SystemTime,
}

struct Minted {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl Leaf {
    fn new(
        authority: Arc<Authority>,
        names: Vec<SanType>,
        now: fn() -> SystemTime,
    ) -> Result<Self, AuthorityError> {
        let minted = authority.mint(&names, now())?;
        Ok(Self { authority, names, current: ArcSwap::from_pointee(minted), now })
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let current = self.current.load();
        if now < current.renew_at {
            return current.key.clone();
        }
        match self.authority.mint(&self.names, now) {
            Ok(renewed) => {
                let key = renewed.key.clone();
                self.current.store(Arc::new(renewed));
                key
            }
            Err(error) => {
                tracing::error!(%error, "a certificate could not be renewed; the old one stays");
                current.key.clone()
            }
        }
    }
}

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at((self.now)()))
    }
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaf").field("names", &self.names).finish_non_exhaustive()
    }
}

fn load(
    certificate: &Path,
    key: &Path,
    within: &[Arc<str>],
) -> Result<Issuer<'static, KeyPair>, AuthorityError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |error| AuthorityError::Unusable { path, error }
    };
    let pair = KeyPair::from_pem(&text(key, 0o077)?).map_err(unusable(key))?;
    let pem = text(certificate, 0o022)?;
    let was =
        constraints(&pem).ok_or_else(|| unusable(certificate)(rcgen::Error::CouldNotParseCertificate))?;
    if was.iter().collect::<BTreeSet<_>>() != within.iter().collect() {
        let (path, asked) = (certificate.to_owned(), within.to_vec());
        return Err(AuthorityError::Constrained { path, was, asked });
    }
    Issuer::from_ca_cert_pem(&pem, pair).map_err(unusable(certificate))
}

/// The names that a certificate's authority may vouch for, beside the host's own; none if it cannot be read.
fn constraints(pem: &str) -> Option<Vec<Arc<str>>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let constraints = certificate.name_constraints().ok()?;
    let permitted = constraints.and_then(|constraints| constraints.value.permitted_subtrees.as_ref());
    let names = permitted.into_iter().flatten().filter_map(|subtree| match subtree.base {
        GeneralName::DNSName(name) if name != HOST => Some(name.into()),
        _ => None,
    });
    Some(names.collect())
}

fn names(within: &[Arc<str>]) -> String {
    match within {
        [] => "any name".into(),
        names => format!("names at or below {}", names.join(", ")),
    }
}

fn begin(
    certificate: &Path,
    key: &Path,
    host: &str,
    within: &[Arc<str>],
) -> Result<Issuer<'static, KeyPair>, AuthorityError> {
    let failed = |error: rcgen::Error| AuthorityError::Mint(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Tidegate on {host}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    if !within.is_empty() {
        let names = within.iter().map(|name| &**name).chain([HOST]);
        let permitted_subtrees = names.map(|name| GeneralSubtree::DnsName(name.to_owned())).collect();
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    }
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, SystemTime::now(), AUTHORITY_LIFE);
    let pair = KeyPair::generate().map_err(failed)?;
    let signed = params.self_signed(&pair).map_err(failed)?;
    let secret = Zeroizing::new(pair.serialize_pem());
    let written = |path: &Path, contents: &[u8], mode| {
        files::write(path, contents, mode).map_err(|error| AuthorityError::File { path: path.into(), error })
    };
    written(key, secret.as_bytes(), 0o600)?;
    written(certificate, signed.pem().as_bytes(), 0o644)?;
    Ok(Issuer::new(params, pair))
}

fn text(path: &Path, forbidden: u32) -> Result<Zeroizing<String>, AuthorityError> {
    let failed = |error| AuthorityError::File { path: path.into(), error };
    let contents = files::read_trusted(path, LONGEST, forbidden).map_err(failed)?;
    let text = std::str::from_utf8(&contents)
        .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "it is not PEM")))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The resource's names and addresses, and what a client on this host may call the listener itself.
fn sans(names: &[Arc<str>], addresses: &[IpAddr]) -> Result<Vec<SanType>, AuthorityError> {
    let mut sans = Vec::new();
    for name in names.iter().map(|name| &**name).chain([HOST]) {
        let name = name
            .try_into()
            .map_err(|_| AuthorityError::Mint(format!("{name:?} cannot stand in a certificate")))?;
        let san = SanType::DnsName(name);
        if !sans.contains(&san) {
            sans.push(san);
        }
    }
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    for address in addresses.iter().copied().chain(loopback) {
        let san = SanType::IpAddress(address);
        if !sans.contains(&san) {
            sans.push(san);
        }
    }
    Ok(sans)
}

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Backdated by a day, for clients whose clock is behind.
fn set_validity(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + life;
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        sync::atomic::{AtomicU32, Ordering},
    };

    use rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
        time_provider::TimeProvider,
    };
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// A client that trusts this directory's authority, and the server, over memory.
    pub(crate) async fn handshake(
        directory: &Path,
        server: Arc<ServerConfig>,
        name: &str,
    ) -> Result<(), String> {
        shown(directory, server, name, 0).await.map(drop)
    }

    /// A clock that is so many days ahead.
    #[derive(Debug)]
    struct Ahead(u64);

    impl TimeProvider for Ahead {
        fn current_time(&self) -> Option<UnixTime> {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(UnixTime::since_unix_epoch(now + DAY * u32::try_from(self.0).ok()?))
        }
    }

    /// The certificate that such a client is shown, and accepts so many days from now.
    async fn shown(
        directory: &Path,
        server: Arc<ServerConfig>,
        name: &str,
        days: u64,
    ) -> Result<CertificateDer<'static>, String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate_path(directory)).unwrap()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_details(provider, Arc::new(Ahead(days)))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (connected, _) = tokio::join!(
            TlsConnector::from(Arc::new(client)).connect(name, near),
            TlsAcceptor::from(server).accept(far)
        );
        let connected = connected.map_err(|error| error.to_string())?;
        let certificates = connected.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(certificates.first().ok_or("no certificate")?.clone().into_owned())
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_authority_verifies_every_name_of_a_resource() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(directory.path(), "host", &[]).unwrap());
        let server =
            authority.server_config(&["db.internal".into()], &["192.0.2.7".parse().unwrap()], &[]).unwrap();
        for name in ["db.internal", "192.0.2.7", "localhost", "127.0.0.1", "::1"] {
            handshake(directory.path(), server.clone(), name).await.unwrap();
        }
        let error = handshake(directory.path(), server, "other.internal").await.unwrap_err();
        assert!(error.contains("not valid for name"), "{error}");
    }

    #[tokio::test]
    async fn the_authority_is_the_same_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        Authority::open(directory.path(), "host", &[]).unwrap();
        let before = fs::read(certificate_path(directory.path())).unwrap();
        let again = Arc::new(Authority::open(directory.path(), "host", &[]).unwrap());
        assert_eq!(fs::read(certificate_path(directory.path())).unwrap(), before);
        let server = again.server_config(&["db.internal".into()], &[], &[]).unwrap();
        handshake(directory.path(), server, "db.internal").await.unwrap();
    }

    #[tokio::test]
    async fn a_constrained_authority_vouches_for_names_at_or_below_its_own_and_the_host() {
        let directory = tempfile::tempdir().unwrap();
        let open = |within: &[&str]| {
            let within: Vec<Arc<str>> = within.iter().map(|name| (*name).into()).collect();
            Authority::open(directory.path(), "host", &within)
        };
        let authority = Arc::new(open(&["internal"]).unwrap());
        let server = authority.server_config(&["db.internal".into(), "internal".into()], &[], &[]).unwrap();
        for name in ["db.internal", "internal", "localhost", "127.0.0.1"] {
            handshake(directory.path(), server.clone(), name).await.unwrap();
        }
        for outside in ["example.com", "notinternal", "internal.example"] {
            let error = authority.server_config(&[outside.into()], &[], &[]).err().unwrap().to_string();
            assert!(error.contains("at or below internal"), "{error}");
            // Whoever has the key gets no further: clients refuse what it signs.
            let leaf =
                Leaf::new(authority.clone(), sans(&[outside.into()], &[]).unwrap(), SystemTime::now).unwrap();
            let mut forged = ServerConfig::clone(&server);
            forged.cert_resolver = Arc::new(leaf);
            assert!(handshake(directory.path(), Arc::new(forged), outside).await.is_err(), "{outside}");
        }
        open(&["internal"]).unwrap();
        for other in [&[][..], &["internal", "example.com"]] {
            let error = open(other).err().unwrap().to_string();
            assert!(
                error.contains("at or below internal") && error.contains("begin a new authority"),
                "{error}"
            );
        }
    }

    #[test]
    fn only_the_certificate_is_for_others_to_read() {
        let directory = tempfile::tempdir().unwrap();
        Authority::open(directory.path(), "host", &[]).unwrap();
        let mode =
            |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("ca.key"), mode("ca.pem")), (0o600, 0o644));
    }

    #[test]
    fn half_an_authority_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        Authority::open(directory.path(), "host", &[]).unwrap();
        fs::remove_file(directory.path().join("ca.key")).unwrap();
        let error = Authority::open(directory.path(), "host", &[]).err().unwrap().to_string();
        assert!(error.contains("ca.key") && error.contains("restore"), "{error}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        Authority::open(directory.path(), "host", &[]).unwrap();
        fs::set_permissions(directory.path().join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let error = Authority::open(directory.path(), "host", &[]).err().unwrap().to_string();
        assert!(error.contains("ca.key") && error.contains("0644"), "{error}");
    }

    #[test]
    fn a_leaf_renews_itself_before_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(directory.path(), "host", &[]).unwrap());
        let leaf = Leaf::new(authority, sans(&[], &[]).unwrap(), SystemTime::now).unwrap();
        let now = SystemTime::now();
        let first = leaf.at(now);
        assert!(Arc::ptr_eq(&first, &leaf.at(now + LEAF_LIFE / 2)));
        let renewed = leaf.at(now + LEAF_LIFE * 3 / 4);
        assert!(!Arc::ptr_eq(&first, &renewed));
        assert!(Arc::ptr_eq(&renewed, &leaf.at(now + LEAF_LIFE)));
    }

    #[tokio::test]
    async fn clients_are_shown_the_renewed_leaf_by_the_configuration_that_they_were_shown_the_old_one_by() {
        static PASSED: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(directory.path(), "host", &[]).unwrap());
        let names = sans(&["db.internal".into()], &[]).unwrap();
        let clock = || SystemTime::now() + DAY * PASSED.load(Ordering::Relaxed);
        let mut config =
            ServerConfig::clone(&authority.server_config(&["db.internal".into()], &[], &[]).unwrap());
        config.cert_resolver = Arc::new(Leaf::new(authority, names, clock).unwrap());
        let config = Arc::new(config);
        let shown = |days| shown(directory.path(), config.clone(), "db.internal", days);
        let first = shown(0).await.unwrap();
        assert_eq!(shown(4).await.unwrap(), first);
        let over = shown(8).await.unwrap_err();
        assert!(over.contains("expired"), "a leaf ends: {over}");
        PASSED.store(5, Ordering::Relaxed);
        let renewed = shown(8).await.unwrap();
        assert_ne!(renewed, first);
        assert_eq!(shown(5).await.unwrap(), renewed);
    }
}
