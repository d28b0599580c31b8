//! PutRecord and PutRecords.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::lifecycle::MAX_MAX_RECORD_KIB;
use super::mode::Distribution;
use super::sequence::SequenceNumber;
use super::shard::ShardId;
use super::stream::Stream;
use super::wire::{Base64, StreamRef, required};
use super::{ACCOUNT, Kinesis, Settings, hash_key};
use crate::clock::Timestamp;

const MAX_ENTRIES: usize = 500;
const MAX_REQUEST_BYTES: usize = 10 << 20;
const MAX_PARTITION_KEY_CHARS: usize = 256;

/// One record of a request, and a whole PutRecord.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryShape<'a> {
    data: Option<Base64>,
    #[serde(borrow)]
    partition_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    explicit_hash_key: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecordsRequest<'a> {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(borrow)]
    records: Option<Vec<EntryShape<'a>>>,
    dry_run: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecordRequest<'a> {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    data: Option<Base64>,
    #[serde(borrow)]
    partition_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    explicit_hash_key: Option<Cow<'a, str>>,
    sequence_number_for_ordering: Option<String>,
    dry_run: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecordResponse {
    shard_id: ShardId,
    sequence_number: SequenceNumber,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_type: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecordsResponse {
    failed_record_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_type: Option<&'static str>,
    pub(super) records: Vec<PutResult>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum PutResult {
    #[serde(rename_all = "PascalCase")]
    Put { sequence_number: SequenceNumber, shard_id: ShardId },
    #[serde(rename_all = "PascalCase")]
    Refused { error_code: Cow<'static, str>, error_message: String },
}

/// Records to put, checked as far as that needs no stream.
#[derive(Debug)]
pub(crate) struct Put {
    stream_name: Option<String>,
    stream_arn: Option<String>,
    entries: Vec<Entry>,
    /// The member that names the partition key of an entry that has none.
    missing_key: Option<String>,
    dry_run: bool,
}

#[derive(Debug)]
struct Entry {
    partition_key: Arc<str>,
    explicit_hash_key: Option<u128>,
    /// Zero where there is no key at all.
    hash_key: u128,
    data: Bytes,
}

impl Entry {
    fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// Entries that a fault refuses: their place in the request, and the error each gets.
pub(crate) type RefusedEntries = HashMap<usize, ApiError>;

impl TryFrom<PutRecordsRequest<'_>> for Put {
    type Error = ApiError;

    fn try_from(request: PutRecordsRequest<'_>) -> Result<Self, ApiError> {
        let records = required("records", request.records)?;
        if records.is_empty() || records.len() > MAX_ENTRIES {
            return Err(ApiError::constraint(
                "records",
                "Member must have length less than or equal to 500 and greater than or equal to 1",
            ));
        }
        let keyless = |entry: &EntryShape<'_>| entry.partition_key.is_none();
        let missing_key = records.iter().position(keyless);
        let missing_key = missing_key.map(|nth| format!("records.{}.member.partitionKey", nth + 1));
        let entries = records
            .into_iter()
            .enumerate()
            .map(|(nth, entry)| checked_entry(format_args!("records.{}.member.", nth + 1), entry));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        if entries.iter().map(Entry::size).sum::<usize>() > MAX_REQUEST_BYTES {
            return Err(ApiError::invalid_argument("Records size exceeds 10 MB limit"));
        }
        Ok(Self {
            stream_name: request.stream_name,
            stream_arn: request.stream_arn,
            entries,
            missing_key,
            dry_run: request.dry_run.unwrap_or(false),
        })
    }
}

impl TryFrom<PutRecordRequest<'_>> for Put {
    type Error = ApiError;

    fn try_from(request: PutRecordRequest<'_>) -> Result<Self, ApiError> {
        // Numbers rise with every record of a shard anyway: the one to rise above is only checked.
        if let Some(text) = &request.sequence_number_for_ordering {
            text.parse::<SequenceNumber>().map_err(|_| {
                ApiError::invalid_argument(format!(
                    "SequenceNumberForOrdering {text} is no sequence number"
                ))
            })?;
        }
        let entry = EntryShape {
            data: request.data,
            partition_key: request.partition_key,
            explicit_hash_key: request.explicit_hash_key,
        };
        let keyless = entry.partition_key.is_none();
        Ok(Self {
            stream_name: request.stream_name,
            stream_arn: request.stream_arn,
            entries: vec![checked_entry(format_args!(""), entry)?],
            missing_key: keyless.then(|| "partitionKey".to_owned()),
            dry_run: request.dry_run.unwrap_or(false),
        })
    }
}

fn checked_entry(
    prefix: std::fmt::Arguments<'_>,
    entry: EntryShape<'_>,
) -> Result<Entry, ApiError> {
    let field = |name: &str| format!("{prefix}{name}");
    let Some(Base64(data)) = entry.data else {
        return Err(ApiError::constraint(&field("data"), "Member must not be null"));
    };
    let partition_key = entry.partition_key.as_deref();
    let chars = |key: &str| match key.len() {
        short @ ..=MAX_PARTITION_KEY_CHARS => short,
        _ => key.chars().count(),
    };
    let chars = partition_key.map(chars);
    if chars.is_some_and(|chars| chars == 0 || chars > MAX_PARTITION_KEY_CHARS) {
        return Err(ApiError::constraint(
            &field("partitionKey"),
            "Member must have length less than or equal to 256 and greater than or equal to 1",
        ));
    }
    if data.len() > MAX_MAX_RECORD_KIB * 1024 {
        return Err(ApiError::constraint(
            &field("data"),
            "Member must have length less than or equal to 10485760",
        ));
    }
    let explicit_hash_key = entry
        .explicit_hash_key
        .map(|text| hash_key::parse("ExplicitHashKey", &text))
        .transpose()?;
    Ok(Entry {
        hash_key: explicit_hash_key
            .or_else(|| partition_key.map(hash_key::of_partition_key))
            .unwrap_or(0),
        partition_key: partition_key.unwrap_or_default().into(),
        explicit_hash_key,
        data,
    })
}

impl Kinesis {
    pub(crate) fn put_record(
        &mut self,
        now: Timestamp,
        put: Put,
    ) -> Result<PutRecordResponse, ApiError> {
        let bounds = Bounds::of(&self.settings);
        let (stream, entries) = self.checked_put(now, put)?;
        let encryption_type = stream.encryption_type();
        let mut response = Err(ApiError::validation("a record is missing"));
        for entry in entries {
            response = append(stream, now, bounds, entry);
        }
        response.map(|(shard_id, sequence_number)| PutRecordResponse {
            shard_id,
            sequence_number,
            encryption_type,
        })
    }

    pub(crate) fn put_records(
        &mut self,
        now: Timestamp,
        put: Put,
        mut refused: RefusedEntries,
    ) -> Result<PutRecordsResponse, ApiError> {
        let bounds = Bounds::of(&self.settings);
        let (stream, entries) = self.checked_put(now, put)?;
        let encryption_type = stream.encryption_type();
        let mut failed_record_count = 0;
        let records = entries.into_iter().enumerate().map(|(nth, entry)| {
            let result = match refused.remove(&nth) {
                Some(refusal) => Err(refusal),
                None => append(stream, now, bounds, entry),
            };
            result.map_or_else(
                |ApiError { code, message }| {
                    failed_record_count += 1;
                    PutResult::Refused { error_code: code, error_message: message }
                },
                |(shard_id, sequence_number)| PutResult::Put { sequence_number, shard_id },
            )
        });
        let records = records.collect();
        Ok(PutRecordsResponse { failed_record_count, encryption_type, records })
    }

    /// The stream, once every record fits it; a dry run ends here.
    fn checked_put(
        &mut self,
        now: Timestamp,
        put: Put,
    ) -> Result<(&mut Stream, Vec<Entry>), ApiError> {
        let Put { stream_name, stream_arn, entries, missing_key, dry_run } = put;
        let stream_ref = StreamRef { name: stream_name.as_deref(), arn: stream_arn.as_deref() };
        let stream = self.serving(now, stream_ref)?;
        if let Some(member) = missing_key
            && stream.distribution == Distribution::UserPartitionKey
        {
            return Err(ApiError::constraint(&member, "Member must not be null"));
        }
        let max = stream.max_record_kib * 1024;
        if let Some(entry) = entries.iter().find(|entry| entry.size() > max) {
            return Err(ApiError::invalid_argument(format!(
                "A record of {} bytes, partition key included, exceeds the maximum record size of \
                 {max} bytes of stream {}",
                entry.size(),
                stream.name
            )));
        }
        if dry_run {
            return Err(ApiError::new(
                "DryRunOperationException",
                "The request would have succeeded, but DryRun was set.",
            ));
        }
        Ok((stream, entries))
    }
}

/// What bounds a shard.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    limited: bool,
    keep_expired: bool,
    capacity: Option<usize>,
}

impl Bounds {
    fn of(settings: &Settings) -> Self {
        Self {
            limited: settings.shard_limits,
            keep_expired: settings.keep_expired,
            capacity: settings.shard_capacity,
        }
    }
}

fn append(
    stream: &mut Stream,
    now: Timestamp,
    bounds: Bounds,
    entry: Entry,
) -> Result<(ShardId, SequenceNumber), ApiError> {
    let horizon = stream.horizon(now);
    let id = stream.place(entry.hash_key);
    let encrypted = stream.encryption_type().is_some();
    let size = entry.size();
    let shard = stream.shard_mut(id);
    if bounds.limited && !shard.limits.admit_write(now, size) {
        return Err(ApiError::throughput_exceeded(format!(
            "Rate exceeded for shard {id} in stream {} under account {ACCOUNT}.",
            stream.name
        )));
    }
    if !bounds.keep_expired {
        shard.free_before(horizon);
    }
    let Entry { partition_key, explicit_hash_key, data, .. } = entry;
    let number = shard.append(now, partition_key, explicit_hash_key, data, encrypted);
    if let Some(capacity) = bounds.capacity {
        shard.free_above(capacity);
    }
    Ok((id, number))
}
