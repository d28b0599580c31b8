//! SIGTERM to one of two worker processes: the other goes on with its shards, nothing is lost and
//! nothing comes twice.

use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_terminated_hands_its_shards_over() {
    let program = env!("CARGO_BIN_EXE_end-to-end").as_ref();
    // Far longer than the run: another worker runs only shards that are handed over.
    let failover = Duration::from_secs(600);
    let outcome = integration_tests::rolling_stop::run(program, 4_000, failover).await.unwrap();
    let verdict = outcome.verdict;
    assert_eq!(verdict.acknowledged, 4_000, "{outcome:?}");
    assert_eq!((verdict.lost, verdict.redelivered, verdict.out_of_order), (0, 0, 0), "{outcome:?}");
    assert_eq!(outcome.taken_over, outcome.left_behind, "{outcome:?}");
}
