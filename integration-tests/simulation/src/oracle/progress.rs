//! What was delivered of one shard.

/// Deliveries of a shard, over all ownerships.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Records from the first on without a gap.
    delivered: usize,
    /// The lease of the shard was at `SHARD_END` once.
    pub(super) has_ended: bool,
}

impl Progress {
    /// How many records were delivered, from the first on.
    pub(super) fn delivered(&self) -> usize {
        self.delivered
    }

    /// Takes in a delivery. Returns the fault, if there is one. `last`: the delivery before it in the same ownership.
    /// `done`: the checkpoint behind which the ownership may begin again.
    pub(super) fn deliver(
        &mut self,
        records: &[u64],
        last: Option<u64>,
        done: Option<u64>,
        sequence: u64,
    ) -> Option<&'static str> {
        let Ok(index) = records.binary_search(&sequence) else {
            return Some("delivered, and not in the stream");
        };
        if index > self.delivered {
            return Some("delivered before records that precede it: they are skipped");
        }
        self.delivered = self.delivered.max(index + 1);
        let before = index.checked_sub(1).map(|before| records[before]);
        match last {
            Some(_) if before.is_some() && before <= done => None,
            Some(last) if before != Some(last) => {
                Some("delivered out of order within an ownership")
            }
            _ => None,
        }
    }
}
