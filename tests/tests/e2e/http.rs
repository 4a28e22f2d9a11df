//! HTTP: unmodified clients, a real nginx, and git over both.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tidegate_tests::{Account, Agent, Settings, Web, governed_uid, leaks, run, ungoverned_uid};

const BUNDLE: &str = r#"tidegate: 1
name: web
subjects:
  ci: {users: ["${ci}"]}
resources:
  web:
    protocol: http
    addresses: ["127.0.0.1:${port}"]
    tls: {ca: ${ca}}
    credential: web
    options: {hosts: [localhost]}
  plain:
    protocol: http
    addresses: ["127.0.0.1:${plain_port}"]
    tls: {mode: disable}
    credential: web
  rpc:
    protocol: http
    addresses: ["127.0.0.1:${grpc_port}"]
    tls: {ca: ${ca}}
    credential: web
rules:
  - {name: call, subjects: [ci], resources: [rpc], allow: [{grpc: "acme.Echo/*"}]}
  - {name: no-drop, subjects: [ci], resources: [rpc], deny: [{grpc: "*/Drop"}], hint: ask ops}
  - name: read
    subjects: [ci]
    resources: [web, plain]
    allow:
      - {method: [GET, HEAD], path: ["/files/**", /things]}
    hint: ask the platform team
  - name: talk
    subjects: [ci]
    resources: [web]
    allow:
      - {action: websocket, path: /live}
      - {action: message, path: /live}
    masks: [people]
  - {name: no-orders, subjects: [ci], resources: [web], deny: [{action: message, to: server, body: {op: order}}]}
  - name: small-orders
    subjects: [ci]
    resources: [web]
    allow: [{method: POST, path: /things, body: {amount: "<= 100"}}]
  - name: customers
    subjects: [ci]
    resources: [web]
    allow: [{method: GET, path: [/customers, /compressed]}]
    masks: [people]
  - name: shop-repository
    subjects: [ci]
    resources: [web]
    allow:
      - {method: GET, path: /git/shop.git/info/refs, query: "service=git-*"}
      - {method: POST, path: [/git/shop.git/git-upload-pack, /git/shop.git/git-receive-pack]}
  - name: ask-first
    subjects: [ci]
    resources: [plain]
    hold: [{path: /files/held.txt}]
    approve: {by: {users: [root]}}
masks:
  people: {columns: [body.customers.email], content: [card], show: {keep-last: 4}}
"#;

/// An nginx, an agent in front of it, and an account.
struct Stage {
    web: Web,
    agent: Agent,
    ci: Account,
    directory: TempDir,
}

impl Stage {
    /// Runs a test; afterwards the records are verified, and searched for the token.
    fn with(test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let stage = Self::set()?;
        let result = test(&stage).with_context(|| stage.agent.read_log().unwrap_or_default());
        result.and_then(|()| stage.finish())
    }

    fn set() -> Result<Self> {
        let (web, uid) = (Web::start()?, governed_uid());
        let bundle = BUNDLE
            .replace("${ci}", &uid.to_string())
            .replace("${port}", &web.port.to_string())
            .replace("${plain_port}", &web.plain_port.to_string())
            .replace("${grpc_port}", &web.grpc_port.to_string())
            .replace("${ca}", &web.certificates.authority.display().to_string());
        let binary = std::env::var_os("TIDEGATE_BINARY").map(PathBuf::from);
        let agent = Agent::start(&Settings {
            binary: &binary.context("TIDEGATE_BINARY is not set: run `cargo xtask test e2e`")?,
            bundle: &[("bundle.yaml", &bundle)],
            credentials: &[("web.user", "bot"), ("web.password", &web.token)],
        })?;
        let directory = TempDir::with_prefix("tidegate-http-")?;
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777))?;
        fs::write(directory.path().join("ca.pem"), agent.ask(&["ca", "show"])?)?;
        let ci = Account::new(uid, ([127, 0, 0, 1], web.port).into(), "none");
        Ok(Self { web, agent, ci, directory })
    }

    fn finish(mut self) -> Result<()> {
        self.agent.stop()?;
        self.agent.ask(&["records", "verify"]).context("the records do not verify")?;
        let mut found = leaks(&self.agent.state(), &[&self.web.token])?;
        if self.agent.read_log()?.contains(&self.web.token) {
            found.push("the agent's log".into());
        }
        ensure!(found.is_empty(), "the token was shown by: {}", found.join(", "));
        Ok(())
    }

    /// Runs a script as the governed account. `$URL` and `$PLAIN` are the server's, `$CA` is the gate's certificate, `$DIR` is to
    /// be written to.
    fn script(&self, script: &str) -> Result<tidegate_tests::Ran> {
        self.ci.shell(script, &self.variables().each_ref().map(|(name, value)| (*name, value.as_str())))
    }

    fn variables(&self) -> [(&'static str, String); 10] {
        let ca = self.directory.path().join("ca.pem").display().to_string();
        let directory = self.directory.path().display().to_string();
        [
            ("URL", format!("https://127.0.0.1:{}", self.web.port)),
            ("PLAIN", format!("http://127.0.0.1:{}", self.web.plain_port)),
            ("PORT", self.web.port.to_string()),
            ("GRPC_PORT", self.web.grpc_port.to_string()),
            ("CA", ca.clone()),
            ("SSL_CERT_FILE", ca.clone()),
            ("REQUESTS_CA_BUNDLE", ca.clone()),
            ("NODE_EXTRA_CA_CERTS", ca),
            ("HOME", directory.clone()),
            ("DIR", directory),
        ]
    }

    /// `tidegate approvals ...` as root.
    fn approvals(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.agent.binary());
        command.arg("approvals").args(arguments).arg("--runtime").arg(self.agent.runtime());
        Ok(String::from_utf8(run(&mut command)?.stdout)?)
    }

    /// Everything that was recorded.
    fn records(&self) -> Result<String> {
        let sessions: serde_json::Value =
            serde_json::from_str(&self.agent.ask(&["sessions", "list", "--json"])?)?;
        let mut all = String::new();
        for session in sessions.as_array().context("a list")? {
            all += &self.agent.ask(&["sessions", "show", session["id"].as_str().context("an id")?])?;
        }
        Ok(all)
    }
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn curl_gets_in_with_the_gates_token_in_either_version() -> Result<()> {
    Stage::with(|stage| {
        for version in ["--http1.1 --tlsv1.2 --tls-max 1.2", "--http1.1 --tlsv1.3", "--http2"] {
            let shown = stage
                .script(&format!(
                    "curl -sS {version} --cacert $CA -H 'Authorization: Bearer mine' -b a=b $URL/things"
                ))?
                .clean()?;
            ensure!(shown == "a thing", "{version}: {shown}");
        }
        ensure!(stage.script("curl -sS $PLAIN/things")?.clean()? == "a thing", "in plain HTTP");
        let asked = stage.web.asked()?;
        ensure!(
            !asked.contains("mine") && !asked.contains("a=b"),
            "the client's own credentials went on: {asked}"
        );
        ensure!(asked.lines().filter(|line| line.contains("Basic ")).count() == 4, "{asked}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_refusal_is_a_403_that_names_the_way_on_and_the_connection_stays() -> Result<()> {
    Stage::with(|stage| {
        for version in ["--http1.1", "--http2"] {
            let script = format!(
                "curl -sS {version} --cacert $CA -w '%{{http_code}} %{{num_connects}}\\n' -X DELETE $URL/things --next -sS \
                 {version} --cacert $CA -w '%{{http_code}} %{{num_connects}}\\n' $URL/things"
            );
            let shown = stage.script(&script)?.clean()?;
            ensure!(
                shown.contains("no rule allows request DELETE on host 127.0.0.1, path /things"),
                "{shown}"
            );
            ensure!(shown.contains("ask the platform team"), "{shown}");
            ensure!(shown.contains("403 1\n") && shown.ends_with("200 0"), "{shown}");
        }
        ensure!(!stage.web.asked()?.contains("DELETE"), "the refused request arrived");
        let records = stage.records()?;
        ensure!(records.contains("DELETE https://127.0.0.1"), "{records}");
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
        fs::write(stage.directory.path().join("call.py"), include_str!("../../clients/grpc_client.py"))?;
        let shown =
            stage.script(&format!("{}/python/bin/python $DIR/call.py", tidegate_tests::CLIENTS))?.clean()?;
        let expected = "b'hello you' ['Basic']\n[b'0', b'1', b'2']\nb'300003'\n[b'a', b'b']\n\
                        Drop PERMISSION_DENIED denied by rule \"no-drop\"; ask ops\n\
                        Fail NOT_FOUND no such thing\nb'waiting'\nb'yes'";
        ensure!(shown == expected, "{shown}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_large_file_arrives_whole_and_a_part_of_it_too() -> Result<()> {
    Stage::with(|stage| {
        let original = fs::read(stage.web.file("large.txt"))?;
        for version in ["--http1.1", "--http2"] {
            let fetch =
                format!("curl -sS {version} --cacert $CA -o $DIR/got --limit-rate 20M $URL/files/large.txt");
            stage.script(&fetch)?.clean()?;
            ensure!(fs::read(stage.directory.path().join("got"))? == original, "{version}: another file");
        }
        let part = stage.script("curl -sS --cacert $CA -r 5-10 $URL/files/large.txt")?.clean()?;
        ensure!(part == "0 of a", "{part}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn git_clones_and_pushes_one_repository_and_no_other() -> Result<()> {
    Stage::with(|stage| {
        let script = "export GIT_SSL_CAINFO=$CA GIT_TERMINAL_PROMPT=0 GIT_CONFIG_NOSYSTEM=1\n\
                      git clone -q $URL/git/shop.git $DIR/shop && cd $DIR/shop && cat README\n\
                      head -c 3000000 /dev/urandom > noise && git add noise\n\
                      git -c user.name=ci -c user.email=ci@example.com commit -qm more\n\
                      git push -q origin HEAD:main && git fetch -q && git rev-list --count origin/main";
        let ran = stage.script(script)?;
        ensure!(ran.code == 0 && ran.stdout == "hello\n2\n", "{ran:?}");
        let other = stage.script(
            "GIT_SSL_CAINFO=$CA GIT_TERMINAL_PROMPT=0 git clone -q $URL/git/payroll.git $DIR/payroll",
        )?;
        ensure!(other.code != 0, "the other repository was cloned");
        other.complains(&["403"])
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn python_and_node_see_fields_and_cards_masked() -> Result<()> {
    Stage::with(|stage| {
        let python = "import httpx, os, requests, ssl, sys\n\
                      url = os.environ['URL']\n\
                      print(requests.get(url + '/customers').json())\n\
                      tls = ssl.create_default_context(cafile=os.environ['CA'])\n\
                      with httpx.Client(http2=True, verify=tls) as client:\n\
                      \x20   for path in ['/customers', '/compressed']:\n\
                      \x20       answer = client.get(url + path)\n\
                      \x20       print(answer.http_version, answer.json())\n\
                      \x20   print(client.get(url + '/customers', headers={'range': 'bytes=40-60'}).status_code)\n\
                      print(requests.delete(url + '/things').json()['detail'])\n";
        fs::write(stage.directory.path().join("masked.py"), python)?;
        let clients = tidegate_tests::CLIENTS;
        let shown = stage.script(&format!("{clients}/python/bin/python $DIR/masked.py"))?.clean()?;
        let masked = "{'customers': [{'name': 'Ada', 'card': '************1111', 'email': '***********.com'}], 'next': None}";
        ensure!(shown.matches(masked).count() == 3 && shown.contains("HTTP/2"), "{shown}");
        ensure!(shown.contains("\n200\n") && shown.ends_with("path /things"), "{shown}");
        let node = "fetch(process.env.URL + '/customers').then(answer => answer.text()).then(text => console.log(text))";
        let shown = stage.script(&format!("node -e \"{node}\""))?.clean()?;
        ensure!(shown.contains("************1111") && !shown.contains("ada@"), "{shown}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_client_that_trusts_others_is_refused_and_the_record_says_why() -> Result<()> {
    Stage::with(|stage| {
        let ran = stage.script(&format!(
            "curl -sS --cacert {} $URL/things",
            stage.web.certificates.authority.display()
        ))?;
        ran.complains(&["certificate"])?;
        ensure!(ran.code != 0, "it got in: {}", ran.stdout);
        let records = stage.records()?;
        ensure!(records.contains("client-distrusts"), "{records}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn one_name_s_connection_is_not_for_another_name() -> Result<()> {
    Stage::with(|stage| {
        let named = "curl -sS --cacert $CA --resolve localhost:$PORT:127.0.0.1 -w '%{http_code}'";
        let shown = stage.script(&format!("{named} https://localhost:$PORT/things"))?.clean()?;
        ensure!(shown == "a thing\n200", "{shown}");
        for fronted in
            ["-H 'Host: other.example'", "-H \"Host: 127.0.0.1:$PORT\"", "--http1.1 -H 'Host: localhost:1'"]
        {
            let shown =
                stage.script(&format!("{named} {fronted} https://localhost:$PORT/things"))?.clean()?;
            ensure!(shown.ends_with("421"), "{fronted}: {shown}");
        }
        ensure!(stage.web.asked()?.lines().count() == 1, "{}", stage.web.asked()?);
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn the_token_is_worth_nothing_to_whoever_is_governed() -> Result<()> {
    Stage::with(|stage| {
        let script = format!(
            "curl -sS --cacert $CA -w '%{{http_code}}' -H 'Authorization: Bearer {}' -X PUT $URL/files/x",
            stage.web.token
        );
        let ran = stage.script(&script)?;
        ensure!(ran.stdout.ends_with("403"), "{ran:?}");
        let stranger = Account::new(ungoverned_uid(), ([127, 0, 0, 1], stage.web.port).into(), "none");
        let ca = stage.web.certificates.authority.display();
        let direct = format!("curl -sS --cacert {ca} https://127.0.0.1:{}/things", stage.web.port);
        ensure!(
            stranger.shell(&direct, &[])?.clean()? == "not signed in",
            "without the gate there is no token"
        );
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_held_request_goes_on_when_somebody_agrees() -> Result<()> {
    Stage::with(|stage| {
        fs::write(stage.web.file("held.txt"), "held\n")?;
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| stage.script("curl -sS $PLAIN/files/held.txt"));
            let id = loop {
                let open: serde_json::Value = serde_json::from_str(&stage.approvals(&["list", "--json"])?)?;
                if let Some(id) = open.pointer("/0/id").and_then(serde_json::Value::as_str) {
                    break id.to_owned();
                }
                ensure!(!asking.is_finished(), "nobody was asked: {:?}", asking.join());
            };
            let shown = stage.approvals(&["show", &id])?;
            ensure!(shown.contains("GET http://127.0.0.1") && shown.contains("/files/held.txt"), "{shown}");
            stage.approvals(&["approve", &id])?;
            let ran = asking.join().ok().context("the client's thread")??;
            ensure!(ran.clean()? == "held", "another file");
            Ok(())
        })
    })
}
