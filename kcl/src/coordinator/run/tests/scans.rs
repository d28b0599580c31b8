//! What a worker finds in its scans and queries, and what it does then.

use std::future::ready;

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use futures::StreamExt as _;

use super::*;
use crate::coordinator::heartbeat::RowTimes;

#[tokio::test]
async fn a_lease_found_assigned_is_renewed_before_it_counts_as_acquired() {
    let aws = aws(1).await;
    let mut worker = Manual::new(&aws, "w1", config()).await;
    // The answer of the take is lost: a leader may have assigned the lease.
    let lost = Fault::response_lost().service(Service::DynamoDb);
    aws.faults().add(lost.operation("UpdateItem").times(1));
    assert_eq!(worker.scan().await.unwrap().lease().counter, 2);
}

#[tokio::test]
async fn discovery_does_not_read_finished_leases_again() {
    let aws = aws(1).await;
    let worker = Manual::new(&aws, "w1", config()).await;
    let ended = Lease { owner: Some("w1".into()), ..Lease::new("finished", Checkpoint::ShardEnd) };
    store(&aws).write(&ended, LeaseWrite::Create).await.unwrap();
    let reads = Fault::delay(Duration::from_millis(1)).service(Service::DynamoDb);
    let reads = aws.faults().add(reads.operation("GetItem"));
    let mut discovery = Discovery::new(worker.acquirer.clone());
    discovery.query().await.unwrap();
    assert_eq!(aws.faults().count(reads), 1, "not scanned yet");
    worker.coordinator.scanner.scan(true).await.unwrap();
    discovery.query().await.unwrap();
    assert_eq!(aws.faults().count(reads), 1);
}

/// By the units that the table itself counts.
#[tokio::test]
async fn discovery_of_many_leases_costs_no_more_than_its_rate() {
    let me = "billing-1c84e3f2a9d06b57";
    let aws = aws(1).await;
    let worker = Manual::new(&aws, me, config()).await;
    let store = store(&aws);
    let leases = (1..=600).map(|n| Lease {
        owner: Some(me.into()),
        ..Lease::new(format!("shardId-{n:012}"), Checkpoint::ShardEnd)
    });
    let created = leases.map(|lease| {
        let store = &store;
        async move { store.write(&lease, LeaseWrite::Create).await }
    });
    let created = futures::stream::iter(created).buffer_unordered(16);
    assert_eq!(created.filter(|new| ready(new.is_ok())).count().await, 600);
    worker.coordinator.scanner.scan(true).await.unwrap();
    let mut discovery = Discovery::new(worker.acquirer.clone());
    discovery.query().await.unwrap();
    let pause = discovery.pause();
    let query = aws.dynamodb().query().table_name(APP);
    let query = query
        .index_name("LeaseOwnerToLeaseKeyIndex")
        .key_condition_expression("leaseOwner = :me")
        .expression_attribute_values(":me", AttributeValue::S(me.into()))
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let answer = query.send().await.unwrap();
    assert_eq!(answer.count(), 600);
    let units = answer.consumed_capacity().unwrap().capacity_units();
    let rate = units.unwrap() / pause.as_secs_f64();
    assert!((0.7..1.1).contains(&(rate / worker.coordinator.ctx.worker.table_reads)), "{rate}");
}

#[tokio::test]
async fn a_leader_that_lives_balances_alone() {
    let aws = aws(4).await;
    let mut worker = Manual::new(&aws, "w1", config()).await;
    worker.assignment.scan_and_act().await.unwrap();
    let now = worker.coordinator.ctx.worker.service_clock.epoch_seconds();
    store(&aws).put_worker("java", now).await.unwrap();
    let hand_over = async || {
        let scan = worker.coordinator.scanner.scan(true).await.unwrap();
        worker.assignment.plan(&scan).hand_over.len()
    };
    let lock = async |owner: &str| {
        let lock = [
            ("leaseKey", "Leader"),
            ("entityType", "LEADER"),
            ("ownerName", owner),
            ("recordVersionNumber", owner),
            ("leaseDuration", "120000"),
        ];
        let lock = lock.map(|(name, value)| (name.to_owned(), AttributeValue::S(value.into())));
        let put = aws.dynamodb().put_item().table_name(APP);
        put.set_item(Some(lock.into())).send().await.unwrap();
    };
    assert_eq!(hand_over().await, 2, "there is no leader");
    lock("java").await;
    assert_eq!(hand_over().await, 0);
    let measured = AttributeValue::M([("C".into(), AttributeValue::L(Vec::new()))].into());
    let row = aws.dynamodb().update_item().table_name(APP);
    row.key("leaseKey", AttributeValue::S("java".into()))
        .update_expression("SET sts = :sts")
        .expression_attribute_values(":sts", measured)
        .send()
        .await
        .unwrap();
    assert_eq!(hand_over().await, 2, "it does not compare such a worker with ours");
    store(&aws).put_worker("java", now).await.unwrap();
    assert_eq!(hand_over().await, 0);
    lock("long gone").await;
    assert_eq!(hand_over().await, 2, "its worker does not live");
}

#[tokio::test]
async fn a_worker_that_is_held_back_takes_no_lease_and_writes_no_heartbeat() {
    let aws = aws(1).await;
    let mut worker = Manual::new(&aws, "w1", config()).await;
    worker.coordinator.hold_back(true);
    let heartbeat = Arc::clone(&worker.coordinator.scanner.heartbeat);
    let mut beats = std::pin::pin!(Arc::clone(&heartbeat).run());
    assert!(futures::poll!(&mut beats).is_pending());
    assert_eq!(*heartbeat.row_times.lock(), RowTimes::default(), "not tried");
    assert!(worker.scan().await.is_none());
    worker.coordinator.hold_back(false);
    assert!(worker.scan().await.is_some());
    let row = async {
        while store(&aws).list(true).await.unwrap().workers.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = beats => panic!("it goes on until the worker leaves"),
        () = row => {}
    }
}
