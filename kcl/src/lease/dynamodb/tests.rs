//! Each operation and condition, on the embedded DynamoDB, with answers lost and calls throttled.

use aws_sdk_dynamodb::types::{BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use kinesis_testkit::{Fault, LocalAws, Service};

use super::*;
use crate::checkpoint::Checkpoint;
use crate::config::{ConsumerConfig, TableConfig};
use crate::lease::WorkerRow;
use crate::lease::client::for_leases;
use crate::lease::model::PendingCheckpoint;
use crate::lease::table::{TableError, describe, ensure};

const TABLE: &str = "app";

async fn fixture() -> (LocalAws, DynamoDbLeaseStore) {
    let aws = LocalAws::start().await.unwrap();
    let client = for_leases(&aws.dynamodb(), &ConsumerConfig::default());
    ensure(&client, TABLE, &TableConfig::default())
        .await
        .unwrap();
    let store = DynamoDbLeaseStore::new(client, TABLE.to_owned(), Layout::OneTable);
    (aws, store)
}

fn fault(fault: Fault, operation: &str) -> Fault {
    fault.service(Service::DynamoDb).operation(operation)
}

async fn owned(store: &DynamoDbLeaseStore, key: &str, owner: &str) -> Lease {
    let lease = Lease::new(key, Checkpoint::TrimHorizon);
    store.create(&lease).await.unwrap();
    applied(store.take(&lease, owner).await.unwrap())
}

#[track_caller]
fn applied(outcome: Outcome) -> Lease {
    match outcome {
        Outcome::Applied(lease) => lease,
        other => panic!("not applied: {other:?}"),
    }
}

#[track_caller]
fn refused(outcome: Outcome) -> Lease {
    match outcome {
        Outcome::ConditionFailed(Some(lease)) => lease,
        other => panic!("not refused: {other:?}"),
    }
}

fn progress(sequence: &str) -> Progress {
    Progress {
        checkpoint: Checkpoint::parse(sequence, 2).unwrap(),
        pending: None,
        throughput: None,
    }
}

#[tokio::test]
async fn a_created_lease_is_read_back_equal_and_not_created_again() {
    let (_aws, store) = fixture().await;
    let mut lease = Lease::new("shardId-0", Checkpoint::Latest);
    lease.parents = ["shardId-a".to_owned()].into();
    lease.hash_key_range = Some(kinesis_aggregation::HashKeyRange::FULL);
    lease.resume_from = Some(std::time::UNIX_EPOCH + std::time::Duration::from_millis(12_345));
    assert_eq!(applied(store.create(&lease).await.unwrap()), lease);
    assert_eq!(store.get("shardId-0").await.unwrap().unwrap(), lease);
    assert_eq!(store.get("shardId-1").await.unwrap(), None);
    let other = Lease::new("shardId-0", Checkpoint::TrimHorizon);
    assert_eq!(refused(store.create(&other).await.unwrap()), lease);
}

#[tokio::test]
async fn renewals_prove_ownership_and_notice_handoffs_and_takers() {
    let (_aws, store) = fixture().await;
    let mine = owned(&store, "k", "me").await;
    assert_eq!((mine.counter, mine.owner_switches), (1, 0));
    let renewed = applied(store.renew(&mine, "me", Some(1.5)).await.unwrap());
    assert_eq!((renewed.counter, renewed.throughput), (2, Some(1.5)));
    // With an old counter, or by somebody else.
    assert_eq!(
        refused(
            store
                .renew(
                    &Lease {
                        counter: 0,
                        ..mine.clone()
                    },
                    "me",
                    None
                )
                .await
                .unwrap()
        ),
        renewed
    );
    assert_eq!(
        refused(store.renew(&renewed, "other", None).await.unwrap()),
        renewed
    );

    let leader_view = renewed.clone();
    let pending = applied(store.start_handoff(&leader_view, "next").await.unwrap());
    assert_eq!(
        pending.counter, renewed.counter,
        "a handoff leaves the counter"
    );
    assert_eq!(
        refused(store.renew(&renewed, "me", None).await.unwrap()),
        pending
    );
    let renewed = applied(store.renew(&pending, "me", None).await.unwrap());
    assert_eq!(renewed.counter, pending.counter + 1);
    assert_eq!(
        refused(store.renew(&renewed, "next", None).await.unwrap()),
        renewed
    );
    // Nor if it does not know of the handoff.
    let blind = Lease {
        checkpoint_owner: None,
        ..renewed.clone()
    };
    refused(store.renew(&blind, "next", None).await.unwrap());
    // A handoff starts once.
    refused(store.start_handoff(&renewed, "third").await.unwrap());
}

#[tokio::test]
async fn checkpoints_need_the_counter_and_the_processing_owner() {
    let (_aws, store) = fixture().await;
    let mut lease = Lease::new("k", Checkpoint::Latest);
    lease.resume_from = Some(std::time::UNIX_EPOCH);
    store.create(&lease).await.unwrap();
    let mine = applied(store.take(&lease, "me").await.unwrap());

    let prepared = Progress {
        checkpoint: Checkpoint::Latest,
        pending: Some(PendingCheckpoint {
            checkpoint: Checkpoint::parse("9", 1).unwrap(),
            state: Some(bytes::Bytes::from_static(b"state")),
        }),
        throughput: None,
    };
    let mine = applied(store.checkpoint(&mine, "me", &prepared).await.unwrap());
    assert_eq!((&mine.pending, mine.counter), (&prepared.pending, 2));
    assert!(mine.resume_from.is_some(), "still at its start");

    let done = applied(store.checkpoint(&mine, "me", &progress("9")).await.unwrap());
    assert_eq!(done.checkpoint, progress("9").checkpoint);
    assert_eq!(
        (&done.pending, done.resume_from, done.counter),
        (&None, None, 3)
    );
    refused(
        store
            .checkpoint(&mine, "me", &progress("10"))
            .await
            .unwrap(),
    );
    refused(
        store
            .checkpoint(&done, "other", &progress("10"))
            .await
            .unwrap(),
    );

    // In a handoff, even one that the owner has not seen, the old owner may, the next may not.
    applied(store.start_handoff(&done, "next").await.unwrap());
    let late = applied(
        store
            .checkpoint(&done, "me", &progress("11"))
            .await
            .unwrap(),
    );
    assert_eq!(late.checkpoint_owner.as_deref(), Some("me"));
    refused(
        store
            .checkpoint(&late, "next", &progress("12"))
            .await
            .unwrap(),
    );
}

#[tokio::test]
async fn taking_needs_the_lease_as_it_was_seen() {
    let (_aws, store) = fixture().await;
    let seen = owned(&store, "k", "old").await;
    let renewed = applied(store.renew(&seen, "old", None).await.unwrap());
    refused(store.take(&seen, "me").await.unwrap());
    let pending = applied(store.start_handoff(&renewed, "next").await.unwrap());
    refused(store.take(&renewed, "me").await.unwrap());
    let mine = applied(store.take(&pending, "me").await.unwrap());
    assert_eq!(mine.owner.as_deref(), Some("me"));
    assert_eq!(
        (&mine.checkpoint_owner, mine.counter, mine.owner_switches),
        (&None, 3, 1)
    );
    refused(store.renew(&pending, "old", None).await.unwrap());
    let again = applied(store.take(&mine, "me").await.unwrap());
    assert_eq!(again.owner_switches, 1, "the same owner is no switch");
}

#[tokio::test]
async fn assigning_needs_the_owners_and_completes_a_handoff() {
    let (_aws, store) = fixture().await;
    let free = Lease::new("k", Checkpoint::TrimHorizon);
    store.create(&free).await.unwrap();
    let given = applied(store.assign(&free, "a", false).await.unwrap());
    assert_eq!(
        (given.counter, given.owner_switches, given.released_at),
        (1, 0, None)
    );
    assert_eq!(
        refused(store.assign(&free, "b", false).await.unwrap()),
        given
    );

    // The owner's renewals do not stand in the way, unless the owner itself gives it away.
    let renewed = applied(store.renew(&given, "a", None).await.unwrap());
    refused(store.assign(&given, "b", true).await.unwrap());
    let pending = applied(store.start_handoff(&renewed, "b").await.unwrap());
    refused(store.assign(&renewed, "b", false).await.unwrap());
    let done = applied(store.assign(&pending, "b", true).await.unwrap());
    assert_eq!(
        (done.owner.as_deref(), &done.checkpoint_owner),
        (Some("b"), &None)
    );
    assert_eq!(done.counter, pending.counter + 1);
    assert!(done.was_released_to_owner());
    let renewed = applied(store.renew(&done, "b", None).await.unwrap());
    assert!(
        !renewed.was_released_to_owner(),
        "the mark holds for one counter"
    );

    let gone = Lease::new("gone", Checkpoint::TrimHorizon);
    assert_eq!(
        store.assign(&gone, "a", false).await.unwrap(),
        Outcome::ConditionFailed(None)
    );
    assert_eq!(store.get("gone").await.unwrap(), None);
}

#[tokio::test]
async fn evicting_frees_the_lease_or_leaves_it_to_the_next_owner() {
    let (_aws, store) = fixture().await;
    let mine = owned(&store, "k", "me").await;
    refused(
        store
            .evict(&Lease {
                owner: Some("other".into()),
                ..mine.clone()
            })
            .await
            .unwrap(),
    );
    let free = applied(store.evict(&mine).await.unwrap());
    assert_eq!((&free.owner, free.counter), (&None, 2));
    let raw = store
        .client
        .get_item()
        .table_name(TABLE)
        .key(name::KEY, text("k"))
        .send()
        .await
        .unwrap();
    assert!(
        !raw.item.unwrap().contains_key(name::OWNER),
        "absent, not empty"
    );

    let mine = applied(store.take(&free, "me").await.unwrap());
    let pending = applied(store.start_handoff(&mine, "next").await.unwrap());
    let left = applied(store.evict(&pending).await.unwrap());
    assert_eq!(
        (left.owner.as_deref(), &left.checkpoint_owner),
        (Some("next"), &None)
    );
}

#[tokio::test]
async fn facts_about_the_shard_leave_the_counter_and_need_the_lease() {
    let (_aws, store) = fixture().await;
    let mine = owned(&store, "k", "me").await;
    let children = ShardFacts::Children(vec!["a".into(), "b".into()]);
    let changed = applied(store.set_shard_facts("k", children.clone()).await.unwrap());
    assert_eq!(changed.children.len(), 2);
    assert_eq!(changed.counter, mine.counter);
    let range = ShardFacts::HashKeyRange(kinesis_aggregation::HashKeyRange::FULL);
    let changed = applied(store.set_shard_facts("k", range).await.unwrap());
    assert_eq!(
        changed.hash_key_range,
        Some(kinesis_aggregation::HashKeyRange::FULL)
    );
    assert_eq!(
        store.set_shard_facts("gone", children).await.unwrap(),
        Outcome::ConditionFailed(None)
    );
}

#[tokio::test]
async fn deleting_needs_the_checkpoint() {
    let (_aws, store) = fixture().await;
    let mine = owned(&store, "k", "me").await;
    let ended = Lease {
        checkpoint: Checkpoint::ShardEnd,
        ..mine.clone()
    };
    assert_eq!(refused(store.delete(&ended).await.unwrap()), mine);
    applied(store.delete(&mine).await.unwrap());
    assert_eq!(store.get("k").await.unwrap(), None);
    assert_eq!(
        store.delete(&mine).await.unwrap(),
        Outcome::ConditionFailed(None)
    );
}

#[tokio::test]
async fn lists_leases_and_workers_page_by_page_and_skips_what_it_cannot_read() {
    let (_aws, store) = fixture().await;
    // More than one page of 1 MB.
    for shard in 0..4 {
        let mut lease = Lease::new(format!("shard-{shard}"), Checkpoint::TrimHorizon);
        lease.pending = Some(PendingCheckpoint {
            checkpoint: Checkpoint::Latest,
            state: Some(vec![7; 350_000].into()),
        });
        store.create(&lease).await.unwrap();
    }
    store.put_worker("w1", 77).await.unwrap();
    for (key, entity) in [("Leader", Some("LEADER")), ("broken", None)] {
        let put = store
            .client
            .put_item()
            .table_name(TABLE)
            .item(name::KEY, text(key));
        let put = match entity {
            Some(entity) => put.item(name::ENTITY_TYPE, text(entity)),
            None => put,
        };
        put.send().await.unwrap();
    }
    let found = store.list(true).await.unwrap();
    assert_eq!(found.leases.len(), 4);
    assert_eq!(
        found.workers,
        [WorkerRow {
            worker: "w1".into(),
            last_update: 77
        }]
    );
    assert_eq!(found.corrupt.len(), 1);
    assert_eq!(found.corrupt[0].key, "broken");
    let error = store.get("broken").await.unwrap_err();
    assert!(matches!(error, LeaseStoreError::Corrupt(_)), "{error:?}");
    assert!(!error.is_retryable());

    store.delete_worker("w1", 76).await.unwrap();
    let found = store.list(true).await.unwrap();
    assert_eq!(found.workers.len(), 1, "another process has written it");
    store.delete_worker("w1", 77).await.unwrap();
    assert!(store.list(true).await.unwrap().workers.is_empty());
    store.delete_worker("w1", 77).await.unwrap();
}

#[tokio::test]
async fn the_index_names_the_leases_of_an_owner() {
    let (_aws, store) = fixture().await;
    owned(&store, "a", "me").await;
    owned(&store, "b", "me").await;
    owned(&store, "c", "other").await;
    store
        .create(&Lease::new("d", Checkpoint::TrimHorizon))
        .await
        .unwrap();
    let mut keys = store.owned_by("me").await.unwrap();
    keys.sort();
    assert_eq!(keys, ["a", "b"]);
    assert!(store.owned_by("nobody").await.unwrap().is_empty());
}

#[tokio::test]
async fn the_worker_row_has_the_shape_of_the_golden_one() {
    let (_aws, store) = fixture().await;
    store.put_worker("w1", 1_795_250_260).await.unwrap();
    let raw = store
        .client
        .get_item()
        .table_name(TABLE)
        .key(name::KEY, text("w1"))
        .send()
        .await
        .unwrap();
    let empty = || AttributeValue::M(HashMap::new());
    let expected: Item = [
        ("leaseKey", text("w1")),
        ("opr", empty()),
        ("sts", empty()),
        ("entityType", text("WORKER_METRIC_STATS")),
        ("lut", number(1_795_250_260)),
        ("slu", number(1_795_250_260)),
        ("sup", number(1)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(raw.item.unwrap(), expected);
}

#[tokio::test]
async fn a_lost_answer_is_read_back_and_is_no_loss() {
    let (aws, store) = fixture().await;
    let mine = owned(&store, "k", "me").await;
    let lose = |times| {
        aws.faults()
            .add(fault(Fault::response_lost(), "UpdateItem").times(times))
    };

    // One answer lost: the client's retry finds the counter moved, by this very write.
    let id = lose(1);
    let Outcome::AppliedBefore(renewed) = store.renew(&mine, "me", None).await.unwrap() else {
        panic!("a renewal whose answer was lost was called a loss");
    };
    assert_eq!(renewed.counter, mine.counter + 1);
    assert_eq!(aws.faults().count(id), 1);

    let id = lose(1);
    let outcome = store
        .checkpoint(&renewed, "me", &progress("5"))
        .await
        .unwrap();
    let Outcome::AppliedBefore(done) = outcome else {
        panic!("a checkpoint called a loss")
    };
    assert_eq!(done.checkpoint, progress("5").checkpoint);
    assert_eq!(
        (done.counter, aws.faults().count(id)),
        (renewed.counter + 1, 1)
    );

    // Every answer of the call lost.
    let id = lose(u64::MAX);
    let outcome = store.renew(&done, "me", None).await.unwrap();
    aws.faults().remove(id);
    let Outcome::AppliedBefore(renewed) = outcome else {
        panic!("called a loss")
    };

    for released in [true, false] {
        let free = Lease::new(format!("give-{released}"), Checkpoint::TrimHorizon);
        store.create(&free).await.unwrap();
        lose(1);
        let taken = store.take(&free, "me").await.unwrap();
        let Outcome::AppliedBefore(taken) = taken else {
            panic!("a take called a loss")
        };
        lose(1);
        let given = store.assign(&taken, "other", released).await.unwrap();
        assert!(matches!(given, Outcome::AppliedBefore(_)), "{given:?}");
    }
    lose(1);
    let pending = store.start_handoff(&renewed, "next").await.unwrap();
    assert!(matches!(pending, Outcome::AppliedBefore(_)), "{pending:?}");
}

#[tokio::test]
async fn a_lost_answer_and_another_taker_is_a_loss() {
    let (aws, store) = fixture().await;
    let seen = owned(&store, "k", "old").await;
    let taken = applied(store.take(&seen, "new").await.unwrap());
    aws.faults()
        .add(fault(Fault::cut_connection(), "UpdateItem").times(1));
    assert_eq!(
        refused(store.renew(&seen, "old", None).await.unwrap()),
        taken
    );
    // The counter is what the write would have left; the checkpoint is not.
    let outcome = store
        .checkpoint(&seen, "new", &progress("5"))
        .await
        .unwrap();
    assert_eq!(refused(outcome), taken);
}

#[tokio::test]
async fn a_throttled_table_is_retried_then_reported() {
    let (aws, store) = fixture().await;
    let mine = owned(&store, "k", "me").await;
    let id = aws
        .faults()
        .add(fault(Fault::throttle(), "UpdateItem").times(2));
    let renewed = applied(store.renew(&mine, "me", None).await.unwrap());
    assert_eq!(aws.faults().count(id), 2);

    let id = aws.faults().add(fault(Fault::throttle(), "UpdateItem"));
    let error = store.renew(&renewed, "me", None).await.unwrap_err();
    assert!(
        error.is_throttled() && error.is_retryable() && !error.is_ambiguous(),
        "{error:?}"
    );
    aws.faults().remove(id);

    let id = aws
        .faults()
        .add(fault(Fault::cut_connection(), "UpdateItem"));
    let error = store.renew(&renewed, "me", None).await.unwrap_err();
    assert!(error.is_ambiguous() && error.is_retryable(), "{error:?}");
    aws.faults().remove(id);
    applied(store.renew(&renewed, "me", None).await.unwrap());
}

#[tokio::test]
async fn a_missing_table_is_told_apart() {
    let (aws, _) = fixture().await;
    let client = for_leases(&aws.dynamodb(), &ConsumerConfig::default());
    let store = DynamoDbLeaseStore::new(client, "gone-table".to_owned(), Layout::OneTable);
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
    let (a, b) = tokio::join!(
        ensure(&client, "table-a", &config),
        ensure(&client, "table-a", &config)
    );
    a.and(b).unwrap();
    let table = describe(&client, "table-a").await.unwrap().unwrap();
    let units = table.provisioned_throughput().unwrap();
    assert_eq!(
        (units.read_capacity_units(), units.write_capacity_units()),
        (Some(7), Some(8))
    );
    assert_eq!(table.deletion_protection_enabled(), Some(true));
    assert_eq!(
        table.global_secondary_indexes()[0].index_name(),
        Some(INDEX)
    );
    let arn = table.table_arn().unwrap();
    let tags = client
        .list_tags_of_resource()
        .resource_arn(arn)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (tags.tags()[0].key(), tags.tags()[0].value()),
        ("team", "billing")
    );

    ensure(&client, "table-b", &TableConfig::default())
        .await
        .unwrap();
    let table = describe(&client, "table-b").await.unwrap().unwrap();
    let billing = table
        .billing_mode_summary()
        .and_then(|summary| summary.billing_mode());
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
    ensure(&client, "java2", &TableConfig::default())
        .await
        .unwrap();
    let store = DynamoDbLeaseStore::new(client.clone(), "java2".to_owned(), Layout::OneTable);
    owned(&store, "a", "me").await;
    assert_eq!(store.owned_by("me").await.unwrap(), ["a"]);

    table_with_key(&client, "orders", "orderId").await;
    let error = ensure(&client, "orders", &TableConfig::default())
        .await
        .unwrap_err();
    assert!(matches!(error, TableError::Unusable(_)), "{error:?}");
    let table = describe(&client, "orders").await.unwrap().unwrap();
    assert!(
        table.global_secondary_indexes().is_empty(),
        "left as it was"
    );
}

#[tokio::test]
async fn beside_older_tables_nothing_but_leases_enters_the_lease_table() {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.dynamodb();
    ensure(&client, TABLE, &TableConfig::default())
        .await
        .unwrap();
    table_with_key(&client, "app-WorkerMetricStats", "wid").await;
    let store = DynamoDbLeaseStore::new(client.clone(), TABLE.to_owned(), Layout::legacy(TABLE));
    store.put_worker("w1", 1_795_250_341).await.unwrap();
    assert_eq!(store.list(true).await.unwrap().workers.len(), 1);
    let lease_table = client.scan().table_name(TABLE).send().await.unwrap();
    assert_eq!(lease_table.count(), 0);
    let row = client
        .scan()
        .table_name("app-WorkerMetricStats")
        .send()
        .await
        .unwrap();
    let mut names: Vec<_> = row.items()[0].keys().cloned().collect();
    names.sort();
    assert_eq!(names, ["lut", "opr", "sts", "wid"], "as 3.4 writes it");
    store.delete_worker("w1", 1_795_250_341).await.unwrap();
    assert!(store.list(true).await.unwrap().workers.is_empty());
}
