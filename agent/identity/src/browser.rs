//! Logging people in at a browser: the authorization code grant (OpenID Connect Core 1.0, section 3.1) with PKCE
//! (RFC 7636).

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use tidegate_gate::Secret;
use tidegate_policy::{Identity, Issuer};
use url::Url;

use crate::{
    Defect, Registry,
    device::{Client, NoTokens},
    oauth,
    registry::{Known, now},
    token::Token,
    verify::moment,
};

/// What the agent is to an issuer whose people come by browser.
#[derive(Debug, Clone)]
pub struct Application {
    /// The issuer's name in the bundle.
    pub issuer: Arc<str>,
    /// The client id that the issuer gave.
    pub client: Arc<str>,
    /// The client's secret, if it has one.
    pub secret: Option<Secret>,
    /// What to ask for beside `openid`.
    pub scopes: Vec<Arc<str>>,
    /// Where browsers come back to.
    pub redirect: Url,
}

/// How long ago a token may have been given that is borne in place of a login, in seconds: as long as that counts.
const BORNE: i64 = 1_800;

/// What ties an issuer's answer to the browser that was sent there: each unguessable, and of one login.
#[derive(Clone, Copy)]
pub struct Tie<'a> {
    /// Comes back with the code.
    pub state: &'a str,
    /// Comes back in the token.
    pub nonce: &'a str,
    /// Is shown with the code.
    pub verifier: &'a str,
}

/// What an issuer was in the bundle when somebody logged in.
#[derive(Debug, Clone)]
pub struct Terms(pub(crate) Arc<Issuer>);

impl Registry {
    /// Where a browser is sent to log in.
    pub async fn authorization(&self, application: &Application, tie: Tie<'_>) -> Result<Url, Defect> {
        let known = self.of_application(application)?;
        let metadata = known.keyring.metadata().await?;
        let Some(mut url) = metadata.authorization_endpoint.clone() else {
            return Err(Defect::NotHandedOut("the issuer has no authorization endpoint".into()));
        };
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &application.client)
            .append_pair("redirect_uri", application.redirect.as_str())
            .append_pair("scope", &oauth::scope(&application.scopes))
            .append_pair("state", tie.state)
            .append_pair("nonce", tie.nonce)
            .extend_pairs(oauth::challenge(&metadata, tie.verifier));
        Ok(url)
    }

    /// Who came back with this code. `issuer` is whose answer it is, if the answer says (RFC 9207).
    pub async fn redeem_code(
        &self,
        application: &Application,
        code: &str,
        issuer: Option<&str>,
        tie: Tie<'_>,
    ) -> Result<(Identity, Terms), Defect> {
        let known = self.of_application(application)?;
        if issuer.is_some_and(|issuer| *issuer != *known.issuer.url) {
            return Err(Defect::Issuer(known.issuer.url.to_string()));
        }
        let failed = |why: String| Defect::NotHandedOut(format!("the login failed: {why}"));
        let metadata = known.keyring.metadata().await?;
        let proved = !oauth::challenge(&metadata, tie.verifier).is_empty();
        let client = Client { http: known.http.clone(), metadata, id: application.client.clone() };
        let secret = application.secret.as_ref().map(|secret| std::str::from_utf8(secret.expose()));
        let secret = secret.transpose().map_err(|_| failed("the client's secret is not text".into()))?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("client_id", &*application.client),
            ("redirect_uri", application.redirect.as_str()),
            ("code", code),
        ];
        form.extend(proved.then_some(("code_verifier", tie.verifier)));
        form.extend(secret.map(|secret| ("client_secret", secret)));
        let tokens = client.tokens(&form).await.map_err(|why| match why {
            NoTokens::Never(why) | NoTokens::Unreachable(why) => failed(why),
            NoTokens::Pending | NoTokens::SlowDown => failed("the issuer takes it for another kind".into()),
        })?;
        let verified = self.inner.verify(&known, &tokens.id_token, &application.client).await?;
        let nonce = Token::parse(&tokens.id_token)?.claims.get("nonce").cloned();
        if nonce.as_ref().and_then(Value::as_str) != Some(tie.nonce) {
            return Err(Defect::Claim("nonce", "that of this login"));
        }
        Ok((verified.identity, Terms(known.issuer.clone())))
    }

    /// Who an ID token is of that this application was given within the last half hour, by whatever grant, and that has these
    /// claims, `*` for any value.
    ///
    /// Nothing ties it to a login here, so it must be clear that the issuer gave it for this: the client is for nothing else, and
    /// what an issuer lets its jobs have for an audience of their own choosing must lack a claim.
    pub async fn borne(
        &self,
        application: &Application,
        token: &str,
        require: &BTreeMap<String, String>,
    ) -> Result<(Identity, Terms), Defect> {
        let known = self.of_application(application)?;
        let client = &application.client;
        let issuers = self.inner.issuers();
        let mut same =
            issuers.iter().map(|other| &other.issuer).filter(|other| other.url == known.issuer.url);
        let is_others = |issuer: &Arc<Issuer>| {
            issuer.audience == *client || issuer.login().is_some_and(|(login, _)| login == client)
        };
        if same.any(is_others) {
            let why = "tokens of jobs or of `tidegate login` are for the same client, so none is taken here";
            return Err(Defect::NotTaken(why.into()));
        }
        let verified = self.inner.verify(&known, token.as_bytes(), &application.client).await?;
        let claims = Token::parse(token.as_bytes())?.claims;
        if claims.get("azp").is_some_and(|party| party.as_str() != Some(&**client)) {
            return Err(Defect::Claim("azp", "this client"));
        }
        let is_met = |(name, wanted): &(&String, &String)| {
            let claim = claims.get(name.as_str()).filter(|claim| !claim.is_null());
            claim.is_some_and(|claim| *wanted == "*" || claim.as_str() == Some(wanted))
        };
        if let Some((name, _)) = require.iter().find(|required| !is_met(required)) {
            return Err(Defect::Required(name.clone()));
        }
        let given = moment(&claims, "iat")?;
        match given.is_some_and(|given| now().saturating_sub(given) <= BORNE) {
            true => Ok((verified.identity, Terms(known.issuer.clone()))),
            false => Err(Defect::Claim("iat", "within the last half hour")),
        }
    }

    /// Whether the bundle in force has the very issuer that somebody logged in at.
    pub fn stands(&self, Terms(issuer): &Terms) -> bool {
        self.inner.issuers().iter().any(|known| known.issuer == *issuer)
    }

    fn of_application(&self, application: &Application) -> Result<Arc<Known>, Defect> {
        let issuers = self.inner.issuers();
        let known = issuers.iter().find(|known| known.issuer.name == application.issuer).cloned();
        known.ok_or_else(|| {
            Defect::NotTaken(format!("the bundle in force has no issuer {:?}", application.issuer))
        })
    }
}
