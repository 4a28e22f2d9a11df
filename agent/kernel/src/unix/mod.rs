//! Unix sockets by name (`ebpf/unix`): where no LSM program can be asked, the only ones that governed processes connect to;
//! and on every kernel that has the hooks, those that lead to the agent.

mod attach;
mod folders;
mod ways;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, Map, MapData, RingBuf};
use tidegate_abi::shield::{UnixName, UnixWay};
use tidegate_abi::{Handoff, Identity, NS_PER_TICK};

use crate::cgroup::Hierarchy;
use crate::pins::Pins;
use crate::rules::{Rules, SubjectBits, mapped};
use crate::shield::{EventReader, Told};
use crate::tables::{found, named, replace_all};
use crate::{KernelError, Peer};

/// A Unix socket that is a resource, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixResource {
    /// What clients connect to.
    pub path: PathBuf,
    /// The agent's own socket, where it takes them instead.
    pub listener: PathBuf,
    /// The address of the same server.
    pub destination: SocketAddr,
}

/// The attached programs, as their agent has them. Dropped, they stay attached, as those of ebpf/programs do.
pub(crate) struct UnixHooks {
    ways: HashMap<MapData, UnixName, UnixWay>,
    peers: HashMap<MapData, u32, Identity>,
    /// Until somebody reads them; with a shield, that is who tells.
    events: Option<RingBuf<MapData>>,
    reader: Option<EventReader>,
    /// Where the agent answers everybody.
    own: Vec<PathBuf>,
    /// The resources in force.
    resources: Vec<UnixResource>,
}

impl UnixHooks {
    /// Attaches the programs, in the place of those that an earlier agent left. With a shield, that one decides who may be
    /// talked to.
    ///
    /// # Errors
    ///
    /// [`KernelError::Unix`] if the kernel lacks the hooks, or refuses a program.
    pub(crate) fn load(pins: &Pins, hierarchy: &Hierarchy, shielded: bool) -> Result<Self, KernelError> {
        attach::attach(pins, hierarchy, shielded)?;
        let pinned = |map: &'static str, place: PathBuf| MapData::from_pin(place).map_err(named(map));
        let own = pins.folder(attach::MAPS)?;
        let ways = Map::HashMap(pinned("UNIX_WAYS", own.join("UNIX_WAYS"))?);
        let peers = Map::HashMap(pinned("UNIX_PEERS", pins.maps()?.join("UNIX_PEERS"))?);
        let events = match shielded {
            true => None,
            false => {
                let events = Map::RingBuf(pinned("EVENTS", attach::events(pins)?)?);
                Some(events.try_into().map_err(named("EVENTS"))?)
            }
        };
        Ok(Self {
            ways: ways.try_into().map_err(named("UNIX_WAYS"))?,
            peers: peers.try_into().map_err(named("UNIX_PEERS"))?,
            events,
            reader: None,
            own: Vec::new(),
            resources: Vec::new(),
        })
    }

    /// Makes their events tracing events, and tells of them, by a task on the current Tokio runtime.
    pub(crate) fn read_events(&mut self, told: Told) -> Result<(), KernelError> {
        if let Some(events) = self.events.take() {
            self.reader = Some(EventReader::start(events, told)?);
        }
        Ok(())
    }

    /// From the next rules on, everybody may connect to these, which are the agent's.
    pub(crate) fn answer_at(&mut self, own: Vec<PathBuf>) {
        self.own = own;
    }

    /// Puts the rules' Unix sockets into force: what is new first, then without what is gone.
    pub(crate) fn replace(&mut self, rules: &Rules, bits: &SubjectBits) -> Result<(), KernelError> {
        let ways = ways::compile(rules, &self.own, bits)?;
        self.resources.clone_from(&rules.unix_resources);
        replace_all(&mut self.ways, &ways).map_err(named("UNIX_WAYS"))
    }

    /// What the programs knew of a process when it was sent to the agent, and the resource that leads to this listener; none
    /// if it wasn't sent, or nothing leads there any more.
    pub(crate) fn handoff(
        &self,
        peer: &Peer,
        listener: &Path,
        now: u64,
    ) -> Result<Option<(Handoff, &UnixResource)>, KernelError> {
        let Some(resource) = self.resources.iter().find(|resource| resource.listener == *listener) else {
            return Ok(None);
        };
        let identity = found(self.peers.get(&peer.pid, 0), "UNIX_PEERS")?;
        // An id passes from process to process.
        let same = |identity: &Identity| identity.started / NS_PER_TICK == peer.started;
        Ok(identity.filter(same).map(|identity| {
            let (address, port) = (mapped(resource.destination.ip()), resource.destination.port());
            (Handoff { identity, connected_at: now, address, port, ..Handoff::default() }, resource)
        }))
    }
}
