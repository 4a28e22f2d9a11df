//! What the programs say, and what the kernel is found to have.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_kernel::probe;

use crate::common::{GOVERNED, Gate, V4, V6, connect_to, resources};

#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// What this thread logs, until the second is dropped.
    pub(crate) fn captured() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// Waits until this is in what was logged.
    pub(crate) async fn have(&self, text: &str) {
        let logged = async {
            while !self.text().contains(text) {
                tokio::task::yield_now().await;
            }
        };
        let logged = tokio::time::timeout(Duration::from_secs(10), logged).await;
        assert!(logged.is_ok(), "{text:?} is not in {}", self.text());
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn a_refusal_is_logged_with_process_user_and_destination() {
    let (lines, _logging) = Lines::captured();
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(GOVERNED, &connect_to("AF_INET6", V6, 443));
    let expected = format!(
        "refused pid {} uid {GOVERNED} to {V6} port 443: neither a declared resource nor passed",
        client.pid()
    );
    assert_eq!(client.output().await, "errno EPERM");
    lines.have(&expected).await;
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn refusals_beyond_what_the_log_bears_are_counted_instead() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let client = gate.python(
        GOVERNED,
        &format!(
            "
for _ in range(1000):
    try: dial(socket.AF_INET, {V4:?}, 443)
    except PermissionError: pass
print('done')"
        ),
    );
    assert_eq!(client.output().await, "done");
    let counters = gate.kernel.counters().unwrap();
    assert_eq!(counters.refused, 1_000);
    assert!(counters.unlogged > 0, "{counters:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test kernel"]
fn a_kernel_that_runs_the_programs_is_found_to_have_all_they_need() {
    let probes = probe();
    assert!(probes.len() > 10);
    let missing: Vec<_> = probes.iter().filter(|probe| probe.missing.is_some()).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
