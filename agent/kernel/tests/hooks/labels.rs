//! Labels stick: over fork, exec, setuid, a change of cgroup, new parents and passed descriptors.

use tidegate_kernel::{Processes, Rules, SubUids, SubjectRule, UnitPattern};
use tokio::net::TcpListener;

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
    gate.replace(&resources(&[(V4, 5432)]));
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
    let subject =
        SubjectRule { name: "job".into(), cgroups: vec![cgroup.path().to_owned()], ..SubjectRule::default() };
    let gate = Gate::new(|_| Rules { subjects: vec![subject], ..resources(&[(V4, 5432)]) }).await;
    let enter = |folder: &str| format!("open({folder:?} + '/cgroup.procs', 'w').write(str(os.getpid()))");

    let inside = gate.python_as_root(&format!("{}\n{}", enter(cgroup.inner()), dial("pass")));
    let captured = gate.accept_v4().await.expect("an origin");
    assert_eq!(captured.subjects, ["job".into()]);
    let (process, _) = Processes::new().unwrap().facts(&captured);
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

/// Rules by which these are governed, and a destination that is the gate's for them.
fn governing(job: SubjectRule, port: u16) -> Rules {
    let job = SubjectRule { name: "job".into(), ..job };
    Rules { subjects: vec![job], ..resources(&[("127.0.0.1", port)]) }
}

/// Whether what a script does, as root, before it connects to this server makes it governed.
async fn is_governed(gate: &Gate, server: &TcpListener, before: &str) -> bool {
    let port = server.local_addr().unwrap().port();
    let client = gate.python_as_root(&format!("{before}\n{}", connect_to("AF_INET", "127.0.0.1", port)));
    let governed = tokio::select! {
        origin = gate.accept_v4() => {
            assert_eq!(origin.expect("an origin").subjects, ["job".into()]);
            true
        }
        _ = common::accept(server) => false,
    };
    assert_eq!(client.output().await, format!("peer 127.0.0.1 {port}"));
    governed
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_cgroup_that_is_named_governs_as_often_as_it_is_made() {
    let (cgroup, server) = (common::Cgroup::new(), common::server().await);
    let (path, port) = (format!("{}/later", cgroup.path()), server.local_addr().unwrap().port());
    let job = SubjectRule { cgroups: vec![path.clone()], ..SubjectRule::default() };
    let gate = Gate::new(|_| governing(job.clone(), port)).await;
    let beside = cgroup.make(&format!("{path}-not"));
    assert!(!is_governed(&gate, &server, &beside.enter()).await);
    for _ in 0..2 {
        let made = cgroup.make(&format!("{path}/inner"));
        assert!(is_governed(&gate, &server, &made.enter()).await);
    }
    let made = cgroup.make(&path);
    gate.replace(&governing(job, port));
    assert!(is_governed(&gate, &server, &made.enter()).await);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn units_govern_whenever_they_start_but_only_the_systems_own() {
    let (cgroup, server) = (common::Cgroup::new(), common::server().await);
    let (pid, port) = (std::process::id(), server.local_addr().unwrap().port());
    let units = [format!("tidegate-test-{pid}-ci@*.service"), format!("tidegate-test-{pid}.scope")];
    let units = units.iter().map(|unit| UnitPattern::parse(unit).unwrap()).collect();
    let job = SubjectRule { units, ..SubjectRule::default() };
    let slice = format!("/tidegatetest{pid}.slice");
    // There before the rules, in a slice from before.
    let earlier = cgroup.make(&format!("{slice}/tidegate-test-{pid}.scope"));
    let gate = Gate::new(|_| governing(job, port)).await;
    assert!(is_governed(&gate, &server, &earlier.enter()).await);
    for (path, governed) in [
        (format!("{slice}/tidegate-test-{pid}-ci@1.service"), true),
        (format!("{slice}/tidegatetest{pid}-new.slice/tidegate-test-{pid}-ci@2.service/inner"), true),
        (format!("{slice}/tidegate-test-{pid}-ci@1.socket"), false),
        (format!("{slice}/tidegate-test-{pid}-c.service"), false),
        // Whoever was given the service can make any cgroup below it.
        (format!("{slice}/user@1.service/app.slice/tidegate-test-{pid}-ci@3.service"), false),
        (format!("{}/tidegate-test-{pid}-ci@4.service", cgroup.path()), false),
    ] {
        let made = cgroup.make(&path);
        assert_eq!(is_governed(&gate, &server, &made.enter()).await, governed, "{path}");
    }
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_unit_that_starts_while_no_agent_runs_is_governed() {
    let (cgroup, server) = (common::Cgroup::new(), common::server().await);
    let (pid, port) = (std::process::id(), server.local_addr().unwrap().port());
    let units = vec![UnitPattern::parse(&format!("tidegate-test-{pid}.service")).unwrap()];
    let gate = Gate::new(|_| governing(SubjectRule { units, ..SubjectRule::default() }, port)).await;
    let pins = gate.die();
    let made = cgroup.make(&format!("/tidegatetest{pid}.slice/tidegate-test-{pid}.service"));
    let script = made.enter() + &connect_to("AF_INET", "127.0.0.1", port);
    assert_eq!(pins.python(0, &script).output().await, "errno EPERM");
    assert!(common::nobody_waits(&server));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_sub_uid_counts_as_the_user_whose_it_is() {
    const SUB_UID: u32 = 761_001;
    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    let range = SubUids { owner: GOVERNED, start: SUB_UID - 1, count: 65_536 };
    let job = SubjectRule { uids: vec![GOVERNED], sub_uids: vec![range], ..SubjectRule::default() };
    let gate = Gate::new(|_| governing(job, port)).await;
    let become_user = |uid: u32| format!("os.setresuid({uid}, {uid}, {uid})");
    for (uid, governed) in [
        (GOVERNED, true),
        (SUB_UID - 2, false),
        (SUB_UID - 1, true),
        (SUB_UID, true),
        (SUB_UID + 65_534, true),
        (SUB_UID + 65_535, false),
    ] {
        assert_eq!(is_governed(&gate, &server, &become_user(uid)).await, governed, "{uid}");
    }
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
    let (living, unread) = processes.facts(&captured);
    assert!(living.executable.as_deref().unwrap().contains("python3"));
    assert_eq!(processes.digest(unread.unwrap()).as_deref().map(str::len), Some(64));
    assert!(!living.ancestry.is_empty());
    client.go_on();
    client.output().await;
    let (gone, _) = processes.facts(&captured);
    assert_eq!((gone.pid, gone.uid, &*gone.command), (captured.pid, GOVERNED, "python3"));
    assert_eq!((gone.start_time, gone.executable), (None, None));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn the_agent_itself_is_not_governed() {
    let server = common::server().await;
    let cgroup = common::Cgroup::new();
    let subject =
        SubjectRule { name: "job".into(), cgroups: vec![cgroup.path().to_owned()], ..SubjectRule::default() };
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
