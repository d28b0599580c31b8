//! PutRecords with its own retries: each record is in the stream at the end, or has an error.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::StalledStreamProtectionConfig;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::error::ProvideErrorMetadata as _;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use aws_types::SdkConfig;
use bytes::Bytes;
use kinesis_aggregation::HashKey;
use kinesis_common::client::behavior_version;
use kinesis_common::error_text::{Request, error_text, safe_message};
use kinesis_common::stream_name::StreamName;

use super::batches::{
    ATTEMPT_TIMEOUT, Batches, CONNECT_TIMEOUT, Failure, Limits, is_retryable, send_all,
};

/// Limits of PutRecords. A record over the default size may be refused, and the whole request with it.
const LIMITS: Limits =
    Limits { entries: 500, bytes: 10 << 20, alone_over: DEFAULT_MAX_RECORD_BYTES };
/// Default of the largest size of a record, with its key, in bytes. A stream may allow more, up to 10 MiB.
pub(super) const DEFAULT_MAX_RECORD_BYTES: usize = 1 << 20;
/// A record to put.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) partition_key: String,
    pub(super) explicit_hash_key: Option<HashKey>,
    pub(super) data: Bytes,
}

impl Entry {
    fn to_request(&self) -> PutRecordsRequestEntry {
        let entry = PutRecordsRequestEntry::builder()
            .partition_key(&self.partition_key)
            .set_explicit_hash_key(self.explicit_hash_key.map(|key| key.to_string()))
            .data(Blob::from_maybe_shared(self.data.clone()));
        entry.build().expect("the entry has data")
    }
}

/// The client for [`put`], which retries itself.
pub(super) fn put_client(sdk_config: &SdkConfig) -> Client {
    let config = client_config(sdk_config).retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

/// What all clients of this module have: a time limit of each attempt.
pub(super) fn client_config(sdk_config: &SdkConfig) -> aws_sdk_kinesis::config::Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT);
    aws_sdk_kinesis::config::Builder::from(sdk_config)
        .behavior_version(behavior_version())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts.build())
}

/// Puts the records, and puts those again that failed. Returns the last error of each record that is not in the stream,
/// by its index.
///
/// # Cancel safety
/// Any part of the records may be in the stream.
pub(super) async fn put(
    client: &Client,
    stream: &StreamName,
    entries: &[Entry],
) -> Vec<(usize, String)> {
    send_all(&Puts { client, stream, entries }).await
}

struct Puts<'a> {
    client: &'a Client,
    stream: &'a StreamName,
    entries: &'a [Entry],
}

impl Batches for Puts<'_> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn size(&self, index: usize) -> usize {
        let entry = &self.entries[index];
        entry.partition_key.len() + entry.data.len()
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    async fn send(&self, request: &[usize]) -> Vec<Failure> {
        let records = request.iter().map(|index| self.entries[*index].to_request()).collect();
        let call = self
            .client
            .put_records()
            .set_stream_name(self.stream.name())
            .set_stream_arn(self.stream.arn())
            .set_records(Some(records));
        match call.send().await {
            Ok(output) => failures_of(request, &output),
            Err(error) => {
                let text = error_text(&error, Request::WithRecords);
                let is_retryable = is_retryable(error.code());
                let failure =
                    |index: &usize| Failure { index: *index, text: text.clone(), is_retryable };
                request.iter().map(failure).collect()
            }
        }
    }
}

fn failures_of(request: &[usize], output: &PutRecordsOutput) -> Vec<Failure> {
    let results = output.records();
    let failure = |(place, index): (usize, &usize)| {
        let Some(result) = results.get(place) else {
            let text = "the answer has no result of the record".to_owned();
            return Some(Failure { index: *index, text, is_retryable: true });
        };
        let code = result.error_code()?;
        let message = result.error_message().unwrap_or_default();
        let text = format!("{code}: {}", safe_message(code, message, Request::WithRecords));
        Some(Failure { index: *index, text, is_retryable: is_retryable(Some(code)) })
    };
    request.iter().enumerate().filter_map(failure).collect()
}
