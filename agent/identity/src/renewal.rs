//! Identities that last longer than the tokens that vouch for them.

use std::{sync::Arc, time::Duration};

use tidegate_gate::Secret;
use tidegate_policy::Identity;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    device::{Client, NoTokens},
    find,
    registry::{Inner, Known, now},
    trees::Bound,
};

/// The shortest wait before a token is renewed, and between attempts.
const SHORTEST: Duration = Duration::from_secs(5);

/// How new tokens are got while a tree lives.
pub(crate) enum Renewal {
    /// From a job's own endpoint.
    Request { url: Url, bearer: Secret },
    /// With a person's refresh token.
    Refresh { client: Client, refresh_token: Secret },
}

/// Why there is no new token.
enum NotRenewed {
    Never(String),
    Later(String),
}

impl Renewal {
    /// Renews an identity until it is over.
    pub(crate) async fn keep(
        mut self,
        inner: Arc<Inner>,
        known: Arc<Known>,
        bound: Bound,
        identity: Identity,
    ) {
        let Bound { id, mut over, .. } = bound;
        let (issuer, subject) = (known.issuer.name.clone(), identity.subject);
        let mut expires = identity.expires;
        loop {
            tokio::select! {
                _ = &mut over => return self.dismiss().await,
                () = tokio::time::sleep(wait(expires)) => {}
            }
            let renewed = match self.renew(&known).await {
                Ok((text, audience)) => inner
                    .verify(&known, &text, &audience)
                    .await
                    .map_err(|defect| NotRenewed::Later(defect.to_string())),
                Err(why) => Err(why),
            };
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

    /// A new token, and whom it must be for.
    async fn renew(&mut self, known: &Known) -> Result<(Zeroizing<Vec<u8>>, Arc<str>), NotRenewed> {
        match self {
            Self::Request { url, bearer } => {
                let audience = known.issuer.audience.clone();
                let text = find::request(&known.http, url.clone(), bearer, &audience).await;
                text.map(|text| (text, audience)).map_err(|defect| NotRenewed::Later(defect.to_string()))
            }
            Self::Refresh { client, refresh_token } => match client.refresh(refresh_token).await {
                Ok(tokens) => {
                    if let Some(next) = tokens.refresh_token {
                        *refresh_token = next;
                    }
                    Ok((tokens.id_token, client.id.clone()))
                }
                Err(NoTokens::Never(why)) => Err(NotRenewed::Never(why)),
                Err(NoTokens::Unreachable(why)) => Err(NotRenewed::Later(why)),
                Err(NoTokens::Pending | NoTokens::SlowDown) => Err(NotRenewed::Later("not yet".into())),
            },
        }
    }

    async fn dismiss(self) {
        if let Self::Refresh { client, refresh_token } = self {
            client.revoke(&refresh_token).await;
        }
    }
}

/// Two thirds of what is left.
fn wait(expires: i64) -> Duration {
    let left = u64::try_from(expires.saturating_sub(now())).unwrap_or(0);
    Duration::from_secs(left / 3 * 2).max(SHORTEST)
}
