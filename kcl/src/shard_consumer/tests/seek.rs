//! A shard that the application moves to another position.

use tokio::sync::oneshot;

use super::*;
use crate::config::ShardPosition;
use crate::seek::SeekError;
use crate::shard_control::SeekRequest;

const PAGES: Pages = Pages { pages: 10, records: 2 };

impl Running {
    async fn seek(&self, position: ShardPosition, allow_skip: bool) -> Result<(), SeekError> {
        let (reply, answer) = oneshot::channel();
        self.status.control().seek(SeekRequest { position, allow_skip, reply });
        tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap()
    }

    fn positions(&self) -> Vec<String> {
        let seen = self.seen.borrow();
        seen.batches.iter().flat_map(|(_, positions)| positions.clone()).collect()
    }
}

fn at(number: u64) -> ShardPosition {
    ShardPosition::AtSequenceNumber(number.to_string().parse().unwrap())
}

fn after(number: u64) -> ShardPosition {
    ShardPosition::AfterSequenceNumber(number.to_string().parse().unwrap())
}

fn positions(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| format!("{number}:0")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_move_back_delivers_again_and_moves_the_checkpoint() {
    for policy in [CheckpointPolicy::AfterBatch, CheckpointPolicy::Interval(PATIENCE * 2)] {
        let mut running = Running::start(PAGES, Duration::ZERO, &[], config(policy));
        running.until("all batches", |seen| seen.batches.len() == 10).await;
        running.seek(at(12), false).await.unwrap();
        let moved = Checkpoint::Before("12".parse().unwrap());
        assert!(running.recorder.checkpoints().contains(&moved), "{policy:?}");
        running.until("the last batches again", |seen| seen.batches.len() == 14).await;
        assert_eq!(running.positions()[20..], positions(12..20), "{policy:?}");
        let last = running.stop().await.pop().unwrap();
        assert_eq!(last.to_string(), "19:0", "{policy:?}: checkpoints go on from there");
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_are_not_processed_are_passed_only_if_the_caller_says_so() {
    // The third batch always fails. It comes again after each refusal.
    let deeds = [[Deed::Take; 2].as_slice(), &[Deed::Fail; 6]].concat();
    let config = config(CheckpointPolicy::AfterBatch)
        .with_retry_initial_delay(PATIENCE * 10)
        .with_retry_max_delay(PATIENCE * 10);
    let mut running = Running::start(PAGES, Duration::ZERO, &deeds, config);
    running.until("a failure", |seen| seen.batches.len() == 3).await;
    for position in [at(4), after(4), after(5), ShardPosition::Latest] {
        let refused = running.seek(position.clone(), false).await.unwrap_err();
        let SeekError::WouldSkip { processed, .. } = &refused else { panic!("{refused}") };
        assert_eq!(processed, "the last record processed is 3", "{position:?}");
    }
    let future = SystemClock.wall() + PATIENCE;
    let refused = running.seek(ShardPosition::AtTimestamp(future), true).await.unwrap_err();
    assert!(matches!(refused, SeekError::Future { .. }), "{refused}");
    running.seek(after(5), true).await.unwrap();
    let seen = running.until("the rest", |seen| seen.batches.iter().any(|(_, it)| it[0] == "18:0"));
    seen.await;
    let after_skip: Vec<_> = running.positions().into_iter().skip_while(|it| it != "6:0").collect();
    assert_eq!(after_skip, positions(6..20));
    let last = running.stop().await.pop().unwrap();
    assert_eq!(last.to_string(), "19:0");
}

#[tokio::test(start_paused = true)]
async fn a_paused_shard_can_be_moved_and_stays_paused() {
    let policy = CheckpointPolicy::AfterBatch;
    let mut running = Running::start(PAGES, Duration::ZERO, &[], config(policy));
    running.until("all batches", |seen| seen.batches.len() == 10).await;
    running.status.control().set_paused(true);
    running.seek(ShardPosition::TrimHorizon, false).await.unwrap();
    tokio::time::sleep(PATIENCE).await;
    assert!(running.status.snapshot().is_paused);
    assert_eq!(running.positions().len(), 20);
    running.status.control().set_paused(false);
    running.until("all batches again", |seen| seen.batches.len() == 20).await;
    assert_eq!(running.positions()[20..], positions(0..20));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_move_that_cannot_be_written_changes_nothing() {
    let policy = CheckpointPolicy::AfterBatch;
    let mut running = Running::start(PAGES, Duration::ZERO, &[], config(policy));
    running.until("all batches", |seen| seen.batches.len() == 10).await;
    running.recorder.fail_next(CheckpointError::LeaseLost { shard_id: SHARD.into() });
    let failed = running.seek(at(12), false).await.unwrap_err();
    assert!(matches!(failed, SeekError::Failed { .. }), "{failed}");
    running.seek(at(18), false).await.unwrap();
    running.until("the last batch again", |seen| seen.batches.len() == 11).await;
    assert_eq!(running.positions()[20..], positions(18..20));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_processor_has_not_checkpointed_is_not_passed() {
    let mut running = Running::start(PAGES, Duration::ZERO, &[], config(CheckpointPolicy::Manual));
    running.until("all batches", |seen| seen.batches.len() == 10).await;
    let refused = running.seek(at(12), false).await.unwrap_err();
    assert!(matches!(refused, SeekError::WouldSkip { .. }), "{refused}");
    running.seek(at(12), true).await.unwrap();
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_given_up_is_not_moved_any_more() {
    let policy = CheckpointPolicy::AfterBatch;
    let pages = Pages { pages: 1, records: 2 };
    let mut running = Running::start(pages, Duration::ZERO, &[Deed::Wait], config(policy));
    running.until("a batch", |seen| seen.batches.len() == 1).await;
    let (waiting, answer) = oneshot::channel();
    let request = |reply| SeekRequest { position: at(0), allow_skip: false, reply };
    running.status.control().seek(request(waiting));
    running.recorder.lose();
    running.go_on.notify_one();
    let status = Arc::clone(&running.status);
    tokio::time::timeout(PATIENCE, running.consumer).await.unwrap().unwrap().unwrap();
    assert!(!matches!(answer.await, Ok(Ok(()))), "the lease is lost");
    let (late, answer) = oneshot::channel();
    status.control().seek(request(late));
    assert!(answer.await.is_err(), "a late one");
}
