//! Handling of a response: the outcome of each record of its request.
//!
//! Each entry of a response is one of these:
//! * Written: the record is delivered if the shard may keep it ([`confirmation`](super::confirmation)).
//! * Refused for a reason that passes: the record is sent again after a backoff, until it expires. A throttle of a
//!   shard slows down the limiter of that shard instead.
//! * Refused for its content: the record fails at once.
//! * Refused with a fatal code (no access, no such stream): the record is sent again until PutRecords has given only
//!   fatal errors for 10 s, and then fails at once ([`fatal_errors`](super::fatal_errors)).
//!
//! If a whole request fails, its records go back to their queues, and all are due at the same time. If one of them may
//! be the cause, the halves of the request are sent apart from all other records: [`isolation`](super::isolation). A
//! record also fails at once if it is alone in a request that is rejected, and at each throttle if `fail_if_throttled`
//! is set.

use std::collections::HashMap;
use std::sync::Arc;

use super::confirmation::ShardCheck;
use super::fatal_errors::FatalErrors;
use super::{Answered, InFlight, Sender};
use crate::aggregate::kinesis_record::KinesisRecord;
use crate::clock::{self, Instant};
use crate::error::{FailureCause, Source};
use crate::retry::{self, ErrorClass, PUT_BACKOFF};
use crate::sender::batch::Batch;
use crate::sender::window::RequestEnd;
use crate::service::{CallError, CallErrorKind, EntryOutcome};

/// The error of an entry, or of the whole request.
pub(super) struct Refusal {
    pub(super) class: ErrorClass,
    pub(super) code: Arc<str>,
    pub(super) message: Arc<str>,
    pub(super) may_have_been_written: bool,
    /// Whether the throughput of the shard is exceeded, and not a limit of the stream or the account.
    pub(super) is_of_shard: bool,
    /// Whether every record of the stream would be refused with this error.
    pub(super) is_of_stream: bool,
    pub(super) source: Option<Source>,
}

impl Refusal {
    fn of_entry(code: &str, message: &str) -> Self {
        let class = match retry::classify(code) {
            // The entry itself is refused, so splitting the request would not help: the record fails at once.
            ErrorClass::Rejected => ErrorClass::Fatal,
            class => class,
        };
        Self {
            may_have_been_written: retry::may_have_been_written(code),
            is_of_shard: retry::is_shard_throttle(code, message),
            is_of_stream: retry::is_of_stream(code, message),
            class,
            code: code.into(),
            message: message.into(),
            source: None,
        }
    }

    fn of_request(error: &CallError) -> Self {
        Self {
            class: error.class(),
            code: Arc::clone(&error.code),
            message: Arc::clone(&error.message),
            may_have_been_written: error.may_have_been_written,
            is_of_shard: false,
            is_of_stream: true,
            source: error.source.clone(),
        }
    }

    /// Turns a fatal error into a transient one until fatal errors have lasted long enough to be believed.
    fn unless_believed(mut self, fatal_errors: &mut FatalErrors, now: Instant) -> Self {
        // Only if the code itself is fatal: an entry that is refused for its content fails at once.
        if retry::classify(&self.code) == ErrorClass::Fatal && self.class == ErrorClass::Fatal {
            let (code, message) = (Arc::clone(&self.code), Arc::clone(&self.message));
            let cause = FailureCause::Fatal { code, message };
            if !fatal_errors.refused(cause, self.source.clone(), now) {
                self.class = ErrorClass::Transient;
            }
        }
        self
    }
}

impl Sender {
    /// Handles the end of a request: each of its records is delivered, sent again, or failed.
    pub(super) fn on_answer(&mut self, answer: Answered) {
        let (number, answer) = match answer {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                // This task panics, too, and its owner stops the producer with that reason.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => return,
            },
        };
        let Some(InFlight { batch, sent }) = self.in_flight.remove(&number) else {
            return;
        };
        self.isolated.in_flight -= usize::from(batch.is_isolated);
        let now = clock::now();
        let end = match &answer {
            Ok(_) => RequestEnd::Answered,
            Err(error) if error.kind == CallErrorKind::Timeout => RequestEnd::TimedOut,
            Err(_) => RequestEnd::Failed,
        };
        self.window.end(sent, end, now);
        if let Some(record) = batch.records.first() {
            let took = now.saturating_duration_since(record.history.started);
            self.meter.request(took, &batch.records);
        }
        if answer.is_ok()
            && let Some(limit) = self.request_limit.passed(batch.bytes, now)
        {
            tracing::warn!(
                limit,
                "PutRecords requests were refused as too large: from now on they have {limit} bytes of records at most"
            );
        }
        match answer {
            Ok(outcomes) if outcomes.len() == batch.records.len() => {
                let (mut is_refused_whole, is_isolated) = (true, batch.is_isolated);
                // Equal errors of one response share one text, because a full buffer may keep many attempts.
                let mut refusals = HashMap::new();
                for (mut record, outcome) in batch.records.into_iter().zip(outcomes) {
                    // The service has read the request, so this record does not keep requests from it.
                    record.history.suspicions = 0;
                    record.history.is_isolated = false;
                    let shard = self.predicted(&record);
                    match outcome {
                        EntryOutcome::Written { shard_id, sequence_number } => {
                            is_refused_whole = false;
                            self.fatal_errors.clear();
                            self.meter.attempt(&record, shard.as_ref(), None);
                            self.on_written(record, shard_id, sequence_number, now);
                        }
                        EntryOutcome::Refused { code, message } => {
                            let refusal = refusals.entry((code, message)).or_insert_with_key(
                                |(code, message)| {
                                    // The stream is there, and may be written to.
                                    if retry::classify(code) != ErrorClass::Fatal {
                                        self.fatal_errors.clear();
                                    }
                                    Refusal::of_entry(code, message)
                                        .unless_believed(&mut self.fatal_errors, now)
                                },
                            );
                            is_refused_whole &= refusal.is_of_stream;
                            let code = Some(&refusal.code);
                            self.meter.attempt(&record, shard.as_ref(), code);
                            self.on_entry_refused(record, refusal, now);
                        }
                    }
                }
                if is_refused_whole {
                    self.request_failed(number, is_isolated, now);
                } else {
                    self.last_answer = Some(now);
                    self.backoff.answered();
                    self.isolated.backoff.answered();
                }
            }
            Ok(_) => {
                let error = CallError::unusable(
                    "PutRecords answered another number of records than were sent",
                );
                self.on_request_failed(number, batch, &error, now);
            }
            Err(error) => self.on_request_failed(number, batch, &error, now),
        }
        self.check_fatal_errors();
    }

    /// Handles a record that the service wrote: it is delivered if the shard may keep it.
    fn on_written(
        &mut self,
        record: KinesisRecord,
        shard_id: String,
        sequence_number: String,
        now: Instant,
    ) {
        let counters = &self.context.outcomes.counters;
        counters.kinesis_records.add(1);
        counters.kinesis_bytes.add(record.size());
        let predicted = self.queues.get_mut(&record.queue_id).and_then(|queue| {
            queue.served(record.size(), now);
            queue.intake.shard_id.clone()
        });
        let check = self.check_written(&record, &shard_id, predicted.as_deref());
        // All receipts of a shard share its id, as long as the prediction holds.
        let shard_id = match predicted {
            Some(predicted) if *predicted == *shard_id => predicted,
            _ => shard_id.into(),
        };
        match check {
            ShardCheck::Delivered => self.deliver(record, shard_id, &sequence_number),
            ShardCheck::WrongShard | ShardCheck::UnknownShard => {
                self.wait_for_map(record, shard_id, sequence_number);
            }
        }
    }

    /// Acknowledges all members of a record.
    pub(super) fn deliver(
        &mut self,
        record: KinesisRecord,
        shard_id: Arc<str>,
        sequence_number: &str,
    ) {
        self.meter.delivered(&record, &shard_id, clock::now());
        self.leave(record.queue_id);
        record.complete_delivered(shard_id, sequence_number);
    }

    /// The shard that a record was sent to, as far as the shard map predicted it.
    pub(super) fn predicted(&self, record: &KinesisRecord) -> Option<Arc<str>> {
        self.queues.get(&record.queue_id)?.intake.shard_id.clone()
    }

    /// Handles a refused entry. A throttle of the shard slows down its limiter, and the record goes back to the queue
    /// at once.
    fn on_entry_refused(&mut self, record: KinesisRecord, refusal: &Refusal, now: Instant) {
        let delay = PUT_BACKOFF.delay(record.history.attempts, &mut self.rng);
        if retry::is_throttle(&refusal.code) {
            self.context.outcomes.counters.throttled.add(1);
        }
        if refusal.class == ErrorClass::Throttled {
            let sent = record.history.started;
            let queue = self.queues.get_mut(&record.queue_id);
            if refusal.is_of_shard
                && queue.is_some_and(|queue| queue.throttled(sent, now, &mut self.rng))
            {
                return self.on_refused(record, refusal, now, now);
            }
        }
        self.on_refused(record, refusal, now + delay, now);
    }

    /// Sends a refused record again at `at`, or fails it.
    pub(super) fn on_refused(
        &mut self,
        mut record: KinesisRecord,
        refusal: &Refusal,
        at: Instant,
        now: Instant,
    ) {
        record.history.failed(now, &refusal.code, &refusal.message, refusal.may_have_been_written);
        let fails = match refusal.class {
            ErrorClass::Fatal | ErrorClass::Rejected => true,
            ErrorClass::Throttled => self.context.config.fail_if_throttled,
            ErrorClass::Transient | ErrorClass::Blocked => false,
        };
        if fails {
            self.fail_refused(record, refusal);
        } else if at <= now || record.expires() <= now {
            self.requeue(record, now);
        } else {
            self.next_number += 1;
            if let Some(queue) = self.queues.get_mut(&record.queue_id) {
                queue.is_throttled |= refusal.class == ErrorClass::Throttled;
            }
            // Not after its expiry, when it must fail.
            let key = (at.min(record.expires()), record.sequence, self.next_number);
            self.backing_off.insert(key, Box::new(record));
        }
    }

    /// Fails a record that is under way, because it was refused.
    pub(super) fn fail_refused(&mut self, record: KinesisRecord, refusal: &Refusal) {
        self.leave(record.queue_id);
        let (code, message) = (Arc::clone(&refusal.code), Arc::clone(&refusal.message));
        let cause = match refusal.class {
            ErrorClass::Rejected => FailureCause::Rejected { code, message },
            ErrorClass::Throttled => FailureCause::Throttled { code, message },
            _ => FailureCause::Fatal { code, message },
        };
        self.fail(record, cause, refusal.source.clone());
    }

    /// Handles a request that failed as a whole.
    fn on_request_failed(&mut self, number: u64, batch: Batch, error: &CallError, now: Instant) {
        let refusal = Refusal::of_request(error).unless_believed(&mut self.fatal_errors, now);
        // A single record that is too large says nothing about the limit for requests of several records.
        if error.is_too_large() && batch.records.len() > 1 {
            self.request_limit.refused(batch.bytes, now);
        }
        if error.is_stream_missing() {
            // If a stream of this name is created again, it has other shards, perhaps with the same names.
            self.shards.refreshes.request_trusted();
        }
        // A request that timed out has waited already, so the pause counts from its start.
        let since = match (error.kind, batch.records.first()) {
            (CallErrorKind::Timeout, Some(record)) => record.history.started,
            _ => now,
        };
        // Few isolated requests are in flight at a time, so their time limit is pause enough.
        let counts = !(batch.is_isolated && error.kind == CallErrorKind::Timeout);
        // The pause holds back new records, too: an unavailable service is not called with each of them.
        if counts
            && self.request_failed(number, batch.is_isolated, since)
            && !batch.is_isolated
            && let Some(left_out) = self.logs.request_failed.pass(now)
        {
            // `message_for_log` leaves out what may quote the content of a record.
            let message = error.message_for_log();
            tracing::warn!(code = %error.code, message, left_out, "PutRecords failed: the next call waits");
        }
        if retry::is_throttle(&refusal.code) {
            let counters = &self.context.outcomes.counters;
            counters.throttled.add(batch.records.len());
        }
        for record in &batch.records {
            let shard = self.predicted(record);
            self.meter.attempt(record, shard.as_ref(), Some(&refusal.code));
        }
        // All records of the request wait for the same time, so that they are sent together again.
        let attempts = batch.records.iter().map(|record| record.history.attempts);
        let attempts = attempts.min().unwrap_or(1);
        let at = (since + PUT_BACKOFF.delay(attempts, &mut self.rng)).max(now);
        match refusal.class {
            ErrorClass::Rejected | ErrorClass::Blocked => {
                self.split_request(batch, &refusal, at, now)
            }
            ErrorClass::Fatal => {
                for record in batch.records {
                    self.on_refused(record, &refusal, now, now);
                }
            }
            ErrorClass::Throttled | ErrorClass::Transient if error.may_be_for_content() => {
                self.suspect(batch, error.kind, &refusal, at, now);
            }
            ErrorClass::Throttled if self.context.config.fail_if_throttled => {
                for record in batch.records {
                    self.on_refused(record, &refusal, at, now);
                }
            }
            ErrorClass::Throttled | ErrorClass::Transient if batch.is_isolated => {
                self.isolate(batch, &refusal, at, now);
            }
            ErrorClass::Throttled | ErrorClass::Transient => {
                for record in batch.records {
                    self.on_refused(record, &refusal, at, now);
                }
            }
        }
    }

    /// Lengthens the pause after a failed request. Failures of isolated requests hold back only isolated requests,
    /// because one of their records may be the cause.
    fn request_failed(&mut self, number: u64, is_isolated: bool, since: Instant) -> bool {
        let backoff = match is_isolated {
            true => &mut self.isolated.backoff,
            false => &mut self.backoff,
        };
        backoff.failed(number, self.next_number, since, &mut self.rng)
    }
}
