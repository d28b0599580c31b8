//! DescribeStream, DescribeStreamSummary, ListStreams.

use std::ops::Bound;

use serde::Serialize;

use super::Kinesis;
use super::error::ApiError;
use super::list_shards::shard_id;
use super::mode::Distribution;
use super::page_token::{self, check_alone};
use super::stream::Stream;
use super::wire::{
    DescribeStreamRequest, EpochSeconds, ListStreamsRequest, NamesStream, ShardShape,
    StreamModeDetails, StreamRequest, ranged,
};
use crate::clock::Timestamp;

const LIST_STREAMS: &str = "ListStreams";

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeStreamResponse {
    stream_description: StreamDescription,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamDescription {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeDetails,
    shards: Vec<ShardShape>,
    has_more_shards: bool,
    retention_period_hours: u64,
    stream_creation_timestamp: EpochSeconds,
    enhanced_monitoring: [EnhancedMetrics; 1],
    encryption_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeStreamSummaryResponse {
    stream_description_summary: StreamDescriptionSummary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamDescriptionSummary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeDetails,
    retention_period_hours: u64,
    stream_creation_timestamp: EpochSeconds,
    enhanced_monitoring: [EnhancedMetrics; 1],
    encryption_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    open_shard_count: usize,
    consumer_count: usize,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size_in_kib: usize,
    record_distribution_strategy: Distribution,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EnhancedMetrics {
    shard_level_metrics: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListStreamsResponse {
    stream_names: Vec<String>,
    has_more_streams: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    stream_summaries: Vec<StreamSummary>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamSummary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeDetails,
    stream_creation_timestamp: EpochSeconds,
}

impl Kinesis {
    pub(crate) fn describe_stream(
        &mut self,
        now: Timestamp,
        request: DescribeStreamRequest,
    ) -> Result<DescribeStreamResponse, ApiError> {
        let limit = ranged("limit", request.limit, 100, 1, 10_000)?;
        let start = request.exclusive_start_shard_id.as_deref();
        let after = start.map(|id| shard_id("exclusiveStartShardId", id)).transpose()?;
        let stream = self.stream(now, request.stream())?;
        let horizon = stream.horizon(now);
        let mut shards = stream
            .shards
            .iter()
            .filter(|shard| shard.is_retained(horizon))
            .filter(|shard| after.is_none_or(|after| shard.id > after));
        let page = shards.by_ref().take(limit).map(ShardShape::from).collect();
        let has_more_shards = shards.next().is_some();
        Ok(DescribeStreamResponse {
            stream_description: StreamDescription {
                stream_name: stream.name.clone(),
                stream_arn: stream.arn.clone(),
                stream_status: stream.status(),
                stream_mode_details: mode_details(stream),
                shards: page,
                has_more_shards,
                retention_period_hours: stream.retention_hours,
                stream_creation_timestamp: EpochSeconds(stream.created),
                enhanced_monitoring: enhanced_metrics(stream),
                encryption_type: stream.encryption_type().unwrap_or("NONE"),
                key_id: stream.encryption_key.clone(),
            },
        })
    }

    pub(crate) fn describe_stream_summary(
        &mut self,
        now: Timestamp,
        request: StreamRequest,
    ) -> Result<DescribeStreamSummaryResponse, ApiError> {
        let stream = self.stream(now, request.stream())?;
        Ok(DescribeStreamSummaryResponse {
            stream_description_summary: StreamDescriptionSummary {
                stream_name: stream.name.clone(),
                stream_arn: stream.arn.clone(),
                stream_status: stream.status(),
                stream_mode_details: mode_details(stream),
                retention_period_hours: stream.retention_hours,
                stream_creation_timestamp: EpochSeconds(stream.created),
                enhanced_monitoring: enhanced_metrics(stream),
                encryption_type: stream.encryption_type().unwrap_or("NONE"),
                key_id: stream.encryption_key.clone(),
                open_shard_count: stream.open.len(),
                consumer_count: stream.consumers.len(),
                max_record_size_in_kib: stream.max_record_kib,
                record_distribution_strategy: stream.distribution,
            },
        })
    }

    pub(crate) fn list_streams(
        &mut self,
        now: Timestamp,
        request: ListStreamsRequest,
    ) -> Result<ListStreamsResponse, ApiError> {
        let limit = ranged("limit", request.limit, 100, 1, 10_000)?;
        self.settle_all(now);
        let start = request.exclusive_start_stream_name;
        let after: Option<String> = match request.next_token.as_deref() {
            None => start,
            Some(token) => {
                check_alone(&[("ExclusiveStartStreamName", start.is_some())])?;
                Some(page_token::decode(LIST_STREAMS, now, token)?)
            }
        };
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut streams = self.streams.range::<String, _>((from, Bound::Unbounded));
        let stream_summaries: Vec<_> = streams
            .by_ref()
            .take(limit)
            .map(|(_, stream)| StreamSummary {
                stream_name: stream.name.clone(),
                stream_arn: stream.arn.clone(),
                stream_status: stream.status(),
                stream_mode_details: mode_details(stream),
                stream_creation_timestamp: EpochSeconds(stream.created),
            })
            .collect();
        let stream_names: Vec<_> =
            stream_summaries.iter().map(|summary| summary.stream_name.clone()).collect();
        let has_more_streams = streams.next().is_some();
        let last = stream_names.last().filter(|_| has_more_streams);
        let next_token = last.map(|last| page_token::encode(LIST_STREAMS, now, last));
        Ok(ListStreamsResponse { stream_names, has_more_streams, next_token, stream_summaries })
    }
}

fn enhanced_metrics(stream: &Stream) -> [EnhancedMetrics; 1] {
    [EnhancedMetrics { shard_level_metrics: stream.metrics.clone() }]
}

fn mode_details(stream: &Stream) -> StreamModeDetails {
    StreamModeDetails { stream_mode: stream.mode.as_str().into() }
}
