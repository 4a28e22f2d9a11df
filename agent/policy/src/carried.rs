//! Credentials in a client's own requests: placeholders that the gate fills in, and the client's own that go on.

use std::{fmt, sync::Arc};

/// A text that a client sends in a credential's place, and where the gate puts the credential instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// What the client sends, as the whole value.
    pub placeholder: Arc<str>,
    /// Name of the credential.
    pub credential: Arc<str>,
    /// Where it is filled in, and nowhere else: addresses of fields in the protocol's words, as `header.authorization`.
    pub places: Vec<Arc<str>>,
}

impl Fill {
    /// Whether this value at this address is to be replaced.
    pub fn is(&self, place: &str, value: &str) -> bool {
        *self.placeholder == *value && self.places.iter().any(|known| **known == *place)
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by {:?} in {}", self.placeholder, self.credential, self.places.join(", "))
    }
}

/// What one action may carry of credentials, by the rules that let all of it through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// Placeholders that are filled.
    pub fills: Vec<Arc<Fill>>,
    /// Fields of the client's own that go on although they are credentials.
    pub passes: Vec<Arc<str>>,
}

impl Carried {
    /// Whether the client's own field of this name goes on.
    pub fn passes(&self, field: &str) -> bool {
        self.passes.iter().any(|passed| **passed == *field)
    }

    /// What stands at this address for this value, if it is a placeholder there.
    pub fn fill(&self, place: &str, value: &str) -> Option<&Arc<Fill>> {
        self.fills.iter().find(|fill| fill.is(place, value))
    }

    /// Adds what a rule says.
    pub(crate) fn add(&mut self, other: &Self) {
        self.fills.extend(other.fills.iter().cloned());
        self.passes.extend(other.passes.iter().cloned());
    }
}
