//! Tunnels through a forward proxy, which takes nobody but the gate.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Result, ensure};

use super::stage::Stage;

/// A forward proxy from whose view every name is one server. Dropped, it takes nobody more.
struct Proxy {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Proxy {
    fn start(server: SocketAddr, token: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (address, over) = (listener.local_addr()?, Arc::<AtomicBool>::default());
        let (is_over, token) = (over.clone(), token.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let token = token.clone();
                // Whoever breaks off is the test's to notice.
                thread::spawn(move || tunnel(client, server, &token).ok());
            }
        });
        Ok(Self { address, over })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        TcpStream::connect(self.address).ok();
    }
}

fn tunnel(mut client: TcpStream, server: SocketAddr, token: &str) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    if !head.starts_with("CONNECT ") || !head.contains(&format!("proxy-authorization: Bearer {token}\r\n")) {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    }
    let server = TcpStream::connect(server)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    thread::scope(|scope| {
        for (mut from, mut to) in [(&client, &server), (&server, &client)] {
            scope.spawn(move || {
                io::copy(&mut from, &mut to).ok();
                to.shutdown(Shutdown::Write).ok();
            });
        }
    });
    Ok(())
}

fn bundle(proxy: SocketAddr) -> String {
    format!(
        "tidegate: 1\nresources:\n  way-out:\n    protocol: http\n    addresses: [\"{proxy}\"]\n    tls: {{mode: disable}}\n    \
         credential: way-out\n    options: {{proxy: tls}}\nrules:\n  - name: packages\n    subjects: [ci]\n    resources: \
         [way-out]\n    allow: [{{action: connect, host: \"*.packages.test\", port: 443}}]\n"
    )
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn curl_gets_through_a_forward_proxy_to_the_names_that_rules_let_it_and_to_no_others() -> Result<()> {
    Stage::with(|stage| {
        let proxy = Proxy::start(([127, 0, 0, 1], stage.web.port).into(), &stage.web.token)?;
        stage.agent.write_credential("way-out.password", &stage.web.token)?;
        stage.agent.write_bundle("way-out.yaml", &bundle(proxy.address))?;
        stage.agent.ask(&["reload"])?;
        let script = |more: &str, url: &str| {
            let own = "-sS -k --noproxy '' --proxy-header 'Proxy-Authorization: Basic bWluZTptaW5l'";
            stage.script(&format!(
                "curl {own} -x http://{} -w ' %{{http_connect}}' {more} {url}",
                proxy.address
            ))
        };
        let shown = script("", "https://npm.packages.test/things")?.clean()?;
        ensure!(shown == "not signed in\n 200", "{shown}");
        for (more, url, status) in [
            ("", "https://evil.test/things", "403"),
            ("-p", "http://npm.packages.test:22/", "403"),
            ("", "https://127.0.0.2/things", "403"),
            // What is asked for in TLS, and what is no TLS at all.
            ("--connect-to evil.test:443:npm.packages.test:443", "https://evil.test/things", "200"),
            ("-p", "http://npm.packages.test:443/", "200"),
        ] {
            let ran = script(more, url)?;
            ensure!(ran.code != 0 && ran.stdout.ends_with(status), "{more} {url}: {ran:?}");
        }
        ensure!(stage.web.asked()?.lines().count() == 1, "{}", stage.web.asked()?);
        let records = stage.records()?;
        ensure!(
            records.contains("CONNECT npm.packages.test:443") && records.contains("tunnel-closed"),
            "{records}"
        );
        Ok(())
    })
}
