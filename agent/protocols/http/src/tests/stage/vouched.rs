//! Who says who somebody is, and what the gate signs in with.

use std::sync::{Arc, Mutex};

use tidegate_gate::{
    BoxFuture, Credential, CredentialError, Credentials, Identified, Proof, Proofs, Secret, policy::Identity,
};
use tokio::sync::watch;

/// Who issuer `people` says that somebody is.
#[derive(Debug, Default)]
pub(in crate::tests) struct Vouched {
    now: watch::Sender<Arc<[Identity]>>,
    proof: Mutex<Option<Proof>>,
}

impl Vouched {
    pub(super) fn by(subject: &str, token: &str) -> Self {
        let expires = jiff::Timestamp::now().as_second() + 600;
        let identity = Identity {
            issuer: "people".into(),
            url: "https://people.test".into(),
            account: None,
            subject: subject.into(),
            groups: Vec::new(),
            expires,
            claims: serde_json::Map::new(),
        };
        let proof = Proof { token: Secret::new(token.into()), subject: subject.into(), expires };
        Self { now: watch::Sender::new([identity].into()), proof: Mutex::new(Some(proof)) }
    }

    pub(super) fn identified(self: &Arc<Self>) -> Identified {
        Identified { now: self.now.subscribe(), unproven: Arc::default(), proofs: self.clone() }
    }

    /// It has logged out.
    pub(in crate::tests) fn ends(&self) {
        *self.proof.lock().unwrap() = None;
        self.now.send_replace(Arc::default());
    }
}

impl Proofs for Vouched {
    fn proof(&self, issuer: &str) -> Option<Proof> {
        self.proof.lock().unwrap().clone().filter(|_| issuer == "people")
    }
}

/// The credential of the resource `it`, and others by name.
pub(super) struct Known(pub(super) Credential, pub(super) Vec<(&'static str, Credential)>);

impl Credentials for Known {
    fn credential<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        let named = self.1.iter().find(|(known, _)| *known == name).map(|(_, credential)| credential.clone());
        let known = if name == "it" { Some(self.0.clone()) } else { named };
        Box::pin(async move { known.ok_or_else(|| CredentialError::Missing(name.into())) })
    }
}
