//! What a KCL sees of a stream.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use kinesis_aggregation::{Decoded, Decoder, HashKey, HashKeyRange};
use kinesis_testkit::LocalAws;
use kpl::{Producer, ProducerBuilder, ProducerConfig, Receipt};

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

/// Waits for a condition; what is never met hangs the test, with its name.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
