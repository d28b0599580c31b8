//! An aggregate under construction.

use std::fmt;
use std::io::Write as _;

use bytes::Bytes;

use crate::frame::KPL_MAGIC;
use crate::hash_key::{DIGEST_LEN, HashKey, md5};
use crate::key_table::{KeyTable, Lookup};
use crate::wire::{BYTES_1, BYTES_2, BYTES_3, VARINT_1, VARINT_2};
use crate::wire::{bytes_field_len, put_varint, varint_len};

/// Up to this size the whole buffer is reserved at the first record; beyond, it doubles.
const RESERVE_AT_ONCE: usize = 64 * 1024;

/// Decimal digits of 2^128 - 1.
const MAX_DIGITS: usize = 39;

/// Magic and digest.
const ENVELOPE_LEN: usize = KPL_MAGIC.len() + DIGEST_LEN;

/// An aggregate under construction.
///
/// Knows its exact sealed size at every step, in constant time. Payloads are copied once, into the
/// buffer that is sent: it keeps room in front for the magic and the key tables, which stand before
/// the records on the wire and are filled in when the aggregate is sealed. (The records are moved
/// once more where the keys outgrow this room, and where less than half of the buffer was used.)
///
/// The bytes are those the KPL writes for the same records: partition keys once each in order of
/// first use, then explicit hash keys (only those given, normalised decimal), then the records.
///
/// **Memory.** Nothing before the first record. From then on a buffer of 4/3 of the size limit; of
/// 4/3 of 64 KiB, growing by doubling, if the limit is greater. Beside it the key tables: the
/// distinct keys and about 50 bytes for each, at most twice that while they grow. A sealed
/// aggregate's buffer is at most twice its bytes.
///
/// ```
/// use kinesis_aggregation::AggregateBuilder;
///
/// let mut open = AggregateBuilder::new(50 * 1024);
/// assert_eq!(open.push("user-1", None, b"first")?, 0);
/// assert_eq!(open.push("user-2", Some(42.into()), b"second")?, 1);
/// let size = open.size();
/// let sealed = open.seal();
/// assert_eq!(sealed.bytes().len(), size);
/// # Ok::<(), kinesis_aggregation::AggregateFull>(())
/// ```
pub struct AggregateBuilder {
    max_size: usize,
    /// Headroom, then the records in wire form.
    buf: Vec<u8>,
    headroom: usize,
    partition_keys: KeyTable,
    explicit_hash_keys: KeyTable,
    len: u32,
}

/// How a record would be written.
struct Plan {
    partition_key: Lookup,
    explicit_hash_key: Option<(Decimal, Lookup)>,
    /// Bytes of the record's message, without its field key and length.
    message_len: usize,
    /// Bytes the sealed aggregate grows by.
    growth: usize,
}

impl AggregateBuilder {
    /// An empty aggregate that may grow to `max_size` bytes when sealed: magic, key tables, records
    /// and MD5, everything that Kinesis counts but the partition key of the record itself.
    pub fn new(max_size: usize) -> Self {
        Self {
            max_size,
            buf: Vec::new(),
            headroom: 0,
            partition_keys: KeyTable::new(BYTES_1),
            explicit_hash_keys: KeyTable::new(BYTES_2),
            len: 0,
        }
    }

    /// Adds a record and returns its sub-sequence number, which is its index.
    ///
    /// The first record always fits, whatever its size: the size of a single record is for its
    /// sender to check. `explicit_hash_key` is what the user gave; `None` if nothing.
    ///
    /// # Errors
    /// [`AggregateFull`] if the aggregate would exceed its maximum size. It is unchanged, the
    /// caller still has the record: seal this one and push the record into the next.
    pub fn push(
        &mut self,
        partition_key: &str,
        explicit_hash_key: Option<HashKey>,
        data: &[u8],
    ) -> Result<u32, AggregateFull> {
        let plan = self.plan(partition_key, explicit_hash_key, data.len());
        let size = self.size().saturating_add(plan.growth);
        if self.len > 0 && size > self.max_size || self.len == u32::MAX {
            return Err(AggregateFull {
                size,
                max_size: self.max_size,
            });
        }
        if self.len == 0 {
            let reserve = self.max_size.min(RESERVE_AT_ONCE);
            self.headroom = KPL_MAGIC.len() + reserve / 3;
            self.buf
                .reserve_exact(self.headroom + reserve.max(plan.growth + DIGEST_LEN));
            self.buf.resize(self.headroom, 0);
        }

        self.buf.push(BYTES_3);
        put_varint(&mut self.buf, plan.message_len as u64);
        self.buf.push(VARINT_1);
        let row = self
            .partition_keys
            .take(partition_key.as_bytes(), plan.partition_key);
        put_varint(&mut self.buf, u64::from(row));
        if let Some((decimal, lookup)) = plan.explicit_hash_key {
            self.buf.push(VARINT_2);
            let row = self.explicit_hash_keys.take(decimal.as_bytes(), lookup);
            put_varint(&mut self.buf, u64::from(row));
        }
        self.buf.push(BYTES_3);
        put_varint(&mut self.buf, data.len() as u64);
        self.buf.extend_from_slice(data);

        let index = self.len;
        self.len += 1;
        Ok(index)
    }

    /// The sealed size in bytes if this record were added. Exact; O(1) apart from hashing the keys.
    pub fn size_with(
        &self,
        partition_key: &str,
        explicit_hash_key: Option<HashKey>,
        data_len: usize,
    ) -> usize {
        let plan = self.plan(partition_key, explicit_hash_key, data_len);
        self.size().saturating_add(plan.growth)
    }

    /// The size in bytes if sealed now: exactly the length of [`SealedAggregate::bytes`].
    pub fn size(&self) -> usize {
        ENVELOPE_LEN + self.tables_len() + self.buf.len() - self.headroom
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives back the memory that was reserved for records to come, at the cost of a copy of those that are here.
    ///
    /// For an aggregate that takes no more and is not sealed yet. It still may take more, and grows again then.
    pub fn shrink_to_fit(&mut self) {
        if self.is_empty() {
            return;
        }
        let front = KPL_MAGIC.len() + self.tables_len();
        let records = &self.buf[self.headroom..];
        let mut buf = Vec::with_capacity(front + records.len() + DIGEST_LEN);
        buf.resize(front, 0);
        buf.extend_from_slice(records);
        self.headroom = front;
        self.buf = buf;
    }

    /// Closes the aggregate: key tables in front of the records, magic before, MD5 behind.
    ///
    /// One record makes a valid aggregate too. An empty builder gives magic and MD5 only, which
    /// every consumer (ours and Java's) takes for a plain record: there is no reason to send it.
    pub fn seal(self) -> SealedAggregate {
        let front = KPL_MAGIC.len() + self.tables_len();
        let Self {
            mut buf,
            headroom,
            partition_keys,
            explicit_hash_keys,
            len,
            ..
        } = self;
        let start = match headroom.checked_sub(front) {
            Some(start) => start,
            None => {
                let records = headroom..buf.len();
                buf.reserve_exact(front - headroom + DIGEST_LEN);
                buf.resize(front + records.len(), 0);
                buf.copy_within(records, front);
                0
            }
        };
        let parts = [&KPL_MAGIC, partition_keys.wire(), explicit_hash_keys.wire()];
        let mut at = start;
        for part in parts {
            buf[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let digest = md5(&buf[start + KPL_MAGIC.len()..]);
        buf.extend_from_slice(&digest);
        // What waits to be sent must not hold much more memory than it has bytes.
        if buf.capacity() / 2 > buf.len() - start {
            buf.drain(..start);
            buf.shrink_to_fit();
            return SealedAggregate {
                bytes: Bytes::from(buf),
                len: len as usize,
            };
        }
        SealedAggregate {
            bytes: Bytes::from(buf).slice(start..),
            len: len as usize,
        }
    }

    fn tables_len(&self) -> usize {
        self.partition_keys.wire().len() + self.explicit_hash_keys.wire().len()
    }

    fn plan(
        &self,
        partition_key: &str,
        explicit_hash_key: Option<HashKey>,
        data_len: usize,
    ) -> Plan {
        let partition_key_lookup = self.partition_keys.lookup(partition_key.as_bytes());
        let mut message_len =
            1 + varint_len(u64::from(partition_key_lookup.row())) + bytes_field_len(data_len);
        let mut growth = partition_key_lookup.growth(partition_key.len());
        let explicit_hash_key = explicit_hash_key.map(|key| {
            let decimal = Decimal::new(key);
            let lookup = self.explicit_hash_keys.lookup(decimal.as_bytes());
            message_len += 1 + varint_len(u64::from(lookup.row()));
            growth += lookup.growth(decimal.as_bytes().len());
            (decimal, lookup)
        });
        growth += bytes_field_len(message_len);
        Plan {
            partition_key: partition_key_lookup,
            explicit_hash_key,
            message_len,
            growth,
        }
    }
}

impl fmt::Debug for AggregateBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregateBuilder")
            .field("len", &self.len)
            .field("size", &self.size())
            .field("max_size", &self.max_size)
            .finish_non_exhaustive()
    }
}

/// A hash key in decimal, on the stack.
struct Decimal {
    digits: [u8; MAX_DIGITS],
    len: usize,
}

impl Decimal {
    fn new(key: HashKey) -> Self {
        let mut digits = [0; MAX_DIGITS];
        let mut rest = &mut digits[..];
        write!(rest, "{key}").expect("39 bytes hold every 128-bit number");
        let len = MAX_DIGITS - rest.len();
        Self { digits, len }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.len]
    }
}

/// The record does not fit into the aggregate any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the aggregate is full: it would be {size} bytes of at most {max_size}; seal it first")]
pub struct AggregateFull {
    size: usize,
    max_size: usize,
}

impl AggregateFull {
    /// The size in bytes the aggregate would have with the record.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The maximum size in bytes.
    pub const fn max_size(&self) -> usize {
        self.max_size
    }
}

/// A closed aggregate: the data of one Kinesis record.
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

    /// The same in a buffer of its exact size, at the cost of a copy: for one that is kept for long.
    #[must_use]
    pub fn into_exact(self) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(&self.bytes),
            len: self.len,
        }
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

#[cfg(test)]
mod tests;
