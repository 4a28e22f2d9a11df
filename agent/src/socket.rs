//! The agent's Unix sockets.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixStream as Blocking},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::{UnixListener, UnixStream};

use crate::error::Error;

/// A socket of the agent's; its file is removed when dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket. One that a dead agent left behind is replaced, one that answers is not.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        match Blocking::connect(path) {
            Ok(_) => return Err(Error::AlreadyRunning(path.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => fs::remove_file(path).map_err(Error::file(path))?,
        }
        // The process' umask makes it 0600.
        let listener = UnixListener::bind(path).map_err(Error::file(path))?;
        Ok(Self { listener, path: path.into() })
    }

    /// The same, for every account to connect to.
    pub(crate) fn bind_for_all(path: &Path) -> Result<Self, Error> {
        let socket = Self::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(Error::file(path))?;
        Ok(socket)
    }

    /// Serves every connection until dropped.
    pub(crate) async fn accept<F: Future<Output = ()> + Send + 'static>(
        self,
        serve: impl Fn(UnixStream) -> F,
    ) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "socket");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "socket not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_answers_is_not_taken_over_and_a_dead_one_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let living = Socket::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(Error::AlreadyRunning(_))));
        drop(living);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        Socket::bind(&path).unwrap();
    }
}
