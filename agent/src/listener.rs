//! The listeners on loopback that the kernel hands governed connections and DNS questions to.

use std::{
    fmt,
    future::{self, Future},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tidegate_gate::{Stopping, Stream};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::sleep,
};

use crate::{config::Listen, error::Error, lanes::Lanes, notify, origins::HostKernel};

/// How long to wait when the process has no descriptors left: accepting again at once would fail again.
const RESPITE: Duration = Duration::from_millis(50);

/// Tries to find a port that is free over TCP and UDP.
const TRIES: usize = 16;

/// What the service manager kept from an earlier agent, by name.
pub(crate) type Kept = Vec<(String, OwnedFd)>;

/// Where kept listeners are.
pub(crate) fn addresses(kept: &Kept) -> Vec<(String, SocketAddr)> {
    let address =
        |descriptor: &OwnedFd| std::net::TcpListener::from(descriptor.try_clone().ok()?).local_addr().ok();
    kept.iter().filter_map(|(name, descriptor)| Some((name.clone(), address(descriptor)?))).collect()
}

/// The listeners.
pub(crate) struct Listeners {
    v4: TcpListener,
    v6: Option<TcpListener>,
    /// At the same addresses and ports, for DNS.
    datagrams: Vec<UdpSocket>,
    /// Connections that were accepted in other network namespaces, or on Unix sockets.
    elsewhere: Option<mpsc::Receiver<Accepted>>,
}

/// A connection and its client.
pub(crate) type Accepted = (Stream, Caller);

/// The client of a connection, as far as its own end tells.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Its address.
    Tcp(SocketAddr),
    /// The Unix socket that it connected to.
    Unix(Arc<Path>),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(socket) => write!(f, "unix:{}", socket.display()),
        }
    }
}

fn over_tcp((stream, client): (TcpStream, SocketAddr)) -> Accepted {
    (stream.into(), Caller::Tcp(client))
}

impl Listeners {
    /// Listens on 127.0.0.1 and, where the host has IPv6 at all, ::1: with what the service manager `kept`, connections that
    /// wait there included, or anew. Where the configuration leaves the port open, it is the one that an earlier agent
    /// had, if that is free.
    pub(crate) async fn bind(listen: &Listen, earlier: (u16, u16), kept: Kept) -> Result<Self, Error> {
        let kept: Vec<_> = kept.into_iter().map(|(_, descriptor)| descriptor.into()).collect();
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listen.v4_port);
        let (v4, questions) = bind(address, earlier.0, &kept).await?;
        let mut datagrams = vec![questions];
        let address = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), listen.v6_port);
        let v6 = match bind(address, earlier.1, &kept).await {
            Ok((listener, questions)) => {
                datagrams.push(questions);
                Some(listener)
            }
            Err(Error::Listen { error, .. }) if is_without_ipv6(&error) => {
                tracing::warn!("this host has no IPv6 loopback; governed IPv6 connections are refused");
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6, datagrams, elsewhere: None })
    }

    /// Takes what is accepted elsewhere for its own.
    pub(crate) fn also(&mut self, elsewhere: mpsc::Receiver<Accepted>) {
        self.elsewhere = Some(elsewhere);
    }

    /// The sockets that DNS questions come to; they can be had once.
    pub(crate) fn take_datagrams(&mut self) -> Vec<UdpSocket> {
        std::mem::take(&mut self.datagrams)
    }

    /// The ports; 0 for a family that nobody listens on.
    pub(crate) fn ports(&self) -> io::Result<(u16, u16)> {
        let v6 =
            self.v6.as_ref().map_or(Ok(0), |listener| listener.local_addr().map(|address| address.port()))?;
        Ok((self.v4.local_addr()?.port(), v6))
    }

    /// Marks them as the agent's own.
    pub(crate) fn mark(&self, kernel: &HostKernel) -> Result<(), String> {
        kernel.mark(&self.v4)?;
        self.v6.as_ref().map_or(Ok(()), |v6| kernel.mark(v6))
    }

    /// Has the service manager keep them for the next agent, and none of those that it had at other addresses `before`: they would
    /// take the room of what is kept.
    pub(crate) fn keep(&self, before: &[(String, SocketAddr)]) -> io::Result<()> {
        let own = [Some(&self.v4), self.v6.as_ref()].into_iter().flatten();
        let own = own.map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        for (name, _) in before.iter().filter(|(_, address)| !own.contains(address)) {
            notify::keep_no_longer(name)?;
        }
        notify::keep("v4", self.v4.as_fd())?;
        self.v6.as_ref().map_or(Ok(()), |v6| notify::keep("v6", v6.as_fd()))
    }

    /// Serves connections, a task each, until the agent is asked to stop. Returns the tasks that still run, and itself:
    /// as long as the kernel redirects to its ports, they must be nobody else's.
    pub(crate) async fn run<F>(
        mut self,
        lanes: &Lanes,
        serve: impl Fn(Stream, Caller) -> F,
        mut stopping: watch::Receiver<Stopping>,
    ) -> (JoinSet<()>, Self)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping > Stopping::No) => break,
                Some(ended) = tasks.join_next() => {
                    report(ended);
                    continue;
                }
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => match lanes.assign(stream) {
                    Ok((stream, lane)) => drop(tasks.spawn_on(serve(stream, client), &lane)),
                    Err(error) => recover(error).await,
                },
                Err(error) => recover(error).await,
            }
        }
        (tasks, self)
    }

    /// Resets every connection, until dropped.
    pub(crate) async fn refuse(mut self) {
        loop {
            match self.accept().await {
                Ok((stream, client)) => {
                    tracing::info!(%client, "connection refused: the agent is stopping");
                    reset(stream);
                }
                Err(error) => recover(error).await,
            }
        }
    }

    async fn accept(&mut self) -> io::Result<Accepted> {
        let Self { v4, v6, elsewhere, .. } = self;
        let v6 = async {
            match v6 {
                Some(v6) => v6.accept().await,
                None => future::pending().await,
            }
        };
        let elsewhere = async {
            match elsewhere {
                Some(elsewhere) => elsewhere.recv().await,
                None => None,
            }
        };
        tokio::select! {
            accepted = v4.accept() => accepted.map(over_tcp),
            accepted = v6 => accepted.map(over_tcp),
            Some(accepted) = elsewhere => Ok(accepted),
        }
    }
}

async fn bind(
    address: SocketAddr,
    earlier: u16,
    kept: &[std::net::TcpListener],
) -> Result<(TcpListener, UdpSocket), Error> {
    let failed = |error| Error::Listen { address, error };
    let fits = |local: SocketAddr| local.ip() == address.ip() && [0, local.port()].contains(&address.port());
    if let Some(kept) = kept.iter().find(|kept| kept.local_addr().is_ok_and(fits)) {
        kept.set_nonblocking(true).map_err(failed)?;
        let listener = kept.try_clone().and_then(TcpListener::from_std).map_err(failed)?;
        let datagrams = UdpSocket::bind(listener.local_addr().map_err(failed)?).await.map_err(failed)?;
        return Ok((listener, datagrams));
    }
    if address.port() == 0 && earlier != 0 {
        let address = SocketAddr::new(address.ip(), earlier);
        match bind_both(address).await {
            Err(Error::Listen { error, .. }) if error.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!(%address, "the earlier agent's port is taken; another one is used");
            }
            bound => return bound,
        }
    }
    bind_both(address).await
}

/// Binds an address over TCP and UDP alike; port 0 is any that both are free at.
async fn bind_both(address: SocketAddr) -> Result<(TcpListener, UdpSocket), Error> {
    let failed = |error| Error::Listen { address, error };
    let mut tried = 0;
    loop {
        tried += 1;
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        match UdpSocket::bind(listener.local_addr().map_err(failed)?).await {
            Ok(datagrams) => return Ok((listener, datagrams)),
            Err(error)
                if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && tried < TRIES => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Closes with a reset: nothing can be said in a protocol that was not chosen.
pub(crate) fn reset(stream: Stream) {
    if let Stream::Tcp(stream) = stream
        && let Err(error) = stream.set_zero_linger()
    {
        tracing::debug!(%error, "closed without a reset");
    }
}

/// Waits for the tasks to end, up to `limit` or until `hurry` resolves. Returns how many are left.
pub(crate) async fn drain(
    tasks: &mut JoinSet<()>,
    limit: Duration,
    hurry: impl Future<Output = ()>,
) -> usize {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    };
    tokio::select! {
        () = all => {}
        () = sleep(limit) => {}
        () = hurry => {}
    }
    tasks.len()
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a session's task failed");
    }
}

/// Errors of accept(2) are about one connection, or about the process and pass by waiting.
async fn recover(error: io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::debug!(%error, "a connection was gone before it was accepted");
    } else {
        tracing::error!(%error, "cannot accept connections");
        sleep(RESPITE).await;
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    let codes = [nix::Error::EADDRNOTAVAIL, nix::Error::EAFNOSUPPORT].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let v4_port = taken.local_addr().unwrap().port();
        let error = Listeners::bind(&Listen { v4_port, v6_port: 0 }, (0, 0), Vec::new())
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(&format!("127.0.0.1:{v4_port}")), "{error}");
    }

    #[tokio::test]
    async fn the_earlier_agents_ports_are_taken_again_and_others_if_somebody_has_them() {
        let earlier = Listeners::bind(&Listen::default(), (0, 0), Vec::new()).await.unwrap().ports().unwrap();
        let again = Listeners::bind(&Listen::default(), earlier, Vec::new()).await.unwrap();
        assert_eq!(again.ports().unwrap(), earlier);
        let beside = Listeners::bind(&Listen::default(), earlier, Vec::new()).await.unwrap();
        assert_ne!(beside.ports().unwrap().0, earlier.0);
    }

    #[tokio::test]
    async fn a_listener_that_was_kept_is_used_with_the_connections_that_wait_there() {
        let before = Listeners::bind(&Listen::default(), (0, 0), Vec::new()).await.unwrap();
        let ports = before.ports().unwrap();
        let kept = ("v4".to_owned(), before.v4.as_fd().try_clone_to_owned().unwrap());
        let client = TcpStream::connect(("127.0.0.1", ports.0)).await.unwrap();
        drop(before);
        let mut after = Listeners::bind(&Listen::default(), ports, vec![kept]).await.unwrap();
        assert_eq!(after.ports().unwrap(), ports);
        assert_eq!(after.accept().await.unwrap().1.to_string(), client.local_addr().unwrap().to_string());
    }
}
