//! The open aggregate of a shard, and its sealing into a Kinesis record.

mod split;

use std::time::Duration;

use kinesis_aggregation::{AggregateBuilder, HashKey};

use crate::ack::{BitSet, Completer};
use crate::aggregate::compression::Compressors;
use crate::aggregate::data::Encoded;
use crate::aggregate::kinesis_record::{HashKeySpan, History, KinesisRecord, Members, Sealed};
use crate::aggregate::lifetimes::Lifetimes;
use crate::buffer::{AGGREGATE_OVERHEAD, Charge, QueueId, RECORD_OVERHEAD};
use crate::clock::{self, Instant};
use crate::config::{InvalidConfig, OnGap, ProducerConfig, RecordOrdering};
use crate::record::{Priority, Record, UserRecord};
use crate::stats::Counters;

/// The partition key of an aggregate of two or more records, as the KPL's.
const AGGREGATE_PARTITION_KEY: &str = "a";

/// Largest size of adaptive aggregates: the bytes that a shard takes in a second.
pub(crate) const MAX_ADAPTIVE_SIZE: usize = 1024 * 1024;

/// How large an aggregate may grow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AggregateLimits {
    pub(crate) max_size: usize,
    /// Largest size while the queue is busy.
    pub(crate) largest: usize,
    pub(crate) max_count: usize,
    /// Whether the members' hash keys are kept, to find a failed record's successors.
    keeps_hash_keys: bool,
    /// How long a record may wait for company.
    linger: Duration,
    record_ttl: Duration,
}

impl AggregateLimits {
    /// An aggregate and its partition key must fit into the stream's maximum record size, too.
    pub(crate) fn new(config: &ProducerConfig, max_record_size: usize) -> Self {
        let max_count =
            if config.aggregation_enabled { config.aggregation_max_count as usize } else { 1 };
        // Of a stream that takes more than any aggregate may have, the limit may sink again: not below that.
        let most = max_record_size.min(MAX_ADAPTIVE_SIZE);
        let most = most.saturating_sub(AGGREGATE_PARTITION_KEY.len());
        let max_size = config.aggregation_max_size.min(most);
        Self {
            max_size,
            largest: if config.aggregation_adaptive {
                MAX_ADAPTIVE_SIZE.min(most).max(max_size)
            } else {
                max_size
            },
            max_count,
            linger: config.record_max_buffered_time,
            record_ttl: config.record_ttl,
            keeps_hash_keys: config.ordering == RecordOrdering::PerPartitionKey
                && config.on_gap == OnGap::FailSuccessors,
        }
    }

    pub(crate) fn sized(self, max_size: usize) -> Self {
        Self { max_size, ..self }
    }

    /// Limits under which nothing is aggregated.
    pub(crate) fn single(self) -> Self {
        Self { max_count: 1, ..self }
    }

    /// Until when a record that is accepted `now` waits for company: not at all where that would take half of its time.
    fn lingers_until(self, time_to_live: Option<Duration>, now: Instant) -> Instant {
        match time_to_live {
            Some(time_to_live) if time_to_live < self.linger.saturating_mul(2) => now,
            _ => clock::after(now, self.linger),
        }
    }
}

/// The records of one shard that wait for company.
pub(crate) struct OpenAggregate {
    content: Content,
    completer: Completer,
    charge: Charge,
    span: HashKeySpan,
    hash_keys_kept: Vec<HashKey>,
    lifetimes: Lifetimes,
    droppable: BitSet,
    opened: Instant,
    /// Time from which it is sent as soon as its shard takes it.
    lingers_until: Instant,
    /// It is open for longer than the linger: members expire by the time of their own acceptance.
    is_overdue: bool,
    /// Why it accepts no more records.
    pub(crate) closed_by: SealReason,
}

/// When an open aggregate is sent or expires, and how large it is now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// From then on it is sent as soon as its shard takes it.
    pub(crate) lingers_until: Instant,
    pub(crate) expires: Instant,
    pub(crate) size: usize,
}

enum Content {
    /// Goes out as it is; data that the caller owned is not copied.
    One(UserRecord),
    /// Each record is copied straight into the aggregate.
    Many { builder: Box<AggregateBuilder>, first_hash_key: HashKey, max_size: usize },
}

impl OpenAggregate {
    pub(crate) fn new(
        record: UserRecord,
        hash_key: HashKey,
        charge: Charge,
        completer: Completer,
        limits: AggregateLimits,
        now: Instant,
    ) -> Self {
        let span = HashKeySpan::of(hash_key);
        Self {
            lifetimes: Lifetimes::new(record.time_to_live, now, limits.record_ttl),
            lingers_until: limits.lingers_until(record.time_to_live, now),
            is_overdue: false,
            droppable: droppable_of([&record]),
            content: Content::One(record),
            completer,
            charge,
            span,
            hash_keys_kept: Vec::new(),
            opened: now,
            closed_by: SealReason::Size,
        }
    }

    /// Looks at it: once its linger is over, each record that joins it expires by its own acceptance.
    pub(crate) fn look(&mut self, now: Instant) -> Waits {
        self.is_overdue |= self.lingers_until <= now;
        Waits {
            lingers_until: self.lingers_until,
            expires: self.lifetimes.expires(),
            size: self.size(),
        }
    }

    /// Adds a record, whose member is added by `join`. Also returns whether the aggregate must be checked earlier than
    /// without it.
    ///
    /// # Errors
    /// The reason why this aggregate is to be sealed before the record.
    pub(crate) fn try_push<T>(
        &mut self,
        record: &Record<'_>,
        hash_key: HashKey,
        limits: AggregateLimits,
        join: &mut impl FnMut(&mut Completer) -> T,
    ) -> Result<(T, bool), SealReason> {
        let shares_lifetime = self.lifetimes.may_share(record.time_to_live) && !self.is_overdue;
        if self.completer.members() >= limits.max_count {
            return Err(SealReason::Count);
        }
        if !record.is_aggregable() {
            return Err(SealReason::BeforeSingle);
        }
        // In ordered mode a failed member takes the later ones of its key along: those that expire must be the first.
        if limits.keeps_hash_keys && self.lifetimes.first_time_to_live() != record.time_to_live {
            return Err(SealReason::TimeToLive);
        }
        let is_copied = match &mut self.content {
            Content::Many { builder, .. } => copy_into(builder, record),
            Content::One(first) => {
                if first.payload_len() + record.payload_len() > limits.max_size {
                    return Err(SealReason::Size);
                }
                let mut builder = Box::new(AggregateBuilder::new(limits.max_size));
                let both = copy_into(&mut builder, first) && copy_into(&mut builder, record);
                if both {
                    self.content = Content::Many {
                        builder,
                        first_hash_key: self.span.low,
                        max_size: limits.max_size,
                    };
                }
                both
            }
        };
        if !is_copied {
            return Err(SealReason::Size);
        }
        if limits.keeps_hash_keys {
            if self.hash_keys_kept.is_empty() {
                self.hash_keys_kept.push(self.span.low);
            }
            self.hash_keys_kept.push(hash_key);
        }
        self.span.include(hash_key);
        if record.priority == Priority::Droppable {
            self.droppable.insert(self.completer.members());
        }
        let is_sooner = !shares_lifetime && self.add_lifetime(record.time_to_live, limits);
        Ok((join(&mut self.completer), is_sooner))
    }

    /// Adds the lifetime of a new member. Returns whether the aggregate must be checked earlier.
    fn add_lifetime(&mut self, time_to_live: Option<Duration>, limits: AggregateLimits) -> bool {
        let now = clock::now();
        let before = (self.lingers_until, self.lifetimes.expires());
        self.lifetimes.add(
            self.completer.members(),
            time_to_live,
            (self.opened, now),
            limits.record_ttl,
        );
        let lingers_until = limits.lingers_until(time_to_live, now);
        self.lingers_until = self.lingers_until.min(lingers_until);
        self.lingers_until < before.0 || self.lifetimes.expires() < before.1
    }

    /// Takes room for a record that is about to join: from `room`, and the rest from the budget. Returns whether there
    /// was room.
    pub(crate) fn pay(
        &mut self,
        bytes: usize,
        room: &mut Option<Charge>,
        is_droppable: bool,
    ) -> bool {
        self.charge.grow(bytes, room, is_droppable)
    }

    /// Takes back the room of a record that did not join.
    pub(crate) fn refund(&mut self, bytes: usize) -> Charge {
        self.charge.split(bytes)
    }

    /// Why no further record can join, if so.
    pub(crate) fn full(&self, limits: AggregateLimits) -> Option<SealReason> {
        match &self.content {
            Content::One(record) if !record.is_aggregable() => Some(SealReason::Alone),
            _ if self.completer.members() >= limits.max_count => Some(SealReason::Count),
            _ if self.size() >= limits.max_size => Some(SealReason::Size),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::One(record) => record.payload_len(),
            Content::Many { builder, .. } => builder.size(),
        }
    }

    pub(crate) fn close(mut self, reason: SealReason) -> Self {
        self.closed_by = reason;
        self
    }

    /// Gives back memory that a closed aggregate does not need, as long as it waits to be sealed.
    pub(crate) fn shrink_to_fit(&mut self) {
        if let Content::Many { builder, .. } = &mut self.content {
            builder.shrink_to_fit();
        }
    }

    /// Counts the aggregate by the reason why it was closed, and how full it is, before compression.
    pub(crate) fn count(&self, counters: &Counters) {
        let reason = match self.closed_by {
            SealReason::Size => &counters.sealed_by_size,
            SealReason::Count => &counters.sealed_by_count,
            SealReason::Alone => &counters.sealed_alone,
            SealReason::BeforeSingle => &counters.sealed_before_single,
            SealReason::Linger => &counters.sealed_by_linger,
            SealReason::TimeToLive => &counters.sealed_by_time_to_live,
            SealReason::Flush => &counters.sealed_by_flush,
            SealReason::Pressure => &counters.sealed_by_pressure,
            SealReason::Handover => &counters.sealed_by_handover,
        };
        reason.add(1);
        if let Content::Many { builder, max_size, .. } = &self.content {
            counters.aggregates.add(1);
            counters.aggregated_user_records.add(self.completer.members());
            counters.aggregate_bytes.add(builder.size());
            counters.aggregate_bytes_allowed.add(*max_size);
        }
    }
}

/// Why an open aggregate, perhaps of a single record, accepts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealReason {
    /// It is as large as it may be, or the next record did not fit.
    Size,
    Count,
    /// It takes no others: a raw record, or one without a key.
    Alone,
    /// The next record is raw, or without a key.
    BeforeSingle,
    /// Its linger was over and its shard took it; with a linger of zero, nothing of its shard was under way.
    Linger,
    /// A member expired; or, in ordered mode, the next record has another time to live.
    TimeToLive,
    /// `flush` or `close`.
    Flush,
    /// Other records waited for room in the buffer.
    Pressure,
    /// Its shard closed, or an earlier record of its queue failed in ordered mode.
    Handover,
}

/// Turns records into Kinesis records: the place where aggregates are sealed, compressed, and numbered.
pub(crate) struct Sealer {
    pub(crate) compressors: Compressors,
    next_sequence: u64,
}

impl Sealer {
    pub(crate) fn new(config: &ProducerConfig) -> Result<Self, InvalidConfig> {
        Ok(Self { compressors: Compressors::new(config)?, next_sequence: 0 })
    }

    pub(crate) fn seal(&mut self, mut open: OpenAggregate, queue_id: QueueId) -> KinesisRecord {
        open.hash_keys_kept.shrink_to_fit();
        open.lifetimes.shrink_to_fit();
        let sealed = match open.content {
            Content::One(record) => self.single(record),
            Content::Many { builder, first_hash_key, .. } => {
                self.aggregate(*builder, first_hash_key)
            }
        };
        let sequence = self.next_sequence;
        // The members, should they go separate ways, have their places before the next.
        self.next_sequence += open.completer.members() as u64;
        KinesisRecord {
            sequence,
            queue_id,
            sealed,
            span: open.span,
            hash_keys_kept: open.hash_keys_kept,
            members: Members::Together(open.completer),
            charge: open.charge,
            lifetimes: open.lifetimes,
            droppable: open.droppable,
            history: History::new(open.opened),
        }
    }

    /// Seals a single record under its own key, without a frame. If a consumer would take its data for a frame, it gets
    /// one.
    fn single(&mut self, record: UserRecord) -> Sealed {
        let (is_raw, is_framed) = (record.is_raw, record.is_wrapped_alone());
        let encoded = if is_framed {
            let mut builder = AggregateBuilder::new(usize::MAX);
            builder
                .push(&record.partition_key, record.explicit_hash_key, &record.data)
                .expect("the first record always fits");
            Encoded::Undigested(builder.seal_without_digest())
        } else {
            Encoded::Final(record.data.into_bytes())
        };
        Sealed {
            data: encoded.into(),
            partition_key: record.partition_key,
            explicit_hash_key: record.explicit_hash_key,
            is_framed,
            is_raw,
        }
    }

    fn aggregate(&mut self, builder: AggregateBuilder, first_hash_key: HashKey) -> Sealed {
        Sealed {
            data: self.compressors.compress(builder.seal_without_digest()),
            partition_key: AGGREGATE_PARTITION_KEY.into(),
            explicit_hash_key: Some(first_hash_key),
            is_framed: true,
            is_raw: false,
        }
    }
}

/// Copies a record into an aggregate. Returns whether it fits.
fn copy_into(builder: &mut AggregateBuilder, record: &Record<'_>) -> bool {
    builder.push(&record.partition_key, record.explicit_hash_key, &record.data).is_ok()
}

fn droppable_of<'a>(records: impl IntoIterator<Item = &'a UserRecord>) -> BitSet {
    let mut droppable = BitSet::default();
    for (position, record) in records.into_iter().enumerate() {
        if record.priority == Priority::Droppable {
            droppable.insert(position);
        }
    }
    droppable
}

/// Bytes that a record takes of the budget when it joins an open aggregate, and when it opens one.
pub(crate) fn cost_of(record: &Record<'_>) -> (usize, usize) {
    let joining = record.payload_len() + RECORD_OVERHEAD;
    (joining, joining + AGGREGATE_OVERHEAD)
}

#[cfg(test)]
mod tests;
