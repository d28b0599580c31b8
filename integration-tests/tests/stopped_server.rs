//! SIGSTOP to the server.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

/// The pings of the HTTP/2 connection notice it. The leases survive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_on_a_dead_connection_are_renewed_and_no_record_is_lost() {
    let program = env!("CARGO_BIN_EXE_end-to-end").as_ref();
    let certificate = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("stopped-server-{}.pem", std::process::id()));
    let verdict = integration_tests::stopped_server::interrupt(program, Some(&certificate)).await;
    std::fs::remove_file(&certificate).unwrap();
    let verdict = verdict.unwrap();
    assert_eq!(verdict.acknowledged, 2_000, "{verdict:?}");
    assert_eq!((verdict.lost, verdict.redelivered, verdict.out_of_order), (0, 0, 0), "{verdict:?}");
}

/// Then SIGTERM to two worker processes. Both end in time, and report the shards whose leases they left to expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_terminated_while_nothing_answers_end_in_time() {
    let program = env!("CARGO_BIN_EXE_end-to-end").as_ref();
    // One attempt of a call takes up to a quarter of it: far longer than the stop may take.
    let failover = Duration::from_secs(120);
    let deadline = Duration::from_secs(1);
    let outcome =
        integration_tests::stopped_server::run(program, failover, deadline).await.unwrap();
    assert_eq!(outcome.asked, 4, "every processor is told: {outcome:?}");
    assert_eq!(outcome.left_to_expire, 4, "{outcome:?}");
    assert_eq!(outcome.otherwise, 0, "{outcome:?}");
    // The stop waited for no attempt of a call to its end.
    assert!(outcome.took < failover / 4, "{outcome:?}");
}
