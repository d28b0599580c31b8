//! The consumers: a record processor that counts, and the workers that run it.

use std::sync::Arc;

use indicatif::ProgressBar;
use kcl::{
    ConsumerConfig, ProcessorError, RecordBatch, RecordProcessor, Scheduler, ShardContext,
    ShardEnd, Shutdown, WorkerHandle,
};
use kinesis_testkit::{Delivery, Position};

use crate::args::Args;
use crate::input;
use crate::tally::Tally;
use crate::target::{Error, Target};

/// Counts the records of one shard.
struct Counter {
    run: Arc<str>,
    worker: u16,
    shard: String,
    ownership: u64,
    tally: Arc<Tally>,
    bar: ProgressBar,
}

impl RecordProcessor for Counter {
    async fn initialize(&mut self, _shard: &ShardContext) -> Result<(), ProcessorError> {
        self.ownership = self.tally.shard_started(self.worker, &self.shard);
        Ok(())
    }

    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        let mut bytes = 0;
        let mut ours = 0;
        let records = batch.records().filter_map(|record| {
            let id = input::id_of(&self.run, record.data())?;
            bytes += record.data().len() as u64;
            ours += 1;
            let position = Position {
                sequence_number: record.sequence_number().to_string(),
                sub_sequence_number: record.sub_sequence_number(),
            };
            Some(Delivery { ownership: self.ownership, id, key: record.partition_key()?, position })
        });
        let records: Vec<_> = records.collect();
        self.tally.delivered(self.worker, &self.shard, bytes, records.into_iter());
        self.bar.inc(ours);
        batch.checkpointer().checkpoint().await?;
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        self.tally.shard_ended(self.worker, &self.shard);
        end.checkpoint().await?;
        Ok(())
    }

    async fn shutdown_requested(&mut self, _shutdown: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(()) // each batch was checkpointed when it was counted
    }
}

/// Starts the workers, each as if on a machine of its own.
pub(crate) async fn start_workers(
    args: &Args,
    target: &Target,
    application: &str,
    run: &Arc<str>,
    tally: &Arc<Tally>,
    bar: &ProgressBar,
) -> Result<Vec<WorkerHandle>, Error> {
    let mut workers = Vec::new();
    for worker in 1..=args.workers {
        let config = ConsumerConfig::default()
            .with_worker_id(format!("worker-{worker}"))
            .with_initial_position(target.initial_position());
        let (run, tally, bar) = (Arc::clone(run), Arc::clone(tally), bar.clone());
        let scheduler = Scheduler::builder(application, &target.stream, &target.kinesis_config)
            .dynamodb_config(&target.dynamodb_config)
            .processor(move |shard: &ShardContext| Counter {
                run: Arc::clone(&run),
                worker,
                shard: shard.shard_id().to_owned(),
                ownership: 0,
                tally: Arc::clone(&tally),
                bar: bar.clone(),
            })
            .config(config)
            .build()
            .await?;
        workers.push(scheduler.spawn());
    }
    Ok(workers)
}
