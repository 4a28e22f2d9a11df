//! Processes that were sent to the agent's own Unix sockets: each may come there as often as it was sent.

use std::collections::HashMap as Table;

use aya::maps::{HashMap, MapData};
use tidegate_abi::shield::UnixPeer;
use tidegate_abi::{Identity, NS_PER_TICK};

use crate::tables::{found, gone, named};
use crate::{KernelError, Peer};

/// Processes that are remembered at least.
const REMEMBERED: usize = 1_024;

/// What the programs say of them, and how often each came.
pub(super) struct Peers {
    sent: HashMap<MapData, u32, UnixPeer>,
    /// By process id: its start in ns since boot, and how often it came. Only the programs write the map.
    came: Table<u32, (u64, u64)>,
    /// So many are remembered until those are forgotten that have ended.
    most: usize,
}

impl Peers {
    /// Forgets whom an earlier agent left: its sockets went with it, and nobody has been sent to this one's yet.
    pub(super) fn new(mut sent: HashMap<MapData, u32, UnixPeer>) -> Result<Self, KernelError> {
        let earlier: Vec<u32> = sent.keys().filter_map(Result::ok).collect();
        for pid in earlier {
            sent.remove(&pid).or_else(gone).map_err(named("UNIX_PEERS"))?;
        }
        Ok(Self { sent, came: Table::new(), most: REMEMBERED })
    }

    /// Who a process was when it was last sent; none if it came as often as it was sent.
    pub(super) fn take(&mut self, peer: &Peer) -> Result<Option<Identity>, KernelError> {
        let Some(UnixPeer { identity, sent }) = found(self.sent.get(&peer.pid, 0), "UNIX_PEERS")? else {
            return Ok(None);
        };
        // An id passes from process to process.
        if identity.started / NS_PER_TICK != peer.started {
            return Ok(None);
        }
        self.forget_ended();
        let came = self.came.entry(peer.pid).or_insert((identity.started, 0));
        if came.0 != identity.started {
            *came = (identity.started, 0);
        }
        if came.1 >= sent {
            return Ok(None);
        }
        came.1 += 1;
        Ok(Some(identity))
    }

    fn forget_ended(&mut self) {
        if self.came.len() < self.most {
            return;
        }
        let Self { sent, came, .. } = self;
        came.retain(|pid, (started, _)| {
            sent.get(pid, 0).is_ok_and(|known| known.identity.started == *started)
        });
        self.most = REMEMBERED.max(2 * self.came.len());
    }
}
