//! From the queues into the queues of the shards, along the shard map of the moment.

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
    /// Fetches what senders put into the queues, and follows the shard map.
    pub(super) fn intake(&mut self, now: Instant) {
        let fetched = self.follow_router();
        for intake in &fetched {
            self.fetch(intake, now);
        }
        // An open aggregate that is new, or that nothing goes before any more, makes room where its shard waits for some.
        let mut may_yield = std::mem::take(&mut self.freed);
        may_yield.extend(fetched.iter().map(|intake| intake.id));
        match self.shared.budget.take_pressure(&may_yield) {
            Pressure::None => {}
            Pressure::All => {
                let router = Arc::clone(&self.router);
                for intake in router.intakes() {
                    self.fetch_open(intake, SealReason::Pressure);
                }
            }
            Pressure::Queues(queue_ids) => {
                // Only where nothing else of the shard will make room: else half-empty aggregates were the rule under load.
                for id in queue_ids {
                    if let Some(queue) = self.queues.get(&id).filter(|queue| queue.is_free()) {
                        let intake = Arc::clone(&queue.intake);
                        self.fetch_open(&intake, SealReason::Pressure);
                    }
                }
            }
        }
    }

    /// Follows the shard map of the moment: what waits for closed shards goes to their children, and what was held for the
    /// new map is judged. Returns the queues that have something to fetch.
    pub(super) fn follow_router(&mut self) -> Vec<Arc<Intake>> {
        let (router, ready) = self.shared.take_ready_with_router();
        let changed = !Arc::ptr_eq(&router, &self.router);
        self.router = router;
        let (current, mut gone): (Vec<_>, Vec<_>) =
            ready.into_iter().partition(|intake| self.router.has(intake.id));
        if changed {
            let intakes = self.queues.values().map(|queue| &queue.intake);
            gone.extend(intakes.filter(|intake| !self.router.has(intake.id)).cloned());
        }
        // By age: what was accepted for a closed shard is older than what its children took since.
        gone.sort_unstable_by_key(|intake| intake.id);
        gone.dedup_by_key(|intake| intake.id);
        for intake in gone {
            self.move_to_successors(&intake);
        }
        if changed {
            self.router.intakes().for_each(|intake| intake.set_single(false));
            for written in self.unconfirmed.take_decided(self.router.generation) {
                self.check_again(written);
            }
        }
        current
    }

    /// Moves what a closed shard's queue has left to the queues that take its keys now.
    fn move_to_successors(&mut self, intake: &Arc<Intake>) {
        if let Some(queue) = self.queues.get_mut(&intake.id) {
            let waiting = self.collector.drain(queue);
            waiting.into_iter().for_each(|record| self.requeue_by_shard(record));
        }
        self.fetch_open(intake, SealReason::Handover);
        match self.queues.get(&intake.id) {
            Some(queue) if queue.is_free() => {
                self.queues.remove(&intake.id);
                self.collector.predecessors.completed(intake.id);
            }
            Some(_) => self.collector.predecessors.retire(intake.id, intake.range),
            None => {}
        }
    }

    fn fetch(&mut self, intake: &Arc<Intake>, now: Instant) {
        let config = &self.shared.config;
        self.queues
            .entry(intake.id)
            .or_insert_with(|| ShardQueue::new(Arc::clone(intake), config, now));
        self.look_at(intake, now);
    }

    /// Seals what is full of a queue, and sees to it that its open aggregate goes in time.
    pub(super) fn look_at(&mut self, intake: &Arc<Intake>, now: Instant) {
        let (full, open) = intake.fetch(now);
        self.seal_all(full, intake.id);
        let Some(open) = open else {
            return;
        };
        if open.expires <= now {
            // The sweep fails the members that expired; the others wait on as a record of their own.
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

    /// Seals the open aggregate of a queue, too.
    pub(super) fn fetch_open(&mut self, intake: &Arc<Intake>, reason: SealReason) {
        self.seal_all(intake.fetch_all(reason), intake.id);
    }

    pub(super) fn seal_all(&mut self, aggregates: VecDeque<OpenAggregate>, queue_id: QueueId) {
        for aggregate in aggregates {
            let fill = aggregate.fill();
            fill.count(&self.shared.outcomes.counters);
            if let Some(queue) = self.queues.get(&queue_id)
                && fill.closed_by == SealReason::Size
                && !queue.is_free()
            {
                queue.intake.grow();
            }
            let record = self.sealer.seal(aggregate, queue_id);
            self.enqueue(record);
        }
    }

    /// Lets a sealed record wait for its shard; if the shard is gone, its members for theirs.
    pub(super) fn enqueue(&mut self, record: KinesisRecord) {
        self.next_sweep = self.next_sweep.min(record.expires());
        let Some(record) = self.placeable(record) else {
            return;
        };
        match self.queues.get_mut(&record.queue_id) {
            Some(queue) if self.router.has(record.queue_id) => {
                self.collector.enqueue(queue, record)
            }
            _ => self.requeue_by_shard(record),
        }
    }

    pub(super) fn requeue_by_shard(&mut self, mut record: KinesisRecord) {
        let router = Arc::clone(&self.router);
        let intake = router.intake_of(record.span.low);
        // A shard's range has no holes: what takes both ends takes all. So does the queue of all keys.
        let has_holes = intake.shard_id.is_none() && !router.map().open().is_empty();
        let is_whole = record.members.len() == 1
            || !has_holes && Arc::ptr_eq(intake, router.intake_of(record.span.high));
        if is_whole {
            record.queue_id = intake.id;
            record.charge.move_to(intake.id);
            self.enqueue_all(vec![record]);
        } else {
            // Together where they cannot stay so, too: they are taken apart in their turn.
            let records = self
                .sealer
                .split_by_shard(record, |hash_key| (router.intake_of(hash_key).id, true));
            self.enqueue_all(records);
        }
    }

    /// Has the members of a record go one by one.
    pub(super) fn requeue_as_singles(&mut self, record: KinesisRecord) {
        let router = Arc::clone(&self.router);
        let records =
            self.sealer.split_by_shard(record, |hash_key| (router.intake_of(hash_key).id, false));
        self.enqueue_all(records);
    }

    /// Has all that a queue holds, and what it takes under this map, go one by one.
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

    /// Lets records wait for the queues that take them now.
    fn enqueue_all(&mut self, records: Vec<KinesisRecord>) {
        let router = Arc::clone(&self.router);
        let now = clock::now();
        let shared = Arc::clone(&self.shared);
        for record in records {
            self.next_sweep = self.next_sweep.min(record.expires());
            let Some(record) = self.placeable(record) else {
                continue;
            };
            let intake = router.intake_of(record.span.low);
            let queue = self
                .queues
                .entry(intake.id)
                .or_insert_with(|| ShardQueue::new(Arc::clone(intake), &shared.config, now));
            self.collector.enqueue(queue, record);
        }
    }

    /// Fails a record that was accepted under another record distribution strategy and cannot be sent under this one.
    fn placeable(&mut self, record: KinesisRecord) -> Option<KinesisRecord> {
        let Some(invalid) = self.router.refuses(&record) else {
            return Some(record);
        };
        self.fail(record, FailureCause::StrategyChanged(invalid), None);
        None
    }
}
