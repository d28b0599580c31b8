//! From the lanes into the queues of the shards, along the shard map of the moment.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Pipeline;
use crate::aggregate::builder::OpenAggregate;
use crate::aggregate::fill::SealReason;
use crate::aggregate::kinesis_record::KinesisRecord;
use crate::buffer::{LaneId, Pressure};
use crate::clock::{self, Instant};
use crate::error::FailureCause;
use crate::sender::batch::LaneQueue;
use crate::shard::queue::Lane;

impl Pipeline {
    /// Fetches what senders put into the lanes, and follows the shard map.
    pub(super) fn intake(&mut self, now: Instant) {
        let fetched = self.follow_routing();
        for lane in &fetched {
            self.fetch(lane, now);
        }
        // An open aggregate that is new, or that nothing goes before any more, makes room where its shard waits for some.
        let mut may_yield = std::mem::take(&mut self.freed);
        may_yield.extend(fetched.iter().map(|lane| lane.id));
        match self.shared.budget.take_pressure(&may_yield) {
            Pressure::None => {}
            Pressure::All => {
                let routing = Arc::clone(&self.routing);
                for lane in routing.lanes() {
                    self.fetch_open(lane, SealReason::Pressure);
                }
            }
            Pressure::Lanes(lanes) => {
                // Only where nothing else of the shard will make room: else half-empty aggregates were the rule under load.
                for id in lanes {
                    if let Some(queue) = self.queues.get(&id).filter(|queue| queue.is_free()) {
                        let lane = Arc::clone(&queue.lane);
                        self.fetch_open(&lane, SealReason::Pressure);
                    }
                }
            }
        }
    }

    /// Follows the shard map of the moment: what waits for closed shards goes to their children, and what was held for the
    /// new map is judged. Returns the lanes that have something to fetch.
    pub(super) fn follow_routing(&mut self) -> Vec<Arc<Lane>> {
        let (routing, announced) = self.shared.take_announced_with_routing();
        let changed = !Arc::ptr_eq(&routing, &self.routing);
        self.routing = routing;
        let (current, mut gone): (Vec<_>, Vec<_>) =
            announced.into_iter().partition(|lane| self.routing.has(lane.id));
        if changed {
            let lanes = self.queues.values().map(|queue| &queue.lane);
            gone.extend(lanes.filter(|lane| !self.routing.has(lane.id)).cloned());
        }
        // By age: what was accepted for a closed shard is older than what its children took since.
        gone.sort_unstable_by_key(|lane| lane.id);
        gone.dedup_by_key(|lane| lane.id);
        for lane in gone {
            self.hand_over(&lane);
        }
        if changed {
            self.routing.lanes().for_each(|lane| lane.scatter(false));
            for held in std::mem::take(&mut self.held) {
                if self.routing.generation >= held.generation {
                    self.judge_again(held);
                } else {
                    self.held.push(held);
                }
            }
        }
        current
    }

    /// Moves what a closed shard's lane has left to the lanes that take its keys now.
    fn hand_over(&mut self, lane: &Arc<Lane>) {
        if let Some(queue) = self.queues.get_mut(&lane.id) {
            let waiting = self.collector.drain(queue);
            waiting.into_iter().for_each(|record| self.reroute(record));
        }
        self.fetch_open(lane, SealReason::Handover);
        match self.queues.get(&lane.id) {
            Some(queue) if queue.is_free() => {
                self.queues.remove(&lane.id);
                self.collector.succession.settled(lane.id);
            }
            Some(_) => self.collector.succession.retire(lane.id, lane.range),
            None => {}
        }
    }

    fn fetch(&mut self, lane: &Arc<Lane>, now: Instant) {
        let config = &self.shared.config;
        self.queues.entry(lane.id).or_insert_with(|| LaneQueue::new(Arc::clone(lane), config, now));
        self.look_at(lane, now);
    }

    /// Seals what is full of a lane, and sees to it that its open aggregate goes in time.
    pub(super) fn look_at(&mut self, lane: &Arc<Lane>, now: Instant) {
        let (full, open) = lane.fetch(now);
        self.seal_all(full, lane.id);
        let Some(open) = open else {
            return;
        };
        if open.expires <= now {
            // The sweep fails the members that expired; the others wait on as a record of their own.
            self.fetch_open(lane, SealReason::TimeToLive);
        } else if open.lingers_until <= now {
            if let Some(queue) = self.queues.get_mut(&lane.id) {
                self.collector.take_turns(queue);
            }
            self.set_timer(lane.id, open.expires);
        } else {
            self.set_timer(lane.id, open.lingers_until.min(open.expires));
        }
    }

    /// Seals the open aggregate of a lane, too.
    pub(super) fn fetch_open(&mut self, lane: &Arc<Lane>, reason: SealReason) {
        self.seal_all(lane.fetch_all(reason), lane.id);
    }

    pub(super) fn seal_all(&mut self, aggregates: VecDeque<OpenAggregate>, lane: LaneId) {
        for aggregate in aggregates {
            let fill = aggregate.fill();
            fill.count(&self.shared.settlement.counters);
            if let Some(queue) = self.queues.get(&lane)
                && fill.closed_by == SealReason::Size
                && !queue.is_free()
            {
                queue.lane.grow();
            }
            let record = self.sealer.seal(aggregate, lane);
            self.enqueue(record);
        }
    }

    /// Lets a sealed record wait for its shard; if the shard is gone, its members for theirs.
    pub(super) fn enqueue(&mut self, record: KinesisRecord) {
        self.next_sweep = self.next_sweep.min(record.expires());
        let Some(record) = self.placeable(record) else {
            return;
        };
        match self.queues.get_mut(&record.lane) {
            Some(queue) if self.routing.has(record.lane) => self.collector.enqueue(queue, record),
            _ => self.reroute(record),
        }
    }

    pub(super) fn reroute(&mut self, mut record: KinesisRecord) {
        let routing = Arc::clone(&self.routing);
        let lane = routing.lane(record.span.low);
        // A shard's range has no holes: what takes both ends takes all. So does the lane of all keys.
        let has_holes = lane.shard_id.is_none() && !routing.map().open().is_empty();
        let is_whole = record.members.len() == 1
            || !has_holes && Arc::ptr_eq(lane, routing.lane(record.span.high));
        if is_whole {
            record.lane = lane.id;
            record.charge.move_to(lane.id);
            self.distribute(vec![record]);
        } else {
            // Together where they cannot stay so, too: they are taken apart in their turn.
            let records = self.sealer.regroup(record, |hash_key| (routing.lane(hash_key).id, true));
            self.distribute(records);
        }
    }

    /// Has the members of a record go one by one.
    pub(super) fn scatter(&mut self, record: KinesisRecord) {
        let routing = Arc::clone(&self.routing);
        let records = self.sealer.regroup(record, |hash_key| (routing.lane(hash_key).id, false));
        self.distribute(records);
    }

    /// Has all that a lane holds, and what it takes under this map, go one by one.
    pub(super) fn scatter_lane(&mut self, id: LaneId) {
        let Some(lane) = self.queues.get(&id).map(|queue| Arc::clone(&queue.lane)) else {
            return;
        };
        lane.scatter(true);
        self.fetch_open(&lane, SealReason::Handover);
        if let Some(queue) = self.queues.get_mut(&id) {
            for record in self.collector.drain(queue) {
                match record.members.len() {
                    1 => self.distribute(vec![record]),
                    _ => self.scatter(record),
                }
            }
        }
    }

    /// Lets records wait for the lanes that take them now.
    fn distribute(&mut self, records: Vec<KinesisRecord>) {
        let routing = Arc::clone(&self.routing);
        let now = clock::now();
        let shared = Arc::clone(&self.shared);
        for record in records {
            self.next_sweep = self.next_sweep.min(record.expires());
            let Some(record) = self.placeable(record) else {
                continue;
            };
            let lane = routing.lane(record.span.low);
            let queue = self
                .queues
                .entry(lane.id)
                .or_insert_with(|| LaneQueue::new(Arc::clone(lane), &shared.config, now));
            self.collector.enqueue(queue, record);
        }
    }

    /// Fails a record that was accepted under another record distribution strategy and cannot be sent under this one.
    fn placeable(&mut self, record: KinesisRecord) -> Option<KinesisRecord> {
        let Some(invalid) = self.routing.refuses(&record) else {
            return Some(record);
        };
        self.fail(record, FailureCause::StrategyChanged(invalid), None);
        None
    }
}
