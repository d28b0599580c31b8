//! Main loop of a worker.

use std::sync::Arc;
use std::time::Duration;

use kinesis_common::clock;
use kinesis_common::sync::until_set;
use tokio::sync::{mpsc, watch};

use super::shards::{Shards, View};
use super::shutdown::{self, STOP_MARGIN, ShutdownReport};
use super::uploads::{RunningUploads, Uploads};
use super::watchdog;
use crate::clock::Clock;
use crate::coordinator::Coordinator;
use crate::error::WorkerError;
use crate::lease::HeldLease;
use crate::replay::Standing;
use crate::shard_consumer::Worker;
use crate::task::Task;
use crate::worker_state::WorkerState;

/// Interval at which slow processor calls are looked for.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which a worker looks whether a bounded replay is complete.
const REPLAY_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Runs a worker until a planned stop, a failure or the end of a bounded replay ends it, then stops its shards.
pub(crate) async fn run(
    coordinator: Coordinator,
    worker: Arc<Worker>,
    view: Arc<View>,
    uploads: Option<Uploads>,
    seed: u64,
    mut stop: watch::Receiver<Option<Duration>>,
) -> Result<ShutdownReport, WorkerError> {
    let failover_time = worker.config.failover_time;
    let (clock, is_bounded) = (Arc::clone(&worker.clock), worker.bounds.is_some());
    let states = view.states.clone();
    // The factory holds values of the application. This task drops them on the processors' runtime. It is declared
    // before the shards, so it is dropped after them.
    let factory = Arc::clone(&worker.factory);
    let mut alive = Task::spawn(&*worker.executor, "the processors", async move {
        let _factory = factory;
        std::future::pending::<()>().await;
    });
    let runtime = Arc::clone(&worker.executor);
    let retrieval = Arc::clone(&worker.retrieval);
    let mut shards = Shards::new(worker, Arc::clone(&view), seed);
    let mut held_leases = coordinator.start();
    states.enter(WorkerState::Running);
    let watchdog = watchdog::watch(&*runtime, failover_time, |is_blocked| {
        view.runtime_is_blocked(is_blocked);
        coordinator.hold_back(is_blocked);
    });
    // On the coordinator's runtime, because a processor may block its own.
    let watched = Arc::clone(&view);
    let _watch =
        Task::spawn(&*coordinator.executor(), "the watch over calls", watch_calls(watched));
    // On the coordinator's runtime, too: metrics tell of a processor that blocks its own.
    let mut uploads = uploads.map(|uploads| uploads.start(&*coordinator.executor()));
    let mut is_complete = false;
    let (deadline, failure) = tokio::select! {
        biased;
        deadline = until_set(&mut stop) => (deadline, None),
        // The task ends only with its runtime.
        Err(error) = &mut alive => (failover_time, Some(error)),
        error = watchdog => (failover_time, Some(error)),
        error = uploads_failed(uploads.as_mut()) => (failover_time, Some(error)),
        () = replayed(&view, &*clock, failover_time), if is_bounded => {
            tracing::info!("the bounded replay is complete: the worker ends");
            is_complete = true;
            (failover_time, None)
        }
        error = main_loop(&coordinator, &mut shards, &mut held_leases) => {
            tracing::error!(%error, "the worker cannot go on: it gives its shards up");
            (failover_time, Some(error))
        }
    };
    states.enter(WorkerState::Stopping(failure.clone()));
    let stop_by = clock::after(clock::now(), deadline.saturating_add(STOP_MARGIN));
    let report = shutdown::stop(&coordinator, &mut shards, &mut held_leases, deadline).await;
    let left = stop_by.saturating_duration_since(clock::now());
    let uploaded = async {
        if let Some(uploads) = uploads {
            uploads.end(left).await;
        }
    };
    tokio::join!(retrieval.stopped(left), uploaded);
    let replay = view.replay_report(is_complete);
    failure.map_or(report.map(|report| ShutdownReport { replay, ..report }), Err)
}

/// Waits until nothing of a bounded replay is left to do for this worker.
///
/// While other live workers hold leases, this worker waits for a failover time: the fleet may give it a part of their
/// leases, and takes over from a worker that has died.
async fn replayed(view: &View, clock: &dyn Clock, failover_time: Duration) {
    let mut idle_since = None;
    loop {
        tokio::time::sleep(REPLAY_CHECK_INTERVAL).await;
        let now = clock.now();
        match view.replay_standing() {
            Standing::Done => return,
            Standing::Working => idle_since = None,
            Standing::OthersWork => {
                let since = *idle_since.get_or_insert(now);
                if now.saturating_sub(since) >= failover_time {
                    return;
                }
            }
        }
    }
}

async fn uploads_failed(uploads: Option<&mut RunningUploads>) -> WorkerError {
    match uploads {
        Some(uploads) => uploads.failed().await,
        None => std::future::pending().await,
    }
}

/// Warns of slow processor calls, and reports the progress of each shard.
async fn watch_calls(view: Arc<View>) {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        view.watch_over_shards();
    }
}

/// Starts a consumer for each lease that the coordinator acquired, until the coordinator or a consumer fails.
async fn main_loop(
    coordinator: &Coordinator,
    shards: &mut Shards,
    held_leases: &mut mpsc::Receiver<HeldLease>,
) -> WorkerError {
    let mut failed = std::pin::pin!(coordinator.failed());
    loop {
        tokio::select! {
            biased;
            error = &mut failed => return error,
            (shard_id, result) = shards.ended() => match result {
                Ok(outcome) => tracing::info!(shard_id, ?outcome, "shard given up"),
                Err(error) => return error,
            },
            Some(held_lease) = held_leases.recv() => shards.start(held_lease),
        }
    }
}
