//! Hand-off entries come and go with their connections.

use tidegate_abi::{MAX_HANDOFFS_PER_USER, MAX_WAITERS, Waiting};
use tidegate_kernel::SubUids;

use crate::common::{GOVERNED, Gate, OTHER, V4, connect_to, fill, map, resources};

const MANY: usize = 1_000;
/// An id that the governed user may use in a user namespace.
const SUB_UID: u32 = 761_001;

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn entries_of_connections_that_nobody_accepts_go_with_the_listener() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(
        GOVERNED,
        &format!(
            "
for _ in range({MANY}):
    dial(socket.AF_INET, {V4:?}, 5432).close()
print('done')"
        ),
    );
    assert_eq!(client.output().await, "done");
    assert_eq!(gate.kernel.waiting(), MANY, "a client that closed at once must still be known");
    let (_pins, kernel) = gate.close();
    assert_eq!(kernel.waiting(), 0);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn entries_of_connections_that_are_reset_go_at_once() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(
        GOVERNED,
        &format!(
            "
for _ in range({MANY}):
    s = dial(socket.AF_INET, {V4:?}, 5432)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()
print('done')"
        ),
    );
    assert_eq!(client.output().await, "done");
    assert_eq!(gate.kernel.waiting(), 0);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn connections_that_nobody_listens_for_are_refused_and_leave_no_entry() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let nobody = gate.unused_port();
    gate.kernel.listen(nobody, nobody).unwrap();
    let client = gate.python(GOVERNED, &connect_to("AF_INET", V4, 5432));
    assert_eq!(client.output().await, "errno EPERM");
    assert_eq!(gate.kernel.waiting(), 0);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_client_that_sends_and_closes_at_once_is_still_known() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(
        GOVERNED,
        &format!("s = dial(socket.AF_INET, {V4:?}, 5432); s.sendall(b'line'); s.close(); print('done')"),
    );
    let pid = client.pid();
    assert_eq!(client.output().await, "done");
    assert_eq!(gate.accept_v4().await.expect("an origin").pid, pid);
}

/// Opens connections without end and counts those that are let.
const FLOOD: &str = "
import resource
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = []
def flood():
    for n in range(2000):
        s = socket.socket()
        s.setblocking(False)
        held.append(s)
        try:
            s.connect(('192.0.2.1', 5432))
        except BlockingIOError:
            pass
        except OSError as error:
            return f'{n} {errno.errorcode[error.errno]}'
    return 'no end'
print(flood(), flush=True)
sys.stdin.readline()
print(flood(), flush=True)
sys.stdin.readline()
";

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_user_whose_connections_wait_in_masses_keeps_nobody_else_out_and_may_go_on_once_they_are_taken() {
    let mut rules = resources(&[(V4, 5432)]);
    rules.subjects[0].sub_uids = vec![SubUids { owner: GOVERNED, start: SUB_UID, count: 1 }];
    let gate = Gate::new(|_| rules).await;
    let mut hostile = gate.python(GOVERNED, FLOOD);
    assert_eq!(hostile.line(), format!("{MAX_HANDOFFS_PER_USER} EPERM"));
    let other = gate.python(OTHER, &connect_to("AF_INET", V4, 5432));
    let pid = other.pid();
    assert_eq!(other.output().await, format!("peer {V4} 5432"));
    // A sub-uid is no second share.
    let sub_uid = gate.python(SUB_UID, &connect_to("AF_INET", V4, 5432));
    assert_eq!(sub_uid.output().await, "errno EPERM");
    for _ in 0..MAX_HANDOFFS_PER_USER {
        assert_eq!(gate.accept_v4().await.expect("an origin").uid, GOVERNED);
    }
    assert_eq!(gate.accept_v4().await.expect("an origin").pid, pid);
    assert_eq!(gate.kernel.waiting(), 0);
    hostile.go_on();
    assert_eq!(hostile.line(), format!("{MAX_HANDOFFS_PER_USER} EPERM"));
    assert!(gate.kernel.counters().unwrap().handoffs_full >= 2);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn connections_that_end_untaken_count_no_longer() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    // Reset, so that the listener's end goes too.
    let client = gate.python(
        GOVERNED,
        &format!(
            "
for _ in range({MAX_HANDOFFS_PER_USER} + 100):
    s = dial(socket.AF_INET, {V4:?}, 5432)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()
print('done')"
        ),
    );
    assert_eq!(client.output().await, "done");
    assert_eq!(gate.kernel.waiting(), 0);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn whoever_uses_up_the_counts_of_users_keeps_nobody_out_and_they_are_free_again_in_time() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let mut counts = map::<u32, Waiting>(&gate, "WAITING");
    // As many users as can be counted have each had a connection that ended.
    let users: Vec<u32> = (100_000..).take(MAX_WAITERS + 1).collect();
    let strangers = fill(&mut counts, users.iter().map(|user| (*user, Waiting { offered: 1, ended: 1 })));
    assert!(strangers.len() < users.len());
    let connects = async |uid: u32| {
        let client = gate.python(uid, &connect_to("AF_INET", V4, 5432));
        assert_eq!(gate.accept_v4().await.expect("an origin").uid, uid);
        assert_eq!(client.output().await, format!("peer {V4} 5432"));
    };
    connects(GOVERNED).await;
    connects(OTHER).await;
    assert!(counts.get(&GOVERNED, 0).is_err(), "there was room");
    // Whatever has not changed from one time to the next, and has nothing waiting.
    gate.kernel.tidy().unwrap();
    assert!(counts.get(&strangers[0], 0).is_ok());
    gate.kernel.tidy().unwrap();
    assert!(strangers.iter().all(|user| counts.get(user, 0).is_err()));
    connects(GOVERNED).await;
    assert_eq!(counts.get(&GOVERNED, 0).unwrap().offered, 1);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn every_one_of_many_connections_at_once_has_its_own_origin() {
    let ports: Vec<u16> = (10_000..10_100).collect();
    let declared: Vec<(&str, u16)> = ports.iter().map(|&port| (V4, port)).collect();
    let gate = Gate::new(|_| resources(&declared)).await;
    let client = gate.python(
        GOVERNED,
        &format!(
            "
def one(port):
    s = dial(socket.AF_INET, {V4:?}, port)
    s.sendall(struct.pack('!H', port))
    s.close()
threads = [threading.Thread(target=one, args=(port,)) for port in range(10000, 10100)]
[t.start() for t in threads]
[t.join() for t in threads]
print('done')"
        ),
    );
    let mut seen = Vec::new();
    for _ in &ports {
        let mut stream = gate.accept_stream().await;
        let captured = gate.origin(&stream).expect("an origin");
        assert_eq!(crate::common::read_u16(&mut stream).await, captured.destination.port());
        seen.push(captured.destination.port());
    }
    seen.sort_unstable();
    assert_eq!(seen, ports);
    assert_eq!(client.output().await, "done");
    assert_eq!(gate.kernel.waiting(), 0);
}
