//! The first leases of an application: created by one of the workers that start, while the others
//! wait.
//!
//! That worker holds the lock of the fleet's leader, an item that the Java library has too, and gives
//! it back when the leases are there. The lock only saves writes: every create is conditional, so a
//! worker that finds the holder silent helps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use fastrand::Rng;

use super::hierarchy::NewLease;
use super::sync::{ShardSync, Survey, SyncError};
use crate::lease::{CallErrorKind, LeaderLock, LeaseStoreError};

/// So few leases are created by any worker at once: that takes less time than the lock.
const WITHOUT_LOCK: usize = 25;
/// A holder that was silent for so long is replaced.
const LOCK_DURATION: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Between two reads of the lock, and after the holder gave it back, at most; half of it at least.
const POLL: Duration = Duration::from_secs(1);
/// How long a lock that is no starter's is respected while no lease appears: a Java leader waits up to
/// 30 s before it creates the first. Up to twice as long, so that not all workers help at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Creates the leases that a stream lacks, as one of many workers that start at a time.
#[derive(Debug)]
pub(crate) struct Starter<'a> {
    sync: &'a ShardSync,
    worker_id: &'a str,
    random: Mutex<Rng>,
    /// The service's time at the first listing: where leases at `LATEST` start, however long it takes
    /// to create them.
    began: OnceLock<SystemTime>,
    /// Many leases were missing at first, or had never had an owner.
    was_cold: AtomicBool,
}

/// How the lock was found.
enum Lock {
    Ours(LeaderLock),
    Others(LeaderLock),
    /// It was freed a moment ago.
    Free,
    /// This worker may not use it.
    Denied,
}

impl<'a> Starter<'a> {
    pub(crate) fn new(sync: &'a ShardSync, worker_id: &'a str, seed: u64) -> Self {
        Self {
            sync,
            worker_id,
            random: Mutex::new(Rng::with_seed(seed)),
            began: OnceLock::new(),
            was_cold: AtomicBool::new(false),
        }
    }

    /// Returns when every shard that needs a lease has one: whether the fleet starts cold, which is when
    /// many leases are new.
    ///
    /// # Errors
    /// What was done stays: call it again.
    ///
    /// # Cancel safety
    /// Call it again. A lock that is held expires after five seconds.
    pub(crate) async fn run(&self) -> Result<bool, SyncError> {
        let patience = self.between(PATIENCE, 2 * PATIENCE);
        let clock = &self.sync.clock;
        let (mut fewest, mut since) = (usize::MAX, clock.now());
        let mut stale = None;
        loop {
            let survey = self.sync.survey().await?;
            self.began.get_or_init(|| survey.server_time());
            let missing = survey.missing(self.sync.position);
            if missing.len() < fewest {
                (fewest, since) = (missing.len(), clock.now());
            }
            let nobody_creates = clock.now().saturating_sub(since) >= patience;
            if missing.len() + survey.never_owned() > WITHOUT_LOCK {
                self.was_cold.store(true, Ordering::Relaxed);
            }
            if missing.len() <= WITHOUT_LOCK || nobody_creates {
                self.create(&survey, &missing).await?;
                return Ok(self.was_cold.load(Ordering::Relaxed));
            }
            match self.acquire(stale.take()).await? {
                Lock::Ours(lock) => {
                    self.create_locked(&survey, &missing, lock).await?;
                    return Ok(true);
                }
                Lock::Denied => {
                    self.create(&survey, &missing).await?;
                    return Ok(true);
                }
                Lock::Free => tokio::time::sleep(self.between(POLL / 2, POLL)).await,
                Lock::Others(lock) => {
                    tracing::info!(
                        missing = missing.len(),
                        by = lock.owner,
                        "waiting for another worker to create the leases"
                    );
                    stale = self.wait(lock).await?;
                }
            }
        }
    }

    async fn create(&self, survey: &Survey, missing: &[NewLease<'_>]) -> Result<(), SyncError> {
        let began = *self.began.get_or_init(|| survey.server_time());
        self.sync.create_all(survey, missing, began).await?;
        self.sync.tidy(survey).await?;
        Ok(())
    }

    /// Creates the leases with heartbeats, and gives the lock back, whatever became of them.
    async fn create_locked(
        &self,
        survey: &Survey,
        missing: &[NewLease<'_>],
        lock: LeaderLock,
    ) -> Result<(), SyncError> {
        let count = missing.len();
        tracing::info!(count, "creating the leases, for all workers that start");
        let lock = Mutex::new(Some(lock));
        let created = {
            let create = self.create(survey, missing);
            let heartbeats = self.heartbeats(&lock);
            tokio::pin!(create, heartbeats);
            tokio::select! {
                biased;
                created = &mut create => created,
                () = &mut heartbeats => create.await,
            }
        };
        let lock = lock.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = lock
            && let Err(error) = self.sync.store.change_leader(Some(&lock), None).await
        {
            tracing::debug!(%error, "the lock could not be given back; it expires");
        }
        created
    }

    /// Renews the lock until it is lost.
    async fn heartbeats(&self, lock: &Mutex<Option<LeaderLock>>) {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let known = lock.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let next = self.lock();
            let renewed = self.sync.store.change_leader(known.as_ref(), Some(&next));
            match renewed.await {
                Ok(true) => {
                    *lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
                }
                Ok(false) => {
                    *lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return;
                }
                Err(error) => tracing::debug!(%error, "the lock could not be renewed"),
            }
        }
    }

    /// `over`: a lock whose holder is silent.
    async fn acquire(&self, over: Option<LeaderLock>) -> Result<Lock, SyncError> {
        let store = &self.sync.store;
        let lock = self.lock();
        let acquired = match store.change_leader(over.as_ref(), Some(&lock)).await {
            Ok(true) => return Ok(Lock::Ours(lock)),
            Ok(false) => store.leader().await,
            Err(error) => Err(error),
        };
        match acquired {
            Ok(Some(other)) => Ok(Lock::Others(other)),
            Ok(None) => Ok(Lock::Free),
            Err(LeaseStoreError::Call(error)) if error.kind == CallErrorKind::AccessDenied => {
                tracing::warn!(%error, "leases are created without the lock of the fleet's leader");
                Ok(Lock::Denied)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there may be more leases. Answers with the lock, if its holder was silent for as
    /// long as it may be.
    async fn wait(&self, mut seen: LeaderLock) -> Result<Option<LeaderLock>, SyncError> {
        let clock = &self.sync.clock;
        let began = clock.now();
        let mut since = began;
        loop {
            tokio::time::sleep(self.between(POLL / 2, POLL)).await;
            let now = clock.now();
            match self.sync.store.leader().await? {
                None => {
                    // All that waited read the whole table now: not at once.
                    tokio::time::sleep(self.between(Duration::ZERO, POLL)).await;
                    return Ok(None);
                }
                Some(lock) if lock.version != seen.version => (seen, since) = (lock, now),
                Some(lock) if now.saturating_sub(since) >= lock.duration => return Ok(Some(lock)),
                // A leader keeps its lock: only the table tells whether it creates leases.
                Some(lock) if !lock.is_starter && now.saturating_sub(began) >= 3 * POLL => {
                    return Ok(None);
                }
                Some(_) => {}
            }
        }
    }

    fn lock(&self) -> LeaderLock {
        let version = self.random(|random| random.u128(..));
        LeaderLock {
            owner: self.worker_id.to_owned(),
            version: uuid(version),
            duration: LOCK_DURATION,
            is_starter: true,
        }
    }

    fn between(&self, shortest: Duration, longest: Duration) -> Duration {
        shortest + (longest - shortest).mul_f64(self.random(|random| random.f64()))
    }

    fn random<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The text of a random UUID (version 4).
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests;
