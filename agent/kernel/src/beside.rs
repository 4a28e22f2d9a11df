//! What is decided beside destinations: files and Unix sockets, by the shield and by the hooks on Unix sockets' names.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_abi::Identity;

use crate::cgroup::Hierarchy;
use crate::governed::Governed;
use crate::pins::Pins;
use crate::rules::{Rules, SubjectBits};
use crate::shield::{self, Protection, Shield, Told};
use crate::unix::{self, UnixHooks, UnixResource};
use crate::{Directory, KernelError, Peer};

/// As much of both as this kernel has.
pub(crate) struct Beside {
    state: Mutex<State>,
    users: Directory,
}

struct State {
    /// The LSM programs, or why there are none.
    shield: Result<Shield, KernelError>,
    /// The hooks on names of Unix sockets, or why there are none.
    unix: Result<UnixHooks, KernelError>,
    /// Where the agent answers everybody.
    own: Vec<PathBuf>,
}

/// What of a bundle, or of the one before, is decided beside destinations.
pub(crate) struct Compiled {
    shield: Option<shield::Compiled>,
    unix: Option<unix::Compiled>,
}

impl Beside {
    /// Nothing, yet.
    pub(crate) fn detached() -> Self {
        let why = || "it is not attached yet".to_owned();
        let (shield, unix) = (Err(KernelError::Shield(why())), Err(KernelError::Unix(why())));
        Self::new(State { shield, unix, own: Vec::new() })
    }

    /// Attaches what the kernel takes.
    pub(crate) fn load(pins: &Pins, hierarchy: &Hierarchy) -> Self {
        let shield = Shield::load(pins);
        let looks_at_listeners = shield.as_ref().is_ok_and(Shield::looks_at_listeners);
        let unix = UnixHooks::load(pins, hierarchy, looks_at_listeners, shield.is_ok());
        Self::new(State { shield, unix, own: Vec::new() })
    }

    fn new(state: State) -> Self {
        Self { state: Mutex::new(state), users: Directory::default() }
    }

    /// Makes what is refused tracing events, and tells of it, by a task on the current Tokio runtime.
    pub(crate) fn read_events(&self, told: Told) -> Result<(), KernelError> {
        match &mut *self.state() {
            State { shield: Ok(shield), .. } => shield.read_events(told),
            State { unix: Ok(unix), .. } => unix.read_events(told),
            State { .. } => Ok(()),
        }
    }

    /// What this kernel can't be asked to shield; none if all of the shield is attached.
    pub(crate) fn unshielded(&self) -> Option<String> {
        match &self.state().shield {
            Err(error) => Some(error.to_string()),
            Ok(shield) => match shield.without() {
                [] => None,
                hooks => Some(format!("the shield: this kernel has no hooks {}", hooks.join(", "))),
            },
        }
    }

    /// Why governed processes may connect to any Unix socket on this host; none if they may not.
    pub(crate) fn leaves_unix_open(&self) -> Option<String> {
        match &*self.state() {
            State { shield: Ok(shield), .. } if shield.looks_at_listeners() => None,
            State { unix: Err(missing), .. } => Some(missing.to_string()),
            State { .. } => None,
        }
    }

    /// From the next rules on, everybody may connect to these, which are the agent's.
    pub(crate) fn answer_at(&self, own: Vec<PathBuf>) {
        self.state().own = own;
    }

    /// Protects a file or folder of the agent's own; without the shield this does nothing.
    pub(crate) fn protect(&self, path: &Path, protection: Protection) -> Result<(), KernelError> {
        match &mut self.state().shield {
            Ok(shield) => shield.protect(path, protection),
            Err(_) => Ok(()),
        }
    }

    /// Rules in the programs' form.
    ///
    /// # Errors
    ///
    /// [`KernelError::Rules`] if they ask for what this kernel lacks, or can't be written as they are.
    pub(crate) fn compile(
        &self,
        rules: &Rules,
        bits: &SubjectBits,
        governed: &Governed,
    ) -> Result<Compiled, KernelError> {
        // Files and accounts are looked up meanwhile, which may take long.
        let (shielded, hooks, own) = {
            let State { shield, unix, own } = &*self.state();
            (shield.is_ok(), unix.as_ref().map(UnixHooks::host).map_err(ToString::to_string), own.clone())
        };
        let shield = shielded.then(|| shield::Compiled::new(rules, &own, bits)).transpose()?;
        let unix = match hooks {
            Ok(host) => {
                let host = (host, self.users.look_up());
                Some(unix::Compiled::new(rules, &own, bits, governed, host)?)
            }
            Err(_) if rules.unix_resources.is_empty() => None,
            Err(missing) => {
                return Err(KernelError::Rules(format!(
                    "the bundle has a Unix socket as a resource, which this kernel cannot lead to the gate: {missing}"
                )));
            }
        };
        Ok(Compiled { shield, unix })
    }

    /// Puts rules into force. Answers what was before.
    ///
    /// # Errors
    ///
    /// What was before stays in force.
    pub(crate) fn replace(&self, rules: Compiled) -> Result<Compiled, KernelError> {
        let mut state = self.state();
        let before = state.now()?;
        match state.write(rules) {
            Ok(()) => Ok(before),
            Err(error) => {
                state.put_back(before);
                Err(error)
            }
        }
    }

    /// Puts what was before into force again.
    pub(crate) fn put_back(&self, before: Compiled) {
        self.state().put_back(before);
    }

    /// The Unix sockets that are resources, in the rules in force.
    pub(crate) fn resources(&self) -> Vec<UnixResource> {
        self.state().unix.as_ref().map_or_else(|_| Vec::new(), |unix| unix.resources().to_vec())
    }

    /// Who was sent to this socket of the agent's, and the resource that it asked for.
    pub(crate) fn take(
        &self,
        peer: &Peer,
        listener: &Path,
    ) -> Result<Option<(Identity, UnixResource)>, KernelError> {
        let mut state = self.state();
        let Ok(unix) = &mut state.unix else { return Ok(None) };
        Ok(unix.take(peer, listener)?.map(|(identity, resource)| (identity, resource.clone())))
    }

    /// A panic while a table was locked leaves it as the kernel has it, which is what counts.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn now(&self) -> Result<Compiled, KernelError> {
        let shield = self.shield.as_ref().ok().map(Shield::now).transpose()?;
        let unix = self.unix.as_ref().ok().map(UnixHooks::now).transpose()?;
        Ok(Compiled { shield, unix })
    }

    fn write(&mut self, rules: Compiled) -> Result<(), KernelError> {
        if let (Ok(shield), Some(rules)) = (&mut self.shield, rules.shield) {
            shield.replace(&rules)?;
        }
        if let (Ok(unix), Some(rules)) = (&mut self.unix, rules.unix) {
            unix.replace(rules)?;
        }
        Ok(())
    }

    fn put_back(&mut self, before: Compiled) {
        if let Err(error) = self.write(before) {
            tracing::error!(%error, "the files and Unix sockets of the bundle before are not all in force again: reload");
        }
    }
}
