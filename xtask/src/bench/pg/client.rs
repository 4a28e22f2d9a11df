//! The smallest PostgreSQL clients that measure a hop and not themselves.

use std::{
    io::{Read, Write, stdin},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

/// ReadyForQuery outside of a transaction. It holds NUL bytes, and the benchmark's texts no `Z`: it is no data.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// A client without TLS and without a password.
#[derive(Debug, Subcommand)]
pub(crate) enum Client {
    /// Runs a query; prints how many bytes came and how many microseconds that took.
    Read {
        /// The server.
        address: SocketAddr,
        /// The user to sign in as.
        user: String,
        /// The query.
        query: String,
    },
    /// Opens sessions, says so, and keeps them until its input ends.
    Idle {
        /// The server.
        address: SocketAddr,
        /// The user to sign in as.
        user: String,
        /// How many.
        sessions: u32,
    },
}

impl Client {
    /// Does it.
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::Read { address, user, query } => {
                let mut stream = sign_in(*address, user)?;
                let begun = Instant::now();
                let bytes = ask(&mut stream, query)?;
                println!("{bytes} {}", begun.elapsed().as_micros());
            }
            Self::Idle { address, user, sessions } => {
                let mut open = Vec::new();
                for _ in 0..*sessions {
                    let mut stream = sign_in(*address, user)?;
                    ask(&mut stream, "SELECT abalance FROM pgbench_accounts WHERE aid = 1")?;
                    open.push(stream);
                }
                println!("open");
                stdin().read_to_end(&mut Vec::new())?;
            }
        }
        Ok(())
    }
}

fn sign_in(address: SocketAddr, user: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let parameters = format!("user\0{user}\0database\0shop\0\0");
    // Protocol 3.0; the length counts itself and the version.
    let length = u32::try_from(parameters.len() + 8)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend(196_608_u32.to_be_bytes());
    message.extend(parameters.as_bytes());
    stream.write_all(&message)?;
    until_ready(&mut stream)?;
    Ok(stream)
}

/// Runs a simple query; how many bytes came back.
fn ask(stream: &mut TcpStream, query: &str) -> Result<u64> {
    let length = u32::try_from(query.len() + 5)?;
    let mut message = vec![b'Q'];
    message.extend(length.to_be_bytes());
    message.extend(query.as_bytes());
    message.push(0);
    stream.write_all(&message)?;
    until_ready(stream)
}

/// Reads until the server waits for the next query. What is read is not looked into, but for an error first of all.
fn until_ready(stream: &mut TcpStream) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    // The end of what was read, as a message may come in pieces.
    let mut tail = Vec::new();
    let mut total = 0;
    while !tail.ends_with(READY) {
        let length = stream.read(&mut buffer)?;
        let bytes = buffer.get(..length).unwrap_or_default();
        ensure!(length > 0, "the connection was closed: {}", String::from_utf8_lossy(&tail));
        ensure!(total > 0 || bytes.first() != Some(&b'E'), "an error: {}", String::from_utf8_lossy(bytes));
        total += u64::try_from(length).context("a length")?;
        tail.extend(bytes.iter().skip(length.saturating_sub(READY.len())));
        tail.drain(..tail.len().saturating_sub(READY.len()));
    }
    Ok(total)
}
