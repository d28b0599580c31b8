//! The fleet's mode and state change under a running worker.

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use kcl::{OnStop, WorkerError, WorkerHandle};

use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{APPLICATION, processing, until};

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn dynamodb(paused: &Paused) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(&paused.aws.in_process_config())
}

async fn set_mode(paused: &Paused, mode: &str) {
    let update = dynamodb(paused)
        .update_item()
        .table_name(APPLICATION)
        .key("leaseKey", text("Migration3.0"))
        .update_expression("SET cv = :mode")
        .expression_attribute_values(":mode", text(mode));
    update.send().await.unwrap();
}

/// Owners of the leases.
async fn owners(paused: &Paused) -> Vec<Option<String>> {
    let scan = dynamodb(paused).scan().table_name(APPLICATION);
    let items = scan.send().await.unwrap().items.unwrap();
    let leases = items.iter().filter(|item| item.contains_key("checkpoint"));
    let owner = |item: &std::collections::HashMap<String, AttributeValue>| {
        item.get("leaseOwner").and_then(|owner| owner.as_s().ok().cloned())
    };
    leases.map(owner).collect()
}

async fn started(paused: &Paused, worker: &str, on_stop: OnStop) -> WorkerHandle {
    // Rarely: minutes pass in these tests.
    let config =
        config(worker).with_on_stop(on_stop).with_idle_time_between_reads(Duration::from_secs(20));
    let probe = Probe::new();
    let builder = paused.builder(&probe, config);
    builder.build().await.unwrap().spawn()
}

/// How the worker ended by itself.
async fn end(worker: &WorkerHandle) -> WorkerError {
    let ended = worker.join();
    let ended = tokio::time::timeout(Duration::from_secs(300), ended).await;
    ended.expect("it ends").unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_is_set_back_to_2x_stops_our_workers_and_frees_their_leases() {
    let paused = Paused::start(2).await;
    let one = started(&paused, "w1", OnStop::HandOver).await;
    // Another mode of the 3.x generation changes nothing.
    set_mode(&paused, "CLIENT_VERSION_3X_WITH_ROLLBACK").await;
    let two = started(&paused, "w2", OnStop::Keep).await;
    until("they share", || processing(&one) == 1 && processing(&two) == 1).await;
    tokio::time::sleep(Duration::from_secs(73)).await;
    assert_eq!((processing(&one), processing(&two)), (1, 1));

    set_mode(&paused, "CLIENT_VERSION_2X").await;
    for worker in [&one, &two] {
        let failure = end(worker).await;
        let WorkerError::FleetChanged { table, state, .. } = &failure else {
            panic!("{failure}");
        };
        assert_eq!((&**table, &**state), (APPLICATION, "CLIENT_VERSION_2X"));
        let said = failure.to_string();
        assert!(said.contains("2.x algorithm"), "{said}");
    }
    assert_eq!(owners(&paused).await, [None, None]);
}

/// A table as older Java workers have it beside the lease table.
async fn create_legacy_table(paused: &Paused, suffix: &str, hash_key: &str) {
    let attribute = AttributeDefinition::builder()
        .attribute_name(hash_key)
        .attribute_type(ScalarAttributeType::S);
    let key = KeySchemaElement::builder().attribute_name(hash_key).key_type(KeyType::Hash);
    let create = dynamodb(paused)
        .create_table()
        .table_name(format!("{APPLICATION}-{suffix}"))
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute.build().unwrap())
        .key_schema(key.build().unwrap());
    create.send().await.unwrap();
}

/// Writes an item of the old table of the fleet's state.
async fn put_state(paused: &Paused, key: &str, attribute: &str, state: &str) {
    let put = dynamodb(paused)
        .put_item()
        .table_name(format!("{APPLICATION}-CoordinatorState"))
        .item("key", text(key))
        .item(attribute, text(state));
    put.send().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_state_that_a_java_leader_moves_to_the_lease_table_stops_our_workers() {
    let paused = Paused::start(1).await;
    create_legacy_table(&paused, "CoordinatorState", "key").await;
    create_legacy_table(&paused, "WorkerMetricStats", "wid").await;
    put_state(&paused, "Migration3.0", "cv", "CLIENT_VERSION_3X").await;
    let deployed = "TABLE_MIGRATION_STATUS_DEPLOYED";
    put_state(&paused, "TableMigration3.5", "tm", deployed).await;
    let worker = started(&paused, "w1", OnStop::HandOver).await;
    until("the shard runs", || processing(&worker) == 1).await;
    tokio::time::sleep(Duration::from_secs(73)).await;
    assert_eq!(processing(&worker), 1);

    let pending = "TABLE_MIGRATION_STATUS_PENDING";
    put_state(&paused, "TableMigration3.5", "tm", pending).await;
    let said = end(&worker).await.to_string();
    assert!(said.contains("start the worker again"), "{said}");
    assert_eq!(owners(&paused).await, [None]);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_gone_for_a_moment_stops_nothing() {
    let paused = Paused::start(1).await;
    let worker = started(&paused, "w1", OnStop::HandOver).await;
    until("the shard runs", || processing(&worker) == 1).await;
    let delete = || async {
        let delete = dynamodb(&paused).delete_item().table_name(APPLICATION);
        let delete = delete.key("leaseKey", text("Migration3.0"));
        delete.send().await.unwrap();
    };
    delete().await;
    // One reading finds nothing: they are at least 48 s apart.
    tokio::time::sleep(Duration::from_secs(40)).await;
    set_mode(&paused, "CLIENT_VERSION_3X").await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(processing(&worker), 1);
    delete().await;
    let failure = end(&worker).await;
    assert!(failure.to_string().contains("Migration3.0"), "{failure}");
    assert_eq!(owners(&paused).await, [None]);
}
