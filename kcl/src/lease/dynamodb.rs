//! The lease table in DynamoDB: the operations of the Java library as condition and update
//! expressions.

mod leader;
mod legacy_leader;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure,
};
use futures::FutureExt as _;

use self::legacy_leader::LegacyLeader;
use super::error::{CallErrorKind, LeaseStoreError, classify};
use super::expression::{Expression, UpdateParts};
use super::item::{self, ENTITY_WORKER, Item, TableItem, attribute as name, decode, number, text};
use super::model::Lease;
use super::readback::{Intent, conclude};
use super::store::{LeaderLock, LeaseStore, Outcome, Progress, ShardFacts, Snapshot, StoreFuture};
use super::table::{INDEX, Layout};
use super::table_check::is_whole;

/// A scan of a large table is spread over at most this many segments.
const MAX_SEGMENTS: u32 = 10;

/// The lease table of one application.
#[derive(Debug, Clone)]
pub(crate) struct DynamoDbLeaseStore {
    client: Client,
    table: String,
    layout: Layout,
    process: u64,
    /// Pages of the last scan.
    pages: Arc<AtomicU32>,
    leader: LegacyLeader,
    /// The table of older workers in which the leader's lock may be, beside the one-table layout.
    leader_table: Option<String>,
}

impl DynamoDbLeaseStore {
    /// `client`: as [`client::for_leases`](super::client::for_leases) makes it. `process`: what tells
    /// this one from others, of the same worker id too.
    pub(crate) fn new(client: Client, table: String, layout: Layout, process: u64) -> Self {
        Self {
            client,
            table,
            layout,
            process,
            pages: Arc::new(AtomicU32::new(1)),
            leader: LegacyLeader::default(),
            leader_table: None,
        }
    }

    /// Looks for the leader's lock in `table` too. Java workers that move to one table keep the lock in
    /// their old one until the move is complete.
    pub(crate) fn with_leader_table(mut self, table: String) -> Self {
        self.leader_table = Some(table);
        self
    }

    /// One conditional update; whatever answer got lost is read back.
    async fn update(
        &self,
        operation: &'static str,
        before: &Lease,
        parts: UpdateParts,
        intent: Option<Intent<'_>>,
    ) -> Result<Outcome, LeaseStoreError> {
        let (update, condition, values) = parts.into_parts();
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(name::KEY, text(&before.key))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_values((!values.is_empty()).then_some(values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .send()
            .await;
        let error = match answer {
            Ok(output) => {
                let item = output.attributes.unwrap_or_default();
                return Ok(Outcome::Applied(as_lease(&before.key, item)?));
            }
            Err(error) => error,
        };
        let refused = match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                Some(failed.item.clone())
            }
            _ => None,
        };
        let failure = classify(operation, &error).into();
        self.settle(before, intent, refused, failure).await
    }

    /// Decides what a write did whose answer was not a plain success. `refused`: the condition
    /// failed, with the item if the service returned it.
    async fn settle(
        &self,
        before: &Lease,
        intent: Option<Intent<'_>>,
        refused: Option<Option<Item>>,
        failure: LeaseStoreError,
    ) -> Result<Outcome, LeaseStoreError> {
        let seen = match &refused {
            Some(Some(item)) if !item.is_empty() => Some(as_lease(&before.key, item.clone())?),
            Some(_) => self.get(&before.key).await?,
            None if failure.is_ambiguous() && intent.is_some() => {
                // The first error says more than one of the read.
                self.get(&before.key).await.map_err(|_| failure.clone())?
            }
            None => return Err(failure),
        };
        conclude(intent, self.process, before, seen, refused.is_some(), failure)
    }

    async fn create_lease(&self, lease: &Lease) -> Result<Outcome, LeaseStoreError> {
        let condition = format!("attribute_not_exists({})", name::KEY);
        self.put_lease(lease, condition, HashMap::new()).await
    }

    async fn replace_lease(&self, former: &Lease, new: &Lease) -> Result<Outcome, LeaseStoreError> {
        let mut parts = Expression::new();
        parts.counter_is(former).owners_are(former);
        let (_, condition, values) = parts.build().into_parts();
        let new = new.in_place_of(former, self.process);
        self.put_lease(&new, condition, values).await
    }

    /// Writes a whole item. An answer that is lost is not read back: the caller looks again.
    async fn put_lease(
        &self,
        lease: &Lease,
        condition: String,
        values: HashMap<String, AttributeValue>,
    ) -> Result<Outcome, LeaseStoreError> {
        let answer = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item::encode(lease)))
            .condition_expression(condition)
            .set_expression_attribute_values((!values.is_empty()).then_some(values))
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(Outcome::Applied(lease.clone())),
            Err(error) => {
                let refused = match error.as_service_error() {
                    Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                        Some(failed.item.clone())
                    }
                    _ => None,
                };
                let failure = classify("PutItem", &error).into();
                self.settle(lease, None, refused, failure).await
            }
        }
    }

    async fn delete_lease(&self, lease: &Lease) -> Result<Outcome, LeaseStoreError> {
        let answer = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(name::KEY, text(&lease.key))
            .condition_expression(format!("{} = :checkpoint", name::CHECKPOINT))
            .expression_attribute_values(":checkpoint", text(lease.checkpoint.as_str()))
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(Outcome::Applied(lease.clone())),
            Err(error) => {
                let refused = match error.as_service_error() {
                    Some(DeleteItemError::ConditionalCheckFailedException(failed)) => {
                        Some(failed.item.clone())
                    }
                    _ => None,
                };
                let failure = classify("DeleteItem", &error).into();
                self.settle(lease, None, refused, failure).await
            }
        }
    }

    async fn get_lease(&self, key: &str) -> Result<Option<Lease>, LeaseStoreError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(name::KEY, text(key))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| classify("GetItem", &error))?;
        output.item.map(|item| as_lease(key, item)).transpose()
    }

    /// Reads every item of the lease table: at once, in as many segments as it had pages the last time.
    async fn scan(&self, consistent: bool) -> Result<Snapshot, LeaseStoreError> {
        let segments = self.pages.load(Ordering::Relaxed).clamp(1, MAX_SEGMENTS);
        let parts =
            (0..segments).map(|part| self.scan_part(&self.table, consistent, part, segments));
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

    /// Reads one segment; answers with its pages too.
    async fn scan_part(
        &self,
        table: &str,
        consistent: bool,
        segment: u32,
        segments: u32,
    ) -> Result<(u32, Snapshot), LeaseStoreError> {
        let mut snapshot = Snapshot::default();
        let mut start: Option<Item> = None;
        let mut pages = 0;
        loop {
            let mut scan = self.client.scan().table_name(table);
            if segments > 1 {
                scan = scan.segment(segment.cast_signed()).total_segments(segments.cast_signed());
            }
            let page = scan
                .consistent_read(consistent)
                .set_exclusive_start_key(start.take())
                .send()
                .await
                .map_err(|error| classify("Scan", &error))?;
            pages += 1;
            for item in page.items.unwrap_or_default() {
                match decode(item) {
                    Ok(TableItem::Lease(lease)) => snapshot.leases.push(*lease),
                    Ok(TableItem::Worker(row)) => snapshot.workers.push(row),
                    Ok(TableItem::Leader(lock)) => snapshot.leader = Some(lock),
                    Ok(TableItem::Other) => {}
                    Err(corrupt) => snapshot.corrupt.push(corrupt),
                }
            }
            start = page.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                return Ok((pages, snapshot));
            }
        }
    }

    async fn query_owned(&self, owner: &str) -> Result<Vec<String>, LeaseStoreError> {
        let (mut keys, mut start) = (Vec::new(), None::<Item>);
        loop {
            let page = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(INDEX)
                .key_condition_expression(format!("{} = :owner", name::OWNER))
                .expression_attribute_values(":owner", text(owner))
                .set_exclusive_start_key(start.take())
                .send()
                .await
                .map_err(|error| classify("Query", &error))?;
            for mut item in page.items.unwrap_or_default() {
                if let Some(AttributeValue::S(key)) = item.remove(name::KEY) {
                    keys.push(key);
                }
            }
            start = page.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                return Ok(keys);
            }
        }
    }
}

impl LeaseStore for DynamoDbLeaseStore {
    fn exists(&self) -> StoreFuture<'_, bool> {
        async {
            let described = self.client.describe_table().table_name(&self.table);
            let found = match described.send().await {
                Ok(output) => output.table,
                Err(error) => match classify("DescribeTable", &error) {
                    error if error.kind == CallErrorKind::NotFound => None,
                    error => return Err(error.into()),
                },
            };
            Ok(found.is_some_and(|table| is_whole(&table)))
        }
        .boxed()
    }

    fn create<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome> {
        self.create_lease(lease).boxed()
    }

    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        owner: &'a str,
        throughput: Option<f64>,
    ) -> StoreFuture<'a, Outcome> {
        let mut parts = Expression::new();
        parts.counter_is(lease).processed_by(owner, lease.is_handoff_pending());
        parts.next_counter(lease, self.process);
        if let Some(value) = throughput {
            parts.put(name::THROUGHPUT, item::throughput(value));
        }
        self.update("UpdateItem (renew)", lease, parts.build(), Some(Intent::Renew { owner }))
            .boxed()
    }

    fn checkpoint<'a>(
        &'a self,
        lease: &'a Lease,
        owner: &'a str,
        progress: &'a Progress,
    ) -> StoreFuture<'a, Outcome> {
        let mut parts = Expression::new();
        parts.counter_is(lease).processed_by_even_in_handoff(owner);
        parts.next_counter(lease, self.process).progress(progress);
        let intent = Intent::Checkpoint { owner, progress };
        self.update("UpdateItem (checkpoint)", lease, parts.build(), Some(intent)).boxed()
    }

    fn take<'a>(&'a self, lease: &'a Lease, owner: &'a str) -> StoreFuture<'a, Outcome> {
        let mut parts = Expression::new();
        parts.counter_is(lease).owners_are(lease);
        parts
            .next_counter(lease, self.process)
            .owner(lease.actual_owner(), owner)
            .remove(name::CHECKPOINT_OWNER);
        self.update("UpdateItem (take)", lease, parts.build(), Some(Intent::Take { owner })).boxed()
    }

    fn assign<'a>(
        &'a self,
        lease: &'a Lease,
        to: &'a str,
        released: bool,
    ) -> StoreFuture<'a, Outcome> {
        let mut parts = Expression::new();
        parts.exists().owners_are(lease);
        if released {
            parts.counter_is(lease);
            parts.put(name::RELEASED_AT, number(lease.counter.wrapping_add(1)));
        }
        parts.add_to_counter().owner(lease.owner.as_deref(), to).remove(name::CHECKPOINT_OWNER);
        let intent = Intent::Assign { to, released };
        self.update("UpdateItem (assign)", lease, parts.build(), Some(intent)).boxed()
    }

    fn start_handoff<'a>(&'a self, lease: &'a Lease, to: &'a str) -> StoreFuture<'a, Outcome> {
        let mut parts = Expression::new();
        parts.exists().owners_are(&Lease { checkpoint_owner: None, ..lease.clone() });
        parts.put(name::OWNER, text(to));
        match &lease.owner {
            Some(owner) => parts.put(name::CHECKPOINT_OWNER, text(owner)),
            None => parts.remove(name::CHECKPOINT_OWNER),
        };
        let intent = Intent::StartHandoff { to };
        self.update("UpdateItem (start handoff)", lease, parts.build(), Some(intent)).boxed()
    }

    fn evict<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome> {
        let mut parts = Expression::new();
        parts.counter_is(lease).owners_are(lease);
        parts.add_to_counter().remove(name::CHECKPOINT_OWNER);
        if !lease.is_handoff_pending() {
            parts.remove(name::OWNER);
        }
        self.update("UpdateItem (evict)", lease, parts.build(), Some(Intent::Evict)).boxed()
    }

    fn replace<'a>(&'a self, former: &'a Lease, new: &'a Lease) -> StoreFuture<'a, Outcome> {
        self.replace_lease(former, new).boxed()
    }

    fn set_shard_facts<'a>(&'a self, key: &'a str, facts: ShardFacts) -> StoreFuture<'a, Outcome> {
        async move {
            let mut parts = Expression::new();
            parts.exists();
            match facts {
                ShardFacts::Children(children) => match item::set(&children) {
                    Some(set) => parts.put(name::CHILDREN, set),
                    None => parts.remove(name::CHILDREN),
                },
                ShardFacts::HashKeyRange(range) => parts
                    .put(name::START, text(range.start().to_string()))
                    .put(name::END, text(range.end().to_string())),
                ShardFacts::ReadTo(time) => {
                    parts.put(name::READ_TO, number(item::epoch_millis(time)))
                }
                ShardFacts::Stream(identity) => {
                    parts.lacks(name::STREAM).put(name::STREAM, text(identity.to_string()))
                }
            };
            // Only the key matters: the condition names nothing else.
            let lease = Lease::new(key, crate::checkpoint::Checkpoint::TrimHorizon);
            self.update("UpdateItem (shard facts)", &lease, parts.build(), None).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome> {
        self.delete_lease(lease).boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Lease>> {
        self.get_lease(key).boxed()
    }

    fn list(&self, consistent: bool) -> StoreFuture<'_, Snapshot> {
        async move {
            let mut snapshot = self.scan(consistent).await?;
            let state = match &self.layout {
                Layout::Legacy { state, .. } => Some(state),
                // The lock of the lease table, if there is one, is the newer.
                Layout::OneTable => self.leader_table.as_ref(),
            };
            if let (Some(state), None) = (state, &snapshot.leader) {
                snapshot.leader = self.leader.read(&self.client, state, consistent).await;
            }
            if let Layout::Legacy { workers, .. } = &self.layout {
                let (_, rows) = self.scan_part(workers, consistent, 0, 1).await?;
                snapshot.workers.extend(rows.workers);
                snapshot.corrupt.extend(rows.corrupt);
            }
            Ok(snapshot)
        }
        .boxed()
    }

    fn leader(&self) -> StoreFuture<'_, Option<LeaderLock>> {
        self.get_leader().boxed()
    }

    fn change_leader<'a>(
        &'a self,
        known: Option<&'a LeaderLock>,
        next: Option<&'a LeaderLock>,
    ) -> StoreFuture<'a, bool> {
        self.swap_leader(known, next).boxed()
    }

    fn owned_by<'a>(&'a self, owner: &'a str) -> StoreFuture<'a, Vec<String>> {
        self.query_owned(owner).boxed()
    }

    fn put_worker<'a>(&'a self, worker: &'a str, epoch_seconds: u64) -> StoreFuture<'a, ()> {
        async move {
            let empty = || AttributeValue::M(HashMap::new());
            let mut update =
                format!("SET opr = :opr, sts = :sts, lut = :lut, {} = :process", name::PROCESS);
            let mut request = self
                .client
                .update_item()
                .table_name(self.layout.workers(&self.table))
                .key(self.layout.worker_key(), text(worker))
                .expression_attribute_values(":opr", empty())
                .expression_attribute_values(":sts", empty())
                .expression_attribute_values(":lut", number(epoch_seconds))
                .expression_attribute_values(":process", item::process_text(self.process));
            if matches!(self.layout, Layout::OneTable) {
                // `sup` 1: this worker works with one table. In older layouts it cannot follow a
                // migration to it yet, and does not claim to.
                update.push_str(", entityType = :entity, sup = :sup, slu = :lut");
                request = request
                    .expression_attribute_values(":entity", text(ENTITY_WORKER))
                    .expression_attribute_values(":sup", number(1));
            }
            let answer = request.update_expression(update).send().await;
            answer.map_err(|error| classify("UpdateItem (worker row)", &error))?;
            Ok(())
        }
        .boxed()
    }

    fn delete_worker<'a>(
        &'a self,
        worker: &'a str,
        written: RangeInclusive<u64>,
    ) -> StoreFuture<'a, ()> {
        async move {
            let answer = self
                .client
                .delete_item()
                .table_name(self.layout.workers(&self.table))
                .key(self.layout.worker_key(), text(worker))
                .condition_expression("attribute_exists(lut) AND lut BETWEEN :first AND :last")
                .expression_attribute_values(":first", number(*written.start()))
                .expression_attribute_values(":last", number(*written.end()))
                .send()
                .await;
            match answer {
                Ok(_) => Ok(()),
                Err(error) => match error.as_service_error() {
                    // Gone already, or a later process's.
                    Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(()),
                    _ => Err(classify("DeleteItem (worker row)", &error).into()),
                },
            }
        }
        .boxed()
    }
}

fn as_lease(key: &str, item: Item) -> Result<Lease, LeaseStoreError> {
    match decode(item)? {
        TableItem::Lease(lease) => Ok(*lease),
        TableItem::Worker(_) | TableItem::Leader(_) | TableItem::Other => Err(item::CorruptItem {
            key: key.to_owned(),
            attribute: name::ENTITY_TYPE,
            problem: "says that this is not a lease",
        }
        .into()),
    }
}

#[cfg(test)]
mod tests;
