//! A name server of a test's own.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};

/// Bytes of a header.
const HEADER: usize = 12;
/// Type A.
const A: u16 = 1;
/// Type AAAA.
const AAAA: u16 = 28;

/// Answers on port 53 of a loopback address of its own, until it is dropped.
#[derive(Debug)]
pub struct NameServer {
    /// Where.
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: UdpSocket,
}

#[derive(Debug, Default)]
struct Shared {
    names: BTreeMap<String, Vec<IpAddr>>,
    asked: Vec<String>,
}

impl NameServer {
    /// Starts one that knows no names. Needs root, for the port.
    pub fn start() -> Result<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [.., process] = std::process::id().to_be_bytes();
        let ip = IpAddr::from([127, 77, process, NEXT.fetch_add(1, Ordering::Relaxed)]);
        let socket = UdpSocket::bind((ip, 53)).with_context(|| format!("{ip} port 53"))?;
        let stop = socket.try_clone()?;
        let address = socket.local_addr()?;
        let shared = Arc::<Mutex<Shared>>::default();
        let answering = shared.clone();
        thread::spawn(move || answer_all(&socket, &answering));
        Ok(Self { address, shared, stop })
    }

    /// Gives a name these addresses, and no others.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        lock(&self.shared).names.insert(name.to_owned(), addresses.to_vec());
    }

    /// Every name that it was asked for, in lower case.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.shared).asked.clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // An empty datagram ends it.
        self.stop.send_to(&[], self.address).ok();
    }
}

fn answer_all(socket: &UdpSocket, shared: &Mutex<Shared>) {
    let mut message = [0; 1500];
    while let Ok((length, client)) = socket.recv_from(&mut message) {
        if length == 0 {
            return;
        }
        if let Some(answer) = message.get(..length).and_then(|question| answer(question, shared)) {
            socket.send_to(&answer, client).ok();
        }
    }
}

/// The answer to a message of one question (RFC 1035, 4.1), good for no time at all.
fn answer(message: &[u8], shared: &Mutex<Shared>) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (HEADER, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let question = message.get(HEADER..at + 4)?;
    let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
    let name = labels.join(".");
    let mut shared = lock(shared);
    shared.asked.push(name.clone());
    let known = shared.names.get(&name);
    let of_kind = |address: &&IpAddr| (address.is_ipv4() && kind == A) || (address.is_ipv6() && kind == AAAA);
    let addresses: Vec<IpAddr> = known.into_iter().flatten().filter(of_kind).copied().collect();
    let mut answer = message.get(..2)?.to_vec();
    // A response, recursion available; NXDOMAIN for a name that isn't known.
    answer.extend([0x81, if known.is_some() { 0x80 } else { 0x83 }, 0, 1, 0]);
    answer.push(u8::try_from(addresses.len()).ok()?);
    answer.extend([0; 4]);
    answer.extend_from_slice(question);
    for address in addresses {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0, 0]);
        match address {
            IpAddr::V4(v4) => answer.extend([&[4][..], &v4.octets()].concat()),
            IpAddr::V6(v6) => answer.extend([&[16][..], &v6.octets()].concat()),
        }
    }
    Some(answer)
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
