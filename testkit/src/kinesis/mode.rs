//! UpdateStreamMode, UpdateStreamRecordDistributionStrategy: who manages capacity, and who places
//! records.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kinesis;
use super::error::ApiError;
use super::shard::ShardId;
use super::stream::{Stream, StreamMode};
use super::wire::{Done, NamesStream, StreamModeDetails, required, stream_requests};
use crate::clock::Timestamp;

/// So many changes of mode a stream allows in a day.
const CHANGES_A_DAY: usize = 2;
const DAY: Duration = Duration::from_secs(24 * 3600);

stream_requests! {
    UpdateModeRequest { stream_mode_details: StreamModeDetails }
    UpdateDistributionRequest { record_distribution_strategy: String }
}

/// Which shard a record goes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Distribution {
    /// The one whose range holds the hash of its partition key, or its explicit hash key.
    #[default]
    #[serde(rename = "USER_PARTITION_KEY")]
    UserPartitionKey,
    /// Each in turn; keys are ignored, and may be missing.
    #[serde(rename = "AUTO")]
    Auto,
}

impl Distribution {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "USER_PARTITION_KEY" => Ok(Self::UserPartitionKey),
            "AUTO" => Ok(Self::Auto),
            _ => Err(ApiError::constraint(
                "recordDistributionStrategy",
                "Member must satisfy enum value set: [AUTO, USER_PARTITION_KEY]",
            )),
        }
    }

    /// Only on-demand streams have a strategy to choose.
    pub(crate) fn check_mode(mode: StreamMode) -> Result<(), ApiError> {
        match mode {
            StreamMode::OnDemand => Ok(()),
            StreamMode::Provisioned => Err(ApiError::invalid_argument(
                "RecordDistributionStrategy is only supported for streams in ON_DEMAND mode.",
            )),
        }
    }
}

impl StreamMode {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "PROVISIONED" => Ok(Self::Provisioned),
            "ON_DEMAND" => Ok(Self::OnDemand),
            _ => Err(ApiError::constraint(
                "streamModeDetails.streamMode",
                "Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]",
            )),
        }
    }
}

impl Stream {
    /// The shard the next record goes to.
    pub(crate) fn place(&mut self, hash_key: u128) -> ShardId {
        match self.distribution {
            Distribution::UserPartitionKey => self.route(hash_key),
            Distribution::Auto => {
                self.placed = self.placed.wrapping_add(1);
                self.open[self.placed % self.open.len()]
            }
        }
    }

    /// The shard a record with this hash key would go to, where the key decides that.
    pub(crate) fn foreseen(&self, hash_key: u128) -> Option<ShardId> {
        (self.distribution == Distribution::UserPartitionKey).then(|| self.route(hash_key))
    }
}

impl Kinesis {
    pub(crate) fn update_stream_mode(
        &mut self,
        now: Timestamp,
        request: UpdateModeRequest,
    ) -> Result<Done, ApiError> {
        let details = required("streamModeDetails", request.stream_mode_details.as_ref())?;
        let mode = StreamMode::parse(&details.stream_mode)?;
        required("streamARN", request.stream_arn.as_deref())?;
        let stream = self.active(now, request.stream())?;
        if mode == stream.mode {
            return Err(ApiError::validation(format!(
                "Stream {} is in {} mode already.",
                stream.name,
                mode.as_str()
            )));
        }
        let a_day_ago = now.minus(DAY);
        stream.mode_changes.retain(|change| *change > a_day_ago);
        if stream.mode_changes.len() >= CHANGES_A_DAY {
            return Err(ApiError::limit_exceeded(format!(
                "The mode of stream {} has been changed {CHANGES_A_DAY} times in 24 hours.",
                stream.name
            )));
        }
        stream.mode_changes.push(now);
        stream.mode = mode;
        if mode == StreamMode::Provisioned {
            stream.distribution = Distribution::UserPartitionKey;
        }
        Ok(Done {})
    }

    pub(crate) fn update_distribution(
        &mut self,
        now: Timestamp,
        request: UpdateDistributionRequest,
    ) -> Result<Done, ApiError> {
        let strategy = request.record_distribution_strategy.as_deref();
        let strategy = Distribution::parse(required("recordDistributionStrategy", strategy)?)?;
        required("streamARN", request.stream_arn.as_deref())?;
        let stream = self.active(now, request.stream())?;
        Distribution::check_mode(stream.mode)?;
        stream.distribution = strategy;
        Ok(Done {})
    }
}
