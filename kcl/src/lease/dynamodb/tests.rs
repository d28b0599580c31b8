//! The requests, the tables and their layouts.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{
    AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use kinesis_testkit::{Fault, LocalAws, Service};

use super::*;
use crate::checkpoint::Checkpoint;
use crate::config::{ConsumerConfig, TableConfig};
use crate::lease::client::for_leases;
use crate::lease::golden::golden;
use crate::lease::model::StreamIdentity;
use crate::lease::table::{INDEX, TableError, describe, ensure};

const TABLE: &str = "app";

async fn fixture() -> (LocalAws, DynamoDbLeaseStore) {
    let aws = LocalAws::start().await.unwrap();
    let client = for_leases(&aws.dynamodb(), &ConsumerConfig::default());
    ensure(&client, TABLE, &TableConfig::default()).await.unwrap();
    let store = DynamoDbLeaseStore::new(client, TABLE.to_owned(), Layout::OneTable, 1);
    (aws, store)
}

/// Workers of other versions and libraries rely on these conditions and updates.
#[test]
fn each_write_has_its_condition_and_its_update() {
    let owned = |owner: &str| Lease {
        owner: Some(owner.into()),
        counter: 4,
        stamp: Some(Stamp::after(3, 9)),
        ..Lease::new("k", Checkpoint::TrimHorizon)
    };
    let held = owned("me");
    let pending = Lease { checkpoint_owner: Some("me".into()), ..owned("next") };
    let of_java = Lease { counter: 400, ..held.clone() };
    let report = |throughput| OwnerReport { throughput, failing: None };
    let renew = |throughput| LeaseWrite::Renew { owner: "me".into(), report: report(throughput) };
    let checkpoint = |checkpoint, pending| LeaseWrite::Checkpoint {
        owner: "me".into(),
        checkpoint,
        pending,
        report: report(Some(1.5)),
    };
    let prepared = PendingCheckpoint { checkpoint: Checkpoint::Latest, state: None };
    let take = LeaseWrite::Take { owner: "me".into() };
    let assign = |released| LeaseWrite::Assign { to: "w".into(), released };
    let stream = ShardFacts::Stream(StreamIdentity::parse("arn@1").unwrap());
    let processing =
        "(checkpointOwner = :v1 OR (leaseOwner = :v1 AND attribute_not_exists(checkpointOwner)))";
    let by_me = "leaseOwner = :v1 AND attribute_not_exists(checkpointOwner)";
    for (known, write, condition, update) in [
        (&held, LeaseWrite::Create, "attribute_not_exists(leaseKey)", ""),
        (
            &of_java,
            renew(None),
            &*format!("leaseCounter = :v0 AND {by_me}"),
            "SET leaseCounter = :v2, rustStamp = :v3 REMOVE rustReadTo",
        ),
        (
            &pending,
            renew(Some(1.5)),
            "leaseCounter = :v0 AND checkpointOwner = :v1",
            "SET leaseCounter = :v2, rustStamp = :v3, throughputKBps = :v4",
        ),
        (
            &held,
            checkpoint(Checkpoint::ShardEnd, None),
            &format!("leaseCounter = :v0 AND {processing}"),
            "SET leaseCounter = :v2, rustStamp = :v3, checkpoint = :v4, checkpointSubSequenceNumber = :v5, \
             ownerSwitchesSinceCheckpoint = :v6, throughputKBps = :v7 \
             REMOVE rustResumeFrom, pendingCheckpoint, pendingCheckpointSubSequenceNumber, pendingCheckpointState",
        ),
        (
            &held,
            checkpoint(Checkpoint::TrimHorizon, Some(prepared)),
            &format!("leaseCounter = :v0 AND {processing}"),
            "SET leaseCounter = :v2, rustStamp = :v3, checkpoint = :v4, checkpointSubSequenceNumber = :v5, \
             ownerSwitchesSinceCheckpoint = :v6, throughputKBps = :v7, pendingCheckpoint = :v8, \
             pendingCheckpointSubSequenceNumber = :v9 REMOVE pendingCheckpointState",
        ),
        (
            &owned("w"),
            take.clone(),
            &format!("leaseCounter = :v0 AND {by_me}"),
            "SET leaseCounter = :v2, rustStamp = :v3, leaseOwner = :v4 REMOVE checkpointOwner \
             ADD ownerSwitchesSinceCheckpoint :v5",
        ),
        (
            &pending,
            take,
            "leaseCounter = :v0 AND leaseOwner = :v1 AND checkpointOwner = :v2",
            "SET leaseCounter = :v3, rustStamp = :v4, leaseOwner = :v5 REMOVE checkpointOwner",
        ),
        (
            &Lease { owner: None, ..held.clone() },
            assign(false),
            "attribute_exists(leaseKey) AND attribute_not_exists(leaseOwner) AND attribute_not_exists(checkpointOwner)",
            "SET leaseOwner = :v1 REMOVE checkpointOwner ADD leaseCounter :v0",
        ),
        (
            &held,
            assign(true),
            "attribute_exists(leaseKey) AND leaseOwner = :v0 AND attribute_not_exists(checkpointOwner) \
             AND leaseCounter = :v1",
            "SET rustReleasedAt = :v2, leaseOwner = :v4 REMOVE checkpointOwner \
             ADD leaseCounter :v3, ownerSwitchesSinceCheckpoint :v5",
        ),
        (
            &held,
            LeaseWrite::StartHandoff { to: "w".into() },
            "attribute_exists(leaseKey) AND leaseOwner = :v0 AND attribute_not_exists(checkpointOwner)",
            "SET leaseOwner = :v1, checkpointOwner = :v2",
        ),
        (
            &held,
            LeaseWrite::Evict,
            &format!("leaseCounter = :v0 AND {by_me}"),
            "REMOVE checkpointOwner, leaseOwner ADD leaseCounter :v2",
        ),
        (
            &pending,
            LeaseWrite::Evict,
            "leaseCounter = :v0 AND leaseOwner = :v1 AND checkpointOwner = :v2",
            "REMOVE checkpointOwner ADD leaseCounter :v3",
        ),
        (
            &held,
            LeaseWrite::Replace { new: Box::new(held.clone()) },
            &format!("leaseCounter = :v0 AND {by_me}"),
            "",
        ),
        (
            &held,
            LeaseWrite::SetFacts(ShardFacts::Children(Vec::new())),
            "attribute_exists(leaseKey)",
            "REMOVE childShardIds",
        ),
        (
            &held,
            LeaseWrite::SetFacts(stream),
            "attribute_exists(leaseKey) AND attribute_not_exists(rustStream)",
            "SET rustStream = :v0",
        ),
        (&held, LeaseWrite::Delete, "checkpoint = :v0", ""),
    ] {
        let (is_condition, is_update, _) = expression(&write, known, 7).build();
        assert_eq!((&*is_condition, &*is_update), (condition, update), "{write:?}");
    }
}

#[tokio::test]
async fn the_worker_row_has_the_shape_of_the_golden_one() {
    let (_aws, store) = fixture().await;
    store.put_worker("w1", 1_795_250_260).await.unwrap();
    let raw =
        store.client.get_item().table_name(TABLE).key(name::KEY, text("w1")).send().await.unwrap();
    let empty = || AttributeValue::M(HashMap::new());
    let expected: Item = [
        ("leaseKey", text("w1")),
        ("opr", empty()),
        ("sts", empty()),
        ("entityType", text("WORKER_METRIC_STATS")),
        ("lut", number(1_795_250_260)),
        ("slu", number(1_795_250_260)),
        ("sup", number(1)),
        ("rustProcess", text("1")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(raw.item.unwrap(), expected);
}

#[tokio::test]
async fn a_missing_table_is_told_apart() {
    let (aws, _) = fixture().await;
    let client = for_leases(&aws.dynamodb(), &ConsumerConfig::default());
    let store = DynamoDbLeaseStore::new(client, "gone-table".to_owned(), Layout::OneTable, 1);
    assert!(store.list(false).await.unwrap_err().is_table_missing());
    assert!(store.owned_by("me").await.unwrap_err().is_table_missing());
}

#[tokio::test]
async fn a_new_table_has_the_index_and_the_settings() {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.dynamodb();
    let config = TableConfig {
        deletion_protection: true,
        tags: [("team".to_owned(), "billing".to_owned())].into(),
        provisioned: Some((7, 8)),
        ..TableConfig::default()
    };
    ensure(&client, "table-a", &config).await.unwrap();
    // Again, and at the same time: nothing changes.
    let (a, b) =
        tokio::join!(ensure(&client, "table-a", &config), ensure(&client, "table-a", &config));
    a.and(b).unwrap();
    let table = describe(&client, "table-a").await.unwrap().unwrap();
    let units = table.provisioned_throughput().unwrap();
    assert_eq!((units.read_capacity_units(), units.write_capacity_units()), (Some(7), Some(8)));
    assert_eq!(table.deletion_protection_enabled(), Some(true));
    assert_eq!(table.global_secondary_indexes()[0].index_name(), Some(INDEX));
    let arn = table.table_arn().unwrap();
    let tags = client.list_tags_of_resource().resource_arn(arn).send().await.unwrap();
    assert_eq!((tags.tags()[0].key(), tags.tags()[0].value()), ("team", "billing"));

    ensure(&client, "table-b", &TableConfig::default()).await.unwrap();
    let table = describe(&client, "table-b").await.unwrap().unwrap();
    let billing = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
    assert_eq!(billing, Some(&BillingMode::PayPerRequest));
}

async fn table_with_key(client: &Client, table: &str, key: &str) {
    client
        .create_table()
        .table_name(table)
        .attribute_definitions(
            aws_sdk_dynamodb::types::AttributeDefinition::builder()
                .attribute_name(key)
                .attribute_type(ScalarAttributeType::S)
                .build()
                .unwrap(),
        )
        .key_schema(
            KeySchemaElement::builder()
                .attribute_name(key)
                .key_type(KeyType::Hash)
                .build()
                .unwrap(),
        )
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn an_existing_table_gets_the_index_and_a_foreign_one_is_refused() {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.dynamodb();
    table_with_key(&client, "java2", name::KEY).await;
    ensure(&client, "java2", &TableConfig::default()).await.unwrap();
    let store = DynamoDbLeaseStore::new(client.clone(), "java2".to_owned(), Layout::OneTable, 1);
    let lease = Lease::new("a", Checkpoint::TrimHorizon);
    store.write(&lease, LeaseWrite::Create).await.unwrap();
    let take = LeaseWrite::Take { owner: "me".into() };
    store.write(&lease, take).await.unwrap();
    assert_eq!(store.owned_by("me").await.unwrap(), ["a"]);

    table_with_key(&client, "orders", "orderId").await;
    let error = ensure(&client, "orders", &TableConfig::default()).await.unwrap_err();
    assert!(matches!(error, TableError::Unusable(_)), "{error:?}");
    let table = describe(&client, "orders").await.unwrap().unwrap();
    assert!(table.global_secondary_indexes().is_empty(), "left as it was");
}

#[tokio::test]
async fn beside_older_tables_nothing_but_leases_enters_the_lease_table() {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.dynamodb();
    ensure(&client, TABLE, &TableConfig::default()).await.unwrap();
    table_with_key(&client, "app-WorkerMetricStats", "wid").await;
    let store = DynamoDbLeaseStore::new(client.clone(), TABLE.to_owned(), Layout::legacy(TABLE), 1);
    store.put_worker("w1", 1_795_250_341).await.unwrap();
    assert_eq!(store.list(true).await.unwrap().workers.len(), 1);
    let lease_table = client.scan().table_name(TABLE).send().await.unwrap();
    assert_eq!(lease_table.count(), 0);
    let row = client.scan().table_name("app-WorkerMetricStats").send().await.unwrap();
    let mut names: Vec<_> = row.items()[0].keys().cloned().collect();
    names.sort();
    let expected = ["lut", "opr", "rustProcess", "sts", "wid"];
    assert_eq!(names, expected, "as 3.4 writes it, and one of ours");
    store.delete_worker("w1", 1_795_250_341..=1_795_250_341).await.unwrap();
    let found = store.list(true).await.unwrap();
    assert!(found.workers.is_empty());
    assert_eq!(found.leader, None, "no table of its state yet");

    table_with_key(&client, "app-CoordinatorState", "key").await;
    let lock = golden()
        .into_iter()
        .map(|(_, _, item)| item)
        .find(|item| item.get("key").and_then(|key| key.as_s().ok()) == Some(&"Leader".to_owned()));
    let put = client.put_item().table_name("app-CoordinatorState");
    put.set_item(lock).send().await.unwrap();
    let known = store.list(true).await.unwrap().leader;
    let owner = known.as_ref().map(|lock| lock.owner.as_str());
    assert_eq!(owner, Some("w1"));

    for fault in [Fault::throttle(), Fault::refuse("AccessDeniedException")] {
        let on_state = fault.service(Service::DynamoDb).resource("app-CoordinatorState");
        let refused = aws.faults().add(on_state);
        let found = store.list(true).await.expect("nothing depends on it");
        assert_eq!(found.leader, known, "as it was");
        assert!(aws.faults().count(refused) > 0);
        aws.faults().remove(refused);
    }
    let delete = client.delete_item().table_name("app-CoordinatorState");
    let delete = delete.key("key", text("Leader"));
    delete.send().await.unwrap();
    assert_eq!(store.list(true).await.unwrap().leader, None);
}
