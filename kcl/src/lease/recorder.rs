//! A double of a lease's renewer, which keeps what is written in memory: for tests of what is above it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::LeaseStoreError;
use super::fence::Fence;
use super::held_lease::{
    CheckpointRequest, ChildShard, FencingToken, HeldLease, HeldLeaseState, Known, LeaseEnd,
    LeaseOutcome, RenewerServices, Request,
};
use super::model::Lease;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clock::Clock;
use crate::progress::ShardProgress;

/// A lease that is not lost by time.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Requests that may wait.
const QUEUE: usize = 16;

/// The checkpoints that an ownership wrote, and the failures and signals that a test gives to it.
#[derive(Clone)]
pub(crate) struct Recorder {
    state: Arc<HeldLeaseState>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    checkpoints: Vec<Checkpoint>,
    failures: VecDeque<CheckpointError>,
}

impl HeldLease {
    /// Begins an ownership of `lease`. A task of the current runtime records its writes in memory. The
    /// ownership lasts until it is ended, or [lost](Recorder::lose).
    pub(crate) fn recorded(lease: Lease, clock: Arc<dyn Clock>) -> (Self, Recorder) {
        let (sender, requests) = mpsc::channel(QUEUE);
        let state = Arc::new(HeldLeaseState {
            token: FencingToken { lease_key: lease.key.clone(), counter: lease.counter },
            services: Arc::new(NoServices),
            progress: ShardProgress::new(lease.checkpoint.clone()),
            known: Mutex::new(Known { fence: Fence::new(FOR_EVER, clock.now()), lease }),
            clock,
            lost: CancellationToken::new(),
            handoff: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            delivered: AtomicU64::new(0),
            aborted: AtomicBool::new(false),
        });
        let recorder = Recorder { state: Arc::clone(&state), log: Arc::default() };
        tokio::spawn(recorder.clone().serve(requests));
        let held_lease = Self { state, requests: sender };
        (held_lease, recorder)
    }
}

impl Recorder {
    async fn serve(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Checkpoint(request) => {
                    let answer = self.write(&request);
                    // The caller may have gone.
                    let _ = request.reply.send(answer);
                }
                Request::StartHandoff { .. } => self.request_shutdown(),
                Request::End { how, reply } => {
                    self.lose();
                    let _ = reply.send(match how {
                        LeaseEnd::ShardEnded => LeaseOutcome::Ended,
                        LeaseEnd::Lost | LeaseEnd::Aborted => LeaseOutcome::Lost,
                        LeaseEnd::Transfer | LeaseEnd::Relinquish => LeaseOutcome::Released,
                    });
                    return;
                }
            }
        }
    }

    fn write(&self, request: &CheckpointRequest) -> Result<(), CheckpointError> {
        if self.state.lost.is_cancelled() {
            return Err(self.state.lease_lost());
        }
        let mut log = self.log();
        if let Some(failure) = log.failures.pop_front() {
            return Err(failure);
        }
        let mut lease = self.state.known().lease.clone();
        lease.pending = request.pending.clone();
        if let Some(checkpoint) = &request.checkpoint {
            lease.checkpoint = checkpoint.clone();
            log.checkpoints.push(checkpoint.clone());
        }
        self.state.learn(lease);
        Ok(())
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Each change is one push or pop.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every checkpoint that was written, in order.
    pub(crate) fn checkpoints(&self) -> Vec<Checkpoint> {
        self.log().checkpoints.clone()
    }

    /// The next write fails with this, behind those that were named before.
    #[cfg(feature = "testing")]
    pub(crate) fn fail_next(&self, error: CheckpointError) {
        self.log().failures.push_back(error);
    }

    /// A planned stop, or another worker that wants the lease.
    pub(crate) fn request_shutdown(&self) {
        self.state.shutdown.cancel();
    }

    /// The lease is lost.
    pub(crate) fn lose(&self) {
        self.state.lost.cancel();
    }
}

/// No other workers, and no leases of parents or children.
#[derive(Debug)]
pub(super) struct NoServices;

impl RenewerServices for NoServices {
    fn receiver(&self) -> Option<String> {
        None
    }

    fn create_children<'a>(
        &'a self,
        _: &'a Lease,
        _: Vec<ChildShard>,
    ) -> BoxFuture<'a, Result<Vec<String>, LeaseStoreError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn lease<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseStoreError>> {
        async { Ok(None) }.boxed()
    }

    fn changed(&self) {}
}
