//! Requests for a new shard map, from the sender to the refresher.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::sync::lock;

/// Requests for the next shard map. The generation of a map is the number of the refresh that brought it.
#[derive(Default)]
pub(crate) struct RefreshRequests {
    begun: AtomicU64,
    /// The first generation that is surely of the present stream. Earlier ones may be of a deleted stream of the same
    /// name.
    trusted_from: AtomicU64,
    /// Shards that wrote a record and that the shard map does not know.
    unknown_shards: Mutex<BTreeSet<Arc<str>>>,
    /// Whether a record was seen in a shard other than that of its key: the stream may place records itself now.
    pub(crate) seen_placed: AtomicBool,
    wanted: Notify,
}

impl RefreshRequests {
    /// Requests a shard map. Returns the first generation whose refresh begins after this call.
    pub(crate) fn request(&self) -> u64 {
        let fresh = self.begun.load(Ordering::SeqCst) + 1;
        self.wanted.notify_one();
        fresh
    }

    /// Requests a shard map, and distrusts all maps before it: the stream may have been deleted.
    pub(crate) fn request_trusted(&self) {
        self.trust_from(self.request());
    }

    /// Distrusts all shard maps before this generation.
    pub(crate) fn trust_from(&self, generation: u64) {
        self.trusted_from.fetch_max(generation, Ordering::SeqCst);
    }

    pub(crate) fn trusted_from(&self) -> u64 {
        self.trusted_from.load(Ordering::SeqCst)
    }

    /// Notes a shard that the next refresh must find.
    pub(crate) fn note_unknown(&self, shard_id: &Arc<str>) {
        lock(&self.unknown_shards).insert(Arc::clone(shard_id));
    }

    /// Takes the shards that the next refresh must find.
    pub(super) fn take_unknown(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut *lock(&self.unknown_shards))
    }

    /// Begins a refresh. Returns its generation.
    pub(super) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Waits until a shard map is requested.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}
