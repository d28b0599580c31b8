//! Checks of each change of a lease.

use std::time::Duration;

use kcl::Checkpoint;
use kcl::internals::Lease;

use super::shown::Shown;
use super::{JavaRule, Moved, Oracle, Progress, State};
use crate::memory::Watcher;
use crate::process::worker_id;
use crate::stream::record_at;

impl Oracle {
    /// Of the lease's checkpoint, and of the one that is prepared.
    fn check_checkpoints(&self, state: &mut State, now: Duration, by: &str, lease: &Lease) {
        let pending = lease.pending.as_ref().map(|pending| &pending.checkpoint);
        for checkpoint in pending.into_iter().chain([&lease.checkpoint]) {
            self.check_checkpoint(state, now, by, &lease.key, checkpoint);
        }
    }

    fn check_checkpoint(
        &self,
        state: &mut State,
        now: Duration,
        by: &str,
        shard: &str,
        at: &Checkpoint,
    ) {
        let delivered = state.shards.get(shard).map_or(0, Progress::delivered);
        let covered = match at {
            Checkpoint::At(at) => {
                let record = record_at(at);
                let upto = |records: &[u64]| records.partition_point(|n| *n <= record);
                let upto = self.stream.with(shard, |shard| upto(&shard.records));
                upto.is_some_and(|upto| upto <= delivered)
            }
            Checkpoint::ShardEnd => self.is_done(state, shard),
            _ => true,
        };
        if !covered {
            let what = format!("{by} checkpoints {shard} at {at}: not all before it was delivered");
            state.violation(now, &what);
        }
    }
}

impl Watcher for Oracle {
    fn changed(&self, by: &str, key: &str, before: Option<&Lease>, after: Option<&Lease>) {
        if before.is_none() && after.is_none() {
            return;
        }
        let now = self.clock.now();
        let mut state = self.state();
        state.note(now, &format!("table: {by}: {}", Shown(key, before, after)));
        if let (Some(before), Some(after)) = (before, after)
            && after.checkpoint < before.checkpoint
        {
            let (from, to) = (&before.checkpoint, &after.checkpoint);
            let what = format!("{by} takes the checkpoint of {key} back from {from} to {to}");
            state.violation(now, &what);
        }
        if let (Some(before), Some(after)) = (before, after)
            && (before.checkpoint != after.checkpoint || before.pending != after.pending)
            && before.actual_owner() != Some(worker_id(by))
        {
            let owner = before.actual_owner().unwrap_or("no worker");
            let what = format!("{by} checkpoints {key}, which {owner} processes");
            state.violation(now, &what);
        }
        if let Some(after) = after
            && before.is_none_or(|before| {
                before.checkpoint != after.checkpoint || before.pending != after.pending
            })
        {
            self.check_checkpoints(&mut state, now, by, after);
        }
        match (before, after) {
            (Some(before), None) if !before.has_ended() => {
                state.violation(now, &format!("{by} deletes the lease of unfinished {key}"));
            }
            (None, Some(after)) => {
                let progress = state.shards.entry(key.to_owned()).or_default();
                if progress.has_ended && !after.has_ended() {
                    let what = format!("{by} creates the lease of finished {key} again");
                    let looked = state.looked.get(&(by.to_owned(), key.to_owned()));
                    // A Java worker creates a lease on the condition that there is none. It may have
                    // decided so while the former lease existed, or before that was created.
                    if looked.is_some_and(|looked| Some(looked) < state.deleted.get(key)) {
                        state.window(now, JavaRule::OldLook, &what);
                    } else {
                        state.violation(now, &what);
                    }
                }
            }
            _ => {}
        }
        if after.is_some_and(Lease::has_ended) {
            state.shards.entry(key.to_owned()).or_default().has_ended = true;
        }
        if let Some(after) = after
            && before.is_none_or(|before| before.counter != after.counter)
        {
            let owner = before.and_then(Lease::actual_owner);
            let gives = owner != after.actual_owner();
            let moved = Moved { at: now, gives };
            state.moved.insert((key.to_owned(), after.counter), moved);
        }
        if after.is_none() {
            state.deleted.insert(key.to_owned(), now);
        }
        state.pass(now, by, key, before, after);
        match after {
            Some(lease) => state.leases.insert(key.to_owned(), lease.clone()),
            None => state.leases.remove(key),
        };
        let changes_cover = before.map(Lease::has_ended) != after.map(Lease::has_ended);
        if changes_cover {
            state.check_cover(now);
        }
        state.check_overlaps(now);
    }
}
