//! What a worker finds that names it.

use std::future::ready;

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use futures::StreamExt as _;

use super::*;
use crate::coordinator::heartbeat::RowWritten;

#[tokio::test]
async fn a_lease_found_assigned_is_renewed_before_it_counts_as_acquired() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    let shared = &coordinator.shared;
    let (deliveries, mut tenures) = mpsc::channel(QUEUE);
    // The answer of the take is lost: it may have been a leader's.
    let lost = Fault::response_lost().service(Service::DynamoDb);
    aws.faults().add(lost.operation("UpdateItem").times(1));
    look_and_act(shared, &mut Looks::new(shared), &deliveries).await.unwrap();
    assert_eq!(tenures.try_recv().unwrap().lease().counter, 2);
}

#[tokio::test]
async fn discovery_does_not_read_finished_leases_again() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    let shared = &coordinator.shared;
    let ended = Lease { owner: Some("w1".into()), ..Lease::new("finished", Checkpoint::ShardEnd) };
    shared.store.create(&ended).await.unwrap();
    let (deliveries, _tenures) = mpsc::channel(QUEUE);
    let reads = Fault::delay(Duration::from_millis(1)).service(Service::DynamoDb);
    let reads = aws.faults().add(reads.operation("GetItem"));
    discovery::look(shared, &deliveries).await.unwrap();
    assert_eq!(aws.faults().count(reads), 1, "not seen yet");
    look(shared, true).await.unwrap();
    discovery::look(shared, &deliveries).await.unwrap();
    assert_eq!(aws.faults().count(reads), 1);
}

/// By the units that the table itself counts.
#[tokio::test]
async fn discovery_of_many_leases_costs_no_more_than_its_rate() {
    let me = "billing-1c84e3f2a9d06b57";
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, me, config())).await;
    let coordinator = coordinator.unwrap();
    let shared = &coordinator.shared;
    let leases = (1..=600).map(|n| Lease {
        owner: Some(me.into()),
        ..Lease::new(format!("shardId-{n:012}"), Checkpoint::ShardEnd)
    });
    let created = leases.map(|lease| async move { shared.store.create(&lease).await });
    let created = futures::stream::iter(created).buffer_unordered(16);
    assert_eq!(created.filter(|new| ready(new.is_ok())).count().await, 600);
    look(shared, true).await.unwrap();
    let (deliveries, _tenures) = mpsc::channel(QUEUE);
    let pause = discovery::look(shared, &deliveries).await.unwrap();
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
    assert!((0.7..1.1).contains(&(rate / shared.table_reads)), "{rate}");
}

#[tokio::test]
async fn a_leader_that_lives_balances_alone() {
    let aws = aws(4).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    let shared = &coordinator.shared;
    let (deliveries, _tenures) = mpsc::channel(QUEUE);
    look_and_act(shared, &mut Looks::new(shared), &deliveries).await.unwrap();
    let now = shared.epoch_seconds();
    shared.store.put_worker("java", now).await.unwrap();
    let hand_over = async || {
        let snapshot = look(shared, true).await.unwrap();
        make_plan(shared, &snapshot).hand_over.len()
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
    assert_eq!(hand_over().await, 2, "nobody leads");
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
    shared.store.put_worker("java", now).await.unwrap();
    assert_eq!(hand_over().await, 0);
    lock("long gone").await;
    assert_eq!(hand_over().await, 2, "its worker is not there");
}

#[tokio::test]
async fn a_worker_that_is_held_back_takes_nothing_and_invites_nobody() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config())).await.unwrap();
    let shared = &coordinator.shared;
    let (deliveries, mut tenures) = mpsc::channel(QUEUE);
    coordinator.hold_back(true);
    let mut report = std::pin::pin!(heartbeat::report(shared));
    assert!(futures::poll!(&mut report).is_pending());
    assert_eq!(*shared.row_written(), RowWritten::default(), "not tried");
    let mut looks = Looks::new(shared);
    look_and_act(shared, &mut looks, &deliveries).await.unwrap();
    assert!(tenures.try_recv().is_err());
    coordinator.hold_back(false);
    look_and_act(shared, &mut looks, &deliveries).await.unwrap();
    assert!(tenures.try_recv().is_ok());
    let row = async {
        while shared.store.list(true).await.unwrap().workers.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = report => panic!("it goes on until the worker leaves"),
        () = row => {}
    }
}
