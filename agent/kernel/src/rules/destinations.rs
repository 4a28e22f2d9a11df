//! Destinations as the kernel looks them up, by the longest prefix, and how they change one by one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tidegate_abi::{Address, Destination as Entry, DestinationKey, MAX_DESTINATIONS, V4_MAPPED_PREFIX};

use super::{Destination, Learned, PassRule, SubjectBits, bounded};
use crate::KernelError;

/// Prefix length in bits (of the whole key), key and value.
pub(crate) type Row = (u32, DestinationKey, Entry);

/// What rules say of each prefix, apart from what they say of those that contain it.
pub(crate) type Table = BTreeMap<Prefix, Entry>;

/// The destinations in force, to be changed one by one.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    pub(super) generation: u32,
    pub(super) declared: Table,
    pub(super) learned: Table,
}

/// What changes between two states of [`Destinations`].
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) written: Vec<Row>,
    pub(crate) removed: Vec<(u32, DestinationKey)>,
    learned: Table,
}

impl Destinations {
    /// What changes if this is all that is learned.
    pub(crate) fn learn(&self, learned: &Learned, bits: &SubjectBits) -> Result<Change, KernelError> {
        let learned = table(&learned.resources, &learned.passes, bits)?;
        bounded("destinations", self.declared.len() + learned.len(), MAX_DESTINATIONS / 2)?;
        let written = learned.iter().filter(|(prefix, entry)| self.learned.get(prefix) != Some(entry));
        let written = written.map(|(prefix, _)| *prefix);
        let gone = self.learned.keys().filter(|prefix| !learned.contains_key(prefix)).copied();
        let mut change = Change::default();
        for prefix in written.chain(gone) {
            let (bits, key, entry) = row(prefix, self.generation, [&self.declared, &learned]);
            if learned.contains_key(&prefix) || self.declared.contains_key(&prefix) {
                change.written.push((bits, key, entry));
            } else {
                change.removed.push((bits, key));
            }
        }
        change.learned = learned;
        Ok(change)
    }

    /// Takes note that it is about to be made: until it was, what it writes is neither there nor not there.
    pub(crate) fn trying(&mut self, change: &Change) {
        for (prefix, entry) in &change.learned {
            if self.learned.get(prefix) != Some(entry) {
                self.learned.insert(*prefix, Entry::default());
            }
        }
    }

    /// Takes note that it was made.
    pub(crate) fn changed(&mut self, change: Change) {
        self.learned = change.learned;
    }
}

/// One prefix of the table of one port (zero: any).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    port: u16,
    pub(super) bits: u8,
    pub(super) address: u128,
}

impl Prefix {
    pub(super) fn new(net: IpNet, port: u16) -> Self {
        let bits = net.prefix_len() + if net.addr().is_ipv4() { 96 } else { 0 };
        Self { port, bits, address: u128::from_be_bytes(mapped(net.addr())) }.cut(bits)
    }

    /// The prefix of the same port that is `bits` long and contains this one.
    fn cut(self, bits: u8) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        Self { port: self.port, bits, address: self.address & mask }
    }
}

/// An address as the kernel side has it.
pub(crate) fn mapped(address: IpAddr) -> Address {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut mapped = [0; 16];
            let (prefix, rest) = mapped.split_at_mut(V4_MAPPED_PREFIX.len());
            prefix.copy_from_slice(&V4_MAPPED_PREFIX);
            rest.copy_from_slice(&address.octets());
            mapped
        }
    }
}

/// What rules say of each of their prefixes.
pub(super) fn table(
    resources: &[Destination],
    passes: &[PassRule],
    bits: &SubjectBits,
) -> Result<Table, KernelError> {
    let mut own = Table::new();
    for resource in resources {
        if resource.port == 0 {
            return Err(KernelError::Rules(format!("resource address {}: port 0 is no port", resource.net)));
        }
        own.entry(Prefix::new(resource.net, resource.port)).or_default().redirect = 1;
    }
    for pass in passes {
        let entry = own.entry(Prefix::new(pass.net, pass.port.unwrap_or(0))).or_default();
        for name in &pass.subjects {
            entry.pass |= bits.get(name).ok_or_else(|| {
                KernelError::Rules(format!(
                    "{} is passed for subject {name:?}, which is not declared",
                    pass.net
                ))
            })?;
        }
    }
    Ok(own)
}

/// The entry of a prefix. A longest-prefix lookup finds one entry, so each says what all rules that contain it say.
pub(super) fn row(prefix: Prefix, generation: u32, tables: [&Table; 2]) -> Row {
    let mut entry = Entry::default();
    for shorter in 0..=prefix.bits {
        for containing in tables.iter().filter_map(|table| table.get(&prefix.cut(shorter))) {
            entry.pass |= containing.pass;
            entry.redirect |= containing.redirect;
        }
    }
    let key =
        DestinationKey { generation, port: prefix.port, address: prefix.address.to_be_bytes(), reserved: 0 };
    (DestinationKey::FIXED_BITS + u32::from(prefix.bits), key, entry)
}
