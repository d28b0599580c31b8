//! Renewals, and writes of checkpoints: conditional on the counter.

use std::sync::Arc;
use std::time::Duration;

use kcl::Checkpoint;
use kcl::internals::{Lease, LeaseStore, LeaseStoreError, LeaseWrite, Outcome};

use super::{Heartbeat, Held, Worker};

const RENEWAL: Duration = Duration::from_millis(3_308);

impl Worker {
    pub(super) async fn renew_all(&self) {
        loop {
            let due: Vec<Arc<Held>> = self.held().values().cloned().collect();
            for held in due {
                if held.is_current() {
                    self.renew(&held).await;
                } else {
                    self.drop_lease(&held);
                }
            }
            tokio::time::sleep(RENEWAL).await;
        }
    }

    async fn renew(&self, held: &Arc<Held>) {
        let _writing = held.writing.lock().await;
        // A handoff that the lease in memory does not know of stops the first attempt.
        for _ in 0..2 {
            let (known, sent) = (held.lease(), self.now());
            let even_in_handoff = held.shutdown.is_cancelled() || known.is_handoff_pending();
            let (counter, next) = (known.counter, known.counter + 1);
            let outcome = self.store.conditional("java renew", &known, move |item| {
                let free = even_in_handoff || item.checkpoint_owner.is_none();
                (item.counter == counter && free).then(|| Lease { counter: next, ..item.clone() })
            });
            let outcome = outcome.await;
            if held.state().lost {
                return;
            }
            match outcome {
                Ok(Outcome::Applied(lease)) => {
                    let moved = self.moved(&lease, sent);
                    return self.renewed(held, lease, moved, Heartbeat::Written);
                }
                Ok(Outcome::ConditionFailed(Some(item)))
                    if item.is_handoff_pending()
                        && item.actual_owner() == known.actual_owner()
                        && !even_in_handoff =>
                {
                    let mut state = held.state();
                    state.lease.owner = item.owner;
                    state.lease.checkpoint_owner = item.checkpoint_owner;
                }
                Ok(_) => return self.read_back(held, &known, sent).await,
                // The next renewal tries again.
                Err(_) => return,
            }
        }
    }

    /// Reads the lease back after a refused write: an earlier attempt of the client may have moved the counter.
    async fn read_back(&self, held: &Arc<Held>, known: &Lease, sent: Duration) {
        match self.store.get(&known.key).await {
            Ok(Some(item))
                if item.actual_owner() == Some(&self.name)
                    && item.actual_owner() == known.owner.as_deref()
                    && item.counter == known.counter + 1 =>
            {
                // The write that moved the counter may have been an earlier one.
                let moved = self.moved(&item, sent);
                let heartbeat = if moved < sent { Heartbeat::ReadBack } else { Heartbeat::Written };
                self.renewed(held, item, moved, heartbeat);
            }
            _ => self.drop_lease(held),
        }
    }

    /// When the counter took the value that a write sent at `sent` left.
    fn moved(&self, lease: &Lease, sent: Duration) -> Duration {
        let moved = self.world.oracle.moved(lease);
        moved.map_or(sent, |moved| moved.at)
    }

    fn renewed(&self, held: &Arc<Held>, lease: Lease, moved: Duration, heartbeat: Heartbeat) {
        let former = lease.checkpoint_owner.clone();
        held.learn(lease, moved, heartbeat);
        match former {
            Some(former) if former == self.name => held.shutdown.cancel(),
            Some(_) => self.drop_lease(held),
            None => {}
        }
    }

    /// Writes a checkpoint. True if it was done and answered.
    pub(super) async fn checkpoint(&self, held: &Arc<Held>, checkpoint: Checkpoint) -> bool {
        let _writing = held.writing.lock().await;
        if !held.is_current() {
            return false;
        }
        let (known, sent) = (held.lease(), self.now());
        let (counter, next) = (known.counter, known.counter + 1);
        let outcome = self.store.conditional("java checkpoint", &known, move |item| {
            (item.counter == counter).then(|| Lease {
                counter: next,
                checkpoint: checkpoint.clone(),
                owner_switches: 0,
                pending: None,
                ..item.clone()
            })
        });
        match outcome.await {
            // Java updates the counter and the checkpoint in memory, not the owners.
            Ok(Outcome::Applied(lease)) => {
                let (kept, moved) = (held.lease(), self.moved(&lease, sent));
                let lease =
                    Lease { owner: kept.owner, checkpoint_owner: kept.checkpoint_owner, ..lease };
                held.learn(lease, moved, Heartbeat::Written);
                true
            }
            _ => false,
        }
    }

    /// Ends a handoff, as its owner.
    pub(super) async fn transfer(&self, held: &Arc<Held>) -> Result<(), LeaseStoreError> {
        let lease = held.lease();
        if let (true, Some(to)) = (lease.is_handoff_pending(), &lease.owner) {
            let assign = LeaseWrite::Assign { to: to.clone(), released: false };
            self.store.write(&lease, assign).await?;
        }
        Ok(())
    }
}
