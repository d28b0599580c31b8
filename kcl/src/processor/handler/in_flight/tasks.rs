//! The tasks that run the handler.

use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt as _;
use kinesis_common::backoff::Backoff;
use tokio::sync::OwnedSemaphorePermit;

use super::{Attempts, InFlight, State};
use crate::config::AfterRetries;
use crate::error::{ProcessorError, WorkerError};
use crate::metrics::Metric;
use crate::processor::batch::Records;
use crate::processor::failure::{AfterFailure as Policy, Failures, GiveUpReason, Unprocessed};
use crate::processor::handler::failure::{self, AfterFailure, Failure};
use crate::processor::handler::record::ShardRecord;
use crate::processor::{OwnedRecord, guarded};
use crate::progress::Failing;
use crate::sequence::ExtendedSequenceNumber;

/// A record, and its attempts.
pub(super) struct Job {
    number: u64,
    record: OwnedRecord,
    attempts: Attempts,
}

/// A record at work, for as long as its handler runs.
struct AtWork {
    /// Its key in [`State::at_work`].
    order: u64,
    /// Its place among those of the worker.
    _place: OwnedSemaphorePermit,
}

impl InFlight {
    /// Changes the state, and starts tasks for the records that may start then, the oldest first.
    pub(super) fn change(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let started = self.start_after(change);
        started.into_iter().for_each(|job| self.spawn(job));
    }

    /// As [`change`](Self::change), but returns the oldest record, which the task of the caller runs.
    fn change_and_take(self: &Arc<Self>, change: impl FnOnce(&mut State)) -> Option<Job> {
        let mut started = self.start_after(change).into_iter();
        let next = started.next();
        started.for_each(|job| self.spawn(job));
        next
    }

    /// Changes the state, notes the mark if it has moved, and returns the records that may start then.
    fn start_after(&self, change: impl FnOnce(&mut State)) -> Vec<Job> {
        let (started, has_moved, is_at_rest) = {
            let mut state = self.state.lock();
            let before = state.window.mark().cloned();
            change(&mut state);
            let has_moved = state.window.mark() != before.as_ref();
            if has_moved && let Some(mark) = state.window.mark() {
                self.services.status.progress().lock().completed(mark.clone());
                self.services.status.control().skipped_up_to(mark);
            }
            let started: Vec<_> = std::iter::from_fn(|| self.start(&mut state)).collect();
            let is_winding_down = state.winding_down.is_cancelled();
            (started, has_moved, is_winding_down && state.schedule.is_at_rest())
        };
        if has_moved {
            self.has_progress.store(true, Ordering::Release);
            self.progressed.notify_one();
        }
        if is_at_rest {
            self.is_at_rest.notify_one();
        }
        started
    }

    /// Takes the next record that may start.
    fn start(&self, state: &mut State) -> Option<Job> {
        let number = state.schedule.start()?;
        let record = state.window.record(number).expect("it is not done before it starts").clone();
        let config = &self.services.config;
        let attempts = state.attempts.remove(&number).unwrap_or_else(|| Attempts {
            failed: 0,
            counted: Failures::default(),
            backoff: Backoff::new(
                config.retry_initial_delay,
                config.retry_max_delay,
                state.random.fork(),
            ),
        });
        Some(Job { number, record, attempts })
    }

    fn spawn(self: &Arc<Self>, job: Job) {
        let in_flight = Arc::clone(self);
        let work = self.dropped.clone().run_until_cancelled_owned(in_flight.run(job)).map(|_| ());
        // The tracker waits for the task, and `dropped` ends it.
        drop(self.services.executor.spawn(self.tasks.track_future(work).boxed()));
    }

    /// Runs the handler on a record, and on others after it for as long as one may start.
    async fn run(self: Arc<Self>, mut job: Job) {
        while let Some(next) = self.process(job).await {
            job = next;
        }
    }

    /// Makes one attempt of a record. Returns the record to run next.
    async fn process(self: &Arc<Self>, mut job: Job) -> Option<Job> {
        let number = job.number;
        let Some(at_work) = self.begin(number).await else {
            return self.change_and_take(|state| state.schedule.give_up(number));
        };
        let position = job.record.as_record().position();
        if let Some(reason) = self.not_to_be_processed(&job, &position) {
            self.ended(at_work);
            return self.give_up(job, reason, None).await;
        }
        let result = self.attempt(&job).await;
        self.ended(at_work);
        let error = match result {
            Ok(()) => return self.done(job, true),
            Err(error) => error,
        };
        let first_failure = job.attempts.failed == 0;
        job.attempts.failed = job.attempts.failed.saturating_add(1);
        if first_failure {
            self.count_former_failures(&mut job.attempts, &position);
        }
        let pause = job.attempts.backoff.next_delay();
        let failures = &mut job.attempts.counted;
        let failure = Failure { error: &error, position: &position, pause, failures };
        let after = failure::after(failure, &self.services, self.shard.shard_id());
        self.note_failures(&job, &position);
        match after {
            AfterFailure::Stop => self.change_and_take(|state| state.schedule.give_up(number)),
            AfterFailure::Policy(Policy::EndWorker) => {
                let shard_id = self.shard.shard_id().to_owned();
                let cause = error.to_string();
                *self.fatal.lock() = Some(WorkerError::Processor { shard_id, cause });
                self.has_progress.store(true, Ordering::Release);
                self.progressed.notify_one();
                self.change_and_take(|state| state.schedule.give_up(number))
            }
            AfterFailure::Policy(Policy::GiveUp(reason)) => {
                // It counts as one of the records that fail until it is done.
                self.change(|state| {
                    state.failing += usize::from(first_failure);
                    state.is_reported = true;
                });
                self.give_up(job, reason, Some(&error)).await
            }
            // A record of its own cannot be halved.
            AfterFailure::Policy(Policy::Retry | Policy::Halve) => {
                let Job { record, attempts, .. } = job;
                drop(record);
                let mut winding_down = None;
                // Others go on while this one waits.
                self.change(|state| {
                    state.failing += usize::from(first_failure);
                    state.is_reported = true;
                    state.attempts.insert(number, attempts);
                    state.schedule.wait();
                    winding_down = Some(state.winding_down.clone());
                });
                if let Some(winding_down) = winding_down {
                    let _ = tokio::time::timeout(pause, winding_down.cancelled()).await;
                }
                self.change_and_take(|state| match state.winding_down.is_cancelled() {
                    true => state.schedule.give_up_waiting(number),
                    false => state.schedule.retry(number),
                })
            }
        }
    }

    /// Waits for a place, and notes that the record is at work. `None`: it may not begin any more.
    async fn begin(&self, number: u64) -> Option<AtWork> {
        let place = self.place(number).await?;
        let mut state = self.state.lock();
        if !state.schedule.may_begin(number) {
            return None;
        }
        state.schedule.begun(number);
        state.begun += 1;
        let order = state.begun;
        state.at_work.insert(order, (number, self.services.clock.now()));
        if state.at_work.len() == 1 {
            self.note_longest(&state);
        }
        Some(AtWork { order, _place: place })
    }

    /// Notes that a handler has ended, and gives its place back.
    fn ended(&self, at_work: AtWork) {
        let mut state = self.state.lock();
        let is_longest = state.at_work.first_key_value().is_some_and(|it| *it.0 == at_work.order);
        state.at_work.remove(&at_work.order);
        if is_longest {
            self.note_longest(&state);
        }
    }

    /// Notes the record that is longest at work, for health and snapshots.
    fn note_longest(&self, state: &State) {
        let longest = state.at_work.first_key_value().and_then(|(_, (number, since))| {
            Some((state.window.record(*number)?.as_record().position(), *since))
        });
        self.services.status.handles(longest);
    }

    async fn place(&self, number: u64) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        let winding_down = self.state.lock().winding_down.clone();
        let mut place = std::pin::pin!(Arc::clone(&self.places).acquire_owned());
        let place = tokio::select! {
            biased;
            place = &mut place => place,
            () = winding_down.cancelled() => {
                if !self.state.lock().schedule.may_begin(number) {
                    return None;
                }
                place.await
            }
        };
        // The semaphore is never closed.
        place.ok()
    }

    async fn attempt(&self, job: &Job) -> Result<(), ProcessorError> {
        let record = ShardRecord {
            record: job.record.clone(),
            shard: Arc::clone(&self.shard),
            attempt: job.attempts.failed.saturating_add(1),
        };
        let status = &self.services.status;
        let timer = status.meter().timer(&*self.services.clock);
        // In a block, so that code of the handler before its first await is guarded, too.
        let result = guarded(async { (self.handler)(record).await }).await;
        let metrics = (Metric::ProcessTaskSuccess, Metric::ProcessRecordsTime);
        timer.done(metrics, Some(self.shard.shard_id()), result.is_ok());
        result
    }

    /// Why the record is not given to the handler. `None`: it is.
    fn not_to_be_processed(
        &self,
        job: &Job,
        position: &ExtendedSequenceNumber,
    ) -> Option<GiveUpReason> {
        if self.services.status.control().is_to_skip(position) {
            return Some(GiveUpReason::Skipped);
        }
        let age = self.services.config.failure_policy.max_record_age?;
        let arrival = job.record.as_record().approximate_arrival()?;
        let is_old = arrival < self.services.status.service_time().checked_sub(age)?;
        is_old.then_some(GiveUpReason::RecordAgeExpired)
    }

    /// Counts the failures on the record before it was read again, also those of a former owner of the lease.
    fn count_former_failures(&self, attempts: &mut Attempts, position: &ExtendedSequenceNumber) {
        attempts.counted.count = self.services.status.progress().lock().failures_on(position);
    }

    /// Notes the failures for the next owner of the lease, if the record is the one after the mark.
    fn note_failures(&self, job: &Job, position: &ExtendedSequenceNumber) {
        let failures = job.attempts.counted.count;
        let is_limited = self.services.config.failure_policy.max_attempts.is_some();
        if is_limited && failures > 0 && self.state.lock().window.is_next(job.number) {
            let failing = Failing { position: position.clone(), failures };
            self.services.status.progress().lock().failed(failing);
        }
    }

    /// Gives a record up, as the policy says. Returns the record to run next.
    async fn give_up(
        self: &Arc<Self>,
        mut job: Job,
        reason: GiveUpReason,
        error: Option<&ProcessorError>,
    ) -> Option<Job> {
        let number = job.number;
        let given_up = &self.services.given_up;
        let then = match reason {
            GiveUpReason::Skipped => AfterRetries::Skip,
            _ => self.services.config.failure_policy.then,
        };
        let Job { record, attempts, .. } = &mut job;
        let (page, range) = record.range();
        let position = record.as_record().position();
        let unprocessed = Unprocessed {
            records: Records::new(page, slice::from_ref(&range)),
            spans: vec![(position.clone(), position)],
            reason,
            error,
            attempts: attempts.failed,
            failing_since: attempts.counted.since,
        };
        match then {
            AfterRetries::StopShard => {
                given_up.stop_at(&unprocessed);
                return self.change_and_take(|state| state.schedule.give_up(number));
            }
            AfterRetries::Skip => given_up.skip(&unprocessed),
            AfterRetries::DeadLetter => {
                let winding_down = self.state.lock().winding_down.clone();
                let is_written = tokio::select! {
                    biased;
                    () = winding_down.cancelled() => false,
                    () = given_up.write(&unprocessed, &mut attempts.backoff) => true,
                };
                if !is_written {
                    return self.change_and_take(|state| state.schedule.give_up(number));
                }
            }
        }
        self.done(job, false)
    }

    /// Notes that a record is done. `is_processed`: otherwise it is given up.
    fn done(self: &Arc<Self>, job: Job, is_processed: bool) -> Option<Job> {
        let Job { number, record, attempts } = job;
        let status = &self.services.status;
        if is_processed {
            status.delivered(1, record.as_record().data().len());
        }
        let next = self.change_and_take(|state| {
            state.window.done(number);
            state.schedule.done(number);
            state.failing -= usize::from(attempts.failed > 0);
            if state.failing == 0 && std::mem::take(&mut state.is_reported) {
                status.succeeded();
            }
        });
        // Outside of the lock, because the last record of a page gives its memory back, which wakes readers.
        drop(record);
        self.has_room.notify_one();
        next
    }
}
