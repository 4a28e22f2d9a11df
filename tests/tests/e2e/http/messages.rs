//! What requests and messages say: bodies, WebSocket, gRPC.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use tidegate_tests::run;

use super::stage::Stage;

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn messages_of_a_websocket_are_decided_and_masked() -> Result<()> {
    Stage::with(|stage| {
        let python = "import asyncio, os, ssl, websockets\n\
                      tls = ssl.create_default_context(cafile=os.environ['CA'])\n\
                      url = os.environ['URL'].replace('https', 'wss') + '/live'\n\
                      async def main():\n\
                      \x20   async with websockets.connect(url, ssl=tls, subprotocols=['talk']) as socket:\n\
                      \x20       print(socket.subprotocol, socket.response.headers.get('Sec-WebSocket-Extensions'))\n\
                      \x20       await socket.send(['{\"op\": ', '\"look\"}'])\n\
                      \x20       print(await socket.recv())\n\
                      \x20       await (await socket.ping())\n\
                      \x20       await socket.send('{\"op\": \"order\"}')\n\
                      \x20       try:\n\
                      \x20           await socket.recv()\n\
                      \x20       except websockets.ConnectionClosed as closed:\n\
                      \x20           print(closed.rcvd.code, closed.rcvd.reason)\n\
                      asyncio.run(main())\n";
        fs::write(stage.directory.path().join("talk.py"), python)?;
        let clients = tidegate_tests::CLIENTS;
        let shown = stage.script(&format!("{clients}/python/bin/python $DIR/talk.py"))?.clean()?;
        let expected = "talk None\n{\"user\": \"Ada\", \"card\": \"************1111\", \"said\": \"{\\\"op\\\": \\\"look\\\"}\"}\n\
                        1008 denied by rule \"no-orders\"";
        ensure!(shown == expected, "{shown}");
        let node = "const socket = new WebSocket(process.env.URL.replace('https', 'wss') + '/live', 'talk')\n\
                    socket.onopen = () => socket.send('{}')\n\
                    socket.onmessage = (event) => { console.log(event.data); socket.send('{\"op\": \"order\"}') }\n\
                    socket.onclose = (event) => console.log(event.code, event.reason)\n";
        fs::write(stage.directory.path().join("talk.js"), node)?;
        let shown = stage.script("node --experimental-websocket --no-warnings $DIR/talk.js")?.clean()?;
        ensure!(
            shown.contains("************1111") && shown.ends_with("1008 denied by rule \"no-orders\""),
            "{shown}"
        );
        fs::write(
            stage.directory.path().join("stream.js"),
            include_str!("../../../clients/websocket_h2.js"),
        )?;
        let shown = stage.script("node $DIR/stream.js")?.clean()?;
        let expected = "200 talk\n{\"user\": \"Ada\", \"card\": \"************1111\", \"said\": \"{}\"}\n\
                        1008 denied by rule \"no-orders\"";
        ensure!(shown == expected, "{shown}");
        let records = stage.records()?;
        ensure!(records.contains("message text to server"), "{records}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn grpc_streams_every_way_and_a_refusal_has_its_status() -> Result<()> {
    Stage::with(|stage| {
        let _server = stage.web.grpc()?;
        fs::write(stage.directory.path().join("call.py"), include_str!("../../../clients/grpc_client.py"))?;
        let shown =
            stage.script(&format!("{}/python/bin/python $DIR/call.py", tidegate_tests::CLIENTS))?.clean()?;
        let expected = "b'hello you' ['Basic']\n[b'0', b'1', b'2']\nb'300003'\n[b'a', b'b']\n\
                        Drop PERMISSION_DENIED denied by rule \"no-drop\"; ask ops\n\
                        Fail NOT_FOUND no such thing\nb'waiting'\nb'yes'";
        ensure!(shown == expected, "{shown}");
        Ok(())
    })
}

const ORDERS: &str = r#"tidegate: 1
resources:
  orders:
    protocol: http
    addresses: ["127.0.0.3:${port}"]
    tls: {ca: ${ca}, server-name: localhost}
    credential: web
    options: {descriptors: orders.binpb}
rules:
  - {name: order-a-few, subjects: [ci], resources: [orders], allow: [{grpc: "acme.orders.Orders/*", body: {amount: "<= 100"}}], masks: [orders]}
  - {name: nothing-dangerous, subjects: [ci], resources: [orders], deny: [{body: {article: "fireworks*"}}]}
masks:
  orders: {columns: [body.order.customer.cardNumber], show: {keep-last: 4}}
"#;

/// With the `.proto` and the descriptors of the example in `policies`, which are what protoc makes.
#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_a_message_of_grpc_says_decides_and_is_masked() -> Result<()> {
    Stage::with(|stage| {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/http");
        let directory = stage.directory.path();
        let mut protoc = Command::new(format!("{}/python/bin/python", tidegate_tests::CLIENTS));
        protoc.args(["-m", "grpc_tools.protoc", "--include_imports", "-I"]).arg(&example);
        for made in ["--descriptor_set_out", "--python_out", "--grpc_python_out"] {
            let file = if made == "--descriptor_set_out" { "orders.binpb" } else { "" };
            protoc.arg(format!("{made}={}", directory.join(file).display()));
        }
        run(protoc.arg("orders.proto"))?;
        let descriptors = fs::read(directory.join("orders.binpb"))?;
        ensure!(
            descriptors == fs::read(example.join("orders.binpb"))?,
            "orders.binpb is of another orders.proto"
        );
        stage.agent.add_to_bundle("orders.binpb", &descriptors)?;
        let bundle = ORDERS.replace("${port}", &stage.web.grpc_port.to_string());
        let ca = stage.web.certificates.authority.display().to_string();
        stage.agent.write_bundle("orders.yaml", &bundle.replace("${ca}", &ca))?;
        stage.agent.ask(&["reload"])?;
        let address = format!("127.0.0.3:{}", stage.web.grpc_port);
        let _server = stage.web.orders(&address, directory)?;
        fs::write(directory.join("call.py"), include_str!("../../../clients/orders_client.py"))?;
        let python = format!("{}/python/bin/python", tidegate_tests::CLIENTS);
        let shown = stage.script(&format!("ORDERS={address} {python} $DIR/call.py"))?.clean()?;
        let expected = "r-1 100 Ada ************1111\n\
                        PERMISSION_DENIED no rule allows request POST on host 127.0.0.3, path /acme.orders.Orders/Create, grpc \
                        acme.orders.Orders/Create, type application/grpc\n\
                        INVALID_ARGUMENT a rule looks at this request's body, which cannot be looked into: it is compressed\n\
                        r-0 1 Ada ************1111\nr-1 2 Ada ************1111\n\
                        r-0 3 Ada ************1111\nr-1 4 Ada ************1111\n\
                        PERMISSION_DENIED denied by rule \"nothing-dangerous\"";
        ensure!(shown == expected, "{shown}");
        let records = stage.records()?;
        ensure!(records.contains("message to server, 127.0.0.3"), "{records}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_a_body_says_decides() -> Result<()> {
    Stage::with(|stage| {
        for version in ["--http1.1", "--http2"] {
            let post = |body: &str| {
                let curl = format!("curl -sS {version} --cacert $CA -w '%{{http_code}}' {body} $URL/things");
                stage.script(&curl)?.clean()
            };
            ensure!(post("--json '{\"amount\": 99.5}'")?.ends_with("200"), "{version}");
            ensure!(post("-d amount=100")?.ends_with("200"), "{version}");
            ensure!(post("--json '{\"amount\": 100.5}'")?.ends_with("403"), "{version}");
            ensure!(post("--json '{\"amount\": 1, \"AMOUNT\": 1000}'")?.ends_with("422"), "{version}");
            ensure!(post("-F amount=1")?.ends_with("422"), "{version}");
        }
        ensure!(stage.web.asked()?.lines().count() == 4, "{}", stage.web.asked()?);
        Ok(())
    })
}
