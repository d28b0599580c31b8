//! What a planned stop leaves in the table, and what the next start does with it.

use super::*;

#[tokio::test]
async fn several_leases_are_handed_over_evenly_and_one_pending_to_the_leaver_stays_pending() {
    let aws = aws(6).await;
    let workers = [
        Worker::start(&aws, "w1", config()).await,
        Worker::start(&aws, "w2", config()).await,
        Worker::start(&aws, "w3", config()).await,
    ];
    until("2 each", async || workers.iter().all(|worker| worker.held().len() == 2).then_some(()))
        .await;
    // Another worker drains a lease for the worker that is about to leave.
    let mut lease = Lease::new("shardId-x", Checkpoint::TrimHorizon);
    lease.owner = Some("w3".into());
    lease.checkpoint_owner = Some("w9".into());
    store(&aws).write(&lease, LeaseWrite::Create).await.unwrap();
    let [first, second, third] = workers;
    third.shutdown().await;
    // Read at once: the lease expires later, and then another worker takes it.
    let found = &leases(&aws).await["shardId-x"];
    assert_eq!((found.checkpoint_owner.as_deref(), found.counter), (Some("w9"), 0), "pending");
    until("3 each", async || (first.held().len() == 3 && second.held().len() == 3).then_some(()))
        .await;
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn a_restart_under_the_same_id_goes_on_at_once_with_what_it_kept() {
    let aws = aws(2).await;
    let first = Worker::start(&aws, "w1", kept()).await;
    first.holds(2).await;
    first.shutdown().await;
    let kept_leases = leases(&aws).await;
    assert_eq!(kept_leases.len(), 2);
    for lease in kept_leases.values() {
        assert_eq!(lease.owner.as_deref(), Some("w1"));
        assert!(lease.was_released_to_owner(), "{lease:?}");
        assert_eq!(lease.owner_switches, 0);
    }
    let again = Worker::start(&aws, "w1", kept()).await;
    again.holds(2).await;
    again.shutdown().await;
}

/// Lets two workers scan at one time. Writes are so slow that each reads before either writes.
/// Returns the leases that were acquired.
async fn scan_together(aws: &LocalAws, [one, other]: &mut [Manual; 2]) -> Vec<HeldLease> {
    let delay = Fault::delay(Duration::from_millis(300)).service(Service::DynamoDb);
    aws.faults().add(delay.operation("UpdateItem"));
    let (a, b) = tokio::join!(one.scan(), other.scan());
    aws.faults().clear();
    a.into_iter().chain(b).collect()
}

/// Nothing expires: the failover time is far longer than a test.
fn kept() -> ConsumerConfig {
    let config = config().with_failover_time(Duration::from_secs(3600));
    config.with_on_stop(OnStop::Keep).with_worker_id("w1")
}

#[tokio::test]
async fn the_next_process_of_an_id_does_not_start_on_what_the_last_one_did_not_release() {
    let aws = aws(1).await;
    let mut first = Manual::new(&aws, "w1", kept()).await;
    let held = first.scan().await.unwrap();
    // The first process lives or has crashed: the table does not show which.
    let mut second = Manual::new(&aws, "w1", kept()).await;
    assert!(second.scan().await.is_none());
    first.coordinator.withdraw().await;
    held.end(LeaseEnd::Relinquish).await;
    assert!(second.scan().await.is_some());
}

#[tokio::test]
async fn of_two_processes_of_one_id_one_starts_on_what_was_released_to_it() {
    let aws = aws(1).await;
    let mut last = Manual::new(&aws, "w1", kept()).await;
    let held = last.scan().await.unwrap();
    let mut workers =
        [Manual::new(&aws, "w1", kept()).await, Manual::new(&aws, "w1", kept()).await];
    // Both have observed the owner, so the rules that need an earlier scan are tried, too.
    for worker in &mut workers {
        assert!(worker.scan().await.is_none());
    }
    held.end(LeaseEnd::Relinquish).await;
    let started = scan_together(&aws, &mut workers).await;
    assert_eq!(started.len(), 1, "one of them");
    assert_eq!(leases(&aws).await[held.shard_id()].counter, 3, "one renewal");
    for worker in &mut workers {
        assert!(worker.scan().await.is_none());
    }
    assert!(started[0].is_held());
}

#[tokio::test]
async fn of_two_processes_of_one_id_one_takes_a_free_lease() {
    let aws = aws(1).await;
    let mut workers =
        [Manual::new(&aws, "w1", kept()).await, Manual::new(&aws, "w1", kept()).await];
    let started = scan_together(&aws, &mut workers).await;
    assert_eq!(started.len(), 1);
    // The lease was unassigned before in the scan of the other process, too, but no leader assigned
    // it to this worker.
    for worker in &mut workers {
        assert!(worker.scan().await.is_none());
    }
    assert_eq!(leases(&aws).await[started[0].shard_id()].counter, 1);
}

#[tokio::test]
async fn a_stop_releases_leases_that_were_assigned_meanwhile_and_leaves_those_of_another_process() {
    let aws = aws(3).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", kept())).await.unwrap();
    coordinator.withdraw().await;
    let free: Vec<Lease> = leases(&aws).await.into_values().collect();
    let [given, taken, forced] = &free[..] else { panic!("{free:?}") };
    let to_w1 = LeaseWrite::Assign { to: "w1".into(), released: false };
    coordinator.ctx.worker.store.write(given, to_w1.clone()).await.unwrap();
    store(&aws).write(taken, LeaseWrite::Take { owner: "w1".into() }).await.unwrap();
    let others = store(&aws).write(forced, LeaseWrite::Take { owner: "w9".into() }).await.unwrap();
    let others = others.applied().unwrap();
    store(&aws).write(&others, to_w1).await.unwrap();
    coordinator.stop().await;
    let found = leases(&aws).await;
    for lease in found.values() {
        assert_eq!(lease.owner.as_deref(), Some("w1"));
        assert_eq!(lease.was_released_to_owner(), lease.key == given.key);
    }
    assert_eq!(found[&taken.key].counter, 1, "untouched");
    assert_eq!(found[&forced.key].counter, 2, "untouched");
}

#[tokio::test]
async fn a_leaving_worker_awaits_the_row_that_it_writes_and_spares_a_later_one() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    let delay = Fault::delay(Duration::from_millis(200)).service(Service::DynamoDb);
    let delay = aws.faults().add(delay.operation("UpdateItem").times(1));
    let task = tokio::spawn(Arc::clone(&coordinator.scanner.heartbeat).run());
    until("the row is being written", async || (aws.faults().count(delay) == 1).then_some(()))
        .await;
    coordinator.ctx.stop.leaving.cancel();
    task.await.unwrap();
    let rows = async || store(&aws).list(true).await.unwrap().workers;
    let [row] = &rows().await[..] else { panic!("the write was dropped") };
    // The next process under this id.
    let later = row.last_update + 1;
    store(&aws).put_worker("w1", later).await.unwrap();
    coordinator.scanner.heartbeat.withdraw().await;
    assert_eq!(rows().await.len(), 1);

    store(&aws).put_worker("w1", row.last_update).await.unwrap();
    coordinator.scanner.heartbeat.withdraw().await;
    assert!(rows().await.is_empty());
}

#[tokio::test]
async fn a_leaving_worker_removes_its_row_though_the_last_writes_were_not_answered() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    let heartbeat = &coordinator.scanner.heartbeat;
    let rows = async || store(&aws).list(true).await.unwrap().workers;
    let now = coordinator.ctx.worker.service_clock.epoch_seconds();
    // The row may be of the write that was answered, or of any write since.
    for written in [now - 34, now - 4, now - 2, now] {
        heartbeat.row_times.lock().acknowledged(now - 34);
        for attempt in [now - 4, now - 2, now] {
            heartbeat.row_times.lock().attempted(attempt);
        }
        store(&aws).put_worker("w1", written).await.unwrap();
        coordinator.scanner.heartbeat.withdraw().await;
        assert!(rows().await.is_empty(), "{written} of {now}");
    }
}

#[tokio::test]
async fn the_lease_of_an_aborted_processor_is_not_released_at_the_stop() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    let mut incoming = coordinator.start();
    let held_lease = incoming.recv().await.unwrap();
    coordinator.withdraw().await;
    held_lease.abort();
    // It returns when the renewer has ended.
    held_lease.end(LeaseEnd::Lost).await;
    coordinator.stop().await;
    let lease = &leases(&aws).await[held_lease.shard_id()];
    assert_eq!(lease.owner.as_deref(), Some("w1"), "it expires");
}
