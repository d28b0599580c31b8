//! Progress that rides on a renewal: pure.

use crate::checkpoint::Checkpoint;
use crate::lease::model::Lease;
use crate::sequence::ExtendedSequenceNumber;

/// The checkpoint that a renewal of `lease` writes beside the counter, at the same cost. `processed`:
/// what the processor has taken, if the library writes its checkpoints.
///
/// `None` also under a pending checkpoint: that is the processor's to commit, and a checkpoint would
/// remove it.
pub(super) fn carried(
    lease: &Lease,
    processed: Option<&ExtendedSequenceNumber>,
) -> Option<Checkpoint> {
    let processed = Checkpoint::At(processed?.clone());
    (lease.pending.is_none() && processed > lease.checkpoint).then_some(processed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::model::PendingCheckpoint;

    fn position(sequence: u64, sub_sequence: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(sequence.to_string().parse().unwrap(), sub_sequence)
    }

    #[test]
    fn only_what_is_further_than_the_checkpoint_rides() {
        let at = |sequence, sub| Checkpoint::At(position(sequence, sub));
        for (checkpoint, processed, rides) in [
            (Checkpoint::TrimHorizon, position(5, 2), true),
            (Checkpoint::Latest, position(5, 2), true),
            (Checkpoint::AtTimestamp, position(5, 2), true),
            (at(4, 9), position(5, 2), true),
            (at(5, 1), position(5, 2), true),
            (at(5, 2), position(5, 2), false),
            (at(5, 3), position(5, 2), false),
            (at(6, 0), position(5, 2), false),
            (Checkpoint::ShardEnd, position(5, 2), false),
        ] {
            let lease = Lease::new("shardId-0", checkpoint);
            assert_eq!(carried(&lease, None), None);
            assert_eq!(
                carried(&lease, Some(&processed)),
                rides.then_some(Checkpoint::At(processed)),
                "{:?}",
                lease.checkpoint
            );
        }
    }

    #[test]
    fn a_pending_checkpoint_is_left_alone() {
        let pending = PendingCheckpoint { checkpoint: Checkpoint::At(position(3, 0)), state: None };
        let lease =
            Lease { pending: Some(pending), ..Lease::new("shardId-0", Checkpoint::TrimHorizon) };
        assert_eq!(carried(&lease, Some(&position(5, 0))), None);
    }
}
