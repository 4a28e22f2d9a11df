//! Tunnels through a forward proxy: where they lead is decided, what is in them is counted.

use std::sync::{Arc, Mutex};

use tidegate_gate::contract::PATIENCE;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::stage::{Reached, Stage};

const RULES: &str = r#"
rules:
  - name: packages
    subjects: [tester]
    resources: [it]
    allow: [{action: connect, host: ["*.packages.test", "one.test"], port: 443}]
    hint: ask the platform team
  - {name: rest, subjects: [tester], resources: [it], allow: [{}]}
  - {name: ask, subjects: [tester], resources: [it], hold: [{action: connect, host: held.packages.test}], approve: {by: {users: [ann]}}}
"#;

/// A proxy that opens tunnels to nothing but an echo, and refuses one.
fn proxy(listener: TcpListener, received: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let received = received.clone();
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                received.lock().unwrap().push(head.clone());
                if head.contains("closed.packages.test") {
                    stream
                        .write_all(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n")
                        .await
                        .unwrap();
                    return;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nVia: it\r\n\r\n").await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
                received.lock().unwrap().push("over".into());
            });
        }
    })
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match timeout(PATIENCE, stream.read_u8()).await.expect("there is more") {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn stage(rules: &str, options: &str) -> Stage {
    Stage::serving(rules, options, Reached::Plainly, |listener, _, received| proxy(listener, received)).await
}

/// Asks for a tunnel; what the client is told of it.
async fn asked(stage: &Stage, target: &str, more: &str) -> (TcpStream, String) {
    let (mut client, _) = stage.connect().await;
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{more}\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let told = head(&mut client).await;
    (client, told)
}

async fn outcome(stage: &Stage) -> serde_json::Value {
    let there = async {
        loop {
            if let Some(line) = stage.memory.lines().into_iter().find(|line| line["type"] == "outcome") {
                return line;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, there).await.expect("it is recorded")
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_signed_in_by_the_gate_and_counted() {
    let stage = stage(RULES, "{proxy: opaque}").await.signs_in(Some("bot"), "s3cret");
    let mine = "Proxy-Authorization: Basic bWluZTptaW5l\r\nUser-Agent: it\r\n";
    let (mut client, told) = asked(&stage, "npm.packages.test:443", mine).await;
    assert_eq!(told, "HTTP/1.1 200 Connection established\r\n\r\n");
    let sent: Vec<u8> = (0..300_000).map(|at| (at % 251) as u8).collect();
    let (mut read, mut write) = client.split();
    let mut came = Vec::new();
    let both = async {
        let write = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        tokio::join!(write, read.read_to_end(&mut came)).1
    };
    timeout(PATIENCE, both).await.expect("it ends").unwrap();
    assert!(came == sent);
    let received = stage.received();
    assert!(received[0].starts_with("CONNECT npm.packages.test:443 HTTP/1.1\r\n"), "{received:?}");
    let signed = "proxy-authorization: Basic Ym90OnMzY3JldA==";
    assert!(
        received[0].contains(signed) && !received[0].to_ascii_lowercase().contains("user-agent"),
        "{received:?}"
    );
    let outcome = outcome(&stage).await;
    assert_eq!((outcome["sent"].as_u64(), outcome["bytes"].as_u64()), (Some(300_000), Some(300_000)));
    let action = &stage.memory.lines()[1];
    assert_eq!((action["action"].as_str(), action["rule"].as_str()), (Some("connect"), Some("packages")));
}

#[tokio::test]
async fn a_tunnel_leads_only_where_a_rule_that_spells_it_out_lets_it() {
    let stage = stage(RULES, "{proxy: opaque}").await;
    for (target, more, status, why) in [
        ("evil.test:443", "", 403, "no rule allows"),
        ("npm.packages.test:22", "", 403, "no rule allows"),
        ("10.0.0.1:443", "", 403, "could be anybody's"),
        ("127.1:443", "", 400, "no name"),
        ("[::1]:443", "", 403, "could be anybody's"),
        ("npm.packages.test", "", 400, "no port"),
        ("user@npm.packages.test:443", "", 400, "no name"),
        ("npm.packages.test:443", "Host: evil.test:443\r\n", 400, "differ"),
        ("npm.packages.test:443", "Content-Length: 4\r\n", 400, "without a body"),
        ("/pages/a", "", 400, "no name"),
    ] {
        let (mut client, told) = asked(&stage, target, more).await;
        let mut body = String::new();
        timeout(PATIENCE, client.read_to_string(&mut body)).await.expect("it ends").unwrap();
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {told}");
        assert!(body.contains(why), "{target}: {body}");
    }
    let (_, told) = asked(&stage, "closed.packages.test:443", "").await;
    assert!(told.starts_with("HTTP/1.1 504 "), "{told}");
    assert_eq!(stage.received().len(), 1, "{:?}", stage.received());
}

#[tokio::test]
async fn a_resource_of_the_bundle_is_not_reached_around_its_rules() {
    let stage = stage(&RULES.replace("port: 443", "port: \"> 0\""), "{proxy: opaque}").await;
    let (mut client, told) = asked(&stage, &format!("ONE.test.:{}", stage.port), "").await;
    let mut body = String::new();
    timeout(PATIENCE, client.read_to_string(&mut body)).await.expect("it ends").unwrap();
    assert!(told.starts_with("HTTP/1.1 403 ") && body.contains("by its own rules"), "{told}{body}");
    assert!(stage.received().is_empty());
}

#[tokio::test]
async fn there_is_no_tunnel_where_something_would_have_to_be_looked_into_or_no_proxy_is_declared() {
    let masked = format!(
        "{RULES}  - {{name: cards, subjects: [tester], resources: [it], allow: [{{path: /x}}], masks: [cards]}}\nmasks: {{cards: {{content: [card], show: {{keep-last: 4}}}}}}\n"
    );
    let stage_masked = stage(&masked, "{proxy: opaque}").await;
    assert!(asked(&stage_masked, "npm.packages.test:443", "").await.1.starts_with("HTTP/1.1 403 "));
    let plain = stage(RULES, "{}").await;
    assert!(asked(&plain, "npm.packages.test:443", "").await.1.starts_with("HTTP/1.1 501 "));
    assert!(stage_masked.received().is_empty() && plain.received().is_empty());
}

#[tokio::test]
async fn a_tunnel_waits_for_a_yes_and_ends_when_it_is_no_longer_allowed() {
    let stage = stage(RULES, "{proxy: opaque}").await;
    let asking = asked(&stage, "held.packages.test:443", "");
    let approving = async {
        stage.people.question(1).await;
        assert!(stage.received().is_empty());
        stage.people.approve("q1");
    };
    let ((mut client, told), ()) = tokio::join!(asking, approving);
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    client.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    timeout(PATIENCE, client.read_exact(&mut pong)).await.expect("it answers").unwrap();
    stage.reload("rules: [{name: none, subjects: [tester], resources: [it], allow: [{path: /x}]}]");
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("it is cut off");
    let outcome = outcome(&stage).await;
    assert!(outcome["error"].as_str().unwrap().contains("no longer allowed"), "{outcome}");
    assert_eq!(outcome["sent"].as_u64(), Some(4));
}

#[tokio::test]
async fn what_comes_before_the_tunnel_is_there_goes_nowhere() {
    let stage = stage(RULES, "{proxy: opaque}").await;
    let text =
        "CONNECT npm.packages.test:443 HTTP/1.1\r\nHost: npm.packages.test:443\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    assert_eq!(stage.told(text).await, "");
    assert!(stage.received().is_empty());
}

#[tokio::test]
async fn a_tunnel_for_tls_is_one_to_the_name_that_it_leads_to() {
    let to = "npm.packages.test";
    let stage = stage(RULES, "{proxy: tls}").await;
    let begun = |name: &str| hello(name.to_owned());
    let with_more = [begun(to), b"more".to_vec()].concat();
    let (mut client, told) = asked(&stage, &format!("{to}:443"), "").await;
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    for piece in with_more.chunks(100) {
        client.write_all(piece).await.unwrap();
    }
    let mut echoed = vec![0; with_more.len()];
    timeout(PATIENCE, client.read_exact(&mut echoed)).await.expect("it goes on").unwrap();
    assert!(echoed == with_more);
    for (sent, why) in [
        (begun("evil.test"), "asks for \"evil.test\" in TLS"),
        (begun("10.0.0.1"), "no name in TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "does not begin with TLS"),
        (b"GET / HTTP/1.1\r\nHost: npm.packages.test\r\n\r\n".to_vec(), "does not begin with TLS"),
    ] {
        let (mut client, _) = asked(&stage, &format!("{to}:443"), "").await;
        client.write_all(&sent).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("it is closed");
        assert_eq!(rest, b"", "{why}");
        let lines = format!("{:?}", stage.memory.lines());
        assert!(
            lines.contains("tunnel-closed") && lines.contains(&why.replace('"', "\\\"")),
            "{why}: {lines}"
        );
    }
}

/// How a client begins TLS that asks for this name.
fn hello(name: String) -> Vec<u8> {
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
