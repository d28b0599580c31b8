//! CreateStream, DeleteStream, the retention period, the maximum record size.

use super::error::ApiError;
use super::mode::Distribution;
use super::stream::{Change, Stream, StreamMode};
use super::tags::check_tags;
use super::wire::{
    CreateStreamRequest, DeleteStreamRequest, Done, MaxRecordSizeRequest, NamesStream,
    RetentionRequest, check_name, ranged, required,
};
use super::{ACCOUNT, Kinesis, arn_of};
use crate::clock::Timestamp;

/// Shards of a new on-demand stream.
const ON_DEMAND_SHARDS: u32 = 4;
/// Most shards a provisioned stream may have.
pub(crate) const SHARD_QUOTA: usize = 20_000;
const MIN_RETENTION_HOURS: usize = 24;
const MAX_RETENTION_HOURS: usize = 8760;
/// Smallest (and default) and largest settable maximum record size, in KiB.
const MIN_MAX_RECORD_KIB: usize = 1024;
pub(crate) const MAX_MAX_RECORD_KIB: usize = 10 * 1024;

impl Kinesis {
    /// Creates a provisioned stream with default settings.
    pub(crate) fn create_provisioned(
        &mut self,
        now: Timestamp,
        name: &str,
        shards: u32,
    ) -> Result<(), ApiError> {
        let request = CreateStreamRequest {
            stream_name: Some(name.to_owned()),
            shard_count: Some(shards.into()),
            ..CreateStreamRequest::default()
        };
        self.create_stream(now, request).map(|Done {}| ())
    }

    pub(crate) fn create_stream(
        &mut self,
        now: Timestamp,
        request: CreateStreamRequest,
    ) -> Result<Done, ApiError> {
        let name = required("streamName", request.stream_name)?;
        check_name("streamName", &name)?;
        let mode = request.stream_mode_details.as_ref();
        let mode = mode.map(|mode| StreamMode::parse(&mode.stream_mode));
        let mode = mode.transpose()?.unwrap_or(StreamMode::Provisioned);
        let distribution = match request.record_distribution_strategy.as_deref() {
            None => Distribution::default(),
            Some(strategy) => {
                Distribution::check_mode(mode)?;
                Distribution::parse(strategy)?
            }
        };
        let shards = match (mode, request.shard_count) {
            (StreamMode::OnDemand, None) => ON_DEMAND_SHARDS,
            (StreamMode::OnDemand, Some(_)) => {
                return Err(ApiError::validation(
                    "ShardCount cannot be given for a stream in ON_DEMAND mode.",
                ));
            }
            (StreamMode::Provisioned, count) => checked_shard_count("shardCount", count)?,
        };
        let max_record_kib = max_record_kib(request.max_record_size_in_kib, MIN_MAX_RECORD_KIB)?;
        let tags = request.tags.unwrap_or_default();
        check_tags(&tags)?;
        self.settle(now, &name);
        if self.streams.contains_key(&name) {
            return Err(ApiError::in_use(format!(
                "Stream {name} under account {ACCOUNT} already exists."
            )));
        }
        let arn = arn_of(&name);
        let mut stream =
            Stream::new(name.clone(), arn, self.next_incarnation(), now, mode, max_record_kib);
        stream.tags = tags;
        stream.distribution = distribution;
        stream.begin(now, self.settings.transition, Change::Create { shards });
        self.streams.insert(name, stream);
        Ok(Done {})
    }

    pub(crate) fn delete_stream(
        &mut self,
        now: Timestamp,
        request: DeleteStreamRequest,
    ) -> Result<Done, ApiError> {
        let transition = self.settings.transition;
        let stream = self.stream(now, request.stream())?;
        if stream.is_being_deleted() {
            return Err(ApiError::in_use(format!(
                "Stream {} under account {ACCOUNT} is being deleted already.",
                stream.name
            )));
        }
        if !stream.consumers.is_empty() && request.enforce_consumer_deletion != Some(true) {
            return Err(ApiError::in_use(format!(
                "Stream {} under account {ACCOUNT} has consumers: deregister them, or set \
                 EnforceConsumerDeletion.",
                stream.name
            )));
        }
        stream.begin(now, transition, Change::Delete);
        let name = stream.name.clone();
        self.settle(now, &name);
        Ok(Done {})
    }

    pub(crate) fn increase_retention(
        &mut self,
        now: Timestamp,
        request: RetentionRequest,
    ) -> Result<Done, ApiError> {
        let (stream, hours) = self.retention_change(now, &request)?;
        if hours < stream.retention_hours {
            return Err(ApiError::invalid_argument(format!(
                "Requested retention period ({hours} hours) for stream {} can not be shorter than \
                 existing retention period ({} hours). Use DecreaseRetentionPeriod API.",
                stream.name, stream.retention_hours
            )));
        }
        stream.set_retention(now, hours);
        Ok(Done {})
    }

    pub(crate) fn decrease_retention(
        &mut self,
        now: Timestamp,
        request: RetentionRequest,
    ) -> Result<Done, ApiError> {
        let (stream, hours) = self.retention_change(now, &request)?;
        if hours > stream.retention_hours {
            return Err(ApiError::invalid_argument(format!(
                "Requested retention period ({hours} hours) for stream {} can not be longer than \
                 existing retention period ({} hours). Use IncreaseRetentionPeriod API.",
                stream.name, stream.retention_hours
            )));
        }
        stream.set_retention(now, hours);
        Ok(Done {})
    }

    fn retention_change(
        &mut self,
        now: Timestamp,
        request: &RetentionRequest,
    ) -> Result<(&mut Stream, u64), ApiError> {
        let hours = required("retentionPeriodHours", request.retention_period_hours)?;
        let field = "retentionPeriodHours";
        let hours = ranged(field, Some(hours), 0, MIN_RETENTION_HOURS, MAX_RETENTION_HOURS)? as u64;
        Ok((self.active(now, request.stream())?, hours))
    }

    pub(crate) fn update_max_record_size(
        &mut self,
        now: Timestamp,
        request: MaxRecordSizeRequest,
    ) -> Result<Done, ApiError> {
        let size = required("maxRecordSizeInKiB", request.max_record_size_in_kib)?;
        let size = max_record_kib(Some(size), MIN_MAX_RECORD_KIB)?;
        self.active(now, request.stream())?.max_record_kib = size;
        Ok(Done {})
    }
}

fn max_record_kib(given: Option<i64>, default: usize) -> Result<usize, ApiError> {
    ranged("maxRecordSizeInKiB", given, default, MIN_MAX_RECORD_KIB, MAX_MAX_RECORD_KIB)
}

/// A shard count that must be given, positive and within the quota.
pub(crate) fn checked_shard_count(field: &str, count: Option<i64>) -> Result<u32, ApiError> {
    let count = required(field, count)?;
    let positive = u32::try_from(count).ok().filter(|count| *count > 0);
    let count = positive.ok_or_else(|| {
        ApiError::constraint(field, "Member must have value greater than or equal to 1")
    })?;
    if count as usize > SHARD_QUOTA {
        return Err(ApiError::limit_exceeded(format!(
            "{count} shards would exceed the account's limit of {SHARD_QUOTA}"
        )));
    }
    Ok(count)
}
