//! The certificates that servers show, each renewed before it ends.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::{
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Authority, AuthorityError, DAY, begins, named, set_validity, within::HOST};

/// How long a leaf is valid, if its authority is; it is renewed when a third of that is left.
pub(super) const LIFE: Duration = Duration::from_secs(7 * DAY.as_secs());

/// The certificate of one resource.
pub(super) struct Leaf {
    authority: Arc<Authority>,
    names: Vec<SanType>,
    current: ArcSwap<Minted>,
    now: fn() -> SystemTime,
}

/// A certificate with its key.
pub(super) struct Minted {
    pub(super) key: Arc<CertifiedKey>,
    begins: SystemTime,
    renew_at: SystemTime,
}

impl Leaf {
    pub(super) fn new(
        authority: Arc<Authority>,
        names: Vec<SanType>,
        now: fn() -> SystemTime,
    ) -> Result<Self, AuthorityError> {
        let minted = authority.mint(&names, now())?;
        Ok(Self { authority, names, current: ArcSwap::from_pointee(minted), now })
    }

    pub(super) fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let current = self.current.load();
        // The clock may have been ahead when it was made.
        if (current.begins..current.renew_at).contains(&now) {
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

impl Authority {
    /// No leaf outlives the authority that signs it.
    pub(super) fn mint(&self, names: &[SanType], now: SystemTime) -> Result<Minted, AuthorityError> {
        let failed = |error: rcgen::Error| AuthorityError::Mint(error.to_string());
        let signer = self.signing(now)?;
        let (full, authority) = (now + LIFE, signer.certificate.ends);
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Tidegate");
        params.subject_alt_names = names.to_vec();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, full.min(authority));
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &signer.issuer).map_err(failed)?;
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = self.provider.key_provider.load_private_key(secret);
        let signing = signing.map_err(|error| AuthorityError::Mint(error.to_string()))?;
        Ok(Minted {
            key: Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing)),
            begins: begins(now),
            renew_at: if full < authority { now + LIFE * 2 / 3 } else { authority },
        })
    }
}

/// The resource's names and addresses, and what a client on this host may call the listener itself.
pub(super) fn sans(names: &[Arc<str>], addresses: &[IpAddr]) -> Result<Vec<SanType>, AuthorityError> {
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
