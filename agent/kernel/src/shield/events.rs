//! The shield's refusals, as tracing events and for whoever keeps account of them.

use std::{fmt, time::Instant};

use aya::maps::{MapData, RingBuf};
use tidegate_abi::shield::{NAME_BYTES, ShieldEvent, ShieldEventKind};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::share::Shares;
use crate::KernelError;

/// So many events are read before others of the runtime have their turn.
const BATCH: usize = 64;

/// Something that the shield refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The process.
    pub pid: u32,
    /// Its real user id.
    pub uid: u32,
    /// Its real group id.
    pub gid: u32,
    /// Its command name.
    pub command: String,
    /// What it was refused, in words.
    pub what: String,
}

/// Is told of refusals. It must not block.
pub type Told = Box<dyn Fn(&Refusal) + Send>;

/// Reads events until it is dropped.
pub(crate) struct EventReader(JoinHandle<()>);

impl EventReader {
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(crate) fn start(ring: RingBuf<MapData>, told: Told) -> Result<Self, KernelError> {
        let failed = |error: &dyn fmt::Display| KernelError::Shield(format!("its events: {error}"));
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| failed(&error))?;
        let _inside = runtime.enter();
        // SAFETY: the ring buffer owns its descriptor and is moved into the `AsyncFd`, which deregisters before dropping it.
        let mut ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| failed(&error))?;
        Ok(Self(runtime.spawn(async move {
            let mut shares = Shares::new(Instant::now());
            while let Ok(mut ready) = ring.readable_mut().await {
                let mut batch = 0;
                while batch < BATCH
                    && let Some(record) = ready.get_inner_mut().next()
                {
                    if let Some(event) = decode(&record)
                        && shares.take(event.uid)
                    {
                        tell(&event, &told);
                    }
                    batch += 1;
                }
                for (uid, count) in shares.untold(Instant::now()) {
                    tracing::warn!(target: "tidegate_kernel::shield", uid, count, "refused more than is told each");
                }
                if batch < BATCH {
                    ready.clear_ready();
                } else {
                    // Whoever makes events faster than they are read keeps nobody else from the runtime.
                    tokio::task::yield_now().await;
                }
            }
        })))
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn tell(event: &ShieldEvent, told: &Told) {
    let what = Refused(event).to_string();
    let refusal =
        Refusal { pid: event.tgid, uid: event.uid, gid: event.gid, command: text(&event.command), what };
    let Refusal { pid, uid, gid, command, what } = &refusal;
    tracing::warn!(target: "tidegate_kernel::shield", pid, uid, gid, %command, "refused {what}");
    told(&refusal);
}

/// The event that a record holds; none if it is cut short.
fn decode(record: &[u8]) -> Option<ShieldEvent> {
    if record.len() < size_of::<ShieldEvent>() {
        return None;
    }
    // SAFETY: there are enough bytes, any of them are a `ShieldEvent`, and no alignment is asked for.
    Some(unsafe { std::ptr::read_unaligned(record.as_ptr().cast()) })
}

/// What was refused, in words.
struct Refused<'a>(&'a ShieldEvent);

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        let (folder, name) = event.text.split_at(NAME_BYTES);
        let file = || format!("{}/{}", text(folder), text(name));
        let is = |kind: ShieldEventKind| event.kind == kind as u32;
        let family = event.detail >> 32;
        if is(ShieldEventKind::File) {
            write!(f, "the shielded file {}", file())
        } else if is(ShieldEventKind::Rename) {
            write!(f, "another name for the shielded {}", file())
        } else if is(ShieldEventKind::OwnFile) {
            write!(f, "the agent's own {}", file())
        } else if is(ShieldEventKind::Unix) {
            match event.text.split_first() {
                Some((0, _)) if event.detail == 0 => write!(f, "a Unix socket without a name"),
                Some((0, name)) => write!(f, "the Unix socket @{}", text(name)),
                _ => write!(f, "the Unix socket {}", text(&event.text)),
            }
        } else if is(ShieldEventKind::Family) {
            let (kind, protocol) = (event.detail >> 16 & 0xffff, event.detail & 0xffff);
            write!(f, "a socket of family {family} type {kind} protocol {protocol}")
        } else if is(ShieldEventKind::Received) {
            write!(f, "a socket of family {family} that nobody governed made")
        } else if is(ShieldEventKind::Trace) {
            write!(f, "to trace process {}", event.detail)
        } else if is(ShieldEventKind::Signal) {
            write!(f, "signal {} to the agent", event.detail)
        } else if is(ShieldEventKind::Bpf) {
            write!(f, "bpf command {}", event.detail)
        } else {
            write!(f, "io_uring with others' credentials or a driver's command")
        }
    }
}

/// The text before the padding, with nothing in it that a terminal would act on.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: ShieldEventKind, detail: u64, parts: (&str, &str)) -> ShieldEvent {
        let mut event = ShieldEvent {
            subjects: 1,
            cgroup: 1,
            detail,
            kind: kind as u32,
            tgid: 1,
            uid: 1,
            gid: 1,
            command: *b"cat\0\0\0\0\0\0\0\0\0\0\0\0\0",
            text: [0; 2 * NAME_BYTES],
        };
        let (folder, name) = event.text.split_at_mut(NAME_BYTES);
        folder.iter_mut().zip(parts.0.bytes()).for_each(|(to, from)| *to = from);
        name.iter_mut().zip(parts.1.bytes()).for_each(|(to, from)| *to = from);
        event
    }

    #[test]
    fn a_refusal_is_told_in_words() {
        let told = |kind, detail, parts| Refused(&event(kind, detail, parts)).to_string();
        assert_eq!(told(ShieldEventKind::File, 0, ("ci", ".pgpass")), "the shielded file ci/.pgpass");
        assert_eq!(
            told(ShieldEventKind::Unix, 0, ("/run/docker.sock", "")),
            "the Unix socket /run/docker.sock"
        );
        assert_eq!(told(ShieldEventKind::Unix, 4, ("\0bus", "")), "the Unix socket @bus");
        assert_eq!(
            told(ShieldEventKind::Family, 40 << 32 | 1 << 16, ("", "")),
            "a socket of family 40 type 1 protocol 0"
        );
    }

    #[test]
    fn a_name_cannot_speak_to_the_readers_terminal() {
        let told = Refused(&event(ShieldEventKind::File, 0, ("\x1b[2J", "x\ny"))).to_string();
        assert!(!told.contains(['\x1b', '\n']), "{told}");
    }
}
