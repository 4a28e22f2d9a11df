//! The attached programs and what the agent asks of them.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use aya::Ebpf;
use tidegate_abi::{Counter, Listeners};

use crate::captured::{self, Captured};
use crate::cgroup::Hierarchy;
use crate::log::LogReader;
use crate::rules::{Compiled, Rules, SubjectBits};
use crate::tables::{CounterTable, HandoffTable, RuleTables};
use crate::{KernelError, programs, running};

/// The programs, attached from [`load`](Self::load) until this is dropped. Dropping it frees the governed.
pub struct Kernel {
    /// Cookie of the agent's own network namespace.
    netns: u64,
    rules: Mutex<State>,
    handoffs: Mutex<HandoffTable>,
    counters: CounterTable,
    hierarchy: Hierarchy,
    /// Dropped before the log that its programs write.
    _programs: Ebpf,
    _log: LogReader,
}

/// The rules in force.
struct State {
    tables: RuleTables,
    bits: SubjectBits,
    /// Subjects of the active generation.
    active: u64,
}

/// What the programs counted since they were loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP connects sent to the gate.
    pub redirected: u64,
    /// Connects and datagrams passed untouched.
    pub passed: u64,
    /// Connects, datagrams and sockets refused.
    pub refused: u64,
    /// Processes that could not be labelled.
    pub labels_full: u64,
    /// Connections that could not be handed off.
    pub handoffs_full: u64,
    /// Refusals left out of the log.
    pub unlogged: u64,
}

impl Kernel {
    /// Loads and attaches the programs at the cgroup v2 root. Nothing is governed before the first
    /// [`replace`](Self::replace). Their log is read by a task on the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel lacks something, or privilege is missing: see [`probe`](crate::probe).
    pub fn load() -> Result<Self, KernelError> {
        let hierarchy = Hierarchy::find()?;
        let mut object = programs::load()?;
        let log = LogReader::start(&mut object)?;
        let tables = RuleTables::take(&mut object)?;
        let handoffs = HandoffTable::take(&mut object)?;
        let counters = CounterTable::take(&mut object)?;
        let netns = own_netns_cookie()?;
        programs::attach(&mut object, &hierarchy)?;
        tracing::debug!(compiled_with = programs::TOOLCHAIN, "eBPF programs attached");
        Ok(Self {
            netns,
            rules: Mutex::new(State { tables, bits: SubjectBits::default(), active: 0 }),
            handoffs: Mutex::new(handoffs),
            counters,
            hierarchy,
            _programs: object,
            _log: log,
        })
    }

    /// Says where the agent listens in its own network namespace: on 127.0.0.1 and on ::1. Until then, and in every other
    /// namespace, connects that would be redirected are refused.
    pub fn listen(&self, v4_port: u16, v6_port: u16) -> Result<(), KernelError> {
        lock(&self.rules).tables.set_listeners(self.netns, Listeners { v4: v4_port, v6: v6_port })
    }

    /// Puts a whole new generation of rules into force, then labels the running processes that it governs.
    ///
    /// Processes keep labels that they have: one that a changed subject no longer names stays that subject's until it
    /// ends, and is free once no subject of that name exists.
    ///
    /// # Errors
    ///
    /// The rules before stay in force, unless the error came from labelling running processes.
    pub fn replace(&self, rules: &Rules) -> Result<(), KernelError> {
        let mut state = lock(&self.rules);
        let State { tables, bits, active } = &mut *state;
        let number = tables.active()?.checked_add(1).ok_or_else(|| {
            KernelError::Rules(
                "the rules were replaced more often than can be counted: restart the agent".to_owned(),
            )
        })?;
        let compiled = Compiled::new(rules, number, bits)?;
        tables.swap(&compiled)?;
        *active = compiled.generation.subjects;
        let labelled = running::label(tables, &compiled, &self.hierarchy)?;
        tracing::debug!(
            generation = number,
            subjects = compiled.subjects.len(),
            destinations = compiled.destinations.len(),
            labelled,
            "kernel rules replaced"
        );
        Ok(())
    }

    /// The origin of an accepted connection, given both its ends. It can be had once; none means that the kernel
    /// redirected no such connection, and it must be closed.
    pub fn origin(&self, client: SocketAddr, listener: SocketAddr) -> Result<Option<Captured>, KernelError> {
        let Some(handoff) = lock(&self.handoffs).remove(&captured::key(self.netns, client, listener))? else {
            return Ok(None);
        };
        let state = lock(&self.rules);
        Ok(Some(Captured::new(&handoff, &state.bits, state.active)))
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
        })
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

/// Cookie of this process's network namespace (`SO_NETNS_COOKIE`, Linux 5.14).
pub(crate) fn own_netns_cookie() -> Result<u64, KernelError> {
    let failed = |error| KernelError::System { what: "the network namespace's cookie", error };
    // Never sent from, only asked.
    let socket = UdpSocket::bind(("127.0.0.1", 0)).map_err(failed)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and value and length are valid for writes of their sizes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(cookie)
}
