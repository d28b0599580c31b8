//! The leader's audit. It searches the active leases for a hole in the hash space. If it finds the same hole
//! several times, it creates the missing leases. That repairs a first creation that broke off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kcl::Checkpoint;
use kcl::internals::Lease;

use super::Worker;
use crate::oracle::first_hole;
use crate::stream::SimShard;

const FIRST: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(120);
/// Audits in a row that must find the same hole.
const CONFIDENCE: u32 = 3;

/// State that a leader keeps between two audits.
#[derive(Default)]
pub(super) struct Audit {
    due: Option<Duration>,
    hole: Option<u128>,
    /// How often in a row it was found.
    found: u32,
}

impl Audit {
    /// Whether the leases must be brought in line with the stream.
    fn is_convinced(&mut self, now: Duration, leases: &[Lease]) -> bool {
        if now < *self.due.get_or_insert(now + FIRST) {
            return false;
        }
        self.due = Some(now + INTERVAL);
        let hole = first_hole(leases.iter());
        self.found = match hole {
            Some(_) if hole == self.hole => self.found + 1,
            Some(_) => 1,
            None => 0,
        };
        self.hole = hole;
        self.found >= CONFIDENCE
    }
}

impl Worker {
    /// `looked`: when the leases were read.
    pub(super) async fn audit(&self, audit: &mut Audit, leases: &[Lease], looked: Duration) {
        if !audit.is_convinced(self.now(), leases) {
            return;
        }
        let shards = self.world.stream.shards();
        let leased = leases.iter().map(|lease| lease.key.as_str()).collect();
        for id in missing(&shards, &leased) {
            // A failure: the next audit tries again.
            let _ = self.create(&first_lease(id, &shards[id]), looked).await;
        }
    }
}

/// The lease of a shard that is not created at the end of another shard.
pub(super) fn first_lease(id: &str, shard: &SimShard) -> Lease {
    let mut lease = Lease::new(id, Checkpoint::TrimHorizon);
    lease.hash_key_range = Some(shard.range);
    lease
}

/// The oldest shards between each open shard and its nearest ancestor with a lease. The leases below them are
/// created when they end.
fn missing<'a>(
    shards: &'a BTreeMap<String, SimShard>,
    leased: &BTreeSet<&str>,
) -> BTreeSet<&'a str> {
    let open = shards.iter().filter(|(_, shard)| shard.is_open());
    let mut ahead: Vec<&str> = open.map(|(id, _)| id.as_str()).collect();
    let mut seen = BTreeSet::new();
    let mut missing = BTreeSet::new();
    while let Some(id) = ahead.pop() {
        if leased.contains(id) || !seen.insert(id) {
            continue;
        }
        let parents = &shards[id].parents;
        if parents.is_empty() {
            missing.insert(id);
        }
        ahead.extend(parents.iter().map(String::as_str));
    }
    missing
}
