//! What a KCL sees of a stream.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use kinesis_aggregation::{Decoded, Decoder, HashKey, HashKeyRange};
use kinesis_testkit::LocalAws;
use kpl::{Delivery, Producer, ProducerBuilder, ProducerConfig, Receipt};

/// Where a user record lies: shard, sequence number, sub-sequence number.
pub(crate) type Place = (String, String, u64);

/// What consumers see, and what their dropping rule takes from them.
#[derive(Default)]
pub(crate) struct Seen {
    /// Every place of every record, by its data.
    pub(crate) places: HashMap<Bytes, HashSet<Place>>,
    pub(crate) kinesis_records: usize,
    /// Kinesis records dropped as a whole because a member was out of the shard's range.
    pub(crate) dropped: usize,
}

impl Seen {
    /// The record is seen where its receipt says.
    pub(crate) fn assert_holds(&self, data: &[u8], receipt: &Receipt) {
        let place = (
            receipt.shard_id.to_string(),
            receipt.sequence_number.to_string(),
            receipt.sub_sequence_number,
        );
        let places = self.places.get(data);
        assert!(
            places.is_some_and(|places| places.contains(&place)),
            "{:?} is not seen at {place:?} but at {places:?}",
            String::from_utf8_lossy(data)
        );
    }
}

/// Reads the whole stream as a KCL does: a whole aggregate is dropped when one member is out of range.
pub(crate) fn read(aws: &LocalAws, stream: &str) -> Seen {
    let mut seen = Seen::default();
    let mut decoder = Decoder::new(16 * 1024 * 1024);
    for shard in aws.records(stream) {
        let (start, end) = (shard.starting_hash_key, shard.ending_hash_key);
        let range = HashKeyRange::new(HashKey::new(start), HashKey::new(end)).unwrap();
        for record in shard.records {
            seen.kinesis_records += 1;
            let mut see = |data: Bytes, sub_sequence_number| {
                let place =
                    (shard.shard_id.clone(), record.sequence_number.clone(), sub_sequence_number);
                seen.places.entry(data).or_default().insert(place);
            };
            match decoder.decode(record.data.clone()).unwrap() {
                Decoded::Plain(data, _) => see(data, 0),
                Decoded::Aggregate(aggregate) => {
                    assert!(aggregate.defect().is_none());
                    if aggregate.iter().all(|member| range.contains(member.hash_key())) {
                        aggregate.iter().for_each(|m| see(m.data_bytes(), m.index()));
                    } else {
                        seen.dropped += 1;
                    }
                }
                _ => panic!("a kind of record this reader does not know"),
            }
        }
    }
    seen
}

/// An embedded AWS with a stream `s`.
pub(crate) async fn stream(shards: u32) -> LocalAws {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream("s", shards).await.unwrap();
    aws
}

/// Merges two adjacent shards of `s`.
pub(crate) async fn merge(aws: &LocalAws, one: &str, other: &str) {
    let merge = aws.kinesis().merge_shards().stream_name("s");
    let merge = merge.shard_to_merge(one).adjacent_shard_to_merge(other);
    merge.send().await.unwrap();
}

/// Splits both shards of `s`, and merges a child of each. Each step waits until so many records are
/// delivered.
pub(crate) async fn reshard(aws: &LocalAws, producer: &Producer, after: [u64; 3]) {
    // Shards 0 and 1 halve the space. Split 0 into 2 and 3, 1 into 4 and 5, merge 3 and 4 into 6.
    let delivered = async |count| until(|| producer.stats().user_records_delivered > count).await;
    delivered(after[0]).await;
    split(aws, "shardId-000000000000", u128::MAX / 4).await;
    delivered(after[1]).await;
    split(aws, "shardId-000000000001", u128::MAX / 4 * 3).await;
    delivered(after[2]).await;
    merge(aws, "shardId-000000000003", "shardId-000000000004").await;
}

/// Waits for the receipts of all records.
pub(crate) async fn receipts<D>(deliveries: Vec<(D, Delivery)>) -> Vec<(D, Receipt)> {
    let mut receipts = Vec::new();
    for (data, delivery) in deliveries {
        receipts.push((data, delivery.await.unwrap()));
    }
    receipts
}

/// Splits a shard of `s`.
pub(crate) async fn split(aws: &LocalAws, shard_id: &str, at: u128) {
    let split = aws.kinesis().split_shard().stream_name("s").shard_to_split(shard_id);
    split.new_starting_hash_key(at.to_string()).send().await.unwrap();
}

/// The default, with time limits that a starved machine keeps, too.
pub(crate) fn unhurried() -> ProducerConfig {
    ProducerConfig {
        record_ttl: Duration::from_secs(6000),
        request_timeout: Duration::from_secs(600),
        connect_timeout: Duration::from_secs(600),
        startup_timeout: Duration::from_secs(600),
        ..Default::default()
    }
}

/// A builder for that stream with a fixed seed.
pub(crate) fn builder(aws: &LocalAws, config: ProducerConfig) -> ProducerBuilder {
    Producer::builder("s", &aws.sdk_config()).seed(1).config(config)
}

/// Waits for a condition. If it never comes true, the test hangs.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
