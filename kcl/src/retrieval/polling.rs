//! Reads a shard with GetShardIterator and GetRecords.

mod pacing;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::Client;
use aws_smithy_types::DateTime;
use fastrand::Rng;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_common::backoff::Backoff;
use kinesis_common::protocol::{self, ReadRecords, RecordsAnswer};
use kinesis_common::stream_name::StreamName;

use self::pacing::{Pacer, PageSize};
use super::failure::{Failure, FailureKind};
use super::shard_watch::{ShardWatch, Standing};
use super::stream_check::StreamCheck;
use super::{
    Held, Page, PageSender, Position, RawRecords, Retrieval, ShardSource, Start, read_children,
};
use crate::clock::Clock;
use crate::config::ConsumerConfig;
use crate::error::WorkerError;
use crate::lease::ChildShard;
use crate::metrics::Metric;
use crate::progress::Tip;
use crate::service_time::AnswerDate;
use crate::snapshot::ShardStatus;

/// Largest pause after the first failed read. The bound doubles with each consecutive failure.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// Largest upper bound of that pause.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Consecutive throttles that are not reported as failures. Readers that share a shard are throttled while they find
/// their fair shares.
const THROTTLES_IN_A_ROW: u32 = 2;

/// Reads shards with GetRecords.
#[derive(Debug)]
pub(crate) struct PollingRetrieval {
    check: Arc<StreamCheck>,
    config: Arc<ConsumerConfig>,
    clock: Arc<dyn Clock>,
}

impl PollingRetrieval {
    pub(crate) fn new(
        check: StreamCheck,
        config: Arc<ConsumerConfig>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { check: Arc::new(check), config, clock }
    }
}

impl Retrieval for PollingRetrieval {
    fn open(&self, start: Start) -> Box<dyn ShardSource> {
        Box::new(Polling::new(self, start))
    }
}

/// Reads one shard, page by page, in order.
#[derive(Debug)]
struct Polling {
    client: Client,
    name: StreamName,
    watch: ShardWatch,
    status: Arc<ShardStatus>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    position: Position,
    /// Service time of the last answer that left records unread. `None`: the last answer reached the tip or the end.
    unread_at: Option<SystemTime>,
    iterator: Option<String>,
    pacer: Pacer,
    size: PageSize,
    backoff: Backoff,
}

impl ShardSource for Polling {
    fn run(mut self: Box<Self>, pages: PageSender) -> BoxFuture<'static, Result<(), WorkerError>> {
        async move {
            loop {
                let room = pages.room().await;
                let page = self.next_page(&pages).await?;
                let is_last = page.end.is_some();
                room.send(page);
                if is_last {
                    return Ok(());
                }
            }
        }
        .boxed()
    }
}

impl Polling {
    fn new(retrieval: &PollingRetrieval, start: Start) -> Self {
        let mut random = Rng::with_seed(start.seed);
        let config = &retrieval.config;
        Self {
            client: retrieval.check.client.clone(),
            name: retrieval.check.name.clone(),
            watch: ShardWatch::new(
                Arc::clone(&retrieval.check),
                &start,
                Arc::clone(&retrieval.clock),
                config.on_trimmed_gap,
            ),
            status: start.status,
            clock: Arc::clone(&retrieval.clock),
            timeout: config.kinesis_request_timeout,
            unread_at: None,
            position: start.position,
            iterator: None,
            pacer: Pacer::new(config.idle_time_between_reads, random.fork()),
            size: PageSize::new(config.max_records),
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, random),
        }
    }

    /// Reads the next page that has records, or the last page of the shard. Retries until there is one.
    ///
    /// At the tip it sleeps most of the time. Calls are boxed, so that their state takes memory only while they run.
    async fn next_page(&mut self, pages: &PageSender) -> Result<Page, WorkerError> {
        loop {
            tokio::time::sleep(self.pacer.delay(self.clock.now())).await;
            match self.watch.standing().await? {
                Standing::Sound => {}
                Standing::NotKnown(failure) => {
                    self.recover(&failure).await;
                    continue;
                }
                Standing::ShardIsGone => {
                    return Ok(Page::vanished(&self.status, pages.memory(0).await));
                }
            }
            let limit = self.size.limit(pages.share(), self.pacer.page_bytes(self.clock.now()));
            let mut held = pages.memory(self.size.expected_memory(limit)).await;
            match Box::pin(self.read(limit)).await {
                Ok(answer) => {
                    self.succeeded();
                    if self.watch.stands_still() {
                        drop((answer, held));
                        // This waits until the shard is given up.
                        return std::future::pending().await;
                    }
                    held.resize(answer.records.memory());
                    if let Some(page) = self.accept(answer, held) {
                        return Ok(page);
                    }
                }
                Err(failure) => {
                    drop(held);
                    if failure.kind == FailureKind::DidNotArrive {
                        self.size.did_not_arrive(limit);
                    }
                    self.watch.failed(failure.kind);
                    self.recover(&failure).await;
                }
            }
        }
    }

    async fn read(&mut self, limit: u32) -> Result<Answer, Failure> {
        let iterator = match &self.iterator {
            Some(iterator) => iterator.clone(),
            None => {
                let iterator = Box::pin(self.open()).await?;
                self.iterator.insert(iterator).clone()
            }
        };
        let started = self.clock.now();
        self.pacer.sent(started);
        let request = self.client.get_records().shard_iterator(iterator);
        let request =
            request.set_stream_arn(self.name.arn()).limit(i32::try_from(limit).unwrap_or(i32::MAX));
        let (date, answer) = (AnswerDate::default(), ReadRecords::default());
        let timer = self.status.meter().timer(&*self.clock);
        let sent = protocol::send(|| {
            let call = request.clone().customize();
            call.interceptor(date.clone()).interceptor(answer.clone()).send()
        });
        let sent = sent.await;
        let metrics = (Metric::GetRecordsSuccess, Metric::GetRecordsTime);
        timer.done(metrics, Some(self.status.shard_id()), sent.is_ok());
        sent.map_err(|error| Failure::of_records(&error))?;
        let took = self.clock.now().saturating_sub(started);
        self.size.arrived(took, self.timeout);
        let answer = Answer::new(answer.take()).map_err(Failure::unusable)?;
        // All records up to the answer were read, so a new iterator may start at that time.
        if let Position::Time(time) = &mut self.position
            && answer.records.is_empty()
            && answer.millis_behind_latest == Some(0)
            && let Some(answered) = date.no_later_than_answer()
        {
            *time = answered.max(*time);
        }
        let is_last = answer.is_last();
        self.watch.check_gap(&answer.records, is_last, date.date()).await?;
        // After a gap that stops the shard, nothing counts as read, so that a restart finds the gap again.
        if is_last
            && !self.watch.stands_still()
            && let Some(reached) = date.no_later_than_answer()
        {
            let last = answer.records.last_sequence_number();
            let last_is_none = last.is_none();
            let fetched = last.or_else(|| self.position.fetched().cloned());
            self.status.progress().lock().tip =
                Some(Tip { reached, fetched, was_open: last_is_none && answer.next.is_ok() });
        }
        self.unread_at = date.date().filter(|_| !is_last);
        Ok(answer)
    }

    /// Gets a new iterator at the position.
    async fn open(&mut self) -> Result<String, Failure> {
        let (kind, number, time) = self.position.parts();
        let request = self
            .client
            .get_shard_iterator()
            .set_stream_arn(self.name.arn())
            .set_stream_name(self.name.name())
            .shard_id(self.status.shard_id())
            .shard_iterator_type(kind)
            .set_starting_sequence_number(number.map(ToString::to_string))
            .set_timestamp(time.map(DateTime::from));
        let date = AnswerDate::default();
        let timer = self.status.meter().timer(&*self.clock);
        let send = || request.clone().customize().interceptor(date.clone()).send();
        let sent = protocol::send(send).await;
        let metrics = (Metric::GetShardIteratorSuccess, Metric::GetShardIteratorTime);
        timer.done(metrics, Some(self.status.shard_id()), sent.is_ok());
        let output = sent.map_err(|error| Failure::of_iterator(&error))?;
        let iterator = output
            .shard_iterator
            .ok_or_else(|| Failure::unusable("GetShardIterator returned no iterator"))?;
        // If the iterator expires before the first record, the next one must not miss records that are put from
        // now on. The time is that of the service, because a time of this host may be in the future, where no
        // iterator can start.
        if self.position == Position::Latest
            && let Some(opened) = date.no_later_than_answer()
        {
            self.position = Position::Time(opened);
            self.status.progress().lock().pinned = Some(opened);
        }
        Ok(iterator)
    }

    /// Moves the position after the answer. Returns `None` if it has neither records nor the shard's end.
    fn accept(&mut self, answer: Answer, held: Held) -> Option<Page> {
        let Answer { records, millis_behind_latest, next } = answer;
        let bytes = records.payload_len() as u64;
        self.size.observe(records.len() as u64, bytes, records.memory() as u64);
        let at_tip = millis_behind_latest.unwrap_or(0) == 0;
        self.pacer.answered(self.clock.now(), bytes, at_tip);
        self.status.behind(millis_behind_latest);
        if let Some(last) = records.last_sequence_number() {
            self.position = Position::After(last);
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

    fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.watch.succeeded();
        Failure::is_over(&self.status);
    }

    /// Notes the failure, and waits for the pause that follows it.
    async fn recover(&mut self, failure: &Failure) {
        let shard_id = self.status.shard_id();
        match failure.kind {
            FailureKind::NewIterator if self.iterator.is_some() => {
                self.iterator = None;
                self.status.measure(Metric::ExpiredIterator, 1.0);
                // Retention may have deleted the unread records by now.
                if let (Position::After(number), Some(answered)) = (&self.position, self.unread_at)
                {
                    self.watch.check_after(number.clone(), answered);
                }
                tracing::info!(shard_id, cause = failure.text, "a new shard iterator is needed");
                // The first retry is immediate. A pause follows when iterators are refused again and again.
                if self.backoff.failures() == 0 {
                    let _ = self.backoff.next_delay();
                    return;
                }
            }
            // The iterator may be one of a stream or a shard that does not exist any more. If they are found
            // after all, the next read needs a new one.
            FailureKind::NotFound => self.iterator = None,
            FailureKind::Throttled => {
                self.status.measure(Metric::ThrottledReads, 1.0);
                self.pacer.throttled(self.clock.now());
                if self.pacer.throttles_in_a_row() <= THROTTLES_IN_A_ROW {
                    tracing::debug!(shard_id, cause = failure.text, "a read was throttled");
                    return;
                }
            }
            _ => {}
        }
        failure.note(&self.status);
        // After a throttle, the pacer delays the next read.
        if failure.kind != FailureKind::Throttled {
            tokio::time::sleep(self.backoff.next_delay()).await;
        }
    }
}

/// The response of GetRecords.
#[derive(Debug)]
struct Answer {
    records: RawRecords,
    millis_behind_latest: Option<u64>,
    /// The next iterator. At the end of the shard its children, if the service named them.
    next: Result<String, Vec<ChildShard>>,
}

impl Answer {
    /// Returns what is wrong with an answer that cannot be used. The page is then read again, never skipped.
    fn new(answer: RecordsAnswer) -> Result<Self, &'static str> {
        // The last page of a shard has this time, too. An answer with nothing at all is that of a proxy, for example, and
        // must not be taken for the end of the shard.
        if answer.next_shard_iterator.is_none()
            && answer.child_shards.is_none()
            && answer.millis_behind_latest.is_none()
        {
            return Err("GetRecords returned neither an iterator nor the end of the shard");
        }
        let records = RawRecords::new(answer.records);
        let children = answer.child_shards.unwrap_or_default();
        Ok(Self {
            records: records.ok_or("GetRecords returned a record without a sequence number")?,
            millis_behind_latest: answer.millis_behind_latest.and_then(|ms| ms.try_into().ok()),
            next: answer
                .next_shard_iterator
                .ok_or_else(|| read_children(children).unwrap_or_default()),
        })
    }

    /// True if there is no further record: the tip was reached, or the shard's end.
    fn is_last(&self) -> bool {
        self.next.is_err() || self.millis_behind_latest == Some(0)
    }
}

#[cfg(test)]
mod tests;
