//! Collector: fills PutRecords requests fairly across shards, as the limiter of each shard allows. Pure: time is passed
//! in.

use std::collections::{HashMap, VecDeque};

use crate::aggregate::kinesis_record::KinesisRecord;
use crate::buffer::QueueId;
use crate::clock::Instant;
use crate::config::{ProducerConfig, RecordOrdering};
use crate::sender::ordering::Predecessors;
use crate::shard::limiter::ShardLimiter;
use crate::shard::queue::ShardQueue;

/// Result of filling a batch.
#[derive(Default)]
pub(crate) struct Filled {
    /// When the first shard that its limiter holds back may send again.
    pub(crate) next_ready: Option<Instant>,
    /// Queues whose open aggregate is overdue, and whose shard can take it now. The caller seals these and fills the
    /// batch again.
    pub(crate) to_seal: Vec<QueueId>,
    /// Records that may be sent now, each in a request of its own.
    pub(crate) isolated: Vec<KinesisRecord>,
}

/// The records of one PutRecords request.
pub(crate) struct Batch {
    pub(crate) records: Vec<KinesisRecord>,
    pub(crate) bytes: usize,
    /// When the batch was begun. For an isolated request: when its records were isolated.
    pub(crate) opened: Instant,
    /// Whether its records are sent apart from all others.
    pub(crate) is_isolated: bool,
}

impl Batch {
    pub(crate) fn new(now: Instant) -> Self {
        Self { records: Vec::new(), bytes: 0, opened: now, is_isolated: false }
    }

    pub(crate) fn push(&mut self, record: KinesisRecord) {
        self.bytes += record.size();
        self.records.push(record);
    }

    /// When the first record expires.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.records.iter().map(KinesisRecord::expires).min()
    }

    /// Whether all records are compressed and can be sent. Their size is known then.
    pub(crate) fn is_ready(&mut self, now: Instant) -> bool {
        let mut is_ready = true;
        for record in &mut self.records {
            is_ready &= record.is_ready(now);
        }
        self.bytes = self.records.iter().map(KinesisRecord::size).sum();
        is_ready
    }

    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        self.records.iter().any(|record| record.expires() <= now)
    }

    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<KinesisRecord> {
        let expired = self.records.extract_if(.., |record| record.expires() <= now).collect();
        self.bytes = self.records.iter().map(KinesisRecord::size).sum();
        expired
    }

    /// Splits the batch in halves, to find the record that the service refuses.
    pub(crate) fn split_in_halves(mut self) -> [Self; 2] {
        let second = self.records.split_off(self.records.len() / 2);
        [self.records, second].map(|records| Self {
            bytes: records.iter().map(KinesisRecord::size).sum(),
            records,
            opened: self.opened,
            is_isolated: self.is_isolated,
        })
    }
}

pub(crate) type Queues = HashMap<QueueId, ShardQueue>;

/// Fills requests with records of the shards, in turn.
pub(crate) struct Collector {
    max_count: usize,
    /// Most bytes of a request of several records now.
    pub(crate) max_size: usize,
    /// Queues with waiting records or an overdue open aggregate, in the order of their turns.
    rotation: VecDeque<QueueId>,
    batch: Option<Batch>,
    is_full: bool,
    /// Ordered mode: a queue has at most one record under way.
    is_ordered: bool,
    /// Whether records wait for company. If not, an open aggregate waits only while a record of its queue is under way.
    has_linger: bool,
    pub(crate) predecessors: Predecessors,
}

impl Collector {
    pub(crate) fn new(config: &ProducerConfig) -> Self {
        Self {
            max_count: config.collection_max_count,
            max_size: config.collection_max_size,
            rotation: VecDeque::new(),
            batch: None,
            is_full: false,
            is_ordered: config.ordering == RecordOrdering::PerPartitionKey,
            has_linger: !config.record_max_buffered_time.is_zero(),
            predecessors: Predecessors::default(),
        }
    }

    /// Puts a record into the queue of its shard.
    pub(crate) fn enqueue(&mut self, queue: &mut ShardQueue, record: KinesisRecord) {
        self.take_turns(queue);
        queue.insert(record);
    }

    /// Adds a queue to the rotation, where it stays until nothing of it waits.
    pub(crate) fn take_turns(&mut self, queue: &mut ShardQueue) {
        if !queue.in_rotation {
            queue.in_rotation = true;
            self.rotation.push_back(queue.intake.id);
        }
    }

    /// Whether the batch has several records and exceeds the limit of now.
    pub(crate) fn is_oversized(&self) -> bool {
        (self.batch.as_ref())
            .is_some_and(|batch| batch.records.len() > 1 && batch.bytes > self.max_size)
    }

    /// Fills the batch with one record of each shard in turn.
    ///
    /// An open aggregate whose linger is over takes its turn if no sealed record of its queue waits. It stays open
    /// until the shard can take it: if it were sealed earlier, it would wait as long, with fewer members.
    pub(crate) fn fill(&mut self, queues: &mut Queues, now: Instant) -> Filled {
        let mut held_back: VecDeque<QueueId> = VecDeque::new();
        let mut next_ready: Option<Instant> = None;
        // Queues whose open aggregate the caller will seal, and the bytes of these.
        let mut to_seal = Vec::new();
        let mut to_seal_bytes = 0;
        let mut isolated = Vec::new();
        while !self.is_full
            && let Some(queue_id) = self.rotation.pop_front()
        {
            let Some(queue) = queues.get_mut(&queue_id) else {
                continue;
            };
            let is_sealed = !queue.waiting.is_empty();
            let mut is_ready = true;
            let size = match queue.waiting.front_mut() {
                Some(first) => {
                    is_ready = first.is_ready(now);
                    Some(first.size())
                }
                None => queue.intake.overdue(now),
            };
            let Some(size) = size else {
                queue.in_rotation = false;
                continue;
            };
            let must_wait = !is_ready
                || queue.must_split()
                || self.is_ordered && !self.may_go(queue)
                || !is_sealed && self.stays_open(queue);
            if must_wait {
                // The event that ends the wait calls this function again.
                held_back.push_back(queue_id);
            } else if !self.has_room(to_seal.len(), to_seal_bytes + size) {
                // The batch is full for this record: the queue is the first in the next batch.
                self.rotation.push_front(queue_id);
                if !to_seal.is_empty() {
                    break;
                }
                self.is_full = true;
            } else if !is_sealed {
                match queue.limiter.as_mut().map(|limiter| limiter.check(size, now)) {
                    Some(Err(until)) => {
                        next_ready = Some(next_ready.map_or(until, |earliest| earliest.min(until)));
                    }
                    _ => {
                        to_seal_bytes += size;
                        to_seal.push(queue_id);
                    }
                }
                held_back.push_back(queue_id);
            } else if let Some(Err(until)) = queue.limiter.as_mut().map(|l| l.take(size, now)) {
                next_ready = Some(next_ready.map_or(until, |earliest| earliest.min(until)));
                held_back.push_back(queue_id);
            } else if let Some(record) = queue.waiting.pop_front() {
                queue.under_way += 1;
                self.rotation.push_back(queue_id);
                if record.history.is_isolated {
                    isolated.push(*record);
                    continue;
                }
                let batch = self.batch.get_or_insert_with(|| Batch::new(now));
                batch.push(*record);
                self.is_full =
                    batch.records.len() >= self.max_count || batch.bytes >= self.max_size;
            }
        }
        held_back.append(&mut self.rotation);
        self.rotation = held_back;
        Filled { next_ready, to_seal, isolated }
    }

    /// Whether an overdue aggregate stays open although no sealed record of its queue waits.
    fn stays_open(&self, queue: &ShardQueue) -> bool {
        // After a throttle, the records under way show whether the shard takes records again. An aggregate that is
        // sealed before that would be throttled with them.
        let is_refused = (queue.limiter.as_ref()).is_some_and(ShardLimiter::is_refused);
        queue.under_way > 0 && (queue.is_throttled || is_refused || !self.has_linger)
    }

    /// Ordered mode: whether no earlier record of the queue's keys is under way.
    fn may_go(&self, queue: &ShardQueue) -> bool {
        queue.under_way == 0 && self.predecessors.allows(queue.intake.range)
    }

    /// Whether one more record fits after `before` others that will be added. `bytes` counts all of these.
    fn has_room(&self, before: usize, bytes: usize) -> bool {
        let (records, batched) = match &self.batch {
            Some(batch) => (batch.records.len(), batch.bytes),
            None => (0, 0),
        };
        let is_first = records + before == 0;
        is_first || records + before < self.max_count && batched + bytes <= self.max_size
    }

    /// The batch so far, and whether it is full.
    pub(crate) fn batch(&self) -> Option<(&Batch, bool)> {
        self.batch.as_ref().map(|batch| (batch, self.is_full))
    }

    pub(crate) fn take_batch(&mut self) -> Option<Batch> {
        self.is_full = false;
        self.batch.take()
    }

    /// Takes out the waiting records that have expired. Also returns when to search again, if any record waits.
    pub(crate) fn expired(
        &mut self,
        queues: &mut Queues,
        now: Instant,
    ) -> (Vec<KinesisRecord>, Option<Instant>) {
        let mut expired = Vec::new();
        let mut next: Option<Instant> = None;
        for queue_id in &self.rotation {
            if let Some(queue) = queues.get_mut(queue_id) {
                expired.extend(queue.expired(now).into_iter().map(|record| *record));
                next = next.into_iter().chain(queue.earliest_expiry).min();
            }
        }
        let batched = self.batch.iter().flat_map(|batch| &batch.records);
        let next = batched.map(|record| record.expires()).chain(next).min();
        (expired, next)
    }

    /// Takes expired records out of the batch that waits to be sent.
    pub(crate) fn expired_in_batch(&mut self, now: Instant) -> Vec<KinesisRecord> {
        match &mut self.batch {
            Some(batch) if batch.has_expired(now) => {
                let expired = batch.take_expired(now);
                self.is_full = false;
                if batch.records.is_empty() {
                    self.batch = None;
                }
                expired
            }
            _ => Vec::new(),
        }
    }

    /// Takes out all waiting records of a queue.
    pub(crate) fn drain(&mut self, queue: &mut ShardQueue) -> Vec<KinesisRecord> {
        let waiting = std::mem::take(&mut queue.waiting);
        waiting.into_iter().map(|record| *record).collect()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.rotation.is_empty()
    }
}

#[cfg(test)]
mod tests;
