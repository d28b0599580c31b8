//! A stream of equal shards that never change, for the servers.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::server::Call;

/// Its shards have equal parts of the hash keys.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// The number of shards, at least one and at most 1,000: ListShards answers with one page.
    pub shards: usize,
}

impl Stream {
    /// Hash keys of a shard, but for the last one, which has the rest.
    fn width(self) -> u128 {
        (u128::MAX / self.shards as u128).saturating_add(1)
    }

    /// The shard of a hash key.
    pub fn shard_of(self, hash_key: u128) -> usize {
        ((hash_key / self.width()) as usize).min(self.shards - 1)
    }

    /// Answers the calls that ask about the stream: DescribeStreamSummary, ListShards and GetShardIterator. `None`:
    /// another operation. The iterators are those of [`ShardIterator`].
    pub fn answer(self, call: &Call) -> Option<Bytes> {
        let answer = match &*call.operation {
            "DescribeStreamSummary" => json!({ "StreamDescriptionSummary": {
                "StreamName": "benchmark",
                "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/benchmark",
                "StreamStatus": "ACTIVE",
                "RetentionPeriodHours": 24,
                "StreamCreationTimestamp": 1.7e9,
                "EnhancedMonitoring": [],
                "OpenShardCount": self.shards,
            }}),
            "ListShards" => {
                let shards = (0..self.shards).map(|shard| {
                    let start = shard as u128 * self.width();
                    let is_last = shard + 1 == self.shards;
                    let end = if is_last { u128::MAX } else { start + self.width() - 1 };
                    json!({
                        "ShardId": shard_id(shard),
                        "HashKeyRange": {
                            "StartingHashKey": start.to_string(),
                            "EndingHashKey": end.to_string(),
                        },
                        "SequenceNumberRange": { "StartingSequenceNumber": sequence_number(0) },
                    })
                });
                json!({ "Shards": shards.collect::<Vec<_>>() })
            }
            "GetShardIterator" => {
                let iterator = call.read::<GetShardIterator>().iterator();
                json!({ "ShardIterator": iterator.to_string() })
            }
            _ => return None,
        };
        Some(call.encoding.write(&answer))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetShardIterator {
    shard_id: String,
    shard_iterator_type: String,
    starting_sequence_number: Option<String>,
}

impl GetShardIterator {
    fn iterator(&self) -> ShardIterator {
        let given = || self.starting_sequence_number.as_deref().map_or(0, place);
        let next = match &*self.shard_iterator_type {
            "LATEST" => u64::MAX,
            "AT_SEQUENCE_NUMBER" => given(),
            "AFTER_SEQUENCE_NUMBER" => given() + 1,
            _ => 0,
        };
        ShardIterator { shard: number(&self.shard_id) as usize, next }
    }
}

/// A shard iterator, which does not expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardIterator {
    /// The shard.
    pub shard: usize,
    /// The place of the next record in the shard. The oldest record has place 0. The largest number: the tip.
    pub next: u64,
}

impl std::fmt::Display for ShardIterator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.shard, self.next)
    }
}

impl std::str::FromStr for ShardIterator {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (shard, next) = text.split_once(':').ok_or("not an iterator")?;
        Ok(Self { shard: shard.parse()?, next: next.parse()? })
    }
}

/// The name of a shard.
pub fn shard_id(shard: usize) -> String {
    format!("shardId-{shard:012}")
}

/// Digits of a sequence number.
pub const SEQUENCE_NUMBER_LENGTH: usize = 56;

/// The sequence number of the record at a place.
pub fn sequence_number(place: u64) -> String {
    format!("49{place:0width$}", width = SEQUENCE_NUMBER_LENGTH - 2)
}

/// The place of the record with a sequence number.
pub fn place(sequence_number: &str) -> u64 {
    number(sequence_number.get(2..).unwrap_or_default())
}

/// The number at the end of a name.
fn number(name: &str) -> u64 {
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_start_matches('0');
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_the_hash_keys() {
        for shards in [1, 3, 4, 1000] {
            let stream = Stream { shards };
            assert_eq!((stream.shard_of(0), stream.shard_of(u128::MAX)), (0, shards - 1));
            for shard in 1..shards {
                let start = shard as u128 * stream.width();
                assert_eq!(
                    (stream.shard_of(start - 1), stream.shard_of(start)),
                    (shard - 1, shard)
                );
            }
        }
        assert_eq!(Stream { shards: 4 }.width(), 1 << 126);
    }

    #[test]
    fn iterators_and_sequence_numbers_name_places() {
        assert_eq!(place(&sequence_number(1234)), 1234);
        let iterator = ShardIterator { shard: 3, next: 70 };
        assert_eq!(iterator.to_string().parse::<ShardIterator>().unwrap(), iterator);
        let request = |kind: &str, number| GetShardIterator {
            shard_id: shard_id(12),
            shard_iterator_type: kind.to_owned(),
            starting_sequence_number: Some(sequence_number(number)),
        };
        let after = request("AFTER_SEQUENCE_NUMBER", 7).iterator();
        assert_eq!(after, ShardIterator { shard: 12, next: 8 });
        assert_eq!(request("AT_SEQUENCE_NUMBER", 7).iterator().next, 7);
        assert_eq!(request("TRIM_HORIZON", 7).iterator().next, 0);
    }
}
