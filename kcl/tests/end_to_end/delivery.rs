//! What arrives at a processor: plain and compressed aggregates, and the records behind a checkpoint.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kcl::{
    InitialPosition, ProcessorError, RecordBatch, RecordProcessor, Scheduler, ShardContext,
    ShardEnd, Shutdown,
};
use kinesis_aggregation::{AggregateBuilder, Compressor, UndigestedAggregate};
use kinesis_testkit::{LocalAws, ManualClock};

use crate::probe::Probe;
use crate::setup::{
    APPLICATION, STREAM, aws, config, key, payload, processing, put, put_raw, scheduler, until,
    worker,
};

const DEADLINE: Duration = Duration::from_secs(20);

fn aggregate(ids: std::ops::Range<u64>) -> UndigestedAggregate {
    let mut builder = AggregateBuilder::new(1 << 20);
    for id in ids {
        builder.push(&key(id), None, payload(id).as_bytes()).unwrap();
    }
    builder.seal_without_digest()
}

#[tokio::test]
async fn aggregated_and_compressed_records_come_taken_apart_and_in_order() {
    let aws = aws(1).await;
    let probe = Probe::new();
    put_raw(&aws, "a", aggregate(0..100).add_digest().into_bytes()).await;
    let compressed = Compressor::new(3).unwrap().compress(&aggregate(100..300)).unwrap().unwrap();
    put_raw(&aws, "a", compressed.clone()).await;
    let mut broken = compressed.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    put_raw(&aws, "broken", Bytes::from(broken.clone())).await;
    probe.acknowledged(0..300);
    put(&aws, &probe, 300..320).await;
    let worker = worker(&aws, &probe, config("w1")).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    let seen = probe.seen();
    assert_eq!(seen.len(), 321);
    for (index, seen) in seen.iter().enumerate().take(300) {
        let id = index as u64;
        assert_eq!(
            (seen.key.clone(), seen.data.clone()),
            (Some(key(id)), payload(id).into_bytes())
        );
        assert_eq!(seen.sub_sequence_number, if id < 100 { id } else { id - 100 });
        assert!(!seen.frame_error);
    }
    assert_eq!((&seen[300].data, seen[300].frame_error), (&broken, true), "never skipped");
    until("it is counted", || worker.snapshot().frame_errors == 1).await;
    worker.shutdown(DEADLINE).await.unwrap();
    assert_eq!(worker.snapshot().records_delivered, 321);
}

/// Checkpoints one record inside an aggregate, with or without the two phases, and no more.
struct StopsAt {
    id: u64,
    prepared: bool,
    done: Arc<Mutex<Vec<String>>>,
}

impl RecordProcessor for StopsAt {
    async fn initialize(&mut self, shard: &ShardContext) -> Result<(), ProcessorError> {
        let state = shard.pending_state().map(|state| String::from_utf8(state.to_vec()).unwrap());
        self.done.lock().unwrap().push(format!("pending {state:?}"));
        Ok(())
    }

    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        for record in batch.records() {
            if crate::setup::id_of(record.data()) != Some(self.id) {
                continue;
            }
            batch.checkpointer().checkpoint_at(&record).await?;
            if self.prepared {
                // The second phase never comes.
                let state = Some(Bytes::from_static(b"half done"));
                let _ = batch.checkpointer().prepare(state).await?;
            }
            let last = batch.records().last().expect("a batch is never empty").position();
            let beyond = last.sub_sequence_number + 1;
            for (number, sub) in [(&last.sequence_number, beyond), (&record.sequence_number(), 0)] {
                let refused = batch.checkpointer().checkpoint_at_position(number, sub).await;
                assert!(matches!(refused, Err(kcl::CheckpointError::OutOfRange { .. })));
            }
            self.done.lock().unwrap().push("checkpointed".into());
        }
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, _last: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_restart_goes_on_inside_the_aggregate() {
    let aws = aws(1).await;
    put_raw(&aws, "a", aggregate(0..10).add_digest().into_bytes()).await;
    put_raw(&aws, "a", aggregate(10..20).add_digest().into_bytes()).await;
    let done = Arc::new(Mutex::new(Vec::new()));
    for (id, prepared) in [(3, true), (14, false)] {
        let told = Arc::clone(&done);
        let handle = Scheduler::builder(APPLICATION, STREAM, &aws.sdk_config())
            .processor(move |_: &ShardContext| StopsAt { id, prepared, done: Arc::clone(&told) })
            .config(config("w1"))
            .build()
            .await
            .unwrap()
            .spawn();
        let before = done.lock().unwrap().len();
        until("the checkpoint", || done.lock().unwrap().len() == before + 2).await;
        handle.shutdown(DEADLINE).await.unwrap();
    }
    let expected = ["pending None", "checkpointed", "pending Some(\"half done\")", "checkpointed"];
    assert_eq!(*done.lock().unwrap(), expected);

    let probe = Probe::new();
    probe.acknowledged(15..20);
    let worker = worker(&aws, &probe, config("w1")).await;
    until("the rest", || probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    let seen: Vec<_> = probe.seen().into_iter().map(|seen| seen.sub_sequence_number).collect();
    assert_eq!(seen, [5, 6, 7, 8, 9], "the members behind the checkpoint, and only those");
}

#[tokio::test]
async fn latest_sees_all_that_was_put_after_build() {
    // The worker takes the time from the service's answers, to the second.
    let hour = Duration::from_secs(3600);
    #[allow(clippy::disallowed_methods, reason = "answers carry the real date")]
    let clock = ManualClock::new(SystemTime::now() - hour);
    let aws = LocalAws::builder().clock(clock.clone()).build().await.unwrap();
    aws.create_stream(STREAM, 2).await.unwrap();
    put(&aws, &Probe::new(), 0..100).await;
    clock.advance(2 * hour);
    let probe = Probe::new();
    let settings = config("w1").with_initial_position(InitialPosition::Latest);
    let scheduler = scheduler(&aws, &probe, settings).await;
    put(&aws, &probe, 100..200).await;
    let worker = scheduler.spawn();
    until("all records", || probe.is_settled()).await;
    put(&aws, &probe, 200..300).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    assert_eq!(probe.verdict().delivered, 200);
    until("both shards", || processing(&worker) == 2).await;
    worker.shutdown(DEADLINE).await.unwrap();
}
