//! The conditional writes of a lease table as functions from one item to the next: pure.

use crate::lease::item::rounded_throughput;
use crate::lease::model::{Lease, Stamp};
use crate::lease::readback::Intent;
use crate::lease::store::{Progress, ShardFacts};

impl Intent<'_> {
    /// The item that this write by `process` leaves of `item`, for a caller that knows the lease as
    /// `known`; `None` if its condition does not hold.
    pub(crate) fn apply(self, process: u64, known: &Lease, item: &Lease) -> Option<Lease> {
        let counter_is_known = item.counter == known.counter;
        let owners_are_known =
            item.owner == known.owner && item.checkpoint_owner == known.checkpoint_owner;
        let holds = match self {
            Self::Renew { owner, .. } => counter_is_known && processed_by(item, known, owner),
            Self::Checkpoint { owner, .. } => counter_is_known && item.is_owned_by(owner),
            Self::Take { .. } => counter_is_known && owners_are_known,
            Self::Assign { released, .. } => owners_are_known && (counter_is_known || !released),
            Self::StartHandoff { .. } => {
                item.owner == known.owner && item.checkpoint_owner.is_none()
            }
            Self::Evict => counter_is_known && owners_are_known,
        };
        holds.then(|| self.written(process, known, item.clone()))
    }

    fn written(self, process: u64, known: &Lease, mut item: Lease) -> Lease {
        match self {
            Self::StartHandoff { .. } => {}
            Self::Renew { .. } | Self::Checkpoint { .. } | Self::Take { .. } => {
                if item.was_owned_by_another_library() {
                    item.read_to = None;
                }
                let stamp = Stamp::after(item.counter, process);
                item.counter = stamp.counter;
                item.stamp = Some(stamp);
            }
            Self::Assign { .. } | Self::Evict => item.counter = item.counter.wrapping_add(1),
        }
        match self {
            Self::Renew { throughput, .. } => set_throughput(&mut item, throughput),
            Self::Checkpoint { progress, .. } => set_progress(&mut item, progress),
            Self::Take { owner } => set_owner(&mut item, known.actual_owner(), owner),
            Self::Assign { to, released } => {
                set_owner(&mut item, known.owner.as_deref(), to);
                if released {
                    item.released_at = Some(known.counter.wrapping_add(1));
                }
            }
            Self::StartHandoff { to } => {
                item.owner = Some(to.to_owned());
                item.checkpoint_owner.clone_from(&known.owner);
            }
            Self::Evict => {
                item.checkpoint_owner = None;
                if !known.is_handoff_pending() {
                    item.owner = None;
                }
            }
        }
        item
    }
}

/// `owner` processes the shard, in the handoff that it knows of, or in none.
fn processed_by(item: &Lease, known: &Lease, owner: &str) -> bool {
    if known.is_handoff_pending() {
        item.checkpoint_owner.as_deref() == Some(owner)
    } else {
        item.owner.as_deref() == Some(owner) && item.checkpoint_owner.is_none()
    }
}

fn set_owner(item: &mut Lease, from: Option<&str>, owner: &str) {
    item.owner = Some(owner.to_owned());
    item.checkpoint_owner = None;
    if from.is_some_and(|from| from != owner) {
        item.owner_switches += 1;
    }
}

fn set_throughput(item: &mut Lease, throughput: Option<f64>) {
    if let Some(value) = throughput {
        item.throughput = Some(rounded_throughput(value));
    }
}

fn set_progress(item: &mut Lease, progress: &Progress) {
    item.checkpoint = progress.checkpoint.clone();
    item.pending.clone_from(&progress.pending);
    item.owner_switches = 0;
    set_throughput(item, progress.throughput);
    if !progress.checkpoint.is_initial() {
        item.resume_from = None;
    }
}

impl ShardFacts {
    /// The lease with these facts noted.
    pub(super) fn noted_in(&self, item: &Lease) -> Lease {
        let mut item = item.clone();
        match self {
            Self::Children(children) => item.children = children.iter().cloned().collect(),
            Self::HashKeyRange(range) => item.hash_key_range = Some(*range),
            Self::ReadTo(time) => item.read_to = Some(*time),
            Self::Stream(identity) => {
                item.stream.get_or_insert_with(|| identity.clone());
            }
        }
        item
    }
}
