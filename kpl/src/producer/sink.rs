//! A producer as a `futures::Sink`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::FuturesUnordered;
use futures::{Sink, Stream};

use super::handle::Producer;
use crate::ack::{Delivery, Receipt};
use crate::aggregate::builder::cost_of;
use crate::buffer::Turn;
use crate::error::{DeliveryError, SendError, StopReason};
use crate::record::UserRecord;
use crate::shard::queue::NotAccepted;

/// Failures that wait for a flush hold their records.
const MAX_FAILURES_KEPT: usize = 64;

/// A [`Producer`] as a [`Sink`] of records; from [`Producer::sink`]. Feature `sink`.
///
/// * **Back-pressure**: the sink keeps a record for which the buffer has no room, and `poll_ready` waits until it has
///   room, in the order of arrival within its shard.
/// * **Flush** sends open aggregates and waits until all records of this sink have an outcome.
/// * **Close** flushes and accepts no more records. The producer stays open: [close](Producer::close) it after its
///   sinks.
/// * **Errors of `feed` and `start_send`**: [`SinkError::Send`], for a record that was not accepted.
///   [`SendError::Closed`] may hold the previous record instead, if that one still waited for room. The sink accepts no
///   other record after that.
/// * **Errors of flush and close**: [`SinkError::Delivery`], for one failed record. Call again for the next failed
///   record, until the result is `Ok`. `SinkExt::send` is `feed` and `flush`. The sink keeps 64 failed records for the
///   next flush. Further ones go to [`on_failure`](crate::ProducerBuilder::on_failure) at once, and so do those that
///   are left when the sink is dropped.
///
/// Memory: about 100 bytes for each record without an outcome, and at most 64 failed records.
///
/// ```
/// use futures::{SinkExt, StreamExt, stream};
/// use kinesis_testkit::LocalAws;
/// use kpl::{Producer, UserRecord};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let aws = LocalAws::start().await?;
/// # aws.create_stream("orders", 1).await?;
/// let producer = Producer::builder("orders", &aws.sdk_config()).build().await?;
/// let orders = stream::iter(0..100).map(|id| Ok(UserRecord::new(format!("{id}"), "order")));
/// orders.forward(producer.sink()).await?; // sent, flushed, and every one acknowledged
/// assert_eq!(producer.stats().user_records_delivered, 100);
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
/// The sink keeps every record that `start_send` accepted, so a dropped `SinkExt::feed`, `send`, `flush` or `close`
/// loses none of them: call `flush` to go on. A record that a dropped `feed` or `send` had not yet passed to
/// `start_send` is dropped. Dropping the sink cancels no record that is in the buffer. A record that still waits for
/// room fails as [`Dropped`](crate::FailureCause::Dropped).
#[must_use = "a sink does nothing unless it is polled"]
#[derive(Debug)]
pub struct RecordSink {
    producer: Producer,
    waiting: Option<(UserRecord, Turn)>,
    /// Deliveries of records without an outcome.
    deliveries: FuturesUnordered<Delivery>,
    /// Failures that the next flush returns.
    failures: VecDeque<DeliveryError>,
    /// Whether open aggregates were sent since the last record.
    is_flushing: bool,
    is_closed: bool,
}

/// Error of a [`RecordSink`]: one record was not accepted, or was not delivered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// A record was not accepted.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A record was accepted and could not be delivered.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

impl Producer {
    /// A [`Sink`] of records that sends with this producer. Feature `sink`.
    pub fn sink(&self) -> RecordSink {
        RecordSink {
            producer: self.clone(),
            waiting: None,
            deliveries: FuturesUnordered::new(),
            failures: VecDeque::new(),
            is_flushing: false,
            is_closed: false,
        }
    }
}

impl RecordSink {
    /// Moves the record that waits for room into the buffer.
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        let Some((_, turn)) = &mut self.waiting else {
            return Poll::Ready(Ok(()));
        };
        let room = ready!(Pin::new(turn).poll(context));
        if let Some((record, _)) = self.waiting.take() {
            let delivery = match room {
                Some(room) => self.producer.send_paid(record, room)?,
                None => return Poll::Ready(Err(self.producer.closed(record).into())),
            };
            self.deliveries.push(delivery);
        }
        Poll::Ready(Ok(()))
    }

    #[cfg(test)]
    pub(crate) fn pending(&self) -> usize {
        self.deliveries.len()
    }

    /// Outcome of the next record; `None` if all records have one.
    fn poll_completed(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Receipt, DeliveryError>>> {
        Pin::new(&mut self.deliveries).poll_next(context)
    }
}

impl Sink<UserRecord> for RecordSink {
    type Error = SinkError;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SinkError>> {
        while let Poll::Ready(Some(outcome)) = self.poll_completed(context) {
            // Not an error of this call: `feed` would take it for a refusal of its own record, and that record would be
            // lost.
            match outcome {
                Err(failure) if self.failures.len() < MAX_FAILURES_KEPT => {
                    self.failures.push_back(failure);
                }
                Err(failure) => self.producer.handle.context.outcomes.unobserved(&failure),
                Ok(_) => {}
            }
        }
        self.poll_waiting(context)
    }

    fn start_send(mut self: Pin<&mut Self>, mut record: UserRecord) -> Result<(), SinkError> {
        if self.is_closed {
            let reason = StopReason::Closed;
            let record = record.into();
            return Err(SendError::Closed { record, reason }.into());
        }
        assert!(self.waiting.is_none(), "`start_send` without `poll_ready`: a record still waits");
        self.is_flushing = false;
        match self.producer.accept(&mut record) {
            Ok(delivery) => self.deliveries.push(delivery),
            Err(NotAccepted::NoRoom(queue_id)) => {
                let turn = self.producer.wait_for_room(queue_id, cost_of(&record).1);
                self.waiting = Some((record, turn));
            }
            Err(not_accepted) => {
                return Err(self.producer.send_error(record, not_accepted).into());
            }
        }
        Ok(())
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SinkError>> {
        ready!(self.poll_waiting(context))?;
        if !std::mem::replace(&mut self.is_flushing, true) {
            self.producer.handle.shards.close_open_aggregates();
        }
        if let Some(failure) = self.failures.pop_front() {
            return Poll::Ready(Err(failure.into()));
        }
        while let Some(outcome) = ready!(self.poll_completed(context)) {
            outcome?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SinkError>> {
        self.is_closed = true;
        self.poll_flush(context)
    }
}

impl Drop for RecordSink {
    /// Fails the record that waits for room, and reports the failures that no flush returned.
    fn drop(&mut self) {
        if let Some((record, turn)) = self.waiting.take() {
            drop(turn);
            drop(self.producer.handle.context.fail_as_dropped(record));
        }
        for failure in &self.failures {
            self.producer.handle.context.outcomes.unobserved(failure);
        }
    }
}
