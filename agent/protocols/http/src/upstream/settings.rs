//! How a resource's servers are reached.

use std::{sync::Arc, time::Duration};

use rustls::{
    CipherSuite, ClientConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tidegate_gate::{
    Credential,
    policy::{Resource, TlsMode, UpstreamTls},
};

/// The names of the versions in TLS' ALPN extension, in order of preference (RFC 7301).
const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Which versions a connection may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions {
    /// What TLS agrees on; HTTP/1.1 without it.
    Any,
    /// HTTP/2, without asking: there is no TLS.
    Http2,
    /// HTTP/1.1 alone: it is going to be switched to another protocol.
    Http11,
}

/// How a resource's servers are reached. Made once, when the bundle loads.
#[derive(Debug)]
pub(crate) struct Settings {
    tls: Option<(Arc<ClientConfig>, Arc<CryptoProvider>)>,
    server_name: Option<ServerName<'static>>,
    pub(crate) connect_timeout: Duration,
}

impl Settings {
    /// Reads the authorities that are trusted. An upstream is verified, or spoken to in clear where the bundle says so.
    pub(crate) fn new(resource: &Resource) -> Result<Self, String> {
        let tls = &resource.tls;
        let config = match tls.mode {
            None | Some(TlsMode::VerifyFull) => Some(client_config(tls)?),
            Some(TlsMode::Disable) => None,
            Some(TlsMode::Allow | TlsMode::Prefer | TlsMode::Require | TlsMode::VerifyCa) => {
                return Err("tls.mode: an HTTPS server is always verified, whole: use verify-full (with `ca:` for an \
                            authority of your own), or disable for plain HTTP"
                    .into());
            }
        };
        let name = tls.server_name.as_deref().map(|name| {
            ServerName::try_from(name.to_owned())
                .map_err(|_| format!("tls.server-name: {name:?} is no host name"))
        });
        Ok(Self { tls: config, server_name: name.transpose()?, connect_timeout: resource.connect_timeout })
    }

    /// Whether TLS is spoken, to the server and so by clients.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The name that a host's certificate must bear.
    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>, &'static str> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| "the host's name cannot stand in a certificate"),
        }
    }

    /// What to speak TLS with, if at all: with the credential's certificate, if it has one.
    pub(super) fn client_config(
        &self,
        credential: &Credential,
        versions: Versions,
    ) -> Result<Option<Arc<ClientConfig>>, &'static str> {
        let Some((config, provider)) = &self.tls else { return Ok(None) };
        let mut config = config.clone();
        if versions == Versions::Http11 {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let (Some(certificate), Some(key)) = (&credential.certificate, &credential.key) else {
            return Ok(Some(config));
        };
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().ok();
        let chain = chain.filter(|chain| !chain.is_empty()).ok_or("its certificate is not in PEM form")?;
        let key = PrivateKeyDer::from_pem_slice(key.expose())
            .map_err(|_| "its key is not in PEM form, or encrypted")?;
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|_| "its key is not the certificate's, or of an unknown kind")?;
        Arc::make_mut(&mut config).client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Ok(Some(config))
    }
}

fn client_config(tls: &UpstreamTls) -> Result<(Arc<ClientConfig>, Arc<CryptoProvider>), String> {
    let mut provider = aws_lc_rs::default_provider();
    // The first where the server has no wish of its own: as strong as anybody needs, and no digest that processors lack.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let roots = tidegate_https::roots(tls.ca.as_deref()).map_err(|error| format!("tls.ca: {error}"))?;
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    Ok((Arc::new(config), provider))
}
