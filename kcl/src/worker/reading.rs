//! Chooses how the worker reads its shards.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use fastrand::Rng;

use crate::clock::Clock;
use crate::config::{ConsumerConfig, RetrievalMode};
use crate::coordinator::start::{ConsumerStart, find_consumer};
use crate::error::StartError;
use crate::health::{ProblemKind, ProblemLog};
use crate::metrics::{Meter, Metric};
use crate::retrieval::fan_out::FanOutRetrieval;
use crate::retrieval::fan_out::consumer::StreamConsumer;
use crate::retrieval::fan_out::http::client_for_subscriptions;
use crate::retrieval::{PollingRetrieval, Retrieval, StreamCheck};

/// What the choice depends on.
pub(super) struct Reading<'a> {
    pub(super) application: &'a str,
    /// Name or ARN of the stream, as given.
    pub(super) stream: &'a str,
    pub(super) client: &'a Client,
    pub(super) check: StreamCheck,
    pub(super) config: &'a Arc<ConsumerConfig>,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) meter: &'a Meter,
    pub(super) problems: &'a ProblemLog,
    /// The time that is left to the start.
    pub(super) limit: Duration,
    pub(super) random: Rng,
}

impl Reading<'_> {
    /// Returns the way to read of the settings. For fan-out, it waits until the consumer is active.
    ///
    /// # Errors
    /// There is no consumer to subscribe as.
    pub(super) async fn choose(mut self) -> Result<Arc<dyn Retrieval>, StartError> {
        let (config, clock) = (Arc::clone(self.config), Arc::clone(self.clock));
        let RetrievalMode::FanOut(fan_out) = &self.config.retrieval else {
            return Ok(Arc::new(PollingRetrieval::new(self.check, config, clock)));
        };
        let consumer = StreamConsumer::new(
            &self.check,
            self.application,
            &fan_out.consumer,
            Arc::clone(&clock),
            self.random.fork(),
        );
        let start = ConsumerStart {
            clock: &*clock,
            limit: self.limit,
            seed: self.random.u64(..),
            stream: self.stream,
            falls_back: fan_out.fall_back_to_polling,
        };
        if let Some(cause) = find_consumer(&consumer, start).await? {
            tracing::warn!(cause, "the worker polls instead of enhanced fan-out");
            self.meter.put(Metric::FanOutFallbacks, None, 1.0);
            self.problems.failed(ProblemKind::FanOutUnavailable, None, &cause);
            return Ok(Arc::new(PollingRetrieval::new(self.check, config, clock)));
        }
        let client = client_for_subscriptions(self.client, config.kinesis_request_timeout);
        Ok(Arc::new(FanOutRetrieval::new(
            &client,
            self.check,
            consumer,
            fan_out,
            config,
            clock,
            self.random,
        )))
    }
}
