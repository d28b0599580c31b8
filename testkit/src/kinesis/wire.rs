//! Requests and shapes of the AWS JSON protocol, shared by several operations.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::error::ApiError;
use super::sequence::SequenceNumber;
use super::shard::{Shard, ShardId};
use super::tags::Tags;
use crate::clock::Timestamp;

/// A stream by name, by ARN, or both.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct StreamRef<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) arn: Option<&'a str>,
}

/// Requests that name a stream.
pub(crate) trait NamesStream {
    fn stream(&self) -> StreamRef<'_>;
}

/// Defines request structs with `StreamName` and `StreamARN` besides their own fields.
macro_rules! stream_requests {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $ty:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        pub(crate) struct $name {
            #[serde(default)]
            pub(crate) stream_name: Option<String>,
            #[serde(default, rename = "StreamARN")]
            pub(crate) stream_arn: Option<String>,
            $($(#[$attr])* pub(crate) $field: Option<$ty>,)*
        }

        impl $crate::kinesis::wire::NamesStream for $name {
            fn stream(&self) -> $crate::kinesis::wire::StreamRef<'_> {
                $crate::kinesis::wire::StreamRef {
                    name: self.stream_name.as_deref(),
                    arn: self.stream_arn.as_deref(),
                }
            }
        }
    )*};
}
pub(crate) use stream_requests;

stream_requests! {
    /// Requests that name a stream and nothing else.
    StreamRequest {}
    DeleteStreamRequest { enforce_consumer_deletion: bool }
    DescribeStreamRequest { limit: i64, exclusive_start_shard_id: String }
    RetentionRequest { retention_period_hours: i64 }
    MaxRecordSizeRequest { #[serde(rename = "MaxRecordSizeInKiB")] max_record_size_in_kib: i64 }
    SplitShardRequest { shard_to_split: String, new_starting_hash_key: String }
    MergeShardsRequest { shard_to_merge: String, adjacent_shard_to_merge: String }
    UpdateShardCountRequest { target_shard_count: i64, scaling_type: String }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreateStreamRequest {
    pub(crate) stream_name: Option<String>,
    pub(crate) shard_count: Option<i64>,
    pub(crate) stream_mode_details: Option<StreamModeDetails>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    pub(crate) max_record_size_in_kib: Option<i64>,
    pub(crate) tags: Option<Tags>,
    pub(crate) record_distribution_strategy: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StreamModeDetails {
    pub(crate) stream_mode: Cow<'static, str>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListStreamsRequest {
    pub(crate) limit: Option<i64>,
    pub(crate) exclusive_start_stream_name: Option<String>,
    pub(crate) next_token: Option<String>,
}

/// The answer of operations that answer nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Done {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HashKeyRange {
    #[serde(serialize_with = "as_text")]
    starting_hash_key: u128,
    #[serde(serialize_with = "as_text")]
    ending_hash_key: u128,
}

impl From<(u128, u128)> for HashKeyRange {
    fn from((starting_hash_key, ending_hash_key): (u128, u128)) -> Self {
        Self { starting_hash_key, ending_hash_key }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceNumberRange {
    starting_sequence_number: SequenceNumber,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending_sequence_number: Option<SequenceNumber>,
}

/// A shard, as DescribeStream and ListShards show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ShardShape {
    pub(crate) shard_id: ShardId,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_shard_id: Option<ShardId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adjacent_parent_shard_id: Option<ShardId>,
    hash_key_range: HashKeyRange,
    sequence_number_range: SequenceNumberRange,
}

impl From<&Shard> for ShardShape {
    fn from(shard: &Shard) -> Self {
        Self {
            shard_id: shard.id,
            parent_shard_id: shard.parents.first().copied(),
            adjacent_parent_shard_id: shard.parents.get(1).copied(),
            hash_key_range: shard.range.into(),
            sequence_number_range: SequenceNumberRange {
                starting_sequence_number: shard.starting_sequence_number(),
                ending_sequence_number: shard.ending_sequence_number(),
            },
        }
    }
}

/// A time in seconds since 1970, with a fraction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EpochSeconds(pub(crate) Timestamp);

impl Serialize for EpochSeconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.millis() as f64 / 1000.0)
    }
}

impl<'de> Deserialize<'de> for EpochSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Ok(Self(Timestamp::from_millis((seconds * 1000.0).round() as u64)))
    }
}

/// Bytes, decoded from base64 straight into their final place.
#[derive(Debug)]
pub(crate) struct Base64(pub(crate) Bytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Decode;
        impl Visitor<'_> for Decode {
            type Value = Base64;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a base64 string")
            }
            fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<Base64, E> {
                let decoded = base64_simd::STANDARD.decode_to_vec(text);
                decoded.map(|bytes| Base64(bytes.into())).map_err(|_| E::custom("invalid base64"))
            }
        }
        // As bytes: what is base64 need not be looked through for UTF-8 before.
        deserializer.deserialize_bytes(Decode)
    }
}

pub(crate) fn as_text<S: Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The value of a member that must be there.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::constraint(field, "Member must not be null"))
}

/// Whether a stream or a consumer may be called so.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), ApiError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if (1..=128).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(ApiError::constraint(
        field,
        "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]{1,128}",
    ))
}

/// A member that must lie between `min` and `max`, or `default` where it is missing.
pub(crate) fn ranged(
    field: &str,
    value: Option<i64>,
    default: usize,
    min: usize,
    max: usize,
) -> Result<usize, ApiError> {
    let Some(value) = value else {
        return Ok(default);
    };
    usize::try_from(value).ok().filter(|value| (min..=max).contains(value)).ok_or_else(|| {
        ApiError::constraint(
            field,
            format_args!(
                "Member must have value less than or equal to {max} and greater than or equal to {min}"
            ),
        )
    })
}
