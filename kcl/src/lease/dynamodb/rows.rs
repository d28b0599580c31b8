//! Items that are no leases: the workers' rows, and the lock of the fleet's leader as the lock client for Java reads
//! and writes it.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use kinesis_common::sync::Mutex;

use super::{DynamoDbLeaseStore, get_item, refused};
use crate::lease::error::{CallError, LeaseStoreError, classify};
use crate::lease::item::{
    self, ENTITY_WORKER, LEADER, TableItem, attribute as name, decode, number, text,
};
use crate::lease::store::{LeaderLock, LeaseStore as _};
use crate::lease::table::Layout;

impl DynamoDbLeaseStore {
    pub(super) async fn swap_leader(
        &self,
        known: Option<&LeaderLock>,
        next: Option<&LeaderLock>,
    ) -> Result<bool, LeaseStoreError> {
        let (table, key) = self.layout.state(&self.table);
        let (condition, names, values) = match known {
            Some(lock) => (
                "#version = :known",
                HashMap::from([("#version".to_owned(), name::LOCK_VERSION.to_owned())]),
                Some(HashMap::from([(":known".to_owned(), text(&lock.version))])),
            ),
            // The lock client for Java may keep the item of a lock that it released.
            None => (
                "attribute_not_exists(#key) OR attribute_exists(#released)",
                HashMap::from([
                    ("#key".to_owned(), key.to_owned()),
                    ("#released".to_owned(), name::LOCK_RELEASED.to_owned()),
                ]),
                None,
            ),
        };
        let Some(lock) = next else {
            let delete = self.client.delete_item().table_name(table);
            let delete = delete
                .key(key, text(LEADER))
                .condition_expression(condition)
                .set_expression_attribute_names(Some(names))
                .set_expression_attribute_values(values);
            return match delete.send().await {
                Ok(_) => Ok(true),
                Err(error) => refused("DeleteItem (leader)", error).map(|_| false),
            };
        };
        let has_entity_type = matches!(self.layout, Layout::OneTable);
        let put = self.client.put_item().table_name(table);
        let put = put
            .set_item(Some(item::encode_leader_lock(lock, key, has_entity_type)))
            .condition_expression(condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(values);
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) => {
                refused("PutItem (leader)", error)?;
                // An earlier attempt of this call may have been done, and its answer lost.
                Ok(self.leader().await?.as_ref() == Some(lock))
            }
        }
    }

    pub(super) async fn put_worker_row(
        &self,
        worker: &str,
        epoch_seconds: u64,
    ) -> Result<(), LeaseStoreError> {
        let (table, key) = self.layout.workers(&self.table);
        let empty = || AttributeValue::M(HashMap::new());
        let mut update =
            format!("SET opr = :opr, sts = :sts, lut = :lut, {} = :process", name::PROCESS);
        let mut request = self
            .client
            .update_item()
            .table_name(table)
            .key(key, text(worker))
            .expression_attribute_values(":opr", empty())
            .expression_attribute_values(":sts", empty())
            .expression_attribute_values(":lut", number(epoch_seconds))
            .expression_attribute_values(":process", item::process_text(self.process));
        if matches!(self.layout, Layout::OneTable) {
            // `sup` 1: this worker works with one table. In older layouts it does not claim that, because it
            // cannot follow a migration to one table.
            update.push_str(", entityType = :entity, sup = :sup, slu = :lut");
            request = request
                .expression_attribute_values(":entity", text(ENTITY_WORKER))
                .expression_attribute_values(":sup", number(1));
        }
        let answer = request.update_expression(update).send().await;
        answer.map_err(|error| classify("UpdateItem (worker row)", &error))?;
        Ok(())
    }

    pub(super) async fn delete_worker_row(
        &self,
        worker: &str,
        written: RangeInclusive<u64>,
    ) -> Result<(), LeaseStoreError> {
        let (table, key) = self.layout.workers(&self.table);
        let delete = self
            .client
            .delete_item()
            .table_name(table)
            .key(key, text(worker))
            .condition_expression("attribute_exists(lut) AND lut BETWEEN :first AND :last")
            .expression_attribute_values(":first", number(*written.start()))
            .expression_attribute_values(":last", number(*written.end()));
        match delete.send().await {
            Ok(_) => Ok(()),
            // Refused: the row is gone, or a later process has written it.
            Err(error) => refused("DeleteItem (worker row)", error).map(drop),
        }
    }
}

/// The leader's lock in a table of its own. Leases are safe without a leader, so a scan of them does not fail if that
/// table cannot be read.
#[derive(Debug, Default)]
pub(super) struct LegacyLeader(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    lock: Option<LeaderLock>,
    failed: bool,
}

impl LegacyLeader {
    /// Reads the lock. Returns the lock that was read last if it cannot be read now. As no worker sees that one
    /// renewed, it expires.
    pub(super) async fn read(
        &self,
        client: &Client,
        table: &str,
        consistent: bool,
    ) -> Option<LeaderLock> {
        let table = (table, name::LEGACY_STATE_KEY);
        let answer = get_item(client, table, LEADER, consistent, "GetItem (leader)").await;
        let answer = answer.or_else(CallError::unless_not_found);
        let mut last = self.0.lock();
        let failed_before = std::mem::replace(&mut last.failed, answer.is_err());
        match answer {
            Ok(item) => {
                last.lock = match item.map(decode) {
                    Some(Ok(TableItem::Leader(lock))) => Some(lock),
                    _ => None,
                };
            }
            Err(error) if !failed_before => {
                tracing::warn!(%error, table = table.0, "the lock of the leader cannot be read; leases are safe without it");
            }
            Err(_) => {}
        }
        last.lock.clone()
    }
}
