//! What lasts over reloads of the bundle: what accounts have of a resource, its tokens, and what its files were last.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{
    shares::Shares,
    sign_in::{Grant, Kept},
};

/// What servers of one resource have in common, those of a bundle that is being left included.
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    shares: Common<Arc<str>, Shares>,
    tokens: Common<(Arc<str>, Grant), Kept>,
    files: Common<Arc<str>, Latest>,
}

/// What the files were that a resource was last configured with.
#[derive(Debug, Default)]
pub(crate) struct Latest(Mutex<Option<Files>>);

/// A digest of the files that a resource names, and that are read when it is configured.
pub(crate) type Files = [u8; 32];

impl Latest {
    pub(crate) fn is(&self, files: &Files) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(files)
    }

    pub(crate) fn set(&self, files: Files) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(files);
    }
}

impl Lasting {
    /// The shares of a resource.
    pub(crate) fn shares(&self, resource: &Arc<str>) -> Arc<Shares> {
        self.shares.get(resource.clone())
    }

    /// What a resource's files were last.
    pub(crate) fn files(&self, resource: &Arc<str>) -> Arc<Latest> {
        self.files.get(resource.clone())
    }

    /// What was got for a resource by this grant.
    pub(crate) fn tokens(&self, resource: &Arc<str>, grant: &Grant) -> Arc<Kept> {
        self.tokens.get((resource.clone(), grant.clone()))
    }
}

/// Things that are kept for as long as somebody has them.
#[derive(Debug)]
struct Common<K, T>(Mutex<HashMap<K, Weak<T>>>);

impl<K: Eq + Hash, T: Default> Common<K, T> {
    fn get(&self, key: K) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, known| known.strong_count() > 0);
        let new = Arc::new(T::default());
        all.insert(key, Arc::downgrade(&new));
        new
    }
}

impl<K, T> Default for Common<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_has_one_set_of_shares_however_often_it_is_configured_and_another_has_its_own() {
        let lasting = Lasting::default();
        let (one, other) = ("one".into(), "other".into());
        let (before, after) = (lasting.shares(&one), lasting.shares(&one));
        let share = before.of(1);
        assert!(Arc::ptr_eq(&share, &after.of(1)));
        assert!(!Arc::ptr_eq(&share, &lasting.shares(&other).of(1)));
        drop((before, after));
        assert!(!Arc::ptr_eq(&share, &lasting.shares(&one).of(1)), "nobody has it any more");
        assert_eq!(lasting.shares.0.lock().unwrap().len(), 1);
    }
}
