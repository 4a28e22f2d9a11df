//! The seam to the record store.

use std::{path::Path, sync::Arc};

use tidegate_gate::Records;
use tidegate_records::{Settings, Store, SyncMode};

/// Opens the store of this directory, or begins it. `host` names the log in its checkpoints.
pub(crate) fn open(directory: &Path, host: &str) -> Result<Arc<dyn Records>, String> {
    let settings = Settings {
        directory: directory.into(),
        sync: SyncMode::default(),
        origin: host.split(|c: char| c.is_whitespace() || c == '+').collect(),
    };
    Store::open(settings).map(|store| Arc::new(store) as Arc<dyn Records>).map_err(|error| error.to_string())
}
