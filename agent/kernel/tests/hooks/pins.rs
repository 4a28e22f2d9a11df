//! What stays in force while no agent runs, and how the next one takes it over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_kernel::{Kernel, KernelError, Pins};
use tokio::net::TcpListener;

use crate::common::{
    self, Client, GOVERNED, Gate, TestPins, UNGOVERNED, V4, connect_to, nobody_waits, passes, resources,
};

/// A resource on loopback, where a test can see who reaches it.
async fn canary() -> (TcpListener, u16) {
    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    (server, port)
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn governed_connections_are_refused_at_once_when_the_agent_has_stopped() {
    let mut gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    gate.hang();
    gate.kernel.rest().unwrap();
    let pins = gate.die();
    let script = connect_to("AF_INET", V4, 5432);
    assert_eq!(pins.python(GOVERNED, &script).output().await, "errno EPERM");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_killed_agent_frees_nobody() {
    let (server, port) = canary().await;
    let gate = Gate::new(|_| resources(&[("127.0.0.1", port)])).await;
    let pins = gate.die();
    let output = pins.python(GOVERNED, &connect_to("AF_INET", "127.0.0.1", port)).output().await;
    assert_eq!(output, "errno EPERM");
    let elsewhere = pins.python(GOVERNED, &connect_to("AF_INET", V4, 443));
    assert_eq!(elsewhere.output().await, "errno EPERM");
    assert!(nobody_waits(&server), "the canary was reached");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn whoever_takes_the_port_of_a_dead_agent_gets_no_connection() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let port = gate.v4_port();
    let pins = gate.die();
    let impostor = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let client = pins.python(GOVERNED, &connect_to("AF_INET", V4, 5432));
    assert_eq!(client.output().await, "errno EPERM");
    assert!(nobody_waits(&impostor), "the impostor was reached");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn what_the_bundle_passes_needs_no_agent() {
    let (server, port) = canary().await;
    let pins = Gate::new(|_| passes("127.0.0.1", port, "governed")).await.die();
    let client = pins.python(GOVERNED, &connect_to("AF_INET", "127.0.0.1", port));
    common::accept(&server).await;
    assert_eq!(client.output().await, format!("peer 127.0.0.1 {port}"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn an_agent_without_signs_of_life_gets_no_connections() {
    let mut gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    gate.hang();
    // The script ends as soon as the answer changes.
    let client = gate.python(
        GOVERNED,
        &format!(
            "
import time
began = time.monotonic()
try:
    while time.monotonic() < began + 15: dial(socket.AF_INET, {V4:?}, 5432).close(); time.sleep(0.05)
    print('still served')
except PermissionError:
    print('refused after', time.monotonic() - began < 8)"
        ),
    );
    assert_eq!(client.output().await, "refused after True");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn the_next_agent_adopts_labels_rules_and_ports() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let ports = gate.kernel.earlier_ports().unwrap();
    assert!(!gate.kernel.adopted());
    // Once governed, it has become nobody's: only its label says so.
    let mut client = gate.python_as_root(&format!(
        "
os.setresuid({GOVERNED}, {GOVERNED}, 0)
if os.fork() == 0:
    os.setresuid(0, 0, 0)
    print('free?'); sys.stdout.flush()
    input()
    attempt(lambda: peer(dial(socket.AF_INET, {V4:?}, 5432)))
    sys.stdout.flush()
    os._exit(0)
os.wait()"
    ));
    assert_eq!(client.line(), "free?");
    let pins = gate.die();
    let kernel = Kernel::load(pins.hold()).unwrap();
    assert!(kernel.adopted());
    assert_eq!(kernel.earlier_ports().unwrap(), ports);
    let gate = Gate::with(kernel, pins, |_| resources(&[(V4, 5432)])).await;
    client.go_on();
    let captured = gate.accept_v4().await.expect("an origin");
    assert_eq!((captured.uid, &*captured.subjects), (0, &["governed".into()][..]));
    assert_eq!(client.output().await, format!("peer {V4} 5432"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn an_agent_of_another_version_takes_over_labels_and_removes_the_other() {
    let pins = TestPins::new();
    let other = Kernel::load(Pins::hold_layout(pins.path(), "another").unwrap()).unwrap();
    let gate = Gate::with(other, pins, |_| resources(&[(V4, 5432)])).await;
    let mut client = gate.python_as_root(&format!(
        "
os.setresuid({GOVERNED}, {GOVERNED}, 0)
if os.fork() == 0:
    os.setresuid(0, 0, 0)
    print('free?'); sys.stdout.flush()
    input()
    attempt(lambda: peer(dial(socket.AF_INET, {V4:?}, 5432)))
    sys.stdout.flush()
    os._exit(0)
os.wait()"
    ));
    assert_eq!(client.line(), "free?");
    let pins = gate.die();
    let kernel = Kernel::load(pins.hold()).unwrap();
    assert!(kernel.adopted());
    assert!(pins.path().join("another").exists(), "removed before the rules were in force");
    let gate = Gate::with(kernel, pins, |_| resources(&[(V4, 5432)])).await;
    client.go_on();
    assert_eq!(&*gate.accept_v4().await.expect("an origin").subjects, &["governed".into()][..]);
    assert_eq!(client.output().await, format!("peer {V4} 5432"));
    assert!(!gate.die().path().join("another").exists(), "the other version's programs are still attached");
}

/// Connects to the canary as fast as it can, until a line comes; never gets there.
fn hammer(port: u16) -> String {
    format!(
        "
import select
reached = tries = 0
print('begun'); sys.stdout.flush()
while not select.select([sys.stdin], [], [], 0)[0]:
    tries += 1
    try:
        s = socket.create_connection(('127.0.0.1', {port}), 1)
        s.settimeout(1)
        reached += s.recv(6) == b'canary'
        s.close()
    except OSError:
        pass
print(reached, 'of', tries > 100)"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root: cargo xtask test kernel"]
async fn restarts_and_upgrades_leave_no_moment_without_enforcement() {
    let (server, port) = canary().await;
    let reached = Arc::new(AtomicBool::new(false));
    let seen = reached.clone();
    let canary = tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            seen.store(true, Ordering::Relaxed);
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"canary").await.ok();
        }
    });
    let mut gate = Gate::new(|_| resources(&[("127.0.0.1", port)])).await;
    let mut client = gate.python(GOVERNED, &hammer(port));
    assert_eq!(client.line(), "begun");
    for round in 0..10 {
        let pins = gate.die();
        let held = match round % 3 {
            0 => Pins::hold_layout(pins.path(), &format!("round{round}")).unwrap(),
            _ => pins.hold(),
        };
        let kernel = Kernel::load(held).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        gate = Gate::with(kernel, pins, |_| resources(&[("127.0.0.1", port)])).await;
    }
    client.go_on();
    assert_eq!(client.output().await, "0 of True");
    assert!(!reached.load(Ordering::Relaxed), "the canary was reached");
    // The canary can be reached: by whom nobody governs.
    let control = gate.python(UNGOVERNED, &connect_to("AF_INET", "127.0.0.1", port));
    assert_eq!(control.output().await, format!("peer 127.0.0.1 {port}"));
    canary.abort();
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_second_agent_is_refused_the_same_pins() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let pins = gate.pins_path();
    assert!(matches!(Pins::hold(&pins), Err(KernelError::Busy(_))));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn detaching_frees_the_governed_and_says_how_much_went() {
    let (server, port) = canary().await;
    let gate = Gate::new(|_| resources(&[("127.0.0.1", port)])).await;
    let path = gate.pins_path();
    let (_pins, kernel) = gate.close();
    let removed = Arc::into_inner(kernel).unwrap().detach().unwrap();
    assert!(removed.links >= 11 && removed.maps >= 10, "{removed:?}");
    assert!(!path.exists());
    let client = Client::of(GOVERNED, &connect_to("AF_INET", "127.0.0.1", port));
    common::accept(&server).await;
    assert_eq!(client.output().await, format!("peer 127.0.0.1 {port}"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn governed_processes_see_nothing_of_the_pins() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let path = gate.pins_path();
    let script = format!(
        "attempt(lambda: os.listdir({path:?}))\nattempt(lambda: os.unlink({path:?} + '/links/connect4'))",
        path = path.display().to_string()
    );
    assert_eq!(gate.python(GOVERNED, &script).output().await, "errno EACCES\nerrno EACCES");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn programs_that_nobody_was_governed_by_go_with_the_agent_that_failed() {
    let pins = TestPins::new();
    drop(Kernel::load(pins.hold()).unwrap());
    assert!(!pins.path().exists());
}
