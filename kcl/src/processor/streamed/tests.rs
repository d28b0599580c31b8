//! One shard in memory, and an application that takes its batches.

use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::processor::offer::{NOT_ACKNOWLEDGED, NOT_TAKEN, STREAM_DROPPED};
use crate::testing::{TestBatch, TestRecord, TestShard};

const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    shard: TestShard,
    processor: StreamProcessor,
    offers: mpsc::Receiver<Offer<OwnedBatch>>,
}

impl Stage {
    fn new(policy: CheckpointPolicy) -> Self {
        let shard = TestShard::new();
        let (factory, offers) = streamed(policy);
        let processor = factory.create(shard.context());
        Self { shard, processor, offers }
    }

    fn batch(&mut self) -> TestBatch {
        self.shard.batch(["one", "two"].map(|data| TestRecord::new("key", data)))
    }

    /// Delivers the batch, while the application acts on it.
    async fn deliver(
        &mut self,
        batch: &mut TestBatch,
        act: impl AsyncFnOnce(&TestShard, OwnedBatch),
    ) -> Result<(), ProcessorError> {
        let Self { shard, processor, offers } = self;
        let application = async {
            let offer = offers.recv().await.expect("an offer");
            act(shard, offer.take().expect("a batch")).await;
        };
        let delivered = shard.process_records(processor, batch);
        let both = async { tokio::join!(delivered, application).0 };
        tokio::time::timeout(PATIENCE, both).await.expect("both return")
    }

    /// A batch is not offered.
    fn deliver_none(&mut self) {
        let mut batch = self.batch();
        let delivered = self.shard.process_records(&mut self.processor, &mut batch).now_or_never();
        let error = delivered.expect("it returns").expect_err("it is given up");
        assert_eq!(error.to_string(), NOT_TAKEN);
        assert!(matches!(self.offers.try_recv(), Err(TryRecvError::Empty)));
    }
}

fn is_lost(result: &Result<(), CheckpointError>) -> bool {
    matches!(result, Err(CheckpointError::LeaseLost { .. }))
}

#[tokio::test]
async fn an_acknowledgement_checkpoints_by_the_policy() {
    let interval = CheckpointPolicy::Interval(Duration::from_secs(1));
    for (policy, written) in
        [(CheckpointPolicy::Manual, 1), (CheckpointPolicy::AfterBatch, 0), (interval, 0)]
    {
        let mut stage = Stage::new(policy);
        let mut batch = stage.batch();
        let act = async |shard: &TestShard, batch: OwnedBatch| {
            assert_eq!((batch.len(), batch.records().count(), batch.attempt()), (2, 2, 1));
            batch.ack().await.unwrap();
            assert_eq!(shard.checkpoints().len(), written, "{policy:?}");
        };
        stage.deliver(&mut batch, act).await.unwrap();
        assert_eq!(stage.shard.checkpoints().len(), written, "{policy:?}");
    }
}

#[tokio::test]
async fn an_acknowledgement_takes_effect_with_the_call() {
    let mut stage = Stage::new(CheckpointPolicy::Manual);
    let mut batch = stage.batch();
    stage.deliver(&mut batch, async |_, batch| drop(batch.ack())).await.unwrap();
    assert_eq!(stage.shard.checkpoints().len(), 1);
}

#[tokio::test]
async fn a_batch_that_fails_or_is_dropped_comes_again() {
    let mut stage = Stage::new(CheckpointPolicy::Manual);
    let mut batch = stage.batch();
    let error = stage.deliver(&mut batch, async |_, batch| drop(batch)).await.unwrap_err();
    assert_eq!(error.to_string(), NOT_ACKNOWLEDGED);
    let nack = async |_: &TestShard, batch: OwnedBatch| {
        assert_eq!(batch.attempt(), 2);
        batch.nack("no answer");
    };
    let error = stage.deliver(&mut batch, nack).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer");
    assert_eq!(stage.shard.checkpoints(), []);
    let ack = async |_: &TestShard, batch: OwnedBatch| {
        assert_eq!((batch.attempt(), batch.len()), (3, 2));
        batch.ack().await.unwrap();
    };
    stage.deliver(&mut batch, ack).await.unwrap();
    assert_eq!(stage.shard.checkpoints().len(), 1);
}

#[tokio::test]
async fn a_checkpoint_that_fails_is_told_and_the_batch_comes_again() {
    let mut stage = Stage::new(CheckpointPolicy::Manual);
    let mut batch = stage.batch();
    let refused = CheckpointError::Store {
        shard_id: "shard".to_owned(),
        retryable: false,
        source: Arc::new(std::io::Error::other("refused")),
    };
    stage.shard.fail_next_checkpoint(refused);
    let act = async |_: &TestShard, batch: OwnedBatch| {
        let told = batch.ack().await;
        assert!(matches!(told, Err(CheckpointError::Store { .. })), "{told:?}");
    };
    stage.deliver(&mut batch, act).await.unwrap_err();
    assert_eq!(batch.len(), 2);
    stage.deliver(&mut batch, async |_, batch| batch.ack().await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_batch_that_is_not_taken_is_withdrawn_when_the_shard_is_given_up() {
    let signals: [fn(&TestShard); 2] = [TestShard::request_shutdown, TestShard::lose_lease];
    for give_up in signals {
        let mut stage = Stage::new(CheckpointPolicy::Manual);
        let mut batch = stage.batch();
        let Stage { shard, processor, offers } = &mut stage;
        let mut delivered = Box::pin(shard.process_records(processor, &mut batch));
        assert!(delivered.as_mut().now_or_never().is_none(), "it waits");
        give_up(shard);
        let error = delivered.now_or_never().expect("it returns").unwrap_err();
        assert_eq!(error.to_string(), NOT_TAKEN);
        assert!(offers.try_recv().unwrap().take().is_none(), "withdrawn");

        stage.deliver_none();
        assert_eq!(stage.shard.checkpoints(), []);
    }
}

#[tokio::test]
async fn a_batch_is_not_taken_after_the_signal() {
    let signals: [fn(&TestShard); 2] = [TestShard::request_shutdown, TestShard::lose_lease];
    for give_up in signals {
        let mut stage = Stage::new(CheckpointPolicy::Manual);
        let mut batch = stage.batch();
        let Stage { shard, processor, offers } = &mut stage;
        let mut delivered = Box::pin(shard.process_records(processor, &mut batch));
        assert!(delivered.as_mut().now_or_never().is_none(), "it waits");
        give_up(shard);
        // The stream comes before the processor.
        assert!(offers.try_recv().unwrap().take().is_none());
        delivered.now_or_never().expect("it returns").unwrap_err();
        assert_eq!(stage.shard.checkpoints(), []);
    }
}

#[tokio::test]
async fn a_batch_can_be_acknowledged_after_a_stop_was_requested() {
    let mut stage = Stage::new(CheckpointPolicy::Manual);
    let mut batch = stage.batch();
    let act = async |shard: &TestShard, batch: OwnedBatch| {
        shard.request_shutdown();
        batch.shutdown_token().cancelled().await;
        assert!(!batch.cancellation().is_cancelled());
        tokio::task::yield_now().await;
        batch.ack().await.unwrap();
    };
    stage.deliver(&mut batch, act).await.unwrap();
    let written = stage.shard.checkpoints();
    assert!(matches!(&written[..], [Checkpoint::At(_)]), "{written:?}");
}

#[tokio::test]
async fn after_the_loss_of_the_lease_a_batch_says_so_and_its_acknowledgement_fails() {
    for policy in [CheckpointPolicy::Manual, CheckpointPolicy::AfterBatch] {
        let mut stage = Stage::new(policy);
        let mut batch = stage.batch();
        let act = async |shard: &TestShard, batch: OwnedBatch| {
            shard.lose_lease();
            batch.cancellation().cancelled().await;
            assert!(is_lost(&batch.ack().await));
        };
        stage.deliver(&mut batch, act).await.unwrap_err();
        assert_eq!(stage.shard.checkpoints(), [], "{policy:?}");
    }
}

/// The worker aborts a processor at the deadline of a planned stop.
#[tokio::test]
async fn if_its_processor_is_aborted_a_batch_says_so() {
    let mut stage = Stage::new(CheckpointPolicy::AfterBatch);
    let mut batch = stage.batch();
    let Stage { shard, processor, offers } = &mut stage;
    let mut delivered = Box::pin(shard.process_records(processor, &mut batch));
    assert!(delivered.as_mut().now_or_never().is_none(), "it waits");
    let taken = offers.try_recv().unwrap().take().unwrap();
    assert!(!taken.cancellation().is_cancelled());
    drop(delivered);
    assert!(taken.cancellation().is_cancelled());
    assert!(is_lost(&taken.ack().await));

    let mut delivered = Box::pin(shard.process_records(processor, &mut batch));
    assert!(delivered.as_mut().now_or_never().is_none(), "it waits");
    drop(delivered);
    assert!(offers.try_recv().unwrap().take().is_none(), "withdrawn");
}

#[tokio::test]
async fn a_token_of_an_acknowledged_batch_is_not_cancelled() {
    let mut stage = Stage::new(CheckpointPolicy::AfterBatch);
    let mut batch = stage.batch();
    let mut kept = None;
    let act = async |_: &TestShard, batch: OwnedBatch| {
        kept = Some(batch.cancellation().clone());
        // Code of the application that cancels a token stops nothing else.
        batch.shutdown_token().cancel();
        batch.ack().await.unwrap();
    };
    stage.deliver(&mut batch, act).await.unwrap();
    assert!(!kept.unwrap().is_cancelled());
    let mut batch = stage.batch();
    stage.deliver(&mut batch, async |_, batch| batch.ack().await.unwrap()).await.unwrap();
}

/// The drop of the stream requests a planned stop, which reaches the processors a moment later.
#[tokio::test]
async fn batches_that_are_dropped_with_the_stream_wait_for_the_stop() {
    for taken in [true, false] {
        let mut stage = Stage::new(CheckpointPolicy::Manual);
        let mut batch = stage.batch();
        let Stage { shard, mut processor, mut offers } = stage;
        let mut delivered = Box::pin(shard.process_records(&mut processor, &mut batch));
        assert!(delivered.as_mut().now_or_never().is_none(), "it waits");
        let held = taken.then(|| offers.try_recv().unwrap().take().unwrap());
        drop(offers);
        drop(held);
        assert!(delivered.as_mut().now_or_never().is_none(), "taken: {taken}");
        shard.request_shutdown();
        let error = delivered.now_or_never().expect("it returns").unwrap_err();
        assert_eq!(error.to_string(), if taken { STREAM_DROPPED } else { NOT_TAKEN });
        assert_eq!(shard.checkpoints(), []);
    }
}

#[tokio::test]
async fn a_batch_for_a_stream_that_is_gone_waits_for_the_stop() {
    let mut stage = Stage::new(CheckpointPolicy::Manual);
    let mut batch = stage.batch();
    let Stage { shard, mut processor, offers } = stage;
    drop(offers);
    let mut delivered = Box::pin(shard.process_records(&mut processor, &mut batch));
    assert!(delivered.as_mut().now_or_never().is_none(), "it waits");
    shard.request_shutdown();
    let error = delivered.now_or_never().expect("it returns").unwrap_err();
    assert_eq!(error.to_string(), STREAM_DROPPED);
}
