use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt as _;
use kinesis_aggregation::{AggregateBuilder, Compressor, HashKey};

use super::*;
use crate::clock::SystemClock;
use crate::processor::Records;
use crate::retrieval::{ByteBudget, RawRecord, ShardBudget};

const HALF: u128 = 1 << 127;

fn lower_half() -> Option<HashKeyRange> {
    Some(HashKeyRange::new(HashKey::MIN, HashKey::new(HALF - 1)).unwrap())
}

/// An aggregate of records under `keys`, each at the hash key given.
fn aggregate(members: &[(&str, u128)]) -> Bytes {
    let mut builder = AggregateBuilder::new(1 << 20);
    for (index, (key, hash_key)) in members.iter().enumerate() {
        let data = format!("data-{index}");
        builder.push(key, Some(HashKey::new(*hash_key)), data.as_bytes()).unwrap();
    }
    builder.seal().into_bytes()
}

fn raw(sequence_number: u64, partition_key: &str, data: Bytes) -> RawRecord {
    RawRecord {
        sequence_number: sequence_number.to_string().parse().unwrap(),
        partition_key: Some(partition_key.to_owned()),
        data,
        arrival: None,
    }
}

fn at(sequence_number: u64, sub_sequence_number: u64) -> ExtendedSequenceNumber {
    ExtendedSequenceNumber::new(sequence_number.to_string().parse().unwrap(), sub_sequence_number)
}

/// De-aggregates a page. Its memory counts in a budget of its own.
fn page(
    deaggregator: &mut Deaggregator,
    records: Vec<RawRecord>,
) -> (Arc<UserRecords>, AggregateCounts) {
    let budget = ShardBudget::new(&ByteBudget::new(usize::MAX));
    let held = budget.reserve(0).now_or_never().unwrap();
    let (bytes, _) = held.split();
    let (records, counts) = deaggregator.user_records(records.into_iter().collect(), bytes);
    (Arc::new(records), counts)
}

/// Sequence and sub-sequence numbers delivered, and what was counted.
fn expand(
    policy: AggregateRangePolicy,
    range: Option<HashKeyRange>,
    done: Option<ExtendedSequenceNumber>,
    records: Vec<RawRecord>,
) -> (Vec<(u64, u64)>, AggregateCounts) {
    let mut deaggregator = Deaggregator::new("shard", range, done, policy, 16 << 20, clock());
    let (records, counts) = page(&mut deaggregator, records);
    let positions = (0..records.len()).map(|record| {
        let position = records.position(record);
        (position.sequence_number.as_str().parse().unwrap(), position.sub_sequence_number)
    });
    (positions.collect(), counts)
}

const POLICIES: [AggregateRangePolicy; 4] = [
    AggregateRangePolicy::Auto,
    AggregateRangePolicy::Strict,
    AggregateRangePolicy::KeepInRange,
    AggregateRangePolicy::KeepAll,
];

#[test]
fn a_checkpoint_inside_an_aggregate_leaves_the_rest_of_it() {
    let records = || {
        vec![
            raw(7, "a", aggregate(&[("k", 1), ("k", 2), ("k", 3)])),
            raw(8, "plain", Bytes::from_static(b"x")),
        ]
    };
    let auto = AggregateRangePolicy::Auto;
    for (done, expected) in [
        (None, vec![(7, 0), (7, 1), (7, 2), (8, 0)]),
        (Some(at(6, 9)), vec![(7, 0), (7, 1), (7, 2), (8, 0)]),
        (Some(at(7, 0)), vec![(7, 1), (7, 2), (8, 0)]),
        (Some(at(7, 1)), vec![(7, 2), (8, 0)]),
        (Some(at(7, 2)), vec![(8, 0)]),
        (Some(at(7, u64::MAX)), vec![(8, 0)]),
        (Some(at(8, 0)), vec![]),
        (Some(at(9, 0)), vec![]),
    ] {
        assert_eq!(expand(auto, None, done.clone(), records()).0, expected, "{done:?}");
    }
}

#[test]
fn sub_sequence_numbers_are_the_indexes_before_any_filtering() {
    let record = raw(1, "a", aggregate(&[("k", 1), ("k", HALF), ("k", 2), ("k", HALF), ("k", 3)]));
    let (positions, tally) =
        expand(AggregateRangePolicy::Auto, lower_half(), Some(at(1, 0)), vec![record]);
    assert_eq!(positions, [(1, 2), (1, 4)]);
    assert_eq!(tally.members_dropped, 2);
    assert_eq!(tally.aggregates_out_of_range, 1);
}

#[test]
fn all_in_range_are_delivered_in_order_under_every_policy() {
    for policy in POLICIES {
        let record = raw(1, "a", aggregate(&[("k", 3), ("a", 1), ("z", HALF - 1)]));
        let (positions, tally) = expand(policy, lower_half(), None, vec![record]);
        assert_eq!(positions, [(1, 0), (1, 1), (1, 2)], "{policy:?}");
        assert_eq!(tally, AggregateCounts { aggregates: 1, ..AggregateCounts::default() });
    }
}

/// The table of `AggregateRangePolicy`: which members are delivered when some are out of range.
#[test]
fn the_policy_table() {
    let (inside, outside) = (1, HALF);
    let all = vec![0, 1, 2];
    let in_range = vec![0, 2];
    let predicted = [("k", inside), ("k", outside), ("k", inside)];
    let own_key = [("a", inside), ("a", outside), ("a", inside)];
    let first_outside = [("k", outside), ("k", inside), ("k", inside)];
    use AggregateRangePolicy::{Auto, KeepAll, KeepInRange, Strict};
    for (policy, record_key, members, expected) in [
        (Auto, "a", predicted, in_range.clone()),
        (Auto, "customer-1", predicted, all.clone()),
        (Auto, "a", own_key, all.clone()),
        (Auto, "a", first_outside, all.clone()),
        (Strict, "a", predicted, vec![]),
        (Strict, "customer-1", predicted, vec![]),
        (KeepInRange, "customer-1", predicted, in_range.clone()),
        (KeepInRange, "a", first_outside, vec![1, 2]),
        (KeepAll, "a", predicted, all.clone()),
    ] {
        let record = raw(1, record_key, aggregate(&members));
        let (positions, tally) = expand(policy, lower_half(), None, vec![record]);
        let delivered: Vec<_> = positions.into_iter().map(|(_, sub)| sub).collect();
        assert_eq!(delivered, expected, "{policy:?} {record_key} {members:?}");
        assert_eq!(tally.aggregates_out_of_range, 1);
        assert_eq!(tally.members_dropped as usize, 3 - expected.len());
    }
}

/// The Java test's "5 in range, 5 below, 5 above": empty under `strict`, which is Java's rule.
#[test]
fn five_in_range_five_below_five_above() {
    let range = HashKeyRange::new(HashKey::new(100), HashKey::new(199)).unwrap();
    let hash_keys = (0..15u128).map(|i| match i {
        0..5 => 100 + i,
        5..10 => i,
        _ => 200 + i,
    });
    let members: Vec<_> = hash_keys.map(|hash_key| ("k", hash_key)).collect();
    for (policy, expected) in [
        (AggregateRangePolicy::Strict, 0),
        (AggregateRangePolicy::Auto, 5),
        (AggregateRangePolicy::KeepAll, 15),
    ] {
        let record = raw(1, "a", aggregate(&members));
        assert_eq!(expand(policy, Some(range), None, vec![record]).0.len(), expected);
    }
}

#[test]
fn members_without_an_explicit_hash_key_are_judged_by_their_partition_key() {
    let mut builder = AggregateBuilder::new(1 << 20);
    let keys: Vec<_> = (0..20).map(|i| format!("key-{i}")).collect();
    let inside = |key: &str| HashKey::of_partition_key(key).get() < HALF;
    let (first, _) = keys.iter().enumerate().find(|(_, key)| inside(key)).unwrap();
    for key in &keys[first..] {
        builder.push(key, None, b"x").unwrap();
    }
    let expected = keys[first..].iter().filter(|key| inside(key)).count();
    assert!(expected < keys[first..].len());
    let record = raw(1, "a", builder.seal().into_bytes());
    let (positions, _) = expand(AggregateRangePolicy::Auto, lower_half(), None, vec![record]);
    assert_eq!(positions.len(), expected);
}

/// An aggregate as old JavaScript writers leave it: the second member of three names the row
/// `undefined` of the table of explicit hash keys.
fn of_an_old_javascript_writer(keys: [&str; 3]) -> Bytes {
    fn field(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, content.len() as u8], content].concat()
    }
    let mut body: Vec<u8> = keys.iter().flat_map(|key| field(0x0a, key.as_bytes())).collect();
    body.extend(field(0x12, b"undefined"));
    body.extend(field(0x1a, b"\x08\x00\x1a\x01x"));
    body.extend(field(0x1a, b"\x08\x01\x10\x00\x1a\x01y"));
    body.extend(field(0x1a, b"\x08\x02\x1a\x01z"));
    let digest = HashKey::of_partition_key(str::from_utf8(&body).unwrap());
    let digest = digest.get().to_be_bytes();
    [b"\xf3\x89\x9a\xc2", &*body, &digest].concat().into()
}

#[test]
fn a_hash_key_that_is_no_number_gives_way_to_the_partition_key() {
    let inside = |key: &&String| HashKey::of_partition_key(key).get() < HALF;
    let keys: Vec<_> = (0..20).map(|i| format!("key-{i}")).collect();
    let (low, high): (Vec<_>, Vec<_>) = keys.iter().partition(inside);
    let run = |policy, range, keys| {
        let record = raw(1, "customer", of_an_old_javascript_writer(keys));
        let (positions, tally) = expand(policy, range, None, vec![record]);
        let members: Vec<_> = positions.into_iter().map(|(_, member)| member).collect();
        (members, tally.invalid_hash_keys, tally.defects)
    };
    use AggregateRangePolicy::{Auto, KeepAll, KeepInRange, Strict};
    let all_low: [&str; 3] = [low[0], low[1], low[2]];
    for range in [None, lower_half()] {
        for policy in [Auto, KeepAll, KeepInRange] {
            let expected = (vec![0, 1, 2], 1, 0);
            assert_eq!(run(policy, range, all_low), expected, "{policy:?}");
        }
        // As Java: the member and all behind it are lost.
        assert_eq!(run(Strict, range, all_low), (vec![0], 0, 1));
    }
    // Its own key says that it belongs to the other shard.
    let second_high = [&**low[0], high[0], low[1]];
    assert_eq!(run(KeepInRange, lower_half(), second_high).0, [0, 2]);
    assert_eq!(run(Auto, lower_half(), second_high).0, [0, 1, 2]);
    // A member behind the broken one is not judged, as in Java.
    let third_high = [&**low[0], low[1], high[0]];
    assert_eq!(run(Strict, lower_half(), third_high).0, [0]);
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// The lines that `work` logs on this thread, each with its level.
fn logged(work: impl FnOnce()) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // While there is one subscriber alone, a test on another thread, without it, can turn an event off.
    let second = tracing_subscriber::fmt().with_writer(std::io::sink);
    let _second = tracing::Dispatch::new(second.finish());
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_reshard_is_one_line_of_information_with_a_count() {
    let run = |policy, records: u32, later: Option<u32>| {
        logged(|| {
            let mut deaggregator =
                Deaggregator::new("shard", lower_half(), None, policy, 0, clock());
            let mut open = |number: u32, out_of_range: bool, at: u32| {
                let second = if out_of_range { HALF } else { 2 };
                let data = aggregate(&[("k", 1), ("k", second)]);
                let mut record = raw(u64::from(number), "a", data);
                let arrival = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(at));
                record.arrival = Some(arrival);
                let _ = page(&mut deaggregator, vec![record]);
            };
            for number in 0..records {
                open(number, true, number / 10);
            }
            if let Some(later) = later {
                open(records, false, later);
                tracing::info!("later");
            }
        })
    };
    let auto = AggregateRangePolicy::Auto;
    let lines = run(auto, 100, Some(19));
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("INFO") && lines[1].ends_with("later"), "{lines:#?}");
    for said in ["shard_id=\"shard\"", "aggregates=100", "records=100"] {
        assert!(lines[0].contains(said), "{lines:#?}");
    }
    // The last interval is not over: its count is logged when the shard ends.
    let lines = run(auto, 100, Some(18));
    assert!(lines[0].ends_with("later") && lines[1].contains("records=100"), "{lines:#?}");
    assert_eq!(run(auto, 0, Some(18)).len(), 1);
    // Records that a setting drops may be lost: a warning, with the count at the end.
    let lines = run(AggregateRangePolicy::KeepInRange, 100, None);
    assert!(lines.iter().all(|line| line.contains("WARN")), "{lines:#?}");
    assert!(lines[1].contains("records=100") && lines.len() == 2, "{lines:#?}");
    let lines = run(AggregateRangePolicy::KeepAll, 100, None);
    assert!(lines[0].contains("WARN") && lines.len() == 1, "{lines:#?}");
}

#[test]
fn an_unknown_range_is_not_judged() {
    let record = raw(1, "a", aggregate(&[("k", 1), ("k", HALF)]));
    let (positions, tally) = expand(AggregateRangePolicy::Strict, None, None, vec![record]);
    assert_eq!(positions.len(), 2);
    assert_eq!(tally.aggregates_out_of_range, 0);
}

#[test]
fn an_empty_aggregate_delivers_nothing() {
    // Magic, a key table with one key and no records, and their MD5.
    let data = b"\xf3\x89\x9a\xc2\x0a\x01\x6b\x6d\x44\x22\x0b\x0e\xea\xc8\xbc\xfd\x28\xa2\x81\x07\xa9\x6f\xf4";
    let record = raw(1, "a", Bytes::from_static(data));
    let (positions, tally) = expand(AggregateRangePolicy::Auto, None, None, vec![record]);
    assert!(positions.is_empty());
    assert_eq!(tally.aggregates, 1);
}

#[test]
fn a_frame_that_cannot_be_opened_is_delivered_as_received_and_flagged() {
    let mut builder = AggregateBuilder::new(1 << 20);
    builder.push("k", None, &[7; 4000]).unwrap();
    let framed =
        Compressor::new(3).unwrap().compress(&builder.seal_without_digest()).unwrap().unwrap();
    let mut broken = framed.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let broken = Bytes::from(broken);

    let policy = AggregateRangePolicy::Auto;
    let mut deaggregator = Deaggregator::new("shard", None, None, policy, 16 << 20, clock());
    let received = broken.len();
    let (page, tally) =
        page(&mut deaggregator, vec![raw(1, "p", framed), raw(2, "p", broken.clone())]);
    assert_eq!(tally.frame_errors, 1);
    assert!(tally.decompressed_bytes >= 4000);
    assert!(page.memory() > 4000 + 2 * received, "unpacked bytes count");
    let all = 0..page.len();
    let records: Vec<_> = Records::new(&page, slice::from_ref(&all)).collect();
    assert_eq!(records[0].data(), [7; 4000]);
    assert!(records[0].is_aggregated() && records[0].frame_error().is_none());
    assert_eq!(records[1].data(), broken);
    assert!(!records[1].is_aggregated() && records[1].frame_error().is_some());
    assert_eq!(records[1].partition_key(), Some("p"));
}

#[test]
fn a_frame_that_cannot_be_opened_comes_again_although_a_part_of_it_is_checkpointed() {
    let mut builder = AggregateBuilder::new(1 << 20);
    for _ in 0..8 {
        builder.push("k", None, &[7; 4000]).unwrap();
    }
    let framed =
        Compressor::new(3).unwrap().compress(&builder.seal_without_digest()).unwrap().unwrap();
    // This worker's limit is smaller than that of the one that wrote the checkpoint.
    let policy = AggregateRangePolicy::Auto;
    let mut deaggregator = Deaggregator::new("shard", None, Some(at(1, 5)), policy, 1000, clock());
    let (page, tally) = page(&mut deaggregator, vec![raw(1, "p", framed)]);
    assert_eq!((page.len(), tally.frame_errors), (1, 1));
    assert_eq!(page.position(0), at(1, 5));
}

/// A clock that a test moves on.
#[derive(Debug, Default)]
struct Seconds(AtomicU64);

impl Clock for Seconds {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now()
    }
}

#[test]
fn a_flood_of_records_that_cannot_be_read_is_logged_at_intervals_with_counts() {
    let mut builder = AggregateBuilder::new(1 << 20);
    builder.push("k", None, &[7; 4000]).unwrap();
    let framed =
        Compressor::new(3).unwrap().compress(&builder.seal_without_digest()).unwrap().unwrap();
    let lines = logged(|| {
        let clock = Arc::new(Seconds::default());
        let policy = AggregateRangePolicy::Auto;
        // No frame can be opened within this limit.
        let shared = Arc::clone(&clock) as Arc<dyn Clock>;
        let mut deaggregator = Deaggregator::new("shard", None, None, policy, 1000, shared);
        let mut frame_errors = 0;
        // Ten a second.
        for number in 0..700 {
            clock.0.store(number / 10, Ordering::Relaxed);
            let record = raw(number, "p", framed.clone());
            let (page, tally) = page(&mut deaggregator, vec![record]);
            assert_eq!(page.len(), 1);
            frame_errors += tally.frame_errors;
        }
        assert_eq!(frame_errors, 700);
    });
    let counts = ["records=1", "records=300", "records=300", "not_opened=99"];
    assert_eq!(lines.len(), counts.len(), "{lines:#?}");
    for (line, count) in lines.iter().zip(counts) {
        assert!(line.contains("WARN") && line.contains(count), "{line}");
    }
}
