//! Start-up over connections in memory.

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::io::{DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::wire::{HEADER_BYTES, backend, fields::code};

const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 48];

/// A certificate for `db.test`, and a client that trusts it.
fn tls() -> (Arc<ServerConfig>, ClientConfig) {
    let issued = rcgen::generate_simple_self_signed(["db.test".to_owned()]).unwrap();
    let leaf = issued.cert.der().clone();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(leaf.clone()).unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), client)
}

async fn handshake(
    stream: DuplexStream,
    mut config: ClientConfig,
    alpn: &[&[u8]],
) -> std::io::Result<client::TlsStream<DuplexStream>> {
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("db.test").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn start_message(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    write::startup(&mut out, minor, parameters.iter().copied());
    out
}

/// What comes of a client that sends these bytes in clear and then waits, and what it is told.
async fn outcome(sent: &[u8]) -> (Result<Accepted<DuplexStream>, StartupError>, Vec<u8>) {
    let (mut client, server) = duplex(64 * 1024);
    client.write_all(sent).await.unwrap();
    client.shutdown().await.unwrap();
    let result = open(server, tls().0).await;
    let mut told = Vec::new();
    match result {
        Ok(Accepted::Start(Start { io, parameters, version })) => {
            drop(io);
            client.read_to_end(&mut told).await.unwrap();
            let (_, io) = duplex(1);
            (Ok(Accepted::Start(Start { io: MaybeTls::Plain(io), parameters, version })), told)
        }
        other => {
            client.read_to_end(&mut told).await.unwrap();
            (other, told)
        }
    }
}

async fn started(sent: &[u8]) -> (Start<DuplexStream>, Vec<u8>) {
    match outcome(sent).await {
        (Ok(Accepted::Start(start)), told) => (start, told),
        (other, _) => panic!("{other:?}"),
    }
}

/// The SQLSTATE and message that a client was told, and that it was the end.
async fn refusal(sent: &[u8]) -> (String, String) {
    let (result, told) = outcome(sent).await;
    assert!(result.is_err(), "{result:?}");
    let error = &told[told.iter().position(|&byte| byte == b'E').unwrap()..];
    assert_eq!(error[0], backend::tag::ERROR_RESPONSE);
    let fields = ErrorFields::parse(&error[HEADER_BYTES..]).unwrap();
    let field = |code| String::from_utf8(fields.get(code).unwrap().to_vec()).unwrap();
    assert_eq!(field(code::SEVERITY), "FATAL");
    (field(code::SQLSTATE), field(code::MESSAGE))
}

#[tokio::test]
async fn a_plain_start_gives_its_parameters_and_is_not_answered_yet() {
    let (start, told) = started(&start_message(0, &[("user", "bob"), ("database", "shop")])).await;
    assert_eq!(last(&start.parameters, "user"), Some("bob"));
    assert_eq!(last(&start.parameters, "database"), Some("shop"));
    assert_eq!(last(&start.parameters, "options"), None);
    assert!(told.is_empty());
}

#[tokio::test]
async fn the_last_of_two_values_counts() {
    let (start, _) = started(&start_message(0, &[("user", "bob"), ("user", "eve")])).await;
    assert_eq!(last(&start.parameters, "user"), Some("eve"));
}

#[tokio::test]
async fn bytes_after_the_start_are_left_on_the_connection() {
    let (mut client, server) = duplex(1024);
    client.write_all(&start_message(0, &[("user", "bob")])).await.unwrap();
    client.write_all(b"pipelined").await.unwrap();
    let Ok(Accepted::Start(mut start)) = open(server, tls().0).await else { panic!("no start") };
    let mut rest = [0; 9];
    start.io.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"pipelined");
}

#[tokio::test]
async fn a_start_in_single_bytes_is_understood() {
    let (mut client, server) = duplex(1);
    let message = start_message(0, &[("user", "bob")]);
    let (accepted, ()) = tokio::join!(open(server, tls().0), async {
        for byte in &message {
            client.write_all(&[*byte]).await.unwrap();
        }
    });
    assert!(matches!(accepted, Ok(Accepted::Start(_))), "{accepted:?}");
}

#[tokio::test]
async fn versions_are_negotiated_as_the_server_does() {
    for (asked, spoken, answer) in
        [(0, 0, None), (1, 1, None), (2, 2, None), (3, 2, Some([0, 3, 0, 2])), (9999, 2, Some([0, 3, 0, 2]))]
    {
        let (start, _) = started(&start_message(asked, &[("user", "bob")])).await;
        assert_eq!(start.version.minor(), spoken);
        assert_eq!(start.version.has_long_secrets(), spoken == 2);
        let mut out = Vec::new();
        start.version.negotiate(&mut out);
        assert_eq!(out.get(HEADER_BYTES..HEADER_BYTES + 4), answer.as_ref().map(|version| &version[..]));
    }
}

#[tokio::test]
async fn protocol_options_are_said_to_be_unknown_and_are_no_parameters() {
    let (start, _) = started(&start_message(0, &[("user", "bob"), ("_pq_.magic", "on")])).await;
    assert_eq!(start.parameters, [("user".to_owned(), "bob".to_owned())]);
    let mut out = Vec::new();
    start.version.negotiate(&mut out);
    let answer = backend::NegotiateProtocolVersion::parse(&out[HEADER_BYTES..]).unwrap();
    assert_eq!((answer.newest, answer.unknown_options.len()), (3 << 16, 1));
    assert_eq!(answer.unknown_options[0].to_str(), Ok("_pq_.magic"));
}

#[tokio::test]
async fn other_major_versions_are_refused_in_the_servers_words() {
    let version_2 = [&[0, 0, 0, 72, 0, 2, 0, 0][..], &[0; 64]].concat();
    let (sqlstate, message) = refusal(&version_2).await;
    assert_eq!(sqlstate, "0A000");
    assert_eq!(message, "unsupported frontend protocol 2.0: server supports 3.0 to 3.2");
}

#[tokio::test]
async fn a_start_without_a_user_is_refused() {
    for parameters in [&[("database", "shop")][..], &[("user", "")]] {
        let (sqlstate, message) = refusal(&start_message(0, parameters)).await;
        assert_eq!(sqlstate, "28000");
        assert_eq!(message, "no PostgreSQL user name specified in startup packet");
    }
}

#[tokio::test]
async fn names_that_the_server_would_cut_are_refused() {
    let long = "x".repeat(64);
    let (sqlstate, _) = refusal(&start_message(0, &[("user", "bob"), ("database", &long)])).await;
    assert_eq!(sqlstate, "42622");
    let (start, _) = started(&start_message(0, &[("user", "bob"), ("database", &long[1..])])).await;
    assert_eq!(last(&start.parameters, "database").map(str::len), Some(63));
}

#[tokio::test]
async fn a_packet_that_cannot_be_read_is_refused() {
    let (sqlstate, _) = refusal(&[&[0, 0, 0, 14, 0, 3, 0, 0][..], b"user\0b"].concat()).await;
    assert_eq!(sqlstate, "08P01");
    let (sqlstate, _) = refusal(&[&[0, 0, 0, 16, 0, 3, 0, 0][..], b"user\0\xff\0\0"].concat()).await;
    assert_eq!(sqlstate, "22021");
}

#[tokio::test]
async fn an_impossible_length_ends_the_connection_without_a_word() {
    let (result, told) = outcome(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(matches!(result, Err(StartupError::Wire(WireError::StartupLength(_)))), "{result:?}");
    assert!(told.is_empty());
}

#[tokio::test]
async fn a_probe_is_told_apart_from_a_client_that_went_away() {
    assert!(matches!(outcome(b"").await.0, Err(StartupError::Probe)));
    let message = start_message(0, &[("user", "bob")]);
    for end in 1..message.len() {
        assert!(matches!(outcome(&message[..end]).await.0, Err(StartupError::Gone)), "cut at {end}");
    }
}

#[tokio::test]
async fn a_cancel_request_gives_its_secret_and_is_not_answered() {
    let mut request = Vec::new();
    write::cancel_request(&mut request, 77, &[5; 32]);
    let (result, told) = outcome(&request).await;
    let Ok(Accepted::Cancel { process_id, secret }) = result else { panic!("{result:?}") };
    assert_eq!((process_id, secret), (77, vec![5; 32]));
    assert!(told.is_empty());
}

#[tokio::test]
async fn gss_encryption_is_declined_once() {
    let message = start_message(0, &[("user", "bob")]);
    let (_, told) = started(&[GSS_REQUEST, &message].concat()).await;
    assert_eq!(told, b"N");
    let (sqlstate, message) = refusal(&[GSS_REQUEST, GSS_REQUEST].concat()).await;
    assert_eq!(sqlstate, "0A000");
    assert!(message.contains("1234.5680"), "{message}");
}

#[tokio::test]
async fn a_silent_client_is_given_up() {
    let (_client, server) = duplex(64);
    let result = within(Duration::ZERO, server, tls().0).await;
    assert!(matches!(result, Err(StartupError::TimeLimit)), "{result:?}");
}

type Inside = client::TlsStream<DuplexStream>;

/// A client that asks for TLS (or doesn't ask) and then sends this inside of it.
async fn inside_tls(
    request: &[u8],
    alpn: &[&[u8]],
    sent: &[u8],
) -> (Result<Accepted<DuplexStream>, StartupError>, std::io::Result<Inside>) {
    let (server_config, client_config) = tls();
    let (mut client, server) = duplex(64 * 1024);
    tokio::join!(open(server, server_config), async {
        if !request.is_empty() {
            client.write_all(request).await?;
            assert_eq!(client.read_u8().await?, b'S');
        }
        let mut stream = handshake(client, client_config, alpn).await?;
        stream.write_all(sent).await?;
        stream.flush().await?;
        Ok(stream)
    })
}

#[tokio::test]
async fn tls_is_spoken_when_asked_for() {
    let message = start_message(0, &[("user", "bob")]);
    for alpn in [&[][..], &[tls::ALPN]] {
        let (accepted, _client) = inside_tls(SSL_REQUEST, alpn, &message).await;
        let Ok(Accepted::Start(start)) = accepted else { panic!("{accepted:?}") };
        assert!(start.io.is_tls());
        assert_eq!(last(&start.parameters, "user"), Some("bob"));
    }
}

#[tokio::test]
async fn tls_at_once_must_name_the_protocol() {
    let message = start_message(0, &[("user", "bob")]);
    let (accepted, _client) = inside_tls(&[], &[tls::ALPN], &message).await;
    assert!(matches!(&accepted, Ok(Accepted::Start(start)) if start.io.is_tls()), "{accepted:?}");
    let (accepted, _client) = inside_tls(&[], &[], &message).await;
    assert!(matches!(accepted, Err(StartupError::NoAlpn)), "{accepted:?}");
    let (accepted, _client) = inside_tls(&[], &[b"http/1.1"], &message).await;
    assert!(matches!(accepted, Err(StartupError::Tls(_))), "{accepted:?}");
}

#[tokio::test]
async fn tls_may_be_asked_for_inside_tls_at_once_and_is_declined() {
    let message = [SSL_REQUEST, GSS_REQUEST, &start_message(0, &[("user", "bob")])].concat();
    let (accepted, client) = inside_tls(&[], &[tls::ALPN], &message).await;
    assert!(matches!(&accepted, Ok(Accepted::Start(_))), "{accepted:?}");
    let mut told = [0; 2];
    client.unwrap().read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"NN");
}

#[tokio::test]
async fn encryption_may_not_be_asked_for_inside_tls_that_was_asked_for() {
    for (request, version) in [(SSL_REQUEST, "1234.5679"), (GSS_REQUEST, "1234.5680")] {
        let (accepted, client) = inside_tls(SSL_REQUEST, &[], request).await;
        assert!(matches!(accepted, Err(StartupError::Version { major: 1234, .. })), "{accepted:?}");
        let mut told = Vec::new();
        client.unwrap().read_to_end(&mut told).await.unwrap();
        assert!(told.escape_ascii().to_string().contains(version), "{}", told.escape_ascii());
    }
}

#[tokio::test]
async fn a_cancel_request_may_come_inside_tls() {
    let mut request = Vec::new();
    write::cancel_request(&mut request, 77, &[5; 4]);
    let (accepted, _client) = inside_tls(SSL_REQUEST, &[], &request).await;
    assert!(matches!(accepted, Ok(Accepted::Cancel { process_id: 77, .. })), "{accepted:?}");
}

/// CVE-2021-23214.
#[tokio::test]
async fn what_is_sent_in_clear_after_asking_for_tls_never_becomes_a_session() {
    let (server_config, _) = tls();
    let (mut client, server) = duplex(64 * 1024);
    let injected = start_message(0, &[("user", "eve")]);
    client.write_all(&[SSL_REQUEST, &injected].concat()).await.unwrap();
    let accepted = open(server, server_config).await;
    assert!(matches!(accepted, Err(StartupError::Tls(_))), "{accepted:?}");
}
