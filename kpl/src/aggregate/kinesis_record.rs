//! A Kinesis record: one entry of a PutRecords request, single or aggregate, with what completes its members.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kinesis_aggregation::{HashKey, HashKeyRange};

use crate::ack::{BitSet, Completer, Receipt};
use crate::aggregate::data::{Data, Encoded};
use crate::aggregate::lifetimes::Lifetimes;
use crate::buffer::{AGGREGATE_OVERHEAD, Charge, QueueId, RECORD_OVERHEAD};
use crate::clock::Instant;
use crate::error::{Attempt, FailureCause};
use crate::record::{PartitionKey, Priority, UserRecord};

/// Number of attempts that are kept: the first and the latest. [`AGGREGATE_OVERHEAD`] counts them.
const MAX_ATTEMPTS_KEPT: usize = 3;

pub(crate) struct KinesisRecord {
    /// Rises in the order of sealing; a record that is tried again keeps its place.
    pub(crate) sequence: u64,
    pub(crate) queue_id: QueueId,
    pub(crate) sealed: Sealed,
    pub(crate) span: HashKeySpan,
    /// Hash key of each member. Kept in ordered mode only.
    pub(crate) hash_keys_kept: Vec<HashKey>,
    pub(crate) members: Members,
    pub(crate) charge: Charge,
    pub(crate) lifetimes: Lifetimes,
    /// The members that were sent as droppable.
    pub(crate) droppable: BitSet,
    pub(crate) history: History,
}

/// The bytes of a Kinesis record, and how it is addressed.
pub(crate) struct Sealed {
    pub(crate) data: Data,
    pub(crate) partition_key: PartitionKey<'static>,
    pub(crate) explicit_hash_key: Option<HashKey>,
    /// Whether `data` is a frame around the members, or the one member's own data.
    pub(crate) is_framed: bool,
    /// Whether the caller sent the record as raw.
    pub(crate) is_raw: bool,
}

/// The lowest and the highest hash key of the members. A shard takes a contiguous range, so these two stand for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HashKeySpan {
    pub(crate) low: HashKey,
    pub(crate) high: HashKey,
}

impl HashKeySpan {
    pub(crate) fn of(hash_key: HashKey) -> Self {
        Self { low: hash_key, high: hash_key }
    }

    pub(crate) fn include(&mut self, hash_key: HashKey) {
        self.low = self.low.min(hash_key);
        self.high = self.high.max(hash_key);
    }

    pub(crate) fn union(mut self, other: Self) -> Self {
        self.include(other.low);
        self.include(other.high);
        self
    }

    pub(crate) fn is_within(self, range: HashKeyRange) -> bool {
        range.contains(self.low) && range.contains(self.high)
    }
}

/// The members of a Kinesis record, whose deliveries resolve with its outcome.
pub(crate) enum Members {
    /// All members of one slot, in order.
    Together(Completer),
    /// Members of an aggregate that was split, each with its slot and its index there.
    Each(Vec<(Arc<Completer>, u32)>),
}

impl Members {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Together(completer) => completer.members(),
            Self::Each(members) => members.len(),
        }
    }

    /// The slot of the members. All members have the same: records are split, and never joined.
    pub(crate) fn completer(&self) -> &Completer {
        match self {
            Self::Together(completer) => completer,
            Self::Each(members) => &members[0].0,
        }
    }

    pub(crate) fn separate(self) -> Vec<(Arc<Completer>, u32)> {
        match self {
            Self::Together(completer) => {
                let completer = Arc::new(completer);
                (0..completer.members() as u32)
                    .map(|index| (Arc::clone(&completer), index))
                    .collect()
            }
            Self::Each(members) => members,
        }
    }
}

impl KinesisRecord {
    /// Whether it can be sent: its data is compressed, where that is asked for.
    pub(crate) fn is_ready(&mut self, now: Instant) -> bool {
        self.sealed.data.is_ready(self.lifetimes.expires(), now)
    }

    pub(crate) fn expires(&self) -> Instant {
        self.lifetimes.expires()
    }

    /// Data and partition key: what counts against the limits of the service.
    pub(crate) fn size(&self) -> usize {
        self.sealed.data.len() + self.sealed.partition_key.len()
    }

    /// The user records inside, without copying their data.
    pub(crate) fn user_records(&self) -> Vec<UserRecord> {
        self.contents().records()
    }

    /// The source of the user records inside. No data is copied.
    pub(crate) fn contents(&self) -> Contents {
        let sealed = &self.sealed;
        Contents {
            sealed: Sealed {
                data: sealed.data.encoded().into(),
                partition_key: sealed.partition_key.clone(),
                ..*sealed
            },
            lifetimes: self.lifetimes.clone(),
            droppable: self.droppable.clone(),
            members: self.members.len(),
        }
    }

    pub(crate) fn user_bytes(&self) -> usize {
        match &self.members {
            // As they were charged.
            Members::Together(completer) => {
                let overhead = completer.members() * RECORD_OVERHEAD + AGGREGATE_OVERHEAD;
                self.charge.bytes().saturating_sub(overhead)
            }
            // The parts of an aggregate share its charge.
            Members::Each(_) => self.user_records().iter().map(UserRecord::payload_len).sum(),
        }
    }

    pub(crate) fn complete_delivered(self, shard_id: Arc<str>, sequence_number: &str) {
        let History { attempts, may_have_been_written, .. } = self.history;
        let receipt =
            Receipt::new(shard_id, sequence_number.into(), attempts, may_have_been_written);
        // Room first: a task that awaits the receipt finds it free.
        drop(self.charge);
        match self.members {
            Members::Together(completer) => completer.complete_together(receipt),
            Members::Each(members) => {
                for (position, (completer, index)) in (0..).zip(members) {
                    completer.complete_one(index, Ok(receipt.of_member(position)));
                }
            }
        }
    }

    /// The hash keys of the members, in order; of several members none unless [`Self::hash_keys_kept`].
    pub(crate) fn hash_keys(&self) -> &[HashKey] {
        match self.members.len() {
            1 => std::slice::from_ref(&self.span.low),
            _ => &self.hash_keys_kept,
        }
    }
}

/// The source of the user records of a Kinesis record.
pub(crate) struct Contents {
    sealed: Sealed,
    lifetimes: Lifetimes,
    droppable: BitSet,
    members: usize,
}

impl Contents {
    fn records(&self) -> Vec<UserRecord> {
        let sealed = &self.sealed;
        let encoded = sealed.data.encoded();
        if let Encoded::Final(data) = &encoded
            && !sealed.is_framed
        {
            return vec![UserRecord {
                partition_key: sealed.partition_key.clone(),
                explicit_hash_key: sealed.explicit_hash_key,
                data: data.clone().into(),
                priority: self.priority_of(0),
                time_to_live: self.lifetimes.time_to_live(0),
                is_raw: sealed.is_raw,
            }];
        }
        let members = encoded.members();
        assert_eq!(members.len(), self.members, "a frame holds the members that were sealed");
        let records = members.iter().enumerate().map(|(position, member)| UserRecord {
            partition_key: member.partition_key().to_owned().into(),
            explicit_hash_key: member.explicit_hash_key(),
            data: member.data_bytes().into(),
            priority: self.priority_of(position),
            time_to_live: self.lifetimes.time_to_live(position),
            is_raw: false,
        });
        records.collect()
    }

    /// The records at these places, ascending. Data is copied out of an aggregate of more than twice its size, which
    /// would live as long as each of the records.
    pub(crate) fn records_at(&self, places: &[u32]) -> Vec<UserRecord> {
        let records = self.records();
        let all: usize = records.iter().map(|record| record.data.len()).sum();
        let mut wanted = places.iter().map(|place| *place as usize).peekable();
        let mut kept = Vec::with_capacity(places.len());
        for (place, mut record) in records.into_iter().enumerate() {
            if wanted.next_if_eq(&place).is_none() {
                continue;
            }
            if record.data.len() < all / 2 {
                record.data = Bytes::copy_from_slice(&record.data).into();
            }
            kept.push(record);
        }
        kept
    }

    fn priority_of(&self, position: usize) -> Priority {
        if self.droppable.contains(position) { Priority::Droppable } else { Priority::Critical }
    }
}

/// The attempts to send a record.
#[derive(Debug, Clone)]
pub(crate) struct History {
    /// Attempts made, the successful one included.
    pub(crate) attempts: u32,
    pub(crate) may_have_been_written: bool,
    pub(crate) log: Vec<Attempt>,
    /// Requests in a row that failed as a whole and may have failed for this record.
    pub(crate) suspicions: u32,
    /// Whether it is sent apart from all other records, because a request with it failed.
    pub(crate) is_isolated: bool,
    /// Number of failed attempts, those not kept included.
    pub(crate) failures: u32,
    /// When the first member was accepted.
    pub(crate) accepted: Instant,
    /// The end of the last attempt, or the acceptance.
    since: Instant,
    /// When the last attempt began.
    pub(crate) started: Instant,
}

impl History {
    pub(crate) fn new(accepted: Instant) -> Self {
        Self {
            attempts: 0,
            may_have_been_written: false,
            log: Vec::new(),
            suspicions: 0,
            is_isolated: false,
            failures: 0,
            accepted,
            since: accepted,
            started: accepted,
        }
    }

    pub(crate) fn begin(&mut self, now: Instant) {
        self.attempts += 1;
        self.started = now;
    }

    /// The history of members whose first was accepted then: a part of the record.
    pub(crate) fn of_part(&self, accepted: Option<Instant>) -> Self {
        let mut part = self.clone();
        if let Some(accepted) = accepted {
            part.accepted = accepted;
            part.since = part.since.max(accepted);
        }
        part
    }

    /// How long the last attempt waited for its start: since the one before, or since acceptance.
    pub(crate) fn waited(&self) -> Duration {
        self.started.saturating_duration_since(self.since)
    }

    pub(crate) fn failed(
        &mut self,
        now: Instant,
        code: &Arc<str>,
        message: &Arc<str>,
        may_have_been_written: bool,
    ) {
        self.may_have_been_written |= may_have_been_written;
        self.failures += 1;
        if self.log.len() == MAX_ATTEMPTS_KEPT {
            self.log.remove(1);
        }
        // No more than that.
        self.log.reserve_exact(MAX_ATTEMPTS_KEPT - self.log.len());
        self.log.push(Attempt {
            delay: self.waited(),
            duration: now.saturating_duration_since(self.started),
            code: Arc::clone(code),
            message: Arc::clone(message),
        });
        self.since = now;
    }

    /// The cause of an expiry.
    pub(crate) fn expired(&self, ttl: Duration) -> FailureCause {
        let last = match self.log.last() {
            Some(attempt) => format!("{}: {}", attempt.code, attempt.message).into(),
            None => "it waited for its compression, its shard's rate limit, room in flight, or the endpoint"
                .into(),
        };
        FailureCause::Expired { ttl, last }
    }
}
