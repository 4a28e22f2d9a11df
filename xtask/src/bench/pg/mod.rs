//! PostgreSQL: a direct connection, other hops, the gate, and the gate with masks.

mod client;
mod hops;
mod load;

use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

use super::{
    compared::{Comparison, Extent},
    report::{Figures, Report, machine},
};
use crate::{setup, shell::say};
pub(crate) use client::Client;
use hops::Hops;
use load::{Round, Work};

/// How much is measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    extent: Extent,
    /// Size of the large result.
    #[arg(long, default_value_t = 1024)]
    megabytes: u32,
}

/// Builds, measures as root, and reports.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let comparison = Comparison {
        name: "pg",
        extent: &arguments.extent,
        flags: vec![("--megabytes", arguments.megabytes.to_string())],
        prepare: setup::run,
        measure: &|binary| measure(arguments, binary),
    };
    comparison.run()
}

fn measure(arguments: &Arguments, binary: &Path) -> Result<Report> {
    say("starting a server with the benchmark's tables, and the hops");
    let hops = Hops::start(binary, arguments.megabytes)?;
    // First, while the hops have kept nothing from earlier sessions.
    say(&format!("memory of {} idle sessions", arguments.extent.idle));
    let mut memory = Vec::new();
    for hop in hops.all() {
        memory.push((
            hop.name.to_owned(),
            load::memory(hop, hops.client(), arguments.extent.idle).with_context(|| hop.name)?,
        ));
    }
    let mut figures = Figures::default();
    for work in Work::ALL {
        for round in 0..arguments.extent.rounds {
            say(&format!("{}: round {} of {}", work.kind().name, round + 1, arguments.extent.rounds));
            for hop in hops.in_turn(round) {
                let round = Round { hop, work, client: hops.client(), seconds: arguments.extent.seconds };
                figures.add(work.kind(), hop.name, round.measure().with_context(|| hop.name)?);
            }
        }
    }
    Report::of("PostgreSQL through the gate", words(arguments), &figures, &memory)
}

/// What a reader must know to read the figures.
fn words(arguments: &Arguments) -> String {
    format!(
        "Written by `cargo xtask bench pg`. {}. Clients, hops and server share the machine; no hop encrypts. `pgbench -S` with 8 \
         clients; `connects` opens a connection for each query, with 4; `large` is one result of {} MB in rows of 256 bytes. Tidegate \
         decides, and records, every statement; `tidegate-masked` also masks a column and looks for cards and e-mails in every value. \
         Figures are medians of {} rounds in turn, shares those of each round's own ratio. CPU is the hop's process alone, user and \
         system.",
        machine(),
        arguments.megabytes,
        arguments.extent.rounds
    )
}
