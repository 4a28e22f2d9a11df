//! Labels stick: over fork, exec, setuid, a change of cgroup, new parents and passed descriptors.

use tidegate_kernel::{Hierarchy, Processes, Rules, SubjectRule};

use crate::common::{self, GOVERNED, Gate, UNGOVERNED, V4, connect_to, resources};

/// Becomes the governed user for a moment, then root again, in the same process.
fn setuid_away(then: &str) -> String {
    format!(
        "
os.setresuid({GOVERNED}, {GOVERNED}, 0)
if os.fork() == 0:
    os.setresuid(0, 0, 0)
    {then}
    sys.stdout.flush()
    os._exit(0)
os.wait()"
    )
}

fn dial(then: &str) -> String {
    format!("{then}; attempt(lambda: peer(dial(socket.AF_INET, {V4:?}, 5432)))")
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_label_survives_setuid() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python_as_root(&setuid_away(&dial("pass")));
    let captured = gate.accept_v4().await.expect("an origin");
    assert_eq!((captured.uid, &*captured.subjects), (0, &["governed".into()][..]));
    assert_eq!(client.output().await, format!("peer {V4} 5432"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_label_survives_exec_after_setuid() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let inner = format!(
        "import socket; s = socket.create_connection(({V4:?}, 5432)); print(\"peer\", *s.getpeername())"
    );
    let client = gate
        .python_as_root(&setuid_away(&format!("os.execv('/usr/bin/python3', ['python3', '-c', {inner:?}])")));
    assert!(gate.accept_v4().await.is_some());
    assert_eq!(client.output().await, format!("peer {V4} 5432"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_label_survives_the_death_of_the_parent() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let orphan = format!(
        "
    middle = os.getpid()
    if os.fork() == 0:
        while os.getppid() == middle: os.sched_yield()
        {}
        sys.stdout.flush()",
        dial("pass")
    );
    let client = gate.python_as_root(&setuid_away(orphan.trim_start()));
    let captured = gate.accept_v4().await.expect("an origin");
    assert_eq!((captured.uid, &*captured.subjects), (0, &["governed".into()][..]));
    assert_eq!(client.output().await, format!("peer {V4} 5432"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_label_survives_the_exit_of_the_thread_group_leader() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let script = format!(
        "
    def later():
        leader = '/proc/{{}}/stat'.format(os.getpid())
        while open(leader).read().rsplit(')', 1)[1].split()[0] != 'Z': os.sched_yield()
        {}
        sys.stdout.flush()
        os._exit(0)
    threading.Thread(target=later).start()
    ctypes.CDLL(None).syscall({{'x86_64': 60}}.get(os.uname().machine, 93), 0)",
        dial("pass")
    );
    let client = gate.python_as_root(&setuid_away(script.trim_start()));
    let captured = gate.accept_v4().await.expect("an origin");
    assert_eq!((captured.uid, &*captured.subjects), (0, &["governed".into()][..]));
    assert_eq!(client.output().await, format!("peer {V4} 5432"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_process_that_runs_when_the_rules_come_is_labelled_with_its_descendants() {
    let gate = Gate::new(|_| Rules::default()).await;
    let mut client =
        gate.python_as_root(&setuid_away(&dial("print('ready', flush=True); sys.stdin.readline()")));
    assert_eq!(client.line(), "ready");
    gate.kernel.replace(&resources(&[(V4, 5432)])).unwrap();
    client.go_on();
    let captured = gate.accept_v4().await.expect("an origin");
    assert_eq!((captured.uid, &*captured.subjects), (0, &["governed".into()][..]));
    assert_eq!(client.output().await, format!("peer {V4} 5432"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn an_id_that_is_used_again_does_not_inherit_a_label() {
    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    // A governed process ends; the next one gets its id and isn't governed.
    let client = gate.python_as_root(&format!(
        "
while True:
    first = os.fork()
    if first == 0:
        os.setresuid({GOVERNED}, {GOVERNED}, {GOVERNED})
        socket.socket()
        os._exit(0)
    os.waitpid(first, 0)
    open('/proc/sys/kernel/ns_last_pid', 'w').write(str(first - 1))
    second = os.fork()
    if second == 0:
        # Another process may have been faster; then try again.
        if os.getpid() != first: os._exit(1)
        attempt(lambda: peer(dial(socket.AF_INET, '127.0.0.1', {port})))
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(second, 0)[1] == 0: break"
    ));
    common::accept(&server).await;
    assert_eq!(client.output().await, format!("peer 127.0.0.1 {port}"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_governed_socket_stays_governed_in_another_processs_hands() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python_as_root(&format!(
        "
ours, theirs = socket.socketpair()
pid = os.fork()
if pid == 0:
    os.setresuid({GOVERNED}, {GOVERNED}, {GOVERNED})
    s = socket.socket()
    socket.send_fds(theirs, [b'x'], [s.fileno()])
    os._exit(0)
_, fds, _, _ = socket.recv_fds(ours, 1, 1)
os.waitpid(pid, 0)
s = socket.socket(fileno=fds[0])
s.connect(({V4:?}, 5432))
print(pid)"
    ));
    let captured = gate.accept_v4().await.expect("an origin");
    assert_eq!((captured.uid, &*captured.subjects), (GOVERNED, &["governed".into()][..]));
    // Named is who made the socket: that process was governed, the one that connected is not.
    assert_eq!(client.output().await, captured.pid.to_string());
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_user_that_reaches_a_subject_by_its_group_is_governed() {
    let by_group = SubjectRule { name: "group".into(), gids: vec![GOVERNED], ..SubjectRule::default() };
    let gate = Gate::new(|_| Rules { subjects: vec![by_group], ..resources(&[(V4, 5432)]) }).await;
    let client = gate.python(GOVERNED, &connect_to("AF_INET", V4, 5432));
    assert_eq!(gate.accept_v4().await.expect("an origin").subjects, ["group".into()]);
    client.output().await;
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_cgroup_governs_its_descendants_and_its_label_outlasts_leaving_it() {
    let cgroup = common::Cgroup::new();
    let id = Hierarchy::find().unwrap().id(cgroup.path()).unwrap();
    let subject = SubjectRule { name: "job".into(), cgroup_ids: vec![id], ..SubjectRule::default() };
    let gate = Gate::new(|_| Rules { subjects: vec![subject], ..resources(&[(V4, 5432)]) }).await;
    let enter = |folder: &str| format!("open({folder:?} + '/cgroup.procs', 'w').write(str(os.getpid()))");

    let inside = gate.python_as_root(&format!("{}\n{}", enter(cgroup.inner()), dial("pass")));
    let captured = gate.accept_v4().await.expect("an origin");
    assert_eq!(captured.subjects, ["job".into()]);
    let process = Processes::new().unwrap().facts(&captured);
    assert_eq!(process.cgroup.as_deref(), Some(format!("{}/inner", cgroup.path()).as_str()));
    inside.output().await;

    let left = gate.python_as_root(&format!(
        "{}\nsocket.socket()\n{}\n{}",
        enter(cgroup.inner()),
        enter(cgroup.root()),
        dial("pass")
    ));
    assert_eq!(gate.accept_v4().await.expect("an origin").subjects, ["job".into()]);
    left.output().await;
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_process_is_described_by_what_it_was_and_one_that_is_gone_by_what_was_captured() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let processes = Processes::new().unwrap();
    let mut client = gate.python(
        GOVERNED,
        &format!("s = dial(socket.AF_INET, {V4:?}, 5432); sys.stdin.readline(); print('done')"),
    );
    let captured = gate.accept_v4().await.expect("an origin");
    let living = processes.facts(&captured);
    assert!(living.executable.as_deref().unwrap().contains("python3"));
    assert_eq!(living.executable_sha256.as_deref().map(str::len), Some(64));
    assert!(!living.ancestry.is_empty());
    client.go_on();
    client.output().await;
    let gone = processes.facts(&captured);
    assert_eq!((gone.pid, gone.uid, &*gone.command), (captured.pid, GOVERNED, "python3"));
    assert_eq!((gone.start_time, gone.executable), (None, None));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn the_agent_itself_is_not_governed() {
    let server = common::server().await;
    let cgroup = common::Cgroup::new();
    let id = Hierarchy::find().unwrap().id(cgroup.path()).unwrap();
    let subject = SubjectRule { name: "job".into(), cgroup_ids: vec![id], ..SubjectRule::default() };
    let gate = Gate::new(|_| Rules { subjects: vec![subject], ..Rules::default() }).await;
    let inside = cgroup.enter();
    tokio::net::TcpStream::connect(server.local_addr().unwrap()).await.expect("the agent connects freely");
    drop(inside);
    assert_eq!(gate.kernel.counters().unwrap().refused, 0);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn an_ungoverned_users_child_of_no_label_is_free() {
    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(
        UNGOVERNED,
        &format!(
            "
if os.fork() == 0:
    attempt(lambda: peer(dial(socket.AF_INET, '127.0.0.1', {port})))
    sys.stdout.flush()
    os._exit(0)
os.wait()"
        ),
    );
    common::accept(&server).await;
    assert_eq!(client.output().await, format!("peer 127.0.0.1 {port}"));
}
