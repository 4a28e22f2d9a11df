//! Other processes, the agent, and the kernel's own doors.

use super::{enter, governing};
use crate::common::{Cgroup, Gate};

const CALLS: &str = "
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0: raise OSError(ctypes.get_errno(), '')
    return result
def trace(pid):
    if libc.ptrace(16, pid, 0, 0) < 0: raise OSError(ctypes.get_errno(), '')
    os.waitpid(pid, 0)
    libc.ptrace(17, pid, 0, 0)
    return 'traced'
";

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn a_governed_process_traces_its_own_and_nobody_elses() {
    let cgroup = Cgroup::new();
    let gate = Gate::new(|_| governing(&cgroup)).await;
    let victim = gate.python_as_root("print('there', flush=True); sys.stdin.readline()");
    let pid = victim.pid();
    let script = format!(
        "{CALLS}
import signal
attempt(lambda: trace({pid}))
attempt(lambda: open('/proc/{pid}/mem', 'rb').fileno() and 'opened')
child = os.fork()
if child == 0: signal.pause()
attempt(lambda: trace(child))
os.kill(child, 9)"
    );
    let governed = gate.python_as_root(&format!("{}{script}", enter(&cgroup)));
    assert_eq!(governed.output().await, "errno EPERM\nerrno EACCES\ntraced");
    let free = gate.python_as_root(&format!("{CALLS}attempt(lambda: trace({pid}))"));
    assert_eq!(free.output().await, "traced");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn a_governed_process_that_became_root_has_no_bpf_and_no_signal_for_the_agent() {
    let cgroup = Cgroup::new();
    let gate = Gate::new(|_| governing(&cgroup)).await;
    let agent = std::process::id();
    // BPF_PROG_GET_NEXT_ID, whose next id is written into what it reads from; SIGCONT, which does no harm.
    let script = format!(
        "{CALLS}
attributes = ctypes.create_string_buffer(128)
attempt(lambda: call(321, 11, attributes, 128))
attempt(lambda: os.kill({agent}, 18))"
    );
    let governed = gate.python_as_root(&format!("{}{script}", enter(&cgroup)));
    assert_eq!(governed.output().await, "errno EPERM\nerrno EPERM");
    assert_eq!(gate.python_as_root(&script).output().await, "0\nNone");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn nothing_is_missing_from_the_shield_where_the_kernel_has_its_hooks() {
    let gate = Gate::new(|_| tidegate_kernel::Rules::default()).await;
    assert_eq!(gate.kernel.unshielded(), None);
}
