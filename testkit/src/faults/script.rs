//! Faults from a file.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fault, FaultId, FaultKind, Faults, Service};

/// A script of faults could not be read. None of its faults has been added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaultScriptError {
    /// It is not JSON, or not an array of faults.
    #[error("the script of faults cannot be read: it must be a JSON array of faults")]
    Json(#[source] serde_json::Error),
    /// One of its faults makes no sense.
    #[error("fault {nth} of the script: {problem}")]
    Fault {
        /// Which, counted from 1.
        nth: usize,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Throttle,
    InternalFailure,
    Unavailable,
    Refuse,
    Delay,
    CutConnection,
    ResponseLost,
    CutResponse,
    GarbledResponse,
    SlowResponse,
    RefuseEntry,
    StaleIndex,
    SlowIndex,
    NoOldItem,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum ServiceName {
    Kinesis,
    DynamoDb,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: Kind,
    code: Option<String>,
    message: Option<String>,
    by: Option<String>,
    service: Option<ServiceName>,
    operation: Option<String>,
    resource: Option<String>,
    shard: Option<String>,
    probability: Option<f64>,
    bytes_per_second: Option<u64>,
    skip: Option<u64>,
    times: Option<u64>,
    after: Option<String>,
    lasting: Option<String>,
}

impl Faults {
    /// Adds the faults of a script, a JSON array, in its order: all of them, or none.
    ///
    /// Each is an object with a `kind` (`throttle`, `internal-failure`, `unavailable`, `refuse`, `delay`,
    /// `cut-connection`, `response-lost`, `cut-response`, `garbled-response`, `slow-response`, `refuse-entry`, `stale-index`, `slow-index`, `no-old-item`) and,
    /// where the kind needs it, a `code`, a duration `by` or `bytes_per_second`. A kind with a `code` may
    /// have a `message`. The conditions are those of [`Fault`]:
    /// `service` (`kinesis` or `dynamodb`), `operation`, `resource`, `shard`, `probability`, `skip`,
    /// `times`, `after`, `lasting`. Durations are numbers with a unit: `250ms`, `1.5s`, `2m`, `1h`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let aws = kinesis_testkit::LocalAws::start().await?;
    /// let script = r#"[
    ///     {"kind": "refuse-entry", "code": "InternalFailure", "probability": 0.1},
    ///     {"kind": "unavailable", "service": "kinesis", "after": "10s", "lasting": "5s"}
    /// ]"#;
    /// assert_eq!(aws.faults().load(script)?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the script is no such array, or one of its faults lacks something or has what is no
    /// probability or no duration.
    pub fn load(&self, script: &str) -> Result<Vec<FaultId>, FaultScriptError> {
        let entries: Vec<Entry> = serde_json::from_str(script).map_err(FaultScriptError::Json)?;
        let faults = entries.into_iter().enumerate().map(|(nth, entry)| {
            let nth = nth + 1;
            Fault::try_from(entry).map_err(|problem| FaultScriptError::Fault { nth, problem })
        });
        let faults = faults.collect::<Result<Vec<_>, _>>()?;
        Ok(faults.into_iter().map(|fault| self.add(fault)).collect())
    }
}

impl TryFrom<Entry> for Fault {
    type Error = String;

    fn try_from(entry: Entry) -> Result<Self, String> {
        let kind = entry.fault_kind()?;
        let optional = |text: Option<&str>| text.map(duration).transpose();
        let probability = entry.probability.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&probability) {
            return Err(format!("{probability} is no probability: 0 to 1 is"));
        }
        let mut fault = Self::new(kind)
            .probability(probability)
            .skip(entry.skip.unwrap_or(0))
            .after(optional(entry.after.as_deref())?.unwrap_or_default());
        if let Some(message) = entry.message {
            fault = fault.message(message);
        }
        if let Some(service) = entry.service {
            fault = fault.service(match service {
                ServiceName::Kinesis => Service::Kinesis,
                ServiceName::DynamoDb => Service::DynamoDb,
            });
        }
        if let Some(operation) = entry.operation {
            fault = fault.operation(operation);
        }
        if let Some(resource) = entry.resource {
            fault = fault.resource(resource);
        }
        if let Some(shard) = entry.shard {
            fault = fault.shard(shard);
        }
        if let Some(times) = entry.times {
            fault = fault.times(times);
        }
        if let Some(lasting) = optional(entry.lasting.as_deref())? {
            fault = fault.lasting(lasting);
        }
        Ok(fault)
    }
}

impl Entry {
    fn fault_kind(&self) -> Result<FaultKind, String> {
        let code = || {
            let code = self.code.clone();
            code.ok_or_else(|| "its kind needs a `code`, the error the client sees".to_owned())
        };
        let by = || {
            let by = self.by.as_deref();
            by.map_or_else(
                || Err("its kind needs a duration `by`, such as \"250ms\"".to_owned()),
                duration,
            )
        };
        Ok(match self.kind {
            Kind::Throttle => FaultKind::Throttle,
            Kind::InternalFailure => FaultKind::InternalFailure,
            Kind::Unavailable => FaultKind::Unavailable,
            Kind::Refuse => FaultKind::Refuse { code: code()? },
            Kind::Delay => FaultKind::Delay(by()?),
            Kind::CutConnection => FaultKind::CutConnection,
            Kind::ResponseLost => FaultKind::ResponseLost,
            Kind::CutResponse => FaultKind::CutResponse,
            Kind::GarbledResponse => FaultKind::GarbledResponse,
            Kind::SlowResponse => FaultKind::SlowResponse {
                bytes_per_second: self
                    .bytes_per_second
                    .filter(|rate| *rate > 0)
                    .ok_or("its kind needs `bytes_per_second`, at least 1".to_owned())?,
            },
            Kind::RefuseEntry => FaultKind::RefuseEntry { code: code()? },
            Kind::StaleIndex => FaultKind::StaleIndex(by()?),
            Kind::SlowIndex => FaultKind::SlowIndex(by()?),
            Kind::NoOldItem => FaultKind::NoOldItem,
        })
    }
}

/// A fault as a script would have it. Members that are absent are left out.
pub(crate) fn script_entry(fault: &Fault) -> Value {
    let written = |duration: Duration| format!("{}ms", duration.as_secs_f64() * 1000.0);
    let (kind, code, by) = match &fault.kind {
        FaultKind::Throttle => (Kind::Throttle, None, None),
        FaultKind::InternalFailure => (Kind::InternalFailure, None, None),
        FaultKind::Unavailable => (Kind::Unavailable, None, None),
        FaultKind::Refuse { code } => (Kind::Refuse, Some(code), None),
        FaultKind::Delay(by) => (Kind::Delay, None, Some(by)),
        FaultKind::CutConnection => (Kind::CutConnection, None, None),
        FaultKind::ResponseLost => (Kind::ResponseLost, None, None),
        FaultKind::CutResponse => (Kind::CutResponse, None, None),
        FaultKind::GarbledResponse => (Kind::GarbledResponse, None, None),
        FaultKind::SlowResponse { .. } => (Kind::SlowResponse, None, None),
        FaultKind::RefuseEntry { code } => (Kind::RefuseEntry, Some(code), None),
        FaultKind::StaleIndex(by) => (Kind::StaleIndex, None, Some(by)),
        FaultKind::SlowIndex(by) => (Kind::SlowIndex, None, Some(by)),
        FaultKind::NoOldItem => (Kind::NoOldItem, None, None),
    };
    let entry = Entry {
        kind,
        code: code.cloned(),
        message: fault.message.clone(),
        by: by.copied().map(written),
        bytes_per_second: match fault.kind {
            FaultKind::SlowResponse { bytes_per_second } => Some(bytes_per_second),
            _ => None,
        },
        service: fault.service.map(|service| match service {
            Service::Kinesis => ServiceName::Kinesis,
            Service::DynamoDb => ServiceName::DynamoDb,
        }),
        operation: fault.operation.clone(),
        resource: fault.resource.clone(),
        shard: fault.shard.clone(),
        probability: (fault.probability < 1.0).then_some(fault.probability),
        skip: (fault.skip > 0).then_some(fault.skip),
        times: fault.times,
        after: (!fault.after.is_zero()).then(|| written(fault.after)),
        lasting: fault.lasting.map(written),
    };
    let mut entry = serde_json::to_value(entry).unwrap_or_default();
    if let Some(members) = entry.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    entry
}

/// A number and its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|char: char| char.is_ascii_digit() || char == '.');
    let number = text.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok());
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    number
        .and_then(|number| Duration::try_from_secs_f64(number * seconds).ok())
        .ok_or_else(|| format!("{text:?} is no duration: a number with ms, s, m or h is"))
}
