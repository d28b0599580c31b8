//! The runtime of user code, or a consumer on it, ends before the worker does.

use super::*;

#[tokio::test]
async fn a_worker_ends_with_the_runtime_of_its_processors() {
    let aws = aws(1).await;
    let probe = Probe::new();
    let runtime = OneThread::new();
    let worker = runtime.worker(builder(&aws, &probe, config("w1"))).await;
    until("its shard", || processing(&worker) == 1).await;
    drop(runtime);
    let ended = tokio::time::timeout(PATIENCE, worker.join()).await.unwrap();
    assert!(matches!(ended, Err(WorkerError::RuntimeEnded { .. })), "{ended:?}");
    assert!(matches!(worker.state(), WorkerState::Stopped(Some(WorkerError::RuntimeEnded { .. }))));
}

/// Dropping a runtime drops its tasks, and waits without limit for blocking code that has begun.
#[tokio::test]
async fn a_worker_whose_runtime_ends_releases_nothing_that_may_still_be_processed() {
    let aws = aws(1).await;
    let (unblock, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let (reports, entered) = mpsc::channel();
    let probe = Probe::new().script(move |_, _| {
        let (blocked, reports) = (Arc::clone(&blocked), reports.clone());
        tokio::task::spawn_blocking(move || {
            let _ = reports.send(());
            let _ = blocked.lock().unwrap().recv();
        });
        Deed::Hang
    });
    put(&aws, &probe, 0..100).await;
    let runtime = OneThread::new();
    let first = runtime.worker(builder(&aws, &probe, config("w1"))).await;
    until("process_records", || entered.try_recv().is_ok()).await;
    drop(runtime);
    let ended = tokio::time::timeout(PATIENCE, first.join()).await.unwrap();
    assert!(matches!(ended, Err(WorkerError::RuntimeEnded { .. })), "{ended:?}");
    assert_eq!(owner(&aws).await.as_deref(), Some("w1"), "the lease expires");
    let others = Probe::new();
    let second = worker(&aws, &others, config("w2")).await;
    until("the next owner", || !others.calls(Call::Initialize).is_empty()).await;
    drop(unblock);
    second.shutdown(PATIENCE).await.unwrap();
}

/// Once it is armed, a reading of it on the user's thread panics. The consumer of a shard reads it
/// there, outside of the calls of its processor.
#[derive(Debug)]
struct PanickingClock {
    armed: AtomicBool,
    origin: Instant,
}

impl PanickingClock {
    #[allow(clippy::disallowed_methods, reason = "a clock of the test's")]
    fn new() -> Arc<Self> {
        Arc::new(Self { armed: AtomicBool::new(false), origin: Instant::now() })
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }
}

impl Clock for PanickingClock {
    fn now(&self) -> Duration {
        let panics = self.armed.load(Ordering::SeqCst) && thread::current().name() == Some(USERS);
        assert!(!panics, "told to panic");
        self.origin.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "a clock of the test's")]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

#[tokio::test]
async fn a_consumer_that_panics_ends_the_worker_and_its_lease_is_not_released() {
    let aws = aws(1).await;
    let (probe, runtime, clock) = (Probe::new(), OneThread::new(), PanickingClock::new());
    let builder = builder(&aws, &probe, config("w1")).clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let worker = runtime.worker(builder).await;
    until("its shard", || processing(&worker) == 1).await;
    clock.arm();
    let ended = tokio::time::timeout(PATIENCE, worker.join()).await.unwrap();
    assert!(matches!(ended, Err(WorkerError::Panicked { .. })), "{ended:?}");
    assert_eq!(owner(&aws).await.as_deref(), Some("w1"), "the lease expires");
}

#[tokio::test]
async fn a_consumer_that_panics_during_a_planned_stop_fails_it_and_its_lease_is_not_released() {
    let aws = aws(1).await;
    let (probe, gate) = Gate::new();
    put(&aws, &probe, 0..100).await;
    let (runtime, clock) = (OneThread::new(), PanickingClock::new());
    let builder = builder(&aws, &probe, config("w1")).clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let worker = runtime.worker(builder).await;
    gate.entered().await;
    let stopping = async {
        until("the stop", || matches!(worker.state(), WorkerState::Stopping(None))).await;
        clock.arm();
        drop(gate);
    };
    let (stopped, ()) = tokio::join!(worker.shutdown(PATIENCE), stopping);
    assert!(matches!(stopped, Err(WorkerError::Panicked { .. })), "{stopped:?}");
    assert_eq!(owner(&aws).await.as_deref(), Some("w1"), "the lease expires");
}

/// Tells the name of the thread that dropped it.
struct TellsWhere(mpsc::Sender<Option<String>>);

impl Drop for TellsWhere {
    fn drop(&mut self) {
        let name = thread::current().name().map(str::to_owned);
        let _ = self.0.send(name);
    }
}

#[tokio::test]
async fn what_the_factory_holds_is_dropped_on_the_users_runtime() {
    let aws = aws(1).await;
    let (tell, told) = mpsc::channel();
    let captured = TellsWhere(tell);
    let (probe, runtime) = (Probe::new(), OneThread::new());
    let factory = probe.factory();
    let builder = builder(&aws, &probe, config("w1")).processor(move |shard: &ShardContext| {
        let _captured = &captured;
        factory(shard)
    });
    let worker = runtime.worker(builder).await;
    until("its shard", || processing(&worker) == 1).await;
    worker.shutdown(PATIENCE).await.unwrap();
    let mut place = None;
    until("its drop", || {
        place = told.try_recv().ok();
        place.is_some()
    })
    .await;
    assert_eq!(place.unwrap().as_deref(), Some(USERS));
}

#[tokio::test]
async fn a_runtime_that_was_given_and_ends_ends_the_worker_with_an_error() {
    let aws = aws(1).await;
    let probe = Probe::new();
    let runtime = OneThread::new();
    let builder = builder(&aws, &probe, config("w1"));
    let builder = builder.coordination_on(runtime.runtime().handle().clone());
    let worker = builder.build().await.unwrap().spawn();
    until("its shard", || processing(&worker) == 1).await;
    drop(runtime);
    let ended = tokio::time::timeout(PATIENCE, worker.join()).await.unwrap();
    let has_ended = |error: &WorkerError| matches!(error, WorkerError::RuntimeEnded { .. });
    assert!(ended.as_ref().is_err_and(has_ended), "{ended:?}");
    match worker.state() {
        WorkerState::Stopped(Some(error)) => assert!(has_ended(&error), "{error:?}"),
        other => panic!("{other:?}"),
    }
}
