//! The first leases of an application: created by one of the workers that start, while the others
//! wait.
//!
//! That worker holds the lock of the fleet's leader, an item that the Java library has, too, and gives it
//! back when the leases exist. The lock only saves writes. Every write is conditional, so a worker that
//! finds the holder silent creates leases, too.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use kinesis_common::sync::Mutex;

use super::hierarchy::NewLease;
use super::sync::{ShardSync, Survey, SyncError};
use crate::lease::{CallErrorKind, LeaderLock, LeaseStoreError};

/// Number of missing leases up to which any worker creates them without the lock. Taking the lock would take
/// longer.
const WITHOUT_LOCK: usize = 25;
/// Time without a heartbeat after which another worker takes the lock.
const LOCK_DURATION: Duration = Duration::from_secs(5);
/// Time between two heartbeats of the holder.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Longest pause between two reads of the lock, and after the holder gave it back. The shortest is half of it.
const POLL: Duration = Duration::from_secs(1);
/// Shortest time without a new lease after which a worker creates leases although another one has the lock. A
/// Java leader may hold it, which waits up to 30 s before it creates the first lease. The time is drawn up to
/// twice as long, so that not all workers begin at the same time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Creates the missing leases of a stream, as one of many workers that start at the same time.
#[derive(Debug)]
pub(crate) struct Starter<'a> {
    sync: &'a ShardSync,
    worker_id: &'a str,
    random: Mutex<Rng>,
    /// Time of the first listing by the service's clock. Leases at `LATEST` start there, however long their
    /// creation takes.
    began: OnceLock<SystemTime>,
    /// True if many leases were missing or had never had an owner.
    was_cold: AtomicBool,
}

/// The state of the lock after an attempt to take it.
enum Lock {
    /// This worker has it.
    Ours(LeaderLock),
    /// Another worker has it.
    Others(LeaderLock),
    /// Its holder has just given it back.
    Free,
    /// This worker has no permission to use it.
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

    /// Waits until every shard that needs a lease has one. Returns whether the fleet starts cold: many leases
    /// are new.
    ///
    /// # Errors
    /// A call failed. Leases that were created stay. May be called again.
    ///
    /// # Cancel safety
    /// May be called again. A lock that is held expires after five seconds.
    pub(crate) async fn run(&self) -> Result<bool, SyncError> {
        let patience = self.between(PATIENCE, 2 * PATIENCE);
        let clock = &self.sync.clock;
        let (mut fewest, mut since) = (usize::MAX, clock.now());
        let mut stale = None;
        loop {
            let survey = self.sync.survey().await?;
            if self.began.get().is_none() {
                survey.report_unlisted(&self.sync.position);
            }
            self.began.get_or_init(|| survey.listed.server_time);
            let missing = survey.missing(&self.sync.position);
            if missing.len() < fewest {
                (fewest, since) = (missing.len(), clock.now());
            }
            let is_stuck = clock.now().saturating_sub(since) >= patience;
            if missing.len() + survey.never_owned() > WITHOUT_LOCK {
                self.was_cold.store(true, Ordering::Relaxed);
            }
            if missing.len() <= WITHOUT_LOCK || is_stuck {
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
        let began = *self.began.get_or_init(|| survey.listed.server_time);
        self.sync.create_all(survey, missing, began).await?;
        self.sync.tidy(survey).await?;
        Ok(())
    }

    /// Creates the leases, with heartbeats meanwhile. Gives the lock back, even after a failure.
    async fn create_locked(
        &self,
        survey: &Survey,
        missing: &[NewLease<'_>],
        lock: LeaderLock,
    ) -> Result<(), SyncError> {
        let count = missing.len();
        tracing::info!(count, "creating the leases, for all workers that start");
        let mut lock = Some(lock);
        let created = {
            let create = self.create(survey, missing);
            let heartbeats = self.heartbeats(&mut lock);
            tokio::pin!(create, heartbeats);
            tokio::select! {
                biased;
                created = &mut create => created,
                () = &mut heartbeats => create.await,
            }
        };
        if let Some(lock) = lock
            && let Err(error) = self.sync.store.change_leader(Some(&lock), None).await
        {
            tracing::debug!(%error, "the lock could not be given back, so it expires");
        }
        created
    }

    /// Renews the lock until it is lost.
    async fn heartbeats(&self, lock: &mut Option<LeaderLock>) {
        while lock.is_some() {
            tokio::time::sleep(HEARTBEAT).await;
            let next = self.lock();
            match self.sync.store.change_leader(lock.as_ref(), Some(&next)).await {
                Ok(true) => *lock = Some(next),
                Ok(false) => *lock = None,
                Err(error) => tracing::debug!(%error, "the lock could not be renewed"),
            }
        }
    }

    /// Tries to take the lock. `over`: the lock of a holder that is silent.
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

    /// Waits until the holder of the lock may have created leases. Returns the lock if its holder was silent
    /// until it expired.
    async fn wait(&self, mut seen: LeaderLock) -> Result<Option<LeaderLock>, SyncError> {
        let clock = &self.sync.clock;
        let began = clock.now();
        let mut since = began;
        loop {
            tokio::time::sleep(self.between(POLL / 2, POLL)).await;
            let now = clock.now();
            match self.sync.store.leader().await? {
                None => {
                    // All workers that waited read the whole table next. The pause spreads them.
                    tokio::time::sleep(self.between(Duration::ZERO, POLL)).await;
                    return Ok(None);
                }
                Some(lock) if lock.version != seen.version => (seen, since) = (lock, now),
                Some(lock) if now.saturating_sub(since) >= lock.duration => return Ok(Some(lock)),
                // A leader keeps its lock. Only the table shows whether it creates leases.
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
        draw(&mut self.random.lock())
    }
}

/// Formats a random number as a UUID (version 4).
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests;
