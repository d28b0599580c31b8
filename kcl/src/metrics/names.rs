//! The metrics by name: those of the Java library, and some that it lacks.

use kinesis_common::metrics::{Kind, MetricsLevel, Unit};

/// The dimension of a metric beside its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    Shard,
    Worker,
    /// None: the workers of the application have one series in common.
    Application,
}

pub(crate) struct Definition {
    pub(crate) operation: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) kind: Kind,
    pub(crate) dimension: Dimension,
    pub(crate) level: MetricsLevel,
    pub(crate) description: &'static str,
}

macro_rules! metrics {
    ($($metric:ident $operation:literal $name:literal $unit:ident $kind:ident $dimension:ident $level:ident $description:literal;)*) => {
        /// A metric of the consumer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Metric {
            $($metric,)*
        }

        impl Metric {
            pub(crate) const ALL: &[Self] = &[$(Self::$metric,)*];

            pub(crate) const fn definition(self) -> Definition {
                match self {
                    $(Self::$metric => Definition {
                        operation: $operation,
                        name: $name,
                        unit: Unit::$unit,
                        kind: Kind::$kind,
                        dimension: Dimension::$dimension,
                        level: MetricsLevel::$level,
                        description: $description,
                    },)*
                }
            }
        }
    };
}

metrics! {
    RecordsProcessed "ProcessTask" "RecordsProcessed" Count Counter Shard Summary "User records for which process_records returned Ok.";
    DataBytesProcessed "ProcessTask" "DataBytesProcessed" Bytes Counter Shard Summary "Payload bytes of those records.";
    ApplicationMillisBehindLatest "ApplicationTracker" "MillisBehindLatest" Milliseconds Gauge Application Summary "Largest time by which the last page read of a shard was behind the tip.";
    MillisBehindLatest "ProcessTask" "MillisBehindLatest" Milliseconds Gauge Shard Summary "Time by which the last page read was behind the tip.";
    ProcessTaskSuccess "ProcessTask" "Success" Count Counter Shard Summary "Calls of process_records: 1 for each that succeeded, 0 for each that failed.";
    ProcessTaskTime "ProcessTask" "Time" Milliseconds Distribution Shard Summary "Time from the first delivery of a batch to its success, with all attempts and pauses.";
    ProcessRecordsTime "ProcessTask" "RecordProcessor.processRecords.Time" Milliseconds Distribution Shard Summary "Duration of each call of process_records.";
    GetRecordsSuccess "ProcessTask" "KinesisDataFetcher.getRecords.Success" Count Counter Shard Detailed "GetRecords calls: 1 for each answered, 0 for each failed.";
    GetRecordsTime "ProcessTask" "KinesisDataFetcher.getRecords.Time" Milliseconds Distribution Shard Detailed "Duration of each GetRecords call.";
    GetShardIteratorSuccess "ProcessTask" "KinesisDataFetcher.getShardIterator.Success" Count Counter Shard Detailed "GetShardIterator calls: 1 for each answered, 0 for each failed.";
    GetShardIteratorTime "ProcessTask" "KinesisDataFetcher.getShardIterator.Time" Milliseconds Distribution Shard Detailed "Duration of each GetShardIterator call.";
    SubscribeToShardSuccess "ProcessTask" "SubscribeToShard.Success" Count Counter Shard Detailed "SubscribeToShard calls: 1 for each answered, 0 for each failed.";
    SubscribeToShardTime "ProcessTask" "SubscribeToShard.Time" Milliseconds Distribution Shard Detailed "Duration of each SubscribeToShard call.";
    RefusedSubscriptions "ProcessTask" "RefusedSubscriptions" Count Counter Shard Summary "Subscriptions that were refused or taken over, because of another one of the same consumer to the shard.";
    UnreadSubscriptions "ProcessTask" "UnreadSubscriptions" Count Counter Shard Summary "Subscriptions that were ended for a while, because the processor took no page.";
    FanOutFallbacks "ProcessTask" "FanOutFallbacks" Count Counter Worker Summary "Starts that read by polling, because the stream has too many consumers.";
    ExpiredIterator "ProcessTask" "ExpiredIterator" Count Counter Shard Summary "Shard iterators that could not be used any more.";
    FailedReads "ProcessTask" "FailedReads" Count Counter Shard Summary "Reads that failed, without throttles and expired iterators.";
    ThrottledReads "ProcessTask" "ThrottledReads" Count Counter Shard Summary "Reads that the shard's limits throttled.";
    TrimmedGaps "ProcessTask" "TrimmedGaps" Count Counter Shard Summary "Times that retention deleted records before they were read.";
    UpdateLeaseSuccess "ProcessTask" "UpdateLease.Success" Count Counter Shard Detailed "Writes of checkpoints: 1 for each answered, 0 for each failed.";
    UpdateLeaseTime "ProcessTask" "UpdateLease.Time" Milliseconds Distribution Shard Detailed "Duration of each write of a checkpoint.";
    FailedBatches "ProcessTask" "FailedBatches" Count Counter Shard Summary "Calls of process_records that failed. The failure policy decides what follows.";
    DeadLetters "ProcessTask" "DeadLetters" Count Counter Shard Summary "User records that the sink of dead letters has confirmed.";
    SkippedRecords "ProcessTask" "SkippedRecords" Count Counter Shard Summary "User records that were skipped, by the failure policy or by an operator.";
    PropagationDelay "ProcessTask" "PropagationDelay" Milliseconds Distribution Shard Summary "Time from the arrival of the oldest and the newest Kinesis record of each page to its first delivery.";
    MillisSinceCheckpoint "ProcessTask" "MillisSinceCheckpoint" Milliseconds Gauge Shard Summary "Time since this worker saw the checkpoint move, or took the lease.";
    ProcessingLag "ProcessTask" "ProcessingLag" Milliseconds Gauge Shard Summary "Upper bound of the age of the oldest record that is not processed.";
    ProcessorCallTime "ProcessTask" "ProcessorCallTime" Milliseconds Gauge Shard Summary "Time since the present call of the processor began. 0 without a call.";
    InitializeTaskSuccess "InitializeTask" "Success" Count Counter Shard Summary "Calls of initialize: 1 for each that succeeded, 0 for each that failed.";
    InitializeTime "InitializeTask" "RecordProcessor.initialize.Time" Milliseconds Distribution Shard Summary "Duration of each call of initialize, with the creation of the processor.";
    ShutdownTaskSuccess "ShutdownTask" "Success" Count Counter Shard Summary "Calls of shard_ended and lease_lost: 1 for each that succeeded, 0 for each that failed.";
    ShutdownTime "ShutdownTask" "RecordProcessor.shutdown.Time" Milliseconds Distribution Shard Summary "Duration of each of those calls.";
    ShutdownNotificationTaskSuccess "ShutdownNotificationTask" "Success" Count Counter Shard Summary "Calls of shutdown_requested: 1 for each that succeeded, 0 for each that failed.";
    ShutdownNotificationTaskTime "ShutdownNotificationTask" "Time" Milliseconds Distribution Shard Summary "Duration of each call of shutdown_requested.";
    IdleShards "ShardHealth" "IdleShards" Count Gauge Worker Summary "Shards whose records are all processed.";
    WorkingShards "ShardHealth" "WorkingShards" Count Gauge Worker Summary "Shards that keep up or catch up.";
    SlowShards "ShardHealth" "SlowShards" Count Gauge Worker Summary "Shards that are behind and do not catch up.";
    StuckShards "ShardHealth" "StuckShards" Count Gauge Worker Summary "Shards of which no record is processed, because a call or the reads do not succeed.";
    PausedShards "ShardHealth" "PausedShards" Count Gauge Worker Summary "Shards that the application has paused.";
    RenewLeaseSuccess "RenewAllLeases" "RenewLease.Success" Count Counter Worker Detailed "Renewals: 1 for each answered, 0 for each failed.";
    RenewLeaseTime "RenewAllLeases" "RenewLease.Time" Milliseconds Distribution Worker Detailed "Duration of each renewal.";
    CurrentLeases "RenewAllLeases" "CurrentLeases" Count Gauge Worker Summary "Leases that this worker holds.";
    LostLeases "RenewAllLeases" "LostLeases" Count Counter Worker Summary "Leases that were lost: taken by another worker, or not renewed in time.";
    ListLeasesSuccess "TakeLeases" "ListLeases.Success" Count Counter Worker Detailed "Scans of the lease table: 1 for each answered, 0 for each failed.";
    ListLeasesTime "TakeLeases" "ListLeases.Time" Milliseconds Distribution Worker Detailed "Duration of each scan.";
    TakeLeaseSuccess "TakeLeases" "TakeLease.Success" Count Counter Worker Detailed "Attempts to take a lease: 1 for each answered, 0 for each failed.";
    TakeLeaseTime "TakeLeases" "TakeLease.Time" Milliseconds Distribution Worker Detailed "Duration of each attempt.";
    TakenLeases "TakeLeases" "TakenLeases" Count Counter Worker Summary "Leases taken.";
    TotalLeases "TakeLeases" "TotalLeases" Count Gauge Worker Summary "Leases in the table, with those of finished shards.";
    ExpiredLeases "TakeLeases" "ExpiredLeases" Count Gauge Worker Summary "Leases whose owner has not renewed them for the failover time.";
    UnownedLeases "TakeLeases" "UnownedLeases" Count Gauge Worker Summary "Shards that no worker processes: unassigned or expired, and not finished.";
    NumWorkers "TakeLeases" "NumWorkers" Count Gauge Worker Summary "Live workers, with this one.";
    LeaseDeserializationFailureCount "TakeLeases" "LeaseDeserializationFailureCount" Count Gauge Worker Summary "Items of the lease table that cannot be read; see why_not_running.";
    ListLeaseKeysForWorkerSuccess "LeaseDiscovery" "ListLeaseKeysForWorker.Success" Count Counter Worker Detailed "Queries of the index of owners: 1 for each answered, 0 for each failed.";
    ListLeaseKeysForWorkerTime "LeaseDiscovery" "ListLeaseKeysForWorker.Time" Milliseconds Distribution Worker Detailed "Duration of each query.";
    NewLeasesDiscovered "LeaseDiscovery" "NewLeasesDiscovered" Count Counter Worker Detailed "Leases that were assigned to this worker, and that it started on.";
    WorkerMetricStatsReporterSuccess "WorkerMetricStatsReporter" "Success" Count Counter Worker Summary "Heartbeats of the worker: 1 for each answered, 0 for each failed.";
    WorkerMetricStatsReporterTime "WorkerMetricStatsReporter" "Time" Milliseconds Distribution Worker Summary "Duration of each write of a heartbeat.";
    ShardSyncTaskSuccess "ShardSyncTask" "Success" Count Counter Worker Summary "Shard syncs after the start: 1 for each that succeeded, 0 for each that failed.";
    ShardSyncTaskTime "ShardSyncTask" "Time" Milliseconds Distribution Worker Summary "Duration of each shard sync.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_metric_as_it_is() {
        let page = include_str!("../metrics.md");
        for metric in Metric::ALL {
            let Definition { operation, name, unit, kind, dimension, level, .. } =
                metric.definition();
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| {operation} | `{name}` |")))
                .unwrap_or_else(|| panic!("{operation} {name} has no row"));
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let by = match dimension {
                Dimension::Shard => "shard",
                Dimension::Worker => "worker",
                Dimension::Application => "application",
            };
            let level = format!("{level:?}").to_lowercase();
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Distribution => "histogram",
            };
            assert_eq!(cells[3..7], [&*format!("{unit:?}"), kind, by, &level], "{name}");
        }
        let (table, _) = page.split_once("# Alarms").unwrap();
        let rows = table.lines().filter(|line| line.contains("| `")).count();
        assert_eq!(rows, Metric::ALL.len());
    }
}
