//! Descriptors that the service manager kept from an earlier agent (sd_listen_fds(3)).

use std::env;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first of them (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// Whether they were taken: each has one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes them over, by their names. The second call gets none, nor does a process that they were not meant for. To be
/// called before anything else is opened.
pub fn descriptors() -> Vec<(String, OwnedFd)> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let meant = number("LISTEN_PID").is_some_and(|pid| pid.cast_unsigned() == std::process::id());
    let count = number("LISTEN_FDS").unwrap_or(0);
    if !meant || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut taken = Vec::new();
    for descriptor in FIRST..FIRST.saturating_add(count.clamp(0, 64)) {
        let name = names.next().unwrap_or_default().to_owned();
        // SAFETY: the manager opened it for this process before it began; nobody else here has taken it, as `TAKEN` says.
        let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        if fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_err() {
            // It isn't open: it must not be closed, either.
            std::mem::forget(owned);
            continue;
        }
        taken.push((name, owned));
    }
    taken
}
