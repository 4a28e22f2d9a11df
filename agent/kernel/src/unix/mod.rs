//! Unix sockets by name (`ebpf/unix`): where no LSM program can be asked, the only ones that governed processes connect to;
//! and on every kernel that has the hooks, those that lead to the agent.

mod accounts;
mod attach;
mod folders;
mod peers;
mod ways;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::maps::{HashMap, Map, MapData, RingBuf};
use tidegate_abi::Identity;
use tidegate_abi::shield::{UnixName, UnixPath, UnixWay};

use self::accounts::Accounts;
pub(crate) use self::folders::Host;
use self::peers::Peers;
pub(crate) use self::ways::EVERYBODY;
use self::ways::{Compiler, Ways};
use crate::cgroup::Hierarchy;
use crate::governed::Governed;
use crate::pins::Pins;
use crate::rules::{Rules, SubjectBits};
use crate::shield::{EventReader, Told};
use crate::tables::{named, replace_all};
use crate::{KernelError, Lookups, Peer};

/// A Unix socket that is a resource, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixResource {
    /// What clients connect to.
    pub path: PathBuf,
    /// The agent's own socket, where it takes them instead.
    pub listener: PathBuf,
    /// The resource's name.
    pub resource: Arc<str>,
}

/// The attached programs, as their agent has them. Dropped, they stay attached, as those of ebpf/programs do.
pub(crate) struct UnixHooks {
    host: Host,
    ways: HashMap<MapData, UnixName, UnixWay>,
    gates: HashMap<MapData, UnixName, UnixPath>,
    peers: Peers,
    /// Until somebody reads them; with a shield, that is who tells.
    events: Option<RingBuf<MapData>>,
    reader: Option<EventReader>,
    /// The resources in force.
    resources: Vec<UnixResource>,
}

/// Rules in the programs' form.
#[derive(Debug)]
pub(crate) struct Compiled {
    ways: Ways,
    resources: Vec<UnixResource>,
}

impl Compiled {
    /// # Errors
    ///
    /// [`KernelError::Rules`] if what is a resource would be passed by another name, or there are too many.
    pub(crate) fn new(
        rules: &Rules,
        own: &[PathBuf],
        bits: &SubjectBits,
        governed: &Governed,
        (host, lookups): (Host, Lookups<'_>),
    ) -> Result<Self, KernelError> {
        let compiler = Compiler { host, accounts: Accounts::new(governed, lookups), bits };
        Ok(Self { ways: compiler.compile(rules, own)?, resources: rules.unix_resources.clone() })
    }
}

impl UnixHooks {
    /// Attaches the programs, in the place of those that an earlier agent left. With a shield that looks at listeners, that
    /// one decides who may be talked to; with any, it tells what is refused.
    ///
    /// # Errors
    ///
    /// [`KernelError::Unix`] if the kernel lacks the hooks, or refuses a program.
    pub(crate) fn load(
        pins: &Pins,
        hierarchy: &Hierarchy,
        shielded: bool,
        told_elsewhere: bool,
    ) -> Result<Self, KernelError> {
        let host = Host::new(attach::attach(pins, hierarchy, shielded)?);
        let pinned = |map: &'static str, place: PathBuf| MapData::from_pin(place).map_err(named(map));
        let own = pins.folder(attach::MAPS)?;
        let ways = Map::HashMap(pinned("UNIX_WAYS", own.join("UNIX_WAYS"))?);
        let gates = Map::HashMap(pinned("UNIX_GATES", own.join("UNIX_GATES"))?);
        let peers = Map::HashMap(pinned("UNIX_PEERS", pins.maps()?.join("UNIX_PEERS"))?);
        let events = match told_elsewhere {
            true => None,
            false => {
                let events = Map::RingBuf(pinned("EVENTS", attach::events(pins)?)?);
                Some(events.try_into().map_err(named("EVENTS"))?)
            }
        };
        Ok(Self {
            host,
            ways: ways.try_into().map_err(named("UNIX_WAYS"))?,
            gates: gates.try_into().map_err(named("UNIX_GATES"))?,
            peers: Peers::new(peers.try_into().map_err(named("UNIX_PEERS"))?)?,
            events,
            reader: None,
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

    /// What is in force.
    pub(crate) fn now(&self) -> Result<Compiled, KernelError> {
        let ways = self.ways.iter().collect::<Result<BTreeMap<_, _>, _>>().map_err(named("UNIX_WAYS"))?;
        let gates = self.gates.iter().collect::<Result<BTreeMap<_, _>, _>>().map_err(named("UNIX_GATES"))?;
        Ok(Compiled { ways: Ways { ways, gates }, resources: self.resources.clone() })
    }

    /// Puts rules into force: what is new first, then without what is gone.
    pub(crate) fn replace(&mut self, rules: Compiled) -> Result<(), KernelError> {
        let Compiled { ways: Ways { ways, gates }, resources } = rules;
        replace_all(&mut self.gates, &gates).map_err(named("UNIX_GATES"))?;
        replace_all(&mut self.ways, &ways).map_err(named("UNIX_WAYS"))?;
        self.resources = resources;
        Ok(())
    }

    /// How the host's files are to be looked at.
    pub(crate) fn host(&self) -> Host {
        self.host.clone()
    }

    /// The resources in force.
    pub(crate) fn resources(&self) -> &[UnixResource] {
        &self.resources
    }

    /// What the programs knew of a process when it was last sent to the agent, and the resource that leads to this listener;
    /// none if it wasn't sent once more than it came, or nothing leads there any more.
    pub(crate) fn take(
        &mut self,
        peer: &Peer,
        listener: &Path,
    ) -> Result<Option<(Identity, &UnixResource)>, KernelError> {
        let Some(resource) = self.resources.iter().find(|resource| resource.listener == *listener) else {
            return Ok(None);
        };
        Ok(self.peers.take(peer)?.map(|identity| (identity, resource)))
    }
}
