//! Reads of the lease table.

use std::sync::atomic::Ordering;

use aws_sdk_dynamodb::Client;

use super::DynamoDbLeaseStore;
use crate::lease::error::{CallError, LeaseStoreError, classify};
use crate::lease::item::{Item, TableItem, attribute as name, decode, text};
use crate::lease::store::Snapshot;
use crate::lease::table::{INDEX, Layout};

/// Largest number of segments that a scan of a large table is spread over.
const MAX_SEGMENTS: u32 = 10;

/// Reads the item of this key from a table, which is given with its hash key. `operation`: for the error.
pub(crate) async fn get_item(
    client: &Client,
    (table, hash_key): (&str, &str),
    key: &str,
    consistent: bool,
    operation: &'static str,
) -> Result<Option<Item>, CallError> {
    let get = client.get_item().table_name(table).key(hash_key, text(key));
    let output = get.consistent_read(consistent).send().await;
    Ok(output.map_err(|error| classify(operation, &error))?.item)
}

impl DynamoDbLeaseStore {
    /// Reads every item of the lease table, and of the tables beside it.
    pub(super) async fn scan(&self, consistent: bool) -> Result<Snapshot, LeaseStoreError> {
        let mut snapshot = self.scan_leases(consistent).await?;
        let state = match &self.layout {
            Layout::Legacy { state, .. } => Some(state),
            // A lock in the lease table is newer than one in the older table.
            Layout::OneTable => self.leader_table.as_ref(),
        };
        if let (Some(state), None) = (state, &snapshot.leader) {
            snapshot.leader = self.leader.read(&self.client, state, consistent).await;
        }
        if let Layout::Legacy { workers, .. } = &self.layout {
            let (_, rows) = self.scan_segment(workers, consistent, 0, 1).await?;
            snapshot.workers.extend(rows.workers);
            snapshot.corrupt.extend(rows.corrupt);
        }
        Ok(snapshot)
    }

    /// Reads the lease table in as many concurrent segments as it had pages the last time.
    async fn scan_leases(&self, consistent: bool) -> Result<Snapshot, LeaseStoreError> {
        let segments = self.pages.load(Ordering::Relaxed).clamp(1, MAX_SEGMENTS);
        let parts = (0..segments)
            .map(|segment| self.scan_segment(&self.table, consistent, segment, segments));
        let mut whole = Snapshot::default();
        let mut pages = 0;
        for (read, part) in futures::future::try_join_all(parts).await? {
            pages += read;
            whole.leases.extend(part.leases);
            whole.workers.extend(part.workers);
            whole.leader = whole.leader.or(part.leader);
            whole.corrupt.extend(part.corrupt);
        }
        self.pages.store(pages, Ordering::Relaxed);
        Ok(whole)
    }

    /// Reads one segment. Also returns the number of its pages.
    async fn scan_segment(
        &self,
        table: &str,
        consistent: bool,
        segment: u32,
        segments: u32,
    ) -> Result<(u32, Snapshot), LeaseStoreError> {
        let mut snapshot = Snapshot::default();
        let mut scan = self.client.scan().table_name(table).consistent_read(consistent);
        if segments > 1 {
            scan = scan.segment(segment.cast_signed()).total_segments(segments.cast_signed());
        }
        let mut found = scan.into_paginator().send();
        let mut pages = 0;
        while let Some(page) = found.next().await {
            pages += 1;
            let page = page.map_err(|error| classify("Scan", &error))?;
            for item in page.items.unwrap_or_default() {
                match decode(item) {
                    Ok(TableItem::Lease(lease)) => snapshot.leases.push(*lease),
                    Ok(TableItem::Worker(row)) => snapshot.workers.push(row),
                    Ok(TableItem::Leader(lock)) => snapshot.leader = Some(lock),
                    Ok(TableItem::Other) => {}
                    Err(corrupt) => snapshot.corrupt.push(corrupt),
                }
            }
        }
        Ok((pages, snapshot))
    }

    pub(super) async fn query_owned(&self, owner: &str) -> Result<Vec<String>, LeaseStoreError> {
        let query = self.client.query().table_name(&self.table).index_name(INDEX);
        let query = query
            .key_condition_expression(format!("{} = :owner", name::OWNER))
            .expression_attribute_values(":owner", text(owner));
        let items = query.into_paginator().items().send().try_collect().await;
        let items = items.map_err(|error| classify("Query", &error))?;
        let key = |mut item: Item| item.remove(name::KEY)?.as_s().ok().cloned();
        Ok(items.into_iter().filter_map(key).collect())
    }
}
