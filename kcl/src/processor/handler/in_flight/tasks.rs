//! The tasks that run the handler.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt as _;
use kinesis_common::backoff::Backoff;
use tokio::sync::OwnedSemaphorePermit;

use super::{Attempts, InFlight, State};
use crate::error::ProcessorError;
use crate::metrics::Metric;
use crate::processor::handler::failure::{self, AfterFailure, Failure};
use crate::processor::handler::record::ShardRecord;
use crate::processor::{OwnedRecord, guarded};

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
    /// Changes the state, and starts the records that may start then. Returns one of them, which the caller runs or
    /// spawns. Notes the mark if it has moved.
    pub(super) fn change(self: &Arc<Self>, change: impl FnOnce(&mut State)) -> Option<Job> {
        let (next, more, has_moved, is_at_rest) = {
            let mut state = self.state.lock();
            let before = state.window.mark().cloned();
            change(&mut state);
            let has_moved = state.window.mark() != before.as_ref();
            if has_moved && let Some(mark) = state.window.mark() {
                self.services.status.progress().lock().completed(mark.clone());
            }
            let next = self.start(&mut state);
            let more: Vec<_> = std::iter::from_fn(|| self.start(&mut state)).collect();
            let is_winding_down = state.winding_down.is_cancelled();
            (next, more, has_moved, is_winding_down && state.schedule.is_at_rest())
        };
        more.into_iter().for_each(|job| self.spawn(job));
        if has_moved {
            self.has_progress.store(true, Ordering::Release);
            self.progressed.notify_one();
        }
        if is_at_rest {
            self.is_at_rest.notify_one();
        }
        next
    }

    /// Takes the next record that may start.
    fn start(&self, state: &mut State) -> Option<Job> {
        let number = state.schedule.start()?;
        let record = state.window.record(number).expect("it is not done before it starts").clone();
        let config = &self.services.config;
        let attempts = state.attempts.remove(&number).unwrap_or_else(|| Attempts {
            failed: 0,
            backoff: Backoff::new(
                config.retry_initial_delay,
                config.retry_max_delay,
                state.random.fork(),
            ),
        });
        Some(Job { number, record, attempts })
    }

    pub(super) fn spawn(self: &Arc<Self>, job: Job) {
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
    async fn process(self: &Arc<Self>, job: Job) -> Option<Job> {
        let number = job.number;
        let Some(at_work) = self.begin(number).await else {
            return self.change(|state| state.schedule.give_up(number));
        };
        let result = self.attempt(&job).await;
        self.ended(at_work);
        let error = match result {
            Ok(()) => return self.done(job),
            Err(error) => error,
        };
        let Job { record, mut attempts, .. } = job;
        attempts.failed = attempts.failed.saturating_add(1);
        let position = record.as_record().position();
        drop(record);
        let pause = attempts.backoff.next_delay();
        let failure = Failure { error: &error, position: &position, pause };
        match failure::after(&failure, &self.services, self.shard.shard_id()) {
            AfterFailure::GiveUp => self.change(|state| state.schedule.give_up(number)),
            AfterFailure::Retry(pause) => {
                let mut winding_down = None;
                let next = self.change(|state| {
                    state.failing += usize::from(attempts.failed == 1);
                    state.is_reported = true;
                    state.attempts.insert(number, attempts);
                    state.schedule.wait();
                    winding_down = Some(state.winding_down.clone());
                });
                // Others go on while this one waits.
                next.into_iter().for_each(|job| self.spawn(job));
                if let Some(winding_down) = winding_down {
                    let _ = tokio::time::timeout(pause, winding_down.cancelled()).await;
                }
                self.change(|state| match state.winding_down.is_cancelled() {
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

    fn done(self: &Arc<Self>, job: Job) -> Option<Job> {
        let Job { number, record, attempts } = job;
        let status = &self.services.status;
        status.delivered(1, record.as_record().data().len());
        let next = self.change(|state| {
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
