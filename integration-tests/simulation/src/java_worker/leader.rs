//! The leader. It assigns free and expired leases, and balances by handoffs, which it forces after a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kcl::internals::{Item, Lease, LeaseStore, LeaseWrite, Snapshot, text};

use super::Worker;
use super::audit::{Audit, first_lease};
use crate::world::FAILOVER;

const HEARTBEAT: Duration = Duration::from_secs(30);
const LOCK_LASTS: Duration = Duration::from_secs(120);
const ASSIGNMENT: Duration = Duration::from_secs(20);
/// Time after which the leader forces a handoff.
const HANDOFF_LIMIT: Duration = Duration::from_secs(40);
const ROW_LASTS: u64 = 60;

/// The leader's lock: its holder, and the time of the holder's last heartbeat. The lease table shows it.
#[derive(Debug, Default)]
pub(crate) struct LeaderLock {
    holder: Mutex<Option<(String, Duration)>>,
    /// Heartbeats so far: each gives the item another version.
    heartbeats: AtomicU32,
    /// The number of writes after which the leader dies. 0: it does not die.
    doom: AtomicU32,
}

impl LeaderLock {
    /// True if `name` leads, at `now`.
    fn is_mine(&self, name: &str, now: Duration) -> bool {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = match &*holder {
            Some((leader, _)) if leader == name => true,
            Some((_, heard)) => now.saturating_sub(*heard) > LOCK_LASTS,
            None => true,
        };
        if mine {
            *holder = Some((name.to_owned(), now));
        }
        mine
    }

    /// The item as the lock client writes it at a heartbeat of `name`.
    fn item(&self, name: &str) -> Item {
        let version = self.heartbeats.fetch_add(1, Ordering::Relaxed).to_string();
        let duration = LOCK_LASTS.as_millis().to_string();
        let item = [
            ("leaseKey", "Leader"),
            ("entityType", "LEADER"),
            ("ownerName", name),
            ("recordVersionNumber", &version),
            ("leaseDuration", &duration),
        ];
        item.map(|(name, value)| (name.to_owned(), text(value))).into()
    }

    /// A planned stop of `name` gives the lock back.
    fn release(&self, name: &str) -> bool {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        let held = holder.as_ref().is_some_and(|(leader, _)| leader == name);
        if held {
            *holder = None;
        }
        held
    }

    /// Lets the leader die before so many more writes. 0: it does not.
    pub(crate) fn doom(&self, writes: u32) {
        self.doom.store(writes, Ordering::Relaxed);
    }

    /// Counts a write of a leader. True if the leader dies before it.
    fn strikes(&self) -> bool {
        let left = self.doom.load(Ordering::Relaxed);
        self.doom.store(left.saturating_sub(1), Ordering::Relaxed);
        left == 1
    }
}

/// The owner and the checkpoint owner.
type Owners = (Option<String>, Option<String>);

/// State that a leader keeps between two passes.
#[derive(Default)]
struct Memory {
    counters: BTreeMap<String, (u64, Duration)>,
    /// Since when each handoff is pending, with the owner and the receiver.
    handoffs: BTreeMap<String, (Owners, Duration)>,
    audit: Audit,
}

impl Worker {
    pub(super) async fn lead(&self) {
        let mut memory = Memory::default();
        loop {
            if !self.lock.is_mine(&self.name, self.now()) {
                memory = Memory::default();
                tokio::time::sleep(HEARTBEAT).await;
                continue;
            }
            let lock = self.lock.item(&self.name);
            self.world.table.put_item("Leader", lock);
            let looked = self.now();
            match self.store.list(false).await {
                Ok(snapshot) if snapshot.leases.is_empty() => self.create_first(looked).await,
                Ok(snapshot) => {
                    self.audit(&mut memory.audit, &snapshot.leases, looked).await;
                    self.pass(&mut memory, snapshot).await;
                }
                Err(_) => {}
            }
            tokio::time::sleep(ASSIGNMENT).await;
        }
    }

    /// The last step of a planned stop.
    pub(super) fn resign(&self) {
        if self.lock.release(&self.name) {
            self.world.table.set(&self.name, "Leader", None);
        }
    }

    /// The leases of the oldest shards.
    async fn create_first(&self, looked: Duration) {
        let shards = self.world.stream.shards().into_iter();
        for (id, shard) in shards.filter(|(_, shard)| shard.parents.is_empty()) {
            let lease = first_lease(&id, &shard);
            self.about_to_write().await;
            while self.create(&lease, looked).await.is_err() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn pass(&self, memory: &mut Memory, snapshot: Snapshot) {
        let (now, seconds) = (self.now(), self.process_seconds());
        let mut loads: BTreeMap<String, usize> = snapshot
            .workers
            .iter()
            .filter(|row| seconds.saturating_sub(row.last_update) <= ROW_LASTS)
            .map(|row| (row.worker.clone(), 0))
            .collect();
        let active: Vec<&Lease> = snapshot.leases.iter().filter(|l| !l.has_ended()).collect();
        for lease in &active {
            if let Some(load) = lease.owner.as_ref().and_then(|owner| loads.get_mut(owner)) {
                *load += 1;
            }
        }
        if self.random(|random| random.u32(..10)) == 0 {
            // A pause of the garbage collector between the scan and the writes that follow from it.
            let pause = self.random(|random| random.u64(1_000..40_000));
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let mut steady = Vec::new();
        for lease in active {
            if memory.is_free(lease, now) || memory.is_overdue(lease, now) {
                let to = if lease.is_handoff_pending() && !memory.is_free(lease, now) {
                    lease.owner.clone()
                } else {
                    least(&mut loads)
                };
                if let Some(to) = to {
                    self.about_to_write().await;
                    // Counter and time of the owner do not stand in its way.
                    let assign = LeaseWrite::Assign { to, released: false };
                    let _ = self.store.write(lease, assign).await;
                }
            } else if !lease.is_handoff_pending() {
                steady.push(lease);
            }
        }
        self.even_out(&loads, &steady).await;
    }

    /// The leader may die here, with its work half done.
    async fn about_to_write(&self) {
        if self.lock.strikes() {
            let oracle = &self.world.oracle;
            oracle.step(&format!("{} dies in the middle of its work", self.name));
            oracle.died(&self.name);
            self.process.kill();
            std::future::pending::<()>().await;
        }
    }

    fn process_seconds(&self) -> u64 {
        use kcl::Clock as _;
        self.process.epoch_millis() / 1000
    }

    /// Hands one lease over from the most to the least loaded worker.
    async fn even_out(&self, loads: &BTreeMap<String, usize>, steady: &[&Lease]) {
        let most = loads.iter().max_by_key(|(_, load)| **load);
        let least = loads.iter().min_by_key(|(_, load)| **load);
        let (Some((from, most)), Some((to, least))) = (most, least) else {
            return;
        };
        let owned = |lease: &&&Lease| lease.owner.as_ref() == Some(from);
        if *most >= least + 2
            && let Some(lease) = steady.iter().find(owned)
        {
            self.about_to_write().await;
            // Another pass tries again.
            let _ = self.store.write(lease, LeaseWrite::StartHandoff { to: to.clone() }).await;
        }
    }
}

impl Memory {
    /// True if a lease is unassigned, or its counter stood still for the failover time.
    fn is_free(&mut self, lease: &Lease, now: Duration) -> bool {
        let seen = self.counters.entry(lease.key.clone()).or_insert((lease.counter, now));
        if seen.0 != lease.counter {
            *seen = (lease.counter, now);
        }
        lease.owner.is_none() || now.saturating_sub(seen.1) > FAILOVER
    }

    /// True if a handoff takes too long. A handoff between other workers is another handoff.
    fn is_overdue(&mut self, lease: &Lease, now: Duration) -> bool {
        if !lease.is_handoff_pending() {
            self.handoffs.remove(&lease.key);
            return false;
        }
        let owners = (lease.owner.clone(), lease.checkpoint_owner.clone());
        let seen = self.handoffs.entry(lease.key.clone());
        let seen = seen.or_insert_with(|| (owners.clone(), now));
        if seen.0 != owners {
            *seen = (owners, now);
        }
        now.saturating_sub(seen.1) > HANDOFF_LIMIT
    }
}

fn least(loads: &mut BTreeMap<String, usize>) -> Option<String> {
    let (worker, load) = loads.iter_mut().min_by_key(|(_, load)| **load)?;
    *load += 1;
    Some(worker.clone())
}
