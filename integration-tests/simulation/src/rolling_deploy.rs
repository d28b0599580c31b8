//! A rolling deploy of Java workers beside one of ours: how the shards are shared meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kcl::internals::LeaseStore as _;
use kcl::{Clock, OnStop};
use tokio_util::sync::CancellationToken;

use super::clock::TokioClock;
use super::java_worker::{self, LeaderLock};
use super::network::Network;
use super::process::Process;
use super::rust_worker::{self, Setting};
use super::world::World;

const SHARDS: u32 = 24;
const JAVA: usize = 3;
/// Fair share of each of the four workers.
const FAIR: usize = SHARDS as usize / (JAVA + 1);
const SECOND: Duration = Duration::from_secs(1);

struct Fleet {
    world: World,
    lock: Arc<LeaderLock>,
    network: Arc<Network>,
    /// The token by which each worker is told to stop, by name.
    stops: BTreeMap<String, CancellationToken>,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let clock = Arc::new(TokioClock::new()) as Arc<dyn Clock>;
        let network = Arc::new(Network::new(Arc::clone(&clock), seed));
        network.calm();
        Self {
            world: World::new(clock, SHARDS, seed),
            lock: Arc::default(),
            network,
            stops: BTreeMap::new(),
        }
    }

    fn start(&mut self, name: &str, seed: u64) {
        let process = Process::new(Arc::clone(&self.world.clock));
        let user_code = process.runtime();
        let stop = CancellationToken::new();
        let (world, network) = (self.world.clone(), Arc::clone(&self.network));
        let (inside, told, id) = (Arc::clone(&process), stop.clone(), name.to_owned());
        if name.starts_with('j') {
            let lock = Arc::clone(&self.lock);
            process.run(java_worker::run(world, id, seed, lock, inside, network, told));
        } else {
            let setting = Setting {
                on_stop: OnStop::HandOver,
                max_leases: usize::MAX,
                table_reads: 5.0,
                by_fan_out: false,
                seed,
            };
            process.run(rust_worker::run(world, id, setting, inside, user_code, network, told));
        }
        self.stops.insert(name.to_owned(), stop);
    }

    async fn shares(&self) -> BTreeMap<String, usize> {
        let store = self.world.store("watcher", &self.network);
        let mut shares = BTreeMap::new();
        for lease in store.list(true).await.unwrap().leases {
            if let Some(owner) = lease.owner.filter(|owner| self.stops.contains_key(owner)) {
                *shares.entry(owner).or_default() += 1;
            }
        }
        shares
    }

    /// Waits until every worker has its fair share, or one more or less.
    async fn until_fair(&self) {
        let (fewest, most) = (FAIR - 1, FAIR + 1);
        for _ in 0..1_000 {
            let shares = self.shares().await;
            let fair = |share: &usize| (fewest..=most).contains(share);
            if shares.len() == self.stops.len()
                && shares.values().all(fair)
                && shares.values().sum::<usize>() == SHARDS as usize
            {
                return;
            }
            tokio::time::sleep(SECOND).await;
        }
        panic!("never fair: {:?}", self.shares().await);
    }
}

/// Each Java worker stops, as Java does, with its leases in its name; 20 s later, its replacement starts.
#[tokio::test(start_paused = true)]
async fn our_workers_do_not_grab_what_a_rolling_deploy_of_java_workers_sets_free() {
    for seed in 0..3 {
        let mut fleet = Fleet::new(seed);
        // The first worker leads, and is the last to be replaced.
        for number in (0..JAVA).rev() {
            fleet.start(&format!("java-old-{number}"), 10 + number as u64);
            tokio::time::sleep(SECOND).await;
        }
        fleet.start("rust", 50 + seed);
        fleet.until_fair().await;
        let (mut while_led, mut most) = (0, 0);
        for number in 0..JAVA {
            let old = format!("java-old-{number}");
            fleet.stops.remove(&old).unwrap().cancel();
            for second in 0..90 {
                if second == 20 {
                    fleet.start(&format!("java-new-{number}"), 20 + number as u64);
                }
                tokio::time::sleep(SECOND).await;
                let shares = fleet.shares().await;
                most = most.max(shares.get("rust").copied().unwrap_or_default());
            }
            if number + 1 < JAVA {
                while_led = most;
            }
        }
        fleet.until_fair().await;
        // Three workers are left while one is replaced.
        let fair = SHARDS as usize / JAVA;
        assert!(while_led <= fair + 1, "seed {seed}: {while_led} at once");
        // The stopped leader's own shards become ours until another one leads.
        assert!(most <= fair + FAIR + 1, "seed {seed}: {most} at once");
        let violations = fleet.world.oracle.findings().violations;
        assert!(violations.is_empty(), "seed {seed}: {violations:?}");
    }
}
