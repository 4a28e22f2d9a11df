//! Sign-in to servers that say what the test has them say.

mod real;
mod server;

use std::{net::Ipv4Addr, path::Path};

use tidegate_gate::{
    Secret,
    policy::{Address, Host, Resource, UpstreamTls},
};
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::{options::Options, wire::fields::code};

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5432);

pub(super) fn resource(tls: UpstreamTls) -> Resource {
    Resource {
        name: "shop".into(),
        protocol: "postgres".into(),
        addresses: vec![Address { host: Host::Name("db.test".into()), port: Some(5432) }],
        sockets: Vec::new(),
        tls,
        credential: Some("shop".into()),
        identity: None,
        connect_timeout: std::time::Duration::from_secs(20),
        options: serde_json::Map::new(),
        folder: std::path::PathBuf::new(),
    }
}

fn settings(mode: TlsMode) -> UpstreamSettings {
    UpstreamSettings::new(
        &resource(UpstreamTls { mode: Some(mode), ..UpstreamTls::default() }),
        &Options::default(),
    )
    .unwrap()
}

/// What a resource's `options:` come to.
pub(super) fn options(name: &str, value: &str) -> Options {
    Options::read(&serde_json::Map::from_iter([(name.to_owned(), value.into())])).unwrap()
}

pub(super) fn password(password: &str) -> Credential {
    Credential { password: Some(Secret::new(password.into())), ..Credential::default() }
}

fn said(messages: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, body) in messages {
        write::raw(&mut out, *tag, body);
    }
    out
}

const OK: (u8, &[u8]) = (b'R', &[0, 0, 0, 0]);
const READY: (u8, &[u8]) = (b'Z', b"I");

/// What comes of a server that says all this, whatever it is asked; and what it was sent.
async fn signed_in(
    settings: &UpstreamSettings,
    credential: &Credential,
    script: &[u8],
) -> (Result<SignedIn<DuplexStream>, SignInError>, Vec<u8>) {
    let (client, mut server) = duplex(256 * 1024);
    server.write_all(script).await.unwrap();
    server.shutdown().await.unwrap();
    let parameters = [("user".to_owned(), "eve".to_owned()), ("database".to_owned(), "shop".to_owned())];
    let mut result =
        establish(client, async || None, ADDRESS, settings, credential, "gate", &parameters).await;
    if let Ok(signed_in) = &mut result {
        signed_in.io.shutdown().await.unwrap();
    }
    let mut sent = Vec::new();
    server.read_to_end(&mut sent).await.unwrap();
    (result, sent)
}

async fn plain(
    credential: &Credential,
    script: &[(u8, &[u8])],
) -> Result<SignedIn<DuplexStream>, SignInError> {
    signed_in(&settings(TlsMode::Disable), credential, &said(script)).await.0
}

#[tokio::test]
async fn what_the_server_says_of_itself_is_handed_on() {
    let script = said(&[
        (b'v', &[0, 3, 0, 0, 0, 0, 0, 0]),
        OK,
        (b'S', b"server_version\x0015.4\0"),
        (b'N', b"SNOTICE\0Mhello\0\0"),
        (b'K', &[0, 0, 0, 77, 1, 2, 3, 4]),
        READY,
        (b'S', b"x\0y\0"),
    ]);
    let asking = UpstreamSettings::new(
        &resource(UpstreamTls { mode: Some(TlsMode::Disable), ..UpstreamTls::default() }),
        &options("max-protocol-version", "3.2"),
    );
    let (result, sent) = signed_in(&asking.unwrap(), &Credential::default(), &script).await;
    let signed_in = result.unwrap();
    let mut expected = Vec::new();
    write::startup(&mut expected, 2, [("user", "gate"), ("database", "shop")]);
    assert_eq!(sent, expected, "the client's own user is not sent");
    assert_eq!(signed_in.parameters, [(b"server_version".to_vec(), b"15.4".to_vec())]);
    let key = signed_in.key.unwrap();
    assert_eq!((key.process_id, &*key.secret), (77, &[1, 2, 3, 4][..]));
    assert!(!format!("{key:?}").contains("secret"));
    assert_eq!(signed_in.status, TransactionStatus::Idle);
    assert_eq!(signed_in.notices[0].get(code::MESSAGE), Some(&b"hello"[..]));
    assert_eq!(signed_in.minor, 0);
    assert_eq!(signed_in.leftover, said(&[(b'S', b"x\0y\0")]));
}

#[tokio::test]
async fn a_session_that_begins_with_strings_read_otherwise_is_refused() {
    for setting in [&b"standard_conforming_strings\0off\0"[..], b"client_encoding\0SJIS\0"] {
        let refused = plain(&Credential::default(), &[OK, (b'S', setting), READY]).await;
        assert!(matches!(refused, Err(SignInError::Setting(_))), "{refused:?}");
    }
    let fine = [OK, (b'S', b"standard_conforming_strings\0on\0"), (b'S', b"client_encoding\0UTF8\0"), READY];
    assert!(plain(&Credential::default(), &fine).await.is_ok());
}

#[tokio::test]
async fn a_refused_session_is_told_in_the_servers_words_and_a_refused_credential_is_not() {
    let refused =
        plain(&Credential::default(), &[(b'E', b"SFATAL\0C3D000\0Mno such database\0\0")]).await.unwrap_err();
    assert!(matches!(refused, SignInError::Refused(_)));
    let resource = resource(UpstreamTls::default());
    let told = |error: &SignInError| error.for_client(&resource, "ask the harbour master");
    assert_eq!(told(&refused).get(code::MESSAGE), Some(&b"no such database"[..]));
    let rejected =
        plain(&Credential::default(), &[(b'E', b"SFATAL\0C28P01\0Mpassword of gate is wrong\0\0")])
            .await
            .unwrap_err();
    assert!(matches!(rejected, SignInError::Rejected(_)));
    let rejected = told(&rejected);
    assert_eq!(rejected.get(code::SQLSTATE), Some(&b"08004"[..]));
    assert_eq!(rejected.get(code::HINT), Some(&b"ask the harbour master"[..]));
    assert!(rejected.summary().contains("\"shop\""), "{}", rejected.summary());
    assert!(!rejected.summary().contains("password of gate"));
}

#[tokio::test]
async fn a_session_refused_after_authentication_is_an_error_too() {
    let error = plain(&Credential::default(), &[OK, (b'E', b"C53300\0Mtoo many\0\0")]).await.unwrap_err();
    assert!(matches!(error, SignInError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_password_is_not_sent_in_clear() {
    let script = said(&[(b'R', &[0, 0, 0, 3])]);
    let (result, sent) = signed_in(&settings(TlsMode::Disable), &password("hunter2"), &script).await;
    assert!(matches!(result, Err(SignInError::CleartextPassword)), "{result:?}");
    assert!(!sent.escape_ascii().to_string().contains("hunter2"));
}

#[tokio::test]
async fn md5_is_answered_for_the_user_signed_in_as() {
    let script = said(&[(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]), OK, READY]);
    let (result, sent) = signed_in(&settings(TlsMode::Disable), &password("hunter2"), &script).await;
    result.unwrap();
    let digest = postgres_protocol::authentication::md5_hash(b"gate", b"hunter2", [1, 2, 3, 4]);
    let mut answer = Vec::new();
    write::password(&mut answer, digest.as_bytes());
    assert!(sent.ends_with(&answer));
}

#[tokio::test]
async fn a_server_that_skips_its_own_proof_is_not_believed() {
    let sasl: (u8, &[u8]) = (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    for script in [
        &[sasl, OK, READY][..],
        &[sasl, sasl],
        &[sasl, (b'R', &[0, 0, 0, 3])],
        &[sasl, (b'R', &[0, 0, 0, 12])],
    ] {
        let error = plain(&password("hunter2"), script).await.unwrap_err();
        assert!(matches!(error, SignInError::Protocol(_)), "{error:?}");
    }
    let challenge: (u8, &[u8]) = (b'R', b"\0\0\0\x0br=another,s=c2FsdA==,i=4096");
    let error = plain(&password("hunter2"), &[sasl, challenge]).await.unwrap_err();
    assert!(matches!(error, SignInError::Scram(_)), "{error:?}");
}

#[tokio::test]
async fn channel_binding_offered_without_tls_is_not_believed() {
    let sasl: (u8, &[u8]) = (b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    let error = plain(&password("hunter2"), &[sasl]).await.unwrap_err();
    assert!(matches!(error, SignInError::Protocol(_)), "{error:?}");
}

#[tokio::test]
async fn what_is_not_spoken_is_named() {
    for (request, name) in [
        (&[0, 0, 0, 7][..], "GSSAPI"),
        (&[0, 0, 0, 9], "SSPI"),
        (&[0, 0, 0, 2], "Kerberos"),
        (b"\0\0\0\x0aOAUTHBEARER\0\0", "SASL mechanism"),
    ] {
        let error = plain(&password("hunter2"), &[(b'R', request)]).await.unwrap_err();
        assert!(matches!(error, SignInError::Unsupported(_)), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_credential_without_what_is_asked_for_is_named_unusable() {
    let md5: (u8, &[u8]) = (b'R', &[0, 0, 0, 5, 1, 2, 3, 4]);
    for credential in [Credential::default(), password(""), password("a\0b")] {
        let error = plain(&credential, &[md5]).await.unwrap_err();
        assert!(matches!(error, SignInError::Unusable(_)), "{error:?}");
    }
}

#[tokio::test]
async fn tls_is_asked_for_as_the_mode_says() {
    let hello = said(&[OK, READY]);
    let declined = [b"N", &hello[..]].concat();
    let (result, sent) = signed_in(&settings(TlsMode::Disable), &Credential::default(), &hello).await;
    assert!(result.is_ok() && sent[4..8] == [0, 3, 0, 0]);
    let (result, sent) = signed_in(&settings(TlsMode::Prefer), &Credential::default(), &declined).await;
    assert!(result.is_ok() && sent[..8] == [0, 0, 0, 8, 4, 210, 22, 47]);
    let (result, sent) = signed_in(&settings(TlsMode::Require), &Credential::default(), &declined).await;
    assert!(matches!(result, Err(SignInError::TlsNotOffered)), "{result:?}");
    assert_eq!(sent.len(), 8, "nothing is said in clear");
    let in_clear = said(&[(b'E', b"C28P01\0Mgive me your password\0\0")]);
    let (result, _) = signed_in(&settings(TlsMode::Prefer), &Credential::default(), &in_clear).await;
    assert!(matches!(result, Err(SignInError::Protocol(_))), "{result:?}");
}

/// What comes of a server that says this, and this if it is asked over another connection; and what it was sent over both.
async fn signed_in_otherwise(
    mode: TlsMode,
    scripts: [&[u8]; 2],
) -> (Result<SignedIn<DuplexStream>, SignInError>, [Vec<u8>; 2]) {
    let ((client, mut first), (again, mut second)) = (duplex(4096), duplex(4096));
    for (server, script) in [&mut first, &mut second].into_iter().zip(scripts) {
        server.write_all(script).await.unwrap();
        server.shutdown().await.unwrap();
    }
    let (settings, nobody) = (settings(mode), Credential::default());
    let signing_in = establish(client, async || Some(again), ADDRESS, &settings, &nobody, "gate", &[]);
    let mut result = signing_in.await;
    if let Ok(signed_in) = &mut result {
        signed_in.io.shutdown().await.unwrap();
    }
    let mut sent = [Vec::new(), Vec::new()];
    first.read_to_end(&mut sent[0]).await.unwrap();
    second.read_to_end(&mut sent[1]).await.unwrap();
    (result, sent)
}

const ASKS_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const VERSION: [u8; 4] = [0, 3, 0, 0];

#[tokio::test]
async fn allow_asks_for_tls_only_where_the_server_wants_it() {
    let (hello, refusal) = (said(&[OK, READY]), said(&[(b'E', b"SFATAL\0C28000\0Mno encryption\0\0")]));
    let (result, sent) = signed_in_otherwise(TlsMode::Allow, [&hello, b""]).await;
    assert!(result.is_ok() && sent[0][4..8] == VERSION && sent[1].is_empty());
    let (result, sent) = signed_in_otherwise(TlsMode::Allow, [&refusal, b"N"]).await;
    assert!(matches!(result, Err(SignInError::Rejected(_))), "{result:?}");
    assert!(sent[0][4..8] == VERSION && sent[1] == ASKS_FOR_TLS);
    // Once it is in, how it came in is of no matter any more.
    let late = said(&[OK, (b'E', b"SFATAL\0C57P03\0Mstarting up\0\0")]);
    let (result, sent) = signed_in_otherwise(TlsMode::Allow, [&late, b""]).await;
    assert!(matches!(result, Err(SignInError::Refused(_))) && sent[1].is_empty(), "{result:?}");
}

#[tokio::test]
async fn prefer_does_without_tls_where_that_fails() {
    let hello = said(&[OK, READY]);
    let (result, sent) = signed_in_otherwise(TlsMode::Prefer, [b"Sno TLS after all", &hello]).await;
    assert!(result.is_ok() && sent[0][..8] == ASKS_FOR_TLS && sent[1][4..8] == VERSION);
    for mode in [TlsMode::Require, TlsMode::VerifyFull] {
        let (result, sent) = signed_in_otherwise(mode, [b"Sno TLS after all", &hello]).await;
        assert!(matches!(result, Err(SignInError::Tls(_))) && sent[1].is_empty(), "{mode:?}: {result:?}");
    }
    // It was in clear already.
    let refused = [b"N", &said(&[(b'E', b"SFATAL\0C28P01\0Mwho?\0\0")])[..]].concat();
    let (result, sent) = signed_in_otherwise(TlsMode::Prefer, [&refused, &hello]).await;
    assert!(matches!(result, Err(SignInError::Rejected(_))) && sent[1].is_empty(), "{result:?}");
}

#[tokio::test]
async fn garbage_endless_and_early_ends_are_errors() {
    let endless = vec![(b'N', &b"SNOTICE\0Mhello\0\0"[..]); 80_000];
    let large = vec![b'x'; MAX_MESSAGE_BYTES + 1];
    let (client, mut server) = duplex(1024);
    let script = said(&endless);
    let disabled = settings(TlsMode::Disable);
    let nobody = Credential::default();
    let (result, _) = tokio::join!(
        establish(client, async || None, ADDRESS, &disabled, &nobody, "gate", &[]),
        async move { server.write_all(&script).await }
    );
    assert!(matches!(result, Err(SignInError::Protocol(_))), "{result:?}");
    for script in [
        &[OK, (b'D', b"\0\0")][..],
        &[(b'T', b"")],
        &[(b'N', &large)],
        &[OK, (b'v', &[0, 3, 0, 0, 0, 0, 0, 0])],
    ] {
        let error = plain(&Credential::default(), script).await.unwrap_err();
        assert!(matches!(error, SignInError::Protocol(_)), "{error:?}");
    }
    assert!(matches!(plain(&nobody, &[(b'R', &[0])]).await, Err(SignInError::Wire(_))));
    assert!(matches!(plain(&nobody, &[OK]).await, Err(SignInError::Closed)));
}

#[tokio::test]
async fn a_version_that_was_not_asked_for_is_refused() {
    for newest in [[0, 3, 0, 2], [0, 2, 0, 0], [0, 0, 0, 9]] {
        let body = [&newest[..], &[0; 4]].concat();
        let error = plain(&Credential::default(), &[(b'v', &body)]).await.unwrap_err();
        assert!(matches!(error, SignInError::Protocol(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let mut resource = resource(UpstreamTls { mode: Some(TlsMode::Disable), ..UpstreamTls::default() });
    resource.connect_timeout = std::time::Duration::ZERO;
    let settings = UpstreamSettings::new(&resource, &Options::default()).unwrap();
    let (client, _server) = duplex(1024);
    let nobody = Credential::default();
    let result =
        settings.timed(establish(client, async || None, ADDRESS, &settings, &nobody, "gate", &[])).await;
    assert!(matches!(result, Err(SignInError::TimeLimit(_))), "{result:?}");
}

#[tokio::test]
async fn a_user_name_cannot_carry_parameters() {
    let (client, _server) = duplex(1024);
    let nobody = Credential::default();
    let disabled = settings(TlsMode::Disable);
    let result =
        establish(client, async || None, ADDRESS, &disabled, &nobody, "gate\0database\0postgres", &[]).await;
    assert!(matches!(result, Err(SignInError::Unusable(_))), "{result:?}");
}

#[test]
fn an_authority_that_cannot_be_read_is_named() {
    let ca = |path: &Path| {
        let tls =
            UpstreamTls { mode: Some(TlsMode::VerifyFull), ca: Some(path.to_owned()), server_name: None };
        UpstreamSettings::new(&resource(tls), &Options::default()).unwrap_err().message
    };
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.pem");
    assert!(ca(&missing).contains("missing.pem"));
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    assert!(ca(&empty).contains("empty.pem"));
    let broken = folder.path().join("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(ca(&broken).contains("broken.pem"));
}

#[test]
fn an_authority_that_would_never_be_looked_at_is_an_error() {
    for mode in [TlsMode::Disable, TlsMode::Allow, TlsMode::Prefer] {
        let tls = UpstreamTls { mode: Some(mode), ca: Some("ca.pem".into()), server_name: None };
        assert!(
            UpstreamSettings::new(&resource(tls), &Options::default())
                .unwrap_err()
                .message
                .contains("tls.ca")
        );
    }
}

#[test]
fn the_name_to_verify_is_never_guessed() {
    let mut several = resource(UpstreamTls { mode: Some(TlsMode::Require), ..UpstreamTls::default() });
    assert_eq!(
        UpstreamSettings::new(&several, &Options::default())
            .unwrap()
            .server_name()
            .map(ServerName::to_str)
            .as_deref(),
        Some("db.test")
    );
    several.addresses.push(Address { host: Host::Name("db2.test".into()), port: None });
    assert_eq!(UpstreamSettings::new(&several, &Options::default()).unwrap().server_name(), None);
    several.tls.mode = Some(TlsMode::VerifyFull);
    assert!(
        UpstreamSettings::new(&several, &Options::default()).unwrap_err().message.contains("tls.server_name")
    );
    several.tls.server_name = Some("not a name".into());
    assert!(UpstreamSettings::new(&several, &Options::default()).unwrap_err().message.contains("not a name"));
}

#[test]
fn channel_binding_is_required_only_where_there_is_tls() {
    let required = options("channel-binding", "require");
    for (mode, works) in [(TlsMode::Disable, false), (TlsMode::Prefer, false), (TlsMode::Require, true)] {
        let tls = UpstreamTls { mode: Some(mode), ..UpstreamTls::default() };
        let settings = UpstreamSettings::new(&resource(tls), &required);
        assert_eq!(settings.is_ok(), works, "{mode:?}");
    }
}

#[test]
fn half_a_client_certificate_is_unusable() {
    let settings = settings(TlsMode::Require);
    let issued = rcgen::generate_simple_self_signed(["gate".to_owned()]).unwrap();
    let certificate: Arc<[u8]> = issued.cert.pem().into_bytes().into();
    let key = Secret::new(issued.signing_key.serialize_pem().into_bytes());
    let both = Credential {
        certificate: Some(certificate.clone()),
        key: Some(key.clone()),
        ..Credential::default()
    };
    assert!(settings.client_config(&both).is_ok());
    let foreign = rcgen::KeyPair::generate().unwrap().serialize_pem().into_bytes();
    for half in [
        Credential { certificate: Some(certificate.clone()), ..Credential::default() },
        Credential { key: Some(key.clone()), ..Credential::default() },
        Credential { key: Some(Secret::new(foreign)), ..both.clone() },
        Credential { certificate: Some(b"nothing"[..].into()), ..both.clone() },
        Credential { key: Some(Secret::new(b"nothing".to_vec())), ..both.clone() },
    ] {
        assert!(matches!(settings.client_config(&half), Err(SignInError::Unusable(_))));
    }
}
