//! What goes on while rules are replaced.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tidegate_abi::{Label, MAX_LABELS, MAX_SUBJECT_IDS, SubjectKey, SubjectKind};
use tidegate_kernel::{CaughtUp, Kernel, Learned, Rules};
use tokio::net::TcpStream;

use crate::common::{self, GOVERNED, Gate, V4, connect_to, fill, map, resources, server, subjects};

/// What nobody needs a walk for takes no longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a thread that logs a word is held, until the other end lets it go or is dropped.
struct Held {
    word: &'static str,
    reached: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

#[derive(Clone)]
struct Holding(Arc<Mutex<Held>>);

impl io::Write for Holding {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let held = self.0.lock().unwrap();
        if String::from_utf8_lossy(line).contains(held.word) {
            let _ = held.reached.send(());
            let _ = held.go_on.recv();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs this on a thread that is held where it logs the word. Returns when it is, with what lets it go.
fn hold_at(
    word: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> (mpsc::Sender<()>, thread::JoinHandle<()>) {
    let ((reached, is_there), (let_go, go_on)) = (mpsc::channel(), mpsc::channel());
    let writer = Holding(Arc::new(Mutex::new(Held { word, reached, go_on })));
    let working = thread::spawn(move || {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, work);
    });
    is_there.recv_timeout(PATIENCE).expect("it logs that");
    (let_go, working)
}

/// Something that the kernel side is asked for.
type Asked = Box<dyn FnOnce(&Kernel) + Send>;

/// What this answers, on a thread of its own; none if it doesn't within the time that it may take.
async fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await.ok().map(Result::unwrap)
}

fn ends(stream: &TcpStream) -> (SocketAddr, SocketAddr) {
    (stream.peer_addr().unwrap(), stream.local_addr().unwrap())
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn while_running_processes_are_looked_through_connections_questions_and_namespaces_are_not_held_up() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let kernel = gate.kernel.clone();
    let replacing = kernel.clone();
    let (let_go, reloading) = hold_at("running processes labelled", move || {
        replacing.replace(&resources(&[(V4, 5432), (V4, 5433)])).unwrap();
        assert!(replacing.catch_up().trouble.is_empty());
    });
    let client = gate.python(GOVERNED, &connect_to("AF_INET", V4, 5433));
    let stream = gate.accept_stream().await;
    let (netns, (client_end, own_end)) = (kernel.netns(), ends(&stream));
    let asked: [(&str, Asked); 5] = [
        (
            "origin",
            Box::new(move |kernel| {
                let captured = kernel.origin(netns, client_end, own_end).unwrap().expect("an origin");
                assert_eq!(captured.subjects, ["governed".into()]);
            }),
        ),
        (
            "asker",
            Box::new(move |kernel| assert_eq!(kernel.asker(netns, client_end, own_end).unwrap(), None)),
        ),
        ("learn", Box::new(|kernel| kernel.learn(&Learned::default()).unwrap())),
        ("listen_in", Box::new(|kernel| kernel.listen_in(1, None).unwrap())),
        ("labelled", Box::new(|kernel| assert!(!kernel.labelled().is_empty()))),
    ];
    let mut held_up = Vec::new();
    for (what, ask) in asked {
        let kernel = kernel.clone();
        if in_time(move || ask(&kernel)).await.is_none() {
            held_up.push(what);
        }
    }
    let another = server().await;
    if in_time({
        let kernel = kernel.clone();
        move || kernel.mark(&another).unwrap()
    })
    .await
    .is_none()
    {
        held_up.push("mark");
    }
    drop(let_go);
    reloading.join().unwrap();
    assert_eq!(held_up, [""; 0]);
    assert_eq!(client.output().await, format!("peer {V4} 5433"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn rules_that_the_kernel_has_no_room_for_leave_those_before_in_force_whole() {
    let gate = Gate::new(|_| resources(&[(V4, 5432)])).await;
    let mut ids = map::<SubjectKey, u64>(&gate, "SUBJECTS");
    let generation = ids.keys().next().unwrap().unwrap().generation;
    let others = (0..=MAX_SUBJECT_IDS as u64).map(|id| SubjectKey {
        generation,
        kind: SubjectKind::Group as u32,
        id: 1 << 40 | id,
    });
    let filling = fill(&mut ids, others.map(|key| (key, 0)));
    let next = Rules { resources: resources(&[(V4, 5433)]).resources, ..subjects() };
    let error = gate.kernel.replace(&next).unwrap_err().to_string();
    assert!(error.contains("SUBJECTS"), "{error}");
    let client = gate.python(GOVERNED, &connect_to("AF_INET", V4, 5432));
    assert_eq!(gate.accept_v4().await.expect("an origin").subjects, ["governed".into()]);
    assert_eq!(client.output().await, format!("peer {V4} 5432"));
    let client = gate.python(GOVERNED, &connect_to("AF_INET", V4, 5433));
    assert_eq!(client.output().await, "errno EPERM");
    for key in filling {
        ids.remove(&key).unwrap();
    }
    gate.replace(&next);
    let client = gate.python(GOVERNED, &connect_to("AF_INET", V4, 5433));
    assert!(gate.accept_v4().await.is_some());
    assert_eq!(client.output().await, format!("peer {V4} 5433"));
}

#[tokio::test]
#[ignore = "needs root: cargo xtask test kernel"]
async fn rules_are_in_force_although_not_all_that_ran_before_can_be_labelled_and_the_next_time_it_is() {
    let server = common::server().await;
    let port = server.local_addr().unwrap().port();
    let gate = Gate::new(|_| Rules::default()).await;
    let script = format!(
        "s = dial(socket.AF_INET, '127.0.0.1', {port})
print('connected', flush=True)
sys.stdin.readline()
attempt(lambda: dial(socket.AF_INET, {V4:?}, 443))
sys.stdout.flush()
sys.stdin.readline()
attempt(lambda: s.send(b'x'))"
    );
    let mut client = gate.python(GOVERNED, &script);
    let _stream = common::accept(&server).await;
    assert_eq!(client.line(), "connected");
    let mut labels = map::<u32, Label>(&gate, "LABELS");
    // Ids that no process has: they are above the kernel's limit.
    let others = (1 << 23..).take(MAX_LABELS + 1);
    let filling = fill(&mut labels, others.map(|pid| (pid, Label::default())));
    gate.kernel.replace(&subjects()).unwrap();
    let CaughtUp { trouble, .. } = gate.kernel.catch_up();
    assert!(trouble.iter().any(|error| error.to_string().contains("LABELS")), "{trouble:?}");
    client.go_on();
    assert_eq!(client.line(), "errno EPERM", "what it does next is decided by the rules");
    for pid in filling {
        labels.remove(&pid).unwrap();
    }
    let CaughtUp { older, trouble } = gate.kernel.catch_up();
    assert!(trouble.is_empty(), "{trouble:?}");
    assert_eq!(older.iter().map(|socket| socket.pid).collect::<Vec<_>>(), [Some(client.pid())]);
    client.go_on();
    assert_eq!(client.output().await, "errno ECONNABORTED");
}
