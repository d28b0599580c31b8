//! The invariants, checked after every step.

mod calls;
mod cover;
mod excuse;
mod progress;
mod shown;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::stream::{self, Stream};
pub(super) use cover::first_hole;
pub(super) use excuse::{JavaRule, Overstay};
use excuse::{Left, Pending};
use kcl::internals::Lease;
use kcl::{Checkpoint, Clock};
use progress::Progress;

/// Violations after which a run ends.
const ENOUGH: usize = 5;

/// The name under which a leader that moves leases by force is shown to the table's watcher.
pub(super) const FORCE: &str = "leader";

/// Whether a processor may be at work.
pub(super) trait Hold: Send + Sync {
    /// By its own fence, as its worker judges it.
    fn is_held(&self) -> bool;

    /// By time alone: a processor at work may not have heard yet that its lease is lost.
    fn is_fenced(&self) -> bool {
        !self.is_held()
    }

    /// How long its process was suspended, in all.
    fn slept(&self) -> Duration {
        Duration::ZERO
    }

    /// The rule of the Java library by which the processor may go on after the time at which other workers may
    /// take the lease, and that time.
    fn overstay(&self) -> Option<Overstay> {
        None
    }
}

/// Which library a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Rust,
    Java,
}

struct Processor {
    worker: String,
    kind: Kind,
    shard: String,
    hold: Box<dyn Hold>,
    /// The last record delivered in this ownership.
    last: Option<u64>,
    /// The processor failed on the batch behind that record.
    has_failed: bool,
    /// The runtime has ended. A blocking call of the processor may go on.
    left_behind: bool,
}

impl Processor {
    /// True if both are at work. A worker of ours waits for the fence of the previous owner. A Java worker
    /// starts on what it is assigned, and a worker that hands it a lease by force has stopped its own
    /// processor before.
    fn overlaps(&self, other: &Self) -> bool {
        let ours = self.kind == Kind::Rust && other.kind == Kind::Rust;
        ours || (self.hold.is_held() && other.hold.is_held())
    }
}

/// A move of a lease's counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) at: Duration,
    /// The move passed the lease to another worker.
    pub(super) gives: bool,
}

#[derive(Default)]
struct State {
    /// In the order in which they began.
    processors: BTreeMap<u64, Processor>,
    next: u64,
    /// Overlaps that were reported already.
    told: BTreeSet<(u64, u64)>,
    shards: BTreeMap<String, Progress>,
    leases: BTreeMap<String, Lease>,
    /// When each lease's counter took each of its values.
    moved: BTreeMap<(String, u64), Moved>,
    /// When each lease was last deleted.
    deleted: BTreeMap<String, Duration>,
    /// When a Java worker last read that a lease was missing, by worker and lease.
    looked: BTreeMap<(String, String), Duration>,
    /// Most leases that a worker of ours may hold, where it has a limit.
    limits: BTreeMap<String, usize>,
    /// Handoffs that are pending, by lease.
    pending: BTreeMap<String, Pending>,
    /// How each lease passed from a worker that processed it, unless that worker owns it again. By lease and worker.
    left: BTreeMap<(String, String), Left>,
    covered: bool,
    violations: Vec<String>,
    java_windows: BTreeMap<&'static str, u64>,
    steps: u64,
    digest: std::hash::DefaultHasher,
    trace: Vec<String>,
}

/// See the module.
pub(super) struct Oracle {
    clock: Arc<dyn Clock>,
    stream: Arc<Stream>,
    state: Mutex<State>,
}

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oracle").finish_non_exhaustive()
    }
}

/// The result of a run.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) steps: u64,
    pub(super) violations: Vec<String>,
    pub(super) java_windows: BTreeMap<&'static str, u64>,
    pub(super) digest: u64,
    pub(super) trace: Vec<String>,
}

impl Oracle {
    pub(super) fn new(clock: Arc<dyn Clock>, stream: Arc<Stream>) -> Self {
        Self { clock, stream, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_seen_enough(&self) -> bool {
        self.state().violations.len() >= ENOUGH
    }

    pub(super) fn findings(&self) -> Findings {
        let mut state = self.state();
        Findings {
            steps: state.steps,
            violations: std::mem::take(&mut state.violations),
            java_windows: std::mem::take(&mut state.java_windows),
            digest: state.digest.finish(),
            trace: std::mem::take(&mut state.trace),
        }
    }

    /// Notes an event in the trace.
    pub(super) fn step(&self, what: &str) {
        let now = self.clock.now();
        let mut state = self.state();
        state.note(now, what);
        state.check_overlaps(now);
    }

    pub(super) fn violation(&self, what: &str) {
        let now = self.clock.now();
        self.state().violation(now, what);
    }

    /// Sets the most leases that a worker of ours may hold.
    pub(super) fn limit(&self, worker: &str, leases: usize) {
        self.state().limits.insert(worker.to_owned(), leases);
    }

    /// Notes that a processor begins. Returns its number.
    pub(super) fn begin(
        &self,
        worker: &str,
        kind: Kind,
        shard: &str,
        hold: impl Hold + 'static,
    ) -> u64 {
        let now = self.clock.now();
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.processors.insert(
            id,
            Processor {
                worker: worker.to_owned(),
                kind,
                shard: shard.to_owned(),
                hold: Box::new(hold),
                last: None,
                has_failed: false,
                left_behind: false,
            },
        );
        state.note(now, &format!("{worker} begins {shard} (ownership {id})"));
        state.check_limit(now, worker);
        state.check_overlaps(now);
        id
    }

    /// When the counter of a lease took this value.
    pub(super) fn moved(&self, lease: &Lease) -> Option<Moved> {
        let at = (lease.key.clone(), lease.counter);
        self.state().moved.get(&at).copied()
    }

    /// Notes that a Java worker creates a lease that it read to be missing at the time `looked`.
    pub(super) fn means_to_create(&self, worker: &str, key: &str, looked: Duration) {
        let by = (worker.to_owned(), key.to_owned());
        self.state().looked.insert(by, looked);
    }

    /// Notes that a processor has stopped.
    pub(super) fn end(&self, id: u64, why: &str) {
        let now = self.clock.now();
        let mut state = self.state();
        if let Some(processor) = state.processors.remove(&id) {
            let Processor { worker, shard, .. } = processor;
            state.note(now, &format!("{worker} ends {shard} (ownership {id}): {why}"));
        }
    }

    /// Notes that the runtime of a processor has ended, which does not end a blocking call.
    pub(super) fn leave_behind(&self, id: u64) {
        let now = self.clock.now();
        let mut state = self.state();
        if let Some(processor) = state.processors.get_mut(&id) {
            processor.left_behind = true;
            let Processor { worker, shard, .. } = processor;
            let what = format!("{worker} leaves {shard} behind (ownership {id})");
            state.note(now, &what);
        }
    }

    /// Notes that a worker has stopped. User code of it that still runs belongs to no worker, also when
    /// its name is used again.
    pub(super) fn stopped(&self, worker: &str) {
        for processor in self.state().processors.values_mut() {
            processor.left_behind |= processor.worker == worker;
        }
    }

    /// The shards that a worker processes.
    pub(super) fn at_work(&self, worker: &str) -> BTreeSet<String> {
        let state = self.state();
        let all = state.processors.values();
        let own = all.filter(|processor| processor.worker == worker && !processor.left_behind);
        own.map(|processor| processor.shard.clone()).collect()
    }

    /// Notes that a worker's process is gone, with its processors.
    pub(super) fn died(&self, worker: &str) {
        let mut state = self.state();
        state.processors.retain(|_, other| other.worker != worker);
    }

    pub(super) fn delivered(&self, id: u64, sequence: u64) {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(processor) = state.processors.get_mut(&id) else {
            return;
        };
        let (shard, worker) = (processor.shard.clone(), processor.worker.clone());
        let last = processor.last.replace(sequence);
        let has_failed = std::mem::take(&mut processor.has_failed);
        state.note(now, &format!("{worker} delivers {shard}/{sequence}"));
        // A batch that failed comes again without what was checkpointed meanwhile.
        let checkpoint = state.leases.get(&shard).map(|lease| &lease.checkpoint);
        let done = match checkpoint {
            Some(Checkpoint::At(position)) if has_failed => Some(stream::record_at(position)),
            _ => None,
        };
        let problem = self.stream.with(&shard, |stream| {
            let progress = state.shards.entry(shard.clone()).or_default();
            progress.deliver(&stream.records, last, done, sequence)
        });
        if let Some(Some(problem)) = problem {
            state.violation(now, &format!("{worker} {shard}/{sequence}: {problem}"));
        }
        if last.is_none() {
            self.check_parents(&mut state, now, &worker, &shard);
        }
        state.check_overlaps(now);
    }

    fn check_parents(&self, state: &mut State, now: Duration, worker: &str, shard: &str) {
        let parents = self.stream.with(shard, |shard| shard.parents.clone());
        for parent in parents.unwrap_or_default() {
            if !self.is_done(state, &parent) {
                let what = format!("{worker} processes {shard} before its parent {parent} is done");
                state.violation(now, &what);
            }
        }
    }

    /// All records of the shard were delivered, and it is closed.
    fn is_done(&self, state: &State, shard: &str) -> bool {
        let delivered = state.shards.get(shard).map_or(0, Progress::delivered);
        let whole =
            self.stream.with(shard, |shard| !shard.is_open() && delivered == shard.records.len());
        whole.unwrap_or(false)
    }

    /// Records of the stream that no processor was given yet.
    pub(super) fn missing(&self) -> Vec<String> {
        let state = self.state();
        let shards = self.stream.shards().into_iter();
        shards
            .filter_map(|(id, shard)| {
                let delivered = state.shards.get(&id).map_or(0, Progress::delivered);
                let missing = shard.records.len() - delivered;
                (missing > 0).then(|| format!("{missing} records of {id}"))
            })
            .collect()
    }
}

impl State {
    fn note(&mut self, now: Duration, what: &str) {
        self.steps += 1;
        let line = format!("{:>9.3} {what}", now.as_secs_f64());
        line.hash(&mut self.digest);
        self.trace.push(line);
    }

    fn violation(&mut self, now: Duration, what: &str) {
        self.note(now, &format!("VIOLATION: {what}"));
        self.violations.push(what.to_owned());
    }

    fn check_limit(&mut self, now: Duration, worker: &str) {
        let own = self.processors.values();
        let own = own.filter(|processor| processor.worker == worker && !processor.left_behind);
        let (own, most) = (own.count(), self.limits.get(worker).copied());
        if most.is_some_and(|most| own > most) {
            self.violation(now, &format!("{worker} holds {own} leases, more than it may"));
        }
    }

    /// Notes a fault that a rule of the Java library leaves open.
    fn window(&mut self, now: Duration, rule: JavaRule, what: &str) {
        let rule = rule.name();
        *self.java_windows.entry(rule).or_default() += 1;
        self.note(now, &format!("window of Java's ({rule}): {what}"));
    }

    /// Checks that each lease has at most one processor.
    fn check_overlaps(&mut self, now: Duration) {
        let mut at_work: BTreeMap<&str, Vec<(u64, &Processor)>> = BTreeMap::new();
        let mut overlaps = Vec::new();
        for (id, processor) in &self.processors {
            // Java begins on the lease of a finished shard, too, but calls no processor.
            let is_idle = processor.kind == Kind::Java
                && self.leases.get(&processor.shard).is_some_and(Lease::has_ended);
            if is_idle || processor.hold.is_fenced() {
                continue;
            }
            let earlier = at_work.entry(&processor.shard).or_default();
            let shared = earlier.iter().filter(|(_, other)| other.overlaps(processor));
            overlaps.extend(shared.map(|(other, _)| (*other, *id)));
            earlier.push((*id, processor));
        }
        for (early, late) in overlaps {
            if !self.told.insert((early, late)) {
                continue;
            }
            let (Some(a), Some(b)) = (self.processors.get(&early), self.processors.get(&late))
            else {
                continue;
            };
            let what = format!("{} and {} both process {}", a.worker, b.worker, a.shard);
            match self.excuse(a, b, now) {
                Some(rule) => self.window(now, rule, &what),
                None => self.violation(now, &what),
            }
        }
    }

    /// Checks that the hash space stays covered by active leases once it was covered.
    fn check_cover(&mut self, now: Duration) {
        match first_hole(self.leases.values()) {
            None => self.covered = true,
            Some(hole) if self.covered => {
                self.violation(now, &format!("no active lease covers hash key {hole}"));
            }
            Some(_) => {}
        }
    }
}
