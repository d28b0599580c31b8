//! What the handles of a producer and its tasks share.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use kinesis_aggregation::HashKey;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::ack::{Delivery, FailureHook, Settlement, Settler};
use crate::aggregate::builder::{AggregateLimits, OpenAggregate};
use crate::aggregate::fill::SealReason;
use crate::aggregate::verdict::HashKeySpan;
use crate::buffer::{AGGREGATE_OVERHEAD, Budget, Charge, LaneId, MemoryBudget, RECORD_OVERHEAD};
use crate::config::ProducerConfig;
use crate::error::{DeliveryError, StopReason};
use crate::metrics::Telemetry;
use crate::record::UserRecord;
use crate::shard::map::ShardMap;
use crate::shard::queue::{HeldLane, Lane, Refused};
use crate::shard::router::Routing;
use crate::sync::lock;

pub(crate) struct Shared {
    pub(crate) config: ProducerConfig,
    /// What the stream takes, key and data, in bytes, as last read.
    max_record_size: AtomicUsize,
    /// Whether the service chooses each record's shard, as the routing in place says: read without its lock.
    is_service_placed: AtomicBool,
    /// A record was seen in a shard that would not have it if its key decided.
    pub(crate) seen_placed: AtomicBool,
    pub(crate) settlement: Arc<Settlement>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) budget: Arc<Budget>,
    /// Ends all tasks.
    pub(crate) cancel: CancellationToken,
    /// Wakes the pipeline.
    pub(crate) wake: Notify,
    /// Wakes the refresher of the shard map.
    pub(crate) refresh: Notify,
    limits: AggregateLimits,
    routing: RwLock<Arc<Routing>>,
    next_lane: AtomicU32,
    refreshes_begun: AtomicU64,
    /// Shards that wrote a record and that the map does not know.
    unknown_shards: Mutex<BTreeSet<Arc<str>>>,
    /// The first generation of the map that is surely of the stream as it is: earlier ones may be of a stream of the same
    /// name that is gone.
    trusted_from: AtomicU64,
    /// Lanes with something to fetch.
    announced: Mutex<Vec<Arc<Lane>>>,
    is_closing: AtomicBool,
}

/// Why a record was not entered.
pub(crate) enum NotEntered {
    NoRoom(UserRecord, Arc<Lane>),
    Closed(UserRecord),
}

impl Shared {
    pub(crate) fn new(
        config: ProducerConfig,
        max_record_size: usize,
        is_service_placed: bool,
        on_failure: Option<FailureHook>,
        memory_budget: Option<MemoryBudget>,
    ) -> Arc<Self> {
        let limits = AggregateLimits::new(&config, max_record_size);
        let unpredicted = Lane::new(LaneId::UNPREDICTED, None, limits);
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
            settlement: Arc::new(Settlement::new(on_failure)),
            telemetry: Arc::new(Telemetry::new(config.hot_keys)),
            budget: Budget::new(memory_budget, config.droppable_limit),
            cancel: CancellationToken::new(),
            wake: Notify::new(),
            refresh: Notify::new(),
            limits,
            routing: RwLock::new(Arc::new(Routing::without_shards(unpredicted, map))),
            next_lane: AtomicU32::new(LaneId::FIRST),
            refreshes_begun: AtomicU64::new(0),
            unknown_shards: Mutex::default(),
            trusted_from: AtomicU64::new(0),
            announced: Mutex::default(),
            is_closing: AtomicBool::new(false),
            config,
        })
    }

    /// The largest record the buffer could ever take, key and data, in bytes.
    pub(crate) fn max_bufferable_record(&self) -> usize {
        let overhead = RECORD_OVERHEAD + AGGREGATE_OVERHEAD;
        self.budget.limit().saturating_sub(overhead)
    }

    /// The largest record the stream takes, key and data, in bytes.
    pub(crate) fn max_record_size(&self) -> usize {
        self.max_record_size.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max_record_size(&self, bytes: usize) {
        self.max_record_size.store(bytes, Ordering::Relaxed);
    }

    /// Whether the service chooses each record's shard: then nothing may look like an aggregate.
    pub(crate) fn is_service_placed(&self) -> bool {
        self.is_service_placed.load(Ordering::Relaxed)
    }

    pub(crate) fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.routing.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a record into its lane.
    pub(crate) fn enter(
        &self,
        mut record: UserRecord,
        hash_key: HashKey,
        mut prepaid: Option<Charge>,
    ) -> Result<Delivery, NotEntered> {
        let drawn = self.telemetry.draw(&record.partition_key, record.payload_len());
        loop {
            if self.is_closed() {
                return Err(NotEntered::Closed(record));
            }
            let routing = self.routing();
            let lane = routing.lane(hash_key);
            if let Some(charge) = &mut prepaid {
                charge.move_to(lane.id);
            }
            match lane.accept(record, hash_key, prepaid, &self.budget, &self.settlement) {
                Ok(accepted) => {
                    self.settlement.counters.user_records_accepted.add(1);
                    self.telemetry.accepted(drawn);
                    if accepted.announce {
                        self.announce(lane);
                    }
                    return Ok(accepted.delivery);
                }
                Err(Refused::NoRoom(record)) => {
                    if lane.announce() {
                        self.announce(lane);
                    }
                    return Err(NotEntered::NoRoom(record, Arc::clone(lane)));
                }
                // A lane retires after the routing without it is in place, or when the producer closes: look again.
                Err(Refused::Retired(returned, charge)) => (record, prepaid) = (returned, charge),
            }
        }
    }

    /// Takes a record that finds no room and does not wait for it, and fails it at once.
    pub(crate) fn give_way(&self, record: UserRecord) -> Delivery {
        let counters = &self.settlement.counters;
        counters.user_records_accepted.add(1);
        counters.user_records_dropped.add(1);
        let mut settler = Settler::new(&self.settlement);
        let delivery = settler.add_member();
        settler.settle_one(0, Err(DeliveryError::dropped(record)));
        delivery
    }

    pub(crate) fn announce(&self, lane: &Arc<Lane>) {
        lock(&self.announced).push(Arc::clone(lane));
        self.wake.notify_one();
    }

    pub(crate) fn take_announced(&self) -> Vec<Arc<Lane>> {
        std::mem::take(&mut lock(&self.announced))
    }

    /// The routing in place and the announced lanes: none of them is newer, and none that was retired for it is missing.
    pub(crate) fn take_announced_with_routing(&self) -> (Arc<Routing>, Vec<Arc<Lane>>) {
        let mut announced = Vec::new();
        loop {
            // Lanes are announced as retired before the routing that replaces them can be seen.
            let routing = self.routing();
            announced.append(&mut self.take_announced());
            // Lanes of a newer routing are announced after that can be seen.
            if Arc::ptr_eq(&routing, &self.routing()) {
                return (routing, announced);
            }
        }
    }

    /// Closes all open aggregates, so that they go out now.
    pub(crate) fn close_open_aggregates(&self) {
        for lane in self.routing().lanes() {
            if lane.close_open() {
                self.announce(lane);
            }
        }
    }

    /// Takes no more records. Whatever was accepted before is in a lane or beyond when this returns.
    pub(crate) fn begin_close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        self.budget.close();
        for lane in self.routing().lanes() {
            if lane.retire(SealReason::Flush) {
                self.announce(lane);
            }
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }

    /// Ends the tasks, for `reason` unless there was another before.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.settlement.stop(reason);
        self.begin_close();
        self.cancel.cancel();
    }

    pub(crate) fn stop_reason(&self) -> StopReason {
        self.settlement.stop_reason().cloned().unwrap_or(StopReason::Closed)
    }

    /// Asks for a fresh shard map; returns the generation from which on one is fresh.
    pub(crate) fn request_refresh(&self) -> u64 {
        let fresh = self.refreshes_begun.load(Ordering::SeqCst) + 1;
        self.refresh.notify_one();
        fresh
    }

    /// Notes a shard for the next refresh, which must find out about it.
    pub(crate) fn note_unknown(&self, shard_id: &Arc<str>) {
        lock(&self.unknown_shards).insert(Arc::clone(shard_id));
    }

    /// Takes the shards that the next map should know.
    pub(crate) fn take_unknown(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut *lock(&self.unknown_shards))
    }

    /// Asks for a map in which nothing is of a stream that is gone.
    pub(crate) fn request_new_shards(&self) {
        self.trust_from(self.refreshes_begun.load(Ordering::SeqCst) + 1);
        self.refresh.notify_one();
    }

    /// Distrusts all maps before this generation.
    pub(crate) fn trust_from(&self, generation: u64) {
        self.trusted_from.fetch_max(generation, Ordering::SeqCst);
    }

    pub(crate) fn trusted_from(&self) -> u64 {
        self.trusted_from.load(Ordering::SeqCst)
    }

    /// Begins a refresh and returns its generation.
    pub(crate) fn begin_refresh(&self) -> u64 {
        self.refreshes_begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Lets no record of `span` in while the guard lives. `None` if `routing` is no longer in place.
    pub(crate) fn hold_lanes<'a>(
        &'a self,
        routing: &'a Arc<Routing>,
        span: HashKeySpan,
    ) -> Option<HeldLanes<'a>> {
        let in_place = self.routing.read().unwrap_or_else(PoisonError::into_inner);
        Arc::ptr_eq(&in_place, routing).then(|| HeldLanes {
            lanes: routing.lanes_of(span).map(|lane| lane.hold()).collect(),
            _routing: in_place,
        })
    }

    /// Puts a new map in place, and retires the lanes that have no shard any more.
    pub(crate) fn install(&self, generation: u64, map: ShardMap) {
        let old = self.routing();
        let new = Arc::new(old.next(generation, map, |shard| {
            let id = LaneId(self.next_lane.fetch_add(1, Ordering::Relaxed));
            Lane::new(id, shard.map(|shard| (Arc::clone(&shard.id), shard.range)), self.limits)
        }));
        {
            let mut routing = self.routing.write().unwrap_or_else(PoisonError::into_inner);
            // Under this lock: who begins to close after this look finds the new lanes, and retires them.
            if self.is_closed() {
                if self.budget.used() == 0 {
                    return;
                }
                for lane in new.lanes() {
                    if lane.retire(SealReason::Flush) {
                        self.announce(lane);
                    }
                }
            }
            // Before anybody sees the new lanes: what these took is older than all that the new ones will take.
            for lane in old.lanes().filter(|lane| !new.has(lane.id)) {
                if lane.retire(SealReason::Handover) {
                    self.announce(lane);
                }
            }
            self.is_service_placed.store(new.map().is_service_placed(), Ordering::SeqCst);
            *routing = new;
        }
        self.wake.notify_one();
    }
}

/// Lanes that nothing enters, under a routing that stays.
pub(crate) struct HeldLanes<'a> {
    lanes: Vec<HeldLane<'a>>,
    _routing: RwLockReadGuard<'a, Arc<Routing>>,
}

impl HeldLanes<'_> {
    /// Takes out all that was accepted and not fetched.
    pub(crate) fn take_all(&mut self) -> Vec<(LaneId, VecDeque<OpenAggregate>)> {
        self.lanes.iter_mut().map(HeldLane::take_all).collect()
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

    fn accept(shared: &Shared, lane: &Arc<Lane>) -> bool {
        let record = UserRecord::new("k", "v");
        let hash_key = record.hash_key();
        let prepaid = shared.budget.try_charge(lane.id, 10_000);
        lane.accept(record, hash_key, prepaid, &shared.budget, &shared.settlement).is_ok()
    }

    #[test]
    fn a_map_that_comes_while_closing_opens_no_lane() {
        let shared = Shared::new(ProducerConfig::default(), 1 << 20, false, None, None);
        shared.install(1, map(&["parent"]));
        let parent = Arc::clone(shared.routing().lane(HashKey::MIN));
        let held = shared.budget.try_charge(parent.id, 10).unwrap();
        shared.begin_close();
        shared.install(2, map(&["low", "high"]));
        let routing = shared.routing();
        assert_eq!(routing.generation, 2, "what is held is judged by it");
        let record = UserRecord::new("k", "v");
        for lane in routing.lanes() {
            let refused =
                lane.accept(record.clone(), HashKey::MIN, None, &shared.budget, &shared.settlement);
            assert!(matches!(refused, Err(Refused::Retired(..))));
        }
        drop(held);
        shared.install(3, map(&["a", "b"]));
        assert_eq!(shared.routing().generation, 2, "nobody needs it");
    }

    #[test]
    fn a_lane_that_goes_is_announced_although_a_sender_is_about_to() {
        let shared = Shared::new(ProducerConfig::default(), 1 << 20, false, None, None);
        shared.install(1, map(&["parent"]));
        let parent = Arc::clone(shared.routing().lane(HashKey::MIN));
        // Its sender was told to announce the lane and has not yet: another record of the key may follow elsewhere.
        assert!(accept(&shared, &parent));
        shared.install(2, map(&["low", "high"]));
        let announced = shared.take_announced();
        assert!(announced.iter().any(|lane| lane.id == parent.id));
        assert!(!accept(&shared, &parent));
        let lane_of = |shared: &Shared| shared.routing().lane(HashKey::MIN).id;
        let low = lane_of(&shared);
        shared.install(3, map(&["low"]));
        assert_ne!(
            lane_of(&shared),
            low,
            "the shard takes other keys now: what moved there comes later"
        );
    }

    #[test]
    fn what_a_kept_lane_holds_is_announced_when_the_map_comes_while_closing() {
        let shared = Shared::new(ProducerConfig::default(), 1 << 20, false, None, None);
        shared.install(1, map(&["kept", "other"]));
        let kept = Arc::clone(shared.routing().lane(HashKey::MIN));
        assert!(accept(&shared, &kept));
        // The pipeline fetched what was full; the rest is open. Then somebody begins to close, and has not retired it yet.
        kept.fetch(clock::now());
        shared.is_closing.store(true, Ordering::SeqCst);
        shared.install(2, map(&["kept", "another"]));
        let announced = shared.take_announced();
        assert!(announced.iter().any(|lane| lane.id == kept.id));
        assert_eq!(kept.fetch(clock::now()).0.len(), 1);
    }
}
