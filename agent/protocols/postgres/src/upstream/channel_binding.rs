//! Channel binding of the kind `tls-server-end-point` (RFC 5929, 4.1).

use aws_lc_rs::digest::{self, SHA224, SHA256, SHA384, SHA512};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, signature_algorithm::SignatureAlgorithm,
    x509::AlgorithmIdentifier,
};

/// The digest of a certificate by the hash function it is signed with, SHA-256 in place of MD5 and SHA-1. None if the
/// signature has no hash function of its own (Ed25519) or one that isn't known: RFC 5929 leaves these undefined.
pub(super) fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = hash(&parsed.signature_algorithm)?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

fn hash(signature: &AlgorithmIdentifier<'_>) -> Option<&'static digest::Algorithm> {
    let id = signature.algorithm.to_id_string();
    if id == RSASSA_PSS {
        let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) = SignatureAlgorithm::try_from(signature) else {
            return None;
        };
        return of_pss(&parameters.hash_algorithm_oid().to_id_string());
    }
    match id.as_str() {
        // With RSA (RFC 8017, A.2.4), md5 and sha1 first, and with ECDSA (RFC 5758, 3.2).
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => Some(&SHA256),
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => Some(&SHA256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(&SHA384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(&SHA512),
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Some(&SHA224),
        _ => None,
    }
}

/// RSASSA-PSS carries its hash function as a parameter (RFC 4055, 3.1).
const RSASSA_PSS: &str = "1.2.840.113549.1.1.10";

/// The hash function of an RSASSA-PSS signature (RFC 4055, 2.1).
fn of_pss(id: &str) -> Option<&'static digest::Algorithm> {
    match id {
        "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => Some(&SHA256),
        "2.16.840.1.101.3.4.2.2" => Some(&SHA384),
        "2.16.840.1.101.3.4.2.3" => Some(&SHA512),
        "2.16.840.1.101.3.4.2.4" => Some(&SHA224),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
        PKCS_RSA_SHA512, SignatureAlgorithm,
    };

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::new(["db.test".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_digest_is_of_the_signatures_hash_function() {
        for (algorithm, hash) in [
            (&PKCS_ECDSA_P256_SHA256, &SHA256),
            (&PKCS_ECDSA_P384_SHA384, &SHA384),
            (&PKCS_RSA_SHA512, &SHA512),
        ] {
            let certificate = certificate(algorithm);
            let expected = digest::digest(hash, &certificate);
            assert_eq!(tls_server_end_point(&certificate).as_deref(), Some(expected.as_ref()));
        }
    }

    #[test]
    fn a_signature_without_a_hash_function_binds_nothing() {
        assert_eq!(tls_server_end_point(&certificate(&PKCS_ED25519)), None);
        assert_eq!(tls_server_end_point(b"no certificate"), None);
    }
}
