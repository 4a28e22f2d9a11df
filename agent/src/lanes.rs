//! The threads that sessions run on. A session stays on one: nothing of it is handed from core to core.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use tidegate_gate::Stream;
use tokio::{
    net::{TcpStream, UnixStream},
    runtime::{Builder, Handle},
    sync::watch,
};

/// Threads of one lane for what blocks: files, a first look at an executable. Many connections at once wait for each
/// other here rather than have a stack each.
const BLOCKING_THREADS: usize = 8;

/// Bytes of a lane's stack, touched only as far as they are used: following the most nested statement that the parser takes
/// needs half of it in a build that isn't optimised.
const STACK: usize = 16 << 20;

/// The threads that sessions run on, one a core, until dropped.
pub(crate) struct Lanes {
    handles: Vec<Handle>,
    next: AtomicUsize,
    /// Closed when dropped: that ends the threads.
    _open: watch::Sender<()>,
}

impl Lanes {
    /// Starts as many as the process may use cores.
    pub(crate) fn start() -> io::Result<Self> {
        let count = thread::available_parallelism()?.get();
        let (open, told) = watch::channel(());
        let handles = (0..count).map(|_| lane(told.clone())).collect::<io::Result<_>>()?;
        Ok(Self { handles, next: AtomicUsize::new(0), _open: open })
    }

    /// The test's own thread.
    #[cfg(test)]
    pub(crate) fn here() -> Self {
        Self { handles: vec![Handle::current()], next: AtomicUsize::new(0), _open: watch::channel(()).0 }
    }

    /// Moves a connection to the lane whose turn it is.
    pub(crate) fn assign(&self, stream: Stream) -> io::Result<(Stream, Handle)> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len().max(1);
        let handle = self.handles.get(turn).cloned().unwrap_or_else(Handle::current);
        let stream = match stream {
            Stream::Tcp(stream) => {
                let stream = stream.into_std()?;
                let _within = handle.enter();
                TcpStream::from_std(stream)?.into()
            }
            Stream::Unix(stream) => {
                let stream = stream.into_std()?;
                let _within = handle.enter();
                UnixStream::from_std(stream)?.into()
            }
        };
        Ok((stream, handle))
    }
}

fn lane(mut open: watch::Receiver<()>) -> io::Result<Handle> {
    let runtime =
        Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
    let handle = runtime.handle().clone();
    // An error is the sender's end.
    let until_closed = async move { while open.changed().await.is_ok() {} };
    let thread = thread::Builder::new().name("tidegate-lane".into()).stack_size(STACK);
    thread.spawn(move || runtime.block_on(until_closed))?;
    Ok(handle)
}
