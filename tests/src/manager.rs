//! The service manager, as the agent sees it.

use std::{
    collections::BTreeMap,
    fs,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Most descriptors that it keeps.
const PLACES: usize = 2;

/// Starts the agent with the first two descriptors of its own as those that were kept (sd_listen_fds(3)). A shell does what
/// would take unsafe code here.
const HAND_ON: &str = r#"export LISTEN_PID=$$; exec "$@" 3<&0 4<&1 </dev/null >&2"#;

/// Is told how the agent is, and may keep descriptors for the next one (sd_notify(3), FDSTORE).
#[derive(Debug)]
pub(crate) struct Manager {
    path: PathBuf,
    /// What the agent that runs now tells; none before there was one.
    socket: Option<UnixDatagram>,
    keeps: bool,
    kept: BTreeMap<String, OwnedFd>,
}

impl Manager {
    /// Listens at this path.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, socket: None, keeps: false, kept: BTreeMap::new() }
    }

    /// From the next agent on, keeps what it is given.
    pub(crate) fn keep(&mut self) {
        self.keeps = true;
    }

    /// A command that starts the next agent, with what was kept and with nothing that an earlier one said. Its output goes
    /// where its errors go.
    pub(crate) fn command(&mut self, binary: &Path) -> Result<Command> {
        fs::remove_file(&self.path).ok();
        let socket = UnixDatagram::bind(&self.path)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        self.socket = Some(socket);
        let mut command = Command::new("sh");
        command.args(["-c", HAND_ON, "sh"]).arg(binary).env("NOTIFY_SOCKET", &self.path);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if self.keeps {
            command.env("FDSTORE", PLACES.to_string());
        }
        let names: Vec<&str> = self.kept.keys().map(String::as_str).collect();
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let mut kept = self.kept.values();
        if let Some(first) = kept.next() {
            command.stdin(first.try_clone()?);
        }
        if let Some(second) = kept.next() {
            command.stdout(second.try_clone()?);
        }
        Ok(command)
    }

    /// Reads what the agent tells next, if it does soon, and keeps what it gives. True if it says that it is ready.
    pub(crate) fn hears_ready(&mut self) -> Result<bool> {
        let socket = self.socket.as_ref().context("no agent was started")?;
        let mut message = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut message)];
        let Ok(received) = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) else {
            return Ok(false);
        };
        let text = String::from_utf8_lossy(message.get(..received.bytes).unwrap_or_default()).into_owned();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        for part in control.drain() {
            if let (RecvAncillaryMessage::ScmRights(descriptors), Some(name)) = (part, name) {
                self.kept.extend(descriptors.map(|descriptor| (name.to_owned(), descriptor)));
            }
        }
        Ok(text.lines().any(|line| line == "READY=1"))
    }

    /// How many descriptors it keeps.
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }
}
