//! Unix sockets: by name alone where there is no shield, and those that lead to the agent on every kernel.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, Map, MapData};
use tidegate_abi::SubjectKey;
use tidegate_kernel::{Captured, LAYOUT, ListenerName, Rules, UnixResource, UnixRule, peer};

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

/// An access list (`include/uapi/linux/posix_acl_xattr.h`) by which one user may write.
const ACCESS_LIST: &str = "struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in \
    [(1, 7, 2**32 - 1), (2, 7, UID), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1), (32, 5, 2**32 - 1)])";

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_name_in_a_folder_that_others_may_change_counts_for_the_shield_alone() {
    let folder = Folder::new();
    let rules = allowing(vec![ListenerName::Path(folder.path("named"))]);
    let gate = Gate::new(|_| rules.clone()).await;
    let _helper = helper(&gate, &[folder.path("named")]);
    let list = ACCESS_LIST.replace("UID", &GOVERNED.to_string());
    for (change, counts) in [
        ("os.chmod(folder, 0o777)".to_owned(), false),
        ("os.chmod(folder, 0o1777)".to_owned(), false),
        (format!("os.chmod(folder, 0o755); os.chown(folder, {GOVERNED}, 0)"), false),
        (format!("os.chown(folder, {UNGOVERNED}, 0)"), true),
        (format!("os.chown(folder, 0, {GOVERNED}); os.chmod(folder, 0o775)"), false),
        ("os.chown(folder, 0, 0)".to_owned(), true),
        (format!("os.setxattr(folder, 'system.posix_acl_access', {list})"), false),
    ] {
        let changed =
            gate.python_as_root(&format!("folder = {:?}\n{change}\nprint('done')", folder.path("")));
        assert_eq!(changed.output().await, "done", "{change}");
        gate.replace(&rules);
        let expected = if counts || gate.kernel.unshielded().is_none() { "None" } else { "errno EPERM" };
        let said = gate.python(GOVERNED, &connect_to(&folder.path("named"))).output().await;
        assert_eq!(said, expected, "{change}");
    }
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_link_through_a_governed_folder_leads_nowhere_though_nothing_is_there_yet() {
    let (folder, theirs) = (Folder::new(), Folder::new());
    chown(theirs.path(""), Some(GOVERNED), None).unwrap();
    std::os::unix::fs::symlink(theirs.path(""), folder.path("app")).unwrap();
    let named = folder.path("app/named");
    let gate = Gate::new(|_| allowing(vec![ListenerName::Path(named.clone())])).await;
    let _helper = helper(&gate, &[folder.path("other")]);
    let script =
        format!("os.symlink({:?}, {:?})\n{}", folder.path("other"), theirs.path("named"), connect_to(&named));
    assert_eq!(gate.python(GOVERNED, &script).output().await, "errno EPERM");
    // It leads there: whoever isn't governed is sent along.
    assert_eq!(gate.python(UNGOVERNED, &connect_to(&named)).output().await, "None");
}

#[tokio::test]
#[ignore = "needs root and hooks on Unix sockets: cargo xtask test kernel"]
async fn mounts_that_a_set_uid_program_made_for_somebody_lead_nowhere() {
    let folder = Folder::new();
    let rules = Rules {
        unix_resources: vec![resource(&folder)],
        ..allowing(vec![ListenerName::Path(folder.path("named"))])
    };
    let gate = Gate::new(|_| subjects()).await;
    let _helper = helper(&gate, &[folder.path("named"), folder.path("other"), folder.path("db")]);
    gate.replace(&rules);
    // No user namespace, and the host's own root directory.
    let mounted = format!(
        "
CLONE_NEWNS, MS_BIND, MS_PRIVATE = 0x20000, 4096, 1 << 18 | 16384
libc = ctypes.CDLL(None)
print(libc.unshare(CLONE_NEWNS), libc.mount(None, b'/', None, MS_PRIVATE, None))
print(libc.mount({:?}.encode(), {:?}.encode(), None, MS_BIND, None))
os.setresuid({GOVERNED}, {GOVERNED}, {GOVERNED})
{}{}",
        folder.path("other"),
        folder.path("named"),
        connect_to(&folder.path("named")),
        connect_to(&folder.path("db")),
    );
    let refused = "0 0\n0\nerrno EPERM\nerrno EPERM";
    assert_eq!(gate.python_as_root(&mounted).output().await, refused);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn rules_that_cannot_be_written_leave_the_names_of_those_before() {
    let folder = Folder::new();
    let naming = |name: &str| allowing(vec![ListenerName::Path(folder.path(name))]);
    let gate = Gate::new(|_| naming("before")).await;
    let _helper = helper(&gate, &[folder.path("before"), folder.path("after")]);
    fill_subjects(&gate);
    gate.kernel.replace(&naming("after")).unwrap_err();
    let script = connect_to(&folder.path("before")) + &connect_to(&folder.path("after"));
    let expected = match gate.kernel.leaves_unix_open() {
        None => "None\nerrno EPERM",
        Some(_) => "None\nNone",
    };
    assert_eq!(gate.python(GOVERNED, &script).output().await, expected);
}

/// Leaves no room in the kernel for who the next rules govern.
fn fill_subjects(gate: &Gate) {
    let place = gate.pins_path().join(LAYOUT).join("maps/SUBJECTS");
    let mut subjects: HashMap<MapData, SubjectKey, u64> =
        Map::HashMap(MapData::from_pin(place).unwrap()).try_into().unwrap();
    let no_kind = u32::MAX;
    let full = (0..).find(|id| {
        let key = SubjectKey { generation: 1, kind: no_kind, id: *id };
        subjects.insert(key, 0, 0).is_err()
    });
    assert!(full > Some(1_000), "{full:?}");
}

fn resource(folder: &Folder) -> UnixResource {
    UnixResource { path: folder.path("db"), listener: folder.path("gate"), resource: "shop".into() }
}

/// Has `db` lead to `gate`.
fn redirect(folder: &Folder, gate: &Gate) {
    gate.replace(&Rules { unix_resources: vec![resource(folder)], ..subjects() });
}

/// Accepts one connection and asks for its origin.
async fn accept(gate: &Gate, listener: &UnixListener) -> (UnixStream, Option<Captured>) {
    let waiting = listener.try_clone().unwrap();
    let accepted = tokio::task::spawn_blocking(move || waiting.accept().unwrap().0).await.unwrap();
    let origin = origin_of(gate, &accepted, listener);
    (accepted, origin)
}

fn origin_of(gate: &Gate, accepted: &UnixStream, listener: &UnixListener) -> Option<Captured> {
    let own = listener.local_addr().unwrap();
    gate.kernel.unix_origin(&peer(accepted).unwrap(), own.as_pathname().unwrap()).unwrap()
}

#[tokio::test]
#[ignore = "needs root and hooks on Unix sockets: cargo xtask test kernel"]
async fn a_resource_leads_to_the_agent_which_knows_who_asked() {
    let folder = Folder::new();
    let listener = folder.listen("gate");
    let gate = Gate::new(|_| subjects()).await;
    redirect(&folder, &gate);
    let script = format!(
        "s = socket.socket(socket.AF_UNIX); s.connect({:?}); print(s.getpeername(), s.recv(5).decode())",
        folder.path("db")
    );
    let client = gate.python(GOVERNED, &script);
    let pid = client.pid();
    let (mut accepted, origin) = accept(&gate, &listener).await;
    let origin = origin.unwrap();
    assert_eq!(origin_of(&gate, &accepted, &listener), None, "it can be had once");
    assert_eq!((origin.pid, origin.uid, &*origin.subjects), (pid, GOVERNED, &["governed".into()][..]));
    assert_eq!(origin.socket, Some(resource(&folder)));
    std::io::Write::write_all(&mut accepted, b"hello").unwrap();
    // As far as the client can tell, it is where it meant to go.
    assert_eq!(client.output().await, format!("{} hello", folder.path("db").display()));
    // Nobody else is led there.
    let free = gate.python(UNGOVERNED, &connect_to(&folder.path("db")));
    assert_eq!(free.output().await, "errno ENOENT");
}

#[tokio::test]
#[ignore = "needs root and hooks on Unix sockets: cargo xtask test kernel"]
async fn whoever_comes_to_the_agents_socket_by_itself_has_no_origin() {
    let folder = Folder::new();
    let listener = folder.listen("gate");
    let gate = Gate::new(|_| subjects()).await;
    redirect(&folder, &gate);
    let stays = format!("s = socket.socket(socket.AF_UNIX); s.connect({:?}); s.recv(1)", folder.path("gate"));
    let client = gate.python(UNGOVERNED, &stays);
    let (accepted, origin) = accept(&gate, &listener).await;
    assert_eq!(origin, None);
    drop(accepted);
    client.output().await;
}

#[tokio::test]
#[ignore = "needs root and hooks on Unix sockets: cargo xtask test kernel"]
async fn a_resource_is_refused_while_no_agent_serves() {
    let folder = Folder::new();
    let _listener = folder.listen("gate");
    let mut gate = Gate::new(|_| subjects()).await;
    let _helper = helper(&gate, &[folder.path("db")]);
    redirect(&folder, &gate);
    gate.hang();
    gate.kernel.rest().unwrap();
    let script = connect_to(&folder.path("db"));
    assert_eq!(gate.python(GOVERNED, &script).output().await, "errno EPERM");
    let pins = gate.die();
    assert_eq!(Client::of(GOVERNED, &script).output().await, "errno EPERM");
    drop(pins);
}

#[tokio::test]
#[ignore = "needs root and hooks on Unix sockets: cargo xtask test kernel"]
async fn each_of_a_processs_connects_is_known_and_none_that_was_not_sent() {
    let folder = Folder::new();
    let listener = folder.listen("gate");
    let gate = Gate::new(|_| subjects()).await;
    redirect(&folder, &gate);
    let script = format!(
        "
made = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for s in made: s.connect({:?})
print('both', flush=True)
sys.stdin.readline()",
        folder.path("db")
    );
    let mut client = gate.python(GOVERNED, &script);
    assert_eq!(client.line(), "both");
    let (_first, one) = accept(&gate, &listener).await;
    let (second, two) = accept(&gate, &listener).await;
    assert!(one.is_some() && two.is_some(), "{one:?} {two:?}");
    assert_eq!(origin_of(&gate, &second, &listener), None);
    client.go_on();
    client.output().await;
}

#[tokio::test]
#[ignore = "needs root and hooks on Unix sockets: cargo xtask test kernel"]
async fn what_is_left_of_a_connect_that_failed_opens_the_agents_socket_to_nobody() {
    let folder = Folder::new();
    let listener = folder.listen("gate");
    let gate = Gate::new(|_| subjects()).await;
    redirect(&folder, &gate);
    let (db, own) = (folder.path("db"), folder.path("gate"));
    let script = format!(
        "{}{}
attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect({db:?}))
os.rename({own:?}, {own:?} + '.away')
attempt(lambda: socket.socket(socket.AF_UNIX).connect({db:?}))
os.rename({own:?} + '.away', {own:?})
attempt(lambda: socket.socket(socket.AF_UNIX).connect({own:?}))",
        "again = socket.socket(socket.AF_UNIX)\n",
        format_args!("attempt(lambda: again.connect({own:?}))"),
    );
    set_mode(&folder.path(""), 0o777);
    let refused = "errno EPERM\nerrno EPERM\nerrno ENOENT\nerrno EPERM";
    assert_eq!(gate.python(GOVERNED, &script).output().await, refused);
    drop(listener);
}
