//! Conditions and updates as they were written before expressions: the Java KCL still does.

use aws_sdk_dynamodb::types::{
    AttributeAction, AttributeValueUpdate, ComparisonOperator, ExpectedAttributeValue,
};

use crate::case::{Verdict, cases};
use crate::check::{refused, same};
use crate::dynamodb::{DynamoDb, item, n, s};

cases! { DynamoDb, "legacy":
    a_put_may_expect_none,
    an_update_may_expect_a_value,
    a_delete_may_expect_a_value,
    a_scan_may_have_a_filter,
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
        put.set_item(Some(item("a", [])))
            .expected("id", none)
            .send()
    };
    put().await?;
    refused("again", put().await, FAILED)
}

async fn an_update_may_expect_a_value(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table
        .put(item("a", [("x", n("1")), ("y", s("goes"))]))
        .await?;
    let update = || {
        let action = |action| AttributeValueUpdate::builder().action(action);
        let update = dynamodb
            .update_item()
            .table_name(&table.name)
            .key("id", s("a"));
        let put = action(AttributeAction::Put).value(n("2")).build();
        let delete = action(AttributeAction::Delete).build();
        let update = update
            .attribute_updates("x", put)
            .attribute_updates("y", delete);
        update.expected("x", expect("1")).send()
    };
    update().await?;
    same(
        "item",
        table.get("a").await?,
        Some(item("a", [("x", n("2"))])),
    )?;
    refused("again", update().await, FAILED)
}

async fn a_delete_may_expect_a_value(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    let delete = |value: &str| {
        let delete = dynamodb
            .delete_item()
            .table_name(&table.name)
            .key("id", s("a"));
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
    let scan = dynamodb
        .scan()
        .table_name(&table.name)
        .scan_filter("x", condition);
    let items = scan.send().await?.items.unwrap_or_default();
    same("items", items, [item("b", [("x", n("2"))])])
}
