//! Bodies that the upstream compressed although it was asked not to.

mod zstd;

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::{GzDecoder, ZlibDecoder};

use self::zstd::Zstd;

/// How much is decoded at once.
const STEP: usize = 1024;
/// How much a body may grow, as a whole.
const MOST_GROWTH: u64 = 200;
/// Up to this many bytes nobody counts.
const HARMLESS: u64 = 16 * 1024 * 1024;

/// A decoder. What it holds is at most what one step makes, and the window that its coding has.
pub(crate) struct Inflate {
    decoder: Decoder,
    taken: u64,
}

enum Decoder {
    Gzip(GzDecoder<Made>),
    Deflate(ZlibDecoder<Made>),
    Brotli(Box<DecompressorWriter<Made>>),
    Zstd(Box<Zstd>, Made),
}

/// What was decoded and not handed over yet, and how much it may become.
#[derive(Debug, Default)]
struct Made {
    bytes: Vec<u8>,
    total: u64,
    most: u64,
}

impl Write for Made {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.total += bytes.len() as u64;
        if self.total > self.most {
            let why = format!("it grows to more than {MOST_GROWTH} times its size");
            return Err(io::Error::other(why));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Inflate {
    /// For a content coding, if it is known (RFC 9110, 8.4.1; RFC 7932; RFC 8878).
    pub(crate) fn new(coding: &str) -> Option<Self> {
        let made = Made::default();
        let decoder = match &*coding.to_ascii_lowercase() {
            "gzip" | "x-gzip" => Decoder::Gzip(GzDecoder::new(made)),
            "deflate" => Decoder::Deflate(ZlibDecoder::new(made)),
            "br" => Decoder::Brotli(Box::new(DecompressorWriter::new(made, STEP))),
            "zstd" => Decoder::Zstd(Box::default(), made),
            _ => return None,
        };
        Some(Self { decoder, taken: 0 })
    }

    /// Decodes, and hands over what was made step by step.
    pub(crate) fn take(
        &mut self,
        data: &[u8],
        made: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        for step in data.chunks(STEP) {
            self.taken += step.len() as u64;
            self.decoder.made().most = HARMLESS.max(self.taken.saturating_mul(MOST_GROWTH));
            self.decoder.write(step).map_err(told)?;
            made(&std::mem::take(&mut self.decoder.made().bytes))?;
        }
        Ok(())
    }

    /// Hands over what is left; an error if it was cut off. Nothing at all is nothing in every coding.
    pub(crate) fn end(self, made: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        if self.taken == 0 {
            return Ok(());
        }
        made(&self.decoder.finish().map_err(told)?.bytes)
    }
}

fn told(error: io::Error) -> String {
    format!("it does not decompress: {error}")
}

impl Decoder {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Self::Brotli(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Self::Zstd(decoder, made) => decoder.write(data, made),
        }
    }

    fn made(&mut self) -> &mut Made {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(_, made) => made,
        }
    }

    fn finish(self) -> io::Result<Made> {
        match self {
            Self::Gzip(decoder) => decoder.finish(),
            Self::Deflate(decoder) => decoder.finish(),
            Self::Brotli(mut decoder) => {
                decoder.close()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
            Self::Zstd(decoder, made) => decoder.finish().map(|()| made),
        }
    }
}

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflate").field("taken", &self.taken).finish_non_exhaustive()
    }
}
