//! The leases of the stream's shards: their creation, repair and end.

use super::*;

#[tokio::test]
async fn children_are_created_before_the_end_and_parents_are_cleaned_up() {
    let aws = aws(1).await;
    let worker = Worker::start(&aws, "w1", config()).await;
    let parent = worker.only_lease().await;
    aws.kinesis()
        .split_shard()
        .stream_name(STREAM)
        .shard_to_split(parent.shard_id())
        .new_starting_hash_key("170141183460469231731687303715884105728")
        .send()
        .await
        .unwrap();
    // The last page named no children: they are learned from the listing.
    until("children", async || {
        parent.record_children(Vec::new()).await.ok()?;
        (leases(&aws).await.len() == 3).then_some(())
    })
    .await;
    let found = leases(&aws).await;
    assert_eq!(found[parent.shard_id()].children.len(), 2);
    parent.checkpoint(Checkpoint::ShardEnd, Retry::Never).await.unwrap();
    parent.end(LeaseEnd::ShardEnded).await;
    worker.holds(2).await;

    let report = worker.coordinator.ctx.worker.sync.run().await.unwrap();
    assert_eq!((report.created, report.deleted), (0, 0), "children are still at their start");
    let children: Vec<HeldLease> = worker.held_leases.lock().unwrap().clone();
    for child in children.iter().filter(|held_lease| held_lease.is_held()) {
        assert!(child.parents_ended().await.unwrap());
        child.checkpoint(Checkpoint::parse("5", 0).unwrap(), Retry::Never).await.unwrap();
    }
    drop(children);
    let sync = worker.coordinator.ctx.worker.sync.clone();
    let report = sync.run().await.unwrap();
    assert_eq!((report.created, report.deleted), (0, 0), "kept for a while");
    let clock = Arc::new(Later(SystemClock, Duration::from_secs(60)));
    let report = ShardSync { clock, ..sync }.run().await.unwrap();
    assert_eq!((report.created, report.deleted), (0, 1));
    assert!(!leases(&aws).await.contains_key(parent.shard_id()));
    drop(parent);
    worker.shutdown().await;
}

#[tokio::test]
async fn the_child_of_a_merge_has_both_parents_leases() {
    let aws = aws(2).await;
    let worker = Worker::start(&aws, "w1", config()).await;
    worker.holds(2).await;
    let held_leases: Vec<HeldLease> = worker.held_leases.lock().unwrap().clone();
    aws.kinesis()
        .merge_shards()
        .stream_name(STREAM)
        .shard_to_merge("shardId-000000000000")
        .adjacent_shard_to_merge("shardId-000000000001")
        .send()
        .await
        .unwrap();
    // This holds even if one of them is missing when the other ends.
    let (one, other) = (&held_leases[0], &held_leases[1]);
    other.end(LeaseEnd::Lost).await;
    let lost = leases(&aws).await[other.shard_id()].clone();
    store(&aws).write(&lost, LeaseWrite::Delete).await.unwrap();
    let child = until("the child", async || {
        one.record_children(Vec::new()).await.ok()?;
        leases(&aws).await.remove("shardId-000000000002")
    })
    .await;
    assert_eq!(child.parents.len(), 2);
    assert_eq!(child.checkpoint, Checkpoint::TrimHorizon);
    assert!(
        leases(&aws).await.contains_key(other.shard_id()),
        "made again, so that it is waited for"
    );
    drop(held_leases);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_sync_repairs_a_missing_lease_and_a_missing_hash_range() {
    let aws = aws(3).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    let mut found = leases(&aws).await.into_values();
    let (gone, bare) = (found.next().unwrap(), found.next().unwrap());
    store(&aws).write(&gone, LeaseWrite::Delete).await.unwrap();
    store(&aws).write(&bare, LeaseWrite::Delete).await.unwrap();
    let without_range = Lease { hash_key_range: None, ..bare.clone() };
    store(&aws).write(&without_range, LeaseWrite::Create).await.unwrap();
    let report = coordinator.ctx.worker.sync.run().await.unwrap();
    assert_eq!((report.created, report.deleted), (1, 0));
    let repaired = leases(&aws).await;
    assert_eq!(repaired[&gone.key], gone);
    assert_eq!(repaired[&bare.key], bare);
    coordinator.stop().await;
}

#[tokio::test]
async fn latest_keeps_the_time_to_resume_from() {
    let aws = aws(2).await;
    let clock = SystemClock;
    // The time of the service has whole seconds, and its hosts may be 2 s apart.
    let before = clock.wall() - Duration::from_secs(4);
    let config = config().with_initial_position(InitialPosition::Latest);
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config)).await.unwrap();
    let found = leases(&aws).await;
    assert_eq!(found.len(), 2);
    for lease in found.values() {
        assert_eq!(lease.checkpoint, Checkpoint::Latest);
        let resume = lease.resume_from.unwrap();
        assert!(before < resume && resume <= clock.wall(), "{resume:?}");
    }
    coordinator.stop().await;
}
