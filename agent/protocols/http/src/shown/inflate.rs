//! Bodies that the upstream compressed although it was asked not to.

use std::io::{self, Write};

use flate2::write::{GzDecoder, ZlibDecoder};

/// How much is decoded at once: it grows a thousandfold at most.
const STEP: usize = 1024;
/// How much a body may grow, as a whole.
const MOST_GROWTH: u64 = 200;
/// Up to this many bytes nobody counts.
const HARMLESS: u64 = 16 * 1024 * 1024;

/// A decoder. What it decodes is at most what one step makes.
#[derive(Debug)]
pub(super) struct Inflate {
    decoder: Decoder,
    taken: u64,
    made: u64,
}

#[derive(Debug)]
enum Decoder {
    Gzip(GzDecoder<Vec<u8>>),
    Deflate(ZlibDecoder<Vec<u8>>),
}

impl Inflate {
    /// For a content coding, if it is known.
    pub(super) fn new(coding: &str) -> Option<Self> {
        let decoder = match &*coding.to_ascii_lowercase() {
            "gzip" | "x-gzip" => Decoder::Gzip(GzDecoder::new(Vec::new())),
            "deflate" => Decoder::Deflate(ZlibDecoder::new(Vec::new())),
            _ => return None,
        };
        Some(Self { decoder, taken: 0, made: 0 })
    }

    /// Decodes, and hands over what was made step by step.
    pub(super) fn take(
        &mut self,
        data: &[u8],
        made: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        for step in data.chunks(STEP) {
            self.decoder.write(step).map_err(|error| format!("it does not decompress: {error}"))?;
            let plain = self.decoder.made();
            self.taken += step.len() as u64;
            self.made += plain.len() as u64;
            if self.made > HARMLESS && self.made / MOST_GROWTH > self.taken {
                return Err(format!("it decompresses to more than {MOST_GROWTH} times its size"));
            }
            made(&plain)?;
        }
        Ok(())
    }

    /// Hands over what is left; an error if it was cut off.
    pub(super) fn end(self, made: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        let rest = self.decoder.finish().map_err(|error| format!("it does not decompress: {error}"))?;
        made(&rest)
    }
}

impl Decoder {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
        }
    }

    fn made(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
        })
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(decoder) => decoder.finish(),
            Self::Deflate(decoder) => decoder.finish(),
        }
    }
}
