//! ListShards: filters and paging.

use serde::{Deserialize, Serialize};

use super::Kinesis;
use super::error::ApiError;
use super::page_token::{self, check_alone};
use super::shard::{Shard, ShardId};
use super::stream::Stream;
use super::wire::{
    EpochSeconds, NamesStream, ShardShape, StreamRef, ranged, required, stream_requests,
};
use crate::clock::Timestamp;

const PAGE: usize = 1000;
const OPERATION: &str = "ListShards";

stream_requests! {
    ListShardsRequest {
        next_token: String,
        exclusive_start_shard_id: String,
        max_results: i64,
        stream_creation_timestamp: EpochSeconds,
        shard_filter: ShardFilterShape,
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ShardFilterShape {
    r#type: Option<String>,
    shard_id: Option<String>,
    timestamp: Option<EpochSeconds>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListShardsResponse {
    pub(super) shards: Vec<ShardShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// Which of the retained shards a listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum ShardFilter {
    /// Everything within retention; the other kinds that follow a shard are this one and a start.
    FromTrimHorizon,
    AtTrimHorizon,
    AtLatest,
    AtTimestamp(u64),
    FromTimestamp(u64),
}

/// Where a listing goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    stream: String,
    incarnation: u64,
    after: u32,
    filter: ShardFilter,
}

impl Kinesis {
    pub(crate) fn list_shards(
        &mut self,
        now: Timestamp,
        request: ListShardsRequest,
    ) -> Result<ListShardsResponse, ApiError> {
        let limit = ranged("maxResults", request.max_results, PAGE, 1, 10_000)?.min(PAGE);
        let place =
            request.next_token.as_deref().map(|token| request.place(now, token)).transpose()?;
        let (stream, after, filter) = match &place {
            Some(place) => (self.resumed(now, place)?, Some(ShardId(place.after)), place.filter),
            None => {
                let (filter, after) = request.filter()?;
                (self.stream(now, request.stream())?, after, filter)
            }
        };
        if let Some(created) = request.stream_creation_timestamp
            && created.0.seconds() != stream.created.seconds()
        {
            return Err(ApiError::not_found(format!(
                "Stream {} was not created at the given time",
                stream.name
            )));
        }
        let mut matching = stream
            .shards
            .iter()
            .filter(|shard| after.is_none_or(|after| shard.id > after))
            .filter(|shard| filter.matches(stream, shard, now));
        let shards: Vec<ShardShape> = matching.by_ref().take(limit).map(ShardShape::from).collect();
        let more = matching.next().is_some();
        let next_token = shards.last().filter(|_| more).map(|last| {
            let place = Place {
                stream: stream.name.clone(),
                incarnation: stream.incarnation,
                after: last.shard_id.0,
                filter,
            };
            page_token::encode(OPERATION, now, place)
        });
        Ok(ListShardsResponse { shards, next_token })
    }

    /// The stream of a listing that goes on.
    fn resumed(&mut self, now: Timestamp, place: &Place) -> Result<&mut Stream, ApiError> {
        let stream_ref = StreamRef { name: Some(&place.stream), arn: None };
        let stream = self.stream(now, stream_ref)?;
        if stream.incarnation == place.incarnation {
            return Ok(stream);
        }
        Err(ApiError::not_found(format!("Stream {} has been deleted since", place.stream)))
    }
}

impl ListShardsRequest {
    /// Where the listing of a token goes on. The token says which stream and which filter: Kinesis
    /// refuses a request that repeats them.
    fn place(&self, now: Timestamp, token: &str) -> Result<Place, ApiError> {
        check_alone(&[
            ("StreamName", self.stream_name.is_some()),
            ("StreamARN", self.stream_arn.is_some()),
            ("ShardFilter", self.shard_filter.is_some()),
            ("ExclusiveStartShardId", self.exclusive_start_shard_id.is_some()),
            ("StreamCreationTimestamp", self.stream_creation_timestamp.is_some()),
        ])?;
        page_token::decode(OPERATION, now, token)
    }

    /// The filter, and the shard after which the listing starts.
    fn filter(&self) -> Result<(ShardFilter, Option<ShardId>), ApiError> {
        let start = self.exclusive_start_shard_id.as_deref();
        let start = start.map(|id| shard_id("exclusiveStartShardId", id)).transpose()?;
        let Some(filter) = &self.shard_filter else {
            return Ok((ShardFilter::FromTrimHorizon, start));
        };
        let timestamp =
            || required("shardFilter.timestamp", filter.timestamp).map(|time| time.0.millis());
        let kind = match required("shardFilter.type", filter.r#type.as_deref())? {
            "FROM_TRIM_HORIZON" => ShardFilter::FromTrimHorizon,
            "AT_TRIM_HORIZON" => ShardFilter::AtTrimHorizon,
            "AT_LATEST" => ShardFilter::AtLatest,
            "AT_TIMESTAMP" => ShardFilter::AtTimestamp(timestamp()?),
            "FROM_TIMESTAMP" => ShardFilter::FromTimestamp(timestamp()?),
            "AFTER_SHARD_ID" => {
                let id = required("shardFilter.shardId", filter.shard_id.as_deref())?;
                let after = shard_id("shardFilter.shardId", id)?;
                return Ok((ShardFilter::FromTrimHorizon, start.max(Some(after))));
            }
            _ => {
                return Err(ApiError::constraint(
                    "shardFilter.type",
                    "Member must satisfy enum value set: [AFTER_SHARD_ID, AT_TRIM_HORIZON, \
                     FROM_TRIM_HORIZON, AT_LATEST, AT_TIMESTAMP, FROM_TIMESTAMP]",
                ));
            }
        };
        Ok((kind, start))
    }
}

/// The shard that a member names.
pub(super) fn shard_id(field: &str, text: &str) -> Result<ShardId, ApiError> {
    ShardId::parse(text)
        .ok_or_else(|| ApiError::invalid_argument(format!("{field} {text} is no shard id")))
}

impl ShardFilter {
    fn matches(self, stream: &Stream, shard: &Shard, now: Timestamp) -> bool {
        let horizon = stream.horizon(now);
        if !shard.is_retained(horizon) {
            return false;
        }
        match self {
            Self::FromTrimHorizon => true,
            Self::AtTrimHorizon => was_open_at(stream, shard, horizon),
            Self::AtLatest => shard.closed.is_none(),
            Self::AtTimestamp(time) => {
                was_open_at(stream, shard, Timestamp::from_millis(time).max(horizon))
            }
            Self::FromTimestamp(time) => shard.is_retained(Timestamp::from_millis(time)),
        }
    }
}

/// Whether a shard was open at a moment (the stream's creation, if that is later).
///
/// Time has milliseconds here, and a split within the same millisecond must not show a hash key
/// twice: of a shard and its parent the parent is shown. It may hold records of that millisecond.
fn was_open_at(stream: &Stream, shard: &Shard, time: Timestamp) -> bool {
    let first_opened = stream.shards.first().map_or(time, |first| first.opened);
    let time = time.max(first_opened);
    let open = |shard: &Shard| shard.opened <= time && shard.is_retained(time);
    open(shard) && !shard.parents.iter().any(|parent| open(stream.shard(*parent)))
}
