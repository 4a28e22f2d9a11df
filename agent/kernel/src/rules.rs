//! What is governed and what becomes of its connections, and its form in the kernel's maps.

mod bits;
mod destinations;

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use tidegate_abi::{Generation, MAX_DESTINATIONS};

pub(crate) use self::bits::SubjectBits;
pub(crate) use self::destinations::{Change, Destinations, mapped};
use self::destinations::{Prefix, Row, Table, row, table};
use crate::governed::Governed;
use crate::shield::{FileRule, UnixRule};
use crate::unix::UnixResource;
use crate::{KernelError, Required, UnitPattern};

/// Everything the kernel decides by. It is swapped as a whole.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Who is governed.
    pub subjects: Vec<SubjectRule>,
    /// Sub-uids of whoever may be governed without being named, by group or place: they count as these users, and nobody is
    /// governed by them. As many as there is room for.
    pub owners: Vec<SubUids>,
    /// What governed processes reach through the gate.
    pub resources: Vec<Destination>,
    /// What they reach directly.
    pub passes: Vec<PassRule>,
    /// Files they can't open.
    pub files: Vec<FileRule>,
    /// Listeners of ungoverned processes that they may talk to.
    pub unix: Vec<UnixRule>,
    /// Unix sockets that they reach through the gate.
    pub unix_resources: Vec<UnixResource>,
    /// They are only to be put into force where all of this is had: see [`Had::lacks`](crate::Had::lacks).
    pub required: Vec<Required>,
    /// What was learned since the bundle was loaded.
    pub learned: Learned,
}

/// Addresses that names of the bundle turned out to have. Only single addresses, never ranges.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    /// As [`Rules::resources`].
    pub resources: Vec<Destination>,
    /// As [`Rules::passes`].
    pub passes: Vec<PassRule>,
}

/// One subject and the ids that make a process its own. Any one of them does.
#[derive(Debug, Clone, Default)]
pub struct SubjectRule {
    /// The bundle's name for it.
    pub name: Arc<str>,
    /// Real user ids; for a group's supplementary members, their users' ids.
    pub uids: Vec<u32>,
    /// Real group ids.
    pub gids: Vec<u32>,
    /// What those users may use as ids in user namespaces.
    pub sub_uids: Vec<SubUids>,
    /// Paths within the cgroup v2 hierarchy, whether they are there yet or not; their descendants count too.
    pub cgroups: Vec<String>,
    /// Units of the service manager, likewise.
    pub units: Vec<UnitPattern>,
}

/// A range of ids that count as a user (subuid(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubUids {
    /// The user.
    pub owner: u32,
    /// The first of them.
    pub start: u32,
    /// How many there are.
    pub count: u32,
}

/// A TCP destination that goes through the gate, whichever subject asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Addresses.
    pub net: IpNet,
    /// Port.
    pub port: u16,
}

/// A destination, TCP or UDP, that some subjects reach directly.
#[derive(Debug, Clone)]
pub struct PassRule {
    /// Addresses.
    pub net: IpNet,
    /// Port; none for any.
    pub port: Option<u16>,
    /// Names of the subjects that may.
    pub subjects: Vec<Arc<str>>,
}

/// Rules as entries of the kernel's maps, all of one generation.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) generation: Generation,
    pub(crate) governed: Governed,
    pub(crate) destinations: Vec<Row>,
    declared: Table,
    learned: Table,
}

impl Compiled {
    /// # Errors
    ///
    /// [`KernelError::Rules`] if there are too many of something, or a pass names a subject that isn't there.
    pub(crate) fn new(rules: &Rules, number: u32, bits: &mut SubjectBits) -> Result<Self, KernelError> {
        let mut generation = Generation { number, looks: 0, subjects: 0 };
        let mut governed = Governed::default();
        for subject in &rules.subjects {
            let bit = bits.allot(&subject.name)?;
            generation.subjects |= bit;
            governed.add(subject, bit);
        }
        governed.fits()?;
        governed.own(&rules.owners);
        generation.looks = governed.looks();
        let declared = table(&rules.resources, &rules.passes, bits)?;
        let learned = table(&rules.learned.resources, &rules.learned.passes, bits)?;
        let prefixes: BTreeSet<Prefix> = declared.keys().chain(learned.keys()).copied().collect();
        let destinations: Vec<Row> =
            prefixes.into_iter().map(|prefix| row(prefix, number, [&declared, &learned])).collect();
        // The trie keeps inner nodes beside the entries that it counts.
        bounded("destinations", destinations.len(), MAX_DESTINATIONS / 2)?;
        Ok(Self { generation, governed, destinations, declared, learned })
    }

    /// Whom it governs, and what destinations were made from, for [`Destinations::learn`].
    pub(crate) fn into_parts(self) -> (Governed, Destinations) {
        let Self { generation, governed, declared, learned, .. } = self;
        (governed, Destinations { generation: generation.number, declared, learned })
    }
}

pub(crate) fn bounded(what: &str, count: usize, most: usize) -> Result<(), KernelError> {
    if count > most {
        return Err(KernelError::Rules(format!(
            "{count} {what} are too many: at most {most} fit into the kernel"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tidegate_abi::Destination as Entry;

    use super::*;

    fn subject(name: &str, uid: u32) -> SubjectRule {
        SubjectRule { name: name.into(), uids: vec![uid], ..SubjectRule::default() }
    }

    fn resource(net: &str, port: u16) -> Destination {
        let net = net.parse().or_else(|_| net.parse::<IpAddr>().map(IpNet::from)).unwrap();
        Destination { net, port }
    }

    fn pass(net: &str, port: Option<u16>, subjects: &[&str]) -> PassRule {
        let subjects = subjects.iter().map(|&name| name.into()).collect();
        PassRule { net: net.parse().unwrap(), port, subjects }
    }

    fn entry(compiled: &Compiled, net: &str, port: u16) -> Entry {
        let wanted = Prefix::new(net.parse().unwrap(), port);
        let found = compiled.destinations.iter().find(|(bits, key, _)| {
            *bits == 48 + u32::from(wanted.bits)
                && key.port == port
                && u128::from_be_bytes(key.address) == wanted.address
        });
        found.unwrap().2
    }

    #[test]
    fn what_is_learned_says_what_the_rules_around_it_say_and_goes_as_it_came() {
        let mut bits = SubjectBits::default();
        let rules = Rules {
            subjects: vec![subject("a", 1)],
            passes: vec![pass("10.0.0.0/8", Some(5432), &["a"])],
            ..Rules::default()
        };
        let mut destinations = Compiled::new(&rules, 1, &mut bits).unwrap().into_parts().1;
        let learned = Learned { resources: vec![resource("10.0.0.7", 5432)], ..Learned::default() };
        let change = destinations.learn(&learned, &bits).unwrap();
        assert_eq!(
            change.written.iter().map(|row| row.2).collect::<Vec<_>>(),
            [Entry { pass: 1, redirect: 1 }]
        );
        destinations.changed(change);
        assert!(destinations.learn(&learned, &bits).unwrap().written.is_empty());
        let change = destinations.learn(&Learned::default(), &bits).unwrap();
        assert_eq!((change.written.len(), change.removed.len()), (0, 1));
    }

    #[test]
    fn a_change_that_failed_half_way_is_made_again_or_undone() {
        let mut bits = SubjectBits::default();
        let rules = Rules { subjects: vec![subject("a", 1)], ..Rules::default() };
        let mut destinations = Compiled::new(&rules, 1, &mut bits).unwrap().into_parts().1;
        let learned = Learned { resources: vec![resource("10.0.0.7", 5432)], ..Learned::default() };
        let change = destinations.learn(&learned, &bits).unwrap();
        destinations.trying(&change);
        assert_eq!(destinations.learn(&learned, &bits).unwrap().written.len(), 1);
        assert_eq!(destinations.learn(&Learned::default(), &bits).unwrap().removed.len(), 1);
    }

    #[test]
    fn a_bit_keeps_its_subject_when_the_rules_change() {
        let mut bits = SubjectBits::default();
        let first = Rules { subjects: vec![subject("a", 1), subject("b", 2)], ..Rules::default() };
        let second = Rules { subjects: vec![subject("c", 3), subject("b", 2)], ..Rules::default() };
        assert_eq!(Compiled::new(&first, 1, &mut bits).unwrap().generation.subjects, 0b011);
        assert_eq!(Compiled::new(&second, 2, &mut bits).unwrap().generation.subjects, 0b110);
        assert_eq!(bits.names(0b110), ["b".into(), "c".into()]);
    }

    #[test]
    fn a_later_agent_gives_the_same_bits_to_the_same_subjects() {
        let mut earlier = SubjectBits::default();
        let before = Rules { subjects: vec![subject("a", 1), subject("b", 2)], ..Rules::default() };
        Compiled::new(&before, 1, &mut earlier).unwrap();
        let mut later = SubjectBits::adopted(earlier.digests());
        let after = Rules { subjects: vec![subject("c", 3), subject("b", 2)], ..Rules::default() };
        assert_eq!(Compiled::new(&after, 2, &mut later).unwrap().generation.subjects, 0b110);
        assert_eq!(later.names(0b111), ["b".into(), "c".into()], "nobody has named the first one again");
    }

    #[test]
    fn the_sixty_fifth_subject_of_an_agents_life_is_an_error() {
        let mut bits = SubjectBits::default();
        let subjects = (0..64).map(|index| subject(&format!("s{index}"), index)).collect();
        let full = Rules { subjects, ..Rules::default() };
        assert_eq!(Compiled::new(&full, 1, &mut bits).unwrap().generation.subjects, u64::MAX);
        let more = Rules { subjects: vec![subject("more", 65)], ..Rules::default() };
        assert!(matches!(Compiled::new(&more, 2, &mut bits), Err(KernelError::Rules(_))));
    }

    #[test]
    fn one_id_may_belong_to_two_subjects() {
        let mut bits = SubjectBits::default();
        let rules = Rules { subjects: vec![subject("a", 7), subject("b", 7)], ..Rules::default() };
        let compiled = Compiled::new(&rules, 1, &mut bits).unwrap();
        assert_eq!(compiled.governed.of_user(7), 0b11);
    }

    #[test]
    fn a_narrow_pass_inside_a_wide_resource_still_redirects() {
        let mut bits = SubjectBits::default();
        let rules = Rules {
            subjects: vec![subject("a", 1)],
            resources: vec![resource("10.0.0.0/8", 5432)],
            passes: vec![pass("10.1.0.0/16", Some(5432), &["a"])],
            ..Rules::default()
        };
        let compiled = Compiled::new(&rules, 1, &mut bits).unwrap();
        assert_eq!(entry(&compiled, "10.1.0.0/16", 5432), Entry { pass: 1, redirect: 1 });
        assert_eq!(entry(&compiled, "10.0.0.0/8", 5432), Entry { pass: 0, redirect: 1 });
    }

    #[test]
    fn a_narrow_pass_keeps_the_subjects_of_a_wider_one() {
        let mut bits = SubjectBits::default();
        let rules = Rules {
            subjects: vec![subject("a", 1), subject("b", 2)],
            resources: vec![],
            passes: vec![pass("::/0", None, &["a"]), pass("fd00::1/128", None, &["b"])],
            ..Rules::default()
        };
        let compiled = Compiled::new(&rules, 1, &mut bits).unwrap();
        assert_eq!(entry(&compiled, "fd00::1/128", 0), Entry { pass: 0b11, redirect: 0 });
        assert_eq!(entry(&compiled, "::/0", 0), Entry { pass: 0b01, redirect: 0 });
    }

    #[test]
    fn all_of_ipv4_is_a_prefix_of_96_bits() {
        let mut bits = SubjectBits::default();
        let rules = Rules {
            subjects: vec![subject("a", 1)],
            resources: vec![],
            passes: vec![pass("0.0.0.0/0", None, &["a"])],
            ..Rules::default()
        };
        let compiled = Compiled::new(&rules, 1, &mut bits).unwrap();
        assert_eq!(compiled.destinations[0].0, 48 + 96);
    }

    #[test]
    fn host_bits_of_a_network_do_not_count() {
        let net: IpNet = "10.1.2.3/8".parse().unwrap();
        assert_eq!(Prefix::new(net, 1), Prefix::new("10.0.0.0/8".parse().unwrap(), 1));
    }

    #[test]
    fn a_pass_for_an_undeclared_subject_is_an_error() {
        let rules = Rules { passes: vec![pass("10.0.0.1/32", None, &["nobody"])], ..Rules::default() };
        let error = Compiled::new(&rules, 1, &mut SubjectBits::default()).unwrap_err();
        assert!(error.to_string().contains("nobody"));
    }
}
