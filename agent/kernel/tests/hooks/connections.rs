//! TCP: redirected, passed, refused, left alone.

use tidegate_kernel::Rules;

use crate::common::{self, GOVERNED, Gate, OTHER, UNGOVERNED, V4, V6, connect_to, passes, resources};

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_governed_ipv4_connection_arrives_with_its_destination_and_process() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(GOVERNED, &connect_to("AF_INET", V4, 5432));
    let pid = client.pid();
    let captured = gate.accept_v4().await.expect("an origin");
    assert_eq!(captured.destination, format!("{V4}:5432").parse().unwrap());
    assert_eq!((captured.pid, captured.uid, captured.gid), (pid, GOVERNED, GOVERNED));
    assert_eq!(&*captured.command, "python3");
    assert_eq!(captured.subjects, ["governed".into()]);
    assert_eq!(client.output().await, format!("peer {V4} 5432"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_governed_ipv6_connection_arrives_with_its_destination() {
    let gate = Gate::new(|_| resources(&[(V6, 5432)])).await;
    let client = gate.python(GOVERNED, &connect_to("AF_INET6", V6, 5432));
    let captured = gate.accept_v6().await.expect("an origin");
    assert_eq!(captured.destination, format!("[{V6}]:5432").parse().unwrap());
    assert_eq!(client.output().await, format!("peer {V6} 5432"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn an_ipv4_mapped_connection_is_decided_as_ipv4() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(GOVERNED, &connect_to("AF_INET6", &format!("::ffff:{V4}"), 5432));
    let captured = gate.accept_v4().await.expect("an origin");
    assert_eq!(captured.destination, format!("{V4}:5432").parse().unwrap());
    assert_eq!(client.output().await, format!("peer ::ffff:{V4} 5432"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn an_undeclared_destination_is_refused_with_eperm_in_every_form() {
    let server = common::server().await;
    let strangers = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let own = gate.v4_port();
    let tried = [
        ("AF_INET", V4, 5433),
        ("AF_INET", "192.0.2.2", 5432),
        ("AF_INET", "127.0.0.1", strangers),
        ("AF_INET6", "::ffff:127.0.0.1", strangers),
        ("AF_INET", "0.0.0.0", own),
        ("AF_INET6", V6, 5432),
        ("AF_INET6", "::ffff:192.0.2.2", 5432),
        ("AF_INET6", "::", gate.v6_port()),
        ("AF_INET6", "::1", gate.v6_port()),
        ("AF_INET6", "::ffff:0.0.0.0", own),
        ("AF_INET6", "fe80::1", 5432),
    ];
    for (family, address, port) in tried {
        let client = gate.python(GOVERNED, &connect_to(family, address, port));
        assert_eq!(client.output().await, "errno EPERM", "{family} {address} {port}");
    }
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_passed_destination_is_reached_directly_by_its_subjects_only() {
    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| passes("127.0.0.1", port, "governed")).await;
    let client = gate.python(GOVERNED, &connect_to("AF_INET", "127.0.0.1", port));
    common::accept(&server).await;
    assert_eq!(client.output().await, format!("peer 127.0.0.1 {port}"));
    let other = gate.python(OTHER, &connect_to("AF_INET", "127.0.0.1", port));
    assert_eq!(other.output().await, "errno EPERM");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_declared_resource_wins_over_a_pass() {
    let gate =
        Gate::new(|_| Rules { passes: passes(V4, 5432, "governed").passes, ..resources(&[(V4, 5432)]) })
            .await;
    let client = gate.python(GOVERNED, &connect_to("AF_INET", V4, 5432));
    assert!(gate.accept_v4().await.is_some());
    client.output().await;
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn an_ungoverned_process_is_left_alone() {
    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| resources(&[("127.0.0.1", port)])).await;
    let client = gate.python(UNGOVERNED, &connect_to("AF_INET", "127.0.0.1", port));
    common::accept(&server).await;
    assert_eq!(client.output().await, format!("peer 127.0.0.1 {port}"));
    assert_eq!(gate.kernel.counters().unwrap().redirected, 0);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn tcp_fast_open_is_redirected_too() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(
        GOVERNED,
        &format!(
            "attempt(lambda: socket.socket().sendto(b'\\x12\\x34', socket.MSG_FASTOPEN, ({V4:?}, 5432)))"
        ),
    );
    let mut stream = gate.accept_stream().await;
    let captured = gate.origin(&stream).expect("an origin");
    assert_eq!(captured.destination, format!("{V4}:5432").parse().unwrap());
    assert_eq!(common::read_u16(&mut stream).await, 0x1234);
    assert_eq!(client.output().await, "2");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_connection_made_to_the_listener_itself_has_no_origin() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(UNGOVERNED, &connect_to("AF_INET", "127.0.0.1", gate.v4_port()));
    assert_eq!(gate.accept_v4().await, None);
    client.output().await;
    let governed = gate.python(GOVERNED, &connect_to("AF_INET", "127.0.0.1", gate.v4_port()));
    assert_eq!(governed.output().await, "errno EPERM");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn an_origin_can_be_had_once() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(GOVERNED, &connect_to("AF_INET", V4, 5432));
    let stream = gate.accept_stream().await;
    assert!(gate.origin(&stream).is_some());
    assert!(gate.origin(&stream).is_none());
    client.output().await;
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_socket_bound_to_another_interface_is_not_redirected_onto_its_wire() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    // Made under the governed user, bound with root's help: no network namespace is needed, the connect is refused before
    // anything is routed. Any interface but loopback does.
    let client = gate.python_as_root(&format!(
        "
name = [n for _, n in socket.if_nameindex() if n != 'lo'][0]
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
os.setresuid({GOVERNED}, {GOVERNED}, {GOVERNED})
attempt(lambda: s.connect(({V4:?}, 5432)))"
    ));
    assert_eq!(client.output().await, "errno EPERM");
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_generation_of_rules_replaces_the_one_before_as_a_whole() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let mut rules = resources(&[(V4, 5433)]);
    rules.subjects.retain(|subject| &*subject.name == "other");
    gate.replace(&rules);

    let gone = gate.python(OTHER, &connect_to("AF_INET", V4, 5432));
    assert_eq!(gone.output().await, "errno EPERM");
    let client = gate.python(OTHER, &connect_to("AF_INET", V4, 5433));
    assert_eq!(gate.accept_v4().await.expect("an origin").subjects, ["other".into()]);
    client.output().await;

    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    let free = gate.python(GOVERNED, &connect_to("AF_INET", "127.0.0.1", port));
    common::accept(&server).await;
    assert_eq!(free.output().await, format!("peer 127.0.0.1 {port}"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn no_connection_is_let_through_while_rules_are_replaced() {
    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    let rules = resources(&[("127.0.0.1", port)]);
    let gate = Gate::new(|_| rules.clone()).await;
    // Every connect is a new process's first, so that each is classified anew.
    let client = gate.python_as_root(&format!(
        "
for _ in range(300):
    pid = os.fork()
    if pid == 0:
        os.setresuid({GOVERNED}, {GOVERNED}, {GOVERNED})
        dial(socket.AF_INET, '127.0.0.1', {port})
        os._exit(0)
    os.waitpid(pid, 0)
print('done')"
    ));
    let finished = tokio::spawn(client.output());
    while !finished.is_finished() {
        gate.replace(&rules);
        tokio::task::yield_now().await;
    }
    assert_eq!(finished.await.unwrap(), "done");
    assert!(common::nobody_waits(&server), "a connection went past the gate");
    assert_eq!(gate.kernel.waiting(), 300);
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_namespace_where_the_agent_does_not_listen_is_refused() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let script = connect_to("AF_INET", V4, 5432);
    let client = gate.python_in_new_netns(GOVERNED, &script);
    assert_eq!(client.output().await, "errno EPERM");
}
