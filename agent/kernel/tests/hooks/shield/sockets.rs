//! Families that no packet guard sees, helpers behind Unix sockets, and sockets that others hand over.

use std::os::unix::net::UnixListener;

use tidegate_kernel::{ListenerName, Rules, UnixRule};

use super::{Folder, shown};
use crate::common::{Client, GOVERNED, Gate, UNGOVERNED, subjects};

/// A helper of the host's: an ungoverned process that listens at these addresses, as Python writes them.
fn helper(gate: &Gate, kind: &str, addresses: &[&str]) -> Client {
    let mut client = gate.python_as_root(&format!(
        "
made = []
for address in [{}]:
    s = socket.socket(socket.AF_UNIX, socket.{kind}); s.bind(address); made.append(s)
    if address[0] != '\\0': os.chmod(address, 0o777)
    if s.type == socket.SOCK_STREAM: s.listen()
print('there', flush=True)
sys.stdin.readline()",
        addresses.join(", ")
    ));
    assert_eq!(client.line(), "there");
    client
}

fn allowing(listeners: Vec<ListenerName>) -> Rules {
    let rule = |listener| UnixRule { listener, subjects: vec!["governed".into()] };
    Rules { unix: listeners.into_iter().map(rule).collect(), ..subjects() }
}

fn unix_connect(address: &str) -> String {
    format!("attempt(lambda: socket.socket(socket.AF_UNIX).connect({address}))")
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn a_packet_socket_cannot_be_made_even_in_a_namespace_of_ones_own() {
    let gate = Gate::new(|_| subjects()).await;
    let script = "
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
print(ctypes.CDLL(None).unshare(CLONE_NEWUSER | CLONE_NEWNET))
attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close())
attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close())
attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16).close())";
    let governed = gate.python(GOVERNED, script).output().await;
    assert_eq!(governed, "0\nerrno EAFNOSUPPORT\nNone\nerrno EPROTONOSUPPORT");
    assert_eq!(gate.python(UNGOVERNED, script).output().await, "0\nNone\nNone\nNone");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn a_helper_behind_a_unix_socket_is_out_of_reach_unless_the_bundle_names_it() {
    let folder = Folder::new();
    let (named, other) = (folder.path("named.sock"), folder.path("other.sock"));
    let gate = Gate::new(|_| allowing(vec![ListenerName::Path(named.clone())])).await;
    let _helper = helper(&gate, "SOCK_STREAM", &[&format!("{named:?}"), &format!("{other:?}")]);
    let link = shown(&folder.path("link"));
    let script = format!(
        "
os.symlink({other:?}, {link:?})
{}
{}
{}",
        unix_connect(&format!("{named:?}")),
        unix_connect(&format!("{other:?}")),
        unix_connect(&format!("{link:?}")),
    );
    assert_eq!(gate.python(GOVERNED, &script).output().await, "None\nerrno EPERM\nerrno EPERM");
    let free = gate.python(UNGOVERNED, &unix_connect(&format!("{other:?}")));
    assert_eq!(free.output().await, "None");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn abstract_names_and_datagrams_are_decided_alike() {
    let folder = Folder::new();
    let log = folder.path("log");
    let gate = Gate::new(|_| allowing(vec![ListenerName::Abstract("tidegate-test-named".into())])).await;
    let names = ["'\\0tidegate-test-named'", "'\\0tidegate-test-named-too'"];
    let _streams = helper(&gate, "SOCK_STREAM", &names);
    let _datagrams = helper(&gate, "SOCK_DGRAM", &[&format!("{log:?}")]);
    let script = format!(
        "{}\n{}\nattempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', {log:?}))",
        unix_connect("'\\0tidegate-test-named'"),
        unix_connect("'\\0tidegate-test-named-too'"),
    );
    assert_eq!(gate.python(GOVERNED, &script).output().await, "None\nerrno EPERM\nerrno EPERM");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn a_listener_that_took_an_allowed_name_in_a_mount_of_its_own_is_not_the_one_meant() {
    let folder = Folder::new();
    let named = folder.path("inner/named.sock");
    std::fs::create_dir(folder.path("inner")).unwrap();
    let gate = Gate::new(|_| allowing(vec![ListenerName::Path(named.clone())])).await;
    let (inner, way) = (shown(&folder.path("inner")), shown(&folder.path("way")));
    // An ungoverned container has another filesystem at the same path; the way in is open.
    let mut container = gate.python_as_root(&format!(
        "
libc = ctypes.CDLL(None)
os.mkdir({way:?})
libc.unshare(0x20000)
libc.mount(None, b'/', None, 1 << 18 | 16384, None)
print(libc.mount(b'tmpfs', {inner:?}.encode(), b'tmpfs', 0, b'mode=0777'))
s = socket.socket(socket.AF_UNIX)
s.bind({named:?}); os.chmod({named:?}, 0o777); s.listen()
print(os.getpid(), flush=True)
sys.stdin.readline()"
    ));
    assert_eq!(container.line(), "0");
    let pid = container.line();
    // Root's help: a governed process gets there by a directory that it was given.
    let client = gate.python_as_root(&format!(
        "
os.chdir('/proc/{pid}/root' + {inner:?})
os.setresuid({GOVERNED}, {GOVERNED}, {GOVERNED})
{}",
        unix_connect("'named.sock'")
    ));
    assert_eq!(client.output().await, "errno EPERM");
    container.go_on();
    container.output().await;
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn governed_processes_talk_to_their_own_kind_over_unix_sockets() {
    let folder = Folder::new();
    let path = folder.path("own.sock");
    let gate = Gate::new(|_| subjects()).await;
    let client = gate.python(
        GOVERNED,
        &format!(
            "
server = socket.socket(socket.AF_UNIX)
server.bind({path:?}); server.listen()
if os.fork() == 0:
    s = socket.socket(socket.AF_UNIX); s.connect({path:?}); s.sendall(b'hello'); os._exit(0)
accepted = server.accept()[0]
print(accepted.recv(5).decode())
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
a.send(b'datagram'); print(b.recv(8).decode(), flush=True)
# An end that the kernel made at accept is theirs as much.
if os.fork() == 0:
    print(len(socket.recv_fds(b, 1, 1)[1])); sys.stdout.flush(); os._exit(0)
socket.send_fds(a, [b'x'], [accepted.fileno()])
os.wait(); os.wait()"
        ),
    );
    assert_eq!(client.output().await, "hello\ndatagram\n1");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn a_socket_that_nobody_governed_made_is_not_taken() {
    let gate = Gate::new(|_| subjects()).await;
    let client = gate.python_as_root(&format!(
        "
ours, theirs = socket.socketpair()
sockets = [socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_PACKET, socket.SOCK_RAW)]
if os.fork() == 0:
    for s in sockets: s.close()
    os.setresuid({GOVERNED}, {GOVERNED}, {GOVERNED})
    for _ in range(3): print(len(socket.recv_fds(theirs, 1, 1)[1]), flush=True)
    # One of its own kind's making.
    a, b = socket.socketpair()
    made = socket.socket()
    socket.send_fds(a, [b'x'], [made.fileno()])
    print(len(socket.recv_fds(b, 1, 1)[1]))
    sys.stdout.flush()
    os._exit(0)
for s in sockets: socket.send_fds(ours, [b'x'], [s.fileno()])
os.wait()"
    ));
    assert_eq!(client.output().await, "0\n0\n0\n1");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn the_agent_can_be_asked_by_whom_it_governs_where_it_answers_everybody() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let (path, private) = (folder.path("agent.sock"), folder.path("admin.sock"));
    let _listeners = [&path, &private].map(|path| {
        let listener = UnixListener::bind(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        listener
    });
    let gate = Gate::new(|_| subjects()).await;
    gate.kernel.answer_at(vec![path.clone()]);
    gate.replace(&subjects());
    let script = unix_connect(&format!("{path:?}")) + "\n" + &unix_connect(&format!("{private:?}"));
    assert_eq!(gate.python(GOVERNED, &script).output().await, "None\nerrno EPERM");
}
