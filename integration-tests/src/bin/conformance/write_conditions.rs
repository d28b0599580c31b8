//! Writes that depend on what is there: what leases are made of.

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;

use crate::case::{Verdict, cases};
use crate::check::{Failure, refused, same};
use crate::dynamodb::{DynamoDb, Item, Table, item, n, s};

cases! { DynamoDb, "write_conditions":
    a_put_may_depend_on_there_being_none,
    an_update_may_depend_on_a_value,
    a_delete_may_depend_on_a_value,
    a_condition_may_depend_on_several_attributes,
    an_update_of_nothing_fails_its_condition,
    a_failed_put_shows_the_item,
    a_failed_update_shows_the_item,
    a_failed_delete_shows_the_item,
    a_reserved_word_needs_a_placeholder,
    of_writers_that_expect_the_same_one_wins,
}

const FAILED: &str = "ConditionalCheckFailedException";

async fn a_put_may_depend_on_there_being_none(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let put = |x: &str| {
        let put = dynamodb.put_item().table_name(&table.name);
        let put = put.set_item(Some(item("a", [("x", n(x))])));
        put.condition_expression("attribute_not_exists(id)").send()
    };
    put("1").await?;
    refused("again", put("2").await, FAILED)?;
    same("value", table.value("a", "x").await?, n("1"))
}

/// Raises a counter from what is expected.
fn raise(table: &Table, expected: &str) -> UpdateItemFluentBuilder {
    let update = table.client.update_item().table_name(&table.name);
    let update = update.key("id", s("a")).update_expression("SET x = x + :one");
    let update = update.condition_expression("x = :expected");
    let update = update.expression_attribute_values(":one", n("1"));
    update.expression_attribute_values(":expected", n(expected))
}

async fn an_update_may_depend_on_a_value(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    raise(&table, "1").send().await?;
    refused("again", raise(&table, "1").send().await, FAILED)?;
    same("value", table.value("a", "x").await?, n("2"))
}

async fn a_delete_may_depend_on_a_value(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    let delete = |expected: &str| {
        let delete = dynamodb.delete_item().table_name(&table.name).key("id", s("a"));
        let delete = delete.condition_expression("x = :expected");
        delete.expression_attribute_values(":expected", n(expected)).send()
    };
    refused("another value", delete("2").await, FAILED)?;
    same("value", table.value("a", "x").await?, n("1"))?;
    delete("1").await?;
    same("item", table.get("a").await?, None)
}

async fn a_condition_may_depend_on_several_attributes(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1")), ("y", s("b"))])).await?;
    let put = |condition: &str| {
        let put = dynamodb.put_item().table_name(&table.name);
        let put = put.set_item(Some(item("a", [("x", n("1")), ("y", s("b"))])));
        let put = put.condition_expression(condition);
        let put = put.expression_attribute_values(":one", n("1"));
        put.expression_attribute_values(":b", s("b")).send()
    };
    put("x = :one AND y = :b").await?;
    put("x > :one OR (y = :b AND attribute_not_exists(z))").await?;
    refused("and", put("x = :one AND y <> :b").await, FAILED)?;
    refused("not", put("NOT x = :one OR y < :b").await, FAILED)
}

async fn an_update_of_nothing_fails_its_condition(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    refused("update", raise(&table, "0").send().await, FAILED)?;
    same("item", table.get("a").await?, None)
}

/// The item there was must have been shown.
fn shown(found: Option<Option<Item>>) -> Verdict {
    same("item shown", found, Some(Some(item("a", [("x", n("1"))]))))
}

fn none_shown<E: std::fmt::Debug>(answer: &E) -> Failure {
    Failure::new(format!("not refused by its condition: {answer:?}"))
}

const SHOW: ReturnValuesOnConditionCheckFailure = ReturnValuesOnConditionCheckFailure::AllOld;

async fn a_failed_put_shows_the_item(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    let put = dynamodb.put_item().table_name(&table.name).set_item(Some(item("a", [])));
    let put = put.condition_expression("attribute_not_exists(id)");
    let put = put.return_values_on_condition_check_failure(SHOW).send().await;
    match put.map_err(|error| error.into_service_error()) {
        Err(PutItemError::ConditionalCheckFailedException(failed)) => shown(Some(failed.item)),
        other => Err(none_shown(&other)),
    }
}

async fn a_failed_update_shows_the_item(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    let update = raise(&table, "2").return_values_on_condition_check_failure(SHOW);
    match update.send().await.map_err(|error| error.into_service_error()) {
        Err(UpdateItemError::ConditionalCheckFailedException(failed)) => shown(Some(failed.item)),
        other => Err(none_shown(&other)),
    }
}

async fn a_failed_delete_shows_the_item(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("1"))])).await?;
    let delete = dynamodb.delete_item().table_name(&table.name).key("id", s("a"));
    let delete = delete.condition_expression("attribute_not_exists(x)");
    let delete = delete.return_values_on_condition_check_failure(SHOW).send().await;
    match delete.map_err(|error| error.into_service_error()) {
        Err(DeleteItemError::ConditionalCheckFailedException(failed)) => shown(Some(failed.item)),
        other => Err(none_shown(&other)),
    }
}

async fn a_reserved_word_needs_a_placeholder(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("owner", s("w"))])).await?;
    let update = |name: &str| {
        let update = dynamodb.update_item().table_name(&table.name).key("id", s("a"));
        let update = update.update_expression(format!("SET {name} = :w"));
        update.expression_attribute_values(":w", s("v"))
    };
    refused("counter", update("counter").send().await, "ValidationException")?;
    update("#c").expression_attribute_names("#c", "counter").send().await?;
    same("value", table.value("a", "counter").await?, s("v"))
}

async fn of_writers_that_expect_the_same_one_wins(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("x", n("0"))])).await?;
    for round in 0..5 {
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            writers.spawn(raise(&table, &round.to_string()).send());
        }
        let mut won = 0;
        while let Some(written) = writers.join_next().await {
            match written? {
                Ok(_) => won += 1,
                Err(error) if error.code() == Some(FAILED) => {}
                Err(error) => return Err(error.into()),
            }
        }
        same("winners", won, 1)?;
    }
    same("value", table.value("a", "x").await?, n("5"))
}
