//! Tags, time to live, and point-in-time recovery: kept and shown, as far as clients ask.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::engine::{Tables, named_table, named_table_mut};
use super::refusal::Refusal;
use super::request::Request;
use super::table::Table;
use crate::clock::Timestamp;
use crate::kinesis::{ACCOUNT, REGION};

pub(super) fn table_arn(name: &str) -> String {
    format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}")
}

pub(super) fn tags(request: Request<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    let mut tags = BTreeMap::new();
    for json in request.list("Tags")? {
        let tag = Request::within("Tags", json)?;
        let (key, value) = (tag.required_text("Key")?, tag.required_text("Value")?);
        tags.insert(key.to_owned(), value.to_owned());
    }
    Ok(tags)
}

/// The name of the table that `ResourceArn` means.
fn resource(request: Request<'_>) -> Result<&str, Refusal> {
    let arn = request.required_text("ResourceArn")?;
    let name = arn.strip_prefix(&table_arn(""));
    name.filter(|name| !name.is_empty()).ok_or_else(|| {
        Refusal::validation(format!(
            "Invalid TableArn: Invalid ResourceArn provided as input {arn}"
        ))
    })
}

fn tagged<'a>(tables: &'a mut Tables, request: Request<'_>) -> Result<&'a mut Table, Refusal> {
    let name = resource(request)?;
    tables.get_mut(name).ok_or_else(|| {
        Refusal::not_found(format!(
            "Requested resource not found: ResourcArn: {} not found",
            table_arn(name)
        ))
    })
}

pub(super) fn tag_resource(tables: &mut Tables, request: Request<'_>) -> Result<(), Refusal> {
    let new = tags(request)?;
    if new.is_empty() {
        return Err(Request::missing("Tags"));
    }
    tagged(tables, request)?.settings.tags.extend(new);
    Ok(())
}

pub(super) fn untag_resource(tables: &mut Tables, request: Request<'_>) -> Result<(), Refusal> {
    let keys = request.list("TagKeys")?;
    if keys.is_empty() {
        return Err(Request::missing("TagKeys"));
    }
    let tags = &mut tagged(tables, request)?.settings.tags;
    tags.retain(|key, _| !keys.iter().any(|gone| gone == key));
    Ok(())
}

pub(super) fn list_tags(tables: &mut Tables, request: Request<'_>) -> Result<Value, Refusal> {
    let tags = &tagged(tables, request)?.settings.tags;
    let tags = tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value }));
    Ok(json!({ "Tags": tags.collect::<Value>() }))
}

pub(super) fn update_time_to_live(
    tables: &mut Tables,
    request: Request<'_>,
) -> Result<Value, Refusal> {
    let table = named_table_mut(tables, request.table_name()?)?;
    let given = request.request("TimeToLiveSpecification")?;
    let given = given.ok_or_else(|| Request::missing("TimeToLiveSpecification"))?;
    let attribute = given.required_text("AttributeName")?;
    let enabled = given.flag("Enabled")?.ok_or_else(|| Request::missing("Enabled"))?;
    let current = &mut table.settings.time_to_live;
    match (enabled, current.as_deref()) {
        (true, Some(_)) => return Err(Refusal::validation("TimeToLive is already enabled")),
        (false, None) => return Err(Refusal::validation("TimeToLive is already disabled")),
        (false, Some(known)) if known != attribute => {
            return Err(Refusal::validation(format!(
                "TimeToLive is active on a different AttributeName: current AttributeName is {known}"
            )));
        }
        (true, None) => *current = Some(attribute.to_owned()),
        (false, Some(_)) => *current = None,
    }
    Ok(json!({
        "TimeToLiveSpecification": { "AttributeName": attribute, "Enabled": enabled }
    }))
}

pub(super) fn describe_time_to_live(
    tables: &Tables,
    request: Request<'_>,
) -> Result<Value, Refusal> {
    let table = named_table(tables, request.table_name()?)?;
    let description = match &table.settings.time_to_live {
        None => json!({ "TimeToLiveStatus": "DISABLED" }),
        Some(attribute) => {
            json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": attribute })
        }
    };
    Ok(json!({ "TimeToLiveDescription": description }))
}

fn backed_up<'a>(tables: &'a mut Tables, request: Request<'_>) -> Result<&'a mut Table, Refusal> {
    let name = request.table_name()?;
    tables.get_mut(name).ok_or_else(|| {
        Refusal::of_service("TableNotFoundException", format!("Table not found: {name}"))
    })
}

pub(super) fn update_continuous_backups(
    now: Timestamp,
    tables: &mut Tables,
    request: Request<'_>,
) -> Result<Value, Refusal> {
    let table = backed_up(tables, request)?;
    let given = request.request("PointInTimeRecoverySpecification")?;
    let given = given.ok_or_else(|| Request::missing("PointInTimeRecoverySpecification"))?;
    let enabled = given.flag("PointInTimeRecoveryEnabled")?;
    let enabled = enabled.ok_or_else(|| Request::missing("PointInTimeRecoveryEnabled"))?;
    let since = table.settings.recovery_since.unwrap_or(now);
    table.settings.recovery_since = enabled.then_some(since);
    Ok(continuous_backups(now, table))
}

pub(super) fn describe_continuous_backups(
    now: Timestamp,
    tables: &mut Tables,
    request: Request<'_>,
) -> Result<Value, Refusal> {
    Ok(continuous_backups(now, backed_up(tables, request)?))
}

fn continuous_backups(now: Timestamp, table: &Table) -> Value {
    let recovery = match table.settings.recovery_since {
        None => json!({ "PointInTimeRecoveryStatus": "DISABLED" }),
        Some(since) => json!({
            "PointInTimeRecoveryStatus": "ENABLED",
            "RecoveryPeriodInDays": 35,
            "EarliestRestorableDateTime": since.seconds(),
            "LatestRestorableDateTime": now.seconds(),
        }),
    };
    json!({
        "ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": recovery,
        }
    })
}
