//! The worker's main loop, and its planned stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::handle::ShutdownReport;
use super::pulse;
use super::shards::{Shards, View};
use crate::coordination::Coordinator;
use crate::error::WorkerError;
use crate::lease::{Tenure, TenureEnd};
use crate::shard_consumer::Worker;
use crate::task::Task;
use crate::worker_state::WorkerState;

/// How long aborted tasks get to be dropped.
const AFTER_ABORT: Duration = Duration::from_secs(1);

pub(crate) async fn run(
    coordinator: Coordinator,
    worker: Arc<Worker>,
    view: Arc<View>,
    seed: u64,
    mut stop: watch::Receiver<Option<Duration>>,
) -> Result<ShutdownReport, WorkerError> {
    let stream = worker.stream.clone();
    let failover_time = worker.config.failover_time;
    let states = view.states().clone();
    // Declared before the shards, so dropped after them: what the factory holds is the user's, and
    // dropped on that runtime.
    let factory = Arc::clone(&worker.factory);
    let mut alive = Task::spawn(&*worker.executor, "the processors", async move {
        let _factory = factory;
        std::future::pending::<()>().await;
    });
    let runtime = Arc::clone(&worker.executor);
    let mut shards = Shards::new(worker, Arc::clone(&view), seed);
    let mut tenures = coordinator.start();
    states.enter(WorkerState::Running);
    let pulse = pulse::watch(&*runtime, failover_time, |is_blocked| {
        view.runtime_is_blocked(is_blocked);
        coordinator.hold_back(is_blocked);
    });
    let (deadline, failure) = tokio::select! {
        biased;
        deadline = stop_requested(&mut stop) => (deadline, None),
        // The runtime of the processors has ended.
        Err(error) = &mut alive => (failover_time, Some(error)),
        error = pulse => (failover_time, Some(error)),
        error = main_loop(&coordinator, &mut shards, &mut tenures, &stream) => {
            tracing::error!(%error, "the worker cannot go on; it gives its shards up");
            (failover_time, Some(error))
        }
    };
    states.enter(WorkerState::Stopping(failure.clone()));
    coordinator.leave().await;
    let drained = drain(&mut shards, &mut tenures, deadline).await;
    coordinator.stop().await;
    match failure {
        None => drained,
        Some(error) => Err(error),
    }
}

/// Waits for a planned stop; for ever if the handle is gone.
async fn stop_requested(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stop
        .wait_for(Option::is_some)
        .await
        .map(|deadline| *deadline)
    {
        Ok(deadline) => deadline.unwrap_or_default(),
        Err(_) => std::future::pending().await,
    }
}

/// Runs until something ends the worker.
async fn main_loop(
    coordinator: &Coordinator,
    shards: &mut Shards,
    tenures: &mut mpsc::Receiver<Tenure>,
    stream: &str,
) -> WorkerError {
    let mut failed = std::pin::pin!(coordinator.failed());
    loop {
        tokio::select! {
            biased;
            failure = &mut failed => return WorkerError::coordination(failure, stream),
            (shard_id, result) = shards.ended() => match result {
                Ok(()) => tracing::info!(shard_id, "shard given up"),
                Err(error) => return error,
            },
            Some(tenure) = tenures.recv() => shards.start(tenure),
        }
    }
}

/// Lets every consumer finish its batch, checkpoint and give its lease away; at the deadline those
/// left are aborted, and their leases expire.
///
/// # Errors
/// The first failure of a consumer.
async fn drain(
    shards: &mut Shards,
    tenures: &mut mpsc::Receiver<Tenure>,
    deadline: Duration,
) -> Result<ShutdownReport, WorkerError> {
    shards.drain();
    let mut report = ShutdownReport::default();
    let mut failure = None;
    let mut deadline = std::pin::pin!(tokio::time::sleep(deadline));
    while !shards.is_empty() {
        tokio::select! {
            biased;
            (shard_id, result) = shards.ended() => match result {
                Ok(()) => report.drained.push(shard_id),
                Err(error) => {
                    tracing::error!(shard_id, %error, "a shard's consumer failed");
                    failure.get_or_insert(error);
                }
            },
            // Acquired while the stop began: it was never processed here.
            Some(tenure) = tenures.recv() => tenure.end(TenureEnd::GiveAway).await,
            () = &mut deadline => {
                abort(shards, &mut report).await;
                break;
            }
        }
    }
    while let Ok(tenure) = tenures.try_recv() {
        tenure.end(TenureEnd::GiveAway).await;
    }
    report.drained.sort();
    report.aborted.sort();
    failure.map_or(Ok(report), Err)
}

async fn abort(shards: &mut Shards, report: &mut ShutdownReport) {
    let tenures = shards.abort();
    report.aborted = tenures
        .iter()
        .map(|tenure| tenure.shard_id().to_owned())
        .collect();
    tracing::error!(
        shards = ?report.aborted,
        "processors did not stop in time: they are aborted, their leases expire"
    );
    // They are told at once.
    futures::future::join_all(tenures.iter().map(|tenure| tenure.end(TenureEnd::Aborted))).await;
    let all = async {
        while !shards.is_empty() {
            // Their results no longer count.
            let _ = shards.ended().await;
        }
    };
    // A processor that blocks its thread can not be aborted; its lease is fenced all the same.
    let _ = tokio::time::timeout(AFTER_ABORT, all).await;
}
