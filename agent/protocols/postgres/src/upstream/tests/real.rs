//! Sign-in to a real PostgreSQL.

use std::path::Path;

use super::{super::*, options, password, resource, server::Server};
use crate::{
    options::Options,
    wire::{backend::tag, fields::code},
};
use tidegate_gate::{Secret, policy::UpstreamTls};

fn settings(mode: TlsMode, ca: Option<&Path>, name: &str) -> UpstreamSettings {
    let tls = UpstreamTls { mode: Some(mode), ca: ca.map(Path::to_owned), server_name: Some(name.into()) };
    UpstreamSettings::new(&resource(tls), &Options::default()).unwrap()
}

fn in_clear() -> UpstreamSettings {
    settings(TlsMode::Disable, None, "db.test")
}

fn verified(server: &Server) -> UpstreamSettings {
    settings(TlsMode::VerifyFull, Some(&server.authority), "db.test")
}

async fn attempt(
    server: &Server,
    settings: &UpstreamSettings,
    user: &str,
    credential: &Credential,
) -> Result<SignedIn, SignInError> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let database = ("database".to_owned(), "postgres".to_owned());
    let again = async || TcpStream::connect(server.address).await.ok();
    sign_in(stream, again, settings, credential, user, &[database]).await
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn allow_and_prefer_try_the_other_way_as_libpqs_do() {
    let server = Server::shared();
    for (mode, user, tls) in [
        (TlsMode::Allow, "trusted_user", Some(false)),
        (TlsMode::Allow, "tls_user", Some(true)),
        (TlsMode::Allow, "bare_user", Some(false)),
        (TlsMode::Prefer, "trusted_user", Some(true)),
        (TlsMode::Prefer, "tls_user", Some(true)),
        (TlsMode::Prefer, "bare_user", Some(false)),
        (TlsMode::Disable, "tls_user", None),
        (TlsMode::Require, "bare_user", None),
    ] {
        let result = attempt(&server, &settings(mode, None, "db.test"), user, &Credential::default()).await;
        match (result, tls) {
            (Ok(signed_in), Some(tls)) => assert_eq!(signed_in.io.is_tls(), tls, "{mode:?} {user}"),
            (Err(SignInError::Rejected(_)), None) => {}
            (other, _) => panic!("{mode:?} {user}: {other:?}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn passwords_are_accepted_inside_tls_by_every_method() {
    let server = Server::shared();
    for user in ["scram_user", "md5_user", "clear_user"] {
        let signed_in = attempt(&server, &verified(&server), user, &password("right")).await.unwrap();
        assert!(signed_in.io.is_tls(), "{user}");
        assert_eq!(signed_in.status, TransactionStatus::Idle);
        assert!(signed_in.parameters.iter().any(|(name, _)| name == b"server_version"));
        assert!(signed_in.key.is_some());
        assert!(signed_in.leftover.is_empty());
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn passwords_are_accepted_in_clear_where_they_are_not_shown() {
    let server = Server::shared();
    for user in ["scram_user", "md5_user"] {
        let signed_in = attempt(&server, &in_clear(), user, &password("right")).await.unwrap();
        assert!(!signed_in.io.is_tls(), "{user}");
    }
    let refused = attempt(&server, &in_clear(), "clear_user", &password("right")).await;
    assert!(matches!(refused, Err(SignInError::CleartextPassword)), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn where_channel_binding_is_required_nothing_but_scram_bound_to_the_connection_signs_in() {
    let server = Server::shared();
    let tls = UpstreamTls {
        mode: Some(TlsMode::VerifyFull),
        ca: Some(server.authority.clone()),
        server_name: Some("db.test".into()),
    };
    let settings = UpstreamSettings::new(&resource(tls), &options("channel-binding", "require")).unwrap();
    attempt(&server, &settings, "scram_user", &password("right")).await.unwrap();
    for user in ["md5_user", "clear_user", "trusted_user"] {
        let refused = attempt(&server, &settings, user, &password("right")).await;
        assert!(matches!(refused, Err(SignInError::NotBound)), "{user}: {refused:?}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn a_wrong_password_is_the_credentials_fault() {
    let server = Server::shared();
    for user in ["scram_user", "md5_user", "clear_user"] {
        let error = attempt(&server, &verified(&server), user, &password("wrong")).await.unwrap_err();
        assert!(matches!(error, SignInError::Rejected(_)), "{user}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("wrong"), "{user}: {error:?}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn a_missing_database_is_the_servers_own_error() {
    let server = Server::shared();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let database = ("database".to_owned(), "missing".to_owned());
    let result =
        sign_in(stream, async || None, &verified(&server), &password("right"), "scram_user", &[database])
            .await;
    let Err(SignInError::Refused(fields)) = result else { panic!("{result:?}") };
    assert_eq!(fields.get(code::SQLSTATE), Some(&b"3D000"[..]));
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn no_password_is_needed_where_none_is_asked() {
    let server = Server::shared();
    attempt(&server, &in_clear(), "trusted_user", &Credential::default()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn a_client_certificate_signs_in() {
    let server = Server::shared();
    let (certificate, key) = &server.client;
    let credential = Credential {
        certificate: Some(certificate.as_bytes().into()),
        key: Some(Secret::new(key.as_bytes().to_vec())),
        ..Credential::default()
    };
    attempt(&server, &verified(&server), "cert_user", &credential).await.unwrap();
    let without = attempt(&server, &verified(&server), "cert_user", &Credential::default()).await;
    assert!(matches!(without, Err(SignInError::Rejected(_))), "{without:?}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn each_mode_asks_of_the_certificate_what_libpqs_does() {
    let server = Server::shared();
    let foreign = tempfile::NamedTempFile::new().unwrap();
    let other = rcgen::generate_simple_self_signed(["db.test".to_owned()]).unwrap();
    std::fs::write(foreign.path(), other.cert.pem()).unwrap();
    let (ours, foreign) = (Some(&*server.authority), Some(foreign.path()));
    for (mode, ca, name, accepted) in [
        (TlsMode::Prefer, None, "other.test", true),
        (TlsMode::Require, None, "other.test", true),
        (TlsMode::Require, foreign, "db.test", false),
        (TlsMode::VerifyCa, ours, "other.test", true),
        (TlsMode::VerifyCa, foreign, "db.test", false),
        (TlsMode::VerifyFull, ours, "db.test", true),
        (TlsMode::VerifyFull, ours, "other.test", false),
        (TlsMode::VerifyFull, foreign, "db.test", false),
    ] {
        let result = attempt(&server, &settings(mode, ca, name), "scram_user", &password("right")).await;
        match result {
            Ok(signed_in) => assert!(accepted && signed_in.io.is_tls(), "{mode:?} {name}"),
            Err(SignInError::Tls(_)) => assert!(!accepted, "{mode:?} {name}"),
            Err(other) => panic!("{mode:?} {name}: {other}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn a_server_of_before_3_2_settles_on_3_0() {
    let server = Server::shared();
    let tls = UpstreamTls { mode: Some(TlsMode::Disable), ..UpstreamTls::default() };
    let settings = UpstreamSettings::new(&resource(tls), &options("max-protocol-version", "3.2")).unwrap();
    let signed_in = attempt(&server, &settings, "trusted_user", &Credential::default()).await.unwrap();
    let version = signed_in.parameters.iter().find(|(name, _)| name == b"server_version").unwrap();
    let major: u32 = String::from_utf8_lossy(&version.1).split('.').next().unwrap().parse().unwrap();
    assert_eq!(signed_in.minor, if major >= 18 { 2 } else { 0 });
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn tls_from_the_first_byte_is_for_servers_from_17_on() {
    let server = Server::shared();
    let direct = |mode, ca: Option<&Path>| {
        let server_name = ca.map(|_| "db.test".into());
        let tls = UpstreamTls { mode: Some(mode), ca: ca.map(Path::to_owned), server_name };
        UpstreamSettings::new(&resource(tls), &options("ssl-negotiation", "direct"))
    };
    assert!(direct(TlsMode::Prefer, None).unwrap_err().message.contains("needs TLS"));
    let version =
        attempt(&server, &in_clear(), "trusted_user", &Credential::default()).await.unwrap().parameters;
    let version = version.iter().find(|(name, _)| name == b"server_version").unwrap();
    let major: u32 = String::from_utf8_lossy(&version.1).split('.').next().unwrap().parse().unwrap();
    let signed_in = attempt(
        &server,
        &direct(TlsMode::VerifyFull, Some(&server.authority)).unwrap(),
        "scram_user",
        &password("right"),
    )
    .await;
    match signed_in {
        Ok(signed_in) => assert!(major >= 17 && signed_in.io.is_tls(), "{major}"),
        Err(error) => assert!(major < 17, "{major}: {error}"),
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn a_cancel_request_ends_what_runs() {
    let server = Server::shared();
    for settings in [in_clear(), verified(&server)] {
        let session = attempt(&server, &settings, "scram_user", &password("right")).await.unwrap();
        let key = session.key.clone().unwrap();
        let mut query = Vec::new();
        write::query(&mut query, b"select pg_sleep(600)");
        let mut session = Conversation { io: session.io, buffer: BytesMut::new(), received: 0 };
        session.send(&query).await.unwrap();
        // A request that comes before the statement runs cancels nothing: ask until it is heeded.
        let fields = loop {
            tokio::select! {
                message = session.next() => match message.unwrap() {
                    (tag::ERROR_RESPONSE, body) => break ErrorFields::parse(&body).unwrap().into_owned(),
                    _ => continue,
                },
                asked = async {
                    let stream = TcpStream::connect(server.address).await.unwrap();
                    cancel(stream, async || None, &settings, key.process_id, &key.secret).await
                } => asked.unwrap(),
            }
        };
        assert_eq!(fields.get(code::SQLSTATE), Some(&b"57014"[..]));
    }
}
