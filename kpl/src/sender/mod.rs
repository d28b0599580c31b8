//! The sender of one producer: the task that sends its buffered records.
//!
//! ```text
//! send -> ShardRouter -> Intake (open aggregate) -> Sealer
//!                                                     |
//!      +----------------------------------------------+
//!      v
//! ShardQueue (limiter) -> Collector -> PutRecords -> response
//!      ^                                                 |
//!      +-- backoff <-- throttled, transient -------------+-> delivered
//!      +-- split by shard <-- wrong shard, fresh map ----+-> failed
//!                                                        |
//!      PutRecords <-- isolated requests <-- the whole request failed
//! ```
//! The task owns each sealed record until the record is completed. The requests that it spawns hold only bytes.
//!
//! * [`fetch`]: from the intakes into the queues of the shards, as the shard map changes.
//! * [`batch`]: which records share a request.
//! * [`request`]: when a request starts, and how large it is.
//! * [`response`]: what each entry of a response means. *A record is sent again* if the service throttled it or failed
//!   for a moment ([`response`]), if the whole request failed ([`isolation`]), or if the shard that took it may not
//!   keep it ([`confirmation`]); in each case until its time to live is over.
//! * [`failure`]: how records fail, in ordered mode with the later records of their keys ([`ordering`]).

mod batch;
mod confirmation;
mod failure;
mod fatal_errors;
mod fetch;
mod isolation;
mod ordering;
mod request;
mod request_limit;
mod response;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use self::confirmation::Written;
use self::failure::ToFail;
use self::fatal_errors::{Confirmation, FatalErrors};
use self::isolation::IsolatedRequests;
use self::request::RequestBackoff;
use crate::aggregate::builder::{SealReason, Sealer};
use crate::aggregate::failed::FailedRecord;
use crate::aggregate::kinesis_record::KinesisRecord;
use crate::buffer::QueueId;
use crate::clock::{self, Instant};
use crate::config::InvalidConfig;
use crate::context::Context;
use crate::error::{FailureCause, StopReason};
use crate::metrics::Meter;
use crate::sender::batch::{Batch, Collector, Queues};
use crate::sender::request_limit::RequestLimit;
use crate::sender::window::{SentRequest, Window};
use crate::service::{CallError, EntryOutcome, Service};
use crate::shard::router::{RoutingTable, ShardRouter};
use kinesis_common::log_gate::{LogGate, SumGate};

/// Shortest time between two searches for expired records: how precisely a time to live is kept.
const MIN_EXPIRY_SWEEP: Duration = Duration::from_millis(5);
/// Longest time between two searches for expired records.
const MAX_EXPIRY_SWEEP: Duration = Duration::from_secs(1);

/// Number of user records that are abandoned before other tasks of the runtime run.
const ABANDONED_AT_A_TIME: usize = 1000;

/// The task that seals, sends and completes the records of a producer.
pub(crate) struct Sender {
    context: Arc<Context>,
    shards: Arc<ShardRouter>,
    service: Arc<dyn Service>,
    rng: fastrand::Rng,
    pub(crate) meter: Meter,
    logs: Logs,
    table: Arc<RoutingTable>,
    sealer: Sealer,
    queues: Queues,
    collector: Collector,
    /// Queues that became empty since the last fetch: no record waits or is under way.
    freed: Vec<QueueId>,
    /// When the open aggregate of a queue must be checked next; at most one entry a queue.
    timers: BTreeSet<(Instant, QueueId)>,
    /// Records that wait to be sent again, by the time when they are due, their sequence, and a unique number.
    backing_off: BTreeMap<(Instant, u64, u64), Box<KinesisRecord>>,
    /// Requests whose records are sent apart from all others.
    isolated: IsolatedRequests,
    /// When the service last answered a request.
    last_answer: Option<Instant>,
    /// Records that were written, and whose shard check waits for a fresh shard map.
    unconfirmed: Vec<Written>,
    /// Records with failed members. They are completed some at a time.
    failed: VecDeque<FailedRecord>,
    /// Records that fail as a whole in a later turn. Empty if later records of their keys fail with them.
    to_fail: VecDeque<ToFail>,
    requests: JoinSet<(u64, Result<Vec<EntryOutcome>, CallError>)>,
    in_flight: HashMap<u64, InFlight>,
    window: Window,
    request_limit: RequestLimit,
    backoff: RequestBackoff,
    fatal_errors: FatalErrors,
    /// The call of DescribeStreamSummary after PutRecords did not find the stream.
    confirming: JoinSet<Confirmation>,
    next_sweep: Instant,
    next_number: u64,
}

/// A rate limit for each kind of warning.
#[derive(Default)]
struct Logs {
    request_failed: LogGate,
    records_failed: SumGate,
    records_expired: SumGate,
    /// Error code of the last failed record.
    last_code: Option<Arc<str>>,
}

impl Logs {
    /// Logs the number of failed and expired records, where the rate limit allows it.
    fn tell_of_losses(&mut self, now: Instant) {
        if let Some(user_records) = self.records_expired.pass(now) {
            tracing::warn!(
                user_records,
                "records expired: `record_ttl` passed before they were delivered"
            );
        }
        if let Some(user_records) = self.records_failed.pass(now) {
            tracing::warn!(
                user_records,
                code = self.last_code.as_deref(),
                "records failed: each error goes to its `Delivery`, or to `on_failure`"
            );
        }
    }

    /// When the rate limit allows the next warning about records that have failed.
    fn due(&self) -> Option<Instant> {
        let due = [self.records_expired.due(), self.records_failed.due()];
        due.into_iter().flatten().min()
    }
}

/// A request that the service has not answered.
struct InFlight {
    batch: Batch,
    sent: SentRequest,
}

type Answered = Result<(u64, Result<Vec<EntryOutcome>, CallError>), JoinError>;

impl Sender {
    pub(crate) fn new(
        context: Arc<Context>,
        shards: Arc<ShardRouter>,
        service: Arc<dyn Service>,
        seed: u64,
    ) -> Result<Self, InvalidConfig> {
        let config = &context.config;
        Ok(Self {
            service,
            rng: fastrand::Rng::with_seed(seed),
            meter: Meter::new(Arc::clone(&context.telemetry)),
            logs: Logs::default(),
            table: shards.table(),
            sealer: Sealer::new(config)?,
            queues: Queues::new(),
            collector: Collector::new(config),
            freed: Vec::new(),
            timers: BTreeSet::new(),
            backing_off: BTreeMap::new(),
            isolated: IsolatedRequests::default(),
            last_answer: None,
            unconfirmed: Vec::new(),
            failed: VecDeque::new(),
            to_fail: VecDeque::new(),
            requests: JoinSet::new(),
            in_flight: HashMap::new(),
            window: Window::new(config),
            request_limit: RequestLimit::new(config.collection_max_size),
            backoff: RequestBackoff::default(),
            fatal_errors: FatalErrors::new(context.config.record_ttl),
            confirming: JoinSet::new(),
            next_sweep: clock::now(),
            next_number: 0,
            context,
            shards,
        })
    }

    /// Runs until the producer is stopped. Records without an outcome then fail as abandoned.
    pub(crate) async fn run(&mut self) {
        let cancel = self.context.cancel.clone();
        loop {
            let now = clock::now();
            self.intake(now);
            let next = self.advance(now);
            if self.has_failed_records() {
                tokio::task::yield_now().await;
            }
            let next = next.into_iter().chain(self.measure(now)).min();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(answer) = self.requests.join_next() => self.on_answer(answer),
                Some(Ok(confirmation)) = self.confirming.join_next() => {
                    self.on_confirmation(confirmation);
                }
                Some(()) = self.sealer.compressors.finished() => {}
                () = self.context.wake.notified() => {}
                () = self.context.budget.must_yield() => {}
                () = tokio::time::sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            }
            while let Some(answer) = self.requests.try_join_next() {
                self.on_answer(answer);
            }
        }
        self.abandon_all().await;
        self.logs.records_expired.open();
        self.logs.records_failed.open();
        self.logs.tell_of_losses(clock::now());
        self.meter.end();
        self.measure(clock::now());
    }

    fn measure(&mut self, now: Instant) -> Option<Instant> {
        let context = &self.context;
        self.meter.turn(
            now,
            &context.outcomes.counters,
            context.budget.used(),
            self.window.in_flight(),
        )
    }

    /// Does everything that is due. Returns when the next thing is due.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        self.check_due(now);
        self.end_backoffs(now);
        self.sweep_expired(now);
        self.complete_some_failed();
        self.logs.tell_of_losses(now);
        let blocked = self.start_requests(now);
        self.sealer.compressors.start();
        let must_sweep = self.collector.is_waiting()
            || self.collector.batch().is_some()
            || !self.isolated.is_empty()
            || !self.unconfirmed.is_empty();
        [
            blocked,
            self.timers.first().map(|(due, _)| *due),
            self.backing_off.first_key_value().map(|((due, ..), _)| *due),
            must_sweep.then_some(self.next_sweep),
            self.has_failed_records().then_some(now),
            self.logs.due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn check_due(&mut self, now: Instant) {
        while let Some((_, id)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.pop_first();
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.timer = None;
                let intake = Arc::clone(&queue.intake);
                self.check_open(&intake, now);
            }
        }
    }

    /// Sets the time at which the open aggregate of a queue is checked, unless an earlier time is set.
    fn set_timer(&mut self, id: QueueId, due: Instant) {
        if let Some(queue) = self.queues.get_mut(&id)
            && queue.timer.is_none_or(|set| due < set)
        {
            if let Some(set) = queue.timer.replace(due) {
                self.timers.remove(&(set, id));
            }
            self.timers.insert((due, id));
        }
    }

    fn end_backoffs(&mut self, now: Instant) {
        while let Some(entry) = self.backing_off.first_entry().filter(|entry| entry.key().0 <= now)
        {
            let record = entry.remove();
            self.requeue(*record, now);
        }
    }

    /// Fails expired records. Does not run on every turn, because it walks over every queue.
    fn sweep_expired(&mut self, now: Instant) {
        if now < self.next_sweep {
            return;
        }
        let ttl = self.context.config.record_ttl;
        let pause = (ttl / 20).clamp(MIN_EXPIRY_SWEEP, MAX_EXPIRY_SWEEP);
        let (mut expired, next) = self.collector.expired(&mut self.queues, now);
        self.next_sweep =
            next.map_or(now + pause, |next| next.min(now + pause)).max(now + MIN_EXPIRY_SWEEP);
        expired.iter().for_each(|record| self.note_if_empty(record.queue_id));
        // Collected records wait for room in flight, or for the end of a pause after a failure.
        let mut collected = self.collector.expired_in_batch(now);
        for batch in self.isolated.batches().filter(|batch| batch.has_expired(now)) {
            collected.extend(batch.take_expired(now));
        }
        self.isolated.drop_empty();
        let isolated = self.isolated.batches().filter_map(|batch| batch.expires()).min();
        collected.iter().for_each(|record| self.leave(record.queue_id));
        expired.extend(collected);
        expired.extend(self.give_up_unconfirmed(now));
        let unconfirmed = self.unconfirmed.iter().map(Written::gives_up).min();
        let others = isolated.into_iter().chain(unconfirmed).min();
        self.next_sweep = others
            .map_or(self.next_sweep, |next| next.min(self.next_sweep))
            .max(now + MIN_EXPIRY_SWEEP);
        self.expire(expired);
    }

    /// Puts a record that was in flight back into its queue, from which it is sent again. If its time to live is over,
    /// it fails.
    fn requeue(&mut self, record: KinesisRecord, now: Instant) {
        let id = record.queue_id;
        if record.expires() <= now {
            self.leave(id);
            self.expire(vec![record]);
        } else if self.table.has(id) {
            // The record waits in the queue before the queue is checked for being empty.
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.under_way -= 1;
            }
            self.enqueue(record);
            self.note_if_empty(id);
        } else {
            self.leave(id);
            self.enqueue(record);
        }
    }

    /// Notes that one record of a queue is no longer under way.
    fn leave(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.under_way -= 1;
            self.note_if_empty(id);
        }
    }

    /// Notes that a queue may be empty now. The queue of a closed shard is dropped then.
    fn note_if_empty(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id).filter(|queue| queue.is_free()) else {
            return;
        };
        if queue.intake.overdue(clock::now()).is_none() {
            queue.intake.shrink();
        }
        if self.table.has(id) {
            self.freed.push(id);
        } else {
            self.queues.remove(&id);
            self.collector.predecessors.remove(id);
        }
    }

    async fn abandon_all(&mut self) {
        let reason = self.context.stop_reason();
        self.sealer.compressors.stop();
        while self.has_failed_records() {
            self.complete_some_failed();
            tokio::task::yield_now().await;
        }
        let intakes: Vec<_> =
            self.shards.table().intakes().cloned().chain(self.shards.take_ready()).collect();
        let mut left: Vec<KinesisRecord> = Vec::new();
        for intake in intakes.iter().chain(self.queues.values().map(|queue| &queue.intake)) {
            left.extend(
                intake
                    .fetch_all(SealReason::Flush)
                    .into_iter()
                    .map(|open| self.sealer.seal(open, intake.id)),
            );
        }
        let batches = self.in_flight.drain().map(|(_, InFlight { mut batch, .. })| {
            batch.records.iter_mut().for_each(|record| record.history.may_have_been_written = true);
            batch
        });
        left.extend(
            batches
                .chain(self.isolated.drain())
                .chain(self.collector.take_batch())
                .flat_map(|b| b.records),
        );
        let backing_off = std::mem::take(&mut self.backing_off);
        left.extend(backing_off.into_values().map(|record| *record));
        left.extend(self.unconfirmed.drain(..).map(|mut written| {
            written.record.history.may_have_been_written = true;
            written.record
        }));
        for queue in self.queues.values_mut() {
            left.extend(self.collector.drain(queue));
        }
        let mut abandoned = 0;
        for record in left {
            abandoned += record.members.len();
            if abandoned >= ABANDONED_AT_A_TIME {
                abandoned = 0;
                tokio::task::yield_now().await;
            }
            let shard = self.predicted(&record);
            let (users, attempts) = (record.members.len(), record.history.attempts);
            let cause = FailureCause::Abandoned(reason.clone());
            self.meter.failed(users, attempts, shard.as_ref(), &cause);
            let mut failed = FailedRecord::new(record);
            let places: Vec<_> = (0..users as u32).collect();
            failed.fail(&places, cause, None);
            failed.complete(&mut self.sealer);
        }
    }
}

impl Drop for Sender {
    /// Stops the producer however this task ends, a panic included: `send` returns an error, and the open records are
    /// abandoned.
    fn drop(&mut self) {
        self.shards.stop(StopReason::RuntimeShutDown);
        for intake in self.shards.table().intakes().cloned().chain(self.shards.take_ready()) {
            drop(intake.fetch_all(SealReason::Flush));
        }
    }
}

#[cfg(test)]
mod tests;
