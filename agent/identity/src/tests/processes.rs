//! Processes that are only told of.

use std::{
    collections::HashMap,
    io::{self, Cursor, Read},
    path::Path,
    sync::{Arc, Mutex, mpsc},
};

use tidegate_gate::BoxFuture;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::{
    Defect, ProcessId,
    host::{Host, Seen},
};

/// A host that has the processes a test says. Their start time is 100 and their id.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<Mutex<HashMap<u32, Process>>>);

struct Process {
    seen: Seen,
    uid: u32,
    environment: Vec<u8>,
    login: Option<u32>,
    terminal: bool,
    cgroup: Option<&'static str>,
    stuck: Option<Stuck>,
    ended: watch::Sender<bool>,
}

/// An environment that nobody comes to the end of, until the sender is dropped.
#[derive(Clone)]
struct Stuck(Arc<Mutex<mpsc::Receiver<()>>>);

impl Read for Stuck {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let until = self.0.lock().unwrap();
        Ok(until.recv().map_or(0, |()| 0))
    }
}

pub(super) const UID: u32 = 61_090;

pub(super) fn id(pid: u32) -> ProcessId {
    ProcessId { pid, started: 100 + u64::from(pid) }
}

impl Told {
    /// A process in the session of its parent, with the parent's environment.
    pub(super) fn fork(&self, parent: u32, pid: u32) {
        let mut processes = self.0.lock().unwrap();
        let first = Process {
            seen: Seen { id: id(pid), parent, session: pid },
            uid: UID,
            environment: Vec::new(),
            login: None,
            terminal: false,
            cgroup: Some("0::/system.slice/runner.service"),
            stuck: None,
            ended: watch::Sender::new(false),
        };
        let process = match processes.get(&parent) {
            None => first,
            Some(of) => Process {
                seen: Seen { session: of.seen.session, ..first.seen },
                uid: of.uid,
                environment: of.environment.clone(),
                login: of.login,
                terminal: of.terminal,
                cgroup: of.cgroup,
                ..first
            },
        };
        processes.insert(pid, process);
    }

    /// A process that leads a session of its own, as a runner begins a job that is to have one.
    pub(super) fn begin(&self, parent: u32, pid: u32) {
        self.fork(parent, pid);
        self.set_session(pid);
    }

    /// Changes a process.
    fn change(&self, pid: u32, change: impl FnOnce(&mut Process)) {
        change(self.0.lock().unwrap().get_mut(&pid).unwrap());
    }

    pub(super) fn set_environment(&self, pid: u32, environment: &[(&str, &str)]) {
        let text: String = environment.iter().map(|(name, value)| format!("{name}={value}\0")).collect();
        self.change(pid, |process| process.environment = text.into_bytes());
    }

    pub(super) fn set_uid(&self, pid: u32, uid: u32) {
        self.change(pid, |process| process.uid = uid);
    }

    pub(super) fn set_login(&self, pid: u32, login: u32) {
        self.change(pid, |process| process.login = Some(login));
    }

    pub(super) fn set_session(&self, pid: u32) {
        self.change(pid, |process| process.seen.session = pid);
    }

    /// As if it had been begun in this session.
    pub(super) fn join(&self, pid: u32, session: u32) {
        self.change(pid, |process| process.seen.session = session);
    }

    pub(super) fn set_terminal(&self, pid: u32) {
        self.change(pid, |process| process.terminal = true);
    }

    pub(super) fn set_cgroup(&self, pid: u32, cgroup: &'static str) {
        self.change(pid, |process| process.cgroup = Some(cgroup));
    }

    /// It lies in one that its account was given.
    pub(super) fn give_cgroup(&self, pid: u32) {
        self.change(pid, |process| process.cgroup = None);
    }

    /// Has whoever reads this environment wait until what is returned is dropped.
    pub(super) fn stick(&self, pid: u32) -> mpsc::Sender<()> {
        let (until, told) = mpsc::channel();
        self.change(pid, |process| process.stuck = Some(Stuck(Arc::new(Mutex::new(told)))));
        until
    }

    /// How many read an environment that they wait for.
    pub(super) fn reading(&self, pid: u32) -> usize {
        let processes = self.0.lock().unwrap();
        processes[&pid].stuck.as_ref().map_or(0, |Stuck(told)| Arc::strong_count(told) - 1)
    }

    pub(super) fn lives(&self, pid: u32) -> bool {
        self.0.lock().unwrap().contains_key(&pid)
    }

    /// Ends a process; its children belong to the first process then.
    pub(super) fn end(&self, pid: u32) {
        let mut processes = self.0.lock().unwrap();
        if let Some(gone) = processes.remove(&pid) {
            gone.ended.send_replace(true);
        }
        for process in processes.values_mut().filter(|process| process.seen.parent == pid) {
            process.seen.parent = 1;
        }
    }
}

impl Host for Told {
    fn seen(&self, pid: u32) -> Option<Seen> {
        self.0.lock().unwrap().get(&pid).map(|process| process.seen)
    }

    fn uid(&self, id: ProcessId) -> Option<u32> {
        self.0.lock().unwrap().get(&id.pid).map(|process| process.uid)
    }

    fn is_at_terminal(&self, id: ProcessId) -> bool {
        self.0.lock().unwrap().get(&id.pid).is_some_and(|process| process.terminal)
    }

    fn cgroup(&self, id: ProcessId) -> Option<String> {
        self.0.lock().unwrap().get(&id.pid).and_then(|process| process.cgroup.map(str::to_owned))
    }

    fn login(&self, id: ProcessId) -> Option<u32> {
        self.0.lock().unwrap().get(&id.pid)?.login
    }

    fn environment(&self, id: ProcessId) -> Option<Box<dyn Read>> {
        let processes = self.0.lock().unwrap();
        let process = processes.get(&id.pid)?;
        Some(match &process.stuck {
            Some(stuck) => Box::new(stuck.clone()),
            None => Box::new(Cursor::new(process.environment.clone())),
        })
    }

    fn file(&self, _id: ProcessId, _path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Defect> {
        Ok(None)
    }

    fn ended(&self, id: ProcessId) -> BoxFuture<'static, ()> {
        let ended = self.0.lock().unwrap().get(&id.pid).map(|process| process.ended.subscribe());
        Box::pin(async move {
            if let Some(mut ended) = ended {
                // A host that is gone has no processes.
                let _ = ended.wait_for(|ended| *ended).await;
            }
        })
    }
}
