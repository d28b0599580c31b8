//! The one writer of a held lease: renewals, checkpoints and handoff go through it, so that they
//! never race each other.

mod carry;
mod give_away;

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::carry::carried;
use super::error::LeaseStoreError;
use super::fence::Fence;
use super::model::{Lease, PendingCheckpoint};
use super::readback::{Verdict, judge};
use super::store::{LeaseStore, Outcome, Progress};
use super::tenure::{FencingToken, Fleet, Known, Request, Tenure, TenureState};
use super::throughput::Throughput;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clock::Clock;
use crate::config::OnStop;

/// From the first sight of a handoff until it is forced: a Java leader forces it at 30 s.
const HANDOFF_LIMIT: Duration = Duration::from_secs(25);
/// Longest sleep: after a suspend the timers are late, the clock is not.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Requests that may wait for the writer.
const QUEUE: usize = 16;
/// Times that one write adopts the item it found and tries again.
const ADOPTIONS: u32 = 3;

/// What all writers of a worker share.
#[derive(Debug, Clone)]
pub(crate) struct WriterContext {
    pub(crate) worker_id: String,
    /// As that of the store.
    pub(crate) process: u64,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) fleet: Arc<dyn Fleet>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) failover: Duration,
    pub(crate) on_stop: OnStop,
    /// The worker ends: every writer does.
    pub(crate) stopped: CancellationToken,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Writer {
    context: WriterContext,
    state: Arc<TenureState>,
    requests: mpsc::Receiver<Request>,
    throughput: Throughput,
    /// No renewal before this: the last one failed.
    retry_at: Duration,
    /// When a pending handoff is forced.
    handoff_deadline: Option<Duration>,
}

impl Tenure {
    /// A tenure of `lease`, which this worker acquired by a write sent at `sent`. It lasts as long as
    /// [`Writer::run`] is polled.
    pub(crate) fn begin(context: WriterContext, lease: Lease, sent: Duration) -> (Self, Writer) {
        let (sender, requests) = mpsc::channel(QUEUE);
        let handoff = lease.is_handoff_pending();
        let state = Arc::new(TenureState {
            token: FencingToken {
                lease_key: lease.key.clone(),
                counter: lease.counter,
            },
            clock: Arc::clone(&context.clock),
            fleet: Arc::clone(&context.fleet),
            known: Mutex::new(Known {
                fence: Fence::new(context.failover, sent),
                lease,
                processed: None,
                carried_at: None,
            }),
            lost: CancellationToken::new(),
            handoff: CancellationToken::new(),
            delivered: AtomicU64::new(0),
            aborted: AtomicBool::new(false),
        });
        let mut writer = Writer {
            throughput: Throughput::new(context.clock.now()),
            context,
            state: Arc::clone(&state),
            requests,
            retry_at: Duration::ZERO,
            handoff_deadline: None,
        };
        if handoff {
            writer.note_handoff();
        }
        (
            Self {
                state,
                requests: sender,
            },
            writer,
        )
    }
}

/// How one write ended for the tenure.
enum Written {
    Done,
    Failed(LeaseStoreError),
    /// Not written: the lease is past this checkpoint.
    Behind(Checkpoint),
    Lost,
}

impl Writer {
    /// Renews and writes until the tenure is ended, its last handle is dropped, or a fence falls;
    /// in that case, until the consumer has let go.
    pub(crate) async fn run(mut self) {
        let _guard = LostOnDrop(Arc::clone(&self.state));
        loop {
            let now = self.now();
            if self.fallen(now) {
                return self.linger().await;
            }
            if self
                .handoff_deadline
                .is_some_and(|deadline| now >= deadline)
            {
                tracing::warn!(
                    shard = %self.state.token.lease_key,
                    "the processor did not hand the shard over in time: the handoff is forced"
                );
                self.state.lost.cancel();
                self.transfer(false).await;
                return self.linger().await;
            }
            let wake = self.next_event().saturating_sub(now).min(LONGEST_SLEEP);
            let renewal_due = self.renewal_due() <= now;
            tokio::select! {
                biased;
                () = self.context.stopped.cancelled() => return,
                request = self.requests.recv() => match request {
                    None => return,
                    Some(request) => if self.serve(request).await.is_break() { return },
                },
                () = std::future::ready(()), if renewal_due => self.renew().await,
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
        self.state.known().fence.renewal_due().max(self.retry_at)
    }

    fn next_event(&self) -> Duration {
        let fence = self.state.known().fence.deadline();
        let handoff = self.handoff_deadline.unwrap_or(Duration::MAX);
        fence.min(self.renewal_due()).min(handoff)
    }

    async fn serve(&mut self, request: Request) -> std::ops::ControlFlow<()> {
        match request {
            Request::Checkpoint {
                checkpoint,
                pending,
                reply,
            } => {
                let answer = self.checkpoint(checkpoint, pending).await;
                // The caller may have gone.
                let _ = reply.send(answer);
            }
            Request::StartHandoff { to } => self.start_handoff(&to).await,
            Request::End { how, reply } => {
                self.finish(how).await;
                self.state.lost.cancel();
                let _ = reply.send(());
                return std::ops::ControlFlow::Break(());
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Also writes what the processor has taken, if the library checkpoints for it.
    async fn renew(&mut self) {
        let throughput = self.sample_throughput();
        let began = self.now();
        let (was_unproven, before, processed) = {
            let known = self.state.known();
            let before = known.lease.checkpoint.clone();
            (known.fence.is_unproven(), before, known.processed.clone())
        };
        let (context, state) = (self.context.clone(), Arc::clone(&self.state));
        let written = self
            .write(|lease| {
                // Of each lease found: an unclear write may have got further than this worker knew.
                let progress = carried(lease, processed.as_ref()).map(|checkpoint| Progress {
                    checkpoint,
                    pending: None,
                    throughput,
                });
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
                let unproven = {
                    let mut known = self.state.known();
                    if known.lease.checkpoint != before {
                        known.carried_at = Some(began);
                    }
                    known.fence.is_unproven()
                };
                // Answers are lost one after the other.
                if was_unproven && unproven {
                    self.retry_at = self.now() + self.pause();
                }
            }
            // It carries only what is further.
            Written::Behind(_) => {}
            Written::Failed(error) => {
                tracing::debug!(shard = %state.token.lease_key, %error, "renewal failed, tried again");
                self.retry_at = self.now() + self.pause();
            }
            Written::Lost => self.state.lost.cancel(),
        }
    }

    /// `None`: leaves the checkpoint as it is.
    async fn checkpoint(
        &mut self,
        checkpoint: Option<Checkpoint>,
        pending: Option<PendingCheckpoint>,
    ) -> Result<(), CheckpointError> {
        if self.fallen(self.now()) {
            return Err(self.state.lease_lost());
        }
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
            Written::Behind(requested) => Err(CheckpointError::OutOfRange {
                requested,
                highest: Checkpoint::ShardEnd,
                lowest: self.state.known().lease.checkpoint.clone(),
            }),
            Written::Lost => {
                self.state.lost.cancel();
                Err(self.state.lease_lost())
            }
            Written::Failed(error) => Err(self.checkpoint_error(error)),
        }
    }

    fn checkpoint_error(&self, error: LeaseStoreError) -> CheckpointError {
        let shard_id = self.state.token.lease_key.clone();
        if error.is_throttled() {
            return CheckpointError::Throttled {
                shard_id,
                source: Arc::new(error),
            };
        }
        let retryable = error.is_retryable();
        CheckpointError::Store {
            shard_id,
            retryable,
            source: Arc::new(error),
        }
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
                return Written::Lost;
            };
            match outcome {
                Ok(Outcome::Applied(lease)) => {
                    self.state.known().fence.succeeded(sent);
                    self.learn(lease);
                    return Written::Done;
                }
                Ok(Outcome::AppliedBefore(lease)) => {
                    self.state.known().fence.read_back();
                    self.learn(lease);
                    return Written::Done;
                }
                Ok(Outcome::ConditionFailed(seen)) => match self.judge(&known, seen) {
                    Verdict::Adopt(lease) => {
                        if lease.counter != known.counter {
                            self.state.known().fence.read_back();
                        }
                        self.learn(*lease);
                    }
                    Verdict::Lost => return Written::Lost,
                },
                Err(error) => {
                    self.state.known().fence.failed();
                    return Written::Failed(error);
                }
            }
        }
        // The item is this worker's at each look and moves under every write: another process runs
        // under the same worker id.
        Written::Lost
    }

    fn judge(&self, known: &Lease, seen: Option<Lease>) -> Verdict {
        let WriterContext {
            worker_id, process, ..
        } = &self.context;
        let unclear = self.state.known().fence.is_unclear();
        judge(worker_id, *process, known, seen, unclear)
    }

    /// The answer, unless the fence falls first.
    async fn until_fence<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            let left = self
                .state
                .known()
                .fence
                .deadline()
                .saturating_sub(self.now());
            if left.is_zero() {
                return None;
            }
            tokio::select! {
                biased;
                answer = &mut work => {
                    // After a suspend the answer is there first.
                    return (!self.fallen(self.now())).then_some(answer);
                }
                () = tokio::time::sleep(left.min(LONGEST_SLEEP)) => {}
            }
        }
    }

    fn learn(&mut self, lease: Lease) {
        let mine = lease.checkpoint_owner.as_deref() == Some(&self.context.worker_id);
        self.state.known().lease = lease;
        if mine {
            self.note_handoff();
        }
    }

    fn note_handoff(&mut self) {
        let deadline = self.now() + HANDOFF_LIMIT;
        self.handoff_deadline.get_or_insert(deadline);
        self.state.handoff.cancel();
    }

    fn sample_throughput(&mut self) -> Option<f64> {
        let bytes = self.state.delivered.swap(0, Ordering::Relaxed);
        self.throughput
            .sample(bytes, self.now(), self.context.failover / 4)
    }

    /// A short pause before the next try: many fit before the fence.
    fn pause(&self) -> Duration {
        (self.context.failover / 40).min(Duration::from_millis(500))
    }

    /// The lease is lost. Its consumer may still be at work: until it lets go, this worker must not
    /// begin another tenure of the same lease.
    async fn linger(mut self) {
        self.state.lost.cancel();
        self.context.fleet.changed();
        let stopped = self.context.stopped.clone();
        while let Some(Some(request)) = stopped.run_until_cancelled(self.requests.recv()).await {
            match request {
                Request::Checkpoint { reply, .. } => {
                    let _ = reply.send(Err(self.state.lease_lost()));
                }
                Request::StartHandoff { .. } => {}
                Request::End { reply, .. } => {
                    let _ = reply.send(());
                    return;
                }
            }
        }
    }
}

/// A writer that ends in any way, a panic too, leaves no tenure that believes it is held.
struct LostOnDrop(Arc<TenureState>);

impl Drop for LostOnDrop {
    fn drop(&mut self) {
        self.0.lost.cancel();
        self.0.fleet.changed();
    }
}
