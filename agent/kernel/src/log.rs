//! The programs' log lines, as tracing events.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::KernelError;

/// The programs' log, which nobody reads yet. The programs need it for loading: it holds their ring buffer.
pub(crate) struct ProgramLog(EbpfLogger<ToTracing>);

/// Reads the programs' lines until it is dropped.
pub(crate) struct LogReader(JoinHandle<()>);

impl ProgramLog {
    /// # Errors
    ///
    /// The programs have no log.
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        EbpfLogger::init_with_logger(object, ToTracing)
            .map(Self)
            .map_err(|error| KernelError::Log(error.to_string()))
    }

    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(crate) fn read(self) -> Result<LogReader, KernelError> {
        let failed = |error: &dyn std::fmt::Display| KernelError::Log(error.to_string());
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| failed(&error))?;
        let _inside = runtime.enter();
        // SAFETY: the logger owns its descriptor and is moved into the `AsyncFd`, which deregisters before dropping it.
        let mut logger = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) }
            .map_err(|error| failed(&error))?;
        Ok(LogReader(runtime.spawn(async move {
            while let Ok(mut ready) = logger.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        })))
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands a line on to the agent's subscriber, under a target of its own.
struct ToTracing;

const TARGET: &str = "tidegate_kernel::programs";

impl Log for ToTracing {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: TARGET, "{line}"),
            Level::Warn => tracing::warn!(target: TARGET, "{line}"),
            Level::Info => tracing::info!(target: TARGET, "{line}"),
            Level::Debug => tracing::debug!(target: TARGET, "{line}"),
            Level::Trace => tracing::trace!(target: TARGET, "{line}"),
        }
    }

    fn flush(&self) {}
}
