//! The attached programs and what the agent asks of them.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io, mem, process};

use aya::maps::{MapData, RingBuf};
use nix::time::{ClockId, clock_gettime};
use tidegate_abi::{Agent, Counter, Handoff, Listeners};

use crate::beside::Beside;
use crate::captured::{self, Captured};
use crate::cgroup::Hierarchy;
use crate::log::{LogReader, ProgramLog};
use crate::netns::{self, Namespaces};
use crate::pins::{Pins, Removed};
use crate::rulebook::{CaughtUp, Rulebook};
use crate::rules::{Learned, Rules};
use crate::shield::{Protection, Told};
use crate::sockets::Iterators;
use crate::tables::{AgentTable, AskerTable, CounterTable, HandoffTable, ListenerTable};
use crate::unix::UnixResource;
use crate::{KernelError, Peer, programs, tables};

/// How old an announced question may be when it is read, in ns: the port may be another process's by then.
const ASKED_LATELY: u64 = 5_000_000_000;

/// The attached programs, as their agent has them. Dropped, they stay attached and in force: connections that would be
/// redirected are then refused. Only [`detach`](Self::detach) frees the governed. Programs that nobody was ever governed by
/// go with this.
pub struct Kernel {
    /// Cookie of the agent's own network namespace.
    netns: u64,
    rules: Rulebook,
    listeners: Mutex<ListenerTable>,
    handoffs: Mutex<HandoffTable>,
    askers: AskerTable,
    counters: CounterTable,
    agent: Mutex<AgentTable>,
    namespaces: Mutex<Option<RingBuf<MapData>>>,
    hierarchy: Hierarchy,
    adopted: bool,
    beside: Beside,
    log: Mutex<Log>,
    /// Held to the end: nobody else may adopt what this one uses.
    pins: Pins,
}

/// The programs' log.
enum Log {
    Unread(ProgramLog),
    Read(#[expect(dead_code, reason = "read for as long as it is held")] LogReader),
    /// Reading could not begin.
    Lost,
}

/// What the programs counted since they were first attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP connects sent to the gate.
    pub redirected: u64,
    /// Connects and datagrams that went where they were meant to.
    pub passed: u64,
    /// Connects, datagrams, sockets, ports and socket options refused.
    pub refused: u64,
    /// Processes that could not be labelled.
    pub labels_full: u64,
    /// Connections that could not be handed off.
    pub handoffs_full: u64,
    /// Refusals left out of the log.
    pub unlogged: u64,
    /// Packets that the guard dropped.
    pub dropped: u64,
}

impl Kernel {
    /// Attaches the programs at the cgroup v2 root, or adopts those that an earlier agent left there and puts this build's
    /// in their place. What was in force stays in force until the first [`replace`](Self::replace). Until the first
    /// [`live`](Self::live) connections are refused but where somebody keeps the earlier agent's listeners for this one.
    ///
    /// # Errors
    ///
    /// The kernel lacks something, or privilege is missing: see [`probe`](crate::probe).
    pub fn load(pins: Pins) -> Result<Self, KernelError> {
        let (hierarchy, netns, started) = (Hierarchy::find()?, own_netns_cookie()?, own_start()?);
        let mut object = programs::load(&pins)?;
        let log = ProgramLog::take(&mut object)?;
        let rules = Rulebook::take(&mut object, &pins)?;
        let mut listeners = ListenerTable::take(&mut object)?;
        // An earlier agent's sockets in other namespaces went with it.
        listeners.forget_all_but(netns)?;
        let handoffs = HandoffTable::take(&mut object)?;
        let askers = AskerTable::take(&mut object)?;
        let counters = CounterTable::take(&mut object)?;
        let namespaces = tables::take(&mut object, "NAMESPACES")?;
        let mut agent = AgentTable::take(&mut object)?;
        let adopted = rules.governs()?;
        // Connections go on to wait where an earlier agent's listeners are kept, for as long as its last sign of life lets them.
        agent.set(Agent { started, process: process::id(), ..agent.get()? })?;
        let mut kernel = Self {
            netns,
            rules,
            listeners: Mutex::new(listeners),
            handoffs: Mutex::new(handoffs),
            askers,
            counters,
            agent: Mutex::new(agent),
            namespaces: Mutex::new(Some(namespaces)),
            hierarchy,
            adopted,
            beside: Beside::detached(),
            log: Mutex::new(Log::Unread(log)),
            pins,
        };
        programs::attach(&mut object, &kernel.hierarchy, &kernel.pins)?;
        match Iterators::load(&kernel.pins) {
            Ok(iterators) => kernel.rules.end_by(iterators),
            Err(error) => tracing::debug!(%error, "sockets that were open before are ended by sock_diag"),
        }
        kernel.beside = Beside::load(&kernel.pins, &kernel.hierarchy);
        tracing::debug!(compiled_with = programs::TOOLCHAIN, adopted, "eBPF programs attached");
        Ok(kernel)
    }

    /// Has a task of the current Tokio runtime read the programs' log, from what was written while no agent ran, and tell of
    /// what the shield refuses.
    pub fn read_log(&self, told: Told) -> Result<(), KernelError> {
        let mut log = lock(&self.log);
        *log = match mem::replace(&mut *log, Log::Lost) {
            Log::Unread(log) => Log::Read(log.read()?),
            other => other,
        };
        self.beside.read_events(told)
    }

    /// Whether an earlier agent's programs and rules were found in force.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Cookie of the agent's own network namespace.
    pub fn netns(&self) -> u64 {
        self.netns
    }

    /// The other namespaces that governed processes are in, as they are seen; they can be had once.
    ///
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub fn namespaces(&self) -> Result<Option<Namespaces>, KernelError> {
        lock(&self.namespaces).take().map(Namespaces::new).transpose()
    }

    /// Says where the agent listens in another network namespace; without ports, that it doesn't any more.
    pub fn listen_in(&self, netns: u64, ports: Option<(u16, u16)>) -> Result<(), KernelError> {
        let mut listeners = lock(&self.listeners);
        match ports {
            Some((v4, v6)) => listeners.set(netns, Listeners { v4, v6 }),
            None => listeners.forget(netns),
        }
    }

    /// Every process that is labelled.
    pub fn labelled(&self) -> Vec<u32> {
        self.rules.labels().processes()
    }

    /// Where an earlier agent listened in this network namespace: on 127.0.0.1 and on ::1.
    pub fn earlier_ports(&self) -> Result<Option<(u16, u16)>, KernelError> {
        let listeners = lock(&self.listeners).get(self.netns)?;
        Ok(listeners.map(|Listeners { v4, v6 }| (v4, v6)))
    }

    /// A sign of life: connections are redirected for the next five seconds. To be repeated well within them.
    pub fn live(&self) -> Result<(), KernelError> {
        let seen = since_boot()?;
        let mut agent = lock(&self.agent);
        let known = agent.get()?;
        agent.set(Agent { seen, serving: 1, ..known })
    }

    /// From now on connections that would be redirected are refused at once.
    pub fn rest(&self) -> Result<(), KernelError> {
        let mut agent = lock(&self.agent);
        let known = agent.get()?;
        agent.set(Agent { serving: 0, ..known })
    }

    /// Takes everything down: what was governed no longer is.
    pub fn detach(self) -> Result<Removed, KernelError> {
        self.pins.remove()
    }

    /// Says where the agent listens in its own network namespace, on 127.0.0.1 and on ::1: over TCP for connections, over
    /// UDP at the same ports for DNS. Until then, and in every other namespace, what would be redirected is refused.
    pub fn listen(&self, v4_port: u16, v6_port: u16) -> Result<(), KernelError> {
        lock(&self.listeners).set(self.netns, Listeners { v4: v4_port, v6: v6_port })
    }

    /// Marks a listener as the agent's own. Connections are sent to such ones only: whoever takes the port once the agent is
    /// gone gets none.
    pub fn mark(&self, listener: &impl AsRawFd) -> Result<(), KernelError> {
        lock(&self.listeners).mark(listener)
    }

    /// Puts a whole new generation of rules into force. What a governed process does from now on is decided by them; what it
    /// had before is for [`catch_up`](Self::catch_up).
    ///
    /// # Errors
    ///
    /// The rules before stay in force.
    pub fn replace(&self, rules: &Rules) -> Result<(), KernelError> {
        self.rules.replace(rules, &self.beside, &self.hierarchy)
    }

    /// Labels the running processes that the rules in force govern and ends the sockets that they opened before, if others are
    /// governed than when that was last done. To be called after each [`replace`](Self::replace). It looks through all
    /// processes, and holds up nothing but the next replacement.
    ///
    /// Processes keep labels that they have: one that a changed subject no longer names stays that subject's until it
    /// ends, and is free once no subject of that name exists.
    pub fn catch_up(&self) -> CaughtUp {
        self.rules.catch_up(&self.hierarchy)
    }

    /// Replaces all that is learned, in the generation in force.
    ///
    /// # Errors
    ///
    /// What was learned before stays in force, and of what is new perhaps a part.
    pub fn learn(&self, learned: &Learned) -> Result<(), KernelError> {
        self.rules.learn(learned)
    }

    /// What this kernel can't be asked to shield; none if all of the shield is attached.
    pub fn unshielded(&self) -> Option<String> {
        self.beside.unshielded()
    }

    /// Why governed processes may connect to any Unix socket on this host; none if they may not.
    pub fn leaves_unix_open(&self) -> Option<String> {
        self.beside.leaves_unix_open()
    }

    /// From the next [`replace`](Self::replace) on, whoever is governed may connect to these Unix sockets, which are the
    /// agent's.
    pub fn answer_at(&self, sockets: Vec<PathBuf>) {
        self.beside.answer_at(sockets);
    }

    /// The Unix sockets that are resources, in the rules in force.
    pub fn unix_resources(&self) -> Vec<UnixResource> {
        self.beside.resources()
    }

    /// The origin of a connection that was accepted on a Unix socket of the agent's. None means that the kernel sent the
    /// process there no more often than it came, and the connection must be closed.
    pub fn unix_origin(&self, peer: &Peer, listener: &Path) -> Result<Option<Captured>, KernelError> {
        let Some((identity, resource)) = self.beside.take(peer, listener)? else { return Ok(None) };
        let now = since_boot()?;
        let subjects = self.rules.subjects();
        Ok(Some(Captured::by_unix_socket(&identity, resource, now, &subjects)))
    }

    /// Protects a file or folder of the agent's own, and all below it, from everybody governed, whatever user they have
    /// become. Without the shield this does nothing.
    pub fn protect(&self, path: &Path, protection: Protection) -> Result<(), KernelError> {
        self.beside.protect(path, protection)
    }

    /// The origin of an accepted connection, given its namespace and both its ends. It can be had once; none means that the
    /// kernel redirected no such connection, and it must be closed.
    pub fn origin(
        &self,
        netns: u64,
        client: SocketAddr,
        listener: SocketAddr,
    ) -> Result<Option<Captured>, KernelError> {
        let Some(handoff) = lock(&self.handoffs).remove(&captured::key(netns, client, listener))? else {
            return Ok(None);
        };
        Ok(Some(Captured::new(&handoff, &self.rules.subjects())))
    }

    /// Who sent a DNS question that has just arrived, and to which server it was meant to go; none if no governed process
    /// did, and it must not be answered.
    pub fn asker(
        &self,
        netns: u64,
        client: SocketAddr,
        listener: SocketAddr,
    ) -> Result<Option<Captured>, KernelError> {
        let asker = self.askers.get(&captured::key(netns, client, listener))?;
        let now = since_boot()?;
        let fresh = |asker: &Handoff| now.saturating_sub(asker.connected_at) <= ASKED_LATELY;
        let Some(asker) = asker.filter(fresh) else { return Ok(None) };
        Ok(Some(Captured::new(&asker, &self.rules.subjects())))
    }

    /// Makes room for the counts of other users, by those of whom nothing waits and nothing came since this was last called.
    pub fn tidy(&self) -> Result<(), KernelError> {
        lock(&self.handoffs).tidy()
    }

    /// Redirected connections that nobody has asked the origin of.
    pub fn waiting(&self) -> usize {
        lock(&self.handoffs).len()
    }

    /// What the programs counted.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let sums = self.counters.sums()?;
        let of = |counter: Counter| sums.get(counter as usize).copied().unwrap_or_default();
        Ok(Counters {
            redirected: of(Counter::Redirected),
            passed: of(Counter::Passed),
            refused: of(Counter::Refused),
            labels_full: of(Counter::LabelsFull),
            handoffs_full: of(Counter::HandoffsFull),
            unlogged: of(Counter::Unlogged),
            dropped: of(Counter::Dropped),
        })
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let governing = self.adopted || !matches!(self.rules.governs(), Ok(false));
        if !governing && let Err(error) = self.pins.remove() {
            tracing::warn!(%error, "programs that govern nobody stay attached");
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Kernel").field("hierarchy", &self.hierarchy).finish_non_exhaustive()
    }
}

/// A panic while a table was locked leaves it as the kernel has it, which is what counts.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Start of this process, in clock ticks since boot.
fn own_start() -> Result<u64, KernelError> {
    let stat = procfs::process::Process::myself().and_then(|process| process.stat());
    let failed =
        |error| KernelError::System { what: "this process's own start", error: io::Error::other(error) };
    stat.map(|stat| stat.starttime).map_err(failed)
}

/// Time since boot in ns, as the programs have it.
fn since_boot() -> Result<u64, KernelError> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_err(|errno| KernelError::System { what: "the clock", error: errno.into() })?;
    Ok(u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX))
}

/// Cookie of this process's network namespace.
pub(crate) fn own_netns_cookie() -> Result<u64, KernelError> {
    // Never sent from, only asked.
    let socket = UdpSocket::bind(("127.0.0.1", 0));
    let cookie = socket.and_then(|socket| netns::cookie(socket.as_fd()));
    cookie.map_err(|error| KernelError::System { what: "the network namespace's cookie", error })
}
