//! HTTPS: a direct connection, other hops with TLS on both sides, and the gate.

mod hops;
mod load;

use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

use self::{
    hops::Hops,
    load::{Round, WORKS},
};
use super::{
    compared::{Comparison, Extent},
    report::{Figures, Report, machine},
};
use crate::{setup, shell::say};

/// How much is measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    extent: Extent,
}

/// Builds, measures as root, and reports.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let comparison = Comparison {
        name: "http",
        extent: &arguments.extent,
        flags: Vec::new(),
        prepare: || setup::run().and_then(|()| setup::compared()),
        measure: &|binary| measure(&arguments.extent, binary),
    };
    comparison.run()
}

fn measure(extent: &Extent, binary: &Path) -> Result<Report> {
    say("starting a server and the hops");
    let hops = Hops::start(binary)?;
    // First, while the hops have kept nothing from earlier connections.
    say(&format!("memory of {} idle connections", extent.idle));
    let mut memory = Vec::new();
    for hop in hops.all() {
        memory.push((hop.name.to_owned(), load::memory(hop, extent.idle).with_context(|| hop.name)?));
    }
    let mut figures = Figures::default();
    for work in &WORKS {
        for round in 0..extent.rounds {
            say(&format!("{}: round {} of {}", work.kind.name, round + 1, extent.rounds));
            for hop in hops.in_turn(round) {
                let round = Round { hop, work, seconds: extent.seconds };
                figures.add(work.kind, hop.name, round.measure().with_context(|| hop.name)?);
            }
        }
    }
    Report::of("HTTPS through the gate", words(extent.rounds), &figures, &memory)
}

/// What a reader must know to read the figures.
fn words(rounds: usize) -> String {
    format!(
        "Written by `cargo xtask bench http`. {}. Clients, hops and server share the machine; TLS on both sides of every hop. `h1` is \
         wrk with 8 connections, `h2` is h2load with 4 connections of 8 streams each, `connects` is wrk with a connection for each \
         request, of 1 KiB. The server is one process of nginx. Tidegate decides, and records, every request and its answer, and \
         signs in; `tidegate-masked` also masks a field of the JSON and looks for cards in every value. Figures are medians of \
         {rounds} rounds in turn, shares those of each round's own ratio. CPU is the hop's process alone, user and system.",
        machine(),
    )
}
