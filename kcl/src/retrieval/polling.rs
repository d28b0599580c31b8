//! GetShardIterator and GetRecords.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::types::{ShardIteratorType, StreamStatus};
use aws_smithy_types::DateTime;
use fastrand::Rng;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::budget::ShardBudget;
use super::client::client_for_reads;
use super::pacing::Pacer;
use super::page::{Answer, Page};
use super::page_size::PageSize;
use super::position::Position;
use super::source::{Retrieval, RetrievalError, ShardReader, Start};
use super::verdict::Verdict;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::ConsumerConfig;
use crate::health::ProblemKind;
use crate::metrics::Metric;
use crate::snapshot::ShardStatus;
use crate::stream_name::StreamName;

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// So many failures in a row are an error, not a warning.
const LOUD_AFTER: u32 = 5;

/// Reads shards by GetRecords.
#[derive(Debug)]
pub(crate) struct PollingRetrieval {
    client: Client,
    stream: StreamName,
    config: Arc<ConsumerConfig>,
    clock: Arc<dyn Clock>,
}

impl PollingRetrieval {
    /// `stream`: a name or an ARN.
    pub(crate) fn new(
        client: &Client,
        stream: &str,
        config: Arc<ConsumerConfig>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            client: client_for_reads(client, config.kinesis_request_timeout),
            stream: StreamName::new(stream),
            config,
            clock,
        }
    }
}

impl Retrieval for PollingRetrieval {
    fn open(&self, start: Start) -> Box<dyn ShardReader> {
        Box::new(Polling::new(self, start))
    }
}

/// Reads one shard, page by page, in order.
#[derive(Debug)]
struct Polling {
    client: Client,
    stream: StreamName,
    status: Arc<ShardStatus>,
    clock: Arc<dyn Clock>,
    position: Position,
    iterator: Option<String>,
    pacer: Pacer,
    size: PageSize,
    backoff: Backoff,
}

impl ShardReader for Polling {
    fn next_page<'a>(
        &'a mut self,
        budget: &'a ShardBudget,
    ) -> BoxFuture<'a, Result<Page, RetrievalError>> {
        Self::next_page(self, budget).boxed()
    }
}

/// How a call failed: what it means, and the client's error as text.
struct Failure {
    verdict: Verdict,
    message: String,
}

impl Polling {
    fn new(retrieval: &PollingRetrieval, start: Start) -> Self {
        Self {
            client: retrieval.client.clone(),
            stream: retrieval.stream.clone(),
            status: start.status,
            clock: Arc::clone(&retrieval.clock),
            position: start.position,
            iterator: None,
            pacer: Pacer::new(retrieval.config.idle_time_between_reads),
            size: PageSize::new(retrieval.config.max_records),
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, Rng::with_seed(start.seed)),
        }
    }

    /// The next page that has records, or the last page of the shard. Retries until there is one.
    async fn next_page(&mut self, budget: &ShardBudget) -> Result<Page, RetrievalError> {
        loop {
            tokio::time::sleep(self.pacer.delay(self.clock.now())).await;
            let share = budget.share();
            let mut held = budget.reserve(self.size.expected_bytes(share)).await;
            match self.read(self.size.limit(share)).await {
                Ok(answer) => {
                    self.backoff.succeeded();
                    self.problem_solved();
                    held.resize(answer.memory());
                    if let Some(page) = self.accept(answer, held) {
                        return Ok(page);
                    }
                }
                Err(failure) => {
                    drop(held);
                    if self.shard_is_gone(&failure).await? {
                        return Ok(self.vanished(budget).await);
                    }
                    self.recover(&failure).await;
                }
            }
        }
    }

    async fn read(&mut self, limit: u32) -> Result<Answer, Failure> {
        let iterator = match &self.iterator {
            Some(iterator) => iterator.clone(),
            None => {
                let iterator = self.open().await?;
                self.iterator.insert(iterator).clone()
            }
        };
        self.pacer.sent(self.clock.now());
        let request = self.client.get_records().shard_iterator(iterator);
        let sent = request
            .set_stream_arn(self.stream.arn())
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .send();
        let timer = self.status.meter().timer(&*self.clock);
        let sent = sent.await;
        let metrics = (Metric::GetRecordsSuccess, Metric::GetRecordsTime);
        timer.done(metrics, Some(self.status.shard_id()), sent.is_ok());
        let output = sent.map_err(|error| Failure {
            verdict: Verdict::of(&error),
            message: DisplayErrorContext(&error).to_string(),
        })?;
        Answer::read(output).ok_or_else(|| Failure {
            verdict: Verdict::Failed,
            message: "GetRecords returned a record without a sequence number or partition key"
                .into(),
        })
    }

    /// A new iterator at the position.
    async fn open(&mut self) -> Result<String, Failure> {
        // Should the iterator expire before the first record, nothing put since now may be missed.
        let opened = self.clock.wall();
        let (kind, number, time) = match &self.position {
            Position::TrimHorizon => (ShardIteratorType::TrimHorizon, None, None),
            Position::Latest => (ShardIteratorType::Latest, None, None),
            Position::Time(time) => (ShardIteratorType::AtTimestamp, None, Some(*time)),
            Position::At(number) => (ShardIteratorType::AtSequenceNumber, Some(number), None),
            Position::After(number) => (ShardIteratorType::AfterSequenceNumber, Some(number), None),
        };
        let sent = self
            .client
            .get_shard_iterator()
            .set_stream_arn(self.stream.arn())
            .set_stream_name(self.stream.name())
            .shard_id(self.status.shard_id())
            .shard_iterator_type(kind)
            .set_starting_sequence_number(number.map(ToString::to_string))
            .set_timestamp(time.map(DateTime::from))
            .send();
        let timer = self.status.meter().timer(&*self.clock);
        let sent = sent.await;
        let metrics = (
            Metric::GetShardIteratorSuccess,
            Metric::GetShardIteratorTime,
        );
        timer.done(metrics, Some(self.status.shard_id()), sent.is_ok());
        let output = sent.map_err(|error| Failure {
            // Here an invalid argument is the position itself: there is no better one to try.
            verdict: match Verdict::of(&error) {
                Verdict::NewIterator => Verdict::Failed,
                verdict => verdict,
            },
            message: DisplayErrorContext(&error).to_string(),
        })?;
        let iterator = output.shard_iterator.ok_or_else(|| Failure {
            verdict: Verdict::Failed,
            message: "GetShardIterator returned no iterator".into(),
        })?;
        if self.position == Position::Latest {
            self.position = Position::Time(opened);
        }
        Ok(iterator)
    }

    /// Moves behind the answer; `None` if it has neither records nor the shard's end.
    fn accept(&mut self, answer: Answer, held: super::Held) -> Option<Page> {
        let Answer {
            records,
            bytes,
            millis_behind_latest,
            next,
        } = answer;
        self.size.observe(records.len() as u64, bytes as u64);
        self.pacer
            .answered(bytes as u64, millis_behind_latest.unwrap_or(0) == 0);
        self.status.behind(millis_behind_latest);
        if let Some(last) = records.last() {
            self.position = Position::After(last.sequence_number.clone());
        }
        let end = match next {
            Ok(iterator) => {
                self.iterator = Some(iterator);
                None
            }
            Err(children) => Some(children),
        };
        (end.is_some() || !records.is_empty()).then_some(Page {
            records,
            millis_behind_latest,
            end,
            held,
        })
    }

    fn problem_solved(&self) {
        let shard_id = self.status.shard_id();
        let problems = self.status.problems();
        problems.recovered(ProblemKind::ReadsFailing, Some(shard_id));
    }

    /// Waits as the failure demands.
    async fn recover(&mut self, failure: &Failure) {
        let shard_id = self.status.shard_id();
        let message = failure.message.as_str();
        match failure.verdict {
            Verdict::NewIterator if self.iterator.take().is_some() => {
                self.status.measure(Metric::ExpiredIterator, 1.0);
                tracing::info!(
                    shard_id,
                    message,
                    "the shard iterator is of no use any more"
                );
                // At once the first time; an iterator that is refused at birth must not spin.
                if self.backoff.failures() == 0 {
                    let _ = self.backoff.next_delay();
                    return;
                }
            }
            Verdict::Throttled => self.pacer.throttled(self.clock.now()),
            _ => {}
        }
        let delay = self.backoff.next_delay();
        let failures = self.backoff.failures();
        let kind = ProblemKind::ReadsFailing;
        self.status.problems().failed(kind, Some(shard_id), message);
        if failures > LOUD_AFTER {
            tracing::error!(
                shard_id,
                failures,
                message,
                "the shard cannot be read; trying again"
            );
        } else {
            tracing::warn!(
                shard_id,
                failures,
                ?delay,
                message,
                "a read failed; trying again"
            );
        }
        tokio::time::sleep(delay).await;
    }

    /// Whether the shard is gone while its stream exists; an error if the stream is gone.
    async fn shard_is_gone(&self, failure: &Failure) -> Result<bool, RetrievalError> {
        if failure.verdict != Verdict::NotFound {
            return Ok(false);
        }
        let sent = self
            .client
            .describe_stream_summary()
            .set_stream_arn(self.stream.arn())
            .set_stream_name(self.stream.name())
            .send();
        let deleted = match sent.await {
            Ok(output) => output
                .stream_description_summary
                .is_some_and(|summary| summary.stream_status == StreamStatus::Deleting),
            Err(error) if Verdict::of(&error) == Verdict::NotFound => true,
            // Not known: ask again later.
            Err(_) => return Ok(false),
        };
        if deleted {
            return Err(RetrievalError::StreamDeleted {
                stream: self.stream.as_str().to_owned(),
            });
        }
        Ok(self.is_listed().await == Some(false))
    }

    /// Whether the stream lists the shard; `None`: not known. A shard must not be taken for gone
    /// because one call said so: its end would be checkpointed.
    async fn is_listed(&self) -> Option<bool> {
        let mut next_token = None;
        loop {
            let request = self.client.list_shards().set_stream_arn(self.stream.arn());
            let request = match next_token {
                None => request.set_stream_name(self.stream.name()),
                token => request.set_next_token(token),
            };
            let output = request.send().await.ok()?;
            if output
                .shards()
                .iter()
                .any(|shard| shard.shard_id() == self.status.shard_id())
            {
                return Some(true);
            }
            next_token = output.next_token;
            if next_token.is_none() {
                return Some(false);
            }
        }
    }

    /// The last page of a shard that the service has forgotten: its retention is over.
    async fn vanished(&self, budget: &ShardBudget) -> Page {
        tracing::error!(
            shard_id = self.status.shard_id(),
            "the shard does not exist any more: records that were not read before the end of their retention are lost"
        );
        Page {
            records: Vec::new(),
            millis_behind_latest: None,
            end: Some(Vec::new()),
            held: budget.reserve(0).await,
        }
    }
}

#[cfg(test)]
mod tests;
