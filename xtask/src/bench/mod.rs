//! Benchmarks: the gate beside a direct connection and other hops, in turn in one run.

mod compared;
mod hop;
mod http;
mod kernel;
mod own;
mod pg;
mod report;
mod sections;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use pg::Client;

/// Where the table is kept.
const TABLE: &str = "tests/BENCH.md";

/// What is compared.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// PostgreSQL: direct, pgbouncer, haproxy, the gate, and the gate with masks.
    Pg(pg::Arguments),
    /// HTTPS: direct, haproxy, mitmproxy, the gate, and the gate with masks.
    Http(http::Arguments),
    /// What a decision costs with 10, 1,000 and 10,000 rules.
    Decide(own::Output),
    /// What knowing who asks adds to a connection.
    Identity(own::Output),
    /// What the kernel side costs whom, and how long a restart takes.
    Kernel(kernel::Arguments),
}

/// Builds, measures as root, and reports.
pub(crate) fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Pg(arguments) => pg::run(&arguments),
        Bench::Http(arguments) => http::run(&arguments),
        Bench::Decide(output) => own::run(&own::DECIDE, output),
        Bench::Identity(output) => own::run(&own::IDENTITY, output),
        Bench::Kernel(arguments) => kernel::run(&arguments),
    }
}
