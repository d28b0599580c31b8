//! The KPL's frame around an aggregate's body: magic and MD5.
//!
//! The crate's documentation describes the layout.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::md5::{DIGEST_LEN, Digest, md5, md5_each};
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

/// A sealed aggregate whose digest is not computed yet.
///
/// MD5 is most of the cost of sealing. [`add_digests`](Self::add_digests) hashes several aggregates at a time, which
/// takes about a third of the time. An aggregate that is [compressed](crate::Compressor) needs no digest.
///
/// **Memory.** One buffer of exactly [`size`](Self::size) bytes. Clones share it. It has room for the digest, so adding the
/// digest copies nothing, unless a clone or a slice of the data is still in use.
///
/// ```
/// use kinesis_aggregation::{AggregateBuilder, UndigestedAggregate};
///
/// let aggregate = |data: &[u8]| {
///     let mut open = AggregateBuilder::new(50 * 1024);
///     open.push("key", None, data).map(|_| open)
/// };
/// let open = [aggregate(b"first")?, aggregate(b"second")?];
/// let undigested = open.map(AggregateBuilder::seal_without_digest).into();
/// let sealed = UndigestedAggregate::add_digests(undigested);
/// assert!(sealed[1] == aggregate(b"second")?.seal());
/// # Ok::<(), kinesis_aggregation::AggregateFull>(())
/// ```
#[derive(Clone)]
pub struct UndigestedAggregate {
    /// Magic and message. The buffer behind it has room for the digest.
    bytes: Bytes,
    len: usize,
}

impl UndigestedAggregate {
    /// Frames the message of `len` records. `tables` come in front of `records`, whose buffer is used further.
    pub(crate) fn new(tables: [&[u8]; 2], mut records: Vec<u8>, len: usize) -> Self {
        let head = [&KPL_MAGIC, tables[0], tables[1]];
        let head_len: usize = head.iter().map(|part| part.len()).sum();
        let (records_len, undigested_len) = (records.len(), head_len + records.len());
        let size = undigested_len + DIGEST_LEN;
        records.reserve_exact(size - records_len);
        records.resize(undigested_len, 0);
        records.copy_within(..records_len, head_len);
        let mut rest = &mut records[..];
        for part in head {
            let place;
            (place, rest) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
        }
        records.shrink_to(size);
        Self { bytes: records.into(), len }
    }

    /// The number of records in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it was sealed without a record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The length of the data to send, in bytes: magic, protobuf message, and MD5.
    pub fn size(&self) -> usize {
        self.bytes.len() + DIGEST_LEN
    }

    /// The protobuf message alone.
    pub fn body(&self) -> &[u8] {
        &self.bytes[KPL_MAGIC.len()..]
    }

    /// The protobuf message alone, without a copy.
    pub(crate) fn body_bytes(&self) -> Bytes {
        self.bytes.slice(KPL_MAGIC.len()..)
    }

    /// Adds the digest.
    pub fn add_digest(self) -> SealedAggregate {
        let digest = md5(self.body());
        self.complete(digest)
    }

    /// Adds the digests of several aggregates, in about a third of the time that one at a time takes. Keeps their order.
    pub fn add_digests(aggregates: Vec<Self>) -> Vec<SealedAggregate> {
        let mut digests = vec![Digest::default(); aggregates.len()];
        md5_each(aggregates.iter().map(Self::body), |index, digest| digests[index] = digest);
        let aggregates = aggregates.into_iter().zip(digests);
        aggregates.map(|(aggregate, digest)| aggregate.complete(digest)).collect()
    }

    fn complete(self, digest: Digest) -> SealedAggregate {
        let mut bytes = BytesMut::from(self.bytes);
        bytes.extend_from_slice(&digest);
        SealedAggregate { bytes: bytes.freeze(), len: self.len }
    }
}

impl fmt::Debug for UndigestedAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UndigestedAggregate")
            .field("len", &self.len)
            .field("size", &self.size())
            .finish()
    }
}

/// A sealed aggregate: the data of one Kinesis record.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedAggregate {
    bytes: Bytes,
    len: usize,
}

impl SealedAggregate {
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
