//! Questions to the service about the stream and its shards, asked once for all readers of a worker.
//!
//! After an outage, all readers of a worker may have to ask at the same time. The service answers
//! DescribeStreamSummary 20 times a second to the whole account. So readers that ask at the same time share
//! one call ([`SharedCall`]).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::StalledStreamProtectionConfig;
use aws_sdk_kinesis::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::operation::list_shards::builders::ListShardsFluentBuilder;
use fastrand::Rng;
use kinesis_common::list_shards::list_shards;
use kinesis_common::stream_name::StreamName;

use super::shared_call::SharedCall;
use crate::clock::Clock;
use crate::current_stream::{CurrentStream, find_stream};

/// Why the stream was not confirmed as the one that the worker reads.
#[derive(Debug, Clone)]
pub(super) enum Unconfirmed {
    /// It was deleted and created again.
    Recreated,
    /// It is being deleted.
    Deleting,
    /// The service did not find it. The request was sent at this time by the worker's clock.
    Missing { asked: Duration },
    /// The call failed, for this cause.
    Failed(String),
}

/// Asks about one stream, for all readers of a worker.
#[derive(Debug)]
pub(crate) struct StreamCheck {
    /// Its calls are attempted once, within the time limit of a read.
    pub(super) client: Client,
    pub(super) name: StreamName,
    /// The stream that the worker reads.
    pub(super) stream: Arc<CurrentStream>,
    clock: Arc<dyn Clock>,
    comparison: SharedCall<Duration, Unconfirmed>,
    /// The ids of all shards that the stream lists.
    listing: SharedCall<Arc<HashSet<String>>, ()>,
}

impl StreamCheck {
    /// `timeout`: the time limit of a call. `random`: for the pauses after failed calls.
    pub(crate) fn new(
        client: &Client,
        timeout: Duration,
        name: StreamName,
        stream: Arc<CurrentStream>,
        clock: Arc<dyn Clock>,
        mut random: Rng,
    ) -> Self {
        Self {
            comparison: SharedCall::new(Arc::clone(&clock), random.fork()),
            listing: SharedCall::new(Arc::clone(&clock), random),
            client: client_for_reads(client, timeout),
            name,
            stream,
            clock,
        }
    }

    /// Confirms that the stream is still the one that the worker reads. Returns how long it keeps its records.
    /// The request is sent after this call.
    ///
    /// # Cancel safety
    /// As [`SharedCall::ask`].
    pub(super) async fn compare(&self) -> Result<Duration, Unconfirmed> {
        self.comparison.ask(|| self.describe()).await
    }

    async fn describe(&self) -> Result<Duration, Unconfirmed> {
        let asked = self.clock.now();
        match find_stream(&self.client, &self.name).await {
            Ok(None) => Err(Unconfirmed::Missing { asked }),
            Ok(Some(found)) if found.is_deleting() => Err(Unconfirmed::Deleting),
            Ok(Some(found)) if self.stream.is_replaced_by(&found.identity) => {
                Err(Unconfirmed::Recreated)
            }
            Ok(Some(found)) => Ok(found.retention),
            Err(error) => Err(Unconfirmed::Failed(error.to_string())),
        }
    }

    /// Returns whether the stream lists the shard. `None`: the call failed. The request is sent after this call.
    ///
    /// # Cancel safety
    /// As [`SharedCall::ask`].
    pub(super) async fn lists(&self, shard_id: &str) -> Option<bool> {
        let listed = self.listing.ask(|| self.list()).await;
        listed.ok().map(|shards| shards.contains(shard_id))
    }

    /// Lists the ids of all shards. A failed call must not count as an answer, because the end of each shard that
    /// is missing in the listing is checkpointed.
    async fn list(&self) -> Result<Arc<HashSet<String>>, ()> {
        let send = ListShardsFluentBuilder::send;
        let listed = list_shards(&self.client, &self.name, None, send).await.map_err(drop)?;
        Ok(Arc::new(listed.into_iter().map(|shard| shard.shard_id).collect()))
    }
}

/// Returns a client like `client` whose calls have a time limit, and are attempted once, because the readers
/// retry.
///
/// With one attempt, a limit of the attempt would be a second timer for the same time. The protection against stalled
/// streams would be a third one: the limit covers the body of the answer, too.
fn client_for_reads(client: &Client, timeout: Duration) -> Client {
    let config = client
        .config()
        .to_builder()
        .retry_config(RetryConfig::disabled())
        .retry_partition(RetryPartition::new("kcl-reads"))
        .timeout_config(TimeoutConfig::builder().operation_timeout(timeout).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Client::from_conf(config)
}
