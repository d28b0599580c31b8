//! The future of a batch of records.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::delivery::{Completer, Delivery, Receipt, Slot};
use crate::error::DeliveryError;

/// The outcomes of the accepted records of a batch, in the order of the records. From
/// [`Producer::send_all`](crate::Producer::send_all).
///
/// * **A result per record**: `deliveries.await` gives a `Vec` with a [`Receipt`] or a [`DeliveryError`] for each record,
///   or [`next_outcome`](Self::next_outcome) gives one at a time.
/// * **Failures only**: [`next_failure`](Self::next_failure) waits for all records and returns those that failed. It is
///   the cheapest way to learn that a whole batch is durable: it costs next to nothing for a record that was delivered.
/// * **Single records**: as an iterator, it gives a [`Delivery`] for each record.
///
/// Each record has an outcome in the end, as with [`Delivery`].
///
/// Memory: 4 bytes for each record, 16 bytes for each 64 records and each of their shards (for each record while the
/// buffer is full), and the results that aggregates share, about 200 bytes for each aggregate. A failed record is kept
/// until its outcome is returned.
///
/// # Cancel safety
/// All futures of a batch may be dropped and made again, because each outcome stays here until it is returned. Dropping
/// the batch itself cancels no record: it is as if each [`Delivery`] was dropped.
///
/// ```
/// use kinesis_testkit::LocalAws;
/// use kpl::{Producer, Record};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let aws = LocalAws::start().await?;
/// # aws.create_stream("orders", 1).await?;
/// let producer = Producer::builder("orders", &aws.sdk_config()).build().await?;
/// let orders = ["first", "second", "third"];
/// let batch = orders.iter().map(|order| Record::new("customer-7", *order));
/// let mut deliveries = producer.send_all(batch).await?;
/// while let Some((index, error)) = deliveries.next_failure().await {
///     eprintln!("{} was not delivered: {error}", orders[index]);
/// }
/// assert_eq!(producer.stats().user_records_delivered, 3);
/// # Ok(())
/// # }
/// ```
#[must_use = "only `Deliveries` tell whether the records were delivered: await them, or `drop` them to leave failures to `on_failure`"]
#[derive(Default)]
pub struct Deliveries {
    parts: Vec<Part>,
    /// Position in `parts` for each record.
    order: Vec<u32>,
    /// Number of records whose outcome was taken out of its slot.
    taken: usize,
    /// Outcomes that the future of the whole batch has collected, and has not returned yet.
    collected: VecDeque<Result<Receipt, DeliveryError>>,
}

/// Successive members of one slot that belong to the batch, without those whose outcome was taken.
struct Part {
    slot: Arc<Slot>,
    next: u32,
    end: u32,
}

impl Deliveries {
    /// Number of accepted records, those included whose outcome was returned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no record was accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Waits for the outcome of the next record. Returns `None` after the last one.
    ///
    /// # Cancel safety
    /// A future that is dropped loses no outcome: the next call returns it.
    pub async fn next_outcome(&mut self) -> Option<Result<Receipt, DeliveryError>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Waits for the next record that failed. Returns its position among the accepted records of the batch, and the
    /// error. Returns `None` when all records have an outcome.
    ///
    /// # Cancel safety
    /// A future that is dropped loses no failure: the next call returns it.
    pub async fn next_failure(&mut self) -> Option<(usize, DeliveryError)> {
        poll_fn(|context| self.poll_next_failure(context)).await
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Receipt, DeliveryError>>> {
        match self.collected.pop_front() {
            Some(outcome) => Poll::Ready(Some(outcome)),
            None => self.poll_slot(context),
        }
    }

    fn poll_next_failure(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<(usize, DeliveryError)>> {
        loop {
            // Most records are delivered: their receipts are not made.
            while self.collected.is_empty()
                && let Some(part) = self.order.get(self.taken)
                && self.parts[*part as usize].slot.is_delivered()
            {
                self.parts[*part as usize].next += 1;
                self.taken += 1;
            }
            let index = self.taken - self.collected.len();
            match ready!(self.poll_next(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some((index, error))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// Takes the next outcome out of its slot.
    fn poll_slot(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Receipt, DeliveryError>>> {
        let Some(part) = self.order.get(self.taken) else {
            return Poll::Ready(None);
        };
        let part = &mut self.parts[*part as usize];
        let outcome = ready!(part.slot.poll(part.next, context.waker()));
        part.next += 1;
        self.taken += 1;
        Poll::Ready(Some(outcome))
    }

    /// Adds the next member of a slot as the next record. `part` is the part of the previous record of the same shard, if
    /// no other task has added a member since.
    pub(crate) fn add(&mut self, part: &mut Option<u32>, completer: &mut Completer) {
        let (slot, index) = completer.add();
        let known = part.filter(|part| Arc::ptr_eq(&self.parts[*part as usize].slot, slot));
        let part = *part.insert(known.unwrap_or_else(|| {
            self.parts.push(Part { slot: Arc::clone(slot), next: index, end: index });
            (self.parts.len() - 1) as u32
        }));
        self.parts[part as usize].end += 1;
        debug_assert_eq!(self.parts[part as usize].end, index + 1);
        self.order.push(part);
    }
}

impl Future for Deliveries {
    type Output = Vec<Result<Receipt, DeliveryError>>;

    /// Waits until each record has an outcome. Those that were returned before are not among the results.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let left = self.order.len() - self.taken;
        self.collected.reserve_exact(left);
        while let Some(outcome) = ready!(self.poll_slot(context)) {
            self.collected.push_back(outcome);
        }
        Poll::Ready(std::mem::take(&mut self.collected).into())
    }
}

impl Iterator for Deliveries {
    type Item = Delivery;

    /// Takes out the next record whose outcome no future of the batch has taken.
    fn next(&mut self) -> Option<Delivery> {
        let part = &mut self.parts[*self.order.get(self.taken)? as usize];
        let delivery = Delivery::new(Arc::clone(&part.slot), part.next);
        part.next += 1;
        self.taken += 1;
        Some(delivery)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.order.len() - self.taken;
        (left, Some(left))
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.parts.iter().for_each(|part| part.slot.forget(part.next..part.end));
        // Collected, and not returned: the batch was dropped before its last record had an outcome.
        let failures = self.collected.iter().filter_map(|outcome| outcome.as_ref().err());
        if let Some(part) = self.parts.first() {
            failures.for_each(|failure| part.slot.report(failure));
        }
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries")
            .field("len", &self.len())
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
