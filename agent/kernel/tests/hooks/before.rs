//! What governed processes opened before the rules that govern them.

use tidegate_kernel::{Protocol, Rules, SubjectRule};
use tokio::io::AsyncReadExt as _;
use tokio::net::UdpSocket;

use crate::common::{self, Cgroup, GOVERNED, Gate, UNGOVERNED, subjects};

/// Opens what the script says, then prints what becomes of it once the rules are in force.
fn opened_before(open: &str, then: &str) -> String {
    format!("{open}\nprint('opened', flush=True)\nsys.stdin.readline()\nattempt(lambda: {then})")
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_connection_is_ended() {
    let server = common::server().await;
    let address = server.local_addr().unwrap();
    let gate = Gate::new(|_| Rules::default()).await;
    let open = format!("s = dial(socket.AF_INET, '127.0.0.1', {})", address.port());
    let mut client = gate.python(GOVERNED, &opened_before(&open, "s.send(b'x')"));
    let mut stream = common::accept(&server).await;
    assert_eq!(client.line(), "opened");
    let older = gate.replace(&subjects());
    assert_eq!(older.len(), 1, "{older:?}");
    assert_eq!((older[0].pid, older[0].uid), (Some(client.pid()), GOVERNED));
    assert_eq!((older[0].protocol, older[0].remote, older[0].ended), (Protocol::Tcp, address, true));
    assert!(stream.read_u8().await.is_err());
    client.go_on();
    assert_eq!(client.output().await, "errno ECONNABORTED");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_connected_udp_socket_sends_nothing_more() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| Rules::default()).await;
    let open =
        format!("s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', {port}))");
    let script = opened_before(&open, "s.send(b'x')") + "\nattempt(lambda: s.send(b'x'))";
    let mut client = gate.python(GOVERNED, &script);
    assert_eq!(client.line(), "opened");
    assert_eq!(gate.replace(&subjects()).len(), 1);
    client.go_on();
    assert_eq!(client.output().await, "errno EDESTADDRREQ\nerrno EDESTADDRREQ");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_listener_is_ended_with_what_it_has_not_accepted() {
    let gate = Gate::new(|_| Rules::default()).await;
    let open = "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)";
    let mut client = gate.python(GOVERNED, &opened_before(open, "s.accept()"));
    let port: u16 = client.line().parse().unwrap();
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert_eq!(client.line(), "opened");
    assert_eq!(gate.replace(&subjects()).len(), 1);
    assert!(stream.read_u8().await.is_err());
    client.go_on();
    assert_eq!(client.output().await, "errno EINVAL");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_connection_in_another_network_namespace_is_ended() {
    let gate = Gate::new(|_| Rules::default()).await;
    let open = format!(
        "
listener = socket.create_server(('127.0.0.1', 0))
os.setresgid({GOVERNED}, {GOVERNED}, {GOVERNED})
os.setresuid({GOVERNED}, {GOVERNED}, {GOVERNED})
s = socket.create_connection(listener.getsockname())"
    );
    let mut client = gate.python_on_a_wire(&opened_before(&open, "s.send(b'x')"));
    assert_eq!(client.line(), "opened");
    // The listener's end takes the connection with it, if that doesn't come first.
    assert!(gate.replace(&subjects()).iter().all(|socket| socket.ended));
    client.go_on();
    let outcome = client.output().await;
    assert!(outcome.starts_with("errno ECONN"), "{outcome}");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_socket_on_its_way_between_processes_is_ended() {
    let server = common::server().await;
    let gate = Gate::new(|_| Rules::default()).await;
    let open = format!(
        "
ours, theirs = socket.socketpair()
s = dial(socket.AF_INET, '127.0.0.1', {})
socket.send_fds(theirs, [b'x'], [s.fileno()])
s.close()",
        server.local_addr().unwrap().port()
    );
    let open = format!(
        "{open}\ndef use(taken): return socket.socket(fileno=taken[0]).send(b'x') if taken else 'not taken'"
    );
    let then = "use(socket.recv_fds(ours, 1, 1)[1])";
    let mut client = gate.python(GOVERNED, &opened_before(&open, then));
    assert_eq!(client.line(), "opened");
    let older = gate.replace(&subjects());
    assert_eq!((older.len(), older[0].pid, older[0].uid), (1, None, GOVERNED));
    client.go_on();
    // The shield has nobody governed take a socket that nobody governed made.
    let shielded = gate.kernel.unshielded().is_none();
    assert_eq!(client.output().await, if shielded { "not taken" } else { "errno ECONNABORTED" });
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn what_is_shared_with_an_ungoverned_process_and_what_is_ungoverned_goes_on() {
    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| Rules::default()).await;
    // As sshd does it: made by root, held by root and by the child that has become the user.
    let mut login = gate.python_as_root(&format!(
        "
s = dial(socket.AF_INET, '127.0.0.1', {port})
if os.fork() == 0:
    os.setresuid({GOVERNED}, {GOVERNED}, {GOVERNED})
    print('opened', flush=True)
    sys.stdin.readline()
    attempt(lambda: s.send(b'x'))
    sys.stdout.flush()
    os._exit(0)
os.wait()"
    ));
    assert_eq!(login.line(), "opened");
    let open = format!("s = dial(socket.AF_INET, '127.0.0.1', {port})");
    let mut stranger = gate.python(UNGOVERNED, &opened_before(&open, "s.send(b'x')"));
    assert_eq!(stranger.line(), "opened");
    assert_eq!(gate.replace(&subjects()), []);
    for client in [&mut login, &mut stranger] {
        client.go_on();
    }
    assert_eq!(login.output().await, "1");
    assert_eq!(stranger.output().await, "1");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn sockets_made_under_the_rules_outlive_their_replacement() {
    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| common::passes("127.0.0.1", port, "governed")).await;
    let open = format!("s = dial(socket.AF_INET, '127.0.0.1', {port})");
    let mut client = gate.python(GOVERNED, &opened_before(&open, "s.send(b'x')"));
    assert_eq!(client.line(), "opened");
    assert_eq!(gate.replace(&common::passes("127.0.0.1", port, "governed")), []);
    client.go_on();
    assert_eq!(client.output().await, "1");
}

/// A cgroup, with rules that govern whatever is in it by that alone.
fn place() -> (Cgroup, Rules) {
    let cgroup = Cgroup::new();
    let job =
        SubjectRule { name: "job".into(), cgroups: vec![cgroup.path().to_owned()], ..SubjectRule::default() };
    let rules = Rules { subjects: vec![job], ..Rules::default() };
    (cgroup, rules)
}

/// Enters the cgroup and becomes a user whom no rule names; then as [`opened_before`].
fn opened_in(cgroup: &Cgroup, open: &str, then: &str) -> String {
    let enter = format!("open({:?} + '/cgroup.procs', 'w').write(str(os.getpid()))", cgroup.inner());
    let become_user = format!("os.setresuid({UNGOVERNED}, {UNGOVERNED}, {UNGOVERNED})");
    opened_before(&format!("{enter}\n{become_user}\n{open}"), then)
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_descriptor_that_one_thread_alone_has_is_no_hiding_place() {
    let (server, (cgroup, rules)) = (common::server().await, place());
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| Rules::default()).await;
    let open = format!(
        "
opened, go_on = threading.Event(), threading.Event()
def hidden():
    # CLONE_FILES: from now on this thread's descriptors are its own.
    if ctypes.CDLL(None).unshare(0x400): raise OSError('unshare')
    s = dial(socket.AF_INET, '127.0.0.1', {port})
    opened.set(); go_on.wait()
    attempt(lambda: s.send(b'x'))
thread = threading.Thread(target=hidden); thread.start(); opened.wait()"
    );
    let mut client = gate.python_as_root(&opened_in(&cgroup, &open, "(go_on.set(), thread.join())[1]"));
    assert_eq!(client.line(), "opened");
    let older = gate.replace(&rules);
    assert_eq!(older.iter().map(|socket| socket.pid).collect::<Vec<_>>(), [Some(client.pid())]);
    client.go_on();
    assert_eq!(client.output().await, "errno ECONNABORTED\nNone");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn what_threads_hold_whose_process_has_lost_its_first_one_is_ended() {
    let (server, (cgroup, rules)) = (common::server().await, place());
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| Rules::default()).await;
    // The first thread ends alone, by exit(2).
    let open = format!(
        "
s = dial(socket.AF_INET, '127.0.0.1', {port})
def go_on():
    print('opened', flush=True)
    os.read(0, 1)
    attempt(lambda: s.send(b'x'))
    sys.stdout.flush()
    os._exit(0)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(60, 0)"
    );
    let mut client = gate.python_as_root(&opened_in(&cgroup, &open, "None"));
    assert_eq!(client.line(), "opened");
    assert_eq!(gate.replace(&rules).len(), 1);
    client.go_on();
    assert_eq!(client.output().await, "errno ECONNABORTED");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn what_is_on_its_way_between_processes_of_a_governed_cgroup_is_ended() {
    let (server, (cgroup, rules)) = (common::server().await, place());
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| Rules::default()).await;
    let open = format!(
        "
ours, theirs = socket.socketpair()
s = dial(socket.AF_INET, '127.0.0.1', {port})
socket.send_fds(theirs, [b'x'], [s.fileno()])
s.close()"
    );
    let mut client = gate.python_as_root(&opened_in(&cgroup, &open, "'gone on'"));
    let mut stream = common::accept(&server).await;
    assert_eq!(client.line(), "opened");
    let older = gate.replace(&rules);
    assert_eq!(older.iter().map(|socket| (socket.pid, socket.uid)).collect::<Vec<_>>(), [(None, UNGOVERNED)]);
    assert!(stream.read_u8().await.is_err());
    client.go_on();
    assert_eq!(client.output().await, "gone on");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_socket_that_leaves_no_memory_for_its_stamp_keeps_nobody_from_governing_and_sends_nothing() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| Rules::default()).await;
    // Each membership takes of the memory for options (net.core.optmem_max), until there is none.
    let open = "
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for n in range(1 << 20):
    group = b'\\xff\\x12' + bytes(10) + struct.pack('!I', n)
    try: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack('I', 1))
    except OSError as error:
        full = errno.errorcode[error.errno]
        break
print(full, flush=True)";
    let then = format!("s.sendto(b'x', ('::ffff:127.0.0.1', {port}))");
    let mut client = gate.python(GOVERNED, &opened_before(open, &then));
    let full = client.line();
    assert!(["ENOBUFS", "ENOMEM"].contains(&&*full), "{full}");
    assert_eq!(client.line(), "opened");
    gate.replace(&subjects());
    client.go_on();
    assert_eq!(client.output().await, "errno EPERM");
}
