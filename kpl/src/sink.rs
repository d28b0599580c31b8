//! A producer as a `futures::Sink`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Sink;

use crate::aggregator::cost_of;
use crate::budget::Turn;
use crate::delivery::Delivery;
use crate::error::{DeliveryError, SendError, StopReason};
use crate::producer::{Offer, Producer};
use crate::record::UserRecord;

/// A [`Producer`] as a [`Sink`] of records; from [`Producer::sink`]. Feature `sink`.
///
/// * **Back-pressure**: a record that finds no room is kept, outside of the buffer, and `poll_ready` waits until it has its
///   place, in the order of arrival within its shard.
/// * **Flush** sends what is open and waits until all records of this sink are settled.
/// * **Close** flushes, and takes no more records. The producer stays open: [close](Producer::close) it after its sinks.
/// * **Errors**: each failed record is told once, as [`SinkError::Delivery`], by the next call; the sink goes on with the
///   others when it is called again. Failures left when the sink is dropped go to
///   [`on_failure`](crate::ProducerBuilder::on_failure).
///
/// Memory: 24 bytes for each record that is not settled.
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
/// The sink holds what it was given, so a dropped `SinkExt::feed`, `send`, `flush` or `close` loses nothing that
/// `start_send` took: call `flush` to go on. A record that a dropped `feed` or `send` had not handed over is dropped with it.
#[must_use = "a sink does nothing unless it is polled"]
#[derive(Debug)]
pub struct RecordSink {
    producer: Producer,
    waiting: Option<(UserRecord, Turn)>,
    /// In the order of sending.
    deliveries: VecDeque<Delivery>,
    /// Whether what is open was sent off since the last record.
    is_flushing: bool,
    is_closed: bool,
}

/// Why a [`RecordSink`] failed: one record, with what is wrong.
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
            deliveries: VecDeque::new(),
            is_flushing: false,
            is_closed: false,
        }
    }
}

impl RecordSink {
    /// Brings the record that waits for room into the buffer.
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
            self.deliveries.push_back(delivery);
        }
        Poll::Ready(Ok(()))
    }

    /// Forgets what is settled, up to the first record that is not; tells a failure.
    fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        while let Some(first) = self.deliveries.front_mut() {
            let outcome = ready!(Pin::new(first).poll(context));
            self.deliveries.pop_front();
            outcome?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Sink<UserRecord> for RecordSink {
    type Error = SinkError;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SinkError>> {
        ready!(self.poll_waiting(context))?;
        match self.poll_settled(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn start_send(mut self: Pin<&mut Self>, record: UserRecord) -> Result<(), SinkError> {
        if self.is_closed {
            let reason = StopReason::Closed;
            return Err(SendError::Closed { record, reason }.into());
        }
        assert!(
            self.waiting.is_none(),
            "`start_send` without `poll_ready`: a record still waits"
        );
        self.is_flushing = false;
        match self.producer.offer(record)? {
            Offer::Taken(delivery) => self.deliveries.push_back(delivery),
            Offer::NoRoom(record, lane) => {
                let turn = self.producer.queue_up(lane, cost_of(&record).1);
                self.waiting = Some((record, turn));
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
            self.producer.close_open_aggregates();
        }
        self.poll_settled(context)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SinkError>> {
        self.is_closed = true;
        self.poll_flush(context)
    }
}
