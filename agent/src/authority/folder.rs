//! The host's authority on disk, and its change for the next one.
//!
//! `ca.key` and `ca.pem` are the authority that signs. `next.key` and `next.pem` are one that was begun and signs nothing yet:
//! clients come to trust it first. Each is written key first and takes the other's place key first, so that what a crash
//! leaves can be told, and is brought to its end by whoever comes next.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData};
use zeroize::Zeroizing;

use super::{AuthorityError, DAY, Within, named, set_validity};
use crate::{
    config::{self, Config},
    files,
};

/// How long an authority is valid.
const LIFE: Duration = Duration::from_secs(3653 * 24 * 60 * 60);
/// Most bytes of each file.
const LONGEST: usize = 64 * 1024;

/// Where the host's authority is kept.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    /// The directory.
    pub(crate) path: PathBuf,
    /// What the host is called.
    pub(crate) host: String,
    /// What an authority that is begun may vouch for.
    pub(crate) within: Within,
}

/// The certificate of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// As clients are given it.
    pub(crate) pem: String,
    /// What it may vouch for.
    pub(crate) within: Within,
    /// From when on it counts.
    begins: SystemTime,
    /// From when on it counts for nothing.
    pub(crate) ends: SystemTime,
    sha256: [u8; 32],
    /// SubjectPublicKeyInfo, DER.
    key: Vec<u8>,
}

/// An authority with its key.
pub(super) struct Signer {
    pub(super) certificate: Certificate,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

/// The two files of an authority.
struct Pair {
    key: PathBuf,
    certificate: PathBuf,
}

impl Folder {
    /// This host's.
    pub(crate) fn of(config: &Config) -> Self {
        Self { path: config.authority(), host: config::host_name(), within: config.authority.names.clone() }
    }

    /// The authority that signs, begun if there is none, and the next one if there is.
    pub(super) fn open(&self, now: SystemTime) -> Result<(Signer, Option<Signer>), AuthorityError> {
        let _alone = self.lock()?;
        let (current, next) = (self.current(), self.next());
        self.settle()?;
        if !current.key.exists() && !current.certificate.exists() {
            self.begin(&next, now)?;
            self.promote()?;
        }
        let (signer, following) = (current.load()?, next.is_whole().then(|| next.load()).transpose()?);
        let newest = following.as_ref().unwrap_or(&signer);
        if newest.certificate.within != self.within {
            let was = newest.certificate.within.to_string();
            return Err(AuthorityError::Constrained { was, asked: self.within.to_string() });
        }
        Ok((signer, following))
    }

    /// Begins the next authority, unless that was done: its certificate.
    pub(crate) fn renew(&self, now: SystemTime) -> Result<Certificate, AuthorityError> {
        let _alone = self.lock()?;
        self.settle()?;
        if !self.current().is_whole() {
            return Err(AuthorityError::None(self.current().certificate));
        }
        let next = self.next();
        if next.is_whole() {
            let begun = next.load()?.certificate;
            if begun.within == self.within && begun.counts(now) {
                return Ok(begun);
            }
        }
        self.begin(&next, now)
    }

    /// Has the next authority take the place of the one that signs: its certificate.
    pub(crate) fn finish(&self) -> Result<Certificate, AuthorityError> {
        let _alone = self.lock()?;
        self.settle()?;
        if !self.next().is_whole() {
            return Err(AuthorityError::NotBegun);
        }
        let next = self.next().load()?.certificate;
        self.promote()?;
        Ok(next)
    }

    /// What clients are to trust, the one that signs first. Anybody may read it.
    pub(crate) fn trusted(&self, now: SystemTime) -> Result<Vec<Certificate>, AuthorityError> {
        let current = self.current().certificate;
        if !current.exists() {
            return Err(AuthorityError::None(current));
        }
        let mut found = Vec::new();
        for path in [current, self.next().certificate] {
            if path.exists() {
                found.push(Certificate::read(&path)?);
            }
        }
        // While one takes the other's place, both files may be the same.
        found.dedup();
        let ended = found.first().map(Certificate::ends_on).unwrap_or_default();
        found.retain(|certificate| !certificate.is_over(now));
        if found.is_empty() { Err(AuthorityError::Over(ended)) } else { Ok(found) }
    }

    fn current(&self) -> Pair {
        Pair::named(&self.path, "ca")
    }

    fn next(&self) -> Pair {
        Pair::named(&self.path, "next")
    }

    /// Brings to its end what a crash broke off.
    fn settle(&self) -> Result<(), AuthorityError> {
        let (current, next) = (self.current(), self.next());
        if next.certificate.exists() && !next.key.exists() {
            // The key went before its certificate.
            let coming = Certificate::read(&next.certificate)?;
            if !current.key.exists() || coming.key != key(&current.key)?.subject_public_key_info() {
                return Err(AuthorityError::Half(next.key));
            }
            return self.moved(&next.certificate, &current.certificate);
        }
        if next.is_whole() && !current.key.exists() && !current.certificate.exists() {
            return self.promote();
        }
        Ok(())
    }

    fn promote(&self) -> Result<(), AuthorityError> {
        let (current, next) = (self.current(), self.next());
        self.moved(&next.key, &current.key)?;
        self.moved(&next.certificate, &current.certificate)
    }

    /// On disk before anything else is.
    fn moved(&self, from: &Path, to: &Path) -> Result<(), AuthorityError> {
        fs::rename(from, to).map_err(AuthorityError::file(from))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), AuthorityError> {
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(AuthorityError::file(&self.path))
    }

    /// Held until dropped. The file is its owner's alone: whoever may open what is locked could hold it for ever.
    fn lock(&self) -> Result<File, AuthorityError> {
        let path = self.path.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(AuthorityError::file(&path))
    }

    fn begin(&self, pair: &Pair, now: SystemTime) -> Result<Certificate, AuthorityError> {
        let failed = |error: rcgen::Error| AuthorityError::Mint(error.to_string());
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("Tidegate on {} {}", self.host, day(now)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.name_constraints = self.within.constraints();
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, now + LIFE);
        let key = KeyPair::generate().map_err(failed)?;
        let signed = params.self_signed(&key).map_err(failed)?;
        let secret = Zeroizing::new(key.serialize_pem());
        let write = |path: &Path, contents: &[u8], mode| {
            files::write(path, contents, mode).map_err(AuthorityError::file(path))
        };
        // An older certificate would be without its key.
        match fs::remove_file(&pair.certificate) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(AuthorityError::file(&pair.certificate)(error));
            }
            _ => self.sync()?,
        }
        write(&pair.key, secret.as_bytes(), 0o600)?;
        self.sync()?;
        write(&pair.certificate, signed.pem().as_bytes(), 0o644)?;
        self.sync()?;
        Certificate::read(&pair.certificate)
    }
}

impl Pair {
    fn named(folder: &Path, name: &str) -> Self {
        let file = |extension: &str| folder.join(format!("{name}.{extension}"));
        Self { key: file("key"), certificate: file("pem") }
    }

    fn is_whole(&self) -> bool {
        self.key.exists() && self.certificate.exists()
    }

    fn load(&self) -> Result<Signer, AuthorityError> {
        for (path, other) in [(&self.key, &self.certificate), (&self.certificate, &self.key)] {
            if !path.exists() && other.exists() {
                return Err(AuthorityError::Half(path.clone()));
            }
        }
        let (certificate, key) = (Certificate::read(&self.certificate)?, key(&self.key)?);
        if certificate.key != key.subject_public_key_info() {
            return Err(AuthorityError::Mismatched(self.key.clone(), self.certificate.clone()));
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate.pem, key);
        let unusable = |error| AuthorityError::Unusable { path: self.certificate.clone(), error };
        Ok(Signer { issuer: issuer.map_err(unusable)?, certificate })
    }
}

impl Certificate {
    /// Reads what nobody else may have written.
    fn read(path: &Path) -> Result<Self, AuthorityError> {
        let unusable =
            || AuthorityError::Unusable { path: path.into(), error: rcgen::Error::CouldNotParseCertificate };
        Self::parse(&text(path, 0o022)?).ok_or_else(unusable)
    }

    fn parse(pem: &str) -> Option<Self> {
        let (_, der) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
        let certificate = der.parse_x509().ok()?;
        let at = |seconds: i64| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
        };
        let validity = certificate.validity();
        Some(Self {
            within: Within::of(&certificate)?,
            begins: at(validity.not_before.timestamp().max(0))?,
            ends: at(validity.not_after.timestamp())?,
            sha256: digest::digest(&digest::SHA256, &der.contents).as_ref().try_into().ok()?,
            key: certificate.public_key().raw.to_vec(),
            pem: pem.to_owned(),
        })
    }

    /// Whether it counts at this time.
    pub(crate) fn counts(&self, now: SystemTime) -> bool {
        (self.begins..self.ends).contains(&now)
    }

    /// Whether it counts for nothing any more.
    pub(crate) fn is_over(&self, now: SystemTime) -> bool {
        now >= self.ends
    }

    /// Whole days until then.
    pub(crate) fn days_left(&self, now: SystemTime) -> u64 {
        self.ends.duration_since(now).unwrap_or_default().as_secs() / DAY.as_secs()
    }

    /// The day on which it begins to count: `2026-11-22`.
    pub(crate) fn begins_on(&self) -> String {
        day(self.begins)
    }

    /// The day on which it ends: `2036-11-22`.
    pub(crate) fn ends_on(&self) -> String {
        day(self.ends)
    }

    /// The digest by which it is told from others, in hex.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(self.sha256)
    }
}

/// A day as people write it, of UTC.
fn day(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| "never".into(), |at| at.strftime("%Y-%m-%d").to_string())
}

fn key(path: &Path) -> Result<KeyPair, AuthorityError> {
    let unusable = |error| AuthorityError::Unusable { path: path.into(), error };
    KeyPair::from_pem(&text(path, 0o077)?).map_err(unusable)
}

fn text(path: &Path, forbidden: u32) -> Result<Zeroizing<String>, AuthorityError> {
    let contents = files::read_trusted(path, LONGEST, forbidden).map_err(AuthorityError::file(path))?;
    let no_pem = |_| AuthorityError::file(path)(io::Error::new(io::ErrorKind::InvalidData, "it is not PEM"));
    Ok(Zeroizing::new(std::str::from_utf8(&contents).map_err(no_pem)?.to_owned()))
}
