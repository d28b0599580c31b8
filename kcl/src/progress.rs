//! Which checkpoints a processor may write.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::sequence::ExtendedSequenceNumber;

/// The last checkpoint, and what has been delivered since.
///
/// The rule of the Java library: last checkpoint <= new <= last delivered; the same value again is
/// no write.
#[derive(Debug)]
pub(crate) struct Progress {
    last: Checkpoint,
    delivered: Option<ExtendedSequenceNumber>,
    /// What `delivered` was before the batch in hand.
    before_batch: Option<ExtendedSequenceNumber>,
}

impl Progress {
    pub(crate) fn new(last: Checkpoint) -> Self {
        Self { last, delivered: None, before_batch: None }
    }

    /// A batch up to `end` is handed out: the processor may checkpoint within it.
    pub(crate) fn deliver(&mut self, end: ExtendedSequenceNumber) {
        self.before_batch = self.delivered.replace(end);
    }

    /// The processor failed on the batch in hand: `checkpoint()` must not cover it.
    pub(crate) fn take_back(&mut self) {
        self.delivered = self.before_batch.take();
    }

    /// All that was delivered and not taken back, if it is more than the checkpoint.
    pub(crate) fn unwritten(&self) -> Option<ExtendedSequenceNumber> {
        let delivered = self.delivered.as_ref()?;
        let further = match &self.last {
            Checkpoint::At(last) => delivered > last,
            last => last.is_initial(),
        };
        further.then(|| delivered.clone())
    }

    /// Whether a checkpoint at `to` is to be written; false when it is there already.
    pub(crate) fn admit(&self, to: &ExtendedSequenceNumber) -> Result<bool, CheckpointError> {
        let requested = Checkpoint::At(to.clone());
        if requested == self.last {
            return Ok(false);
        }
        let delivered = self.delivered.as_ref().is_some_and(|delivered| to <= delivered);
        if delivered && requested > self.last {
            return Ok(true);
        }
        Err(CheckpointError::OutOfRange {
            highest: self
                .delivered
                .clone()
                .map_or_else(|| self.last.clone(), Checkpoint::At)
                .max(self.last.clone()),
            lowest: self.last.clone(),
            requested,
        })
    }

    pub(crate) fn written(&mut self, checkpoint: Checkpoint) {
        self.last = checkpoint;
    }

    /// The lease is at `checkpoint`: a renewal may have carried it there.
    pub(crate) fn found(&mut self, checkpoint: Checkpoint) {
        if checkpoint > self.last {
            self.last = checkpoint;
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.last == Checkpoint::ShardEnd
    }

    /// The last record that is checkpointed.
    pub(crate) fn done(&self) -> Option<ExtendedSequenceNumber> {
        match &self.last {
            Checkpoint::At(position) => Some(position.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence_number: u64, sub: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(sequence_number.to_string().parse().unwrap(), sub)
    }

    #[test]
    fn nothing_delivered_nothing_admitted() {
        let progress = Progress::new(Checkpoint::TrimHorizon);
        assert!(progress.admit(&at(1, 0)).is_err());
        assert_eq!(progress.unwritten(), None);
    }

    #[test]
    fn between_the_last_checkpoint_and_the_last_delivered() {
        let mut progress = Progress::new(Checkpoint::At(at(5, 1)));
        progress.deliver(at(9, 2));
        for (to, admitted) in [
            (at(5, 0), None),
            (at(5, 1), Some(false)),
            (at(5, 2), Some(true)),
            (at(7, 0), Some(true)),
            (at(9, 2), Some(true)),
            (at(9, 3), None),
            (at(10, 0), None),
        ] {
            match admitted {
                Some(write) => assert_eq!(progress.admit(&to).unwrap(), write, "{to}"),
                None => assert!(
                    matches!(progress.admit(&to), Err(CheckpointError::OutOfRange { .. })),
                    "{to}"
                ),
            }
        }
        assert_eq!(progress.unwritten(), Some(at(9, 2)));
        progress.written(Checkpoint::At(at(9, 2)));
        assert!(!progress.admit(&at(9, 2)).unwrap());
        assert!(progress.admit(&at(9, 1)).is_err());
        assert_eq!(progress.unwritten(), None);
    }

    #[test]
    fn a_failed_batch_is_not_covered_by_all_that_was_delivered() {
        let mut progress = Progress::new(Checkpoint::TrimHorizon);
        progress.deliver(at(3, 0));
        progress.deliver(at(6, 0));
        progress.take_back();
        assert_eq!(progress.unwritten(), Some(at(3, 0)));
        progress.deliver(at(6, 0));
        assert!(progress.admit(&at(4, 0)).unwrap());
        progress.written(Checkpoint::At(at(4, 0)));
        progress.take_back();
        assert_eq!(progress.unwritten(), None, "its own checkpoint is further");
        assert!(progress.admit(&at(5, 0)).is_err());
    }

    #[test]
    fn after_the_end_nothing_more() {
        let mut progress = Progress::new(Checkpoint::TrimHorizon);
        progress.deliver(at(3, 0));
        progress.written(Checkpoint::ShardEnd);
        assert!(progress.has_ended());
        assert!(progress.admit(&at(3, 0)).is_err());
        assert_eq!(progress.unwritten(), None);
    }
}
