//! Credentials from files.
//!
//! A credential `shop-app` is up to five plain files side by side: `shop-app.user`, `shop-app.password`, `shop-app.token`,
//! `shop-app.certificate` and `shop-app.key` (both PEM). Each holds the value and nothing else; one line break at the
//! end of user, password and token is not part of it. They are looked for in systemd's credential directory
//! (`LoadCredential=shop-app.password:…`), then in the configured one; the parts of one credential come from one place.
//! Every file belongs to root and is no symbolic link; password, token and key are mode 0600 or stricter.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidegate_gate::{BoxFuture, Credential, CredentialError, Credentials, Secret, policy::Resource};
use zeroize::Zeroizing;

use crate::files;

/// Most bytes of one part. A certificate chain of some dozen links fits.
const LONGEST: usize = 64 * 1024;

/// Credentials from directories, the first that has any part of one counts.
#[derive(Debug, Clone)]
pub(crate) struct Files(Arc<[PathBuf]>);

impl Files {
    /// `systemd` is the value of `$CREDENTIALS_DIRECTORY`.
    pub(crate) fn new(systemd: Option<PathBuf>, configured: PathBuf) -> Self {
        Self(systemd.into_iter().chain([configured]).collect())
    }

    /// Reads the credential from its files, blocking.
    pub(crate) fn read(&self, name: &str) -> Result<Credential, CredentialError> {
        if !Resource::is_credential_name(name) {
            let why =
                "a name consists of letters, digits, '-', '_' and '.', and begins with a letter or digit";
            return Err(CredentialError::Unusable { name: name.into(), why: why.into() });
        }
        for directory in &*self.0 {
            if let Some(credential) = from_directory(directory, name)? {
                return Ok(credential);
            }
        }
        Err(CredentialError::Missing(name.into()))
    }
}

impl Credentials for Files {
    fn credential<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        let (files, asked) = (self.clone(), name.to_owned());
        Box::pin(async move {
            tokio::task::spawn_blocking(move || files.read(&asked)).await.unwrap_or_else(|_| {
                Err(CredentialError::Unusable { name: name.into(), why: "reading it was cut off".into() })
            })
        })
    }
}

/// None if the directory has no part of it, or is not there.
fn from_directory(directory: &Path, name: &str) -> Result<Option<Credential>, CredentialError> {
    match files::check_directory(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let why = format!("{}: {error}", directory.display());
            return Err(CredentialError::Unusable { name: name.into(), why });
        }
    }
    let part = |suffix: &str, forbidden: u32| part(directory, name, suffix, forbidden);
    let user = part("user", 0o022)?;
    let password = part("password", 0o077)?;
    let token = part("token", 0o077)?;
    let certificate = part("certificate", 0o022)?;
    let key = part("key", 0o077)?;
    if [&user, &password, &token, &certificate, &key].iter().all(|part| part.is_none()) {
        return Ok(None);
    }
    if certificate.is_some() != key.is_some() {
        let why = format!("{name}.certificate and {name}.key belong together, and one is missing");
        return Err(CredentialError::Unusable { name: name.into(), why });
    }
    Ok(Some(Credential {
        user: user.map(|user| text(name, &user)).transpose()?,
        password: password.map(|password| Secret::new(line(&password).to_vec())),
        token: token.map(|token| Secret::new(line(&token).to_vec())),
        certificate: certificate.map(|pem| pem.as_slice().into()),
        key: key.map(|pem| Secret::new(pem.to_vec())),
    }))
}

/// None if there is no such file.
fn part(
    directory: &Path,
    name: &str,
    suffix: &str,
    forbidden: u32,
) -> Result<Option<Zeroizing<Vec<u8>>>, CredentialError> {
    let path = directory.join(format!("{name}.{suffix}"));
    match files::read_trusted(&path, LONGEST, forbidden) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(CredentialError::Unusable { name: name.into(), why: format!("{}: {error}", path.display()) })
        }
    }
}

/// The contents without one line break at the end.
fn line(contents: &[u8]) -> &[u8] {
    let contents = contents.strip_suffix(b"\n").unwrap_or(contents);
    contents.strip_suffix(b"\r").unwrap_or(contents)
}

fn text(name: &str, contents: &[u8]) -> Result<Arc<str>, CredentialError> {
    std::str::from_utf8(line(contents)).map(Into::into).map_err(|_| CredentialError::Unusable {
        name: name.into(),
        why: format!("{name}.user is not UTF-8"),
    })
}

/// Names become file names: no path, nothing hidden.
#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    fn put(directory: &Path, file: &str, contents: &str, mode: u32) {
        let path = directory.join(file);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn refused(directory: &Path, name: &str) -> String {
        let error = Files::new(None, directory.into()).read(name).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        error
    }

    #[test]
    fn the_parts_are_the_files_without_their_last_line_break() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "shop.user", "app\n", 0o644);
        put(directory.path(), "shop.password", "hunter2 \n", 0o600);
        let credential = Files::new(None, directory.path().into()).read("shop").unwrap();
        assert_eq!(credential.user.as_deref(), Some("app"));
        assert_eq!(credential.password.unwrap().expose(), b"hunter2 ");
        assert!(credential.key.is_none() && credential.token.is_none());
        put(directory.path(), "shop.token", "of a session\n", 0o600);
        let credential = Files::new(None, directory.path().into()).read("shop").unwrap();
        assert_eq!(credential.token.unwrap().expose(), b"of a session");
    }

    #[test]
    fn a_password_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o660] {
            put(directory.path(), "shop.password", "hunter2", mode);
            let error = refused(directory.path(), "shop");
            assert!(error.contains("shop.password") && error.contains(&format!("{mode:04o}")), "{error}");
        }
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "shop.password", "hunter2", 0o600);
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(refused(directory.path(), "shop").contains("0777"));
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "real", "hunter2", 0o600);
        symlink(directory.path().join("real"), directory.path().join("shop.password")).unwrap();
        assert!(refused(directory.path(), "shop").contains("symbolic link"));
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "shop.password", "hunter2", 0o600);
        if std::os::unix::fs::chown(directory.path().join("shop.password"), Some(61_090), None).is_ok() {
            assert!(refused(directory.path(), "shop").contains("61090"));
        }
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "shop.password", &"x".repeat(LONGEST + 1), 0o600);
        assert!(refused(directory.path(), "shop").contains("longer than"));
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "shop.certificate", "PEM", 0o644);
        assert!(refused(directory.path(), "shop").contains("belong together"));
    }

    #[test]
    fn a_name_that_is_a_path_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["../shop", "/etc/shadow", "", ".hidden", "a/b"] {
            assert!(refused(directory.path(), name).contains("a name consists of"));
        }
    }

    #[test]
    fn the_first_place_that_has_a_part_gives_the_whole() {
        let (systemd, configured) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(systemd.path(), "shop.password", "first", 0o400);
        put(configured.path(), "shop.password", "second", 0o600);
        put(configured.path(), "shop.user", "app", 0o600);
        let files = Files::new(Some(systemd.path().into()), configured.path().into());
        let credential = files.read("shop").unwrap();
        assert_eq!(credential.password.unwrap().expose(), b"first");
        assert_eq!(credential.user, None);
    }

    #[test]
    fn a_credential_that_is_nowhere_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(refused(directory.path(), "shop").contains("none of the configured places"));
    }
}
