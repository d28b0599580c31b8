//! The fleet's mode: the item `Migration3.0`, by which workers of the 2.x and 3.x generations agree
//! on how leases are assigned.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;

use super::start::{Failure, call_failed};
use crate::clock::Clock;
use crate::error::StartError;
use crate::lease::{Item, Layout, classify, get_item};

const KEY: &str = "Migration3.0";
const TABLE_KEY: &str = "TableMigration3.5";
const CLIENT_VERSION_3X: &str = "CLIENT_VERSION_3X";
const CLIENT_VERSION_INIT: &str = "CLIENT_VERSION_INIT";
const ENTITY: &str = "CLIENT_VERSION_MIGRATION";

/// How the workers of the fleet come to their leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// A leader assigns leases, and workers discover theirs.
    ThreeX,
    /// Workers take and steal leases.
    TwoX,
    /// This version does not know the mode.
    Unknown,
}

/// The mode that a stored state stands for.
pub(super) fn mode(state: &str) -> Mode {
    match state {
        CLIENT_VERSION_3X | "CLIENT_VERSION_3X_WITH_ROLLBACK" => Mode::ThreeX,
        "CLIENT_VERSION_2X" | "CLIENT_VERSION_UPGRADE_FROM_2X" => Mode::TwoX,
        _ => Mode::Unknown,
    }
}

/// Reads and writes the state of one application's fleet.
#[derive(Debug)]
pub(super) struct Migration<'a> {
    pub(super) client: &'a Client,
    pub(super) table: &'a str,
    pub(super) layout: &'a Layout,
    pub(super) worker_id: &'a str,
    pub(super) clock: &'a dyn Clock,
}

impl Migration<'_> {
    /// Makes sure that the fleet is in 3.x mode.
    ///
    /// If there is no state, `has_leases` decides: with leases it is a fleet of 2.x workers, and
    /// nothing is written. Without leases, the state is written before the first lease.
    pub(super) async fn settle(&self, has_leases: bool) -> Result<(), Failure> {
        // If another worker writes the state first, it is read again.
        for _ in 0..2 {
            match self.state().await? {
                Some(state) => return self.judge(&state),
                None if has_leases => {
                    return Err(self.unsupported(
                        "no migration state beside existing leases, which means 2.x",
                        "this version cannot join a fleet of KCL 2.x workers yet: \
                         move the fleet to KCL 3.x first, or take a new application name",
                    ));
                }
                None if self.begin().await? => return Ok(()),
                None => {}
            }
        }
        Err(self.unsupported("written and removed at the same time", "start again"))
    }

    /// Reads the stored state. `None`: there is none.
    pub(super) async fn state(&self) -> Result<Option<String>, Failure> {
        let item = get(self.client, self.layout.state(self.table), KEY).await?;
        match item.map(|mut item| item.remove("cv")) {
            None => Ok(None),
            Some(Some(AttributeValue::S(state))) => Ok(Some(state)),
            Some(_) => Err(self.unsupported(
                "unreadable",
                "the migration item has no state: repair it, or use a newer version",
            )),
        }
    }

    /// Fails if this worker cannot take part in a fleet of this state.
    pub(super) fn judge(&self, state: &str) -> Result<(), Failure> {
        match mode(state) {
            Mode::ThreeX => Ok(()),
            Mode::TwoX => Err(self.unsupported(
                state,
                "this version cannot join a fleet in 2.x mode yet: finish the migration to KCL 3.x \
                 first, or take a new application name",
            )),
            Mode::Unknown => Err(self.unsupported(
                state,
                "this version does not know that state: use a newer version of this library",
            )),
        }
    }

    pub(super) fn unsupported(&self, state: &str, what_to_do: &'static str) -> Failure {
        Failure::Final(StartError::UnsupportedFleet {
            table: self.layout.state(self.table).0.to_owned(),
            state: state.to_owned(),
            what_to_do,
        })
    }

    /// Writes the state of a new application in Java's form. Returns false if another worker was
    /// faster.
    async fn begin(&self) -> Result<bool, Failure> {
        let (table, hash_key) = self.layout.state(self.table);
        let now = AttributeValue::N(self.clock.epoch_millis().to_string());
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let entry = |state: &str| {
            HashMap::from([
                ("cv".to_owned(), text(state)),
                ("mb".to_owned(), text(self.worker_id)),
                ("mts".to_owned(), now.clone()),
            ])
        };
        let mut item = entry(CLIENT_VERSION_3X);
        let history = AttributeValue::L(vec![AttributeValue::M(entry(CLIENT_VERSION_INIT))]);
        item.insert("h".to_owned(), history);
        item.insert(hash_key.to_owned(), text(KEY));
        if *self.layout == Layout::OneTable {
            item.insert("entityType".to_owned(), text(ENTITY));
        }
        let answer = self
            .client
            .put_item()
            .table_name(table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(#key)")
            .expression_attribute_names("#key", hash_key)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(PutItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(call_failed(table, &classify("PutItem", &error))),
        }
    }
}

/// Where the fleet keeps its state and its worker rows: in the old tables of Java workers, while
/// these exist and were not moved into the lease table.
pub(super) async fn layout(
    client: &Client,
    application: &str,
    legacy_state_exists: bool,
    lease_table: Option<&str>,
) -> Result<Layout, Failure> {
    if !legacy_state_exists {
        return Ok(Layout::OneTable);
    }
    let legacy = Layout::legacy(application);
    let mut places = vec![legacy.state(application)];
    places.extend(lease_table.map(|table| (table, "leaseKey")));
    for place in places {
        let Some(item) = get(client, place, TABLE_KEY).await? else {
            continue;
        };
        let state = match item.get("tm") {
            Some(AttributeValue::S(state)) => state.as_str(),
            _ => "unreadable",
        };
        match state {
            "TABLE_MIGRATION_STATUS_INIT" | "TABLE_MIGRATION_STATUS_DEPLOYED" => {}
            "TABLE_MIGRATION_STATUS_PENDING" | "TABLE_MIGRATION_STATUS_COMPLETE" => {
                return Ok(Layout::OneTable);
            }
            unknown => {
                return Err(Failure::Final(StartError::UnsupportedFleet {
                    table: place.0.to_owned(),
                    state: unknown.to_owned(),
                    what_to_do: "this version does not know that state of the table migration: \
                                 use a newer version of this library",
                }));
            }
        }
    }
    Ok(legacy)
}

async fn get(client: &Client, table: (&str, &str), key: &str) -> Result<Option<Item>, Failure> {
    let item = get_item(client, table, key, true, "GetItem").await;
    item.map_err(|error| call_failed(table.0, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_the_java_library_is_known_and_no_other() {
        for (state, expected) in [
            ("CLIENT_VERSION_3X", Mode::ThreeX),
            ("CLIENT_VERSION_3X_WITH_ROLLBACK", Mode::ThreeX),
            ("CLIENT_VERSION_2X", Mode::TwoX),
            ("CLIENT_VERSION_UPGRADE_FROM_2X", Mode::TwoX),
            // Java stores it only in the history of the state.
            ("CLIENT_VERSION_INIT", Mode::Unknown),
            ("CLIENT_VERSION_4X", Mode::Unknown),
            ("", Mode::Unknown),
        ] {
            assert_eq!(mode(state), expected, "{state}");
        }
    }
}
