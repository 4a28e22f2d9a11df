//! Messages of gRPC in their frames (gRPC over HTTP/2, "Length-Prefixed-Message"). Pure.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes before a message: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;

/// Frames out of a body that comes in parts.
#[derive(Debug)]
pub(crate) struct Frames {
    buffer: BytesMut,
    /// Most bytes of a message.
    most: usize,
}

impl Frames {
    pub(crate) fn new(most: usize) -> Self {
        Self { buffer: BytesMut::new(), most }
    }

    /// Takes what came.
    pub(crate) fn put(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next message, if it is all there.
    ///
    /// # Errors
    /// It is compressed, or longer than anybody looks at.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, String> {
        let Some((&[flag, a, b, c, d], _)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        match flag {
            0 => {}
            1 => return Err("it is compressed".into()),
            _ => return Err("its frame is none of gRPC's".into()),
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > self.most {
            return Err(format!("it is longer than {} bytes", self.most));
        }
        if self.buffer.len() - PREFIX < length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Bytes of what came that are no message yet.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing is left of what came.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// Where messages end in a body that comes in parts; nothing of it is kept. Of gRPC, gRPC-Web and Connect's streams.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    prefix: [u8; PREFIX],
    /// How much of the prefix there is.
    met: usize,
    /// How much of the message behind it is to come.
    left: usize,
}

impl Ends {
    /// Takes what came; whether a message ends with it.
    ///
    /// # Errors
    /// One is compressed.
    pub(crate) fn take(&mut self, mut data: &[u8]) -> Result<bool, &'static str> {
        while !data.is_empty() {
            if self.met < PREFIX {
                let (now, rest) = data.split_at(data.len().min(PREFIX - self.met));
                self.prefix.iter_mut().skip(self.met).zip(now).for_each(|(place, byte)| *place = *byte);
                self.met += now.len();
                data = rest;
                let [flags, a, b, c, d] = self.prefix;
                if self.met == PREFIX {
                    self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                }
                if flags & 1 == 1 {
                    return Err("a message in it is compressed");
                }
            } else {
                let (now, rest) = data.split_at(data.len().min(self.left));
                self.left -= now.len();
                data = rest;
            }
            if self.met == PREFIX && self.left == 0 {
                self.met = 0;
            }
        }
        Ok(self.met == 0)
    }
}

/// The one message that a body has; none, if the body is empty.
///
/// # Errors
/// There are more, or it is not whole.
pub(crate) fn only(body: &[u8]) -> Result<Option<Bytes>, String> {
    let mut frames = Frames::new(body.len());
    frames.put(body);
    let first = frames.next()?;
    match frames.is_empty() {
        true => Ok(first),
        false if first.is_some() => Err("it has more than the one message of its call".into()),
        false => Err("its message is not whole".into()),
    }
}

/// A message in its frame.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    // What is framed here came in a frame, or is shorter.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&[0]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_messages_are_known_however_the_body_comes() {
        let body = [framed(b"first"), framed(b""), framed(&[1; 300])].concat();
        let ends = [10, 15, 320];
        for piece in [1, 2, 3, 7, 100, 320] {
            let (mut known, mut taken) = (Ends::default(), 0);
            for part in body.chunks(piece) {
                taken += part.len();
                assert_eq!(known.take(part), Ok(ends.contains(&taken)), "in pieces of {piece}, at {taken}");
            }
        }
        let compressed = [&framed(b"x")[..], b"\x01\x00\x00\x00\x01x"].concat();
        assert!(Ends::default().take(&compressed).is_err());
    }

    fn all(bytes: &[u8], piece: usize) -> Result<Vec<Bytes>, String> {
        let (mut frames, mut all) = (Frames::new(64), Vec::new());
        for piece in bytes.chunks(piece) {
            frames.put(piece);
            while let Some(message) = frames.next()? {
                all.push(message);
            }
        }
        if frames.is_empty() { Ok(all) } else { Err("cut off".into()) }
    }

    #[test]
    fn messages_come_out_in_whatever_pieces_their_frames_come() {
        let messages = [&b"one"[..], b"", &[7; 64]];
        let body: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
        for piece in 1..=body.len() {
            assert_eq!(all(&body, piece).unwrap(), messages, "in pieces of {piece}");
        }
        assert!(all(&body[..body.len() - 1], 3).is_err());
    }

    #[test]
    fn what_is_compressed_too_long_or_no_frame_is_refused() {
        assert!(all(&framed(&[7; 65]), 1).unwrap_err().contains("longer"));
        for (flag, why) in [(1, "compressed"), (2, "none of gRPC's"), (0x80, "none of gRPC's")] {
            let mut frame = framed(b"x").to_vec();
            frame[0] = flag;
            assert!(all(&frame, 9).unwrap_err().contains(why), "{flag}");
        }
    }

    #[test]
    fn a_call_with_one_message_has_one() {
        assert_eq!(only(b""), Ok(None));
        assert_eq!(only(&framed(b"one")), Ok(Some("one".into())));
        assert!(only(&[framed(b"one"), framed(b"two")].concat()).is_err());
        assert!(only(&framed(b"one")[..7]).is_err());
        assert!(only(&[&framed(b"one")[..], b"\0"].concat()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_the_same_in_any_pieces(bytes in proptest::collection::vec(0..4_u8, 0..80)) {
            for piece in [1, 3, 7] {
                assert_eq!(all(&bytes, piece).ok(), all(&bytes, bytes.len().max(1)).ok(), "in pieces of {piece}");
            }
        }
    }
}
