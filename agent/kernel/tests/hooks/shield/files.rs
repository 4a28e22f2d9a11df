//! Shielded files, and the agent's own.

use tidegate_kernel::{NamePattern, Protection};

use super::{Folder, enter, governing, shielding};
use crate::common::{Cgroup, GOVERNED, Gate, OTHER, UNGOVERNED};
use crate::logs::Lines;

const READ: &str = "
def read(path):
    return open(path).read()
";

fn is(name: &str) -> NamePattern {
    NamePattern::Is(name.into())
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn a_shielded_file_opens_for_everybody_but_whom_it_is_shielded_from() {
    let folder = Folder::new();
    let path = folder.file("home/.pgpass");
    let gate = Gate::new(|_| shielding(&[(None, is(".pgpass"))])).await;
    let script = format!("{READ}attempt(lambda: read({path:?}))");
    assert_eq!(gate.python(GOVERNED, &script).output().await, "errno EPERM");
    assert_eq!(gate.python(OTHER, &script).output().await, "a secret");
    assert_eq!(gate.python(UNGOVERNED, &script).output().await, "a secret");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn a_refusal_is_logged_with_process_user_and_file() {
    let (lines, _logging) = Lines::captured();
    let folder = Folder::new();
    let path = folder.file("home/.pgpass");
    let gate = Gate::new(|_| shielding(&[(None, is(".pgpass"))])).await;
    let client = gate.python(GOVERNED, &format!("{READ}attempt(lambda: read({path:?}))"));
    let pid = client.pid();
    assert_eq!(client.output().await, "errno EPERM");
    let who = format!("pid={pid} uid={GOVERNED} gid={GOVERNED} command=python3");
    lines.have("refused the shielded file home/.pgpass").await;
    lines.have(&who).await;
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn the_shield_stands_while_no_agent_runs() {
    let folder = Folder::new();
    let path = folder.file("home/.pgpass");
    let gate = Gate::new(|_| shielding(&[(None, is(".pgpass"))])).await;
    let pins = gate.die();
    let client = pins.python(GOVERNED, &format!("{READ}attempt(lambda: read({path:?}))"));
    assert_eq!(client.output().await, "errno EPERM");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn names_are_matched_whole_by_beginning_by_ending_and_by_folder() {
    let folder = Folder::new();
    let gate = Gate::new(|_| {
        shielding(&[
            (Some(".ssh"), NamePattern::Begins("id_".into())),
            (None, NamePattern::Ends(".pem".into())),
            (Some(".aws"), is("credentials")),
        ])
    })
    .await;
    for (name, expected) in [
        (".ssh/id_ed25519", "errno EPERM"),
        (".ssh/known_hosts", "a secret"),
        ("other/id_ed25519", "a secret"),
        ("etc/server.pem", "errno EPERM"),
        ("etc/server.pem.txt", "a secret"),
        (".aws/credentials", "errno EPERM"),
        (".aws/credentials.d", "a secret"),
        ("work/credentials", "a secret"),
    ] {
        let path = folder.file(name);
        let client = gate.python(GOVERNED, &format!("{READ}attempt(lambda: read({path:?}))"));
        assert_eq!(client.output().await, expected, "{name}");
    }
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn another_name_for_a_shielded_file_is_no_way_around() {
    let folder = Folder::new();
    let path = folder.file("home/.aws/credentials");
    let hard_link = folder.path("home/before");
    std::fs::hard_link(&path, &hard_link).unwrap();
    let gate = Gate::new(|_| shielding(&[(Some(".aws"), is("credentials"))])).await;
    let home = folder.path("home");
    let client = gate.python(
        GOVERNED,
        &format!(
            "{READ}
os.chdir({home:?})
attempt(lambda: read('before'))
os.symlink('.aws/credentials', 'link')
attempt(lambda: read('link'))
attempt(lambda: os.rename('.aws/credentials', 'moved'))
attempt(lambda: os.rename('.aws', 'moved'))
attempt(lambda: os.link('.aws/credentials', 'linked'))
attempt(lambda: read('/proc/self/cwd/.aws/credentials'))"
        ),
    );
    let output = client.output().await;
    assert_eq!(output.lines().collect::<Vec<_>>(), ["errno EPERM"; 6], "{output}");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn a_mount_of_ones_own_is_no_way_around() {
    let folder = Folder::new();
    let path = folder.file("home/.aws/credentials");
    let elsewhere = folder.file("elsewhere");
    let gate = Gate::new(|_| shielding(&[(Some(".aws"), is("credentials"))])).await;
    let client = gate.python(
        GOVERNED,
        &format!(
            "{READ}
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNS, MS_BIND = 0x10000000, 0x20000, 4096
print(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
print(libc.mount({path:?}.encode(), {elsewhere:?}.encode(), None, MS_BIND, None))
attempt(lambda: read({elsewhere:?}))"
        ),
    );
    assert_eq!(client.output().await, "0\n0\nerrno EPERM");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn a_shielded_file_that_somebody_hands_over_is_not_taken() {
    let folder = Folder::new();
    let (path, plain) = (folder.file(".pgpass"), folder.file("plain"));
    let gate = Gate::new(|_| shielding(&[(None, is(".pgpass"))])).await;
    let client = gate.python_as_root(&format!(
        "
ours, theirs = socket.socketpair()
files = [open({plain:?}), open({path:?})]
if os.fork() == 0:
    for file in files: file.close()
    os.setresuid({GOVERNED}, {GOVERNED}, {GOVERNED})
    for _ in range(2):
        print(len(socket.recv_fds(theirs, 1, 1)[1]))
        sys.stdout.flush()
    os._exit(0)
for file in files: socket.send_fds(ours, [b'x'], [file.fileno()])
os.wait()"
    ));
    assert_eq!(client.output().await, "1\n0");
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn the_agents_own_files_are_safe_from_a_governed_process_that_became_root() {
    let (cgroup, folder) = (Cgroup::new(), Folder::new());
    let (kept, hidden) = (folder.file("state/deep/kept"), folder.file("credentials/hidden"));
    let gate = Gate::new(|_| governing(&cgroup)).await;
    gate.kernel.protect(&folder.path("state"), Protection::Keep).unwrap();
    gate.kernel.protect(&folder.path("credentials"), Protection::Hide).unwrap();
    let attempts = format!(
        "{READ}
attempt(lambda: read({kept:?}))
attempt(lambda: open({kept:?}, 'a').write('x'))
attempt(lambda: os.rename({kept:?}, {kept:?} + '.old'))
attempt(lambda: os.unlink({kept:?}))
attempt(lambda: read({hidden:?}))"
    );
    let governed = gate.python_as_root(&format!("{}{attempts}", enter(&cgroup)));
    let denied = "errno EPERM\n".repeat(4);
    assert_eq!(governed.output().await, format!("a secret\n{}", denied.trim_end()));
    let free = gate.python_as_root(&format!("{READ}attempt(lambda: read({hidden:?}))"));
    assert_eq!(free.output().await, "a secret");
}
