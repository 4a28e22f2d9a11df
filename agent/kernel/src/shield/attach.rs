//! Loads the shield's programs with the maps of ebpf/programs, and attaches them.

use std::fs;

use aya::programs::{Lsm, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};

use crate::pins::Pins;
use crate::{KernelError, programs};

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/shield.bpf.o"));

/// Where the kernel says which security modules it asks.
const ACTIVE_MODULES: &str = "/sys/kernel/security/lsm";

/// Maps that ebpf/programs fills.
const SHARED: [&str; 8] =
    ["ACTIVE", "AGENT", "GENERATIONS", "LABELS", "STAMPS", "SUBJECTS", "SUB_USERS", "UNIX_SENT"];

/// Its own, kept as those are.
const OWN: [&str; 7] =
    ["EVENTS", "FILE_ENDINGS", "FILE_FOLDERS", "FILE_NAMES", "OWNERS", "OWN_FILES", "UNIX_ALLOWED"];

/// Hooks, each with a program of its name. Those that are newer than the oldest kernel come last.
const HOOKS: [&str; 17] = [
    "socket_create",
    "socket_post_create",
    "socket_connect",
    "socket_sendmsg",
    "unix_stream_connect",
    "unix_may_send",
    "file_receive",
    "file_open",
    "inode_unlink",
    "inode_rename",
    "inode_link",
    "ptrace_access_check",
    "ptrace_traceme",
    "task_kill",
    "bpf",
    "uring_override_creds",
    "uring_cmd",
];

/// Says why there can be no shield, if the kernel doesn't ask BPF programs.
fn require_lsm() -> Result<(), KernelError> {
    let modules = fs::read_to_string(ACTIVE_MODULES)
        .map_err(|error| KernelError::Shield(format!("{ACTIVE_MODULES}: {error}")))?;
    let modules = modules.trim();
    if modules.split(',').any(|module| module == "bpf") {
        return Ok(());
    }
    Err(KernelError::Shield(format!(
        "the kernel does not ask BPF programs: boot it with `lsm={modules},bpf` (it needs CONFIG_BPF_LSM)"
    )))
}

/// Loads the programs with what is pinned, and puts them into force by links that are pinned: each beside its predecessor,
/// which goes then. Answers with the object, and the hooks that this kernel lacks.
pub(super) fn load(pins: &Pins) -> Result<(Ebpf, Vec<&'static str>), KernelError> {
    require_lsm()?;
    let kernel = Btf::from_sys_fs()
        .map_err(|error| KernelError::Shield(format!("the kernel's type information: {error}")))?;
    let (shared, own, links) = (pins.maps()?, pins.folder("shield_maps")?, pins.folder("shield")?);
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&kernel));
    for (name, folder) in SHARED.iter().map(|name| (name, &shared)).chain(OWN.iter().map(|name| (name, &own)))
    {
        loader.map_pin_path(name, folder.join(name));
    }
    let mut object = loader.load(OBJECT)?;
    let mut without = Vec::new();
    for hook in HOOKS {
        let program = object.program_mut(hook).ok_or(KernelError::Missing(hook))?;
        let program: &mut Lsm = program.try_into().map_err(named(hook))?;
        match program.load(hook, &kernel) {
            Ok(()) => {
                let link = program.attach().and_then(|link| program.take_link(link)).map_err(named(hook))?;
                programs::succeed(link.into(), &links.join(hook))?;
            }
            // The kernel's types name every hook that it has.
            Err(ProgramError::Btf(_)) => without.push(hook),
            Err(error) => return Err(named(hook)(error)),
        }
    }
    Ok((object, without))
}

fn named(program: &'static str) -> impl Fn(ProgramError) -> KernelError {
    move |error| KernelError::Program { program, error }
}
