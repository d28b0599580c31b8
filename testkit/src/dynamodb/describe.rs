//! Tables, as DescribeTable shows them.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde_json::{Value, json};

use super::engine::Tables;
use super::refusal::Refusal;
use super::request::Request;
use super::schema::{IndexKind, IndexProjection, KeySchema};
use super::settings::table_arn;
use super::table::{Index, Table};
use super::value::item_size;
use crate::clock::Timestamp;

fn units((read, write): (i64, i64)) -> Value {
    json!({
        "NumberOfDecreasesToday": 0, "ReadCapacityUnits": read, "WriteCapacityUnits": write,
    })
}

/// A table as it is now. `status` is that of the table.
pub(super) fn description(now: Timestamp, table: &Table, status: &str) -> Value {
    let settings = &table.settings;
    let indexes = table.indexes.values().map(|index| &index.definition.schema);
    let keys = indexes.chain([&table.schema]).flat_map(KeySchema::attributes);
    let definitions: BTreeMap<_, _> =
        keys.map(|attribute| (&attribute.name, &attribute.kind)).collect();
    let definitions = definitions
        .into_iter()
        .map(|(name, kind)| json!({ "AttributeName": name, "AttributeType": kind }));
    let mut shown = json!({
        "TableName": table.name,
        "TableArn": table_arn(&table.name),
        "TableId": table.id,
        "TableStatus": status,
        "CreationDateTime": table.created.millis() as f64 / 1000.0,
        "KeySchema": table.schema.to_json(),
        "AttributeDefinitions": definitions.collect::<Value>(),
        "ItemCount": table.entries().len(),
        "TableSizeBytes": table.bytes(),
        "ProvisionedThroughput": units(settings.throughput),
        "DeletionProtectionEnabled": settings.deletion_protection,
    });
    // A table that has always been provisioned shows no summary.
    if let Some(since) = settings.on_demand_since {
        shown["BillingModeSummary"] = json!({
            "BillingMode": if settings.on_demand { "PAY_PER_REQUEST" } else { "PROVISIONED" },
            "LastUpdateToPayPerRequestDateTime": since.millis() as f64 / 1000.0,
        });
    }
    if let Some(class) = &settings.class {
        shown["TableClassSummary"] = json!({ "TableClass": class });
    }
    for (member, kind) in
        [("GlobalSecondaryIndexes", IndexKind::Global), ("LocalSecondaryIndexes", IndexKind::Local)]
    {
        let of_kind = table.indexes.values();
        let of_kind = of_kind.filter(|index| index.definition.kind == kind);
        let of_kind: Vec<_> = of_kind.map(|index| of_index(now, table, index)).collect();
        if !of_kind.is_empty() {
            shown[member] = Value::Array(of_kind);
        }
    }
    shown
}

fn of_index(now: Timestamp, table: &Table, index: &Index) -> Value {
    let definition = &index.definition;
    let items = index.entries().values();
    let bytes = items.map(|item| item_size(&definition.projected(&table.schema, item)));
    let mut shown = json!({
        "IndexName": definition.name,
        "IndexArn": format!("{}/index/{}", table_arn(&table.name), definition.name),
        "KeySchema": definition.schema.to_json(),
        "Projection": match &definition.projection {
            IndexProjection::All => json!({ "ProjectionType": "ALL" }),
            IndexProjection::KeysOnly => json!({ "ProjectionType": "KEYS_ONLY" }),
            IndexProjection::Include(names) => {
                json!({ "ProjectionType": "INCLUDE", "NonKeyAttributes": names })
            }
        },
        "ItemCount": index.entries().len(),
        "IndexSizeBytes": bytes.sum::<usize>(),
    });
    if definition.kind == IndexKind::Global {
        let active = index.active_from <= now;
        shown["IndexStatus"] = if active { "ACTIVE" } else { "CREATING" }.into();
        if !active {
            shown["Backfilling"] = true.into();
        }
        shown["ProvisionedThroughput"] = units(definition.throughput);
    }
    shown
}

pub(super) fn list_tables(tables: &Tables, request: Request<'_>) -> Result<Value, Refusal> {
    let limit = request.positive("Limit")?.unwrap_or(100);
    if limit > 100 {
        return Err(Refusal::constraint(
            &format!("'{limit}'"),
            "limit",
            "Member must have value less than or equal to 100",
        ));
    }
    let start = request.text("ExclusiveStartTableName")?;
    let start = start.map_or(Bound::Unbounded, Bound::Excluded);
    let mut names = tables.range::<str, _>((start, Bound::Unbounded)).map(|(name, _)| name);
    let page: Vec<_> = names.by_ref().take(limit).collect();
    let mut shown = json!({ "TableNames": page });
    if let (Some(last), Some(_)) = (page.last(), names.next()) {
        shown["LastEvaluatedTableName"] = json!(last);
    }
    Ok(shown)
}
