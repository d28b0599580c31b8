//! The lock of a fleet's leader where it has a table of its own.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::Client;

use crate::lease::error::{CallErrorKind, classify};
use crate::lease::item::{LEADER, TableItem, attribute as name, decode, text};
use crate::lease::store::LeaderLock;

/// Reads it, and remembers it: leases are safe without, so no look at them depends on that table.
#[derive(Debug, Clone, Default)]
pub(super) struct LegacyLeader(Arc<Mutex<Last>>);

#[derive(Debug, Default)]
struct Last {
    lock: Option<LeaderLock>,
    failed: bool,
}

impl LegacyLeader {
    /// The lock as it is, or, where that cannot be read, as it was: nobody sees it renewed, so it ends
    /// by itself.
    pub(super) async fn read(
        &self,
        client: &Client,
        table: &str,
        consistent: bool,
    ) -> Option<LeaderLock> {
        let answer = client
            .get_item()
            .table_name(table)
            .key(name::LEGACY_STATE_KEY, text(LEADER))
            .consistent_read(consistent)
            .send()
            .await
            .map_err(|error| classify("GetItem (leader)", &error));
        // Each change is one assignment.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed_before = std::mem::replace(&mut last.failed, answer.is_err());
        match answer {
            Ok(output) => {
                last.lock = match output.item.map(decode) {
                    Some(Ok(TableItem::Leader(lock))) => Some(lock),
                    _ => None,
                };
            }
            Err(error) if error.kind == CallErrorKind::NotFound => last.lock = None,
            Err(error) if !failed_before => {
                tracing::warn!(%error, table, "the leader's lock cannot be read; leases are safe without");
            }
            Err(_) => {}
        }
        last.lock.clone()
    }
}
