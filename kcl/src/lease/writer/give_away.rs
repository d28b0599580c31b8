//! How a lease leaves its owner on purpose: a handoff is completed, the lease assigned or released.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Writer;
use crate::config::OnStop;
use crate::lease::model::Lease;
use crate::lease::readback::Verdict;
use crate::lease::store::Outcome;
use crate::lease::tenure::TenureEnd;

impl Writer {
    pub(super) async fn finish(&mut self, how: TenureEnd) {
        if self.fallen(self.now()) {
            return;
        }
        match how {
            // Whoever the lease went to might start at once: Java does not wait.
            TenureEnd::Lost | TenureEnd::Aborted => {}
            TenureEnd::ShardEnded | TenureEnd::Transfer => self.transfer(true).await,
            // A worker that takes leases would not find one that was assigned to it.
            TenureEnd::GiveAway if self.context.fleet.takes() => self.give_away(None).await,
            TenureEnd::GiveAway => match self.context.on_stop {
                // Released to its own id: by that mark the next process under it starts at once.
                OnStop::Keep => {
                    let me = self.context.worker_id.clone();
                    self.give_away(Some(me)).await;
                }
                OnStop::Release => self.give_away(None).await,
                OnStop::HandOver => {
                    let receiver = self.context.fleet.receiver();
                    self.give_away(receiver).await;
                }
            },
        }
    }

    /// Completes a pending handoff, if there is one. `released`: the processor has stopped.
    pub(super) async fn transfer(&mut self, released: bool) {
        self.move_lease(released, |lease| {
            lease.is_handoff_pending().then(|| lease.owner.clone())
        })
        .await;
    }

    /// Completes a pending handoff; else assigns the lease to `receiver`; without one, releases it.
    async fn give_away(&mut self, receiver: Option<String>) {
        self.move_lease(true, |lease| {
            let next = if lease.is_handoff_pending() {
                &lease.owner
            } else {
                &receiver
            };
            Some(next.clone())
        })
        .await;
    }

    /// Moves the lease to the worker chosen for it as it is now: `None` leaves it, `Some(None)` makes
    /// it unassigned.
    async fn move_lease(
        &mut self,
        released: bool,
        choose: impl Fn(&Lease) -> Option<Option<String>>,
    ) {
        let store = Arc::clone(&self.context.store);
        while !self.state.known().fence.has_fallen(self.now()) {
            let lease = self.state.known().lease.clone();
            let Some(to) = choose(&lease) else { return };
            let write = match &to {
                Some(to) if released => store.assign(&lease, to, true),
                // The counter is a condition here, too: an attempt that arrives late finds its own
                // handoff, not a later one between the same owners.
                Some(to) => store.take(&lease, to),
                None => store.evict(&lease),
            };
            match self.until_even_if_lost(write).await {
                Some(Ok(Outcome::Applied(_) | Outcome::AppliedBefore(_))) => return,
                Some(Ok(Outcome::ConditionFailed(seen))) => match self.judge(&lease, seen) {
                    Verdict::Adopt(seen) if *seen != lease => self.state.known().lease = *seen,
                    _ => return,
                },
                // The deadline of an aborted one has passed: it expires.
                Some(Err(error)) if error.is_retryable() && !self.is_aborted() => {
                    tokio::time::sleep(self.pause()).await;
                }
                Some(Err(error)) => {
                    tracing::warn!(
                        shard = %self.state.token.lease_key, %error,
                        "the lease could not be given away: it will expire"
                    );
                    return;
                }
                None => return,
            }
        }
    }

    /// Perhaps while another end of the tenure was being tried.
    fn is_aborted(&self) -> bool {
        self.state.aborted.load(Ordering::Relaxed)
    }

    /// As [`until_fence`](Self::until_fence), but by the deadline alone.
    async fn until_even_if_lost<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let left = self
            .state
            .known()
            .fence
            .deadline()
            .saturating_sub(self.now());
        tokio::time::timeout(left, work).await.ok()
    }
}
