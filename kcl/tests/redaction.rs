//! No log line, error text or debug output holds payload, keys or application state: a run full of
//! faults, with marks planted in all of them. One test, since the subscriber is that of the process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::error::Error;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use bytes::Bytes;
use kcl::{
    ConsumerConfig, InitialPosition, ProcessorError, RecordBatch, RecordProcessor, Scheduler,
    ShardContext, ShardEnd, Shutdown, WorkerHandle,
};
use kinesis_aggregation::{AggregateBuilder, Compressor};
use kinesis_testkit::{Fault, FaultKind, LocalAws, Service};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const STREAM: &str = "orders";
const APPLICATION: &str = "billing";
/// Begins every payload, partition key and state; 15 bytes, so that base64 shows it whole.
const MARK: &str = "PLANTED-SECRET-";
const DEADLINE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps all that our crates log, at every level.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<String>>);

impl Capture {
    fn note(&self, text: &str) {
        let mut all = self.0.lock().unwrap();
        all.push_str(text);
        all.push('\n');
    }

    fn see(&self, what: impl Debug) {
        self.note(&format!("{what:?}"));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        target.starts_with("kcl") || target.starts_with("kinesis_aggregation")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(String::new());
        span.record(&mut line);
        self.note(&line.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        self.note(&line.0);
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.note(&line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Shows all it gets by `Debug`, and fails in each way before it takes a batch.
struct Clumsy {
    seen: Capture,
    calls: Arc<AtomicU64>,
    delivered: Arc<AtomicU64>,
}

impl RecordProcessor for Clumsy {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        self.seen.see(batch);
        self.seen.see(batch.records());
        batch.records().for_each(|record| self.seen.see(record));
        match self.calls.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => return Err("the sink is away".into()),
            1 => panic!("the sink is broken"),
            _ => {}
        }
        let last = batch.records().last().unwrap();
        let state = Bytes::from(format!("{MARK}state"));
        let prepared = batch.checkpointer().prepare_at(&last, Some(state)).await;
        match prepared {
            Ok(prepared) => {
                self.seen.see(&prepared);
                if let Err(error) = prepared.commit().await {
                    self.seen.see(&error);
                    return Err(error.into());
                }
            }
            Err(error) => {
                self.seen.see(&error);
                return Err(error.into());
            }
        }
        self.delivered.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(last.checkpointer().checkpoint().await?)
    }
}

async fn put(aws: &LocalAws, from: u32) {
    let client = aws.kinesis();
    let key = |number: u32| format!("{MARK}{number}");
    for number in from..from + 10 {
        let request = client.put_record().stream_name(STREAM);
        let request = request.partition_key(key(number));
        let data = Blob::new(format!("{MARK}payload {number}"));
        request.data(data).send().await.unwrap();
    }
    let mut aggregate = AggregateBuilder::new(1 << 16);
    for number in 0..10 {
        let data = format!("{MARK}member {number}");
        aggregate.push(&key(number), None, data.as_bytes()).unwrap();
    }
    let aggregate = aggregate.seal().into_bytes();
    let mut broken_aggregate = aggregate.to_vec();
    let middle = broken_aggregate.len() / 2;
    broken_aggregate[middle] ^= 0x55;
    let mut frames = vec![Bytes::from(broken_aggregate)];
    let mut compressor = Compressor::new(3).unwrap();
    if let Some(frame) = compressor.compress(&aggregate_of(from)).unwrap() {
        let mut broken = frame.to_vec();
        *broken.last_mut().unwrap() ^= 1;
        frames.extend([frame, Bytes::from(broken)]);
    }
    frames.push(aggregate);
    for data in frames {
        let request = client.put_record().stream_name(STREAM);
        let request = request.partition_key(format!("{MARK}frame"));
        let data = Blob::from_maybe_shared(data);
        request.data(data).send().await.unwrap();
    }
}

fn aggregate_of(from: u32) -> kinesis_aggregation::UndigestedAggregate {
    let mut aggregate = AggregateBuilder::new(1 << 16);
    for number in from..from + 100 {
        let data = format!("{MARK}member {number}");
        aggregate.push(&format!("{MARK}{number}"), None, data.as_bytes()).unwrap();
    }
    aggregate.seal_without_digest()
}

async fn until(what: &str, worker: &WorkerHandle, seen: &Capture, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            seen.see(worker.snapshot());
            seen.see(worker.lease_table());
            let health = worker.health();
            seen.see(&health);
            seen.note(&health.to_string());
            for shard in 0..2 {
                let why = worker.why_not_running(&format!("shardId-00000000000{shard}"));
                seen.see(&why);
                seen.note(&why.map(|why| why.to_string()).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "waited in vain: {what}");
}

fn with_causes(seen: &Capture, error: &(dyn Error + 'static)) {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    for error in causes {
        seen.note(&format!("{error} {error:?}"));
    }
}

#[tokio::test]
async fn nothing_planted_is_found_in_logs_errors_or_debug_output() {
    let logs = Capture::default();
    tracing::subscriber::set_global_default(logs.clone()).unwrap();
    let seen = Capture::default();
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, 2).await.unwrap();
    put(&aws, 0).await;
    let (calls, delivered) = (Arc::default(), Arc::new(AtomicU64::new(0)));
    let (capture, count) = (seen.clone(), Arc::clone(&delivered));
    let build = |startup_timeout| {
        let (calls, seen, delivered) = (Arc::clone(&calls), capture.clone(), Arc::clone(&count));
        let config = ConsumerConfig::default()
            .with_initial_position(InitialPosition::TrimHorizon)
            .with_startup_timeout(startup_timeout)
            .with_failover_time(Duration::from_secs(3))
            .with_dynamodb_request_timeout(Duration::from_millis(500))
            .with_kinesis_request_timeout(Duration::from_millis(500))
            .with_idle_time_between_reads(Duration::from_millis(200))
            .with_retry_initial_delay(Duration::from_millis(5))
            .with_retry_max_delay(Duration::from_millis(50));
        Scheduler::builder(APPLICATION, STREAM, &aws.sdk_config())
            .processor(move |_: &ShardContext| Clumsy {
                seen: seen.clone(),
                calls: Arc::clone(&calls),
                delivered: Arc::clone(&delivered),
            })
            .config(config)
            .build()
    };
    for operation in ["DescribeStreamSummary", "ListShards", "DescribeTable", "Scan"] {
        let broken = [Fault::garbled_response(), Fault::refuse("AccessDeniedException")];
        for fault in broken {
            let fault = aws.faults().add(fault.operation(operation).lasting(PATIENCE));
            if let Ok(Err(error)) =
                tokio::time::timeout(Duration::from_secs(1), build(Duration::from_millis(200)))
                    .await
            {
                with_causes(&seen, &error);
            }
            aws.faults().remove(fault);
        }
    }
    let worker = build(PATIENCE).await.unwrap().spawn();
    let item = aws.dynamodb().put_item().table_name(APPLICATION);
    item.item("leaseKey", AttributeValue::S("shardId-000000000009".into()))
        .item("checkpoint", AttributeValue::S(format!("{MARK}checkpoint")))
        .item("leaseCounter", AttributeValue::S(format!("{MARK}counter")))
        .item("pendingCheckpointState", AttributeValue::S(format!("{MARK}state")))
        .send()
        .await
        .unwrap();
    until("the first records", &worker, &seen, || delivered.load(Ordering::Relaxed) > 20).await;
    let refuse = |code: &str| FaultKind::Refuse { code: code.to_owned() };
    for kind in [
        FaultKind::CutResponse,
        FaultKind::GarbledResponse,
        FaultKind::CutConnection,
        FaultKind::InternalFailure,
        FaultKind::Delay(Duration::from_secs(1)),
        FaultKind::Throttle,
        refuse("AccessDeniedException"),
        refuse("InvalidArgumentException"),
        refuse("ExpiredIteratorException"),
    ] {
        let fault = Fault::new(kind.clone());
        let faults = aws.faults();
        let reads = faults.add(fault.clone().operation("GetRecords").times(2));
        let iterators = faults.add(fault.clone().operation("GetShardIterator").times(1));
        // Each of these may cost the lease, and seconds: three kinds tell enough.
        let kinds =
            [FaultKind::CutResponse, FaultKind::GarbledResponse, FaultKind::InternalFailure];
        let on_writes = kinds.contains(&kind);
        let writes = fault.service(Service::DynamoDb).times(if on_writes { 2 } else { 0 });
        let writes = faults.add(writes);
        let before = delivered.load(Ordering::Relaxed);
        put(&aws, 1000).await;
        until("records after a fault", &worker, &seen, || {
            delivered.load(Ordering::Relaxed) >= before + 10
        })
        .await;
        aws.faults().remove(reads);
        aws.faults().remove(iterators);
        aws.faults().remove(writes);
    }
    seen.see(worker.shutdown(DEADLINE).await);

    let (logs, seen) = (logs.0.lock().unwrap(), seen.0.lock().unwrap());
    assert!(logs.contains("a read failed"), "the run had its faults");
    assert!(logs.contains("the processor failed"), "and the processor its own");
    for (name, text) in [("logs", &*logs), ("texts", &*seen)] {
        for form in [
            MARK.to_owned(),
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, MARK),
            format!("{:?}", MARK.as_bytes()).trim_matches(['[', ']']).to_owned(),
        ] {
            if let Some(at) = text.find(&form) {
                let line = text[..at].lines().count();
                panic!("{name} hold {form}: {:?}", text.lines().nth(line.saturating_sub(1)));
            }
        }
    }
}
