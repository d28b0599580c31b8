//! The conditional writes of a lease table as functions from one item to the next: pure.

use kcl::Checkpoint;
use kcl::internals::{Intent, Lease, Progress, ShardFacts, Stamp, throughput};

/// The item that this write by `process` leaves of `item`, for a caller that knows the lease as
/// `known`; `None` if its condition does not hold.
pub fn apply(intent: Intent<'_>, process: u64, known: &Lease, item: &Lease) -> Option<Lease> {
    let counter_is_known = item.counter == known.counter;
    let owners_are_known =
        item.owner == known.owner && item.checkpoint_owner == known.checkpoint_owner;
    let holds = match intent {
        Intent::Renew { owner } => counter_is_known && processed_by(item, known, owner),
        Intent::Checkpoint { owner, .. } => counter_is_known && item.is_owned_by(owner),
        Intent::Take { .. } => counter_is_known && owners_are_known,
        Intent::Assign { released, .. } => owners_are_known && (counter_is_known || !released),
        Intent::StartHandoff { .. } => item.owner == known.owner && item.checkpoint_owner.is_none(),
        Intent::Evict => counter_is_known && owners_are_known,
    };
    holds.then(|| written(intent, process, known, item.clone()))
}

fn written(intent: Intent<'_>, process: u64, known: &Lease, mut item: Lease) -> Lease {
    match intent {
        Intent::StartHandoff { .. } => {}
        Intent::Renew { .. } | Intent::Checkpoint { .. } | Intent::Take { .. } => {
            if item.was_owned_by_another_library() {
                item.read_to = None;
            }
            let stamp = Stamp::after(item.counter, process);
            item.counter = stamp.counter;
            item.stamp = Some(stamp);
        }
        Intent::Assign { .. } | Intent::Evict => item.counter = item.counter.wrapping_add(1),
    }
    match intent {
        Intent::Renew { .. } => {}
        Intent::Checkpoint { progress, .. } => set_progress(&mut item, progress),
        Intent::Take { owner } => set_owner(&mut item, known.actual_owner(), owner),
        Intent::Assign { to, released } => {
            set_owner(&mut item, known.owner.as_deref(), to);
            if released {
                item.released_at = Some(known.counter.wrapping_add(1));
            }
        }
        Intent::StartHandoff { to } => {
            item.owner = Some(to.to_owned());
            item.checkpoint_owner.clone_from(&known.owner);
        }
        Intent::Evict => {
            item.checkpoint_owner = None;
            if !known.is_handoff_pending() {
                item.owner = None;
            }
        }
    }
    item
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

/// Sets the throughput as it is read back: rounded.
pub(super) fn set_throughput(item: &mut Lease, kib_per_second: Option<f64>) {
    if let Some(value) = kib_per_second {
        let written = throughput(value);
        item.throughput = written.as_n().ok().and_then(|number| number.parse().ok());
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

/// The lease with these facts noted.
pub(super) fn noted(facts: &ShardFacts, item: &Lease) -> Lease {
    let mut item = item.clone();
    match facts {
        ShardFacts::Children(children) => item.children = children.iter().cloned().collect(),
        ShardFacts::HashKeyRange(range) => item.hash_key_range = Some(*range),
        ShardFacts::ReadTo(time) => item.read_to = Some(*time),
        ShardFacts::Stream(identity) => {
            item.stream.get_or_insert_with(|| identity.clone());
        }
    }
    item
}

/// Whether both are the same text in the attribute `checkpoint`, which has no sub-sequence number.
pub(super) fn same_text(a: &Checkpoint, b: &Checkpoint) -> bool {
    match (a, b) {
        (Checkpoint::At(a), Checkpoint::At(b)) => a.sequence_number == b.sequence_number,
        (a, b) => a == b,
    }
}
