//! What the agent takes from itself once its programs are attached: before any other thread exists, so for all of them.

mod calls;
mod capabilities;
#[cfg(test)]
mod unit;

use nix::sys::prctl;

use crate::error::Error;

/// Confines the calling thread, and all that it starts from now on: no new privileges, the capabilities and system calls
/// of a running agent and no others.
pub(crate) fn process() -> Result<(), Error> {
    let failed = |what: &'static str| move |problem: String| Error::Confinement { what, problem };
    prctl::set_no_new_privs().map_err(|errno| failed("no_new_privs could not be set")(errno.to_string()))?;
    capabilities::keep().map_err(failed("capabilities could not be dropped"))?;
    calls::restrict().map_err(failed("system calls could not be restricted"))
}

#[cfg(test)]
mod tests {
    use std::{fs, net::UdpSocket, process::Command, thread};

    use nix::{
        errno::Errno,
        fcntl::{self, OpenHow, ResolveFlag, openat2},
        sched::{CloneFlags, unshare},
        sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
    };

    use super::*;

    /// In a thread of its own, as confinement can't be undone.
    fn confined<T: Send + 'static>(attempt: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = thread::spawn(|| {
            prctl::set_no_new_privs().unwrap();
            calls::restrict().unwrap();
            attempt()
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_confined_agent_starts_no_program() {
        let error = confined(|| Command::new("/bin/true").spawn().unwrap_err());
        assert_eq!(error.raw_os_error(), Some(Errno::ENOSYS as i32));
    }

    #[test]
    fn a_confined_agent_makes_no_namespace_and_no_raw_or_packet_socket() {
        confined(|| {
            assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::ENOSYS));
            for (family, kind) in
                [(AddressFamily::Packet, SockType::Raw), (AddressFamily::Vsock, SockType::Stream)]
            {
                let made = socket(family, kind, SockFlag::empty(), None::<SockProtocol>);
                assert_eq!(made.map(drop), Err(Errno::ENOSYS), "{family:?}");
            }
        });
    }

    #[test]
    fn a_confined_agent_goes_on_serving() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        confined(move || {
            fs::write(&path, "text").unwrap();
            // As tokens are read in the root of whoever has them.
            let how = OpenHow::new().resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
            drop(openat2(fcntl::AT_FDCWD, &path, how).unwrap());
            UdpSocket::bind("127.0.0.1:0").unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            let text = runtime.block_on(async { tokio::fs::read_to_string(path).await.unwrap() });
            assert_eq!(text, "text");
        });
    }

    #[test]
    fn a_confined_agent_loads_no_program_into_the_kernel() {
        let probed = confined(tidegate_kernel::probe);
        let maps = probed.iter().find(|probe| probe.feature.starts_with("maps")).unwrap();
        assert!(maps.missing.is_some(), "{probed:?}");
    }
}
