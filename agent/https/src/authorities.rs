//! The authorities that are trusted: those of a file, or the system's.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem, pem::PemObject},
};
use thiserror::Error;

/// Why nobody can be trusted.
#[derive(Debug, Error)]
pub enum AuthoritiesError {
    /// The file can't be read.
    #[error("{} can't be read: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is something else.
    #[error("{} is not a file of PEM certificates: {error}", path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
        /// Why.
        error: pem::Error,
    },
    /// One of its certificates is no authority's.
    #[error("certificate {number} of {} can't be used: {error}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        number: usize,
        /// Why.
        error: rustls::Error,
    },
    /// There is nothing in it.
    #[error("{} holds no PEM certificate", .0.display())]
    Empty(PathBuf),
    /// The system has none that can be used: why, if it says.
    #[error("the system has no authorities{0}: install ca-certificates, or name a file of PEM certificates")]
    NoSystem(String),
}

/// The certificates of a PEM file's authorities, each of which can be used, or of the system's, as many as can be.
///
/// # Errors
/// There is none.
pub fn authorities(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, AuthoritiesError> {
    match ca {
        Some(path) => of_file(path),
        None => of_system(),
    }
}

/// The same, to verify by.
///
/// # Errors
/// There is none.
pub fn roots(ca: Option<&Path>) -> Result<RootCertStore, AuthoritiesError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities(ca)?);
    Ok(roots)
}

fn of_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, AuthoritiesError> {
    let pem = fs::read(path).map_err(|error| AuthoritiesError::Unreadable { path: path.into(), error })?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| AuthoritiesError::NotPem { path: path.into(), error })?;
    for (index, certificate) in certificates.iter().enumerate() {
        let unusable = |error| AuthoritiesError::Unusable { path: path.into(), number: index + 1, error };
        RootCertStore::empty().add(certificate.clone()).map_err(unusable)?;
    }
    if certificates.is_empty() { Err(AuthoritiesError::Empty(path.into())) } else { Ok(certificates) }
}

fn of_system() -> Result<Vec<CertificateDer<'static>>, AuthoritiesError> {
    let mut found = rustls_native_certs::load_native_certs();
    found.certs.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(AuthoritiesError::NoSystem(why));
    }
    Ok(found.certs)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn every_certificate_of_a_file_is_taken_and_one_that_is_none_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let of = |text: &str| {
            fs::write(&path, text).unwrap();
            authorities(Some(&path)).map_err(|error| error.to_string())
        };
        let one = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        assert_eq!(of(&one.repeat(2)).unwrap().len(), 2);
        assert_eq!(roots(Some(&path)).unwrap().len(), 2);
        let none = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, wanted) in [
            (format!("{one}{none}"), "certificate 2 of "),
            ("-----BEGIN CERTIFICATE-----\n".into(), "is not a file of PEM certificates"),
            ("nothing".into(), "holds no PEM certificate"),
        ] {
            assert!(of(&text).unwrap_err().contains(wanted), "{text}");
        }
        fs::remove_file(&path).unwrap();
        assert!(authorities(Some(&path)).unwrap_err().to_string().contains("ca.pem can't be read"));
    }
}
