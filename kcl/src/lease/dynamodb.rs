//! The lease table in DynamoDB: each conditional write as a request with the condition and the update of the
//! Java library. The reads, and the items that are no leases, are in the child modules.

mod expression;
mod reads;
mod rows;

use std::error::Error;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure};
use futures::FutureExt as _;

use self::expression::Expression;
pub(crate) use self::reads::get_item;
use self::rows::LegacyLeader;
use super::error::{LeaseStoreError, classify};
use super::item::{
    self, CorruptItem, Item, LEADER, TableItem, attribute as name, decode, number, text,
};
use super::model::{Lease, PendingCheckpoint, Stamp};
use super::readback::read_back;
use super::store::{
    LeaderLock, LeaseStore, LeaseWrite, Outcome, OwnerReport, ShardFacts, Snapshot, StoreFuture,
};
use super::table::{Layout, describe};
use super::table_check::is_whole;
use crate::checkpoint::Checkpoint;
use crate::clock::Clock;
use crate::metrics::{Meter, Metric};

/// The lease table of one application.
#[derive(Debug)]
pub(crate) struct DynamoDbLeaseStore {
    client: Client,
    table: String,
    layout: Layout,
    process: u64,
    /// Pages of the last scan.
    pages: AtomicU32,
    leader: LegacyLeader,
    /// The table of older workers that may hold the leader's lock while the application has one table. Java workers that
    /// move to one table keep the lock in their old one until the move is complete.
    pub(crate) leader_table: Option<String>,
    /// Measures the calls that have a metric.
    pub(crate) meter: Option<(Meter, Arc<dyn Clock>)>,
}

impl DynamoDbLeaseStore {
    /// `client`: made by [`for_leases`](super::for_leases). `process`: a number that tells this process from
    /// others, also from those with the same worker id.
    pub(crate) fn new(client: Client, table: String, layout: Layout, process: u64) -> Self {
        Self {
            client,
            table,
            layout,
            process,
            pages: AtomicU32::new(1),
            leader: LegacyLeader::default(),
            leader_table: None,
            meter: None,
        }
    }

    async fn measure<T>(
        &self,
        metrics: (Metric, Metric),
        shard: Option<&str>,
        call: impl Future<Output = Result<T, LeaseStoreError>>,
    ) -> Result<T, LeaseStoreError> {
        let Some((meter, clock)) = &self.meter else {
            return call.await;
        };
        let timer = meter.timer(&**clock);
        let result = call.await;
        timer.done(metrics, shard, result.is_ok());
        result
    }

    /// Writes, and reads the item back if the answer does not tell whether the write was done.
    async fn write_lease(
        &self,
        known: &Lease,
        write: &LeaseWrite,
    ) -> Result<Outcome, LeaseStoreError> {
        let answer = self.send(known, write).await;
        read_back(self, self.process, known, write, answer).await
    }

    /// Sends the request of a write.
    async fn send(&self, known: &Lease, write: &LeaseWrite) -> Result<Outcome, LeaseStoreError> {
        let (condition, update, values) = expression(write, known, self.process).build();
        let operation = write.operation();
        let refused = match write {
            LeaseWrite::Create | LeaseWrite::Replace { .. } => {
                let new = match write {
                    LeaseWrite::Replace { new } => new.in_place_of(known, self.process),
                    _ => known.clone(),
                };
                let put = self.client.put_item().table_name(&self.table);
                let put = put
                    .set_item(Some(item::encode(&new)))
                    .condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(OnFailure::AllOld);
                match put.send().await {
                    Ok(_) => return Ok(Outcome::Applied(new)),
                    Err(error) => refused(operation, error),
                }
            }
            LeaseWrite::Delete => {
                let delete = self.client.delete_item().table_name(&self.table);
                let delete = delete
                    .key(name::KEY, text(&known.key))
                    .condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(OnFailure::AllOld);
                match delete.send().await {
                    Ok(_) => return Ok(Outcome::Applied(known.clone())),
                    Err(error) => refused(operation, error),
                }
            }
            _ => {
                let request = self.client.update_item().table_name(&self.table);
                let request = request
                    .key(name::KEY, text(&known.key))
                    .update_expression(update)
                    .condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .return_values(ReturnValue::AllNew)
                    .return_values_on_condition_check_failure(OnFailure::AllOld);
                match request.send().await {
                    Ok(output) => {
                        let item = output.attributes.unwrap_or_default();
                        return Ok(Outcome::Applied(as_lease(&known.key, item)?));
                    }
                    Err(error) => refused(operation, error),
                }
            }
        };
        let item = refused?.filter(|item| !item.is_empty());
        let found = item.map(|item| as_lease(&known.key, item)).transpose()?;
        Ok(Outcome::ConditionFailed(found))
    }
}

/// The item of a request whose condition did not hold, if the service returned it. Any other error is the failure
/// of the call.
fn refused<E>(
    operation: &'static str,
    error: SdkError<E, HttpResponse>,
) -> Result<Option<Item>, LeaseStoreError>
where
    E: ProvideErrorMetadata + Error + Into<aws_sdk_dynamodb::Error> + 'static,
{
    let failure = classify(operation, &error);
    match error {
        SdkError::ServiceError(error) => match error.into_err().into() {
            aws_sdk_dynamodb::Error::ConditionalCheckFailedException(refused) => Ok(refused.item),
            _ => Err(failure.into()),
        },
        _ => Err(failure.into()),
    }
}

fn as_lease(key: &str, item: Item) -> Result<Lease, LeaseStoreError> {
    match decode(item)? {
        TableItem::Lease(lease) => Ok(*lease),
        TableItem::Worker(_) | TableItem::Leader(_) | TableItem::Other => Err(CorruptItem {
            key: key.to_owned(),
            attribute: name::ENTITY_TYPE,
            problem: "says that this is not a lease",
        }
        .into()),
    }
}

impl LeaseStore for DynamoDbLeaseStore {
    fn write<'a>(&'a self, known: &'a Lease, write: LeaseWrite) -> StoreFuture<'a, Outcome> {
        async move {
            let call = self.write_lease(known, &write);
            let (metrics, shard) = match &write {
                LeaseWrite::Renew { .. } => {
                    ((Metric::RenewLeaseSuccess, Metric::RenewLeaseTime), None)
                }
                LeaseWrite::Checkpoint { .. } | LeaseWrite::Move { .. } => {
                    ((Metric::UpdateLeaseSuccess, Metric::UpdateLeaseTime), Some(&*known.key))
                }
                LeaseWrite::Take { .. } => {
                    ((Metric::TakeLeaseSuccess, Metric::TakeLeaseTime), None)
                }
                _ => return call.await,
            };
            self.measure(metrics, shard, call).await
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Lease>> {
        async move {
            let table = (&*self.table, name::KEY);
            let item = get_item(&self.client, table, key, true, "GetItem").await?;
            item.map(|item| as_lease(key, item)).transpose()
        }
        .boxed()
    }

    fn list(&self, consistent: bool) -> StoreFuture<'_, Snapshot> {
        let metrics = (Metric::ListLeasesSuccess, Metric::ListLeasesTime);
        self.measure(metrics, None, self.scan(consistent)).boxed()
    }

    fn exists(&self) -> StoreFuture<'_, bool> {
        async {
            let table = describe(&self.client, &self.table).await?;
            Ok(table.is_some_and(|table| is_whole(&table)))
        }
        .boxed()
    }

    fn leader(&self) -> StoreFuture<'_, Option<LeaderLock>> {
        async {
            let table = self.layout.state(&self.table);
            let item = get_item(&self.client, table, LEADER, true, "GetItem (leader)").await?;
            Ok(item.and_then(|item| item::leader_lock(&item)))
        }
        .boxed()
    }

    fn change_leader<'a>(
        &'a self,
        known: Option<&'a LeaderLock>,
        next: Option<&'a LeaderLock>,
    ) -> StoreFuture<'a, bool> {
        self.swap_leader(known, next).boxed()
    }

    fn owned_by<'a>(&'a self, owner: &'a str) -> StoreFuture<'a, Vec<String>> {
        let metrics = (Metric::ListLeaseKeysForWorkerSuccess, Metric::ListLeaseKeysForWorkerTime);
        self.measure(metrics, None, self.query_owned(owner)).boxed()
    }

    fn put_worker<'a>(&'a self, worker: &'a str, epoch_seconds: u64) -> StoreFuture<'a, ()> {
        let metrics =
            (Metric::WorkerMetricStatsReporterSuccess, Metric::WorkerMetricStatsReporterTime);
        self.measure(metrics, None, self.put_worker_row(worker, epoch_seconds)).boxed()
    }

    fn delete_worker<'a>(
        &'a self,
        worker: &'a str,
        written: RangeInclusive<u64>,
    ) -> StoreFuture<'a, ()> {
        self.delete_worker_row(worker, written).boxed()
    }
}

/// The condition and the update of `write`, sent by `process`. There is no update for a write that puts or deletes
/// a whole item.
fn expression(write: &LeaseWrite, known: &Lease, process: u64) -> Expression {
    let mut parts = Expression::default();
    match write {
        LeaseWrite::Create => {
            parts.is_absent(name::KEY);
        }
        LeaseWrite::Renew { owner, report } => {
            counter_is(&mut parts, known);
            if known.is_handoff_pending() {
                parts.equals(name::CHECKPOINT_OWNER, text(owner));
            } else {
                parts.equals(name::OWNER, text(owner)).is_absent(name::CHECKPOINT_OWNER);
            }
            next_counter(&mut parts, known, process);
            set_report(&mut parts, report);
        }
        LeaseWrite::Checkpoint { owner, checkpoint, pending, report } => {
            checkpoint_by(&mut parts, known, owner, checkpoint, process);
            set_report(&mut parts, report);
            if !checkpoint.is_initial() {
                parts.remove(name::RESUME_FROM);
            }
            let (pending, state) = match pending {
                Some(PendingCheckpoint { checkpoint, state }) => (Some(checkpoint), state.as_ref()),
                None => (None, None),
            };
            let sub = pending.map(|pending| number(pending.sub_sequence_number()));
            parts
                .put_or_remove(name::PENDING, pending.map(|pending| text(pending.as_str())))
                .put_or_remove(name::PENDING_SUB, sub)
                .put_or_remove(name::PENDING_STATE, state.map(item::binary));
        }
        LeaseWrite::Move { owner, checkpoint, resume_from } => {
            checkpoint_by(&mut parts, known, owner, checkpoint, process);
            let resume_from = resume_from.map(|time| number(item::epoch_millis(time)));
            parts.put_or_remove(name::RESUME_FROM, resume_from);
            // The stamp may have removed it already.
            if !known.was_owned_by_another_library() {
                parts.remove(name::READ_TO);
            }
            parts.remove(name::PENDING).remove(name::PENDING_SUB).remove(name::PENDING_STATE);
            if known.failing.is_some() {
                parts.remove(name::FAILING);
            }
        }
        LeaseWrite::Take { owner } => {
            counter_is(&mut parts, known);
            owners_are(&mut parts, known);
            next_counter(&mut parts, known, process);
            set_owner(&mut parts, known.actual_owner(), owner);
        }
        LeaseWrite::Assign { to, released } => {
            parts.exists(name::KEY);
            owners_are(&mut parts, known);
            if *released {
                counter_is(&mut parts, known);
                parts.put(name::RELEASED_AT, number(known.counter.wrapping_add(1)));
            }
            parts.add_one(name::COUNTER);
            set_owner(&mut parts, known.owner.as_deref(), to);
        }
        LeaseWrite::StartHandoff { to } => {
            parts.exists(name::KEY);
            is_or_lacks(&mut parts, name::OWNER, known.owner.as_ref());
            parts
                .is_absent(name::CHECKPOINT_OWNER)
                .put(name::OWNER, text(to))
                .put_or_remove(name::CHECKPOINT_OWNER, known.owner.as_ref().map(text));
        }
        LeaseWrite::Evict => {
            counter_is(&mut parts, known);
            owners_are(&mut parts, known);
            parts.add_one(name::COUNTER).remove(name::CHECKPOINT_OWNER);
            if !known.is_handoff_pending() {
                parts.remove(name::OWNER);
            }
        }
        LeaseWrite::Replace { .. } => {
            counter_is(&mut parts, known);
            owners_are(&mut parts, known);
        }
        LeaseWrite::SetFacts(facts) => {
            parts.exists(name::KEY);
            match facts {
                ShardFacts::Children(children) => {
                    parts.put_or_remove(name::CHILDREN, item::set(children))
                }
                ShardFacts::HashKeyRange(range) => parts
                    .put(name::START, text(range.start().to_string()))
                    .put(name::END, text(range.end().to_string())),
                ShardFacts::ReadTo(time) => {
                    parts.put(name::READ_TO, number(item::epoch_millis(*time)))
                }
                ShardFacts::Stream(identity) => {
                    parts.is_absent(name::STREAM).put(name::STREAM, text(identity.to_string()))
                }
            };
        }
        LeaseWrite::Delete => {
            parts.equals(name::CHECKPOINT, text(known.checkpoint.as_str()));
        }
    }
    parts
}

/// Writes a checkpoint, if the counter is as known and `owner` processes the shard.
fn checkpoint_by(
    parts: &mut Expression,
    known: &Lease,
    owner: &str,
    checkpoint: &Checkpoint,
    process: u64,
) {
    counter_is(parts, known);
    let me = parts.value(text(owner));
    parts.condition(format!(
        "({checkpoint_owner} = {me} OR ({owner} = {me} AND attribute_not_exists({checkpoint_owner})))",
        checkpoint_owner = name::CHECKPOINT_OWNER,
        owner = name::OWNER,
    ));
    next_counter(parts, known, process);
    parts
        .put(name::CHECKPOINT, text(checkpoint.as_str()))
        .put(name::CHECKPOINT_SUB, number(checkpoint.sub_sequence_number()))
        .put(name::OWNER_SWITCHES, number(0));
}

fn counter_is(parts: &mut Expression, known: &Lease) {
    parts.equals(name::COUNTER, number(known.counter));
}

fn owners_are(parts: &mut Expression, known: &Lease) {
    is_or_lacks(parts, name::OWNER, known.owner.as_ref());
    is_or_lacks(parts, name::CHECKPOINT_OWNER, known.checkpoint_owner.as_ref());
}

fn is_or_lacks(parts: &mut Expression, attribute: &'static str, known: Option<&String>) {
    match known {
        Some(known) => parts.equals(attribute, text(known)),
        None => parts.is_absent(attribute),
    };
}

/// Sets the counter to one more than is known, stamped by `process`.
fn next_counter(parts: &mut Expression, known: &Lease, process: u64) {
    let stamp = Stamp::after(known.counter, process);
    // With the new stamp, the item no longer shows that another library owned the lease.
    if known.was_owned_by_another_library() {
        parts.remove(name::READ_TO);
    }
    parts.put(name::COUNTER, number(stamp.counter)).put(name::STAMP, text(stamp.to_string()));
}

/// Makes `to` the one owner, and counts the switch if the previous owner `from` is another worker.
fn set_owner(parts: &mut Expression, from: Option<&str>, to: &str) {
    parts.put(name::OWNER, text(to)).remove(name::CHECKPOINT_OWNER);
    // As in Java: an unassigned lease has no owner to switch from.
    if from.is_some_and(|owner| owner != to) {
        parts.add_one(name::OWNER_SWITCHES);
    }
}

fn set_report(parts: &mut Expression, report: &OwnerReport) {
    let OwnerReport { throughput, failing } = report;
    if let Some(throughput) = throughput {
        parts.put(name::THROUGHPUT, item::throughput(*throughput));
    }
    if let Some(failing) = failing {
        parts.put(name::FAILING, text(failing.to_string()));
    }
}

#[cfg(test)]
mod tests;
