//! What tells a shard's consumer to give the shard up.

use tokio_util::sync::CancellationToken;

use crate::lease::{Tenure, TenureEnd};
use crate::processor::CallTokens;
use crate::shard_state::ShutdownReason;

/// The signals of one tenure.
pub(super) struct Signals {
    lost: CancellationToken,
    handoff: CancellationToken,
    /// By a handoff, or a planned stop of the worker.
    shutdown: CancellationToken,
    may_give_away: CancellationToken,
}

impl Signals {
    /// `may_give_away`: in a planned stop, other workers know by then that this one leaves.
    pub(super) fn new(tenure: &Tenure, may_give_away: CancellationToken) -> Self {
        Self {
            lost: tenure.lost(),
            handoff: tenure.handoff_requested(),
            shutdown: tenure.shutdown_requested(),
            may_give_away,
        }
    }

    /// Cancelled when the lease is no longer ours: a fence fell, or a handoff was not drained in
    /// time and the lease transferred all the same.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// What a call of the processor is given: user code that cancels one of them stops nothing else.
    pub(super) fn for_call(&self) -> CallTokens {
        CallTokens { lost: self.lost.child_token(), shutdown: self.shutdown.child_token() }
    }

    /// Waits until the shard is to be given up; a lost lease comes first.
    pub(super) async fn raised(&self) -> ShutdownReason {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => ShutdownReason::LeaseLost,
            () = self.shutdown.cancelled() => ShutdownReason::Requested,
        }
    }

    /// Whether the shard is to be given up, and why.
    pub(super) fn now(&self) -> Option<ShutdownReason> {
        if self.lost.is_cancelled() {
            return Some(ShutdownReason::LeaseLost);
        }
        let requested = self.shutdown.is_cancelled();
        requested.then_some(ShutdownReason::Requested)
    }

    /// Waits until the lease may leave this worker. In a planned stop that is when the worker's row is
    /// gone and the receivers of its leases are known: a leader would give the lease back to a worker
    /// whose row is there. A handoff has its receiver, and one that began meanwhile does not wait.
    pub(super) async fn may_give_away(&self) {
        // The shard fails for a reason of its own, while the worker goes on.
        if !self.shutdown.is_cancelled() {
            return;
        }
        tokio::select! {
            biased;
            () = self.lost.cancelled() => {}
            () = self.handoff.cancelled() => {}
            () = self.may_give_away.cancelled() => {}
        }
    }

    /// How a tenure ends that is given up on request.
    pub(super) fn requested_end(&self) -> TenureEnd {
        if self.handoff.is_cancelled() { TenureEnd::Transfer } else { TenureEnd::GiveAway }
    }
}
