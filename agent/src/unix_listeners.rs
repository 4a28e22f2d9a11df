//! The agent's own Unix sockets, one for each that is a resource: the kernel sends there whoever connects to that one.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, net},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use tidegate_kernel::UnixResource;
use tokio::{net::UnixListener, runtime::Handle, sync::mpsc, task::AbortHandle};

use crate::listener::{Accepted, Caller};

/// Bytes of a digest that name a socket: its path must be short (unix(7)).
const NAME: usize = 12;

/// How long to wait when the process has no descriptors left: accepting again at once would fail again.
const RESPITE: Duration = Duration::from_millis(50);

/// The listeners, by what leads to them.
pub(crate) struct UnixListeners {
    connections: mpsc::Sender<Accepted>,
    runtime: Handle,
    bound: Mutex<BTreeMap<PathBuf, Bound>>,
}

/// One of them, until dropped.
struct Bound {
    listener: PathBuf,
    accepting: AbortHandle,
}

/// Where clients of a Unix socket are sent instead: a path of its own in `folder`, the same at every start.
pub(crate) fn listener_of(folder: &Path, socket: &Path) -> PathBuf {
    let name = digest(&SHA256, socket.as_os_str().as_bytes());
    folder.join(hex::encode(name.as_ref().get(..NAME).unwrap_or_default()))
}

impl UnixListeners {
    /// Has what is accepted sent to `connections`, by tasks of the current runtime. What an earlier agent left in `folder`
    /// is removed.
    pub(crate) fn new(folder: &Path, connections: mpsc::Sender<Accepted>) -> io::Result<Self> {
        for entry in fs::read_dir(folder)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self { connections, runtime: Handle::current(), bound: Mutex::default() })
    }

    /// Listens for each of these as well.
    pub(crate) fn begin(&self, resources: &[UnixResource]) -> io::Result<()> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        for UnixResource { path, listener, .. } in resources {
            if !bound.contains_key(path) {
                let one = self.bind(path, listener).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", listener.display()))
                })?;
                bound.insert(path.clone(), one);
            }
        }
        Ok(())
    }

    /// Listens for these alone.
    pub(crate) fn keep(&self, resources: &[UnixResource]) {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        bound.retain(|socket, _| resources.iter().any(|resource| resource.path == *socket));
    }

    fn bind(&self, socket: &Path, path: &Path) -> io::Result<Bound> {
        let listener = net::UnixListener::bind(path)?;
        // Whoever wasn't sent here by the kernel has no origin.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        listener.set_nonblocking(true)?;
        let _within = self.runtime.enter();
        let accepting =
            accept_all(UnixListener::from_std(listener)?, socket.into(), self.connections.clone());
        let accepting = self.runtime.spawn(accepting).abort_handle();
        Ok(Bound { listener: path.to_owned(), accepting })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Err(error) = fs::remove_file(&self.listener) {
            tracing::warn!(path = %self.listener.display(), %error, "socket not removed");
        }
    }
}

/// Accepts for the agent's own loop, which counts and serves.
async fn accept_all(listener: UnixListener, socket: Arc<Path>, connections: mpsc::Sender<Accepted>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if connections.send((stream.into(), Caller::Unix(socket.clone()))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(socket = %socket.display(), %error, "cannot accept connections");
                tokio::time::sleep(RESPITE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    fn resource(folder: &Path, path: &str) -> UnixResource {
        let path = PathBuf::from(path);
        let listener = listener_of(folder, &path);
        UnixResource { path, listener, resource: "db".into() }
    }

    #[tokio::test]
    async fn each_resource_has_a_socket_of_its_own_which_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("left"), "").unwrap();
        let (sender, mut accepted) = mpsc::channel(4);
        let listeners = UnixListeners::new(folder.path(), sender).unwrap();
        let (one, two) = (resource(folder.path(), "/run/one"), resource(folder.path(), "/run/two"));
        listeners.begin(&[one.clone(), two.clone()]).unwrap();
        // Again, as at a reload.
        listeners.begin(std::slice::from_ref(&one)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let _client = UnixStream::connect(&two.listener).await.unwrap();
        let (_, caller) = accepted.recv().await.unwrap();
        assert_eq!(caller.to_string(), "unix:/run/two");
        listeners.keep(std::slice::from_ref(&one));
        assert!(UnixStream::connect(&two.listener).await.is_err());
        assert!(UnixStream::connect(&one.listener).await.is_ok());
    }
}
