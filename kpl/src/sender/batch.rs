//! Collector: fills PutRecords batches fairly across shards, as each shard's limiter allows. Pure: time is passed in.

use std::collections::{HashMap, VecDeque};

use crate::aggregate::kinesis_record::KinesisRecord;
use crate::buffer::QueueId;
use crate::clock::Instant;
use crate::config::{ProducerConfig, RecordOrdering};
use crate::sender::ordering::Predecessors;
use crate::shard::limiter::ShardLimiter;
use crate::shard::queue::ShardQueue;

/// What the collector found on its way through the shards.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    /// When a shard that is held back now may go on.
    pub(crate) next_ready: Option<Instant>,
    /// Lanes whose open aggregate is overdue, and whose shard can take it now: to be sealed, and the batch filled again.
    pub(crate) to_seal: Vec<QueueId>,
    /// Records whose turn has come, and that are to be sent without others.
    pub(crate) isolated: Vec<KinesisRecord>,
}

/// One PutRecords request in the making.
pub(crate) struct Batch {
    pub(crate) records: Vec<KinesisRecord>,
    pub(crate) bytes: usize,
    /// Of a part of a failed request: when its records were set apart.
    pub(crate) opened: Instant,
    /// Whether it holds records that are sent apart from all others.
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

    /// When the first of its records expires.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.records.iter().map(KinesisRecord::expires).min()
    }

    /// Whether all records can be sent. Their size is known then.
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
        self.take(|record| record.expires() <= now)
    }

    /// Takes out the records for which `is_wanted`.
    pub(crate) fn take(
        &mut self,
        is_wanted: impl Fn(&KinesisRecord) -> bool,
    ) -> Vec<KinesisRecord> {
        let (taken, rest) =
            std::mem::take(&mut self.records).into_iter().partition(|record| is_wanted(record));
        self.records = rest;
        self.bytes = self.records.iter().map(KinesisRecord::size).sum();
        taken
    }

    /// Two halves, for finding the record that the service refuses.
    pub(crate) fn split_in_halves(mut self) -> [Self; 2] {
        let behind = self.records.split_off(self.records.len() / 2);
        [self.records, behind].map(|records| Self {
            bytes: records.iter().map(KinesisRecord::size).sum(),
            records,
            opened: self.opened,
            is_isolated: self.is_isolated,
        })
    }
}

pub(crate) type Queues = HashMap<QueueId, ShardQueue>;

pub(crate) struct Collector {
    max_count: usize,
    /// As configured.
    largest_size: usize,
    /// As the window allows for now.
    max_size: usize,
    /// Lanes with waiting records or an overdue open aggregate, in the order of their turns.
    rotation: VecDeque<QueueId>,
    batch: Option<Batch>,
    is_full: bool,
    /// Whether a queue may have one record under way only.
    is_ordered: bool,
    /// Without, an open aggregate waits until nothing of its queue is under way.
    has_linger: bool,
    pub(crate) predecessors: Predecessors,
}

impl Collector {
    pub(crate) fn new(config: &ProducerConfig) -> Self {
        Self {
            max_count: config.collection_max_count,
            largest_size: config.collection_max_size,
            max_size: config.collection_max_size,
            rotation: VecDeque::new(),
            batch: None,
            is_full: false,
            is_ordered: config.ordering == RecordOrdering::PerPartitionKey,
            has_linger: !config.record_max_buffered_time.is_zero(),
            predecessors: Predecessors::default(),
        }
    }

    /// Lets a record wait for its shard.
    pub(crate) fn enqueue(&mut self, queue: &mut ShardQueue, record: KinesisRecord) {
        self.take_turns(queue);
        queue.insert(record);
    }

    /// Gives a queue its turns, until nothing of it waits.
    pub(crate) fn take_turns(&mut self, queue: &mut ShardQueue) {
        if !queue.in_rotation {
            queue.in_rotation = true;
            self.rotation.push_back(queue.intake.id);
        }
    }

    /// Bounds the bytes of a batch from now on.
    pub(crate) fn limit_size(&mut self, bytes: usize) {
        self.max_size = self.largest_size.min(bytes);
    }

    /// Whether a batch of several records is larger than one may be now.
    pub(crate) fn is_oversized(&self) -> bool {
        (self.batch.as_ref())
            .is_some_and(|batch| batch.records.len() > 1 && batch.bytes > self.max_size)
    }

    /// Fills the batch, one record of each shard in turn.
    ///
    /// An open aggregate whose linger is over takes its turn when nothing sealed of its queue waits before it. Until the
    /// shard can take it, it stays open: sealed earlier it would wait all the same, with fewer members.
    pub(crate) fn fill(&mut self, queues: &mut Queues, now: Instant) -> Filled {
        let mut held_back: VecDeque<QueueId> = VecDeque::new();
        let mut next_ready: Option<Instant> = None;
        // Aggregates that will be sealed, and their bytes.
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
                // Whatever frees it brings the next look.
                held_back.push_back(queue_id);
            } else if !self.has_room(to_seal.len(), to_seal_bytes + size) {
                // Its turn comes first in the next batch.
                self.rotation.push_front(queue_id);
                if !to_seal.is_empty() {
                    break;
                }
                self.is_full = true;
            } else if !is_sealed {
                match queue.would_block_until(size, now) {
                    Some(until) => {
                        next_ready = Some(next_ready.map_or(until, |earliest| earliest.min(until)));
                    }
                    None => {
                        to_seal_bytes += size;
                        to_seal.push(queue_id);
                    }
                }
                held_back.push_back(queue_id);
            } else if let Some(until) = queue.blocked_until(size, now) {
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

    /// Whether an overdue aggregate stays open although nothing sealed of its queue waits.
    fn stays_open(&self, queue: &ShardQueue) -> bool {
        // The records that the stream or the shard refused tell whether it takes some again: what is sealed before that
        // would be refused with them.
        let is_refused = (queue.limiter.as_ref()).is_some_and(ShardLimiter::is_refused);
        queue.under_way > 0 && (queue.is_throttled || is_refused || !self.has_linger)
    }

    /// In ordered mode: whether nothing goes before what waits here.
    fn may_go(&self, queue: &ShardQueue) -> bool {
        queue.under_way == 0 && self.predecessors.allows(queue.intake.range)
    }

    /// Whether the batch takes one record more behind `before` others, and `bytes` with them.
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

    /// Takes out the waiting records whose time is over.
    ///
    /// The second is when to look again, if anything waits.
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

    /// Takes out of the batch whose time is over while it waits to be sent.
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

    /// Takes out all that waits for a queue.
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
