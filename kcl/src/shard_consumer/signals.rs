//! What tells a shard's consumer to give the shard up.

use tokio_util::sync::CancellationToken;

use super::state::ShutdownReason;
use crate::lease::{Tenure, TenureEnd};

/// The signals of one tenure.
pub(super) struct Signals {
    lost: CancellationToken,
    handoff: CancellationToken,
    stop: CancellationToken,
}

impl Signals {
    pub(super) fn new(tenure: &Tenure, stop: CancellationToken) -> Self {
        Self {
            lost: tenure.lost(),
            handoff: tenure.handoff_requested(),
            stop,
        }
    }

    /// Cancelled when the lease is no longer ours: a fence fell, or a handoff was not drained in
    /// time and the lease transferred all the same.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Waits until the shard is to be given up; a lost lease comes first.
    pub(super) async fn raised(&self) -> ShutdownReason {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => ShutdownReason::LeaseLost,
            () = self.handoff.cancelled() => ShutdownReason::Requested,
            () = self.stop.cancelled() => ShutdownReason::Requested,
        }
    }

    /// How a tenure ends that is given up on request.
    pub(super) fn requested_end(&self) -> TenureEnd {
        if self.handoff.is_cancelled() {
            TenureEnd::Transfer
        } else {
            TenureEnd::GiveAway
        }
    }
}
