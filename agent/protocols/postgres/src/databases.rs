//! The databases that sessions are in, across bundles and resources.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{database::Facts, definitions::Definitions};

/// What is known of each database of each server, for as long as anybody is in it: a change of definitions counts for all
/// sessions there, whichever bundle they began under.
#[derive(Debug, Default)]
pub(crate) struct Databases(Mutex<HashMap<Location, Known>>);

/// Where a server is, and a database's name there.
pub(crate) type Location = (SocketAddr, Arc<str>);

#[derive(Debug)]
struct Known {
    facts: Weak<Facts>,
    /// Resources that have led there.
    resources: BTreeSet<Arc<str>>,
}

impl Databases {
    /// What is known of a database that a resource leads to. Each address has a catalog of its own; but several
    /// addresses of one resource may well be one server, or follow it: a change through one is a change for all.
    pub(crate) fn find(&self, address: SocketAddr, name: &Arc<str>, resource: &Arc<str>) -> Arc<Facts> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (address, name.clone());
        if let Some(known) = all.get_mut(&place)
            && let Some(facts) = known.facts.upgrade()
        {
            known.resources.insert(resource.clone());
            return facts;
        }
        all.retain(|_, known| known.facts.strong_count() > 0);
        let kin = all.iter().find(|((_, of), known)| of == name && known.resources.contains(resource));
        let kin = kin.and_then(|(_, known)| known.facts.upgrade());
        let definitions =
            kin.map_or_else(|| Arc::new(Definitions::default()), |kin| kin.definitions().clone());
        let facts = Arc::new(Facts::new(definitions));
        let resources = BTreeSet::from([resource.clone()]);
        all.insert(place, Known { facts: Arc::downgrade(&facts), resources });
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(all: &Databases, port: u16, name: &str, resource: &str) -> Arc<Facts> {
        all.find(SocketAddr::from(([127, 0, 0, 1], port)), &name.into(), &resource.into())
    }

    #[test]
    fn whatever_leads_to_a_database_finds_the_same_until_nobody_is_in_it() {
        let all = Databases::default();
        let first = find(&all, 1, "shop", "it");
        assert!(Arc::ptr_eq(&first, &find(&all, 1, "shop", "it, renamed")));
        assert!(!Arc::ptr_eq(&first, &find(&all, 1, "other", "it")));
        let gone = Arc::downgrade(&first);
        drop(first);
        assert!(gone.upgrade().is_none());
        find(&all, 1, "shop", "it");
    }

    #[test]
    fn addresses_of_one_resource_have_a_catalog_each_and_their_changes_in_common() {
        let all = Databases::default();
        let (one, other) = (find(&all, 1, "shop", "it"), find(&all, 2, "shop", "it"));
        assert!(!Arc::ptr_eq(&one, &other));
        assert!(Arc::ptr_eq(one.definitions(), other.definitions()));
        let apart = find(&all, 3, "shop", "another");
        assert!(!Arc::ptr_eq(one.definitions(), apart.definitions()));
    }
}
