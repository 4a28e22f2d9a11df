//! Network namespaces beside the agent's own: containers. The agent listens on their loopback, too, for as long as governed
//! processes are in them, and connects upstream from its own.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use tidegate_kernel::netns::{self, Inside, Namespace};
use tidegate_policy::Sharer;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    dns::Dns,
    listener::{Accepted, Caller},
};

/// Namespaces at one time; connections in any more are refused.
const MOST: usize = 512;
/// Namespaces of the processes of one user, or of one container that root made, at one time: whoever may make some must not
/// take the places of others.
const MOST_OF_ONE: usize = 64;
/// How often it is looked after whether somebody governed is still there: a listening socket keeps a namespace alive.
const ROUND: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted.
const RESPITE: Duration = Duration::from_millis(50);

/// What knows where the agent listens.
pub(crate) trait Places: Send + Sync {
    /// Marks a listener as the agent's own: connections are sent to such ones only.
    fn mark(&self, listener: &std::net::TcpListener) -> Result<(), String>;

    /// From now on the agent listens there, at these ports of 127.0.0.1 and ::1, or nowhere in it.
    fn listen_in(&self, netns: u64, ports: Option<(u16, u16)>) -> Result<(), String>;

    /// As whom the process counts that was seen there. Reads files.
    fn sharer(&self, namespace: &Namespace) -> Sharer;

    /// The network namespaces, by inode, that governed processes are in. Reads files.
    fn inhabited(&self) -> HashSet<u64>;
}

/// The namespaces that the agent listens in, beside its own.
pub(crate) struct Namespaces {
    seen: Option<netns::Namespaces>,
    places: Arc<dyn Places>,
    dns: Arc<Dns>,
    connections: mpsc::Sender<Accepted>,
    held: HashMap<u64, Held>,
}

/// One of them.
struct Held {
    inode: u64,
    sharer: Sharer,
    /// What accepts and answers; its sockets go with it.
    _serving: JoinSet<()>,
}

impl Namespaces {
    /// Those that are `seen`; what is accepted in them is sent to `connections`.
    pub(crate) fn new(
        seen: Option<netns::Namespaces>,
        places: Arc<dyn Places>,
        dns: Arc<Dns>,
        connections: mpsc::Sender<Accepted>,
    ) -> Self {
        Self { seen, places, dns, connections, held: HashMap::new() }
    }

    /// Listens wherever governed processes are seen, until dropped.
    pub(crate) async fn run(mut self) {
        let Some(mut seen) = self.seen.take() else { return };
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = seen.next() => match told {
                    Ok(namespace) => self.enter(namespace).await,
                    Err(error) => {
                        tracing::error!(%error, "no more network namespaces are seen; connections in new ones are refused");
                        return std::future::pending().await;
                    }
                },
                _ = rounds.tick(), if !self.held.is_empty() => self.look_after().await,
            }
        }
    }

    async fn enter(&mut self, namespace: Namespace) {
        let Namespace { cookie, pid, uid } = namespace;
        if self.held.contains_key(&cookie) {
            return;
        }
        let places = self.places.clone();
        let Ok(sharer) = tokio::task::spawn_blocking(move || places.sharer(&namespace)).await else { return };
        if !has_place(self.held.values().map(|held| &held.sharer), &sharer) {
            tracing::warn!(
                pid,
                uid,
                netns = cookie,
                "no place for another network namespace; its connections are refused"
            );
            return;
        }
        let entered = tokio::task::spawn_blocking(move || netns::listen_inside(namespace)).await;
        let held = match entered {
            Ok(Ok(inside)) => self.hold(namespace, inside, sharer),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.into()),
        };
        match held {
            Ok(held) => _ = self.held.insert(cookie, held),
            Err(error) => {
                tracing::warn!(pid, uid, netns = cookie, %error, "its network namespace is not served; its connections are refused");
            }
        }
    }

    /// Serves what comes to these sockets, then tells the kernel that it may come.
    fn hold(&self, namespace: Namespace, inside: Inside, sharer: Sharer) -> io::Result<Held> {
        let Namespace { cookie, pid, uid } = namespace;
        let Inside { v4, v6, inode, is_up } = inside;
        let port =
            |sockets: &(std::net::TcpListener, _)| sockets.0.local_addr().map(|address| address.port());
        let ports = (port(&v4)?, v6.as_ref().map_or(Ok(0), port)?);
        let mut serving = JoinSet::new();
        for (listener, datagrams) in [Some(v4), v6].into_iter().flatten() {
            self.places.mark(&listener).map_err(io::Error::other)?;
            serving.spawn(accept_all(TcpListener::from_std(listener)?, self.connections.clone()));
            serving.spawn(self.dns.clone().serve_datagrams(cookie, UdpSocket::from_std(datagrams)?));
        }
        self.places.listen_in(cookie, Some(ports)).map_err(io::Error::other)?;
        tracing::info!(
            pid,
            uid,
            netns = cookie,
            v4_port = ports.0,
            v6_port = ports.1,
            "listening in a network namespace"
        );
        if !is_up {
            tracing::warn!(
                pid,
                netns = cookie,
                "its loopback interface is down: nothing gets anywhere before `ip link set lo up` in it"
            );
        }
        Ok(Held { inode, sharer, _serving: serving })
    }

    /// Leaves the namespaces where nobody governed is any more.
    async fn look_after(&mut self) {
        let places = self.places.clone();
        let Ok(inhabited) = tokio::task::spawn_blocking(move || places.inhabited()).await else { return };
        let empty: Vec<u64> = self
            .held
            .iter()
            .filter(|(_, held)| !inhabited.contains(&held.inode))
            .map(|(cookie, _)| *cookie)
            .collect();
        for cookie in empty {
            // The kernel first: nothing may be sent to a port that is nobody's.
            match self.places.listen_in(cookie, None) {
                Ok(()) => _ = self.held.remove(&cookie),
                Err(error) => tracing::error!(error, netns = cookie, "a network namespace can't be left"),
            }
            tracing::debug!(netns = cookie, "nobody governed is in a network namespace any more");
        }
    }
}

/// Whether there is a place for one more of theirs beside those that are held.
fn has_place<'a>(held: impl ExactSizeIterator<Item = &'a Sharer>, sharer: &Sharer) -> bool {
    held.len() < MOST && held.filter(|held| *held == sharer).count() < MOST_OF_ONE
}

/// Accepts for the agent's own loop, which counts and serves.
async fn accept_all(listener: TcpListener, connections: mpsc::Sender<Accepted>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                if connections.send((stream.into(), Caller::Tcp(client))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections in a network namespace");
                tokio::time::sleep(RESPITE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_have_places_of_their_own_and_one_with_many_user_ids_has_no_more() {
        let container = |id: usize| Sharer::Container(id.to_string().into());
        let pods: Vec<_> = (0..=MOST_OF_ONE).map(container).collect();
        assert!(has_place(pods.iter(), &container(MOST_OF_ONE + 1)));
        let one = vec![container(1); MOST_OF_ONE];
        assert!(!has_place(one.iter(), &container(1)) && has_place(one.iter(), &Sharer::Account(1)));
        let all: Vec<_> = (0..MOST).map(container).collect();
        assert!(!has_place(all.iter(), &container(MOST)));
    }
}
