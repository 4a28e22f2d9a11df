//! A wire that ends in a network namespace of our own: what arrives there has left the host.
//!
//! Nothing of it outlives the process: the namespaces go with the threads that hold them, the links with the namespaces.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket},
    unistd::gettid,
};

/// `PACKET_OUTGOING` (linux/if_packet.h): the namespace itself sent the frame.
const OUTGOING: u8 = 4;
/// Longest frame that is looked at, in bytes; the links carry 1,500.
const FRAME: usize = 2_048;
/// How long a call back may take.
const CALL: Duration = Duration::from_millis(700);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, held by a thread.
#[derive(Debug)]
pub(crate) struct Namespace {
    jobs: Sender<Job>,
    thread: i32,
}

impl Namespace {
    fn new() -> Result<Self> {
        let (jobs, work) = channel::<Job>();
        let (tell, told) = channel();
        thread::Builder::new().name("namespace".into()).spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET);
            let failed = made.is_err();
            if tell.send(made.map(|()| gettid().as_raw())).is_err() || failed {
                return;
            }
            work.into_iter().for_each(|job| job());
        })?;
        let thread = told.recv()?.context("making a network namespace: this needs root")?;
        let this = Self { jobs, thread };
        this.ip(&["link", "set", "lo", "up"])?;
        Ok(this)
    }

    /// Where a process that enters it finds it.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/task/{}/ns/net", std::process::id(), self.thread).into()
    }

    /// Does something in it.
    fn within<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (tell, told) = channel();
        let gone = || anyhow!("the namespace's thread is gone");
        // Whoever asks waits for the answer.
        self.jobs.send(Box::new(move || drop(tell.send(job())))).map_err(|_| gone())?;
        told.recv().map_err(|_| gone())
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        let owned: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        self.within(move || ip(&owned.iter().map(String::as_str).collect::<Vec<_>>()))?
    }

    /// Writes a setting of `/proc/sys/net`, each namespace's own.
    fn set(&self, name: &'static str, value: &'static str) -> Result<()> {
        self.within(move || fs::write(format!("/proc/sys/net/{name}"), value))?
            .with_context(|| name.to_owned())
    }
}

/// One end of a link that leads to the canary.
#[derive(Debug, Clone)]
pub(crate) struct End {
    /// Name of the near interface.
    pub(crate) interface: String,
    /// Near address.
    pub(crate) near: Ipv4Addr,
    /// The canary's address.
    pub(crate) far: Ipv4Addr,
    /// The canary's IPv6 address; none where the host has no IPv6.
    pub(crate) far6: Option<Ipv6Addr>,
}

/// The canary's namespace with a link to the host, and one to a namespace like a container's.
#[derive(Debug)]
pub(crate) struct Wire {
    /// From the host.
    pub(crate) host: End,
    /// From the pod.
    pub(crate) pod_end: End,
    /// A namespace like a container's: another loopback, and a wire of its own.
    pub(crate) pod: Namespace,
    /// An address behind the wire that the bundle may pass.
    pub(crate) passed: Ipv4Addr,
    /// Its IPv6 counterpart.
    pub(crate) passed6: Option<Ipv6Addr>,
    /// An address behind the wire that the bundle may declare as a resource's.
    pub(crate) declared: Ipv4Addr,
    canary: Namespace,
    packets: OwnedFd,
    /// Never accepted from: the kernel completes handshakes and takes in data all the same.
    _listeners: Vec<TcpListener>,
}

/// The canary's link-local address.
pub(crate) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

impl Wire {
    /// Makes it, with TCP listeners on these ports. `number` keeps wires of several batteries apart.
    pub(crate) fn new(number: u16, ports: &[u16]) -> Result<Self> {
        let (canary, pod) = (Namespace::new()?, Namespace::new()?);
        // RFC 2544 keeps 198.18.0.0/15 for tests of networks; fd74:6761::/32 is one of everybody's own (RFC 4193).
        let [high, low] = number.to_be_bytes();
        let v4 = |last: u8| Ipv4Addr::new(198, 18 | (high & 1), low, (high & 0xe0) | last);
        let v6 = |link: u16, last: u16| Ipv6Addr::new(0xfd74, 0x6761, number, link, 0, 0, 0, last);
        let end = |kind: &str, link: u16, near: u8| End {
            interface: format!("tg{kind}{number:04x}"),
            near: v4(near),
            far: v4(near + 1),
            far6: Some(v6(link, 2)),
        };
        let (mut host, mut pod_end) = (end("h", 0, 1), end("p", 1, 17));
        let (passed, passed6, declared) = (v4(3), v6(0, 3), v4(4));

        canary.set("ipv4/conf/all/route_localnet", "1")?;
        pod.set("ipv4/ping_group_range", "0 2147483647")?;
        let far = |end: &End| format!("{}c", end.interface);
        let (far_host, far_pod) = (far(&host), far(&pod_end));
        let (in_canary, in_pod) = (canary.thread.to_string(), pod.thread.to_string());
        let create = ["link", "add", &host.interface, "type", "veth", "peer", "name", &far_host];
        ip(&[create.as_slice(), &["netns", &in_canary]].concat())?;
        let create = ["link", "add", &far_pod, "type", "veth", "peer", "name", &pod_end.interface];
        canary.ip(&[create.as_slice(), &["netns", &in_pod]].concat())?;

        let host_up = |words: &[&str]| ip(words);
        let canary_up = |words: &[&str]| canary.ip(words);
        let pod_up = |words: &[&str]| pod.ip(words);
        let mut with_v6 = configure(&host_up, &host.interface, &[host.near], &[v6(0, 1)], None)?;
        let (all4, all6) = ([host.far, passed, declared], [v6(0, 2), passed6]);
        with_v6 &= configure(&canary_up, &far_host, &all4, &all6, Some(LINK_LOCAL))?;
        configure(&canary_up, &far_pod, &[pod_end.far], &[v6(1, 2)], None)?;
        configure(&pod_up, &pod_end.interface, &[pod_end.near], &[v6(1, 1)], None)?;
        if !with_v6 {
            (host.far6, pod_end.far6) = (None, None);
        }

        let ports = ports.to_vec();
        let any: std::net::IpAddr =
            if with_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let listeners = canary
            .within(move || {
                ports.iter().map(|port| TcpListener::bind((any, *port))).collect::<Result<Vec<_>, _>>()
            })?
            .context("listening behind the wire")?;
        let packets = canary.within(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
        })??;
        let passed6 = with_v6.then_some(passed6);
        Ok(Self { host, pod_end, pod, passed, passed6, declared, canary, packets, _listeners: listeners })
    }

    /// Ready when a frame has arrived.
    pub(crate) fn packets(&self) -> BorrowedFd<'_> {
        self.packets.as_fd()
    }

    /// The next frame that arrived and that the canary did not send itself.
    pub(crate) fn frame(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; FRAME];
        loop {
            use std::os::fd::AsRawFd;
            let (length, from) = recvfrom::<LinkAddr>(self.packets.as_raw_fd(), &mut buffer).ok()?;
            if from.is_some_and(|from| from.pkttype() == OUTGOING) {
                continue;
            }
            buffer.truncate(length);
            return Some(buffer);
        }
    }

    /// Calls a port of the host's from behind the wire, by TCP and by UDP. The connection lives as long as the answer.
    pub(crate) fn call(&self, port: u16) -> Result<Option<TcpStream>> {
        let to = SocketAddr::from((self.host.near, port));
        self.canary.within(move || {
            if let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
                socket.send_to(b"hello", to).ok();
            }
            TcpStream::connect_timeout(&to, CALL).ok()
        })
    }
}

/// Gives an interface its addresses. False if it takes no IPv6.
fn configure(
    ip: &dyn Fn(&[&str]) -> Result<()>,
    interface: &str,
    v4: &[Ipv4Addr],
    v6: &[Ipv6Addr],
    link_local: Option<Ipv6Addr>,
) -> Result<bool> {
    for address in v4 {
        ip(&["addr", "add", &format!("{address}/28"), "dev", interface])?;
    }
    ip(&["link", "set", interface, "up"])?;
    let v6 = v6.iter().chain(&link_local);
    let mut addresses = v6.map(|address| format!("{address}/64"));
    Ok(addresses.all(|address| ip(&["-6", "addr", "add", &address, "dev", interface, "nodad"]).is_ok()))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("starting ip (package iproute2)")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), complaint.trim());
    Ok(())
}
