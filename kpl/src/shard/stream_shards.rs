//! The shards of a producer's stream, as all handles and tasks of the producer share them: the router in place, the
//! intakes that are ready, and the requests for a new shard map.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use kinesis_aggregation::HashKey;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::ack::{Completer, Delivery, FailureHook, Outcomes};
use crate::aggregate::builder::{AggregateLimits, OpenAggregate, SealReason};
use crate::aggregate::kinesis_record::HashKeySpan;
use crate::buffer::{AGGREGATE_OVERHEAD, Budget, Charge, MemoryBudget, QueueId, RECORD_OVERHEAD};
use crate::config::ProducerConfig;
use crate::error::{DeliveryError, StopReason};
use crate::metrics::Telemetry;
use crate::record::UserRecord;
use crate::shard::map::ShardMap;
use crate::shard::queue::{Intake, LockedIntake, NotAccepted};
use crate::shard::router::Router;
use crate::sync::lock;

/// State that the handles and the tasks of a producer share.
pub(crate) struct StreamShards {
    pub(crate) config: ProducerConfig,
    /// Largest record of the stream, key and data, in bytes, as last read.
    max_record_size: AtomicUsize,
    /// Whether the service chooses each record's shard. A copy from the router in place, read without its lock.
    is_service_placed: AtomicBool,
    /// Whether a record was seen in a shard other than that of its key: the stream may place records itself now.
    pub(crate) seen_placed: AtomicBool,
    pub(crate) outcomes: Arc<Outcomes>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) budget: Arc<Budget>,
    /// Stops all tasks of the producer.
    pub(crate) cancel: CancellationToken,
    /// Wakes the sender.
    pub(crate) wake: Notify,
    /// Wakes the refresher of the shard map.
    pub(crate) refresh: Notify,
    limits: AggregateLimits,
    router: RwLock<Arc<Router>>,
    next_queue_id: AtomicU32,
    refreshes_begun: AtomicU64,
    /// Shards that wrote a record and that the shard map does not know.
    unknown_shards: Mutex<BTreeSet<Arc<str>>>,
    /// The first generation of the shard map that is surely of the present stream. Earlier ones may be of a deleted
    /// stream of the same name.
    trusted_from: AtomicU64,
    /// Intakes that the sender must fetch.
    ready: Mutex<Vec<Arc<Intake>>>,
    is_closing: AtomicBool,
}

impl StreamShards {
    pub(crate) fn new(
        config: ProducerConfig,
        max_record_size: usize,
        is_service_placed: bool,
        on_failure: Option<FailureHook>,
        memory_budget: Option<MemoryBudget>,
    ) -> Arc<Self> {
        let limits = AggregateLimits::new(&config, max_record_size);
        let unpredicted = Intake::new(QueueId::UNPREDICTED, None, limits);
        let map = match is_service_placed {
            true => ShardMap::default().without_prediction(),
            false => ShardMap::default(),
        };
        let memory_budget =
            memory_budget.unwrap_or_else(|| MemoryBudget::new(config.max_buffered_bytes));
        Arc::new(Self {
            max_record_size: AtomicUsize::new(max_record_size),
            is_service_placed: AtomicBool::new(is_service_placed),
            seen_placed: AtomicBool::new(false),
            outcomes: Arc::new(Outcomes::new(on_failure)),
            telemetry: Arc::new(Telemetry::new(config.hot_keys)),
            budget: Budget::new(memory_budget, config.droppable_limit),
            cancel: CancellationToken::new(),
            wake: Notify::new(),
            refresh: Notify::new(),
            limits,
            router: RwLock::new(Arc::new(Router::without_shards(unpredicted, map))),
            next_queue_id: AtomicU32::new(QueueId::FIRST),
            refreshes_begun: AtomicU64::new(0),
            unknown_shards: Mutex::default(),
            trusted_from: AtomicU64::new(0),
            ready: Mutex::default(),
            is_closing: AtomicBool::new(false),
            config,
        })
    }

    /// The largest record that the buffer could ever take, key and data, in bytes.
    pub(crate) fn max_bufferable_record(&self) -> usize {
        let overhead = RECORD_OVERHEAD + AGGREGATE_OVERHEAD;
        self.budget.limit().saturating_sub(overhead)
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

    pub(crate) fn router(&self) -> Arc<Router> {
        Arc::clone(&self.router.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Accepts a record into the intake of its shard. `prepaid` is room that was waited for.
    pub(crate) fn enter(
        &self,
        mut record: UserRecord,
        hash_key: HashKey,
        mut prepaid: Option<Charge>,
    ) -> Result<Delivery, NotAccepted> {
        let drawn = self.telemetry.draw(&record.partition_key, record.payload_len());
        loop {
            if self.is_closed() {
                return Err(NotAccepted::Closed(record, prepaid));
            }
            let router = self.router();
            let intake = router.intake_of(hash_key);
            if let Some(charge) = &mut prepaid {
                charge.move_to(intake.id);
            }
            match intake.accept(record, hash_key, prepaid, &self.budget, &self.outcomes) {
                Ok(accepted) => {
                    self.outcomes.counters.user_records_accepted.add(1);
                    self.telemetry.accepted(drawn);
                    if accepted.is_newly_ready {
                        self.add_ready(intake);
                    }
                    return Ok(accepted.delivery);
                }
                Err(no_room @ NotAccepted::NoRoom(..)) => {
                    // The sender must fetch the intake: sealing its open aggregate may make the missing room.
                    if intake.mark_ready() {
                        self.add_ready(intake);
                    }
                    return Err(no_room);
                }
                // The intake was closed, because a new router is in place or the producer closes: try again.
                Err(NotAccepted::Closed(returned, charge)) => {
                    (record, prepaid) = (returned, charge)
                }
                Err(invalid @ NotAccepted::Invalid(..)) => return Err(invalid),
            }
        }
    }

    /// Accepts a droppable record for which there is no room, and fails it at once.
    pub(crate) fn fail_as_dropped(&self, record: UserRecord) -> Delivery {
        let counters = &self.outcomes.counters;
        counters.user_records_accepted.add(1);
        counters.user_records_dropped.add(1);
        let mut completer = Completer::new(&self.outcomes);
        let delivery = completer.add_member();
        completer.complete_one(0, Err(DeliveryError::dropped(record)));
        delivery
    }

    pub(crate) fn add_ready(&self, intake: &Arc<Intake>) {
        lock(&self.ready).push(Arc::clone(intake));
        self.wake.notify_one();
    }

    pub(crate) fn take_ready(&self) -> Vec<Arc<Intake>> {
        std::mem::take(&mut lock(&self.ready))
    }

    /// The router in place and the ready intakes. No intake is of a newer router, and none that was closed for this
    /// router is missing.
    pub(crate) fn take_ready_with_router(&self) -> (Arc<Router>, Vec<Arc<Intake>>) {
        let mut ready = Vec::new();
        loop {
            // Closed intakes are added to the list before the router that replaces them is visible.
            let router = self.router();
            ready.append(&mut self.take_ready());
            // Intakes of a newer router are added to the list after it is visible.
            if Arc::ptr_eq(&router, &self.router()) {
                return (router, ready);
            }
        }
    }

    /// Closes all open aggregates, so that they are sent now.
    pub(crate) fn close_open_aggregates(&self) {
        for intake in self.router().intakes() {
            if intake.close_open() {
                self.add_ready(intake);
            }
        }
    }

    /// Accepts no more records. When this returns, each accepted record is in an intake or with the sender.
    pub(crate) fn begin_close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        self.budget.close();
        for intake in self.router().intakes() {
            if intake.close(SealReason::Flush) {
                self.add_ready(intake);
            }
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }

    /// Stops the producer. The reason of the first call is kept.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.outcomes.stop(reason);
        self.begin_close();
        self.cancel.cancel();
    }

    pub(crate) fn stop_reason(&self) -> StopReason {
        self.outcomes.stop_reason().cloned().unwrap_or(StopReason::Closed)
    }

    /// Requests a fresh shard map. Returns the first generation that counts as fresh.
    pub(crate) fn request_refresh(&self) -> u64 {
        let fresh = self.refreshes_begun.load(Ordering::SeqCst) + 1;
        self.refresh.notify_one();
        fresh
    }

    /// Notes a shard that the next refresh must find.
    pub(crate) fn note_unknown(&self, shard_id: &Arc<str>) {
        lock(&self.unknown_shards).insert(Arc::clone(shard_id));
    }

    /// Takes the shards that the next refresh must find.
    pub(crate) fn take_unknown(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut *lock(&self.unknown_shards))
    }

    /// Requests a shard map without the shards of a stream that was deleted.
    pub(crate) fn request_new_shards(&self) {
        self.trust_from(self.refreshes_begun.load(Ordering::SeqCst) + 1);
        self.refresh.notify_one();
    }

    /// Distrusts all shard maps before this generation.
    pub(crate) fn trust_from(&self, generation: u64) {
        self.trusted_from.fetch_max(generation, Ordering::SeqCst);
    }

    pub(crate) fn trusted_from(&self) -> u64 {
        self.trusted_from.load(Ordering::SeqCst)
    }

    /// Begins a refresh of the shard map. Returns its generation.
    pub(crate) fn begin_refresh(&self) -> u64 {
        self.refreshes_begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Locks the intakes that take keys of `span`: none accepts a record while the guard lives. `None` if `router` is
    /// no longer in place.
    pub(crate) fn lock_intakes<'a>(
        &'a self,
        router: &'a Arc<Router>,
        span: HashKeySpan,
    ) -> Option<LockedIntakes<'a>> {
        let in_place = self.router.read().unwrap_or_else(PoisonError::into_inner);
        Arc::ptr_eq(&in_place, router).then(|| LockedIntakes {
            intakes: router.intakes_in(span).map(|intake| intake.lock()).collect(),
            _router: in_place,
        })
    }

    /// Puts a new shard map in place, and closes the intakes that have no shard in it.
    pub(crate) fn install(&self, generation: u64, map: ShardMap) {
        let old = self.router();
        let new = Arc::new(old.next(generation, map, |shard| {
            let id = QueueId(self.next_queue_id.fetch_add(1, Ordering::Relaxed));
            Intake::new(id, shard.map(|shard| (Arc::clone(&shard.id), shard.range)), self.limits)
        }));
        {
            let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
            // Checked under the lock: if the producer begins to close later, it finds the new intakes and closes them.
            if self.is_closed() {
                if self.budget.used() == 0 {
                    return;
                }
                for intake in new.intakes() {
                    if intake.close(SealReason::Flush) {
                        self.add_ready(intake);
                    }
                }
            }
            // Before the new intakes are visible: all records in the old ones are older than those of the new ones.
            for intake in old.intakes().filter(|intake| !new.has(intake.id)) {
                if intake.close(SealReason::Handover) {
                    self.add_ready(intake);
                }
            }
            self.is_service_placed.store(new.map().is_service_placed(), Ordering::SeqCst);
            *router = new;
        }
        self.wake.notify_one();
    }
}

/// The guard of locked intakes. The router stays in place while it lives.
pub(crate) struct LockedIntakes<'a> {
    intakes: Vec<LockedIntake<'a>>,
    _router: RwLockReadGuard<'a, Arc<Router>>,
}

impl LockedIntakes<'_> {
    /// Takes out all records that were accepted and not fetched.
    pub(crate) fn take_all(&mut self) -> Vec<(QueueId, VecDeque<OpenAggregate>)> {
        self.intakes.iter_mut().map(LockedIntake::take_all).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
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

    fn accept(shared: &StreamShards, intake: &Arc<Intake>) -> bool {
        let record = UserRecord::new("k", "v");
        let hash_key = record.hash_key();
        let prepaid = shared.budget.try_charge(intake.id, 10_000);
        intake.accept(record, hash_key, prepaid, &shared.budget, &shared.outcomes).is_ok()
    }

    #[test]
    fn a_map_that_comes_while_closing_opens_no_queue() {
        let shared = StreamShards::new(ProducerConfig::default(), 1 << 20, false, None, None);
        shared.install(1, map(&["parent"]));
        let parent = Arc::clone(shared.router().intake_of(HashKey::MIN));
        let held = shared.budget.try_charge(parent.id, 10).unwrap();
        shared.begin_close();
        shared.install(2, map(&["low", "high"]));
        let router = shared.router();
        assert_eq!(router.generation, 2, "what is held is judged by it");
        let record = UserRecord::new("k", "v");
        for intake in router.intakes() {
            let refused =
                intake.accept(record.clone(), HashKey::MIN, None, &shared.budget, &shared.outcomes);
            assert!(matches!(refused, Err(NotAccepted::Closed(..))));
        }
        drop(held);
        shared.install(3, map(&["a", "b"]));
        assert_eq!(shared.router().generation, 2, "nobody needs it");
    }

    #[test]
    fn a_queue_that_goes_is_marked_ready_although_a_sender_is_about_to() {
        let shared = StreamShards::new(ProducerConfig::default(), 1 << 20, false, None, None);
        shared.install(1, map(&["parent"]));
        let parent = Arc::clone(shared.router().intake_of(HashKey::MIN));
        // A caller of `send` is about to say that the intake is ready. Another record of the key may enter another
        // intake first.
        assert!(accept(&shared, &parent));
        shared.install(2, map(&["low", "high"]));
        let ready = shared.take_ready();
        assert!(ready.iter().any(|intake| intake.id == parent.id));
        assert!(!accept(&shared, &parent));
        let queue_of = |shared: &StreamShards| shared.router().intake_of(HashKey::MIN).id;
        let low = queue_of(&shared);
        shared.install(3, map(&["low"]));
        assert_ne!(
            queue_of(&shared),
            low,
            "the shard takes other keys now: what moved there comes later"
        );
    }

    #[test]
    fn what_a_kept_queue_holds_is_marked_ready_when_the_map_comes_while_closing() {
        let shared = StreamShards::new(ProducerConfig::default(), 1 << 20, false, None, None);
        shared.install(1, map(&["kept", "other"]));
        let kept = Arc::clone(shared.router().intake_of(HashKey::MIN));
        assert!(accept(&shared, &kept));
        // The sender fetched the full aggregates. Then the producer begins to close, and has not closed this intake
        // yet.
        kept.fetch(clock::now());
        shared.is_closing.store(true, Ordering::SeqCst);
        shared.install(2, map(&["kept", "another"]));
        let ready = shared.take_ready();
        assert!(ready.iter().any(|intake| intake.id == kept.id));
        assert_eq!(kept.fetch(clock::now()).0.len(), 1);
    }
}
