//! DynamoDB on a bad day: indexes behind their table or not there yet, failures that say nothing.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, CreateGlobalSecondaryIndexAction,
    GlobalSecondaryIndexUpdate, IndexStatus, KeySchemaElement, KeyType, Projection, ProjectionType,
    Put, ReturnValuesOnConditionCheckFailure, ScalarAttributeType, TransactWriteItem,
};
use kinesis_testkit::{Fault, LocalAws, ManualClock};

use super::code;
use super::dynamodb::{TABLE, create_table, item};

const SECOND: Duration = Duration::from_secs(1);

async fn start() -> (LocalAws, ManualClock, Client) {
    let clock = ManualClock::default();
    let aws = LocalAws::builder().clock(clock.clone());
    let aws = aws.build().await.unwrap();
    let client = aws.dynamodb();
    create_table(&client).await;
    (aws, clock, client)
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

async fn give(client: &Client, id: &str, owner: &str) {
    let put = client.put_item().table_name(TABLE);
    let put = put.item("id", text(id)).item("owner", text(owner));
    put.send().await.unwrap();
}

/// The ids the index has for an owner, in order.
async fn owned(client: &Client, owner: &str) -> Vec<String> {
    let query = client.query().table_name(TABLE).index_name("by_owner");
    let query = query
        .key_condition_expression("#o = :o")
        .expression_attribute_names("#o", "owner")
        .expression_attribute_values(":o", text(owner));
    let mut ids: Vec<_> = (query.send().await.unwrap().items().iter())
        .map(|item| item["id"].as_s().unwrap().clone())
        .collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn an_index_shows_what_was_while_the_table_shows_what_is() {
    let (aws, clock, client) = start().await;
    give(&client, "a", "w1").await;
    give(&client, "b", "w1").await;
    let stale = aws.faults().add(Fault::stale_index(10 * SECOND).resource(TABLE));
    // Nothing has happened since.
    assert_eq!(owned(&client, "w1").await, ["a", "b"]);
    clock.advance(SECOND);
    give(&client, "b", "w2").await;
    clock.advance(SECOND);
    let delete = client.delete_item().table_name(TABLE).key("id", text("a"));
    delete.send().await.unwrap();
    assert_eq!(owned(&client, "w1").await, ["a", "b"]);
    assert!(owned(&client, "w2").await.is_empty());
    let get = client.get_item().table_name(TABLE).key("id", text("b"));
    let now = get.send().await.unwrap().item.unwrap();
    assert_eq!(now["owner"], text("w2"));
    let scan = client.scan().table_name(TABLE).send().await.unwrap();
    assert_eq!(scan.count(), 1);

    clock.advance(8 * SECOND);
    // Nine seconds after the gift it is not seen, ten seconds after it is.
    assert_eq!(owned(&client, "w2").await, [""; 0]);
    clock.advance(SECOND);
    assert_eq!(owned(&client, "w1").await, ["a"]);
    assert_eq!(owned(&client, "w2").await, ["b"]);
    clock.advance(SECOND);
    assert_eq!(owned(&client, "w1").await, [""; 0]);

    give(&client, "c", "w2").await;
    assert_eq!(owned(&client, "w2").await, ["b"]);
    assert!(aws.faults().count(stale) > 0);
    aws.faults().remove(stale);
    assert_eq!(owned(&client, "w2").await, ["b", "c"]);
}

async fn add_index(client: &Client) {
    let attribute = |name: &str| {
        let attribute = AttributeDefinition::builder().attribute_name(name);
        let attribute = attribute.attribute_type(ScalarAttributeType::S);
        attribute.build().unwrap()
    };
    let key = KeySchemaElement::builder()
        .attribute_name("state")
        .key_type(KeyType::Hash)
        .build()
        .unwrap();
    let all = Projection::builder().projection_type(ProjectionType::All);
    let create = CreateGlobalSecondaryIndexAction::builder()
        .index_name("by_state")
        .key_schema(key)
        .projection(all.build())
        .build()
        .unwrap();
    let update = client
        .update_table()
        .table_name(TABLE)
        .attribute_definitions(attribute("id"))
        .attribute_definitions(attribute("owner"))
        .attribute_definitions(attribute("state"))
        .global_secondary_index_updates(
            GlobalSecondaryIndexUpdate::builder().create(create).build(),
        );
    update.send().await.unwrap();
}

#[tokio::test]
async fn a_new_index_takes_its_time_and_cannot_be_read_before() {
    let (aws, clock, client) = start().await;
    aws.faults().add(Fault::slow_index(30 * SECOND).resource(TABLE));
    add_index(&client).await;
    let status = async |name: &str| {
        let describe = client.describe_table().table_name(TABLE);
        let table = describe.send().await.unwrap().table.unwrap();
        let indexes = table.global_secondary_indexes.unwrap();
        let index = indexes.into_iter().find(|index| index.index_name() == Some(name));
        index.unwrap().index_status.unwrap()
    };
    let scan = || client.scan().table_name(TABLE).index_name("by_state");
    assert_eq!(status("by_owner").await, IndexStatus::Active);
    assert_eq!(status("by_state").await, IndexStatus::Creating);
    assert_eq!(code(scan().send().await), "ValidationException");
    assert!(owned(&client, "w1").await.is_empty());
    clock.advance(29 * SECOND);
    assert_eq!(status("by_state").await, IndexStatus::Creating);
    clock.advance(SECOND);
    assert_eq!(status("by_state").await, IndexStatus::Active);
    scan().send().await.unwrap();
}

#[tokio::test]
async fn a_failed_condition_can_keep_its_item_to_itself() {
    let (aws, _clock, client) = start().await;
    give(&client, "a", "w1").await;
    let refused = async || {
        let put = client.put_item().table_name(TABLE).set_item(Some(item("a")));
        let put = put
            .condition_expression("attribute_not_exists(id)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await.unwrap_err().into_service_error() {
            PutItemError::ConditionalCheckFailedException(refused) => refused.item,
            other => panic!("{other:?}"),
        }
    };
    let cancelled = async || {
        let put = Put::builder().table_name(TABLE).set_item(Some(item("a")));
        let put = put
            .condition_expression("attribute_not_exists(id)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let put = TransactWriteItem::builder().put(put.build().unwrap()).build();
        let write = client.transact_write_items().transact_items(put);
        match write.send().await.unwrap_err().into_service_error() {
            TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                cancelled.cancellation_reasons.unwrap().remove(0).item
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused().await.unwrap()["owner"], text("w1"));
    assert_eq!(cancelled().await.unwrap()["owner"], text("w1"));
    let silent = aws.faults().add(Fault::no_old_item());
    assert_eq!(refused().await, None);
    assert_eq!(cancelled().await, None);
    // A write that does not ask for the old item is not struck.
    give(&client, "b", "w1").await;
    assert_eq!(aws.faults().count(silent), 2);
}
