//! Running other programs, and saying so.

use std::{
    env,
    ffi::OsStr,
    io::{IsTerminal, stderr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::unistd::Uid;

/// Says what happens next, apart from what programs print.
pub(crate) fn say(text: &str) {
    if stderr().is_terminal() {
        eprintln!("\x1b[1;36m==>\x1b[0m \x1b[1m{text}\x1b[0m");
    } else {
        eprintln!("==> {text}");
    }
}

/// Runs a program in the foreground; an error names it if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    ensure!(status.success(), "{} failed ({status})", shown(command));
    Ok(())
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A word as one would type it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else if word.contains('\'') {
        format!("\"{}\"", word.replace('"', "\\\""))
    } else {
        format!("'{word}'")
    }
}

/// A program that runs as root: through sudo unless we are. `keep` names variables that sudo must not drop.
pub(crate) fn as_root(program: impl AsRef<OsStr>, keep: &[(&str, &OsStr)]) -> Command {
    let mut command;
    if is_root() {
        command = Command::new(program);
        command.envs(keep.iter().copied());
    } else {
        command = Command::new("sudo");
        command.arg("env").args(keep.iter().map(|(name, value)| {
            let mut pair = std::ffi::OsString::from(name);
            pair.push("=");
            pair.push(value);
            pair
        }));
        command.arg(program);
    }
    command
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Whether nobody watches.
pub(crate) fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Where on `PATH` a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// The project's top directory.
pub(crate) fn project() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo in the project. In CI its target directory outlives the checkout.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(project()).args(arguments);
    if in_ci()
        && env::var_os("CARGO_TARGET_DIR").is_none()
        && let Some(home) = env::var_os("HOME")
    {
        command.env("CARGO_TARGET_DIR", Path::new(&home).join(".cache/tidegate/target"));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("psql");
        command.args(["-c", "SELECT 1", "--set=x=y", ""]);
        assert_eq!(shown(&command), "psql -c 'SELECT 1' --set=x=y ''");
    }

    #[test]
    fn a_quote_inside_is_kept_readable() {
        assert_eq!(quoted("it's"), "\"it's\"");
    }
}
