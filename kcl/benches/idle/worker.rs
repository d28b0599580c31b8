//! The worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kcl::{
    ConsumerConfig, ProcessorError, RecordBatch, RecordProcessor, Scheduler, ShardContext,
    ShardEnd, ShardState, Shutdown,
};
use kinesis_benchmark::{Error, sdk, usage};

use crate::calls::Calls;
use crate::{Load, STREAM, Used, watch};

/// A processor that gets no record.
struct Idle {
    lost: Arc<AtomicU64>,
}

impl RecordProcessor for Idle {
    async fn process_records(&mut self, _: RecordBatch<'_>) -> Result<(), ProcessorError> {
        Err("the stream has no records".into())
    }

    async fn shard_ended(&mut self, _: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Err("no shard ends".into())
    }

    async fn lease_lost(&mut self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

pub(crate) async fn run(load: Load, application: &str, is_saturated: bool) -> Result<Used, Error> {
    let memory = usage::resident_bytes()?;
    let lost = Arc::new(AtomicU64::new(0));
    let config = ConsumerConfig::default()
        .with_idle_time_between_reads(load.idle)
        .with_failover_time(load.failover_time);
    let calls = Calls::new(load.failover_time);
    let sdk = sdk::sdk_config(&load.server)?;
    let kinesis = aws_sdk_kinesis::config::Builder::from(&sdk).interceptor(calls.clone());
    let dynamodb = aws_sdk_dynamodb::config::Builder::from(&sdk).interceptor(calls.clone());
    let counter = Arc::clone(&lost);
    let scheduler = Scheduler::builder(application, STREAM, &sdk)
        .kinesis_client(aws_sdk_kinesis::Client::from_conf(kinesis.build()))
        .dynamodb_client(aws_sdk_dynamodb::Client::from_conf(dynamodb.build()))
        .processor(move |_: &ShardContext| Idle { lost: Arc::clone(&counter) })
        .config(config)
        .build()
        .await?;
    let worker = scheduler.spawn();
    let running = || {
        let shards = worker.snapshot().shards;
        shards.iter().filter(|shard| shard.state == ShardState::Processing).count() as u64
    };
    while running() < u64::from(load.shards) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if is_saturated {
        for _ in 0..std::thread::available_parallelism()?.get() {
            tokio::spawn(compute());
        }
    }
    let mut used = watch(&load, memory, &calls).await?;
    // A lease that was lost may have been acquired again.
    used.lost = lost.load(Ordering::Relaxed).max(u64::from(load.shards) - running());
    worker.abort();
    Ok(used)
}

/// User code that computes without end, and lets other tasks of its thread run now and then.
async fn compute() {
    let mut state = 1_u64;
    loop {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(10) {
            for _ in 0..1000 {
                state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005) + 1);
            }
        }
        tokio::task::yield_now().await;
    }
}
