//! CreateTable and UpdateTable: how a table is defined, and how that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::engine::{Tables, named_table, named_table_mut};
use super::refusal::Refusal;
use super::request::Request;
use super::schema::{IndexDefinition, IndexKind, IndexProjection, KeyAttribute, KeySchema};
use super::settings::tags;
use super::table::{Table, TableSettings};
use super::value::text;
use crate::clock::Timestamp;

const MAX_GLOBAL_INDEXES: usize = 20;
const MAX_LOCAL_INDEXES: usize = 5;

/// Types of attributes by their names.
type Definitions = BTreeMap<String, String>;

fn attribute_definitions(request: Request<'_>) -> Result<Definitions, Refusal> {
    let mut definitions = Definitions::new();
    for json in request.list("AttributeDefinitions")? {
        let definition = Request::within("AttributeDefinitions", json)?;
        let name = definition.required_text("AttributeName")?;
        definition.required_text("AttributeType")?;
        let kind = definition.choice("AttributeType", &["B", "N", "S"])?;
        if definitions.insert(name.to_owned(), kind.to_owned()).is_some() {
            return Err(Refusal::invalid(format_args!(
                "Duplicate AttributeName in AttributeDefinitions: {name}"
            )));
        }
    }
    Ok(definitions)
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn key_schema(request: Request<'_>, definitions: &Definitions) -> Result<KeySchema, Refusal> {
    let mut attributes = Vec::new();
    for json in request.list("KeySchema")? {
        let element = Request::within("KeySchema", json)?;
        let name = element.required_text("AttributeName")?;
        element.required_text("KeyType")?;
        attributes.push((name, element.choice("KeyType", &["HASH", "RANGE"])?));
    }
    let names = attributes.iter().map(|(name, _)| *name);
    match attributes.as_slice() {
        [(_, "HASH")] => {}
        [(one, "HASH"), (two, "RANGE")] if one != two => {}
        [] => return Err(Request::missing("KeySchema")),
        [(_, "RANGE"), ..] => {
            return Err(Refusal::invalid("The first KeySchemaElement is not a HASH key type"));
        }
        [_, (_, "HASH")] => {
            return Err(Refusal::invalid("The second KeySchemaElement is not a RANGE key type"));
        }
        [_, _] => {
            return Err(Refusal::invalid(
                "Both the Hash Key and the Range Key element in the KeySchema have the same name",
            ));
        }
        _ => {
            return Err(Refusal::constraint(
                &format!("'[{}]'", listed(names)),
                "keySchema",
                "Member must have length less than or equal to 2",
            ));
        }
    }
    let mut typed = attributes.iter().map(|(name, _)| {
        let kind = definitions.get(*name).ok_or_else(|| {
            Refusal::invalid(format_args!(
                "Some index key attributes are not defined in AttributeDefinitions. Keys: [{}], \
                 AttributeDefinitions: [{}]",
                listed(names.clone()),
                listed(definitions.keys().map(String::as_str))
            ))
        })?;
        Ok::<_, Refusal>(KeyAttribute { name: (*name).to_owned(), kind: kind.clone() })
    });
    let partition = typed.next().ok_or_else(|| Request::missing("KeySchema"))??;
    let sort = typed.next().transpose()?;
    Ok(KeySchema { partition, sort })
}

/// Read and write units, both of them or neither.
fn throughput(request: Request<'_>) -> Result<Option<(i64, i64)>, Refusal> {
    let Some(units) = request.request("ProvisionedThroughput")? else {
        return Ok(None);
    };
    let count = |member| {
        let count = units.integer(member)?.ok_or_else(|| Request::missing(member))?;
        if count < 1 {
            return Err(Refusal::constraint(
                &format!("'{count}'"),
                "provisionedThroughput",
                "Member must have value greater than or equal to 1",
            ));
        }
        Ok(count)
    };
    Ok(Some((count("ReadCapacityUnits")?, count("WriteCapacityUnits")?)))
}

/// The units of a table or global index, as its billing mode has them.
fn units_for(on_demand: bool, request: Request<'_>, what: &str) -> Result<(i64, i64), Refusal> {
    match (on_demand, throughput(request)?) {
        (true, None) => Ok((0, 0)),
        (false, Some(units)) => Ok(units),
        (true, Some(_)) => Err(Refusal::invalid(format_args!(
            "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is \
             PAY_PER_REQUEST"
        ))),
        (false, None) => Err(Refusal::invalid(format_args!(
            "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is \
             PROVISIONED{what}"
        ))),
    }
}

fn index_definition(
    request: Request<'_>,
    kind: IndexKind,
    definitions: &Definitions,
    on_demand: bool,
) -> Result<IndexDefinition, Refusal> {
    let name = request.required_text("IndexName")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !(3..=255).contains(&name.len()) || !name.bytes().all(allowed) {
        return Err(Refusal::constraint(
            &format!("'{name}'"),
            "indexName",
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]{3,255}",
        ));
    }
    let given = request.request("Projection")?;
    let given = given.ok_or_else(|| Request::missing("Projection"))?;
    let names = given.list("NonKeyAttributes")?;
    let names = names.iter().map(|name| Ok::<_, Refusal>(text(name)?.to_owned()));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    given
        .text("ProjectionType")?
        .ok_or_else(|| Refusal::invalid("Unknown ProjectionType: null"))?;
    let projection = match given.choice("ProjectionType", &["ALL", "INCLUDE", "KEYS_ONLY"])? {
        "INCLUDE" if names.is_empty() => {
            return Err(Refusal::invalid(
                "ProjectionType is INCLUDE, but NonKeyAttributes is not specified",
            ));
        }
        "INCLUDE" => IndexProjection::Include(names),
        other if !names.is_empty() => {
            return Err(Refusal::invalid(format_args!(
                "ProjectionType is {other}, but NonKeyAttributes is specified"
            )));
        }
        "ALL" => IndexProjection::All,
        _ => IndexProjection::KeysOnly,
    };
    let throughput = match kind {
        IndexKind::Global => units_for(on_demand, request, &format!(" for index: {name}"))?,
        IndexKind::Local => (0, 0),
    };
    Ok(IndexDefinition {
        name: name.to_owned(),
        kind,
        schema: key_schema(request, definitions)?,
        projection,
        throughput,
    })
}

/// Refuses what this DynamoDB does not do, rather than to say that it does.
fn check_supported(request: Request<'_>) -> Result<(), Refusal> {
    let streams = request.request("StreamSpecification")?;
    let wanted = streams.map(|streams| streams.flag("StreamEnabled")).transpose()?;
    if wanted.flatten() == Some(true) {
        return Err(Refusal::validation(
            "testkit does not serve DynamoDB Streams: leave StreamSpecification out",
        ));
    }
    Ok(())
}

pub(super) fn create_table(
    now: Timestamp,
    tables: &mut Tables,
    nth: u64,
    request: Request<'_>,
) -> Result<Table, Refusal> {
    let name = request.table_name()?;
    check_supported(request)?;
    let definitions = attribute_definitions(request)?;
    let schema = key_schema(request, &definitions)?;
    let mode = request.choice("BillingMode", &["PROVISIONED", "PAY_PER_REQUEST"])?;
    let on_demand = mode == "PAY_PER_REQUEST";
    let settings = TableSettings {
        on_demand,
        on_demand_since: on_demand.then_some(now),
        throughput: units_for(on_demand, request, "")?,
        deletion_protection: request.flag("DeletionProtectionEnabled")?.unwrap_or(false),
        class: request.text("TableClass")?.map(str::to_owned),
        tags: tags(request)?,
        time_to_live: None,
        recovery_since: None,
    };
    let mut indexes: Vec<IndexDefinition> = Vec::new();
    for (member, kind, most) in [
        ("LocalSecondaryIndexes", IndexKind::Local, MAX_LOCAL_INDEXES),
        ("GlobalSecondaryIndexes", IndexKind::Global, MAX_GLOBAL_INDEXES),
    ] {
        let list = request.list(member)?;
        if list.len() > most {
            return Err(Refusal::invalid(format_args!(
                "The number of {member} exceeds the limit of {most}"
            )));
        }
        for json in list {
            let given = Request::within(member, json)?;
            let index = index_definition(given, kind, &definitions, on_demand)?;
            check_index(&schema, &index)?;
            if indexes.iter().any(|other| other.name == index.name) {
                return Err(Refusal::invalid(format_args!("Duplicate index name: {}", index.name)));
            }
            indexes.push(index);
        }
    }
    let keys = indexes.iter().map(|index| &index.schema).chain([&schema]);
    let used: BTreeSet<_> = keys
        .flat_map(KeySchema::attributes)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|attribute| attribute.name.as_str())
        .collect();
    if used.len() != definitions.len() {
        let problem = if indexes.is_empty() {
            "Number of attributes in KeySchema does not exactly match number of attributes defined \
             in AttributeDefinitions"
                .to_owned()
        } else {
            format!(
                "Some AttributeDefinitions are not used. AttributeDefinitions: [{}], keys used: \
                 [{}]",
                listed(definitions.keys().map(String::as_str)),
                listed(used.into_iter())
            )
        };
        return Err(Refusal::invalid(problem));
    }
    if tables.contains_key(name) {
        return Err(Refusal::of_service(
            "ResourceInUseException",
            format!("Table already exists: {name}"),
        ));
    }
    let id = format!("{:08x}-0000-4000-8000-{nth:012x}", now.seconds());
    let mut table = Table::new(name.to_owned(), id, now, schema, settings);
    for index in indexes {
        table.add_index(index, now);
    }
    tables.insert(name.to_owned(), table.clone());
    Ok(table)
}

fn check_index(schema: &KeySchema, index: &IndexDefinition) -> Result<(), Refusal> {
    if index.kind == IndexKind::Global {
        return Ok(());
    }
    if schema.sort.is_none() || index.schema.sort.is_none() {
        return Err(Refusal::invalid(
            "Table KeySchema does not have a range key, which is required when specifying a \
             LocalSecondaryIndex",
        ));
    }
    if schema.partition != index.schema.partition {
        return Err(Refusal::invalid(format_args!(
            "Index KeySchema does not have the same leading hash key as table KeySchema for index: \
             {}. index hash key: {}, table hash key: {}",
            index.name, index.schema.partition.name, schema.partition.name
        )));
    }
    Ok(())
}

/// The definitions that a table has, and those that a request adds.
fn definitions_with(table: &Table, request: Request<'_>) -> Result<Definitions, Refusal> {
    let mut definitions = attribute_definitions(request)?;
    let indexes = table.indexes.values().map(|index| &index.definition.schema);
    for attribute in indexes.chain([&table.schema]).flat_map(KeySchema::attributes) {
        let before = definitions.insert(attribute.name.clone(), attribute.kind.clone());
        if before.is_some_and(|kind| kind != attribute.kind) {
            return Err(Refusal::invalid(format_args!(
                "Attribute {} is defined already, as {}",
                attribute.name, attribute.kind
            )));
        }
    }
    Ok(definitions)
}

/// Changes a table; a new index takes `index_takes` to become active.
pub(super) fn update_table(
    now: Timestamp,
    tables: &mut Tables,
    index_takes: Duration,
    request: Request<'_>,
) -> Result<Table, Refusal> {
    let name = request.table_name()?;
    check_supported(request)?;
    let members = [
        "BillingMode",
        "ProvisionedThroughput",
        "DeletionProtectionEnabled",
        "GlobalSecondaryIndexUpdates",
        "TableClass",
        "StreamSpecification",
        "SSESpecification",
        "OnDemandThroughput",
        "WarmThroughput",
    ];
    if !members.iter().any(|member| request.has(member)) {
        return Err(Refusal::validation(
            "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, \
             GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required",
        ));
    }
    // Worked out on a copy: a refusal in the middle leaves the table as it is.
    let mut table = named_table(tables, name)?.clone();
    update_settings(now, &mut table, request)?;
    let updates = request.list("GlobalSecondaryIndexUpdates")?;
    let online = |json: &&Value| !json["Create"].is_null() || !json["Delete"].is_null();
    if updates.iter().filter(online).count() > 1 {
        return Err(Refusal::of_service(
            "LimitExceededException",
            "Subscriber limit exceeded: Only 1 online index can be created or deleted \
             simultaneously per table",
        ));
    }
    let definitions = definitions_with(&table, request)?;
    for json in updates {
        let update = Request::within("GlobalSecondaryIndexUpdates", json)?;
        if let Some(create) = update.request("Create")? {
            let on_demand = table.settings.on_demand;
            let index = index_definition(create, IndexKind::Global, &definitions, on_demand)?;
            if table.indexes.contains_key(&index.name) {
                return Err(Refusal::invalid(format_args!(
                    "Attempting to create an index which already exists: {}",
                    index.name
                )));
            }
            if table.indexes.len() >= MAX_GLOBAL_INDEXES + MAX_LOCAL_INDEXES {
                return Err(Refusal::of_service(
                    "LimitExceededException",
                    "Subscriber limit exceeded: too many indexes",
                ));
            }
            table.add_index(index, now.plus(index_takes));
        } else if let Some(delete) = update.request("Delete")? {
            let index = delete.required_text("IndexName")?;
            let known = table.indexes.get(index);
            known
                .filter(|index| index.definition.kind == IndexKind::Global)
                .ok_or_else(|| Refusal::not_found("Requested resource not found"))?;
            table.indexes.remove(index);
        } else if let Some(change) = update.request("Update")? {
            let units = throughput(change)?;
            let index = table.indexes.get_mut(change.required_text("IndexName")?);
            let index = index.ok_or_else(|| Refusal::not_found("Requested resource not found"))?;
            index.definition.throughput = units.unwrap_or(index.definition.throughput);
        } else {
            return Err(Refusal::invalid(
                "One of GlobalSecondaryIndexUpdate's Create, Update and Delete must be given",
            ));
        }
    }
    *named_table_mut(tables, name)? = table.clone();
    Ok(table)
}

fn update_settings(now: Timestamp, table: &mut Table, request: Request<'_>) -> Result<(), Refusal> {
    let settings = &mut table.settings;
    if request.has("BillingMode") {
        let mode = request.choice("BillingMode", &["PROVISIONED", "PAY_PER_REQUEST"])?;
        let on_demand = mode == "PAY_PER_REQUEST";
        settings.throughput = units_for(on_demand, request, "")?;
        if on_demand && !settings.on_demand {
            settings.on_demand_since = Some(now);
        }
        settings.on_demand = on_demand;
    } else if let Some(units) = throughput(request)? {
        if settings.on_demand {
            return Err(Refusal::invalid(
                "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode \
                 is PAY_PER_REQUEST",
            ));
        }
        settings.throughput = units;
    }
    if let Some(on) = request.flag("DeletionProtectionEnabled")? {
        settings.deletion_protection = on;
    }
    if let Some(class) = request.text("TableClass")? {
        settings.class = Some(class.to_owned());
    }
    Ok(())
}
