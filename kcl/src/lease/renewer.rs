//! The renewer of a held lease, the only task that writes the lease: renewals, checkpoints and handoffs go through it,
//! so that they never race each other.
//!
//! A checkpoint that fails for a reason that may pass waits in the renewer. The renewer tries it again in place of
//! the renewals, until the lease's local deadline, because each attempt renews the lease, too.

mod loss;
mod relinquish;
mod schedule;
#[cfg(test)]
mod throttled;

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::loss::{Loss, LostOnDrop};
use self::schedule::RenewalSchedule;
pub(crate) use self::schedule::RetryBudget;
use super::error::LeaseStoreError;
use super::fence::Fence;
use super::held_lease::{
    CheckpointRequest, HeldLease, HeldLeaseState, RenewerServices, Request, Retry,
};
use super::model::Lease;
use super::readback::adopt;
use super::store::{LeaseStore, LeaseWrite, Outcome, OwnerReport, StoreFuture};
use super::throughput::Throughput;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clock::{Clock, until_next_second};
use crate::config::OnStop;
use crate::health::{ProblemKind, ProblemLog};

/// Longest sleep during a call. After a suspend of the machine, timers are late, but the clock is right.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Time after which a renewal without an answer counts as failing. The renewer goes on waiting for the answer.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);
/// Number of times that one write adopts the item that it found, and tries again.
const ADOPTIONS: u32 = 3;

/// The inputs that all renewers of a worker share.
#[derive(Debug, Clone)]
pub(crate) struct RenewerContext {
    pub(crate) worker_id: String,
    /// The process with which the store stamps leases.
    pub(crate) process: u64,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) services: Arc<dyn RenewerServices>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) failover: Duration,
    pub(crate) on_stop: OnStop,
    /// Seed of the random pauses between attempts.
    pub(crate) seed: u64,
    pub(crate) stop: WorkerStop,
    /// Budget of repeated attempts for all leases of the worker.
    pub(crate) retries: Arc<RetryBudget>,
    pub(crate) problems: Arc<ProblemLog>,
}

/// The signals of a worker's end, in their order. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerStop {
    /// Cancelled when a planned stop begins. From then on, the worker acquires no leases.
    pub(crate) leaving: CancellationToken,
    /// Time at which `out_of_time` will be cancelled. Set when a planned stop begins.
    pub(crate) last_calls: Arc<OnceLock<Duration>>,
    /// Cancelled shortly before the deadline of a planned stop. From then on, no write is tried again, and calls
    /// under way are not waited for. Leases that were not relinquished by then expire.
    pub(crate) out_of_time: CancellationToken,
    /// Cancelled when the worker ends. All its tasks end then.
    pub(crate) stopped: CancellationToken,
}

/// The renewer of one held lease.
#[derive(Debug)]
pub(crate) struct LeaseRenewer {
    context: RenewerContext,
    state: Arc<HeldLeaseState>,
    requests: mpsc::Receiver<Request>,
    throughput: Throughput,
    schedule: RenewalSchedule,
    /// Earliest time of the next renewal, or of the next attempt to write `waiting`, after a failed attempt.
    retry_at: Duration,
    /// A checkpoint that will be tried again, and the failure of its last attempt.
    waiting: Option<(Box<CheckpointRequest>, CheckpointError)>,
    /// Time at which a pending handoff is forced.
    handoff_deadline: Option<Duration>,
}

impl HeldLease {
    /// Begins to hold `lease`, which this worker acquired by a write sent at `sent`. The lease is held as long as
    /// [`LeaseRenewer::run`] is polled.
    pub(crate) fn begin(
        context: RenewerContext,
        lease: Lease,
        sent: Duration,
    ) -> (Self, LeaseRenewer) {
        // Leases of a worker whose renewals fail together are not tried again together.
        let mut hasher = DefaultHasher::new();
        lease.key.hash(&mut hasher);
        let random = Rng::with_seed(context.seed ^ hasher.finish());
        let (held_lease, requests) = Self::new(
            lease,
            Fence::new(context.failover, sent),
            Arc::clone(&context.clock),
            Arc::clone(&context.services),
            context.stop.leaving.child_token(),
        );
        let mut renewer = LeaseRenewer {
            throughput: Throughput::new(context.clock.now()),
            schedule: RenewalSchedule::new(context.failover, random),
            context,
            state: Arc::clone(&held_lease.state),
            requests,
            retry_at: Duration::ZERO,
            waiting: None,
            handoff_deadline: None,
        };
        if held_lease.lease().is_handoff_pending() {
            renewer.note_handoff();
        }
        (held_lease, renewer)
    }
}

/// Result of one write of the owner.
enum Written {
    Done,
    Failed(LeaseStoreError),
    /// Nothing was written: the checkpoint of the lease lies after this one.
    Superseded(Checkpoint),
    /// The lease is lost, and the consumer was told.
    Lost,
}

impl LeaseRenewer {
    /// Renews and writes until the consumer ends the ownership, the last [`HeldLease`] is dropped, or the lease
    /// is lost. A lost lease keeps the renewer until the consumer has ended.
    ///
    /// Most of the time it sleeps. Calls are boxed, so that their state takes memory only while they run.
    pub(crate) async fn run(mut self) {
        let _guard = LostOnDrop(Arc::clone(&self.state));
        loop {
            let now = self.now();
            if self.is_lost_or_expired(now) {
                self.lose(&self.expired());
                return Box::pin(self.linger()).await;
            }
            if self.handoff_deadline.is_some_and(|deadline| now >= deadline) {
                tracing::warn!(
                    shard = %self.state.token.lease_key,
                    "the processor did not stop in time for a handoff: the lease is transferred without it"
                );
                self.state.lost.cancel();
                Box::pin(self.transfer(false)).await;
                return Box::pin(self.linger()).await;
            }
            // After a suspend of the machine, timers are late, but the clock is right.
            let wake = self.next_event().saturating_sub(now).min(until_next_second(now));
            let write_due = self.write_due() <= now;
            tokio::select! {
                biased;
                () = self.context.stop.stopped.cancelled() => return,
                () = self.context.stop.out_of_time.cancelled(), if self.waiting.is_some() => {
                    self.give_up_waiting();
                }
                // Requests come before renewals, and cannot hold them up: each request renews the lease, too,
                // except for a few that write nothing.
                request = self.requests.recv() => match request {
                    None => return,
                    Some(request) => if Box::pin(self.serve(request)).await.is_break() { return },
                },
                () = std::future::ready(()), if write_due => Box::pin(self.write_what_is_due()).await,
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.context.clock.now()
    }

    fn is_lost_or_expired(&self, now: Duration) -> bool {
        self.state.lost.is_cancelled() || self.state.known.lock().fence.has_fallen(now)
    }

    /// The time at which the waiting checkpoint, or else the renewal, is due.
    fn write_due(&self) -> Duration {
        if self.waiting.is_some() {
            return self.retry_at;
        }
        let due = self.state.known.lock().fence.renewal_due(self.schedule.interval);
        due.max(self.retry_at)
    }

    fn next_event(&self) -> Duration {
        let fence = self.state.known.lock().fence.deadline();
        let handoff = self.handoff_deadline.unwrap_or(Duration::MAX);
        fence.min(self.write_due()).min(handoff)
    }

    async fn serve(&mut self, request: Request) -> ControlFlow<()> {
        match request {
            Request::Checkpoint(request) => {
                // Callers of one ownership take turns. So a second request means that the caller of the waiting
                // checkpoint was cancelled.
                self.give_up_waiting();
                self.attempt(request).await;
            }
            Request::StartHandoff { to } => self.start_handoff(to).await,
            Request::End { how, reply } => {
                let outcome = self.finish(how).await;
                self.state.lost.cancel();
                // The caller may have been cancelled.
                let _ = reply.send(outcome);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Answers the caller of the waiting checkpoint with the last failure.
    fn give_up_waiting(&mut self) {
        if let Some((request, error)) = self.waiting.take() {
            // The caller may have been cancelled.
            let _ = request.reply.send(Err(error));
        }
    }

    /// Writes the waiting checkpoint, or renews. A repeated attempt takes from the budget of the worker.
    async fn write_what_is_due(&mut self) {
        // The checkpoint of a cancelled caller must not use up the attempt that may save the lease.
        self.waiting.take_if(|(request, _)| request.reply.is_closed());
        if !self.schedule.may_try(self.now(), &self.context.retries) {
            self.retry_at = self.now() + self.pause();
            return;
        }
        match self.waiting.take() {
            Some((request, _)) => self.attempt(request).await,
            None => self.renew().await,
        }
    }

    /// Renews the lease. If the library writes the checkpoints, also checkpoints what the processor has taken.
    async fn renew(&mut self) {
        let report = self.report();
        let began = self.now();
        let (was_unproven, before) = {
            let known = self.state.known.lock();
            (known.fence.unproven, known.lease.checkpoint.clone())
        };
        let written = self.write(|renewer, lease| {
            let owner = renewer.context.worker_id.clone();
            let progress = renewer.state.progress.lock();
            Ok(match progress.to_carry(&lease.checkpoint, lease.pending.is_some()) {
                Some(checkpoint) => LeaseWrite::Checkpoint {
                    owner,
                    checkpoint,
                    pending: None,
                    report: report.clone(),
                },
                None => LeaseWrite::Renew { owner, report: report.clone() },
            })
        });
        match written.await {
            Written::Done => {
                let (carried, unproven) = {
                    let known = self.state.known.lock();
                    (known.lease.checkpoint != before, known.fence.unproven)
                };
                if carried {
                    self.state.progress.lock().carried_at = Some(began);
                    // The new checkpoint covers the one that failed.
                    self.recovered(ProblemKind::CheckpointFailing);
                }
                // The answer was lost again. Without a pause, the next renewal would be due at once.
                if was_unproven && unproven {
                    self.retry_at = self.now() + self.pause();
                }
            }
            Written::Failed(error) => self.try_later(&error),
            // A renewal carries only a checkpoint after that of the lease, so it is not superseded.
            Written::Superseded(_) | Written::Lost => {}
        }
    }

    /// Attempts to write a checkpoint. After a failure that may pass, the checkpoint waits to be tried again, if its
    /// caller wants that and still waits.
    async fn attempt(&mut self, request: Box<CheckpointRequest>) {
        if request.reply.is_closed() {
            return;
        }
        let answer = self.checkpoint(&request).await;
        let may_wait = request.retry == Retry::UntilDeadline
            && !request.reply.is_closed()
            && !self.context.stop.out_of_time.is_cancelled();
        match answer {
            Err(error) if may_wait && error.is_retryable() => {
                self.try_later(&error);
                self.waiting = Some((request, error));
            }
            answer => {
                // The caller may have been cancelled.
                let _ = request.reply.send(answer);
            }
        }
    }

    async fn checkpoint(&mut self, request: &CheckpointRequest) -> Result<(), CheckpointError> {
        if self.is_lost_or_expired(self.now()) {
            return Err(self.state.lease_lost());
        }
        let report = self.report();
        let written = self.write(|renewer, lease| {
            let checkpoint = request.checkpoint.as_ref().unwrap_or(&lease.checkpoint).clone();
            let owner = renewer.context.worker_id.clone();
            if let Some(resume_from) = request.moved {
                return Ok(LeaseWrite::Move { owner, checkpoint, resume_from });
            }
            if checkpoint < lease.checkpoint {
                return Err(checkpoint);
            }
            Ok(LeaseWrite::Checkpoint {
                owner,
                checkpoint,
                pending: request.pending.clone(),
                report: report.clone(),
            })
        });
        match written.await {
            Written::Done => Ok(()),
            Written::Superseded(requested) => {
                let lowest = self.state.known.lock().lease.checkpoint.clone();
                let highest = self.state.progress.lock().highest().max(lowest.clone());
                Err(CheckpointError::out_of_range(requested, lowest, highest))
            }
            Written::Lost => Err(self.state.lease_lost()),
            Written::Failed(error) => {
                Err(error.into_checkpoint_error(self.state.token.lease_key.clone()))
            }
        }
    }

    /// Does one conditional write of the owner. After a refusal, adopts the item that was found if the lease is
    /// still this worker's, and tries again.
    ///
    /// `make`: makes the write anew for each lease found, because an earlier write without an answer may have got
    /// further than this worker knew. An error is a checkpoint before that of the lease.
    async fn write(
        &mut self,
        make: impl Fn(&Self, &Lease) -> Result<LeaseWrite, Checkpoint>,
    ) -> Written {
        let store = Arc::clone(&self.context.store);
        for _ in 0..ADOPTIONS {
            let known = self.state.known.lock().lease.clone();
            let write = match make(self, &known) {
                Ok(write) => write,
                Err(superseded) => return Written::Superseded(superseded),
            };
            let sent = self.now();
            let Some(outcome) = self.until_fence(store.write(&known, write)).await else {
                return self.lose(&self.expired());
            };
            match outcome {
                Ok(Outcome::Applied(lease)) => {
                    self.state.known.lock().fence.succeeded(sent);
                    self.schedule.succeeded();
                    self.context.retries.succeeded(self.now());
                    self.recovered(ProblemKind::LeaseRenewalFailing);
                    self.learn(lease);
                    return Written::Done;
                }
                Ok(Outcome::AppliedBefore(lease)) => {
                    self.state.known.lock().fence.read_back();
                    self.learn(lease);
                    return Written::Done;
                }
                Ok(Outcome::ConditionFailed(seen)) => {
                    let loss =
                        Loss::by(&self.context.worker_id, self.context.process, seen.as_ref());
                    let Some(lease) = self.adopt(&known, seen) else {
                        return self.lose(&loss);
                    };
                    if lease.counter != known.counter {
                        self.state.known.lock().fence.read_back();
                    }
                    self.learn(lease);
                }
                Err(error) => {
                    self.state.known.lock().fence.failed();
                    return Written::Failed(error);
                }
            }
        }
        // Each time, the item is this worker's and has moved: another process runs under the same worker id.
        self.lose(&Loss::AnotherProcess)
    }

    fn try_later(&mut self, error: &dyn Display) {
        self.failed(error);
        self.retry_at = self.now() + self.pause();
    }

    /// Notes that the lease could not be renewed, or that a renewal has had no answer for a while.
    fn failed(&self, error: &dyn Display) {
        let shard_id = &self.state.token.lease_key;
        let kind = ProblemKind::LeaseRenewalFailing;
        let noted = self.context.problems.failed(kind, Some(shard_id), error);
        // In an outage all leases fail. Lines about some of them are enough.
        if noted.log && self.context.retries.may_log(self.now()) {
            let left = self.state.known.lock().fence.deadline().saturating_sub(self.now());
            tracing::warn!(
                shard_id, %error, failures = noted.failures, ?left,
                "renewal failed, tried again until the lease expires here"
            );
        }
    }

    fn adopt(&self, known: &Lease, seen: Option<Lease>) -> Option<Lease> {
        let RenewerContext { worker_id, process, .. } = &self.context;
        adopt(worker_id, *process, known, seen, self.state.known.lock().fence.unclear)
    }

    /// Awaits a call. `None`: the fence fell, or the lease was lost, before the answer.
    async fn until_fence(
        &self,
        call: StoreFuture<'_, Outcome>,
    ) -> Option<Result<Outcome, LeaseStoreError>> {
        let answer = self.until_deadline(call).await;
        // After a suspend of the machine, the answer may be there before the timer fires.
        answer.filter(|_| !self.is_lost_or_expired(self.now()))
    }

    /// Awaits a call. `None`: the fence fell before the answer. If a planned stop runs out of time meanwhile, the
    /// call fails.
    async fn until_deadline(
        &self,
        mut call: StoreFuture<'_, Outcome>,
    ) -> Option<Result<Outcome, LeaseStoreError>> {
        let out_of_time = &self.context.stop.out_of_time;
        let began_in_time = !out_of_time.is_cancelled();
        let began = self.now();
        let mut noted = false;
        loop {
            let deadline = self.state.known.lock().fence.deadline();
            let left = deadline.saturating_sub(self.now());
            if left.is_zero() {
                return None;
            }
            tokio::select! {
                biased;
                answer = &mut call => return Some(answer),
                () = out_of_time.cancelled(), if began_in_time => {
                    return Some(Err(LeaseStoreError::OutOfTime));
                }
                () = tokio::time::sleep(left.min(LONGEST_SLEEP)) => {
                    let silent = self.now().saturating_sub(began);
                    if !noted && silent >= LONGEST_SILENCE.min(self.context.failover / 4) {
                        noted = true;
                        self.failed(&format_args!("no answer for {silent:.1?}"));
                    }
                }
            }
        }
    }

    fn learn(&mut self, lease: Lease) {
        let mine = lease.checkpoint_owner.as_deref() == Some(&self.context.worker_id);
        self.state.learn(lease);
        if mine {
            self.note_handoff();
        }
    }

    /// What is new since the last write.
    fn report(&mut self) -> OwnerReport {
        let bytes = self.state.delivered.swap(0, Ordering::Relaxed);
        let failing = self.state.progress.lock().failing().cloned();
        let known = self.state.known.lock();
        OwnerReport {
            throughput: self.throughput.sample(
                bytes,
                self.context.clock.now(),
                self.context.failover / 4,
            ),
            failing: failing.filter(|failing| known.lease.failing.as_ref() != Some(failing)),
        }
    }

    /// The pause before the next attempt. Pauses get shorter towards the deadline, so that an outage that ends before
    /// it costs no lease. The deadline is that of the fence, or of the last calls of a planned stop if that is
    /// earlier.
    fn pause(&mut self) -> Duration {
        let now = self.now();
        let fence = self.state.known.lock().fence.deadline();
        let last_calls = self.context.stop.last_calls.get().copied();
        // After the last calls of a planned stop, leases of running processors are still renewed.
        let deadline = match last_calls.filter(|at| *at > now) {
            Some(last_calls) => fence.min(last_calls),
            None => fence,
        };
        self.schedule.pause(now, deadline)
    }

    fn recovered(&self, kind: ProblemKind) {
        let shard_id = &self.state.token.lease_key;
        self.context.problems.recovered(kind, Some(shard_id));
    }
}
