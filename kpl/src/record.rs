//! A user record, and what makes one acceptable.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use kinesis_aggregation::{AggregateBuilder, HashKey, looks_framed};

mod partition_key;

pub use self::partition_key::PartitionKey;

/// The longest partition key, in Unicode scalar values.
pub(crate) const MAX_PARTITION_KEY_CHARS: usize = 256;

/// What becomes of a record when the buffer fills up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Priority {
    /// It waits for room, and is never dropped.
    #[default]
    Critical,
    /// It gives way: [`send`](crate::Producer::send) never waits for it, and while the buffer is fuller than
    /// [`droppable_limit`](crate::ProducerConfig::droppable_limit), or its shard has no room, the record fails at once with
    /// [`FailureCause::Dropped`](crate::FailureCause::Dropped). Once it is in the buffer it is as good as the others.
    Droppable,
}

/// One record of the application: a partition key, data, and perhaps an explicit hash key.
///
/// Cloning is cheap for the data (a reference count), and copies the key where it is a `String`.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRecord {
    pub(crate) partition_key: PartitionKey,
    pub(crate) explicit_hash_key: Option<HashKey>,
    pub(crate) data: Bytes,
    pub(crate) priority: Priority,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) is_raw: bool,
}

impl UserRecord {
    /// A record whose shard is chosen by the MD5 of `partition_key`: a `String`, an `Arc<str>`, or a `&'static str`.
    ///
    /// The key must have 1 to 256 Unicode scalar values, and key and data together must fit into the stream's
    /// maximum record size; both are checked by [`Producer::send`](crate::Producer::send).
    pub fn new(partition_key: impl Into<PartitionKey>, data: impl Into<Bytes>) -> Self {
        Self {
            partition_key: partition_key.into(),
            explicit_hash_key: None,
            data: data.into(),
            priority: Priority::default(),
            time_to_live: None,
            is_raw: false,
        }
    }

    /// A record that is sent as it is, alone, even where its data begins as an aggregate does: an aggregate that is forwarded.
    ///
    /// Without this, such data is wrapped, so that consumers get it back as one record; now they take it apart. That its
    /// members belong to the shard that takes it is up to the caller: a KCL drops it otherwise. It goes by the
    /// `partition_key`, or by the explicit hash key, which for an aggregate of the KPL is its first member's.
    pub fn raw(partition_key: impl Into<PartitionKey>, data: impl Into<Bytes>) -> Self {
        Self { is_raw: true, ..Self::new(partition_key, data) }
    }

    /// A record without a partition key, for a stream whose record distribution strategy is `AUTO`. Others refuse it.
    pub fn without_key(data: impl Into<Bytes>) -> Self {
        Self::new("", data)
    }

    /// Chooses the shard by `hash_key` instead of the MD5 of the partition key.
    #[must_use]
    pub fn with_explicit_hash_key(mut self, hash_key: HashKey) -> Self {
        self.explicit_hash_key = Some(hash_key);
        self
    }

    /// Chooses the shard by a hash key in decimal text, the form the Kinesis API and the KPL use.
    ///
    /// # Errors
    /// [`InvalidRecord::ExplicitHashKey`] when the text is not a decimal number from 0 to 2^128-1.
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

    /// How long after acceptance the record is tried before it fails as expired, longer or shorter than
    /// [`record_ttl`](crate::ProducerConfig::record_ttl), which is the default.
    ///
    /// Records with unequal times to live share aggregates, and each expires by its own: the others of its aggregate go on.
    /// How precisely it does is at [`record_ttl`](crate::ProducerConfig::record_ttl).
    /// In ordered mode with [`OnGap::FailSuccessors`](crate::OnGap::FailSuccessors), an aggregate takes one time to live
    /// only: use few values there.
    ///
    /// Where it is less than twice `record_max_buffered_time`, the record does not wait for company: its aggregate is sent
    /// as soon as the shard takes it.
    #[must_use]
    pub fn with_time_to_live(mut self, time_to_live: Duration) -> Self {
        self.time_to_live = Some(time_to_live);
        self
    }

    /// The record's own time to live, where one was given.
    #[must_use]
    pub fn time_to_live(&self) -> Option<Duration> {
        self.time_to_live
    }

    /// Says what becomes of the record when the buffer fills up. Default: [`Priority::Critical`].
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// What becomes of the record when the buffer fills up.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The partition key.
    #[must_use]
    pub fn partition_key(&self) -> &str {
        &self.partition_key
    }

    /// The explicit hash key, where one was given.
    #[must_use]
    pub fn explicit_hash_key(&self) -> Option<HashKey> {
        self.explicit_hash_key
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The data, without a copy.
    #[must_use]
    pub fn into_data(self) -> Bytes {
        self.data
    }

    /// What Kinesis hashes this record to.
    pub(crate) fn hash_key(&self) -> HashKey {
        self.explicit_hash_key.unwrap_or_else(|| HashKey::of_partition_key(&self.partition_key))
    }

    /// Key and data, in bytes: what counts against the limits of the service.
    pub(crate) fn payload_len(&self) -> usize {
        self.partition_key.len() + self.data.len()
    }

    /// Whether it can share a Kinesis record with others.
    pub(crate) fn is_aggregable(&self) -> bool {
        !self.is_raw && !self.partition_key.is_empty()
    }

    /// Whether it goes out in a frame of its own when it travels alone: consumers would take its data for a frame.
    pub(crate) fn is_wrapped_alone(&self) -> bool {
        !self.is_raw && looks_framed(&self.data)
    }

    /// Checks the record against the limits of the service. `max_record_size` is the stream's, in bytes; `may_lack_key`
    /// says whether the service chooses the shard.
    pub(crate) fn validate(
        &self,
        max_record_size: usize,
        may_lack_key: bool,
    ) -> Result<(), InvalidRecord> {
        // A key of 256 bytes or less cannot have more characters than that: the usual key is not walked.
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

    /// Key and data as they go out when the record travels alone; data that looks like a frame is wrapped first.
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

impl fmt::Debug for UserRecord {
    /// Never shows the data or the keys, which must not land in logs: only their lengths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRecord")
            .field("partition_key_len", &self.partition_key.len())
            .field("has_explicit_hash_key", &self.explicit_hash_key.is_some())
            .field("data_len", &self.data.len())
            .finish()
    }
}

/// Why a record can never be accepted. Each variant carries the limit and the actual value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRecord {
    /// The partition key is empty or too long, in Unicode scalar values.
    #[error("partition key must have 1 to {limit} characters, got {actual}")]
    PartitionKeyLength {
        /// The most characters a key may have.
        limit: usize,
        /// The characters this key has.
        actual: usize,
    },
    /// Key and data together are larger than the stream takes, in bytes. A limit that is raised while the producer runs holds
    /// from the next refresh of the shard map on, where the role may describe the stream.
    #[error(
        "partition key and data take {actual} bytes, the stream takes {limit}: split the record, or raise the limit with UpdateMaxRecordSize"
    )]
    TooLarge {
        /// The most bytes the stream takes.
        limit: usize,
        /// The bytes this record takes on the stream.
        actual: usize,
    },
    /// The text of an explicit hash key is not a decimal number below 2^128.
    #[error(
        "explicit hash key must be a decimal number from 0 to 340282366920938463463374607431768211455, the given text is not"
    )]
    ExplicitHashKey {
        /// The text (cut after 64 characters).
        actual: String,
    },
    /// The data begins as an aggregate does, and the stream's record distribution strategy is `AUTO`: elsewhere such data is
    /// wrapped in an aggregate of its own, which a KCL drops where the service chooses the shard.
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
