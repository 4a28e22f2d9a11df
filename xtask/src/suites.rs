//! Tests: which there are, how each gets the privilege it needs, and how they are counted.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{BufRead, BufReader, Write, stderr, stdout},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use tidegate_tests::{Cluster, Options, SERVERS};

use crate::{
    build::{self, Built},
    setup,
    shell::{as_root, cargo, find, in_ci, is_root, project, say},
    vm,
};

/// Which tests to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// What needs neither privilege nor servers.
    Unit,
    /// The kernel programs, on the running kernel, as root.
    Kernel,
    /// The kernel programs on the oldest and the newest kernel of the matrix, in virtual machines.
    Vm,
    /// Real clients and servers through the built agent, as root.
    E2e,
    /// All of them and the demo, after format, lints and dependencies were checked.
    All,
}

/// What a test needs that can only run in a virtual machine, on a kernel of the matrix that the agent runs on.
pub(crate) const GUEST: &str = "a guest";
/// What a test needs that runs natively and, for what this host may lack, in such a machine too.
pub(crate) const ROOT_AND_GUEST: &str = "root and a guest";
/// What a test needs that runs where the kernel asks programs about names of Unix sockets (Linux 6.7).
pub(crate) const UNIX_HOOKS: &str = "root and hooks on Unix sockets";
/// What a test needs that can only run in one on a kernel that is too old for the agent.
pub(crate) const OLD_GUEST: &str = "an old guest";

/// What a test needs that upgrades the agent.
const ROOT_AND_OTHER_BUILD: &str = "root and another build";

/// What tests are run with.
struct Tools<'a> {
    agent: &'a Path,
    /// As another version would be; none if no test of this run needs it.
    other: Option<&'a Path>,
    xtask: &'a Path,
}

/// How tests ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

/// Runs tests. True if none failed and none was left out that had to run.
pub(crate) fn run(suite: Suite, filter: Option<&str>) -> Result<bool> {
    if !matches!(suite, Suite::Unit | Suite::Vm) {
        ensure!(
            is_root() || find("sudo").is_some(),
            "most tests need root, and there is neither root nor sudo: `cargo xtask test unit` runs those that need neither"
        );
    }
    setup::run()?;
    if suite == Suite::All && filter.is_none() {
        build::lint()?;
    }
    let mut built = build::all()?;
    let other = needs_other_build(&built, suite, filter)?.then(build::other_layout).transpose()?;
    if other.is_some() {
        // The agent's file is again its own.
        built = build::all()?;
    }
    let binary = |name: &str| {
        let found = built.iter().find(|built| !built.test && built.target == name);
        found.map(|built| built.path.as_path()).with_context(|| format!("cargo built no {name}"))
    };
    // This very file may have been replaced by the build.
    let tools = Tools { agent: binary("tidegate")?, other: other.as_deref(), xtask: binary("xtask")? };
    let mut count = Count::default();
    for test in built.iter().filter(|built| built.test) {
        let kernel = test.package.ends_with("agent/kernel");
        if matches!(suite, Suite::Unit | Suite::All) {
            // What is ignored here is counted below.
            count.add(Count { skipped: 0, ..unprivileged(test, filter)? });
        }
        let hooked = has_unix_hooks();
        let names = tests_that_need(
            test,
            |thing| !matches!(thing, GUEST | OLD_GUEST) && (hooked || thing != UNIX_HOOKS),
            filter,
        )?;
        if !hooked && matches!(suite, Suite::Kernel | Suite::All) {
            count.add(left_out(&tests_that_need(test, |thing| thing == UNIX_HOOKS, filter)?));
        }
        count.add(match suite {
            Suite::Unit => Count::skipped(&names),
            Suite::Kernel if !kernel => Count::default(),
            Suite::E2e if kernel => Count::default(),
            Suite::Vm => Count::default(),
            Suite::Kernel | Suite::E2e | Suite::All => privileged(test, &names, &tools)?,
        });
    }
    if matches!(suite, Suite::Unit | Suite::All) && filter.is_none() {
        count.add(counted(cargo(&["test", "--doc"]).args(build::HOST))?);
    }
    if suite == Suite::All && filter.is_none() {
        count.add(demo(&tools)?);
    }
    let mut good = true;
    if matches!(suite, Suite::Vm | Suite::All) && filter.is_none() {
        let outcome = vm::ends_of_matrix(&built)?;
        count.add(outcome.count);
        good = outcome.good;
    }
    println!("{count}");
    match wanting(suite, filter, count, in_ci()) {
        None => Ok(good && count.failed == 0),
        Some(why) => {
            say(&format!("FAILED: {why}"));
            Ok(false)
        }
    }
}

/// Whether this kernel asks programs about names of Unix sockets: then it has a function for their answers.
fn has_unix_hooks() -> bool {
    let functions = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    functions.lines().any(|line| line.split_whitespace().nth(2) == Some("bpf_sock_addr_set_sun_path"))
}

/// Counts tests that this kernel can't run, and says so.
fn left_out(names: &[String]) -> Count {
    if !names.is_empty() {
        say(&format!("SKIPPED on this kernel, which has no hooks on Unix sockets: {}", names.join(", ")));
    }
    Count::skipped(names)
}

/// Whether any test that is to be run upgrades the agent.
fn needs_other_build(built: &[Built], suite: Suite, filter: Option<&str>) -> Result<bool> {
    if !matches!(suite, Suite::E2e | Suite::All) {
        return Ok(false);
    }
    for test in built.iter().filter(|built| built.test) {
        if !tests_that_need(test, |thing| thing == ROOT_AND_OTHER_BUILD, filter)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is wrong with a run in which nothing failed, if anything is.
fn wanting(suite: Suite, filter: Option<&str>, count: Count, in_ci: bool) -> Option<String> {
    let ran = count.passed + count.failed;
    match filter {
        Some(filter) if ran == 0 && count.skipped > 0 => {
            return Some(format!(
                "the {} tests whose name contains {filter:?} are not of this suite",
                count.skipped
            ));
        }
        Some(filter) if ran == 0 => return Some(format!("no test's name contains {filter:?}")),
        None if ran == 0 => return Some("no test was run".into()),
        _ => {}
    }
    // What is left out of `unit` was not asked for.
    (in_ci && suite != Suite::Unit && count.skipped > 0)
        .then(|| format!("{} tests were skipped, and CI skips none", count.skipped))
}

fn unprivileged(test: &Built, filter: Option<&str>) -> Result<Count> {
    say(&format!("{} of {}", test.target, folder(test)));
    counted(in_package(&mut Command::new(&test.path), test).args(filter))
}

/// What a newcomer sees first is a test like any other: it says what was expected.
fn demo(tools: &Tools<'_>) -> Result<Count> {
    say("the demo, as root");
    let output = as_root(tools.xtask, &[]).args(["demo", "--binary"]).arg(tools.agent).output()?;
    if output.status.success() {
        return Ok(Count { passed: 1, ..Count::default() });
    }
    stdout().write_all(&output.stdout)?;
    stderr().write_all(&output.stderr)?;
    Ok(Count { failed: 1, ..Count::default() })
}

/// Runs tests that are ignored without privilege.
fn privileged(test: &Built, names: &[String], tools: &Tools<'_>) -> Result<Count> {
    if names.is_empty() {
        return Ok(Count::default());
    }
    say(&format!("{} of {}, as root", test.target, folder(test)));
    let mut variables = vec![("TIDEGATE_BINARY", tools.agent.as_os_str())];
    variables.extend(tools.other.map(|other| ("TIDEGATE_OTHER_BINARY", other.as_os_str())));
    let run = |mut command: Command| {
        in_package(&mut command, test).args(["--ignored", "--test-threads", threads(test), "--exact"]);
        counted(command.args(names))
    };
    if test.package.ends_with("agent/approvals") {
        return run(before_server(test, None, tools, &variables)?);
    }
    if !test.package.ends_with("protocols/postgres") {
        return run(as_root(&test.path, &variables));
    }
    // What reads catalogs and signs in is tried on servers of every version.
    let mut count = Count::default();
    for version in std::iter::once(None).chain(SERVERS.map(Some)) {
        say(&format!(
            "on PostgreSQL {}",
            version.map_or("of the system".into(), |version| version.to_string())
        ));
        count.add(run(before_server(test, version, tools, &variables)?)?);
    }
    Ok(count)
}

/// A command that runs the test's program while a server lives.
fn before_server(
    test: &Built,
    version: Option<u32>,
    tools: &Tools<'_>,
    variables: &[(&str, &OsStr)],
) -> Result<Command> {
    let programs = version.map(tidegate_tests::fetched).transpose()?;
    let mut variables = variables.to_vec();
    variables.extend(programs.as_ref().map(|programs| ("TIDEGATE_POSTGRES", programs.as_os_str())));
    let mut command = as_root(tools.xtask, &variables);
    command.arg("with-server");
    if let Some(version) = version {
        command.args(["--version", &version.to_string()]);
    }
    command.arg(&test.path);
    Ok(command)
}

/// Runs a program with libpq's variables for a PostgreSQL that lives as long. True if it succeeded.
pub(crate) fn with_server(version: Option<u32>, program: &Path, arguments: &[String]) -> Result<bool> {
    let server = Cluster::start(&Options { version, ..Options::default() })?;
    let mut command = server.direct(&program.to_string_lossy());
    let status = command.args(arguments).status().with_context(|| program.display().to_string())?;
    Ok(status.success())
}

/// End-to-end tests are worlds of their own; others share the kernel or a server.
fn threads(test: &Built) -> &'static str {
    if test.package.ends_with("tests") { "2" } else { "1" }
}

/// The tests that are ignored because they need something such. Others are ignored because they only measure, or are
/// started by another test: those are nobody's to run here.
pub(crate) fn tests_that_need(
    test: &Built,
    such: impl Fn(&str) -> bool,
    filter: Option<&str>,
) -> Result<Vec<String>> {
    let mut list = Command::new(&test.path);
    let listed =
        in_package(&mut list, test).args(["--list", "--ignored", "--format=terse"]).args(filter).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let names: Vec<_> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    // Asked to run exactly these, the harness only says why it doesn't.
    let mut why = Command::new(&test.path);
    let output = in_package(&mut why, test).args(["--color=never", "--exact"]).args(names).output()?;
    let needed = |line: &str| needs(line).filter(|(_, thing)| such(thing)).map(|(name, _)| name.to_owned());
    Ok(String::from_utf8(output.stdout)?.lines().filter_map(needed).collect())
}

/// The test's name, and what it needs, in a line such as `test a::b ... ignored, needs root: cargo xtask test e2e`.
fn needs(line: &str) -> Option<(&str, &str)> {
    let (name, reason) = line.strip_prefix("test ")?.split_once(" ... ignored, ")?;
    let thing = reason.strip_prefix("needs ")?;
    Some((name, thing.split_once(':').map_or(thing, |(thing, _)| thing)))
}

/// As cargo runs them.
fn in_package<'a>(command: &'a mut Command, test: &Built) -> &'a mut Command {
    command.current_dir(&test.package)
}

fn folder(test: &Built) -> String {
    test.package.strip_prefix(project()).unwrap_or(&test.package).display().to_string()
}

/// Runs tests, passes on what they print, and adds up their results. Tests that end without a result have failed.
fn counted(command: &mut Command) -> Result<Count> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {command:?}"))?;
    let output = child.stdout.take().context("output")?;
    let mut count = Count::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        writeln!(stdout(), "{line}")?;
        if let Some(result) = line.strip_prefix("test result: ") {
            count.add(Count::parse(result)?);
        }
    }
    if !child.wait()?.success() && count.failed == 0 {
        count.failed = 1;
    }
    Ok(count)
}

impl Count {
    /// What libtest says after `test result: `, as in `ok. 3 passed; 0 failed; 1 ignored; ...`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let number = |label: &str| {
            let part = text.split(['.', ';']).map(str::trim).find_map(|part| part.strip_suffix(label));
            match part {
                Some(number) => Ok(number.trim().parse()?),
                None => bail!("a test result without a number of {label}: {text}"),
            }
        };
        Ok(Self { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
    }

    /// All of these were left out.
    fn skipped(names: &[String]) -> Self {
        Self { skipped: names.len().try_into().unwrap_or(u64::MAX), ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtests_results_are_understood() {
        let count =
            Count::parse("ok. 12 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.3s")
                .unwrap();
        assert_eq!(count, Count { passed: 12, failed: 1, skipped: 3 });
        assert_eq!(count.to_string(), "12 passed, 1 failed, 3 skipped");
    }

    #[test]
    fn a_run_that_tried_nothing_is_no_success() {
        let (none, some) = (Count::default(), Count { passed: 1, ..Count::default() });
        let left_out = Count { skipped: 3, ..Count::default() };
        for suite in [Suite::Unit, Suite::Kernel, Suite::Vm, Suite::E2e, Suite::All] {
            let why = wanting(suite, Some("mispelt"), none, false).unwrap();
            assert_eq!(why, "no test's name contains \"mispelt\"");
            assert!(wanting(suite, None, none, false).is_some());
            assert!(wanting(suite, Some("root"), left_out, false).is_some());
            assert_eq!(wanting(suite, Some("one"), some, true), None);
            assert_eq!(wanting(suite, None, some, true), None);
        }
    }

    #[test]
    fn ci_skips_nothing_but_what_was_not_asked_for() {
        let skipped = Count { passed: 1, failed: 0, skipped: 1 };
        for suite in [Suite::Kernel, Suite::Vm, Suite::E2e, Suite::All] {
            assert!(wanting(suite, None, skipped, true).is_some(), "{suite:?}");
            assert_eq!(wanting(suite, None, skipped, false), None);
        }
        assert_eq!(wanting(Suite::Unit, None, skipped, true), None);
    }

    #[test]
    fn a_result_of_another_form_is_an_error_and_not_a_zero() {
        assert!(Count::parse("ok. 12 done").is_err());
    }

    #[test]
    fn only_tests_that_need_something_are_run_with_privilege() {
        assert_eq!(needs("test a::b ... ignored, needs root: cargo xtask test e2e"), Some(("a::b", "root")));
        assert_eq!(needs("test a::b ... ignored, needs a guest"), Some(("a::b", GUEST)));
        let both = needs("test a::b ... ignored, needs root and a guest: cargo xtask test");
        assert_eq!(both, Some(("a::b", ROOT_AND_GUEST)));
        assert_eq!(needs("test a::c ... ignored, a measurement"), None);
        assert_eq!(needs("test a::d ... ok"), None);
    }

    #[test]
    fn tests_that_end_without_a_result_have_failed() {
        let count = counted(Command::new("sh").args(["-c", "exit 3"])).unwrap();
        assert_eq!(count.failed, 1);
    }
}
