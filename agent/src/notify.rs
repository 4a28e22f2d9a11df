//! Telling the service manager (`sd_notify(3)`).

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// The agent serves.
pub(crate) fn ready() -> io::Result<()> {
    send(env::var_os("NOTIFY_SOCKET").as_deref(), "READY=1")
}

/// The agent ends its sessions and will then exit.
pub(crate) fn stopping() -> io::Result<()> {
    send(env::var_os("NOTIFY_SOCKET").as_deref(), "STOPPING=1")
}

/// Without a socket nobody listens, and nothing is to be done.
fn send(socket: Option<&OsStr>, state: &str) -> io::Result<()> {
    let Some(socket) = socket else { return Ok(()) };
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_reads_the_state_from_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(Some(path.as_os_str()), "READY=1").unwrap();
        let mut told = [0; 16];
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"READY=1");
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("tidegate-notify-test-{}", std::process::id());
        let manager =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        send(Some(OsStr::new(&format!("@{name}"))), "STOPPING=1").unwrap();
        let mut told = [0; 16];
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"STOPPING=1");
    }

    #[test]
    fn without_a_manager_nothing_is_sent() {
        send(None, "READY=1").unwrap();
    }
}
