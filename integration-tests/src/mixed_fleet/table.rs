//! The lease table, read with plain calls of DynamoDB.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::Error;

/// The attributes of the table that a run needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// The holder of the leader's lock.
    pub(super) leader: Option<String>,
    /// The fleet's mode.
    pub(super) mode: Option<String>,
    /// Shards and their owners.
    pub(super) owners: Vec<(String, String)>,
}

/// Reads the table in one page. `None` while there is no table.
pub(super) async fn look(dynamodb: &Client, table: &str) -> Result<Option<Table>, Error> {
    let answer = dynamodb.scan().table_name(table).send().await;
    let items = match answer {
        Ok(answer) => answer.items.unwrap_or_default(),
        Err(error)
            if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let mut found = Table::default();
    for item in &items {
        match text(item, "leaseKey").as_deref() {
            Some("Leader") => found.leader = text(item, "ownerName"),
            Some("Migration3.0") => found.mode = text(item, "cv"),
            Some(shard) if item.contains_key("leaseCounter") => {
                let owner = text(item, "leaseOwner").unwrap_or_else(|| "none".to_owned());
                found.owners.push((shard.to_owned(), owner));
            }
            _ => {}
        }
    }
    found.owners.sort();
    Ok(Some(found))
}

fn text(item: &HashMap<String, AttributeValue>, name: &str) -> Option<String> {
    item.get(name)?.as_s().ok().cloned()
}
