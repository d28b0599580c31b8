//! The tables of an application, found and checked before their first item is read.

use aws_sdk_dynamodb::Client;

use super::DYNAMODB;
use super::lease_table::find;
use super::retry::Startup;
use crate::coordinator::migration::layout;
use crate::error::StartError;
use crate::lease::item::attribute;
use crate::lease::{DynamoDbLeaseStore, Layout, TableProblem};

/// The tables of an application.
pub(super) struct Tables {
    /// Whether the lease table exists.
    pub(super) exists: bool,
    /// Whether a table of older workers holds the state of the fleet.
    pub(super) has_legacy: bool,
    pub(super) layout: Layout,
    pub(super) store: DynamoDbLeaseStore,
}

impl Tables {
    /// Finds the tables of `application`, whose lease table is `table`.
    pub(super) async fn find(
        startup: &mut Startup<'_>,
        dynamodb: &Client,
        application: &str,
        table: &str,
        process: u64,
    ) -> Result<Self, StartError> {
        let leases = (table, attribute::KEY);
        let exists = startup.step(DYNAMODB, "DescribeTable", || find(dynamodb, leases)).await?;
        let legacy = Layout::legacy(application);
        let has_legacy =
            startup.step(DYNAMODB, "DescribeTable", || find(dynamodb, legacy.state(table))).await?;
        let lease_table = exists.then_some(table);
        let layout = startup
            .step(DYNAMODB, "GetItem", || layout(dynamodb, application, has_legacy, lease_table))
            .await?;
        if layout != Layout::OneTable {
            let workers = layout.workers(table);
            if !startup.step(DYNAMODB, "DescribeTable", || find(dynamodb, workers)).await? {
                return Err(missing(workers.0));
            }
        }
        let mut store =
            DynamoDbLeaseStore::new(dynamodb.clone(), table.to_owned(), layout.clone(), process);
        // While a fleet moves to one table, its leader's lock stays in the old one.
        store.leader_table = has_legacy.then(|| legacy.state(table).0.to_owned());
        Ok(Self { exists, has_legacy, layout, store })
    }
}

/// The error for a table that must exist.
pub(super) fn missing(table: &str) -> StartError {
    StartError::TableUnusable { table: table.to_owned(), problem: TableProblem::Missing }
}
