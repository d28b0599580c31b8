//! Settings of a worker: plain data. Components (clients, clock, seed) are builder methods.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

#[cfg(test)]
mod extremes;
#[cfg(feature = "serde")]
mod human;
mod validate;

pub use validate::ConfigError;
pub(crate) use validate::application_problem;

/// Default time limit of one attempt of a lease table call, where the failover time leaves room for it.
const DYNAMODB_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings of a worker. Every field has a default and a `with_` setter;
/// [`validate`](Self::validate) names all problems at once. No duration may exceed 365 days.
///
/// With the feature `serde` it can be read from any format; durations are text such as `"100ms"`,
/// points in time RFC 3339, and unknown names are refused.
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
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// Identifies this worker in the lease table; unique per process. 1 to 1,024 bytes. Default: a name
    /// made of the application and a random number. Give a stable one for rolling restarts.
    ///
    /// The next process of a name goes on at once with what the last one kept for it at a planned stop
    /// ([`OnStop::Keep`]). After a crash it waits for the failover time, as any other worker: the last
    /// one may still be at work. Two processes of one name that live at a time never process a shard
    /// together, but do not share evenly: each counts the other's leases as its own. Both then say so, in the log and in
    /// their health ([`DuplicateWorkerId`](crate::ProblemKind::DuplicateWorkerId)).
    pub worker_id: Option<String>,
    /// Where a shard without a checkpoint starts. Default: [`InitialPosition::Latest`], as in Java.
    pub initial_position: InitialPosition,
    /// A lease that was not renewed for this long is expired and may be taken. **It must be the
    /// same in the whole fleet**, Java workers included: the table does not store it. Default 10 s.
    ///
    /// Nor does it store another setting of Java workers: their `gracefulLeaseHandoffTimeoutMillis` must
    /// not be below its default, 30 s. When that time is over, the owner gives its lease to the next one
    /// although its processor is still at work; a worker of this library starts at once if a handoff took
    /// less than 25 s, else after the failover time.
    #[cfg_attr(feature = "serde", serde(with = "human::duration"))]
    pub failover_time: Duration,
    /// Most leases that this worker holds. Default: no limit.
    ///
    /// A worker at its limit takes none, and removes its row from the table, so that neither another worker nor a Java
    /// leader hands it one. (Java's own `maxLeasesForWorker` is the leader's, for all workers.) What a leader that had
    /// just looked gives it all the same is not processed here: it goes at once to a worker with room, or becomes
    /// unassigned, as soon as no former owner can be at work. Where no worker has room, shards wait;
    /// [`why_not_running`](crate::WorkerHandle::why_not_running) says so.
    pub max_leases: usize,
    /// Read units a second that this worker spends on looking at the lease table, about. Default 5, at least 1. Every
    /// worker looks at the whole table: each second, less often when it is large. Twenty leases are about a unit:
    ///
    /// | leases | pause between two looks | at the default | a dead worker's shards run elsewhere after about |
    /// |---|---|---|---|
    /// | n | n / (20 x this setting) seconds, at least one | | failover time + two pauses |
    /// | 100 | 1 s | 5 units/s | 12 s |
    /// | 1,000 | 10 s | 5 units/s | 30 s |
    /// | 10,000 | 100 s | 5 units/s | 210 s |
    ///
    /// It takes one pause more if the worker that should take the shards next is a Java worker or has died too.
    /// And it takes 2.5 failover times in place of one where the dead worker was not heard yet: it had the shard for no
    /// longer than that, or it is a Java worker and the pause is more than half the failover time.
    ///
    /// While a Java worker leads the fleet, free and expired leases are the leader's to assign: it does so within 20 to
    /// 40 s at its defaults. Workers of this library take such a lease when it has been free for four to five failover
    /// times, or at once when the leader is dead: when none of its own leases was renewed for the failover time.
    ///
    /// Looks come sooner while shards change hands, or when this worker lost, finished or split one, as long as they are
    /// paid for: with as much again, of which a minute's worth (at least two looks) is saved up. A look that fails is
    /// not repeated before the pause is over. Each of these may spend as much as this setting besides: the comparison
    /// with the stream's shards ([`shard_sync_interval`](Self::shard_sync_interval)), and the question which leases name
    /// this worker, each second while these are few (a hundred are a unit). So may, for the failover time, what waits
    /// for its last owner: a unit a second for each lease.
    ///
    /// Where pauses are long, a handoff, a planned stop that hands over, and the shards of a split do not wait for
    /// them: the owner of a shard takes those it splits into, when its next look is paid for (after half a pause at
    /// most). What becomes nobody's waits for the next look of another worker: by [`OnStop::Release`], or where a worker
    /// stops that knows of no other.
    pub max_lease_table_reads: u32,
    /// Most records one GetRecords call asks for, 1 to 10,000. Default 10,000.
    pub max_records: u32,
    /// Bytes of fetched records that the whole worker may hold before its processors have
    /// finished with them. Default 64 MiB. At least 20 MiB (20,971,520 bytes): two of the largest
    /// pages that GetRecords returns, one in hand and one fetched ahead. Each active shard can always
    /// fetch one page, so a worker with many shards may hold more.
    pub max_buffered_bytes: usize,
    /// Pause between two reads of a shard whose last read found all that was there. Default 1 s, at least
    /// 200 ms. Each pause is spread by a fifth. Behind the tip, the next page is fetched at once.
    ///
    /// The service answers five reads a second per shard, to all applications together: at 1 s, four
    /// applications share a shard without a throttle. For low latency set 200 ms, and keep other readers
    /// off the stream. A reader that is throttled slows down, to a fair share of the shard.
    #[cfg_attr(feature = "serde", serde(with = "human::duration"))]
    pub idle_time_between_reads: Duration,
    /// Time limit of one GetRecords or GetShardIterator attempt. Default 10 s.
    #[cfg_attr(feature = "serde", serde(with = "human::duration"))]
    pub kinesis_request_timeout: Duration,
    /// Time limit of one attempt of a lease table call. Default: 2 s, or a quarter of
    /// [`failover_time`](Self::failover_time) where that is less, so that a renewal can be tried again
    /// in time. At least 50 ms, at most that quarter.
    #[cfg_attr(feature = "serde", serde(with = "human::optional_duration"))]
    pub dynamodb_request_timeout: Option<Duration>,
    /// How long [`build`](crate::SchedulerBuilder::build) may take in all. Until then, everything that may
    /// pass is tried again: throttled or failed calls, a service that is not up yet, a stream or table
    /// that is being created, an index that is being built, leases that another worker is creating.
    /// What cannot pass (no permission, no such stream) fails at once. Default 60 s: AWS creates a stream
    /// or a table in up to half a minute, and services that are deployed together start in any order.
    /// Raise it where an index has to be built for a large table, or for many leases in a table of
    /// little write capacity. Cost: a wrong endpoint is told that much later.
    #[cfg_attr(feature = "serde", serde(with = "human::duration"))]
    pub startup_timeout: Duration,
    /// How often a shard waits before it looks again whether its parents have ended. Default 1 s.
    #[cfg_attr(feature = "serde", serde(with = "human::duration"))]
    pub parent_poll_interval: Duration,
    /// How often the shards of the stream are compared with the lease table. Default 60 s.
    #[cfg_attr(feature = "serde", serde(with = "human::duration"))]
    pub shard_sync_interval: Duration,
    /// What a worker does when its stream was deleted and created again under the same name, at the start
    /// or while it runs. Default [`OnRecreatedStream::Error`].
    pub on_recreated_stream: OnRecreatedStream,
    /// What happens to a shard of which retention deleted records before they were read. Default
    /// [`OnTrimmedGap::Continue`].
    pub on_trimmed_gap: OnTrimmedGap,
    /// Who writes checkpoints. Default [`CheckpointPolicy::Manual`], as in Java.
    pub checkpoint: CheckpointPolicy,
    /// What a planned stop does with this worker's leases. Default [`OnStop::HandOver`].
    pub on_stop: OnStop,
    /// Pause before `process_records` (or another call that returned an error) is called again with
    /// the same input; it doubles with each failure, and each pause is drawn at random between zero
    /// and that. Default 100 ms.
    #[cfg_attr(feature = "serde", serde(with = "human::duration"))]
    pub retry_initial_delay: Duration,
    /// Longest pause between two such calls. Default 30 s. A call is repeated until it succeeds or
    /// the shard is given up: nothing is ever skipped.
    #[cfg_attr(feature = "serde", serde(with = "human::duration"))]
    pub retry_max_delay: Duration,
    /// A call of a processor that takes longer is slow: it is warned of, at a limited rate, with its
    /// records, and named by [`why_not_running`](crate::WorkerHandle::why_not_running) and
    /// [`health`](crate::WorkerHandle::health). `None`: none is. Default 30 s: a planned stop or a handoff
    /// does not wait that long, so such a call costs the shard its orderly handover. Raise it if your
    /// batches take longer. Java: `logWarningForTaskAfterMillis`, which is off by default.
    #[cfg_attr(feature = "serde", serde(with = "human::optional_duration"))]
    pub log_warning_for_task_after: Option<Duration>,
    /// What happens to an aggregate that has a record outside the shard's hash key range.
    /// Default [`AggregateRangePolicy::Auto`].
    pub aggregate_range: AggregateRangePolicy,
    /// Largest size a compressed frame may expand to, in bytes. Default 16 MiB.
    pub max_decompressed_size: usize,
    /// The lease table and how it is created when it does not exist.
    pub table: TableConfig,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            worker_id: None,
            initial_position: InitialPosition::default(),
            failover_time: Duration::from_secs(10),
            max_leases: usize::MAX,
            max_lease_table_reads: 5,
            max_records: 10_000,
            max_buffered_bytes: 64 << 20,
            idle_time_between_reads: Duration::from_secs(1),
            kinesis_request_timeout: Duration::from_secs(10),
            dynamodb_request_timeout: None,
            startup_timeout: Duration::from_secs(60),
            parent_poll_interval: Duration::from_secs(1),
            shard_sync_interval: Duration::from_secs(60),
            on_recreated_stream: OnRecreatedStream::default(),
            on_trimmed_gap: OnTrimmedGap::default(),
            checkpoint: CheckpointPolicy::default(),
            on_stop: OnStop::default(),
            retry_initial_delay: Duration::from_millis(100),
            retry_max_delay: Duration::from_secs(30),
            log_warning_for_task_after: Some(Duration::from_secs(30)),
            aggregate_range: AggregateRangePolicy::default(),
            max_decompressed_size: 16 << 20,
            table: TableConfig::default(),
        }
    }
}

/// Where a shard without a checkpoint starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum InitialPosition {
    /// Records put after the first worker's [`build`](crate::SchedulerBuilder::build) returned, and those put
    /// while it ran. Records of up to three seconds before may be delivered too: the lease holds the time to
    /// start from, by the service's clock. That time is rounded down to a second, and two seconds are taken
    /// off because the clocks of the service's hosts differ.
    #[default]
    Latest,
    /// The oldest record that the stream still keeps.
    TrimHorizon,
    /// The first record that arrived at this time or later.
    AtTimestamp(#[cfg_attr(feature = "serde", serde(with = "human::timestamp"))] SystemTime),
}

/// Who writes checkpoints.
///
/// Where the library does, what returned `Ok` also rides on the renewals of the lease that are due anyway: each half
/// [`failover_time`](ConsumerConfig::failover_time), also while a later call runs. A crash repeats no more than was
/// processed since. A checkpoint that was [prepared](crate::Checkpointer::prepare) and not committed is left alone by
/// renewals, and replaced by the checkpoint that is due after a batch or interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum CheckpointPolicy {
    /// Only the processor: nothing is ever checkpointed for it.
    #[default]
    Manual,
    /// The library, after each batch for which `process_records` returned `Ok`.
    AfterBatch,
    /// The library, at least once per interval, up to the last batch that returned `Ok`; sooner, at no cost, with the
    /// renewal that is due every half failover time.
    Interval(#[cfg_attr(feature = "serde", serde(with = "human::duration"))] Duration),
}

/// What a worker does when its stream was deleted and created again. The checkpoints of the former stream
/// mean nothing to the new one, although shard ids may be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum OnRecreatedStream {
    /// The worker does not start, or ends, with an error that says what to do. Nothing is changed.
    #[default]
    Error,
    /// The leases of the former stream are replaced, and the new stream is read from its beginning, or
    /// from [`InitialPosition::AtTimestamp`]. What was not read of the former stream is gone. Another
    /// worker's lease is taken over after the failover time, as if that worker had fallen silent.
    ///
    /// A running worker notices at the next shard sync, or when a read is refused. It ends with
    /// [`WorkerError::StreamDeleted`](crate::WorkerError::StreamDeleted) if the stream stays away for
    /// longer than about ten seconds: start it again once the stream exists.
    StartOver,
}

/// What happens to a shard of which retention deleted records before this application read them.
///
/// With both values, the gap is logged as an error, counted as the metric `TrimmedGaps`, and shown by
/// [`health`](crate::WorkerHandle::health) as
/// [`RecordsTrimmed`](crate::ProblemKind::RecordsTrimmed). A shard that merely had no records is told from
/// that by a time in its lease, which its owner renews each half hour. Where no worker of this library read
/// a shard for longer than records are kept, a gap is assumed. If a worker of the Java KCL owned the lease
/// meanwhile, it cannot be told whether records were lost: a warning is logged, and reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum OnTrimmedGap {
    /// Reading goes on at the oldest record that there is.
    #[default]
    Continue,
    /// The shard stands still, and its lease is kept: nothing behind the gap is delivered. To go on, change
    /// the setting and restart the worker.
    StopShard,
}

/// What a planned stop does with the leases of this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum OnStop {
    /// Each lease goes to the least loaded live worker; released where there is none.
    #[default]
    HandOver,
    /// Leases become unassigned: the first worker that looks takes them.
    Release,
    /// Leases keep their owner, for a restart under the same worker id within the failover time: the
    /// next process of that id starts on them at once. What it did not release, since it crashed or a
    /// processor did not stop in time, its next process waits for as any other worker does.
    Keep,
}

/// What happens to an aggregate of which a record's hash key lies outside its shard's range. That
/// happens around a split or merge, when a writer that predicts shards was late to learn of it, or
/// when a writer aggregates without regard to shards.
///
/// The Java KCL drops such an aggregate whole; since its producer sends only the records out of
/// range again, that can lose acknowledged records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum AggregateRangePolicy {
    /// Tells the writers apart. A Kinesis record keyed `a` whose first record is in range and not
    /// itself keyed `a` comes from a writer that predicts shards and sends the others again: as
    /// [`KeepInRange`](Self::KeepInRange). Any other: as [`KeepAll`](Self::KeepAll).
    #[default]
    Auto,
    /// The rule of the Java KCL: one record out of range drops the whole aggregate, and one whose
    /// explicit hash key is no number drops itself and all behind it.
    Strict,
    /// Records in range are delivered, the others dropped and counted.
    KeepInRange,
    /// All are delivered and those out of range counted. A partition key may then be processed in
    /// two shards.
    KeepAll,
}

/// The lease table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct TableConfig {
    /// Name of the table: 3 to 255 characters of a-z, A-Z, 0-9, `_`, `-` and `.`. Default: the
    /// application name, as in Java.
    pub name: Option<String>,
    /// Read and write capacity units; `None` (the default) bills per request.
    pub provisioned: Option<(u32, u32)>,
    /// Refuse DeleteTable. Default false.
    pub deletion_protection: bool,
    /// Tags of a table that this worker creates. Default: none.
    pub tags: BTreeMap<String, String>,
}

macro_rules! setters {
    (
        by_hand { $($own:ident: $own_type:ty;)* }
        $($with:ident, $field:ident: $type:ty;)*
    ) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
            #[must_use]
            pub fn $with(mut self, $field: $type) -> Self {
                self.$field = $field.into();
                self
            }
        )*

        /// The extreme values of every field. A field that is not listed here does not compile.
        #[cfg(test)]
        fn extremes_of_fields() -> Vec<(&'static str, Vec<extremes::Change<Self>>)> {
            let Self { $($own: _,)* $($field: _),* } = Self::default();
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
    };
}

impl ConsumerConfig {
    /// Settings for tests on an emulator or an embedded AWS: a crashed worker's shards move after 2 s,
    /// shards are polled every 200 ms, and failed calls are repeated soon. All else is as by default,
    /// the [initial position](Self::initial_position) too.
    ///
    /// Not for production: a failover time this short loses leases to every pause of the host or the
    /// network, and the polls take all reads that the service allows on a shard.
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

    /// Sets [`dynamodb_request_timeout`](Self::dynamodb_request_timeout).
    #[must_use]
    pub fn with_dynamodb_request_timeout(mut self, timeout: Duration) -> Self {
        self.dynamodb_request_timeout = Some(timeout);
        self
    }

    setters! {
        by_hand {
            worker_id: Option<String>;
            dynamodb_request_timeout: Option<Duration>;
        }
        with_initial_position, initial_position: InitialPosition;
        with_failover_time, failover_time: Duration;
        with_max_leases, max_leases: usize;
        with_max_lease_table_reads, max_lease_table_reads: u32;
        with_max_records, max_records: u32;
        with_max_buffered_bytes, max_buffered_bytes: usize;
        with_idle_time_between_reads, idle_time_between_reads: Duration;
        with_kinesis_request_timeout, kinesis_request_timeout: Duration;
        with_startup_timeout, startup_timeout: Duration;
        with_parent_poll_interval, parent_poll_interval: Duration;
        with_shard_sync_interval, shard_sync_interval: Duration;
        with_on_recreated_stream, on_recreated_stream: OnRecreatedStream;
        with_on_trimmed_gap, on_trimmed_gap: OnTrimmedGap;
        with_checkpoint, checkpoint: CheckpointPolicy;
        with_on_stop, on_stop: OnStop;
        with_retry_initial_delay, retry_initial_delay: Duration;
        with_retry_max_delay, retry_max_delay: Duration;
        with_log_warning_for_task_after, log_warning_for_task_after: Option<Duration>;
        with_aggregate_range, aggregate_range: AggregateRangePolicy;
        with_max_decompressed_size, max_decompressed_size: usize;
        with_table, table: TableConfig;
    }
}

impl TableConfig {
    /// Sets [`name`](Self::name).
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    setters! {
        by_hand { name: Option<String>; }
        with_provisioned, provisioned: (u32, u32);
        with_deletion_protection, deletion_protection: bool;
        with_tags, tags: BTreeMap<String, String>;
    }
}
