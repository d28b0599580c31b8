//! User code that blocks every thread of its runtime.

mod credentials;
mod ended;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;

use kcl::{
    Checkpoint, Clock, LeaseSnapshot, ProblemKind, SchedulerBuilder, ShardContext, WorkerError,
    WorkerHandle, WorkerState,
};
use kinesis_testkit::{Fault, LocalAws, Service};
use tokio::runtime::{Builder, Runtime};

use crate::probe::{Call, Deed, Probe};
use crate::setup::{
    APPLICATION, PATIENCE, aws, builder, builder_on, config, open_shards, processing, put, reason,
    until, worker,
};

/// Renewals come each half of the failover time: three failover times.
const RENEWALS: u64 = 6;

/// The name of the thread that processors run on.
const USERS: &str = "the user's";

/// A runtime with one thread: a processor that blocks blocks it whole.
struct OneThread(Option<Runtime>);

impl OneThread {
    fn new() -> Self {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name(USERS).enable_all().build();
        Self(Some(runtime.unwrap()))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().unwrap()
    }

    async fn worker(&self, builder: SchedulerBuilder) -> WorkerHandle {
        let start = async { builder.build().await.unwrap().spawn() };
        self.runtime().spawn(start).await.unwrap()
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

/// Keeps processors within `process_records`, and lets them go on when it is dropped.
struct Gate {
    _unblock: mpsc::Sender<()>,
    entered: mpsc::Receiver<()>,
}

impl Gate {
    /// A gate, and a probe whose processors block their threads at it.
    fn new() -> (Probe, Self) {
        let (unblock, blocked) = mpsc::channel::<()>();
        let blocked = Mutex::new(blocked);
        let (reports, entered) = mpsc::channel();
        let probe = Probe::new().script(move |_, _| {
            let _ = reports.send(());
            // An error once the sender is dropped.
            let _ = blocked.lock().unwrap().recv();
            Deed::Take
        });
        (probe, Self { _unblock: unblock, entered })
    }

    /// Waits for a processor that is blocked.
    async fn entered(&self) {
        until("process_records", || self.entered.try_recv().is_ok()).await;
    }
}

/// The lease of the only shard, as this worker last read it.
fn lease(worker: &WorkerHandle) -> Option<LeaseSnapshot> {
    worker.lease_table()?.leases.first().cloned()
}

/// Waits until `observer` has seen the lease renewed several times. `w1` owns it all the time, and
/// writes no checkpoint.
async fn renewals(observer: &WorkerHandle) {
    until("a scan", || lease(observer).is_some()).await;
    let start = lease(observer).unwrap().counter;
    until("renewals", || {
        let lease = lease(observer).unwrap();
        assert_eq!(lease.owner.as_deref(), Some("w1"), "{lease:?}");
        assert_eq!(lease.checkpoint, Checkpoint::TrimHorizon);
        lease.counter >= start + RENEWALS
    })
    .await;
}

#[tokio::test]
async fn loses_no_lease_and_its_checkpoint_is_taken() {
    let aws = aws(1).await;
    let (probe, gate) = Gate::new();
    put(&aws, &probe, 0..100).await;
    let runtime = OneThread::new();
    let first = runtime.worker(builder(&aws, &probe, config("w1"))).await;
    gate.entered().await;

    let others = Probe::new();
    let second = worker(&aws, &others, config("w2")).await;
    renewals(&second).await;

    drop(gate);
    until("all records", || probe.is_settled()).await;
    until("the checkpoint", || lease(&second).unwrap().checkpoint != Checkpoint::TrimHorizon).await;
    probe.assert_exact();
    assert_eq!(probe.calls(Call::LeaseLost), [""; 0]);
    assert_eq!(others.calls(Call::Initialize), [""; 0]);
    first.shutdown(PATIENCE).await.unwrap();
    second.shutdown(PATIENCE).await.unwrap();
}

#[allow(
    clippy::disallowed_methods,
    reason = "it blocks a runtime's thread: that is what is tested"
)]
#[tokio::test]
async fn is_told_when_renewals_fail_and_its_checkpoint_is_refused() {
    let aws = aws(1).await;
    let (was_blocked, (reports, entered)) = (AtomicBool::new(false), mpsc::channel());
    let probe = Probe::new().script(move |_, batch| {
        if was_blocked.swap(true, Ordering::SeqCst) {
            return Deed::Take;
        }
        let _ = reports.send(());
        while !batch.cancellation().is_cancelled() {
            thread::sleep(Duration::from_millis(10));
        }
        Deed::UntilFenced
    });
    put(&aws, &probe, 0..100).await;
    let runtime = OneThread::new();
    let worker = runtime.worker(builder(&aws, &probe, config("w1"))).await;
    until("process_records", || entered.try_recv().is_ok()).await;
    let outage = Fault::brownout(10 * PATIENCE).service(Service::DynamoDb);
    let outage = aws.faults().add(outage);
    until("the refusal", || !probe.calls(Call::Fenced).is_empty()).await;
    aws.faults().remove(outage);
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    worker.shutdown(PATIENCE).await.unwrap();
}

/// A worker whose only shard is in a call that blocks its runtime until the gate is dropped.
async fn blocked_worker(aws: &LocalAws, runtime: &OneThread) -> (WorkerHandle, Gate) {
    let (probe, gate) = Gate::new();
    put(aws, &probe, 0..100).await;
    let worker = runtime.worker(builder(aws, &probe, config("w1"))).await;
    gate.entered().await;
    (worker, gate)
}

#[tokio::test]
async fn a_planned_stop_keeps_its_deadline_and_the_next_owner_starts() {
    let aws = aws(1).await;
    let runtime = OneThread::new();
    let (first, gate) = blocked_worker(&aws, &runtime).await;
    let others = Probe::new();
    let second = worker(&aws, &others, config("w2")).await;
    until("a scan", || lease(&second).is_some()).await;
    let stop = first.shutdown(Duration::from_millis(100));
    let report = tokio::time::timeout(PATIENCE, stop).await.unwrap().unwrap();
    assert_eq!((report.drained.len(), report.aborted.len()), (0, 1));
    assert!(matches!(first.state(), WorkerState::Stopped(None)));
    until("the next owner", || !others.calls(Call::Initialize).is_empty()).await;
    drop(gate);
    second.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_worker_is_aborted_and_the_next_owner_starts() {
    let aws = aws(1).await;
    let runtime = OneThread::new();
    let (first, gate) = blocked_worker(&aws, &runtime).await;
    let others = Probe::new();
    let second = worker(&aws, &others, config("w2")).await;
    first.abort();
    let ended = tokio::time::timeout(PATIENCE, first.join()).await.unwrap();
    assert!(matches!(ended, Err(WorkerError::Aborted)), "{ended:?}");
    until("the next owner", || !others.calls(Call::Initialize).is_empty()).await;
    drop(gate);
    second.shutdown(PATIENCE).await.unwrap();
}

/// The worker keeps the leases that it holds, and takes no other, because it would not process it.
#[tokio::test]
async fn a_worker_whose_runtime_runs_nothing_takes_no_more_leases_until_it_does() {
    let aws = aws(2).await;
    let shards = open_shards(&aws);
    let (probe, gate) = Gate::new();
    let others = Probe::new();
    let second = worker(&aws, &others, config("w2")).await;
    until("both shards", || processing(&second) == 2).await;
    let runtime = OneThread::new();
    let first = runtime.worker(builder(&aws, &probe, config("w1"))).await;
    until("its share", || (processing(&first), processing(&second)) == (1, 1)).await;
    let own = first.snapshot().shards[0].shard_id.clone();
    let other = shards.iter().find(|shard| **shard != own).unwrap();
    put(&aws, &probe, 0..100).await;
    gate.entered().await;
    until("the reason", || reason(&first, &own, ProblemKind::RuntimeBlocked).is_some()).await;

    second.abort();
    let leases = || first.lease_table().unwrap().leases;
    let lease = |shard: &str| leases().into_iter().find(|lease| lease.shard_id == shard);
    until("an expired lease", || {
        let lease = lease(other).unwrap();
        assert_eq!(lease.owner.as_deref(), Some("w2"), "{lease:?}");
        lease.heartbeat_age > 4 * config("w1").failover_time
    })
    .await;
    assert_eq!(lease(&own).unwrap().owner.as_deref(), Some("w1"));
    drop(gate);
    until("both shards", || processing(&first) == 2).await;
    assert_eq!(first.why_not_running(&own), None);
    assert_eq!(probe.calls(Call::LeaseLost), [""; 0]);
    first.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn shards_that_a_blocked_runtime_never_began_are_given_back() {
    let aws = aws(2).await;
    let (unblock, blocked) = mpsc::channel::<()>();
    let (probe, runtime) = (Probe::new(), OneThread::new());
    let scheduler = builder(&aws, &probe, config("w1")).build().await.unwrap();
    let first = runtime.runtime().spawn(async move {
        let worker = scheduler.spawn();
        let _ = blocked.recv();
        worker
    });
    let others = Probe::new();
    let taken = async {
        while !were_taken(&aws).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.unwrap();
    let second = worker(&aws, &others, config("w2")).await;
    until("both shards", || processing(&second) == 2).await;
    assert_eq!(probe.calls(Call::Initialize), [""; 0]);
    drop(unblock);
    let first = first.await.unwrap();
    first.shutdown(PATIENCE).await.unwrap();
    second.shutdown(PATIENCE).await.unwrap();
}

/// The items of the leases.
async fn items(aws: &LocalAws) -> Vec<HashMap<String, AttributeValue>> {
    let table = aws.dynamodb().scan().table_name(APPLICATION);
    let scan = table.consistent_read(true).send().await.unwrap();
    let is_lease = |key: &AttributeValue| key.as_s().unwrap().starts_with("shardId-");
    let items = scan.items.unwrap_or_default().into_iter();
    items.filter(|item| is_lease(&item["leaseKey"])).collect()
}

/// The owner of the only lease.
async fn owner(aws: &LocalAws) -> Option<String> {
    let owner = items(aws).await[0].get("leaseOwner")?.as_s().unwrap().clone();
    Some(owner)
}

/// Whether each lease was taken, by any worker.
async fn were_taken(aws: &LocalAws) -> bool {
    let items = items(aws).await;
    let was_taken = |item: &HashMap<_, AttributeValue>| item["leaseCounter"].as_n().unwrap() != "0";
    items.iter().all(was_taken)
}
