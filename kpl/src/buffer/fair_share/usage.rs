//! The bytes that one producer holds, by shard.

use std::collections::BTreeSet;

use super::super::tournament::Tournament;
use super::{QueueId, Ticket};

/// The bytes that one producer holds, and its waiters.
#[derive(Debug)]
pub(super) struct Usage<S> {
    pub(super) signal: S,
    pub(super) used: usize,
    pub(super) peak: usize,
    /// Bytes by queue, without the permits.
    pub(super) held: Tournament<usize>,
    pub(super) held_by_permits: usize,
    /// The first waiter of each shard.
    pub(super) first_waiters: BTreeSet<Ticket>,
    /// Queues that were refused room since the pressure was last read.
    pub(super) refused: BTreeSet<QueueId>,
    /// Queues that got a waiter since the pressure was last read.
    pub(super) got_waiter: BTreeSet<QueueId>,
    /// Whether a shard of any producer was refused room that this producer may hold.
    pub(super) asked_by_others: bool,
    pub(super) closed: bool,
}

impl<S> Usage<S> {
    pub(super) fn new(signal: S) -> Self {
        Self {
            signal,
            used: 0,
            peak: 0,
            held: Tournament::new(),
            held_by_permits: 0,
            first_waiters: BTreeSet::new(),
            refused: BTreeSet::new(),
            got_waiter: BTreeSet::new(),
            asked_by_others: false,
            closed: false,
        }
    }

    pub(super) fn held(&self, queue_id: QueueId) -> usize {
        match queue_id {
            QueueId::PERMITS => self.held_by_permits,
            queue_id => self.held.get(queue_id.index()),
        }
    }

    pub(super) fn set_held(&mut self, queue_id: QueueId, bytes: usize) {
        match queue_id {
            QueueId::PERMITS => self.held_by_permits = bytes,
            queue_id => self.held.set(queue_id.index(), bytes),
        }
    }

    /// The queue that holds most, and how much. Permits do not count: they have no shard yet.
    pub(super) fn fullest(&self) -> (Option<QueueId>, usize) {
        let most = self.held.root();
        let queue_id = self.held.last(|held| held >= most.max(1));
        (queue_id.map(|queue_id| QueueId(queue_id as u32)), most)
    }
}
