//! DNS: whatever server is asked, the agent's resolver is, and knows who asks.

use std::net::SocketAddr;

use tidegate_kernel::Captured;
use tokio::net::UdpSocket;

use crate::common::{GOVERNED, Gate, UNGOVERNED, V4, V6, passes, receive, resources};

/// A stub resolver, as systemd-resolved has it.
const STUB: &str = "127.0.0.53";

/// The gate's resolver: takes one question, says who asked it, and answers `yes`.
async fn resolve(gate: &Gate, socket: &UdpSocket) -> Option<Captured> {
    let mut question = [0; 64];
    let (_, client) =
        tokio::time::timeout(std::time::Duration::from_secs(20), socket.recv_from(&mut question))
            .await
            .expect("a question")
            .unwrap();
    let asker = gate.kernel.asker(gate.kernel.netns(), client, socket.local_addr().unwrap()).unwrap();
    socket.send_to(b"yes", client).await.unwrap();
    asker
}

/// What listens at the gate's own ports.
async fn listening(gate: &Gate) -> (UdpSocket, UdpSocket) {
    let v4 = UdpSocket::bind(("127.0.0.1", gate.v4_port())).await.unwrap();
    (v4, UdpSocket::bind(("::1", gate.v6_port())).await.unwrap())
}

fn asked(server: &str) -> SocketAddr {
    SocketAddr::new(server.parse().unwrap(), 53)
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_question_of_an_unconnected_socket_is_answered_as_if_by_the_server_that_was_asked() {
    let gate = Gate::new(|_| resources(&[])).await;
    let (v4, v6) = listening(&gate).await;
    for (family, server, socket) in [
        ("AF_INET", V4, &v4),
        ("AF_INET", STUB, &v4),
        ("AF_INET6", V6, &v6),
        ("AF_INET6", "::ffff:192.0.2.1", &v4),
    ] {
        let client = gate.python(
            GOVERNED,
            &format!(
                "
s = socket.socket(socket.{family}, socket.SOCK_DGRAM)
s.sendto(b'who', ({server:?}, 53))
print(s.recvfrom(64)[1][:2])"
            ),
        );
        let pid = client.pid();
        let asker = resolve(&gate, socket).await.expect(server);
        let destination = asked(server);
        let canonical = SocketAddr::new(destination.ip().to_canonical(), 53);
        assert_eq!((asker.destination, asker.pid, asker.uid), (canonical, pid, GOVERNED));
        assert_eq!(client.output().await, format!("('{server}', 53)"));
    }
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_connected_socket_believes_to_be_connected_to_the_server_that_was_asked() {
    let gate = Gate::new(|_| resources(&[])).await;
    let (v4, v6) = listening(&gate).await;
    for (family, server, socket) in
        [("AF_INET", STUB, &v4), ("AF_INET6", V6, &v6), ("AF_INET6", "::ffff:127.0.0.53", &v4)]
    {
        let client = gate.python(
            GOVERNED,
            &format!(
                "
s = socket.socket(socket.{family}, socket.SOCK_DGRAM)
s.connect(({server:?}, 53))
s.send(b'who')
print(s.recv(64), s.getpeername()[:2])"
            ),
        );
        let asker = resolve(&gate, socket).await.expect(server);
        assert_eq!((&*asker.command, asker.uid), ("python3", GOVERNED));
        assert_eq!(asker.subjects, ["governed".into()]);
        assert_eq!(client.output().await, format!("b'yes' ('{server}', 53)"));
    }
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_pass_does_not_open_a_way_to_another_server() {
    let server = UdpSocket::bind("127.0.0.2:53").await.unwrap();
    let gate = Gate::new(|_| passes("127.0.0.2", 53, "governed")).await;
    let (v4, _v6) = listening(&gate).await;
    let client = gate.python(
        GOVERNED,
        "
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'tunnel', ('127.0.0.2', 53))
print(s.recvfrom(64))",
    );
    assert!(resolve(&gate, &v4).await.is_some());
    assert_eq!(client.output().await, "(b'yes', ('127.0.0.2', 53))");
    assert!(server.try_recv(&mut [0; 8]).is_err(), "the question went past the resolver");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn questions_over_tcp_arrive_like_any_connection() {
    let gate = Gate::new(|_| resources(&[])).await;
    let client = gate.python(GOVERNED, &crate::common::connect_to("AF_INET", STUB, 53));
    assert_eq!(gate.accept_v4().await.expect("an origin").destination, asked(STUB));
    assert_eq!(client.output().await, format!("peer {STUB} 53"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn nobody_who_is_not_governed_is_an_asker() {
    let server = UdpSocket::bind("127.0.0.2:53").await.unwrap();
    let gate = Gate::new(|_| resources(&[])).await;
    let (v4, _v6) = listening(&gate).await;
    let client = gate.python(
        UNGOVERNED,
        &format!(
            "
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'free', ('127.0.0.2', 53))
s.sendto(b'who', ('127.0.0.1', {}))
print(s.recvfrom(64))",
            gate.v4_port()
        ),
    );
    assert_eq!(resolve(&gate, &v4).await, None);
    assert_eq!(receive(&server).await, b"free");
    assert_eq!(client.output().await, format!("(b'yes', ('127.0.0.1', {}))", gate.v4_port()));
}
