//! What is kept for a stream and shown, and changes nothing else here: enhanced monitoring,
//! encryption, the limits of the account.

use serde::Serialize;

use super::Kinesis;
use super::error::ApiError;
use super::lifecycle::SHARD_QUOTA;
use super::stream::StreamMode;
use super::wire::{Done, NamesStream, required, stream_requests};
use crate::clock::Timestamp;

/// The metrics there are of shards.
const METRICS: [&str; 7] = [
    "IncomingBytes",
    "IncomingRecords",
    "IteratorAgeMilliseconds",
    "OutgoingBytes",
    "OutgoingRecords",
    "ReadProvisionedThroughputExceeded",
    "WriteProvisionedThroughputExceeded",
];
/// Most on-demand streams an account may have.
const ON_DEMAND_QUOTA: usize = 50;

stream_requests! {
    MonitoringRequest { shard_level_metrics: Vec<String> }
    EncryptionRequest { encryption_type: String, key_id: String }
}

#[derive(Debug, serde::Deserialize)]
pub(crate) struct DescribeLimitsRequest {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeLimitsResponse {
    shard_limit: usize,
    open_shard_count: usize,
    on_demand_stream_count: usize,
    on_demand_stream_count_limit: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MonitoringResponse {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    current_shard_level_metrics: Vec<String>,
    desired_shard_level_metrics: Vec<String>,
}

impl Kinesis {
    pub(crate) fn enable_enhanced_monitoring(
        &mut self,
        now: Timestamp,
        request: MonitoringRequest,
    ) -> Result<MonitoringResponse, ApiError> {
        self.change_monitoring(now, &request, |known, named| known || named)
    }

    pub(crate) fn disable_enhanced_monitoring(
        &mut self,
        now: Timestamp,
        request: MonitoringRequest,
    ) -> Result<MonitoringResponse, ApiError> {
        self.change_monitoring(now, &request, |known, named| known && !named)
    }

    /// `keeps` tells of each metric, by whether it is measured and whether the request names it,
    /// whether it is to be measured.
    fn change_monitoring(
        &mut self,
        now: Timestamp,
        request: &MonitoringRequest,
        keeps: impl Fn(bool, bool) -> bool,
    ) -> Result<MonitoringResponse, ApiError> {
        let named = required("shardLevelMetrics", request.shard_level_metrics.as_ref())?;
        let known = |name: &String| name == "ALL" || METRICS.contains(&name.as_str());
        if named.is_empty() || !named.iter().all(known) {
            return Err(ApiError::constraint(
                "shardLevelMetrics",
                format_args!("Member must satisfy enum value set: [{}, ALL]", METRICS.join(", ")),
            ));
        }
        let is_named = |metric: &str| named.iter().any(|name| name == "ALL" || name == metric);
        let stream = self.active(now, request.stream())?;
        let current = stream.metrics.clone();
        let is_measured = |metric: &str| current.iter().any(|name| name == metric);
        let is_kept = |metric: &&str| keeps(is_measured(metric), is_named(metric));
        stream.metrics = METRICS.into_iter().filter(is_kept).map(str::to_owned).collect();
        Ok(MonitoringResponse {
            stream_name: stream.name.clone(),
            stream_arn: stream.arn.clone(),
            current_shard_level_metrics: current,
            desired_shard_level_metrics: stream.metrics.clone(),
        })
    }

    pub(crate) fn start_stream_encryption(
        &mut self,
        now: Timestamp,
        request: EncryptionRequest,
    ) -> Result<Done, ApiError> {
        let key = request.checked_key()?.to_owned();
        self.active(now, request.stream())?.encryption_key = Some(key);
        Ok(Done {})
    }

    pub(crate) fn stop_stream_encryption(
        &mut self,
        now: Timestamp,
        request: EncryptionRequest,
    ) -> Result<Done, ApiError> {
        request.checked_key()?;
        self.active(now, request.stream())?.encryption_key = None;
        Ok(Done {})
    }

    pub(crate) fn describe_limits(
        &mut self,
        now: Timestamp,
        _: DescribeLimitsRequest,
    ) -> Result<DescribeLimitsResponse, ApiError> {
        self.settle_all(now);
        let of_mode = |mode| self.streams.values().filter(move |stream| stream.mode == mode);
        Ok(DescribeLimitsResponse {
            shard_limit: SHARD_QUOTA,
            open_shard_count: of_mode(StreamMode::Provisioned)
                .map(|stream| stream.open.len())
                .sum(),
            on_demand_stream_count: of_mode(StreamMode::OnDemand).count(),
            on_demand_stream_count_limit: ON_DEMAND_QUOTA,
        })
    }
}

impl EncryptionRequest {
    fn checked_key(&self) -> Result<&str, ApiError> {
        if required("encryptionType", self.encryption_type.as_deref())? != "KMS" {
            return Err(ApiError::invalid_argument("EncryptionType must be KMS."));
        }
        required("keyId", self.key_id.as_deref())
    }
}
