//! What issuers publish, kept over restarts, so that their keys are there while they cannot be asked.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::ledger::replace;

/// A directory with a file an issuer.
#[derive(Debug, Clone)]
pub(crate) struct Shelf(PathBuf);

/// What an issuer published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Published {
    /// The issuer's URL.
    pub(crate) issuer: String,
    /// When it was fetched, in seconds since 1970.
    pub(crate) fetched: i64,
    /// Its metadata, as it was answered.
    pub(crate) metadata: String,
    /// Its key set, as it was answered.
    pub(crate) keys: String,
}

impl Shelf {
    /// Below this directory.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let own = directory.join("keys");
        fs::create_dir_all(&own)?;
        Ok(Self(own))
    }

    /// What is kept of an issuer; what cannot be read is fetched again.
    pub(crate) fn get(&self, issuer: &str) -> Option<Published> {
        let text = fs::read(self.path(issuer)).ok()?;
        serde_json::from_slice(&text).ok().filter(|published: &Published| published.issuer == issuer)
    }

    /// Keeps it. Blocks.
    pub(crate) fn put(&self, published: &Published) -> io::Result<()> {
        replace(&self.path(&published.issuer), &serde_json::to_vec(published)?)
    }

    /// Named by a digest: a URL is no file name.
    fn path(&self, issuer: &str) -> PathBuf {
        self.0.join(format!("{}.json", hex::encode(digest(&SHA256, issuer.as_bytes()))))
    }
}
