use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    time_provider::TimeProvider,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const YEAR: Duration = Duration::from_secs(365 * DAY.as_secs());

/// An authority's directory, with this as `authority.names`.
pub(crate) fn folder(path: &Path, names: &[&str]) -> Folder {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    Folder { path: path.into(), host: "host".into(), within: Within::parse(&names).unwrap() }
}

fn open(folder: &Folder) -> Result<Arc<Authority>, AuthorityError> {
    Authority::open(folder, SystemTime::now()).map(Arc::new)
}

/// A client that trusts this directory's authority, and the server, over memory.
pub(crate) async fn handshake(directory: &Path, server: Arc<ServerConfig>, name: &str) -> Result<(), String> {
    shown(&fs::read_to_string(directory.join("ca.pem")).unwrap(), server, name, 0).await.map(drop)
}

/// A clock that is so many days ahead.
#[derive(Debug)]
struct Ahead(u64);

impl TimeProvider for Ahead {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(now + DAY * u32::try_from(self.0).ok()?))
    }
}

/// The certificate that a client is shown that trusts these, and accepts so many days from now.
async fn shown(
    trusted: &str,
    server: Arc<ServerConfig>,
    name: &str,
    days: u64,
) -> Result<CertificateDer<'static>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_details(provider, Arc::new(Ahead(days)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let (near, far) = tokio::io::duplex(16 * 1024);
    let (connected, _) = tokio::join!(
        TlsConnector::from(Arc::new(client)).connect(name, near),
        TlsAcceptor::from(server).accept(far)
    );
    let connected = connected.map_err(|error| error.to_string())?;
    let certificates = connected.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(certificates.first().ok_or("no certificate")?.clone().into_owned())
}

#[tokio::test]
async fn a_client_that_trusts_the_authority_verifies_every_name_of_a_resource() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&folder(directory.path(), &[])).unwrap();
    let server =
        authority.server_config(&["db.internal".into()], &["192.0.2.7".parse().unwrap()], &[]).unwrap();
    for name in ["db.internal", "192.0.2.7", "localhost", "127.0.0.1", "::1"] {
        handshake(directory.path(), server.clone(), name).await.unwrap();
    }
    let error = handshake(directory.path(), server, "other.internal").await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[test]
fn nobody_who_may_only_read_the_directory_holds_up_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let held = fs::File::open(directory.path()).unwrap();
    held.lock().unwrap();
    open(&folder(directory.path(), &[])).unwrap();
    let lock = fs::metadata(directory.path().join("lock")).unwrap();
    assert_eq!(lock.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn the_authority_is_the_same_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    open(&folder(directory.path(), &[])).unwrap();
    let before = fs::read(directory.path().join("ca.pem")).unwrap();
    let again = open(&folder(directory.path(), &[])).unwrap();
    assert_eq!(fs::read(directory.path().join("ca.pem")).unwrap(), before);
    let server = again.server_config(&["db.internal".into()], &[], &[]).unwrap();
    handshake(directory.path(), server, "db.internal").await.unwrap();
}

#[tokio::test]
async fn a_constrained_authority_vouches_for_what_is_in_it_and_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&folder(directory.path(), &["internal", "10.0.0.0/8"])).unwrap();
    let (names, addresses) = (["db.internal".into(), "internal".into()], ["10.0.0.7".parse().unwrap()]);
    let server = authority.server_config(&names, &addresses, &[]).unwrap();
    for name in ["db.internal", "internal", "localhost", "127.0.0.1", "::1", "10.0.0.7"] {
        handshake(directory.path(), server.clone(), name).await.unwrap();
    }
    let trusted = fs::read_to_string(directory.path().join("ca.pem")).unwrap();
    assert!(openssl_verifies(&trusted, &mint(&authority, &names, &addresses)));
    for outside in ["example.com", "notinternal", "internal.example", "192.0.2.7", "2001:db8::7"] {
        let address = outside.parse::<IpAddr>().ok();
        let names: Vec<Arc<str>> = if address.is_some() { vec![] } else { vec![outside.into()] };
        let addresses: Vec<_> = address.into_iter().collect();
        let error = authority.server_config(&names, &addresses, &[]).err().unwrap().to_string();
        assert!(error.contains("at or below internal and addresses in 10.0.0.0/8"), "{error}");
        // Whoever has the key gets no further: clients refuse what it signs.
        let leaf = Leaf::new(authority.clone(), sans(&names, &addresses).unwrap(), SystemTime::now).unwrap();
        let mut forged = ServerConfig::clone(&server);
        forged.cert_resolver = Arc::new(leaf);
        assert!(handshake(directory.path(), Arc::new(forged), outside).await.is_err(), "{outside}");
        assert!(!openssl_verifies(&trusted, &mint(&authority, &names, &addresses)), "{outside}");
    }
    for other in [&[][..], &["internal"], &["internal", "10.0.0.0/8", "example.com"]] {
        let error = open(&folder(directory.path(), other)).err().unwrap().to_string();
        assert!(error.contains("at or below internal") && error.contains("`tidegate ca renew`"), "{error}");
    }
}

#[tokio::test]
async fn old_and_new_are_trusted_during_a_change_and_each_step_signs_by_one_that_clients_have() {
    let directory = tempfile::tempdir().unwrap();
    let folder = folder(directory.path(), &[]);
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let signs_for = async |trusted: &str| {
        let authority = open(&folder).unwrap();
        let names = ["db.internal".into()];
        let server = authority.server_config(&names, &[], &[]).unwrap();
        let accepted = shown(trusted, server, "db.internal", 0).await.is_ok();
        let leaf = mint(&authority, &names, &[]);
        assert_eq!(openssl_verifies(trusted, &leaf), accepted, "OpenSSL says otherwise");
        accepted
    };
    let pems = || {
        let trusted = folder.trusted(SystemTime::now()).unwrap();
        trusted.into_iter().map(|certificate| certificate.pem).collect::<Vec<_>>()
    };
    open(&folder).unwrap();
    let old = read("ca.pem");
    assert!(pems() == [old.as_str()] && signs_for(&old).await);

    let new = folder.renew(SystemTime::now()).unwrap().pem;
    assert_eq!(pems(), [old.as_str(), &new]);
    assert_eq!(folder.renew(SystemTime::now()).unwrap().pem, new, "it was begun already");
    assert!(signs_for(&old).await && signs_for(&format!("{old}{new}")).await && !signs_for(&new).await);

    assert_eq!(folder.finish().unwrap().pem, new);
    assert_eq!(pems(), [new.as_str()]);
    assert!(signs_for(&new).await && signs_for(&format!("{old}{new}")).await && !signs_for(&old).await);
    assert!(matches!(folder.finish(), Err(AuthorityError::NotBegun)));
}

#[test]
fn a_change_that_a_crash_broke_off_is_brought_to_its_end() {
    let begun = || {
        let directory = tempfile::tempdir().unwrap();
        let folder = folder(directory.path(), &[]);
        open(&folder).unwrap();
        let old = fs::read_to_string(directory.path().join("ca.pem")).unwrap();
        let new = folder.renew(SystemTime::now()).unwrap().pem;
        (directory, folder, old, new)
    };
    let signing = |folder: &Folder| open(folder).unwrap().signer.certificate.pem.clone();
    let (directory, folder, old, new) = begun();
    let at = |name: &str| directory.path().join(name);
    // Between the key and its certificate.
    fs::rename(at("next.key"), at("ca.key")).unwrap();
    let trusted = folder.trusted(SystemTime::now()).unwrap();
    assert!(
        trusted.iter().map(|certificate| &certificate.pem).eq([&old, &new]),
        "clients keep trusting both"
    );
    assert_eq!(signing(&folder), new);
    assert!(!at("next.pem").exists());
    // The next one's key was written, and its certificate was not.
    let (directory, folder, old, _) = begun();
    fs::remove_file(directory.path().join("next.pem")).unwrap();
    assert_eq!(signing(&folder), old);
    folder.renew(SystemTime::now()).unwrap();
    folder.finish().unwrap();
    assert_ne!(signing(&folder), old);
    // The first of all, before either file was in its place, and after the first of them was.
    for moved in [false, true] {
        let (directory, folder, _, new) = begun();
        for name in ["ca.key", "ca.pem"] {
            fs::remove_file(directory.path().join(name)).unwrap();
        }
        if moved {
            fs::rename(directory.path().join("next.key"), directory.path().join("ca.key")).unwrap();
        }
        assert_eq!(signing(&folder), new, "{moved}");
    }
    // A certificate whose key is nowhere.
    let (directory, folder, ..) = begun();
    fs::remove_file(directory.path().join("next.key")).unwrap();
    let error = open(&folder).err().unwrap().to_string();
    assert!(error.contains("next.key") && error.contains("restore"), "{error}");
}

#[tokio::test]
async fn an_authority_that_is_over_is_refused_and_the_next_one_signs_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let folder = folder(directory.path(), &[]);
    let long_ago = SystemTime::now() - YEAR * 11;
    Authority::open(&folder, long_ago).unwrap();
    for error in [open(&folder).err().unwrap(), folder.trusted(SystemTime::now()).err().unwrap()] {
        let error = error.to_string();
        assert!(error.contains("ended on 20") && error.contains("`tidegate ca renew`"), "{error}");
    }
    let next = folder.renew(SystemTime::now()).unwrap().pem;
    let server = open(&folder).unwrap().server_config(&["db.internal".into()], &[], &[]).unwrap();
    shown(&next, server, "db.internal", 0).await.unwrap();
    let trusted = folder.trusted(SystemTime::now()).unwrap();
    assert!(
        trusted.iter().map(|certificate| &certificate.pem).eq([&next]),
        "what is over is no one's to trust"
    );
}

#[test]
fn no_leaf_outlives_its_authority_and_the_next_one_signs_from_its_end_on() {
    let directory = tempfile::tempdir().unwrap();
    let folder = folder(directory.path(), &[]);
    let now = SystemTime::now();
    let first = Authority::open(&folder, now - YEAR * 10).unwrap();
    let ends = first.signer.certificate.ends;
    let near = ends - DAY;
    let ends_of = |leaf: &[u8]| {
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).unwrap();
        SystemTime::UNIX_EPOCH
            + Duration::from_secs(leaf.validity().not_after.timestamp().try_into().unwrap())
    };
    folder.renew(near).unwrap();
    let authority = Arc::new(Authority::open(&folder, near).unwrap());
    let leaf = Leaf::new(authority.clone(), sans(&[], &[]).unwrap(), SystemTime::now).unwrap();
    let shown = |now| leaf.at(now).cert.first().unwrap().to_vec();
    let minted =
        |now| authority.mint(&sans(&[], &[]).unwrap(), now).unwrap().key.cert.first().unwrap().to_vec();
    assert_eq!(ends_of(&minted(near)), ends);
    assert!(ends_of(&minted(ends - YEAR)) < ends);
    let later = shown(ends + DAY);
    assert!(openssl_verifies_at(&folder.trusted(ends).unwrap()[0].pem, &later, ends + DAY));
    assert!(!openssl_verifies_at(&first.signer.certificate.pem, &later, ends + DAY));
}

#[test]
fn other_names_take_another_authority_which_vouches_for_them_once_it_signs() {
    let directory = tempfile::tempdir().unwrap();
    open(&folder(directory.path(), &["internal"])).unwrap();
    let wider = folder(directory.path(), &["internal", "example"]);
    assert!(matches!(open(&wider), Err(AuthorityError::Constrained { .. })));
    folder(directory.path(), &["other"]).renew(SystemTime::now()).unwrap();
    wider.renew(SystemTime::now()).unwrap();
    let vouches = || open(&wider).unwrap().server_config(&["shop.example".into()], &[], &[]).is_ok();
    assert!(!vouches(), "the one that signs does not yet");
    wider.finish().unwrap();
    assert!(vouches());
}

#[test]
fn the_end_is_told_ninety_days_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let folder = folder(directory.path(), &[]);
    let now = SystemTime::now();
    let authority = Authority::open(&folder, now).unwrap();
    let left = |days: u32| authority.signer.certificate.ends - DAY * days;
    assert_eq!(authority.life(now).warning(), None);
    assert_eq!(authority.life(left(91)).warning(), None);
    let warning = authority.life(left(12)).warning().unwrap();
    assert!(warning.contains("in 12 days, on 20") && warning.contains("renew` begins"), "{warning}");
    folder.renew(now).unwrap();
    let warning = open(&folder).unwrap().life(left(12)).warning().unwrap();
    assert!(warning.contains("--finish"), "{warning}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let folder = folder(directory.path(), &[]);
    open(&folder).unwrap();
    folder.renew(SystemTime::now()).unwrap();
    fs::copy(directory.path().join("next.key"), directory.path().join("ca.key")).unwrap();
    let error = open(&folder).err().unwrap().to_string();
    assert!(error.contains("ca.key is not the key of"), "{error}");
}

#[test]
fn only_the_certificate_is_for_others_to_read() {
    let directory = tempfile::tempdir().unwrap();
    open(&folder(directory.path(), &[])).unwrap();
    let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("ca.pem")), (0o600, 0o644));
    let folder = folder(directory.path(), &[]);
    folder.renew(SystemTime::now()).unwrap();
    assert_eq!((mode("next.key"), mode("next.pem")), (0o600, 0o644));
    folder.finish().unwrap();
    assert_eq!((mode("ca.key"), mode("ca.pem")), (0o600, 0o644));
}

#[test]
fn half_an_authority_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    open(&folder(directory.path(), &[])).unwrap();
    fs::remove_file(directory.path().join("ca.key")).unwrap();
    let error = open(&folder(directory.path(), &[])).err().unwrap().to_string();
    assert!(error.contains("ca.key") && error.contains("restore"), "{error}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    open(&folder(directory.path(), &[])).unwrap();
    fs::set_permissions(directory.path().join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = open(&folder(directory.path(), &[])).err().unwrap().to_string();
    assert!(error.contains("ca.key") && error.contains("0644"), "{error}");
}

#[test]
fn a_leaf_renews_itself_before_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&folder(directory.path(), &[])).unwrap();
    let leaf = Leaf::new(authority, sans(&[], &[]).unwrap(), SystemTime::now).unwrap();
    let now = SystemTime::now();
    let first = leaf.at(now);
    assert!(Arc::ptr_eq(&first, &leaf.at(now + leaf::LIFE / 2)));
    let renewed = leaf.at(now + leaf::LIFE * 3 / 4);
    assert!(!Arc::ptr_eq(&first, &renewed));
    assert!(Arc::ptr_eq(&renewed, &leaf.at(now + leaf::LIFE)));
}

#[test]
fn a_leaf_that_was_made_while_the_clock_was_ahead_goes_when_it_is_right_again() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&folder(directory.path(), &[])).unwrap();
    let trusted = fs::read_to_string(directory.path().join("ca.pem")).unwrap();
    let leaf = Leaf::new(authority, sans(&[], &[]).unwrap(), SystemTime::now).unwrap();
    let now = SystemTime::now();
    let ahead = leaf.at(now + DAY * 365);
    assert!(!openssl_verifies_at(&trusted, ahead.cert.first().unwrap(), now));
    let right = leaf.at(now);
    assert!(openssl_verifies_at(&trusted, right.cert.first().unwrap(), now));
    assert!(
        Arc::ptr_eq(&right, &leaf.at(now - DAY / 2)),
        "a clock that is set back a little changes nothing"
    );
}

#[test]
fn an_authority_that_was_begun_while_the_clock_was_ahead_is_told_and_changed_for_one_that_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (folder, now) = (folder(directory.path(), &[]), SystemTime::now());
    Authority::open(&folder, now + DAY * 365).unwrap();
    let early = Authority::open(&folder, now).unwrap().life(now);
    let warning = early.warning().unwrap();
    assert!(warning.contains("counts only from") && warning.contains("tidegate ca renew"), "{warning}");
    folder.renew(now + DAY * 365).unwrap();
    let begun = folder.renew(now).unwrap();
    assert!(begun.counts(now), "nor is the next one kept that was begun then");
    let life = Authority::open(&folder, now).unwrap().life(now);
    assert_eq!((life.sha256, life.begins), (begun.sha256(), None), "it signs at once");
}

#[tokio::test]
async fn clients_are_shown_the_renewed_leaf_by_the_configuration_that_they_were_shown_the_old_one_by() {
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&folder(directory.path(), &[])).unwrap();
    let names = sans(&["db.internal".into()], &[]).unwrap();
    let clock = || SystemTime::now() + DAY * PASSED.load(Ordering::Relaxed);
    let mut config =
        ServerConfig::clone(&authority.server_config(&["db.internal".into()], &[], &[]).unwrap());
    config.cert_resolver = Arc::new(Leaf::new(authority, names, clock).unwrap());
    let config = Arc::new(config);
    let trusted = fs::read_to_string(directory.path().join("ca.pem")).unwrap();
    let shown = |days| shown(&trusted, config.clone(), "db.internal", days);
    let first = shown(0).await.unwrap();
    assert_eq!(shown(4).await.unwrap(), first);
    let over = shown(8).await.unwrap_err();
    assert!(over.contains("expired"), "a leaf ends: {over}");
    PASSED.store(5, Ordering::Relaxed);
    let renewed = shown(8).await.unwrap();
    assert_ne!(renewed, first);
    assert_eq!(shown(5).await.unwrap(), renewed);
}

fn mint(authority: &Authority, names: &[Arc<str>], addresses: &[IpAddr]) -> Vec<u8> {
    let minted = authority.mint(&sans(names, addresses).unwrap(), SystemTime::now()).unwrap();
    minted.key.cert.first().unwrap().to_vec()
}

/// Whether OpenSSL, which trusts these, accepts this leaf.
fn openssl_verifies(trusted: &str, leaf: &[u8]) -> bool {
    openssl_verifies_at(trusted, leaf, SystemTime::now())
}

fn openssl_verifies_at(trusted: &str, leaf: &[u8], at: SystemTime) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let (roots, shown) = (directory.path().join("roots.pem"), directory.path().join("leaf.der"));
    fs::write(&roots, trusted).unwrap();
    fs::write(&shown, leaf).unwrap();
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().to_string();
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-no-CApath", "-no-CAstore", "-x509_strict", "-attime", &at, "-CAfile"]);
    let output = verify.args([&roots, &shown]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("verification failed"), "{said}");
    output.status.success()
}
