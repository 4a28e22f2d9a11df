//! Compiles the attack programs into one executable, which the library carries.

use std::{env, fs, path::PathBuf, process::Command};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("attacks");
    let mut sources: Vec<PathBuf> = fs::read_dir("programs")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    sources.sort();
    println!("cargo::rerun-if-changed=programs");

    // Static, so that it runs in any root file system.
    let mut command: Command = cc::Build::new().opt_level(1).get_compiler().to_command();
    command
        .args(["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-s", "-o"])
        .arg(&out)
        .args(&sources);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => println!("cargo::error=the attack programs do not compile ({status}): {command:?}"),
        Err(error) => println!("cargo::error=no C compiler: {error}: install gcc and libc6-dev"),
    }
}
