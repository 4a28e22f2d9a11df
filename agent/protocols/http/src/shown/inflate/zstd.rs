//! Zstandard (RFC 8878), block by block as it comes.

use std::io::{self, Write};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The largest window that a content coding may ask for (RFC 9659, 3).
const WINDOW: u64 = 8 * 1024 * 1024;
/// The longest header of a frame (RFC 8878, 3.1.1.1).
const HEADER: usize = 18;
/// The largest block (RFC 8878, 3.1.1.2.4).
const BLOCK: usize = 128 * 1024;

/// A decoder that holds what is no whole block yet.
pub(super) struct Zstd {
    decoder: FrameDecoder,
    held: Vec<u8>,
    frame: Option<Frame>,
}

/// The frame that is being read.
#[derive(Clone, Copy)]
struct Frame {
    /// A checksum follows its last block.
    has_checksum: bool,
}

impl Default for Zstd {
    fn default() -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW);
        Self { decoder, held: Vec::new(), frame: None }
    }
}

impl Zstd {
    pub(super) fn write(&mut self, data: &[u8], out: &mut impl Write) -> io::Result<()> {
        self.held.extend_from_slice(data);
        while match self.frame {
            None => self.begin()?,
            Some(frame) => self.block(frame, out)?,
        } {}
        Ok(())
    }

    /// Whether it was whole.
    pub(super) fn finish(self) -> io::Result<()> {
        match self.frame.is_none() && self.held.is_empty() {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }

    /// Reads a frame's header; false if more must come first.
    fn begin(&mut self) -> io::Result<bool> {
        let mut rest = self.held.as_slice();
        match self.decoder.reset(&mut rest) {
            Ok(()) => {}
            Err(_) if self.held.len() < HEADER => return Ok(false),
            Err(error) => return Err(io::Error::other(error)),
        }
        // The descriptor follows the magic number.
        let has_checksum = self.held.get(4).is_some_and(|descriptor| descriptor & 0b100 != 0);
        let taken = self.held.len() - rest.len();
        self.held.drain(..taken);
        self.frame = Some(Frame { has_checksum });
        Ok(true)
    }

    /// Decodes a block; false if more must come first.
    fn block(&mut self, frame: Frame, out: &mut impl Write) -> io::Result<bool> {
        let &[low, middle, high, ..] = self.held.as_slice() else { return Ok(false) };
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let (is_last, kind) = (header & 1 == 1, header >> 1 & 3);
        // One byte, repeated, is a block of its own kind.
        let size = if kind == 1 { 1 } else { usize::try_from(header >> 3).unwrap_or(usize::MAX) };
        if size > BLOCK {
            return Err(io::Error::other("a block is larger than any"));
        }
        let length = 3 + size + if is_last && frame.has_checksum { 4 } else { 0 };
        let Some(mut block) = self.held.get(..length) else { return Ok(false) };
        self.decoder
            .decode_blocks(&mut block, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(io::Error::other)?;
        self.held.drain(..length);
        self.decoder.collect_to_writer(&mut *out)?;
        if self.decoder.is_finished() {
            self.frame = None;
        }
        Ok(true)
    }
}
