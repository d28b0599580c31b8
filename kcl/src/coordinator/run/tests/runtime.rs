//! The thread and runtime that coordination owns.

use super::*;

/// A step runs there, or does not once it has ended.
async fn is_running(shared: &Arc<Shared>) -> bool {
    let thread = shared.run("name", async { std::thread::current().name().map(str::to_owned) });
    match thread.await {
        Some(name) => {
            assert_eq!(name.as_deref(), Some("kcl-coordinator"));
            true
        }
        None => false,
    }
}

#[tokio::test]
async fn it_ends_when_the_coordinator_is_dropped() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "a", config())).await.unwrap();
    let _tenures = coordinator.start();
    assert!(is_running(&coordinator.shared).await);
    coordinator.stop().await;
    let (shared, ended) = (Arc::clone(&coordinator.shared), coordinator.thread_ended());
    drop(coordinator);
    ended.await;
    assert!(!is_running(&shared).await);
}

#[tokio::test]
async fn a_panic_there_ends_the_worker() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "a", config())).await.unwrap();
    let step = coordinator.shared.run("step", async { panic!("a bug") });
    let answer: Option<()> = step.await;
    assert!(answer.is_none());
    let failure = coordinator.failed().await;
    assert!(matches!(failure, WorkerFailure::Panicked { task: "step", .. }), "{failure:?}");
    coordinator.stop().await;
}
