use std::time::Duration;

use kinesis_aggregation::{HashKey, HashKeyRange};
use proptest::prelude::*;

use std::sync::Arc;

use super::*;
use crate::ack::{Completer, Outcomes};
use crate::aggregate::builder::{AggregateLimits, OpenAggregate, Sealer};
use crate::buffer::{Budget, MemoryBudget};
use crate::clock;
use crate::record::UserRecord;
use crate::shard::queue::Intake;

struct Fixture {
    collector: Collector,
    queues: Queues,
    sealer: Sealer,
    budget: Arc<Budget>,
    limits: AggregateLimits,
    now: Instant,
}

impl Fixture {
    fn new(shards: u32, max_count: usize, max_size: usize) -> Self {
        let config = ProducerConfig {
            collection_max_count: max_count,
            collection_max_size: max_size,
            rate_limit: 1_000_000,
            ..Default::default()
        };
        let now = clock::now();
        let limits = AggregateLimits::new(&config, 1 << 20);
        let queue = |id| {
            let shard = (format!("shard-{id}").into(), HashKeyRange::FULL);
            let intake = Intake::new(QueueId(id), Some(shard), limits);
            (QueueId(id), ShardQueue::new(intake, &config, now))
        };
        Self {
            collector: Collector::new(&config),
            queues: (0..shards).map(queue).collect(),
            sealer: Sealer::new(&config).unwrap(),
            budget: Budget::new(MemoryBudget::new(1 << 30), 100),
            limits,
            now,
        }
    }

    fn record(&mut self, queue_id: u32, size: usize) -> KinesisRecord {
        let user = UserRecord::new("k", vec![0; size - 1]);
        let mut completer = Completer::new(&Arc::new(Outcomes::default()));
        drop(completer.add_member());
        let charge = self.budget.try_charge(QueueId(queue_id), size).unwrap();
        let open = OpenAggregate::new(user, HashKey::MIN, charge, completer, self.limits, self.now);
        self.sealer.seal(open, QueueId(queue_id))
    }

    fn enqueue(&mut self, record: KinesisRecord) {
        let queue = self.queues.get_mut(&record.queue_id).unwrap();
        self.collector.enqueue(queue, record);
    }

    fn batch(&mut self) -> Vec<(u32, u64, usize)> {
        self.collector.fill(&mut self.queues, self.now);
        let batch = self.collector.take_batch();
        batch
            .into_iter()
            .flat_map(|b| b.records)
            .map(|r| (r.queue_id.0, r.sequence, r.size()))
            .collect()
    }
}

#[test]
fn shards_take_turns() {
    let mut fixture = Fixture::new(3, 5, 1 << 20);
    for queue_id in [0, 0, 0, 0, 0, 0, 1, 2] {
        let record = fixture.record(queue_id, 10);
        fixture.enqueue(record);
    }
    let shards = |batch: Vec<(u32, u64, usize)>| {
        batch.iter().map(|(queue_id, ..)| *queue_id).collect::<Vec<_>>()
    };
    assert_eq!(shards(fixture.batch()), [0, 1, 2, 0, 0]);
    assert_eq!(shards(fixture.batch()), [0, 0, 0]);
    assert_eq!(fixture.batch(), []);
}

#[test]
fn a_record_that_comes_back_goes_before_its_successors() {
    let mut fixture = Fixture::new(1, 500, 1 << 20);
    let sealed: Vec<_> = (0..4).map(|_| fixture.record(0, 10)).collect();
    let mut sealed = sealed.into_iter().map(Some).collect::<Vec<_>>();
    for index in [2, 3, 0, 1] {
        fixture.enqueue(sealed[index].take().unwrap());
    }
    assert_eq!(
        fixture.batch().iter().map(|(_, sequence, _)| *sequence).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
}

#[test]
fn a_paused_shard_holds_back_only_itself() {
    let mut fixture = Fixture::new(2, 500, 1 << 20);
    for queue_id in [0, 1, 0, 1] {
        let record = fixture.record(queue_id, 10);
        fixture.enqueue(record);
    }
    let mut rng = fastrand::Rng::with_seed(3);
    let (now, queue_id) = (fixture.now, QueueId(0));
    assert!(fixture.queues.get_mut(&queue_id).unwrap().throttled(now, now, &mut rng));
    let until = fixture.collector.fill(&mut fixture.queues, now).next_ready.unwrap();
    assert!(until > now);
    assert!(fixture.batch().iter().all(|(queue_id, ..)| *queue_id == 1));
    fixture.now = until + Duration::from_secs(1);
    assert_eq!(fixture.batch().len(), 2);
}

#[test]
fn what_has_expired_is_taken_out() {
    let mut fixture = Fixture::new(1, 500, 1 << 20);
    let record = fixture.record(0, 10);
    let expires = record.expires();
    fixture.enqueue(record);
    assert!(fixture.collector.expired(&mut fixture.queues, fixture.now).0.is_empty());
    assert_eq!(fixture.collector.expired(&mut fixture.queues, expires).0.len(), 1);
    assert_eq!(fixture.batch(), []);
}

#[test]
fn halves_hold_all_records_and_their_bytes() {
    let mut fixture = Fixture::new(1, 500, 1 << 20);
    let mut batch = Batch::new(fixture.now);
    for size in [10, 20, 30, 40, 50] {
        batch.push(fixture.record(0, size));
    }
    let [front, behind] = batch.split_in_halves();
    assert_eq!((front.records.len(), front.bytes), (2, 30));
    assert_eq!((behind.records.len(), behind.bytes), (3, 120));
}

proptest! {
    /// All records come out once, in order within a shard, and no batch passes a limit unless it is a single record.
    #[test]
    fn batches_keep_their_limits_and_lose_nothing(
        records in proptest::collection::vec((0..4_u32, 2..3000_usize), 1..100),
        max_count in 1..20_usize,
        max_size in 100..6000_usize,
    ) {
        let mut fixture = Fixture::new(4, max_count, max_size);
        for (queue_id, size) in &records {
            let record = fixture.record(*queue_id, *size);
            fixture.enqueue(record);
        }
        let mut out: Vec<(u32, u64)> = Vec::new();
        loop {
            let batch = fixture.batch();
            if batch.is_empty() {
                break;
            }
            let bytes: usize = batch.iter().map(|(_, _, size)| size).sum();
            prop_assert!(batch.len() <= max_count);
            prop_assert!(bytes <= max_size || batch.len() == 1);
            // A shard that has records left got as many places as any other, or one less.
            let places = |shard: u32| batch.iter().filter(|(of, ..)| *of == shard).count();
            let most = (0..4).map(places).max().unwrap_or(0);
            for queue_id in 0..4 {
                let is_left = !fixture.queues[&QueueId(queue_id)].waiting.is_empty();
                prop_assert!(!is_left || places(queue_id) + 1 >= most, "queue {} has {} of {}", queue_id, places(queue_id), most);
            }
            out.extend(batch.iter().map(|(queue_id, sequence, _)| (*queue_id, *sequence)));
        }
        prop_assert_eq!(out.len(), records.len());
        for queue_id in 0..4 {
            let sequences: Vec<_> = out.iter().filter(|(of, _)| *of == queue_id).map(|(_, s)| *s).collect();
            prop_assert!(sequences.is_sorted());
        }
    }
}

#[test]
fn a_shard_gets_no_more_than_its_rate() {
    let mut fixture = Fixture::new(2, 500, 10 << 20);
    let (now, hot) = (fixture.now, QueueId(0));
    let intake = Arc::clone(&fixture.queues[&hot].intake);
    let config = ProducerConfig { rate_limit: 100, ..Default::default() };
    fixture.queues.insert(hot, ShardQueue::new(intake, &config, now));
    for _ in 0..30 {
        let record = fixture.record(0, 100 * 1024);
        fixture.enqueue(record);
    }
    let record = fixture.record(1, 100);
    fixture.enqueue(record);
    // The burst of a second, and the other shard's record.
    let next = fixture.collector.fill(&mut fixture.queues, now).next_ready.unwrap();
    assert_eq!(fixture.collector.take_batch().unwrap().records.len(), 10 + 1);
    assert_eq!(fixture.batch(), []);
    fixture.now = next;
    assert_eq!(fixture.batch().len(), 1);
    fixture.now = next + std::time::Duration::from_secs(1);
    assert_eq!(fixture.batch().len(), 10);
}
