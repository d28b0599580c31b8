//! The leases that this worker holds, and how many more it may hold.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kinesis_common::sync::Mutex;
use tokio::sync::Notify;

use crate::lease::{HeldLease, WeakHeldLease};

/// One entry for each lease with a running renewer, `max_leases` at most. A lost lease keeps its
/// entry until its consumer has ended.
#[derive(Debug)]
pub(crate) struct HeldLeases {
    inner: Mutex<Inner>,
    max_leases: usize,
    /// True while this worker acquires no leases, because it could not process them.
    held_back: AtomicBool,
    /// Unfinished leases that name this worker in the table, as of the latest scan.
    named: AtomicUsize,
    /// Notified when the answer of [`HeldLeases::has_room`] may have changed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Leases that a task is about to acquire. Two acquisitions of one lease would fence each
    /// other.
    claimed: HashSet<String>,
    held: BTreeMap<String, WeakHeldLease>,
}

impl Inner {
    /// Number of leases that are held or about to be acquired.
    fn load(&self) -> usize {
        self.held.len() + self.claimed.len()
    }
}

impl HeldLeases {
    pub(crate) fn new(max_leases: usize) -> Self {
        Self {
            inner: Mutex::default(),
            max_leases,
            held_back: AtomicBool::new(false),
            named: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    /// While `is_held_back`, no lease can be claimed.
    pub(crate) fn hold_back(&self, is_held_back: bool) {
        self.held_back.store(is_held_back, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(crate) fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Notes how many unfinished leases name this worker in the lease table. Those in a pending
    /// handoff to it count, which it does not hold yet.
    pub(crate) fn note_named(&self, leases: usize) {
        self.named.store(leases, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// True if this worker holds as many leases as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.inner.lock().load() >= self.max_leases
    }

    /// True if other workers may hand this worker a lease.
    pub(crate) fn has_room(&self) -> bool {
        let named = self.named.load(Ordering::Relaxed);
        !self.is_held_back() && named < self.max_leases && !self.is_full()
    }

    /// Waits until [`has_room`](Self::has_room) may answer differently.
    ///
    /// # Cancel safety
    /// No change is lost. Only one task may wait.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Claims the right to acquire a lease. `None`: the lease is held or claimed already, or this
    /// worker may acquire none.
    pub(crate) fn claim(self: &Arc<Self>, key: &str) -> Option<Claim> {
        if self.is_held_back() {
            return None;
        }
        let mut inner = self.inner.lock();
        if inner.load() >= self.max_leases
            || inner.held.contains_key(key)
            || !inner.claimed.insert(key.to_owned())
        {
            return None;
        }
        drop(inner);
        self.changed.notify_one();
        Some(Claim { leases: Arc::clone(self), key: key.to_owned() })
    }

    /// Removes a lease whose renewer has ended.
    pub(crate) fn remove(&self, key: &str) {
        self.inner.lock().held.remove(key);
        self.changed.notify_one();
    }

    /// True if the lease is held or claimed, or was lost while its consumer has not ended yet.
    pub(crate) fn contains(&self, key: &str) -> bool {
        let inner = self.inner.lock();
        inner.held.contains_key(key) || inner.claimed.contains(key)
    }

    /// The lease, if this worker holds it.
    pub(crate) fn held(&self, key: &str) -> Option<HeldLease> {
        let held_lease = self.inner.lock().held.get(key)?.upgrade()?;
        held_lease.is_held().then_some(held_lease)
    }
}

/// The right to acquire a lease. When it is dropped, the lease may be claimed again.
#[derive(Debug)]
pub(crate) struct Claim {
    leases: Arc<HeldLeases>,
    key: String,
}

impl Claim {
    /// Notes that the lease was acquired.
    pub(crate) fn fulfil(self, held_lease: &HeldLease) {
        let mut inner = self.leases.inner.lock();
        inner.claimed.remove(&self.key);
        inner.held.insert(self.key.clone(), held_lease.downgrade());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.leases.inner.lock().claimed.remove(&self.key);
        self.leases.changed.notify_one();
    }
}
