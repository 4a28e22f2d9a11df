//! A yes, on its way to a permit.

use std::sync::Arc;

use tidegate_policy::{Effect, Held, Principal, Shape};

use crate::{Cause, Permit, Refusal, hold::Hold, inner::refused, matter::Asked};

/// Somebody's yes, for what was asked and nothing else.
#[derive(Debug)]
pub struct Approved {
    pub(crate) hold: Arc<Hold>,
    pub(crate) asked: Asked,
    /// The questions that it was said to. Never empty.
    pub(crate) ids: Vec<Arc<str>>,
    /// Somebody said it; else the policy came to allow it.
    pub(crate) yes: bool,
}

impl Approved {
    /// The permit, if the yes still counts, what was asked is still what it was, and the policy in force asks for no other
    /// yes. `shape` is the action as it is understood now, and `definitions` what [`Matter::by`](crate::Matter::by) would be
    /// given now: it may have waited for something else since the yes.
    pub async fn permit(self, shape: &Arc<Shape>, definitions: Option<[u8; 32]>) -> Result<Permit, Refusal> {
        if self.yes {
            self.still_counts().await?;
        }
        self.permit_of(shape, definitions)
    }

    /// Refuses what was taken back, or is over, since it was said.
    async fn still_counts(&self) -> Result<(), Refusal> {
        let (gate, hold) = (&self.hold.gate, &self.hold);
        match gate.approvals().ended(&self.ids).await {
            Ok(None) => Ok(()),
            Ok(Some(revocation)) => {
                gate.note(&revocation.entry(hold.id));
                Err(hold.refusal(Cause::Policy, &revocation.to_string()))
            }
            Err(error) => {
                let message = format!("whether the yes to it still counts can't be known: {error}");
                Err(hold.refusal(Cause::Approvals, &message))
            }
        }
    }

    pub(crate) fn permit_of(
        self,
        shape: &Arc<Shape>,
        definitions: Option<[u8; 32]>,
    ) -> Result<Permit, Refusal> {
        let Self { hold, asked, ids, yes } = self;
        let now = Asked::new(shape, definitions);
        let verdict = hold.gate.verdict_now(shape);
        let met = |held: &Held| hold.verdict.holds.contains(held);
        let changed = match verdict.effect {
            Effect::Deny => return Err(refused(&verdict)),
            Effect::Hold if !yes || !verdict.holds.iter().all(met) => Some("the policy"),
            _ if now.items != asked.items => Some("what it does"),
            _ if now.definitions != asked.definitions => Some("what others have defined, and it runs by,"),
            _ if !same(&hold.gate.principal(), &hold.principal) => Some("who asks"),
            _ => None,
        };
        if let Some(what) = changed {
            let message = format!("approval {}: {what} changed while it waited; ask again", ids.join(", "));
            return Err(hold.refusal(Cause::Policy, &message));
        }
        hold.count(&verdict)?;
        let held = verdict.effect == Effect::Hold;
        let permit = Permit::new(hold.gate.clone(), hold.id, verdict, shape.clone());
        Ok(if held { permit.by_yes_to(ids) } else { permit })
    }
}

/// Whether issuers say the same of both: a renewed token is the same person's.
fn same(one: &Principal, other: &Principal) -> bool {
    let one = one.identities.iter().map(|identity| (&identity.issuer, &identity.subject));
    one.eq(other.identities.iter().map(|identity| (&identity.issuer, &identity.subject)))
}
