//! How a resource's servers are reached.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use rustls::{
    ClientConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tidegate_gate::{
    ConfigError, Credential,
    policy::{Host, Resource, TlsMode, UpstreamTls},
};

use super::{SignInError, verifier::Verifier};
use crate::{options::Options, startup::tls::ALPN};

/// How a resource's servers are reached. Made once, when the bundle loads.
#[derive(Debug)]
pub(crate) struct UpstreamSettings {
    mode: TlsMode,
    server_name: Option<ServerName<'static>>,
    tls: Option<(Arc<ClientConfig>, Arc<CryptoProvider>)>,
    connect_timeout: Duration,
    minor: u16,
    requires_channel_binding: bool,
    begins_with_tls: bool,
}

impl UpstreamSettings {
    /// Reads the authorities' file, if the resource names one.
    pub(crate) fn new(resource: &Resource, options: &Options) -> Result<Self, ConfigError> {
        let tls = &resource.tls;
        let failed = |message: String| ConfigError::new(message);
        let server_name = server_name(resource).map_err(failed)?;
        let config = match verifier(tls).map_err(failed)? {
            Some(verifier) => Some(client_config(verifier).map_err(failed)?),
            None => None,
        };
        let mode = tls.mode.unwrap_or_default();
        let requires_channel_binding = options.requires_channel_binding();
        let begins_with_tls = options.begins_with_tls();
        let needs = [
            (requires_channel_binding, "channel-binding: require"),
            (begins_with_tls, "ssl-negotiation: direct"),
        ];
        if matches!(mode, TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer)
            && let Some((_, option)) = needs.iter().find(|(is_set, _)| *is_set)
        {
            return Err(failed(format!("{option} needs TLS: set tls.mode to require or more")));
        }
        Ok(Self {
            mode,
            server_name,
            tls: config,
            connect_timeout: resource.connect_timeout,
            minor: options.newest_minor(),
            requires_channel_binding,
            begins_with_tls,
        })
    }

    pub(super) fn mode(&self) -> TlsMode {
        self.mode
    }

    /// The name that the certificate must bear; none for the address itself.
    pub(super) fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// The minor version of protocol 3 to ask for.
    pub(super) fn minor(&self) -> u16 {
        self.minor
    }

    pub(super) fn requires_channel_binding(&self) -> bool {
        self.requires_channel_binding
    }

    /// The server isn't asked first whether it speaks TLS.
    pub(super) fn begins_with_tls(&self) -> bool {
        self.begins_with_tls
    }

    /// What to speak TLS with, if at all: with the credential's certificate, if it has one.
    pub(super) fn client_config(
        &self,
        credential: &Credential,
    ) -> Result<Option<Arc<ClientConfig>>, SignInError> {
        let Some((config, provider)) = &self.tls else { return Ok(None) };
        let (certificate, key) = match (&credential.certificate, &credential.key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => return Ok(Some(config.clone())),
            (Some(_), None) => return Err(SignInError::Unusable("it has a certificate but no key")),
            (None, Some(_)) => return Err(SignInError::Unusable("it has a key but no certificate")),
        };
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or(SignInError::Unusable("its certificate is not in PEM form"))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose())
            .map_err(|_| SignInError::Unusable("its key is not in PEM form, or encrypted"))?;
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|_| SignInError::Unusable("its key is not the certificate's, or of an unknown kind"))?;
        let mut config = ClientConfig::clone(config);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Ok(Some(Arc::new(config)))
    }

    /// Bounds what happens before the session is ready.
    pub(super) async fn timed<T>(
        &self,
        work: impl Future<Output = Result<T, SignInError>>,
    ) -> Result<T, SignInError> {
        tokio::time::timeout(self.connect_timeout, work)
            .await
            .map_err(|_| SignInError::TimeLimit(self.connect_timeout))?
    }
}

/// The name to verify: the one the resource gives, or the one host it has.
fn server_name(resource: &Resource) -> Result<Option<ServerName<'static>>, String> {
    let hosts: BTreeSet<&str> = resource
        .addresses
        .iter()
        .filter_map(|address| match &address.host {
            Host::Name(name) => Some(&**name),
            Host::Net(_) => None,
        })
        .collect();
    let mut hosts = hosts.into_iter();
    let name = match (&resource.tls.server_name, hosts.next(), hosts.next()) {
        (Some(name), _, _) => &**name,
        (None, None, _) => return Ok(None),
        (None, Some(host), None) => host,
        (None, Some(_), Some(_)) if resource.tls.mode == Some(TlsMode::VerifyFull) => {
            return Err(
                "it has several hosts: say which name their certificates bear in tls.server_name".into()
            );
        }
        (None, Some(_), Some(_)) => return Ok(None),
    };
    let parsed = ServerName::try_from(name).map_err(|_| format!("{name:?} is no host name"))?;
    Ok(Some(parsed.to_owned()))
}

/// What certificates are asked of the server; none if there is to be no TLS. As with libpq, `require` together with an
/// authority verifies it.
fn verifier(tls: &UpstreamTls) -> Result<Option<Verifier>, String> {
    let authorities =
        || tidegate_https::authorities(tls.ca.as_deref()).map_err(|error| format!("tls.ca: {error}"));
    match tls.mode.unwrap_or_default() {
        TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer if tls.ca.is_some() => {
            Err("tls.ca is never looked at in this mode: use verify-full, or leave ca out".to_owned())
        }
        TlsMode::Disable => Ok(None),
        TlsMode::Allow | TlsMode::Prefer => Ok(Some(Verifier::none())),
        TlsMode::Require if tls.ca.is_none() => Ok(Some(Verifier::none())),
        TlsMode::Require | TlsMode::VerifyCa => {
            authorities().map(|trusted| Some(Verifier::authority(trusted)))
        }
        TlsMode::VerifyFull => authorities().map(|trusted| Some(Verifier::full(trusted))),
    }
}

fn client_config(verifier: Verifier) -> Result<(Arc<ClientConfig>, Arc<CryptoProvider>), String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be set up: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would be one of whichever certificate was shown first.
    config.resumption = Resumption::disabled();
    Ok((Arc::new(config), provider))
}
