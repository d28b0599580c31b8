//! What a worker finds that names it.

use super::*;

#[tokio::test]
async fn a_lease_found_assigned_is_renewed_before_it_counts_as_acquired() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let shared = &coordinator.shared;
    let (deliveries, mut tenures) = mpsc::channel(QUEUE);
    // The answer of the take is lost: it may have been a leader's.
    let lost = Fault::response_lost().service(Service::DynamoDb);
    aws.faults().add(lost.operation("UpdateItem").times(1));
    look_and_act(shared, &mut Looks::new(shared), &deliveries)
        .await
        .unwrap();
    assert_eq!(tenures.try_recv().unwrap().lease().counter, 2);
}

#[tokio::test]
async fn discovery_does_not_read_finished_leases_again() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let shared = &coordinator.shared;
    let ended = Lease {
        owner: Some("w1".into()),
        ..Lease::new("finished", Checkpoint::ShardEnd)
    };
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

#[tokio::test]
async fn a_leader_that_lives_balances_alone() {
    let aws = aws(4).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let shared = &coordinator.shared;
    let (deliveries, _tenures) = mpsc::channel(QUEUE);
    look_and_act(shared, &mut Looks::new(shared), &deliveries)
        .await
        .unwrap();
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
    assert_eq!(
        hand_over().await,
        2,
        "it does not compare such a worker with ours"
    );
    shared.store.put_worker("java", now).await.unwrap();
    assert_eq!(hand_over().await, 0);
    lock("long gone").await;
    assert_eq!(hand_over().await, 2, "its worker is not there");
}
