//! GetShardIterator and GetRecords.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_smithy_types::DateTime;
use fastrand::Rng;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_common::backoff::Backoff;
use kinesis_common::stream_name::StreamName;

use super::budget::ShardBudget;
use super::client::client_for_reads;
use super::failure::{Failure, FailureKind};
use super::pacing::Pacer;
use super::page::{Answer, Page, RawRecord};
use super::page_size::PageSize;
use super::position::Position;
use super::source::{Retrieval, RetrievalError, ShardReader, Start};
use super::standing::{Standing, StreamWatch};
use super::stream_check::StreamCheck;
use super::trimmed::{Seen, TrimCheck, Trimmed};
use crate::clock::Clock;
use crate::config::{ConsumerConfig, OnTrimmedGap};
use crate::current_stream::CurrentStream;
use crate::health::ProblemKind;
use crate::metrics::Metric;
use crate::service_time::AnswerDate;
use crate::snapshot::{ShardStatus, Tip};

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Throttles up to this many in a row are the normal way to find a fair share of the shard.
const THROTTLES_IN_A_ROW: u32 = 2;
/// How long a gap is a problem of a shard that goes on.
const GAP_IS_SHOWN: Duration = Duration::from_secs(3600);

/// Reads shards by GetRecords.
#[derive(Debug)]
pub(crate) struct PollingRetrieval {
    client: Client,
    name: StreamName,
    check: Arc<StreamCheck>,
    config: Arc<ConsumerConfig>,
    clock: Arc<dyn Clock>,
}

impl PollingRetrieval {
    /// `seed`: of the pauses after failed calls for all readers.
    pub(crate) fn new(
        client: &Client,
        name: StreamName,
        stream: Arc<CurrentStream>,
        config: Arc<ConsumerConfig>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Self {
        let client = client_for_reads(client, config.kinesis_request_timeout);
        Self {
            check: Arc::new(StreamCheck::new(
                client.clone(),
                name.clone(),
                stream,
                Arc::clone(&clock),
                Rng::with_seed(seed),
            )),
            client,
            name,
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
    name: StreamName,
    watch: StreamWatch,
    status: Arc<ShardStatus>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    position: Position,
    /// What to find out with the next answer.
    trim_check: Option<TrimCheck>,
    /// When the last answer came, if it said that there are more records.
    unread_at: Option<SystemTime>,
    /// When a gap was last told of.
    gap_told: Option<Duration>,
    on_trimmed_gap: OnTrimmedGap,
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

impl Polling {
    fn new(retrieval: &PollingRetrieval, start: Start) -> Self {
        let mut random = Rng::with_seed(start.seed);
        let config = &retrieval.config;
        Self {
            client: retrieval.client.clone(),
            name: retrieval.name.clone(),
            watch: StreamWatch::new(
                Arc::clone(&retrieval.check),
                start.shard_id(),
                start.stream.clone(),
            ),
            status: start.status,
            clock: Arc::clone(&retrieval.clock),
            timeout: config.kinesis_request_timeout,
            trim_check: match &start.position {
                Position::At(number) => {
                    Some(TrimCheck::at_checkpoint(number.clone(), start.read_to))
                }
                _ => None,
            },
            unread_at: None,
            gap_told: None,
            on_trimmed_gap: config.on_trimmed_gap,
            position: start.position,
            iterator: None,
            pacer: Pacer::new(config.idle_time_between_reads, random.fork()),
            size: PageSize::new(config.max_records),
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, random),
        }
    }

    /// The next page that has records, or the last page of the shard. Retries until there is one.
    async fn next_page(&mut self, budget: &ShardBudget) -> Result<Page, RetrievalError> {
        loop {
            tokio::time::sleep(self.pacer.delay(self.clock.now())).await;
            match self.watch.standing().await? {
                Standing::Sound => {}
                Standing::NotKnown(failure) => {
                    self.recover(&failure).await;
                    continue;
                }
                Standing::ShardIsGone => return Ok(self.vanished(budget).await),
            }
            let share = budget.share().min(self.pacer.page_bytes(self.clock.now()));
            let limit = self.size.limit(share);
            let mut held = budget.reserve(self.size.expected_bytes(share)).await;
            match self.read(limit).await {
                Ok(answer) => {
                    self.succeeded();
                    if self.stands_still() {
                        drop((answer, held));
                        // Until the shard is given up.
                        return std::future::pending().await;
                    }
                    held.resize(answer.memory());
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
                let iterator = self.open().await?;
                self.iterator.insert(iterator).clone()
            }
        };
        let started = self.clock.now();
        self.pacer.sent(started);
        let request = self.client.get_records().shard_iterator(iterator);
        let date = AnswerDate::default();
        let sent = request
            .set_stream_arn(self.name.arn())
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .customize()
            .interceptor(date.clone())
            .send();
        let timer = self.status.meter().timer(&*self.clock);
        let sent = sent.await;
        let metrics = (Metric::GetRecordsSuccess, Metric::GetRecordsTime);
        timer.done(metrics, Some(self.status.shard_id()), sent.is_ok());
        let output = sent.map_err(|error| Failure::of_records(&error))?;
        let took = self.clock.now().saturating_sub(started);
        self.size.arrived(took, self.timeout);
        let answer = Answer::read(output).ok_or_else(|| {
            Failure::unusable("GetRecords returned a record without a sequence number")
        })?;
        // There is no record up to now: a new iterator need not start any earlier.
        if let Position::Time(time) = &mut self.position
            && answer.records.is_empty()
            && answer.millis_behind_latest == Some(0)
            && let Some(answered) = date.no_later_than_answer()
        {
            *time = answered.max(*time);
        }
        self.check_gap(&answer, date.date()).await?;
        let is_last = answer.is_last();
        // Behind a gap that stops the shard nothing is read: a restart must find the gap again.
        if is_last
            && !self.stands_still()
            && let Some(reached) = date.no_later_than_answer()
        {
            let last = answer.records.last();
            let fetched = last.map(|last| &last.sequence_number);
            self.status.reached_tip(Tip {
                reached,
                fetched: fetched.or(self.position.fetched()).cloned(),
            });
        }
        self.unread_at = date.date().filter(|_| !is_last);
        Ok(answer)
    }

    /// Finds out whether retention deleted records before they were read.
    async fn check_gap(
        &mut self,
        answer: &Answer,
        answered: Option<SystemTime>,
    ) -> Result<(), Failure> {
        let Some(check) = &self.trim_check else {
            return Ok(());
        };
        let first = answer.records.first();
        match check.see(first.map(|first| &first.sequence_number), answer.is_last()) {
            Seen::NotYet => return Ok(()),
            Seen::Sound => {}
            Seen::Gone => {
                // Without the service's time nothing can be told.
                let trimmed = match answered {
                    Some(now) => check.judge(now, self.watch.retention().await?),
                    None => Trimmed::CannotBeTold,
                };
                match trimmed {
                    Trimmed::Nothing => {}
                    Trimmed::CannotBeTold => tracing::warn!(
                        shard_id = self.status.shard_id(),
                        checkpoint = %check.position(),
                        "the record of the checkpoint was deleted by retention; whether others were deleted before they were read cannot be told"
                    ),
                    Trimmed::Unread => self.tell_gap(&check.clone(), first),
                }
            }
        }
        self.trim_check = None;
        Ok(())
    }

    fn tell_gap(&mut self, check: &TrimCheck, next: Option<&RawRecord>) {
        let shard_id = self.status.shard_id();
        let since = match check.read_to() {
            Some(time) if time > SystemTime::UNIX_EPOCH => {
                format!(", those that arrived after {}", DateTime::from(time))
            }
            _ => String::new(),
        };
        let goes_on = match next {
            Some(next) => format!("the oldest record there is has number {}", next.sequence_number),
            None => "there is no record now".to_owned(),
        };
        let gap = format!(
            "retention deleted the records behind number {}{since}, before they were read; {goes_on}",
            check.position()
        );
        tracing::error!(shard_id, gap, "records were lost to retention");
        self.status.measure(Metric::TrimmedGaps, 1.0);
        let problems = self.status.problems();
        problems.failed(ProblemKind::RecordsTrimmed, Some(shard_id), &gap);
        self.gap_told = Some(self.clock.now());
    }

    /// There is a gap, and the settings say that nothing behind it is delivered.
    fn stands_still(&self) -> bool {
        self.gap_told.is_some() && self.on_trimmed_gap == OnTrimmedGap::StopShard
    }

    /// A new iterator at the position.
    async fn open(&mut self) -> Result<String, Failure> {
        let (kind, number, time) = match &self.position {
            Position::TrimHorizon => (ShardIteratorType::TrimHorizon, None, None),
            Position::Latest => (ShardIteratorType::Latest, None, None),
            Position::Time(time) => (ShardIteratorType::AtTimestamp, None, Some(*time)),
            Position::At(number) => (ShardIteratorType::AtSequenceNumber, Some(number), None),
            Position::After(number) => (ShardIteratorType::AfterSequenceNumber, Some(number), None),
        };
        let date = AnswerDate::default();
        let sent = self
            .client
            .get_shard_iterator()
            .set_stream_arn(self.name.arn())
            .set_stream_name(self.name.name())
            .shard_id(self.status.shard_id())
            .shard_iterator_type(kind)
            .set_starting_sequence_number(number.map(ToString::to_string))
            .set_timestamp(time.map(DateTime::from))
            .customize()
            .interceptor(date.clone())
            .send();
        let timer = self.status.meter().timer(&*self.clock);
        let sent = sent.await;
        let metrics = (Metric::GetShardIteratorSuccess, Metric::GetShardIteratorTime);
        timer.done(metrics, Some(self.status.shard_id()), sent.is_ok());
        let output = sent.map_err(|error| Failure::of_iterator(&error))?;
        let iterator = output
            .shard_iterator
            .ok_or_else(|| Failure::unusable("GetShardIterator returned no iterator"))?;
        // Should the iterator expire before the first record, nothing put since now may be missed. The
        // time is the service's: a time of this host may be in the future, where no iterator starts.
        if self.position == Position::Latest
            && let Some(opened) = date.no_later_than_answer()
        {
            self.position = Position::Time(opened);
        }
        Ok(iterator)
    }

    /// Moves behind the answer; `None` if it has neither records nor the shard's end.
    fn accept(&mut self, answer: Answer, held: super::Held) -> Option<Page> {
        let Answer { records, bytes, millis_behind_latest, next } = answer;
        self.size.observe(records.len() as u64, bytes as u64);
        let at_tip = millis_behind_latest.unwrap_or(0) == 0;
        self.pacer.answered(self.clock.now(), bytes as u64, at_tip);
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

    fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.watch.succeeded();
        let shard_id = self.status.shard_id();
        let problems = self.status.problems();
        let is_old = |told| self.clock.now().saturating_sub(told) > GAP_IS_SHOWN;
        if self.gap_told.is_some_and(is_old) && !self.stands_still() {
            problems.recovered(ProblemKind::RecordsTrimmed, Some(shard_id));
            self.gap_told = None;
        }
        if problems.recovered(ProblemKind::ReadsFailing, Some(shard_id)) {
            tracing::info!(shard_id, "the shard is read again");
        }
    }

    /// Notes the failure, and waits as it demands.
    async fn recover(&mut self, failure: &Failure) {
        let shard_id = self.status.shard_id();
        match failure.kind {
            FailureKind::NewIterator if self.iterator.take().is_some() => {
                self.status.measure(Metric::ExpiredIterator, 1.0);
                // The records that were left may be gone by now.
                if let (Position::After(number), Some(answered)) = (&self.position, self.unread_at)
                {
                    self.trim_check = Some(TrimCheck::behind(number.clone(), answered));
                }
                tracing::info!(shard_id, cause = failure.text, "a new shard iterator is needed");
                // At once the first time; an iterator that is refused at birth must not spin.
                if self.backoff.failures() == 0 {
                    let _ = self.backoff.next_delay();
                    return;
                }
            }
            // The iterator may be one of a stream, or a shard, that does not exist any more. Should they be
            // found after all, the next read gets a new one.
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
        if failure.kind != FailureKind::Throttled {
            self.status.measure(Metric::FailedReads, 1.0);
        }
        let problems = self.status.problems();
        let noted = problems.failed(ProblemKind::ReadsFailing, Some(shard_id), &failure.text);
        if noted.log {
            let (failures, cause) = (noted.failures, &failure.text);
            if failure.is_refusal() {
                tracing::error!(
                    shard_id,
                    failures,
                    cause,
                    "the shard cannot be read; trying again"
                );
            } else {
                tracing::warn!(shard_id, failures, cause, "a read failed; trying again");
            }
        }
        // The pacer has the pause after a throttle.
        if failure.kind != FailureKind::Throttled {
            tokio::time::sleep(self.backoff.next_delay()).await;
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
