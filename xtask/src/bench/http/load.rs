//! Work that is measured, and how.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::Process;

use crate::bench::{
    hop::Hop,
    report::{Kind, Measured},
};

/// A client that opens connections and keeps them.
const IDLE: &str = include_str!("idle.py");

/// A kind of work.
#[derive(Debug)]
pub(crate) struct Work {
    /// As reports name it.
    pub(crate) kind: Kind,
    client: Client,
    path: &'static str,
}

#[derive(Debug)]
enum Client {
    /// wrk, of HTTP/1.1.
    Wrk,
    /// wrk with a connection for each request.
    WrkOnce,
    /// h2load, of HTTP/2.
    H2load,
}

/// All that is measured.
pub(crate) const WORKS: [Work; 5] = [
    work("h1 1 KiB", Client::Wrk, "/small.json"),
    work("h1 100 KiB", Client::Wrk, "/large.json"),
    work("h2 1 KiB", Client::H2load, "/small.json"),
    work("h2 100 KiB", Client::H2load, "/large.json"),
    work("connects", Client::WrkOnce, "/small.json"),
];

const fn work(name: &'static str, client: Client, path: &'static str) -> Work {
    Work { kind: Kind { name, operation: "request" }, client, path }
}

/// One measurement.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    /// Through what.
    pub(crate) hop: &'a Hop,
    /// Of what.
    pub(crate) work: &'a Work,
    /// For how long.
    pub(crate) seconds: u32,
}

impl Round<'_> {
    /// Does the work.
    pub(crate) fn measure(&self) -> Result<Measured> {
        let before = self.hop.cpu_seconds()?;
        let (requests, per_second) = match self.work.client {
            Client::Wrk => self.wrk(&["-c", "8"])?,
            Client::WrkOnce => self.wrk(&["-c", "4", "-H", "Connection: close"])?,
            Client::H2load => self.h2load()?,
        };
        let cpu = self.hop.cpu_seconds()? - before;
        Ok(Measured { per_second, cpu_us_per_op: cpu * 1e6 / requests })
    }

    fn url(&self) -> String {
        format!("https://{}{}", self.hop.address, self.work.path)
    }

    /// Requests, and requests a second.
    fn wrk(&self, arguments: &[&str]) -> Result<(f64, f64)> {
        let mut command = self.hop.account.command("wrk");
        command.args(["-t", "2", "-d", &format!("{}s", self.seconds)]).args(arguments).arg(self.url());
        let text = String::from_utf8(tidegate_tests::run(&mut command)?.stdout)?;
        ensure!(!text.contains("Non-2xx"), "not every response was what was asked for:\n{text}");
        let told = |is_it: fn(&str) -> bool| -> Result<f64> {
            let line = text.lines().map(str::trim).find(|line| is_it(line));
            let words = line.unwrap_or_default().split_whitespace();
            let number = words.filter_map(|word| word.parse().ok()).next();
            number.with_context(|| format!("wrk does not say how many:\n{text}"))
        };
        Ok((told(|line| line.contains(" requests in "))?, told(|line| line.starts_with("Requests/sec:"))?))
    }

    fn h2load(&self) -> Result<(f64, f64)> {
        let mut command = self.hop.account.command("h2load");
        let seconds = self.seconds.to_string();
        command.args(["-t", "1", "-c", "4", "-m", "8", "-D", &seconds]).arg(self.url());
        let text = String::from_utf8(tidegate_tests::run(&mut command)?.stdout)?;
        let line = |begins: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(begins));
            line.with_context(|| format!("h2load says no {begins:?}:\n{text}"))
        };
        let before = |line: &str, word: &str| -> Result<f64> {
            let number = line.split(',').find_map(|part| part.trim().strip_suffix(word));
            number
                .and_then(|number| number.trim().parse().ok())
                .with_context(|| format!("no {word} in {line:?}"))
        };
        let codes = line("status codes:")?;
        let good = before(codes, "2xx")?;
        ensure!(
            good > 0.0 && codes.contains(" 0 4xx, 0 5xx"),
            "not every response was what was asked for:\n{text}"
        );
        Ok((good, before(line("finished in")?, "req/s")?))
    }
}

/// How much more memory the hop's process has in use for each of so many idle connections, in bytes.
pub(crate) fn memory(hop: &Hop, connections: u32) -> Result<f64> {
    // The first connection also pays for what is shared.
    idle(hop, 1)?;
    let before = hop.resident_bytes()?;
    let during = idle(hop, connections)?;
    Ok((during - before) / f64::from(connections))
}

/// What the hop's process has in use while so many connections are open, each of which was used once.
fn idle(hop: &Hop, connections: u32) -> Result<f64> {
    let mut command = hop.account.command("python3");
    let (address, port) = (hop.address.ip().to_string(), hop.address.port().to_string());
    command.args(["-c", IDLE, &address, &port, "/small.json", &connections.to_string()]);
    let mut client = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut line = String::new();
    BufReader::new(client.child().stdout.take().context("output")?).read_line(&mut line)?;
    ensure!(line.trim() == "open", "the connections could not be opened");
    hop.resident_bytes()
}
