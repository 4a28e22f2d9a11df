//! The list of attacks: what each tries, and what closes it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One way around the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attack {
    /// Its name in reports.
    pub name: &'static str,
    /// The program that tries it.
    pub program: &'static str,
    /// What it tries.
    pub tries: &'static str,
    /// What closes it.
    pub layer: Layer,
    /// Where it runs.
    pub place: Place,
    /// What the attacker may do beyond other accounts.
    pub privilege: Privilege,
    /// When it can be tried.
    pub when: When,
    /// Who shows that it works.
    pub(crate) control: Control,
    /// Only the attack's text counts: a handshake was made before, by somebody who may.
    pub(crate) by_text: bool,
    /// Part of the kernel without which nobody can try it.
    pub needs: Option<&'static str>,
}

/// What closes a way around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The hooks of connect() and sendmsg().
    Rewrite,
    /// The hook of socket().
    Creation,
    /// The hook of setsockopt().
    Options,
    /// The hooks of bind().
    Bind,
    /// The guard on packets that leave.
    Guard,
    /// The agent's resolver.
    Resolver,
    /// The agent's start, which ends what was open before.
    Start,
    /// The hooks on names of Unix sockets, or LSM programs.
    Names,
    /// LSM programs.
    Shield,
    /// The agent, which closes what no hook handed over.
    Agent,
    /// Ordinary permissions of files and processes.
    Permissions,
    /// Nothing: see the threat model.
    Outside,
}

/// Where an attack runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the host's network namespace.
    Host,
    /// In a network namespace of its own, as in a container.
    Pod,
}

/// What the attacker may do beyond other accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Nothing.
    None,
    /// `CAP_NET_RAW`, which container runtimes give by default.
    NetRaw,
}

/// When an attack can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At any time, with the agent alive or dead.
    Any,
    /// While the agent is alive.
    Alive,
    /// While the agent is away.
    Dead,
    /// It begins before the agent does.
    Before,
}

/// Who shows that an attack works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// An account that isn't governed must succeed.
    Ungoverned,
    /// Nobody: it must fail for every account.
    None,
}

impl Attack {
    const fn new(name: &'static str, program: &'static str, tries: &'static str, layer: Layer) -> Self {
        Self {
            name,
            program,
            tries,
            layer,
            place: Place::Host,
            privilege: Privilege::None,
            when: When::Any,
            control: Control::Ungoverned,
            by_text: false,
            needs: None,
        }
    }

    const fn in_pod(mut self) -> Self {
        self.place = Place::Pod;
        self
    }

    const fn with_net_raw(mut self) -> Self {
        self.privilege = Privilege::NetRaw;
        self
    }

    const fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    const fn told_by_text(mut self) -> Self {
        self.by_text = true;
        self
    }

    const fn without_control(mut self) -> Self {
        self.control = Control::None;
        self
    }

    const fn needs(mut self, part: &'static str) -> Self {
        self.needs = Some(part);
        self
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rewrite => "connect and sendmsg hooks",
            Self::Creation => "socket hook",
            Self::Options => "setsockopt hook",
            Self::Bind => "bind hooks",
            Self::Guard => "egress guard",
            Self::Resolver => "resolver",
            Self::Start => "start of the agent",
            Self::Names => "Unix socket hooks",
            Self::Shield => "LSM programs",
            Self::Agent => "agent",
            Self::Permissions => "permissions",
            Self::Outside => "nothing",
        })
    }
}

/// All of them.
pub const ATTACKS: &[Attack] = &[
    Attack::new("tcp", "tcp", "connect to an IPv4 address", Layer::Rewrite),
    Attack::new("tcp-v6", "tcp_v6", "connect to an IPv6 address", Layer::Rewrite),
    Attack::new("tcp-mapped", "tcp_mapped", "connect to an IPv4-mapped IPv6 address", Layer::Rewrite),
    Attack::new(
        "tcp-scoped",
        "tcp_scoped",
        "connect to a link-local IPv6 address with a scope",
        Layer::Rewrite,
    ),
    Attack::new("tcp-loopback", "tcp_loopback", "connect to a server on 127.0.0.1", Layer::Rewrite),
    Attack::new(
        "tcp-loopback-other",
        "tcp_loopback_other",
        "connect to a server on another address of 127/8",
        Layer::Rewrite,
    ),
    Attack::new("tcp-loopback-v6", "tcp_loopback_v6", "connect to a server on ::1", Layer::Rewrite),
    Attack::new("tcp-loopback-mapped", "tcp_loopback_mapped", "connect to ::ffff:127.0.0.1", Layer::Rewrite),
    Attack::new("tcp-zero", "tcp_zero", "connect to 0.0.0.0, which is loopback", Layer::Rewrite),
    Attack::new("tcp-zero-v6", "tcp_zero_v6", "connect to ::, which is loopback", Layer::Rewrite),
    Attack::new(
        "tcp-zero-mapped",
        "tcp_zero_mapped",
        "connect to ::ffff:0.0.0.0, which is loopback",
        Layer::Rewrite,
    ),
    Attack::new("tcp-fast-open", "tcp_fast_open", "send in the SYN, without connect()", Layer::Rewrite),
    Attack::new(
        "tcp-fast-open-connect",
        "tcp_fast_open_connect",
        "let the first write connect (TCP_FASTOPEN_CONNECT)",
        Layer::Rewrite,
    ),
    Attack::new(
        "tcp-nonblocking",
        "tcp_nonblocking",
        "connect without waiting for the answer",
        Layer::Rewrite,
    ),
    Attack::new("tcp-thread", "tcp_thread", "connect in another thread than the first", Layer::Rewrite),
    Attack::new(
        "tcp-dissolved",
        "tcp_dissolved",
        "dissolve an allowed connection and use its socket again",
        Layer::Rewrite,
    ),
    Attack::new(
        "mptcp",
        "mptcp",
        "Multipath TCP, whose subflows are sockets of the kernel's",
        Layer::Creation,
    )
    .needs("MPTCP"),
    Attack::new("mptcp-v6", "mptcp_v6", "Multipath TCP over IPv6", Layer::Creation).needs("MPTCP"),
    Attack::new("forward-proxy", "forward_proxy", "use a forward proxy on loopback", Layer::Rewrite),
    Attack::new("udp", "udp", "send a datagram over IPv4", Layer::Rewrite),
    Attack::new("udp-v6", "udp_v6", "send a datagram over IPv6", Layer::Rewrite),
    Attack::new("udp-mapped", "udp_mapped", "send a datagram to an IPv4-mapped address", Layer::Rewrite),
    Attack::new(
        "udp-v6-socket-v4-address",
        "udp_v6_socket_v4_address",
        "give an IPv6 socket an IPv4 address",
        Layer::Rewrite,
    ),
    Attack::new("udp-scoped", "udp_scoped", "send a datagram to a link-local address", Layer::Rewrite),
    Attack::new("udp-loopback", "udp_loopback", "send a datagram to 127.0.0.1", Layer::Rewrite),
    Attack::new("udp-loopback-v6", "udp_loopback_v6", "send a datagram to ::1", Layer::Rewrite),
    Attack::new("udp-connected", "udp_connected", "connect a UDP socket and send", Layer::Rewrite),
    Attack::new(
        "udp-connected-elsewhere",
        "udp_connected_elsewhere",
        "connect to what is passed, and name another address with the datagram",
        Layer::Rewrite,
    ),
    Attack::new("udp-sendmmsg", "udp_sendmmsg", "send many datagrams with one call", Layer::Rewrite),
    Attack::new("udp-fragments", "udp_fragments", "send a datagram in fragments, of which only the first has ports", Layer::Rewrite),
    Attack::new("udp-extension-headers", "udp_extension_headers", "send a datagram behind a chain of extension headers", Layer::Rewrite)
        .with_net_raw(),
    Attack::new("udp-broadcast", "udp_broadcast", "send a datagram to everybody on a link", Layer::Rewrite),
    Attack::new("udp-multicast", "udp_multicast", "send a datagram to a multicast group", Layer::Rewrite),
    Attack::new("udp-quic", "udp_quic", "QUIC: UDP to port 443", Layer::Rewrite),
    Attack::new("dns", "dns", "put the data into a name and ask any server for it", Layer::Resolver),
    Attack::new("dns-connected", "dns_connected", "put the data into a name and ask for it through a connected socket", Layer::Resolver),
    Attack::new("dns-tcp", "dns_tcp", "put the data into a name and ask for it over TCP", Layer::Resolver),
    Attack::new("dns-loopback", "dns_loopback", "put the data into a name and ask a resolver on loopback for it", Layer::Resolver),
    Attack::new("uring-connect", "uring_connect", "connect through io_uring", Layer::Rewrite)
        .needs("io_uring"),
    Attack::new(
        "uring-socket",
        "uring_socket",
        "create and connect a socket through io_uring",
        Layer::Rewrite,
    )
    .needs("IORING_OP_SOCKET"),
    Attack::new("uring-sendmsg", "uring_sendmsg", "send a datagram through io_uring", Layer::Rewrite)
        .needs("io_uring"),
    Attack::new("uring-personality", "uring_personality", "connect through io_uring as root, who was registered before", Layer::Rewrite)
        .needs("io_uring"),
    Attack::new("uring-personality-raw", "uring_personality_raw", "make a raw socket through io_uring as root, who was registered before", Layer::Creation)
        .needs("IORING_OP_SOCKET"),
    Attack::new(
        "source-route-tcp",
        "source_route_tcp",
        "connect to what is passed, by way of the canary (IP_OPTIONS)",
        Layer::Options,
    )
    .with_net_raw(),
    Attack::new(
        "source-route-udp",
        "source_route_udp",
        "send to what is passed, by way of the canary, once connected (IP_OPTIONS)",
        Layer::Options,
    )
    .with_net_raw(),
    Attack::new(
        "source-route-ancillary",
        "source_route_ancillary",
        "send to what is passed, by way of the canary, with the route as ancillary data (IP_RETOPTS)",
        Layer::Guard,
    )
    .with_net_raw(),
    Attack::new(
        "source-route-fragments",
        "source_route_fragments",
        "send to what is passed, by way of the canary, in fragments of which only the first has ports",
        Layer::Guard,
    )
    .with_net_raw(),
    Attack::new(
        "routing-header-tcp",
        "routing_header_tcp",
        "connect to what is passed, by way of the canary (IPV6_RTHDR)",
        Layer::Options,
    )
    .needs("segment routing headers"),
    Attack::new(
        "routing-header-ancillary",
        "routing_header_ancillary",
        "send to what is passed, by way of the canary, with the routing header as ancillary data",
        Layer::Guard,
    )
    .needs("Mobile IPv6"),
    Attack::new(
        "device-before-connect",
        "device_before_connect",
        "connect to a declared resource through a device: the gate's address is asked for on the wire",
        Layer::Rewrite,
    )
    .without_control(),
    Attack::new(
        "device-after-connect",
        "device_after_connect",
        "move an allowed loopback connection to a device",
        Layer::Options,
    ),
    Attack::new(
        "device-udp",
        "device_udp",
        "send a datagram for loopback through a device (SO_BINDTODEVICE)",
        Layer::Options,
    ),
    Attack::new("device-by-index", "device_by_index", "send a datagram for loopback through a device (SO_BINDTOIFINDEX)", Layer::Options),
    Attack::new("unicast-interface", "unicast_interface", "send a datagram for loopback through a device (IP_UNICAST_IF)", Layer::Options),
    Attack::new("packet-info", "packet_info", "send a datagram for loopback through a device (IP_PKTINFO, ancillary)", Layer::Guard),
    Attack::new(
        "packet-info-v6",
        "packet_info_v6",
        "send a datagram for loopback through a device (IPV6_PKTINFO, ancillary)",
        Layer::Guard,
    ),
    Attack::new("igmp-join", "igmp_join", "put the data into a multicast group and join it", Layer::Options),
    Attack::new(
        "igmp-join-any-family",
        "igmp_join_any_family",
        "put the data into a multicast group and join it (MCAST_JOIN_GROUP)",
        Layer::Options,
    ),
    Attack::new("mld-join", "mld_join", "put the data into an IPv6 multicast group and join it", Layer::Options),
    Attack::new("raw-icmp", "raw_icmp", "ICMP from a raw socket", Layer::Creation).with_net_raw(),
    Attack::new("raw-icmp-v6", "raw_icmp_v6", "ICMPv6 from a raw socket", Layer::Creation).with_net_raw(),
    Attack::new("raw-header", "raw_header", "a whole IPv4 packet from a raw socket", Layer::Creation)
        .with_net_raw(),
    Attack::new("packet-raw", "packet_raw", "a whole frame from a packet socket", Layer::Shield)
        .with_net_raw(),
    Attack::new("packet-cooked", "packet_cooked", "a packet from a packet socket", Layer::Shield)
        .with_net_raw(),
    Attack::new("xdp", "xdp", "an XDP socket", Layer::Shield).with_net_raw().needs("XDP sockets"),
    Attack::new("ping", "ping", "ICMP from a datagram socket", Layer::Creation).in_pod(),
    Attack::new("ping-v6", "ping_v6", "ICMPv6 from a datagram socket", Layer::Creation).in_pod(),
    Attack::new("udplite", "udplite", "connect with UDP-Lite", Layer::Creation).needs("UDP-Lite"),
    Attack::new("sctp", "sctp", "connect with SCTP", Layer::Creation).needs("SCTP"),
    Attack::new("sctp-datagrams", "sctp_datagrams", "SCTP, one-to-many", Layer::Creation).needs("SCTP"),
    Attack::new("dccp", "dccp", "connect with DCCP", Layer::Creation).needs("DCCP"),
    Attack::new("l2tp", "l2tp", "L2TP over IP", Layer::Creation).needs("L2TP"),
    Attack::new("smc", "smc", "SMC, which falls back to TCP inside the kernel", Layer::Shield).needs("SMC"),
    Attack::new("vsock", "vsock", "a socket to the hypervisor", Layer::Shield).needs("vsock"),
    Attack::new(
        "other-families",
        "other_families",
        "RDS, TIPC, Bluetooth, CAN, X.25, QRTR and other families",
        Layer::Shield,
    )
    .needs("any of these families"),
    Attack::new("before-tcp", "before_tcp", "a TCP connection from before the agent", Layer::Start)
        .when(When::Before),
    Attack::new(
        "before-tcp-loopback",
        "before_tcp_loopback",
        "a TCP connection on loopback from before the agent",
        Layer::Start,
    )
    .when(When::Before),
    Attack::new(
        "before-tcp-unconnected",
        "before_tcp_unconnected",
        "a TCP socket from before the agent, connected under it",
        Layer::Rewrite,
    )
    .when(When::Before),
    Attack::new("before-udp", "before_udp", "a UDP socket from before the agent", Layer::Rewrite)
        .when(When::Before),
    Attack::new(
        "before-udp-connected",
        "before_udp_connected",
        "a connected UDP socket from before the agent",
        Layer::Start,
    )
    .when(When::Before),
    Attack::new(
        "before-listener",
        "before_listener",
        "a listening socket from before the agent, called under it",
        Layer::Start,
    )
    .when(When::Before),
    Attack::new(
        "before-thread",
        "before_thread",
        "a TCP connection from before the agent that one thread alone has a descriptor of",
        Layer::Start,
    )
    .when(When::Before),
    Attack::new(
        "before-first-thread-ended",
        "before_first_thread_ended",
        "a TCP connection from before the agent, of a process whose first thread has ended",
        Layer::Start,
    )
    .when(When::Before),
    Attack::new(
        "before-uring",
        "before_uring",
        "a TCP connection from before the agent that io_uring alone holds",
        Layer::Start,
    )
    .when(When::Before)
    .needs("io_uring"),
    Attack::new(
        "before-in-flight",
        "before_in_flight",
        "a TCP connection from before the agent that lies in another socket's queue",
        Layer::Start,
    )
    .when(When::Before),
    Attack::new(
        "inherited-tcp",
        "inherited_tcp",
        "a TCP connection that an ungoverned parent left open",
        Layer::Outside,
    )
    .told_by_text(),
    Attack::new(
        "inherited-udp",
        "inherited_udp",
        "a UDP socket that an ungoverned parent left open",
        Layer::Rewrite,
    ),
    Attack::new(
        "inherited-udp-connected",
        "inherited_udp_connected",
        "a connected UDP socket that an ungoverned parent left open",
        Layer::Outside,
    )
    .told_by_text(),
    Attack::new(
        "passed-descriptor",
        "passed_descriptor",
        "a TCP connection that an ungoverned process hands over (SCM_RIGHTS)",
        Layer::Shield,
    )
    .told_by_text(),
    Attack::new(
        "connected-by-another",
        "connected_by_another",
        "a governed socket that an ungoverned process connects and hands back",
        Layer::Rewrite,
    )
    .told_by_text(),
    Attack::new(
        "pidfd-getfd",
        "pidfd_getfd",
        "take a TCP connection out of an ungoverned process",
        Layer::Shield,
    )
    .told_by_text(),
    Attack::new(
        "reparented",
        "reparented",
        "fork twice, begin a session, let the parent end: as cron and at run things",
        Layer::Rewrite,
    ),
    Attack::new("executed", "executed", "become another program", Layer::Rewrite),
    Attack::new("other-cgroup", "other_cgroup", "move to another cgroup", Layer::Rewrite),
    Attack::new(
        "setuid-program",
        "setuid_program",
        "become another account by a setuid program, as sudo is",
        Layer::Rewrite,
    ),
    Attack::new("user-namespace", "user_namespace", "be root of a user namespace", Layer::Rewrite)
        .needs("unprivileged user namespaces"),
    Attack::new(
        "joined-namespace",
        "joined_namespace",
        "join the user namespace of an ungoverned process",
        Layer::Rewrite,
    )
    .needs("unprivileged user namespaces"),
    Attack::new(
        "kept-socket",
        "kept_socket",
        "take a TCP socket along to another network namespace",
        Layer::Rewrite,
    )
    .needs("unprivileged user namespaces"),
    Attack::new(
        "kept-socket-udp",
        "kept_socket_udp",
        "take a UDP socket along to another network namespace",
        Layer::Rewrite,
    )
    .needs("unprivileged user namespaces"),
    Attack::new("pod-tcp", "tcp", "connect from a network namespace with a wire of its own", Layer::Rewrite)
        .in_pod(),
    Attack::new("pod-tcp-v6", "tcp_v6", "connect over IPv6 from a network namespace with a wire of its own", Layer::Rewrite).in_pod(),
    Attack::new(
        "pod-udp",
        "udp",
        "send a datagram from a network namespace with a wire of its own",
        Layer::Rewrite,
    )
    .in_pod(),
    Attack::new("pod-dns", "dns", "ask a server of names from a network namespace with a wire of its own", Layer::Resolver).in_pod(),
    Attack::new(
        "pod-packet-raw",
        "packet_raw",
        "send a frame from a packet socket in a network namespace, as a container with default capabilities can",
        Layer::Shield,
    )
    .in_pod()
    .with_net_raw(),
    Attack::new(
        "ptrace",
        "ptrace",
        "write to an ungoverned process of the same user with ptrace",
        Layer::Shield,
    ),
    Attack::new("vm-writev", "vm_writev", "write to an ungoverned process of the same user with process_vm_writev", Layer::Shield),
    Attack::new("proc-mem", "proc_mem", "write to an ungoverned process of the same user through /proc/PID/mem", Layer::Shield),
    Attack::new("unix-stream", "unix_stream", "a helper behind a Unix socket", Layer::Names),
    Attack::new(
        "unix-stream-abstract",
        "unix_stream_abstract",
        "a helper behind a Unix socket with an abstract name",
        Layer::Names,
    ),
    Attack::new("unix-datagram", "unix_datagram", "a helper behind a datagram socket", Layer::Names),
    Attack::new(
        "unix-datagram-abstract",
        "unix_datagram_abstract",
        "a helper behind a datagram socket with an abstract name",
        Layer::Names,
    ),
    Attack::new(
        "unix-datagram-unconnected",
        "unix_datagram_unconnected",
        "a helper behind a datagram socket, without a connection",
        Layer::Names,
    ),
    Attack::new(
        "unix-stream-relative",
        "unix_stream_relative",
        "a helper behind a Unix socket, by a path from its own folder",
        Layer::Names,
    ),
    Attack::new(
        "unix-stream-link",
        "unix_stream_link",
        "a helper behind a Unix socket, by a link",
        Layer::Names,
    ),
    Attack::new("named-pipe", "named_pipe", "a helper behind a named pipe", Layer::Outside),
    Attack::new("callback", "callback", "listen, be called and answer", Layer::Bind),
    Attack::new("callback-unbound", "callback_unbound", "listen on a port that the kernel chooses, be called and answer", Layer::Guard),
    Attack::new("callback-udp", "callback_udp", "wait for a datagram and answer it", Layer::Rewrite),
    Attack::new("proxy-port", "proxy_port", "talk to the gate's port directly", Layer::Agent)
        .without_control(),
    Attack::new(
        "proxy-port-taken",
        "proxy_port_taken",
        "sit on the gate's port while the agent is away",
        Layer::Bind,
    )
    .when(When::Dead),
    Attack::new("proxy-port-taken-v6", "proxy_port_taken_v6", "sit on the gate's port of every IPv6 address while the agent is away", Layer::Bind)
        .when(When::Dead),
    Attack::new("agent-killed", "agent_killed", "kill the agent", Layer::Permissions)
        .when(When::Alive)
        .without_control(),
    Attack::new("agent-stopped", "agent_stopped", "stop the agent", Layer::Permissions)
        .when(When::Alive)
        .without_control(),
    Attack::new("agent-memory", "agent_memory", "read the agent's memory", Layer::Permissions)
        .when(When::Alive)
        .without_control(),
    Attack::new("agent-asked", "agent_asked", "ask the agent over its admin socket", Layer::Permissions)
        .when(When::Alive)
        .without_control(),
    Attack::new("bpf-program", "bpf_program", "load a kernel program of one's own", Layer::Permissions)
        .without_control(),
    Attack::new("bpf-maps", "bpf_maps", "open the maps of the kernel programs", Layer::Permissions)
        .without_control(),
    Attack::new("bpf-links", "bpf_links", "open the links of the kernel programs", Layer::Permissions)
        .without_control(),
    Attack::new("pins", "pins", "list or remove the pins", Layer::Permissions)
        .without_control(),
    Attack::new("state-directory", "state_directory", "read the records", Layer::Permissions)
        .without_control(),
];
