//! The database: a pure state machine that is told the time.
//!
//! Every operation takes the time and a request and gives an answer or a refusal. Nothing here waits
//! or reads a clock, and the same requests at the same times give the same tables again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::reads::{self, Page};
use super::refusal::Refusal;
use super::request::Request;
use super::table::Table;
use super::transactions::{self, Tokens};
use super::writes::{self, Kind};
use super::{batches, definitions, describe, settings};
use crate::clock::Timestamp;

pub(super) type Tables = BTreeMap<String, Table>;

/// All tables of the account. A clone shares the items.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Engine {
    tables: Tables,
    tokens: Tokens,
    /// How many tables have been created.
    created: u64,
}

/// An answer to a request, to be written as JSON.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    Value(Value),
    Page(Page),
}

/// A table that an operation on items names.
pub(super) fn table<'a>(tables: &'a Tables, name: &str) -> Result<&'a Table, Refusal> {
    let table = tables.get(name);
    table.ok_or_else(|| Refusal::not_found("Requested resource not found"))
}

pub(super) fn table_mut<'a>(tables: &'a mut Tables, name: &str) -> Result<&'a mut Table, Refusal> {
    let table = tables.get_mut(name);
    table.ok_or_else(|| Refusal::not_found("Requested resource not found"))
}

fn not_found(name: &str) -> Refusal {
    Refusal::not_found(format!("Requested resource not found: Table: {name} not found"))
}

/// A table that an operation on tables names.
pub(super) fn named_table<'a>(tables: &'a Tables, name: &str) -> Result<&'a Table, Refusal> {
    tables.get(name).ok_or_else(|| not_found(name))
}

pub(super) fn named_table_mut<'a>(
    tables: &'a mut Tables,
    name: &str,
) -> Result<&'a mut Table, Refusal> {
    tables.get_mut(name).ok_or_else(|| not_found(name))
}

/// Whether an operation may change tables or items.
pub(super) fn is_write(operation: &str) -> bool {
    let reads = ["Describe", "List", "Get", "Query", "Scan", "BatchGet", "TransactGet"];
    !reads.iter().any(|read| operation.starts_with(read))
}

impl Engine {
    /// Answers a request. An index that it adds takes `index_takes` to become active.
    pub(super) fn call(
        &mut self,
        now: Timestamp,
        operation: &str,
        request: &Value,
        index_takes: Duration,
    ) -> Result<Answer, Refusal> {
        let request = Request::within("The request", request)?;
        let tables = &mut self.tables;
        let item_table = |tables| table_mut(tables, request.table_name()?);
        let described = |table: &Table, status| describe::description(now, table, status);
        Ok(Answer::Value(match operation {
            "GetItem" => reads::get_item(item_table(tables)?, request)?,
            "PutItem" => writes::write_item(item_table(tables)?, Kind::Put, request)?,
            "UpdateItem" => writes::write_item(item_table(tables)?, Kind::Update, request)?,
            "DeleteItem" => writes::write_item(item_table(tables)?, Kind::Delete, request)?,
            "Query" => {
                return reads::query(now, item_table(tables)?, request).map(Answer::Page);
            }
            "Scan" => {
                return reads::scan(now, item_table(tables)?, request).map(Answer::Page);
            }
            "BatchGetItem" => batches::batch_get(tables, request)?,
            "BatchWriteItem" => batches::batch_write(tables, request)?,
            "TransactGetItems" => transactions::transact_get(tables, request)?,
            "TransactWriteItems" => {
                transactions::transact_write(now, tables, &mut self.tokens, request)?
            }
            "CreateTable" => {
                let table = definitions::create_table(now, tables, self.created, request)?;
                self.created += 1;
                json!({ "TableDescription": described(&table, "CREATING") })
            }
            "UpdateTable" => {
                let table = definitions::update_table(now, tables, index_takes, request)?;
                json!({ "TableDescription": described(&table, "UPDATING") })
            }
            "DeleteTable" => {
                let name = request.table_name()?;
                if named_table(tables, name)?.settings.deletion_protection {
                    return Err(Refusal::validation(
                        "Resource cannot be deleted as it is currently protected against deletion. \
                         Disable deletion protection first.",
                    ));
                }
                let table = tables.remove(name);
                let table = table.as_ref().map(|table| described(table, "DELETING"));
                json!({ "TableDescription": table })
            }
            "DescribeTable" => {
                let table = named_table(tables, request.table_name()?)?;
                json!({ "Table": described(table, "ACTIVE") })
            }
            "ListTables" => describe::list_tables(tables, request)?,
            "TagResource" => {
                settings::tag_resource(tables, request)?;
                json!({})
            }
            "UntagResource" => {
                settings::untag_resource(tables, request)?;
                json!({})
            }
            "ListTagsOfResource" => settings::list_tags(tables, request)?,
            "UpdateTimeToLive" => settings::update_time_to_live(tables, request)?,
            "DescribeTimeToLive" => settings::describe_time_to_live(tables, request)?,
            "UpdateContinuousBackups" => settings::update_continuous_backups(now, tables, request)?,
            "DescribeContinuousBackups" => {
                settings::describe_continuous_backups(now, tables, request)?
            }
            _ => return Err(Refusal::unknown_operation(operation)),
        }))
    }
}
