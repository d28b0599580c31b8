//! Global secondary indexes, which follow their table in a moment.

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{
    CreateGlobalSecondaryIndexAction, GlobalSecondaryIndexUpdate, IndexStatus,
};

use crate::case::{Verdict, cases};
use crate::check::{Failure, refused, same, some};
use crate::dynamodb::{DynamoDb, Table, everything, item, key, s, string};
use crate::kinesis::LOOK_AGAIN;

cases! { DynamoDb, "index":
    an_index_shows_the_items_of_a_key,
    an_index_follows_updates,
    an_item_without_the_key_is_not_in_the_index,
    an_index_is_not_read_consistently,
    an_unknown_index_is_refused,
    a_table_is_given_an_index_later,
}

fn owned_by(table: &Table, owner: &str) -> QueryFluentBuilder {
    let query = table.client.query().table_name(&table.name).index_name("by_owner");
    let query = query.key_condition_expression("#o = :o");
    let query = query.expression_attribute_names("#o", "owner");
    query.expression_attribute_values(":o", s(owner))
}

/// Waits until an index shows just these.
async fn shows(table: &Table, owner: &str, expected: &[&str]) -> Verdict {
    loop {
        let items = owned_by(table, owner).send().await?.items.unwrap_or_default();
        let ids = items.iter().filter_map(|item| item.get("id")?.as_s().ok());
        let mut ids: Vec<_> = ids.collect();
        ids.sort();
        if ids == expected {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn an_index_shows_the_items_of_a_key(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.indexed_table().await?;
    for (id, owner) in [("a", "w"), ("b", "v"), ("c", "w")] {
        table.put(item(id, [("owner", s(owner)), ("more", s("x"))])).await?;
    }
    shows(&table, "w", &["a", "c"]).await?;
    let query = owned_by(&table, "v").send().await?;
    let expected = item("b", [("owner", s("v")), ("more", s("x"))]);
    same("whole items", query.items, Some(vec![expected]))
}

async fn an_index_follows_updates(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.indexed_table().await?;
    table.put(item("a", [("owner", s("w"))])).await?;
    shows(&table, "w", &["a"]).await?;
    table.put(item("a", [("owner", s("v"))])).await?;
    shows(&table, "v", &["a"]).await?;
    shows(&table, "w", &[]).await?;
    let delete = dynamodb.delete_item().table_name(&table.name).key("id", s("a"));
    delete.send().await?;
    shows(&table, "v", &[]).await
}

async fn an_item_without_the_key_is_not_in_the_index(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.indexed_table().await?;
    table.put(item("a", [])).await?;
    table.put(item("b", [("owner", s("w"))])).await?;
    shows(&table, "w", &["b"]).await?;
    let scan = dynamodb.scan().table_name(&table.name).index_name("by_owner");
    same("items", scan.send().await?.count, 1)
}

async fn an_index_is_not_read_consistently(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.indexed_table().await?;
    let query = owned_by(&table, "w").consistent_read(true).send().await;
    refused("query", query, "ValidationException")
}

async fn an_unknown_index_is_refused(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let query = owned_by(&table, "w").send().await;
    refused("query", query, "ValidationException")
}

async fn a_table_is_given_an_index_later(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    table.put(item("a", [("owner", s("w"))])).await?;
    let create = CreateGlobalSecondaryIndexAction::builder().index_name("by_owner");
    let create = create.key_schema(key("owner")?).projection(everything()).build()?;
    let update = dynamodb.update_table().table_name(&table.name);
    let update = update.attribute_definitions(string("owner")?);
    let index = GlobalSecondaryIndexUpdate::builder().create(create).build();
    update.global_secondary_index_updates(index).send().await?;
    while index_status(&table).await? != IndexStatus::Active {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    shows(&table, "w", &["a"]).await
}

async fn index_status(table: &Table) -> Result<IndexStatus, Failure> {
    let described = table.client.describe_table().table_name(&table.name).send().await?;
    let indexes = some("table", described.table)?.global_secondary_indexes;
    let index = indexes.and_then(|indexes| indexes.into_iter().next());
    some("index status", some("index", index)?.index_status)
}
