//! What the agent takes from itself before it touches a secret.

use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        stat::{Mode, umask},
    },
    unistd::Uid,
};

use crate::error::Error;

/// Applies to the whole process; called once, before any thread or file exists.
///
/// No core dump and no ptrace by the same user unless `core_dumps`, files private unless said otherwise, and as many
/// descriptors as the host allows (a session takes two).
pub(crate) fn apply(core_dumps: bool) -> Result<(), Error> {
    let failed = |what: &'static str| move |errno: nix::Error| Error::Hardening { what, errno };
    umask(Mode::from_bits_truncate(0o077));
    if !core_dumps {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("core dumps could not be switched off"))?;
        prctl::set_dumpable(false).map_err(failed("the process could not be made undumpable"))?;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed("the descriptor limit is unknown"))?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(failed("the descriptor limit could not be raised"))
}

/// Only root may load kernel programs and hold credentials.
pub(crate) fn require_root() -> Result<(), Error> {
    if Uid::effective().is_root() { Ok(()) } else { Err(Error::NotRoot) }
}
