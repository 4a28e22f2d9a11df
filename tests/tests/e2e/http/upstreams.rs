//! Upstreams of another making: Node's servers, and one that is another after a reload.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::Process;

use super::stage::Stage;
use crate::together::eventually;

/// A server that says back what it was asked. It ends with its input.
const NODE: &str = r"
const http2 = require('http2'), https = require('https'), fs = require('fs')
const [certificate, key, version] = process.argv.slice(2)
const options = { cert: fs.readFileSync(certificate), key: fs.readFileSync(key), allowHTTP1: true }
const answer = (request, response) => {
  let bytes = 0
  request.on('data', (chunk) => { bytes += chunk.length })
  request.on('end', () => {
    const { cookie, 'x-one': one, 'x-two': two } = request.headers
    const signed = one ? 'one' : two ? 'two' : 'neither'
    response.end(`${request.method} ${request.url} ${bytes} ${signed} ${cookie}\n`)
  })
}
const server = version === 'h2' ? http2.createSecureServer(options, answer) : https.createServer(options, answer)
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.on('end', () => process.exit(0)).resume()
";

/// Asks over one connection, waits until it may ask again, and asks over another one, too.
const KEEPING: &str = r"
import http.client, os, ssl, time
tls = ssl.create_default_context(cafile=os.environ['CA'])
client = http.client.HTTPSConnection('127.0.0.1', int(os.environ['NODE']), context=tls)
def ask():
    client.request('GET', '/x', headers={'Cookie': 'mine=1'})
    print(client.getresponse().read().decode(), end='', flush=True)
ask()
open(os.environ['DIR'] + '/asked', 'w').close()
while not os.path.exists(os.environ['DIR'] + '/reloaded'):
    time.sleep(0.05)
try:
    ask()
except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLError):
    print('closed', flush=True)
client.close()
ask()
";

/// Such a server, and its port.
fn node(stage: &Stage, version: &str) -> Result<(Process, String)> {
    let script = stage.directory.path().join("server.js");
    fs::write(&script, NODE)?;
    let own = &stage.web.certificates;
    let mut command = Command::new("node");
    command.arg(&script).args([&own.certificate, &own.key]).arg(version);
    let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut port = String::new();
    BufReader::new(process.child().stdout.take().context("its output")?).read_line(&mut port)?;
    Ok((process, port.trim().to_owned()))
}

/// Has the bundle say that it is a resource with these options.
fn declare(stage: &Stage, port: &str, options: &str) -> Result<()> {
    let ca = stage.web.certificates.authority.display();
    let text = format!(
        "tidegate: 1\nresources:\n  node:\n    protocol: http\n    addresses: [\"127.0.0.1:{port}\"]\n    tls: {{ca: {ca}}}\n    \
         credential: web\n    options: {options}\nrules:\n  - {{name: node, subjects: [ci], resources: [node], allow: [{{path: \"/**\"}}]}}\n"
    );
    stage.agent.write_bundle("node.yaml", &text)?;
    stage.agent.ask(&["reload"]).map(drop)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn node_servers_of_either_version_answer_clients_of_either() -> Result<()> {
    Stage::with(|stage| {
        for version in ["h1", "h2"] {
            let (_node, port) = node(stage, version)?;
            declare(stage, &port, "{sign-in: {header: x-one}}")?;
            for client in ["--http1.1", "--http2"] {
                let curl = format!(
                    "head -c 300000 /dev/zero | curl -sS {client} --cacert $CA -T - \"https://127.0.0.1:{port}/a?b=c\""
                );
                let shown = stage.script(&curl)?.clean()?;
                ensure!(shown == "PUT /a?b=c 300000 one undefined", "{version} {client}: {shown}");
            }
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_a_resource_is_after_a_reload_counts_for_open_connections() -> Result<()> {
    Stage::with(|stage| {
        let (_node, port) = node(stage, "h1")?;
        declare(stage, &port, "{pass: [cookie], sign-in: {header: x-one}}")?;
        fs::write(stage.directory.path().join("keeping.py"), KEEPING)?;
        let file = |name: &str| stage.directory.path().join(name);
        std::thread::scope(|scope| {
            let script = format!("NODE={port} timeout 60 python3 $DIR/keeping.py");
            let asking = scope.spawn(move || stage.script(&script));
            eventually("it has asked", || Ok(file("asked").exists() || asking.is_finished()))?;
            declare(stage, &port, "{sign-in: {header: x-two}}")?;
            fs::write(file("reloaded"), "")?;
            let shown = asking.join().ok().context("the client's thread")??.clean()?;
            ensure!(shown == "GET /x 0 one mine=1\nclosed\nGET /x 0 two undefined", "{shown}");
            Ok(())
        })
    })
}
