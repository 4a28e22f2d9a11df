//! A gate on this host and clients of every kind for it.

mod cgroups;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use tidegate_kernel::{
    Captured, CaughtUp, Destination, Kernel, LAYOUT, OlderSocket, PassRule, Pins, Rules, SubjectRule,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

pub(crate) use self::cgroups::Cgroup;

/// A documentation address: nothing is ever sent there.
pub(crate) const V4: &str = "192.0.2.1";
/// Its IPv6 counterpart.
pub(crate) const V6: &str = "2001:db8::1";

/// A user of the subject `governed`.
pub(crate) const GOVERNED: u32 = 61_001;
/// A user of the subject `other`.
pub(crate) const OTHER: u32 = 61_002;
/// A user of no subject.
pub(crate) const UNGOVERNED: u32 = 61_050;

/// The distribution's, which every user may run.
const PYTHON: &str = "/usr/bin/python3";

/// A test that takes longer hangs; an emulated processor on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every script has.
const PRELUDE: &str = r#"
import ctypes, errno, os, socket, struct, sys, threading
def attempt(action):
    try:
        print(action())
    except TimeoutError:
        print("timed out")
    except OSError as error:
        print("errno", errno.errorcode[error.errno])
def peer(s):
    return "peer {} {}".format(*s.getpeername()[:2])
def dial(family, host, port):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.connect((host, port))
    return s
"#;

/// The kernel side with listeners as the agent has them.
pub(crate) struct Gate {
    heart: Option<Heart>,
    pub(crate) kernel: Arc<Kernel>,
    pins: TestPins,
    v4: TcpListener,
    v6: TcpListener,
}

impl Gate {
    /// Attached, listening, with the rules that `rules` makes of the IPv4 listener's port.
    pub(crate) async fn new(rules: impl FnOnce(u16) -> Rules) -> Self {
        let pins = TestPins::new();
        let kernel = Kernel::load(pins.hold()).unwrap();
        Self::with(kernel, pins, rules).await
    }

    /// The same with programs that are attached already.
    pub(crate) async fn with(kernel: Kernel, pins: TestPins, rules: impl FnOnce(u16) -> Rules) -> Self {
        let kernel = Arc::new(kernel);
        let (v4, v6) = (listen("127.0.0.1:0"), listen("[::1]:0"));
        let mut gate = Self { heart: None, kernel, pins, v4, v6 };
        gate.kernel.mark(&gate.v4).unwrap();
        gate.kernel.mark(&gate.v6).unwrap();
        gate.kernel.listen(gate.v4_port(), gate.v6_port()).unwrap();
        gate.replace(&rules(gate.v4_port()));
        gate.kernel.read_log(Box::new(|_| {})).unwrap();
        gate.heart = Some(Heart::start(gate.kernel.clone()));
        gate
    }

    /// Puts rules into force, for what runs already too. Answers the sockets that were open before.
    pub(crate) fn replace(&self, rules: &Rules) -> Vec<OlderSocket> {
        self.kernel.replace(rules).unwrap();
        let CaughtUp { older, trouble } = self.kernel.catch_up();
        assert!(trouble.is_empty(), "{trouble:?}");
        older
    }

    /// The agent is there, but nothing moves in it.
    pub(crate) fn hang(&mut self) {
        self.heart = None;
    }

    /// The agent is gone without a word, as after `kill -9`; its listeners too.
    pub(crate) fn die(self) -> TestPins {
        self.pins
    }

    pub(crate) fn v4_port(&self) -> u16 {
        self.v4.local_addr().unwrap().port()
    }

    pub(crate) fn v6_port(&self) -> u16 {
        self.v6.local_addr().unwrap().port()
    }

    /// Accepts one connection on 127.0.0.1 and asks for its origin.
    pub(crate) async fn accept_v4(&self) -> Option<Captured> {
        self.origin(&accept(&self.v4).await)
    }

    /// Accepts one connection on ::1 and asks for its origin.
    pub(crate) async fn accept_v6(&self) -> Option<Captured> {
        self.origin(&accept(&self.v6).await)
    }

    /// Closes the listeners, with what was never accepted. The pins can be taken down once the kernel is dropped.
    pub(crate) fn close(self) -> (TestPins, Arc<Kernel>) {
        (self.pins, self.kernel)
    }

    /// A port of 127.0.0.1 and ::1 that nobody listens on.
    #[expect(clippy::unused_self, reason = "belongs to the listeners")]
    pub(crate) fn unused_port(&self) -> u16 {
        listen("127.0.0.1:0").local_addr().unwrap().port()
    }

    /// Accepts one connection on 127.0.0.1.
    pub(crate) async fn accept_stream(&self) -> TcpStream {
        accept(&self.v4).await
    }

    /// The origin of an accepted connection.
    pub(crate) fn origin(&self, stream: &TcpStream) -> Option<Captured> {
        self.kernel
            .origin(self.kernel.netns(), stream.peer_addr().unwrap(), stream.local_addr().unwrap())
            .unwrap()
    }

    /// Where its pins are.
    pub(crate) fn pins_path(&self) -> PathBuf {
        self.pins.0.clone()
    }

    /// Runs a script as a user without any other groups.
    #[expect(clippy::unused_self, reason = "a client needs a gate to be there")]
    pub(crate) fn python(&self, uid: u32, script: &str) -> Client {
        Client::of(uid, script)
    }

    /// Runs a script as a user, in a network namespace of its own.
    #[expect(clippy::unused_self, reason = "a client needs a gate to be there")]
    pub(crate) fn python_in_new_netns(&self, uid: u32, script: &str) -> Client {
        let mut command = vec!["unshare".to_owned(), "--net".to_owned()];
        command.extend(as_user(uid));
        Client::start(&command, script)
    }

    /// Runs a script as root in a network namespace of its own, with both ends of a wire: `wire0`, which has 198.51.100.1,
    /// and `wire1`.
    #[expect(clippy::unused_self, reason = "a client needs a gate to be there")]
    pub(crate) fn python_on_a_wire(&self, script: &str) -> Client {
        let setup = "ip link set lo up && ip link add wire0 type veth peer name wire1 && \
                     ip link set wire1 up && ip address add 198.51.100.1/24 dev wire0 && ip link set wire0 up && \
                     exec \"$@\"";
        let command = ["unshare", "--net", "sh", "-c", setup, "sh", PYTHON, "-c"].map(str::to_owned);
        Client::start(&command, script)
    }

    /// Runs a script as root.
    #[expect(clippy::unused_self, reason = "a client needs a gate to be there")]
    pub(crate) fn python_as_root(&self, script: &str) -> Client {
        Client::start(&[PYTHON.to_owned(), "-c".to_owned()], script)
    }
}

/// Shows signs of life until it is dropped.
struct Heart {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    /// The first one has been shown when this returns.
    fn start(kernel: Arc<Kernel>) -> Self {
        kernel.live().unwrap();
        let (stop, stopped) = mpsc::channel::<()>();
        let beat = move || {
            while stopped.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                kernel.live().unwrap();
            }
        };
        Self { stop: Some(stop), thread: Some(std::thread::spawn(beat)) }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop = None;
        // A panic in it was printed.
        self.thread.take().map(JoinHandle::join);
    }
}

/// Where pins of tests are; the name ends with the process that made them and a number.
const PINS: &str = "/sys/fs/bpf/tidegate-test-";

/// A directory of pins of a test's own. Everything in it is taken down when it is dropped.
pub(crate) struct TestPins(PathBuf);

impl TestPins {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self::sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{PINS}{}-{number}", std::process::id()).into())
    }

    /// What tests that were killed left behind would go on governing.
    fn sweep() {
        for entry in std::fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.to_string_lossy();
            let owner = name.strip_prefix(PINS).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                drop(Self(path));
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn hold(&self) -> Pins {
        Pins::hold(&self.0).unwrap()
    }

    /// Runs a script as a user, with no agent there.
    #[expect(clippy::unused_self, reason = "what is pinned governs the client")]
    pub(crate) fn python(&self, uid: u32, script: &str) -> Client {
        Client::of(uid, script)
    }
}

impl Drop for TestPins {
    fn drop(&mut self) {
        if !self.0.exists() {
            return;
        }
        if let Err(error) = Pins::hold(&self.0).and_then(|pins| pins.remove()) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn as_user(uid: u32) -> Vec<String> {
    let uid = uid.to_string();
    ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", PYTHON, "-c"].map(str::to_owned).to_vec()
}

/// A process that connects.
pub(crate) struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// A script of a user without any other groups.
    pub(crate) fn of(uid: u32, script: &str) -> Self {
        Self::start(&as_user(uid), script)
    }

    fn start(command: &[String], script: &str) -> Self {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .arg(format!("{PRELUDE}\n{script}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets a script that reads a line go on.
    pub(crate) fn go_on(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }

    /// Waits for one line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// What it printed, once it has ended.
    pub(crate) async fn output(mut self) -> String {
        let ended = tokio::task::spawn_blocking(move || {
            let mut output = String::new();
            self.output.read_to_string(&mut output).unwrap();
            self.child.wait().unwrap();
            output.trim().to_owned()
        });
        tokio::time::timeout(PATIENCE, ended).await.expect("the client ends").unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A client of a failed test must not outlive it; one that has ended needs nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A script that connects and prints the peer or the error.
pub(crate) fn connect_to(family: &str, address: &str, port: u16) -> String {
    format!("attempt(lambda: peer(dial(socket.{family}, {address:?}, {port})))")
}

/// A server that is not the gate.
pub(crate) async fn server() -> TcpListener {
    listen("127.0.0.1:0")
}

/// Accepts one connection.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    tokio::time::timeout(PATIENCE, listener.accept()).await.expect("a connection").unwrap().0
}

/// A network of one address, or as written.
pub(crate) fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap_or_else(|_| ipnet::IpNet::from(text.parse::<std::net::IpAddr>().unwrap()))
}

/// Two subjects, one user each.
pub(crate) fn subjects() -> Rules {
    let subject =
        |name: &str, uid| SubjectRule { name: name.into(), uids: vec![uid], ..SubjectRule::default() };
    Rules { subjects: vec![subject("governed", GOVERNED), subject("other", OTHER)], ..Rules::default() }
}

fn listen(address: &str) -> TcpListener {
    let address: SocketAddr = address.parse().unwrap();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.bind(address).unwrap();
    socket.listen(4_096).unwrap()
}

/// The two subjects, and destinations that go through the gate.
pub(crate) fn resources(destinations: &[(&str, u16)]) -> Rules {
    let resources =
        destinations.iter().map(|&(address, port)| Destination { net: net(address), port }).collect();
    Rules { resources, ..subjects() }
}

/// The two subjects, and a destination that one of them reaches directly.
pub(crate) fn passes(address: &str, port: u16, subject: &str) -> Rules {
    let pass = PassRule { net: net(address), port: Some(port), subjects: vec![subject.into()] };
    Rules { passes: vec![pass], ..subjects() }
}

/// Whether a server has no connection to accept.
pub(crate) fn nobody_waits(server: &TcpListener) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    server.poll_accept(&mut context).is_pending()
}

/// A UDP socket on loopback that waits for one datagram at most as long as a test may take.
pub(crate) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 64];
    let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer));
    let length = received.await.expect("a datagram").unwrap();
    buffer[..length].to_vec()
}

/// The first two bytes that a client sends.
pub(crate) async fn read_u16(stream: &mut TcpStream) -> u16 {
    tokio::time::timeout(PATIENCE, stream.read_u16()).await.expect("two bytes").unwrap()
}

/// One of the programs' maps, where it is pinned.
pub(crate) fn map<K: Pod, V: Pod>(gate: &Gate, name: &str) -> HashMap<MapData, K, V> {
    let place = gate.pins_path().join(LAYOUT).join("maps").join(name);
    Map::HashMap(MapData::from_pin(place).unwrap()).try_into().unwrap()
}

/// Writes entries until the map takes no more. Answers those that it took.
pub(crate) fn fill<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    entries: impl Iterator<Item = (K, V)>,
) -> Vec<K> {
    entries.map_while(|(key, value)| map.insert(key, value, 0).is_ok().then_some(key)).collect()
}
