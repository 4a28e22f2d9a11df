//! Telling the service manager (`sd_notify(3)`), and having it keep the listeners and identities (`FileDescriptorStoreMax=`
//! of systemd.service(5)).

use std::{
    env,
    ffi::OsStr,
    io::{self, IoSlice},
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};

/// The agent serves.
pub(crate) fn ready() -> io::Result<()> {
    tell("READY=1")
}

/// The agent starts still, and will tell so again within this time or be ready (`EXTEND_TIMEOUT_USEC`).
pub(crate) fn starts_within(time: Duration) -> io::Result<()> {
    tell(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()))
}

/// The agent ends its sessions and will then exit.
pub(crate) fn stopping() -> io::Result<()> {
    tell("STOPPING=1")
}

/// The agent is alive, if the manager asked to be told.
pub(crate) fn alive() -> io::Result<()> {
    if env::var_os("WATCHDOG_USEC").is_some() { tell("WATCHDOG=1") } else { Ok(()) }
}

/// Whether the manager keeps descriptors for the next agent (`FDSTORE`, by systemd from version 254 and by the unit).
pub(crate) fn keeps() -> bool {
    places() > 0
}

/// How many descriptors the manager keeps at most.
pub(crate) fn places() -> u32 {
    let places = env::var("FDSTORE").ok().and_then(|text| text.parse().ok());
    places.filter(|_| env::var_os("NOTIFY_SOCKET").is_some()).unwrap_or(0)
}

/// Has the manager keep a descriptor by this name.
pub(crate) fn keep(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let state = format!("FDSTORE=1\nFDNAME={name}");
    send(env::var_os("NOTIFY_SOCKET").as_deref(), &state, Some(descriptor))
}

/// Has the manager keep what it keeps by this name no longer.
pub(crate) fn keep_no_longer(name: &str) -> io::Result<()> {
    tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"))
}

fn tell(state: &str) -> io::Result<()> {
    send(env::var_os("NOTIFY_SOCKET").as_deref(), state, None)
}

/// Without a socket nobody listens, and nothing is to be done.
fn send(socket_path: Option<&OsStr>, state: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let Some(path) = socket_path else { return Ok(()) };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        path => UnixAddr::new(path)?,
    };
    let sender: OwnedFd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let passed = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
    let control: Vec<_> = passed.iter().map(|passed| ControlMessage::ScmRights(passed)).collect();
    let text = [IoSlice::new(state.as_bytes())];
    sendmsg(sender.as_raw_fd(), &text, &control, MsgFlags::empty(), Some(&address))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    };

    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;

    #[test]
    fn the_manager_reads_the_state_from_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(Some(path.as_os_str()), "READY=1", None).unwrap();
        let mut told = [0; 16];
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"READY=1");
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("tidegate-notify-test-{}", std::process::id());
        let manager =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        send(Some(OsStr::new(&format!("@{name}"))), "STOPPING=1", None).unwrap();
        let mut told = [0; 16];
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"STOPPING=1");
    }

    #[test]
    fn a_descriptor_arrives_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(Some(path.as_os_str()), "FDSTORE=1\nFDNAME=v4", Some(manager.as_fd())).unwrap();
        let (mut text, mut control) = ([0; 32], nix::cmsg_space!([i32; 1]));
        let mut into = [std::io::IoSliceMut::new(&mut text)];
        let received =
            recvmsg::<()>(manager.as_raw_fd(), &mut into, Some(&mut control), MsgFlags::empty()).unwrap();
        let passed = received.cmsgs().unwrap().next();
        assert!(matches!(passed, Some(ControlMessageOwned::ScmRights(passed)) if passed.len() == 1));
        assert!(text.starts_with(b"FDSTORE=1\nFDNAME=v4"));
    }

    #[test]
    fn without_a_manager_nothing_is_sent() {
        send(None, "READY=1", None).unwrap();
    }
}
