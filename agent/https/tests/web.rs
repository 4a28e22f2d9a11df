//! What is fetched, from a server of the test's own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of the tests that fails fails the test"
)]

use std::{sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tidegate_gate::Secret;
use tidegate_https::{Answer, Https, HttpsError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use url::Url;

/// A server at `localhost` that answers everything alike, and the file of the authority that vouches for it.
struct Web {
    port: u16,
    directory: TempDir,
    asked: watch::Sender<Vec<String>>,
    serving: JoinHandle<()>,
}

impl Web {
    async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        Self::start(Some(answer.into())).await
    }

    /// Which takes what it is asked and says nothing.
    async fn silent() -> Self {
        Self::start(None).await
    }

    async fn start(answer: Option<Vec<u8>>) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = watch::Sender::default();
        let serving = tokio::spawn(serve(listener, Arc::new(config).into(), answer, asked.clone()));
        Self { port, directory, asked, serving }
    }

    fn client(&self) -> Https {
        Https::new(Some(&self.directory.path().join("ca.pem"))).unwrap()
    }

    fn url(&self) -> Url {
        format!("https://localhost:{}/token?key=hunter2", self.port).parse().unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    answer: Option<Vec<u8>>,
    asked: watch::Sender<Vec<String>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        // Whoever does not trust it goes away.
        let Ok(mut stream) = tls.accept(stream).await else { continue };
        let mut read = Vec::new();
        while !read.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                break;
            }
        }
        asked.send_modify(|asked| asked.push(String::from_utf8_lossy(&read).into_owned()));
        let Some(answer) = &answer else { return std::future::pending().await };
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    }
}

fn response(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Why nothing was fetched, without what is nobody's business.
fn why(answer: Result<Answer, HttpsError>) -> HttpsError {
    let error = answer.err().expect("nothing is fetched");
    let said = format!("{error} {error:?}");
    assert!(!said.contains("hunter2") && !said.contains("/token"), "{said}");
    error
}

#[tokio::test]
async fn what_is_fetched_comes_with_its_status_whatever_that_is() {
    let web = Web::answering(response("404 Not Found", "nothing")).await;
    let bearer = Secret::new(b"b3arer".to_vec());
    let answer = web.client().get(web.url(), Some(&bearer)).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (404, &b"nothing"[..]));
    let asked = web.asked().remove(0);
    assert!(asked.starts_with("GET /token?key=hunter2 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer b3arer\r\n"), "{asked}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let web = Web::answering(response("302 Found\r\nLocation: /elsewhere", "")).await;
    let answer = web.client().post_form(web.url(), &[("a", "b c")]).await.unwrap();
    assert_eq!((answer.status, web.asked().len()), (302, 1));
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_none_whether_it_says_so_or_not() {
    let body = "x".repeat(256 * 1024 + 1);
    let untold = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
    for answer in [response("200 OK", &body), untold] {
        let web = Web::answering(answer).await;
        let why = why(web.client().get(web.url(), None).await);
        assert!(matches!(why, HttpsError::TooLong(262_144)), "{why:?}");
    }
    let web = Web::answering(response("200 OK", &body[1..])).await;
    assert_eq!(web.client().get(web.url(), None).await.unwrap().body.len(), 256 * 1024);
}

#[tokio::test]
async fn whom_another_authority_vouches_for_is_told_nothing() {
    let (web, other) = (Web::answering(response("200 OK", "")).await, Web::answering("").await);
    let why = why(other.client().get(web.url(), None).await);
    assert!(matches!(why, HttpsError::Tls(rustls::Error::InvalidCertificate(_))), "{why:?}");
    assert!(web.asked().is_empty());
}

#[tokio::test]
async fn who_says_nothing_is_waited_for_ten_seconds() {
    let web = Web::silent().await;
    let (client, url) = (web.client(), web.url());
    let asking = tokio::spawn(async move { client.get(url, None).await });
    web.asked.subscribe().wait_for(|asked| !asked.is_empty()).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(!asking.is_finished());
    tokio::time::advance(Duration::from_millis(1_001)).await;
    let why = why(asking.await.unwrap());
    assert!(matches!(why, HttpsError::TimedOut), "{why:?}");
}

#[tokio::test]
async fn where_nobody_listens_the_system_s_words_are_told() {
    let web = Web::answering("").await;
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let mut url = web.url();
    url.set_port(Some(free.port())).unwrap();
    let why = why(web.client().get(url, None).await);
    assert!(matches!(&why, HttpsError::NotReached(said) if said.contains("refused")), "{why:?}");
}

#[tokio::test]
async fn another_name_than_the_certificate_s_is_told_nothing() {
    let web = Web::answering(response("200 OK", "")).await;
    let mut url = web.url();
    url.set_host(Some("127.0.0.1")).unwrap();
    why(web.client().get(url, None).await);
    assert!(web.asked().is_empty());
}

#[tokio::test]
async fn nothing_is_fetched_without_tls() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let web = Web::answering("").await;
    let mut url = web.url();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    let url: Url = url.as_str().replace("https:", "http:").parse().unwrap();
    why(web.client().get(url, None).await);
    let own = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (_, first) = listener.accept().await.unwrap();
    assert_eq!(first, own.local_addr().unwrap(), "somebody connected before");
}

#[tokio::test]
async fn an_id_and_a_secret_are_encoded_before_a_colon_is_between_them() {
    let web = Web::answering(response("200 OK", "{}")).await;
    let secret = Secret::new(b"a:b c".to_vec());
    web.client().post_form_as(web.url(), ("id:x", &secret), &[]).await.unwrap();
    // base64 of `id%3Ax:a%3Ab+c`
    let asked = web.asked().remove(0);
    assert!(asked.contains("authorization: Basic aWQlM0F4OmElM0FiK2M=\r\n"), "{asked}");
}

#[test]
fn a_file_without_an_authority_is_told_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("empty.pem");
    assert!(Https::new(Some(&path)).unwrap_err().to_string().contains("empty.pem"));
    std::fs::write(&path, "no certificate").unwrap();
    assert!(Https::new(Some(&path)).unwrap_err().to_string().contains("empty.pem holds no PEM certificate"));
}
