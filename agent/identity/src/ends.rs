//! The ends of processes, waited for by their descriptors (pidfd_open(2)).

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, epoll, eventfd},
};
use tokio::sync::oneshot;

/// The descriptor that ends the thread.
const STOP: u64 = 0;

/// Waits for processes, on a thread of its own: an epoll set takes descriptors from any thread.
#[derive(Debug)]
pub(crate) struct Ends {
    shared: Arc<Shared>,
    stop: OwnedFd,
}

#[derive(Debug)]
struct Shared {
    set: OwnedFd,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    next: u64,
    processes: HashMap<u64, (OwnedFd, oneshot::Sender<()>)>,
}

impl Ends {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&set, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        let waiting = Mutex::new(Waiting { next: STOP + 1, processes: HashMap::new() });
        let shared = Arc::new(Shared { set, waiting });
        let watched = shared.clone();
        thread::Builder::new().name("tidegate-ends".into()).spawn(move || watched.watch())?;
        Ok(Self { shared, stop })
    }

    /// Resolves when the process of this descriptor has ended, or can no longer be waited for.
    pub(crate) fn wait(&self, process: OwnedFd) -> io::Result<oneshot::Receiver<()>> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.shared.waiting();
        let key = waiting.next;
        waiting.next += 1;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        epoll::add(&self.shared.set, &process, epoll::EventData::new_u64(key), flags)?;
        waiting.processes.insert(key, (process, sender));
        Ok(receiver)
    }
}

impl Shared {
    fn watch(&self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.set, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    // Whoever waits is told, as if all had ended: identities end rather than last.
                    tracing::error!(%error, "the ends of processes cannot be waited for");
                    self.waiting().processes.clear();
                    return;
                }
            }
            for event in &events {
                match event.data.u64() {
                    STOP => return,
                    key => self.tell(key),
                }
            }
        }
    }

    fn tell(&self, key: u64) {
        if let Some((_, sender)) = self.waiting().processes.remove(&key) {
            // Whoever waited may be gone.
            let _ = sender.send(());
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if let Err(error) = rustix::io::write(&self.stop, &1_u64.to_ne_bytes()) {
            tracing::warn!(%error, "a thread that waits for processes was not told to end");
        }
    }
}
