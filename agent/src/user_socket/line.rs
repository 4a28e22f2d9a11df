//! Lines of JSON, one way and the other.

use std::{io, time::Duration};

use tidegate_approvals::Overview;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{Answer, Request};

/// Longest request, in bytes: a token and a little more.
pub(super) const LONGEST: usize = 20 * 1024;
/// Bytes of a long answer that are written at once.
const CHUNK: usize = 32 * 1024;
/// How long a peer may take to write its request, or to read an answer or a part of one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where answers go.
pub(super) struct Answers(pub(super) OwnedWriteHalf);

/// Reads the one request of a connection; none if it is something else. What was read is wiped.
pub(super) async fn request(read: &mut OwnedReadHalf) -> io::Result<Option<Request>> {
    let mut line = Zeroizing::new(vec![0; LONGEST]);
    let length = timeout(PATIENCE, read_line(read, &mut line)).await??;
    Ok(line.get(..length).and_then(|line| serde_json::from_slice(line).ok()))
}

/// The length of what comes before the first line's end, the peer's end or the buffer's.
async fn read_line(read: &mut OwnedReadHalf, line: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        let Some(free) = line.get_mut(length..).filter(|free| !free.is_empty()) else { return Ok(length) };
        let count = read.read(free).await?;
        let end = free.iter().take(count).position(|byte| *byte == b'\n');
        if count == 0 || end.is_some() {
            return Ok(length + end.unwrap_or_default());
        }
        length += count;
    }
}

impl Answers {
    /// Tells one. Whoever does not read is not waited for.
    pub(super) async fn tell(&mut self, answer: &Answer) -> io::Result<()> {
        let mut text = serde_json::to_vec(answer)?;
        text.push(b'\n');
        self.write(&text).await
    }

    /// Tells [`Answer::Questions`], of which no more is written at a time than is read.
    pub(super) async fn tell_questions(&mut self, overview: Overview) -> io::Result<()> {
        let Overview { inquiries, unreadable } = overview;
        let mut text =
            format!(r#"{{"answer":"questions","unreadable":{unreadable},"questions":["#).into_bytes();
        for (number, question) in inquiries.into_iter().enumerate() {
            if number > 0 {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, &question)?;
            if text.len() >= CHUNK {
                self.write(&text).await?;
                text.clear();
            }
        }
        text.extend_from_slice(b"]}\n");
        self.write(&text).await
    }

    async fn write(&mut self, text: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.0.write_all(text)).await?
    }
}
