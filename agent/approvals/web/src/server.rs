//! The listener: few connections, short ones, over TLS unless something before it on this host has that.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{Pages, addresses::Addresses};

/// Most connections at once.
const MOST: usize = 128;
/// How long a connection may take altogether.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long its greeting, and a request's head, may take.
const GREETING: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;

/// A certificate chain and its key.
pub struct Tls(TlsAcceptor);

/// A bound listener.
pub struct Server {
    listener: TcpListener,
    tls: Option<Tls>,
}

impl Tls {
    /// From PEM texts. The error says what is wrong with them.
    pub fn new(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|error| format!("the certificate: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key: {error}"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| error.to_string())?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

impl Server {
    /// Binds the listener.
    pub async fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves pages until dropped.
    pub async fn run(self, pages: Pages) {
        let Self { listener, tls } = self;
        let (pages, tls, places) = (Arc::new(pages), tls.map(Arc::new), Arc::new(Semaphore::new(MOST)));
        let addresses = Addresses::default();
        loop {
            // It is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, client)) => {
                    let (pages, tls) = (pages.clone(), tls.clone());
                    let Some(of_address) = addresses.enter(client.ip()) else {
                        tracing::debug!(%client, "approvals page: too many connections of one address");
                        continue;
                    };
                    tokio::spawn(async move {
                        match timeout(PATIENCE, connection(stream, tls.as_deref(), pages)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(why)) => tracing::debug!(%client, why, "approvals page"),
                            Err(_) => tracing::debug!(%client, "approvals page: too slow"),
                        }
                        drop((place, of_address));
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "approvals page");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<&Tls>, pages: Arc<Pages>) -> Result<(), String> {
    match tls {
        None => serve(stream, pages).await,
        Some(Tls(acceptor)) => {
            let greeted = timeout(GREETING, acceptor.accept(stream)).await.map_err(|_| "no greeting")?;
            serve(greeted.map_err(|error| error.to_string())?, pages).await
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, pages: Arc<Pages>) -> Result<(), String> {
    let service = service_fn(|request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(pages.answer(request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(GREETING)
        .keep_alive(false)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(|error| error.to_string())
}
