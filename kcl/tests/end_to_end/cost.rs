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
use kcl::{ProcessorError, RecordBatch, RecordProcessor, ShardContext, ShardEnd, Shutdown};
use tokio::time::sleep;

use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{STREAM, processing};

const SHARDS: u32 = 4;
const SECOND: Duration = Duration::from_secs(1);
/// For how long is counted.
const COUNTED: Duration = Duration::from_secs(120);

/// What was sent, by operation: requests and capacity units.
#[derive(Debug, Clone, Default)]
struct CostMeter(Arc<Mutex<BTreeMap<&'static str, (u64, f64)>>>);

const READS: [&str; 3] = ["GetItem", "Query", "Scan"];

impl CostMeter {
    /// Requests and units of reads, or of writes, so far.
    fn so_far(&self, reads: bool) -> (u64, f64) {
        let counts = self.0.lock().unwrap();
        let counts = counts.iter().filter(|(op, _)| READS.contains(op) == reads);
        counts.fold((0, 0.0), |sum, (_, count)| {
            (sum.0 + count.0, sum.1 + count.1)
        })
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

/// Checkpoints each batch, and counts.
struct Checkpoints(Arc<Mutex<u64>>);

impl RecordProcessor for Checkpoints {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        batch.checkpointer().checkpoint().await?;
        *self.0.lock().unwrap() += 1;
        Ok(())
    }
    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }
    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// Per lease and second.
#[derive(Debug)]
struct Cost {
    checkpoints: f64,
    writes: f64,
    write_units: f64,
    reads: f64,
    read_units: f64,
}

/// Runs one worker on four shards, with a record for each shard every so often.
async fn measure(every: Option<Duration>) -> Cost {
    let paused = Paused::start(SHARDS).await;
    let meter = CostMeter::default();
    let dynamodb = aws_sdk_dynamodb::config::Builder::from(&paused.aws.in_process_config())
        .behavior_version(BehaviorVersion::v2026_01_12())
        .interceptor(meter.clone());
    let checkpoints = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&checkpoints);
    let config = config("w1").with_idle_time_between_reads(SECOND);
    let worker = paused
        .builder(&Probe::new(), config)
        .dynamodb_client(Client::from_conf(dynamodb.build()))
        .processor(move |_: &ShardContext| Checkpoints(Arc::clone(&counter)))
        .build()
        .await
        .unwrap()
        .spawn();
    while processing(&worker) < SHARDS as usize {
        sleep(SECOND).await;
    }
    // Until it looks at its leisure, and has written its first checkpoints.
    let kinesis = aws_sdk_kinesis::Client::new(&paused.aws.in_process_config());
    let put = async || {
        for shard in 0..u128::from(SHARDS) {
            let hash_key = (u128::MAX / u128::from(SHARDS)) * shard + 1_000;
            let request = kinesis.put_record().stream_name(STREAM).partition_key("k");
            let request = request.explicit_hash_key(hash_key.to_string());
            request.data(Blob::new("x")).send().await.unwrap();
        }
    };
    let work = async |lasting: Duration| {
        let until = paused.now() + lasting;
        while paused.now() < until {
            if every.is_some() {
                put().await;
            }
            sleep(every.unwrap_or(SECOND)).await;
        }
    };
    work(20 * SECOND).await;
    let so_far = || {
        let done = *checkpoints.lock().unwrap();
        (done, meter.so_far(false), meter.so_far(true))
    };
    let (began, before) = (paused.now(), so_far());
    work(COUNTED).await;
    let after = so_far();
    let lease_seconds = (paused.now() - began).as_secs_f64() * f64::from(SHARDS);
    worker.shutdown(20 * SECOND).await.unwrap();
    let rate = |before: u64, after: u64| (after - before) as f64 / lease_seconds;
    Cost {
        checkpoints: rate(before.0, after.0),
        writes: rate(before.1.0, after.1.0),
        write_units: (after.1.1 - before.1.1) / lease_seconds,
        reads: rate(before.2.0, after.2.0),
        read_units: (after.2.1 - before.2.1) / lease_seconds,
    }
}

/// The Java library's units per lease and second, derived from its constants: `n` leases and `w`
/// workers, failover time 10 s, `k` checkpoints per lease and second. Writes: a renewal each third of
/// the failover time, whatever else was written; checkpoints; rows and the leader's heartbeat. Reads:
/// the leader's scans of leases and rows each 20 s, its audit each 120 s, and discovery each 10 s.
fn java(n: f64, w: f64, k: f64) -> (f64, f64) {
    let (item, row, key) = (400.0, 600.0, 60.0);
    let scan = |bytes: f64| f64::max(0.5, bytes / 8192.0);
    let writes = n / (10.0 / 3.0 - 0.025) + n * k + w / 30.0 + 1.0 / 30.0;
    let reads = scan(n * item) / 20.0
        + scan(w * row) / 20.0
        + scan(n * item) / 120.0
        + w * scan(n / w * key) / 9.975;
    (writes / n, reads / n)
}

fn report(what: &str, cost: &Cost) {
    let (java_writes, java_reads) = java(f64::from(SHARDS), 1.0, cost.checkpoints);
    let hour = 3600.0;
    println!(
        "{what}: per lease-hour {:.0} checkpoints; write units {:.0} (Java by formula {:.0}); \
         read units {:.0} (Java {:.0}); requests {:.0} writes, {:.0} reads",
        cost.checkpoints * hour,
        cost.write_units * hour,
        java_writes * hour,
        cost.read_units * hour,
        java_reads * hour,
        cost.writes * hour,
        cost.reads * hour,
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_lease_is_renewed_and_no_more() {
    let cost = measure(None).await;
    report("idle", &cost);
    assert_eq!(cost.checkpoints, 0.0);
    assert!((0.19..=0.22).contains(&cost.write_units), "{cost:?}");
    assert_eq!(cost.writes, cost.write_units, "each write is one unit");
}

#[tokio::test(start_paused = true)]
async fn checkpoints_take_the_place_of_renewals() {
    for every in [SECOND, 4 * SECOND] {
        let cost = measure(Some(every)).await;
        report(&format!("a record each {every:?}"), &cost);
        let rate = 1.0 / every.as_secs_f64();
        assert!(
            (0.95 * rate..=1.05 * rate).contains(&cost.checkpoints),
            "{cost:?}"
        );
        assert!(cost.write_units <= 1.1 * cost.checkpoints, "{cost:?}");
        assert_eq!(cost.writes, cost.write_units, "each write is one unit");
    }
}
