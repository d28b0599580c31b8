//! The KPL's frame around an aggregate's body: magic and MD5.
//!
//! The crate's documentation describes the layout.

use std::fmt;

use bytes::Bytes;

use crate::md5::{DIGEST_LEN, Digest, md5};
use crate::wire::MalformedBody;

/// What an aggregated record of the KPL begins with.
const KPL_MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];

/// What a compressed aggregate begins with.
///
/// `C1` occurs in no UTF-8 text and is the one byte MessagePack never uses; `9E` after ASCII is no
/// UTF-8 either. No registered format begins like this.
pub(crate) const COMPRESSED_MAGIC: [u8; 4] = [0xc1, b'K', b'A', 0x9e];

/// Bytes that the KPL's frame adds to a body: magic and digest.
pub(crate) const ENVELOPE_LEN: usize = KPL_MAGIC.len() + DIGEST_LEN;

/// Whether `data` begins like an aggregate, plain or compressed.
///
/// A consumer would try to take such data apart. A producer that sends user data of this kind must
/// wrap it: an aggregate of one record ([`AggregateBuilder`](crate::AggregateBuilder)) keeps it
/// whole.
pub fn looks_framed(data: &[u8]) -> bool {
    data.starts_with(&KPL_MAGIC) || data.starts_with(&COMPRESSED_MAGIC)
}

/// A closed aggregate: the data of one Kinesis record.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedAggregate {
    bytes: Bytes,
    len: usize,
}

impl SealedAggregate {
    /// Frames the body that the parts make together, of `len` records.
    pub(crate) fn new(body: [&[u8]; 3], len: usize) -> Self {
        let body_len: usize = body.iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(ENVELOPE_LEN + body_len);
        bytes.extend_from_slice(&KPL_MAGIC);
        body.iter().for_each(|part| bytes.extend_from_slice(part));
        let digest = md5(&bytes[KPL_MAGIC.len()..]);
        bytes.extend_from_slice(&digest);
        Self { bytes: bytes.into(), len }
    }

    /// The number of records in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it was sealed without a record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The data to send: magic, protobuf message, MD5.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The data to send, by value.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The protobuf message alone, without magic and MD5.
    pub fn body(&self) -> &[u8] {
        &self.bytes[KPL_MAGIC.len()..self.bytes.len() - DIGEST_LEN]
    }
}

impl fmt::Debug for SealedAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedAggregate")
            .field("len", &self.len)
            .field("size", &self.bytes.len())
            .finish()
    }
}

/// Why a record is not an aggregate.
///
/// [`NoMagic`](Self::NoMagic) is the usual case. The others say that the data begins like an
/// aggregate and is none: it was damaged, or it is user data that begins so by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PlainReason {
    /// It does not begin with the KPL's magic.
    #[error("no aggregate magic in front")]
    NoMagic,
    /// Behind the magic there is nothing but a digest, or less.
    #[error("nothing between magic and digest")]
    TooShort,
    /// The MD5 at the end is not that of the message.
    #[error("the digest does not match")]
    DigestMismatch,
    /// The message between magic and digest is not an `AggregatedRecord`.
    #[error("the message does not parse: {0}")]
    Malformed(MalformedBody),
}

/// The body inside a KPL frame, if `digest` of it is what the frame says. `digest` is called only where there is a body,
/// which is where [`kpl_body`] gives one.
pub(crate) fn open_kpl(
    data: &Bytes,
    digest: impl FnOnce(&[u8]) -> Digest,
) -> Result<Bytes, PlainReason> {
    let body = kpl_body(data)?;
    if digest(body)[..] == data[data.len() - DIGEST_LEN..] {
        Ok(data.slice_ref(body))
    } else {
        Err(PlainReason::DigestMismatch)
    }
}

/// The body inside a KPL frame, whose digest is not checked yet.
pub(crate) fn kpl_body(data: &[u8]) -> Result<&[u8], PlainReason> {
    if !data.starts_with(&KPL_MAGIC) {
        return Err(PlainReason::NoMagic);
    }
    // As the KCL: magic and digest around nothing are a plain record.
    if data.len() <= ENVELOPE_LEN {
        return Err(PlainReason::TooShort);
    }
    Ok(&data[KPL_MAGIC.len()..data.len() - DIGEST_LEN])
}
