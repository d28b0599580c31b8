//! The rows of a lease table in memory, with their history.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kcl::Clock;
use kcl::internals::{
    CorruptItem, Item, LEADER, LeaderLock, Lease, Snapshot, TableItem, WorkerRow,
    attribute as name, decode, encode,
};

/// Largest lag of a read.
const HISTORY: Duration = Duration::from_secs(60);

/// One item of the table.
#[expect(clippy::large_enum_variant, reason = "nearly every row is a lease")]
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A lease.
    Lease(Lease),
    /// A worker's row.
    Worker(WorkerRow),
    /// The lock of the fleet's leader.
    Leader(LeaderLock),
    /// An item that cannot be read.
    Corrupt(CorruptItem),
    /// Any other item.
    Other,
}

impl Row {
    fn of(item: Item) -> Self {
        match decode(item) {
            Ok(TableItem::Lease(lease)) => Self::Lease(*lease),
            Ok(TableItem::Worker(row)) => Self::Worker(row),
            Ok(TableItem::Leader(lock)) => Self::Leader(lock),
            Ok(TableItem::Other) => Self::Other,
            Err(corrupt) => Self::Corrupt(corrupt),
        }
    }

    /// The row as a lease.
    pub(super) fn as_lease(&self, key: &str) -> Result<&Lease, CorruptItem> {
        match self {
            Self::Lease(lease) => Ok(lease),
            Self::Corrupt(corrupt) => Err(corrupt.clone()),
            Self::Worker(_) | Self::Leader(_) | Self::Other => Err(CorruptItem {
                key: key.to_owned(),
                attribute: name::ENTITY_TYPE,
                problem: "says that this is not a lease",
            }),
        }
    }
}

/// Observes each change of a lease as it is made.
pub trait Watcher: Send + Sync + fmt::Debug {
    /// `by`: the name of the writer.
    fn changed(&self, by: &str, key: &str, before: Option<&Lease>, after: Option<&Lease>);
}

#[derive(Debug, Clone)]
struct Version {
    since: Duration,
    row: Option<Row>,
}

/// A lease table that any number of stores work on.
#[derive(Debug)]
pub struct MemoryTable {
    clock: Arc<dyn Clock>,
    watcher: Option<Arc<dyn Watcher>>,
    rows: Mutex<BTreeMap<String, Vec<Version>>>,
}

impl MemoryTable {
    /// An empty table.
    pub fn new(clock: Arc<dyn Clock>, watcher: Option<Arc<dyn Watcher>>) -> Self {
        Self { clock, watcher, rows: Mutex::default() }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Version>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The item as it is now.
    pub fn row(&self, key: &str) -> Option<Row> {
        self.rows().get(key)?.last()?.row.clone()
    }

    pub(super) fn leader(&self) -> Option<LeaderLock> {
        match self.row(LEADER)? {
            Row::Leader(lock) => Some(lock),
            _ => None,
        }
    }

    /// Puts an item, written by `by`, past all conditions. `None`: deletes it.
    pub fn set(&self, by: &str, key: &str, row: Option<Row>) {
        let now = self.clock.now();
        let mut rows = self.rows();
        let versions = rows.entry(key.to_owned()).or_default();
        let before = versions.last().and_then(|version| version.row.clone());
        versions.push(Version { since: now, row: row.clone() });
        let oldest = now.saturating_sub(HISTORY);
        let stale = versions.iter().take_while(|version| version.since < oldest).count();
        versions.drain(..stale.saturating_sub(1));
        drop(rows);
        let lease = |row: &Option<Row>| match row {
            Some(Row::Lease(lease)) => Some(lease.clone()),
            _ => None,
        };
        if let Some(watcher) = &self.watcher {
            watcher.changed(by, key, lease(&before).as_ref(), lease(&row).as_ref());
        }
    }

    /// The result of a scan, in which each row is as old as `lag` says.
    pub(super) fn snapshot(&self, mut lag: impl FnMut() -> Duration) -> Snapshot {
        let now = self.clock.now();
        let mut snapshot = Snapshot::default();
        for versions in self.rows().values() {
            match as_of(versions, now.saturating_sub(lag())) {
                Some(Row::Lease(lease)) => snapshot.leases.push(lease.clone()),
                Some(Row::Worker(row)) => snapshot.workers.push(row.clone()),
                Some(Row::Leader(lock)) if lock.is_starter => {}
                Some(Row::Leader(lock)) => snapshot.leader = Some(lock.clone()),
                Some(Row::Corrupt(corrupt)) => snapshot.corrupt.push(corrupt.clone()),
                Some(Row::Other) | None => {}
            }
        }
        snapshot
    }

    /// The keys of an owner's leases, each as old as `lag` says.
    pub(super) fn owned_by(&self, owner: &str, mut lag: impl FnMut() -> Duration) -> Vec<String> {
        let now = self.clock.now();
        let rows = self.rows();
        let owned = rows.iter().filter(|(_, versions)| {
            let row = as_of(versions, now.saturating_sub(lag()));
            matches!(row, Some(Row::Lease(lease)) if lease.owner.as_deref() == Some(owner))
        });
        owned.map(|(key, _)| key.clone()).collect()
    }

    /// Any item, past all conditions.
    pub fn put_item(&self, key: &str, item: Item) {
        self.set("outside", key, Some(Row::of(item)));
    }

    /// The lease as DynamoDB would hold it.
    pub fn item(&self, key: &str) -> Option<Item> {
        match self.row(key)? {
            Row::Lease(lease) => Some(encode(&lease)),
            _ => None,
        }
    }
}

/// The row at a time. Before its first version, there was none.
fn as_of(versions: &[Version], time: Duration) -> Option<&Row> {
    let after = versions.partition_point(|version| version.since <= time);
    versions[..after].last()?.row.as_ref()
}
