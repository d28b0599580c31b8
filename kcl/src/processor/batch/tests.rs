//! Pages against a model, and the memory of kept records.

use bytes::Bytes;
use futures::FutureExt as _;
use kinesis_aggregation::{AggregateBuilder, Decoded, Decoder};
use proptest::prelude::*;

use super::*;
use crate::processor::{Kept, OwnedRecord, Runs};
use crate::retrieval::{ByteBudget, RawRecord, ShardBudget};

/// A Kinesis record: the payloads of its members, and which of them are delivered. `None`: it is not aggregated.
type Raw = (Vec<Vec<u8>>, Option<Vec<bool>>);

/// Sequence number, sub-sequence number, key and payload of a user record.
type User = (u64, u64, String, Vec<u8>);

struct Fixture {
    budget: Arc<ByteBudget>,
    shard: ShardBudget,
}

impl Fixture {
    fn new() -> Self {
        let budget = ByteBudget::new(1 << 30);
        Self { shard: ShardBudget::new(&budget), budget }
    }

    fn batch(&self, raw: &[Raw]) -> Batch {
        let mut decoder = Decoder::new(0);
        let mut runs = Runs::default();
        let records = raw.iter().enumerate().map(|(index, (payloads, kept))| {
            let data = match kept {
                None => Bytes::from(payloads[0].clone()),
                Some(_) => aggregate(payloads),
            };
            match kept {
                None => runs.push_plain(index..index + 1),
                Some(kept) => {
                    let Ok(Decoded::Aggregate(aggregate)) = decoder.decode(data.clone()) else {
                        panic!("it is an aggregate");
                    };
                    let members = (0..kept.len() as u32).filter(|member| kept[*member as usize]);
                    let kept = match kept.iter().position(|kept| *kept) {
                        Some(first) if kept[first..].iter().all(|kept| *kept) => Kept::From(first),
                        _ => Kept::Only(members.collect()),
                    };
                    runs.push_aggregate(index, aggregate, kept);
                }
            }
            RawRecord {
                sequence_number: number(index).to_string().parse().unwrap(),
                partition_key: Some(format!("raw-{index}")),
                data,
                arrival: None,
            }
        });
        let records = records.collect();
        let (bytes, page) = self.shard.reserve(1).now_or_never().unwrap().split();
        Batch::new(UserRecords::new(records, runs, bytes), None, page)
    }
}

fn aggregate(payloads: &[Vec<u8>]) -> Bytes {
    let mut builder = AggregateBuilder::new(1 << 20);
    for (member, payload) in payloads.iter().enumerate() {
        builder.push(&format!("key-{member}"), None, payload).unwrap();
    }
    builder.seal().into_bytes()
}

fn number(index: usize) -> u64 {
    10 * (index as u64 + 1)
}

fn expected(raw: &[Raw]) -> Vec<User> {
    let mut users = Vec::new();
    for (index, (payloads, kept)) in raw.iter().enumerate() {
        match kept {
            None => users.push((number(index), 0, format!("raw-{index}"), payloads[0].clone())),
            Some(kept) => {
                let members = (0..payloads.len()).filter(|member| kept[*member]);
                users.extend(members.map(|member| {
                    let key = format!("key-{member}");
                    (number(index), member as u64, key, payloads[member].clone())
                }));
            }
        }
    }
    users
}

fn user(record: Record<'_>) -> User {
    (
        record.sequence_number().as_str().parse().unwrap(),
        record.sub_sequence_number(),
        record.partition_key().unwrap().to_owned(),
        record.data().to_vec(),
    )
}

fn records(batch: &Batch) -> Records<'_> {
    batch.records()
}

fn raw() -> impl Strategy<Value = Raw> {
    let payload = || prop::collection::vec(any::<u8>(), 0..40);
    let member = (payload(), prop::bool::weighted(0.7));
    prop_oneof![
        payload().prop_map(|payload| (vec![payload], None)),
        prop::collection::vec(member, 1..6).prop_map(|members| {
            let (payloads, kept) = members.into_iter().unzip();
            (payloads, Some(kept))
        }),
    ]
}

proptest! {
    #[test]
    fn a_page_has_its_user_records_in_order(
        raw in prop::collection::vec(raw(), 0..12),
        from: prop::sample::Index,
        to: prop::sample::Index,
        done in (0_u64..140, 0_u64..7),
    ) {
        let fixture = Fixture::new();
        let mut batch = fixture.batch(&raw);
        let expected = expected(&raw);
        prop_assert_eq!(batch.len(), expected.len());
        prop_assert_eq!(records(&batch).map(user).collect::<Vec<_>>(), expected.clone());
        // A record that is kept is the same record.
        let kept: Vec<OwnedRecord> = records(&batch).map(OwnedRecord::from).collect();
        let kept: Vec<_> = kept.iter().map(|record| user(record.as_record())).collect();
        prop_assert_eq!(kept, expected.clone());
        // A part of the page.
        let (from, to) = (from.index(expected.len() + 1), to.index(expected.len() + 1));
        let part = from.min(to)..from.max(to);
        prop_assert_eq!(batch.remaining.isolate(&part), !part.is_empty());
        let bytes = expected.iter().map(|(.., payload)| payload.len()).sum::<usize>();
        prop_assert_eq!(batch.payload_bytes(), bytes);
        if part.is_empty() {
            return Ok(());
        }
        prop_assert_eq!(records(&batch).len(), part.len());
        prop_assert_eq!(records(&batch).map(user).collect::<Vec<_>>(), &expected[part.clone()]);
        let of = |user: &User| (user.0, user.1);
        let ends = batch.span().map(|(first, last)| {
            let of = |at: ExtendedSequenceNumber| {
                (at.sequence_number.as_str().parse::<u64>().unwrap(), at.sub_sequence_number)
            };
            (of(first), of(last))
        });
        let part = &expected[part];
        prop_assert_eq!(ends, part.first().map(of).zip(part.last().map(of)));
        // Each record is found by its position.
        for number in 0..expected.len() {
            prop_assert_eq!(batch.page.find(&batch.page.position(number)), Some(number));
        }
        // What follows a checkpoint.
        let at = ExtendedSequenceNumber::new(done.0.to_string().parse().unwrap(), done.1);
        let after = expected.iter().position(|user| of(user) > done).unwrap_or(expected.len());
        prop_assert_eq!(batch.page.first_after(&at), after);
    }
}

/// Plain records with payloads of this size.
fn plain(records: usize, size: usize) -> Vec<Raw> {
    vec![(vec![vec![7; size]], None); records]
}

#[test]
fn the_memory_of_a_page_is_counted_until_the_last_record_of_it_is_dropped() {
    let fixture = Fixture::new();
    let batch = fixture.batch(&plain(100, 50));
    let whole = fixture.budget.held();
    assert!(whole >= 100 * 50);
    let first = records(&batch).next().unwrap().to_owned_record();
    let last = records(&batch).last().unwrap().to_owned_record();
    drop(batch);
    assert_eq!(fixture.budget.held(), whole, "the page outlives its batch");
    let clone = last.clone();
    drop((first, last));
    assert_eq!(fixture.budget.held(), whole);
    let elsewhere = std::thread::spawn(move || user(clone.as_record())).join().unwrap();
    assert_eq!(elsewhere, (number(99), 0, "raw-99".to_owned(), vec![7; 50]));
    assert_eq!(fixture.budget.held(), 0);
}

#[test]
fn a_small_payload_is_copied_and_a_large_one_keeps_its_page() {
    let fixture = Fixture::new();
    let batch = fixture.batch(&plain(100, 50));
    let small = records(&batch).next().unwrap().bytes();
    drop(batch);
    assert_eq!(fixture.budget.held(), 0);
    assert_eq!(small, [7; 50][..]);

    let batch = fixture.batch(&plain(2, 10_000));
    let whole = fixture.budget.held();
    let large = records(&batch).last().unwrap().bytes();
    drop(batch);
    assert_eq!(fixture.budget.held(), whole);
    let part = large.slice(5..10);
    drop(large);
    assert_eq!(fixture.budget.held(), whole);
    assert_eq!(part, [7; 5][..]);
    drop(part);
    assert_eq!(fixture.budget.held(), 0);
}

#[test]
fn the_index_of_an_aggregate_counts() {
    let fixture = Fixture::new();
    let members = vec![b"x".to_vec(); 1_000];
    let all = vec![true; 1_000];
    let size = aggregate(&members).len();
    let _batch = fixture.batch(&[(members, Some(all))]);
    // 16 bytes for a member, 8 for its key.
    assert!(fixture.budget.held() >= size + 24 * 1_000);
    assert!(fixture.budget.held() < size + 2 * 24 * 1_024 + 1_000);
}

#[test]
fn a_record_keeps_its_page_out_of_the_pages_of_its_shard() {
    let budget = ByteBudget::new(100);
    let fixture = Fixture { shard: ShardBudget::new(&budget), budget };
    let batch = fixture.batch(&plain(1, 1_000));
    let kept = records(&batch).next().unwrap().to_owned_record();
    assert!(fixture.shard.reserve(50).now_or_never().is_none(), "no room to read ahead");
    drop(batch);
    assert!(fixture.shard.reserve(50).now_or_never().is_some(), "the next page is always read");
    assert_eq!(user(kept.as_record()).3.len(), 1_000);
}

#[test]
fn records_that_are_too_old_are_taken_from_the_first_part_only() {
    let fixture = Fixture::new();
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let raw = [1, 2, 3, 100].into_iter().enumerate().map(|(index, seconds)| RawRecord {
        sequence_number: number(index).to_string().parse().unwrap(),
        partition_key: Some("key".into()),
        data: Bytes::from_static(b"data"),
        arrival: Some(at(seconds)),
    });
    let raw: crate::retrieval::RawRecords = raw.collect();
    let mut runs = Runs::default();
    runs.push_plain(0..4);
    let (bytes, page) = fixture.shard.reserve(1).now_or_never().unwrap().split();
    let mut batch = Batch::new(UserRecords::new(raw, runs, bytes), None, page);
    assert!(!batch.isolate_older(at(1)));
    batch.halve();
    assert!(batch.isolate_older(at(50)));
    assert_eq!((batch.part_len(), batch.len()), (2, 4));
    batch.remaining.part_done();
    assert!(batch.isolate_older(at(50)));
    assert_eq!((batch.part_len(), batch.len()), (1, 2), "the young one is left");
    batch.remaining.part_done();
    assert!(!batch.isolate_older(at(50)));
}
