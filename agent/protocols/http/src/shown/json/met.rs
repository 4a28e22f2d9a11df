//! Names that a body has again and again, and how what stands under them is shown.

use std::sync::Arc;

use tidegate_gate::policy::Show;

/// How many names of a body are remembered, how many of one object, and how long they may be.
const MOST: usize = 256;
const MOST_OF_ONE: usize = 64;
const LONGEST: usize = 128;

/// Addresses that were met, as a tree of names: the objects of a list have the same again and again.
#[derive(Debug)]
pub(super) struct Met(Vec<Address>);

/// An address that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known(usize);

#[derive(Debug)]
struct Address {
    /// How what stands there is shown, if it is masked.
    show: Option<Arc<Show>>,
    /// The names under it.
    names: Vec<(Box<str>, Known)>,
    /// The one that should come next: in most lists they keep their order.
    next: usize,
}

impl Met {
    /// Nothing but the whole body, of which no mask can hide anything but by its content.
    pub(super) fn new(show: Option<Arc<Show>>) -> (Self, Known) {
        (Self(vec![Address { show, names: Vec::new(), next: 0 }]), Known(0))
    }

    /// How what stands at an address is shown, if it is masked.
    pub(super) fn show(&self, at: Known) -> Option<&Arc<Show>> {
        self.0.get(at.0)?.show.as_ref()
    }

    /// A name under an address, if it was met before.
    pub(super) fn name(&mut self, at: Known, name: &[u8]) -> Option<(&str, Known)> {
        let address = self.0.get_mut(at.0)?;
        let (before, behind) = address.names.split_at_checked(address.next).unwrap_or((&[], &address.names));
        let is_it = |(known, _): &(Box<str>, Known)| known.as_bytes() == name;
        let found = match behind.iter().position(is_it) {
            Some(found) => before.len() + found,
            None => before.iter().position(is_it)?,
        };
        address.next = found + 1;
        address.names.get(found).map(|(known, under)| (&**known, *under))
    }

    /// Remembers a name in which nothing is masked, if there is room.
    pub(super) fn remember(&mut self, at: Known, name: &str, show: Option<&Arc<Show>>) -> Option<Known> {
        let under = Known(self.0.len());
        let address = self.0.get_mut(at.0)?;
        if under.0 >= MOST || address.names.len() >= MOST_OF_ONE || name.len() > LONGEST {
            return None;
        }
        address.names.push((name.into(), under));
        address.next = address.names.len();
        self.0.push(Address { show: show.cloned(), names: Vec::new(), next: 0 });
        Some(under)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_where_it_was_met_and_nowhere_else_in_whatever_order() {
        let (mut met, body) = Met::new(None);
        let show = Arc::new(Show::Token);
        let card = met.remember(body, "card", Some(&show)).unwrap();
        let name = met.remember(body, "name", None).unwrap();
        for _ in 0..2 {
            assert_eq!(met.name(body, b"name"), Some(("name", name)));
            assert_eq!(met.name(body, b"card"), Some(("card", card)));
        }
        assert_eq!(met.name(card, b"card"), None);
        assert_eq!(met.name(body, b"car"), None);
        assert!(met.show(card) == Some(&show) && met.show(name).is_none() && met.show(body).is_none());
    }

    #[test]
    fn whoever_makes_up_names_fills_no_memory() {
        let (mut met, body) = Met::new(None);
        let first = met.remember(body, "0", None).unwrap();
        let of_one = (1..1000).filter(|number| met.remember(body, &number.to_string(), None).is_some());
        assert_eq!(of_one.count(), MOST_OF_ONE - 1);
        let mut at = first;
        let deep = (0..1000).filter(|_| met.remember(at, "x", None).inspect(|under| at = *under).is_some());
        assert_eq!(deep.count(), MOST - MOST_OF_ONE - 1);
        assert!(met.remember(first, &"x".repeat(LONGEST + 1), None).is_none());
    }
}
