//! Dead letters in Amazon SQS.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::StalledStreamProtectionConfig;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry,
};
use aws_types::SdkConfig;
use kinesis_aggregation::HashKey;
use kinesis_common::client::behavior_version;
use kinesis_common::error_text::{Request, error_text, safe_message};

use super::batches::{
    ATTEMPT_TIMEOUT, Batches, CONNECT_TIMEOUT, Failure, Limits, is_retryable, send_all,
};
use super::letter::DeadLetter;
use super::sink::{DeadLetterSink, SinkError};
use super::source::{DeadLetterSource, StoredLetter};

/// Largest size of a message, and of all messages of a call, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Largest number of messages of a call.
const MAX_MESSAGES: usize = 10;
const DEFAULT_VISIBILITY: Duration = Duration::from_secs(300);
/// Time that a receive waits for messages, in seconds. Without it, SQS asks a part of its servers only.
const RECEIVE_WAIT: i32 = 5;
const READ_ATTEMPTS: u32 = 5;

/// Sink that sends each letter to an SQS queue, as [`DeadLetter::to_json`] writes it.
///
/// A message that fails is sent again within the write, with pauses, up to six times. Each attempt may take 30 s. It
/// needs the permission `sqs:SendMessage`, and `kms:GenerateDataKey` if the queue is encrypted with a key of yours.
///
/// In a FIFO queue, letters of a partition key in a shard keep their order, and a letter that is written again within
/// five minutes is dropped by the queue. Group and deduplication ids are hashes and hold no key.
///
/// SQS deletes messages after the retention period of the queue: at most 14 days, 4 days by default.
#[derive(Clone)]
pub struct SqsSink {
    client: Client,
    queue_url: String,
    max_message_bytes: usize,
}

impl SqsSink {
    /// Creates a sink that sends to the queue with this URL.
    pub fn new(queue_url: impl Into<String>, sdk_config: &SdkConfig) -> Self {
        let client = client(sdk_config, RetryConfig::disabled());
        Self { client, queue_url: queue_url.into(), max_message_bytes: MAX_BYTES }
    }

    /// Sets the largest size of a message, in bytes, up to 1 MiB. Default: 1 MiB. A larger letter is written by
    /// reference.
    ///
    /// Set it to the `MaximumMessageSize` of the queue if that is less.
    #[must_use]
    pub fn with_max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes.min(MAX_BYTES);
        self
    }

    fn message(&self, letter: &DeadLetter) -> Result<Message, SinkError> {
        let limit = self.max_message_bytes;
        let body = allowed(letter.to_json_within(limit));
        // The text grows if it held characters that SQS does not allow.
        let body = if body.len() > limit {
            allowed(letter.to_json_within(limit.saturating_sub(body.len() - limit)))
        } else {
            body
        };
        if body.len() > limit {
            return Err(SinkError::TooLarge { size: body.len(), limit });
        }
        let fifo = self.queue_url.ends_with(".fifo").then(|| {
            let key = letter.partition_key.as_deref().unwrap_or_default();
            [hash(&format!("{}:{key}", letter.shard_id)), hash(&letter.idempotency_key())]
        });
        Ok(Message { body, fifo })
    }
}

impl DeadLetterSink for SqsSink {
    type Error = SinkError;

    async fn write(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        let messages: Result<_, _> = letters.iter().map(|letter| self.message(letter)).collect();
        let messages = messages?;
        let sends = Sends { client: &self.client, queue_url: &self.queue_url, messages };
        let failed = send_all(&sends).await;
        match failed.into_iter().next_back() {
            None => Ok(()),
            Some((_, cause)) => Err(failed_call("SendMessageBatch", &self.queue_url, cause)),
        }
    }
}

impl fmt::Debug for SqsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsSink")
            .field("queue_url", &self.queue_url)
            .field("max_message_bytes", &self.max_message_bytes)
            .finish_non_exhaustive()
    }
}

/// The letters in an SQS queue, for a [`Redrive`](crate::Redrive). Letters that are redriven are deleted.
///
/// A letter that stays is hidden until its [visibility timeout](Self::with_visibility_timeout) ends. Each receive waits
/// up to 5 s, and the queue counts as empty when one returns nothing. Messages that are no letters stay, too. It needs
/// the permissions `sqs:ReceiveMessage` and `sqs:DeleteMessage`.
pub struct SqsSource {
    client: Client,
    queue_url: String,
    visibility: Duration,
    /// Receipt handles of the last read, by message id.
    receipts: HashMap<String, String>,
}

impl SqsSource {
    /// Creates a source of the letters in the queue with this URL.
    pub fn new(queue_url: impl Into<String>, sdk_config: &SdkConfig) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(READ_ATTEMPTS);
        Self {
            client: client(sdk_config, retries),
            queue_url: queue_url.into(),
            visibility: DEFAULT_VISIBILITY,
            receipts: HashMap::new(),
        }
    }

    /// Sets the time for which letters that were read are hidden, in whole seconds, up to 12 hours. Default: 5 minutes.
    /// Make it longer than the redrive of ten letters takes, or letters are redriven twice.
    #[must_use]
    pub fn with_visibility_timeout(mut self, visibility: Duration) -> Self {
        self.visibility = visibility;
        self
    }
}

impl DeadLetterSource for SqsSource {
    type Error = SinkError;

    async fn read(&mut self) -> Result<Vec<StoredLetter>, SinkError> {
        let visibility = i32::try_from(self.visibility.as_secs()).unwrap_or(i32::MAX);
        let received = self
            .client
            .receive_message()
            .queue_url(&self.queue_url)
            .max_number_of_messages(MAX_MESSAGES as i32)
            .visibility_timeout(visibility)
            .wait_time_seconds(RECEIVE_WAIT)
            .send()
            .await
            .map_err(|error| failed_call("ReceiveMessage", &self.queue_url, text_of(&error)))?;
        self.receipts.clear();
        let mut letters = Vec::new();
        for message in received.messages.unwrap_or_default() {
            let (Some(id), Some(receipt)) = (message.message_id, message.receipt_handle) else {
                continue;
            };
            let body = message.body.unwrap_or_default();
            letters.push(StoredLetter::from_json(&id, body.as_bytes()));
            self.receipts.insert(id, receipt);
        }
        Ok(letters)
    }

    async fn remove(&mut self, ids: &[String]) -> Result<(), SinkError> {
        let receipts = ids.iter().filter_map(|id| self.receipts.remove(id)).collect();
        let deletes = Deletes { client: &self.client, queue_url: &self.queue_url, receipts };
        let failed = send_all(&deletes).await;
        match failed.into_iter().next_back() {
            None => Ok(()),
            Some((_, cause)) => Err(failed_call("DeleteMessageBatch", &self.queue_url, cause)),
        }
    }
}

impl fmt::Debug for SqsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsSource")
            .field("queue_url", &self.queue_url)
            .field("visibility", &self.visibility)
            .finish_non_exhaustive()
    }
}

struct Message {
    body: String,
    /// Group and deduplication id, in a FIFO queue.
    fifo: Option<[String; 2]>,
}

struct Sends<'a> {
    client: &'a Client,
    queue_url: &'a str,
    messages: Vec<Message>,
}

impl Batches for Sends<'_> {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn size(&self, index: usize) -> usize {
        self.messages[index].body.len()
    }

    fn limits(&self) -> Limits {
        Limits { entries: MAX_MESSAGES, bytes: MAX_BYTES, alone_over: MAX_BYTES }
    }

    async fn send(&self, request: &[usize]) -> Vec<Failure> {
        let entry = |(place, index): (usize, &usize)| {
            let message = &self.messages[*index];
            let [group, deduplication] = match &message.fifo {
                Some(ids) => ids.clone().map(Some),
                None => [None, None],
            };
            let entry = SendMessageBatchRequestEntry::builder()
                .id(place.to_string())
                .message_body(&message.body)
                .set_message_group_id(group)
                .set_message_deduplication_id(deduplication);
            entry.build().expect("the entry has an id and a body")
        };
        let entries = request.iter().enumerate().map(entry).collect();
        let call = self.client.send_message_batch().queue_url(self.queue_url);
        match call.set_entries(Some(entries)).send().await {
            Ok(output) => {
                let accepted = output.successful().iter().map(|entry| entry.id());
                failures_of(request, accepted, output.failed())
            }
            Err(error) => all_failed(request, &error),
        }
    }
}

struct Deletes<'a> {
    client: &'a Client,
    queue_url: &'a str,
    receipts: Vec<String>,
}

impl Batches for Deletes<'_> {
    fn len(&self) -> usize {
        self.receipts.len()
    }

    fn size(&self, index: usize) -> usize {
        self.receipts[index].len()
    }

    fn limits(&self) -> Limits {
        Limits { entries: MAX_MESSAGES, bytes: MAX_BYTES, alone_over: MAX_BYTES }
    }

    async fn send(&self, request: &[usize]) -> Vec<Failure> {
        let entry = |(place, index): (usize, &usize)| {
            let entry = DeleteMessageBatchRequestEntry::builder()
                .id(place.to_string())
                .receipt_handle(&self.receipts[*index]);
            entry.build().expect("the entry has an id and a receipt handle")
        };
        let entries = request.iter().enumerate().map(entry).collect();
        let call = self.client.delete_message_batch().queue_url(self.queue_url);
        match call.set_entries(Some(entries)).send().await {
            Ok(output) => {
                let accepted = output.successful().iter().map(|entry| entry.id());
                failures_of(request, accepted, output.failed())
            }
            Err(error) => all_failed(request, &error),
        }
    }
}

/// The entries that were not accepted. An entry that the answer does not name counts as failed, because a letter must
/// not be lost.
fn failures_of<'a>(
    request: &[usize],
    accepted: impl Iterator<Item = &'a str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Failure> {
    let accepted: Vec<_> = accepted.collect();
    let failure = |(place, index): (usize, &usize)| {
        let place = place.to_string();
        if accepted.contains(&&place[..]) {
            return None;
        }
        let (text, is_retryable) = match failed.iter().find(|entry| entry.id() == place) {
            Some(entry) => {
                let message = entry.message().unwrap_or_default();
                let message = safe_message(entry.code(), message, Request::WithRecords);
                (format!("{}: {message}", entry.code()), !entry.sender_fault())
            }
            None => ("the answer has no result of the message".to_owned(), true),
        };
        Some(Failure { index: *index, text, is_retryable })
    };
    request.iter().enumerate().filter_map(failure).collect()
}

fn all_failed<E>(request: &[usize], error: &SdkError<E, HttpResponse>) -> Vec<Failure>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (text, is_retryable) = (text_of(error), is_retryable(error.code()));
    let failure = |index: &usize| Failure { index: *index, text: text.clone(), is_retryable };
    request.iter().map(failure).collect()
}

fn text_of<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    error_text(error, Request::WithRecords)
}

fn failed_call(call: &'static str, queue_url: &str, cause: String) -> SinkError {
    SinkError::Call { call, target: queue_url.to_owned(), cause }
}

fn client(sdk_config: &SdkConfig, retries: RetryConfig) -> Client {
    // A receive waits that much longer for its answer.
    let attempt = ATTEMPT_TIMEOUT + Duration::from_secs(RECEIVE_WAIT as u64);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt);
    let config = aws_sdk_sqs::config::Builder::from(sdk_config)
        .behavior_version(behavior_version())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts.build())
        .retry_config(retries);
    Client::from_conf(config.build())
}

/// Escapes the two characters that JSON allows in a string, and SQS in no message.
fn allowed(json: String) -> String {
    if !json.contains(['\u{fffe}', '\u{ffff}']) {
        return json;
    }
    json.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
}

/// A hash as text, within the limits of the ids of a FIFO queue.
fn hash(text: &str) -> String {
    format!("{:032x}", HashKey::of_partition_key(text).get())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::sequence::ExtendedSequenceNumber;

    fn sink(queue: &str) -> SqsSink {
        SqsSink::new(queue, &SdkConfig::builder().build())
    }

    fn letter(payload: usize) -> DeadLetter {
        let position = ExtendedSequenceNumber::new("42".parse().unwrap(), 0);
        let payload = vec![7; payload];
        DeadLetter::new("app", "orders", "shardId-0", position, payload, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn ids_of_a_fifo_queue_depend_on_the_key_and_the_record_alone() {
        let fifo = sink("https://sqs/1/letters.fifo");
        let mut letter = letter(1);
        letter.partition_key = Some("k".repeat(256));
        let [group, deduplication] = fifo.message(&letter).unwrap().fifo.unwrap();
        letter.worker_id = "another".into();
        letter.position.sub_sequence_number = 1;
        let [same_group, other] = fifo.message(&letter).unwrap().fifo.unwrap();
        assert_eq!(group, same_group);
        assert_ne!(deduplication, other);
        for id in [&group, &deduplication] {
            assert!(id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        }
        assert_eq!(sink("https://sqs/1/letters").message(&letter).unwrap().fifo, None);
    }

    #[test]
    fn a_message_has_at_most_its_limit() {
        let large = sink("q").message(&letter(1 << 20)).unwrap();
        assert!(large.body.contains("\"payloadOmitted\":true"));
        let small = sink("q").with_max_message_bytes(2048).message(&letter(2048)).unwrap();
        assert!(small.body.len() <= 2048);
        let error = sink("q").with_max_message_bytes(10).message(&letter(1)).err().unwrap();
        assert!(matches!(error, SinkError::TooLarge { limit: 10, .. }), "{error}");
    }

    #[test]
    fn characters_that_sqs_refuses_are_escaped() {
        let mut letter = letter(1);
        letter.partition_key = Some("a\u{ffff}\u{0}\u{7f}".into());
        letter.error = "\u{fffe}".repeat(10_000);
        let body = sink("q").with_max_message_bytes(32 << 10).message(&letter).unwrap().body;
        let refused = |c: char| c < ' ' || c == '\u{fffe}' || c == '\u{ffff}';
        assert!(!body.contains(refused) && body.len() <= 32 << 10, "{}", body.len());
        let read = DeadLetter::from_json(body.as_bytes()).unwrap();
        assert_eq!(read.partition_key, letter.partition_key);
        assert!(letter.error.starts_with(&read.error));
    }

    #[test]
    fn an_entry_without_a_result_counts_as_failed() {
        let failed = [
            BatchResultErrorEntry::builder().id("1").code("InternalError").sender_fault(false),
            BatchResultErrorEntry::builder()
                .id("2")
                .code("InvalidParameterValue")
                .sender_fault(true),
        ];
        let failed = failed.map(|entry| entry.build().unwrap());
        let failures = failures_of(&[10, 11, 12, 13], ["0"].into_iter(), &failed);
        let failures: Vec<_> = failures.iter().map(|f| (f.index, f.is_retryable)).collect();
        assert_eq!(failures, [(11, true), (12, false), (13, true)]);
    }
}
