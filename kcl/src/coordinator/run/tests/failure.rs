//! Failures that end a worker, and the end of the coordinator's own thread.

use super::*;

#[tokio::test]
async fn a_deleted_table_ends_the_worker_with_a_reason() {
    let aws = aws(1).await;
    let worker = Worker::start(&aws, "w1", config()).await;
    worker.holds(1).await;
    let failed = worker.coordinator.failed();
    aws.dynamodb().delete_table().table_name(APP).send().await.unwrap();
    let failure = failed.await;
    assert!(matches!(failure, WorkerError::TableDeleted { .. }), "{failure:?}");
    worker.crash();
}

#[tokio::test]
async fn a_panicking_task_is_reported() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    coordinator.ctx.tasks.spawn("test task", async { panic!("on purpose") });
    let failure = coordinator.failed().await;
    assert!(
        matches!(&failure, WorkerError::Panicked { task: "test task", message } if message == "on purpose"),
        "{failure:?}"
    );
    coordinator.stop().await;
}

/// Returns whether the coordinator's thread still runs steps.
async fn is_running(ctx: &Context) -> bool {
    let thread = ctx.tasks.run("name", async { std::thread::current().name().map(str::to_owned) });
    match thread.await {
        Some(name) => {
            assert_eq!(name.as_deref(), Some("kcl-coordinator"));
            true
        }
        None => false,
    }
}

#[tokio::test]
async fn its_thread_ends_when_the_coordinator_is_dropped() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "a", config())).await.unwrap();
    let _held_leases = coordinator.start();
    assert!(is_running(&coordinator.ctx).await);
    coordinator.stop().await;
    let (ctx, ended) = (Arc::clone(&coordinator.ctx), coordinator.thread_ended());
    drop(coordinator);
    ended.await;
    assert!(!is_running(&ctx).await);
}

#[tokio::test]
async fn a_panic_in_a_step_ends_the_worker() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "a", config())).await.unwrap();
    let step = coordinator.ctx.tasks.run("step", async { panic!("a bug") });
    let answer: Option<()> = step.await;
    assert!(answer.is_none());
    let failure = coordinator.failed().await;
    assert!(matches!(failure, WorkerError::Panicked { task: "step", .. }), "{failure:?}");
    coordinator.stop().await;
}
