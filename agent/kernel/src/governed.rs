//! Whom a generation of the rules governs, and its form in the kernel's maps.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv4Subnets};
use tidegate_abi::{
    CGROUP_PATH_BYTES, CgroupPath, LOOKS_AT_CGROUPS, LOOKS_AT_GROUPS, LOOKS_AT_SUB_USERS, LOOKS_AT_USERS,
    MAX_CGROUP_NAMES, MAX_SUB_USERS, MAX_SUBJECT_IDS, SubUser, SubUserKey, SubjectKey, SubjectKind, UnitName,
};

use crate::KernelError;
use crate::rules::{SubUids, SubjectRule, bounded};
use crate::unit::UnitPattern;

/// Everybody that rules govern, with the bits of the subjects that each is one of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Governed {
    /// By kind and id.
    ids: BTreeMap<(u32, u64), u64>,
    /// Ranges of sub-uids, cut into prefixes; each without what those say that contain it. A user id is written as an IPv4
    /// address: both have 32 bits.
    sub_users: BTreeMap<Ipv4Net, SubUser>,
    /// Cgroups by path, whether they are there or not.
    paths: BTreeMap<String, u64>,
    units: BTreeMap<UnitPattern, u64>,
}

impl Governed {
    /// Adds the subject that has this bit.
    pub(crate) fn add(&mut self, subject: &SubjectRule, bit: u64) {
        let users = subject.uids.iter().map(|id| (SubjectKind::User, u64::from(*id)));
        let groups = subject.gids.iter().map(|id| (SubjectKind::Group, u64::from(*id)));
        for (kind, id) in users.chain(groups) {
            *self.ids.entry((kind as u32, id)).or_default() |= bit;
        }
        for range in &subject.sub_uids {
            for net in prefixes(range) {
                let entry = self.sub_users.entry(net).or_default();
                entry.subjects |= bit;
                entry.owner = range.owner;
            }
        }
        for path in &subject.cgroups {
            *self.paths.entry(path.clone()).or_default() |= bit;
        }
        for unit in &subject.units {
            *self.units.entry(unit.clone()).or_default() |= bit;
        }
    }

    /// Has these ranges count as their users, as far as they fit beside those of the governed: whoever's don't counts by each id.
    pub(crate) fn own(&mut self, ranges: &[SubUids]) {
        for range in ranges {
            if self.sub_users.len() + prefixes(range).count() > MAX_SUB_USERS / 2 {
                continue;
            }
            for net in prefixes(range) {
                self.sub_users.entry(net).or_insert(SubUser { owner: range.owner, ..SubUser::default() });
            }
        }
    }

    /// # Errors
    ///
    /// [`KernelError::Rules`] if the kernel's maps can't hold them twice, as they must while rules are replaced.
    pub(crate) fn fits(&self) -> Result<(), KernelError> {
        bounded("user and group ids of subjects", self.ids.len(), MAX_SUBJECT_IDS / 2)?;
        bounded("prefixes of sub-uids", self.sub_users.len(), MAX_SUB_USERS / 2)?;
        bounded("cgroups of subjects", self.paths.len(), MAX_CGROUP_NAMES / 2)?;
        bounded("units of subjects", self.units.len(), MAX_CGROUP_NAMES / 2)
    }

    /// `Generation::looks`.
    pub(crate) fn looks(&self) -> u32 {
        [
            (LOOKS_AT_CGROUPS, self.names_cgroups()),
            (LOOKS_AT_SUB_USERS, !self.sub_users.is_empty()),
            (LOOKS_AT_USERS, self.of_kind(SubjectKind::User)),
            (LOOKS_AT_GROUPS, self.names_groups()),
        ]
        .into_iter()
        .fold(0, |looks, (bit, named)| if named { looks | bit } else { looks })
    }

    /// Whether any subject is chosen by cgroup or unit.
    pub(crate) fn names_cgroups(&self) -> bool {
        !self.paths.is_empty() || !self.units.is_empty()
    }

    /// Whether any subject is chosen by group.
    pub(crate) fn names_groups(&self) -> bool {
        self.of_kind(SubjectKind::Group)
    }

    /// Whether nobody is governed.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.sub_users.values().all(|user| user.subjects == 0)
    }

    fn of_kind(&self, wanted: SubjectKind) -> bool {
        self.ids.keys().any(|(kind, _)| *kind == wanted as u32)
    }

    /// Users by their own ids.
    pub(crate) fn users(&self) -> impl Iterator<Item = u32> + '_ {
        let of_users = self.ids.keys().filter(|(kind, _)| *kind == SubjectKind::User as u32);
        of_users.filter_map(|(_, id)| u32::try_from(*id).ok())
    }

    /// Subjects of a real user id, as itself and as somebody's sub-uid.
    pub(crate) fn of_user(&self, uid: u32) -> u64 {
        let whole = Ipv4Net::from(Ipv4Addr::from(uid));
        self.of_id(SubjectKind::User, u64::from(uid)) | self.sub_user(whole).subjects
    }

    /// Subjects of a group or a cgroup.
    pub(crate) fn of_id(&self, kind: SubjectKind, id: u64) -> u64 {
        self.ids.get(&(kind as u32, id)).copied().unwrap_or(0)
    }

    /// Takes note of a cgroup that is there. Its subjects, if any: its descendants are theirs too.
    pub(crate) fn found(&mut self, path: &str, id: u64) -> Option<u64> {
        let named = self.paths.get(path).copied().unwrap_or(0);
        let units = self.units.iter().filter(|(pattern, _)| pattern.matches(path));
        let subjects = units.fold(named, |all, (_, bits)| all | bits);
        if subjects == 0 {
            return None;
        }
        self.ids.insert((SubjectKind::Cgroup as u32, id), subjects);
        Some(subjects)
    }

    pub(crate) fn ids(&self, generation: u32) -> impl Iterator<Item = (SubjectKey, u64)> + '_ {
        self.ids.iter().map(move |(&(kind, id), bits)| (SubjectKey { generation, kind, id }, *bits))
    }

    /// Prefix length in bits (of the whole key), key and value. A longest-prefix lookup finds one entry, so each says what
    /// all say that contain it.
    pub(crate) fn sub_users(&self, generation: u32) -> impl Iterator<Item = (u32, SubUserKey, SubUser)> + '_ {
        self.sub_users.keys().map(move |net| {
            let key = SubUserKey { generation, uid: net.network().octets() };
            (SubUserKey::FIXED_BITS + u32::from(net.prefix_len()), key, self.sub_user(*net))
        })
    }

    pub(crate) fn paths(&self, generation: u32) -> impl Iterator<Item = (CgroupPath, u64)> + '_ {
        self.paths.iter().map(move |(text, bits)| {
            let mut path = [0; CGROUP_PATH_BYTES];
            path.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
            (CgroupPath { generation, reserved: 0, path }, *bits)
        })
    }

    /// As for [`sub_users`](Self::sub_users).
    pub(crate) fn units(&self, generation: u32) -> impl Iterator<Item = (u32, UnitName, u64)> + '_ {
        self.units.keys().map(move |pattern| {
            let containing = self.units.iter().filter(|(other, _)| other.contains(pattern));
            let (bits, key) = pattern.key(generation);
            (bits, key, containing.fold(0, |all, (_, subjects)| all | subjects))
        })
    }

    /// What all prefixes say that contain this one.
    fn sub_user(&self, net: Ipv4Net) -> SubUser {
        let mut all = SubUser::default();
        for bits in 0..=net.prefix_len() {
            let containing = Ipv4Net::new(net.network(), bits).ok().map(|wider| wider.trunc());
            if let Some(found) = containing.and_then(|wider| self.sub_users.get(&wider)) {
                all.subjects |= found.subjects;
                all.owner = found.owner;
            }
        }
        all
    }
}

fn prefixes(range: &SubUids) -> Ipv4Subnets {
    let end = range.start.saturating_add(range.count.saturating_sub(1));
    Ipv4Subnets::new(range.start.into(), end.into(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(ranges: &[(u32, u32, u32)]) -> SubjectRule {
        let sub_uids = ranges.iter().map(|&(owner, start, count)| SubUids { owner, start, count }).collect();
        SubjectRule { sub_uids, ..SubjectRule::default() }
    }

    #[test]
    fn every_id_of_a_range_is_its_owners_and_none_beside_it() {
        let mut governed = Governed::default();
        governed.add(&subject(&[(1000, 100_001, 65_536)]), 0b1);
        for (uid, subjects) in
            [(100_000, 0), (100_001, 1), (131_072, 1), (165_536, 1), (165_537, 0), (1000, 0)]
        {
            assert_eq!(governed.of_user(uid), subjects, "{uid}");
        }
        assert!(governed.sub_users(7).all(|(_, key, user)| key.generation == 7 && user.owner == 1000));
    }

    #[test]
    fn a_range_within_another_belongs_to_both_subjects() {
        let mut governed = Governed::default();
        governed.add(&subject(&[(1000, 65_536, 65_536)]), 0b01);
        governed.add(&subject(&[(1001, 65_536, 256)]), 0b10);
        let narrow = governed.sub_users(1).find(|(bits, _, _)| *bits == SubUserKey::FIXED_BITS + 24).unwrap();
        assert_eq!((narrow.2.subjects, narrow.2.owner), (0b11, 1001));
        assert_eq!((governed.of_user(65_600), governed.of_user(70_000)), (0b11, 0b01));
    }

    #[test]
    fn sub_uids_count_as_their_user_whoever_is_governed_by_place() {
        let units = vec![UnitPattern::parse("user-*.slice").unwrap()];
        let mut governed = Governed::default();
        governed.add(&SubjectRule { units, ..SubjectRule::default() }, 1);
        governed.own(&[SubUids { owner: 61_001, start: 165_536, count: 65_536 }]);
        let user = governed.sub_user(Ipv4Net::from(Ipv4Addr::from(165_537)));
        assert_eq!((user.owner, user.subjects), (61_001, 0));
        assert!(governed.is_empty(), "nobody is governed by a sub-uid");
        assert_eq!(governed.looks(), LOOKS_AT_CGROUPS | LOOKS_AT_SUB_USERS);
    }

    #[test]
    fn more_sub_uids_than_fit_refuse_no_rules_and_push_out_none_of_the_governed() {
        let mut governed = Governed::default();
        governed.add(&subject(&[(1000, 65_536, 65_536)]), 1);
        let others =
            |index: u32| SubUids { owner: 2000 + index, start: 65_535 + index * 65_536, count: 65_536 };
        let others: Vec<_> = (0..2_000).map(others).collect();
        governed.own(&others);
        governed.fits().unwrap();
        assert_eq!(governed.of_user(70_000), 1);
        assert_eq!(governed.sub_user(Ipv4Net::from(Ipv4Addr::from(65_535))).owner, 2000);
    }

    #[test]
    fn the_programs_look_for_what_rules_name_and_nothing_else() {
        let looks = |subject: SubjectRule| {
            let mut governed = Governed::default();
            governed.add(&subject, 1);
            governed.looks()
        };
        assert_eq!(looks(SubjectRule::default()), 0);
        assert_eq!(looks(SubjectRule { uids: vec![1], ..SubjectRule::default() }), LOOKS_AT_USERS);
        assert_eq!(looks(SubjectRule { gids: vec![1], ..SubjectRule::default() }), LOOKS_AT_GROUPS);
        assert_eq!(looks(subject(&[(1, 100_000, 9)])), LOOKS_AT_SUB_USERS);
        let cgroups = vec!["/ci".to_owned()];
        assert_eq!(looks(SubjectRule { cgroups, ..SubjectRule::default() }), LOOKS_AT_CGROUPS);
    }

    #[test]
    fn a_cgroup_is_found_by_path_and_by_unit() {
        let mut governed = Governed::default();
        let by_path = SubjectRule { cgroups: vec!["/ci".to_owned()], ..SubjectRule::default() };
        let units = vec![UnitPattern::parse("ci-*.scope").unwrap()];
        governed.add(&by_path, 0b01);
        governed.add(&SubjectRule { units, ..SubjectRule::default() }, 0b10);
        assert_eq!(governed.found("/ci", 7), Some(0b01));
        assert_eq!(governed.found("/system.slice/ci-1.scope", 8), Some(0b10));
        assert_eq!(governed.found("/ci/inner", 9), None);
        assert_eq!(governed.of_id(SubjectKind::Cgroup, 8), 0b10);
    }
}
