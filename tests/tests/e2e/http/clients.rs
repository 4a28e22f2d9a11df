//! Package managers and HTTP libraries, unmodified.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{CLIENTS, run};

use super::stage::Stage;

/// Has the server serve a package `tidy` below `/files/`.
fn serve_packages(stage: &Stage) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("providers/packages.py");
    let url = format!("https://127.0.0.1:{}/files", stage.web.port);
    run(Command::new("/usr/bin/python3").arg(script).arg(stage.web.file("")).arg(url)).map(drop)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn pip_npm_and_cargo_install_from_an_index_behind_the_gate() -> Result<()> {
    Stage::with(|stage| {
        serve_packages(stage)?;
        let pip = format!(
            "{CLIENTS}/python/bin/pip install -q --no-cache-dir --disable-pip-version-check --cert $CA --index-url \
             $URL/files/pip --target $DIR/pip tidy && cat $DIR/pip/tidy.py"
        );
        ensure!(stage.script(&pip)?.clean()? == "TIDE = 'low'", "pip");
        let npm = "npm install --silent --no-audit --no-fund --no-update-notifier --prefix $DIR/npm --cache $DIR/npm-cache \
                   --cafile $CA --registry $URL/files/npm/ tidy && cat $DIR/npm/node_modules/tidy/index.js";
        let shown = stage.script(npm)?.clean()?;
        ensure!(shown.ends_with("exports.tide = 'low'"), "npm: {shown}");
        let cargo = "mkdir -p $DIR/crate/src $DIR/crate/.cargo && cd $DIR/crate && touch src/lib.rs\n\
                     printf '[package]\\nname = \"job\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n\
                     [dependencies]\\ntidy = {version = \"1\", registry = \"local\"}\\n' > Cargo.toml\n\
                     printf '[registries.local]\\nindex = \"sparse+%s/files/cargo/\"\\n' $URL > .cargo/config.toml\n\
                     CARGO_HOME=$DIR/cargo CARGO_HTTP_CAINFO=$CA /usr/bin/cargo fetch -q\n\
                     cat $DIR/cargo/registry/src/*/tidy-1.0.0/src/lib.rs";
        ensure!(stage.script(cargo)?.clean()? == "pub const TIDE: &str = \"low\";", "cargo");
        let asked = stage.web.asked()?;
        for path in ["/files/pip/tidy/", "/files/npm/tidy ", "/files/cargo/ti/dy/tidy "] {
            ensure!(asked.contains(path), "{path}: {asked}");
        }
        ensure!(asked.lines().all(|line| line.contains("Basic ")), "{asked}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn npm_is_told_why_it_may_not_publish() -> Result<()> {
    Stage::with(|stage| {
        let npm = "mkdir $DIR/mine && cd $DIR/mine && echo '{\"name\": \"mine\", \"version\": \"1.0.0\"}' > package.json\n\
                   echo \"//127.0.0.1:$PORT/files/npm/:_authToken=mine\" > .npmrc\n\
                   npm publish --no-update-notifier --cache $DIR/npm-cache --cafile $CA --registry $URL/files/npm/";
        let ran = stage.script(npm)?;
        ensure!(ran.code != 0 && ran.stderr.contains("403"), "{ran:?}");
        ensure!(!stage.web.asked()?.contains("PUT"), "it was published");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn aiohttp_and_reqwest_get_in_and_see_masks() -> Result<()> {
    Stage::with(|stage| {
        let python = "import aiohttp, asyncio, os, ssl\n\
                      tls = ssl.create_default_context(cafile=os.environ['CA'])\n\
                      url = os.environ['URL']\n\
                      async def main():\n\
                      \x20   async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:\n\
                      \x20       async with session.get(url + '/customers') as answer:\n\
                      \x20           print((await answer.json())['customers'][0]['card'])\n\
                      \x20       async with session.post(url + '/things', json={'amount': 7}) as answer:\n\
                      \x20           print(answer.status)\n\
                      \x20       async with session.delete(url + '/things') as answer:\n\
                      \x20           print(answer.status, answer.content_type)\n\
                      asyncio.run(main())\n";
        fs::write(stage.directory.path().join("get.py"), python)?;
        let shown = stage.script(&format!("{CLIENTS}/python/bin/python $DIR/get.py"))?.clean()?;
        ensure!(shown == "************1111\n200\n403 application/problem+json", "{shown}");
        let built = std::env::current_exe()?;
        let built = built.ancestors().nth(2).context("a target directory")?.join("examples/rust_http");
        fs::copy(&built, stage.directory.path().join("rust_http"))
            .with_context(|| format!("{} is not there", built.display()))?;
        let shown =
            stage.script("$DIR/rust_http $URL/customers $CA && $DIR/rust_http $URL/secret $CA")?.clean()?;
        ensure!(shown.starts_with("HTTP/1.1 200") && shown.contains("************1111"), "{shown}");
        ensure!(shown.contains("HTTP/1.1 403") && shown.contains("ask the platform team"), "{shown}");
        Ok(())
    })
}
