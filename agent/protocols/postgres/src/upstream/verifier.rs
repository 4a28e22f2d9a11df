//! What is asked of a server's certificate, with the meaning of libpq's `sslmode`.

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, time::ASN1Time};

/// What is asked of a server's certificate. That the server holds its key is always asked.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
enum Trust {
    /// Any certificate will do.
    Anyone,
    /// One of these authorities must have issued it.
    Authorities {
        roots: RootCertStore,
        /// The same as they are: a server's own self-signed certificate may be among them.
        listed: Vec<CertificateDer<'static>>,
        /// It must bear the server's name.
        name: bool,
    },
}

impl Verifier {
    /// `prefer` and `require`: anyone.
    pub(super) fn none() -> Self {
        Self::new(Trust::Anyone)
    }

    /// `verify-ca`: anyone with a certificate of these authorities.
    pub(super) fn authority(authorities: Vec<CertificateDer<'static>>) -> Self {
        Self::trusting(authorities, false)
    }

    /// `verify-full`: the named server, with a certificate of these authorities.
    pub(super) fn full(authorities: Vec<CertificateDer<'static>>) -> Self {
        Self::trusting(authorities, true)
    }

    fn trusting(listed: Vec<CertificateDer<'static>>, name: bool) -> Self {
        let mut roots = RootCertStore::empty();
        // The system's may hold certificates that can't be used; files are checked before.
        roots.add_parsable_certificates(listed.iter().cloned());
        Self::new(Trust::Authorities { roots, listed, name })
    }

    fn new(trust: Trust) -> Self {
        Self { trust, algorithms: aws_lc_rs::default_provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trust::Authorities { roots, listed, name } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if listed.iter().any(|listed| listed.as_ref() == end_entity.as_ref()) {
            check_dates(end_entity, now)?;
        } else {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        if *name {
            verify_server_name(&certificate, server_name).or_else(|error| {
                if bears_common_name(end_entity, server_name) { Ok(()) } else { Err(error) }
            })?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A certificate that is itself trusted still has its dates.
fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| bad())?;
    let now = i64::try_from(now.as_secs())
        .ok()
        .and_then(|now| ASN1Time::from_timestamp(now).ok())
        .ok_or_else(bad)?;
    let validity = parsed.validity();
    if now < validity.not_before {
        Err(Error::InvalidCertificate(CertificateError::NotValidYet))
    } else if now > validity.not_after {
        Err(Error::InvalidCertificate(CertificateError::Expired))
    } else {
        Ok(())
    }
}

/// Whether a certificate without a subjectAltName bears the name as its common name, as libpq accepts it: exactly, or
/// with `*` for the whole first label.
fn bears_common_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    if !matches!(parsed.subject_alternative_name(), Ok(None)) {
        return false;
    }
    let name = name.to_str();
    let mut common_names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common_names.any(|common_name| matches(common_name, &name))
}

fn matches(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(domain), Some((first, rest))) => {
            !is_address && !first.is_empty() && domain.contains('.') && domain.eq_ignore_ascii_case(rest)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// A server's certificate with these alternative names and this common name.
    fn issued(by: &Authority, names: &[&str], common_name: &str) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
    }

    fn accepts(verifier: &Verifier, certificate: &CertificateDer<'_>, name: &str) -> bool {
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn each_mode_asks_for_what_libpqs_does() {
        let (ours, foreign) = (authority(), authority());
        let right = issued(&ours, &["db.test"], "db.test");
        let stranger = issued(&foreign, &["db.test"], "db.test");
        let trusted = || vec![ours.der().clone()];
        for (verifier, right_name, wrong_name, wrong_authority) in [
            (Verifier::none(), true, true, true),
            (Verifier::authority(trusted()), true, true, false),
            (Verifier::full(trusted()), true, false, false),
        ] {
            assert_eq!(accepts(&verifier, &right, "db.test"), right_name, "{verifier:?}");
            assert_eq!(accepts(&verifier, &right, "other.test"), wrong_name, "{verifier:?}");
            assert_eq!(accepts(&verifier, &stranger, "db.test"), wrong_authority, "{verifier:?}");
        }
    }

    #[test]
    fn a_common_name_counts_only_without_alternative_names() {
        let ours = authority();
        let verifier = Verifier::full(vec![ours.der().clone()]);
        assert!(accepts(&verifier, &issued(&ours, &[], "db.test"), "db.test"));
        assert!(!accepts(&verifier, &issued(&ours, &["other.test"], "db.test"), "db.test"));
    }

    #[test]
    fn a_wildcard_is_a_whole_first_label() {
        for (pattern, name, fits) in [
            ("DB.test", "db.TEST", true),
            ("*.shop.test", "db.shop.test", true),
            ("*.shop.test", "a.db.shop.test", false),
            ("*.shop.test", "shop.test", false),
            ("d*.shop.test", "db.shop.test", false),
            ("*.test", "db.test", false),
            ("*.0.0.1", "127.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_self_signed_certificate_may_be_trusted_by_itself_while_it_is_valid() {
        let itself = authority();
        let verifier = Verifier::authority(vec![itself.der().clone()]);
        let name = ServerName::try_from("db.test").unwrap();
        assert!(accepts(&verifier, itself.der(), "db.test"));
        let in_the_year_5138 = UnixTime::since_unix_epoch(Duration::from_secs(100_000_000_000));
        let expired = verifier.verify_server_cert(itself.der(), &[], &name, &[], in_the_year_5138);
        assert!(matches!(expired, Err(Error::InvalidCertificate(CertificateError::Expired))), "{expired:?}");
        assert!(!accepts(&Verifier::authority(vec![authority().der().clone()]), itself.der(), "db.test"));
    }
}
