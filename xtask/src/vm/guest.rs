//! One boot of one kernel, and what its serial line says.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::image::Image;
use crate::suites::Count;

/// A test takes an emulated processor a few seconds, most of them the verifier's; a busy machine takes five times as long.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Without `bpf` in this list, LSM programs attach and are never asked. Yama and the rest are what distributions have.
const KERNEL_LINE: &str = "console=ttyS0 panic=-1 quiet lsm=lockdown,capability,landlock,yama,apparmor,bpf";

/// What a guest's serial line said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The kernel's release.
    pub(super) release: String,
    /// What `VMTEST-RC=` said; none if the guest never got there.
    pub(super) code: Option<i32>,
    /// How its tests ended.
    pub(super) count: Count,
    /// Instructions that the verifier went through, by program.
    pub(super) verified: BTreeMap<String, u64>,
}

impl Report {
    /// Takes in a line. Kernel messages and test output share the serial line, so that an unknown one means nothing.
    fn read(&mut self, line: &str) -> Result<()> {
        if let Some(release) = line.strip_prefix("VMTEST-KERNEL=") {
            release.clone_into(&mut self.release);
        } else if let Some(code) = line.strip_prefix("VMTEST-RC=") {
            self.code = Some(code.trim().parse().with_context(|| line.to_owned())?);
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.count.add(Count::parse(result)?);
        } else if let Some((program, count)) =
            line.strip_prefix("VERIFIED ").and_then(|rest| rest.trim().split_once(' '))
        {
            self.verified.insert(program.to_owned(), count.parse().with_context(|| line.to_owned())?);
        }
        Ok(())
    }
}

/// Boots a kernel, shows its lines, and says how it went.
pub(super) fn boot(name: &str, kernel: &Path, image: &Image) -> Result<Report> {
    let (accelerator, processors) = accelerator();
    let mut guest = Guest(
        Command::new("qemu-system-x86_64")
            .args(["-machine", "q35", "-accel", accelerator, "-cpu", "max", "-smp", processors, "-m", "2048"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(image.path())
            .args(["-append", KERNEL_LINE])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting qemu-system-x86_64")?,
    );
    let serial = guest.0.stdout.take().context("a guest's serial line")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let (mut report, end) = (Report::default(), Instant::now() + PATIENCE);
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{name:>6} | {line}");
                report.read(&line)?;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(report),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                println!("{name:>6} | no end after {} s: stopped", PATIENCE.as_secs());
                return Ok(Report { code: None, ..report });
            }
        }
    }
}

/// Hardware's own where it is: `/dev/kvm` alone proves nothing, as it can be passed into a guest that cannot use it. And the
/// number of processors: emulated ones trip over each other when the kernel patches its own code, as attaching a program
/// makes it do, and the guest dies of a stray breakpoint.
fn accelerator() -> (&'static str, &'static str) {
    let usable = ["kvm_intel", "kvm_amd"].iter().any(|module| Path::new("/sys/module").join(module).is_dir());
    if usable && std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok() {
        ("kvm", "2")
    } else {
        ("tcg", "1")
    }
}

/// A running emulator; ended when dropped.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // One that has ended needs nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.read(line).unwrap();
        }
        report
    }

    #[test]
    fn a_guest_that_panics_has_no_result() {
        let panicked = report(&["VMTEST-KERNEL=6.1.0", "[    3.1] Kernel panic - not syncing"]);
        assert_eq!((panicked.release.as_str(), panicked.code), ("6.1.0", None));
    }

    #[test]
    fn results_and_instruction_counts_are_read_from_the_serial_line() {
        let read = report(&[
            "VERIFIED connect4 1234",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.3s",
            "VMTEST-RC=0",
        ]);
        assert_eq!(read.code, Some(0));
        assert_eq!(read.count, Count { passed: 3, failed: 0, skipped: 0 });
        assert_eq!(read.verified.get("connect4"), Some(&1234));
    }
}
