//! A double of a lease's renewer, which keeps the writes in memory. For tests of what uses a held lease.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_common::sync::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::LeaseStoreError;
use super::fence::Fence;
use super::held_lease::{
    CheckpointRequest, ChildShard, HeldLease, HeldLeaseState, LeaseEnd, RenewerServices, Request,
};
use super::model::Lease;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clock::Clock;
use crate::shard_state::ShardShutdown;

/// Failover time of a lease that does not expire.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The checkpoints that an ownership wrote, and the failures and signals that a test injects.
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
    /// Begins to hold `lease`. A task of the current runtime records its writes in memory. The lease is held until its
    /// consumer ends the ownership, or a test [loses](Recorder::lose) it.
    pub(crate) fn recorded(lease: Lease, clock: Arc<dyn Clock>) -> (Self, Recorder) {
        let fence = Fence::new(FOR_EVER, clock.now());
        let shutdown = CancellationToken::new();
        let (held_lease, requests) = Self::new(lease, fence, clock, Arc::new(NoServices), shutdown);
        let recorder = Recorder { state: Arc::clone(&held_lease.state), log: Arc::default() };
        tokio::spawn(recorder.clone().serve(requests));
        (held_lease, recorder)
    }
}

impl Recorder {
    async fn serve(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Checkpoint(request) => {
                    let answer = self.write(&request);
                    // The caller may have been cancelled.
                    let _ = request.reply.send(answer);
                }
                Request::StartHandoff { .. } => self.request_shutdown(),
                Request::End { how, reply } => {
                    self.lose();
                    let _ = reply.send(match how {
                        LeaseEnd::ShardEnded => ShardShutdown::Ended,
                        LeaseEnd::Lost => ShardShutdown::Lost,
                        LeaseEnd::Transfer | LeaseEnd::Relinquish => ShardShutdown::Released,
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
        let mut log = self.log.lock();
        if let Some(failure) = log.failures.pop_front() {
            return Err(failure);
        }
        let mut lease = self.state.known.lock().lease.clone();
        lease.pending = request.pending.clone();
        if let Some(checkpoint) = &request.checkpoint {
            lease.checkpoint = checkpoint.clone();
            log.checkpoints.push(checkpoint.clone());
        }
        self.state.learn(lease);
        Ok(())
    }

    /// The checkpoints that were written, in order.
    pub(crate) fn checkpoints(&self) -> Vec<Checkpoint> {
        self.log.lock().checkpoints.clone()
    }

    /// Lets one write fail with `error`, after the failures that were injected before.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn fail_next(&self, error: CheckpointError) {
        self.log.lock().failures.push_back(error);
    }

    /// Tells the consumer to stop, as a planned stop of the worker and a handoff do.
    pub(crate) fn request_shutdown(&self) {
        self.state.shutdown.cancel();
    }

    /// Loses the lease.
    pub(crate) fn lose(&self) {
        self.state.lost.cancel();
    }
}

/// A worker without other workers, and without leases of parents or children.
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
    ) -> BoxFuture<'a, Result<(), LeaseStoreError>> {
        async { Ok(()) }.boxed()
    }

    fn lease<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseStoreError>> {
        async { Ok(None) }.boxed()
    }

    fn changed(&self) {}
}
