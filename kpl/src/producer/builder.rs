//! Building a producer: settings, components, and the first look at the stream.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

#[cfg(feature = "cloudwatch")]
use aws_types::SdkConfig;
use futures::FutureExt;
use kinesis_common::client::behavior_version;
use kinesis_common::panic_message::panic_message;
use kinesis_common::stream_name::StreamName;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handle::Producer;
use crate::ack::FailureHook;
use crate::buffer::MemoryBudget;
use crate::clock;
use crate::config::{
    DEFAULT_MAX_RECORD_SIZE, InvalidConfig, MIN_BUFFER, ProducerConfig, RecordOrdering,
};
use crate::context::Context;
use crate::error::{DeliveryError, StopReason};
#[cfg(feature = "cloudwatch")]
use crate::metrics::CloudWatchConfig;
#[cfg(feature = "cloudwatch")]
use crate::metrics::cloudwatch::{CloudWatch, LAST_UPLOAD};
#[cfg(feature = "metrics")]
use crate::metrics::facade::FacadeSink;
use crate::producer::BuildError;
use crate::producer::start_retry::Step;
use crate::retry;
use crate::sender::Sender;
use crate::service::sdk::SdkService;
use crate::service::{Service, StreamDescription};
use crate::shard::map::Refresher;
use crate::shard::router::ShardRouter;
use kinesis_common::log_gate::LogGate;

/// Builder of a [`Producer`]; see [`Producer::builder`] and [`Producer::builder_with_client`].
#[must_use = "a builder does nothing until `build`"]
pub struct ProducerBuilder {
    stream: String,
    base: aws_sdk_kinesis::config::Builder,
    config: ProducerConfig,
    components: Components,
}

/// Parts of a producer that are not plain settings.
#[derive(Default)]
pub(crate) struct Components {
    pub(crate) seed: Option<u64>,
    pub(crate) on_failure: Option<FailureHook>,
    pub(crate) memory_budget: Option<MemoryBudget>,
    #[cfg(feature = "cloudwatch")]
    pub(crate) cloudwatch: Option<CloudWatch>,
}

impl std::fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerBuilder")
            .field("stream", &self.stream)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ProducerBuilder {
    pub(crate) fn new(stream: String, base: aws_sdk_kinesis::config::Builder) -> Self {
        Self { stream, base, config: ProducerConfig::default(), components: Components::default() }
    }

    /// Sets the settings. Default: [`ProducerConfig::default`].
    pub fn config(mut self, config: ProducerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the seed of all jitter, so that a run can be repeated. Default: a random seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.components.seed = Some(seed);
        self
    }

    /// Sets a bound on memory that several producers share. It replaces
    /// [`max_buffered_bytes`](ProducerConfig::max_buffered_bytes). Default: the producer has its own.
    pub fn memory_budget(mut self, budget: MemoryBudget) -> Self {
        self.components.memory_budget = Some(budget);
        self
    }

    /// Sets a function that is called for each failed record whose `Delivery` was dropped before it returned the
    /// failure.
    ///
    /// It runs on a task of the producer, or where the `Delivery` is dropped, so it must not block. A panic in it is
    /// logged. It must not hold a `Producer`: neither would ever be dropped.
    pub fn on_failure(mut self, hook: impl Fn(&DeliveryError) + Send + Sync + 'static) -> Self {
        self.components.on_failure = Some(caught(hook));
        self
    }

    /// Publishes the producer's [metrics](crate::metrics) to Amazon CloudWatch. Default: no.
    ///
    /// Region, credentials and endpoint of CloudWatch are those of `sdk_config`. The role needs
    /// `cloudwatch:PutMetricData`. If an upload fails, its data is kept for the next one: at most 20,000 series of
    /// about 300 bytes each. [`close`](Producer::close) makes the last upload, which may take five seconds more.
    #[cfg(feature = "cloudwatch")]
    pub fn cloudwatch(mut self, sdk_config: &SdkConfig, config: CloudWatchConfig) -> Self {
        self.components.cloudwatch = Some(CloudWatch::new(sdk_config, config));
        self
    }

    /// Checks settings, credentials and stream, loads the shard map, and starts the producer's tasks.
    ///
    /// The role should allow `kinesis:DescribeStreamSummary` and `kinesis:ListShards`. With `kinesis:PutRecords` alone
    /// the producer works, but it logs a warning and does not aggregate, because it does not know the shards.
    ///
    /// # Errors
    /// A [`BuildError`], within [`ProducerConfig::startup_timeout`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the start. No task goes on.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time enabled.
    pub async fn build(self) -> Result<Producer, BuildError> {
        let mut checks = vec![self.config.validate()];
        let budget = self.components.memory_budget.as_ref();
        if let Some(limit) = budget.map(MemoryBudget::limit).filter(|limit| *limit < MIN_BUFFER) {
            let problem = format!("must be at least {MIN_BUFFER}, got {limit}");
            checks.push(Err(InvalidConfig::one("memory_budget", problem)));
        }
        #[cfg(feature = "cloudwatch")]
        checks.extend(self.components.cloudwatch.as_ref().map(|c| c.config.validate()));
        let base = self.base.behavior_version(behavior_version());
        let region = base.clone().build().region().map(ToString::to_string);
        let stream = StreamName::parse(&self.stream, region.as_deref())
            .map_err(|problem| InvalidConfig::one("stream", problem.to_string()));
        checks.push(stream.as_ref().map(drop).map_err(Clone::clone));
        InvalidConfig::all(checks)?;
        if region.is_none() {
            return Err(BuildError::NoRegion);
        }
        let service = Arc::new(SdkService::new(stream?, base, &self.config));
        start(self.stream, service, self.config, self.components).await
    }
}

/// Starts a producer on any [`Service`]: the part of building that does not use the SDK.
pub(crate) async fn start(
    stream: String,
    service: Arc<dyn Service>,
    config: ProducerConfig,
    components: Components,
) -> Result<Producer, BuildError> {
    let Components {
        seed,
        on_failure,
        memory_budget,
        #[cfg(feature = "cloudwatch")]
        cloudwatch,
    } = components;
    let seed = seed.unwrap_or_else(clock::random_seed);
    let (began, limit) = (clock::now(), config.startup_timeout);
    let step = |operation, salt| {
        let rng = fastrand::Rng::with_seed(seed.wrapping_add(salt));
        Step::new(&stream, operation, (began, limit), rng)
    };
    let description = describe(&stream, &*service, step("DescribeStreamSummary", 3)).await?;
    let max_record_size = description.as_ref().and_then(|known| known.max_record_size);
    let max_record_size =
        max_record_size.or(config.max_record_size).unwrap_or(DEFAULT_MAX_RECORD_SIZE);
    let is_ordered = config.ordering == RecordOrdering::PerPartitionKey;
    let unordered = |reason| {
        let stream = stream.clone();
        Err(BuildError::OrderingUnavailable { stream, reason })
    };
    if is_ordered && description.is_none() {
        return unordered("the role may not call kinesis:DescribeStreamSummary");
    }
    let auto = description.as_ref().is_some_and(|known| known.service_places_records);
    if is_ordered && auto {
        return unordered(
            "its record distribution strategy is AUTO: the service chooses each record's shard",
        );
    }
    let context = Context::new(config, on_failure, memory_budget);
    let shards = ShardRouter::new(Arc::clone(&context), max_record_size, auto);
    let mut refresher = Refresher::new(
        Arc::clone(&context),
        Arc::clone(&shards),
        Arc::clone(&service),
        seed ^ 1,
        description,
    );
    if auto {
        tracing::warn!(
            stream,
            "the stream's record distribution strategy is AUTO: records go out one by one, without aggregation and without a rate limit per shard"
        );
    }
    let mut listing = step("ListShards", 4);
    loop {
        let answer = listing.attempt(refresher.refresh()).await;
        if let Ok(Err(error)) = &answer
            && retry::is_access_denied(&error.code)
        {
            if is_ordered {
                return unordered("the role may not call kinesis:ListShards");
            }
            if !auto {
                tracing::warn!(
                    stream,
                    "the role may not call kinesis:ListShards: records go out one by one, without aggregation and without a rate limit per shard"
                );
            }
            refresher.go_without_shards();
            break;
        }
        if listing.judge(answer).await?.is_some() {
            break;
        }
    }

    let mut sender = Sender::new(Arc::clone(&context), Arc::clone(&shards), service, seed)?;
    #[cfg(feature = "metrics")]
    sender.meter.add_sink(FacadeSink::new(stream_name(&stream).into()));
    let tasks = TaskTracker::new();
    let ended = CancellationToken::new();
    #[cfg(feature = "cloudwatch")]
    if let Some(cloudwatch) = cloudwatch {
        let (sink, publisher) = cloudwatch.publish(stream_name(&stream).into(), seed ^ 2);
        sender.meter.add_sink(sink);
        let (watcher, ended) = (Arc::clone(&shards), ended.clone());
        tasks.spawn(async move { watched(&watcher, publisher.run(ended, LAST_UPLOAD)).await });
    }
    let watcher = Arc::clone(&shards);
    tasks.spawn(async move {
        let _ended = ended.drop_guard();
        // After a panic, `watched` records the reason before the sender drops the records that it holds.
        watched(&watcher, sender.run()).await;
        drop(sender);
    });
    if refresher.has_use() {
        let watcher = Arc::clone(&shards);
        tasks.spawn(async move { watched(&watcher, refresher.run()).await });
    }
    tasks.close();
    Ok(Producer::new(context, shards, tasks))
}

/// The name in a stream's ARN, or the name.
#[cfg(any(feature = "metrics", feature = "cloudwatch"))]
fn stream_name(stream: &str) -> &str {
    stream.rsplit_once('/').map_or(stream, |(_, name)| name)
}

/// A hook whose panics are logged.
fn caught(hook: impl Fn(&DeliveryError) + Send + Sync + 'static) -> FailureHook {
    let panicked = LogGate::default();
    Arc::new(move |error| {
        if catch_unwind(AssertUnwindSafe(|| hook(error))).is_err()
            && let Some(left_out) = panicked.pass(clock::now())
        {
            tracing::error!(left_out, "the `on_failure` hook panicked");
        }
    })
}

/// Runs a task of the producer. If it panics, the producer stops with that reason.
async fn watched(shards: &ShardRouter, task: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
        let message = panic_message(&*panic);
        tracing::error!(message, "a task of the producer panicked: the producer stops");
        shards.stop(StopReason::Panicked { message: message.into() });
    }
}

/// Describes the stream, and waits while it is being created. Returns `None` if the role may not describe it.
async fn describe(
    stream: &str,
    service: &dyn Service,
    mut step: Step<'_>,
) -> Result<Option<StreamDescription>, BuildError> {
    loop {
        let answer = step.attempt(service.describe()).await;
        if let Ok(Err(error)) = &answer
            && retry::is_access_denied(&error.code)
        {
            tracing::warn!(
                stream,
                "the role may not call kinesis:DescribeStreamSummary: the stream is taken to exist, and its records to have at most 1 MiB, or `max_record_size` where it is set"
            );
            return Ok(None);
        }
        match step.judge(answer).await? {
            None => {}
            Some(description) if description.is_usable => return Ok(Some(description)),
            Some(description) if description.status == "CREATING" => {
                step.not_ready(format!("stream {stream} is CREATING")).await?;
            }
            Some(description) => {
                return Err(BuildError::StreamNotActive {
                    stream: stream.to_owned(),
                    status: description.status,
                });
            }
        }
    }
}
