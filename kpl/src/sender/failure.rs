//! How records fail, in ordered mode together with the later records of their keys.
//!
//! A failure is decided and becomes visible in one turn of the sender. In ordered mode the intakes of the keys are
//! locked meanwhile, so that no later record of a key is accepted between the failure of the first record and that of
//! the records after it. Work that takes time is left to later turns: see [`FailedRecord`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Sender;
use crate::aggregate::failed::FailedRecord;
use crate::aggregate::kinesis_record::KinesisRecord;
use crate::clock::{self, Instant};
use crate::config::{OnGap, RecordOrdering};
use crate::error::{FailureCause, Source};
use crate::sender::ordering::Gaps;

/// Number of user records whose failure is completed in one turn, before other tasks of the runtime run. A thousand
/// take a millisecond. Few in tests, so that random histories meet records that are not completed yet.
const COMPLETED_AT_A_TIME: usize = if cfg!(test) { 8 } else { 1000 };

/// A record with members that are about to fail. It is not under way.
pub(super) struct Failing {
    record: KinesisRecord,
    losses: Vec<Loss>,
}

/// Members of a record that fail for the same cause.
struct Loss {
    /// Positions of the members in the record, ascending.
    places: Vec<u32>,
    cause: FailureCause,
    source: Option<Source>,
}

/// What metrics and logs need to know of a loss.
struct Note {
    shard: Option<Arc<str>>,
    user_records: usize,
    attempts: u32,
    cause: FailureCause,
}

/// A record all of whose members fail in a later turn, and why. `None`: it expired.
pub(super) type ToFail = (KinesisRecord, Option<(FailureCause, Option<Source>)>);

impl Failing {
    fn whole(record: KinesisRecord, cause: FailureCause, source: Option<Source>) -> Self {
        let places = (0..record.members.len() as u32).collect();
        Self { record, losses: vec![Loss { places, cause, source }] }
    }

    /// A record with expired members. Their times to live may differ.
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
        if !self.fails_successors() {
            let cause = |record| (record, Some((cause.clone(), source.cloned())));
            self.to_fail.extend(records.into_iter().map(cause));
            return;
        }
        let fail = |record| Failing::whole(record, cause.clone(), source.cloned());
        self.fail_all(records.into_iter().map(fail).collect());
    }

    /// Fails the expired members, and wakes the sender, because other records may have waited for them.
    pub(super) fn expire(&mut self, records: Vec<KinesisRecord>) {
        if records.is_empty() {
            return;
        }
        let (now, ttl) = (clock::now(), self.context.config.record_ttl);
        let mut failing = Vec::new();
        for record in records {
            // A record that fails in part must be marked now: its other members keep their place in the order.
            match !self.fails_successors() && record.lifetimes.are_equal() {
                true => self.to_fail.push_back((record, None)),
                false => failing.push(Failing::expired(record, ttl, now)),
            }
        }
        self.fail_all(failing);
        self.context.wake.notify_one();
    }

    /// Whether later records of the key of a failed record fail, too, and at the same moment.
    fn fails_successors(&self) -> bool {
        let config = &self.context.config;
        config.ordering == RecordOrdering::PerPartitionKey && config.on_gap == OnGap::FailSuccessors
    }

    /// Fails members. In ordered mode each call walks over all waiting records, so records that fail together belong
    /// into one call.
    fn fail_all(&mut self, failing: Vec<Failing>) {
        if self.fails_successors() {
            return self.fail_with_successors(failing);
        }
        let mut notes = Vec::new();
        let failed = failing.into_iter().map(|failing| self.mark(failing, &mut notes)).collect();
        self.note(notes);
        self.complete_later(failed);
    }

    /// Fails members and the later records of their keys. No record of these keys is accepted meanwhile: each record
    /// was either accepted before the failure, and fails too, or after the failure became visible.
    fn fail_with_successors(&mut self, failing: Vec<Failing>) {
        let spans = failing.iter().map(|failing| failing.record.span);
        let Some(span) = spans.reduce(|all, span| all.union(span)) else {
            return;
        };
        // Before the intakes are locked: a full buffer may fail.
        let mut gaps = Gaps::default();
        for Failing { record, losses } in &failing {
            for loss in losses {
                let keys = loss.places.iter().map(|place| {
                    (record.hash_keys()[*place as usize], record.sequence + u64::from(*place))
                });
                gaps.open(keys, &loss.cause);
            }
        }
        let shards = Arc::clone(&self.shards);
        let table = Arc::clone(&self.table);
        let Some(mut locked) = shards.lock_intakes(&table, span) else {
            // A new shard map is in place: the records of the old queues move first.
            let ready = self.apply_shard_map();
            ready.iter().for_each(|intake| shards.add_ready(intake));
            return self.fail_with_successors(failing);
        };
        for (queue_id, aggregates) in locked.take_all() {
            self.seal_all(aggregates, queue_id);
        }
        let mut notes = Vec::new();
        let mut failed: Vec<_> =
            failing.into_iter().map(|failing| self.mark(failing, &mut notes)).collect();
        // Records that fail in part, now or before: their other members may come after a gap, too.
        let mut earlier = std::mem::take(&mut self.failed);
        for part in failed.iter_mut().chain(&mut earlier).filter(|failed| !failed.is_whole()) {
            let losses = successors(&part.record, |place| part.has_failed(place), &gaps);
            self.mark_losses(part, losses, &mut notes);
        }
        self.failed = earlier;
        let touched: Vec<_> = table.intakes_in(span).map(|intake| intake.id).collect();
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
        // Not while the intakes are locked: a logger runs foreign code, which may send records.
        self.note(notes);
        self.complete_later(failed);
        touched.into_iter().for_each(|queue_id| self.note_if_empty(queue_id));
    }

    /// Fails members: each `Delivery` resolves from now on.
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

    /// Counts and logs failures.
    fn note(&mut self, notes: Vec<Note>) {
        for note in notes {
            let (user_records, shard) = (note.user_records, note.shard.as_ref());
            self.meter.failed(user_records, note.attempts, shard, &note.cause);
            if matches!(note.cause, FailureCause::Expired { .. }) {
                let counters = &self.context.outcomes.counters;
                counters.user_records_expired.add(user_records);
                self.logs.records_expired.add(user_records);
            } else {
                self.logs.records_failed.add(user_records);
                self.logs.last_code = Some(note.cause.code());
            }
        }
        self.logs.tell_of_losses(clock::now());
    }

    /// Queues failed members for completion in later turns. The other members of such a record count as under way until
    /// then, so that no later record overtakes them in ordered mode.
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
                // The queue is gone, and its successors do not wait for this record: it is completed now.
                (false, None) => self.complete(failed),
            }
        }
    }

    /// Whether failed records are left for later turns.
    pub(super) fn has_failed_records(&self) -> bool {
        !(self.failed.is_empty() && self.to_fail.is_empty())
    }

    /// Fails and completes a number of members.
    pub(super) fn complete_some_failed(&mut self) {
        let (now, ttl) = (clock::now(), self.context.config.record_ttl);
        let (mut members, mut failed, mut notes) = (0, Vec::new(), Vec::new());
        while members < COMPLETED_AT_A_TIME {
            let next = if let Some(next) = self.failed.pop_front() {
                next
            } else if let Some((record, cause)) = self.to_fail.pop_front() {
                let failing = match cause {
                    Some((cause, source)) => Failing::whole(record, cause, source),
                    None => Failing::expired(record, ttl, now),
                };
                self.mark(failing, &mut notes)
            } else {
                break;
            };
            members += next.record.members.len();
            failed.push(next);
        }
        self.note(notes);
        failed.into_iter().for_each(|failed| self.complete(failed));
    }

    fn complete(&mut self, failed: FailedRecord) {
        let (queue_id, is_under_way) = (failed.record.queue_id, failed.is_under_way);
        match failed.complete(&mut self.sealer) {
            Some(left) => self.requeue(left, clock::now()),
            // The other members have failed in the meantime.
            None if is_under_way => self.leave(queue_id),
            None => {}
        }
    }
}

/// The members of a record that come after a gap and have not failed, by the cause of the gap.
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
