//! An aggregate under construction.

use std::fmt;
use std::io::Write as _;

use crate::frame::{ENVELOPE_LEN, SealedAggregate, UndigestedAggregate};
use crate::hash_key::HashKey;
use crate::key_table::{KeyTable, Lookup};
use crate::wire::{BYTES_1, BYTES_2, BYTES_3, BYTES_4, VARINT_1, VARINT_2};
use crate::wire::{bytes_field_len, put_varint, varint_len};

/// The least that is reserved at the first record; from then on the buffer doubles.
const FIRST_RESERVE: usize = 1024;

/// Decimal digits of 2^128 - 1.
const MAX_DIGITS: usize = 39;

/// An aggregate under construction.
///
/// Knows its exact sealed size at every step, in constant time. Payloads are copied into the buffer
/// of the open aggregate. Sealing moves them within that buffer to make room for the key tables, and
/// frees the unused end of the buffer.
///
/// The bytes are those the KPL writes for the same records: partition keys once each in order of
/// first use, then explicit hash keys (only those given, normalised decimal), then the records.
///
/// **Memory.** Nothing before the first record. From then on a buffer that grows by doubling: at
/// most twice the bytes of the records, but at least 1 KiB, or the size limit if that is less. The
/// buffer exceeds the size limit only for a first record that is larger. Beside it the key tables:
/// the distinct keys and about 50 bytes for each, at most twice that while they grow. A sealed
/// aggregate's buffer has its exact size.
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
    /// The records in wire form.
    buf: Vec<u8>,
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
        self.push_with(partition_key, explicit_hash_key, data, &[])
    }

    /// Adds a record with tags, pairs of key and value, and returns its sub-sequence number.
    ///
    /// [`Member::tag`](crate::Member::tag) reads a tag. The Java libraries ignore tags.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_tagged(
        &mut self,
        partition_key: &str,
        explicit_hash_key: Option<HashKey>,
        data: &[u8],
        tags: &[(&str, &str)],
    ) -> Result<u32, AggregateFull> {
        let mut fields = Vec::new();
        for (key, value) in tags {
            fields.push(BYTES_4);
            put_varint(
                &mut fields,
                (bytes_field_len(key.len()) + bytes_field_len(value.len())) as u64,
            );
            for (field, text) in [(BYTES_1, key), (BYTES_2, value)] {
                fields.push(field);
                put_varint(&mut fields, text.len() as u64);
                fields.extend_from_slice(text.as_bytes());
            }
        }
        self.push_with(partition_key, explicit_hash_key, data, &fields)
    }

    /// `tags`: in wire form.
    fn push_with(
        &mut self,
        partition_key: &str,
        explicit_hash_key: Option<HashKey>,
        data: &[u8],
        tags: &[u8],
    ) -> Result<u32, AggregateFull> {
        let plan = self.plan(partition_key, explicit_hash_key, data.len(), tags.len());
        let size = self.size().saturating_add(plan.growth);
        if self.len > 0 && size > self.max_size || self.len == u32::MAX {
            return Err(AggregateFull { size, max_size: self.max_size });
        }
        self.reserve(plan.growth);
        self.buf.push(BYTES_3);
        put_varint(&mut self.buf, plan.message_len as u64);
        self.buf.push(VARINT_1);
        let row = self.partition_keys.take(partition_key.as_bytes(), plan.partition_key);
        put_varint(&mut self.buf, u64::from(row));
        if let Some((decimal, lookup)) = plan.explicit_hash_key {
            self.buf.push(VARINT_2);
            let row = self.explicit_hash_keys.take(decimal.as_bytes(), lookup);
            put_varint(&mut self.buf, u64::from(row));
        }
        self.buf.push(BYTES_3);
        put_varint(&mut self.buf, data.len() as u64);
        self.buf.extend_from_slice(data);
        self.buf.extend_from_slice(tags);

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
        let plan = self.plan(partition_key, explicit_hash_key, data_len, 0);
        self.size().saturating_add(plan.growth)
    }

    /// The size in bytes if sealed now: exactly the length of [`SealedAggregate::bytes`].
    pub fn size(&self) -> usize {
        ENVELOPE_LEN + self.tables_len() + self.buf.len()
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives back the memory that was reserved for records to come, where it is a quarter of the buffer or more. That
    /// may copy the records.
    ///
    /// For an aggregate that takes no more and is not sealed yet. It still may take more, and grows again then.
    pub fn shrink_to_fit(&mut self) {
        if self.buf.len() <= self.buf.capacity() / 4 * 3 {
            self.buf.shrink_to_fit();
        }
    }

    /// Closes the aggregate: magic, key tables, records, MD5.
    ///
    /// One record makes a valid aggregate too. An empty builder gives magic and MD5 only, which
    /// every consumer (ours and Java's) takes for a plain record: there is no reason to send it.
    pub fn seal(self) -> SealedAggregate {
        self.seal_without_digest().add_digest()
    }

    /// Closes the aggregate: magic, key tables, records. The MD5 is added later, or never.
    pub fn seal_without_digest(self) -> UndigestedAggregate {
        let tables = [self.partition_keys.wire(), self.explicit_hash_keys.wire()];
        UndigestedAggregate::new(tables, self.buf, self.len as usize)
    }

    /// Makes room for `bytes` more. A buffer larger than the size limit would never be filled.
    fn reserve(&mut self, bytes: usize) {
        let needed = self.buf.len() + bytes;
        if needed > self.buf.capacity() {
            let doubled = (self.buf.capacity() * 2).max(FIRST_RESERVE);
            let capacity = doubled.min(self.max_size).max(needed);
            self.buf.reserve_exact(capacity - self.buf.len());
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
        tags_len: usize,
    ) -> Plan {
        let partition_key_lookup = self.partition_keys.lookup(partition_key.as_bytes());
        let mut message_len = 1
            + varint_len(u64::from(partition_key_lookup.row()))
            + bytes_field_len(data_len)
            + tags_len;
        let mut growth = partition_key_lookup.growth(partition_key.len());
        let explicit_hash_key = explicit_hash_key.map(|key| {
            let decimal = Decimal::new(key);
            let lookup = self.explicit_hash_keys.lookup(decimal.as_bytes());
            message_len += 1 + varint_len(u64::from(lookup.row()));
            growth += lookup.growth(decimal.as_bytes().len());
            (decimal, lookup)
        });
        growth += bytes_field_len(message_len);
        Plan { partition_key: partition_key_lookup, explicit_hash_key, message_len, growth }
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

#[cfg(test)]
mod tests;
