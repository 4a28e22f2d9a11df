//! Texts that were understood before.

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    mem,
    sync::{Arc, PoisonError, RwLock},
};

use super::{key::key, statement::Statements};

/// Understood texts of one database, shared by its sessions: by their exact text, and by their key where literals don't
/// matter. Bounded by what they weigh: each shard keeps two generations, and drops the older when the younger is full.
#[derive(Debug)]
pub(crate) struct Shapes {
    hasher: RandomState,
    shards: Box<[RwLock<Shard>]>,
    /// Bytes that one generation of one shard may hold, about.
    limit: usize,
}

#[derive(Debug, Default)]
struct Shard {
    /// The catalog's generation that all entries were resolved against.
    catalog: u64,
    young: HashMap<Box<[u8]>, Arc<Statements>>,
    old: HashMap<Box<[u8]>, Arc<Statements>>,
    bytes: usize,
}

const SHARDS: usize = 16;

/// Longer texts aren't kept: parsing them is a small part of what running them costs.
const LONGEST: usize = 16 << 10;

/// What does more than this many bytes tell isn't kept either.
const HEAVIEST: usize = 64 << 10;

/// What an entry costs beside its text and what that does, in bytes, about.
const OVERHEAD: usize = 256;

thread_local! {
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Shapes {
    /// Remembers about this many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { hasher: RandomState::new(), shards, limit: bytes / SHARDS / 2 }
    }

    /// What the text does, if it or one that differs only in literals was understood at this generation of the catalog.
    /// Not to be asked for a session with an overlay.
    pub(crate) fn get(&self, text: &str, generation: u64) -> Option<Arc<Statements>> {
        if text.len() > LONGEST {
            return None;
        }
        self.exact(text.as_bytes(), generation).or_else(|| {
            KEY.with_borrow_mut(|normal| {
                key(text.as_bytes(), normal).then(|| self.exact(normal, generation)).flatten()
            })
        })
    }

    /// Remembers what a text does. Doubtful ones are left out, and what is too long or too heavy.
    pub(crate) fn insert(&self, text: &str, statements: &Arc<Statements>, generation: u64) {
        if text.len() > LONGEST || statements.weight > HEAVIEST || statements.doubtful {
            return;
        }
        let normal = KEY.with_borrow_mut(|normal| {
            (!statements.literals_matter && key(text.as_bytes(), normal)).then(|| normal.as_slice().into())
        });
        let kept: Box<[u8]> = normal.unwrap_or_else(|| text.as_bytes().into());
        if let Some(shard) = self.shard(&kept) {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            if shard.catalog != generation {
                *shard = Shard { catalog: generation, ..Shard::default() };
            }
            if shard.bytes > self.limit {
                shard.old = mem::take(&mut shard.young);
                shard.bytes = 0;
            }
            shard.bytes += kept.len() + statements.weight + OVERHEAD;
            shard.young.insert(kept, statements.clone());
        }
    }

    fn exact(&self, text: &[u8], generation: u64) -> Option<Arc<Statements>> {
        let shard = self.shard(text)?.read().unwrap_or_else(PoisonError::into_inner);
        if shard.catalog != generation {
            return None;
        }
        shard.young.get(text).or_else(|| shard.old.get(text)).cloned()
    }

    fn shard(&self, text: &[u8]) -> Option<&RwLock<Shard>> {
        self.shards.get(usize::try_from(self.hasher.hash_one(text) % SHARDS as u64).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::tests::{shop, understood};

    #[test]
    fn a_statement_with_other_literals_is_known_and_keeps_its_shape() {
        let (shapes, catalog) = (Shapes::new(1 << 20), shop());
        let known = understood("select name from customers where id = 1", &catalog);
        shapes.insert("select name from customers where id = 1", &known, 0);
        let found = shapes.get("select name from customers where id = 22", 0).unwrap();
        assert!(Arc::ptr_eq(&known.shape, &found.shape));
        assert!(shapes.get("select name from customers where id = '1'", 0).is_none());
        assert!(shapes.get("select name from customers where id = 1", 1).is_none());
    }

    #[test]
    fn where_literals_matter_only_the_same_text_is_known() {
        let (shapes, catalog) = (Shapes::new(1 << 20), shop());
        for text in ["select name, email from customers order by 1", "set datestyle = 'ISO'"] {
            shapes.insert(text, &understood(text, &catalog), 0);
            assert!(shapes.get(text, 0).is_some());
        }
        assert!(shapes.get("select name, email from customers order by 2", 0).is_none());
        assert!(shapes.get("set datestyle = 'SQL'", 0).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let (shapes, catalog) = (Shapes::new(256 << 10), shop());
        let known = understood("select 1", &catalog);
        for n in 0..5000 {
            shapes.insert(&format!("select a{n}"), &known, 0);
        }
        let held: usize = shapes
            .shards
            .iter()
            .map(|s| {
                let s = s.read().unwrap();
                s.young.len() + s.old.len()
            })
            .sum();
        assert!(held < 600, "{held}");
    }

    #[test]
    fn what_is_remembered_of_wide_results_is_bounded_by_what_they_weigh() {
        let (shapes, catalog) = (Shapes::new(1 << 20), shop());
        let stars = ["*"; 80].join(", ");
        for n in 0..500 {
            let text = format!("select {stars}, 1 as a{n} from customers");
            shapes.insert(&text, &understood(&text, &catalog), 0);
        }
        let weight = |shard: &Shard| -> usize {
            shard.young.values().chain(shard.old.values()).map(|known| known.weight).sum()
        };
        let held: usize = shapes.shards.iter().map(|shard| weight(&shard.read().unwrap())).sum();
        assert!((256 << 10..2 << 20).contains(&held), "{held}");
    }

    #[test]
    fn what_tells_much_in_few_words_is_not_remembered() {
        let (shapes, catalog) = (Shapes::new(64 << 20), shop());
        let text = format!("select {} from customers", ["*"; 400].join(", "));
        shapes.insert(&text, &understood(&text, &catalog), 0);
        assert!(shapes.get(&text, 0).is_none());
    }

    #[test]
    #[ignore = "a measurement: run with --release"]
    fn measure_a_lookup() {
        let (shapes, catalog) = (Shapes::new(1 << 20), shop());
        let text = "SELECT name FROM customers WHERE id = 12345 AND name = 'abc'";
        shapes.insert(text, &understood(text, &catalog), 0);
        let start = std::time::Instant::now();
        for _ in 0..1_000_000 {
            assert!(shapes.get(text, 0).is_some());
        }
        println!("{} ns per lookup", start.elapsed().as_nanos() / 1_000_000);
    }
}
