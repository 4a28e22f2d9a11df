//! Exactly one line in the log for each connection, however it ends.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_gate::{Gate, ServeError};
use tidegate_policy::Principal;

use crate::{
    listener::Caller,
    live::{Place, Refused},
};

/// The target of access lines in the log.
pub(crate) const TARGET: &str = "tidegate::access";

/// Guards one connection: when it is dropped, on cancellation too, the record is closed, the line written and the
/// place given back, once.
pub(crate) struct Access {
    since: Instant,
    client: Caller,
    destination: Option<SocketAddr>,
    stage: Stage,
    outcome: &'static str,
    reason: String,
    place: Option<Place>,
}

/// Who is known to connect; the gate knows the rest once it is open.
enum Stage {
    Unknown,
    Known(Arc<Principal>),
    Open(Gate),
}

impl Access {
    /// Begins with the accept.
    pub(crate) fn begin(client: Caller) -> Self {
        Self {
            since: Instant::now(),
            client,
            destination: None,
            stage: Stage::Unknown,
            outcome: "cut-off",
            reason: "the session was cut off".into(),
            place: None,
        }
    }

    /// Holds the connection's place to its end.
    pub(crate) fn hold(&mut self, place: Place) -> &mut Place {
        self.place.insert(place)
    }

    /// The origin is known.
    pub(crate) fn known(&mut self, destination: SocketAddr, principal: &Principal) {
        self.destination = Some(destination);
        self.stage = Stage::Known(Arc::new(principal.clone()));
    }

    /// Where its server is.
    pub(crate) fn leads_to(&mut self, destination: SocketAddr) {
        self.destination = Some(destination);
    }

    /// The session began.
    pub(crate) fn opened(&mut self, gate: Gate) {
        self.stage = Stage::Open(gate);
    }

    /// It was refused before a protocol was spoken.
    pub(crate) fn refused(mut self, refused: &Refused) {
        (self.outcome, self.reason) = ("refused", refused.to_string());
    }

    /// Its protocol ended it.
    pub(crate) fn ended(mut self, served: Result<(), ServeError>) {
        (self.outcome, self.reason) = match served {
            Ok(()) => ("ended", "it ended in order".into()),
            Err(error) => ("failed", error.to_string()),
        };
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let (gate, principal) = match &self.stage {
            Stage::Unknown => (None, None),
            Stage::Known(principal) => (None, Some(principal.clone())),
            Stage::Open(gate) => (Some(gate), Some(gate.principal())),
        };
        if let Some(gate) = gate {
            gate.close(&self.reason);
        }
        let principal = principal.as_deref();
        let process = principal.map(|principal| &principal.process);
        let identities = principal.filter(|principal| !principal.identities.is_empty()).map(vouched_for);
        tracing::info!(
            target: TARGET,
            session = gate.map(|gate| &**gate.session()),
            resource = gate.map(|gate| &*gate.resource().name),
            protocol = gate.map(|gate| &*gate.resource().protocol),
            client = %self.client,
            destination = self.destination.map(tracing::field::display),
            subjects = principal.map(|principal| tracing::field::display(principal.subjects.join(","))),
            user = process.and_then(|process| process.user.as_deref()),
            uid = process.map(|process| process.uid),
            identities = identities,
            pid = process.map(|process| process.pid),
            executable = process.and_then(|process| process.executable.as_deref()),
            milliseconds = millis(self.since.elapsed()),
            outcome = self.outcome,
            reason = self.reason,
            "connection"
        );
    }
}

/// Issuers and the subjects that they mean.
fn vouched_for(principal: &Principal) -> String {
    let told = principal.identities.iter().map(|known| format!("{}:{}", known.issuer, known.subject));
    told.collect::<Vec<_>>().join(",")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
