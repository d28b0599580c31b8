//! How a lease leaves its owner on purpose: by a handoff, or by an assignment or a release when the owner stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::LeaseRenewer;
use crate::config::OnStop;
use crate::lease::held_lease::LeaseEnd;
use crate::lease::model::Lease;
use crate::lease::store::{LeaseWrite, Outcome};
use crate::shard_state::ShardShutdown;

/// Time from the first sight of a handoff until the renewer forces it. A Java leader forces it after 30 s.
const HANDOFF_LIMIT: Duration = Duration::from_secs(25);

impl LeaseRenewer {
    pub(super) async fn start_handoff(&mut self, to: String) {
        let lease = self.state.known.lock().lease.clone();
        if lease.is_handoff_pending() || lease.owner.as_ref() == Some(&to) {
            return;
        }
        let store = Arc::clone(&self.context.store);
        let started = store.write(&lease, LeaseWrite::StartHandoff { to });
        match self.until_fence(started).await {
            Some(Ok(Outcome::Applied(lease) | Outcome::AppliedBefore(lease))) => self.learn(lease),
            // The next renewal finds out what happened, and the next scan asks again.
            Some(Ok(Outcome::ConditionFailed(_)) | Err(_)) | None => {}
        }
    }

    pub(super) fn note_handoff(&mut self) {
        let deadline = self.now() + HANDOFF_LIMIT;
        self.handoff_deadline.get_or_insert(deadline);
        self.state.handoff.cancel();
        self.state.shutdown.cancel();
    }

    /// Ends the ownership in the way that the consumer asks for.
    pub(super) async fn finish(&mut self, how: LeaseEnd) -> ShardShutdown {
        if self.is_lost_or_expired(self.now()) {
            return ShardShutdown::Lost;
        }
        match how {
            LeaseEnd::Lost => ShardShutdown::Lost,
            LeaseEnd::ShardEnded => {
                // The shard has no records left, so the outcome of a pending handoff does not matter.
                self.transfer(true).await;
                ShardShutdown::Ended
            }
            LeaseEnd::Transfer => self.transfer(true).await,
            // Workers that take leases would not find one that was assigned to them.
            LeaseEnd::Relinquish if self.context.services.workers_take_leases() => {
                self.relinquish(None).await
            }
            LeaseEnd::Relinquish => {
                let receiver = match self.context.on_stop {
                    // A lease that is released to its own worker id lets the next process with this id start at
                    // once.
                    OnStop::Keep => Some(self.context.worker_id.clone()),
                    OnStop::Release => None,
                    OnStop::HandOver => self.context.services.receiver(),
                };
                self.relinquish(receiver).await
            }
        }
    }

    /// Completes a pending handoff, if there is one. `released`: the processor has stopped.
    pub(super) async fn transfer(&mut self, released: bool) -> ShardShutdown {
        self.move_lease(released, |lease| lease.is_handoff_pending().then(|| lease.owner.clone()))
            .await
    }

    /// Completes a pending handoff. Without one, assigns the lease to `receiver`, or releases it if there is no
    /// receiver.
    async fn relinquish(&mut self, receiver: Option<String>) -> ShardShutdown {
        self.move_lease(true, |lease| {
            let next = if lease.is_handoff_pending() { &lease.owner } else { &receiver };
            Some(next.clone())
        })
        .await
    }

    /// Moves the lease to the worker that `choose` returns for the lease as it is now. `None` leaves the lease,
    /// `Some(None)` makes it unassigned. This is the last thing that the renewer does.
    async fn move_lease(
        &mut self,
        released: bool,
        choose: impl Fn(&Lease) -> Option<Option<String>>,
    ) -> ShardShutdown {
        let store = Arc::clone(&self.context.store);
        // The first attempt needs no budget, even if renewals failed.
        self.schedule.forget_failures();
        let mut failed = None;
        while !self.state.known.lock().fence.has_fallen(self.now()) {
            let lease = self.state.known.lock().lease.clone();
            // This comes before the budget, because often nothing has to be written.
            let Some(to) = choose(&lease) else {
                return left_to_expire("the handoff was taken back");
            };
            if !self.schedule.may_try(self.now(), &self.context.retries) {
                if self.pause_in_time().await {
                    continue;
                }
                break;
            }
            let write = LeaseWrite::relinquish(to.clone(), released);
            match self.until_deadline(store.write(&lease, write)).await {
                Some(Ok(Outcome::Applied(_) | Outcome::AppliedBefore(_))) => {
                    self.context.retries.succeeded(self.now());
                    return match to {
                        Some(to) if to == self.context.worker_id => ShardShutdown::Kept,
                        Some(to) => ShardShutdown::HandedOver { to },
                        None => ShardShutdown::Released,
                    };
                }
                Some(Ok(Outcome::ConditionFailed(seen))) => match self.adopt(&lease, seen) {
                    Some(seen) if seen != lease => self.state.learn(seen),
                    _ => return ShardShutdown::Lost,
                },
                Some(Err(error)) => {
                    let may_pass = error.is_retryable();
                    failed = Some(error);
                    if !may_pass || !self.pause_in_time().await {
                        break;
                    }
                }
                None => break,
            }
        }
        let cause = match failed {
            Some(error) => error.to_string(),
            None => "its lease expired first".to_owned(),
        };
        tracing::warn!(
            shard = %self.state.token.lease_key, cause,
            "the lease could not be transferred or released: it will expire"
        );
        left_to_expire(cause)
    }

    /// Pauses before the next attempt. Returns false if no attempt may be made any more. The last calls of a planned
    /// stop end the pause, because the stop then reports the lease.
    async fn pause_in_time(&mut self) -> bool {
        let sleep = tokio::time::sleep(self.pause());
        if self.may_try_again() {
            let _ = self.context.stop.out_of_time.run_until_cancelled(sleep).await;
        }
        self.may_try_again()
    }

    /// Whether another attempt may be made. After the last calls of a planned stop, a lease that was not
    /// relinquished is left to expire.
    fn may_try_again(&self) -> bool {
        let is_aborted = self.state.aborted.load(Ordering::Relaxed);
        !is_aborted && !self.context.stop.out_of_time.is_cancelled()
    }
}

fn left_to_expire(cause: impl ToString) -> ShardShutdown {
    ShardShutdown::LeftToExpire { cause: cause.to_string() }
}
