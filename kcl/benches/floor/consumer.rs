//! The consumer's side: a whole worker, with its leases in DynamoDB.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kcl::{
    ConsumerConfig, InitialPosition, ProcessorError, RecordBatch, RecordProcessor, Scheduler,
    ShardContext, ShardEnd, Shutdown, Wire,
};
use kinesis_benchmark::Error;
use kinesis_benchmark::process::{Endpoint, report};
use kinesis_benchmark::sdk::sdk_config;
use kinesis_benchmark::usage::{Begun, Used};
use kinesis_testkit::LocalAws;
use tokio::sync::watch;

use crate::Touched;
use crate::source::Contents;

/// Serves the lease table until the process is killed.
pub(crate) async fn serve_leases() -> Result<(), Error> {
    let aws = LocalAws::start().await?;
    report(&Endpoint { url: aws.dynamodb_url().to_owned(), certificate: None })?;
    std::future::pending().await
}

/// What the processors of all shards share.
struct Shared {
    /// When the first processor was created, which is before the first read.
    begun: Mutex<Option<Begun>>,
    touched: Mutex<Touched>,
    delivered: watch::Sender<u64>,
}

struct Processor {
    shared: Arc<Shared>,
}

impl RecordProcessor for Processor {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        let mut touched = Touched::default();
        for record in batch.records() {
            touched.record(record.partition_key().unwrap_or_default(), record.data());
        }
        let delivered = {
            let mut all = self.shared.touched.lock().unwrap_or_else(PoisonError::into_inner);
            all.add(touched);
            all.records
        };
        batch.checkpointer().checkpoint().await?;
        self.shared.delivered.send_replace(delivered);
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(last.checkpointer().checkpoint().await?)
    }
}

pub(crate) async fn run(
    contents: Contents,
    wire: Wire,
    source: &Endpoint,
    leases: &Endpoint,
) -> Result<Used, Error> {
    let config = ConsumerConfig::default().with_initial_position(InitialPosition::TrimHorizon);
    let (delivered, mut all_delivered) = watch::channel(0);
    let shared = Arc::new(Shared {
        begun: Mutex::new(None),
        touched: Mutex::new(Touched::default()),
        delivered,
    });
    let of_factory = Arc::clone(&shared);
    let scheduler = Scheduler::builder("benchmark", "benchmark", &sdk_config(source)?)
        .dynamodb_config(&sdk_config(leases)?)
        .processor(move |_: &ShardContext| {
            let mut begun = of_factory.begun.lock().unwrap_or_else(PoisonError::into_inner);
            begun.get_or_insert_with(Begun::now);
            Processor { shared: Arc::clone(&of_factory) }
        })
        .config(config.with_wire(wire))
        .build()
        .await?;
    let worker = scheduler.spawn();
    tokio::select! {
        done = all_delivered.wait_for(|delivered| *delivered >= contents.user_records()) => drop(done?),
        ended = worker.join() => return Err(format!("the worker ended: {ended:?}").into()),
    }
    let begun = shared.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
    let used = begun.ok_or("no processor was created")?.used()?;
    worker.shutdown(Duration::from_secs(10)).await?;
    shared.touched.lock().unwrap_or_else(PoisonError::into_inner).check(contents)?;
    Ok(used)
}
