//! What a lease costs in DynamoDB: requests and capacity units, counted where the client sends them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::{
    BeforeSerializationInterceptorContextMut, FinalizerInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{BehaviorVersion, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::operation::{delete_item, get_item, put_item, query, scan, update_item};
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use aws_sdk_kinesis::primitives::Blob;
use kcl::{
    CheckpointPolicy, ProcessorError, RecordBatch, RecordProcessor, ShardContext, ShardEnd,
    Shutdown,
};
use tokio::time::sleep;

use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{STREAM, open_shards, processing, split};

const SECOND: Duration = Duration::from_secs(1);
/// The time for which calls are counted.
const COUNTED: Duration = Duration::from_secs(120);

/// What was sent, by operation: requests and capacity units.
#[derive(Debug, Clone, Default)]
struct CostMeter(Arc<Mutex<BTreeMap<&'static str, (u64, f64)>>>);

const READS: [&str; 3] = ["GetItem", "Query", "Scan"];

impl CostMeter {
    fn so_far(&self) -> Spent {
        let counts = self.0.lock().unwrap();
        let sum = |reads| {
            let counts = counts.iter().filter(|(op, _)| READS.contains(op) == reads);
            counts.fold((0, 0.0), |sum, (_, count)| (sum.0 + count.0, sum.1 + count.1))
        };
        let ((writes, write_units), (_, read_units)) = (sum(false), sum(true));
        Spent {
            writes: writes as f64,
            write_units,
            read_units,
            single_reads: counts.get("GetItem").map_or(0.0, |count| count.0 as f64),
            checkpoints: 0.0,
        }
    }
}

/// Units of a whole fleet, or per second.
#[derive(Debug, Clone, Copy)]
struct Spent {
    checkpoints: f64,
    writes: f64,
    write_units: f64,
    read_units: f64,
    /// Reads of one item.
    single_reads: f64,
}

impl Spent {
    fn per_second(self, before: Self, seconds: f64) -> Self {
        Self {
            checkpoints: (self.checkpoints - before.checkpoints) / seconds,
            writes: (self.writes - before.writes) / seconds,
            write_units: (self.write_units - before.write_units) / seconds,
            read_units: (self.read_units - before.read_units) / seconds,
            single_reads: (self.single_reads - before.single_reads) / seconds,
        }
    }
}

/// Asks each operation for its units, and adds them up.
macro_rules! operations {
    ($($operation:ident $input:path, $output:path;)*) => {
        impl Intercept for CostMeter {
            fn name(&self) -> &'static str {
                "CostMeter"
            }

            fn modify_before_serialization(
                &self,
                context: &mut BeforeSerializationInterceptorContextMut<'_>,
                _: &RuntimeComponents,
                _: &mut ConfigBag,
            ) -> Result<(), BoxError> {
                $(if let Some(input) = context.input_mut().downcast_mut::<$input>() {
                    input.return_consumed_capacity = Some(ReturnConsumedCapacity::Total);
                    return Ok(());
                })*
                Ok(())
            }

            fn read_after_attempt(
                &self,
                context: &FinalizerInterceptorContextRef<'_>,
                _: &RuntimeComponents,
                _: &mut ConfigBag,
            ) -> Result<(), BoxError> {
                let count = |operation, units| {
                    let mut counts = self.0.lock().unwrap();
                    let count = counts.entry(operation).or_default();
                    *count = (count.0 + 1, count.1 + units);
                };
                let Some(Ok(output)) = context.output_or_error() else {
                    // A refused write costs as much as one that is done.
                    count("refused", 1.0);
                    return Ok(());
                };
                $(if let Some(output) = output.downcast_ref::<$output>() {
                    let units = output.consumed_capacity().and_then(|used| used.capacity_units());
                    count(stringify!($operation), units.expect("it was asked for"));
                })*
                Ok(())
            }
        }
    };
}

operations! {
    GetItem get_item::GetItemInput, get_item::GetItemOutput;
    PutItem put_item::PutItemInput, put_item::PutItemOutput;
    UpdateItem update_item::UpdateItemInput, update_item::UpdateItemOutput;
    DeleteItem delete_item::DeleteItemInput, delete_item::DeleteItemOutput;
    Query query::QueryInput, query::QueryOutput;
    Scan scan::ScanInput, scan::ScanOutput;
}

/// Counts its checkpoints, which it writes unless the library does.
struct Checkpoints {
    count: Arc<Mutex<u64>>,
    by_itself: bool,
}

impl RecordProcessor for Checkpoints {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        if self.by_itself {
            batch.checkpointer().checkpoint().await?;
            *self.count.lock().unwrap() += 1;
        }
        Ok(())
    }
    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }
    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// What a fleet does.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    name: &'static str,
    shards: u32,
    workers: u32,
    /// A record for each shard so often.
    records: Option<Duration>,
    checkpoint: CheckpointPolicy,
    /// One shard was split, and is finished.
    is_split: bool,
}

const IDLE: Scenario = Scenario {
    name: "4 leases, idle",
    shards: 4,
    workers: 1,
    records: None,
    checkpoint: CheckpointPolicy::Manual,
    is_split: false,
};

const SCENARIOS: [Scenario; 7] = [
    IDLE,
    Scenario { name: "1 lease, idle", shards: 1, ..IDLE },
    Scenario { name: "4 leases, idle, 2 workers", workers: 2, ..IDLE },
    Scenario { name: "5 leases, idle, after a split", is_split: true, ..IDLE },
    Scenario {
        name: "4 leases, 1 record/s, Interval(60 s)",
        records: Some(SECOND),
        checkpoint: CheckpointPolicy::Interval(Duration::from_secs(60)),
        ..IDLE
    },
    Scenario { name: "4 leases, 1 checkpoint/s", records: Some(SECOND), ..IDLE },
    Scenario {
        name: "4 leases, 0.25 checkpoints/s",
        records: Some(Duration::from_secs(4)),
        ..IDLE
    },
];

impl Scenario {
    /// Those that are not finished.
    fn leases(&self) -> u32 {
        self.shards + u32::from(self.is_split)
    }

    /// Runs it; what was spent per second when everything had settled.
    async fn measure(&self) -> Spent {
        let paused = Paused::start(self.shards).await;
        let meter = CostMeter::default();
        let checkpoints = Arc::new(Mutex::new(0));
        let mut workers = Vec::new();
        for n in 0..self.workers {
            let dynamodb = aws_sdk_dynamodb::config::Builder::from(&paused.aws.in_process_config())
                .behavior_version(BehaviorVersion::v2026_01_12())
                .interceptor(meter.clone());
            let counter = Arc::clone(&checkpoints);
            let by_itself = self.checkpoint == CheckpointPolicy::Manual;
            let config = config(&format!("w{n}")).with_checkpoint(self.checkpoint);
            let worker = paused
                .builder(&Probe::new(), config)
                .dynamodb_client(Client::from_conf(dynamodb.build()))
                .processor(move |_: &ShardContext| Checkpoints {
                    count: Arc::clone(&counter),
                    by_itself,
                })
                .build();
            workers.push(worker.await.unwrap().spawn());
        }
        let even = async |leases: u32| {
            let share = (leases / self.workers) as usize;
            while workers.iter().any(|worker| processing(worker) < share) {
                assert!(paused.now() < 300 * SECOND, "{}", self.name);
                sleep(SECOND).await;
            }
        };
        even(self.shards).await;
        if self.is_split {
            split(&paused.aws, &open_shards(&paused.aws)[0]).await;
            even(self.leases()).await;
        }
        let kinesis = aws_sdk_kinesis::Client::new(&paused.aws.in_process_config());
        let put = async || {
            for shard in 0..u128::from(self.shards) {
                let hash_key = (u128::MAX / u128::from(self.shards)) * shard + 1_000;
                let request = kinesis.put_record().stream_name(STREAM).partition_key("k");
                let request = request.explicit_hash_key(hash_key.to_string());
                request.data(Blob::new("x")).send().await.unwrap();
            }
        };
        let work = async |lasting: Duration| {
            let until = paused.now() + lasting;
            while paused.now() < until {
                if self.records.is_some() {
                    put().await;
                }
                sleep(self.records.unwrap_or(SECOND)).await;
            }
        };
        let so_far =
            || Spent { checkpoints: *checkpoints.lock().unwrap() as f64, ..meter.so_far() };
        // Until the workers scan on their schedules, and have written their first checkpoints.
        work(20 * SECOND).await;
        let (began, before) = (paused.now(), so_far());
        work(COUNTED).await;
        let spent = so_far().per_second(before, (paused.now() - began).as_secs_f64());
        for worker in &workers {
            worker.shutdown(20 * SECOND).await.unwrap();
        }
        spent
    }

    /// The Java library's units per second, derived from its constants: failover time 10 s, items of
    /// 400 bytes. Writes: a renewal each third of the failover time, whatever else was written;
    /// checkpoints; rows and the leader's heartbeat. Reads: the leader's scans of leases and rows each
    /// 20 s, its audit each 120 s, and discovery each 10 s.
    fn java(&self, checkpoints: f64) -> (f64, f64) {
        let (n, w) = (f64::from(self.leases()), f64::from(self.workers));
        let scan = |bytes: f64| f64::max(0.5, bytes / 8192.0);
        let writes = n / (10.0 / 3.0 - 0.025) + checkpoints + w / 30.0 + 1.0 / 30.0;
        let reads = scan(n * ITEM) / 20.0
            + scan(w * 600.0) / 20.0
            + scan(n * ITEM) / 120.0
            + w * scan(n / w * 60.0) / 9.975;
        (writes, reads)
    }

    /// Write units per second: each lease is renewed at half the failover time at the latest, or by a
    /// checkpoint; each worker's row, each 30 s, is within the bar from four leases on.
    fn most_writes(&self, checkpoints: f64) -> f64 {
        let leases = f64::from(self.leases());
        match self.leases() {
            _ if checkpoints > 0.0 => 1.1 * checkpoints,
            1 => 0.22 + f64::from(self.workers) / 30.0,
            _ => 0.22 * leases,
        }
    }

    /// Read units per second. Each worker scans the table and queries the index once a second. For a shard
    /// sync, each 45 s at the soonest, it lists the table consistently, twice at most. It also reads the
    /// fleet's mode.
    fn most_reads(&self) -> f64 {
        // Finished leases, the rows, and what holds the fleet's mode.
        let items = self.leases() + u32::from(self.is_split) + self.workers + 1;
        let look = 0.5 * (f64::from(items) * ITEM / 4096.0).ceil();
        f64::from(self.workers) * (look + 0.5 + 2.0 * 2.0 * look / 45.0) + self.mode_reads()
    }

    /// Reads per second of the fleet's mode: each worker reads it each 48 s at the soonest.
    fn mode_reads(&self) -> f64 {
        f64::from(self.workers) * (COUNTED.as_secs_f64() / 48.0).ceil() / COUNTED.as_secs_f64()
    }
}

/// Bytes of an item.
const ITEM: f64 = 400.0;

#[tokio::test(start_paused = true)]
async fn a_lease_costs_no_more_than_its_bar() {
    let mut measured = Vec::new();
    println!("{:38} | {:^27} | {:^27} |", "units per lease-hour", "writes", "reads");
    println!(
        "{:38} | {:>7} {:>9} {:>9} | {:>7} {:>9} {:>9} |",
        "", "ours", "bar", "Java*", "ours", "bar", "Java*"
    );
    for scenario in SCENARIOS {
        let spent = scenario.measure().await;
        // Where the library checkpoints, a Java processor would do it each interval.
        let checkpoints = match scenario.checkpoint {
            CheckpointPolicy::Interval(interval) => {
                f64::from(scenario.shards) / interval.as_secs_f64()
            }
            _ => spent.checkpoints,
        };
        let (java_writes, java_reads) = scenario.java(checkpoints);
        let hour = |rate: f64| (rate * 3600.0 / f64::from(scenario.leases())).round();
        println!(
            "{:38} | {:>7} {:>9} {:>9} | {:>7} {:>9} {:>9} |",
            scenario.name,
            hour(spent.write_units),
            hour(scenario.most_writes(spent.checkpoints)),
            hour(java_writes),
            hour(spent.read_units),
            hour(scenario.most_reads()),
            hour(java_reads),
        );
        measured.push((scenario, spent));
    }
    println!("* by the formula of its constants");
    let idle = measured[0].1.write_units;
    for (scenario, spent) in measured {
        let what = format!("{}: {spent:?}", scenario.name);
        let leases = f64::from(scenario.leases());
        match scenario.records {
            Some(every) if scenario.checkpoint == CheckpointPolicy::Manual => {
                let expected = leases / every.as_secs_f64();
                let share = spent.checkpoints / expected;
                assert!((0.95..=1.05).contains(&share), "{what}");
            }
            Some(_) => {
                let more = spent.write_units - idle;
                assert!(more.abs() < 0.01, "progress rides for nothing: {what}");
            }
            None => {
                assert_eq!(spent.checkpoints, 0.0, "{what}");
                assert!(spent.write_units >= 0.19 * leases, "{what}");
            }
        }
        let most = scenario.most_writes(spent.checkpoints);
        assert!(spent.write_units <= most, "{what}: {most}");
        assert_eq!(spent.writes, spent.write_units, "each write is one unit: {what}");
        let most = scenario.most_reads();
        assert!(spent.read_units <= most, "{what}: {most}");
        let most = scenario.mode_reads();
        assert!(spent.single_reads <= most, "no lease is read again: {what}");
    }
}
