//! The handle of a producer.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_types::SdkConfig;
use tokio_util::task::TaskTracker;

use super::builder::ProducerBuilder;
use crate::ack::Delivery;
use crate::aggregate::builder::cost_of;
use crate::buffer::{AGGREGATE_OVERHEAD, Charge, LaneId, RECORD_OVERHEAD, Turn};
use crate::clock;
#[cfg(feature = "sink")]
use crate::error::DeliveryError;
use crate::error::{ReserveError, SendError, StopReason};
use crate::metrics::{HotSpots, Latencies};
use crate::producer::permit::Permit;
use crate::record::InvalidRecord;
use crate::record::{Priority, UserRecord};
use crate::shard::shared::{NotEntered, Shared};
use crate::stats::ProducerStats;

/// Sends records to one stream: aggregated, batched, retried.
///
/// A cheap handle: clone it and use it from any number of tasks. Call [`close`](Self::close) before the last one goes.
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// What all clones share; its drop is the drop of the last one.
struct Handle {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("buffered_bytes", &self.buffered_bytes())
            .field("is_closed", &self.handle.shared.is_closed())
            .finish_non_exhaustive()
    }
}

/// How a producer ended: what became of all records it ever accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CloseReport {
    /// Records acknowledged.
    pub delivered: u64,
    /// Records that failed, the dropped ones included.
    pub failed: u64,
    /// Records that were not settled by the deadline. Some of them may have been written.
    pub abandoned: u64,
}

impl Producer {
    /// Starts building a producer for a stream, by its name or ARN.
    ///
    /// `sdk_config` gives region, credentials and endpoint.
    pub fn builder(
        stream_name_or_arn: impl Into<String>,
        sdk_config: &SdkConfig,
    ) -> ProducerBuilder {
        ProducerBuilder::new(stream_name_or_arn.into(), sdk_config.into())
    }

    /// As [`builder`](Self::builder), for an application that has a client and no `SdkConfig`.
    ///
    /// Region, credentials, endpoint and HTTP client are those of `client`. Its retries and timeouts are not used: the
    /// producer has its own.
    ///
    /// ```
    /// # use kinesis_testkit::LocalAws;
    /// # use kpl::{Producer, UserRecord};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let aws = LocalAws::start().await?;
    /// # aws.create_stream("orders", 1).await?;
    /// let client = aws_sdk_kinesis::Client::new(&aws.sdk_config());
    /// let producer = Producer::builder_with_client("orders", &client).build().await?;
    /// producer.send(UserRecord::new("customer-7", "order")).await?.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder_with_client(
        stream_name_or_arn: impl Into<String>,
        client: &Client,
    ) -> ProducerBuilder {
        ProducerBuilder::new(stream_name_or_arn.into(), client.config().to_builder())
    }

    pub(crate) fn new(shared: Arc<Shared>, tasks: TaskTracker) -> Self {
        Self { handle: Arc::new(Handle { shared, tasks }) }
    }

    /// Accepts a record; the returned [`Delivery`] resolves when it is durable, or has failed.
    ///
    /// Waits only for room in the buffer, which is given in order of arrival within a shard: among calls that overlap, a
    /// later one may still enter first. A bad record is refused before that. Awaiting
    /// each `Delivery` before the next `send` puts one record into each aggregate: keep many under way.
    ///
    /// # Guarantees
    /// * **At least once** within [`record_ttl`](crate::ProducerConfig::record_ttl): throttles, internal failures, timeouts
    ///   and broken connections are retried with backoff until then. A record that is acknowledged is in the stream where
    ///   every consumer sees it: an aggregate counts as delivered only if all its members belong to the shard that took it.
    /// * **Duplicates** can follow a timeout, a broken connection, an internal failure of the service, or an aggregate that
    ///   a reshard sent to the wrong shard; [`Receipt::may_be_duplicate`](crate::Receipt::may_be_duplicate) says so.
    /// * **Order**, by default: records of one shard leave in the order of `send`. Retries, concurrent requests and resharding
    ///   may change it.
    /// * **Ordered mode** ([`RecordOrdering::PerPartitionKey`](crate::RecordOrdering::PerPartitionKey)): of two records of a
    ///   key, the one whose `send` returned before the other's began is delivered first, if both are acknowledged. A
    ///   key is what Kinesis hashes: the explicit hash key where there is one, else the partition key. It holds for first
    ///   deliveries, for a consumer that reads parents before children and drops aggregates as a KCL does, across
    ///   throttles, lost responses, timeouts and resharding. A duplicate may follow later records: an attempt that was
    ///   given up may still be written. So may a record that failed and says
    ///   [`may_have_been_written`](crate::DeliveryError::may_have_been_written).
    ///   What was accepted behind a record before its failure could be seen fails in the same instant, or goes
    ///   on: [`OnGap`](crate::OnGap). Should the stream become one that places records itself, the producer stops with
    ///   [`StopReason::OrderLost`].
    ///
    /// # Errors
    /// [`SendError`], with the record inside: it is invalid, too large, or the producer is closed.
    ///
    /// # Cancel safety
    /// Dropping the future before it resolves accepts nothing, gives up the place in the queue, and drops the record. Where
    /// that would lose it, in a `select!` for instance, [`reserve`](Self::reserve) first.
    pub async fn send(&self, record: UserRecord) -> Result<Delivery, SendError> {
        match self.offer(record)? {
            Offer::Taken(delivery) => Ok(delivery),
            Offer::NoRoom(record, lane) => match self.queue_up(lane, cost_of(&record).1).await {
                Some(charge) => self.send_paid(record, charge),
                None => Err(self.closed(record)),
            },
        }
    }

    /// Accepts a record if the buffer has room now; otherwise as [`send`](Self::send).
    ///
    /// # Errors
    /// [`SendError`], with the record inside; [`SendError::Full`] when there is no room, or others wait for it.
    pub fn try_send(&self, record: UserRecord) -> Result<Delivery, SendError> {
        match self.offer(record)? {
            Offer::Taken(delivery) => Ok(delivery),
            Offer::NoRoom(record, lane) => {
                self.handle.shared.budget.note_refusal(lane);
                let needed = cost_of(&record).1;
                let record = record.into();
                Err(SendError::Full { record, needed })
            }
        }
    }

    /// Waits for room for one record of up to `bytes` of key and data; the [`Permit`] then sends it without waiting.
    ///
    /// For `select!` loops: dropping this future loses no record, because the record comes after it. Reservations are served
    /// in the order of arrival. A reservation does not know its shard: it overtakes no [`send`](Self::send) of this producer
    /// that waits for room, and waits while the fullest shard, with all permits not yet used, holds more than twice what it
    /// would leave free. So a hot shard holds up reservations, and they in turn no `send` to another shard, unless more is
    /// reserved than [is free](crate::MemoryBudget).
    ///
    /// ```
    /// # use kinesis_testkit::LocalAws;
    /// # use kpl::{Producer, UserRecord};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let aws = LocalAws::start().await?;
    /// # aws.create_stream("orders", 1).await?;
    /// # let producer = Producer::builder("orders", &aws.sdk_config()).build().await?;
    /// # let (orders, mut incoming) = tokio::sync::mpsc::channel(1);
    /// # let (_stop, mut stopped) = tokio::sync::watch::channel(());
    /// # orders.send("order").await?;
    /// # drop(orders);
    /// loop {
    ///     let permit = tokio::select! {
    ///         permit = producer.reserve(1024) => permit?,
    ///         _ = stopped.changed() => break,
    ///     };
    ///     let Some(order) = incoming.recv().await else { break };
    ///     drop(permit.send(UserRecord::new("customer-7", order))?);
    /// }
    /// # assert_eq!(producer.close(std::time::Duration::from_secs(60)).await.delivered, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ReserveError`]: no record of that size could be sent, or the producer is closed.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue, and whatever room it was given.
    pub async fn reserve(&self, bytes: usize) -> Result<Permit, ReserveError> {
        let shared = &self.handle.shared;
        let limit = shared.max_record_size().min(shared.max_bufferable_record());
        if bytes > limit {
            return Err(ReserveError::TooLarge { limit, actual: bytes });
        }
        let cost = bytes + RECORD_OVERHEAD + AGGREGATE_OVERHEAD;
        let room = match shared.budget.try_charge(LaneId::RESERVED, cost) {
            Some(room) => Some(room),
            None => self.queue_up(LaneId::RESERVED, cost).await,
        };
        match room {
            Some(room) => Ok(Permit::new(self.clone(), bytes, room)),
            None => Err(ReserveError::Closed { reason: shared.stop_reason() }),
        }
    }

    /// Sends all open aggregates now, and waits until everything accepted before this call is settled.
    ///
    /// Later records are not waited for. What failed shows in each record's `Delivery`.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting only: what was sent off stays so.
    pub async fn flush(&self) {
        let shared = &self.handle.shared;
        let epoch = shared.settlement.epochs.end_current();
        shared.close_open_aggregates();
        shared.settlement.epochs.settled(epoch).await;
    }

    /// Takes no more records, waits up to `deadline` until all are settled, and ends the tasks.
    ///
    /// What is not settled by then is abandoned: its `Delivery` resolves to an error that holds the record. May be called
    /// on several clones; each call reports the same.
    ///
    /// # Cancel safety
    /// A dropped call leaves the producer closed to new records and still sending; call again to end it.
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        let shared = &self.handle.shared;
        shared.begin_close();
        let _ = tokio::time::timeout(deadline, self.flush()).await;
        shared.stop(StopReason::Closed);
        self.handle.tasks.wait().await;
        let stats = self.stats();
        CloseReport {
            delivered: stats.user_records_delivered,
            failed: stats.user_records_failed,
            abandoned: stats.user_records_abandoned,
        }
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> ProducerStats {
        self.handle.shared.settlement.counters.snapshot()
    }

    /// The bytes the buffer holds: data, keys and overhead of all records accepted and not settled. Never more than
    /// [`max_buffered_bytes`](crate::ProducerConfig::max_buffered_bytes), or than the
    /// [`MemoryBudget`](crate::MemoryBudget) where the producer has one.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.handle.shared.budget.used()
    }

    /// The most bytes the buffer ever held.
    #[must_use]
    pub fn peak_buffered_bytes(&self) -> usize {
        self.handle.shared.budget.peak()
    }

    /// How long the oldest record that is accepted and not settled waits already; `None` when there is none.
    ///
    /// Up to 100 ms too high: records are not noted one by one. A record that outlived others of its aggregate counts from
    /// the acceptance of the first of them. Where it nears
    /// [`record_ttl`](crate::ProducerConfig::record_ttl), records of some shard do not get through;
    /// [`hot_spots`](Self::hot_spots) may tell which. KPL: `getOldestRecordTimeInMillis`.
    #[must_use]
    pub fn oldest_unsettled(&self) -> Option<Duration> {
        let epochs = &self.handle.shared.settlement.epochs;
        epochs.oldest(clock::now())
    }

    /// How long things took since the producer was built: waiting in the buffer, requests, and the whole way.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        self.handle.shared.telemetry.latencies()
    }

    /// The bytes of payload in flight now. Never more than
    /// [`max_in_flight_bytes`](crate::ProducerConfig::max_in_flight_bytes), unless one request alone is larger.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.handle.shared.telemetry.in_flight_bytes()
    }

    /// Where the load is: each open shard's of the last 10 to 20 seconds, and the hottest partition keys of the last minutes.
    ///
    /// The keys are counted where [`hot_keys`](crate::ProducerConfig::hot_keys) is set. They are keys of your records: mind
    /// who may read the report.
    #[must_use]
    pub fn hot_spots(&self) -> HotSpots {
        let shared = &self.handle.shared;
        let now = clock::now();
        let mut shards: Vec<_> = shared
            .routing()
            .lanes()
            .filter_map(|lane| Some(lane.load.report(lane.shard_id.as_ref()?, now)))
            .collect();
        shards.sort_by(|a, b| b.utilisation.total_cmp(&a.utilisation));
        HotSpots { shards, keys: shared.telemetry.hot_keys() }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Takes the record if it is good and there is room.
    pub(crate) fn offer(&self, record: UserRecord) -> Result<Offer, SendError> {
        let shared = &self.handle.shared;
        if let Err(error) = self.check(&record) {
            return Err(error.with(record));
        }
        let hash_key = record.hash_key();
        match shared.enter(record, hash_key, None) {
            Ok(delivery) => Ok(Offer::Taken(delivery)),
            Err(NotEntered::Closed(record)) => Err(self.closed(record)),
            Err(NotEntered::NoRoom(record, _)) if record.priority == Priority::Droppable => {
                Ok(Offer::Taken(shared.give_way(record)))
            }
            Err(NotEntered::NoRoom(record, lane)) => Ok(Offer::NoRoom(record, lane.id)),
        }
    }

    /// A place in the queue for room, with the pipeline told.
    pub(crate) fn queue_up(&self, lane: LaneId, bytes: usize) -> Turn {
        let turn = self.handle.shared.budget.charge_in_turn(lane, bytes);
        self.handle.shared.wake.notify_one();
        turn
    }

    /// Takes a record that was checked, and whose room is there.
    pub(crate) fn send_paid(
        &self,
        record: UserRecord,
        room: Charge,
    ) -> Result<Delivery, SendError> {
        let hash_key = record.hash_key();
        match self.handle.shared.enter(record, hash_key, Some(room)) {
            Ok(delivery) => Ok(delivery),
            // Paid in advance: there is room.
            Err(NotEntered::Closed(record) | NotEntered::NoRoom(record, _)) => {
                Err(self.closed(record))
            }
        }
    }

    pub(crate) fn check(&self, record: &UserRecord) -> Result<(), Unacceptable> {
        let shared = &self.handle.shared;
        let is_service_placed = shared.is_service_placed();
        match record.validate(shared.max_record_size(), is_service_placed) {
            Ok(()) => {}
            Err(InvalidRecord::TooLarge { limit, actual }) => {
                return Err(Unacceptable::TooLarge { limit, actual });
            }
            Err(reason) => return Err(Unacceptable::Invalid(reason)),
        }
        if is_service_placed && record.is_wrapped_alone() {
            return Err(Unacceptable::Invalid(InvalidRecord::LooksAggregated));
        }
        let (limit, actual) = (shared.max_bufferable_record(), record.payload_len());
        if actual > limit {
            return Err(Unacceptable::TooLarge { limit, actual });
        }
        Ok(())
    }

    pub(crate) fn closed(&self, record: UserRecord) -> SendError {
        SendError::Closed { record: record.into(), reason: self.handle.shared.stop_reason() }
    }
}

#[cfg(feature = "sink")]
impl Producer {
    pub(crate) fn close_open_aggregates(&self) {
        self.handle.shared.close_open_aggregates();
    }

    /// Takes a record that may wait for room no longer, and fails it.
    pub(crate) fn give_way(&self, record: UserRecord) -> Delivery {
        self.handle.shared.give_way(record)
    }

    /// A failure that was taken out of its `Delivery`, and that nobody will be told.
    pub(crate) fn unobserved(&self, failure: &DeliveryError) {
        self.handle.shared.settlement.unobserved(failure);
    }
}

/// What became of a record that was offered.
pub(crate) enum Offer {
    Taken(Delivery),
    /// It may wait for room in this lane.
    NoRoom(UserRecord, LaneId),
}

/// A [`SendError`] before it has its record.
pub(crate) enum Unacceptable {
    TooLarge { limit: usize, actual: usize },
    Invalid(InvalidRecord),
}

impl Unacceptable {
    pub(crate) fn with(self, record: UserRecord) -> SendError {
        let record = record.into();
        match self {
            Self::TooLarge { limit, actual } => SendError::TooLarge { record, limit, actual },
            Self::Invalid(reason) => SendError::Invalid { record, reason },
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.shared.cancel.is_cancelled() {
            let left = self.shared.budget.used();
            tracing::warn!(
                unsettled_bytes = left,
                "a producer was dropped without `close`: what is not settled is abandoned"
            );
            self.shared.stop(StopReason::Dropped);
        }
    }
}
