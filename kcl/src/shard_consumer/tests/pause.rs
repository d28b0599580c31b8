//! A shard that the application pauses and continues.

use super::*;

impl Running {
    async fn until_paused(&self) {
        let paused = async {
            while !self.status.snapshot().is_paused {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, paused).await.expect("it never pauses");
    }

    fn seen(&self) -> Vec<String> {
        let seen = self.seen.borrow();
        seen.batches.iter().flat_map(|(_, positions)| positions.clone()).collect()
    }
}

fn positions(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| format!("{number}:0")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_paused_shard_gets_nothing_gives_its_memory_back_and_continues_where_it_was() {
    let pages = Pages { pages: 10, records: 2 };
    let takes = Duration::from_millis(10);
    let policy = CheckpointPolicy::AfterBatch;
    let mut running = Running::start(pages, takes, &[], config(policy));
    running.until("three batches", |seen| seen.batches.len() == 3).await;
    assert!(running.budget.held() > 0);
    running.status.control().set_paused(true);
    running.until_paused().await;
    let seen = running.seen();
    assert_eq!(running.budget.held(), 0);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(running.seen(), seen, "nothing is delivered");
    let last = running.recorder.checkpoints().last().unwrap().to_string();
    assert_eq!(Some(&last), seen.last(), "what is processed is checkpointed");
    running.status.control().set_paused(false);
    running.until("all batches", |seen| seen.batches.len() == 10).await;
    assert_eq!(running.seen(), positions(0..20), "each once, in order");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_can_be_paused_and_comes_again() {
    let pages = Pages { pages: 2, records: 2 };
    let deeds = [Deed::CheckpointOneAndFail, Deed::Fail];
    let config = config(CheckpointPolicy::Manual).with_retry_initial_delay(Duration::from_secs(20));
    let config = config.with_retry_max_delay(Duration::from_secs(20));
    let mut running = Running::start(pages, Duration::ZERO, &deeds, config);
    running.until("a failure", |seen| seen.batches.len() == 1).await;
    running.status.control().set_paused(true);
    running.until_paused().await;
    assert_eq!(running.budget.held(), 0, "the batch is not kept");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(running.seen().len(), 2);
    assert_eq!(running.status.snapshot().batch_in_hand_for, None);
    running.status.control().set_paused(false);
    running.until("both batches", |seen| seen.batches.len() == 4).await;
    // Without the record that was checkpointed.
    let expected = ["0:0", "1:0", "1:0", "1:0", "2:0", "3:0"];
    assert_eq!(running.seen(), expected);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_shard_stops_and_loses_its_lease_as_another_one() {
    for is_lost in [false, true] {
        let pages = Pages { pages: 10, records: 2 };
        let policy = CheckpointPolicy::AfterBatch;
        let running = Running::start(pages, Duration::ZERO, &[], config(policy));
        running.status.control().set_paused(true);
        running.until_paused().await;
        if is_lost {
            running.recorder.lose();
            let ended = tokio::time::timeout(PATIENCE, running.consumer).await;
            assert_eq!(ended.unwrap().unwrap().unwrap(), ShardShutdown::Lost);
        } else {
            let seen = running.seen.clone();
            running.stop().await;
            assert!(seen.borrow().was_asked);
        }
    }
}
