//! The resolver's sockets: questions of governed processes in, recorded answers out.

mod journal;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tidegate_dns::{Answer, LONGEST, Question, Resolver, Unreadable};
use tidegate_gate::{Origin, Records, ServeError, Stream};
use tidegate_kernel::Captured;
use tidegate_policy::{Principal, Sharer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    sync::Semaphore,
    time::timeout,
};

use crate::reload::InForce;
use journal::{Asker, Journal, Question as Noted};

/// The port of DNS.
pub(crate) const PORT: u16 = 53;
/// Questions over UDP that are worked on at one time; more are left in the socket's buffer, and lost when it is full.
const AT_ONCE: usize = 512;
/// How long a process may take to ask over a connection that it made.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions over one connection.
const ASKED: usize = 1000;
/// How long to wait when a socket can't be read.
const RESPITE: Duration = Duration::from_millis(50);

/// Who sends datagrams to the agent.
pub(crate) trait Askers: Send + Sync {
    /// Whoever has just sent a question between these two ends in a network namespace, and as whom it counts; none if no governed
    /// process did.
    fn asker(
        &self,
        netns: u64,
        client: SocketAddr,
        listener: SocketAddr,
    ) -> Result<Option<(Captured, Sharer)>, String>;

    /// Has what an account is called found out, for when one of its processes is described. Does not wait for it.
    fn learn_name(&self, account: u32);

    /// Everything that is known of it. Reads files.
    fn describe(&self, asker: Captured) -> Principal;
}

/// Answers questions.
pub(crate) struct Dns {
    resolver: Resolver<Sharer>,
    in_force: Arc<InForce>,
    askers: Arc<dyn Askers>,
    journal: Arc<Journal>,
    turns: Arc<Semaphore>,
}

impl Dns {
    /// By the bundle in force; `tier` is what records say of the host.
    pub(crate) fn new(
        in_force: Arc<InForce>,
        askers: Arc<dyn Askers>,
        records: Arc<dyn Records>,
        tier: Arc<str>,
    ) -> Arc<Self> {
        Arc::new(Self {
            resolver: Resolver::default(),
            in_force,
            askers,
            journal: Journal::new(records, tier),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// Closes accounts of processes that ask no more, until dropped.
    pub(crate) async fn tidy(self: Arc<Self>) {
        self.journal.tidy().await;
    }

    /// Answers the datagrams of one socket, in the network namespace of this cookie, until dropped.
    pub(crate) async fn serve_datagrams(self: Arc<Self>, netns: u64, socket: UdpSocket) {
        let socket = Arc::new(socket);
        // A byte more than any question, so that one that was cut off is seen to be too long.
        let mut message = [0; LONGEST + 1];
        loop {
            let Ok(turn) = self.turns.clone().acquire_owned().await else { return };
            match socket.recv_from(&mut message).await {
                Ok((length, client)) => {
                    let message = message.get(..length).unwrap_or_default().to_vec();
                    let (dns, socket) = (self.clone(), socket.clone());
                    tokio::spawn(async move {
                        if let Err(error) = dns.serve_datagram(netns, &socket, client, &message).await {
                            tracing::debug!(%client, %error, "a question was not answered");
                        }
                        drop(turn);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a question could not be read");
                    tokio::time::sleep(RESPITE).await;
                }
            }
        }
    }

    async fn serve_datagram(
        &self,
        netns: u64,
        socket: &UdpSocket,
        client: SocketAddr,
        message: &[u8],
    ) -> io::Result<()> {
        let asker = self.askers.asker(netns, client, socket.local_addr()?).map_err(io::Error::other)?;
        let Some((asker, sharer)) = asker else {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "no governed process asked it"));
        };
        let answer = match Question::read(message) {
            Ok(question) => {
                let asker = Asker::Captured { asker: Box::new(asker), sharer, askers: self.askers.clone() };
                question.datagram(&self.answer(asker, &question).await)
            }
            Err(Unreadable::Answered(answer)) => answer,
            Err(Unreadable::Ignored) => return Ok(()),
        };
        socket.send_to(&answer, client).await.map(drop)
    }

    /// Answers the questions of a connection, each after its length (RFC 7766), until the client has no more.
    pub(crate) async fn serve_connection(
        &self,
        mut stream: Stream,
        origin: Origin,
    ) -> Result<(), ServeError> {
        let failed = |error: io::Error| ServeError::Client(error.to_string());
        let principal = Arc::new(origin.principal);
        for _ in 0..ASKED {
            let mut length = [0; 2];
            match timeout(PATIENCE, stream.read_exact(&mut length)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(failed(error)),
                Err(_) => return Ok(()),
            }
            let length = usize::from(u16::from_be_bytes(length));
            if length > LONGEST {
                return Err(ServeError::Client(format!("a question of {length} bytes is too long")));
            }
            let mut message = vec![0; length];
            timeout(PATIENCE, stream.read_exact(&mut message))
                .await
                .map_err(|_| ServeError::Client("half a question".into()))?
                .map_err(failed)?;
            let answer = match Question::read(&message) {
                Ok(question) => {
                    let asker = Asker::Known(principal.clone(), origin.destination);
                    question.message_of(&self.answer(asker, &question).await)
                }
                Err(Unreadable::Answered(answer)) => answer,
                Err(Unreadable::Ignored) => return Ok(()),
            };
            let length = u16::try_from(answer.len()).map_err(|_| ServeError::Client("too long".into()))?;
            let answer = [&length.to_be_bytes(), answer.as_slice()].concat();
            timeout(PATIENCE, stream.write_all(&answer))
                .await
                .map_err(|_| ServeError::Client("it doesn't take its answer".into()))?
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Decides, looks up and records; what can't be recorded isn't answered.
    async fn answer(&self, asker: Asker, question: &Question) -> Answer {
        asker.learn_name();
        let upstream = self.in_force.upstream();
        let answer = self.resolver.answer(&asker.sharer(), question, self.in_force.names(), &*upstream).await;
        let noted = Noted::new(question, &answer, self.in_force.policy().load().digest.clone());
        let journal = self.journal.clone();
        match tokio::task::spawn_blocking(move || journal.note(asker, noted)).await {
            Ok(Ok(())) => answer,
            Ok(Err(error)) => {
                tracing::error!(%error, "a question was not answered");
                Answer::Failed(error.to_string())
            }
            Err(_) => Answer::Failed("the agent is stopping".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{
        config::Listen,
        lanes::Lanes,
        listener::Listeners,
        test_support::{BUNDLE, World},
    };

    /// A question for an address of this name, as RFC 1035 has it, with id 7.
    fn question(name: &str) -> Vec<u8> {
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend_from_slice(label.as_bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        message
    }

    /// Code and number of answers.
    fn outcome(answer: &[u8]) -> (u8, u8) {
        assert_eq!(answer[..2], [0, 7]);
        (answer[3] & 0xf, answer[7])
    }

    async fn world() -> World {
        World::with_bundle(&BUNDLE.replace("127.0.0.1:7", "localhost:7")).await
    }

    async fn asking(world: &World) -> (UdpSocket, SocketAddr) {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(world.dns().serve_datagrams(0, server));
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), address)
    }

    async fn ask(client: &UdpSocket, server: SocketAddr, message: &[u8]) -> Vec<u8> {
        client.send_to(message, server).await.unwrap();
        let mut answer = [0; 2048];
        let length = client.recv(&mut answer).await.unwrap();
        answer[..length].to_vec()
    }

    #[tokio::test]
    async fn names_of_the_bundle_are_answered_and_others_refused_and_both_are_recorded() {
        let world = world().await;
        let (client, server) = asking(&world).await;
        assert_eq!(outcome(&ask(&client, server, &question("LocalHost")).await), (0, 1));
        assert_eq!(outcome(&ask(&client, server, &question("stolen.attacker.example")).await), (5, 0));
        let lines = world.records.lines.lock().unwrap().join("\n");
        assert!(lines.contains("A localhost: 127.0.0.1"), "{lines}");
        assert!(lines.contains("A stolen.attacker.example\",\"decision\":\"deny\""), "{lines}");
        assert_eq!(world.records.opened.load(Ordering::Relaxed), 1, "one record for the process");
    }

    #[tokio::test]
    async fn what_was_said_once_is_only_counted_and_refusals_do_not_fill_a_record() {
        let world = world().await;
        let (client, server) = asking(&world).await;
        for _ in 0..5 {
            ask(&client, server, &question("localhost")).await;
        }
        assert_eq!(world.records.lines.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn without_a_record_there_is_no_answer() {
        let world = world().await;
        world.records.full.store(true, Ordering::Relaxed);
        let (client, server) = asking(&world).await;
        assert_eq!(outcome(&ask(&client, server, &question("localhost")).await), (2, 0));
    }

    #[tokio::test]
    async fn questions_come_over_connections_too_one_after_the_other() {
        let world = world().await;
        let mut listener = Listeners::bind(&Listen::default(), (0, 0), Vec::new()).await.unwrap();
        drop(listener.take_datagrams());
        let address: SocketAddr = ([127, 0, 0, 1], listener.ports().unwrap().0).into();
        let (sessions, told) = (world.sessions(Some("127.0.0.53:53")), world.stopping.subscribe());
        let serve = move |stream, client| sessions.serve(stream, client);
        tokio::spawn(async move { listener.run(&Lanes::here(), serve, told).await });
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        for (name, expected) in [("localhost", (0, 1)), ("attacker.example", (5, 0))] {
            let message = question(name);
            client.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
            client.write_all(&message).await.unwrap();
            let length = client.read_u16().await.unwrap();
            let mut answer = vec![0; usize::from(length)];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(outcome(&answer), expected);
        }
        client.write_u16(60_000).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "a question too long ends the connection");
    }
}
