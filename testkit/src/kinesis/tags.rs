//! Tags of streams and consumers.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::Kinesis;
use super::error::ApiError;
use super::wire::{Done, NamesStream, StreamRef, ranged, required, stream_requests};
use crate::clock::Timestamp;

/// Most tags one stream or consumer may have.
const MAX_TAGS: usize = 50;

/// The tags of one resource, in the order of their keys.
pub(crate) type Tags = BTreeMap<String, String>;

stream_requests! {
    AddTagsRequest { tags: Tags }
    RemoveTagsRequest { tag_keys: Vec<String> }
    ListTagsRequest { exclusive_start_tag_key: String, limit: i64 }
}

/// TagResource, UntagResource and ListTagsForResource: each reads its own members.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ResourceTagsRequest {
    #[serde(rename = "ResourceARN")]
    resource_arn: Option<String>,
    tags: Option<Tags>,
    tag_keys: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StreamTagsResponse {
    tags: Vec<Tag>,
    has_more_tags: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ResourceTagsResponse {
    tags: Vec<Tag>,
}

impl Kinesis {
    pub(crate) fn add_tags_to_stream(
        &mut self,
        now: Timestamp,
        request: AddTagsRequest,
    ) -> Result<Done, ApiError> {
        let tags = checked_tags(request.tags.as_ref())?;
        add(&mut self.stream(now, request.stream())?.tags, tags)
    }

    pub(crate) fn remove_tags_from_stream(
        &mut self,
        now: Timestamp,
        request: RemoveTagsRequest,
    ) -> Result<Done, ApiError> {
        let keys = checked_keys(request.tag_keys.as_deref())?;
        Ok(remove(&mut self.stream(now, request.stream())?.tags, keys))
    }

    pub(crate) fn list_tags_for_stream(
        &mut self,
        now: Timestamp,
        request: ListTagsRequest,
    ) -> Result<StreamTagsResponse, ApiError> {
        let limit = ranged("limit", request.limit, MAX_TAGS, 1, MAX_TAGS)?;
        let after = request.exclusive_start_tag_key.as_ref();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tags = &self.stream(now, request.stream())?.tags;
        let mut rest = tags.range::<String, _>((from, Bound::Unbounded));
        let tags = rest.by_ref().take(limit).map(Tag::from).collect();
        Ok(StreamTagsResponse { tags, has_more_tags: rest.next().is_some() })
    }

    pub(crate) fn tag_resource(
        &mut self,
        now: Timestamp,
        request: ResourceTagsRequest,
    ) -> Result<Done, ApiError> {
        let tags = checked_tags(request.tags.as_ref())?;
        add(self.tags_of(now, request.resource_arn.as_deref())?, tags)
    }

    pub(crate) fn untag_resource(
        &mut self,
        now: Timestamp,
        request: ResourceTagsRequest,
    ) -> Result<Done, ApiError> {
        let keys = checked_keys(request.tag_keys.as_deref())?;
        let tags = self.tags_of(now, request.resource_arn.as_deref())?;
        Ok(remove(tags, keys))
    }

    pub(crate) fn list_tags_for_resource(
        &mut self,
        now: Timestamp,
        request: ResourceTagsRequest,
    ) -> Result<ResourceTagsResponse, ApiError> {
        let tags = self.tags_of(now, request.resource_arn.as_deref())?;
        let tags = tags.iter().map(Tag::from).collect();
        Ok(ResourceTagsResponse { tags })
    }

    /// The tags of the stream or the consumer with this ARN.
    fn tags_of(&mut self, now: Timestamp, arn: Option<&str>) -> Result<&mut Tags, ApiError> {
        let arn = required("resourceARN", arn)?;
        if arn.contains("/consumer/") {
            return Ok(&mut self.consumer_by_arn(now, arn)?.1.tags);
        }
        let stream = StreamRef { name: None, arn: Some(arn) };
        Ok(&mut self.stream(now, stream)?.tags)
    }
}

impl From<(&String, &String)> for Tag {
    fn from((key, value): (&String, &String)) -> Self {
        Self { key: key.clone(), value: value.clone() }
    }
}

/// The tags of a request that must have some.
fn checked_tags(tags: Option<&Tags>) -> Result<&Tags, ApiError> {
    let tags = required("tags", tags)?;
    if tags.is_empty() {
        return Err(ApiError::constraint(
            "tags",
            "Member must have length greater than or equal to 1",
        ));
    }
    check_tags(tags)?;
    Ok(tags)
}

/// Whether a resource may have these tags.
pub(crate) fn check_tags(tags: &Tags) -> Result<(), ApiError> {
    for (key, value) in tags {
        check_key(key)?;
        if value.chars().count() > 256 {
            return Err(ApiError::constraint(
                "tags",
                "Map value must satisfy constraint: Member must have length less than or equal to 256",
            ));
        }
        if !key.chars().chain(value.chars()).all(is_allowed) {
            return Err(ApiError::invalid_argument(
                "Some tags contain invalid characters. Valid characters: Unicode letters, digits, \
                 white space, _ . / = + - % @ :",
            ));
        }
    }
    check_count(tags)
}

fn checked_keys(keys: Option<&[String]>) -> Result<&[String], ApiError> {
    let keys = required("tagKeys", keys)?;
    if keys.is_empty() || keys.len() > MAX_TAGS {
        return Err(ApiError::constraint(
            "tagKeys",
            "Member must have length less than or equal to 50 and greater than or equal to 1",
        ));
    }
    keys.iter().try_for_each(|key| check_key(key))?;
    Ok(keys)
}

fn check_key(key: &str) -> Result<(), ApiError> {
    if key.is_empty() || key.chars().count() > 128 {
        return Err(ApiError::constraint(
            "tags",
            "Map keys must satisfy constraint: Member must have length less than or equal to 128 \
             and greater than or equal to 1",
        ));
    }
    Ok(())
}

fn is_allowed(char: char) -> bool {
    char.is_alphanumeric() || char.is_whitespace() || "_./=+-%@:".contains(char)
}

fn check_count(tags: &Tags) -> Result<(), ApiError> {
    if tags.len() > MAX_TAGS {
        return Err(ApiError::invalid_argument(format!(
            "A resource cannot have more than {MAX_TAGS} tags."
        )));
    }
    Ok(())
}

/// Adds all of them, or none if that were too many.
fn add(to: &mut Tags, tags: &Tags) -> Result<Done, ApiError> {
    let mut all = to.clone();
    all.extend(tags.clone());
    check_count(&all)?;
    *to = all;
    Ok(Done {})
}

fn remove(from: &mut Tags, keys: &[String]) -> Done {
    for key in keys {
        from.remove(key);
    }
    Done {}
}
