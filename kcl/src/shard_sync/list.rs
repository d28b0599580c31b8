//! The shards of the stream, as Kinesis lists them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType, StreamStatus};
use aws_smithy_types::date_time::{DateTime, Format};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_aggregation::{HashKey, HashKeyRange};

use crate::clock::Clock;
use crate::config::InitialPosition;
use crate::lease::{CallError, CallErrorKind, classify};
use crate::sequence::SequenceNumber;
use crate::stream_name::StreamName;

/// A shard of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) id: String,
    /// One after a split, two after a merge. They may be older than what the stream keeps.
    pub(crate) parents: BTreeSet<String>,
    pub(crate) hash_key_range: HashKeyRange,
    pub(crate) starting_sequence: SequenceNumber,
    pub(crate) open: bool,
}

impl Shard {
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }
}

/// How far the clocks of the service's hosts may be apart: one answers, another stamps records.
const HOST_SKEW: Duration = Duration::from_secs(2);

/// Shards, and the service's time when it listed them.
#[derive(Debug, Clone)]
pub(crate) struct ShardList {
    pub(crate) shards: Vec<Shard>,
    /// No later than the moment the first page was made.
    pub(crate) server_time: SystemTime,
}

/// Why the shards could not be listed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ListShardsError {
    #[error(transparent)]
    Call(#[from] CallError),
    /// The service sent a shard without a usable field.
    #[error("shard {shard_id} was listed without a usable {field}")]
    Malformed {
        shard_id: String,
        field: &'static str,
    },
}

/// Lists shards.
pub(crate) trait ShardLister: Send + Sync + Debug {
    /// Every shard that the stream knows; with `position`, those that were open at it.
    fn list(
        &self,
        position: Option<InitialPosition>,
    ) -> BoxFuture<'_, Result<ShardList, ListShardsError>>;

    /// Whether the stream exists, asked by another kind of call. It always does in simulations.
    fn exists(&self) -> BoxFuture<'_, Result<bool, CallError>> {
        std::future::ready(Ok(true)).boxed()
    }
}

/// Lists the shards of one stream with ListShards.
#[derive(Debug, Clone)]
pub(crate) struct KinesisShardLister {
    client: Client,
    stream: StreamName,
    clock: Arc<dyn Clock>,
}

impl KinesisShardLister {
    /// `stream`: a name or an ARN.
    pub(crate) fn new(client: Client, stream: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            stream: StreamName::new(stream),
            clock,
        }
    }

    async fn pages(&self, position: Option<InitialPosition>) -> Result<ShardList, ListShardsError> {
        let filter = position.map(filter).transpose()?;
        let server_date = ServerDate::default();
        let before = self.clock.wall();
        let mut shards = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let request = self.client.list_shards();
            let request = match next.take() {
                // The token stands for stream and filter.
                Some(token) => request.next_token(token),
                None => request
                    .set_stream_arn(self.stream.arn())
                    .set_stream_name(self.stream.name())
                    .set_shard_filter(filter.clone()),
            };
            let page = request
                .customize()
                .interceptor(server_date.clone())
                .send()
                .await
                .map_err(|error| classify("ListShards", &error))?;
            for shard in page.shards.unwrap_or_default() {
                shards.push(convert(shard)?);
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                let server_time = server_date
                    .first()
                    .and_then(|date| date.checked_sub(HOST_SKEW))
                    .unwrap_or(before);
                return Ok(ShardList {
                    shards,
                    server_time,
                });
            }
        }
    }
}

impl ShardLister for KinesisShardLister {
    fn list(
        &self,
        position: Option<InitialPosition>,
    ) -> BoxFuture<'_, Result<ShardList, ListShardsError>> {
        self.pages(position).boxed()
    }

    fn exists(&self) -> BoxFuture<'_, Result<bool, CallError>> {
        let request = self
            .client
            .describe_stream_summary()
            .set_stream_arn(self.stream.arn())
            .set_stream_name(self.stream.name());
        async {
            let found = match request.send().await {
                Ok(output) => output.stream_description_summary,
                Err(error) => match classify("DescribeStreamSummary", &error) {
                    error if error.kind == CallErrorKind::NotFound => None,
                    error => return Err(error),
                },
            };
            Ok(found.is_some_and(|stream| stream.stream_status != StreamStatus::Deleting))
        }
        .boxed()
    }
}

fn filter(position: InitialPosition) -> Result<ShardFilter, ListShardsError> {
    let builder = ShardFilter::builder();
    let filter = match position {
        InitialPosition::Latest => builder.r#type(ShardFilterType::AtLatest),
        InitialPosition::TrimHorizon => builder.r#type(ShardFilterType::AtTrimHorizon),
        InitialPosition::AtTimestamp(time) => builder
            .r#type(ShardFilterType::AtTimestamp)
            .timestamp(time.into()),
    };
    filter.build().map_err(|_| malformed("", "filter"))
}

fn malformed(shard_id: &str, field: &'static str) -> ListShardsError {
    ListShardsError::Malformed {
        shard_id: shard_id.to_owned(),
        field,
    }
}

fn convert(shard: aws_sdk_kinesis::types::Shard) -> Result<Shard, ListShardsError> {
    let id = shard.shard_id;
    let numbers = shard
        .sequence_number_range
        .ok_or_else(|| malformed(&id, "sequence number range"))?;
    let range = shard
        .hash_key_range
        .and_then(|range| {
            let key = |text: &str| text.parse::<HashKey>().ok();
            let (start, end) = (key(&range.starting_hash_key)?, key(&range.ending_hash_key)?);
            HashKeyRange::new(start, end).ok()
        })
        .ok_or_else(|| malformed(&id, "hash key range"))?;
    Ok(Shard {
        parents: [shard.parent_shard_id, shard.adjacent_parent_shard_id]
            .into_iter()
            .flatten()
            .filter(|parent| !parent.is_empty())
            .collect(),
        hash_key_range: range,
        starting_sequence: numbers
            .starting_sequence_number
            .parse()
            .map_err(|_| malformed(&id, "starting sequence number"))?,
        open: numbers.ending_sequence_number.is_none(),
        id,
    })
}

/// Reads the `Date` of answers: time by the service's clock, not by this machine's. Whole seconds,
/// rounded down: starting there never skips a record.
#[derive(Debug, Clone, Default)]
struct ServerDate(Arc<Mutex<Option<SystemTime>>>);

impl ServerDate {
    fn first(&self) -> Option<SystemTime> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for ServerDate {
    fn name(&self) -> &'static str {
        "ServerDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context
            .response()
            .headers()
            .get("date")
            .and_then(|text| DateTime::from_str(text, Format::HttpDate).ok())
            .and_then(|date| u64::try_from(date.secs()).ok())
            .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *first = first.or(date);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
