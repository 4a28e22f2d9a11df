//! The kernel's part on every kernel of the matrix, and the attacks on a whole agent, in guests with BPF LSM.

mod guest;
mod image;
pub(crate) mod kernels;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use self::{
    guest::Report,
    image::Image,
    kernels::{Kernel, MATRIX},
};
use crate::{
    build::{self, Built},
    setup,
    shell::{in_ci, project, say},
    suites::{self, Count, GUEST, OLD_GUEST, ROOT_AND_GUEST, UNIX_HOOKS},
};

/// What the verifier went through, kernel by kernel, as last recorded.
const VERIFIED: &str = "ebpf/verifier.json";

/// The agent's binary.
const AGENT: &str = "tidegate";

/// The tests that attack it.
const ATTACKS: &str = "attacks";

/// A test program for guests.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) binary: PathBuf,
    /// The tests in it to run.
    pub(crate) names: Vec<String>,
}

/// Instruction counts, by kernel and program.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Verified(BTreeMap<String, OnKernel>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct OnKernel {
    release: String,
    instructions: BTreeMap<String, u64>,
}

/// What of the matrix to run, and how.
#[derive(Debug, Default, Args)]
pub(crate) struct Wanted {
    /// Only on this kernel: 5.10, 6.1, 6.12 or newest.
    kernel: Option<String>,
    /// Only tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Fetch the kernels again, in their present versions.
    #[arg(long)]
    refresh: bool,
    /// Keep the verifier's instruction counts in ebpf/verifier.json.
    #[arg(long)]
    record: bool,
}

/// Runs the matrix, or one kernel of it. True if nothing failed and, in CI, nothing was left out.
pub(crate) fn run(wanted: &Wanted) -> Result<bool> {
    setup::run()?;
    let kernels = chosen(wanted.kernel.as_deref())?;
    let built = build::for_guests()?;
    let outcome = boot_each(&kernels, &built, wanted, |thing| {
        matches!(thing, "root" | GUEST | ROOT_AND_GUEST | UNIX_HOOKS)
    })?;
    println!("{}", outcome.count);
    Ok(outcome.good && !(in_ci() && outcome.count.skipped > 0))
}

/// Whether all guests came to a good end, and how many tests ran in them.
pub(crate) struct Outcome {
    pub(crate) good: bool,
    pub(crate) count: Count,
}

/// On the oldest and the newest kernel: what only a guest can run, and the attacks on an agent with everything that a kernel
/// can have. The rest has run on this host.
pub(crate) fn ends_of_matrix(built: &[Built]) -> Result<Outcome> {
    let ends: Vec<_> = MATRIX.first().into_iter().chain(MATRIX.last()).copied().collect();
    boot_each(&ends, built, &Wanted::default(), |thing| matches!(thing, GUEST | ROOT_AND_GUEST))
}

fn chosen(only: Option<&str>) -> Result<Vec<Kernel>> {
    let Some(name) = only else { return Ok(MATRIX.to_vec()) };
    match MATRIX.iter().find(|kernel| kernel.name == name) {
        Some(kernel) => Ok(vec![*kernel]),
        None => {
            let names: Vec<_> = MATRIX.iter().map(|kernel| kernel.name).collect();
            bail!("there is no kernel {name:?}; there are {}", names.join(", "))
        }
    }
}

/// Boots each kernel and runs there the tests that need such a thing.
fn boot_each(
    kernels: &[Kernel],
    built: &[Built],
    wanted: &Wanted,
    such: fn(&str) -> bool,
) -> Result<Outcome> {
    let filter = wanted.filter.as_deref();
    let tests = tests_for_guests(built, such, filter)?;
    let old = tests_for_guests(built, |thing| thing == OLD_GUEST, filter)?;
    let hooked = tests_for_guests(built, |thing| thing == UNIX_HOOKS, filter)?;
    let agent = built.iter().find(|built| !built.test && built.target == AGENT).map(|built| &*built.path);
    let (image, old_image) = (Image::pack(&tests, agent)?, Image::pack(&old, None)?);
    let mut outcome = Outcome { good: true, count: Count::default() };
    let mut verified = Verified::read()?;
    for kernel in kernels {
        let (image, tests) = if kernel.too_old { (&old_image, &old) } else { (&image, &tests) };
        let tests = if kernel.unix_hooks { tests.clone() } else { without(tests, &hooked) };
        if tests.is_empty() {
            continue;
        }
        if (wanted.refresh || kernel.image().is_none())
            && let Err(error) = kernel.fetch()
        {
            eprintln!("kernel {}: {error:#}", kernel.name);
        }
        let Some(file) = kernel.image() else {
            say(&format!("SKIPPED kernel {}: it could not be fetched, nothing is known of it", kernel.name));
            outcome.count.add(Count { skipped: 1, ..Count::default() });
            continue;
        };
        let source = kernel.source()?;
        say(&format!("kernel {}: {} {}", kernel.name, source.package, source.version));
        let report = guest::boot(kernel.name, &file, &image.for_kernel(&kernel.modules(), &tests)?)?;
        outcome.take(kernel, &report, &tests);
        verified.compare(kernel.name, report);
    }
    if wanted.record {
        verified.write()?;
    }
    Ok(outcome)
}

impl Outcome {
    fn take(&mut self, kernel: &Kernel, report: &Report, tests: &[Test]) {
        self.count.add(report.count);
        let expected: usize = tests.iter().map(|test| test.names.len()).sum();
        let ran = report.count.passed + report.count.failed;
        if report.code != Some(0) || ran != expected as u64 {
            let code = report.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
            say(&format!("FAILED on kernel {}: {ran} of {expected} tests ran, result {code}", kernel.name));
            self.good = false;
        }
    }
}

/// The tests for guests that need something such: of the kernel's part, and the attacks.
fn tests_for_guests(built: &[Built], such: fn(&str) -> bool, filter: Option<&str>) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    let for_guests =
        |built: &&Built| built.test && (built.package.ends_with("agent/kernel") || built.target == ATTACKS);
    for test in built.iter().filter(for_guests) {
        let names = suites::tests_that_need(test, such, filter)?;
        if !names.is_empty() {
            tests.push(Test { name: test.target.clone(), binary: test.path.clone(), names });
        }
    }
    Ok(tests)
}

/// Tests without those that others name, too.
fn without(tests: &[Test], others: &[Test]) -> Vec<Test> {
    let named = |test: &Test, name: &String| {
        others.iter().any(|other| other.name == test.name && other.names.contains(name))
    };
    let rest = |test: &Test| {
        let names = test.names.iter().filter(|name| !named(test, name)).cloned().collect();
        Test { names, ..test.clone() }
    };
    tests.iter().map(rest).filter(|test| !test.names.is_empty()).collect()
}

impl Verified {
    fn path() -> PathBuf {
        project().join(VERIFIED)
    }

    fn read() -> Result<Self> {
        let path = Self::path();
        if !path.exists() {
            return Ok(Self::default());
        }
        serde_json::from_slice(&fs::read(&path)?).with_context(|| path.display().to_string())
    }

    /// Says what changed since the last recording, and takes the new figures in.
    fn compare(&mut self, kernel: &str, report: Report) {
        let before = self.0.remove(kernel).unwrap_or_default();
        for (program, now) in &report.verified {
            match before.instructions.get(program) {
                Some(then) if then == now => {}
                Some(then) => println!("verifier, {kernel}: {program} {then} -> {now} instructions"),
                None => println!("verifier, {kernel}: {program} {now} instructions"),
            }
        }
        let now = OnKernel { release: report.release, instructions: report.verified };
        self.0.insert(kernel.to_owned(), now);
    }

    fn write(&self) -> Result<()> {
        let path = Self::path();
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        say(&format!("recorded in {}", Path::new(VERIFIED).display()));
        Ok(())
    }
}
