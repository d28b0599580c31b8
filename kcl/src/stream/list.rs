//! The shards of the stream, as Kinesis lists them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::SystemTime;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::list_shards::builders::ListShardsFluentBuilder;
use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_aggregation::{HashKey, HashKeyRange};
use kinesis_common::list_shards::list_shards;
use kinesis_common::stream_name::StreamName;

use crate::config::StreamPosition;
use crate::current_stream::{Found, find_stream};
use crate::lease::{CallError, StreamIdentity, classify};
use crate::sequence::SequenceNumber;
use crate::service_time::{AnswerDate, ServiceClock};

/// A shard of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub id: String,
    /// Ids of its parents: one after a split, two after a merge. The stream may not list them any more.
    pub parents: BTreeSet<String>,
    pub hash_key_range: HashKeyRange,
    pub starting_sequence: SequenceNumber,
    pub open: bool,
}

/// Shards, and the time by the service's clock at which it listed them.
#[derive(Debug, Clone)]
pub struct ShardList {
    pub shards: Vec<Shard>,
    /// Not later than the answer with the first page.
    pub server_time: SystemTime,
}

/// Why the shards could not be listed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ListShardsError {
    #[error(transparent)]
    Call(#[from] CallError),
    /// No stream has the name, or it is being deleted.
    #[error("the stream does not exist, or is being deleted")]
    NoStream,
    /// The service sent a shard without a usable field.
    #[error("shard {shard_id} was listed without a usable {field}")]
    Malformed { shard_id: String, field: &'static str },
}

/// Lists shards.
pub trait ShardLister: Send + Sync + Debug {
    /// Lists all shards of the stream, or those that were open at `position`.
    fn list(
        &self,
        position: Option<StreamPosition>,
    ) -> BoxFuture<'_, Result<ShardList, ListShardsError>>;

    /// Asks by another kind of call whether the stream exists. In simulations, it always does.
    fn exists(&self) -> BoxFuture<'_, Result<bool, CallError>> {
        std::future::ready(Ok(true)).boxed()
    }

    /// Identifies the stream that has the name now. `None`: it is always the same, as in simulations.
    fn identity(&self) -> BoxFuture<'_, Result<Option<StreamIdentity>, ListShardsError>> {
        std::future::ready(Ok(None)).boxed()
    }
}

/// Lists the shards of one stream with ListShards.
#[derive(Debug, Clone)]
pub(crate) struct KinesisShardLister {
    client: Client,
    stream: StreamName,
    service_clock: ServiceClock,
}

impl KinesisShardLister {
    pub(crate) fn new(client: Client, stream: StreamName, service_clock: ServiceClock) -> Self {
        Self { client, stream, service_clock }
    }

    /// The stream that has the name, unless it is being deleted.
    async fn find(&self) -> Result<Option<Found>, CallError> {
        let found = find_stream(&self.client, &self.stream).await?;
        Ok(found.filter(|found| !found.is_deleting()))
    }

    async fn pages(&self, position: Option<StreamPosition>) -> Result<ShardList, ListShardsError> {
        let before = self.service_clock.now();
        let filter = position.map(|position| filter(position, before)).transpose()?;
        let date = AnswerDate::default();
        let send =
            |request: ListShardsFluentBuilder| request.customize().interceptor(date.clone()).send();
        let listed = list_shards(&self.client, &self.stream, filter, send).await;
        let listed = listed.map_err(|error| classify("ListShards", &error))?;
        let shards = listed.into_iter().map(convert).collect::<Result<_, _>>()?;
        let server_time = date.no_later_than_answer().unwrap_or(before);
        Ok(ShardList { shards, server_time })
    }
}

impl ShardLister for KinesisShardLister {
    fn list(
        &self,
        position: Option<StreamPosition>,
    ) -> BoxFuture<'_, Result<ShardList, ListShardsError>> {
        self.pages(position).boxed()
    }

    fn exists(&self) -> BoxFuture<'_, Result<bool, CallError>> {
        async { Ok(self.find().await?.is_some()) }.boxed()
    }

    fn identity(&self) -> BoxFuture<'_, Result<Option<StreamIdentity>, ListShardsError>> {
        async {
            let found = self.find().await?.ok_or(ListShardsError::NoStream)?;
            Ok(Some(found.identity))
        }
        .boxed()
    }
}

/// `now`: the service's time.
fn filter(position: StreamPosition, now: SystemTime) -> Result<ShardFilter, ListShardsError> {
    let builder = ShardFilter::builder();
    let filter = match position {
        // The service takes no time in the future. The shards that are open now, or their children, will be open then.
        StreamPosition::AtTimestamp(time) if time > now => {
            builder.r#type(ShardFilterType::AtLatest)
        }
        StreamPosition::Latest => builder.r#type(ShardFilterType::AtLatest),
        StreamPosition::TrimHorizon => builder.r#type(ShardFilterType::AtTrimHorizon),
        StreamPosition::AtTimestamp(time) => {
            builder.r#type(ShardFilterType::AtTimestamp).timestamp(time.into())
        }
    };
    filter.build().map_err(|_| malformed("", "filter"))
}

fn malformed(shard_id: &str, field: &'static str) -> ListShardsError {
    ListShardsError::Malformed { shard_id: shard_id.to_owned(), field }
}

fn convert(shard: aws_sdk_kinesis::types::Shard) -> Result<Shard, ListShardsError> {
    let id = shard.shard_id;
    let numbers =
        shard.sequence_number_range.ok_or_else(|| malformed(&id, "sequence number range"))?;
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

#[cfg(test)]
mod tests;
