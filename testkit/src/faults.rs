//! Faults on purpose: a script that both services run every request past.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::kinesis::ApiError;

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

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The request is refused for its rate: `ProvisionedThroughputExceededException`, or
    /// `LimitExceededException` for the control operations of Kinesis.
    Throttle,
    /// The request fails with HTTP 500, and nothing is done.
    InternalFailure,
    /// The request is refused with HTTP 400 and this code, and nothing is done.
    Refuse {
        /// The error code the client sees.
        code: String,
    },
    /// The request waits this long before it is looked at.
    Delay(Duration),
    /// The connection is closed before the request is looked at: nothing is done.
    CutConnection,
    /// The request is carried out, then the connection is closed without an answer.
    ResponseLost,
    /// Entries of a batch are not carried out; the others are. In PutRecords they get this code; in
    /// BatchWriteItem and BatchGetItem, which have no codes, they come back as unprocessed.
    RefuseEntry {
        /// The error code the entry gets.
        code: String,
    },
}

/// A fault and when it strikes. Without conditions it strikes every request.
///
/// ```
/// use kinesis_testkit::Fault;
///
/// // The response to the third PutRecords on this stream is lost after the write.
/// let _ = Fault::response_lost().operation("PutRecords").resource("orders").skip(2).times(1);
/// // A fifth of all entries for one shard are refused.
/// let _ = Fault::refuse_entry("ProvisionedThroughputExceededException")
///     .shard("shardId-000000000001")
///     .probability(0.2);
/// ```
#[derive(Debug, Clone)]
#[must_use = "a fault strikes once it is added with `Faults::add`"]
pub struct Fault {
    kind: FaultKind,
    service: Option<Service>,
    operation: Option<String>,
    resource: Option<String>,
    shard: Option<String>,
    probability: f64,
    skip: u64,
    times: Option<u64>,
}

impl Fault {
    /// A fault of any kind, without conditions.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            service: None,
            operation: None,
            resource: None,
            shard: None,
            probability: 1.0,
            skip: 0,
            times: None,
        }
    }

    /// Refuses requests for their rate.
    pub fn throttle() -> Self {
        Self::new(FaultKind::Throttle)
    }

    /// Fails requests with HTTP 500.
    pub fn internal_failure() -> Self {
        Self::new(FaultKind::InternalFailure)
    }

    /// Refuses requests with HTTP 400 and this code.
    pub fn refuse(code: impl Into<String>) -> Self {
        Self::new(FaultKind::Refuse { code: code.into() })
    }

    /// Holds requests back.
    pub fn delay(by: Duration) -> Self {
        Self::new(FaultKind::Delay(by))
    }

    /// Closes the connection before a request is looked at.
    pub fn cut_connection() -> Self {
        Self::new(FaultKind::CutConnection)
    }

    /// Closes the connection after a request has been carried out.
    pub fn response_lost() -> Self {
        Self::new(FaultKind::ResponseLost)
    }

    /// Refuses single entries of batches with this code.
    pub fn refuse_entry(code: impl Into<String>) -> Self {
        Self::new(FaultKind::RefuseEntry { code: code.into() })
    }

    /// Only in this service.
    pub fn service(self, service: Service) -> Self {
        Self {
            service: Some(service),
            ..self
        }
    }

    /// Only in this operation, such as `PutRecords`.
    pub fn operation(self, operation: impl Into<String>) -> Self {
        Self {
            operation: Some(operation.into()),
            ..self
        }
    }

    /// Only where this stream or table is touched, by name.
    pub fn resource(self, name: impl Into<String>) -> Self {
        Self {
            resource: Some(name.into()),
            ..self
        }
    }

    /// Only where this shard is touched. A PutRecords touches the shard of each of its entries.
    pub fn shard(self, shard_id: impl Into<String>) -> Self {
        Self {
            shard: Some(shard_id.into()),
            ..self
        }
    }

    /// Strikes with this probability, 0 to 1, drawn from the seed of the
    /// [builder](crate::LocalAwsBuilder::seed) for each request (or entry) that matches. Default: 1.
    pub fn probability(self, probability: f64) -> Self {
        Self {
            probability,
            ..self
        }
    }

    /// Lets the first `n` matching requests (or entries) pass. Default: 0.
    pub fn skip(self, n: u64) -> Self {
        Self { skip: n, ..self }
    }

    /// Strikes at most `n` times. Default: without end.
    pub fn times(self, n: u64) -> Self {
        Self {
            times: Some(n),
            ..self
        }
    }

    fn matches(&self, call: &Call<'_>, part: &Part) -> bool {
        fn met<T: PartialEq<U>, U>(condition: &Option<T>, value: Option<&U>) -> bool {
            condition
                .as_ref()
                .is_none_or(|wanted| value.is_some_and(|value| wanted == value))
        }
        met(&self.service, Some(&call.service))
            && self
                .operation
                .as_deref()
                .is_none_or(|wanted| wanted == call.operation)
            && met(&self.resource, part.resource.as_ref())
            && met(&self.shard, part.shard.as_ref())
    }
}

/// Names a fault that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

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
#[derive(Debug)]
pub struct Faults {
    seed: u64,
    script: Mutex<Script>,
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
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            script: Mutex::default(),
        }
    }

    /// Adds a fault; it strikes from the next request on.
    pub fn add(&self, fault: Fault) -> FaultId {
        let mut script = self.lock();
        let id = FaultId(script.added);
        script.added += 1;
        // A generator of its own for each fault: faults do not disturb each other's draws.
        let seed = self.seed ^ (id.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let rng = fastrand::Rng::with_seed(seed);
        script.rules.push(Rule {
            id,
            fault,
            rng,
            seen: 0,
            struck: 0,
        });
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

    /// How often a fault has struck.
    pub fn count(&self, id: FaultId) -> u64 {
        self.lock().counts.get(&id).copied().unwrap_or(0)
    }

    /// The faults that have struck, oldest first: the last 10,000.
    pub fn injected(&self) -> Vec<InjectedFault> {
        self.lock().log.iter().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().rules.is_empty()
    }

    /// Decides what happens to a request.
    pub(crate) fn plan(&self, call: &Call<'_>) -> Plan {
        let mut script = self.lock();
        let mut plan = Plan::default();
        let mut struck = Vec::new();
        for rule in &mut script.rules {
            let hits: Vec<usize> = match &rule.fault.kind {
                FaultKind::RefuseEntry { .. } if !call.batch => continue,
                FaultKind::RefuseEntry { .. } => (0..call.parts.len())
                    .filter(|nth| !plan.refused.contains_key(nth))
                    .filter(|nth| rule.fault.matches(call, &call.parts[*nth]) && rule.strikes())
                    .collect(),
                _ => {
                    let first = call
                        .parts
                        .iter()
                        .position(|part| rule.fault.matches(call, part));
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
            plan.add(&rule.fault.kind, &hits, call);
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

/// A request, as faults see it.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) service: Service,
    pub(crate) operation: &'a str,
    /// What the request touches: never empty; one for each entry of a batch.
    pub(crate) parts: Vec<Part>,
    pub(crate) batch: bool,
}

/// One thing a request touches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) resource: Option<String>,
    pub(crate) shard: Option<String>,
}

/// What happens to a request.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    pub(crate) stop: Option<Stop>,
    pub(crate) refused: HashMap<usize, ApiError>,
    pub(crate) lose_response: bool,
}

/// A request that is not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Cut,
    Refuse(ApiError),
}

impl Plan {
    fn add(&mut self, kind: &FaultKind, hits: &[usize], call: &Call<'_>) {
        if hits.is_empty() {
            return;
        }
        match kind {
            FaultKind::Delay(by) => self.delay += *by,
            FaultKind::ResponseLost => self.lose_response = true,
            FaultKind::CutConnection => self.stop = Some(Stop::Cut),
            FaultKind::Throttle => self.stop = Some(Stop::Refuse(throttle(call))),
            FaultKind::InternalFailure => {
                let code = match call.service {
                    Service::Kinesis => "InternalFailure",
                    Service::DynamoDb => "com.amazonaws.dynamodb.v20120810#InternalServerError",
                };
                self.stop = Some(Stop::Refuse(ApiError::new(
                    code,
                    "Internal service failure.",
                )));
            }
            FaultKind::Refuse { code } => {
                let refusal = ApiError::new(code.clone(), "Refused by a fault of testkit.");
                self.stop = Some(Stop::Refuse(refusal));
            }
            FaultKind::RefuseEntry { code } => {
                let message = if code == "InternalFailure" {
                    "Internal service failure."
                } else {
                    "Refused by a fault of testkit."
                };
                self.refused.extend(
                    hits.iter()
                        .map(|nth| (*nth, ApiError::new(code.clone(), message))),
                );
            }
        }
    }
}

fn throttle(call: &Call<'_>) -> ApiError {
    let message = "Rate exceeded (a fault of testkit).";
    match (call.service, call.operation) {
        (Service::DynamoDb, _) => ApiError::new(
            "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
            message,
        ),
        (
            Service::Kinesis,
            "PutRecord" | "PutRecords" | "GetRecords" | "GetShardIterator" | "SubscribeToShard",
        ) => ApiError::throughput_exceeded(message),
        (Service::Kinesis, _) => ApiError::limit_exceeded(message),
    }
}

#[cfg(test)]
mod tests;
