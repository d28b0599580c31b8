//! The leases that this worker holds, or held until their consumers let go.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::lease::{Tenure, WeakTenure};

/// One entry per lease with a running writer.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: BTreeMap<String, WeakTenure>,
    /// The counter that each past tenure of this worker ended with.
    past: HashMap<String, u64>,
}

impl Registry {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one map operation.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if there is one for that lease already.
    pub(crate) fn insert(&self, tenure: &Tenure) -> bool {
        let mut inner = self.inner();
        if inner.held.contains_key(tenure.shard_id()) {
            return false;
        }
        inner.held.insert(tenure.shard_id().to_owned(), tenure.downgrade());
        true
    }

    /// The writer has ended. `counter`: as last known.
    pub(crate) fn remove(&self, key: &str, counter: u64) {
        let mut inner = self.inner();
        inner.held.remove(key);
        inner.past.insert(key.to_owned(), counter);
    }

    /// True while a tenure of the lease runs, or its consumer has not let go of a lost one.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.inner().held.contains_key(key)
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
