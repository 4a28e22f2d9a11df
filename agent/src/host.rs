//! What happens on the host outside any session: the shield's refusals, sockets from before their process was governed, tokens
//! that look stolen.
//! It has a record of its own for each run of the agent, begun when there is something to write.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidegate_gate::{Entry, Record, RecordError, Records};
use tidegate_identity::Stolen;
use tidegate_kernel::{OlderSocket, Refusal};
use tidegate_policy::{Principal, Process};

/// The record's resource and protocol.
const HOST: &str = "host";
/// Events that wait to be written at most.
const WAITING: usize = 1_024;
/// Events that are written out within [`PERIOD`]; more are counted, so that who is refused can't fill the disk.
const MOST: u64 = 4_096;
/// How long that counts.
const PERIOD: Duration = Duration::from_secs(3_600);

/// Where such events go. Dropped, it writes what waits and closes the record.
pub(crate) struct HostRecord {
    sender: Option<SyncSender<Event>>,
    writer: Option<JoinHandle<()>>,
    /// Events that were not written out since the last that was.
    left_out: Arc<AtomicU64>,
}

/// Something that happened.
struct Event {
    name: &'static str,
    detail: String,
}

/// The writing end, on a thread of its own.
struct Writer {
    records: Arc<dyn Records>,
    tier: Arc<str>,
    record: Option<Box<dyn Record>>,
    left_out: Arc<AtomicU64>,
    began: Instant,
    written: u64,
}

impl HostRecord {
    /// `tier` is what the record says of the host.
    ///
    /// # Errors
    ///
    /// There can be no thread.
    pub(crate) fn start(records: Arc<dyn Records>, tier: Arc<str>) -> std::io::Result<Self> {
        let (sender, events) = sync_channel(WAITING);
        let left_out = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            records,
            tier,
            record: None,
            left_out: left_out.clone(),
            began: Instant::now(),
            written: 0,
        };
        let writer = thread::Builder::new().name("host-record".into()).spawn(move || writer.run(&events))?;
        Ok(Self { sender: Some(sender), writer: Some(writer), left_out })
    }

    /// The shield refused something.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        let Refusal { pid, uid, gid, command, what } = refusal;
        self.tell("refused", format!("{what}: pid {pid} uid {uid} gid {gid} command {command}"));
    }

    /// A socket was open before its process was governed.
    pub(crate) fn older_socket(&self, socket: &OlderSocket) {
        let OlderSocket { pid, uid, protocol, local, remote, ended } = socket;
        let protocol = format!("{protocol:?}").to_lowercase();
        let pid = pid.map_or_else(|| "of no process".to_owned(), |pid| format!("pid {pid}"));
        let name = if *ended { "older-socket-ended" } else { "older-socket-not-ended" };
        self.tell(name, format!("{protocol} {local} to {remote}: {pid} uid {uid}"));
    }

    /// Not all that ran before the rules could be brought under them.
    pub(crate) fn not_reached(&self, trouble: &str) {
        self.tell("rules-not-everywhere", trouble.to_owned());
    }

    /// A token was used that looks stolen.
    pub(crate) fn stolen(&self, stolen: &Stolen) {
        let name = if stolen.first.is_some() { "token-elsewhere" } else { "token-replayed" };
        self.tell(name, stolen.to_string());
    }

    fn tell(&self, name: &'static str, detail: String) {
        let sent = self.sender.as_ref().map(|sender| sender.try_send(Event { name, detail }));
        if matches!(sent, Some(Err(TrySendError::Full(_)))) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for HostRecord {
    fn drop(&mut self) {
        self.sender = None;
        // A panic in it was printed.
        self.writer.take().map(JoinHandle::join);
    }
}

impl Writer {
    fn run(mut self, events: &Receiver<Event>) {
        while let Ok(event) = events.recv() {
            if self.began.elapsed() >= PERIOD {
                (self.began, self.written) = (Instant::now(), 0);
            }
            if self.written >= MOST {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.written += 1;
            if let Err(error) = self.write(&event) {
                tracing::error!(%error, event = event.name, detail = event.detail, "what happened on the host was not recorded");
            }
        }
        if let Err(error) = self.count() {
            tracing::error!(%error, "what happened on the host was not recorded");
        }
        if let Some(record) = self.record {
            record.close("the agent ends");
        }
    }

    fn write(&mut self, event: &Event) -> Result<(), RecordError> {
        self.count()?;
        let detail = Cow::Borrowed(event.detail.as_str());
        self.record()?.write(&Entry::Event { event: event.name.into(), detail })
    }

    /// Says how many events were left out before this one.
    fn count(&mut self) -> Result<(), RecordError> {
        let count = self.left_out.swap(0, Ordering::Relaxed);
        if count == 0 {
            return Ok(());
        }
        let detail = format!("{count} more, too many to write out").into();
        self.record()?.write(&Entry::Event { event: "events-counted".into(), detail })
    }

    fn record(&mut self) -> Result<&mut Box<dyn Record>, RecordError> {
        let record = match self.record.take() {
            Some(record) => record,
            None => self.open()?,
        };
        Ok(self.record.insert(record))
    }

    fn open(&self) -> Result<Box<dyn Record>, RecordError> {
        let process =
            Process { pid: std::process::id(), command: env!("CARGO_PKG_NAME").into(), ..Process::default() };
        let principal = Principal { process, ..Principal::default() };
        self.records.open(Entry::Open {
            principal: Cow::Owned(principal),
            destination: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            resource: HOST.into(),
            protocol: HOST.into(),
            policy: "".into(),
            tier: Cow::Borrowed(&self.tier),
        })
    }
}

#[cfg(test)]
mod tests {
    use tidegate_kernel::Protocol;

    use super::*;
    use crate::test_support::FakeRecords;

    fn refusal(what: &str) -> Refusal {
        Refusal { pid: 7, uid: 61_090, gid: 61_090, command: "cat".to_owned(), what: what.to_owned() }
    }

    fn host(records: &FakeRecords) -> HostRecord {
        HostRecord::start(Arc::new(records.clone()), "full".into()).unwrap()
    }

    #[test]
    fn what_happens_is_written_into_one_record_that_ends_with_the_agent() {
        let records = FakeRecords::default();
        let host = host(&records);
        host.refused(&refusal("the shielded file ci/.pgpass"));
        let (local, remote) = ("127.0.0.1:5".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
        host.older_socket(&OlderSocket {
            pid: Some(9),
            uid: 61_090,
            protocol: Protocol::Tcp,
            local,
            remote,
            ended: true,
        });
        drop(host);
        let lines = records.lines.lock().unwrap();
        assert!(lines[0].contains("the shielded file ci/.pgpass: pid 7 uid 61090"), "{lines:?}");
        assert!(lines[1].contains("older-socket-ended") && lines[1].contains("pid 9"), "{lines:?}");
        assert_eq!(*records.closed.lock().unwrap(), ["the agent ends"]);
    }

    #[test]
    fn a_host_where_nothing_happens_has_no_record() {
        let records = FakeRecords::default();
        drop(host(&records));
        assert_eq!(records.opened.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn whoever_is_refused_without_end_cannot_fill_the_disk_and_what_is_left_out_is_counted() {
        let records = FakeRecords::default();
        let host = host(&records);
        let told = MOST + 3_000;
        for _ in 0..told {
            host.refused(&refusal("bpf command 5"));
        }
        drop(host);
        let lines = records.lines.lock().unwrap();
        let refused = lines.iter().filter(|line| line.contains("refused")).count() as u64;
        let counted: u64 = lines
            .iter()
            .filter_map(|line| line.split_once(" more, too many")?.0.rsplit('"').next()?.parse::<u64>().ok())
            .sum();
        assert!(refused <= MOST, "{refused}");
        assert_eq!(refused + counted, told);
    }
}
