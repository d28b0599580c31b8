//! Progress of one shard: what was fetched, delivered, processed and checkpointed.
//!
//! A held lease has one [`ShardProgress`]. The shard's reader notes what it fetched, the consumer what was
//! delivered and processed, and the renewer of the lease what it read and wrote. The rules that follow from these
//! facts are here, too: which checkpoint is refused, what a renewal carries, up to when a shard was read.

mod failing;
mod lag;
mod trend;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kinesis_common::sync::Mutex;

pub use self::failing::Failing;
pub(crate) use self::lag::Lag;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};

/// The progress of one shard, shared by the tasks that work on it. No task logs or runs user code while it holds the
/// lock.
pub(crate) type ShardProgress = Arc<Mutex<Progress>>;

/// A read that found no further record.
#[derive(Debug, Clone)]
pub(crate) struct Tip {
    /// Time of the answer by the service's clock. All records that arrived before it were fetched.
    pub(crate) reached: SystemTime,
    /// The last record that the reader fetched under this lease.
    pub(crate) fetched: Option<SequenceNumber>,
    /// Whether the shard was open: the answer had neither a record nor the end of the shard. The answer with the last
    /// records of a closed shard may not tell that the shard has ended.
    pub(crate) was_open: bool,
}

/// The positions and times of one shard. They only rise, except `delivered` after a failed call. A move of the shard
/// replaces them all.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The last read that found no further record, as the reader notes it.
    pub(crate) tip: Option<Tip>,
    /// Time from which a reader at `LATEST` reads, once it knows the service's time.
    pub(crate) pinned: Option<SystemTime>,
    /// Ages of the records that are not processed.
    pub(crate) lag: Lag,
    /// The last record up to which all are done or in the hands of the processor. Of records in process: the last one up to
    /// which all are done.
    delivered: Option<ExtendedSequenceNumber>,
    /// Pages whose records are in process, the oldest first.
    in_process: VecDeque<PageInProcess>,
    /// The last record of the pages that are processed. It may be an aggregate without a record to deliver.
    passed: Option<SequenceNumber>,
    /// Time of arrival of that record.
    passed_arrival: Option<SystemTime>,
    /// The last record that a renewal may checkpoint. `None` if the processor writes the checkpoints.
    processed: Option<ExtendedSequenceNumber>,
    /// Start time of the last renewal that wrote `processed` as the checkpoint.
    pub(crate) carried_at: Option<Duration>,
    /// The record on which the processor failed last.
    failing: Option<Failing>,
    /// The checkpoint in force, as far as this worker knows.
    checkpoint: Checkpoint,
    /// The time at which this worker saw the checkpoint move, or first saw it.
    checkpoint_seen: Option<Duration>,
}

/// A page whose records a handler processes.
#[derive(Debug)]
struct PageInProcess {
    last: SequenceNumber,
    /// Time of arrival of that record.
    arrival: Option<SystemTime>,
    /// The last user record that is to be processed. `None`: there is none.
    end: Option<ExtendedSequenceNumber>,
}

/// What a checkpoint or a renewal would write next.
#[derive(Debug)]
pub(crate) struct Withdrawn {
    delivered: Option<ExtendedSequenceNumber>,
    processed: Option<ExtendedSequenceNumber>,
}

impl Progress {
    /// `checkpoint`: that of the lease when this worker acquired it.
    pub(crate) fn new(checkpoint: Checkpoint) -> Self {
        Self {
            tip: None,
            pinned: None,
            lag: Lag::default(),
            delivered: None,
            in_process: VecDeque::new(),
            passed: None,
            passed_arrival: None,
            processed: None,
            carried_at: None,
            failing: None,
            checkpoint,
            checkpoint_seen: None,
        }
    }
}

impl Progress {
    /// As [`new`](Self::new). `failing`: the record on which a former owner of the lease failed last.
    pub(crate) fn of(checkpoint: &Checkpoint, failing: Option<Failing>) -> Self {
        Self { failing, ..Self::new(checkpoint.clone()) }
    }
}

/// What the consumer notes.
impl Progress {
    /// Notes up to which record all are done or in the hands of the processor, which may now checkpoint up to there. After
    /// a failure, `end` is an earlier one than before.
    pub(crate) fn delivered(&mut self, end: Option<ExtendedSequenceNumber>) {
        self.delivered = end;
    }

    /// Notes that the processor failed on a record, or on a batch that begins with it.
    pub(crate) fn failed(&mut self, failing: Failing) {
        self.failing = Some(failing);
    }

    /// The record on which the processor failed last, here or in a former owner of the lease.
    pub(crate) fn failing(&self) -> Option<&Failing> {
        self.failing.as_ref()
    }

    /// How often the processor failed on a record, if that is the one on which it failed last.
    pub(crate) fn failures_on(&self, position: &ExtendedSequenceNumber) -> u32 {
        let failing = self.failing.as_ref().filter(|failing| failing.position == *position);
        failing.map_or(0, |failing| failing.failures)
    }

    /// Forgets the failures if the record is done.
    pub(crate) fn forget_passed_failures(&mut self) {
        let delivered = self.delivered.as_ref();
        self.failing.take_if(|failing| delivered.is_some_and(|done| *done >= failing.position));
    }

    /// Forgets the failures, because an operator decides about the records.
    pub(crate) fn forget_failures(&mut self) {
        self.failing = None;
    }

    /// Notes that the oldest page is processed. `last`: its last record, even if no user record of that was
    /// delivered, and the time of its arrival. `None`: the page had no records.
    pub(crate) fn page_processed(&mut self, last: Option<(SequenceNumber, Option<SystemTime>)>) {
        if let Some((last, arrival)) = last {
            self.lag.processed();
            self.passed = Some(last);
            self.passed_arrival = arrival;
        }
    }

    /// Notes that the records of a page are in process. `last`: its last record, and the time of its arrival. `end`: the
    /// last user record that is to be processed. It is [processed](Self::page_processed) once the records up to `end` are
    /// [completed](Self::completed).
    pub(crate) fn page_in_process(
        &mut self,
        (last, arrival): (SequenceNumber, Option<SystemTime>),
        end: Option<ExtendedSequenceNumber>,
    ) {
        self.in_process.push_back(PageInProcess { last, arrival, end });
        self.pass_pages();
    }

    /// Notes that all records in process up to `mark` are done. Checkpoints and renewals may now cover them.
    pub(crate) fn completed(&mut self, mark: ExtendedSequenceNumber) {
        self.delivered = Some(mark);
        self.offer_to_renewal();
        self.pass_pages();
    }

    fn pass_pages(&mut self) {
        let completed = self.delivered.clone();
        let is_done = |page: &mut PageInProcess| {
            page.end.as_ref().is_none_or(|end| Some(end) <= completed.as_ref())
        };
        while let Some(PageInProcess { last, arrival, .. }) = self.in_process.pop_front_if(is_done)
        {
            self.page_processed(Some((last, arrival)));
        }
    }

    /// Takes back what a checkpoint or a renewal would write next. Returns it for [`restore`](Self::restore).
    pub(crate) fn withdraw(&mut self) -> Withdrawn {
        Withdrawn { delivered: self.delivered.take(), processed: self.processed.take() }
    }

    /// Undoes [`withdraw`](Self::withdraw).
    pub(crate) fn restore(&mut self, withdrawn: Withdrawn) {
        let Withdrawn { delivered, processed } = withdrawn;
        (self.delivered, self.processed) = (delivered, processed);
    }

    /// Notes that the pages which are not processed were dropped. They will be read again.
    pub(crate) fn pages_dropped(&mut self) {
        self.in_process.clear();
        self.lag.pages_dropped();
    }

    /// Notes that the shard is read no further, because it has reached the bound of a replay. It is not behind.
    pub(crate) fn finished(&mut self) {
        self.lag = Lag::default();
    }

    /// The last record of the pages that are processed under this lease, and a time before which everything that arrived
    /// is processed.
    pub(crate) fn passed(&self) -> Option<(&SequenceNumber, Option<SystemTime>)> {
        let tip = self.tip.as_ref().filter(|tip| self.nothing_waits(tip));
        let time = self.passed_arrival.max(tip.map(|tip| tip.reached));
        Some((self.passed.as_ref()?, time))
    }

    /// Lets the next renewal checkpoint all delivered records. Called if the library writes the checkpoints.
    pub(crate) fn offer_to_renewal(&mut self) {
        if let Some(position) = self.unwritten() {
            self.processed = Some(position);
        }
    }
}

/// What the renewer of the lease notes.
impl Progress {
    /// Notes the checkpoint of the lease as it was read or written. An older one changes nothing.
    pub(crate) fn found(&mut self, checkpoint: &Checkpoint, now: Duration) {
        if *checkpoint > self.checkpoint {
            self.checkpoint = checkpoint.clone();
            self.checkpoint_seen = None;
        }
        self.checkpoint_seen.get_or_insert(now);
    }
}

impl Progress {
    /// Returns whether a checkpoint at `to` must be written. It need not if it is the checkpoint in force.
    ///
    /// By the rule of the Java library, checkpoint in force <= `to` <= last record delivered.
    ///
    /// # Errors
    /// [`CheckpointError::OutOfRange`] if `to` lies outside these bounds.
    pub(crate) fn admit(&self, to: &ExtendedSequenceNumber) -> Result<bool, CheckpointError> {
        let requested = Checkpoint::At(to.clone());
        if requested == self.checkpoint {
            return Ok(false);
        }
        let delivered = self.delivered.as_ref().is_some_and(|delivered| to <= delivered);
        if delivered && requested > self.checkpoint {
            return Ok(true);
        }
        let (lowest, highest) = (self.checkpoint.clone(), self.highest());
        Err(CheckpointError::out_of_range(requested, lowest, highest))
    }

    /// The last position that may be checkpointed: the last record delivered, or the checkpoint in force if that is
    /// after it.
    pub(crate) fn highest(&self) -> Checkpoint {
        let delivered = self.delivered.clone().map(Checkpoint::At);
        let checkpoint = self.checkpoint.clone();
        delivered.map_or(checkpoint.clone(), |delivered| delivered.max(checkpoint))
    }

    /// The last record that `checkpoint()` covers. `None` if it is checkpointed.
    pub(crate) fn unwritten(&self) -> Option<ExtendedSequenceNumber> {
        let delivered = self.delivered.as_ref()?;
        (Checkpoint::At(delivered.clone()) > self.checkpoint).then(|| delivered.clone())
    }

    /// The checkpoint that a renewal of the lease writes beside the counter, at the same cost. `None` if there is no
    /// progress after `checkpoint`, which the lease has now.
    ///
    /// If a checkpoint is pending, no other is carried, because it would remove the pending one, which only the
    /// processor may commit.
    pub(crate) fn to_carry(
        &self,
        checkpoint: &Checkpoint,
        has_pending: bool,
    ) -> Option<Checkpoint> {
        let processed = Checkpoint::At(self.processed.clone()?);
        (!has_pending && processed > *checkpoint).then_some(processed)
    }

    /// Time since this worker saw the checkpoint move, or first saw it. `None`: it has not read or written the lease.
    pub(crate) fn since_checkpoint(&self, now: Duration) -> Option<Duration> {
        self.checkpoint_seen.map(|seen| now.saturating_sub(seen))
    }

    /// True if `SHARD_END` is checkpointed.
    pub(crate) fn has_ended(&self) -> bool {
        self.checkpoint == Checkpoint::ShardEnd
    }

    /// The last record that is checkpointed.
    pub(crate) fn checkpointed(&self) -> Option<ExtendedSequenceNumber> {
        match &self.checkpoint {
            Checkpoint::At(position) => Some(position.clone()),
            _ => None,
        }
    }

    /// The time up to which each record of the shard is checkpointed, or was not to be delivered. `None` if a
    /// fetched record is not, or if the tip was not reached yet.
    pub(crate) fn read_to(&self) -> Option<SystemTime> {
        let tip = self.processed_tip()?;
        self.unwritten().is_none().then_some(tip.reached)
    }

    /// The time up to which all records of the open shard were processed, and the last of them. `None` if a fetched record
    /// was not, or if the shard was not seen open at its tip.
    pub(crate) fn processed_to(&self) -> Option<(SystemTime, Option<&SequenceNumber>)> {
        let tip = self.processed_tip().filter(|tip| tip.was_open)?;
        Some((tip.reached, self.passed.as_ref()))
    }

    /// The last record delivered in a batch on which the processor has not failed.
    pub(crate) fn last_delivered(&self) -> Option<&ExtendedSequenceNumber> {
        self.delivered.as_ref()
    }

    /// The tip, if all records before it are processed.
    fn processed_tip(&self) -> Option<&Tip> {
        let tip = self.tip.as_ref()?;
        self.nothing_waits(tip).then_some(tip)
    }

    /// True if every record that was fetched is processed. The checkpoint does not decide this, because it may be within the
    /// aggregate that was fetched last.
    fn nothing_waits(&self, tip: &Tip) -> bool {
        let is_passed = |fetched| self.passed.as_ref().is_some_and(|passed| passed >= fetched);
        tip.fetched.as_ref().is_none_or(is_passed)
    }
}

#[cfg(test)]
mod tests;
