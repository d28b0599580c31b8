//! SplitShard, MergeShards, UpdateShardCount: the checks; what they do is in `reshard`.

use serde::Serialize;

use super::error::ApiError;
use super::hash_key;
use super::lifecycle::{SHARD_QUOTA, checked_shard_count};
use super::stream::{Change, Stream, StreamMode};
use super::wire::{
    Done, MergeShardsRequest, NamesStream, SplitShardRequest, UpdateShardCountRequest, required,
};
use super::{ACCOUNT, Kinesis};
use crate::clock::Timestamp;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateShardCountResponse {
    stream_name: String,
    current_shard_count: usize,
    target_shard_count: u32,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
}

impl Kinesis {
    pub(crate) fn split_shard(
        &mut self,
        now: Timestamp,
        request: SplitShardRequest,
    ) -> Result<Done, ApiError> {
        let transition = self.settings.transition;
        let start = required("newStartingHashKey", request.new_starting_hash_key.as_deref())?;
        let at = hash_key::parse("NewStartingHashKey", start)?;
        let shard = required("shardToSplit", request.shard_to_split.as_deref())?;
        let stream = self.scalable(now, &request)?;
        let shard = stream.find_shard(now, shard)?;
        stream.check_split(shard, at)?;
        if stream.open.len() >= SHARD_QUOTA {
            return Err(ApiError::limit_exceeded(format!(
                "a split would exceed the limit of {SHARD_QUOTA} shards"
            )));
        }
        stream.begin(now, transition, Change::Split { shard, at });
        Ok(Done {})
    }

    pub(crate) fn merge_shards(
        &mut self,
        now: Timestamp,
        request: MergeShardsRequest,
    ) -> Result<Done, ApiError> {
        let transition = self.settings.transition;
        let shard = required("shardToMerge", request.shard_to_merge.as_deref())?;
        let adjacent = request.adjacent_shard_to_merge.as_deref();
        let adjacent = required("adjacentShardToMerge", adjacent)?;
        let stream = self.scalable(now, &request)?;
        let shard = stream.find_shard(now, shard)?;
        let adjacent = stream.find_shard(now, adjacent)?;
        stream.check_merge(shard, adjacent)?;
        stream.begin(now, transition, Change::Merge { shard, adjacent });
        Ok(Done {})
    }

    pub(crate) fn update_shard_count(
        &mut self,
        now: Timestamp,
        request: UpdateShardCountRequest,
    ) -> Result<UpdateShardCountResponse, ApiError> {
        let transition = self.settings.transition;
        let target = checked_shard_count("targetShardCount", request.target_shard_count)?;
        if required("scalingType", request.scaling_type.as_deref())? != "UNIFORM_SCALING" {
            return Err(ApiError::constraint(
                "scalingType",
                "Member must satisfy enum value set: [UNIFORM_SCALING]",
            ));
        }
        let stream = self.scalable(now, &request)?;
        let current = stream.open.len();
        let wanted = target as usize;
        if wanted > current * 2 || wanted * 2 < current {
            return Err(ApiError::invalid_argument(format!(
                "UpdateShardCount of stream {} under account {ACCOUNT} can go from {current} shards \
                 to no fewer than half of them and no more than twice as many, not to {target}.",
                stream.name
            )));
        }
        stream.begin(now, transition, Change::UpdateShardCount { target });
        Ok(UpdateShardCountResponse {
            stream_name: stream.name.clone(),
            current_shard_count: current,
            target_shard_count: target,
            stream_arn: stream.arn.clone(),
        })
    }

    /// The active stream, which must be one whose shards users manage.
    fn scalable(
        &mut self,
        now: Timestamp,
        request: &impl NamesStream,
    ) -> Result<&mut Stream, ApiError> {
        let stream = self.active(now, request.stream())?;
        match stream.mode {
            StreamMode::Provisioned => Ok(stream),
            StreamMode::OnDemand => Err(ApiError::validation(format!(
                "Stream {} is in ON_DEMAND mode: its shards cannot be changed by request.",
                stream.name
            ))),
        }
    }
}
