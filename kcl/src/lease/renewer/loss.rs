//! A lost lease: the reason, and what the renewer does until the consumer has ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{LeaseRenewer, Written};
use crate::health::ProblemKind;
use crate::lease::held_lease::{HeldLeaseState, Request};
use crate::lease::model::Lease;
use crate::shard_state::ShardShutdown;

/// Reason why an ownership ended that the worker did not end itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// The lease was not renewed before its local deadline.
    Expired {
        /// Time since the last renewal.
        after: Duration,
        /// The last failure of a renewal.
        cause: Option<String>,
    },
    /// Another worker owns the lease.
    TakenBy(String),
    /// Another process of the same worker id owns the lease.
    AnotherProcess,
    /// The lease has no owner any more.
    Released,
    /// The lease has no item any more.
    Deleted,
    /// Another writer moved the counter of the lease.
    Moved,
}

impl Loss {
    /// The loss of a lease whose item is now `seen`, for the owner `me` in `process`.
    pub(super) fn by(me: &str, process: u64, seen: Option<&Lease>) -> Self {
        let Some(seen) = seen else {
            return Self::Deleted;
        };
        match seen.actual_owner() {
            None => Self::Released,
            Some(owner) if owner != me => Self::TakenBy(owner.to_owned()),
            Some(_) if seen.is_anothers(process) => Self::AnotherProcess,
            Some(_) => Self::Moved,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { after, cause } => {
                write!(f, "the lease expired, not renewed for {after:.1?}")?;
                match cause {
                    Some(cause) => write!(f, ", since renewals failed: {cause}"),
                    None => Ok(()),
                }
            }
            Self::TakenBy(worker) => write!(f, "worker {worker} owns the lease now"),
            Self::AnotherProcess => {
                f.write_str("another process of this worker id owns the lease now")
            }
            Self::Released => f.write_str("another worker released the lease"),
            Self::Deleted => f.write_str("the item of the lease was deleted"),
            Self::Moved => f.write_str("another writer moved the counter of the lease"),
        }
    }
}

impl LeaseRenewer {
    /// The loss of a lease that was not renewed in time.
    pub(super) fn expired(&self) -> Loss {
        let kind = ProblemKind::LeaseRenewalFailing;
        let problem = self.context.problems.find(kind, Some(&self.state.token.lease_key));
        Loss::Expired {
            after: self.now().saturating_sub(self.state.known.lock().fence.renewed),
            cause: problem.map(|problem| problem.cause),
        }
    }

    /// Tells the consumer that the lease is lost, and logs the reason once.
    pub(super) fn lose(&self, loss: &Loss) -> Written {
        if !self.state.lost.is_cancelled() {
            tracing::warn!(
                shard_id = self.state.token.lease_key,
                worker_id = self.context.worker_id,
                why = %loss,
                "lease lost"
            );
        }
        self.state.lost.cancel();
        Written::Lost
    }

    /// Serves a lost lease until its consumer has ended, because the consumer may still be at work. Until then, this
    /// worker must not acquire the same lease again.
    pub(super) async fn linger(mut self) {
        self.state.lost.cancel();
        // A lost lease needs no renewal any more, while the consumer may take long to end.
        self.recovered(ProblemKind::LeaseRenewalFailing);
        if let Some((request, _)) = self.waiting.take() {
            let _ = request.reply.send(Err(self.state.lease_lost()));
        }
        self.context.services.changed();
        let stopped = self.context.stop.stopped.clone();
        while let Some(Some(request)) = stopped.run_until_cancelled(self.requests.recv()).await {
            match request {
                Request::Checkpoint(request) => {
                    let _ = request.reply.send(Err(self.state.lease_lost()));
                }
                Request::StartHandoff { .. } => {}
                Request::End { reply, .. } => {
                    let _ = reply.send(ShardShutdown::Lost);
                    return;
                }
            }
        }
    }
}

/// Marks the lease as lost when the renewer ends in any way, by a panic too. Without a renewer, it is not held.
pub(super) struct LostOnDrop(pub(super) Arc<HeldLeaseState>);

impl Drop for LostOnDrop {
    fn drop(&mut self) {
        self.0.lost.cancel();
        self.0.services.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::lease::model::Stamp;

    #[test]
    fn the_item_that_was_found_shows_the_loss() {
        let found = |owner: Option<&str>, process| Lease {
            owner: owner.map(str::to_owned),
            counter: 5,
            stamp: Some(Stamp::after(4, process)),
            ..Lease::new("a", Checkpoint::TrimHorizon)
        };
        for (seen, expected) in [
            (None, Loss::Deleted),
            (Some(found(None, 1)), Loss::Released),
            (Some(found(Some("w2"), 2)), Loss::TakenBy("w2".into())),
            (Some(found(Some("me"), 2)), Loss::AnotherProcess),
            (Some(found(Some("me"), 1)), Loss::Moved),
        ] {
            assert_eq!(Loss::by("me", 1, seen.as_ref()), expected);
        }
    }
}
