//! Identities between two agents: the service manager keeps them, in memory that nobody can change any more (memfd_create(2),
//! sealed). They hold secrets, and so are never on a disk.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use tidegate_identity::{Registry, TakenUp};
use tokio::{
    sync::Mutex,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use zeroize::Zeroizing;

use crate::{listener::Kept, notify};

/// What the manager knows them by, by turns: the later ones are there before the earlier go.
const ONE: &str = "identities-1";
const OTHER: &str = "identities-2";
/// What the manager must keep: these, and the listeners.
const PLACES: u32 = 4;
/// The shortest pause between two times, and how much longer than a time it is: many identities take long to write.
const PAUSE: Duration = Duration::from_millis(50);
const LONGER: u32 = 20;
/// Most bytes that are taken up.
const LONGEST: u64 = 256 << 20;
/// Whoever has it can change nothing of it, nor that it is so.
const SEALED: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);
/// `MFD_NOEXEC_SEAL`, from Linux 6.3 on (include/uapi/linux/memfd.h): it is no program, and never will be one.
const NO_PROGRAM: MFdFlags = MFdFlags::from_bits_retain(0x8);

/// Parts identities from the listeners that the service manager kept.
pub(crate) fn part(kept: Kept) -> (Kept, Kept) {
    kept.into_iter().partition(|(name, _)| place(name).is_some())
}

/// Has the service manager keep what a registry knows.
pub(crate) struct Keeper {
    registry: Registry,
    /// Which name has the latest; none if the manager keeps nothing.
    latest: Option<&'static str>,
}

impl Keeper {
    /// Has the registry take up what an earlier agent knew. What can't be taken up is lost, and told.
    pub(crate) async fn begin(registry: Registry, kept: Kept) -> Self {
        let names: Vec<&'static str> = kept.iter().filter_map(|(name, _)| place(name)).collect();
        let taking = registry.clone();
        let taken = spawn_blocking(move || {
            let read: io::Result<Vec<_>> = kept.into_iter().map(|(_, descriptor)| read(descriptor)).collect();
            taking.take_up(&read?)
        });
        let latest = match taken.await.unwrap_or_else(|_| Err(io::Error::other("it was cut off"))) {
            Ok(TakenUp { which, counting, ended }) => {
                if counting + ended > 0 {
                    tracing::info!(counting, ended, "identities of the agent before were taken up");
                }
                names.get(which).copied()
            }
            Err(error) => {
                tracing::error!(%error, "identities of the agent before are lost: people log in again, jobs present again");
                names.first().copied()
            }
        };
        Self { registry, latest }
    }

    /// Keeps them at each change, until dropped.
    pub(crate) async fn run(keeper: Arc<Mutex<Self>>) {
        let places = notify::places();
        if places < PLACES {
            tracing::warn!(
                places,
                needed = PLACES,
                "the service manager keeps too few descriptors for identities to outlive this agent: install this version's unit \
                 (FileDescriptorStoreMax=), `systemctl daemon-reload`"
            );
        }
        let mut changes = keeper.lock().await.registry.changes();
        loop {
            let began = Instant::now();
            if let Err(error) = keeper.lock().await.keep().await {
                tracing::warn!(%error, "the service manager was not given the identities to keep");
            }
            sleep(PAUSE.max(began.elapsed() * LONGER)).await;
            // The registry is there as long as its keeper is.
            let _ = changes.changed().await;
        }
    }

    /// Keeps them as they are now. The manager may be slow to hear.
    pub(crate) async fn keep(&mut self) -> io::Result<()> {
        let (registry, before) = (self.registry.clone(), self.latest);
        let kept = spawn_blocking(move || keep(&registry, before)).await;
        self.latest = kept.unwrap_or_else(|_| Err(io::Error::other("it was cut off")))?;
        Ok(())
    }
}

/// Has the manager keep all that the registry knows instead of what it has by this name: by which name it has that; none if there
/// is nothing to keep.
fn keep(registry: &Registry, before: Option<&'static str>) -> io::Result<Option<&'static str>> {
    let next = if before == Some(ONE) { OTHER } else { ONE };
    let is_idle = registry.is_idle();
    if !is_idle {
        let sealed = seal(&registry.kept()?)?;
        // One that was left there by an agent that was killed in between.
        notify::keep_no_longer(next)?;
        notify::keep(next, sealed.as_fd())?;
    }
    before.map_or(Ok(()), notify::keep_no_longer)?;
    Ok((!is_idle).then_some(next))
}

fn place(name: &str) -> Option<&'static str> {
    [ONE, OTHER].into_iter().find(|known| *known == name)
}

/// Memory that has this for good.
fn seal(contents: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let made = match memfd_create("tidegate-identities", flags | NO_PROGRAM) {
        Err(Errno::EINVAL) => memfd_create("tidegate-identities", flags),
        made => made,
    };
    let mut file = File::from(made?);
    file.write_all(contents)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALED))?;
    Ok(file.into())
}

/// What such memory has. Any other is refused.
fn read(descriptor: OwnedFd) -> io::Result<Zeroizing<Vec<u8>>> {
    let wrong = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    // What is no memory has none.
    let seals = fcntl(&descriptor, FcntlArg::F_GET_SEALS)
        .map_or_else(|_| SealFlag::empty(), SealFlag::from_bits_truncate);
    if !seals.contains(SEALED) {
        return Err(wrong("somebody could have changed them: they are not sealed"));
    }
    let file = File::from(descriptor);
    let length = file.metadata()?.len();
    let length = usize::try_from(length).ok().filter(|_| length <= LONGEST);
    let mut contents = Zeroizing::new(vec![0; length.ok_or_else(|| wrong("they are too long"))?]);
    file.read_exact_at(&mut contents, 0)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_is_kept_can_be_read_by_the_next_agent_and_changed_by_nobody() {
        let sealed = seal(b"who they are").unwrap();
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        if let Ok(other) = opened {
            assert!(other.write_at(b"somebody", 0).is_err());
            assert!(other.set_len(0).is_err() && other.set_len(100).is_err());
        }
        assert_eq!(&**read(sealed).unwrap(), b"who they are");
    }

    #[test]
    fn what_somebody_could_have_changed_is_not_taken_up() {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create("test", flags).unwrap());
        file.write_all(b"somebody").unwrap();
        let error = read(file.try_clone().unwrap().into()).unwrap_err();
        assert!(error.to_string().contains("not sealed"), "{error}");
        let partly = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
        fcntl(&file, FcntlArg::F_ADD_SEALS(partly)).unwrap();
        assert!(read(file.into()).is_err());
        assert!(read(tempfile::tempfile().unwrap().into()).is_err());
    }
}
