//! What the host's authority may vouch for, as its certificate says it (RFC 5280, 4.2.1.10).

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use serde::{Deserialize, Deserializer, de::Error as _};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

/// What clients on this host may call the listener itself.
pub(super) const HOST: &str = "localhost";

/// The names, each with all below it, and the ranges of addresses that an authority may vouch for beside this host's own. None
/// of either kind is any of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Within {
    names: Option<BTreeSet<Arc<str>>>,
    nets: Option<BTreeSet<IpNet>>,
}

impl Within {
    /// Reads `internal.example`, `10.0.0.0/8` and `192.0.2.7`; nothing at all is anything.
    pub(crate) fn parse(list: &[String]) -> Result<Self, String> {
        if list.is_empty() {
            return Ok(Self::default());
        }
        let (mut names, mut nets) = (BTreeSet::new(), BTreeSet::new());
        for text in list {
            match net(text) {
                Some(net) => _ = nets.insert(net.trunc()),
                None if text.split('.').all(is_label) => _ = names.insert(text.to_ascii_lowercase().into()),
                None => return Err(format!("{text:?} is no name: write internal.example or 10.0.0.0/8")),
            }
        }
        Ok(Self { names: Some(names), nets: Some(nets) })
    }

    /// What a certificate says; none if that can't be read.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let constraints = certificate.name_constraints().ok()?;
        let permitted = constraints.and_then(|constraints| constraints.value.permitted_subtrees.as_ref());
        let mut within = Self::default();
        for subtree in permitted.into_iter().flatten() {
            match subtree.base {
                GeneralName::DNSName(name) => {
                    let names = within.names.get_or_insert_default();
                    if name != HOST {
                        names.insert(name.into());
                    }
                }
                GeneralName::IPAddress(bytes) => {
                    let (net, nets) = (subnet(bytes)?, within.nets.get_or_insert_default());
                    if !own().contains(&net) {
                        nets.insert(net);
                    }
                }
                _ => {}
            }
        }
        Some(within)
    }

    /// What a certificate is to say; nothing, where anything may be vouched for.
    pub(super) fn constraints(&self) -> Option<NameConstraints> {
        let (names, nets) = (self.names.as_ref()?, self.nets.as_ref()?);
        let names = names.iter().map(|name| &**name).chain([HOST]);
        let nets = nets.iter().copied().chain(own());
        let cidr = |net: IpNet| {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(net.addr(), net.prefix_len()))
        };
        Some(NameConstraints {
            permitted_subtrees: names
                .map(|name| GeneralSubtree::DnsName(name.to_owned()))
                .chain(nets.map(cidr))
                .collect(),
            excluded_subtrees: Vec::new(),
        })
    }

    /// Whether it may vouch for anything of either kind.
    pub(crate) fn is_any(&self) -> bool {
        self.names.is_none() || self.nets.is_none()
    }

    /// Whether it may vouch for this name.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        let below = |zone: &Arc<str>| {
            name.strip_suffix(&**zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let Some(names) = &self.names else { return true };
        name == HOST || names.iter().any(below)
    }

    /// Whether it may vouch for all of these addresses.
    pub(crate) fn has_net(&self, net: &IpNet) -> bool {
        let Some(nets) = &self.nets else { return true };
        own().iter().chain(nets).any(|within| within.contains(net))
    }

    /// Whether it may vouch for this address.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        self.has_net(&address.into())
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.names {
            None => f.write_str("any name")?,
            Some(names) if names.is_empty() => f.write_str("no name but this host's own")?,
            Some(names) => {
                write!(f, "names at or below {}", names.iter().cloned().collect::<Vec<_>>().join(", "))?
            }
        }
        match &self.nets {
            None => f.write_str(" and any address"),
            Some(nets) if nets.is_empty() => f.write_str(" and no address but this host's own"),
            Some(nets) => {
                let nets: Vec<_> = nets.iter().map(IpNet::to_string).collect();
                write!(f, " and addresses in {}", nets.join(", "))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Within {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The listener's own addresses.
fn own() -> [IpNet; 2] {
    [
        Ipv4Net::new_assert([127, 0, 0, 0].into(), 8).into(),
        Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128).into(),
    ]
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A range, or a single address.
fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))
}

/// An address and its mask.
fn subnet(bytes: &[u8]) -> Option<IpNet> {
    let address = |bytes: &[u8]| -> Option<IpAddr> {
        let v4 = || Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?));
        v4().or_else(|| Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)))
    };
    let (of, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    IpNet::with_netmask(address(of)?, address(mask)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(list: &[&str]) -> Result<Within, String> {
        Within::parse(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_count_with_what_is_below_and_ranges_with_what_is_in_them() {
        let within = within(&["Internal", "10.0.0.0/8", "2001:db8::7"]).unwrap();
        for name in ["internal", "db.internal", "localhost"] {
            assert!(within.has_name(name), "{name}");
        }
        for name in ["notinternal", "internal.example", "example"] {
            assert!(!within.has_name(name), "{name}");
        }
        for net in ["10.1.0.0/16", "10.0.0.7/32", "2001:db8::7/128", "127.0.0.3/32", "::1/128"] {
            assert!(within.has_net(&net.parse().unwrap()), "{net}");
        }
        for net in ["0.0.0.0/0", "11.0.0.0/32", "2001:db8::/64", "::/0"] {
            assert!(!within.has_net(&net.parse().unwrap()), "{net}");
        }
    }

    #[test]
    fn without_an_entry_anything_may_be_vouched_for_and_with_one_of_a_kind_nothing_of_the_other() {
        assert!(within(&[]).unwrap().is_any());
        assert!(within(&[]).unwrap().has_name("example.com"));
        assert!(!within(&["internal"]).unwrap().has_address([192, 0, 2, 7].into()));
        assert!(!within(&["192.0.2.7"]).unwrap().has_name("example.com"));
    }

    #[test]
    fn what_is_neither_name_nor_range_is_told() {
        for wrong in ["*.internal", "", "internal.", "10.0.0.0/33", "a b"] {
            assert!(within(&[wrong]).unwrap_err().contains("internal.example or 10.0.0.0/8"), "{wrong}");
        }
    }
}
