//! One simulation: a fleet, a time of faults, and a calm in which all records must be delivered.

mod disturbed_handoff;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kcl::internals::{LeaseStore as _, LeaseWrite, text};
use kcl::{Clock, OnStop};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::clock::TokioClock;
use super::java_worker::{self, LeaderLock};
use super::network::Network;
use super::oracle::FORCE;
use super::process::{Process, SECOND, worker_id};
use super::rust_worker::{self, Setting};
use super::world::World;
use super::{Report, Workers};

/// Workers at a time.
const MOST_WORKERS: usize = 4;
/// Open shards.
const MOST_SHARDS: usize = 8;
/// After the faults, everything must be delivered within this time.
const PATIENCE: Duration = Duration::from_secs(400);
/// Additional time among Java workers only: a new leader after 150 s, then three audits.
const JAVA_PATIENCE: Duration = Duration::from_secs(600);
/// Read units a second, for a scan a second of a table of a hundred items.
const USUAL_READS: f64 = 5.0;
/// Calm in which each undisturbed subscription is renewed: its age at the renewal, and time to recover before.
const UNTIL_RENEWAL: Duration = Duration::from_secs(330);
/// Factor of that time where our workers scan rarely: the shards of a dead worker wait for three pauses.
const RARE_SCANS: u32 = 3;

/// Simulates one fleet. The same seed gives the same report.
///
/// # Panics
/// If no runtime can be made.
pub fn run(seed: u64, workers: Workers) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system");
    runtime.block_on(simulate(seed, workers))
}

async fn simulate(seed: u64, workers: Workers) -> Report {
    let mut random = Rng::with_seed(seed);
    let clock = Arc::new(TokioClock::new()) as Arc<dyn Clock>;
    let shards = random.u32(1..5);
    let world = World::new(clock, shards, random.u64(..));
    let producer = tokio::spawn(produce(world.clone(), random.fork()));
    // A generator of their own, so that other settings of a fleet leave the draws of a seed as they are.
    let mut settings = Rng::with_seed(!seed);
    let table_reads = draw_table_reads(&mut settings);
    let reads = Reads::draw(settings);
    let mut fleet = Fleet {
        world: world.clone(),
        workers,
        table_reads,
        reads,
        lock: Arc::default(),
        members: BTreeMap::new(),
        started: 0,
        calm: CancellationToken::new(),
        random,
    };
    fleet.trouble().await;
    fleet.calm(producer).await;
    let findings = world.oracle.findings();
    Report {
        steps: findings.steps,
        violations: findings.violations,
        java_windows: findings.java_windows,
        fan_out: world.fan_out.counts(),
        digest: findings.digest,
        trace: findings.trace,
    }
}

/// Read units a second of each of our workers. They are enough for a scan a second. In every third fleet, scans are 5
/// to 60 s apart, as with a table of thousands of leases.
fn draw_table_reads(random: &mut Rng) -> f64 {
    match random.u32(..3) {
        0 => 0.03 + 0.12 * random.f64(),
        _ => USUAL_READS,
    }
}

/// How our workers read.
struct Reads {
    /// The share of those that read by fan-out: none, half or all of them.
    by_fan_out: f64,
    /// The calm is so long that subscriptions are renewed, with records meanwhile.
    until_renewal: bool,
    random: Rng,
}

impl Reads {
    fn draw(mut random: Rng) -> Self {
        let by_fan_out = [0.0, 0.5, 1.0][random.usize(..3)];
        let until_renewal = by_fan_out > 0.0 && random.u32(..12) == 0;
        Self { by_fan_out, until_renewal, random }
    }

    fn next_is_by_fan_out(&mut self) -> bool {
        self.random.f64() < self.by_fan_out
    }
}

async fn produce(world: World, mut random: Rng) {
    loop {
        world.stream.put();
        let pause = Duration::from_millis(random.u64(50..800));
        tokio::time::sleep(pause).await;
    }
}

struct Member {
    process: Arc<Process>,
    /// The threads of its user code.
    user_code: Arc<Process>,
    network: Arc<Network>,
    stop: CancellationToken,
    done: JoinHandle<()>,
    takes_all: bool,
}

impl Member {
    /// The worker was told to stop, or has to stop.
    fn is_leaving(&self) -> bool {
        self.stop.is_cancelled() || self.user_code.is_dead()
    }
}

struct Fleet {
    world: World,
    workers: Workers,
    /// Read units a second that each of our workers may spend on scans.
    table_reads: f64,
    reads: Reads,
    lock: Arc<LeaderLock>,
    members: BTreeMap<String, Member>,
    started: u32,
    /// Cancelled when the calm begins.
    calm: CancellationToken,
    random: Rng,
}

impl Fleet {
    fn step(&self, what: &str) {
        self.world.oracle.step(what);
    }

    async fn trouble(&mut self) {
        let end = self.world.clock.now() + Duration::from_secs(self.random.u64(60..200));
        for _ in 0..self.random.usize(1..=MOST_WORKERS) {
            self.start(None);
        }
        if self.random.u32(..4) == 0 {
            // Two items that are no leases, one of them broken.
            for (key, entity) in [("Leader", "LEADER"), ("broken", "LEASE")] {
                let item = [("leaseKey", key), ("entityType", entity)];
                let item = item.map(|(name, value)| (name.to_owned(), text(value)));
                self.world.table.put_item(key, item.into());
            }
        }
        while self.world.clock.now() < end && !self.world.oracle.has_seen_enough() {
            let pause = Duration::from_millis(self.random.u64(100..9_000));
            tokio::time::sleep(pause).await;
            self.members.retain(|_, member| !member.done.is_finished());
            self.strike();
        }
    }

    /// Lets a random event happen.
    fn strike(&mut self) {
        let seconds = Duration::from_secs;
        let victim = self.any();
        let span = seconds(self.random.u64(1..30));
        match (self.random.u32(..100), victim) {
            (_, None) => self.start(None),
            (0..12, Some(_)) if self.members.len() < MOST_WORKERS => self.start(None),
            (12..20, Some(name)) => {
                self.kill(&name);
                if self.random.bool() {
                    // Its successor has the same id.
                    self.start(Some(name));
                }
            }
            (20..30, Some(name)) => {
                self.step(&format!("{name} is asked to stop"));
                self.members[&name].stop.cancel();
            }
            (30..43, Some(name)) => self.suspend(&name, span),
            (43..45, Some(name)) => self.suspend(&name, 5 * span),
            (89..92, Some(name)) if name.starts_with('r') => self.block(&name, span),
            (92..94, Some(name)) if name.starts_with('r') => {
                self.block(&name, 5 * span);
                if self.random.bool() {
                    self.step(&format!("{name} is asked to stop"));
                    self.members[&name].stop.cancel();
                }
            }
            (94..95, Some(name)) if name.starts_with('r') => {
                self.step(&format!("the runtime of {name}'s user code ends"));
                self.members[&name].user_code.kill();
            }
            (45..50, Some(name)) => {
                // A Java leader takes a dead worker with a row from the future for alive.
                let most = if self.workers == Workers::Rust { 7200 } else { 20 };
                let jump = self.random.i64(-most..most);
                self.step(&format!("the time of day of {name} jumps by {jump} s"));
                self.members[&name].process.jump(jump);
            }
            (50..57, Some(name)) => {
                self.step(&format!("{name} is cut off for {span:?}"));
                self.members[&name].network.cut(span);
            }
            (57..60, Some(_)) => {
                self.step(&format!("brownout for {span:?}"));
                for member in self.members.values() {
                    member.network.cut(span);
                }
            }
            (60..65, Some(_)) => {
                self.step(&format!("throttled for {span:?}"));
                for member in self.members.values() {
                    member.network.throttle(span);
                }
            }
            (65..70, Some(_)) => {
                self.step(&format!("the index is up to {span:?} behind"));
                for member in self.members.values() {
                    member.network.leave_index_behind(span / 2);
                }
            }
            (70..76, Some(name)) if self.workers != Workers::Rust => self.misjudge(&name),
            (76..80, Some(_)) if self.workers != Workers::Rust => {
                let writes = self.random.u32(1..4);
                self.step(&format!("the leader is to die before its write {writes}"));
                self.lock.doom(writes);
            }
            (80..86, Some(name)) => self.disturb_handoff(&name),
            (86..89, Some(name)) if name.starts_with('r') => {
                let second = format!("{}{SECOND}", worker_id(&name));
                if !self.members.contains_key(&second) {
                    self.start(Some(second));
                }
            }
            (_, Some(_)) => {
                let open = self.world.stream.shards();
                let open = open.values().filter(|shard| shard.is_open()).count();
                let merge = open >= MOST_SHARDS || (open > 1 && self.random.bool());
                if let Some(what) = self.world.stream.reshard(merge, &mut self.random) {
                    self.step(&what);
                }
            }
        }
    }

    fn any(&mut self) -> Option<String> {
        let names: Vec<_> = self.members.keys().cloned().collect();
        (!names.is_empty()).then(|| names[self.random.usize(..names.len())].clone())
    }

    /// `again`: under the name of a process that has died, or beside one of the same worker id.
    fn start(&mut self, again: Option<String>) {
        let java = match (&again, self.workers) {
            (Some(name), _) => name.starts_with('j'),
            (None, Workers::Rust) => false,
            (None, Workers::Java) => true,
            (None, Workers::Mixed) => self.random.bool(),
        };
        let name = again.unwrap_or_else(|| {
            self.started += 1;
            let kind = if java { 'j' } else { 'r' };
            format!("{kind}{}", self.started)
        });
        // Some workers have a low limit. In the calm at the end, the workers must be able to take all.
        let max_leases = if self.calm.is_cancelled() || self.random.u32(..3) > 0 {
            usize::MAX
        } else {
            self.random.usize(1..4)
        };
        let setting = Setting {
            on_stop: [OnStop::HandOver, OnStop::Release, OnStop::Keep][self.random.usize(..3)],
            max_leases,
            table_reads: self.table_reads,
            by_fan_out: !java && self.reads.next_is_by_fan_out(),
            seed: self.random.u64(..),
        };
        let reads = if setting.by_fan_out { ", by fan-out" } else { "" };
        self.step(&format!("{name} starts, {:?}{reads}", setting.on_stop));
        let clock = &self.world.clock;
        let process = Process::new(Arc::clone(clock));
        let user_code = process.runtime();
        let network = Arc::new(Network::new(Arc::clone(clock), self.random.u64(..)));
        let stop = CancellationToken::new();
        let (world, name_inside) = (self.world.clone(), name.clone());
        let (inside, way, told) = (Arc::clone(&process), Arc::clone(&network), stop.clone());
        let done = if java {
            let (seed, lock) = (setting.seed, Arc::clone(&self.lock));
            let worker = java_worker::run(world, name_inside, seed, lock, inside, way, told);
            process.run(worker)
        } else {
            process.run(rust_worker::run(
                world,
                name_inside,
                setting,
                inside,
                Arc::clone(&user_code),
                way,
                told,
            ))
        };
        let (oracle, id) = (Arc::clone(&self.world.oracle), name.clone());
        let done = tokio::spawn(async move {
            if done.await.is_err_and(|error| error.is_panic()) {
                oracle.violation(&format!("{id} panicked"));
            }
        });
        let member = Member {
            process,
            user_code,
            network,
            stop,
            done,
            takes_all: java || max_leases == usize::MAX,
        };
        self.members.insert(name, member);
    }

    fn kill(&mut self, name: &str) {
        self.step(&format!("{name} dies"));
        if let Some(member) = self.members.remove(name) {
            member.process.kill();
            self.world.oracle.died(name);
        }
    }

    fn suspend(&self, name: &str, span: Duration) {
        self.stand_still(name, &self.members[name].process, span);
    }

    /// User code blocks the threads of its runtime; coordination has its own.
    fn block(&self, name: &str, span: Duration) {
        let threads = format!("the user code of {name}");
        self.stand_still(&threads, &self.members[name].user_code, span);
    }

    fn stand_still(&self, what: &str, threads: &Arc<Process>, span: Duration) {
        self.step(&format!("{what} is suspended for {span:?}"));
        let (oracle, what) = (Arc::clone(&self.world.oracle), what.to_owned());
        let threads = Arc::clone(threads);
        threads.suspend(true);
        tokio::spawn(async move {
            tokio::time::sleep(span).await;
            threads.suspend(false);
            oracle.step(&format!("{what} goes on"));
        });
    }

    /// A Java leader that was suspended between its scan and its write assigns a lease to `to` by force, although its
    /// owner is at work again.
    fn misjudge(&mut self, to: &str) {
        self.step(&format!("a leader gives a lease to {to} by force"));
        let store = self.world.store(FORCE, &self.members[to].network);
        let (draw, to) = (self.random.usize(..), worker_id(to).to_owned());
        tokio::spawn(async move {
            let mut leases = store.list(true).await.unwrap_or_default().leases;
            leases.retain(|lease| !lease.has_ended() && !lease.is_handoff_pending());
            if !leases.is_empty() {
                let lease = &leases[draw % leases.len()];
                // Refused or not: the simulation goes on.
                let assign = LeaseWrite::Assign { to: to.clone(), released: false };
                let _ = store.write(lease, assign).await;
            }
        });
    }

    /// The calm: all records of the stream must be delivered, and every worker must stop when it is told to.
    async fn calm(&mut self, producer: JoinHandle<()>) {
        self.step(&format!("calm, {} units a second", self.table_reads));
        self.calm.cancel();
        self.lock.doom(0);
        for member in self.members.values() {
            member.process.suspend(false);
            member.user_code.suspend(false);
            member.network.calm();
        }
        let leaving = self.members.extract_if(.., |_, member| member.is_leaving()).collect();
        if !self.members.values().any(|member| member.takes_all) {
            self.start(None);
            for member in self.members.values() {
                member.network.calm();
            }
        }
        if self.reads.until_renewal {
            tokio::time::sleep(UNTIL_RENEWAL).await;
        }
        producer.abort();
        // A shard without a record would not be missed.
        self.world.stream.put_everywhere();
        self.deliver().await;
        self.stop_all(leaving).await;
    }

    async fn deliver(&self) {
        let mut before = Vec::new();
        let looks = if self.table_reads < USUAL_READS { RARE_SCANS } else { 1 };
        let mut patience = self.world.clock.now() + PATIENCE * looks;
        while !self.world.oracle.has_seen_enough() {
            let missing = self.world.oracle.missing();
            if missing.is_empty() {
                return self.step("all delivered");
            }
            if self.workers == Workers::Java && missing != before {
                patience = self.world.clock.now() + JAVA_PATIENCE;
                before.clone_from(&missing);
            }
            if self.world.clock.now() > patience {
                let what = format!("not delivered: {}", missing.join(", "));
                return self.world.oracle.violation(&what);
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    /// `leaving`: the workers that were told before.
    async fn stop_all(&mut self, leaving: BTreeMap<String, Member>) {
        self.step("all are asked to stop");
        for member in self.members.values() {
            member.stop.cancel();
        }
        let all = leaving.into_iter().chain(std::mem::take(&mut self.members));
        let end = self.world.clock.now() + rust_worker::LONGEST_STOP;
        for (name, member) in all {
            let left = end.saturating_sub(self.world.clock.now());
            let stopped = tokio::time::timeout(left, member.done).await;
            if stopped.is_err() {
                let what = format!("{name} does not stop");
                self.world.oracle.violation(&what);
            }
        }
    }
}
