//! Identities that last longer than the tokens that vouch for them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidegate_gate::Secret;
use tidegate_policy::Identity;
use url::Url;

use crate::{
    Defect,
    device::{Client, NoTokens},
    find,
    registry::{Inner, Known, now},
    trees::Bound,
    verify::Verified,
};

/// The shortest wait before a token is renewed, and between attempts.
const SHORTEST: Duration = Duration::from_secs(5);

/// What new tokens are got with while a tree lives.
#[derive(Clone)]
pub(crate) enum Source {
    /// A job's own endpoint.
    Request { url: Url, bearer: Secret },
    /// A person's refresh token, for this client.
    Refresh { client: Arc<str>, refresh_token: Secret },
}

/// Gets new tokens while a tree lives. What it gets them with is shared with whatever must outlive the agent.
#[derive(Clone)]
pub(crate) struct Renewal(Arc<Mutex<Source>>);

/// Why there is no new token.
pub(crate) enum NotRenewed {
    Never(String),
    Later(String),
}

impl Renewal {
    pub(crate) fn new(source: Source) -> Self {
        Self(Arc::new(Mutex::new(source)))
    }

    /// Renews an identity until it is over.
    pub(crate) async fn keep(self, inner: Arc<Inner>, known: Arc<Known>, bound: Bound, identity: Identity) {
        let Bound { id, mut over, .. } = bound;
        let Identity { subject, mut expires, .. } = identity;
        let issuer = known.issuer.name.clone();
        loop {
            tokio::select! {
                _ = &mut over => return self.dismiss(&known).await,
                () = tokio::time::sleep(wait(expires)) => {}
            }
            let renewed = self.renew(&inner, &known).await;
            let until = renewed.as_ref().map_or(expires, |verified| verified.identity.expires);
            let counts = match renewed {
                Ok(verified) if verified.identity.subject == subject => {
                    let renewed = inner.renew(id, verified).await;
                    renewed.map_err(|defect| NotRenewed::Later(defect.to_string()))
                }
                Ok(_) => {
                    inner.trees.end(id, "the issuer says that it is somebody else now");
                    Ok(())
                }
                Err(why) => Err(why),
            };
            match counts {
                Ok(()) => expires = until,
                Err(NotRenewed::Never(why)) => {
                    tracing::warn!(%issuer, %subject, why, "the issuer renews an identity no more");
                    inner.trees.end(id, "the issuer does not renew it");
                }
                Err(NotRenewed::Later(why)) => {
                    tracing::warn!(%issuer, %subject, why, "an identity could not be renewed yet");
                }
            }
        }
    }

    /// A new token of the issuer, verified.
    pub(crate) async fn renew(&self, inner: &Inner, known: &Known) -> Result<Verified, NotRenewed> {
        let later = |defect: Defect| NotRenewed::Later(defect.to_string());
        let (text, audience) = match self.source() {
            Source::Request { url, bearer } => {
                let audience = known.issuer.audience.clone();
                (find::request(&known.http, url, &bearer, &audience).await.map_err(later)?, audience)
            }
            Source::Refresh { client, refresh_token } => {
                let of = Client::of(known, client.clone()).await.map_err(later)?;
                let tokens = match of.refresh(&refresh_token).await {
                    Ok(tokens) => tokens,
                    Err(NoTokens::Never(why)) => return Err(NotRenewed::Never(why)),
                    Err(NoTokens::Unreachable(why)) => return Err(NotRenewed::Later(why)),
                    Err(NoTokens::Pending | NoTokens::SlowDown) => {
                        return Err(NotRenewed::Later("not yet".into()));
                    }
                };
                if let Some(refresh_token) = tokens.refresh_token {
                    self.goes_on_with(Source::Refresh { client: client.clone(), refresh_token });
                    inner.trees.changed();
                }
                (tokens.id_token, client)
            }
        };
        inner.verify(known, &text, &audience).await.map_err(later)
    }

    /// Gives back what it gets tokens with.
    pub(crate) async fn dismiss(&self, known: &Known) {
        let Source::Refresh { client, refresh_token } = self.source() else { return };
        match Client::of(known, client).await {
            Ok(client) => client.revoke(&refresh_token).await,
            Err(why) => tracing::warn!(%why, "a refresh token was forgotten, but could not be revoked"),
        }
    }

    /// What it gets tokens with now: an issuer may give another refresh token with each.
    pub(crate) fn source(&self) -> Source {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn goes_on_with(&self, source: Source) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = source;
    }
}

/// Two thirds of what is left.
fn wait(expires: i64) -> Duration {
    let left = u64::try_from(expires.saturating_sub(now())).unwrap_or(0);
    Duration::from_secs(left / 3 * 2).max(SHORTEST)
}
