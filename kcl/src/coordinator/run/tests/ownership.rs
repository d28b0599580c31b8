//! Which worker holds which lease: alone, among others, after a crash and after a brownout.

use super::*;

#[tokio::test]
async fn a_lone_worker_sets_the_table_up_and_holds_every_shard() {
    let aws = aws(4).await;
    let worker = Worker::start(&aws, "w1", config()).await;
    worker.holds(4).await;
    let found = leases(&aws).await;
    assert_eq!(found.len(), 4);
    let identities: BTreeSet<_> =
        found.values().map(|lease| lease.stream.as_ref().unwrap().to_string()).collect();
    assert_eq!(identities.len(), 1);
    for lease in found.values() {
        assert_eq!(lease.owner.as_deref(), Some("w1"));
        assert_eq!(lease.checkpoint, Checkpoint::TrimHorizon);
        assert!(lease.hash_key_range.is_some() && lease.has_entity_type);
    }
    let state = aws
        .dynamodb()
        .get_item()
        .table_name(APP)
        .key("leaseKey", AttributeValue::S("Migration3.0".into()))
        .send()
        .await
        .unwrap()
        .item
        .unwrap();
    let mut names: Vec<_> = state.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["cv", "entityType", "h", "leaseKey", "mb", "mts"], "as the golden item");
    assert_eq!(state["cv"], AttributeValue::S("CLIENT_VERSION_3X".into()));
    let rows = store(&aws).list(true).await.unwrap().workers;
    assert_eq!(rows.iter().map(|row| row.worker.as_str()).collect::<Vec<_>>(), ["w1"]);
    worker.shutdown().await;
    let after = store(&aws).list(true).await.unwrap();
    assert!(after.workers.is_empty(), "the row is gone");
    assert!(
        after.leases.iter().all(|lease| lease.owner.is_none()),
        "there is no other worker to hand over to"
    );
}

#[tokio::test]
async fn two_workers_share_four_leases_and_no_lease_is_held_twice() {
    let aws = aws(4).await;
    let first = Worker::start(&aws, "w1", config()).await;
    first.holds(4).await;
    let second = Worker::start(&aws, "w2", config()).await;

    let done = Arc::new(AtomicBool::new(false));
    let watch = {
        let (done, first, second) =
            (Arc::clone(&done), Arc::clone(&first.held_leases), Arc::clone(&second.held_leases));
        tokio::spawn(async move {
            let mut checks = 0u64;
            while !done.load(Ordering::SeqCst) {
                {
                    // Both locked: one moment.
                    let (first, second) = (first.lock().unwrap(), second.lock().unwrap());
                    let mut held = BTreeSet::new();
                    let held_leases = first.iter().chain(second.iter());
                    for held_lease in held_leases.filter(|held_lease| held_lease.is_held()) {
                        let shard = held_lease.shard_id().to_owned();
                        assert!(held.insert(shard), "held twice: {}", held_lease.shard_id());
                    }
                }
                checks += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            checks
        })
    };
    until("2 and 2", async || (first.held().len() == 2 && second.held().len() == 2).then_some(()))
        .await;
    let (of_first, of_second) = (first.held(), second.held());
    let all: BTreeSet<_> = of_first.iter().chain(&of_second).collect();
    assert_eq!(all.len(), 4);

    // A planned stop hands over directly, and nothing waits for an expiry.
    second.shutdown().await;
    let handed = leases(&aws).await;
    assert!(handed.values().all(|lease| lease.owner.as_deref() == Some("w1")), "{handed:?}");
    first.holds(4).await;
    done.store(true, Ordering::SeqCst);
    assert!(watch.await.unwrap() > 0);
    first.shutdown().await;
}

#[tokio::test]
async fn leases_of_a_dead_worker_expire_and_fence_its_ownerships() {
    let aws = aws(2).await;
    let first = Worker::start(&aws, "w1", short_failover()).await;
    first.holds(2).await;
    let old: Vec<HeldLease> = first.held_leases.lock().unwrap().clone();
    first.crash();
    let second = Worker::start(&aws, "w2", short_failover()).await;
    second.holds(2).await;
    for held_lease in old {
        assert!(!held_lease.is_held());
        let result = held_lease.checkpoint(Checkpoint::ShardEnd, Retry::Never).await;
        assert!(matches!(result, Err(crate::CheckpointError::LeaseLost { .. })), "{result:?}");
    }
    for lease in leases(&aws).await.values() {
        assert_eq!((lease.owner.as_deref(), lease.owner_switches), (Some("w2"), 1));
    }
    second.shutdown().await;
}

#[tokio::test]
async fn a_lost_lease_comes_back_after_a_brownout() {
    let aws = aws(1).await;
    let worker = Worker::start(&aws, "w1", short_failover()).await;
    let old = worker.only_lease().await;
    let fault = aws.faults().add(Fault::throttle().service(Service::DynamoDb));
    old.lost().cancelled().await;
    assert!(!old.is_held());
    aws.faults().remove(fault);
    let new = until("the lease again", async || {
        let held_leases = worker.held_leases.lock().unwrap();
        held_leases.iter().find(|held_lease| held_lease.is_held()).cloned()
    })
    .await;
    assert!(new.fencing_token() > old.fencing_token());
    drop((new, old));
    worker.shutdown().await;
}

#[tokio::test]
async fn workers_that_start_together_set_up_one_table() {
    let aws = aws(8).await;
    let (a, b, c) = tokio::join!(
        Worker::start(&aws, "w1", config()),
        Worker::start(&aws, "w2", config()),
        Worker::start(&aws, "w3", config()),
    );
    let workers = [a, b, c];
    until("8 leases on 3 workers", async || {
        let held: Vec<usize> = workers.iter().map(|worker| worker.held().len()).collect();
        (held.iter().sum::<usize>() == 8 && held.iter().all(|held| *held >= 2)).then_some(())
    })
    .await;
    assert_eq!(leases(&aws).await.len(), 8);
    for worker in workers {
        worker.shutdown().await;
    }
}
