//! GetShardIterator, and what an iterator holds.

use serde::Serialize;

use super::Kinesis;
use super::error::ApiError;
use super::sequence::SequenceNumber;
use super::shard::{Position, Shard, ShardId};
use super::stream::Stream;
use super::wire::{EpochSeconds, NamesStream, required, stream_requests};
use crate::clock::Timestamp;

stream_requests! {
    GetShardIteratorRequest {
        shard_id: String,
        shard_iterator_type: String,
        starting_sequence_number: String,
        timestamp: EpochSeconds,
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetShardIteratorResponse {
    shard_iterator: String,
}

/// A place in a shard, and since when it is known. Opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardIterator {
    pub(crate) stream: String,
    pub(crate) incarnation: u64,
    pub(crate) shard: ShardId,
    pub(crate) position: Position,
    pub(crate) issued: Timestamp,
}

impl ShardIterator {
    pub(crate) fn new(stream: &Stream, shard: ShardId, position: Position, now: Timestamp) -> Self {
        Self {
            stream: stream.name.clone(),
            incarnation: stream.incarnation,
            shard,
            position,
            issued: now,
        }
    }

    pub(crate) fn encode(&self) -> String {
        let Self { stream, incarnation, shard, position, issued } = self;
        let text = format!("{incarnation}/{}/{position}/{}/{stream}", shard.0, issued.millis());
        base64_simd::STANDARD.encode_to_string(text)
    }

    pub(crate) fn decode(text: &str) -> Result<Self, ApiError> {
        Self::parse(text).ok_or_else(|| ApiError::invalid_argument("Invalid ShardIterator."))
    }

    fn parse(text: &str) -> Option<Self> {
        let text = String::from_utf8(base64_simd::STANDARD.decode_to_vec(text).ok()?).ok()?;
        let mut parts = text.splitn(5, '/');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (incarnation, shard, position, issued) = (number()?, number()?, number()?, number()?);
        Some(Self {
            stream: parts.next()?.to_owned(),
            incarnation,
            shard: ShardId(u32::try_from(shard).ok()?),
            position,
            issued: Timestamp::from_millis(issued),
        })
    }
}

impl Kinesis {
    pub(crate) fn get_shard_iterator(
        &mut self,
        now: Timestamp,
        request: GetShardIteratorRequest,
    ) -> Result<GetShardIteratorResponse, ApiError> {
        let shard = required("shardId", request.shard_id.as_deref())?;
        let stream = self.serving(now, request.stream())?;
        let id = stream.find_shard(now, shard)?;
        let start = StartingPosition {
            kind: required("shardIteratorType", request.shard_iterator_type.as_deref())?,
            sequence_number: request.starting_sequence_number.as_deref(),
            timestamp: request.timestamp.map(|time| time.0),
        };
        let position = start.position(now, stream, stream.shard(id))?;
        let shard_iterator = ShardIterator::new(stream, id, position, now).encode();
        Ok(GetShardIteratorResponse { shard_iterator })
    }
}

/// Where a reader starts, as it says it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartingPosition<'a> {
    pub(crate) kind: &'a str,
    pub(crate) sequence_number: Option<&'a str>,
    pub(crate) timestamp: Option<Timestamp>,
}

impl StartingPosition<'_> {
    pub(crate) fn position(
        &self,
        now: Timestamp,
        stream: &Stream,
        shard: &Shard,
    ) -> Result<Position, ApiError> {
        match self.kind {
            "TRIM_HORIZON" => Ok(0),
            "LATEST" => Ok(shard.end()),
            "AT_SEQUENCE_NUMBER" => self.sequence_position(stream, shard),
            "AFTER_SEQUENCE_NUMBER" => {
                self.sequence_position(stream, shard).map(|position| position.saturating_add(1))
            }
            "AT_TIMESTAMP" => {
                let time = required("timestamp", self.timestamp)?;
                if time > now {
                    return Err(ApiError::invalid_argument(format!(
                        "The timestampInMillis parameter cannot be greater than the \
                         currentTimestampInMillis. timestampInMillis: {}, \
                         currentTimestampInMillis: {}",
                        time.millis(),
                        now.millis()
                    )));
                }
                Ok(shard.position_at(time))
            }
            _ => Err(ApiError::constraint(
                "shardIteratorType",
                "Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, \
                 AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]",
            )),
        }
    }

    fn sequence_position(&self, stream: &Stream, shard: &Shard) -> Result<Position, ApiError> {
        let text = self.sequence_number.ok_or_else(|| {
            ApiError::invalid_argument(
                "StartingSequenceNumber is required for the iterator types AT_SEQUENCE_NUMBER and \
                 AFTER_SEQUENCE_NUMBER.",
            )
        })?;
        let position = text.parse::<SequenceNumber>().ok();
        position.and_then(|number| number.index_in(shard.epoch, shard.id.0)).ok_or_else(|| {
            ApiError::invalid_argument(format!(
                "StartingSequenceNumber {text} used in GetShardIterator on shard {} in stream {} is \
                 invalid because it did not come from this shard.",
                shard.id, stream.name
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iterator_survives_its_encoding_and_a_bogus_one_is_refused() {
        let iterator = ShardIterator {
            stream: "a.stream-1_x".to_owned(),
            incarnation: 3,
            shard: ShardId(7),
            position: u64::MAX,
            issued: Timestamp::from_millis(1_767_225_600_123),
        };
        assert_eq!(ShardIterator::decode(&iterator.encode()), Ok(iterator));
        for bogus in ["", "AAAA", "not base64", "MS8yLzM="] {
            let refusal = ShardIterator::decode(bogus).unwrap_err();
            assert_eq!(refusal.code, "InvalidArgumentException", "{bogus}");
        }
    }
}
