//! What a bundle insists on, held against what this host has.

use super::{Found, Tier};

/// Something that rules are only put into force with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// All of the shield.
    Shield,
    /// Somebody decides who connects to which Unix socket.
    UnixSockets,
    /// At least this tier.
    Tier(Tier),
}

/// What is attached on this host, and what its kernel was found to have.
#[derive(Debug, Clone, Copy)]
pub struct Had<'a> {
    /// What every feature's trial came to.
    pub found: &'a [Found],
    /// What the shield lacks; none if all of it is attached.
    pub unshielded: Option<&'a str>,
    /// Why nobody decides about Unix sockets; none if somebody does.
    pub unix_open: Option<&'a str>,
}

impl Had<'_> {
    /// What of this is missing here, and how it could be had; empty if nothing is.
    pub fn lacks(&self, required: &[Required]) -> Vec<String> {
        required.iter().filter_map(|required| self.lacks_one(*required)).collect()
    }

    fn lacks_one(&self, required: Required) -> Option<String> {
        match required {
            Required::Shield => self.unshielded.map(str::to_owned),
            Required::UnixSockets => {
                self.unix_open.map(|missing| format!("a decision about Unix sockets: {missing}"))
            }
            Required::Tier(tier) => self.lacks_tier(tier),
        }
    }

    fn lacks_tier(&self, tier: Tier) -> Option<String> {
        let reached = Tier::of(self.found);
        if reached >= tier {
            return None;
        }
        let missing = tier.lacking(self.found).join(", ");
        Some(format!("the tier {tier}, where it reaches {reached}; missing: {missing}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Feature, Missing};
    use super::*;

    fn without(missing: &[Feature]) -> Vec<Found> {
        let missing = |feature: &Feature| {
            let gone = Missing { why: "it was not stopped".to_owned(), remedy: "another kernel".to_owned() };
            missing.contains(feature).then_some(gone)
        };
        Feature::ALL.iter().map(|feature| Found { feature: *feature, missing: missing(feature) }).collect()
    }

    fn lacks(required: Required, missing: &[Feature], shield: Option<&str>, unix: Option<&str>) -> String {
        let found = without(missing);
        Had { found: &found, unshielded: shield, unix_open: unix }.lacks(&[required]).join("; ")
    }

    #[test]
    fn the_shield_is_required_whole() {
        assert_eq!(lacks(Required::Shield, &[Feature::Lsm], None, Some("no hooks")), "");
        assert!(lacks(Required::Shield, &[], Some("no LSM programs"), None).contains("no LSM programs"));
    }

    #[test]
    fn unix_sockets_may_be_decided_without_a_shield() {
        assert_eq!(lacks(Required::UnixSockets, &[Feature::Lsm], Some("no LSM programs"), None), "");
        assert!(lacks(Required::UnixSockets, &[], None, Some("no hooks")).contains("no hooks"));
    }

    #[test]
    fn a_tier_is_required_with_all_that_belongs_to_it_and_what_is_missing_is_named() {
        let full = Required::Tier(Tier::Full);
        assert_eq!(lacks(full, &[], Some("no LSM programs"), None), "");
        let told = lacks(full, &[Feature::Lsm], None, None);
        assert!(
            told.contains("full") && told.contains("hardened") && told.contains("another kernel"),
            "{told}"
        );
        assert!(told.contains("LSM programs refuse") && !told.contains("datagrams"), "{told}");
        assert_eq!(lacks(Required::Tier(Tier::Hardened), &[Feature::Lsm], None, None), "");
        let told = lacks(Required::Tier(Tier::Hardened), &[Feature::ReturnValues, Feature::Lsm], None, None);
        assert!(told.contains("recommended") && !told.contains("LSM"), "{told}");
    }
}
