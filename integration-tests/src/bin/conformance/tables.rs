//! Tables come, are described, and go.

use aws_sdk_dynamodb::types::{
    BillingMode, DeleteGlobalSecondaryIndexAction, GlobalSecondaryIndexUpdate,
    PointInTimeRecoverySpecification, PointInTimeRecoveryStatus, ProvisionedThroughput, Tag,
    TimeToLiveSpecification,
};

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
    a_table_has_tags,
    a_table_may_be_recovered_to_a_point_in_time,
    a_provisioned_table_has_units,
    a_table_changes_its_billing,
    a_definition_that_no_key_uses_is_refused,
    an_index_is_deleted,
    tables_are_listed_page_by_page,
}

async fn a_table_is_described(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.indexed_table().await?;
    let described = dynamodb.describe_table().table_name(&table.name).send().await?;
    let described = some("table", described.table)?;
    same("key", described.key_schema(), [key("id")?])?;
    let indexes = described.global_secondary_indexes();
    same("indexes", indexes.len(), 1)?;
    same("index", indexes[0].index_name(), Some("by_owner"))?;
    same("key of the index", indexes[0].key_schema(), [key("owner")?])?;
    let listed = dynamodb.list_tables().send().await?.table_names;
    same("listed", listed.unwrap_or_default().contains(&table.name), true)
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
    let put = dynamodb.put_item().table_name(&name).set_item(Some(item("a", [])));
    refused("put", put.send().await, "ResourceNotFoundException")?;
    let scan = dynamodb.scan().table_name(&name).send().await;
    refused("scan", scan, "ResourceNotFoundException")
}

async fn a_deleted_table_is_gone(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    dynamodb.delete_table().table_name(&table.name).send().await?;
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
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name("expires");
    let update = dynamodb.update_time_to_live().table_name(&table.name);
    update.time_to_live_specification(ttl.build()?).send().await?;
    let described = dynamodb.describe_time_to_live().table_name(&table.name);
    let described = described.send().await?.time_to_live_description;
    let attribute = described.and_then(|described| described.attribute_name);
    same("attribute", attribute.as_deref(), Some("expires"))
}

async fn a_table_has_tags(dynamodb: DynamoDb) -> Verdict {
    let tag = |value: &str| Tag::builder().key("team").value(value).build();
    let name = dynamodb.fresh_name();
    dynamodb.new_table(&name)?.tags(tag("a")?).send().await?;
    let table = dynamodb.created(name).await?;
    let described = dynamodb.describe_table().table_name(&table.name);
    let arn = some("table", described.send().await?.table)?.table_arn;
    let arn = some("ARN", arn)?;
    let tags = async || -> Result<Vec<Tag>, crate::check::Failure> {
        let list = dynamodb.list_tags_of_resource().resource_arn(&arn);
        Ok(list.send().await?.tags.unwrap_or_default())
    };
    same("at first", tags().await?, [tag("a")?])?;
    let change = dynamodb.tag_resource().resource_arn(&arn).tags(tag("b")?);
    change.send().await?;
    same("changed", tags().await?, [tag("b")?])?;
    let remove = dynamodb.untag_resource().resource_arn(&arn);
    remove.tag_keys("team").send().await?;
    same("removed", tags().await?, [])
}

async fn a_table_may_be_recovered_to_a_point_in_time(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.table().await?;
    let recovery = PointInTimeRecoverySpecification::builder();
    let recovery = recovery.point_in_time_recovery_enabled(true).build()?;
    let update = dynamodb.update_continuous_backups().table_name(&table.name);
    update.point_in_time_recovery_specification(recovery).send().await?;
    let described = dynamodb.describe_continuous_backups().table_name(&table.name);
    let described = described.send().await?.continuous_backups_description;
    let recovery = described.and_then(|described| described.point_in_time_recovery_description);
    let status = recovery.and_then(|recovery| recovery.point_in_time_recovery_status);
    same("status", status, Some(PointInTimeRecoveryStatus::Enabled))
}

fn units(read: i64, write: i64) -> Result<ProvisionedThroughput, crate::check::Failure> {
    let units = ProvisionedThroughput::builder().read_capacity_units(read);
    Ok(units.write_capacity_units(write).build()?)
}

async fn a_provisioned_table_has_units(dynamodb: DynamoDb) -> Verdict {
    let create = dynamodb.new_table(&dynamodb.fresh_name())?;
    let create = create.billing_mode(BillingMode::Provisioned);
    refused("none", create.send().await, "ValidationException")?;
    let create = dynamodb.new_table(&dynamodb.fresh_name())?;
    let create = create.provisioned_throughput(units(1, 1)?).send().await;
    refused("units of an on-demand table", create, "ValidationException")?;
    let name = dynamodb.fresh_name();
    let create = dynamodb.new_table(&name)?.billing_mode(BillingMode::Provisioned);
    create.provisioned_throughput(units(7, 8)?).send().await?;
    let table = dynamodb.created(name).await?;
    let described = dynamodb.describe_table().table_name(&table.name);
    let described = some("table", described.send().await?.table)?;
    let units = some("units", described.provisioned_throughput)?;
    let units = (units.read_capacity_units, units.write_capacity_units);
    same("units", units, (Some(7), Some(8)))
}

async fn a_table_changes_its_billing(dynamodb: DynamoDb) -> Verdict {
    let name = dynamodb.fresh_name();
    let create = dynamodb.new_table(&name)?.billing_mode(BillingMode::Provisioned);
    create.provisioned_throughput(units(7, 8)?).send().await?;
    let table = dynamodb.created(name).await?;
    let update = dynamodb.update_table().table_name(&table.name);
    let update = update.billing_mode(BillingMode::PayPerRequest);
    update.send().await?;
    let table = dynamodb.created(table.name).await?;
    let described = dynamodb.describe_table().table_name(&table.name);
    let described = some("table", described.send().await?.table)?;
    let mode = described.billing_mode_summary.and_then(|summary| summary.billing_mode);
    same("mode", mode, Some(BillingMode::PayPerRequest))
}

async fn a_definition_that_no_key_uses_is_refused(dynamodb: DynamoDb) -> Verdict {
    let create = dynamodb.new_table(&dynamodb.fresh_name())?;
    let create = create.attribute_definitions(string("other")?);
    refused("create", create.send().await, "ValidationException")
}

async fn an_index_is_deleted(dynamodb: DynamoDb) -> Verdict {
    let table = dynamodb.indexed_table().await?;
    let delete = DeleteGlobalSecondaryIndexAction::builder().index_name("by_owner");
    let delete = GlobalSecondaryIndexUpdate::builder().delete(delete.build()?);
    let update = dynamodb.update_table().table_name(&table.name);
    update.global_secondary_index_updates(delete.build()).send().await?;
    loop {
        let described = dynamodb.describe_table().table_name(&table.name);
        let described = some("table", described.send().await?.table)?;
        if described.global_secondary_indexes().is_empty() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn tables_are_listed_page_by_page(dynamodb: DynamoDb) -> Verdict {
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(dynamodb.table().await?.name);
    }
    let (mut listed, mut start) = (Vec::new(), None);
    loop {
        let list = dynamodb.list_tables().limit(1);
        let page = list.set_exclusive_start_table_name(start).send().await?;
        listed.extend(page.table_names.unwrap_or_default());
        start = page.last_evaluated_table_name;
        if start.is_none() {
            break;
        }
    }
    let once = |name: &String| listed.iter().filter(|listed| *listed == name).count();
    same("listed", names.iter().map(once).collect::<Vec<_>>(), [1, 1, 1])
}
