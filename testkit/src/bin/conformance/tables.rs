//! Tables come, are described, and go.

use aws_sdk_dynamodb::types::TimeToLiveSpecification;

use crate::case::{Verdict, cases};
use crate::check::{refused, same, some};
use crate::dynamodb::{DynamoDb, item, key, string};
use crate::kinesis::LOOK_AGAIN;

cases! { DynamoDb, "tables":
    a_table_is_described,
    a_table_is_created_once,
    an_unknown_table_is_not_found,
    a_deleted_table_is_gone,
    a_protected_table_is_not_deleted,
    a_key_must_be_defined,
    a_table_may_have_a_time_to_live,
}

async fn a_table_is_described(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.indexed_table().await?;
    let described = dynamodb
        .describe_table()
        .table_name(&table.name)
        .send()
        .await?;
    let described = some("table", described.table)?;
    same("key", described.key_schema(), [key("id")?])?;
    let indexes = described.global_secondary_indexes();
    same("indexes", indexes.len(), 1)?;
    same("index", indexes[0].index_name(), Some("by_owner"))?;
    same("key of the index", indexes[0].key_schema(), [key("owner")?])?;
    let listed = dynamodb.list_tables().send().await?.table_names;
    same(
        "listed",
        listed.unwrap_or_default().contains(&table.name),
        true,
    )
}

async fn a_table_is_created_once(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let again = dynamodb.new_table(&table.name)?.send().await;
    refused("again", again, "ResourceInUseException")
}

async fn an_unknown_table_is_not_found(dynamodb: DynamoDb) -> Verdict {
    let name = dynamodb.fresh_name();
    let describe = dynamodb.describe_table().table_name(&name).send().await;
    refused("describe", describe, "ResourceNotFoundException")?;
    let put = dynamodb
        .put_item()
        .table_name(&name)
        .set_item(Some(item("a", [])));
    refused("put", put.send().await, "ResourceNotFoundException")?;
    let scan = dynamodb.scan().table_name(&name).send().await;
    refused("scan", scan, "ResourceNotFoundException")
}

async fn a_deleted_table_is_gone(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    dynamodb
        .delete_table()
        .table_name(&table.name)
        .send()
        .await?;
    loop {
        let describe = dynamodb.describe_table().table_name(&table.name);
        match describe.send().await {
            Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
            gone => return refused("describe", gone, "ResourceNotFoundException"),
        }
    }
}

async fn a_protected_table_is_not_deleted(dynamodb: DynamoDb) -> Verdict {
    let name = dynamodb.fresh_name();
    let create = dynamodb.new_table(&name)?.deletion_protection_enabled(true);
    create.send().await?;
    let table = dynamodb.created(name).await?;
    let delete = dynamodb.delete_table().table_name(&table.name).send().await;
    refused("delete", delete, "ValidationException")
}

async fn a_key_must_be_defined(dynamodb: DynamoDb) -> Verdict {
    let create = dynamodb.new_table(&dynamodb.fresh_name())?;
    let create = create.set_attribute_definitions(Some(vec![string("other")?]));
    refused("create", create.send().await, "ValidationException")
}

async fn a_table_may_have_a_time_to_live(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let ttl = TimeToLiveSpecification::builder()
        .enabled(true)
        .attribute_name("expires");
    let update = dynamodb.update_time_to_live().table_name(&table.name);
    update
        .time_to_live_specification(ttl.build()?)
        .send()
        .await?;
    let described = dynamodb.describe_time_to_live().table_name(&table.name);
    let described = described.send().await?.time_to_live_description;
    let attribute = described.and_then(|described| described.attribute_name);
    same("attribute", attribute.as_deref(), Some("expires"))
}
