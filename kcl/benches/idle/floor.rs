//! The floor: the calls of a worker with idle shards, by the SDK alone.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ReturnValue,
    ReturnValuesOnConditionCheckFailure, ScalarAttributeType,
};
use aws_sdk_kinesis::types::ShardIteratorType;
use kinesis_benchmark::stream::shard_id;
use kinesis_benchmark::{Error, sdk, usage};
use tokio::task::JoinSet;

use crate::calls::Calls;
use crate::{Load, STREAM, Used, watch};

const TABLE: &str = "floor";
const KEY: &str = "leaseKey";
/// The largest number of records that a worker asks for while it holds so many shards.
const RECORDS: i32 = 16;

pub(crate) async fn run(load: Load) -> Result<Used, Error> {
    let memory = usage::resident_bytes()?;
    let calls = Calls::new(load.failover_time);
    let sdk = sdk::sdk_config(&load.server)?;
    let kinesis = aws_sdk_kinesis::config::Builder::from(&sdk).interceptor(calls.clone());
    let kinesis = aws_sdk_kinesis::Client::from_conf(kinesis.build());
    let dynamodb = aws_sdk_dynamodb::config::Builder::from(&sdk).interceptor(calls.clone());
    let dynamodb = aws_sdk_dynamodb::Client::from_conf(dynamodb.build());
    create_table(&dynamodb).await?;
    let mut shards = JoinSet::new();
    for shard in 0..load.shards as usize {
        shards.spawn(read(kinesis.clone(), shard_id(shard), load.idle));
        shards.spawn(renew(dynamodb.clone(), shard_id(shard), load.failover_time / 2));
    }
    tokio::select! {
        used = watch(&load, memory, &calls) => used,
        Some(ended) = shards.join_next() => Err(ended?.err().ok_or("a loop has ended")?),
    }
}

async fn read(
    client: aws_sdk_kinesis::Client,
    shard_id: String,
    idle: Duration,
) -> Result<(), Error> {
    let opened = client.get_shard_iterator().stream_name(STREAM).shard_id(shard_id);
    let opened = opened.shard_iterator_type(ShardIteratorType::Latest).send().await?;
    let mut iterator = opened.shard_iterator;
    loop {
        let request = client.get_records().set_shard_iterator(iterator).limit(RECORDS);
        iterator = request.send().await?.next_shard_iterator;
        // The pauses of a worker are spread as much.
        tokio::time::sleep(idle.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
    }
}

async fn renew(
    client: aws_sdk_dynamodb::Client,
    key: String,
    interval: Duration,
) -> Result<(), Error> {
    let mut counter = 0_u64;
    create(&client, &key).await?;
    loop {
        tokio::time::sleep(interval.mul_f64(1.0 - 0.01 * fastrand::f64())).await;
        let next = counter + 1;
        client
            .update_item()
            .table_name(TABLE)
            .key(KEY, text(&key))
            .update_expression("SET leaseCounter = :a, stamp = :b, throughputKBps = :c")
            .condition_expression(
                "leaseCounter = :d AND leaseOwner = :e AND attribute_not_exists(checkpointOwner)",
            )
            .expression_attribute_values(":a", number(next))
            .expression_attribute_values(":b", text(&format!("{next}-{:016x}", u64::MAX)))
            .expression_attribute_values(":c", number(0))
            .expression_attribute_values(":d", number(counter))
            .expression_attribute_values(":e", text("idle-0123456789abcdef"))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await?;
        counter = next;
    }
}

/// Creates an item as large as a lease.
async fn create(client: &aws_sdk_dynamodb::Client, key: &str) -> Result<(), Error> {
    let item = HashMap::from(
        [
            (KEY, text(key)),
            ("leaseCounter", number(0)),
            ("leaseOwner", text("idle-0123456789abcdef")),
            ("checkpoint", text("LATEST")),
            ("checkpointSubSequenceNumber", number(0)),
            ("ownerSwitchesSinceCheckpoint", number(0)),
            ("startingHashKey", text("170141183460469231731687303715884105728")),
            ("endingHashKey", text("170481465924480182669950678323315873944")),
            ("entityType", text("LEASE")),
            ("resumeFrom", number(1_800_000_000_000)),
            ("streamIdentity", text("idle:1800000000000")),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    client.put_item().table_name(TABLE).set_item(Some(item)).send().await?;
    Ok(())
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Creates the table, or leaves that of an earlier round.
async fn create_table(client: &aws_sdk_dynamodb::Client) -> Result<(), Error> {
    let key = AttributeDefinition::builder()
        .attribute_name(KEY)
        .attribute_type(ScalarAttributeType::S)
        .build()?;
    let schema = KeySchemaElement::builder().attribute_name(KEY).key_type(KeyType::Hash).build()?;
    let create = client.create_table().table_name(TABLE).attribute_definitions(key);
    let created = create.key_schema(schema).billing_mode(BillingMode::PayPerRequest).send().await;
    match created {
        Err(error)
            if !error.as_service_error().is_some_and(|it| it.is_resource_in_use_exception()) =>
        {
            Err(error.into())
        }
        _ => Ok(()),
    }
}
