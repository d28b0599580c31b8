//! Our compressed frame around an aggregate's body.
//!
//! The crate's documentation describes the layout.

use std::fmt;
use std::io;

use bytes::Bytes;

use crate::frame::{COMPRESSED_MAGIC, UndigestedAggregate};
use crate::wire::MalformedBody;

/// The version of the compressed frame that is written, and the only one that is read.
const VERSION: u8 = 1;

/// The codec byte of zstd, the only codec so far.
const CODEC_ZSTD: u8 = 1;

/// Magic, version, codec, uncompressed length (u32, little-endian).
const HEADER_LEN: usize = COMPRESSED_MAGIC.len() + 1 + 1 + 4;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The bit of the zstd frame header's fifth byte that says a content checksum follows.
const ZSTD_CHECKSUM_FLAG: u8 = 0x04;

/// A compressed aggregate could not be written or read.
///
/// Never retryable: the same bytes give the same result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame says that it unpacks to more than the decoder's limit. Nothing was allocated.
    #[error(
        "a compressed aggregate of {actual} bytes is over the limit of {limit}: raise \
         `max_decompressed_size` if its producer is trusted"
    )]
    TooLarge {
        /// The decoder's limit, bytes.
        limit: usize,
        /// The size the frame states, bytes.
        actual: usize,
    },
    /// The frame's version is not 1: a newer library wrote it.
    #[error("version {version} of the compressed frame is unknown: upgrade this library")]
    UnknownVersion {
        /// The version found.
        version: u8,
    },
    /// The frame's codec is not zstd: a newer library wrote it.
    #[error("codec {codec} of the compressed frame is unknown: upgrade this library")]
    UnknownCodec {
        /// The codec found.
        codec: u8,
    },
    /// The frame is damaged, or was never one.
    #[error("the compressed frame is corrupt: {reason}")]
    Corrupt {
        /// What is wrong with it.
        reason: &'static str,
        /// What zstd says, if zstd refused it.
        source: Option<io::Error>,
    },
    /// The frame unpacks, but its content is no aggregate.
    #[error("the compressed frame does not hold an aggregate")]
    Malformed(#[source] MalformedBody),
    /// zstd has no such compression level.
    #[error("zstd has no compression level {level}: take one from {min} to {max}")]
    InvalidLevel {
        /// The level asked for.
        level: i32,
        /// The lowest level (fastest).
        min: i32,
        /// The highest level (smallest).
        max: i32,
    },
    /// zstd could not be set up or could not compress; in practice out of memory.
    #[error("zstd failed")]
    Zstd(#[source] io::Error),
}

impl FrameError {
    const fn corrupt(reason: &'static str) -> Self {
        Self::Corrupt { reason, source: None }
    }
}

/// Compresses sealed aggregates. Keeps its zstd context and buffer: make one, use it often.
///
/// **Memory.** The zstd context (with aggregates of 50 KiB about 0.25 MB at level 1 and 0.6 MB at
/// level 3; of 1 MiB, 0.6 MB and 1.3 MB; from level 9 on tens of megabytes) and a buffer a little
/// larger than the largest aggregate so far.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    scratch: Vec<u8>,
}

impl Compressor {
    /// A compressor at this zstd level. 1 to 3 suit streams; 0 means zstd's default, 3.
    ///
    /// # Errors
    /// [`FrameError::InvalidLevel`], or [`FrameError::Zstd`] if zstd cannot be set up.
    pub fn new(level: i32) -> Result<Self, FrameError> {
        let range = zstd::compression_level_range();
        if !range.contains(&level) {
            let (min, max) = range.into_inner();
            return Err(FrameError::InvalidLevel { level, min, max });
        }
        let mut zstd = zstd::bulk::Compressor::new(level).map_err(FrameError::Zstd)?;
        zstd.include_checksum(true).map_err(FrameError::Zstd)?;
        zstd.include_contentsize(true).map_err(FrameError::Zstd)?;
        Ok(Self { zstd, scratch: Vec::new() })
    }

    /// The aggregate as a compressed frame, or `None` if that is not smaller: then send it as it
    /// is, with its [digest](UndigestedAggregate::add_digest).
    ///
    /// Only consumers that know this frame can read it. Costs about 1 ms per megabyte: from some
    /// hundred kilobytes on call it off the async threads.
    ///
    /// # Errors
    /// [`FrameError::Zstd`] if zstd fails.
    pub fn compress(
        &mut self,
        aggregate: &UndigestedAggregate,
    ) -> Result<Option<Bytes>, FrameError> {
        let body = aggregate.body();
        let Ok(body_len) = u32::try_from(body.len()) else {
            return Ok(None);
        };
        self.scratch.clear();
        self.scratch.reserve(zstd::zstd_safe::compress_bound(body.len()));
        let packed =
            self.zstd.compress_to_buffer(body, &mut self.scratch).map_err(FrameError::Zstd)?;
        if HEADER_LEN + packed >= aggregate.size() {
            return Ok(None);
        }
        let mut frame = Vec::with_capacity(HEADER_LEN + packed);
        frame.extend_from_slice(&COMPRESSED_MAGIC);
        frame.extend_from_slice(&[VERSION, CODEC_ZSTD]);
        frame.extend_from_slice(&body_len.to_le_bytes());
        frame.extend_from_slice(&self.scratch);
        Ok(Some(frame.into()))
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// Unpacks compressed frames, with a bound on what it allocates.
pub(crate) struct Decompressor {
    max_size: usize,
    /// Made at the first compressed frame: most streams have none.
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decompressor {
    pub(crate) const fn new(max_size: usize) -> Self {
        Self { max_size, zstd: None }
    }

    pub(crate) const fn max_size(&self) -> usize {
        self.max_size
    }

    /// The body inside `data` if it begins with the compressed frame's magic; `None` if not.
    pub(crate) fn open(&mut self, data: &[u8]) -> Result<Option<Bytes>, FrameError> {
        let Some(rest) = data.strip_prefix(&COMPRESSED_MAGIC) else {
            return Ok(None);
        };
        // The version comes first: a later one may have another header.
        match rest.first() {
            None => return Err(FrameError::corrupt("it ends within its header")),
            Some(&VERSION) => {}
            Some(&version) => return Err(FrameError::UnknownVersion { version }),
        }
        let Some((&[_, codec, l0, l1, l2, l3], frame)) = rest.split_first_chunk() else {
            return Err(FrameError::corrupt("it ends within its header"));
        };
        if codec != CODEC_ZSTD {
            return Err(FrameError::UnknownCodec { codec });
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if len > self.max_size {
            return Err(FrameError::TooLarge { limit: self.max_size, actual: len });
        }
        check_zstd_frame(frame, len)?;

        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(FrameError::Zstd)?),
        };
        let mut body = Vec::with_capacity(len);
        match zstd.decompress_to_buffer(frame, &mut body) {
            Ok(written) if written == len => Ok(Some(body.into())),
            Ok(_) => Err(FrameError::corrupt("its content has another length than it states")),
            Err(error) => Err(FrameError::Corrupt {
                reason: "its content does not unpack",
                source: Some(error),
            }),
        }
    }
}

/// Before anything is allocated: exactly one zstd frame, with a checksum, of the stated length.
fn check_zstd_frame(frame: &[u8], len: usize) -> Result<(), FrameError> {
    let checksummed = frame.get(4).is_some_and(|flags| flags & ZSTD_CHECKSUM_FLAG != 0);
    if !frame.starts_with(&ZSTD_MAGIC) || !checksummed {
        return Err(FrameError::corrupt("its content is no zstd frame with a checksum"));
    }
    match zstd::zstd_safe::get_frame_content_size(frame) {
        Ok(Some(stated)) if stated == len as u64 => {}
        _ => {
            return Err(FrameError::corrupt("its two statements of its length differ"));
        }
    }
    match zstd::zstd_safe::find_frame_compressed_size(frame) {
        Ok(end) if end == frame.len() => Ok(()),
        _ => Err(FrameError::corrupt("its content is cut off or followed by other bytes")),
    }
}
