//! De-aggregation: one pass over the received bytes that builds an index of offsets.

use std::fmt;

use bytes::Bytes;

use crate::aggregate::{Aggregate, AggregateDefect, DefectKind, MemberEntry, NO_KEY};
use crate::compressed::{Decompressor, FrameError};
use crate::frame::{PlainReason, UndigestedAggregate, kpl_body, open_kpl};
use crate::hash_key::HashKey;
use crate::md5::{Digest, md5, md5_each};
use crate::wire::{MalformedBody, Reader, Span, WireType};

/// Takes received records apart.
///
/// | data | result |
/// |---|---|
/// | no magic in front (or shorter than it) | [`Decoded::Plain`], [`PlainReason::NoMagic`] |
/// | KPL magic, at most 16 bytes after it | plain, [`PlainReason::TooShort`] |
/// | MD5 does not match | plain, [`PlainReason::DigestMismatch`] |
/// | the protobuf message does not parse, lacks a required field, or has a key that is not UTF-8 | plain, [`PlainReason::Malformed`] |
/// | a member's index is out of its table | aggregate of the members before it, [`Aggregate::defect`] set |
/// | a member's explicit hash key is no decimal 0 to 2^128 - 1, such as the `undefined` of old JavaScript writers | the member has the hash key of its partition key; [`Aggregate::invalid_hash_keys`] counts it |
/// | no members | an empty aggregate |
/// | unknown fields and groups | ignored |
/// | tags | ignored, until [`Member::tag`](crate::Member::tag) reads one |
/// | compressed frame that does not unpack to an aggregate | [`FrameError`], never plain |
///
/// But for the last line this is what the Java KCL does (`AggregatorUtil`), with these differences:
/// Java replaces invalid UTF-8 in keys, which gives the record another key, while here such a record
/// is plain; Java drops a member whose explicit hash key is no number, and all after it
/// ([`Aggregate::strict_defect`]), unless it has no shard to compare with; and Java drops an aggregate with a member
/// outside of the shard's hash-key range, which here is left to the consumer
/// ([`Member::hash_key`](crate::Member::hash_key)).
///
/// The index takes memory in proportion to the bytes received or unpacked (at worst 4 times as
/// much, and twice that while it grows), whatever they claim. Keeps a zstd context from the first
/// compressed record on: make one decoder, use it often.
///
/// ```
/// use bytes::Bytes;
/// use kinesis_aggregation::{Decoded, Decoder};
///
/// let mut decoder = Decoder::new(10 * 1024 * 1024);
/// match decoder.decode(Bytes::from_static(b"{}"))? {
///     Decoded::Aggregate(aggregate) => {
///         for member in aggregate.iter() {
///             println!("{} {}", member.index(), member.partition_key());
///         }
///     }
///     Decoded::Plain(data, _reason) => assert_eq!(data, "{}"),
///     _ => {}
/// }
/// # Ok::<(), kinesis_aggregation::FrameError>(())
/// ```
pub struct Decoder {
    decompressor: Decompressor,
}

impl Decoder {
    /// A decoder that unpacks compressed frames of up to `max_decompressed_size` bytes.
    pub fn new(max_decompressed_size: usize) -> Self {
        Self { decompressor: Decompressor::new(max_decompressed_size) }
    }

    /// Takes the data of one received record apart. Nothing is copied; only a compressed frame is
    /// unpacked, into a buffer of its own.
    ///
    /// # Errors
    /// [`FrameError`] if the data begins with the compressed frame's magic and cannot be read: too
    /// large, of an unknown version or codec, or corrupt. What to do with such a record is the
    /// consumer's decision; the decoder can go on with the next.
    pub fn decode(&mut self, data: Bytes) -> Result<Decoded, FrameError> {
        self.decode_with(data, md5)
    }

    /// Takes the data of many received records apart: the result of [`decode`](Self::decode) for each, in order. Of
    /// aggregates it takes about a third of the time, because the digests of eight are computed at a time.
    ///
    /// The digests are computed before the first result; each record is unpacked and parsed when the iterator comes to
    /// it.
    ///
    /// # Errors
    /// Each result is one of [`decode`](Self::decode): an error concerns that record alone.
    pub fn decode_all(
        &mut self,
        records: Vec<Bytes>,
    ) -> impl ExactSizeIterator<Item = Result<Decoded, FrameError>> {
        let bodies: Vec<_> = records.iter().filter_map(|data| kpl_body(data).ok()).collect();
        let mut digests = vec![Digest::default(); bodies.len()];
        md5_each(bodies.into_iter(), |index, digest| digests[index] = digest);
        let mut digests = digests.into_iter();
        records.into_iter().map(move |data| {
            self.decode_with(data, |_| digests.next().expect("each body was hashed"))
        })
    }

    fn decode_with(
        &mut self,
        data: Bytes,
        digest: impl FnOnce(&[u8]) -> Digest,
    ) -> Result<Decoded, FrameError> {
        if let Some(body) = self.decompressor.open(&data)? {
            let aggregate = parse(body, true).map_err(FrameError::Malformed)?;
            return Ok(Decoded::Aggregate(aggregate));
        }
        let parsed = open_kpl(&data, digest)
            .and_then(|body| parse(body, false).map_err(PlainReason::Malformed));
        Ok(match parsed {
            Ok(aggregate) => Decoded::Aggregate(aggregate),
            Err(reason) => Decoded::Plain(data, reason),
        })
    }
}

impl UndigestedAggregate {
    /// The records in it, without a copy: what [`Decoder::decode`] reads once the digest is there.
    pub fn decode(&self) -> Aggregate {
        parse(self.body_bytes(), false).expect("a builder writes messages that can be read")
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("max_decompressed_size", &self.decompressor.max_size())
            .finish_non_exhaustive()
    }
}

/// What a received record is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Decoded {
    /// One record on its own: the data as received, and why it is no aggregate.
    Plain(Bytes, PlainReason),
    /// Many records in one.
    Aggregate(Aggregate),
}

/// Parses the protobuf `AggregatedRecord`.
fn parse(body: Bytes, compressed: bool) -> Result<Aggregate, MalformedBody> {
    // Fields may come in any order, so table indexes are looked at when all has been read.
    let mut partition_keys = Vec::new();
    let mut explicit_hash_keys = Vec::new();
    let mut members = Vec::new();
    let mut reader = Reader::new(&body)?;
    while !reader.is_at_end() {
        match reader.field()? {
            (3, WireType::Bytes) => {
                let record = reader.span()?;
                members.push(parse_record(reader.nested(record))?);
            }
            (1, WireType::Bytes) => partition_keys.push(reader.text()?),
            (2, WireType::Bytes) => {
                let row = reader.text()?;
                let text = str::from_utf8(reader.bytes(row)).unwrap_or_default();
                explicit_hash_keys.push(text.parse::<HashKey>().is_ok().then_some(row));
            }
            (number, wire_type) => reader.skip(number, wire_type)?,
        }
    }
    let defect = cut_at_defect(&mut members, partition_keys.len(), explicit_hash_keys.len());
    let is_invalid = |member: &MemberEntry| {
        let row = explicit_hash_keys.get(member.explicit_hash_key as usize);
        matches!(row, Some(None))
    };
    let invalid_hash_keys = members.iter().filter(|member| is_invalid(member)).count();
    let first_invalid_hash_key = members.iter().position(is_invalid);
    Ok(Aggregate {
        body,
        partition_keys,
        explicit_hash_keys,
        members,
        defect,
        invalid_hash_keys,
        first_invalid_hash_key,
        compressed,
    })
}

/// Parses one `Record`. Of a field given twice the last one counts.
fn parse_record(mut reader: Reader<'_>) -> Result<MemberEntry, MalformedBody> {
    let mut partition_key = None;
    let mut explicit_hash_key = NO_KEY;
    let mut data = None;
    while !reader.is_at_end() {
        match reader.field()? {
            (1, WireType::Varint) => partition_key = Some(table_index(reader.varint()?)),
            (2, WireType::Varint) => explicit_hash_key = table_index(reader.varint()?),
            (3, WireType::Bytes) => data = Some(reader.span()?),
            (4, WireType::Bytes) => {
                let tag = reader.span()?;
                parse_tag(reader.nested(tag))?;
            }
            (number, wire_type) => reader.skip(number, wire_type)?,
        }
    }
    match (partition_key, data) {
        (Some(partition_key), Some(data)) => {
            Ok(MemberEntry { partition_key, explicit_hash_key, data })
        }
        _ => Err(MalformedBody::MissingField),
    }
}

/// Parses one `Tag`: its key, and its value if it has one.
fn parse_tag(mut reader: Reader<'_>) -> Result<(Span, Option<Span>), MalformedBody> {
    let (mut key, mut value) = (None, None);
    while !reader.is_at_end() {
        match reader.field()? {
            (1, WireType::Bytes) => key = Some(reader.text()?),
            (2, WireType::Bytes) => value = Some(reader.text()?),
            (number, wire_type) => reader.skip(number, wire_type)?,
        }
    }
    Ok((key.ok_or(MalformedBody::MissingField)?, value))
}

/// Finds the value of a tag of the record with this index, in a message that was parsed before.
pub(crate) fn find_tag<'a>(
    body: &'a [u8],
    index: usize,
    key: &str,
) -> Result<Option<&'a str>, MalformedBody> {
    let mut reader = Reader::new(body)?;
    let mut records = 0;
    while !reader.is_at_end() {
        match reader.field()? {
            (3, WireType::Bytes) => {
                let record = reader.span()?;
                if records == index {
                    return find_tag_of_record(reader.nested(record), key);
                }
                records += 1;
            }
            (number, wire_type) => reader.skip(number, wire_type)?,
        }
    }
    Ok(None)
}

fn find_tag_of_record<'a>(
    mut reader: Reader<'a>,
    key: &str,
) -> Result<Option<&'a str>, MalformedBody> {
    while !reader.is_at_end() {
        match reader.field()? {
            (4, WireType::Bytes) => {
                let tag = reader.span()?;
                let (found, value) = parse_tag(reader.nested(tag))?;
                if reader.bytes(found) == key.as_bytes() {
                    let value = value.map_or(&b""[..], |value| reader.bytes(value));
                    return str::from_utf8(value).map(Some).map_err(|_| MalformedBody::NotUtf8);
                }
            }
            (number, wire_type) => reader.skip(number, wire_type)?,
        }
    }
    Ok(None)
}

/// An index as 32 bits. One that does not fit is as far out of the table, and not [`NO_KEY`].
fn table_index(index: u64) -> u32 {
    index.min(u64::from(NO_KEY - 1)) as u32
}

/// Drops the first broken member and all after it.
fn cut_at_defect(
    members: &mut Vec<MemberEntry>,
    partition_keys: usize,
    explicit_hash_keys: usize,
) -> Option<AggregateDefect> {
    let kind_of = |member: &MemberEntry| {
        if member.partition_key as usize >= partition_keys {
            return Some(DefectKind::PartitionKeyOutOfTable);
        }
        let row = member.explicit_hash_key;
        let is_out_of_table = row != NO_KEY && row as usize >= explicit_hash_keys;
        is_out_of_table.then_some(DefectKind::ExplicitHashKeyOutOfTable)
    };
    let mut entries = members.iter().enumerate();
    let (index, kind) = entries.find_map(|(index, member)| Some((index, kind_of(member)?)))?;
    let dropped = (members.len() - index) as u64;
    members.truncate(index);
    Some(AggregateDefect { kind, index: index as u64, dropped })
}
