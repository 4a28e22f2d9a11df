//! The seam to the kernel: origins out of it, rules into it.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use tidegate_gate::{AccountName, Arrival, BoxFuture, Origin, OriginError, Origins, Stream, UnixSocket};
use tidegate_kernel::{
    Captured, CaughtUp, Destination, Directory, FileRule, Found, Had, Kernel, KernelError, Learned,
    ListenerName, Lookups, NamePattern, OlderSocket, PassRule, Peer, Pins, Process as Facts, Processes,
    Protection, Refusal, Required, Rules, SubjectRule, Tier, UnixResource, UnixRule, Unread, Version, netns,
    peer,
    subjects::{self, Names},
};
use tidegate_policy::{
    FileName, Policy, Principal, Process, Requirement, Sharer, ShieldedFiles, Subject, UnixAddress, UnixPass,
};
use tokio::task::spawn_blocking;

use crate::{
    accounts::Accounts,
    dns::Askers,
    host::HostRecord,
    namespaces::Places,
    readers::Readers,
    routes::Resolved,
    unix_listeners::{UnixListeners, listener_of},
};

/// What makes rules count, a whole generation at once: on an error the old ones still do.
pub(crate) trait Enforcer: Send + Sync {
    /// Blocks for as long as the kernel takes.
    fn enforce(&self, rules: &Rules) -> Result<(), String>;

    /// Brings under the rules in force what runs already, and answers what of that could not be done. Looks through all
    /// processes.
    fn catch_up(&self) -> Vec<String>;

    /// Replaces all that was learned of names, within the generation in force.
    fn learn(&self, learned: &Learned) -> Result<(), String>;

    /// What it counted since it was first attached, by name.
    fn counters(&self) -> Result<BTreeMap<String, u64>, String>;

    /// Shows it that connections are accepted; it sends none any more if this isn't repeated within seconds.
    fn live(&self) -> Result<(), String>;

    /// Tells it to send no more connections. The rules stay in force.
    fn rest(&self) -> Result<(), String>;

    /// Drops what it keeps of users of whom no connection waits. Looks through all that wait.
    fn tidy(&self) -> Result<(), String>;
}

/// The kernel as the agent uses it. What is in force there stays so without an agent.
#[derive(Clone)]
pub(crate) struct HostKernel {
    kernel: Arc<Kernel>,
    /// What the kernel was found to have, before the agent gave up the means to try.
    found: Arc<[Found]>,
    processes: Arc<Processes>,
    readers: Arc<Readers<Version>>,
    accounts: Accounts,
    /// Where what happens outside of sessions is written; none before the store is open.
    record: Option<Arc<HostRecord>>,
    /// The agent's own Unix sockets; none before it listens.
    sockets: Option<Arc<UnixListeners>>,
}

impl HostKernel {
    /// Attaches the programs, or adopts those that an earlier agent left, on a kernel that was found to have this. No
    /// connection is sent yet.
    pub(crate) fn load(pins: &Path, found: &[Found]) -> Result<Self, String> {
        let failed = |error: KernelError| error.to_string();
        let kernel = Kernel::load(Pins::hold(pins).map_err(failed)?).map_err(failed)?;
        let processes = Processes::new().map_err(failed)?;
        let (kernel, processes) = (Arc::new(kernel), Arc::new(processes));
        let (readers, accounts) = (Arc::default(), Accounts::of_host(processes.clone()));
        Ok(Self { kernel, found: found.into(), processes, readers, accounts, record: None, sockets: None })
    }

    /// What decides which account a user id is, for whoever else must agree.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Has a task of the current runtime read the programs' log, and what happens outside of sessions written there.
    pub(crate) fn read_log(&mut self, record: Arc<HostRecord>) -> Result<(), String> {
        self.record = Some(record.clone());
        let told = Box::new(move |refusal: &Refusal| record.refused(refusal));
        self.kernel.read_log(told).map_err(|error| error.to_string())
    }

    /// Has the rules' Unix sockets led to these, and everybody governed talk to the agent's own.
    pub(crate) fn listen_on_unix(&mut self, sockets: UnixListeners, own: Vec<PathBuf>) {
        self.kernel.answer_at(own);
        self.sockets = Some(Arc::new(sockets));
    }

    /// Where an earlier agent listened; 0 where it did not.
    pub(crate) fn earlier_ports(&self) -> Result<(u16, u16), String> {
        Ok(self.kernel.earlier_ports().map_err(|error| error.to_string())?.unwrap_or_default())
    }

    /// Cookie of the agent's own network namespace.
    pub(crate) fn netns(&self) -> u64 {
        self.kernel.netns()
    }

    /// The other namespaces that governed processes are in; they can be had once.
    pub(crate) fn namespaces(&self) -> Result<Option<netns::Namespaces>, String> {
        self.kernel.namespaces().map_err(|error| error.to_string())
    }

    /// Says where connections are to be sent; a port of 0 refuses that family.
    pub(crate) fn listen(&self, v4_port: u16, v6_port: u16) -> Result<(), String> {
        self.kernel.listen(v4_port, v6_port).map_err(|error| error.to_string())
    }

    /// Keeps the agent's own files from whoever is governed, root too; says what of the shield this kernel lacks.
    pub(crate) fn protect(&self, files: &[(PathBuf, Protection)]) -> Result<(), String> {
        if let Some(missing) = self.kernel.unshielded() {
            tracing::warn!(
                missing,
                "files and socket families beyond IP are not enforced here; `require: [shield]` in a bundle refuses such a \
                 kernel"
            );
        }
        if let Some(missing) = self.kernel.leaves_unix_open() {
            tracing::warn!(missing, "Unix sockets are not enforced here");
        }
        let mut existing = files.iter().filter(|(path, _)| path.exists());
        existing
            .try_for_each(|(path, protection)| self.kernel.protect(path, *protection))
            .map_err(|error| error.to_string())
    }

    /// Marks a listener as the agent's own: connections are sent to such ones only.
    pub(crate) fn mark(&self, listener: &impl AsRawFd) -> Result<(), String> {
        self.kernel.mark(listener).map_err(|error| error.to_string())
    }

    /// Whether an earlier agent's programs were found in force.
    pub(crate) fn adopted(&self) -> bool {
        self.kernel.adopted()
    }
}

impl Places for HostKernel {
    fn mark(&self, listener: &std::net::TcpListener) -> Result<(), String> {
        self.kernel.mark(listener).map_err(|error| error.to_string())
    }

    fn listen_in(&self, netns: u64, ports: Option<(u16, u16)>) -> Result<(), String> {
        self.kernel.listen_in(netns, ports).map_err(|error| error.to_string())
    }

    fn sharer(&self, namespace: &netns::Namespace) -> Sharer {
        Sharer::of(namespace.uid, self.processes.container_of(namespace.pid).as_ref())
    }

    fn inhabited(&self) -> HashSet<u64> {
        netns::of_processes(&self.kernel.labelled())
    }
}

impl Enforcer for HostKernel {
    fn enforce(&self, rules: &Rules) -> Result<(), String> {
        let (unshielded, unix_open) = (self.kernel.unshielded(), self.kernel.leaves_unix_open());
        let had =
            Had { found: &self.found, unshielded: unshielded.as_deref(), unix_open: unix_open.as_deref() };
        let lacking = had.lacks(&rules.required);
        if !lacking.is_empty() {
            return Err(format!("the bundle requires what this host lacks: {}", lacking.join("; ")));
        }
        if let Some(sockets) = &self.sockets {
            sockets.begin(&rules.unix_resources).map_err(|error| error.to_string())?;
        }
        let replaced = self.kernel.replace(rules);
        // Of the rules before, if they are still in force.
        if let Some(sockets) = &self.sockets {
            sockets.keep(&self.kernel.unix_resources());
        }
        replaced.map_err(|error| error.to_string())
    }

    fn catch_up(&self) -> Vec<String> {
        let CaughtUp { older, trouble } = self.kernel.catch_up();
        for socket in older {
            if let Some(record) = &self.record {
                record.older_socket(&socket);
            }
            let OlderSocket { pid, uid, protocol, local, remote, ended } = socket;
            let protocol = format!("{protocol:?}").to_lowercase();
            tracing::warn!(pid, uid, protocol, %local, %remote, ended, "a socket was open before its process was governed");
        }
        let told = |error: KernelError| {
            let trouble = error.to_string();
            if let Some(record) = &self.record {
                record.not_reached(&trouble);
            }
            tracing::error!(trouble, "the rules are in force, but not for all that ran before them");
            trouble
        };
        trouble.into_iter().map(told).collect()
    }

    fn learn(&self, learned: &Learned) -> Result<(), String> {
        self.kernel.learn(learned).map_err(|error| error.to_string())
    }

    fn counters(&self) -> Result<BTreeMap<String, u64>, String> {
        let counters = self.kernel.counters().map_err(|error| error.to_string())?;
        let named = [
            ("redirected", counters.redirected),
            ("passed", counters.passed),
            ("refused", counters.refused),
            ("labels-full", counters.labels_full),
            ("handoffs-full", counters.handoffs_full),
            ("unlogged", counters.unlogged),
            ("dropped", counters.dropped),
        ];
        Ok(named.into_iter().map(|(name, count)| (name.into(), count)).collect())
    }

    fn live(&self) -> Result<(), String> {
        self.kernel.live().map_err(|error| error.to_string())
    }

    fn rest(&self) -> Result<(), String> {
        self.kernel.rest().map_err(|error| error.to_string())
    }

    fn tidy(&self) -> Result<(), String> {
        self.kernel.tidy().map_err(|error| error.to_string())
    }
}

impl Askers for HostKernel {
    fn asker(
        &self,
        netns: u64,
        client: SocketAddr,
        listener: SocketAddr,
    ) -> Result<Option<(Captured, Sharer)>, String> {
        let asker = self.kernel.asker(netns, client, listener).map_err(|error| error.to_string())?;
        Ok(asker.map(|asker| {
            let container = self.processes.container(asker.cgroup_id);
            let (asker, _) = owned(&self.accounts, asker, container.is_some());
            let sharer = Sharer::of(asker.account(), container.as_ref());
            (asker, sharer)
        }))
    }

    fn learn_name(&self, account: u32) {
        if self.accounts.known_name(account, false).is_none() {
            let accounts = self.accounts.clone();
            drop(tokio::spawn(async move { accounts.name(account, false).await }));
        }
    }

    /// Who asks for names is told by an executable's digest only where somebody has read it already.
    fn describe(&self, asker: Captured) -> Principal {
        let (facts, _) = self.processes.facts(&asker);
        let name = self.accounts.known_name(asker.account(), facts.container.is_some());
        principal(asker, facts, name)
    }
}

/// How a connection came, as the kernel is asked about it.
enum Way {
    Tcp { netns: u64, client: SocketAddr, listener: SocketAddr },
    Unix { peer: Peer, listener: PathBuf },
}

impl Way {
    fn of(connection: &Stream) -> std::io::Result<Self> {
        match connection {
            Stream::Tcp(stream) => Ok(Self::Tcp {
                netns: netns::cookie(stream.as_fd())?,
                client: stream.peer_addr()?,
                listener: stream.local_addr()?,
            }),
            Stream::Unix(stream) => {
                let own = stream.local_addr()?;
                let listener = own.as_pathname().ok_or(std::io::ErrorKind::AddrNotAvailable)?.to_owned();
                Ok(Self::Unix { peer: peer(stream)?, listener })
            }
        }
    }
}

impl Origins for HostKernel {
    fn origin<'a>(&'a self, connection: &'a Stream) -> BoxFuture<'a, Result<Arrival, OriginError>> {
        Box::pin(async move {
            let failed = |error: std::io::Error| OriginError::Kernel(error.to_string());
            let way = Way::of(connection).map_err(failed)?;
            let Self { kernel, processes, accounts, .. } = self.clone();
            let looking = spawn_blocking(move || {
                let captured = match way {
                    Way::Tcp { netns, client, listener } => kernel.origin(netns, client, listener),
                    Way::Unix { peer, listener } => kernel.unix_origin(&peer, &listener),
                }?;
                Ok(captured.map(|captured| {
                    let facts = processes.facts(&captured);
                    let contained = facts.0.container.is_some();
                    (facts, owned(&accounts, captured, contained))
                }))
            });
            let looked: Result<_, KernelError> =
                looking.await.map_err(|_| OriginError::Kernel("asking it was cut off".into()))?;
            let looked = looked.map_err(|error| OriginError::Kernel(error.to_string()))?;
            let ((facts, unread), (captured, untold)) = looked.ok_or(OriginError::Unknown)?;
            let account = captured.account();
            let sharer = Sharer::of(account, facts.container.as_ref());
            let digest = unread.map(|unread| self.read(sharer, unread));
            let contained = facts.container.is_some();
            let known = self.accounts.known_name(account, contained);
            let name = known.is_none().then(|| self.name(account, contained));
            let destination = captured.destination;
            let socket = captured
                .socket
                .clone()
                .map(|UnixResource { path, resource, .. }| UnixSocket { path, resource });
            let mut principal = principal(captured, facts, known);
            principal.process.owner_untold = untold;
            Ok(Arrival { origin: Origin { destination, socket, principal }, digest, name })
        })
    }
}

impl HostKernel {
    /// What an account is called that wasn't asked for lately.
    fn name(&self, account: u32, contained: bool) -> BoxFuture<'static, AccountName> {
        let accounts = self.accounts.clone();
        Box::pin(async move { accounts.name(account, contained).await })
    }

    /// The digest of an executable that is seen the first time.
    fn read(&self, sharer: Sharer, unread: Unread) -> BoxFuture<'static, Option<Arc<str>>> {
        let (readers, processes) = (self.readers.clone(), self.processes.clone());
        Box::pin(async move {
            let (version, size) = (unread.version(), unread.size());
            readers.digest(sharer, version, size, move || processes.digest(unread)).await
        })
    }
}

/// With the user who answers for it: whoever is governed by group or place isn't named by the rules that the kernel has, and
/// a table may have changed since. Also whether that could not be told.
fn owned(accounts: &Accounts, captured: Captured, contained: bool) -> (Captured, bool) {
    let (owner, untold) = accounts.of_process(captured.uid, contained);
    let sub_uid_of = (owner != captured.uid).then_some(owner);
    (Captured { sub_uid_of, ..captured }, untold)
}

fn principal(captured: Captured, facts: Facts, name: Option<AccountName>) -> Principal {
    let mut process = Process {
        pid: facts.pid,
        start_time: facts.start_time,
        uid: facts.uid,
        sub_uid_of: captured.sub_uid_of,
        gid: facts.gid,
        groups: facts.groups,
        command: facts.command,
        executable: facts.executable,
        executable_sha256: facts.executable_sha256,
        command_line: facts.command_line,
        cgroup: facts.cgroup,
        unit: facts.unit,
        container: facts.container,
        image: facts.image,
        claimed_container: facts.claimed_container,
        ancestry: facts.ancestry,
        ..Process::default()
    };
    if let Some(name) = name {
        name.tell(&mut process);
    }
    Principal { subjects: captured.subjects, process, ..Principal::default() }
}

/// What the kernel must know of a bundle, and who may not be governed by it because the name service could not tell who they
/// are. Every name that the host does not know is in the error. Clients of its Unix sockets are sent to sockets in `listeners`.
pub(crate) fn rules(
    policy: &Policy,
    resolved: &Resolved,
    listeners: &Path,
    directory: &Directory,
) -> Result<(Rules, Vec<String>), Vec<String>> {
    let (mut rules, mut problems, mut lookups) = (Rules::default(), Vec::new(), directory.look_up());
    for subject in &policy.subjects {
        match subject_rule(subject, &mut lookups) {
            Ok(rule) => rules.subjects.push(rule),
            Err(problem) => problems.push(problem),
        }
    }
    for address in policy.resources.iter().flat_map(|resource| &resource.addresses) {
        let Some(port) = address.port else { continue };
        rules.resources.extend(resolved.nets(&address.host).into_iter().map(|net| Destination { net, port }));
    }
    for resource in &policy.resources {
        rules.unix_resources.extend(resource.sockets.iter().map(|path| UnixResource {
            path: path.clone(),
            listener: listener_of(listeners, path),
            resource: resource.name.clone(),
        }));
    }
    match subjects::owners(&rules.subjects, &mut lookups) {
        Ok(owners) => rules.owners = owners,
        Err(error) => problems.push(error.to_string()),
    }
    for pass in &policy.passes {
        for address in &pass.to {
            rules.passes.extend(resolved.nets(&address.host).into_iter().map(|net| PassRule {
                net,
                port: address.port,
                subjects: pass.subjects.clone(),
            }));
        }
    }
    rules.required = policy.required.iter().filter_map(required).collect();
    rules.files = policy.files.iter().flat_map(file_rules).collect();
    rules.unix = policy.unix.iter().flat_map(unix_rules).collect();
    if problems.is_empty() { Ok((rules, lookups.into_trouble())) } else { Err(problems) }
}

/// What of it is the kernel's to have.
fn required(requirement: &Requirement) -> Option<Required> {
    Some(match requirement {
        Requirement::Shield => Required::Shield,
        Requirement::ConstrainedAuthority => return None,
        Requirement::UnixSockets => Required::UnixSockets,
        Requirement::Recommended => Required::Tier(Tier::Recommended),
        Requirement::Hardened => Required::Tier(Tier::Hardened),
        Requirement::Full => Required::Tier(Tier::Full),
    })
}

fn file_rules(shielded: &ShieldedFiles) -> impl Iterator<Item = FileRule> + '_ {
    shielded.files.iter().map(|file| FileRule {
        folder: file.folder.as_deref().map(str::to_owned),
        name: match &file.name {
            FileName::Is(name) => NamePattern::Is(name.to_string()),
            FileName::Begins(start) => NamePattern::Begins(start.to_string()),
            FileName::Ends(end) => NamePattern::Ends(end.to_string()),
        },
        subjects: shielded.subjects.clone(),
    })
}

fn unix_rules(pass: &UnixPass) -> impl Iterator<Item = UnixRule> + '_ {
    pass.to.iter().map(|address| UnixRule {
        listener: match address {
            UnixAddress::Path(path) => ListenerName::Path(path.clone()),
            UnixAddress::Abstract(name) => ListenerName::Abstract(name.to_string()),
        },
        subjects: pass.subjects.clone(),
    })
}

fn subject_rule(subject: &Subject, lookups: &mut Lookups<'_>) -> Result<SubjectRule, String> {
    let owned = |names: &[Arc<str>]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let (users, groups) = (owned(&subject.users), owned(&subject.groups));
    let (cgroups, units) = (owned(&subject.cgroups), owned(&subject.units));
    let names = Names { users: &users, groups: &groups, cgroups: &cgroups, units: &units };
    subjects::resolve(&subject.name, names, lookups).map_err(|error| error.to_string())
}
