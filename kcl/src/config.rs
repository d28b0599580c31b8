//! Settings of a worker: plain data. Components (clients, clock, seed) are builder methods.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Settings of a worker. Every field has a default; [`validate`](Self::validate) names all
/// problems at once.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// Identifies this worker in the lease table; unique per process. Default: a name made of the
    /// application and a random number. Give a stable one for rolling restarts.
    pub worker_id: Option<String>,
    /// Where a shard without a checkpoint starts. Default: [`InitialPosition::Latest`], as in Java.
    pub initial_position: InitialPosition,
    /// A lease that was not renewed for this long is expired and may be taken. **It must be the
    /// same in the whole fleet**, Java workers included: the table does not store it. Default 10 s.
    pub failover_time: Duration,
    /// Most leases this worker holds at a time. Default: no limit.
    pub max_leases: usize,
    /// Most records one GetRecords call asks for, 1 to 10,000. Default 10,000.
    pub max_records: u32,
    /// Bytes of fetched records that the whole worker may hold before its processors have
    /// finished with them. Default 64 MiB, at least 20 MiB. Each active shard can always fetch
    /// one page.
    pub max_buffered_bytes: usize,
    /// Pause between two reads of a shard that is at its tip. Default 250 ms, at least 200 ms (the
    /// service allows five reads a second to all readers of a shard). Behind the tip, the next page
    /// is fetched at once, within that limit.
    pub idle_time_between_reads: Duration,
    /// Time limit of one GetRecords or GetShardIterator attempt. Default 10 s.
    pub kinesis_request_timeout: Duration,
    /// Time limit of one lease table attempt. Default 2 s, at most a quarter of the failover time.
    pub dynamodb_request_timeout: Duration,
    /// How often a shard waits before it looks again whether its parents have ended. Default 1 s.
    pub parent_poll_interval: Duration,
    /// How often the shards of the stream are compared with the lease table. Default 60 s.
    pub shard_sync_interval: Duration,
    /// Who writes checkpoints. Default [`CheckpointPolicy::Manual`], as in Java.
    pub checkpoint: CheckpointPolicy,
    /// What a planned stop does with this worker's leases. Default [`OnStop::HandOver`].
    pub on_stop: OnStop,
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
            max_records: 10_000,
            max_buffered_bytes: 64 << 20,
            idle_time_between_reads: Duration::from_millis(250),
            kinesis_request_timeout: Duration::from_secs(10),
            dynamodb_request_timeout: Duration::from_secs(2),
            parent_poll_interval: Duration::from_secs(1),
            shard_sync_interval: Duration::from_secs(60),
            checkpoint: CheckpointPolicy::default(),
            on_stop: OnStop::default(),
            max_decompressed_size: 16 << 20,
            table: TableConfig::default(),
        }
    }
}

/// Where a shard without a checkpoint starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum InitialPosition {
    /// Records put after the first worker started.
    #[default]
    Latest,
    /// The oldest record that the stream still keeps.
    TrimHorizon,
    /// The first record that arrived at this time or later.
    AtTimestamp(SystemTime),
}

/// Who writes checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CheckpointPolicy {
    /// Only the processor: nothing is ever checkpointed for it.
    #[default]
    Manual,
    /// The library, after each batch for which `process_records` returned `Ok`.
    AfterBatch,
    /// The library, at most once per interval, up to the last batch that returned `Ok`.
    Interval(Duration),
}

/// What a planned stop does with the leases of this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnStop {
    /// Each lease goes to the least loaded live worker; released where there is none.
    #[default]
    HandOver,
    /// Leases become unassigned: the first worker that looks takes them.
    Release,
    /// Leases keep their owner, for a restart under the same worker id within the failover time.
    Keep,
}

/// The lease table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TableConfig {
    /// Default: the application name, as in Java.
    pub name: Option<String>,
    /// Read and write capacity units; `None` (the default) bills per request.
    pub provisioned: Option<(u32, u32)>,
    /// Refuse DeleteTable. Default false.
    pub deletion_protection: bool,
    /// Tags of a table that this worker creates. Default: none.
    pub tags: BTreeMap<String, String>,
}
