//! How far one shard is: fetched, delivered, processed, checkpointed.
//!
//! A held lease has one [`ShardProgress`]. The shard's reader notes what it fetched, the consumer what the
//! processor was given and has taken, the renewer of the lease what it read and wrote. Rules that follow from
//! these facts are here too: which checkpoint is refused, what a renewal carries, up to when a shard was read.

mod lag;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use self::lag::Lag;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};

/// The progress of one shard, shared by the tasks that work on it.
#[derive(Debug, Clone)]
pub(crate) struct ShardProgress(Arc<Mutex<Progress>>);

impl ShardProgress {
    /// `checkpoint`: of the lease when this worker acquired it.
    pub(crate) fn new(checkpoint: Checkpoint) -> Self {
        Self(Arc::new(Mutex::new(Progress::new(checkpoint))))
    }

    /// Do not log, and do not call user code, while the guard is alive.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Progress> {
        // Each change is one assignment: a panic elsewhere cannot leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read that found no further record.
#[derive(Debug, Clone)]
pub(crate) struct Tip {
    /// Time of the answer by the service's clock. Each record that arrived before it was fetched.
    pub(crate) reached: SystemTime,
    /// The last record that the reader fetched under this lease.
    pub(crate) fetched: Option<SequenceNumber>,
}

/// The marks of one shard. They only rise, except `delivered` after a failed call.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The last time that the reader found no further record.
    tip: Option<Tip>,
    /// Age of the records that are not processed.
    lag: Lag,
    /// The last record given to the processor in a batch that it has not failed on.
    delivered: Option<ExtendedSequenceNumber>,
    /// What `delivered` was before the batch in hand.
    before_batch: Option<ExtendedSequenceNumber>,
    /// The last record of the pages that processing is done with. No record of it may have been delivered.
    passed: Option<SequenceNumber>,
    /// The last record that a renewal may checkpoint, because the library writes the checkpoints.
    processed: Option<ExtendedSequenceNumber>,
    /// Start time of the last renewal that wrote `processed` as the checkpoint.
    carried_at: Option<Duration>,
    /// The checkpoint in force, as far as this worker knows.
    checkpoint: Checkpoint,
}

impl Progress {
    fn new(checkpoint: Checkpoint) -> Self {
        Self {
            tip: None,
            lag: Lag::default(),
            delivered: None,
            before_batch: None,
            passed: None,
            processed: None,
            carried_at: None,
            checkpoint,
        }
    }
}

/// What the reader notes.
impl Progress {
    /// Notes an answer at `now`, which says that all was fetched up to `behind` before the tip.
    pub(crate) fn answered(&mut self, now: Duration, behind: Option<Duration>) {
        self.lag.answered(now, behind);
    }

    /// Notes a page with records. The last record is `behind` the tip, and arrived `spread` after the
    /// first.
    pub(crate) fn fetched(&mut self, now: Duration, behind: Option<Duration>, spread: Duration) {
        self.lag.fetched(now, behind, spread);
    }

    pub(crate) fn reached_tip(&mut self, tip: Tip) {
        self.tip = Some(tip);
    }
}

/// What the consumer notes.
impl Progress {
    /// Notes that the processor is given a batch up to `end`. It may now checkpoint up to there.
    pub(crate) fn delivered(&mut self, end: ExtendedSequenceNumber) {
        self.before_batch = self.delivered.replace(end);
    }

    /// Notes that the processor failed on the batch in hand: `checkpoint()` must not cover it.
    pub(crate) fn delivery_failed(&mut self) {
        self.delivered = self.before_batch.take();
    }

    /// Notes that processing is done with the oldest page. `last`: the page's last record, if it had any,
    /// whether or not a user record of it was delivered.
    pub(crate) fn page_processed(&mut self, last: Option<SequenceNumber>) {
        if last.is_some() {
            self.lag.processed();
            self.passed = last;
        }
    }

    /// Lets the next renewal checkpoint all that was delivered. For policies under which the library
    /// writes the checkpoints.
    pub(crate) fn offer_to_renewal(&mut self) {
        if let Some(position) = self.unwritten() {
            self.processed = Some(position);
        }
    }
}

/// What the renewer of the lease notes.
impl Progress {
    /// Notes the checkpoint of the lease as it was read or written. An older one takes nothing back.
    pub(crate) fn found(&mut self, checkpoint: &Checkpoint) {
        if *checkpoint > self.checkpoint {
            self.checkpoint = checkpoint.clone();
        }
    }

    /// Notes that a renewal which began at `began` moved the checkpoint.
    pub(crate) fn carried(&mut self, began: Duration) {
        self.carried_at = Some(began);
    }
}

impl Progress {
    /// Whether a checkpoint at `to` must be written. False if it is the checkpoint in force.
    ///
    /// The rule is that of the Java library: checkpoint in force <= `to` <= last delivered.
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
        Err(CheckpointError::OutOfRange { requested, lowest, highest })
    }

    /// The last position that may be checkpointed: the last record delivered, or the checkpoint in force if that is further.
    pub(crate) fn highest(&self) -> Checkpoint {
        let delivered = self.delivered.clone().map(Checkpoint::At);
        let checkpoint = self.checkpoint.clone();
        delivered.map_or(checkpoint.clone(), |delivered| delivered.max(checkpoint))
    }

    /// The last record that `checkpoint()` covers. `None` if it is checkpointed.
    pub(crate) fn unwritten(&self) -> Option<ExtendedSequenceNumber> {
        let delivered = self.delivered.as_ref()?;
        let further = match &self.checkpoint {
            Checkpoint::At(checkpointed) => delivered > checkpointed,
            checkpoint => checkpoint.is_initial(),
        };
        further.then(|| delivered.clone())
    }

    /// The checkpoint that a renewal of the lease writes beside the counter, at the same cost. The lease has
    /// `checkpoint` now. `None` if there is no progress after it.
    ///
    /// A pending checkpoint is the processor's to commit, and a checkpoint would remove it: nothing is
    /// carried then.
    pub(crate) fn to_carry(
        &self,
        checkpoint: &Checkpoint,
        has_pending: bool,
    ) -> Option<Checkpoint> {
        let processed = Checkpoint::At(self.processed.clone()?);
        (!has_pending && processed > *checkpoint).then_some(processed)
    }

    /// The start time of the last renewal that moved the checkpoint.
    pub(crate) fn carried_at(&self) -> Option<Duration> {
        self.carried_at
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

    /// The time up to which each record of the shard is done with: it is checkpointed, or was not to be
    /// delivered. `None` if records that were fetched are not done with, or the tip was not reached yet.
    pub(crate) fn read_to(&self) -> Option<SystemTime> {
        let tip = self.tip.as_ref()?;
        // The checkpoint does not tell: it may be within the aggregate that was fetched last.
        let nothing_waits = tip
            .fetched
            .as_ref()
            .is_none_or(|fetched| self.passed.as_ref().is_some_and(|passed| passed >= fetched));
        (nothing_waits && self.unwritten().is_none()).then_some(tip.reached)
    }

    /// How far the last answer was behind the tip. `None` if nothing was read yet, or the service did not say.
    pub(crate) fn behind(&self) -> Option<Duration> {
        self.lag.behind()
    }

    /// The age of the oldest record that is not processed, at most. `None`: nothing was read yet.
    pub(crate) fn lag(&self, now: Duration) -> Option<Duration> {
        self.lag.at(now)
    }
}

#[cfg(test)]
mod tests;
