//! Writes what records have noted, a bounded time later.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use crate::chain::Chain;

/// How long a note waits for company.
const DELAY: Duration = Duration::from_millis(100);

/// A chain that its session and the flusher share.
pub(crate) type SharedChain = Arc<Mutex<Chain>>;

/// One thread for all records of a store. Dropping it writes what is left.
#[derive(Debug)]
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<SharedChain>,
    stopping: bool,
}

impl Flusher {
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new().name("record-flusher".into()).spawn({
            let shared = shared.clone();
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The chain has something pending: it is written at most [`DELAY`] (and the time others take) from now.
    pub(crate) fn await_flush(&self, chain: &SharedChain) {
        let mut queue = self.shared.lock();
        queue.waiting.push(chain.clone());
        if queue.waiting.len() == 1 {
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut queue = self.lock();
        loop {
            while queue.waiting.is_empty() && !queue.stopping {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let woken = self.changed.wait_timeout_while(queue, DELAY, |queue| !queue.stopping);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
            let waiting = std::mem::take(&mut queue.waiting);
            let last = queue.stopping;
            drop(queue);
            for chain in waiting {
                let mut chain = chain.lock().unwrap_or_else(PoisonError::into_inner);
                chain.awaited = false;
                if let Err(error) = chain.flush() {
                    tracing::error!(%error, "what a record noted could not be written");
                }
            }
            if last {
                return;
            }
            queue = self.lock();
        }
    }
}
