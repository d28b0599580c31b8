//! Memory of fetched records: the worker's byte budget.
//!
//! A source reserves the bytes of a page before it receives it ([`ShardBudget::reserve`]). The page holds
//! them ([`Held`]) until the processor has taken its records. A shard holds one page in process and one ahead.
//!
//! Records that the processor keeps hold the bytes of their page ([`HeldBytes`]), so that less is read ahead. They do
//! not count as a page of the shard: the shard always gets its next page. Otherwise, a processor that waits for more
//! records before it releases some would wait forever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

/// Most bytes that the service returns in one call, approximately.
pub(super) const MAX_PAGE_BYTES: u64 = 10 << 20;
/// Smallest share of the worker's budget that is worth a call.
const MIN_PAGE_BYTES: u64 = 256 << 10;

/// Bytes of fetched records that all shards of a worker may hold. Shards that wait get room in their order.
///
/// A shard that holds no page always gets one. If there is no room, its bytes become a debt, which is paid first
/// from bytes that are given back. A second page needs room. A shard with two pages so has taken both within the
/// capacity: at most half of the capacity is for second pages, whatever the others hold. So the worker holds at most
/// `max(capacity, capacity / 2 + active shards x one page)`, and what processors keep beyond that. A page has about
/// [`ShardBudget::share`] bytes.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    capacity: usize,
    room: Semaphore,
    debt: Mutex<usize>,
    shards: AtomicUsize,
}

impl ByteBudget {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        let capacity = capacity.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            capacity,
            room: Semaphore::new(capacity),
            debt: Mutex::new(0),
            shards: AtomicUsize::new(0),
        })
    }

    /// Bytes that are held now.
    pub(crate) fn held(&self) -> usize {
        let debt = *self.debt();
        (self.capacity - self.room.available_permits().min(self.capacity)) + debt
    }

    fn debt(&self) -> MutexGuard<'_, usize> {
        self.debt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes` even if there is no room.
    fn force(&self, bytes: usize) {
        let mut debt = self.debt();
        *debt += bytes - self.room.forget_permits(bytes);
    }

    fn give_back(&self, bytes: usize) {
        let mut debt = self.debt();
        let paid = bytes.min(*debt);
        *debt -= paid;
        self.room.add_permits(bytes - paid);
    }
}

/// One shard's access to the budget.
#[derive(Debug)]
pub(crate) struct ShardBudget {
    budget: Arc<ByteBudget>,
    pages: Arc<Pages>,
}

/// The number of pages that a shard holds.
#[derive(Debug, Default)]
struct Pages {
    held: AtomicUsize,
    none_held: Notify,
}

impl ShardBudget {
    pub(crate) fn new(budget: &Arc<ByteBudget>) -> Self {
        budget.shards.fetch_add(1, Ordering::Relaxed);
        Self { budget: Arc::clone(budget), pages: Arc::default() }
    }

    /// Bytes that a page of this shard should have.
    pub(crate) fn share(&self) -> u64 {
        page_share(self.budget.capacity as u64, self.budget.shards.load(Ordering::Relaxed))
    }

    /// Waits for room for about `bytes`. Returns at once if this shard holds no page.
    ///
    /// # Cancel safety
    /// A call that is dropped takes nothing.
    pub(crate) async fn reserve(&self, bytes: u64) -> Held {
        let bytes = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(self.budget.capacity)
            .min(u32::MAX as usize);
        tokio::select! {
            biased;
            () = self.none_held() => self.budget.force(bytes),
            // The semaphore is never closed.
            permit = self.budget.room.acquire_many(bytes as u32) => match permit {
                Ok(permit) => permit.forget(),
                Err(_) => self.budget.force(bytes),
            },
        }
        self.pages.held.fetch_add(1, Ordering::AcqRel);
        Held {
            bytes: HeldBytes { budget: Arc::clone(&self.budget), bytes },
            page: HeldPage(Arc::clone(&self.pages)),
        }
    }

    async fn none_held(&self) {
        loop {
            let notified = self.pages.none_held.notified();
            if self.pages.held.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for ShardBudget {
    fn drop(&mut self) {
        self.budget.shards.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A page of a shard, and its bytes of the budget. They are given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    bytes: HeldBytes,
    page: HeldPage,
}

impl Held {
    /// Corrects the size to that of the page.
    pub fn resize(&mut self, bytes: usize) {
        self.bytes.resize(bytes);
    }

    /// Separates the bytes, which records may hold when their shard has no page any more.
    pub(crate) fn split(self) -> (HeldBytes, HeldPage) {
        (self.bytes, self.page)
    }
}

/// Bytes of the budget. They are given back when they are dropped.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl HeldBytes {
    /// The number of bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Corrects the number of bytes.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.force(bytes - self.bytes);
        } else {
            self.budget.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// A page that a shard holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct HeldPage(Arc<Pages>);

impl Drop for HeldPage {
    fn drop(&mut self) {
        if self.0.held.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_held.notify_one();
        }
    }
}

/// Bytes that a page may have when `shards` shards are active.
fn page_share(budget: u64, shards: usize) -> u64 {
    (budget / (2 * shards.max(1) as u64)).clamp(MIN_PAGE_BYTES, MAX_PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;

    #[tokio::test]
    async fn a_second_page_waits_for_room() {
        let budget = ByteBudget::new(100);
        let (one, two) = (ShardBudget::new(&budget), ShardBudget::new(&budget));
        let first = one.reserve(60).await;
        let other = two.reserve(30).await;
        let mut waiting = Box::pin(two.reserve(30));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        let second = waiting.await;
        assert_eq!(budget.held(), 60);
        drop((other, second));
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn a_shard_that_holds_nothing_never_waits() {
        let budget = ByteBudget::new(100);
        let shards: Vec<_> = (0..5).map(|_| ShardBudget::new(&budget)).collect();
        let mut held = Vec::new();
        for shard in &shards {
            held.push(shard.reserve(80).now_or_never().expect("no waiting"));
        }
        assert_eq!(budget.held(), 400);
        // The debt is paid before there is room for a page ahead.
        let mut waiting = Box::pin(shards[4].reserve(80));
        held.drain(..3);
        assert_eq!(budget.held(), 160);
        assert!(waiting.as_mut().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_waiting_shard_gets_its_page_once_it_holds_nothing() {
        let budget = ByteBudget::new(100);
        let (one, two) = (ShardBudget::new(&budget), ShardBudget::new(&budget));
        let _full = one.reserve(100).await;
        let mine = two.reserve(10).await;
        let mut waiting = Box::pin(two.reserve(50));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(mine);
        assert!(waiting.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn the_true_size_counts() {
        let budget = ByteBudget::new(100);
        let shard = ShardBudget::new(&budget);
        let mut held = shard.reserve(50).await;
        held.resize(10);
        assert_eq!(budget.held(), 10);
        held.resize(160);
        assert_eq!(budget.held(), 160);
        drop(held);
        assert_eq!(budget.held(), 0);
        assert_eq!(budget.room.available_permits(), 100);
    }

    #[tokio::test]
    async fn kept_bytes_count_and_do_not_keep_the_shard_from_its_next_page() {
        let budget = ByteBudget::new(100);
        let (one, two) = (ShardBudget::new(&budget), ShardBudget::new(&budget));
        let (bytes, page) = one.reserve(100).await.split();
        let other = two.reserve(10).await;
        let mut ahead = Box::pin(two.reserve(10));
        let mut next = Box::pin(one.reserve(100));
        assert!(next.as_mut().now_or_never().is_none(), "its page is still in process");
        drop(page);
        let next = next.now_or_never().expect("it holds no page");
        assert_eq!(budget.held(), 210);
        assert!(ahead.as_mut().now_or_never().is_none(), "there is no room to read ahead");
        drop((bytes, next));
        assert!(ahead.now_or_never().is_some());
        drop(other);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn the_share_follows_the_active_shards() {
        let budget = ByteBudget::new(64 << 20);
        let shards: Vec<_> = (0..8).map(|_| ShardBudget::new(&budget)).collect();
        assert_eq!(shards[0].share(), 4 << 20);
        drop(shards);
        assert_eq!(ShardBudget::new(&budget).share(), 10 << 20);
    }

    #[test]
    fn shares() {
        assert_eq!(page_share(64 << 20, 1), MAX_PAGE_BYTES);
        assert_eq!(page_share(64 << 20, 8), 4 << 20);
        assert_eq!(page_share(64 << 20, 10_000), MIN_PAGE_BYTES);
        assert_eq!(page_share(64 << 20, 0), MAX_PAGE_BYTES);
    }

    proptest! {
        /// Shards with up to two pages each, whose first page may be larger than what was reserved for it.
        #[test]
        fn the_bound_holds(
            page in 1usize..60,
            count in 1usize..8,
            steps in prop::collection::vec((0usize..8, any::<bool>(), 0usize..=100), 1..200),
        ) {
            const CAPACITY: usize = 100;
            let budget = ByteBudget::new(CAPACITY);
            let shards: Vec<_> = (0..count).map(|_| ShardBudget::new(&budget)).collect();
            let mut pages: Vec<Vec<Held>> = (0..count).map(|_| Vec::new()).collect();
            for (shard, take, percent) in steps {
                let (shard, size) = (shard % count, page * percent / 100);
                if take && pages[shard].len() < 2 {
                    let is_first = pages[shard].is_empty();
                    let reserved = if is_first { size } else { page };
                    if let Some(mut held) = shards[shard].reserve(reserved as u64).now_or_never() {
                        held.resize(page);
                        pages[shard].push(held);
                    }
                } else if !pages[shard].is_empty() {
                    pages[shard].remove(0);
                }
                let bound = CAPACITY.max(CAPACITY / 2 + count * page);
                prop_assert!(budget.held() <= bound, "{} of {bound}", budget.held());
            }
        }

        /// Whatever is reserved, resized and dropped: held bytes are the sum of what is alive, and
        /// everything comes back.
        #[test]
        fn bytes_are_conserved(steps in prop::collection::vec((0usize..4, 0u64..200, 0u8..3), 1..60)) {
            let budget = ByteBudget::new(100);
            let shards: Vec<_> = (0..4).map(|_| ShardBudget::new(&budget)).collect();
            let mut alive: Vec<Held> = Vec::new();
            for (shard, bytes, step) in steps {
                match step {
                    0 => alive.extend(shards[shard].reserve(bytes).now_or_never()),
                    1 if !alive.is_empty() => drop(alive.swap_remove(shard % alive.len())),
                    _ => if let Some(held) = alive.last_mut() { held.resize(bytes as usize) },
                }
                prop_assert_eq!(budget.held(), alive.iter().map(|held| held.bytes.bytes).sum::<usize>());
            }
            drop(alive);
            prop_assert_eq!(budget.held(), 0);
            prop_assert_eq!(budget.room.available_permits(), 100);
        }
    }
}
