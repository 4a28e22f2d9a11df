//! The command line's end, blocking.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use tidegate_identity::Visit;
use zeroize::Zeroizing;

use super::{Answer, Request};

/// How long an answer is waited for; a login takes as long as the person does.
const ANSWER: Duration = Duration::from_secs(60);
const LOGIN: Duration = Duration::from_secs(1_000);

/// Asks a running agent; `visit` is told where a login leads. An error means that none could be reached.
pub(crate) fn ask(socket: &Path, request: &Request, visit: impl Fn(&Visit)) -> io::Result<Answer> {
    let mut reader = send(socket, request)?;
    let patience = if matches!(request, Request::Login { .. }) { LOGIN } else { ANSWER };
    reader.get_ref().set_read_timeout(Some(patience))?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match serde_json::from_str(&line)? {
            Answer::Visit(where_to) => visit(&where_to),
            answer => return Ok(answer),
        }
    }
}

/// Watches questions until the agent ends or `told` fails.
pub(crate) fn follow(socket: &Path, mut told: impl FnMut(Answer) -> io::Result<()>) -> io::Result<()> {
    for line in send(socket, &Request::Watch {})?.lines() {
        told(serde_json::from_str(&line?)?)?;
    }
    Ok(())
}

fn send(socket: &Path, request: &Request) -> io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket)?;
    let mut text = Zeroizing::new(serde_json::to_vec(request)?);
    text.push(b'\n');
    stream.write_all(&text)?;
    Ok(BufReader::new(stream))
}
