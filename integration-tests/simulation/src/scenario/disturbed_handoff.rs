//! A handoff with a fault of its owner or receiver in the middle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kcl::internals::{Lease, LeaseStore as _, LeaseWrite, Outcome};
use tokio_util::sync::CancellationToken;

use super::{Fleet, Member, worker_id};
use crate::network::Network;
use crate::oracle::Oracle;
use crate::process::Process;

/// The name under which the handoff is shown to the table's watcher. It is written under the condition
/// of any handoff.
const BALANCER: &str = "balancer";

/// The fault of one side.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Death,
    Pause(Duration),
    Cut(Duration),
}

impl Fleet {
    /// Starts a handoff of a lease to `to`. A moment later, its owner or the receiver has a fault.
    pub(super) fn disturb_handoff(&mut self, to: &str) {
        let random = &mut self.random;
        let span = Duration::from_secs(random.u64(1..40));
        let trouble = match random.u32(..4) {
            0 => Trouble::Pause(span),
            1 => Trouble::Cut(span),
            _ => Trouble::Death,
        };
        let strikes_owner = random.bool();
        let after = Duration::from_millis(random.u64(..6_000));
        let draw = random.usize(..);
        self.step(&format!("a lease is to be handed to {to}"));
        let store = self.world.store(BALANCER, &self.members[to].network);
        let (oracle, calm) = (Arc::clone(&self.world.oracle), self.calm.clone());
        let sides = self.members.iter();
        let sides: BTreeMap<String, Side> =
            sides.map(|(name, member)| (name.clone(), Side::of(member))).collect();
        let to = to.to_owned();
        tokio::spawn(async move {
            let mut leases = store.list(true).await.unwrap_or_default().leases;
            leases.retain(|lease| {
                let owner = lease.owner.as_ref();
                let owner =
                    owner.filter(|owner| *owner != worker_id(&to) && sides.contains_key(*owner));
                owner.is_some() && !lease.has_ended() && !lease.is_handoff_pending()
            });
            let Some(lease) = (!leases.is_empty()).then(|| &leases[draw % leases.len()]) else {
                return;
            };
            let start = LeaseWrite::StartHandoff { to: worker_id(&to).into() };
            let started = store.write(lease, start).await;
            if !matches!(started, Ok(Outcome::Applied(_) | Outcome::AppliedBefore(_))) {
                return;
            }
            tokio::time::sleep(after).await;
            let struck = victim(lease, &to, strikes_owner);
            sides[struck].strike(struck, trouble, &oracle, &calm).await;
        });
    }
}

fn victim<'a>(lease: &'a Lease, to: &'a str, is_owner: bool) -> &'a str {
    let owner = lease.owner.as_deref().filter(|_| is_owner);
    owner.unwrap_or(to)
}

/// The owner or the receiver.
struct Side {
    process: Arc<Process>,
    network: Arc<Network>,
}

impl Side {
    fn of(member: &Member) -> Self {
        Self { process: Arc::clone(&member.process), network: Arc::clone(&member.network) }
    }

    async fn strike(
        &self,
        name: &str,
        trouble: Trouble,
        oracle: &Oracle,
        calm: &CancellationToken,
    ) {
        if calm.is_cancelled() || self.process.is_dead() {
            return;
        }
        oracle.step(&format!("{name}, in a handoff: {trouble:?}"));
        match trouble {
            Trouble::Death => {
                self.process.kill();
                oracle.died(name);
            }
            Trouble::Cut(span) => self.network.cut(span),
            Trouble::Pause(span) => {
                self.process.suspend(true);
                tokio::time::sleep(span).await;
                self.process.suspend(false);
                oracle.step(&format!("{name} goes on"));
            }
        }
    }
}
