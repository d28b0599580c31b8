//! Aggregates that wait for a queue that does not aggregate: each is taken apart when its turn comes.
//!
//! A record that travels alone takes much more memory than its bytes count in an aggregate. A buffer full of aggregates must
//! stay within its bound when the stream begins to place records itself, or its map gets a gap.

use std::sync::Arc;

use super::Sender;
use crate::aggregate::fill::SealReason;
use crate::clock::Instant;
use crate::error::FailureCause;
use crate::sender::batch::Batch;

/// How many members leave their aggregate at a time: a full request.
const MEMBERS_AT_A_TIME: usize = 500;

/// No more leave theirs while so many records of the queue are under way.
const MOST_UNDER_WAY: usize = 5000;

impl Sender {
    /// Fills the batch; returns when a shard that is held back now may go on.
    pub(super) fn fill(&mut self, now: Instant) -> Option<Instant> {
        self.take_apart();
        loop {
            let filled = self.collector.fill(&mut self.queues, now);
            for record in filled.apart {
                let mut part = Batch::new(now);
                part.push(record);
                self.parts.push(part, now);
                // Parts may have had their turn already.
                self.shared.wake.notify_one();
            }
            if filled.to_seal.is_empty() {
                return filled.next_ready;
            }
            for id in filled.to_seal {
                if let Some(queue) = self.queues.get(&id) {
                    let intake = Arc::clone(&queue.intake);
                    self.fetch_open(&intake, SealReason::Linger);
                }
            }
        }
    }

    fn take_apart(&mut self) {
        let queue_id = self.router.unpredicted().id;
        let Some(queue) = self.queues.get_mut(&queue_id) else {
            return;
        };
        if queue.under_way >= MOST_UNDER_WAY {
            return;
        }
        let Some(aggregate) = queue.pop_aggregate() else {
            return;
        };
        let router = Arc::clone(&self.router);
        let mut parts = self.sealer.take_apart(aggregate, MEMBERS_AT_A_TIME);
        let refused: Vec<_> = parts.extract_if(.., |part| router.refuses(part).is_some()).collect();
        queue.put_first(parts);
        // What follows them in the queue is in its place.
        for part in refused {
            if let Some(invalid) = router.refuses(&part) {
                self.fail(part, FailureCause::StrategyChanged(invalid), None);
            }
        }
        self.freed(queue_id);
    }
}
