//! The protocols that the gate speaks: one line each.

use tidegate_gate::{Export, Protocol};
use tidegate_policy::{Misread, Resource, Shape, Vocabulary};

/// Every protocol that bundles may name.
pub(crate) struct Protocols(Vec<Registered>);

/// One protocol and what the agent needs to know beside its trait.
pub(crate) struct Registered {
    /// The protocol.
    pub(crate) protocol: Box<dyn Protocol>,
    /// What its clients offer in TLS' ALPN extension (RFC 7301).
    pub(crate) alpn: &'static [&'static [u8]],
    /// The shape of an action on a resource that is written as text, as cases and `explain` give it.
    pub(crate) shape: Read,
    /// What that supposes, where a session would know.
    pub(crate) supposes: Option<&'static str>,
}

/// Reads an action that is written as text.
pub(crate) type Read = fn(&Resource, &str) -> Result<Shape, Misread>;

impl Protocols {
    /// What this agent was built with.
    pub(crate) fn built_in() -> Self {
        let postgres = registered(
            tidegate_postgres::Postgres::default(),
            &[b"postgresql"],
            tidegate_postgres::shape_of_sql,
        );
        let http =
            registered(tidegate_http::Http::default(), tidegate_http::ALPN, tidegate_http::shape_of_request);
        Self(vec![Registered { supposes: Some(tidegate_postgres::SUPPOSED), ..postgres }, http])
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

    /// What records of which protocol can be exported as, beside their own form.
    pub(crate) fn exports(&self) -> impl Iterator<Item = (&'static str, &'static Export)> {
        self.0.iter().flat_map(|Registered { protocol, .. }| {
            let name = protocol.vocabulary().protocol;
            protocol.exports().iter().map(move |export| (name, export))
        })
    }

    /// The shape of an action on this resource that is written as text.
    pub(crate) fn shape(&self, resource: &Resource, text: &str) -> Result<Shape, Misread> {
        let registered = self
            .find(&resource.protocol)
            .ok_or_else(|| format!("the gate does not speak {:?}", resource.protocol))?;
        (registered.shape)(resource, text)
    }
}

/// A registration.
pub(crate) fn registered(
    protocol: impl Protocol + 'static,
    alpn: &'static [&'static [u8]],
    shape: Read,
) -> Registered {
    Registered { protocol: Box::new(protocol), alpn, shape, supposes: None }
}
