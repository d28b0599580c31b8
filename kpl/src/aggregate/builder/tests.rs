use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use kinesis_aggregation::{Decoded, Decoder};
use proptest::prelude::*;

use super::*;
use crate::ack::{Delivery, Outcomes};
use crate::aggregate::data::Data;
use crate::buffer::{Budget, MemoryBudget};
use crate::clock;
use crate::config::Compression;

const LANE: QueueId = QueueId(7);

struct Fixture {
    budget: Arc<Budget>,
    outcomes: Arc<Outcomes>,
    sealer: Sealer,
    limits: AggregateLimits,
}

impl Fixture {
    fn new(max_size: usize, compression: Compression) -> Self {
        let config =
            ProducerConfig { aggregation_max_size: max_size, compression, ..Default::default() };
        Self {
            budget: Budget::new(MemoryBudget::new(1 << 30), 100),
            outcomes: Arc::default(),
            sealer: Sealer::new(&config).unwrap(),
            limits: AggregateLimits::new(&config, 1 << 20),
        }
    }

    fn open(&self, record: UserRecord) -> (OpenAggregate, Delivery) {
        let hash_key = record.hash_key();
        let mut completer = Completer::new(&self.outcomes);
        let delivery = completer.add_member();
        let charge = self.budget.try_charge(LANE, cost_of(&record).1).unwrap();
        (
            OpenAggregate::new(record, hash_key, charge, completer, self.limits, clock::now()),
            delivery,
        )
    }

    /// One sealed record of all `records`, as far as they fit.
    fn sealed(&mut self, records: &[UserRecord]) -> (KinesisRecord, Vec<Delivery>) {
        let (mut open, first) = self.open(records[0].clone());
        let mut deliveries = vec![first];
        for record in &records[1..] {
            let hash_key = record.hash_key();
            assert!(open.pay(cost_of(record).0, &mut None, false));
            match open.try_push(record, hash_key, self.limits, &mut Completer::add_member) {
                Ok((delivery, _)) => deliveries.push(delivery),
                Err(_) => {
                    drop(open.refund(cost_of(record).0));
                    break;
                }
            }
        }
        (self.sealer.seal(open, LANE), deliveries)
    }
}

/// The bytes that are sent.
fn sent(record: &mut KinesisRecord) -> Bytes {
    Data::finish_all(std::iter::once(&mut record.sealed.data)).remove(0)
}

fn records(count: u32, size: usize) -> Vec<UserRecord> {
    (0..count)
        .map(|id| {
            let record = UserRecord::new(format!("key-{}", id % 5), vec![id as u8; size]);
            if id % 3 == 0 {
                let spread = u128::MAX / u128::from(count) * u128::from(id);
                record.with_explicit_hash_key(HashKey::new(spread))
            } else {
                record
            }
        })
        .collect()
}

#[test]
fn one_record_stays_raw_and_is_not_copied() {
    let mut fixture = Fixture::new(1000, Compression::Off);
    let record = UserRecord::new("k", vec![1; 50]);
    let (mut sealed, _deliveries) = fixture.sealed(std::slice::from_ref(&record));
    assert_eq!(sent(&mut sealed).as_ptr(), record.data().as_ptr());
    assert_eq!(
        (&*sealed.sealed.partition_key, sealed.sealed.explicit_hash_key, sealed.sealed.is_framed),
        ("k", None, false)
    );
    assert_eq!(sealed.user_records(), [record]);
}

#[test]
fn an_aggregate_never_exceeds_its_size() {
    let mut fixture = Fixture::new(1000, Compression::Off);
    let all = records(100, 60);
    let (sealed, deliveries) = fixture.sealed(&all);
    assert!(
        sealed.sealed.data.len() <= 1000 && sealed.sealed.data.len() > 900,
        "{}",
        sealed.sealed.data.len()
    );
    assert!(deliveries.len() > 10 && deliveries.len() < 20);
    assert_eq!(sealed.user_records(), all[..deliveries.len()]);
    assert_eq!((&*sealed.sealed.partition_key, sealed.sealed.is_framed), ("a", true));
    assert_eq!(sealed.sealed.explicit_hash_key, Some(all[0].hash_key()));
}

#[test]
fn records_that_do_not_fit_together_go_alone() {
    let fixture = Fixture::new(1000, Compression::Off);
    let (mut open, _first) = fixture.open(UserRecord::new("k", vec![1; 600]));
    assert_eq!(open.full(fixture.limits), None);
    for size in [600, 385] {
        let second = UserRecord::new("k", vec![2; size]);
        let hash_key = second.hash_key();
        assert_eq!(
            open.try_push(&second, hash_key, fixture.limits, &mut |_| ()),
            Err(SealReason::Size)
        );
    }
    let (large, _delivery) = fixture.open(UserRecord::new("k", vec![1; 1000]));
    assert_eq!(large.full(fixture.limits), Some(SealReason::Size));
}

#[test]
fn the_largest_aggregate_and_its_key_fit_into_the_stream() {
    let config = ProducerConfig { aggregation_max_size: 1 << 20, ..Default::default() };
    assert_eq!(AggregateLimits::new(&config, 1 << 20).max_size, (1 << 20) - 1);
}

#[test]
fn a_look_alike_of_a_frame_is_wrapped_and_comes_back() {
    let mut fixture = Fixture::new(1000, Compression::Off);
    let (mut inner, _deliveries) = fixture.sealed(&records(3, 10));
    let inner = sent(&mut inner);
    let record = UserRecord::new("k", inner.clone());
    let (mut sealed, _delivery) = fixture.sealed(std::slice::from_ref(&record));
    let Ok(Decoded::Aggregate(aggregate)) = Decoder::new(1 << 20).decode(sent(&mut sealed)) else {
        panic!("a frame around it")
    };
    assert_eq!(aggregate.get(0).unwrap().data(), inner);
    assert_eq!((aggregate.len(), &*sealed.sealed.partition_key), (1, "k"));
    assert_eq!(sealed.user_records(), [record]);
}

proptest! {
    /// After any reshard: each member lies once in a record of its queue, order and charge are kept, and each delivery
    /// resolves to its own place.
    #[test]
    fn regrouped_members_keep_their_deliveries(
        count in 1..60_u32,
        cuts in proptest::collection::btree_set(any::<u128>(), 0..4),
        unpredicted in any::<bool>(),
        compress in any::<bool>(),
    ) {
        let compression = if compress { Compression::Zstd { level: 1 } } else { Compression::Off };
        let mut fixture = Fixture::new(1 << 20, compression);
        let all = records(count, 20);
        let (sealed, deliveries) = fixture.sealed(&all);
        let charged = sealed.charge.bytes();
        let queue_of = |hash_key: HashKey| {
            let queue_id = cuts.iter().filter(|cut| hash_key.get() >= **cut).count() as u32;
            (QueueId(queue_id), !(unpredicted && queue_id == 0))
        };
        let parts = fixture.sealer.split_by_shard(sealed, queue_of);
        prop_assert_eq!(fixture.budget.used(), charged);
        prop_assert_eq!(parts.iter().map(|part| part.charge.bytes()).sum::<usize>(), charged);
        prop_assert!(parts.is_sorted_by(|a, b| a.sequence < b.sequence), "each in its place");
        let next = fixture.open(UserRecord::new("k", "next"));
        let next = fixture.sealer.seal(next.0, LANE);
        prop_assert!(parts.iter().all(|part| part.sequence < next.sequence));
        drop(next);

        let mut seen = Vec::new();
        for (number, part) in parts.into_iter().enumerate() {
            let users = part.user_records();
            prop_assert_eq!(users.len(), part.members.len());
            let bytes: usize = users.iter().map(UserRecord::payload_len).sum();
            prop_assert_eq!(part.user_bytes(), bytes);
            for user in &users {
                prop_assert_eq!(queue_of(user.hash_key()).0, part.queue_id);
                prop_assert!(part.span.low <= user.hash_key() && user.hash_key() <= part.span.high);
            }
            seen.extend(users.iter().cloned().enumerate().map(|(at, user)| (user, number.to_string(), at as u64)));
            part.complete_delivered("s".into(), &number.to_string());
        }
        prop_assert_eq!(fixture.budget.used(), 0);
        for (record, delivery) in all.iter().zip(deliveries) {
            let receipt = delivery.now_or_never().unwrap().unwrap();
            let place = (record.clone(), receipt.sequence_number.to_string(), receipt.sub_sequence_number);
            let position = seen.iter().position(|seen| *seen == place);
            prop_assert!(position.is_some());
            seen.remove(position.unwrap());
        }
        prop_assert!(seen.is_empty());
    }
}

#[test]
fn the_members_that_stay_keep_the_room_of_their_record() {
    for short in [0, 1] {
        let mut fixture = Fixture::new(1000, Compression::Off);
        let mut both = [UserRecord::new("k", vec![1; 30]), UserRecord::new("k", vec![2; 30])];
        both[short] = both[short].clone().with_time_to_live(Duration::from_secs(1));
        let (sealed, _deliveries) = fixture.sealed(&both);
        let now = clock::now() + Duration::from_secs(2);
        let lifetimes = sealed.lifetimes.clone();
        let parts = fixture.sealer.split_failed(sealed, |place| lifetimes.is_over(place, now));
        let (over, left): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(is_over, _)| *is_over);
        assert_eq!((over.len(), left.len()), (1, 1));
        drop(over);
        assert_eq!(fixture.budget.used(), cost_of(&both[1 - short]).1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_members_that_stay_count_from_their_own_acceptance() {
    let mut fixture = Fixture::new(1000, Compression::Off);
    let record = UserRecord::new("k", "v");
    let (mut open, _first) = fixture.open(record.clone());
    let second = Duration::from_secs(1);
    tokio::time::advance(10 * second).await;
    open.look(clock::now());
    let accepted = clock::now();
    let hash_key = record.hash_key();
    assert!(open.pay(cost_of(&record).0, &mut None, false));
    let joined = open.try_push(&record, hash_key, fixture.limits, &mut Completer::add_member);
    assert!(joined.is_ok());
    let sealed = fixture.sealer.seal(open, LANE);
    assert_eq!(sealed.history.accepted, accepted - 10 * second);
    tokio::time::advance(21 * second).await;
    let lifetimes = sealed.lifetimes.clone();
    let is_over = |place| lifetimes.is_over(place, clock::now());
    let parts = fixture.sealer.split_failed(sealed, is_over);
    let [(true, _), (false, left)] = &parts[..] else { panic!("the first expired") };
    assert_eq!(left.history.accepted, accepted);
}

/// A class that counts how often it is compared.
#[derive(Clone, Copy)]
struct Counting<'a>(u32, &'a std::cell::Cell<usize>);

impl PartialEq for Counting<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.1.set(self.1.get() + 1);
        self.0 == other.0
    }
}

impl Eq for Counting<'_> {}

impl std::hash::Hash for Counting<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[test]
fn members_that_go_alone_are_not_compared() {
    let mut fixture = Fixture::new(1 << 20, Compression::Off);
    let compared = std::cell::Cell::new(0);
    let (sealed, deliveries) = fixture.sealed(&records(1000, 20));
    let parts = fixture.sealer.split(sealed, |_, _| (Counting(0, &compared), LANE, false));
    assert_eq!((parts.len(), deliveries.len()), (1000, 1000));
    assert_eq!(compared.get(), 0);
    let (sealed, _deliveries) = fixture.sealed(&records(1000, 20));
    let parts = fixture.sealer.split(sealed, |_, _| (Counting(0, &compared), LANE, true));
    assert_eq!(parts.len(), 1);
    assert!(compared.get() < 2000, "{}", compared.get());
}

#[test]
fn members_that_stay_between_others_that_go_alone_are_compared_with_few() {
    let mut fixture = Fixture::new(1 << 20, Compression::Off);
    let compared = std::cell::Cell::new(0);
    let (sealed, _deliveries) = fixture.sealed(&records(1000, 20));
    let parts = fixture.sealer.split(sealed, |place, _| {
        let stays = place % 2 == 0;
        (Counting(stays.into(), &compared), LANE, stays)
    });
    assert_eq!(parts.len(), 501);
    assert!(compared.get() < 2000, "{}", compared.get());
}
