//! The future that accepts a batch of records.

use std::fmt;
use std::future::Future;
use std::iter::Fuse;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

use kinesis_aggregation::HashKey;

use super::handle::Producer;
use crate::ack::Deliveries;
use crate::aggregate::builder::cost_of;
use crate::buffer::{Charge, Turn};
use crate::error::SendError;
use crate::record::{InvalidRecord, Record, UserRecord, hash_keys_of};
use crate::shard::group::Grouping;
use crate::shard::queue::NotAccepted;

/// Most records that are taken from the iterator before they are accepted.
const GROUP: usize = 64;

/// Bytes of key and data after which no further record is taken.
const GROUP_BYTES: usize = 64 * 1024;

/// Most groups that are accepted before other tasks of the runtime run.
const GROUPS_AT_A_TIME: usize = 64;

/// Future that accepts a batch of records. From [`Producer::send_all`].
///
/// It resolves to the [`Deliveries`] of the batch when the last record is in the buffer. Memory: at most 64 records, or
/// little more than 64 KiB of them, that were taken from the iterator and are not accepted yet; and the `Deliveries`.
///
/// # Records that are not accepted
/// If a record is not accepted, the future resolves to a [`SendAllError`]. The records before it are accepted, and those
/// after it are not. Both stay here: await the future by reference, and again after an error, to go on after the
/// refused record. Or take it apart with [`into_parts`](Self::into_parts).
///
/// ```
/// # use kinesis_testkit::LocalAws;
/// # use kpl::{Producer, Record, SendError};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let aws = LocalAws::start().await?;
/// # aws.create_stream("orders", 1).await?;
/// # let producer = Producer::builder("orders", &aws.sdk_config()).build().await?;
/// # let orders = [("customer-7", "tea"), ("", "nothing"), ("customer-8", "coffee")];
/// let mut sending = producer.send_all(orders.iter().map(|(key, order)| Record::new(*key, *order)));
/// let mut invalid = Vec::new();
/// let deliveries = loop {
///     match (&mut sending).await {
///         Ok(deliveries) => break deliveries,
///         Err(refused) if matches!(refused.error(), SendError::Closed { .. }) => {
///             let (deliveries, rest) = sending.into_parts();
///             eprintln!("{refused}, nor {} records after it", rest.count());
///             break deliveries;
///         }
///         Err(refused) => invalid.push(refused.into_record()),
///     }
/// };
/// # assert_eq!((deliveries.len(), invalid.len()), (2, 1));
/// # deliveries.await;
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
/// The accepted records are always the first ones of the batch, without those that were refused. Dropping the future
/// cancels none of them, and drops the other records. So that none is lost, keep the future: await it by reference, and
/// go on later or take it apart.
///
/// ```
/// # use kinesis_testkit::LocalAws;
/// # use kpl::{Producer, Record};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let aws = LocalAws::start().await?;
/// # aws.create_stream("orders", 1).await?;
/// # let producer = Producer::builder("orders", &aws.sdk_config()).build().await?;
/// # let orders = ["first", "second"];
/// # let (_stop, mut stopped) = tokio::sync::watch::channel(());
/// let records = orders.iter().map(|order| Record::new("customer-7", *order));
/// let mut sending = producer.send_all(records);
/// let (deliveries, unsent) = tokio::select! {
///     accepted = &mut sending => (accepted?, Vec::new()),
///     _ = stopped.changed() => {
///         let (deliveries, rest) = sending.into_parts();
///         (deliveries, rest.collect())
///     }
/// };
/// println!("{} orders were accepted, {} were not", deliveries.len(), unsent.len());
/// # assert_eq!(deliveries.await.len(), 2);
/// # Ok(())
/// # }
/// ```
#[must_use = "a batch is not sent unless it is awaited"]
pub struct SendAll<'a, I> {
    producer: Producer,
    /// Records that were taken from the iterator, checked and hashed, and are not accepted yet.
    group: vec::IntoIter<Record<'a>>,
    /// Hash keys of the whole group. Those of the accepted records come first.
    hash_keys: Vec<HashKey>,
    /// The record after the group, if it is invalid.
    invalid: Option<(Record<'a>, InvalidRecord)>,
    records: Fuse<I>,
    /// Number of records to accept at a time. Small after a record found no room: the next one may find none either.
    piece: usize,
    /// The first record of the group waits for room.
    turn: Option<Turn>,
    deliveries: Deliveries,
    /// Number of records that were accepted or refused.
    position: usize,
    grouping: Grouping,
}

impl<'a, I: Iterator<Item = Record<'a>>> SendAll<'a, I> {
    pub(super) fn new(producer: Producer, records: I) -> Self {
        Self {
            producer,
            group: Vec::new().into_iter(),
            hash_keys: Vec::new(),
            invalid: None,
            records: records.fuse(),
            piece: GROUP,
            turn: None,
            deliveries: Deliveries::default(),
            position: 0,
            grouping: Grouping::default(),
        }
    }

    /// Number of records that were accepted so far, without those whose [`Deliveries`] were returned.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.deliveries.len()
    }

    /// Takes the deliveries of the records that were accepted so far.
    ///
    /// A very long batch needs it now and then: until they are taken, the deliveries grow with each record, and keep each
    /// record that failed.
    pub fn take_deliveries(&mut self) -> Deliveries {
        std::mem::take(&mut self.deliveries)
    }

    /// Stops accepting records. Returns the deliveries of the accepted records, and the records that are neither accepted
    /// nor refused, in their order.
    pub fn into_parts(self) -> (Deliveries, impl Iterator<Item = Record<'a>>) {
        let Self { deliveries, group, invalid, records, .. } = self;
        let invalid = invalid.into_iter().map(|(record, _)| record);
        (deliveries, group.chain(invalid).chain(records))
    }

    /// Accepts records until the last one is accepted, or one is refused.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        for _ in 0..GROUPS_AT_A_TIME {
            if self.group.len() == 0 && !self.take_group() {
                return Poll::Ready(match self.invalid.take() {
                    None => Ok(()),
                    Some((record, reason)) => {
                        Err(self.producer.send_error(record, NotAccepted::Invalid(reason)))
                    }
                });
            }
            let room = match &mut self.turn {
                None => Ok(None),
                Some(turn) => {
                    let room = ready!(Pin::new(turn).poll(context));
                    room.map(Some).ok_or(NotAccepted::Closed)
                }
            };
            self.turn = None;
            match room.and_then(|room| self.accept_piece(room)) {
                Ok(()) => {}
                Err(NotAccepted::NoRoom(queue_id)) => {
                    let bytes = self.group.as_slice().first().map_or(0, |first| cost_of(first).1);
                    self.turn = Some(self.producer.wait_for_room(queue_id, bytes));
                }
                Err(refusal) => {
                    let refused = self.group.next();
                    let error = refused.map(|record| self.producer.send_error(record, refusal));
                    return Poll::Ready(error.map_or(Ok(()), Err));
                }
            }
        }
        // A long batch that finds room lets other tasks run now and then.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes records from the iterator, up to an invalid one. Returns whether there are valid ones before it.
    fn take_group(&mut self) -> bool {
        let mut group = Vec::with_capacity(GROUP);
        let mut bytes = 0;
        while group.len() < GROUP && bytes < GROUP_BYTES && self.invalid.is_none() {
            let Some(record) = self.records.next() else { break };
            bytes += record.payload_len();
            match self.producer.check(&record) {
                Ok(()) => group.push(record),
                Err(reason) => self.invalid = Some((record, reason)),
            }
        }
        hash_keys_of(&group, &mut self.hash_keys);
        self.group = group.into_iter();
        self.group.len() > 0
    }

    /// Accepts the next records of the group. `room` is that of the first one.
    fn accept_piece(&mut self, room: Option<Charge>) -> Result<(), NotAccepted> {
        let left = self.group.as_mut_slice();
        let piece = self.piece.min(left.len());
        let hash_keys = &self.hash_keys[self.hash_keys.len() - left.len()..];
        let (accepted, outcome) = self.producer.handle.shards.accept_group(
            &mut left[..piece],
            &hash_keys[..piece],
            room,
            &mut self.deliveries,
            &mut self.grouping,
        );
        self.group.by_ref().take(accepted).for_each(drop);
        self.position += accepted;
        self.piece = if outcome.is_ok() { GROUP.min(2 * self.piece) } else { 1 };
        outcome
    }
}

impl<I> Unpin for SendAll<'_, I> {}

impl<'a, I: Iterator<Item = Record<'a>>> Future for SendAll<'a, I> {
    type Output = Result<Deliveries, SendAllError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.poll_accept(context));
        Poll::Ready(match outcome {
            Ok(()) => Ok(self.take_deliveries()),
            Err(error) => {
                let position = self.position;
                self.position += 1;
                Err(SendAllError { error, position })
            }
        })
    }
}

/// Error of [`Producer::send_all`]: a record of the batch was not accepted.
///
/// The [`SendAll`] still has the deliveries of the records before it and the records after it, if it was awaited by
/// reference. The error converts into a [`SendError`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("record {position} of the batch was not accepted: {error}")]
pub struct SendAllError {
    error: SendError,
    position: usize,
}

impl SendAllError {
    /// Why the record was not accepted, with the record inside.
    #[must_use]
    pub fn error(&self) -> &SendError {
        &self.error
    }

    /// Position of the record in the batch. The first record has position 0.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Returns the record that was not accepted.
    #[must_use]
    pub fn into_record(self) -> UserRecord {
        self.error.into_record()
    }
}

impl From<SendAllError> for SendError {
    fn from(refused: SendAllError) -> Self {
        refused.error
    }
}

impl<I> fmt::Debug for SendAll<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendAll").field("accepted", &self.deliveries.len()).finish_non_exhaustive()
    }
}
