//! People who log in by browser, and answers that are another's.

use serde_json::{Value, json};
use tidegate_gate::Secret;
use tidegate_policy::Identity;
use url::Url;

use super::{
    bindings::World,
    minted::{CLIENT, claims},
};
use crate::{Application, Defect, Terms, Tie, registry::now};

const TIE: Tie<'static> = Tie { state: "state-1", nonce: "nonce-1", verifier: "verifier-1" };
/// BASE64URL(SHA256("verifier-1")), RFC 7636, section 4.2.
const CHALLENGE: &str = "xTYRBLTDt1gS3-rw_3FBVafZ0iNg9bZYBbG8fRPvkEs";

fn application() -> Application {
    Application {
        issuer: "ci".into(),
        client: CLIENT.into(),
        secret: Some(Secret::new(b"secret-1".to_vec())),
        scopes: vec!["groups".into()],
        redirect: Url::parse("https://gate.example/callback").unwrap(),
    }
}

/// The claims of a login that went well.
fn sound(world: &World) -> Value {
    let mut claims = claims(&world.issuer, "alice");
    claims["aud"] = json!(CLIENT);
    claims["nonce"] = json!(TIE.nonce);
    claims
}

/// Who comes back, if the issuer then says this; `issuer` is whose answer it is said to be.
async fn redeem(world: &World, claims: &Value, issuer: Option<&str>) -> Result<(Identity, Terms), Defect> {
    let answer = json!({"id_token": world.signer.sign(claims)}).to_string();
    world.stub.on("/token", move |_| (200, answer.clone()));
    world.registry.redeem_code(&application(), "code-1", issuer, TIE).await
}

/// Adds to what the issuer publishes of itself.
fn publish(world: &World, more: &Value) {
    let url = &world.stub.url;
    let mut metadata = json!({
        "issuer": url, "jwks_uri": format!("{url}/keys"), "token_endpoint": format!("{url}/token"),
        "authorization_endpoint": format!("{url}/authorize"),
        "device_authorization_endpoint": format!("{url}/device"),
    });
    metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.stub.on("/.well-known/openid-configuration", move |_| (200, metadata.to_string()));
}

#[tokio::test]
async fn who_comes_back_with_the_code_of_this_login_is_known_as_long_as_the_bundle_has_the_issuer() {
    let world = World::new().await;
    let (identity, terms) = redeem(&world, &sound(&world), Some(&world.stub.url)).await.unwrap();
    assert_eq!(&*identity.subject, "alice");
    assert!(world.registry.stands(&terms));
    let asked = world.stub.asked("/token").remove(0);
    for part in [
        "grant_type=authorization_code",
        "code=code-1",
        "code_verifier=verifier-1",
        "client_secret=secret-1",
        "redirect_uri=https%3A%2F%2Fgate.example%2Fcallback",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    world.registry.adopt(world.registry.prepare(&[]).unwrap());
    assert!(!world.registry.stands(&terms));
}

/// A client that is for nothing but the page.
const PAGE: &str = "page-client";

/// Whose token of these claims is borne, where the issuer's must have `amr`.
async fn borne(world: &World, claims: &Value) -> Result<Identity, Defect> {
    let (token, require) = (world.signer.sign(claims), [("amr".to_owned(), "*".to_owned())].into());
    let page = Application { client: PAGE.into(), ..application() };
    world.registry.borne(&page, &token, &require).await.map(|(identity, _)| identity)
}

#[tokio::test]
async fn a_token_that_is_borne_counts_if_it_was_given_lately_for_this_and_nothing_else() {
    let world = World::new().await;
    let mut sound = sound(&world);
    (sound["aud"], sound["amr"]) = (json!(PAGE), json!(["pwd"]));
    assert_eq!(&*borne(&world, &sound).await.unwrap().subject, "alice");
    let with = |name: &str, value: Value| {
        let mut claims = sound.clone();
        claims[name] = value;
        claims
    };
    for (claims, refused) in [
        (with("aud", json!("another")), Defect::Audience(PAGE.into())),
        (with("iat", json!(now() - 1_860)), Defect::Claim("iat", "within the last half hour")),
        (with("iss", json!("https://evil.example")), Defect::Issuer(world.stub.url.clone())),
        (with("azp", json!("a-job")), Defect::Claim("azp", "this client")),
        (with("amr", json!(null)), Defect::Required("amr".into())),
    ] {
        assert_eq!(borne(&world, &claims).await.unwrap_err(), refused);
    }
    let forged = format!("{}x", world.signer.sign(&sound));
    let page = Application { client: PAGE.into(), ..application() };
    for text in [&*forged, ""] {
        assert!(world.registry.borne(&page, text, &[].into()).await.is_err());
    }
}

#[tokio::test]
async fn nothing_is_borne_for_a_client_that_logins_or_jobs_have_tokens_of() {
    let world = World::new().await;
    let sound = sound(&world);
    for client in [CLIENT, &*world.issuer.audience] {
        let mut claims = sound.clone();
        claims["aud"] = json!(client);
        let application = Application { client: client.into(), ..application() };
        let borne = world.registry.borne(&application, &world.signer.sign(&claims), &[].into()).await;
        assert!(matches!(borne, Err(Defect::NotTaken(_))), "{client}");
    }
}

#[tokio::test]
async fn a_browser_is_sent_with_what_its_answer_must_match() {
    let world = World::new().await;
    publish(&world, &json!({"code_challenge_methods_supported": ["plain", "S256"]}));
    let url = world.registry.authorization(&application(), TIE).await.unwrap();
    assert_eq!(url.path(), "/authorize");
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    for pair in [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("scope", "openid groups"),
        ("state", "state-1"),
        ("nonce", "nonce-1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ] {
        assert!(pairs.contains(&(pair.0.into(), pair.1.into())), "{pair:?} in {pairs:?}");
    }
}

#[tokio::test]
async fn a_challenge_is_sent_to_no_issuer_that_says_it_takes_none() {
    let world = World::new().await;
    publish(&world, &json!({"code_challenge_methods_supported": ["plain"]}));
    let visit = json!({
        "device_code": "d", "user_code": "A", "expires_in": 60, "interval": 1, "verification_uri": world.stub.url,
    });
    world.stub.on("/device", move |_| (200, visit.to_string()));
    let url = world.registry.authorization(&application(), TIE).await.unwrap();
    assert!(!url.as_str().contains("code_challenge"), "{url}");
    redeem(&world, &sound(&world), None).await.unwrap();
    let login = world.registry.login(super::processes::id(30), None).await.unwrap();
    login.finish().await.unwrap();
    for request in [world.stub.asked("/device"), world.stub.asked("/token")].concat() {
        assert!(!request.contains("code_challenge") && !request.contains("code_verifier"), "{request}");
    }
}

#[tokio::test]
async fn a_token_of_another_login_is_refused() {
    let world = World::new().await;
    for nonce in [json!("nonce-2"), json!(null), json!(["nonce-1"])] {
        let mut claims = sound(&world);
        claims["nonce"] = nonce;
        let refused = redeem(&world, &claims, None).await.unwrap_err();
        assert_eq!(refused, Defect::Claim("nonce", "that of this login"));
    }
    let mut claims = sound(&world);
    claims.as_object_mut().unwrap().remove("nonce");
    assert!(matches!(redeem(&world, &claims, None).await, Err(Defect::Claim("nonce", _))));
}

#[tokio::test]
async fn an_answer_that_another_issuer_gave_is_refused_before_its_code_is_shown_to_anybody() {
    let world = World::new().await;
    let refused = redeem(&world, &sound(&world), Some("https://evil.example")).await.unwrap_err();
    assert_eq!(refused, Defect::Issuer(world.stub.url.clone()));
    assert!(world.stub.asked("/token").is_empty());
}

#[tokio::test]
async fn a_token_for_another_client_or_past_its_time_is_refused() {
    let world = World::new().await;
    let mut claims = sound(&world);
    claims["aud"] = json!("another-client");
    assert_eq!(redeem(&world, &claims, None).await.unwrap_err(), Defect::Audience(CLIENT.into()));
    let mut claims = sound(&world);
    claims["exp"] = json!(now() - 100);
    assert!(matches!(redeem(&world, &claims, None).await.unwrap_err(), Defect::Expired(_)));
}

#[tokio::test]
async fn an_issuer_that_gives_no_token_is_told_of_by_its_error_code_alone() {
    let world = World::new().await;
    let answers = [
        (400, json!({"error": "invalid_grant", "error_description": "hush"}), "invalid_grant"),
        (500, json!({"error": "hush hush"}), "500"),
        (200, json!({"access_token": "hush"}), "no ID token"),
    ];
    for (status, answer, told) in answers {
        world.stub.on("/token", move |_| (status, answer.to_string()));
        let redeemed = world.registry.redeem_code(&application(), "code-1", None, TIE).await;
        let why = redeemed.unwrap_err().to_string();
        assert!(why.contains(told) && !why.contains("hush"), "{why}");
    }
}
