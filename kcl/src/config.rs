//! Settings of a worker: plain data. Components (clients, clock, seed) are builder methods.

use std::collections::BTreeMap;
#[cfg(feature = "cloudwatch")]
use std::collections::BTreeSet;
use std::time::Duration;

#[cfg(feature = "cloudwatch")]
mod cloudwatch;
#[cfg(test)]
mod extremes;
mod failure;
mod position;
mod retrieval;
#[cfg(feature = "serde")]
pub(crate) mod timestamp;
mod until;
mod validate;

pub use failure::{AfterRetries, FailurePolicy};
#[cfg(feature = "cloudwatch")]
use kinesis_common::metrics::MetricsLevel;
#[doc(inline)]
pub use kinesis_common::protocol::Wire;
pub use position::{InitialPosition, ShardPosition, ShardPositions, StreamPosition};
pub use retrieval::{FanOutConfig, FanOutConsumer, RetrievalMode};
pub use until::Until;
pub use validate::ConfigError;
pub(crate) use validate::application_problem;

#[cfg(feature = "cloudwatch")]
pub use self::cloudwatch::{CloudWatchConfig, MetricsDimension};

/// Longest duration of any setting. Up to it, no sum of durations overflows.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

const LONGEST_IN_WORDS: &str = "365 days";

/// Default time limit of one attempt of a lease table call, where the failover time leaves room for it.
const DYNAMODB_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings of a worker. Every field has a default and a `with_` setter. [`validate`](Self::validate) names all
/// problems at once. No duration may exceed 365 days.
///
/// With the feature `serde`, settings can be read from any format. Durations are text such as `"100ms"`, points in
/// time are RFC 3339, and unknown names are refused.
///
/// ```
/// use std::time::Duration;
/// use kcl::{CheckpointPolicy, ConsumerConfig, InitialPosition};
///
/// let config = ConsumerConfig::default()
///     .with_initial_position(InitialPosition::TrimHorizon)
///     .with_checkpoint(CheckpointPolicy::Interval(Duration::from_secs(5)));
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// Name of this worker in the lease table, unique per process. 1 to 1,024 bytes. Default: the application and a
    /// random number.
    ///
    /// Give a stable name for rolling restarts: the next process of that name starts at once on the leases that the
    /// last one kept at a planned stop ([`OnStop::Keep`]). After a crash it waits for the failover time, as any other
    /// worker does.
    ///
    /// Two live processes of one name never process a shard together, but they do not share the shards evenly. Both
    /// report it in the log and in their health ([`DuplicateWorkerId`](crate::ProblemKind::DuplicateWorkerId)).
    pub worker_id: Option<String>,
    /// Where a shard without a checkpoint starts. Default [`InitialPosition::Latest`], as in Java.
    pub initial_position: InitialPosition,
    /// End of a bounded replay, after which the worker ends by itself. Default `None`: it runs until it is stopped.
    ///
    /// Each shard finishes at its bound: its processor gets
    /// [`shutdown_requested`](crate::RecordProcessor::shutdown_requested) with the reason
    /// [`Finished`](crate::ShutdownReason::Finished), and the worker keeps its lease. When nothing is left to do, the
    /// worker stops, and [`WorkerHandle::join`](crate::WorkerHandle::join) returns a report. A worker beside others ends
    /// when its own shards have finished and the others are alive for a failover time.
    pub until: Option<Until>,
    /// Time without a renewal after which a lease is expired and another worker may take it. Default 10 s.
    ///
    /// **It must be the same in the whole fleet**, Java workers included, because the table does not store it. Lower it
    /// for a faster failover; each lease is then renewed more often, which costs writes.
    ///
    /// Java workers must not set `gracefulLeaseHandoffTimeoutMillis` below its default, 30 s. The book,
    /// `docs/src/consumer.md`, says why.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub failover_time: Duration,
    /// Most leases that this worker holds. Default: no limit.
    ///
    /// A worker at its limit takes no lease and removes its row from the table, so that no other worker and no Java
    /// leader assigns it one. A lease that is assigned to it nevertheless goes to a worker with room, or becomes
    /// unassigned. If no worker has room, shards wait, and [`why_not_running`](crate::WorkerHandle::why_not_running)
    /// reports it. Java's `maxLeasesForWorker` is different: the leader applies its own value to all workers.
    pub max_leases: usize,
    /// Read units per second that this worker spends on scans of the lease table. Default 5; at least 1.
    ///
    /// A worker scans the whole table once a second, or less often if the scan costs more: a unit reads about twenty
    /// leases, so a table of `n` leases is scanned every `n / (20 x this setting)` seconds. A dead worker's shards run
    /// elsewhere after the failover time and two such pauses: 12 s with 100 leases, 30 s with 1,000, and 210 s with
    /// 10,000. Raise it for large tables. Changes of ownership may cost as much again. The book, `docs/src/cost.md`,
    /// has the details.
    pub max_lease_table_reads: u32,
    /// How records are received. Default [`RetrievalMode::Polling`].
    pub retrieval: RetrievalMode,
    /// Most records that one GetRecords call asks for. Default 10,000; 1 to 10,000.
    pub max_records: u32,
    /// Most bytes of fetched records that the worker holds until its processors have finished with them. Default 64
    /// MiB; at least 20 MiB (20,971,520 bytes), which is two of the largest pages: one in hand and one fetched ahead.
    ///
    /// Each active shard can always fetch one page, so a worker with many shards may hold more. Pages that are kept with
    /// an [`OwnedRecord`](crate::OwnedRecord) count: less is read ahead then. See the memory section of the crate
    /// documentation.
    pub max_buffered_bytes: usize,
    /// Most records of one shard that a [handler](crate::SchedulerBuilder::handler) processes at a time. Default 1; at
    /// least 1. A record processor is not concerned by this and the next three settings.
    ///
    /// With 1, a handler puts no more load on a database than a processor does. Raise it for handlers that wait for I/O: a
    /// shard then processes up to `n / (time of a call)` records per second, if it has that many partition keys.
    pub concurrency_per_shard: usize,
    /// Most records of all shards of the worker that a handler processes at a time. Default: no limit; at least 1.
    ///
    /// Set it to the load that a database takes from one process, whatever number of shards the worker has. Records of
    /// all shards wait in one queue.
    pub concurrency_per_worker: usize,
    /// Most records of one shard after the last one up to which a handler has done all. Default 10,000; at least 1.
    ///
    /// A slow or failing record holds up the checkpoint, and so many records at most may be begun or done after it. A
    /// crash repeats at most so many. Each takes about 120 bytes beside its page.
    pub max_window_records: usize,
    /// Most bytes of the pages of one shard that have a record which a handler has not done. Default 16 MiB; at least 1.
    /// One page, of 10 MiB at most, is always taken.
    ///
    /// These pages also count against [`max_buffered_bytes`](Self::max_buffered_bytes). Lower it for workers with many
    /// shards and little memory.
    pub max_window_bytes: usize,
    /// Pause after a read that returned all records of the shard. Default 1 s, spread by a fifth; at least 200 ms.
    ///
    /// While the shard has more records, it is read 4.8 times a second, evenly spread, also after a pause. Kinesis
    /// answers five reads per second and shard, for all applications together, so at 1 s four applications share a shard
    /// without throttles. Set 200 ms for low latency, and keep other readers off the stream. A reader that is throttled
    /// slows down to a fair share of the shard. Alone, it reads 2 MB per second.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub idle_time_between_reads: Duration,
    /// Encoding of requests to Kinesis and of its answers. Default [`Wire::Auto`]: CBOR, or JSON where the endpoint does
    /// not accept CBOR.
    ///
    /// CBOR carries data as bytes, JSON as base64, which is a third larger and takes more CPU time. Set [`Wire::Json`]
    /// if a proxy in between has to read answers. A client or configuration that names a protocol of its own keeps it.
    /// The Java KCL uses CBOR. DynamoDB is spoken to in JSON.
    pub wire: Wire,
    /// Time limit of one GetRecords, GetShardIterator or SubscribeToShard attempt. Default 10 s.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub kinesis_request_timeout: Duration,
    /// Time limit of one attempt of a lease table call. Default: 2 s, or a quarter of
    /// [`failover_time`](Self::failover_time) if that is less. At least 50 ms, at most that quarter, so that a renewal
    /// can be retried in time.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration::optional"))]
    pub dynamodb_request_timeout: Option<Duration>,
    /// Time limit of [`build`](crate::SchedulerBuilder::build). Default 60 s.
    ///
    /// Until then, `build` retries what may pass: throttled or failed calls, an endpoint that is not up yet, a stream,
    /// table or index that is being created, leases that another worker is creating. Missing permissions and a missing
    /// stream fail at once. Raise it where an index is built for a large table, or for many leases in a table of little
    /// write capacity. Lower it to learn of a wrong endpoint sooner.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub startup_timeout: Duration,
    /// Interval at which a shard checks whether its parents have ended. Default 1 s.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub parent_poll_interval: Duration,
    /// Interval at which the shards of the stream are compared with the lease table. Default 60 s.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub shard_sync_interval: Duration,
    /// What a worker does if its stream was deleted and created again under the same name. Default
    /// [`OnRecreatedStream::Error`].
    pub on_recreated_stream: OnRecreatedStream,
    /// What happens to a shard whose records expired before they were read. Default [`OnTrimmedGap::Continue`].
    pub on_trimmed_gap: OnTrimmedGap,
    /// Whether the processor or the library writes checkpoints. Default [`CheckpointPolicy::Manual`], as in Java.
    pub checkpoint: CheckpointPolicy,
    /// What a planned stop does with the leases of this worker. Default [`OnStop::HandOver`].
    pub on_stop: OnStop,
    /// Upper bound of the first pause before a failed processor call is repeated with the same input. Default 100 ms.
    ///
    /// The bound doubles with each failure, and each pause is drawn at random between zero and the bound.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub retry_initial_delay: Duration,
    /// Largest bound of those pauses. Default 30 s.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub retry_max_delay: Duration,
    /// How often a batch that fails is tried again, and what follows then. Default: it is repeated until it succeeds, and
    /// no record is ever skipped.
    pub failure_policy: FailurePolicy,
    /// Duration above which a processor call is reported as slow. Default 30 s; `None` reports none.
    ///
    /// A slow call is logged with its records, at a limited rate, and shown by
    /// [`why_not_running`](crate::WorkerHandle::why_not_running) and [`health`](crate::WorkerHandle::health). A planned
    /// stop or a handoff does not wait for 30 s, so such a call costs the shard its orderly handover. Raise it if your
    /// batches take longer. Java: `logWarningForTaskAfterMillis`, which is off by default.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration::optional"))]
    pub log_warning_for_task_after: Option<Duration>,
    /// What happens to an aggregate with a record outside the shard's hash key range. Default
    /// [`AggregateRangePolicy::Auto`].
    pub aggregate_range: AggregateRangePolicy,
    /// Largest decompressed size of an aggregate, in bytes. Default 16 MiB.
    pub max_decompressed_size: usize,
    /// Lease table, and how it is created if it does not exist.
    pub table: TableConfig,
}

/// Whether the processor or the library writes checkpoints.
///
/// If the library writes them, each lease renewal also carries the last record for which the processor returned `Ok`. A
/// renewal is due every half [`failover_time`](ConsumerConfig::failover_time), also while a later call runs, so a crash
/// repeats at most what was processed since the last one. A renewal does not replace a checkpoint that was
/// [prepared](crate::Checkpointer::prepare) and not committed; the checkpoint after a batch or interval does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CheckpointPolicy {
    /// The processor. The library never checkpoints for it. A [`BatchStream`](crate::BatchStream) has no processor:
    /// each [acknowledgement](crate::OwnedBatch::ack) writes a checkpoint, and waits for it. For a
    /// [handler](crate::SchedulerBuilder::handler), the library checkpoints every five seconds.
    #[default]
    Manual,
    /// The library, after each batch for which `process_records` returned `Ok`. For a handler: as soon as the last record
    /// up to which all are done has moved, one write at a time.
    AfterBatch,
    /// The library, at least once per interval, up to the last batch for which `process_records` returned `Ok`.
    /// Renewals also carry that position, at no cost.
    Interval(
        #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))] Duration,
    ),
}

/// What a worker does if its stream was deleted and created again. The checkpoints of the former stream do not apply to
/// the new one, although its shard ids may be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnRecreatedStream {
    /// The worker does not start, or it ends, with an error that says what to do. The lease table stays as it is.
    #[default]
    Error,
    /// The worker replaces the leases of the former stream and reads the new one from its beginning, or from
    /// [`InitialPosition::AtTimestamp`]. Positions of [single shards](InitialPosition::PerShard) do not apply to it.
    /// Records of the former stream that were not read are lost. It takes another worker's lease after the failover
    /// time, as if that worker had stopped renewing.
    ///
    /// A running worker notices the new stream at the next shard sync, or when a read is refused. If no stream of the
    /// name exists for about ten seconds, the worker ends with
    /// [`WorkerError::StreamDeleted`](crate::WorkerError::StreamDeleted). Start it again when the stream exists.
    StartOver,
}

/// What happens to a shard whose records expired before this application read them.
///
/// With both values, the gap is logged as an error, counted as the metric `TrimmedGaps`, and shown by
/// [`health`](crate::WorkerHandle::health) as [`RecordsTrimmed`](crate::ProblemKind::RecordsTrimmed), with the sequence
/// numbers on both sides and the time span of the records that were lost.
///
/// The lease holds the time up to which the shard was read; its owner updates it every half hour. With that time, a gap
/// is told from a shard that had no records. If no worker of this library read the shard for longer than the retention
/// period, a gap is assumed. If a Java worker owned the lease meanwhile, the time says nothing: a warning is logged,
/// and reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnTrimmedGap {
    /// Reading goes on at the oldest record that the stream still has.
    #[default]
    Continue,
    /// The shard stops, and the worker keeps its lease: no record after the gap is delivered. To go on, move
    /// the shard by [`seek`](crate::WorkerHandle::seek), or change the setting and restart the worker.
    StopShard,
}

/// What a planned stop does with the leases of this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnStop {
    /// Each lease is transferred to the live worker with the fewest leases. If there is no other worker, it is
    /// released.
    #[default]
    HandOver,
    /// Leases become unassigned. The next worker that scans the table takes them.
    Release,
    /// Leases keep their owner. If a process with the same worker id starts within the failover time, it goes on with
    /// them at once. A lease whose processor did not stop in time is not kept this way: the next process waits for the
    /// failover time, as any other worker does.
    Keep,
}

/// What happens to an aggregate if the hash key of one of its records lies outside the shard's range.
///
/// This happens around a split or merge, if a producer that predicts shards learns of it late, or if a producer
/// aggregates without regard to shards. The Java KCL drops the whole aggregate. The KPL up to 1.1.0 then sends only the
/// records out of range again, so the others are lost although they were acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum AggregateRangePolicy {
    /// Depends on the producer. If the Kinesis record has the partition key `a`, and its first record is in range and
    /// does not itself have the key `a`, the producer predicts shards and sends the records out of range again: the
    /// rule is [`KeepInRange`](Self::KeepInRange). Otherwise it is [`KeepAll`](Self::KeepAll).
    #[default]
    Auto,
    /// The rule of the Java KCL. A record out of range drops the whole aggregate. A record whose explicit hash key is
    /// not a number drops itself and all records after it.
    Strict,
    /// Records in range are delivered. The others are dropped and counted.
    KeepInRange,
    /// All records are delivered, and those out of range are counted. A partition key may then be processed in two
    /// shards.
    KeepAll,
}

/// Name of the lease table, and the settings with which a worker creates it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct TableConfig {
    /// Name of the table: 3 to 255 characters of a-z, A-Z, 0-9, `_`, `-` and `.`. Default: the
    /// application name, as in Java.
    pub name: Option<String>,
    /// Read and write capacity units. Default `None`: the table is billed per request.
    pub provisioned: Option<(u32, u32)>,
    /// Whether DynamoDB refuses to delete the table. Default `false`.
    pub deletion_protection: bool,
    /// Tags of the table. Default: none.
    pub tags: BTreeMap<String, String>,
}

/// Declares the setter and the default of each setting, except for the setters that are written by hand.
macro_rules! settings {
    (
        $config:ident by_hand { $($own:ident: $own_type:ty = $own_default:expr;)* }
        $($with:ident, $field:ident: $type:ty = $default:expr;)*
    ) => {
        impl Default for $config {
            fn default() -> Self {
                Self { $($own: $own_default,)* $($field: $default,)* }
            }
        }

        impl $config {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $with(mut self, $field: $type) -> Self {
                    self.$field = $field.into();
                    self
                }
            )*

            /// The extreme values of every field.
            #[cfg(test)]
            fn extremes_of_fields() -> Vec<(&'static str, Vec<extremes::Change<Self>>)> {
                vec![
                    $((
                        stringify!($own),
                        extremes::changes(|config: &mut Self, value: $own_type| config.$own = value),
                    ),)*
                    $((
                        stringify!($field),
                        extremes::changes(|config: &mut Self, value: $type| {
                            config.$field = value.into();
                        }),
                    ),)*
                ]
            }
        }
    };
}

settings! {
    ConsumerConfig by_hand { worker_id: Option<String> = None; }
    with_initial_position, initial_position: InitialPosition = InitialPosition::default();
    with_until, until: Until = None;
    with_failover_time, failover_time: Duration = Duration::from_secs(10);
    with_max_leases, max_leases: usize = usize::MAX;
    with_max_lease_table_reads, max_lease_table_reads: u32 = 5;
    with_retrieval, retrieval: RetrievalMode = RetrievalMode::default();
    with_max_records, max_records: u32 = 10_000;
    with_max_buffered_bytes, max_buffered_bytes: usize = 64 << 20;
    with_concurrency_per_shard, concurrency_per_shard: usize = 1;
    with_concurrency_per_worker, concurrency_per_worker: usize = usize::MAX;
    with_max_window_records, max_window_records: usize = 10_000;
    with_max_window_bytes, max_window_bytes: usize = 16 << 20;
    with_idle_time_between_reads, idle_time_between_reads: Duration = Duration::from_secs(1);
    with_wire, wire: Wire = Wire::default();
    with_kinesis_request_timeout, kinesis_request_timeout: Duration = Duration::from_secs(10);
    with_dynamodb_request_timeout, dynamodb_request_timeout: Duration = None;
    with_startup_timeout, startup_timeout: Duration = Duration::from_secs(60);
    with_parent_poll_interval, parent_poll_interval: Duration = Duration::from_secs(1);
    with_shard_sync_interval, shard_sync_interval: Duration = Duration::from_secs(60);
    with_on_recreated_stream, on_recreated_stream: OnRecreatedStream = OnRecreatedStream::default();
    with_on_trimmed_gap, on_trimmed_gap: OnTrimmedGap = OnTrimmedGap::default();
    with_checkpoint, checkpoint: CheckpointPolicy = CheckpointPolicy::default();
    with_on_stop, on_stop: OnStop = OnStop::default();
    with_retry_initial_delay, retry_initial_delay: Duration = Duration::from_millis(100);
    with_retry_max_delay, retry_max_delay: Duration = Duration::from_secs(30);
    with_failure_policy, failure_policy: FailurePolicy = FailurePolicy::default();
    with_log_warning_for_task_after, log_warning_for_task_after: Option<Duration> = Some(Duration::from_secs(30));
    with_aggregate_range, aggregate_range: AggregateRangePolicy = AggregateRangePolicy::default();
    with_max_decompressed_size, max_decompressed_size: usize = 16 << 20;
    with_table, table: TableConfig = TableConfig::default();
}

settings! {
    TableConfig by_hand { name: Option<String> = None; }
    with_provisioned, provisioned: (u32, u32) = None;
    with_deletion_protection, deletion_protection: bool = false;
    with_tags, tags: BTreeMap<String, String> = BTreeMap::new();
}

settings! {
    FailurePolicy by_hand {}
    with_max_attempts, max_attempts: u32 = None;
    with_max_retry_time, max_retry_time: Duration = None;
    with_bisect, bisect: bool = false;
    with_max_record_age, max_record_age: Duration = None;
    with_then, then: AfterRetries = AfterRetries::default();
}

settings! {
    FanOutConfig by_hand {}
    with_consumer, consumer: FanOutConsumer = FanOutConsumer::default();
    with_deregister_on_stop, deregister_on_stop: bool = false;
    with_fall_back_to_polling, fall_back_to_polling: bool = false;
}

#[cfg(feature = "cloudwatch")]
settings! {
    CloudWatchConfig by_hand { namespace: Option<String> = None; }
    with_level, level: MetricsLevel = MetricsLevel::Summary;
    with_dimensions, dimensions: BTreeSet<MetricsDimension> = BTreeSet::from(MetricsDimension::ALL);
    with_upload_interval, upload_interval: Duration = Duration::from_secs(60);
}

impl ConsumerConfig {
    /// Settings for tests on an emulator or an embedded AWS: a crashed worker's shards move after 2 s, shards are
    /// polled every 200 ms, and failed calls are repeated soon. All other settings, the [initial
    /// position](Self::initial_position) among them, have their defaults.
    ///
    /// Not for production: with so short a failover time, each pause of the host or the network loses leases, and the
    /// polls use all reads that the service allows on a shard.
    #[must_use]
    pub fn for_tests() -> Self {
        Self {
            failover_time: Duration::from_secs(2),
            idle_time_between_reads: Duration::from_millis(200),
            kinesis_request_timeout: Duration::from_secs(2),
            parent_poll_interval: Duration::from_millis(100),
            shard_sync_interval: Duration::from_secs(1),
            retry_initial_delay: Duration::from_millis(10),
            retry_max_delay: Duration::from_millis(200),
            ..Self::default()
        }
    }

    /// The time limit of one attempt of a lease table call.
    pub(crate) fn dynamodb_attempt_timeout(&self) -> Duration {
        let default = DYNAMODB_ATTEMPT_TIMEOUT.min(self.failover_time / 4);
        self.dynamodb_request_timeout.unwrap_or(default)
    }

    /// Sets [`worker_id`](Self::worker_id).
    #[must_use]
    pub fn with_worker_id(mut self, worker_id: impl Into<String>) -> Self {
        self.worker_id = Some(worker_id.into());
        self
    }
}

impl TableConfig {
    /// Sets [`name`](Self::name).
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}
