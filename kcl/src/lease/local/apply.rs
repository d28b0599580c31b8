//! The conditional writes of a lease table as functions from one item to the next: pure.

use crate::checkpoint::Checkpoint;
use crate::lease::item::throughput;
use crate::lease::model::{Lease, Stamp};
use crate::lease::store::{LeaseWrite, OwnerReport, ShardFacts};

/// The item that this write by `process` leaves of `item`, for a caller that knows the lease as `known`. `None`: its
/// condition does not hold. `Some(None)`: the item is deleted.
pub fn apply(
    write: &LeaseWrite,
    process: u64,
    known: &Lease,
    item: Option<&Lease>,
) -> Option<Option<Lease>> {
    if *write == LeaseWrite::Create {
        return item.is_none().then(|| Some(known.clone()));
    }
    let item = item?;
    let counter_is_known = item.counter == known.counter;
    let owners_are_known =
        item.owner == known.owner && item.checkpoint_owner == known.checkpoint_owner;
    let holds = match write {
        LeaseWrite::Create => false,
        LeaseWrite::Renew { owner, .. } => counter_is_known && processed_by(item, known, owner),
        LeaseWrite::Checkpoint { owner, .. } | LeaseWrite::Move { owner, .. } => {
            counter_is_known && item.is_owned_by(owner)
        }
        LeaseWrite::Take { .. } | LeaseWrite::Evict | LeaseWrite::Replace { .. } => {
            counter_is_known && owners_are_known
        }
        LeaseWrite::Assign { released, .. } => owners_are_known && (counter_is_known || !released),
        LeaseWrite::StartHandoff { .. } => {
            item.owner == known.owner && item.checkpoint_owner.is_none()
        }
        LeaseWrite::SetFacts(ShardFacts::Stream(_)) => item.stream.is_none(),
        LeaseWrite::SetFacts(_) => true,
        LeaseWrite::Delete => same_text(&item.checkpoint, &known.checkpoint),
    };
    holds.then(|| written(write, process, known, item.clone()))
}

fn written(write: &LeaseWrite, process: u64, known: &Lease, mut item: Lease) -> Option<Lease> {
    match write {
        LeaseWrite::Renew { .. }
        | LeaseWrite::Checkpoint { .. }
        | LeaseWrite::Move { .. }
        | LeaseWrite::Take { .. } => {
            if item.was_owned_by_another_library() {
                item.read_to = None;
            }
            let stamp = Stamp::after(item.counter, process);
            item.counter = stamp.counter;
            item.stamp = Some(stamp);
        }
        LeaseWrite::Assign { .. } | LeaseWrite::Evict => {
            item.counter = item.counter.wrapping_add(1);
        }
        _ => {}
    }
    match write {
        LeaseWrite::Create | LeaseWrite::Delete => return None,
        LeaseWrite::Renew { report, .. } => set_report(&mut item, report),
        LeaseWrite::Checkpoint { checkpoint, pending, report, .. } => {
            item.checkpoint = checkpoint.clone();
            item.pending.clone_from(pending);
            item.owner_switches = 0;
            set_report(&mut item, report);
            if !checkpoint.is_initial() {
                item.resume_from = None;
            }
        }
        LeaseWrite::Move { checkpoint, resume_from, .. } => {
            item.checkpoint = checkpoint.clone();
            item.resume_from = *resume_from;
            (item.pending, item.read_to) = (None, None);
            if known.failing.is_some() {
                item.failing = None;
            }
            item.owner_switches = 0;
        }
        LeaseWrite::Take { owner } => set_owner(&mut item, known.actual_owner(), owner),
        LeaseWrite::Assign { to, released } => {
            set_owner(&mut item, known.owner.as_deref(), to);
            if *released {
                item.released_at = Some(known.counter.wrapping_add(1));
            }
        }
        LeaseWrite::StartHandoff { to } => {
            item.owner = Some(to.clone());
            item.checkpoint_owner.clone_from(&known.owner);
        }
        LeaseWrite::Evict => {
            item.checkpoint_owner = None;
            if !known.is_handoff_pending() {
                item.owner = None;
            }
        }
        LeaseWrite::Replace { new } => item = new.in_place_of(known, process),
        LeaseWrite::SetFacts(facts) => set_facts(&mut item, facts),
    }
    Some(item)
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

fn set_report(item: &mut Lease, report: &OwnerReport) {
    if let Some(value) = report.throughput {
        // As it is read back: rounded.
        let written = throughput(value);
        item.throughput = written.as_n().ok().and_then(|number| number.parse().ok());
    }
    if report.failing.is_some() {
        item.failing.clone_from(&report.failing);
    }
}

fn set_facts(item: &mut Lease, facts: &ShardFacts) {
    match facts {
        ShardFacts::Children(children) => item.children = children.iter().cloned().collect(),
        ShardFacts::HashKeyRange(range) => item.hash_key_range = Some(*range),
        ShardFacts::ReadTo(time) => item.read_to = Some(*time),
        ShardFacts::Stream(identity) => item.stream = Some(identity.clone()),
    }
}

/// Whether both are the same text in the attribute `checkpoint`, which has no sub-sequence number.
fn same_text(a: &Checkpoint, b: &Checkpoint) -> bool {
    a.as_str() == b.as_str()
}
