//! The service manager, as the agent sees it.

use std::{
    fs::{self, File},
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::UnixDatagram,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Most descriptors that it keeps, as the unit says.
const PLACES: usize = 4;
/// Where the kept ones begin (sd_listen_fds(3)).
const FIRST: usize = 3;
/// How long what an agent tells is waited for at a time.
const MOMENT: Duration = Duration::from_millis(100);

/// Is told how the agent is, and may keep descriptors for the next one (sd_notify(3), FDSTORE). What it was given stays there
/// until it is taken back, however its agent ends.
#[derive(Debug)]
pub(crate) struct Manager {
    path: PathBuf,
    keeps: bool,
    told: Arc<Told>,
    /// Hears the agent that was started last.
    ear: Option<Ear>,
}

/// What agents told.
#[derive(Debug, Default)]
struct Told {
    known: Mutex<Known>,
    /// There is more.
    more: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    kept: Vec<(String, OwnedFd)>,
    is_ready: bool,
}

impl Told {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Manager {
    /// Will listen at this path.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, keeps: false, told: Arc::default(), ear: None }
    }

    /// From the next agent on, keeps what it is given.
    pub(crate) fn keep(&mut self) {
        self.keeps = true;
    }

    /// A command that starts the next agent, with what was kept and with nothing that an earlier one said. Its output goes where
    /// its errors go. A shell does what would take unsafe code here: sockets are handed on as its input and output, memory is
    /// opened where this process has it.
    pub(crate) fn command(&mut self, binary: &Path) -> Result<Command> {
        // All that the one before told is heard first.
        self.ear = None;
        fs::remove_file(&self.path).ok();
        self.ear = Some(Ear::listen(&self.path, &self.told)?);
        let mut known = self.told.known();
        known.is_ready = false;
        let mut command = Command::new("sh");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let (mut names, mut script) = (Vec::new(), "export LISTEN_PID=$$; exec \"$@\"".to_owned());
        known.kept.sort_by_key(|(_, descriptor)| !is_socket(descriptor));
        for (number, (name, descriptor)) in known.kept.iter().enumerate() {
            let from = match (is_socket(descriptor), number) {
                (true, 0) => {
                    command.stdin(descriptor.try_clone()?);
                    "&0".to_owned()
                }
                (true, 1) => {
                    command.stdout(descriptor.try_clone()?);
                    "&1".to_owned()
                }
                (true, _) => bail!("{name} is a third socket"),
                (false, _) => format!("/proc/$PPID/fd/{}", descriptor.as_raw_fd()),
            };
            script += &format!(" {}<{from}", FIRST + number);
            names.push(name.clone());
        }
        script += " </dev/null >&2";
        command.args(["-c", &script, "sh"]).arg(binary).env("NOTIFY_SOCKET", &self.path);
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        if self.keeps {
            command.env("FDSTORE", PLACES.to_string());
        }
        Ok(command)
    }

    /// Whether the agent that was started last has said that it is ready, in a moment at most.
    pub(crate) fn hears_ready(&self) -> bool {
        let waited = self.told.more.wait_timeout_while(self.told.known(), MOMENT, |known| !known.is_ready);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_ready
    }

    /// The names of what it keeps.
    pub(crate) fn kept(&self) -> Vec<String> {
        self.told.known().kept.iter().map(|(name, _)| name.clone()).collect()
    }

    /// What the memory of this name has; none if there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let known = self.told.known();
        let kept = known.kept.iter().find(|(own, _)| own == name);
        let (_, descriptor) = kept.with_context(|| format!("nothing is kept by the name {name}"))?;
        Ok(fs::read(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))?)
    }

    /// Keeps another file by this name from now on.
    pub(crate) fn replace(&self, name: &str, file: File) -> Result<()> {
        let mut known = self.told.known();
        let kept = known.kept.iter_mut().find(|(own, _)| own == name);
        kept.with_context(|| format!("nothing is kept by the name {name}"))?.1 = file.into();
        Ok(())
    }
}

/// A thread that hears one agent.
#[derive(Debug)]
struct Ear {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ear {
    fn listen(path: &Path, told: &Arc<Told>) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(MOMENT))?;
        let is_over = Arc::<AtomicBool>::default();
        let (told, over) = (told.clone(), is_over.clone());
        let thread = thread::spawn(move || while hear(&socket, &told) || !over.load(Ordering::Relaxed) {});
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends whatever came of it.
            let _ = thread.join();
        }
    }
}

/// Hears one thing that the agent tells; false if it tells none soon.
fn hear(socket: &UnixDatagram, told: &Told) -> bool {
    let mut message = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut message)];
    let Ok(received) = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) else {
        return false;
    };
    let text = String::from_utf8_lossy(message.get(..received.bytes).unwrap_or_default()).into_owned();
    let says = |line: &str| text.lines().any(|own| own == line);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default();
    let mut known = told.known();
    if says("FDSTOREREMOVE=1") {
        known.kept.retain(|(own, _)| own != name);
    }
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            for descriptor in descriptors {
                // What it has already it keeps once, and nothing beyond its places.
                let place = place(&descriptor);
                let is_full = known.kept.len() >= PLACES;
                if !is_full && !known.kept.iter().any(|(own, kept)| own == name && self::place(kept) == place)
                {
                    known.kept.push((name.to_owned(), descriptor));
                }
            }
        }
    }
    known.is_ready |= says("READY=1");
    told.more.notify_all();
    true
}

/// Where what it leads to is.
fn place(descriptor: &OwnedFd) -> Option<(u64, u64)> {
    let of = fs::metadata(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).ok()?;
    Some((of.dev(), of.ino()))
}

fn is_socket(descriptor: &OwnedFd) -> bool {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    fs::metadata(path).is_ok_and(|of| of.file_type().is_socket())
}
