//! The leases that this worker holds, or held until their consumers let go.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::lease::{Tenure, WeakTenure};

/// One entry per lease with a running writer.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    /// See [`Registry::hold_back`].
    held_back: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    /// Leases that one of the tasks is about to acquire: two acquisitions of one lease would fence
    /// each other.
    claimed: HashSet<String>,
    held: BTreeMap<String, WeakTenure>,
    /// The counter that each past tenure of this worker ended with.
    past: HashMap<String, u64>,
}

impl Registry {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one map operation.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing may be claimed for now: nobody would process it.
    pub(crate) fn hold_back(&self, held_back: bool) {
        self.held_back.store(held_back, Ordering::Relaxed);
    }

    pub(crate) fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }

    /// The right to acquire a lease, unless it is held or claimed already, or nothing may be.
    pub(crate) fn claim(self: &Arc<Self>, key: &str) -> Option<Claim> {
        if self.is_held_back() {
            return None;
        }
        let mut inner = self.inner();
        if inner.held.contains_key(key) || !inner.claimed.insert(key.to_owned()) {
            return None;
        }
        drop(inner);
        Some(Claim {
            registry: Arc::clone(self),
            key: key.to_owned(),
        })
    }

    /// The writer has ended. `counter`: as last known.
    pub(crate) fn remove(&self, key: &str, counter: u64) {
        let mut inner = self.inner();
        inner.held.remove(key);
        inner.past.insert(key.to_owned(), counter);
    }

    /// True while a tenure of the lease runs or begins, or its consumer has not let go of a lost one.
    pub(crate) fn contains(&self, key: &str) -> bool {
        let inner = self.inner();
        inner.held.contains_key(key) || inner.claimed.contains(key)
    }

    pub(crate) fn past_counter(&self, key: &str) -> Option<u64> {
        self.inner().past.get(key).copied()
    }

    /// The tenure, if it is still held.
    pub(crate) fn held(&self, key: &str) -> Option<Tenure> {
        let tenure = self.inner().held.get(key)?.upgrade()?;
        tenure.is_held().then_some(tenure)
    }

    /// Forgets past tenures of leases that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.inner().past.retain(|key, _| exists(key));
    }
}

/// See [`Registry::claim`]. Dropped: the lease may be claimed again.
#[derive(Debug)]
pub(crate) struct Claim {
    registry: Arc<Registry>,
    key: String,
}

impl Claim {
    /// The lease was acquired.
    pub(crate) fn fulfil(self, tenure: &Tenure) {
        self.registry
            .inner()
            .held
            .insert(self.key.clone(), tenure.downgrade());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.registry.inner().claimed.remove(&self.key);
    }
}
