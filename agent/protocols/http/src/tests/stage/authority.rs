//! An authority of a test's own.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tidegate_gate::{Credential, Secret};

/// Who vouches for both of a test's servers.
pub(in crate::tests) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(in crate::tests) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn leaf(&self, name: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    pub(in crate::tests) fn server(&self, name: &str, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        self.verifying(name, alpn, Arc::new(NoClientAuth))
    }

    /// A server that takes whoever has a certificate of this authority's.
    pub(super) fn mutual(&self, name: &str) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        self.verifying(name, &[b"http/1.1"], verifier)
    }

    fn verifying(
        &self,
        name: &str,
        alpn: &[&[u8]],
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Arc<ServerConfig> {
        let (certificate, key) = self.leaf(name);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// A credential that is a certificate.
    pub(super) fn credential(&self) -> Credential {
        let (certificate, key) = self.leaf("gate.test");
        Credential {
            certificate: Some(certificate.pem().into_bytes().into()),
            key: Some(Secret::new(key.serialize_pem().into_bytes())),
            ..Credential::default()
        }
    }

    /// Its certificate, as files have it.
    pub(in crate::tests) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }
}
