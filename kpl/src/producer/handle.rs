//! The handle of a producer.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_types::SdkConfig;
use tokio_util::task::TaskTracker;

use super::builder::ProducerBuilder;
use crate::ack::Delivery;
use crate::aggregate::builder::cost_of;
use crate::buffer::{AGGREGATE_OVERHEAD, Charge, QueueId, RECORD_OVERHEAD, Turn};
use crate::clock;
use crate::context::Context;
use crate::error::{ReserveError, SendError, StopReason};
use crate::metrics::{HotSpots, Latencies};
use crate::producer::permit::Permit;
use crate::producer::send_all::SendAll;
use crate::record::{InvalidRecord, Priority, Record};
use crate::shard::queue::NotAccepted;
use crate::shard::router::ShardRouter;
use crate::stats::ProducerStats;

/// Handle of a producer, which sends records to one stream.
///
/// Cloning is cheap: all clones are handles of the same producer, and any number of tasks may use them. Call
/// [`close`](Self::close) before the last clone is dropped.
#[derive(Clone)]
pub struct Producer {
    pub(super) handle: Arc<Handle>,
}

/// State that all clones share. It is dropped with the last of them.
pub(super) struct Handle {
    pub(super) context: Arc<Context>,
    pub(super) shards: Arc<ShardRouter>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("buffered_bytes", &self.buffered_bytes())
            .field("is_closed", &self.handle.shards.is_closed())
            .finish_non_exhaustive()
    }
}

/// Outcome of all records that a producer accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CloseReport {
    /// Records acknowledged.
    pub delivered: u64,
    /// Records that failed, dropped ones included.
    pub failed: u64,
    /// Records without an outcome at the deadline. Some of them may have been written.
    pub abandoned: u64,
}

impl Producer {
    /// Starts building a producer for a stream, by its name or ARN.
    ///
    /// Region, credentials, endpoint and HTTP client are those of `sdk_config`.
    pub fn builder(
        stream_name_or_arn: impl Into<String>,
        sdk_config: &SdkConfig,
    ) -> ProducerBuilder {
        ProducerBuilder::new(stream_name_or_arn.into(), sdk_config.into())
    }

    /// Starts building a producer for a stream with the configuration of a client.
    ///
    /// Region, credentials, endpoint and HTTP client are those of `client`. Its retries and timeouts are not used: the
    /// producer has its own, and its own [encoding](crate::ProducerConfig::wire).
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

    pub(crate) fn new(context: Arc<Context>, shards: Arc<ShardRouter>, tasks: TaskTracker) -> Self {
        Self { handle: Arc::new(Handle { context, shards, tasks }) }
    }

    /// Accepts a record. The returned [`Delivery`] resolves when the record is durable in Kinesis, or has failed.
    ///
    /// `send` waits only for room in the buffer. Records of a shard get room in the order of arrival; among calls that
    /// overlap, a later one may enter first. An invalid record is refused before that.
    ///
    /// Key and data of the record may be borrowed: they are copied straight into the open aggregate; see
    /// [`Record`](crate::Record). For many records at a time, [`send_all`](Self::send_all) costs less.
    ///
    /// Keep many records in flight: a loop that awaits each `Delivery` before the next `send` puts one record into each
    /// aggregate.
    ///
    /// # Guarantees
    /// * **At least once** within [`record_ttl`](crate::ProducerConfig::record_ttl): throttles, internal failures,
    ///   timeouts and broken connections are retried with backoff until then. Every consumer sees an acknowledged
    ///   record: an aggregate is acknowledged only if all its members belong to the shard that took it.
    /// * **Duplicates** can follow a timeout, a broken connection, an internal failure of the service, or a reshard
    ///   that left an aggregate in the wrong shard. [`Receipt::may_be_duplicate`](crate::Receipt::may_be_duplicate)
    ///   tells.
    /// * **Order**, by default: records of one shard leave in the order of `send`. Retries, concurrent requests and
    ///   resharding may change it.
    /// * **Ordered mode** ([`RecordOrdering::PerPartitionKey`](crate::RecordOrdering::PerPartitionKey)): if `send` of a
    ///   record returned before `send` of another record of its key began, and both are acknowledged, consumers see the
    ///   first one first. A key is what Kinesis hashes: the explicit hash key if there is one, else the partition key.
    ///   This holds across throttles, lost responses, timeouts and resharding, for a consumer that reads parent shards
    ///   before their children and drops aggregates as a KCL does. It holds for the first delivery of each record. A
    ///   duplicate may follow later records, because an attempt that timed out may still be written; so may a failed
    ///   record that [may have been written](crate::DeliveryError::may_have_been_written). If a record fails, the
    ///   records of its key that were accepted after it fail in the same instant, or are sent: see
    ///   [`OnGap`](crate::OnGap). If the stream starts to place records itself, the producer stops with
    ///   [`StopReason::OrderLost`].
    ///
    /// # Errors
    /// [`SendError`], with the record inside: the record is invalid or too large, or the producer is closed.
    ///
    /// # Cancel safety
    /// A future that is dropped before it resolves has accepted nothing. It gives up its place in the queue, and the
    /// record is dropped. Call [`reserve`](Self::reserve) first where this would lose a record, for instance in
    /// `select!`.
    pub async fn send(&self, mut record: Record<'_>) -> Result<Delivery, SendError> {
        match self.accept(&mut record) {
            Ok(delivery) => Ok(delivery),
            Err(NotAccepted::NoRoom(queue_id)) => {
                match self.wait_for_room(queue_id, cost_of(&record).1).await {
                    Some(room) => self.send_paid(record, room),
                    None => Err(self.closed(record)),
                }
            }
            Err(not_accepted) => Err(self.send_error(record, not_accepted)),
        }
    }

    /// Accepts records in turn. Returns a future that resolves when all are in the buffer, to the
    /// [`Deliveries`](crate::Deliveries) of the batch.
    ///
    /// It does what [`send`](Self::send) of each record in turn does, at a lower cost: it hashes eight partition keys at a
    /// time, takes locks once for up to 64 records, and allocates nothing for a record that joins an aggregate. All
    /// guarantees of `send` hold, those about order included. Records may be borrowed, raw or droppable, and may have a time to live of their own.
    ///
    /// A batch may be larger than the buffer, and may come from an iterator without end, if its deliveries are
    /// [taken](SendAll::take_deliveries) now and then. It enters piece by piece. Where
    /// the buffer has no room for a record, the batch waits in turn with all other callers. [`SendAll`] says how to go on
    /// after a record that is not accepted, and how to stop half-way.
    ///
    /// ```
    /// use kinesis_testkit::LocalAws;
    /// use kpl::{Producer, Record};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let aws = LocalAws::start().await?;
    /// # aws.create_stream("orders", 2).await?;
    /// let producer = Producer::builder("orders", &aws.sdk_config()).build().await?;
    /// let file = "customer-7,tea\ncustomer-8,coffee\n";
    /// let records = file.lines().map(|line| {
    ///     let (customer, order) = line.split_once(',').unwrap_or((line, ""));
    ///     Record::new(customer, order)
    /// });
    /// for outcome in producer.send_all(records).await?.await {
    ///     let receipt = outcome?;
    ///     println!("{} in {}", receipt.sequence_number, receipt.shard_id);
    /// }
    /// # assert_eq!(producer.stats().user_records_delivered, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SendAllError`](crate::SendAllError): a record is invalid or too large, or the producer is closed. The records
    /// before it are accepted.
    ///
    /// # Cancel safety
    /// See [`SendAll`].
    pub fn send_all<'a, I>(&self, records: I) -> SendAll<'a, I::IntoIter>
    where
        I: IntoIterator<Item = Record<'a>>,
    {
        SendAll::new(self.clone(), records.into_iter())
    }

    /// Accepts a record if the buffer has room for it now. Everything else is as with [`send`](Self::send).
    ///
    /// # Errors
    /// [`SendError`], with the record inside. It is [`SendError::Full`] if the buffer has no room, or others wait for
    /// room.
    pub fn try_send(&self, mut record: Record<'_>) -> Result<Delivery, SendError> {
        self.accept(&mut record).map_err(|not_accepted| {
            if let NotAccepted::NoRoom(queue_id) = not_accepted {
                // Open aggregates are sealed to make room: the next attempt may find some.
                self.handle.context.budget.note_refusal(queue_id);
            }
            self.send_error(record, not_accepted)
        })
    }

    /// Waits for room for one record of up to `bytes` of key and data. The [`Permit`] then sends it without waiting.
    ///
    /// Use it in `select!` loops: a future that is dropped loses no record, because the record comes later.
    ///
    /// Reservations are served in the order of arrival. The shard of a reservation is not known yet, so it waits for
    /// every earlier [`send`](Self::send) of this producer that waits for room. It also waits while the fullest shard
    /// and all unused permits hold more than twice of what would be left free. A hot shard therefore delays
    /// reservations. Reservations do not delay `send` to another shard, unless more is reserved than [is
    /// free](crate::MemoryBudget).
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
    /// [`ReserveError`]: the stream or the buffer takes no record of that size, or the producer is closed.
    ///
    /// # Cancel safety
    /// A future that is dropped gives up its place in the queue and the room that it was given.
    pub async fn reserve(&self, bytes: usize) -> Result<Permit, ReserveError> {
        let Handle { context, shards, .. } = &*self.handle;
        let limit = shards.max_record_size().min(context.max_bufferable_record());
        if bytes > limit {
            return Err(ReserveError::TooLarge { limit, actual: bytes });
        }
        let cost = bytes + RECORD_OVERHEAD + AGGREGATE_OVERHEAD;
        let room = match context.budget.try_charge(QueueId::PERMITS, cost) {
            Some(room) => Some(room),
            None => self.wait_for_room(QueueId::PERMITS, cost).await,
        };
        match room {
            Some(room) => Ok(Permit { producer: self.clone(), bytes, room }),
            None => Err(ReserveError::Closed { reason: context.stop_reason() }),
        }
    }

    /// Sends all open aggregates now, and waits until every record accepted before this call has an outcome.
    ///
    /// `flush` does not wait for records that are accepted later. The `Delivery` of each record tells its outcome.
    ///
    /// # Cancel safety
    /// Dropping the future ends the waiting. The aggregates are sent all the same.
    pub async fn flush(&self) {
        let Handle { context, shards, .. } = &*self.handle;
        let epoch = context.outcomes.epochs.end_current();
        shards.close_open_aggregates();
        context.outcomes.epochs.completed(epoch).await;
    }

    /// Accepts no more records, waits up to `deadline` until every record has an outcome, and ends the producer's
    /// tasks.
    ///
    /// A record without an outcome at the deadline is abandoned: its `Delivery` resolves to an error that holds the
    /// record. `close` may be called on several clones; each call returns the same report.
    ///
    /// # Cancel safety
    /// If the future is dropped, the producer accepts no more records and goes on sending. Call `close` again to end
    /// it.
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        let shards = &self.handle.shards;
        shards.begin_close();
        let _ = tokio::time::timeout(deadline, self.flush()).await;
        shards.stop(StopReason::Closed);
        self.handle.tasks.wait().await;
        let stats = self.stats();
        CloseReport {
            delivered: stats.user_records_delivered,
            failed: stats.user_records_failed,
            abandoned: stats.user_records_abandoned,
        }
    }

    /// Counters of this producer since it was built.
    #[must_use]
    pub fn stats(&self) -> ProducerStats {
        self.handle.context.outcomes.counters.snapshot()
    }

    /// Bytes in the buffer: data, keys and overhead of all accepted records without an outcome. At most
    /// [`max_buffered_bytes`](crate::ProducerConfig::max_buffered_bytes), or the limit of the
    /// [`MemoryBudget`](crate::MemoryBudget) if the producer has one.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.handle.context.budget.used()
    }

    /// Most bytes that the buffer held since the producer was built.
    #[must_use]
    pub fn peak_buffered_bytes(&self) -> usize {
        self.handle.context.budget.peak()
    }

    /// Age of the oldest accepted record without an outcome; `None` if there is none. KPL:
    /// `getOldestRecordTimeInMillis`.
    ///
    /// The age is up to 100 ms too high, because records are not noted one by one. If other records of an aggregate had
    /// an outcome earlier, its last record counts from the acceptance of the first. If the age comes near
    /// [`record_ttl`](crate::ProducerConfig::record_ttl), the records of some shard are not delivered;
    /// [`hot_spots`](Self::hot_spots) may tell which shard.
    #[must_use]
    pub fn oldest_pending(&self) -> Option<Duration> {
        let epochs = &self.handle.context.outcomes.epochs;
        epochs.oldest(clock::now())
    }

    /// Time that records spent in the buffer, in requests, and from acceptance to acknowledgement.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        self.handle.context.telemetry.latencies()
    }

    /// Bytes of payload in flight. At most [`max_in_flight_bytes`](crate::ProducerConfig::max_in_flight_bytes), unless
    /// a single record is larger.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.handle.context.telemetry.in_flight_bytes()
    }

    /// Load of each open shard over the last 10 to 20 seconds, and the hottest partition keys of the last minutes.
    ///
    /// Keys are counted if [`hot_keys`](crate::ProducerConfig::hot_keys) is set. The report contains partition keys of
    /// your records: show it only to readers who may see them.
    #[must_use]
    pub fn hot_spots(&self) -> HotSpots {
        let Handle { context, shards, .. } = &*self.handle;
        let now = clock::now();
        let mut shards: Vec<_> = shards
            .table()
            .intakes()
            .filter_map(|intake| Some(intake.load.report(intake.shard_id.as_ref()?, now)))
            .collect();
        shards.sort_by(|a, b| b.utilisation.total_cmp(&a.utilisation));
        HotSpots { shards, keys: context.telemetry.hot_keys() }
    }

    #[cfg(test)]
    pub(crate) fn shards(&self) -> &Arc<ShardRouter> {
        &self.handle.shards
    }

    /// Accepts a record if it is valid and the buffer has room for it now.
    pub(crate) fn accept(&self, record: &mut Record<'_>) -> Result<Delivery, NotAccepted> {
        let Handle { context, shards, .. } = &*self.handle;
        self.check(record).map_err(NotAccepted::Invalid)?;
        // What was taken before the room was found to be too little is given back when no lock is held.
        let mut room = None;
        match shards.accept(record, record.hash_key(), &mut room) {
            // A droppable record never waits for room.
            Err(NotAccepted::NoRoom(_)) if record.priority == Priority::Droppable => {
                Ok(context.fail_as_dropped(record.take()))
            }
            result => result,
        }
    }

    /// Waits in turn for room in the buffer. Wakes the sender, which seals open aggregates to make room.
    pub(crate) fn wait_for_room(&self, queue_id: QueueId, bytes: usize) -> Turn {
        let turn = self.handle.context.budget.charge_in_turn(queue_id, bytes);
        self.handle.context.wake.notify_one();
        turn
    }

    /// Accepts a record that was checked and has its room in the buffer.
    pub(crate) fn send_paid(
        &self,
        mut record: Record<'_>,
        room: Charge,
    ) -> Result<Delivery, SendError> {
        let hash_key = record.hash_key();
        let accepted = self.handle.shards.accept(&mut record, hash_key, &mut Some(room));
        accepted.map_err(|not_accepted| self.send_error(record, not_accepted))
    }

    /// Whether the stream and the buffer ever take the record.
    pub(crate) fn check(&self, record: &Record<'_>) -> Result<(), InvalidRecord> {
        let Handle { context, shards, .. } = &*self.handle;
        let is_service_placed = shards.is_service_placed();
        record.validate(shards.max_record_size(), is_service_placed)?;
        if is_service_placed && record.is_wrapped_alone() {
            return Err(InvalidRecord::LooksAggregated);
        }
        let (limit, actual) = (context.max_bufferable_record(), record.payload_len());
        if actual > limit {
            return Err(InvalidRecord::TooLarge { limit, actual });
        }
        Ok(())
    }

    /// The error that the caller of `send` gets for a record that was not accepted.
    pub(crate) fn send_error(&self, record: Record<'_>, not_accepted: NotAccepted) -> SendError {
        let needed = cost_of(&record).1;
        let record = Box::new(record.into_owned());
        match not_accepted {
            NotAccepted::Invalid(InvalidRecord::TooLarge { limit, actual }) => {
                SendError::TooLarge { record, limit, actual }
            }
            NotAccepted::Invalid(reason) => SendError::Invalid { record, reason },
            NotAccepted::NoRoom(_) => SendError::Full { record, needed },
            NotAccepted::Closed => {
                SendError::Closed { record, reason: self.handle.context.stop_reason() }
            }
        }
    }

    pub(crate) fn closed(&self, record: Record<'_>) -> SendError {
        self.send_error(record, NotAccepted::Closed)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.context.cancel.is_cancelled() {
            let left = self.context.budget.used();
            tracing::warn!(
                pending_bytes = left,
                "a producer was dropped without `close`: its records without an outcome are abandoned"
            );
            self.shards.stop(StopReason::Dropped);
        }
    }
}
