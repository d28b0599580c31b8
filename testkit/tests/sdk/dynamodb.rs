//! DynamoDB behind our front: what a lease table needs, on either port.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement,
    KeyType, Projection, ProjectionType, Put, ReturnValue, ReturnValuesOnConditionCheckFailure,
    ScalarAttributeType, TableStatus, TransactWriteItem,
};
use kinesis_testkit::LocalAws;

use super::code;

pub(crate) const TABLE: &str = "leases";

pub(crate) fn item(id: &str) -> HashMap<String, AttributeValue> {
    HashMap::from([
        ("id".to_owned(), AttributeValue::S(id.to_owned())),
        ("counter".to_owned(), AttributeValue::N("0".to_owned())),
    ])
}

pub(crate) async fn create_table(client: &Client) {
    let attribute = |name: &str| {
        let attribute = AttributeDefinition::builder().attribute_name(name);
        attribute.attribute_type(ScalarAttributeType::S).build().unwrap()
    };
    let key = |name: &str| {
        KeySchemaElement::builder().attribute_name(name).key_type(KeyType::Hash).build().unwrap()
    };
    let all = Projection::builder().projection_type(ProjectionType::All).build();
    let index = GlobalSecondaryIndex::builder().index_name("by_owner").key_schema(key("owner"));
    let create = client
        .create_table()
        .table_name(TABLE)
        .attribute_definitions(attribute("id"))
        .attribute_definitions(attribute("owner"))
        .key_schema(key("id"))
        .global_secondary_indexes(index.projection(all).build().unwrap())
        .billing_mode(BillingMode::PayPerRequest);
    create.send().await.unwrap();
    let described = client.describe_table().table_name(TABLE).send().await.unwrap();
    let status = described.table().unwrap().table_status().cloned();
    assert_eq!(status, Some(TableStatus::Active));
}

#[tokio::test]
async fn conditions_guard_writes_and_show_the_item_that_failed_them() {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.dynamodb();
    create_table(&client).await;
    client.put_item().table_name(TABLE).set_item(Some(item("a"))).send().await.unwrap();
    let again = client.put_item().table_name(TABLE).set_item(Some(item("a")));
    let again = again.condition_expression("attribute_not_exists(id)").send().await;
    assert_eq!(code(again), "ConditionalCheckFailedException");

    let take = |owner: &str, expected: &str| {
        client
            .update_item()
            .table_name(TABLE)
            .key("id", AttributeValue::S("a".to_owned()))
            .update_expression("SET #o = :o, #c = #c + :one")
            .condition_expression("#c = :expected")
            .expression_attribute_names("#o", "owner")
            .expression_attribute_names("#c", "counter")
            .expression_attribute_values(":o", AttributeValue::S(owner.to_owned()))
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
            .expression_attribute_values(":expected", AttributeValue::N(expected.to_owned()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
    };
    let taken = take("w1", "0").await.unwrap();
    assert_eq!(taken.attributes().unwrap()["counter"], AttributeValue::N("1".to_owned()));
    let refused = take("w2", "0").await.unwrap_err().into_service_error();
    let aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(
        refused,
    ) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(refused.item().unwrap()["owner"], AttributeValue::S("w1".to_owned()));

    let owned = client.query().table_name(TABLE).index_name("by_owner");
    let owned = owned
        .key_condition_expression("#o = :o")
        .expression_attribute_names("#o", "owner")
        .expression_attribute_values(":o", AttributeValue::S("w1".to_owned()));
    assert_eq!(owned.send().await.unwrap().count(), 1);
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.dynamodb();
    create_table(&client).await;
    let put = |id: &str| {
        let put = Put::builder().table_name(TABLE).set_item(Some(item(id)));
        let put = put.condition_expression("attribute_not_exists(id)").build().unwrap();
        TransactWriteItem::builder().put(put).build()
    };
    let write = |ids: [&str; 2]| {
        let puts = ids.map(put).to_vec();
        client.transact_write_items().set_transact_items(Some(puts)).send()
    };
    write(["a", "b"]).await.unwrap();
    let cancelled = write(["c", "b"]).await.unwrap_err();
    assert_eq!(cancelled.code(), Some("TransactionCanceledException"));
    let cancelled = cancelled.into_service_error();
    let aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(cancelled) = cancelled else {
        panic!("{cancelled:?}");
    };
    let reasons: Vec<_> =
        cancelled.cancellation_reasons().iter().map(|reason| reason.code().unwrap()).collect();
    assert_eq!(reasons, ["None", "ConditionalCheckFailed"]);
    assert_eq!(client.scan().table_name(TABLE).send().await.unwrap().count(), 2);
}

#[tokio::test]
async fn mistakes_get_the_codes_of_dynamodb() {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.dynamodb();
    let missing = client.describe_table().table_name("none").send().await;
    assert_eq!(code(missing), "ResourceNotFoundException");
    create_table(&client).await;
    let keyless = client.put_item().table_name(TABLE).item("x", AttributeValue::Bool(true));
    assert_eq!(code(keyless.send().await), "ValidationException");
    let number = client.put_item().table_name(TABLE).set_item(Some(item("a")));
    let number = number.item("counter", AttributeValue::N("many".to_owned()));
    assert_eq!(code(number.send().await), "ValidationException");
    let unknown = client.describe_limits().send().await;
    assert_eq!(code(unknown), "UnknownOperationException");
}

#[tokio::test]
async fn each_port_answers_both_services() {
    let aws = LocalAws::start().await.unwrap();
    let (kinesis_url, dynamodb_url) = (aws.kinesis_url(), aws.dynamodb_url());
    assert_ne!(kinesis_url, dynamodb_url);
    for url in [kinesis_url, dynamodb_url] {
        let config = aws.sdk_config().into_builder().endpoint_url(url).build();
        let kinesis = aws_sdk_kinesis::Client::new(&config);
        kinesis.list_streams().send().await.unwrap();
        Client::new(&config).list_tables().send().await.unwrap();
    }
    assert_eq!((aws.calls("ListStreams"), aws.calls("ListTables")), (2, 2));
}
