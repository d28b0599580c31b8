//! What the service says about the stream and its shards, asked once for all readers of a worker.
//!
//! After an outage, all readers of a worker may have to ask at the same time, while the service answers
//! DescribeStreamSummary 20 times a second to the whole account.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::list_shards::builders::ListShardsFluentBuilder;
use fastrand::Rng;
use kinesis_common::list_shards::list_shards;
use kinesis_common::stream_name::StreamName;

use super::shared_call::SharedCall;
use crate::clock::Clock;
use crate::current_stream::{CurrentStream, Found, Retention, find_stream};

/// Why the stream was not confirmed as the one that the worker reads.
#[derive(Debug, Clone)]
pub(super) enum Unconfirmed {
    /// It was deleted and created again.
    Recreated,
    /// It is being deleted.
    Deleting,
    /// The service did not find it when it was asked at this time.
    Missing { asked: Duration },
    /// The service did not say. The cause, as text.
    Failed(String),
}

/// Asks about one stream, for all readers of a worker.
#[derive(Debug)]
pub(super) struct StreamCheck {
    client: Client,
    name: StreamName,
    stream: Arc<CurrentStream>,
    clock: Arc<dyn Clock>,
    comparison: SharedCall<Retention, Unconfirmed>,
    /// The ids of all shards that the stream lists.
    listing: SharedCall<Arc<HashSet<String>>, ()>,
}

impl StreamCheck {
    /// `random`: of the pauses after failed calls.
    pub(super) fn new(
        client: Client,
        name: StreamName,
        stream: Arc<CurrentStream>,
        clock: Arc<dyn Clock>,
        mut random: Rng,
    ) -> Self {
        Self {
            comparison: SharedCall::new(Arc::clone(&clock), random.fork()),
            listing: SharedCall::new(Arc::clone(&clock), random),
            client,
            name,
            stream,
            clock,
        }
    }

    /// The stream that the worker reads, as far as it knows.
    pub(super) fn stream(&self) -> &CurrentStream {
        &self.stream
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_str()
    }

    /// How long the stream keeps its records, if it is still the one that the worker reads: by an answer
    /// to a request that is sent after this call.
    ///
    /// # Cancel safety
    /// As [`SharedCall::ask`].
    pub(super) async fn compare(&self) -> Result<Retention, Unconfirmed> {
        self.comparison.ask(|| self.describe()).await
    }

    async fn describe(&self) -> Result<Retention, Unconfirmed> {
        let asked = self.clock.now();
        match find_stream(&self.client, &self.name).await {
            Ok(Found::Stream(found, _)) if self.stream.compare(&found) => {
                Err(Unconfirmed::Recreated)
            }
            Ok(Found::Stream(_, retention)) => Ok(retention),
            Ok(Found::Deleting) => Err(Unconfirmed::Deleting),
            Ok(Found::Nothing) => Err(Unconfirmed::Missing { asked }),
            Err(error) => Err(Unconfirmed::Failed(error.to_string())),
        }
    }

    /// Whether the stream lists the shard; `None`: not known. The request is sent after this call.
    ///
    /// # Cancel safety
    /// As [`SharedCall::ask`].
    pub(super) async fn lists(&self, shard_id: &str) -> Option<bool> {
        let listed = self.listing.ask(|| self.list()).await;
        listed.ok().map(|shards| shards.contains(shard_id))
    }

    /// The ids of all shards. A failed call is no answer: the end of each shard that is missing in the
    /// listing is checkpointed.
    async fn list(&self) -> Result<Arc<HashSet<String>>, ()> {
        let send = ListShardsFluentBuilder::send;
        let listed = list_shards(&self.client, &self.name, None, send).await.map_err(drop)?;
        Ok(Arc::new(listed.into_iter().map(|shard| shard.shard_id).collect()))
    }
}
