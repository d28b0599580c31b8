//! How records fail; in ordered mode, with what was accepted behind them.

use std::sync::Arc;

use super::Pipeline;
use crate::aggregate::kinesis_record::{Failed, KinesisRecord};
use crate::buffer::LaneId;
use crate::clock;
use crate::config::{OnGap, RecordOrdering};
use crate::error::{FailureCause, Source};
use crate::sender::ordering::Gaps;

/// A record that is given up. Nothing of it is under way any more.
pub(super) struct Failing {
    pub(super) record: KinesisRecord,
    pub(super) cause: FailureCause,
    pub(super) source: Option<Source>,
}

/// What is told of a failed record.
struct Loss {
    shard: Option<Arc<str>>,
    user_records: usize,
    attempts: u32,
    cause: FailureCause,
}

impl Pipeline {
    pub(super) fn fail(
        &mut self,
        record: KinesisRecord,
        cause: FailureCause,
        source: Option<Source>,
    ) {
        self.fail_all(vec![Failing { record, cause, source }]);
    }

    /// Gives records up. Who fails at once is to be given at once: in ordered mode each call looks at all that waits.
    pub(super) fn fail_all(&mut self, failing: Vec<Failing>) {
        let config = &self.shared.config;
        if config.ordering == RecordOrdering::PerPartitionKey
            && config.on_gap == OnGap::FailSuccessors
        {
            self.fail_with_successors(failing);
        } else {
            let losses = self.losses(&failing);
            self.note(losses);
            for Failing { record, cause, source } in failing {
                record.settle_failed(cause, source);
            }
        }
    }

    /// The failures are seen while no record of their keys can enter: each record was accepted before that, and fails too,
    /// or after it.
    fn fail_with_successors(&mut self, failing: Vec<Failing>) {
        let spans = failing.iter().map(|failing| failing.record.span);
        let Some(span) = spans.reduce(|all, span| all.union(span)) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let routing = Arc::clone(&self.routing);
        let Some(mut lanes) = shared.hold_lanes(&routing, span) else {
            // Where the lanes are others by now, what the old ones left goes first.
            let announced = self.follow_routing();
            announced.iter().for_each(|lane| shared.announce(lane));
            return self.fail_with_successors(failing);
        };
        for (lane, aggregates) in lanes.take_all() {
            self.seal_all(aggregates, lane);
        }
        let mut gaps = Gaps::default();
        for Failing { record, cause, .. } in &failing {
            gaps.open(record.hash_keys(), record.sequence, cause);
        }
        let touched: Vec<_> = routing.lanes_of(span).map(|lane| lane.id).collect();
        let mut successors = Vec::new();
        for lane in &touched {
            successors.extend(self.take_successors(*lane, &gaps));
        }
        let mut failing = failing;
        failing.extend(successors);
        let losses = self.losses(&failing);
        let mut failed = Vec::new();
        for Failing { record, cause, source } in failing {
            failed.push(record.fail(cause, source));
        }
        drop(lanes);
        // The code of others, loggers and wakers included, may send records: not before the lanes are free.
        self.note(losses);
        failed.into_iter().for_each(Failed::tell);
        touched.into_iter().for_each(|lane| self.freed(lane));
    }

    fn losses(&self, failing: &[Failing]) -> Vec<Loss> {
        let loss = |failing: &Failing| Loss {
            shard: self.predicted(&failing.record),
            user_records: failing.record.members.len(),
            attempts: failing.record.history.attempts,
            cause: failing.cause.clone(),
        };
        failing.iter().map(loss).collect()
    }

    /// Measures and logs what fails.
    fn note(&mut self, losses: Vec<Loss>) {
        for loss in losses {
            let (user_records, shard) = (loss.user_records, loss.shard.as_ref());
            self.meter.failed(user_records, loss.attempts, shard, &loss.cause);
            if matches!(loss.cause, FailureCause::Expired { .. }) {
                let counters = &self.shared.settlement.counters;
                counters.user_records_expired.add(user_records);
                self.logs.records_expired.add(user_records);
            } else {
                self.logs.records_failed.add(user_records);
                self.logs.last_code = Some(loss.cause.code());
            }
        }
        self.logs.tell_of_losses(clock::now());
    }

    /// Takes what stands in a gap out of what waits for a lane.
    fn take_successors(&mut self, lane: LaneId, gaps: &Gaps) -> Vec<Failing> {
        let mut successors = Vec::new();
        let Some(queue) = self.queues.get_mut(&lane) else {
            return successors;
        };
        for record in self.collector.drain(queue) {
            let sequence = record.sequence;
            let mut keys = record.hash_keys().iter();
            if keys.all(|key| gaps.cause(*key, sequence).is_none()) {
                self.collector.enqueue(queue, record);
                continue;
            }
            let parts = self.sealer.divide(record, |_, hash_key| {
                let cause = gaps.cause(hash_key, sequence);
                (cause.map(Arc::as_ptr), lane, true)
            });
            for (_, record) in parts {
                match gaps.cause(record.span.low, sequence).cloned() {
                    None => self.collector.enqueue(queue, record),
                    Some(cause) => successors.push(Failing {
                        record,
                        cause: FailureCause::PredecessorFailed { cause },
                        source: None,
                    }),
                }
            }
        }
        successors
    }
}
