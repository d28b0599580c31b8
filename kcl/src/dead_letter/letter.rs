//! A record that was given up, and why.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use kinesis_aggregation::HashKey;

use crate::sequence::ExtendedSequenceNumber;

/// A user record that the worker gave up, with the reason and all that is needed to process it later.
///
/// It is plain data. With the feature `dead-letters`, `to_json` and `from_json` turn it into JSON and back, and the
/// sinks of the crate write that.
///
/// ```
/// use std::time::SystemTime;
///
/// use kcl::{DeadLetter, DeadLetterCondition, ExtendedSequenceNumber};
///
/// let position = ExtendedSequenceNumber::new("4959".parse()?, 0);
/// let mut letter = DeadLetter::new(
///     "billing",
///     "orders",
///     "shardId-000000000001",
///     position,
///     "not a number",
///     SystemTime::UNIX_EPOCH,
/// );
/// letter.condition = DeadLetterCondition::Poison;
/// letter.error = "the amount is not a number".into();
/// assert_eq!(letter.idempotency_key(), "billing:orders:shardId-000000000001:4959:0");
/// # Ok::<(), kcl::InvalidSequenceNumber>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The application, which is the name of its lease table unless that has another name.
    pub application: String,
    /// The worker that gave the record up.
    pub worker_id: String,
    /// Name or ARN of the stream, as the application gave it.
    pub stream: String,
    /// ARN of the stream. `None`: not known.
    pub stream_arn: Option<String>,
    /// The shard.
    pub shard_id: String,
    /// Position of the record in the shard.
    pub position: ExtendedSequenceNumber,
    /// Partition key. `None`: the record was put without one.
    pub partition_key: Option<String>,
    /// Explicit hash key, if the record was part of an aggregate and has one. Kinesis does not return that of other
    /// records.
    pub explicit_hash_key: Option<HashKey>,
    /// Time of arrival of the Kinesis record by the service's clock. `None`: not reported.
    pub arrival: Option<SystemTime>,
    /// Payload. `None`: the letter was too large for its sink, and holds a reference only. The record is in the stream
    /// at [`position`](Self::position) until the retention ends.
    pub payload: Option<Bytes>,
    /// True if the record was part of an aggregate.
    pub aggregated: bool,
    /// Why the record was given up.
    pub condition: DeadLetterCondition,
    /// How often the processor was called with the record. 0: it never was.
    pub attempts: u32,
    /// Text of the last error.
    pub error: String,
    /// Causes of the last error, the nearest first.
    pub error_chain: Vec<String>,
    /// Time of the first failure.
    pub first_failure: SystemTime,
    /// Time of the last failure, after which the record was given up.
    pub last_failure: SystemTime,
    /// How often the record was put into the stream again by a redrive. 0: it is the original record.
    pub redrives: u32,
}

impl DeadLetter {
    /// Creates a letter of a record that failed once, at `failed`. All other fields have neutral values. Set them
    /// afterwards.
    pub fn new(
        application: impl Into<String>,
        stream: impl Into<String>,
        shard_id: impl Into<String>,
        position: ExtendedSequenceNumber,
        payload: impl Into<Bytes>,
        failed: SystemTime,
    ) -> Self {
        let stream = stream.into();
        Self {
            application: application.into(),
            worker_id: String::new(),
            stream_arn: stream.starts_with("arn:").then(|| stream.clone()),
            stream,
            shard_id: shard_id.into(),
            position,
            partition_key: None,
            explicit_hash_key: None,
            arrival: None,
            payload: Some(payload.into()),
            aggregated: false,
            condition: DeadLetterCondition::RetriesExhausted,
            attempts: 1,
            error: String::new(),
            error_chain: Vec::new(),
            first_failure: failed,
            last_failure: failed,
            redrives: 0,
        }
    }

    /// Key that is the same in every letter of this record in this application, whichever worker wrote it and however
    /// often: `application:stream:shard:sequence number:sub-sequence number`, with the stream's name.
    ///
    /// A letter may be written twice. Whatever reads letters can drop the second one by this key.
    pub fn idempotency_key(&self) -> String {
        let stream = self.stream_name();
        format!("{}:{stream}:{}:{}", self.application, self.shard_id, self.position)
    }

    /// Name of the stream, also if an ARN was given.
    fn stream_name(&self) -> &str {
        match self.stream.rsplit_once('/') {
            Some((arn, name)) if arn.starts_with("arn:") => name,
            _ => &self.stream,
        }
    }
}

impl fmt::Debug for DeadLetter {
    /// Shows neither payload nor keys, because logs must not hold them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("idempotency_key", &self.idempotency_key())
            .field("condition", &self.condition)
            .field("attempts", &self.attempts)
            .field("redrives", &self.redrives)
            .field("size", &self.payload.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// Why a record became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadLetterCondition {
    /// The attempts, or the time for them, are used up.
    RetriesExhausted,
    /// The record is older than the application accepts.
    RecordAgeExpired,
    /// The processor returned an error that says that no further attempt can succeed.
    Poison,
    /// An earlier record of the same partition key became a dead letter, and the application keeps the order of the
    /// key.
    HeldAfterDeadLetter,
}

impl DeadLetterCondition {
    /// All conditions.
    #[cfg(any(test, feature = "dead-letters"))]
    pub(super) const ALL: [Self; 4] =
        [Self::RetriesExhausted, Self::RecordAgeExpired, Self::Poison, Self::HeldAfterDeadLetter];

    /// The condition as text. The first two are those of Lambda.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RetriesExhausted => "RetryAttemptsExhausted",
            Self::RecordAgeExpired => "RecordAgeExpired",
            Self::Poison => "PoisonRecord",
            Self::HeldAfterDeadLetter => "HeldAfterDeadLetter",
        }
    }
}

impl fmt::Display for DeadLetterCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(stream: &str) -> DeadLetter {
        let position = ExtendedSequenceNumber::new("42".parse().unwrap(), 7);
        let epoch = SystemTime::UNIX_EPOCH;
        DeadLetter::new("billing", stream, "shardId-0", position, "secret payload", epoch)
    }

    #[test]
    fn the_idempotency_key_is_the_same_for_every_owner_and_attempt() {
        let first = letter("orders");
        let mut later = letter("arn:aws:kinesis:eu-west-1:123456789012:stream/orders");
        later.worker_id = "another".into();
        later.attempts = 9;
        later.condition = DeadLetterCondition::Poison;
        later.last_failure += std::time::Duration::from_secs(60);
        assert_eq!(first.idempotency_key(), "billing:orders:shardId-0:42:7");
        assert_eq!(later.idempotency_key(), first.idempotency_key());
    }

    #[test]
    fn the_idempotency_key_differs_between_records_shards_streams_and_applications() {
        let mut others = vec![letter("orders"); 5];
        others[1].position.sub_sequence_number = 8;
        others[2].shard_id = "shardId-1".into();
        others[3].stream = "returns".into();
        others[4].application = "audit".into();
        let keys: std::collections::HashSet<_> =
            others.iter().map(DeadLetter::idempotency_key).collect();
        assert_eq!(keys.len(), others.len());
    }

    #[test]
    fn an_arn_is_known_if_it_was_given() {
        let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders";
        assert_eq!(letter(arn).stream_arn.as_deref(), Some(arn));
        assert_eq!(letter("orders").stream_arn, None);
    }

    #[test]
    fn debug_output_shows_no_payload_and_no_keys() {
        let mut letter = letter("orders");
        letter.partition_key = Some("secret key".into());
        letter.explicit_hash_key = Some(HashKey::new(123_456));
        let shown = format!("{letter:?}");
        assert!(!shown.contains("secret") && !shown.contains("123456"), "{shown}");
    }

    #[test]
    fn conditions_have_different_texts() {
        let texts: std::collections::HashSet<_> =
            DeadLetterCondition::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), DeadLetterCondition::ALL.len());
    }
}
