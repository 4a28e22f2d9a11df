//! Sockets at their creation, and datagrams.

use tidegate_kernel::Rules;
use tokio::net::UdpSocket;

use crate::common::{self, GOVERNED, Gate, UNGOVERNED, V4, passes, resources};

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn sockets_other_than_tcp_and_udp_are_refused_at_creation() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let kinds = [
        ("AF_INET", "SOCK_STREAM", 262),
        ("AF_INET6", "SOCK_STREAM", 262),
        ("AF_INET", "SOCK_DGRAM", 136),
        // Root by capability, governed by label: raw sockets need the capability to come as far as the hook.
        ("AF_INET", "SOCK_RAW", 1),
        ("AF_INET6", "SOCK_RAW", 58),
        ("AF_INET", "SOCK_RAW", 6),
    ];
    for (family, kind, protocol) in kinds {
        let client = gate.python_as_root(&format!(
            "
os.setresuid({GOVERNED}, {GOVERNED}, 0)
socket.socket()
os.setresuid(0, 0, 0)
attempt(lambda: socket.socket(socket.{family}, socket.{kind}, {protocol}))"
        ));
        assert_eq!(client.output().await, "errno EPERM", "{family} {kind} {protocol}");
    }
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn an_ungoverned_process_may_have_any_socket() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(
        UNGOVERNED,
        "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).family.name)",
    );
    assert_eq!(client.output().await, "AF_INET");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn datagrams_to_a_declared_resource_are_refused_sent_and_connected() {
    let gate = Gate::new(|_| resources(&[("127.0.0.1", 5432)])).await;
    let ways = [
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 5432))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 5432))",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', ('::ffff:127.0.0.1', 5432))",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).connect(('::ffff:127.0.0.1', 5432))",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', ('2001:db8::1', 5432))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 5432))",
    ];
    for way in ways {
        let client = gate.python(GOVERNED, &format!("attempt(lambda: {way})"));
        assert_eq!(client.output().await, "errno EPERM", "{way}");
    }
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn datagrams_to_a_passed_destination_arrive() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| passes("127.0.0.1", port, "governed")).await;
    for (family, address) in
        [("AF_INET", "127.0.0.1"), ("AF_INET6", "::ffff:127.0.0.1"), ("AF_INET", "0.0.0.0")]
    {
        let client = gate.python(
            GOVERNED,
            &format!(
                "attempt(lambda: socket.socket(socket.{family}, socket.SOCK_DGRAM).sendto(b'x', ({address:?}, {port})))"
            ),
        );
        assert_eq!(client.output().await, "1", "{family} {address}");
        assert_eq!(common::receive(&server).await, b"x");
    }
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn datagrams_to_a_destination_that_is_declared_and_passed_are_refused() {
    let rules = Rules { passes: passes(V4, 443, "governed").passes, ..resources(&[(V4, 443)]) };
    let gate = Gate::new(|_| rules).await;
    let client = gate.python(
        GOVERNED,
        &format!(
            "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ({V4:?}, 443)))"
        ),
    );
    assert_eq!(client.output().await, "errno EPERM");
}
