//! Loads the programs with the maps of ebpf/programs, and attaches them. libbpf does, as they call kernel functions.

use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use libbpf_rs::{Iter, MapCore as _, MapFlags, Object, ObjectBuilder, PrintLevel, ProgramMut};

use crate::cgroup::Hierarchy;
use crate::pins::Pins;
use crate::{KernelError, bpf, btf};

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/unix.bpf.o"));

/// Where its own maps are kept.
pub(super) const MAPS: &str = "unix_maps";

/// What is attached: nothing is let in by name alone before names are looked at in both ways.
const HOOKS: [&str; 3] = ["getpeername_unix", "sendmsg_unix", "connect_unix"];

/// What the programs call of the kernel's, and came with the hooks (Linux 6.7).
const KERNEL_FUNCTION: &str = "bpf_sock_addr_set_sun_path";

/// Where refusals are told: to the shield's reader, if there is a shield.
pub(super) fn events(pins: &Pins) -> Result<PathBuf, KernelError> {
    Ok(pins.folder("shield_maps")?.join("EVENTS"))
}

/// Loads the programs with what is pinned, and puts them into force: in the place of their predecessors where a link is
/// pinned, by new links where none is. Answers whether this process sees the host's files as the first process does.
pub(super) fn attach(pins: &Pins, hierarchy: &Hierarchy, shielded: bool) -> Result<bool, KernelError> {
    if btf::function(KERNEL_FUNCTION).is_none() {
        return Err(KernelError::Unix(
            "the kernel has no hooks on Unix sockets' names: Linux 6.7 has".to_owned(),
        ));
    }
    let object = load(pins)?;
    let own = look_at_host(&object, shielded)?;
    let links = pins.folder("unix")?;
    for name in HOOKS {
        put_in_force(&program(&object, name)?, hierarchy, &links.join(name))?;
    }
    Ok(own)
}

fn load(pins: &Pins) -> Result<Object, KernelError> {
    libbpf_rs::set_print(Some((PrintLevel::Warn, |_, text| tracing::warn!(libbpf = text.trim()))));
    let (shared, own) = (pins.maps()?, pins.folder(MAPS)?);
    let mut object = ObjectBuilder::default().open_memory(OBJECT).map_err(failed)?;
    for mut map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        match &*name {
            "UNIX_WAYS" | "UNIX_GATES" => map.set_pin_path(own.join(&name)).map_err(failed)?,
            "EVENTS" => map.set_pin_path(events(pins)?).map_err(failed)?,
            // It belongs to one load of the programs.
            "UNIX_HOST" => {}
            name if name.starts_with('.') => {}
            name => map.reuse_pinned_map(shared.join(name)).map_err(failed)?,
        }
    }
    object.load().map_err(failed)
}

/// Has the programs take note of what the first process sees of the host's files. Answers whether this one sees the same.
fn look_at_host(object: &Object, shielded: bool) -> Result<bool, KernelError> {
    let host =
        object.maps().find(|map| map.name() == "UNIX_HOST").ok_or(KernelError::Missing("UNIX_HOST"))?;
    let empty = [0, 0, 0, u64::from(shielded), 0].map(u64::to_ne_bytes).concat();
    host.update(&0_u32.to_ne_bytes(), &empty, MapFlags::ANY).map_err(failed)?;
    let link = program(object, "find_host")?.attach().map_err(failed)?;
    let mut nothing = Vec::new();
    Iter::new(&link).map_err(failed)?.read_to_end(&mut nothing).map_err(failed)?;
    let found = host.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).map_err(failed)?;
    let found = found.filter(|host| !host.starts_with(&[0; 8]));
    let host = found.ok_or_else(|| KernelError::Unix("the host's first process was not found".to_owned()))?;
    Ok(!host.ends_with(&[0; 8]))
}

fn put_in_force(program: &ProgramMut<'_>, hierarchy: &Hierarchy, place: &Path) -> Result<(), KernelError> {
    match bpf::open_pinned(place).map_err(failed)? {
        Some(link) => bpf::update_link(link.as_fd(), program.as_fd()).map_err(failed),
        None => {
            let cgroup = hierarchy.directory().as_fd();
            program.attach_cgroup(cgroup.as_raw_fd()).and_then(|mut link| link.pin(place)).map_err(failed)
        }
    }
}

fn program<'a>(object: &'a Object, name: &'static str) -> Result<ProgramMut<'a>, KernelError> {
    object.progs_mut().find(|program| program.name() == name).ok_or(KernelError::Missing(name))
}

fn failed(error: impl Into<libbpf_rs::Error>) -> KernelError {
    KernelError::Unix(format!("{:#}", error.into()))
}
