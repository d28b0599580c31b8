//! Conditions and updates as they were written before expressions: the Java KCL still does.

use aws_sdk_dynamodb::types::{
    AttributeAction, AttributeValueUpdate, ComparisonOperator, ConditionalOperator,
    ExpectedAttributeValue,
};

use crate::case::{Verdict, cases};
use crate::check::{refused, same};
use crate::dynamodb::{DynamoDb, item, n, s};

cases! { DynamoDb, "legacy":
    a_put_may_expect_none,
    an_update_may_expect_a_value,
    a_delete_may_expect_a_value,
    a_scan_may_have_a_filter,
    an_update_of_nothing_creates_the_item,
    conditions_may_be_joined_by_or,
    the_old_and_the_new_way_are_not_mixed,
}

const FAILED: &str = "ConditionalCheckFailedException";

fn expect(value: &str) -> ExpectedAttributeValue {
    ExpectedAttributeValue::builder().value(n(value)).build()
}

async fn a_put_may_expect_none(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let put = || {
        let none = ExpectedAttributeValue::builder().exists(false).build();
        let put = dynamodb.put_item().table_name(&table.name);
        put.set_item(Some(item("a", []))).expected("id", none).send()
    };
    put().await?;
    refused("again", put().await, FAILED)
}

async fn an_update_may_expect_a_value(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1")), ("y", s("goes"))])).await?;
    let update = || {
        let action = |action| AttributeValueUpdate::builder().action(action);
        let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
        let put = action(AttributeAction::Put).value(n("2")).build();
        let delete = action(AttributeAction::Delete).build();
        let update = update.attribute_updates("x", put).attribute_updates("y", delete);
        update.expected("x", expect("1")).send()
    };
    update().await?;
    same("item", table.get("a").await?, Some(item("a", [("x", n("2"))])))?;
    refused("again", update().await, FAILED)
}

async fn a_delete_may_expect_a_value(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    let delete = |value: &str| {
        let delete = dynamodb.delete_item().table_name(&table.name).key("id", s("a"));
        delete.expected("x", expect(value)).send()
    };
    refused("another value", delete("2").await, FAILED)?;
    delete("1").await?;
    same("item", table.get("a").await?, None)
}

async fn a_scan_may_have_a_filter(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    table.put(item("b", [("x", n("2"))])).await?;
    let condition = aws_sdk_dynamodb::types::Condition::builder();
    let condition = condition.comparison_operator(ComparisonOperator::Gt);
    let condition = condition.attribute_value_list(n("1")).build()?;
    let scan = dynamodb.scan().table_name(&table.name).scan_filter("x", condition);
    let items = scan.send().await?.items.unwrap_or_default();
    same("items", items, [item("b", [("x", n("2"))])])
}

async fn an_update_of_nothing_creates_the_item(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let delete = AttributeValueUpdate::builder().action(AttributeAction::Delete);
    let update = dynamodb.update_item().table_name(&table.name);
    let update = update.key("id", s("a"));
    update.attribute_updates("x", delete.build()).send().await?;
    same("item", table.get("a").await?, Some(item("a", [])))
}

async fn conditions_may_be_joined_by_or(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    let put = |operator: ConditionalOperator| {
        let put = dynamodb.put_item().table_name(&table.name);
        let put = put.set_item(Some(item("a", [("x", n("1"))])));
        let missing = ExpectedAttributeValue::builder().exists(true).value(s("b"));
        let put = put.expected("y", missing.build()).expected("x", expect("1"));
        put.conditional_operator(operator).send()
    };
    put(ConditionalOperator::Or).await?;
    refused("and", put(ConditionalOperator::And).await, FAILED)
}

async fn the_old_and_the_new_way_are_not_mixed(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let put = dynamodb.put_item().table_name(&table.name);
    let put = put.set_item(Some(item("a", [])));
    let put = put.condition_expression("attribute_not_exists(id)");
    let put = put.expected("x", expect("1")).send().await;
    refused("put", put, "ValidationException")
}
