//! The doubles follow the rules of production.

use super::*;
use crate::sequence::ExtendedSequenceNumber;

type Act = Box<dyn FnMut(&RecordBatch<'_>) -> usize + Send>;

/// Checkpoints as many records of each batch as the test says, then fails if there are more.
struct Partial {
    act: Act,
    attempts: Vec<u32>,
}

impl Partial {
    fn new(act: impl FnMut(&RecordBatch<'_>) -> usize + Send + 'static) -> Self {
        Self { act: Box::new(act), attempts: Vec::new() }
    }
}

impl RecordProcessor for Partial {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        self.attempts.push(batch.attempt());
        let done = (self.act)(&batch);
        if let Some(last) = batch.records().take(done).last() {
            batch.checkpointer().checkpoint_at(&last).await?;
        }
        if done < batch.len() {
            return Err("not all".into());
        }
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
        let state = Some(Bytes::from_static(b"state"));
        let prepared = last.checkpointer().prepare(state).await?;
        assert!(prepared.position().is_some());
        Ok(())
    }
}

fn records(count: usize) -> impl Iterator<Item = TestRecord> {
    (0..count).map(|nth| TestRecord::new("key", format!("data-{nth}")))
}

fn at(sequence: u64, sub: u64) -> Checkpoint {
    let number = sequence.to_string().parse().unwrap();
    Checkpoint::At(ExtendedSequenceNumber::new(number, sub))
}

#[tokio::test]
async fn a_batch_comes_again_behind_its_checkpoint_also_within_an_aggregate() {
    let mut shard = TestShard::new();
    let mut processor = Partial::new(|batch| if batch.attempt() == 1 { 4 } else { batch.len() });
    let aggregate = TestRecord::aggregate(records(3));
    let mut batch = shard.batch(records(2).chain([aggregate]).chain(records(1)));
    assert_eq!(batch.len(), 6);
    let failed = shard.process_records(&mut processor, &mut batch).await;
    assert!(failed.is_err());
    assert_eq!(shard.checkpoint(), at(3, 1));
    let view = shard.deliver(&mut batch);
    let left: Vec<_> = view.records().map(|record| record.position()).collect();
    assert_eq!(left.len(), 2);
    assert_eq!(Checkpoint::At(left[0].clone()), at(3, 2));
    assert_eq!(Checkpoint::At(left[1].clone()), at(4, 0));
    shard.process_records(&mut processor, &mut batch).await.unwrap();
    assert_eq!(processor.attempts, [1, 3], "one was delivered by hand");
    assert_eq!(shard.checkpoints(), [at(3, 1), at(4, 0)]);
}

#[tokio::test]
async fn what_is_checkpointed_whole_is_done_although_the_call_failed() {
    let mut shard = TestShard::new();
    let mut batch = shard.batch(records(2));
    let view = shard.deliver(&mut batch);
    view.checkpointer().checkpoint().await.unwrap();
    let mut processor = Partial::new(|_| 0);
    let failed = shard.process_records(&mut processor, &mut batch).await;
    assert!(failed.is_err() && batch.is_empty());
    let mut fresh = shard.batch(records(2));
    let mut processor = Fails;
    assert!(shard.process_records(&mut processor, &mut fresh).await.is_err());
    assert!(fresh.is_empty());
    shard.process_records(&mut processor, &mut fresh).await.unwrap();
}

/// Checkpoints all, then fails.
struct Fails;

impl RecordProcessor for Fails {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        batch.checkpointer().checkpoint().await?;
        Err("afterwards".into())
    }
    async fn shard_ended(&mut self, _: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

#[tokio::test]
async fn checkpoints_fail_as_told_and_the_rules_hold() {
    let mut shard = TestShard::builder()
        .shard_id("shardId-000000000007")
        .checkpoint(at(5, 0))
        .pending(at(9, 0), None)
        .build();
    assert_eq!(shard.context().shard_id(), "shardId-000000000007");
    assert_eq!(shard.context().pending_checkpoint(), Some(&at(9, 0)));
    let record = records(1).next().unwrap();
    let mut batch = shard.batch([record.with_sequence_number("20".parse().unwrap())]);
    shard.fail_next_checkpoint(CheckpointError::Throttled {
        shard_id: "shardId-000000000007".into(),
        source: Arc::new(std::io::Error::other("too fast")),
    });
    let view = shard.deliver(&mut batch);
    let checkpointer = view.checkpointer();
    let error = checkpointer.checkpoint().await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let four = "4".parse().unwrap();
    let behind = checkpointer.checkpoint_at_position(&four, 0);
    let error = behind.await.unwrap_err();
    assert!(matches!(error, CheckpointError::OutOfRange { .. }), "{error:?}");
    checkpointer.checkpoint().await.unwrap();
    assert_eq!((shard.checkpoint(), shard.pending()), (at(20, 0), None));
    let next = shard.batch(records(1));
    assert_eq!(next.batch.span().unwrap().0.sequence_number.as_str(), "21");
}

#[tokio::test]
async fn each_call_and_each_token_reaches_the_processor() {
    let mut shard = TestShard::new();
    let mut processor = Partial::new(|batch| {
        assert!(batch.shutdown_token().is_cancelled());
        assert!(!batch.cancellation().is_cancelled());
        batch.len()
    });
    let mut batch = shard.batch(records(1));
    shard.request_shutdown();
    shard.process_records(&mut processor, &mut batch).await.unwrap();
    let mut unwritten = shard.batch(records(1));
    assert_eq!(shard.deliver(&mut unwritten).len(), 1);
    shard.shutdown_requested(&mut processor).await.unwrap();
    let state = Some(Bytes::from_static(b"state"));
    assert_eq!(shard.pending(), Some((at(2, 0), state)));
    shard.shard_ended(&mut processor).await.unwrap();
    assert_eq!(shard.checkpoint(), Checkpoint::ShardEnd);
    shard.lease_lost(&mut processor).await;
    let refused = shard.checkpointer().prepare(None).await;
    assert!(refused.is_ok(), "nothing is new behind the end");
}
