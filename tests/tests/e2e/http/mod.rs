//! HTTP: unmodified clients, a real nginx, and git over both.

mod archives;
mod authorities;
mod clients;
mod holding;
mod messages;
mod oauth2;
mod signing;
mod stage;
mod tunnels;
mod upstreams;

use std::fs;

use anyhow::{Result, ensure};
use tidegate_tests::{Account, Provider, ungoverned_uid};

use self::stage::Stage;
use crate::{
    identity::{LIFETIME, jobs},
    together::eventually,
};

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
        // Whatever the client speaks.
        ensure!(asked.lines().filter(|line| line.contains("HTTP/2.0")).count() == 3, "{asked}");
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
fn a_placeholder_is_filled_where_a_rule_says_and_what_it_stands_for_does_not_come_back() -> Result<()> {
    Stage::with(|stage| {
        let stars = "*".repeat(stage.web.token.len());
        for version in ["--http1.1", "--http2"] {
            let curl = format!(
                "curl -sS {version} --compressed --cacert $CA -H 'X-Key: @filled@' -H 'X-Other: @filled@' \
                 \"$URL/echo?key=%40filled@\""
            );
            let shown = stage.script(&curl)?.clean()?;
            ensure!(shown == format!("{stars} @filled@ {stars}"), "{version}: {shown}");
        }
        ensure!(stage.web.asked()?.contains(&format!("/echo?key={}", stage.web.token)), "it was not filled");
        let records = stage.records()?;
        ensure!(
            records.contains("placeholder-filled: \"@filled@\"") && records.contains("x-key: (withheld)"),
            "{records}"
        );
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
        other.complains(&["403", "remote: no rule allows request GET"])
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
        // These tell the server nothing of why they leave, in or behind the handshake.
        let others = stage.web.certificates.authority.display().to_string();
        let node = "fetch(process.env.URL + '/things').catch(error => { console.error(error.cause.code); process.exit(1) })";
        for script in [
            format!("GIT_SSL_CAINFO={others} GIT_TERMINAL_PROMPT=0 git ls-remote $URL/git/shop.git"),
            format!("curl -sS --cacert $CA --pinnedpubkey sha256//{}= $URL/things", "A".repeat(43)),
            format!("NODE_EXTRA_CA_CERTS={others} node -e \"{node}\""),
        ] {
            let told = || Ok::<_, anyhow::Error>(stage.records()?.matches("client-distrusts").count());
            let before = told()?;
            ensure!(stage.script(&script)?.code != 0, "it got in: {script}");
            eventually(&format!("its record says why: {script}"), || Ok(told()? > before))?;
        }
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
fn a_request_is_let_through_for_whom_an_issuer_knows_and_the_same_without_a_token_is_told_how() -> Result<()>
{
    Stage::with(|stage| {
        let provider = Provider::oidc(LIFETIME)?;
        let read = "  - name: read\n    subjects: [ci]\n";
        let bundle = stage.agent.read_bundle("bundle.yaml")?;
        ensure!(bundle.contains(read), "{bundle}");
        let who = format!("{read}    who: {{issuer: jobs, groups: [dba]}}\n");
        stage.agent.write_bundle("bundle.yaml", &bundle.replace(read, &who))?;
        let issuers = format!("tidegate: 1\nissuers:\n{}", jobs(&provider));
        stage.agent.write_bundle("issuers.yaml", &issuers)?;
        stage.agent.ask(&["reload"])?;
        let curl = "curl -sS --cacert $CA -w '%{http_code}' $URL/things";
        for (subject, status) in [("job1-dba", "200"), ("job2-dev", "403")] {
            let token = provider.token("ci-job", subject)?;
            stage.agent.secrets().keep("a token", &token);
            let shown = stage.script(&format!("CI_JOB_JWT={token} {curl}"))?.clean()?;
            ensure!(shown.ends_with(status), "{subject}: {shown}");
        }
        let shown = stage.script(curl)?.clean()?;
        ensure!(
            shown.ends_with("403") && shown.contains("have the job set the variable CI_JOB_JWT"),
            "{shown}"
        );
        Ok(())
    })
}
