//! How a lease leaves its owner on purpose: a handoff is completed, the lease assigned or released.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LeaseRenewer;
use crate::config::OnStop;
use crate::lease::held_lease::{LeaseEnd, LeaseOutcome};
use crate::lease::model::Lease;
use crate::lease::readback::Verdict;
use crate::lease::store::Outcome;

impl LeaseRenewer {
    pub(super) async fn finish(&mut self, how: LeaseEnd) -> LeaseOutcome {
        if self.fallen(self.now()) {
            return LeaseOutcome::Lost;
        }
        match how {
            LeaseEnd::Lost => LeaseOutcome::Lost,
            // Whichever worker the lease went to might start at once: Java does not wait.
            LeaseEnd::Aborted => left_to_expire("its processor was aborted"),
            LeaseEnd::ShardEnded => {
                // Nothing is left to process, whatever becomes of a pending handoff.
                self.transfer(true).await;
                LeaseOutcome::Ended
            }
            LeaseEnd::Transfer => self.transfer(true).await,
            // A worker that takes leases would not find one that was assigned to it.
            LeaseEnd::Relinquish if self.context.services.workers_take_leases() => {
                self.relinquish(None).await
            }
            LeaseEnd::Relinquish => match self.context.on_stop {
                // Released to its own id: by that mark the next process under it starts at once.
                OnStop::Keep => {
                    let me = self.context.worker_id.clone();
                    self.relinquish(Some(me)).await
                }
                OnStop::Release => self.relinquish(None).await,
                OnStop::HandOver => {
                    let receiver = self.context.services.receiver();
                    self.relinquish(receiver).await
                }
            },
        }
    }

    /// Completes a pending handoff, if there is one. `released`: the processor has stopped.
    pub(super) async fn transfer(&mut self, released: bool) -> LeaseOutcome {
        self.move_lease(released, |lease| lease.is_handoff_pending().then(|| lease.owner.clone()))
            .await
    }

    /// Completes a pending handoff; else assigns the lease to `receiver`; without one, releases it.
    async fn relinquish(&mut self, receiver: Option<String>) -> LeaseOutcome {
        self.move_lease(true, |lease| {
            let next = if lease.is_handoff_pending() { &lease.owner } else { &receiver };
            Some(next.clone())
        })
        .await
    }

    /// Moves the lease to the worker chosen for it as it is now: `None` leaves it, `Some(None)` makes
    /// it unassigned. This is the last that the renewer does.
    async fn move_lease(
        &mut self,
        released: bool,
        choose: impl Fn(&Lease) -> Option<Option<String>>,
    ) -> LeaseOutcome {
        let store = Arc::clone(&self.context.store);
        // Failed renewals do not count: the first attempt needs no budget.
        self.schedule.forget_failures();
        let mut failed = None;
        while !self.state.known().fence.has_fallen(self.now()) {
            let lease = self.state.known().lease.clone();
            // Before the budget is asked: often there is nothing to write.
            let Some(to) = choose(&lease) else {
                return left_to_expire("the handoff was taken back");
            };
            // As a renewal does, an attempt that repeats a failed one takes of the budget of the worker.
            if !self.schedule.may_try(self.now(), &self.context.retries) {
                if self.pause_in_time().await {
                    continue;
                }
                break;
            }
            let write = match &to {
                Some(to) if released => store.assign(&lease, to, true),
                // The counter is a condition here, too: an attempt that arrives late finds its own
                // handoff, not a later one between the same owners.
                Some(to) => store.take(&lease, to),
                None => store.evict(&lease),
            };
            match self.until_deadline(write).await {
                Some(Ok(Outcome::Applied(_) | Outcome::AppliedBefore(_))) => {
                    self.context.retries.succeeded(self.now());
                    return match to {
                        Some(to) if to == self.context.worker_id => LeaseOutcome::Kept,
                        Some(to) => LeaseOutcome::HandedOver { to },
                        None => LeaseOutcome::Released,
                    };
                }
                Some(Ok(Outcome::ConditionFailed(seen))) => match self.judge(&lease, seen) {
                    Verdict::Adopt(seen) if *seen != lease => self.state.learn(*seen),
                    _ => return LeaseOutcome::Lost,
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

    /// Pauses before the next attempt; false if none may be made. The last calls of a planned stop end the
    /// pause: the stop reports the lease then.
    async fn pause_in_time(&mut self) -> bool {
        let sleep = tokio::time::sleep(self.pause());
        if self.may_try_again() {
            let _ = self.context.out_of_time.run_until_cancelled(sleep).await;
        }
        self.may_try_again()
    }

    /// Whether another attempt may be made. After the last calls of a planned stop, none is: a lease that
    /// was not relinquished until then expires.
    fn may_try_again(&self) -> bool {
        let is_aborted = self.state.aborted.load(Ordering::Relaxed);
        !is_aborted && !self.context.out_of_time.is_cancelled()
    }
}

fn left_to_expire(cause: impl ToString) -> LeaseOutcome {
    LeaseOutcome::LeftToExpire { cause: cause.to_string() }
}
