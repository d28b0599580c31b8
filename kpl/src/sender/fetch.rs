//! Fetches records from the intakes into the queues of the shards, and follows the shard map.
//!
//! When a shard is split or merged, the queues of the closed shards hand their records to the queues of the new shards,
//! at their head: see [`Sender::apply_shard_map`]. An aggregate whose members now belong to several shards is split by
//! shard.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Sender;
use crate::aggregate::builder::{OpenAggregate, SealReason};
use crate::aggregate::kinesis_record::KinesisRecord;
use crate::buffer::{Pressure, QueueId};
use crate::clock::{self, Instant};
use crate::error::FailureCause;
use crate::shard::queue::Intake;
use crate::shard::queue::ShardQueue;

impl Sender {
    /// Fetches the accepted records, and seals open aggregates early where records wait for the room that they hold.
    pub(super) fn intake(&mut self, now: Instant) {
        let fetched = self.apply_shard_map();
        for intake in &fetched {
            self.fetch(intake, now);
        }
        // A queue is asked only when it got an open aggregate, or when it became empty.
        let mut may_yield = std::mem::take(&mut self.freed);
        may_yield.extend(fetched.iter().map(|intake| intake.id));
        match self.context.budget.take_pressure(&may_yield) {
            Pressure::None => {}
            Pressure::All => {
                let table = Arc::clone(&self.table);
                for intake in table.intakes() {
                    self.fetch_open(intake, SealReason::Pressure);
                }
            }
            Pressure::Queues(queue_ids) => {
                // If other records of the shard are on the way, these will make room. Otherwise aggregates would be
                // half empty under load.
                for id in queue_ids {
                    if let Some(queue) = self.queues.get(&id).filter(|queue| queue.is_free()) {
                        let intake = Arc::clone(&queue.intake);
                        self.fetch_open(&intake, SealReason::Pressure);
                    }
                }
            }
        }
    }

    /// Follows the shard map in place. Records of closed shards move to the queues of their successors, and records
    /// that were written are checked again. Returns the queues that are ready to be fetched.
    pub(super) fn apply_shard_map(&mut self) -> Vec<Arc<Intake>> {
        let (table, ready) = self.shards.take_ready_with_table();
        let changed = !Arc::ptr_eq(&table, &self.table);
        self.table = table;
        let (current, mut gone): (Vec<_>, Vec<_>) =
            ready.into_iter().partition(|intake| self.table.has(intake.id));
        if changed {
            let intakes = self.queues.values().map(|queue| &queue.intake);
            gone.extend(intakes.filter(|intake| !self.table.has(intake.id)).cloned());
        }
        // In order of age: records of a closed shard are older than the records of its successors.
        gone.sort_unstable_by_key(|intake| intake.id);
        gone.dedup_by_key(|intake| intake.id);
        for intake in gone {
            self.move_to_successors(&intake);
        }
        if changed {
            self.table.intakes().for_each(|intake| intake.set_single(false));
            let generation = self.table.generation;
            let decided = self.unconfirmed.extract_if(.., |w| w.generation <= generation);
            for written in decided.collect::<Vec<_>>() {
                self.check_again(written);
            }
        }
        current
    }

    /// Moves the records of a closed shard to the queues that take their keys now.
    fn move_to_successors(&mut self, intake: &Arc<Intake>) {
        if let Some(queue) = self.queues.get_mut(&intake.id) {
            let waiting = self.collector.drain(queue);
            waiting.into_iter().for_each(|record| self.requeue_by_shard(record));
        }
        self.fetch_open(intake, SealReason::Handover);
        match self.queues.get(&intake.id) {
            Some(queue) if queue.is_free() => {
                self.queues.remove(&intake.id);
                self.collector.predecessors.remove(intake.id);
            }
            Some(_) => self.collector.predecessors.add(intake.id, intake.range),
            None => {}
        }
    }

    /// Fetches the full aggregates of an intake.
    fn fetch(&mut self, intake: &Arc<Intake>, now: Instant) {
        let config = &self.context.config;
        self.queues
            .entry(intake.id)
            .or_insert_with(|| ShardQueue::new(Arc::clone(intake), config, now));
        self.check_open(intake, now);
    }

    /// Seals the full aggregates of a queue, and sets the time at which its open aggregate is checked again.
    pub(super) fn check_open(&mut self, intake: &Arc<Intake>, now: Instant) {
        let (full, open) = intake.fetch(now);
        self.seal_all(full, intake.id);
        let Some(open) = open else {
            return;
        };
        if open.expires <= now {
            // The next search for expired records fails the expired members, and keeps the others as a record of their
            // own.
            self.fetch_open(intake, SealReason::TimeToLive);
        } else if open.lingers_until <= now {
            if let Some(queue) = self.queues.get_mut(&intake.id) {
                self.collector.take_turns(queue);
            }
            self.set_timer(intake.id, open.expires);
        } else {
            self.set_timer(intake.id, open.lingers_until.min(open.expires));
        }
    }

    /// Seals all aggregates of a queue, the open one included.
    pub(super) fn fetch_open(&mut self, intake: &Arc<Intake>, reason: SealReason) {
        self.seal_all(intake.fetch_all(reason), intake.id);
    }

    /// Seals aggregates and puts them into their queue. A busy queue that fills its aggregates gets larger ones.
    pub(super) fn seal_all(&mut self, aggregates: VecDeque<OpenAggregate>, queue_id: QueueId) {
        for aggregate in aggregates {
            aggregate.count(&self.context.outcomes.counters);
            if let Some(queue) = self.queues.get(&queue_id)
                && aggregate.closed_by == SealReason::Size
                && !queue.is_free()
            {
                queue.intake.grow();
            }
            let record = self.sealer.seal(aggregate, queue_id);
            self.enqueue(record);
        }
    }

    /// Puts a sealed record into its queue. If the shard is gone, its members go to the queues that take them now.
    pub(super) fn enqueue(&mut self, record: KinesisRecord) {
        self.next_sweep = self.next_sweep.min(record.expires());
        let Some(record) = self.placeable(record) else {
            return;
        };
        match self.queues.get_mut(&record.queue_id) {
            Some(queue) if self.table.has(record.queue_id) => self.collector.enqueue(queue, record),
            _ => self.requeue_by_shard(record),
        }
    }

    /// Moves a record to the queue that takes its keys now. An aggregate whose members belong to several shards is
    /// split by shard.
    pub(super) fn requeue_by_shard(&mut self, mut record: KinesisRecord) {
        let table = Arc::clone(&self.table);
        let intake = table.intake_of(record.span.low);
        // A shard takes a contiguous range: if it takes the lowest and the highest key, it takes all. This also holds
        // for the unpredicted queue if the map has no shard.
        let has_holes = intake.shard_id.is_none() && !table.map.open.is_empty();
        let is_whole = record.members.len() == 1
            || !has_holes && Arc::ptr_eq(intake, table.intake_of(record.span.high));
        if is_whole {
            record.queue_id = intake.id;
            record.charge.move_to(intake.id);
            self.enqueue_all(vec![record]);
        } else {
            // Members for the unpredicted queue stay together for now: they are split when their turn comes.
            let records =
                self.sealer.split_by_shard(record, |hash_key| (table.intake_of(hash_key).id, true));
            self.enqueue_all(records);
        }
    }

    /// Splits a record into single records, each for the queue that takes it now.
    pub(super) fn requeue_as_singles(&mut self, record: KinesisRecord) {
        let table = Arc::clone(&self.table);
        let records =
            self.sealer.split_by_shard(record, |hash_key| (table.intake_of(hash_key).id, false));
        self.enqueue_all(records);
    }

    /// Splits all records of a queue into single records. Records that it accepts under this shard map are sent one by
    /// one, too.
    pub(super) fn requeue_all_as_singles(&mut self, id: QueueId) {
        let Some(intake) = self.queues.get(&id).map(|queue| Arc::clone(&queue.intake)) else {
            return;
        };
        intake.set_single(true);
        self.fetch_open(&intake, SealReason::Handover);
        if let Some(queue) = self.queues.get_mut(&id) {
            for record in self.collector.drain(queue) {
                match record.members.len() {
                    1 => self.enqueue_all(vec![record]),
                    _ => self.requeue_as_singles(record),
                }
            }
        }
    }

    /// Puts records into the queues that take them now.
    fn enqueue_all(&mut self, records: Vec<KinesisRecord>) {
        let table = Arc::clone(&self.table);
        let now = clock::now();
        let context = Arc::clone(&self.context);
        for record in records {
            self.next_sweep = self.next_sweep.min(record.expires());
            let Some(record) = self.placeable(record) else {
                continue;
            };
            let intake = table.intake_of(record.span.low);
            let queue = self
                .queues
                .entry(intake.id)
                .or_insert_with(|| ShardQueue::new(Arc::clone(intake), &context.config, now));
            self.collector.enqueue(queue, record);
        }
    }

    /// Returns the record if it can be sent under the stream's record distribution strategy. Otherwise fails it: it was
    /// accepted under another strategy.
    fn placeable(&mut self, record: KinesisRecord) -> Option<KinesisRecord> {
        let Some(invalid) = self.table.refuses(&record) else {
            return Some(record);
        };
        self.fail(record, FailureCause::StrategyChanged(invalid), None);
        None
    }
}
