//! The protocols that the gate speaks: one line each.

use serde_json::{Map, Value};
use tidegate_gate::Protocol;
use tidegate_policy::{Resource, Shape, Vocabulary};

/// Every protocol that bundles may name.
pub(crate) struct Protocols(Vec<Registered>);

/// One protocol and what the agent needs to know beside its trait.
pub(crate) struct Registered {
    /// The protocol.
    pub(crate) protocol: Box<dyn Protocol>,
    /// What its clients offer in TLS' ALPN extension (RFC 7301).
    pub(crate) alpn: &'static [&'static [u8]],
    /// The shape of an action written as text, as cases and `explain --sql` give it, by a resource's options.
    pub(crate) shape: fn(&Map<String, Value>, &str) -> Result<Shape, String>,
}

impl Protocols {
    /// What this agent was built with.
    pub(crate) fn built_in() -> Self {
        Self(vec![registered(
            tidegate_postgres::Postgres::default(),
            &[b"postgresql"],
            tidegate_postgres::shape_of_sql,
        )])
    }

    /// Exactly these.
    #[cfg(test)]
    pub(crate) fn for_test(protocols: Vec<Registered>) -> Self {
        Self(protocols)
    }

    /// The protocol of this name.
    pub(crate) fn find(&self, name: &str) -> Option<&Registered> {
        self.0.iter().find(|registered| registered.protocol.vocabulary().protocol == name)
    }

    /// What bundles may say, of all protocols.
    pub(crate) fn vocabularies(&self) -> Vec<&'static Vocabulary> {
        self.0.iter().map(|registered| registered.protocol.vocabulary()).collect()
    }

    /// The shape of an action on this resource that is written as text.
    pub(crate) fn shape(&self, resource: &Resource, text: &str) -> Result<Shape, String> {
        let registered = self
            .find(&resource.protocol)
            .ok_or_else(|| format!("the gate does not speak {:?}", resource.protocol))?;
        (registered.shape)(&resource.options, text)
    }
}

/// A registration.
pub(crate) fn registered(
    protocol: impl Protocol + 'static,
    alpn: &'static [&'static [u8]],
    shape: fn(&Map<String, Value>, &str) -> Result<Shape, String>,
) -> Registered {
    Registered { protocol: Box::new(protocol), alpn, shape }
}
