//! A user record, and what makes one acceptable.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use kinesis_aggregation::{AggregateBuilder, HashKey, hash_partition_keys, looks_framed};

mod data;
mod partition_key;

pub use self::data::RecordData;
pub use self::partition_key::PartitionKey;

/// The longest partition key, in Unicode scalar values.
pub(crate) const MAX_PARTITION_KEY_CHARS: usize = 256;

/// Whether a record may be dropped when the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Priority {
    /// The record waits for room and is never dropped.
    #[default]
    Critical,
    /// [`send`](crate::Producer::send) never waits for room for the record. If the buffer is fuller than
    /// [`droppable_limit`](crate::ProducerConfig::droppable_limit), or its shard has no room, the record fails at once
    /// with [`FailureCause::Dropped`](crate::FailureCause::Dropped). A record that was accepted is treated as any
    /// other.
    Droppable,
}

/// A record of the application: partition key, data, and optionally an explicit hash key.
///
/// Key and data may be borrowed. The producer copies them straight into the open aggregate of their shard, so that a
/// caller that has them as `&str` and `&[u8]` needs no allocation per record:
///
/// ```
/// use kpl::{Producer, Record, SendError};
///
/// async fn forward(producer: &Producer, lines: &str) -> Result<(), SendError> {
///     for line in lines.lines() {
///         let (customer, order) = line.split_once(' ').unwrap_or(("none", line));
///         drop(producer.send(Record::new(customer, order)).await?);
///     }
///     Ok(())
/// }
/// ```
///
/// A record that owns its parts is a [`UserRecord`]. A clone shares owned data. It copies the key if that is a `String`.
#[derive(Clone, PartialEq, Eq)]
pub struct Record<'a> {
    pub(crate) partition_key: PartitionKey<'a>,
    pub(crate) explicit_hash_key: Option<HashKey>,
    pub(crate) data: RecordData<'a>,
    pub(crate) priority: Priority,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) is_raw: bool,
}

/// A record that owns its key and data, or has them from the program itself: the form in which errors return it.
pub type UserRecord = Record<'static>;

impl<'a> Record<'a> {
    /// Creates a record whose shard is chosen by the MD5 of `partition_key`: a `String`, an `Arc<str>`, or a `&str`.
    ///
    /// The key must have 1 to 256 Unicode scalar values. Key and data together must not exceed the stream's maximum
    /// record size. [`Producer::send`](crate::Producer::send) checks both.
    pub fn new(
        partition_key: impl Into<PartitionKey<'a>>,
        data: impl Into<RecordData<'a>>,
    ) -> Self {
        Self {
            partition_key: partition_key.into(),
            explicit_hash_key: None,
            data: data.into(),
            priority: Priority::default(),
            time_to_live: None,
            is_raw: false,
        }
    }

    /// Creates a record that is sent alone and as it is, even if its data begins as an aggregate does. Use it to
    /// forward an aggregate.
    ///
    /// Consumers de-aggregate it. In a record of [`new`](Self::new), such data is wrapped, and consumers get it back as
    /// one record. The caller must see to it that all members belong to the shard that takes the record, or a KCL drops
    /// it. The shard is chosen by `partition_key`, or by the explicit hash key, which in an aggregate of the KPL is
    /// that of the first member.
    pub fn raw(
        partition_key: impl Into<PartitionKey<'a>>,
        data: impl Into<RecordData<'a>>,
    ) -> Self {
        Self { is_raw: true, ..Self::new(partition_key, data) }
    }

    /// Creates a record without a partition key, for a stream whose record distribution strategy is `AUTO`. A producer
    /// of any other stream refuses it.
    pub fn without_key(data: impl Into<RecordData<'a>>) -> Self {
        Self::new("", data)
    }

    /// Sets the hash key that chooses the shard, instead of the MD5 of the partition key.
    #[must_use]
    pub fn with_explicit_hash_key(mut self, hash_key: HashKey) -> Self {
        self.explicit_hash_key = Some(hash_key);
        self
    }

    /// Sets the hash key that chooses the shard, as decimal text: the form of the Kinesis API and the KPL.
    ///
    /// # Errors
    /// [`InvalidRecord::ExplicitHashKey`] if the text is not a decimal number from 0 to 2^128-1.
    ///
    /// ```
    /// use kpl::{InvalidRecord, UserRecord};
    ///
    /// let record = UserRecord::new("key", "data").with_explicit_hash_key_text("42")?;
    /// assert!(record.clone().with_explicit_hash_key_text("340282366920938463463374607431768211456").is_err());
    /// # Ok::<(), InvalidRecord>(())
    /// ```
    pub fn with_explicit_hash_key_text(self, decimal: &str) -> Result<Self, InvalidRecord> {
        match decimal.parse::<HashKey>() {
            Ok(hash_key) => Ok(self.with_explicit_hash_key(hash_key)),
            Err(_) => {
                Err(InvalidRecord::ExplicitHashKey { actual: decimal.chars().take(64).collect() })
            }
        }
    }

    /// Sets the time after acceptance until the record fails as expired. Default:
    /// [`record_ttl`](crate::ProducerConfig::record_ttl), which also says how precise it is.
    ///
    /// Records with different times to live share aggregates. Each one expires by its own time, and the others of its
    /// aggregate are sent. In ordered mode with [`OnGap::FailSuccessors`](crate::OnGap::FailSuccessors), all records of
    /// an aggregate have the same time to live: use few values there.
    ///
    /// If the time is less than twice `record_max_buffered_time`, the aggregate of the record is sent as soon as the
    /// shard accepts it.
    #[must_use]
    pub fn with_time_to_live(mut self, time_to_live: Duration) -> Self {
        self.time_to_live = Some(time_to_live);
        self
    }

    /// Time to live of the record, if it has its own.
    #[must_use]
    pub fn time_to_live(&self) -> Option<Duration> {
        self.time_to_live
    }

    /// Sets whether the record may be dropped when the buffer is full. Default [`Priority::Critical`].
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Whether the record may be dropped when the buffer is full.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Partition key.
    #[must_use]
    pub fn partition_key(&self) -> &str {
        &self.partition_key
    }

    /// Explicit hash key, if the record has one.
    #[must_use]
    pub fn explicit_hash_key(&self) -> Option<HashKey> {
        self.explicit_hash_key
    }

    /// Data of the record.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Copies key and data where they are borrowed.
    #[must_use]
    pub fn into_owned(self) -> UserRecord {
        Record {
            partition_key: self.partition_key.into_owned(),
            data: self.data.into_owned(),
            explicit_hash_key: self.explicit_hash_key,
            priority: self.priority,
            time_to_live: self.time_to_live,
            is_raw: self.is_raw,
        }
    }

    /// Moves the record out. Copies key and data where they are borrowed, and leaves both empty.
    pub(crate) fn take(&mut self) -> UserRecord {
        let left = Self {
            partition_key: PartitionKey::EMPTY,
            data: RecordData::EMPTY,
            explicit_hash_key: self.explicit_hash_key,
            priority: self.priority,
            time_to_live: self.time_to_live,
            is_raw: self.is_raw,
        };
        std::mem::replace(self, left).into_owned()
    }

    /// Hash key by which Kinesis chooses the shard.
    pub(crate) fn hash_key(&self) -> HashKey {
        self.explicit_hash_key.unwrap_or_else(|| HashKey::of_partition_key(&self.partition_key))
    }

    /// Bytes of key and data, which count against the limits of the service.
    pub(crate) fn payload_len(&self) -> usize {
        self.partition_key.len() + self.data.len()
    }

    /// Whether the record can share a Kinesis record with others.
    pub(crate) fn is_aggregable(&self) -> bool {
        !self.is_raw && !self.partition_key.is_empty()
    }

    /// Whether the record is wrapped in an aggregate of its own when it is sent alone. Consumers would otherwise
    /// de-aggregate its data.
    pub(crate) fn is_wrapped_alone(&self) -> bool {
        !self.is_raw && looks_framed(&self.data)
    }

    /// Checks the record against `max_record_size`, the stream's limit in bytes, and the limits of its key. The key may
    /// be empty if `may_lack_key`: the service chooses the shard.
    pub(crate) fn validate(
        &self,
        max_record_size: usize,
        may_lack_key: bool,
    ) -> Result<(), InvalidRecord> {
        // A key of at most 256 bytes has at most 256 characters, so only longer keys are counted.
        let key = &self.partition_key;
        if key.is_empty() || key.len() > MAX_PARTITION_KEY_CHARS {
            let actual = key.chars().count();
            if actual == 0 && !may_lack_key || actual > MAX_PARTITION_KEY_CHARS {
                return Err(InvalidRecord::PartitionKeyLength {
                    limit: MAX_PARTITION_KEY_CHARS,
                    actual,
                });
            }
        }
        let actual = self.size_on_stream();
        if actual > max_record_size {
            return Err(InvalidRecord::TooLarge { limit: max_record_size, actual });
        }
        Ok(())
    }

    /// Bytes of key and data of the record when it is sent alone, with the wrapper if it needs one.
    fn size_on_stream(&self) -> usize {
        if self.is_wrapped_alone() {
            let wrapper = AggregateBuilder::new(usize::MAX);
            self.partition_key.len()
                + wrapper.size_with(&self.partition_key, self.explicit_hash_key, self.data.len())
        } else {
            self.payload_len()
        }
    }
}

/// Sets `hash_keys` to the hash key of each record. Hashes several partition keys at a time.
pub(crate) fn hash_keys_of(records: &[Record<'_>], hash_keys: &mut Vec<HashKey>) {
    let hashed = records.iter().filter(|record| record.explicit_hash_key.is_none());
    let hashed: Vec<&str> = hashed.map(Record::partition_key).collect();
    hash_partition_keys(hashed.iter().copied(), hash_keys);
    if hashed.len() < records.len() {
        let mut hashes = std::mem::take(hash_keys).into_iter();
        let all = records.iter();
        hash_keys
            .extend(all.filter_map(|record| record.explicit_hash_key.or_else(|| hashes.next())));
    }
}

impl UserRecord {
    /// Returns the data without a copy.
    #[must_use]
    pub fn into_data(self) -> Bytes {
        self.data.into_bytes()
    }
}

impl fmt::Debug for Record<'_> {
    /// Shows the lengths of key and data only, because neither may appear in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("partition_key_len", &self.partition_key.len())
            .field("has_explicit_hash_key", &self.explicit_hash_key.is_some())
            .field("data_len", &self.data.len())
            .finish()
    }
}

/// Reason for which a record is never accepted, with the limit and the actual value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRecord {
    /// The partition key is empty or too long, in Unicode scalar values.
    #[error("partition key must have 1 to {limit} characters, got {actual}")]
    PartitionKeyLength {
        /// Most characters of a key.
        limit: usize,
        /// Characters of this key.
        actual: usize,
    },
    /// Key and data together exceed the stream's maximum record size, in bytes. If the limit is raised while the
    /// producer runs, the producer learns of it with the next refresh of the shard map, if the role may describe the
    /// stream.
    #[error(
        "partition key and data take {actual} bytes, the stream takes {limit}: split the record, or raise the limit with UpdateMaxRecordSize"
    )]
    TooLarge {
        /// Most bytes of a record of the stream.
        limit: usize,
        /// Bytes of this record on the stream.
        actual: usize,
    },
    /// The text of an explicit hash key is not a decimal number below 2^128.
    #[error(
        "explicit hash key must be a decimal number from 0 to 340282366920938463463374607431768211455, the given text is not"
    )]
    ExplicitHashKey {
        /// The text, cut after 64 characters.
        actual: String,
    },
    /// The data begins as an aggregate does, and the stream's record distribution strategy is `AUTO`. On other streams
    /// such data is wrapped in an aggregate of its own, but a KCL drops a wrapper whose key does not belong to the
    /// shard.
    #[error(
        "data begins as an aggregate does, which a stream whose record distribution strategy is AUTO cannot carry: send it with `UserRecord::raw` if it is one, begin it with another byte, or use a stream with USER_PARTITION_KEY"
    )]
    LooksAggregated,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn the_key_is_counted_in_characters_not_bytes() {
        let characters = |n| UserRecord::new("é".repeat(n), "").validate(MIB, false);
        assert_eq!(characters(256), Ok(()));
        assert_eq!(
            characters(257),
            Err(InvalidRecord::PartitionKeyLength { limit: 256, actual: 257 })
        );
        assert_eq!(characters(0), Err(InvalidRecord::PartitionKeyLength { limit: 256, actual: 0 }));
    }

    #[test]
    fn key_and_data_share_the_limit() {
        let record = |data: usize| UserRecord::new("key", vec![0; data]).validate(MIB, false);
        assert_eq!(record(MIB - 3), Ok(()));
        assert_eq!(record(MIB - 2), Err(InvalidRecord::TooLarge { limit: MIB, actual: MIB + 1 }));
    }

    #[test]
    fn data_that_looks_framed_must_leave_room_for_its_wrapper() {
        let mut data = vec![0xF3, 0x89, 0x9A, 0xC2];
        data.resize(MIB - 3, 0);
        assert!(matches!(
            UserRecord::new("key", data).validate(MIB, false),
            Err(InvalidRecord::TooLarge { limit: MIB, actual }) if actual > MIB
        ));
    }

    #[test]
    fn debug_output_has_no_payload() {
        let text = format!("{:?}", UserRecord::new("key", "secret"));
        assert!(!text.contains("secret") && text.contains("data_len: 6"), "{text}");
    }
}
