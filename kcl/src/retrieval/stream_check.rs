//! Questions to the service about the stream and its shards, asked once for all readers of a worker.
//!
//! After an outage, all readers of a worker may have to ask at the same time. The service answers
//! DescribeStreamSummary 20 times a second to the whole account. So readers that ask at the same time share
//! one call ([`SharedCall`]).

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::list_shards::builders::ListShardsFluentBuilder;
use fastrand::Rng;
use kinesis_common::backoff::Backoff;
use kinesis_common::list_shards::list_shards;
use kinesis_common::stream_name::StreamName;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::current_stream::{CurrentStream, find_stream};

/// Shortest time between the beginnings of two calls.
const SPACING: Duration = Duration::from_secs(1);
/// Limit of the random delay that a failure adds to the spacing. It doubles with each further failure in a
/// row, up to [`LONGEST_DELAY`].
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Largest limit of that delay.
const LONGEST_DELAY: Duration = Duration::from_secs(4);

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
pub(super) struct StreamCheck {
    client: Client,
    pub(super) name: StreamName,
    /// The stream that the worker reads.
    pub(super) stream: Arc<CurrentStream>,
    clock: Arc<dyn Clock>,
    comparison: SharedCall<Duration, Unconfirmed>,
    /// The ids of all shards that the stream lists.
    listing: SharedCall<Arc<HashSet<String>>, ()>,
}

impl StreamCheck {
    /// `random`: for the pauses after failed calls.
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

/// A call that many tasks need at the same time. At most one is under way. All tasks that asked before it began
/// get its answer or its failure.
#[derive(Debug)]
struct SharedCall<T, E> {
    clock: Arc<dyn Clock>,
    /// The number of calls that have begun.
    begun: AtomicU64,
    /// Locked by the task that makes the call, also while that task waits for `not_before`.
    turn: Mutex<Turn<T, E>>,
}

#[derive(Debug)]
struct Turn<T, E> {
    /// The last answer, and the number of its call.
    last: Option<(u64, Result<T, E>)>,
    /// Time before which no call begins.
    not_before: Duration,
    backoff: Backoff,
}

impl<T: Clone, E: Clone> SharedCall<T, E> {
    fn new(clock: Arc<dyn Clock>, random: Rng) -> Self {
        Self {
            clock,
            begun: AtomicU64::new(0),
            turn: Mutex::new(Turn {
                last: None,
                not_before: Duration::ZERO,
                backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, random),
            }),
        }
    }

    /// Returns the result of a call that begins after this moment. The caller or another task makes it.
    ///
    /// # Cancel safety
    /// If the task that makes the call is dropped, the next task that waits makes one.
    async fn ask<F>(&self, call: impl FnOnce() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let asked = self.begun.load(Ordering::Relaxed);
        let mut turn = self.turn.lock().await;
        if let Some((number, answer)) = &turn.last
            && *number > asked
        {
            return answer.clone();
        }
        let pause = turn.not_before.saturating_sub(self.clock.now());
        tokio::time::sleep(pause).await;
        // Tasks that ask from now on wait for the next call.
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        // Set before the call, so that a call that is dropped counts, too.
        turn.not_before = self.clock.now() + SPACING;
        let answer = call().await;
        match &answer {
            Ok(_) => turn.backoff.succeeded(),
            Err(_) => {
                let delay = turn.backoff.next_delay();
                turn.not_before = self.clock.now() + SPACING + delay;
            }
        }
        turn.last = Some((number, answer.clone()));
        answer
    }
}
