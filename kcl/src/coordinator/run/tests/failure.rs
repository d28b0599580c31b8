//! What ends a worker.

use super::*;

#[tokio::test]
async fn a_deleted_table_ends_the_worker_with_a_reason() {
    let aws = aws(1).await;
    let worker = Worker::start(&aws, "w1", config()).await;
    until("the lease", async || (worker.held().len() == 1).then_some(())).await;
    let failed = worker.coordinator.failed();
    aws.dynamodb().delete_table().table_name(APP).send().await.unwrap();
    let failure = failed.await;
    assert!(matches!(failure, WorkerFailure::TableDeleted { .. }), "{failure:?}");
    worker.crash();
}

#[tokio::test]
async fn a_panicking_task_is_reported() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    coordinator.shared.spawn("test task", async { panic!("on purpose") });
    let failure = coordinator.failed().await;
    assert!(
        matches!(&failure, WorkerFailure::Panicked { task: "test task", message } if message == "on purpose"),
        "{failure:?}"
    );
    coordinator.stop().await;
}
