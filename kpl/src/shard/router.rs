//! Router: from a hash key to the queue of its shard.
//!
//! * [`RoutingTable`]: the queues of the shards under one shard map. A new map makes a new table.
//! * [`ShardRouter`]: the table in place, which all handles and tasks of a producer share. It accepts records, and
//!   tells the sender which queues are ready to be fetched.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use kinesis_aggregation::HashKey;

use crate::ack::{Completer, Delivery};
use crate::aggregate::builder::{AggregateLimits, OpenAggregate, SealReason};
use crate::aggregate::kinesis_record::{HashKeySpan, KinesisRecord};
use crate::buffer::{Charge, QueueId};
use crate::context::Context;
use crate::error::StopReason;
use crate::record::{InvalidRecord, MAX_PARTITION_KEY_CHARS, Record};
use crate::service::Shard;
use crate::shard::map::{RefreshRequests, ShardMap};
use crate::shard::queue::{Intake, IntakeState, NotAccepted};
use crate::sync::lock;

/// A shard map, and the intake of each of its open shards.
pub(crate) struct RoutingTable {
    /// Number of the refresh that brought the map; 0 before the first.
    pub(crate) generation: u64,
    pub(crate) map: ShardMap,
    /// By position among the open shards of the map.
    intakes: Vec<Arc<Intake>>,
    /// Takes the hash keys whose shard is not known: all of them if the role may not list shards.
    pub(crate) unpredicted: Arc<Intake>,
    ids: HashSet<QueueId>,
}

impl RoutingTable {
    pub(crate) fn without_shards(intake: Arc<Intake>, map: ShardMap) -> Self {
        let ids = HashSet::from([intake.id]);
        Self { generation: 0, map, intakes: Vec::new(), unpredicted: intake, ids }
    }

    /// Creates the table of a new map. A shard with an unchanged key range keeps its intake; `new_intake` makes the
    /// others.
    pub(crate) fn next(
        &self,
        generation: u64,
        map: ShardMap,
        mut new_intake: impl FnMut(Option<&Shard>) -> Arc<Intake>,
    ) -> Self {
        let kept: HashMap<_, _> = self
            .map
            .open
            .iter()
            .zip(&self.intakes)
            .map(|(shard, intake)| ((&shard.id, shard.range), intake))
            .collect();
        let intakes: Vec<_> = map
            .open
            .iter()
            .map(|shard| {
                kept.get(&(&shard.id, shard.range))
                    .map_or_else(|| new_intake(Some(shard)), |intake| Arc::clone(intake))
            })
            .collect();
        // If keys move between the unpredicted queue and a shard, the unpredicted intake is closed and replaced. Its
        // records then move to the new queues, as after a reshard.
        let unpredicted = if map.gaps() == self.map.gaps() {
            Arc::clone(&self.unpredicted)
        } else {
            new_intake(None)
        };
        let ids = intakes.iter().chain([&unpredicted]).map(|intake| intake.id).collect();
        Self { generation, map, intakes, unpredicted, ids }
    }

    pub(crate) fn intake_of(&self, hash_key: HashKey) -> &Arc<Intake> {
        self.intake_at(self.position_of(hash_key))
    }

    /// Position of the intake of a hash key, in the order of [`intakes`](Self::intakes).
    pub(super) fn position_of(&self, hash_key: HashKey) -> usize {
        self.map.lookup(hash_key).unwrap_or(self.intakes.len())
    }

    pub(super) fn intake_at(&self, position: usize) -> &Arc<Intake> {
        self.intakes.get(position).unwrap_or(&self.unpredicted)
    }

    pub(crate) fn intakes(&self) -> impl Iterator<Item = &Arc<Intake>> {
        self.intakes.iter().chain([&self.unpredicted])
    }

    pub(super) fn intake_count(&self) -> usize {
        self.intakes.len() + 1
    }

    /// Why a record that was accepted under another record distribution strategy cannot be sent under this one.
    pub(crate) fn refuses(&self, record: &KinesisRecord) -> Option<InvalidRecord> {
        let is_aggregate = record.sealed.is_framed && record.members.len() > 1;
        match self.map.is_service_placed {
            true if record.sealed.is_framed && !is_aggregate => {
                Some(InvalidRecord::LooksAggregated)
            }
            false if record.sealed.partition_key.is_empty() => {
                Some(InvalidRecord::PartitionKeyLength {
                    limit: MAX_PARTITION_KEY_CHARS,
                    actual: 0,
                })
            }
            _ => None,
        }
    }

    /// The intakes that may take a hash key in `span`.
    pub(crate) fn intakes_in(&self, span: HashKeySpan) -> impl Iterator<Item = &Arc<Intake>> {
        self.intakes().filter(move |intake| {
            intake.range.start() <= span.high && span.low <= intake.range.end()
        })
    }

    /// Whether a queue belongs to this table. If not, its shard is closed or has changed its range.
    pub(crate) fn has(&self, queue_id: QueueId) -> bool {
        self.ids.contains(&queue_id)
    }
}

/// The shards of a producer's stream: the routing table in place, and the queues that are ready to be fetched.
pub(crate) struct ShardRouter {
    pub(super) context: Arc<Context>,
    limits: AggregateLimits,
    table: RwLock<Arc<RoutingTable>>,
    /// Whether the service chooses each record's shard. A copy from the table in place, read without its lock.
    is_service_placed: AtomicBool,
    /// Largest record of the stream, key and data, in bytes, as last read.
    max_record_size: AtomicUsize,
    next_queue_id: AtomicU32,
    /// Intakes that the sender must fetch.
    ready: Mutex<Vec<Arc<Intake>>>,
    is_closing: AtomicBool,
    pub(crate) refreshes: RefreshRequests,
}

impl ShardRouter {
    pub(crate) fn new(
        context: Arc<Context>,
        max_record_size: usize,
        is_service_placed: bool,
    ) -> Arc<Self> {
        let limits = AggregateLimits::new(&context.config, max_record_size);
        let map = match is_service_placed {
            true => ShardMap::default().without_prediction(),
            false => ShardMap::default(),
        };
        let unpredicted = Intake::new(QueueId::UNPREDICTED, None, limits);
        Arc::new(Self {
            context,
            limits,
            table: RwLock::new(Arc::new(RoutingTable::without_shards(unpredicted, map))),
            is_service_placed: AtomicBool::new(is_service_placed),
            max_record_size: AtomicUsize::new(max_record_size),
            next_queue_id: AtomicU32::new(QueueId::FIRST),
            ready: Mutex::default(),
            is_closing: AtomicBool::new(false),
            refreshes: RefreshRequests::default(),
        })
    }

    /// The largest record that the stream takes, key and data, in bytes.
    pub(crate) fn max_record_size(&self) -> usize {
        self.max_record_size.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max_record_size(&self, bytes: usize) {
        self.max_record_size.store(bytes, Ordering::Relaxed);
    }

    /// Whether the service chooses each record's shard. No record may look like an aggregate then.
    pub(crate) fn is_service_placed(&self) -> bool {
        self.is_service_placed.load(Ordering::Relaxed)
    }

    pub(crate) fn table(&self) -> Arc<RoutingTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Accepts a record into the intake of its shard. `room` is the room that the caller waited for. The record takes its
    /// room from there, and the caller keeps the rest.
    pub(crate) fn accept(
        &self,
        record: &mut Record<'_>,
        hash_key: HashKey,
        room: &mut Option<Charge>,
    ) -> Result<Delivery, NotAccepted> {
        let drawn = self.context.telemetry.draw(&record.partition_key, record.payload_len());
        loop {
            if self.is_closed() {
                return Err(NotAccepted::Closed);
            }
            let table = self.table();
            let intake = table.intake_of(hash_key);
            if let Some(room) = room {
                room.move_to(intake.id);
            }
            let mut locked = intake.lock_to_accept();
            let accepted =
                locked.accept(record, hash_key, room, &self.context, Completer::add_member);
            let is_ready = locked.became_ready();
            drop(locked);
            if is_ready {
                self.add_ready(intake);
            }
            match accepted {
                // The intake was closed, because a new table is in place or the producer closes: try again.
                Err(NotAccepted::Closed) => {}
                Err(not_accepted) => return Err(not_accepted),
                Ok(delivery) => {
                    self.context.outcomes.counters.user_records_accepted.add(1);
                    self.context.telemetry.accepted(drawn);
                    return Ok(delivery);
                }
            }
        }
    }

    pub(crate) fn add_ready(&self, intake: &Arc<Intake>) {
        lock(&self.ready).push(Arc::clone(intake));
        self.context.wake.notify_one();
    }

    pub(crate) fn take_ready(&self) -> Vec<Arc<Intake>> {
        std::mem::take(&mut lock(&self.ready))
    }

    /// The table in place and the ready intakes. No intake is of a newer table, and none that was closed for this
    /// table is missing.
    pub(crate) fn take_ready_with_table(&self) -> (Arc<RoutingTable>, Vec<Arc<Intake>>) {
        let mut ready = Vec::new();
        loop {
            // Closed intakes are added to the list before the table that replaces them is visible.
            let table = self.table();
            ready.append(&mut self.take_ready());
            // Intakes of a newer table are added to the list after it is visible.
            if Arc::ptr_eq(&table, &self.table()) {
                return (table, ready);
            }
        }
    }

    /// Closes all open aggregates, so that they are sent now.
    pub(crate) fn close_open_aggregates(&self) {
        for intake in self.table().intakes() {
            if intake.close_open() {
                self.add_ready(intake);
            }
        }
    }

    /// Accepts no more records. When this returns, each accepted record is in an intake or with the sender.
    pub(crate) fn begin_close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        self.context.budget.close();
        self.close_all(self.table().intakes(), SealReason::Flush);
    }

    fn close_all<'a>(&self, intakes: impl Iterator<Item = &'a Arc<Intake>>, reason: SealReason) {
        intakes.filter(|intake| intake.close(reason)).for_each(|intake| self.add_ready(intake));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }

    /// Stops the producer. The reason of the first call is kept.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.context.outcomes.stop(reason);
        self.begin_close();
        self.context.cancel.cancel();
    }

    /// Locks the intakes that take keys of `span`: none accepts a record while the guard lives. `None` if `table` is
    /// no longer in place.
    pub(crate) fn lock_intakes<'a>(
        &'a self,
        table: &'a Arc<RoutingTable>,
        span: HashKeySpan,
    ) -> Option<LockedIntakes<'a>> {
        let in_place = self.table.read().unwrap_or_else(PoisonError::into_inner);
        Arc::ptr_eq(&in_place, table).then(|| LockedIntakes {
            intakes: table.intakes_in(span).map(|intake| (intake.id, intake.lock())).collect(),
            _table: in_place,
        })
    }

    /// Puts a new shard map in place, and closes the intakes that have no shard in it.
    pub(crate) fn install(&self, generation: u64, map: ShardMap) {
        let old = self.table();
        let new = Arc::new(old.next(generation, map, |shard| {
            let id = QueueId(self.next_queue_id.fetch_add(1, Ordering::Relaxed));
            Intake::new(id, shard.map(|shard| (Arc::clone(&shard.id), shard.range)), self.limits)
        }));
        {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            // Checked under the lock: if the producer begins to close later, it finds the new intakes and closes them.
            if self.is_closed() {
                if self.context.budget.used() == 0 {
                    return;
                }
                self.close_all(new.intakes(), SealReason::Flush);
            }
            // Before the new intakes are visible: all records in the old ones are older than those of the new ones.
            let gone = old.intakes().filter(|intake| !new.has(intake.id));
            self.close_all(gone, SealReason::Handover);
            self.is_service_placed.store(new.map.is_service_placed, Ordering::SeqCst);
            *table = new;
        }
        self.context.wake.notify_one();
    }
}

/// The guard of locked intakes. The table stays in place while it lives.
pub(crate) struct LockedIntakes<'a> {
    intakes: Vec<(QueueId, MutexGuard<'a, IntakeState>)>,
    _table: RwLockReadGuard<'a, Arc<RoutingTable>>,
}

impl LockedIntakes<'_> {
    pub(crate) fn take_all(&mut self) -> Vec<(QueueId, VecDeque<OpenAggregate>)> {
        let take = |(id, state): &mut (_, MutexGuard<'_, IntakeState>)| {
            (*id, state.take_all(SealReason::Handover))
        };
        self.intakes.iter_mut().map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::config::ProducerConfig;
    use crate::shard::map::tests::shard;

    fn map(ids: &[&str]) -> ShardMap {
        let width = u128::MAX / ids.len() as u128;
        let shards = ids.iter().enumerate().map(|(position, id)| {
            let start = width * position as u128;
            let end = match position + 1 {
                next if next == ids.len() => u128::MAX,
                next => width * next as u128 - 1,
            };
            shard(id, start, end, true)
        });
        ShardMap::new(shards.collect())
    }

    fn drop_member(completer: &mut Completer) {
        drop(completer.add_member());
    }

    fn accept(shards: &ShardRouter, intake: &Arc<Intake>) -> bool {
        let mut record = Record::new("k", "v");
        let hash_key = record.hash_key();
        let mut room = shards.context.budget.try_charge(intake.id, 10_000);
        let mut locked = intake.lock_to_accept();
        locked.accept(&mut record, hash_key, &mut room, &shards.context, drop_member).is_ok()
    }

    #[test]
    fn a_map_that_comes_while_closing_opens_no_queue() {
        let context = Context::new(ProducerConfig::default(), None, None);
        let shards = ShardRouter::new(context, 1 << 20, false);
        shards.install(1, map(&["parent"]));
        let parent = Arc::clone(shards.table().intake_of(HashKey::MIN));
        let held = shards.context.budget.try_charge(parent.id, 10).unwrap();
        shards.begin_close();
        shards.install(2, map(&["low", "high"]));
        let table = shards.table();
        assert_eq!(table.generation, 2, "what is held is judged by it");
        let mut record = Record::new("k", "v");
        for intake in table.intakes() {
            let mut locked = intake.lock_to_accept();
            let refused =
                locked.accept(&mut record, HashKey::MIN, &mut None, &shards.context, drop_member);
            assert!(matches!(refused, Err(NotAccepted::Closed)));
        }
        drop(held);
        shards.install(3, map(&["a", "b"]));
        assert_eq!(shards.table().generation, 2, "no record needs it");
    }

    #[test]
    fn a_queue_that_goes_is_marked_ready_although_a_sender_is_about_to() {
        let context = Context::new(ProducerConfig::default(), None, None);
        let shards = ShardRouter::new(context, 1 << 20, false);
        shards.install(1, map(&["parent"]));
        let parent = Arc::clone(shards.table().intake_of(HashKey::MIN));
        // A caller of `send` is about to say that the intake is ready. Another record of the key may enter another
        // intake first.
        assert!(accept(&shards, &parent));
        shards.install(2, map(&["low", "high"]));
        let ready = shards.take_ready();
        assert!(ready.iter().any(|intake| intake.id == parent.id));
        assert!(!accept(&shards, &parent));
        let queue_of = |shards: &ShardRouter| shards.table().intake_of(HashKey::MIN).id;
        let low = queue_of(&shards);
        shards.install(3, map(&["low"]));
        assert_ne!(
            queue_of(&shards),
            low,
            "the shard takes other keys now: what moved there comes later"
        );
    }

    #[test]
    fn what_a_kept_queue_holds_is_marked_ready_when_the_map_comes_while_closing() {
        let context = Context::new(ProducerConfig::default(), None, None);
        let shards = ShardRouter::new(context, 1 << 20, false);
        shards.install(1, map(&["kept", "other"]));
        let kept = Arc::clone(shards.table().intake_of(HashKey::MIN));
        assert!(accept(&shards, &kept));
        // The sender fetched the full aggregates. Then the producer begins to close, and has not closed this intake
        // yet.
        kept.fetch(clock::now());
        shards.is_closing.store(true, Ordering::SeqCst);
        shards.install(2, map(&["kept", "another"]));
        let ready = shards.take_ready();
        assert!(ready.iter().any(|intake| intake.id == kept.id));
        assert_eq!(kept.fetch(clock::now()).0.len(), 1);
    }
}
