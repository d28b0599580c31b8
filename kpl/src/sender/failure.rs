//! How records fail; in ordered mode, with what was accepted behind them.
//!
//! That a record fails is decided, and can be seen, in one turn of the sender: no later record of its key may be accepted
//! between its failure and that of its successors. What takes time is left to later turns: see [`FailedRecord`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Sender;
use crate::aggregate::failed::FailedRecord;
use crate::aggregate::kinesis_record::KinesisRecord;
use crate::clock::{self, Instant};
use crate::config::{OnGap, RecordOrdering};
use crate::error::{FailureCause, Source};
use crate::sender::ordering::Gaps;

/// User records whose failure is completed in one turn, before other tasks of the runtime have theirs. A thousand take a
/// millisecond. In tests few, so that random histories meet records that are not completed yet.
const COMPLETED_AT_A_TIME: usize = if cfg!(test) { 8 } else { 1000 };

/// A record of which members are given up. Nothing of it is under way any more.
pub(super) struct Failing {
    record: KinesisRecord,
    losses: Vec<Loss>,
}

/// Members that fail for one cause.
struct Loss {
    /// Their places in the record, ascending.
    places: Vec<u32>,
    cause: FailureCause,
    source: Option<Source>,
}

/// What is measured and logged of a loss.
struct Note {
    shard: Option<Arc<str>>,
    user_records: usize,
    attempts: u32,
    cause: FailureCause,
}

impl Failing {
    fn whole(record: KinesisRecord, cause: FailureCause, source: Option<Source>) -> Self {
        let places = (0..record.members.len() as u32).collect();
        Self { record, losses: vec![Loss { places, cause, source }] }
    }

    /// A record of which members expired. The times to live of these may differ.
    fn expired(record: KinesisRecord, ttl: std::time::Duration, now: Instant) -> Self {
        let cause = |time_to_live: Option<_>| record.history.expired(time_to_live.unwrap_or(ttl));
        if record.lifetimes.are_equal() {
            let cause = cause(record.lifetimes.time_to_live(0));
            return Self::whole(record, cause, None);
        }
        let mut expired: BTreeMap<_, Vec<u32>> = BTreeMap::new();
        for place in 0..record.members.len() {
            if record.lifetimes.is_over(place, now) {
                let time_to_live = record.lifetimes.time_to_live(place);
                expired.entry(time_to_live).or_default().push(place as u32);
            }
        }
        let losses = expired.into_iter().map(|(time_to_live, places)| {
            let cause = cause(time_to_live);
            Loss { places, cause, source: None }
        });
        Self { losses: losses.collect(), record }
    }
}

impl Sender {
    pub(super) fn fail(
        &mut self,
        record: KinesisRecord,
        cause: FailureCause,
        source: Option<Source>,
    ) {
        self.fail_all(vec![Failing::whole(record, cause, source)]);
    }

    /// Fails records for one cause.
    pub(super) fn fail_together(
        &mut self,
        records: Vec<KinesisRecord>,
        cause: &FailureCause,
        source: Option<&Source>,
    ) {
        let fail = |record| Failing::whole(record, cause.clone(), source.cloned());
        self.fail_all(records.into_iter().map(fail).collect());
    }

    /// Fails the members whose time is over, and wakes the sender: others may have waited behind them.
    pub(super) fn expire(&mut self, records: Vec<KinesisRecord>) {
        if records.is_empty() {
            return;
        }
        let (now, ttl) = (clock::now(), self.shared.config.record_ttl);
        let failing = records.into_iter().map(|record| Failing::expired(record, ttl, now));
        self.fail_all(failing.collect());
        self.shared.wake.notify_one();
    }

    /// Gives members up. Records that fail together are to be given together: in ordered mode each call looks at all that
    /// waits.
    fn fail_all(&mut self, failing: Vec<Failing>) {
        let config = &self.shared.config;
        if config.ordering == RecordOrdering::PerPartitionKey
            && config.on_gap == OnGap::FailSuccessors
        {
            return self.fail_with_successors(failing);
        }
        let mut notes = Vec::new();
        let failed = failing.into_iter().map(|failing| self.mark(failing, &mut notes)).collect();
        self.note(notes);
        self.complete_later(failed);
    }

    /// The failures are seen while no record of their keys can enter: each record was accepted before that, and fails too,
    /// or after it.
    fn fail_with_successors(&mut self, failing: Vec<Failing>) {
        let spans = failing.iter().map(|failing| failing.record.span);
        let Some(span) = spans.reduce(|all, span| all.union(span)) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let router = Arc::clone(&self.router);
        let Some(mut locked) = shared.lock_intakes(&router, span) else {
            // Where the queues are others by now, what the old ones left goes first.
            let ready = self.follow_router();
            ready.iter().for_each(|intake| shared.add_ready(intake));
            return self.fail_with_successors(failing);
        };
        for (queue_id, aggregates) in locked.take_all() {
            self.seal_all(aggregates, queue_id);
        }
        let mut gaps = Gaps::default();
        for Failing { record, losses } in &failing {
            for loss in losses {
                let keys = loss.places.iter().map(|place| {
                    (record.hash_keys()[*place as usize], record.sequence + u64::from(*place))
                });
                gaps.open(keys, &loss.cause);
            }
        }
        let mut notes = Vec::new();
        let mut failed: Vec<_> =
            failing.into_iter().map(|failing| self.mark(failing, &mut notes)).collect();
        // The members that are left of records that fail in part: of these, and of those that failed before.
        let mut earlier = std::mem::take(&mut self.failed);
        for part in failed.iter_mut().chain(&mut earlier).filter(|failed| !failed.is_whole()) {
            let losses = successors(&part.record, |place| part.has_failed(place), &gaps);
            self.mark_losses(part, losses, &mut notes);
        }
        self.failed = earlier;
        let touched: Vec<_> = router.intakes_in(span).map(|intake| intake.id).collect();
        for queue_id in &touched {
            let waiting = self.queues.get_mut(queue_id).map(|queue| self.collector.drain(queue));
            for record in waiting.into_iter().flatten() {
                let losses = successors(&record, |_| false, &gaps);
                if !losses.is_empty() {
                    failed.push(self.mark(Failing { record, losses }, &mut notes));
                } else if let Some(queue) = self.queues.get_mut(queue_id) {
                    self.collector.enqueue(queue, record);
                }
            }
        }
        drop(locked);
        // A logger runs the code of others, which may send records: not before the queues are free.
        self.note(notes);
        self.complete_later(failed);
        touched.into_iter().for_each(|queue_id| self.freed(queue_id));
    }

    /// Has members fail: from now on each `Delivery` resolves.
    fn mark(&self, failing: Failing, notes: &mut Vec<Note>) -> FailedRecord {
        let mut failed = FailedRecord::new(failing.record);
        self.mark_losses(&mut failed, failing.losses, notes);
        failed
    }

    fn mark_losses(&self, failed: &mut FailedRecord, losses: Vec<Loss>, notes: &mut Vec<Note>) {
        for Loss { places, cause, source } in losses {
            notes.push(Note {
                shard: self.predicted(&failed.record),
                user_records: places.len(),
                attempts: failed.record.history.attempts,
                cause: cause.clone(),
            });
            failed.fail(&places, cause, source);
        }
    }

    /// Measures and logs what fails.
    fn note(&mut self, notes: Vec<Note>) {
        for note in notes {
            let (user_records, shard) = (note.user_records, note.shard.as_ref());
            self.meter.failed(user_records, note.attempts, shard, &note.cause);
            if matches!(note.cause, FailureCause::Expired { .. }) {
                let counters = &self.shared.outcomes.counters;
                counters.user_records_expired.add(user_records);
                self.logs.records_expired.add(user_records);
            } else {
                self.logs.records_failed.add(user_records);
                self.logs.last_code = Some(note.cause.code());
            }
        }
        self.logs.tell_of_losses(clock::now());
    }

    /// Leaves it to later turns to complete failed members. The other members of their records wait for that: they count as
    /// under way, so that nothing overtakes them in ordered mode.
    fn complete_later(&mut self, failed: Vec<FailedRecord>) {
        for mut failed in failed {
            let queue = self.queues.get_mut(&failed.record.queue_id);
            match (failed.is_whole(), queue) {
                (true, _) => self.failed.push_back(failed),
                (false, Some(queue)) => {
                    queue.under_way += 1;
                    failed.is_under_way = true;
                    self.failed.push_back(failed);
                }
                // Their queue is gone, and the queues that follow it do not wait for them.
                (false, None) => self.complete(failed),
            }
        }
    }

    /// Completes some of the failed members.
    pub(super) fn complete_some_failed(&mut self) {
        let mut members = 0;
        while members < COMPLETED_AT_A_TIME
            && let Some(failed) = self.failed.pop_front()
        {
            members += failed.record.members.len();
            self.complete(failed);
        }
    }

    fn complete(&mut self, failed: FailedRecord) {
        let (queue_id, is_under_way) = (failed.record.queue_id, failed.is_under_way);
        match failed.complete(&mut self.sealer) {
            Some(left) => self.requeue(left, clock::now()),
            // The members that were left have failed meanwhile.
            None if is_under_way => self.leave(queue_id),
            None => {}
        }
    }
}

/// The members that stand behind a gap and have not failed, by the cause of the gap.
fn successors(
    record: &KinesisRecord,
    has_failed: impl Fn(usize) -> bool,
    gaps: &Gaps,
) -> Vec<Loss> {
    let mut losses: Vec<Loss> = Vec::new();
    let mut by_cause = HashMap::new();
    for (place, key) in record.hash_keys().iter().enumerate() {
        if has_failed(place) {
            continue;
        }
        let Some(cause) = gaps.cause(*key, record.sequence + place as u64) else {
            continue;
        };
        let loss = *by_cause.entry(Arc::as_ptr(cause)).or_insert_with(|| {
            let cause = FailureCause::PredecessorFailed { cause: Arc::clone(cause) };
            losses.push(Loss { places: Vec::new(), cause, source: None });
            losses.len() - 1
        });
        losses[loss].places.push(place as u32);
    }
    losses
}
