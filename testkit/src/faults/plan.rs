//! What becomes of one request.

use std::collections::HashMap;
use std::time::Duration;

use super::Service;
use super::fault::{Fault, FaultKind};
use crate::kinesis::ApiError;

/// A request, as faults see it.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) service: Service,
    pub(crate) operation: &'a str,
    /// What the request touches: never empty; one for each entry of a batch.
    pub(crate) parts: Vec<Part>,
    pub(crate) batch: bool,
    pub(crate) asks: Asks,
}

/// What a request to DynamoDB asks for, as far as there are faults of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    /// To read an index.
    pub(crate) index_read: bool,
    /// To add an index to a table.
    pub(crate) new_index: bool,
    /// To be shown the item that fails a condition.
    pub(crate) old_item: bool,
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
    pub(crate) cut_response: bool,
    pub(crate) garbled_response: bool,
    /// Bytes a second.
    pub(crate) slow_response: Option<u64>,
    pub(crate) stale_index: Option<Duration>,
    pub(crate) slow_index: Option<Duration>,
    pub(crate) no_old_item: bool,
}

/// A request that is not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Cut,
    Refuse(ApiError),
}

/// The message of a refusal that was not given one.
const REFUSED: &str = "Refused by a fault of testkit.";

impl Plan {
    pub(super) fn add(&mut self, fault: &Fault, hits: &[usize], call: &Call<'_>) {
        if hits.is_empty() {
            return;
        }
        match &fault.kind {
            FaultKind::Delay(by) => self.delay += *by,
            FaultKind::ResponseLost => self.lose_response = true,
            FaultKind::CutResponse => self.cut_response = true,
            FaultKind::GarbledResponse => self.garbled_response = true,
            FaultKind::SlowResponse { bytes_per_second } => {
                let slowest = self.slow_response.unwrap_or(u64::MAX);
                self.slow_response = Some(slowest.min(*bytes_per_second).max(1));
            }
            FaultKind::CutConnection => self.stop = Some(Stop::Cut),
            FaultKind::Throttle => self.stop = Some(Stop::Refuse(throttle(call))),
            FaultKind::InternalFailure => {
                let code = match call.service {
                    // In the middle of an event stream it has a name of its own.
                    Service::Kinesis if call.operation == "SubscribeToShardEvent" => {
                        "InternalFailureException"
                    }
                    Service::Kinesis => "InternalFailure",
                    Service::DynamoDb => "com.amazonaws.dynamodb.v20120810#InternalServerError",
                };
                self.stop = Some(Stop::Refuse(ApiError::new(code, "Internal service failure.")));
            }
            FaultKind::Unavailable => {
                let message = "The service is unavailable (a fault of testkit).";
                let refusal = ApiError::new("ServiceUnavailable", message);
                self.stop = Some(Stop::Refuse(refusal));
            }
            FaultKind::StaleIndex(by) => self.stale_index = self.stale_index.max(Some(*by)),
            FaultKind::SlowIndex(by) => self.slow_index = self.slow_index.max(Some(*by)),
            FaultKind::NoOldItem => self.no_old_item = true,
            FaultKind::Refuse { code } => {
                let message = fault.message.as_deref().unwrap_or(REFUSED);
                let refusal = ApiError::new(code.clone(), message);
                self.stop = Some(Stop::Refuse(refusal));
            }
            FaultKind::RefuseEntry { code } => {
                let message = match &fault.message {
                    Some(message) => message,
                    None if code == "InternalFailure" => "Internal service failure.",
                    None => REFUSED,
                };
                self.refused
                    .extend(hits.iter().map(|nth| (*nth, ApiError::new(code.clone(), message))));
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
        (Service::Kinesis, "PutRecord" | "PutRecords" | "GetRecords" | "GetShardIterator") => {
            ApiError::throughput_exceeded(message)
        }
        (Service::Kinesis, _) => ApiError::limit_exceeded(message),
    }
}
