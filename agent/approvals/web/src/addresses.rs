//! How many connections each address has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Connections of one address at once.
const MOST: usize = 16;

/// How many connections each address has. Those that come by way of a proxy on this host are counted by that: loopback has no
/// limit of its own.
#[derive(Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection, counted until dropped.
pub(crate) struct Counted(Option<(Addresses, IpAddr)>);

impl Addresses {
    /// None if the address has as many as it may. Of IPv6, a network of 64 bits is one address: it is one host's to choose
    /// from.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Counted> {
        let address = match address.to_canonical() {
            address if address.is_loopback() => return Some(Counted(None)),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            address @ IpAddr::V4(_) => address,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= MOST {
            return None;
        }
        *count += 1;
        Some(Counted(Some((self.clone(), address))))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some((addresses, address)) = &self.0 else { return };
        let mut counts = addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_cannot_take_the_places_of_the_others() {
        let addresses = Addresses::default();
        let mut held: Vec<_> = (0..MOST).map(|_| addresses.enter(ip("192.0.2.1")).unwrap()).collect();
        assert!(addresses.enter(ip("192.0.2.1")).is_none());
        assert!(addresses.enter(ip("::ffff:192.0.2.1")).is_none());
        assert!(addresses.enter(ip("192.0.2.2")).is_some());
        held.pop();
        assert!(addresses.enter(ip("192.0.2.1")).is_some());
        drop(held);
        assert!(addresses.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_host_s_own_network_of_ipv6_is_one_address_and_loopback_is_none() {
        let addresses = Addresses::default();
        let held: Vec<_> =
            (0..MOST).map(|number| addresses.enter(ip(&format!("2001:db8::{number:x}"))).unwrap()).collect();
        assert!(addresses.enter(ip("2001:db8::ffff")).is_none());
        assert!(addresses.enter(ip("2001:db8:0:1::1")).is_some());
        drop(held);
        let held: Vec<_> = (0..2 * MOST).map(|_| addresses.enter(ip("127.0.0.1")).unwrap()).collect();
        drop(held);
    }
}
