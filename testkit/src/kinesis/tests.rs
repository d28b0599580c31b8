//! Properties of the state machine under random histories.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::get::GetRecordsRequest;
use super::iterator;
use super::put::{self, Put};
use super::shard::ShardId;
use super::*;
use crate::clock::Timestamp;

const STREAM: &str = "s";

/// A step of a history; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Put {
        hash_keys: Vec<u128>,
    },
    Split {
        nth: usize,
        at: u128,
    },
    Merge {
        nth: usize,
    },
    UpdateShardCount {
        target: usize,
    },
    /// Time passes; zero and steps back are part of life.
    Wait {
        millis: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(any::<u128>(), 1..8).prop_map(|hash_keys| Step::Put { hash_keys }),
        2 => (any::<usize>(), any::<u128>()).prop_map(|(nth, at)| Step::Split { nth, at }),
        2 => any::<usize>().prop_map(|nth| Step::Merge { nth }),
        1 => any::<usize>().prop_map(|target| Step::UpdateShardCount { target }),
        2 => (-500..5_000i64).prop_map(|millis| Step::Wait { millis }),
    ]
}

/// The state machine, the time, and what was put where, in order.
struct World {
    kinesis: Kinesis,
    now: Timestamp,
    put: BTreeMap<ShardId, Vec<u64>>,
    count: u64,
}

impl World {
    fn new(shards: u32) -> Self {
        let mut kinesis = Kinesis::new(Settings::default());
        let now = Timestamp::from_millis(1_767_225_600_000);
        kinesis.create_provisioned(now, STREAM, shards).unwrap();
        Self { kinesis, now, put: BTreeMap::new(), count: 0 }
    }

    fn stream(&mut self) -> &mut Stream {
        self.kinesis.stream(self.now, StreamRef { name: Some(STREAM), arn: None }).unwrap()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Put { hash_keys } => self.put(&hash_keys),
            Step::Split { nth, at } => {
                let (now, stream) = (self.now, self.stream());
                let shard = stream.open[nth % stream.open.len()];
                let (start, end) = stream.shard(shard).range;
                let at = start + at % (end - start).max(1);
                if stream.check_split(shard, at).is_ok() {
                    stream.split(now, shard, at);
                }
            }
            Step::Merge { nth } => {
                let (now, stream) = (self.now, self.stream());
                let nth = nth % stream.open.len();
                if let Some(&adjacent) = stream.open.get(nth + 1) {
                    let shard = stream.open[nth];
                    stream.check_merge(shard, adjacent).unwrap();
                    stream.merge(now, shard, adjacent);
                }
            }
            Step::UpdateShardCount { target } => {
                let (now, stream) = (self.now, self.stream());
                stream.reshard_uniformly(now, (target % 9 + 1) as u32);
            }
            Step::Wait { millis } => {
                self.now = Timestamp::from_millis(self.now.millis().saturating_add_signed(millis));
            }
        }
    }

    /// Puts a batch; each record's data is its own number.
    fn put(&mut self, hash_keys: &[u128]) {
        let records: Vec<_> = hash_keys
            .iter()
            .enumerate()
            .map(|(nth, hash_key)| {
                let data = (self.count + nth as u64).to_string();
                let data = base64_simd::STANDARD.encode_to_string(data);
                serde_json::json!({
                    "Data": data, "PartitionKey": "k", "ExplicitHashKey": hash_key.to_string(),
                })
            })
            .collect();
        let request = serde_json::json!({ "StreamName": STREAM, "Records": records }).to_string();
        let put =
            Put::try_from(serde_json::from_str::<put::PutRecordsRequest<'_>>(&request).unwrap());
        let response =
            self.kinesis.put_records(self.now, put.unwrap(), Default::default()).unwrap();
        for result in response.records {
            let put::PutResult::Put { shard_id, .. } = result else { panic!("{result:?}") };
            self.put.entry(shard_id).or_default().push(self.count);
            self.count += 1;
        }
    }

    /// Everything in a shard from its trim horizon, a few records at a time, and its children.
    fn read(&mut self, shard: ShardId, limit: i64) -> (Vec<Record>, Vec<ShardId>) {
        let mut records = Vec::new();
        let now = self.now;
        let mut next = iterator::ShardIterator::new(self.stream(), shard, 0, now).encode();
        loop {
            let request = GetRecordsRequest {
                shard_iterator: Some(next),
                limit: Some(limit),
                stream_arn: None,
            };
            let response = self.kinesis.get_records(self.now, request).unwrap();
            let caught_up = response.millis_behind_latest == 0;
            records.extend(response.records);
            match (response.next_shard_iterator, response.child_shards) {
                (Some(iterator), None) if caught_up => {
                    drop(iterator);
                    return (records, Vec::new());
                }
                (Some(iterator), None) => next = iterator,
                (None, Some(children)) => {
                    assert!(caught_up);
                    for child in &children {
                        assert!(child.parent_shards.contains(&shard));
                    }
                    return (records, children.iter().map(|child| child.shard_id).collect());
                }
                other => panic!("an iterator and children, or neither: {other:?}"),
            }
        }
    }
}

/// Open shards cover every hash key once, and routing agrees.
fn check_cover(stream: &Stream) {
    let open: Vec<_> = stream.open.iter().map(|id| stream.shard(*id)).collect();
    assert_eq!(open[0].range.0, 0);
    assert_eq!(open[open.len() - 1].range.1, u128::MAX);
    assert!(open.windows(2).all(|pair| pair[0].range.1 + 1 == pair[1].range.0));
    let all_open = stream.shards.iter().filter(|shard| shard.closed.is_none()).count();
    assert_eq!(all_open, open.len());
    for shard in open {
        assert_eq!(stream.route(shard.range.0), shard.id);
        assert_eq!(stream.route(shard.range.1), shard.id);
    }
}

/// Parents are closed, name their children, cover them, and number below them.
fn check_lineage(stream: &Stream, first_shards: usize) {
    for shard in &stream.shards {
        assert_eq!(shard.parents.is_empty(), (shard.id.0 as usize) < first_shards);
        assert_eq!(shard.children.is_empty(), shard.closed.is_none());
        for parent in shard.parents.iter().map(|parent| stream.shard(*parent)) {
            assert!(parent.children.contains(&shard.id));
            assert!(parent.closed.is_some_and(|closed| closed <= shard.opened));
            assert!(parent.range.0 <= shard.range.1 && shard.range.0 <= parent.range.1);
            let last = parent.ending_sequence_number().unwrap();
            assert!(last < shard.starting_sequence_number());
            assert!(last.to_string() < shard.starting_sequence_number().to_string());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_reader_that_follows_children_reads_every_record_once_and_in_order(
        first_shards in 1..5u32,
        steps in prop::collection::vec(step(), 1..40),
        limit in 1..20i64,
    ) {
        let mut world = World::new(first_shards);
        for step in steps {
            world.take(step);
            check_cover(world.stream());
        }
        check_lineage(world.stream(), first_shards as usize);

        let mut waiting: Vec<ShardId> = (0..first_shards).map(ShardId).collect();
        let mut done = BTreeSet::new();
        let mut read: BTreeMap<ShardId, Vec<u64>> = BTreeMap::new();
        while let Some(shard) = waiting.pop() {
            if !done.insert(shard) {
                continue;
            }
            let (records, children) = world.read(shard, limit);
            prop_assert!(records.is_sorted_by(|a, b| a.sequence_number < b.sequence_number));
            prop_assert!(records.is_sorted_by_key(|record| record.arrival));
            let stream = world.stream();
            let owner = stream.shard(shard);
            for record in &records {
                prop_assert!(record.sequence_number > owner.starting_sequence_number());
                prop_assert!(owner.ending_sequence_number().is_none_or(|end| record.sequence_number < end));
            }
            // A child is ready once all of its parents have been read.
            waiting.extend(children.into_iter().filter(|child| {
                stream.shard(*child).parents.iter().all(|parent| done.contains(parent))
            }));
            let numbers = records.iter().map(|record| number(&record.data)).collect::<Vec<_>>();
            if !numbers.is_empty() {
                read.insert(shard, numbers);
            }
        }
        prop_assert_eq!(&read, &world.put);
        prop_assert_eq!(done.len(), world.stream().shards.len());
    }

    #[test]
    fn the_shards_open_at_any_moment_cover_every_hash_key_once(
        first_shards in 1..4u32,
        steps in prop::collection::vec(step(), 1..25),
        hours in 0..30u64,
        filter in prop_oneof![Just(None), (0..120_000u64).prop_map(Some)],
    ) {
        let mut world = World::new(first_shards);
        let created = world.now;
        for step in steps {
            world.take(step);
        }
        world.now = world.now.plus(Duration::from_secs(hours * 3600));
        let filter = match filter {
            None => serde_json::json!({ "Type": "AT_TRIM_HORIZON" }),
            Some(after) => serde_json::json!({
                "Type": "AT_TIMESTAMP", "Timestamp": (created.millis() + after) as f64 / 1000.0,
            }),
        };
        let request = serde_json::json!({ "StreamName": STREAM, "ShardFilter": filter });
        let request = serde_json::from_value(request).unwrap();
        let listed = world.kinesis.list_shards(world.now, request).unwrap();
        let stream = world.stream();
        let mut ranges: Vec<_> =
            listed.shards.iter().map(|shard| stream.shard(shard.shard_id).range).collect();
        ranges.sort_unstable();
        prop_assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (0, u128::MAX));
        prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{:?}", ranges);
    }
}

fn number(data: &Bytes) -> u64 {
    std::str::from_utf8(data).unwrap().parse().unwrap()
}
