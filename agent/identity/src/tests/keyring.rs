//! Keys that change under way, and issuers that cannot be asked.

use std::{sync::Arc, time::Duration};

use tidegate_https::Https;
use tidegate_policy::Algorithm;

use super::{
    issuer::Stub,
    minted::{Signer, key_set},
};
use crate::{Defect, keyring::Keyring, shelf::Shelf};

const OFFLINE: Duration = Duration::from_secs(3600);

fn keyring(stub: &Stub) -> Arc<Keyring> {
    Arc::new(Keyring::new(stub.url.as_str().into(), Https::new(Some(&stub.ca)).unwrap(), None))
}

async fn keys(ring: &Arc<Keyring>, id: &str) -> Result<(), Defect> {
    ring.keys(Some(id), Algorithm::RS256, OFFLINE).await.map(drop)
}

/// Lets time pass without waiting for it; network traffic needs the clock to run.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn keys_are_fetched_once_for_many() {
    let signer = Signer::rsa("one");
    let stub = Stub::start(&[&signer]).await;
    let ring = keyring(&stub);
    let asking = (0..8).map(|_| {
        let ring = ring.clone();
        tokio::spawn(async move { keys(&ring, "one").await })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.unwrap().unwrap();
    }
    assert_eq!(stub.asked("/keys").len(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_but_the_issuer_is_not_asked_for_every_unknown_one() {
    let (one, two) = (Signer::rsa("one"), Signer::rsa("two"));
    let stub = Stub::start(&[&one]).await;
    let ring = keyring(&stub);
    keys(&ring, "one").await.unwrap();
    stub.publish(&[&one, &two]);
    for _ in 0..5 {
        assert_eq!(keys(&ring, "two").await.unwrap_err(), Defect::UnknownKey);
    }
    assert_eq!(stub.asked("/keys").len(), 1);
    pass(11).await;
    keys(&ring, "two").await.unwrap();
    for attempt in 0..5 {
        assert_eq!(keys(&ring, &format!("none-{attempt}")).await.unwrap_err(), Defect::UnknownKey);
    }
    assert_eq!(stub.asked("/keys").len(), 2);
}

#[tokio::test]
async fn a_key_that_was_withdrawn_does_not_count_any_more() {
    let (one, two) = (Signer::rsa("one"), Signer::rsa("two"));
    let stub = Stub::start(&[&one]).await;
    let ring = keyring(&stub);
    keys(&ring, "one").await.unwrap();
    stub.publish(&[&two]);
    pass(601).await;
    keys(&ring, "two").await.unwrap();
    assert_eq!(keys(&ring, "one").await.unwrap_err(), Defect::UnknownKey);
}

#[tokio::test]
async fn known_keys_go_on_while_the_issuer_is_down_and_only_so_long() {
    let signer = Signer::rsa("one");
    let stub = Stub::start(&[&signer]).await;
    let ring = keyring(&stub);
    keys(&ring, "one").await.unwrap();
    assert_eq!(ring.trouble(), None);
    stub.stop();
    pass(3_000).await;
    keys(&ring, "one").await.unwrap();
    pass(11).await;
    assert!(matches!(keys(&ring, "two").await.unwrap_err(), Defect::NoKeys(_)));
    let trouble = ring.trouble().unwrap();
    assert!(trouble.since > 0 && !trouble.why.is_empty(), "{trouble:?}");
    assert!(trouble.keys_age.is_some_and(|age| (3_000..3_100).contains(&age)), "{trouble:?}");
    pass(1_000).await;
    assert!(matches!(keys(&ring, "one").await.unwrap_err(), Defect::NoKeys(_)));
}

#[tokio::test]
async fn an_issuer_that_can_be_asked_again_is_in_no_trouble() {
    let signer = Signer::rsa("one");
    let stub = Stub::start(&[&signer]).await;
    stub.on("/keys", |_| (503, String::new()));
    let ring = keyring(&stub);
    assert!(keys(&ring, "one").await.is_err());
    let trouble = ring.trouble().unwrap();
    assert_eq!((trouble.why.as_str(), trouble.keys_age), ("it answered 503", None));
    assert!(
        Keyring::succeed(&ring, Https::new(Some(&stub.ca)).unwrap()).trouble().is_some(),
        "after a reload"
    );
    stub.publish(&[&signer]);
    pass(11).await;
    keys(&ring, "one").await.unwrap();
    assert_eq!(ring.trouble(), None);
}

#[tokio::test]
async fn an_issuer_in_trouble_is_asked_again_though_nobody_has_a_token_of_its() {
    let signer = Signer::rsa("one");
    let stub = Stub::start(&[&signer]).await;
    stub.on("/keys", |_| (503, String::new()));
    let ring = keyring(&stub);
    assert!(keys(&ring, "one").await.is_err());
    stub.publish(&[&signer]);
    ring.ask_again();
    tokio::task::yield_now().await;
    assert!(ring.trouble().is_some(), "at once");
    pass(61).await;
    ring.ask_again();
    while ring.trouble().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_issuer_whose_certificate_is_not_trusted_is_not_asked() {
    let signer = Signer::rsa("one");
    let (stub, other) = (Stub::start(&[&signer]).await, Stub::start(&[&signer]).await);
    let ring = Arc::new(Keyring::new(stub.url.as_str().into(), Https::new(Some(&other.ca)).unwrap(), None));
    assert!(matches!(keys(&ring, "one").await.unwrap_err(), Defect::NoKeys(_)));
    assert!(stub.asked("/keys").is_empty());
}

#[tokio::test]
async fn metadata_of_another_issuer_redirects_and_floods_are_refused() {
    let signer = Signer::rsa("one");
    let set = key_set(&[&signer]);
    let well_known = "/.well-known/openid-configuration";
    let cases: [(&str, u16, String); 5] = [
        (well_known, 200, r#"{"issuer":"https://evil.example","jwks_uri":"https://localhost/keys"}"#.into()),
        (well_known, 302, String::new()),
        ("/keys", 200, "x".repeat(300_000)),
        ("/keys", 500, set.clone()),
        ("/keys", 200, set.replace("keys", "sqq")),
    ];
    for (path, status, body) in cases {
        let stub = Stub::start(&[&signer]).await;
        stub.on(path, move |_| (status, body.clone()));
        let defect = keys(&keyring(&stub), "one").await.unwrap_err();
        assert!(matches!(defect, Defect::NoKeys(_)), "{path} {status}");
    }
}

#[tokio::test]
async fn keys_over_plain_http_are_never_fetched() {
    let signer = Signer::rsa("one");
    let stub = Stub::start(&[&signer]).await;
    let url = stub.url.clone();
    let metadata = format!(r#"{{"issuer":"{url}","jwks_uri":"{}/keys"}}"#, url.replace("https", "http"));
    stub.on("/.well-known/openid-configuration", move |_| (200, metadata.clone()));
    assert!(matches!(keys(&keyring(&stub), "one").await.unwrap_err(), Defect::NoKeys(_)));
}

#[tokio::test]
async fn keys_outlive_a_restart_while_the_issuer_cannot_be_asked() {
    let signer = Signer::rsa("one");
    let stub = Stub::start(&[&signer]).await;
    let directory = tempfile::tempdir().unwrap();
    let ring = || {
        let shelf = Shelf::open(directory.path()).unwrap();
        let https = Https::new(Some(&stub.ca)).unwrap();
        Arc::new(Keyring::new(stub.url.as_str().into(), https, Some(shelf)))
    };
    keys(&ring(), "one").await.unwrap();
    stub.stop();
    let after = ring();
    keys(&after, "one").await.unwrap();
    assert!(matches!(keys(&after, "two").await, Err(Defect::NoKeys(_))), "an unknown key counted");
    assert!(after.keys(Some("one"), Algorithm::RS256, Duration::ZERO).await.is_err(), "beyond `offline:`");
    // What somebody wrote there is read as what an issuer answers.
    for file in std::fs::read_dir(directory.path().join("keys")).unwrap() {
        std::fs::write(file.unwrap().path(), "{}").unwrap();
    }
    assert!(keys(&ring(), "one").await.is_err());
}
