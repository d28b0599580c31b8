//! A small case of `end-to-end run`: every acknowledged record seen, order kept, duplicates only
//! after a worker was killed.

use std::time::Duration;

use integration_tests::scenario::{self, Scenario};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_record_is_lost_through_a_split_a_merge_and_a_killed_worker() {
    let scenario = Scenario {
        records: 4_000,
        seed: 42,
        failover: Duration::from_secs(2),
        program: env!("CARGO_BIN_EXE_end-to-end").into(),
        stalled: Duration::from_secs(120),
    };
    let outcome = scenario::run(&scenario, |_, _| ()).await.unwrap();

    assert_eq!(outcome.lost_ids, [0; 0], "{outcome:?}");
    assert_eq!(outcome.verdict.acknowledged, 4_000, "{outcome:?}");
    assert_eq!(outcome.verdict.out_of_order, 0, "{outcome:?}");
    assert_eq!(outcome.false_receipts, 0, "{outcome:?}");
    assert_eq!(outcome.redelivered_before_the_kill, 0, "{outcome:?}");
    assert!(outcome.ownerships.len() == 2 && outcome.ownerships[&2] >= 3, "{outcome:?}");
}
