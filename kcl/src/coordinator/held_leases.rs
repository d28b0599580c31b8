//! The leases that this worker holds, or held until their consumers let go.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::lease::{Tenure, WeakTenure};

/// One entry per lease with a running writer; never more than `max_leases`.
#[derive(Debug)]
pub(crate) struct HeldLeases {
    inner: Mutex<Inner>,
    max_leases: usize,
    /// See [`HeldLeases::hold_back`].
    held_back: AtomicBool,
    /// See [`HeldLeases::note_named`].
    named: AtomicUsize,
    /// The answer of [`HeldLeases::has_room`] may have changed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Leases that one of the tasks is about to acquire: two acquisitions of one lease would fence
    /// each other.
    claimed: HashSet<String>,
    held: BTreeMap<String, WeakTenure>,
}

impl Inner {
    /// Leases that are held or about to be.
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

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one map operation.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing may be claimed for now: nobody would process it.
    pub(crate) fn hold_back(&self, held_back: bool) {
        self.held_back.store(held_back, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(crate) fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Notes how many unfinished leases name this worker in the lease table: handoffs to it are pending
    /// before it holds them.
    pub(crate) fn note_named(&self, leases: usize) {
        self.named.store(leases, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// True if this worker holds as many leases as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.inner().load() >= self.max_leases
    }

    /// True if other workers may hand this one a lease.
    pub(crate) fn has_room(&self) -> bool {
        let named = self.named.load(Ordering::Relaxed);
        !self.is_held_back() && named < self.max_leases && !self.is_full()
    }

    /// Waits until [`has_room`](Self::has_room) may answer differently.
    ///
    /// # Cancel safety
    /// Waits only. For one waiter.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The right to acquire a lease, unless it is held or claimed already, or nothing may be.
    pub(crate) fn claim(self: &Arc<Self>, key: &str) -> Option<Claim> {
        if self.is_held_back() {
            return None;
        }
        let mut inner = self.inner();
        if inner.load() >= self.max_leases
            || inner.held.contains_key(key)
            || !inner.claimed.insert(key.to_owned())
        {
            return None;
        }
        drop(inner);
        self.changed.notify_one();
        Some(Claim { registry: Arc::clone(self), key: key.to_owned() })
    }

    /// The writer has ended.
    pub(crate) fn remove(&self, key: &str) {
        self.inner().held.remove(key);
        self.changed.notify_one();
    }

    /// True while a tenure of the lease runs or begins, or its consumer has not let go of a lost one.
    pub(crate) fn contains(&self, key: &str) -> bool {
        let inner = self.inner();
        inner.held.contains_key(key) || inner.claimed.contains(key)
    }

    /// The tenure, if it is still held.
    pub(crate) fn held(&self, key: &str) -> Option<Tenure> {
        let tenure = self.inner().held.get(key)?.upgrade()?;
        tenure.is_held().then_some(tenure)
    }
}

/// See [`HeldLeases::claim`]. Dropped: the lease may be claimed again.
#[derive(Debug)]
pub(crate) struct Claim {
    registry: Arc<HeldLeases>,
    key: String,
}

impl Claim {
    /// The lease was acquired.
    pub(crate) fn fulfil(self, tenure: &Tenure) {
        let mut inner = self.registry.inner();
        inner.claimed.remove(&self.key);
        inner.held.insert(self.key.clone(), tenure.downgrade());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.registry.inner().claimed.remove(&self.key);
        self.registry.changed.notify_one();
    }
}
