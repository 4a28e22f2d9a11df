//! Signed checkpoints: the C2SP formats tlog-checkpoint and signed-note with Ed25519.

use std::{fmt, path::Path};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    error::{At, StoreError},
    hash::Hash,
    layout::private,
};

/// What a checkpoint says: the log had this many leaves, and this was their tree's hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// The log's name, which is also its key's.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The Merkle tree hash over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The signed text.
    fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// Reads a note and checks that this key signed it.
    pub fn verify(note: &str, key: &PublicKey) -> Result<Self, StoreError> {
        let malformed = |why: &str| StoreError::Malformed { what: "signed checkpoint", why: why.to_owned() };
        let (body, signatures) = note.split_once("\n\n").ok_or_else(|| malformed("no signature"))?;
        let mut lines = body.lines();
        let origin = lines.next().unwrap_or_default().to_owned();
        let size = lines.next().and_then(|size| size.parse().ok()).ok_or_else(|| malformed("no size"))?;
        let root = lines.next().and_then(|root| STANDARD.decode(root).ok());
        let root = root.and_then(|root| root.try_into().ok()).ok_or_else(|| malformed("no root hash"))?;
        let this = Self { origin, size, root: Hash::from_bytes(root) };
        if this.origin != key.name {
            return Err(malformed(&format!("it is of the log {:?}, not of {:?}", this.origin, key.name)));
        }
        let body = format!("{body}\n");
        if this.body() != body {
            return Err(malformed("more lines than origin, size and root hash"));
        }
        let signed = signatures.lines().any(|line| key.signed(line, body.as_bytes()));
        if signed { Ok(this) } else { Err(malformed(&format!("the key {key} did not sign it"))) }
    }
}

/// The public key of a log, in the form that C2SP signed-note calls a verifier key: `name+id+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: [u8; 32],
}

impl PublicKey {
    /// Reads `name+id+key`.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let malformed =
            |why: &str| StoreError::Malformed { what: "public key of a log", why: why.to_owned() };
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("it is not name+id+key"));
        };
        let key = STANDARD.decode(key).map_err(|_| malformed("the key is not base64"))?;
        let Some((&ALGORITHM, key)) = key.split_first() else {
            return Err(malformed("it is not an Ed25519 key"));
        };
        let key = key.try_into().map_err(|_| malformed("an Ed25519 key has 32 bytes"))?;
        let this = Self { name: name.to_owned(), key };
        if hex::encode(this.id()) != id {
            return Err(malformed("the id is not this key's"));
        }
        Ok(this)
    }

    /// The log's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> [u8; 4] {
        let hash = Hash::of(&[self.name.as_bytes(), b"\n", &[ALGORITHM], &self.key]);
        let [a, b, c, d, ..] = *hash.as_bytes();
        [a, b, c, d]
    }

    /// Whether this signature line is a valid one of this key.
    pub(crate) fn signed(&self, line: &str, body: &[u8]) -> bool {
        let signature = line.strip_prefix("\u{2014} ").and_then(|line| line.split_once(' '));
        let Some((name, signature)) = signature else { return false };
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        let Some((id, signature)) = signature.split_first_chunk::<4>() else { return false };
        name == self.name
            && *id == self.id()
            && UnparsedPublicKey::new(&ED25519, self.key).verify(body, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[ALGORITHM], self.key.as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(key))
    }
}

/// The key that signs checkpoints.
pub(crate) struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Makes a key for the log of this name and keeps it at `path`, for its owner only.
    pub(crate) fn create(path: &Path, name: &str) -> Result<Self, StoreError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| StoreError::Crypto("make a key"))?;
        let document = pair.to_pkcs8v1().map_err(|_| StoreError::Crypto("encode a key"))?;
        let encoded = Zeroizing::new(STANDARD.encode(document.as_ref()));
        let pem = Zeroizing::new(format!("{BEGIN}\n{}\n{END}\n", *encoded));
        let mut file = private().create_new(true).open(path).at(path)?;
        std::io::Write::write_all(&mut file, pem.as_bytes()).and_then(|()| file.sync_all()).at(path)?;
        Self::of(pair, name)
    }

    /// Reads the key of the log of this name.
    pub(crate) fn load(path: &Path, name: &str) -> Result<Self, StoreError> {
        let malformed = || StoreError::Untrusted {
            path: path.to_owned(),
            why: "not an Ed25519 key in PKCS#8 form; restore it from a backup, or move the directory away"
                .into(),
        };
        let pem = Zeroizing::new(std::fs::read_to_string(path).at(path)?);
        let body: Zeroizing<String> =
            Zeroizing::new(pem.lines().filter(|line| !line.starts_with("-----")).collect());
        let der = Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| malformed())?);
        Self::of(Ed25519KeyPair::from_pkcs8(&der).map_err(|_| malformed())?, name)
    }

    fn of(pair: Ed25519KeyPair, name: &str) -> Result<Self, StoreError> {
        let key =
            pair.public_key().as_ref().try_into().map_err(|_| StoreError::Crypto("show a public key"))?;
        Ok(Self { pair, public: PublicKey { name: name.to_owned(), key } })
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A signed note that says that the log had this size and tree hash.
    pub(crate) fn sign(&self, size: u64, root: Hash) -> Result<String, StoreError> {
        self.sign_text(&Checkpoint { origin: self.public.name.clone(), size, root }.body())
    }

    /// A signed note of this text, which ends with a newline.
    pub(crate) fn sign_text(&self, body: &str) -> Result<String, StoreError> {
        let signature = self.pair.try_sign(body.as_bytes()).map_err(|_| StoreError::Crypto("sign a note"))?;
        let signature = [self.public.id().as_slice(), signature.as_ref()].concat();
        Ok(format!("{body}\n\u{2014} {} {}\n", self.public.name, STANDARD.encode(signature)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

/// signed-note's number for Ed25519.
const ALGORITHM: u8 = 1;
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_verifies_with_its_key_only_and_only_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let key = SigningKey::create(&directory.path().join("a"), "log.example").unwrap();
        let other = SigningKey::create(&directory.path().join("b"), "log.example").unwrap();
        let note = key.sign(7, Hash::of(&[b"root"])).unwrap();
        let checkpoint = Checkpoint::verify(&note, key.public()).unwrap();
        assert_eq!((checkpoint.size, checkpoint.root), (7, Hash::of(&[b"root"])));
        assert!(Checkpoint::verify(&note, other.public()).is_err());
        assert!(Checkpoint::verify(&note.replacen("\n7\n", "\n8\n", 1), key.public()).is_err());
        let longer = note.replacen("\n\n", "\nmore\n\n", 1);
        assert!(Checkpoint::verify(&longer, key.public()).is_err());
    }

    #[test]
    fn keys_survive_being_written_and_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = SigningKey::create(&path, "log.example").unwrap();
        assert_eq!(SigningKey::load(&path, "log.example").unwrap().public(), made.public());
        let text = made.public().to_string();
        assert_eq!(&PublicKey::parse(&text).unwrap(), made.public());
        assert!(PublicKey::parse(&text.replacen("log", "lag", 1)).is_err());
    }

    /// The example of Go's `golang.org/x/mod/sumdb/note`, which the format comes from.
    #[test]
    fn a_note_of_the_reference_implementation_verifies() {
        let key =
            PublicKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let body = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
        let signature = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdng\
                         otpRZb6KE6RyyBwJnAM=";
        assert!(key.signed(signature, body.as_bytes()));
        assert!(!key.signed(signature, body.trim_end().as_bytes()));
    }
}
