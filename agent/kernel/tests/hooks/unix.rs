//! Unix sockets: by name alone where there is no shield, and those that lead to the agent on every kernel.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tidegate_kernel::{Captured, ListenerName, Rules, UnixResource, UnixRule, peer};

use crate::common::{Client, GOVERNED, Gate, OTHER, UNGOVERNED, subjects};

/// A folder that root alone may write to; removed at the end.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/run").unwrap();
        set_mode(folder.path(), 0o755);
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Listens here, for everybody.
    fn listen(&self, name: &str) -> UnixListener {
        let listener = UnixListener::bind(self.path(name)).unwrap();
        set_mode(&self.path(name), 0o666);
        listener
    }
}

/// A process of the host's that listens on these, for everybody. Not the test's own: that one is the agent.
fn helper(gate: &Gate, paths: &[PathBuf]) -> Client {
    let mut helper = gate.python_as_root(&format!(
        "
made = []
for path in {paths:?}:
    s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(); os.chmod(path, 0o666); made.append(s)
print('there', flush=True)
sys.stdin.readline()"
    ));
    assert_eq!(helper.line(), "there");
    helper
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn allowing(listeners: Vec<ListenerName>) -> Rules {
    let rule = |listener| UnixRule { listener, subjects: vec!["governed".into()] };
    Rules { unix: listeners.into_iter().map(rule).collect(), ..subjects() }
}

fn connect(address: &str) -> String {
    format!("attempt(lambda: socket.socket(socket.AF_UNIX).connect({address}))\n")
}

fn connect_to(path: &Path) -> String {
    connect(&format!("{path:?}"))
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_helper_is_reached_by_its_name_in_the_bundle_and_by_whom_it_is_named_for() {
    let folder = Folder::new();
    let gate = Gate::new(|_| allowing(vec![ListenerName::Path(folder.path("named"))])).await;
    let _helper = helper(&gate, &[folder.path("named"), folder.path("other")]);
    let script = connect_to(&folder.path("named"))
        + &connect_to(&folder.path("other"))
        + &format!("os.chdir({:?})\n", folder.path(""))
        + &connect("'other'");
    assert_eq!(gate.python(GOVERNED, &script).output().await, "None\nerrno EPERM\nerrno EPERM");
    assert_eq!(gate.python(OTHER, &connect_to(&folder.path("named"))).output().await, "errno EPERM");
    assert_eq!(gate.python(UNGOVERNED, &script).output().await, "None\nNone\nNone");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn abstract_names_datagrams_and_packets_are_decided_alike() {
    let gate = Gate::new(|_| allowing(vec![ListenerName::Abstract("tidegate-hooks-named".into())])).await;
    let mut helper = gate.python_as_root(
        "
made = []
for kind, name in [('SOCK_STREAM', 'named'), ('SOCK_STREAM', 'named-too'), ('SOCK_DGRAM', 'log'), ('SOCK_SEQPACKET', 'seq')]:
    s = socket.socket(socket.AF_UNIX, getattr(socket, kind)); s.bind('\\0tidegate-hooks-' + name); made.append(s)
    if kind != 'SOCK_DGRAM': s.listen()
print('there', flush=True)
sys.stdin.readline()",
    );
    assert_eq!(helper.line(), "there");
    let script = connect("'\\0tidegate-hooks-named'")
        + &connect("'\\0tidegate-hooks-named-too'")
        + "datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
attempt(lambda: datagram.sendto(b'x', '\\0tidegate-hooks-log'))
attempt(lambda: datagram.connect('\\0tidegate-hooks-log'))
attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect('\\0tidegate-hooks-seq'))";
    let refused = "None\nerrno EPERM\nerrno EPERM\nerrno EPERM\nerrno EPERM";
    assert_eq!(gate.python(GOVERNED, &script).output().await, refused);
    assert_eq!(gate.python(UNGOVERNED, &script).output().await, "None\nNone\n1\nNone\nNone");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn mounting_another_socket_over_a_named_one_leads_nowhere() {
    let folder = Folder::new();
    let gate = Gate::new(|_| allowing(vec![ListenerName::Path(folder.path("named"))])).await;
    let _helper = helper(&gate, &[folder.path("named"), folder.path("other")]);
    let script = format!(
        "
CLONE_NEWUSER, CLONE_NEWNS, MS_BIND = 0x10000000, 0x20000, 4096
libc = ctypes.CDLL(None)
print(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
print(libc.mount({:?}.encode(), {:?}.encode(), None, MS_BIND, None))
{}",
        folder.path("other"),
        folder.path("named"),
        connect_to(&folder.path("named")),
    );
    assert_eq!(gate.python(GOVERNED, &script).output().await, "0\n0\nerrno EPERM");
    // What it was shown is another: whoever isn't governed is fooled.
    assert_eq!(gate.python(UNGOVERNED, &script).output().await, "0\n0\nNone");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_name_in_a_folder_that_others_may_change_counts_for_the_shield_alone() {
    let folder = Folder::new();
    set_mode(&folder.path(""), 0o777);
    let gate = Gate::new(|_| allowing(vec![ListenerName::Path(folder.path("named"))])).await;
    let _helper = helper(&gate, &[folder.path("named")]);
    let expected = if gate.kernel.unshielded().is_some() { "errno EPERM" } else { "None" };
    assert_eq!(gate.python(GOVERNED, &connect_to(&folder.path("named"))).output().await, expected);
}

const DESTINATION: ([u8; 4], u16) = ([127, 0, 0, 1], 5432);

/// Rules by which `db` leads to `gate`; none where the kernel can't do that, which it says.
fn redirecting(folder: &Folder, gate: &Gate) -> Option<()> {
    let resource = UnixResource {
        path: folder.path("db"),
        listener: folder.path("gate"),
        destination: DESTINATION.into(),
    };
    match gate.kernel.replace(&Rules { unix_resources: vec![resource], ..subjects() }) {
        Ok(_) => Some(()),
        Err(error) => {
            assert!(error.to_string().contains("Linux 6.7"), "{error}");
            println!("not on this kernel: {error}");
            None
        }
    }
}

/// Accepts one connection and asks for its origin.
async fn accept(gate: &Gate, listener: UnixListener) -> (UnixStream, Option<Captured>) {
    let own = listener.local_addr().unwrap();
    let accepted = tokio::task::spawn_blocking(move || listener.accept().unwrap().0).await.unwrap();
    let own = own.as_pathname().unwrap();
    let origin = gate.kernel.unix_origin(&peer(&accepted).unwrap(), own).unwrap();
    (accepted, origin)
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_resource_leads_to_the_agent_which_knows_who_asked() {
    let folder = Folder::new();
    let listener = folder.listen("gate");
    let gate = Gate::new(|_| subjects()).await;
    let Some(()) = redirecting(&folder, &gate) else { return };
    let script = format!(
        "s = socket.socket(socket.AF_UNIX); s.connect({:?}); print(s.recv(5).decode())",
        folder.path("db")
    );
    let client = gate.python(GOVERNED, &script);
    let pid = client.pid();
    let (mut accepted, origin) = accept(&gate, listener).await;
    let origin = origin.unwrap();
    assert_eq!((origin.pid, origin.uid, &*origin.subjects), (pid, GOVERNED, &["governed".into()][..]));
    assert_eq!((origin.destination, origin.socket), (SocketAddr::from(DESTINATION), Some(folder.path("db"))));
    std::io::Write::write_all(&mut accepted, b"hello").unwrap();
    assert_eq!(client.output().await, "hello");
    // Nobody else is led there.
    let free = gate.python(UNGOVERNED, &connect_to(&folder.path("db")));
    assert_eq!(free.output().await, "errno ENOENT");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn whoever_comes_to_the_agents_socket_by_itself_has_no_origin() {
    let folder = Folder::new();
    let listener = folder.listen("gate");
    let gate = Gate::new(|_| subjects()).await;
    let Some(()) = redirecting(&folder, &gate) else { return };
    let stays = format!("s = socket.socket(socket.AF_UNIX); s.connect({:?}); s.recv(1)", folder.path("gate"));
    let client = gate.python(UNGOVERNED, &stays);
    let (accepted, origin) = accept(&gate, listener).await;
    assert_eq!(origin, None);
    drop(accepted);
    client.output().await;
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_resource_is_refused_while_no_agent_serves() {
    let folder = Folder::new();
    let _listener = folder.listen("gate");
    let mut gate = Gate::new(|_| subjects()).await;
    let _helper = helper(&gate, &[folder.path("db")]);
    let Some(()) = redirecting(&folder, &gate) else { return };
    gate.hang();
    gate.kernel.rest().unwrap();
    let script = connect_to(&folder.path("db"));
    assert_eq!(gate.python(GOVERNED, &script).output().await, "errno EPERM");
    let pins = gate.die();
    assert_eq!(Client::of(GOVERNED, &script).output().await, "errno EPERM");
    drop(pins);
}
