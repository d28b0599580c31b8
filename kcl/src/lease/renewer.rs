//! The one writer of a held lease: renewals, checkpoints and handoff go through it, so that they
//! never race each other.
//!
//! A checkpoint that fails for a reason that may pass stays with the renewer, which tries it again in
//! place of the renewals, until the lease's local deadline: each attempt renews the lease, too.

mod loss;
mod relinquish;
mod schedule;
#[cfg(test)]
mod throttled;

use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::loss::Loss;
use self::schedule::RenewalSchedule;
pub(crate) use self::schedule::RetryBudget;
use super::error::LeaseStoreError;
use super::fence::Fence;
use super::held_lease::{
    CheckpointRequest, FencingToken, HeldLease, HeldLeaseState, Known, LeaseOutcome,
    RenewerServices, Request, Retry,
};
use super::model::Lease;
use super::readback::{Verdict, judge};
use super::store::{LeaseStore, Outcome, Progress};
use super::throughput::Throughput;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clock::Clock;
use crate::config::OnStop;
use crate::health::{ProblemKind, ProblemLog};
use crate::progress::ShardProgress;

/// From the first sight of a handoff until it is forced: a Java leader forces it at 30 s.
const HANDOFF_LIMIT: Duration = Duration::from_secs(25);
/// Longest sleep: after a suspend the timers are late, the clock is not.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// A renewal that is not answered for this long counts as failing, though it is still waited for.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);
/// Requests that may wait for the renewer.
const QUEUE: usize = 16;
/// Times that one write adopts the item it found and tries again.
const ADOPTIONS: u32 = 3;

/// What all renewers of a worker share.
#[derive(Debug, Clone)]
pub(crate) struct RenewerContext {
    pub(crate) worker_id: String,
    /// As that of the store.
    pub(crate) process: u64,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) services: Arc<dyn RenewerServices>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) failover: Duration,
    pub(crate) on_stop: OnStop,
    /// Of the pauses between attempts.
    pub(crate) seed: u64,
    /// A planned stop of the worker has begun.
    pub(crate) leaving: CancellationToken,
    /// A planned stop is about to reach its deadline: nothing is tried again, and calls under way are
    /// not waited for any longer.
    pub(crate) out_of_time: CancellationToken,
    /// When `out_of_time` will be cancelled. Set as a planned stop begins.
    pub(crate) last_calls: Arc<OnceLock<Duration>>,
    /// For repeated attempts, of all its leases.
    pub(crate) retries: Arc<RetryBudget>,
    /// Where failures are noted.
    pub(crate) problems: Arc<ProblemLog>,
    /// The worker ends: every renewer does.
    pub(crate) stopped: CancellationToken,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LeaseRenewer {
    context: RenewerContext,
    state: Arc<HeldLeaseState>,
    requests: mpsc::Receiver<Request>,
    throughput: Throughput,
    schedule: RenewalSchedule,
    /// No renewal, and no other attempt of `waiting`, before this: the last one failed.
    retry_at: Duration,
    /// A checkpoint that is tried again.
    waiting: Option<Waiting>,
    /// When a pending handoff is forced.
    handoff_deadline: Option<Duration>,
}

impl HeldLease {
    /// An ownership of `lease`, which this worker acquired by a write sent at `sent`. It lasts as long as
    /// [`LeaseRenewer::run`] is polled.
    pub(crate) fn begin(
        context: RenewerContext,
        lease: Lease,
        sent: Duration,
    ) -> (Self, LeaseRenewer) {
        let (sender, requests) = mpsc::channel(QUEUE);
        let handoff = lease.is_handoff_pending();
        let state = Arc::new(HeldLeaseState {
            token: FencingToken { lease_key: lease.key.clone(), counter: lease.counter },
            clock: Arc::clone(&context.clock),
            services: Arc::clone(&context.services),
            progress: ShardProgress::new(lease.checkpoint.clone()),
            known: Mutex::new(Known { fence: Fence::new(context.failover, sent), lease }),
            lost: CancellationToken::new(),
            handoff: CancellationToken::new(),
            shutdown: context.leaving.child_token(),
            delivered: AtomicU64::new(0),
            aborted: AtomicBool::new(false),
        });
        let mut renewer = LeaseRenewer {
            throughput: Throughput::new(context.clock.now()),
            schedule: schedule(&context, &state.token.lease_key),
            context,
            state: Arc::clone(&state),
            requests,
            retry_at: Duration::ZERO,
            waiting: None,
            handoff_deadline: None,
        };
        if handoff {
            renewer.note_handoff();
        }
        (Self { state, requests: sender }, renewer)
    }
}

/// See [`LeaseRenewer::waiting`].
#[derive(Debug)]
struct Waiting {
    request: CheckpointRequest,
    /// Of the last attempt.
    error: CheckpointError,
}

impl Waiting {
    /// Tells the caller of the last failure.
    fn give_up(self) {
        // The caller may have gone.
        let _ = self.request.reply.send(Err(self.error));
    }
}

/// How one write ended for the ownership.
enum Written {
    Done,
    Failed(LeaseStoreError),
    /// Not written: the lease is past this checkpoint.
    Behind(Checkpoint),
    Lost(Loss),
}

impl LeaseRenewer {
    /// Renews and writes until the ownership is ended, its last handle is dropped, or a fence falls;
    /// in that case, until the consumer has let go.
    pub(crate) async fn run(mut self) {
        let _guard = LostOnDrop(Arc::clone(&self.state));
        loop {
            let now = self.now();
            if self.fallen(now) {
                let expired = self.expired();
                self.lose(&expired);
                return self.linger().await;
            }
            if self.handoff_deadline.is_some_and(|deadline| now >= deadline) {
                tracing::warn!(
                    shard = %self.state.token.lease_key,
                    "the processor did not hand the shard over in time: the handoff is forced"
                );
                self.state.lost.cancel();
                self.transfer(false).await;
                return self.linger().await;
            }
            let wake = self.next_event().saturating_sub(now).min(LONGEST_SLEEP);
            let write_due = self.write_due() <= now;
            tokio::select! {
                biased;
                () = self.context.stopped.cancelled() => return,
                () = self.context.out_of_time.cancelled(), if self.waiting.is_some() => {
                    self.waiting.take().into_iter().for_each(Waiting::give_up);
                }
                // Each request is an attempt to renew, too, but for a few that need no write: they
                // cannot hold up the renewals.
                request = self.requests.recv() => match request {
                    None => return,
                    Some(request) => if self.serve(request).await.is_break() { return },
                },
                () = std::future::ready(()), if write_due => self.write_what_is_due().await,
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.context.clock.now()
    }

    fn fallen(&self, now: Duration) -> bool {
        self.state.lost.is_cancelled() || self.state.known().fence.has_fallen(now)
    }

    fn renewal_due(&self) -> Duration {
        let due = self.state.known().fence.renewal_due(self.schedule.interval());
        due.max(self.retry_at)
    }

    /// When the waiting checkpoint, or the renewal, is due.
    fn write_due(&self) -> Duration {
        match self.waiting {
            Some(_) => self.retry_at,
            None => self.renewal_due(),
        }
    }

    fn next_event(&self) -> Duration {
        let fence = self.state.known().fence.deadline();
        let handoff = self.handoff_deadline.unwrap_or(Duration::MAX);
        fence.min(self.write_due()).min(handoff)
    }

    async fn serve(&mut self, request: Request) -> std::ops::ControlFlow<()> {
        match request {
            Request::Checkpoint(request) => {
                // The checkpoint that still waits was cancelled by its caller: callers of one ownership take
                // turns, so a second request means that the first caller no longer listens.
                self.waiting.take().into_iter().for_each(Waiting::give_up);
                self.attempt(request).await;
            }
            Request::StartHandoff { to } => self.start_handoff(&to).await,
            Request::End { how, reply } => {
                let outcome = self.finish(how).await;
                self.state.lost.cancel();
                // The caller may have gone.
                let _ = reply.send(outcome);
                return std::ops::ControlFlow::Break(());
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    /// The waiting checkpoint, or a renewal. One that repeats a failed one takes of the worker's budget.
    async fn write_what_is_due(&mut self) {
        // A checkpoint that its caller gave up must not use up the attempt that may save the lease.
        self.waiting.take_if(|waiting| waiting.request.reply.is_closed());
        if !self.schedule.may_try(self.now(), &self.context.retries) {
            self.retry_at = self.now() + self.pause();
            return;
        }
        match self.waiting.take() {
            Some(waiting) => self.attempt(waiting.request).await,
            None => self.renew().await,
        }
    }

    /// Also writes what the processor has taken, if the library checkpoints for it.
    async fn renew(&mut self) {
        let throughput = self.sample_throughput();
        let began = self.now();
        let (was_unproven, before) = {
            let known = self.state.known();
            (known.fence.is_unproven(), known.lease.checkpoint.clone())
        };
        let context = self.context.clone();
        let shard = self.state.progress.clone();
        let written = self
            .write(|lease| {
                // Of each lease found: an unclear write may have got further than this worker knew.
                let carried = shard.lock().to_carry(&lease.checkpoint, lease.pending.is_some());
                let progress =
                    carried.map(|checkpoint| Progress { checkpoint, pending: None, throughput });
                let (context, lease) = (context.clone(), lease.clone());
                Ok(async move {
                    let (store, me) = (&context.store, &context.worker_id);
                    match progress {
                        Some(progress) => store.checkpoint(&lease, me, &progress).await,
                        None => store.renew(&lease, me, throughput).await,
                    }
                })
            })
            .await;
        match written {
            Written::Done => {
                let (carried, unproven) = {
                    let known = self.state.known();
                    (known.lease.checkpoint != before, known.fence.is_unproven())
                };
                if carried {
                    self.state.progress.lock().carried(began);
                    // It covers the checkpoint that failed: that one is not due any more.
                    self.recovered(ProblemKind::CheckpointFailing);
                }
                // Answers are lost one after the other.
                if was_unproven && unproven {
                    self.retry_at = self.now() + self.pause();
                }
            }
            // It carries only what is further.
            Written::Behind(_) => {}
            Written::Failed(error) => {
                self.failed(&error);
                self.retry_at = self.now() + self.pause();
            }
            Written::Lost(loss) => self.lose(&loss),
        }
    }

    /// One attempt to write a checkpoint. Where it fails for a reason that may pass, the checkpoint
    /// waits to be tried again, if its caller wants that and still waits.
    async fn attempt(&mut self, request: CheckpointRequest) {
        if request.reply.is_closed() {
            return;
        }
        let answer = self.checkpoint(&request).await;
        let may_wait = request.retry == Retry::UntilDeadline
            && !request.reply.is_closed()
            && !self.context.out_of_time.is_cancelled();
        match answer {
            Err(error) if may_wait && error.is_retryable() => {
                // It is tried again in place of the renewals.
                self.failed(&error);
                self.retry_at = self.now() + self.pause();
                self.waiting = Some(Waiting { request, error });
            }
            answer => {
                // The caller may have gone.
                let _ = request.reply.send(answer);
            }
        }
    }

    async fn checkpoint(&mut self, request: &CheckpointRequest) -> Result<(), CheckpointError> {
        if self.fallen(self.now()) {
            return Err(self.state.lease_lost());
        }
        let CheckpointRequest { checkpoint, pending, .. } = request;
        let throughput = self.sample_throughput();
        let context = self.context.clone();
        let written = self
            .write(|lease| {
                // Of each lease found: an unclear write may have got further than this worker knew.
                let checkpoint = checkpoint.as_ref().unwrap_or(&lease.checkpoint).clone();
                if checkpoint < lease.checkpoint {
                    return Err(checkpoint);
                }
                let progress = Progress {
                    checkpoint,
                    pending: pending.clone(),
                    throughput,
                };
                let (context, lease) = (context.clone(), lease.clone());
                Ok(async move {
                    context
                        .store
                        .checkpoint(&lease, &context.worker_id, &progress)
                        .await
                })
            })
            .await;
        match written {
            Written::Done => Ok(()),
            Written::Behind(requested) => {
                let lowest = self.state.known().lease.checkpoint.clone();
                let highest = self.state.progress.lock().highest().max(lowest.clone());
                Err(CheckpointError::OutOfRange { requested, lowest, highest })
            }
            Written::Lost(loss) => {
                self.lose(&loss);
                Err(self.state.lease_lost())
            }
            Written::Failed(error) => Err(self.checkpoint_error(error)),
        }
    }

    fn checkpoint_error(&self, error: LeaseStoreError) -> CheckpointError {
        let shard_id = self.state.token.lease_key.clone();
        if error.is_throttled() {
            return CheckpointError::Throttled { shard_id, source: Arc::new(error) };
        }
        let retryable = error.is_retryable();
        CheckpointError::Store { shard_id, retryable, source: Arc::new(error) }
    }

    async fn start_handoff(&mut self, to: &str) {
        let lease = self.state.known().lease.clone();
        if lease.is_handoff_pending() || lease.owner.as_deref() == Some(to) {
            return;
        }
        let store = Arc::clone(&self.context.store);
        match self.until_fence(store.start_handoff(&lease, to)).await {
            Some(Ok(Outcome::Applied(lease) | Outcome::AppliedBefore(lease))) => self.learn(lease),
            // The next renewal finds out what happened, and the next look at the fleet asks again.
            Some(Ok(Outcome::ConditionFailed(_)) | Err(_)) | None => {}
        }
    }

    /// One conditional write of the owner, with what was found adopted while it is still its own.
    /// `write`: made for each lease found; an error is a checkpoint that lies before the lease's.
    async fn write<W, F>(&mut self, write: W) -> Written
    where
        W: Fn(&Lease) -> Result<F, Checkpoint>,
        F: Future<Output = Result<Outcome, LeaseStoreError>>,
    {
        for _ in 0..ADOPTIONS {
            let known = self.state.known().lease.clone();
            let write = match write(&known) {
                Ok(write) => write,
                Err(behind) => return Written::Behind(behind),
            };
            let sent = self.now();
            let Some(outcome) = self.until_fence(write).await else {
                return Written::Lost(self.expired());
            };
            match outcome {
                Ok(Outcome::Applied(lease)) => {
                    self.state.known().fence.succeeded(sent);
                    self.succeeded();
                    self.learn(lease);
                    return Written::Done;
                }
                Ok(Outcome::AppliedBefore(lease)) => {
                    self.state.known().fence.read_back();
                    self.learn(lease);
                    return Written::Done;
                }
                Ok(Outcome::ConditionFailed(seen)) => match self.judge(&known, seen.clone()) {
                    Verdict::Adopt(lease) => {
                        if lease.counter != known.counter {
                            self.state.known().fence.read_back();
                        }
                        self.learn(*lease);
                    }
                    Verdict::Lost => {
                        let RenewerContext { worker_id, process, .. } = &self.context;
                        return Written::Lost(Loss::by(worker_id, *process, seen.as_ref()));
                    }
                },
                Err(error) => {
                    self.state.known().fence.failed();
                    return Written::Failed(error);
                }
            }
        }
        // The item is this worker's at each look and moves under every write: another process runs
        // under the same worker id.
        Written::Lost(Loss::AnotherProcess)
    }

    /// The lease was renewed.
    fn succeeded(&mut self) {
        self.schedule.succeeded();
        self.context.retries.succeeded(self.now());
        let (problems, kind) = (&self.context.problems, ProblemKind::LeaseRenewalFailing);
        problems.recovered(kind, Some(&self.state.token.lease_key));
    }

    /// The lease could not be renewed, or was not for a while.
    fn failed(&self, error: &dyn std::fmt::Display) {
        let shard_id = &self.state.token.lease_key;
        let kind = ProblemKind::LeaseRenewalFailing;
        let noted = self.context.problems.failed(kind, Some(shard_id), error);
        // A line for some of the leases tells enough of an outage.
        if noted.log && self.context.retries.may_log(self.now()) {
            let left = self.state.known().fence.deadline().saturating_sub(self.now());
            tracing::warn!(
                shard_id, %error, failures = noted.failures, ?left,
                "renewal failed, tried again until the lease expires here"
            );
        }
    }

    /// The lease was not renewed in time.
    fn expired(&self) -> Loss {
        let kind = ProblemKind::LeaseRenewalFailing;
        let problem = self.context.problems.find(kind, Some(&self.state.token.lease_key));
        Loss::Expired {
            after: self.now().saturating_sub(self.state.known().fence.renewed()),
            cause: problem.map(|problem| problem.cause),
        }
    }

    /// Tells the consumer, and says why: once.
    fn lose(&self, loss: &Loss) {
        if !self.state.lost.is_cancelled() {
            tracing::warn!(
                shard_id = self.state.token.lease_key,
                worker_id = self.context.worker_id,
                why = %loss,
                "lease lost"
            );
        }
        self.state.lost.cancel();
    }

    fn judge(&self, known: &Lease, seen: Option<Lease>) -> Verdict {
        let RenewerContext { worker_id, process, .. } = &self.context;
        let unclear = self.state.known().fence.is_unclear();
        judge(worker_id, *process, known, seen, unclear)
    }

    /// The answer, unless the fence falls first, or the lease is lost meanwhile.
    async fn until_fence<T>(
        &self,
        work: impl Future<Output = Result<T, LeaseStoreError>>,
    ) -> Option<Result<T, LeaseStoreError>> {
        let answer = self.until_deadline(work).await;
        // After a suspend the answer is there first.
        answer.filter(|_| !self.fallen(self.now()))
    }

    /// The answer, unless the fence falls first. A call that is under way when a planned stop runs out
    /// of time is not waited for.
    async fn until_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, LeaseStoreError>>,
    ) -> Option<Result<T, LeaseStoreError>> {
        let out_of_time = &self.context.out_of_time;
        let began_in_time = !out_of_time.is_cancelled();
        tokio::pin!(work);
        let began = self.now();
        let mut noted = false;
        loop {
            let deadline = self.state.known().fence.deadline();
            let left = deadline.saturating_sub(self.now());
            if left.is_zero() {
                return None;
            }
            tokio::select! {
                biased;
                answer = &mut work => return Some(answer),
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

    fn note_handoff(&mut self) {
        let deadline = self.now() + HANDOFF_LIMIT;
        self.handoff_deadline.get_or_insert(deadline);
        self.state.handoff.cancel();
        self.state.shutdown.cancel();
    }

    fn sample_throughput(&mut self) -> Option<f64> {
        let bytes = self.state.delivered.swap(0, Ordering::Relaxed);
        self.throughput.sample(bytes, self.now(), self.context.failover / 4)
    }

    /// The pause before the next attempt. The closer the deadline, the shorter: an outage that ends before
    /// it costs no lease. The deadline is the fence's, or the last calls of a planned stop if these come
    /// first.
    fn pause(&mut self) -> Duration {
        let now = self.now();
        let fence = self.state.known().fence.deadline();
        let last_calls = self.context.last_calls.get().copied();
        // After its last calls, a planned stop still lets running processors renew their leases.
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

    /// The lease is lost. Its consumer may still be at work: until it lets go, this worker must not
    /// begin another ownership of the same lease.
    async fn linger(mut self) {
        self.state.lost.cancel();
        // There is nothing to renew any more, while the consumer may need long to end.
        self.recovered(ProblemKind::LeaseRenewalFailing);
        if let Some(Waiting { request, .. }) = self.waiting.take() {
            let _ = request.reply.send(Err(self.state.lease_lost()));
        }
        self.context.services.changed();
        let stopped = self.context.stopped.clone();
        while let Some(Some(request)) = stopped.run_until_cancelled(self.requests.recv()).await {
            match request {
                Request::Checkpoint(request) => {
                    let _ = request.reply.send(Err(self.state.lease_lost()));
                }
                Request::StartHandoff { .. } => {}
                Request::End { reply, .. } => {
                    let _ = reply.send(LeaseOutcome::Lost);
                    return;
                }
            }
        }
    }
}

/// Leases of a worker that fail together are not tried again together.
fn schedule(context: &RenewerContext, lease_key: &str) -> RenewalSchedule {
    let mut hasher = DefaultHasher::new();
    lease_key.hash(&mut hasher);
    let random = Rng::with_seed(context.seed ^ hasher.finish());
    RenewalSchedule::new(context.failover, random)
}

/// A renewer that ends in any way, a panic too, leaves no ownership that believes it is held.
struct LostOnDrop(Arc<HeldLeaseState>);

impl Drop for LostOnDrop {
    fn drop(&mut self) {
        self.0.lost.cancel();
        self.0.services.changed();
    }
}
