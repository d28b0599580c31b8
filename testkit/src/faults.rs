//! Faults on purpose: a script that both services run every request past.

mod fault;
mod plan;
mod script;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use self::fault::{Fault, FaultKind};
pub(crate) use self::plan::{Asks, Call, Part, Plan, Stop};
pub use self::script::FaultScriptError;
pub(crate) use self::script::script_entry;
use crate::clock::{Clock, Timestamp};

/// How many injected faults are kept to be read; counts go on beyond it.
const LOG_LENGTH: usize = 10_000;

/// One of the two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Kinesis Data Streams.
    Kinesis,
    /// DynamoDB, and DynamoDB Streams.
    DynamoDb,
}

/// Names a fault that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

impl FaultId {
    /// The number that names the fault over HTTP.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// A fault that struck.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InjectedFault {
    /// Which of the faults that were added.
    pub fault: FaultId,
    /// What it did.
    pub kind: FaultKind,
    /// Where it struck.
    pub service: Service,
    /// In which operation.
    pub operation: String,
    /// The stream or table, where the request named one.
    pub resource: Option<String>,
    /// The shard, where the request touches one.
    pub shard: Option<String>,
    /// The place of the entry in its batch, where an entry was struck.
    pub entry: Option<usize>,
}

/// The script of faults of one [`LocalAws`](crate::LocalAws). Empty at first.
///
/// Faults are asked in the order in which they were added. Delays and refused entries add up; the
/// first fault that stops a request ends the asking.
pub struct Faults {
    seed: u64,
    clock: Arc<dyn Clock>,
    script: Mutex<Script>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, clock: _, script } = self;
        f.debug_struct("Faults").field("seed", seed).field("script", script).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    added: u64,
    counts: HashMap<FaultId, u64>,
    log: VecDeque<InjectedFault>,
}

#[derive(Debug)]
struct Rule {
    id: FaultId,
    fault: Fault,
    added: Timestamp,
    rng: fastrand::Rng,
    seen: u64,
    struck: u64,
}

impl Rule {
    /// Whether it strikes now; called once for each request or entry that matches.
    fn strikes(&mut self) -> bool {
        if self.fault.times.is_some_and(|times| self.struck >= times) {
            return false;
        }
        self.seen += 1;
        let strikes = self.seen > self.fault.skip && self.rng.f64() < self.fault.probability;
        self.struck += u64::from(strikes);
        strikes
    }
}

impl Faults {
    pub(crate) fn new(seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self { seed, clock, script: Mutex::default() }
    }

    /// Adds a fault; it strikes from the next request on.
    pub fn add(&self, fault: Fault) -> FaultId {
        let added = self.clock.now().into();
        let mut script = self.lock();
        let id = FaultId(script.added);
        script.added += 1;
        // A generator of its own for each fault: faults do not disturb each other's draws.
        let seed = self.seed ^ (id.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let rng = fastrand::Rng::with_seed(seed);
        script.rules.push(Rule { id, fault, added, rng, seen: 0, struck: 0 });
        id
    }

    /// Takes a fault out of the script; what it did stays readable.
    pub fn remove(&self, id: FaultId) {
        self.lock().rules.retain(|rule| rule.id != id);
    }

    /// Takes all faults out of the script; what they did stays readable.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    /// The faults of the script, in its order, and how often each has struck.
    pub(crate) fn list(&self) -> Vec<(FaultId, Fault, u64)> {
        let script = self.lock();
        let rules = script.rules.iter();
        rules.map(|rule| (rule.id, rule.fault.clone(), rule.struck)).collect()
    }

    /// The fault of the script with this number.
    pub(crate) fn find(&self, number: u64) -> Option<FaultId> {
        let script = self.lock();
        let mut ids = script.rules.iter().map(|rule| rule.id);
        ids.find(|id| id.0 == number)
    }

    /// How often a fault has struck.
    pub fn count(&self, id: FaultId) -> u64 {
        self.lock().counts.get(&id).copied().unwrap_or(0)
    }

    /// The faults that have struck, oldest first: the last 10,000.
    pub fn injected(&self) -> Vec<InjectedFault> {
        self.lock().log.iter().cloned().collect()
    }

    /// The largest delay of indexes that any fault has, whether it strikes or not.
    pub(crate) fn stalest_index(&self) -> Option<Duration> {
        let script = self.lock();
        let rules = script.rules.iter();
        rules
            .filter_map(|rule| match rule.fault.kind {
                FaultKind::StaleIndex(by) => Some(by),
                _ => None,
            })
            .max()
    }

    /// The time of day that the services see.
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().rules.is_empty()
    }

    /// Decides what happens to a request.
    pub(crate) fn plan(&self, call: &Call<'_>) -> Plan {
        let now = self.clock.now().into();
        let mut script = self.lock();
        let mut plan = Plan::default();
        let mut struck = Vec::new();
        for rule in &mut script.rules {
            if !rule.fault.is_due(rule.added, now) || !rule.fault.kind.applies(call) {
                continue;
            }
            let hits: Vec<usize> = match &rule.fault.kind {
                FaultKind::RefuseEntry { .. } => (0..call.parts.len())
                    .filter(|nth| !plan.refused.contains_key(nth))
                    .filter(|nth| rule.fault.matches(call, &call.parts[*nth]) && rule.strikes())
                    .collect(),
                _ => {
                    let first = call.parts.iter().position(|part| rule.fault.matches(call, part));
                    first.filter(|_| rule.strikes()).into_iter().collect()
                }
            };
            let of_entry = matches!(rule.fault.kind, FaultKind::RefuseEntry { .. });
            struck.extend(hits.iter().map(|nth| InjectedFault {
                fault: rule.id,
                kind: rule.fault.kind.clone(),
                service: call.service,
                operation: call.operation.to_owned(),
                resource: call.parts[*nth].resource.clone(),
                shard: call.parts[*nth].shard.clone(),
                entry: of_entry.then_some(*nth),
            }));
            plan.add(&rule.fault, &hits, call);
            if plan.stop.is_some() {
                break;
            }
        }
        for fault in struck {
            *script.counts.entry(fault.fault).or_default() += 1;
            if script.log.len() == LOG_LENGTH {
                script.log.pop_front();
            }
            script.log.push_back(fault);
        }
        plan
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
