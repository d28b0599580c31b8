//! Dead letters in a Kinesis stream.

use std::fmt;

use aws_sdk_kinesis::Client;
use aws_types::SdkConfig;
use kinesis_aggregation::HashKey;
use kinesis_common::stream_name::StreamName;

use super::letter::DeadLetter;
use super::put::{DEFAULT_MAX_RECORD_BYTES, Entry, put, put_client};
use super::sink::{DeadLetterSink, SinkError};

/// Sink that puts each letter into another Kinesis stream, as [`DeadLetter::to_json`] writes it.
///
/// The letter has the partition key of its record, so letters of a key are in one shard. A letter of a record without a
/// key has one that is made of its position. A record that fails is put again within the write, with pauses, up to six
/// times. Read the letters with a normal consumer and [`DeadLetter::from_json`].
///
/// It needs the permission `kinesis:PutRecords`. Each attempt may take 30 s.
#[derive(Clone)]
pub struct KinesisSink {
    client: Client,
    stream: StreamName,
    max_record_bytes: usize,
}

impl KinesisSink {
    /// Creates a sink that puts into `stream`, a name or an ARN. It must not be the stream that the worker reads.
    ///
    /// # Errors
    /// [`SinkError::Invalid`]: the text is no name or ARN of a stream.
    pub fn new(stream: impl AsRef<str>, sdk_config: &SdkConfig) -> Result<Self, SinkError> {
        let region = sdk_config.region().map(AsRef::as_ref);
        let stream = StreamName::parse(stream.as_ref(), region)
            .map_err(|problem| SinkError::Invalid { problem: format!("the stream {problem}") })?;
        let client = put_client(sdk_config);
        Ok(Self { client, stream, max_record_bytes: DEFAULT_MAX_RECORD_BYTES })
    }

    /// Sets the largest size of a record of the stream, in bytes. Default: 1 MiB. A larger letter is written by
    /// reference.
    ///
    /// Raise it if the stream was given a larger one (`UpdateMaxRecordSize`), which may be up to 10 MiB.
    #[must_use]
    pub fn with_max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    fn entry(&self, letter: &DeadLetter) -> Result<Entry, SinkError> {
        let partition_key = key_of(letter);
        let limit = self.max_record_bytes.saturating_sub(partition_key.len());
        let data = letter.to_json_within(limit);
        if data.len() > limit {
            return Err(SinkError::TooLarge { size: data.len(), limit });
        }
        Ok(Entry { partition_key, explicit_hash_key: None, data: data.into() })
    }
}

/// The partition key of the record, or one that spreads records without a key.
pub(super) fn key_of(letter: &DeadLetter) -> String {
    match &letter.partition_key {
        Some(key) if !key.is_empty() => key.clone(),
        _ => format!("{:032x}", HashKey::of_partition_key(&letter.idempotency_key()).get()),
    }
}

impl DeadLetterSink for KinesisSink {
    type Error = SinkError;

    async fn write(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        let entries: Result<Vec<_>, _> = letters.iter().map(|letter| self.entry(letter)).collect();
        let entries = entries?;
        let failed = put(&self.client, &self.stream, &entries).await;
        match failed.into_iter().next_back() {
            None => Ok(()),
            Some((_, cause)) => {
                Err(SinkError::Call { call: "PutRecords", target: self.stream.to_string(), cause })
            }
        }
    }
}

impl fmt::Debug for KinesisSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KinesisSink")
            .field("stream", &self.stream.as_str())
            .field("max_record_bytes", &self.max_record_bytes)
            .finish_non_exhaustive()
    }
}
