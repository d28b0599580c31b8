//! TransactWriteItems.

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{ConditionCheck, Put, TransactWriteItem, Update};

use crate::case::{Verdict, cases};
use crate::check::{Failure, refused, same};
use crate::dynamodb::{DynamoDb, Table, item, n, s};

cases! { DynamoDb, "transactions":
    all_is_written,
    or_nothing_is_with_a_reason_for_each,
    a_check_guards_the_others,
    an_item_is_written_once_in_a_transaction,
    a_token_makes_a_transaction_happen_once,
}

fn put(table: &Table, id: &str) -> Result<TransactWriteItem, Failure> {
    let put = Put::builder().table_name(&table.name).set_item(Some(item(id, [])));
    let put = put.condition_expression("attribute_not_exists(id)");
    Ok(TransactWriteItem::builder().put(put.build()?).build())
}

async fn all_is_written(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let write = dynamodb.transact_write_items();
    let write = write.transact_items(put(&table, "a")?).transact_items(put(&table, "b")?);
    write.send().await?;
    same("a", table.get("a").await?, Some(item("a", [])))?;
    same("b", table.get("b").await?, Some(item("b", [])))
}

async fn or_nothing_is_with_a_reason_for_each(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("b", [])).await?;
    let write = dynamodb.transact_write_items();
    let write = write.transact_items(put(&table, "a")?).transact_items(put(&table, "b")?);
    let reasons: Vec<_> = match write.send().await.map_err(|error| error.into_service_error()) {
        Err(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            let reasons = cancelled.cancellation_reasons.unwrap_or_default();
            reasons.into_iter().filter_map(|reason| reason.code).collect()
        }
        other => return Err(Failure::new(format!("not cancelled: {other:?}"))),
    };
    same("reasons", reasons, ["None", "ConditionalCheckFailed"])?;
    same("a", table.get("a").await?, None)
}

async fn a_check_guards_the_others(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let check = ConditionCheck::builder().table_name(&table.name).key("id", s("leader"));
    let check = check.condition_expression("attribute_exists(id)").build()?;
    let check = TransactWriteItem::builder().condition_check(check).build();
    let write = dynamodb.transact_write_items().transact_items(check);
    let write = write.transact_items(put(&table, "a")?);
    refused("without", write.clone().send().await, "TransactionCanceledException")?;
    table.put(item("leader", [])).await?;
    write.send().await?;
    same("a", table.get("a").await?, Some(item("a", [])))
}

async fn an_item_is_written_once_in_a_transaction(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let write = dynamodb.transact_write_items();
    let write = write.transact_items(put(&table, "a")?).transact_items(put(&table, "a")?);
    refused("twice", write.send().await, "ValidationException")
}

async fn a_token_makes_a_transaction_happen_once(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    for _ in 0..2 {
        let add = Update::builder().table_name(&table.name).key("id", s("a"));
        let add = add.update_expression("ADD x :one");
        let add = add.expression_attribute_values(":one", n("1")).build()?;
        let write = dynamodb.transact_write_items().client_request_token("once");
        let write = write.transact_items(TransactWriteItem::builder().update(add).build());
        write.send().await?;
    }
    same("count", table.value("a", "x").await?, n("1"))
}
