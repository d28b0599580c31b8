//! What all workers of a simulation share.

use std::sync::Arc;
use std::time::Duration;

use kcl::Clock;

use super::fan_out::FanOut;
use super::network::Network;
use super::oracle::Oracle;
use super::stream::Stream;
use crate::memory::{Link, MemoryLeaseStore, MemoryTable, Watcher};

/// The fleet's failover time.
pub(super) const FAILOVER: Duration = Duration::from_secs(10);
/// Time limit of one attempt of a call.
pub(super) const ATTEMPT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) table: Arc<MemoryTable>,
    pub(super) stream: Arc<Stream>,
    pub(super) oracle: Arc<Oracle>,
    pub(super) fan_out: Arc<FanOut>,
}

impl World {
    pub(super) fn new(clock: Arc<dyn Clock>, shards: u32, seed: u64) -> Self {
        let stream = Arc::new(Stream::new(Arc::clone(&clock), shards, seed));
        let oracle = Arc::new(Oracle::new(Arc::clone(&clock), Arc::clone(&stream)));
        let watcher = Arc::clone(&oracle) as Arc<dyn Watcher>;
        let table = Arc::new(MemoryTable::new(Arc::clone(&clock), Some(watcher)));
        let (time, records, judge) = (Arc::clone(&clock), Arc::clone(&stream), Arc::clone(&oracle));
        let fan_out = Arc::new(FanOut::new(time, records, judge));
        Self { clock, table, stream, oracle, fan_out }
    }

    /// A worker's way to the table.
    pub(super) fn store(&self, name: &str, network: &Arc<Network>) -> MemoryLeaseStore {
        let link = Arc::clone(network) as Arc<dyn Link>;
        MemoryLeaseStore::new(Arc::clone(&self.table), link, name, ATTEMPT)
    }
}
