//! Reads one shard by subscriptions, one after the other.
//!
//! * It subscribes only when there is room for a page. While the processor is behind, the subscription is not read, and
//!   the flow control of HTTP/2 stops the service. If that takes longer than [`UNREAD`], the subscription is ended, so
//!   that its unread bytes are not kept on the connection, and resumed later where it stopped.
//! * The service ends a subscription after five minutes. The source renews it a little earlier, each shard at another
//!   time.
//! * The next subscription starts after the number that the last event gave, also if that event had no record.
//! * A subscription that sends nothing for [`SILENCE`] is renewed: the service sends an event every few seconds, also
//!   without records. Pings find a dead connection sooner.
//! * For [`TAKEOVER`] after a subscription began, the service refuses another one of the same consumer to the shard. A
//!   new owner of a shard meets that, and a source whose connection broke. It tries again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::Client;
use fastrand::Rng;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_common::backoff::Backoff;

use super::FanOutRetrieval;
use super::consumer::{NoConsumer, StreamConsumer};
use super::gate::SubscribeGate;
use super::subscription::{Event, Subscription};
use crate::clock::Clock;
use crate::error::WorkerError;
use crate::metrics::Metric;
use crate::progress::Tip;
use crate::retrieval::failure::{Failure, FailureKind};
use crate::retrieval::shard_watch::{ShardWatch, Standing};
use crate::retrieval::{Held, Page, PageSender, Position, Room, ShardSource, Start};
use crate::sequence::SequenceNumber;
use crate::snapshot::ShardStatus;

/// Time without room for a page after which a subscription is ended.
const UNREAD: Duration = Duration::from_secs(5);
/// Time without an event after which a subscription is renewed.
const SILENCE: Duration = Duration::from_secs(30);
/// Age at which a subscription is renewed at the latest. The service ends it after five minutes.
const RENEWED: Duration = Duration::from_secs(290);
/// Most time by which a renewal is earlier, so that shards do not renew in one burst.
const RENEWAL_SPREAD: f64 = 30.0;
/// Least time between two calls. The service accepts one a second for each consumer and shard.
const CALL_INTERVAL: Duration = Duration::from_secs(1);
/// Time after the beginning of a subscription in which the service refuses another one of the same consumer.
const TAKEOVER: Duration = Duration::from_secs(5);
/// Time for which such refusals are no failure: twice the time that they should last.
const REFUSALS_ARE_NORMAL: Duration = Duration::from_secs(10);
/// Largest pause after the first failure. The bound doubles with each consecutive failure.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// Largest upper bound of that pause.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Consecutive throttles that are not reported as failures. The shards of a worker slow down together.
const THROTTLES_IN_A_ROW: u32 = 3;
/// Time without an event after which retention may have deleted records.
const LONG_PAUSE: Duration = Duration::from_secs(300);
/// Memory that is reserved for the first event, in bytes.
const FIRST_EVENT: u64 = 64 << 10;
/// Least memory that is reserved for an event, in bytes.
const SMALLEST_EVENT: u64 = 8 << 10;

/// Reads one shard.
#[derive(Debug)]
pub(super) struct FanOutSource {
    client: Client,
    consumer: Arc<StreamConsumer>,
    gate: Arc<SubscribeGate>,
    watch: ShardWatch,
    status: Arc<ShardStatus>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    position: Position,
    /// The last record received under this lease.
    received: Option<SequenceNumber>,
    /// Service time of the last event that left records unread. `None`: it reached the tip or the end.
    unread_at: Option<SystemTime>,
    /// When the last event came.
    last_event: Duration,
    /// When the last call was made.
    called: Option<Duration>,
    /// When the last subscription began.
    opened: Option<Duration>,
    /// When the service first refused a subscription because of an earlier one, since the last success.
    refused_since: Option<Duration>,
    throttles: u32,
    /// Memory that the next event will probably take, in bytes.
    expected: u64,
    backoff: Backoff,
    random: Rng,
}

/// Why a subscription is not read any more.
enum Ended {
    /// The shard has no further records.
    ShardEnd,
    /// The next subscription may begin at once.
    Renew,
    Failed(Failure),
}

impl ShardSource for FanOutSource {
    fn run(mut self: Box<Self>, pages: PageSender) -> BoxFuture<'static, Result<(), WorkerError>> {
        async move {
            loop {
                let place = self.place(&pages).await;
                let Some(subscription) = Box::pin(self.subscribe()).await? else {
                    let (room, held) = place;
                    room.send(Page::vanished(&self.status, held));
                    return Ok(());
                };
                match self.read(subscription, place, &pages).await {
                    Ended::ShardEnd => return Ok(()),
                    Ended::Renew => {}
                    Ended::Failed(failure) => self.recover(&failure).await,
                }
            }
        }
        .boxed()
    }
}

impl FanOutSource {
    pub(super) fn new(retrieval: &FanOutRetrieval, start: Start) -> Self {
        let mut random = Rng::with_seed(start.seed);
        let clock = Arc::clone(&retrieval.clock);
        Self {
            client: retrieval.client.clone(),
            consumer: Arc::clone(&retrieval.consumer),
            gate: Arc::clone(&retrieval.gate),
            watch: ShardWatch::new(
                Arc::clone(&retrieval.check),
                &start,
                Arc::clone(&clock),
                retrieval.config.on_trimmed_gap,
            ),
            status: start.status,
            clock,
            timeout: retrieval.config.kinesis_request_timeout,
            position: start.position,
            received: None,
            unread_at: None,
            last_event: Duration::ZERO,
            called: None,
            opened: None,
            refused_since: None,
            throttles: 0,
            expected: FIRST_EVENT,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, random.fork()),
            random,
        }
    }

    /// Waits for room for a page, and for memory for an event.
    ///
    /// # Cancel safety
    /// A call that is dropped takes nothing.
    async fn place<'a>(&self, pages: &'a PageSender) -> (Room<'a>, Held) {
        let room = pages.room().await;
        (room, pages.memory(self.expected).await)
    }

    /// Subscribes at the position. Tries again until it succeeds. `None`: the shard does not exist any more.
    ///
    /// # Errors
    /// The stream was deleted, or created again.
    async fn subscribe(&mut self) -> Result<Option<Subscription>, WorkerError> {
        loop {
            match self.watch.standing().await? {
                Standing::Sound => {}
                Standing::NotKnown(failure) => {
                    self.recover(&failure).await;
                    continue;
                }
                Standing::ShardIsGone => return Ok(None),
            }
            match self.try_subscribe().await {
                Ok(subscription) => return Ok(Some(subscription)),
                Err(failure) => self.recover(&failure).await,
            }
        }
    }

    async fn try_subscribe(&mut self) -> Result<Subscription, Failure> {
        // Retention may have deleted the unread records by now.
        let paused = self.clock.now().saturating_sub(self.last_event);
        if let (Some(received), Some(unread_at)) = (&self.received, self.unread_at)
            && paused > LONG_PAUSE
        {
            self.watch.check_after(received.clone(), unread_at);
        }
        let consumer = self.consumer.arn().await.map_err(|error| no_consumer(&error))?;
        let earliest = self.called.map_or(Duration::ZERO, |called| called + CALL_INTERVAL);
        tokio::time::sleep(earliest.saturating_sub(self.clock.now())).await;
        self.gate.turn().await;
        self.called = Some(self.clock.now());
        let shard_id = self.status.shard_id();
        let timer = self.status.meter().timer(&*self.clock);
        let (names, clock) = ((&*consumer, shard_id), &*self.clock);
        let opened =
            Subscription::open(&self.client, names, &self.position, self.timeout, clock).await;
        let metrics = (Metric::SubscribeToShardSuccess, Metric::SubscribeToShardTime);
        timer.done(metrics, Some(shard_id), opened.is_ok());
        let subscription = match opened {
            Ok(subscription) => subscription,
            Err(failure) => {
                if failure.kind == FailureKind::NotFound {
                    // The consumer, the shard or the stream does not exist.
                    self.consumer.doubt(&consumer);
                }
                return Err(failure);
            }
        };
        self.gate.succeeded();
        self.opened = Some(subscription.opened);
        // If the subscription ends before its first event, the next one must not miss records that are put from now on.
        if self.position == Position::Latest
            && let Some(time) = subscription.no_later_than_opened()
        {
            self.position = Position::Time(time);
            self.status.progress().lock().pinned = Some(time);
        }
        Ok(subscription)
    }

    /// Reads a subscription. `place`: for the next page.
    async fn read<'a>(
        &mut self,
        mut subscription: Subscription,
        place: (Room<'a>, Held),
        pages: &'a PageSender,
    ) -> Ended {
        let age = RENEWED - Duration::from_secs_f64(RENEWAL_SPREAD * self.random.f64());
        let renewed = subscription.opened + age;
        let mut place = Some(place);
        loop {
            let Some((room, mut held)) = place.take() else {
                // The last page is not taken yet, or there is no memory.
                match tokio::time::timeout(UNREAD, self.place(pages)).await {
                    Ok(free) => place = Some(free),
                    Err(_) => {
                        self.status.measure(Metric::UnreadSubscriptions, 1.0);
                        return Ended::Renew;
                    }
                }
                continue;
            };
            let left = renewed.saturating_sub(self.clock.now());
            let next = subscription.next(&*self.clock);
            let event = match tokio::time::timeout(SILENCE.min(left), next).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) if subscription.has_sent => return Ended::Renew,
                Ok(Ok(None)) => return Ended::Failed(Failure::unusable(WITHOUT_EVENT)),
                Ok(Err(failure)) => return Ended::Failed(failure),
                Err(_) if left <= SILENCE => return Ended::Renew,
                Err(_) => return Ended::Failed(Failure::unusable(SILENT)),
            };
            if let Err(failure) = self.check_gap(&event, &subscription).await {
                return Ended::Failed(failure);
            }
            if self.watch.stands_still() {
                drop((subscription, held));
                // This waits until the shard is given up.
                return std::future::pending().await;
            }
            self.succeeded();
            held.resize(event.records.memory());
            match self.accept(event, &subscription, held) {
                Ok(page) => {
                    let is_last = page.end.is_some();
                    room.send(page);
                    if is_last {
                        return Ended::ShardEnd;
                    }
                }
                Err(mut held) => {
                    held.resize(self.expected as usize);
                    place = Some((room, held));
                }
            }
        }
    }

    /// Checks whether retention deleted records before the event.
    async fn check_gap(
        &mut self,
        event: &Event,
        subscription: &Subscription,
    ) -> Result<(), Failure> {
        let service_time = subscription.service_time(self.clock.now());
        self.watch.check_gap(&event.records, event.is_last(), service_time).await
    }

    /// Moves the position after the event. Returns the memory if the event has neither records nor the shard's end.
    fn accept(
        &mut self,
        event: Event,
        subscription: &Subscription,
        held: Held,
    ) -> Result<Page, Held> {
        let is_last = event.is_last();
        let now = self.clock.now();
        self.last_event = now;
        let Event { records, continuation, millis_behind_latest, children } = event;
        let memory = records.memory() as u64;
        // It rises to the size of an event at once, and falls by half of the difference.
        self.expected = memory.max(self.expected.midpoint(memory)).max(SMALLEST_EVENT);
        self.status.behind(millis_behind_latest);
        let end = continuation.is_none().then_some(children);
        let last = records.last_sequence_number();
        let arrived = records.len().checked_sub(1).and_then(|last| records.arrival(last));
        if let Some(next) = continuation.max(last.clone()) {
            self.position = self.position.after_event(next, last.is_some());
        }
        self.received = last.or(self.received.take());
        if is_last && let Some(reached) = subscription.no_later_than_sent().max(arrived) {
            let was_open = records.is_empty() && end.is_none();
            let tip = Tip { reached, fetched: self.received.clone(), was_open };
            self.status.progress().lock().tip = Some(tip);
        }
        self.unread_at = subscription.service_time(now).filter(|_| !is_last);
        if end.is_none() && records.is_empty() {
            return Err(held);
        }
        Ok(Page { records, millis_behind_latest, end, held })
    }

    fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.refused_since = None;
        self.throttles = 0;
        self.watch.succeeded();
        Failure::is_over(&self.status);
    }

    /// Notes the failure, and waits for the pause that follows it.
    async fn recover(&mut self, failure: &Failure) {
        self.watch.failed(failure.kind);
        let now = self.clock.now();
        let shard_id = self.status.shard_id();
        match failure.kind {
            FailureKind::TakenOver => self.status.measure(Metric::RefusedSubscriptions, 1.0),
            FailureKind::InUse => {
                self.status.measure(Metric::RefusedSubscriptions, 1.0);
                let since = *self.refused_since.get_or_insert(now);
                if now.saturating_sub(since) < REFUSALS_ARE_NORMAL {
                    tracing::debug!(shard_id, cause = failure.text, "a subscription was refused");
                    // The own subscription, or that of the previous owner, cannot be taken over before this time.
                    let earliest = self.opened.map(|opened| opened + TAKEOVER);
                    let wait = earliest.unwrap_or_default().saturating_sub(now);
                    tokio::time::sleep(wait).await;
                    return;
                }
            }
            FailureKind::Throttled => {
                self.status.measure(Metric::ThrottledReads, 1.0);
                self.gate.throttled();
                self.throttles += 1;
                if self.throttles <= THROTTLES_IN_A_ROW {
                    tracing::debug!(shard_id, cause = failure.text, "a subscription was throttled");
                    tokio::time::sleep(self.backoff.next_delay()).await;
                    return;
                }
            }
            _ => {}
        }
        failure.note(&self.status);
        tokio::time::sleep(self.backoff.next_delay()).await;
    }
}

const WITHOUT_EVENT: &str = "the subscription ended without an event";
const SILENT: &str = "the subscription sent no event for 30 s";

fn no_consumer(error: &NoConsumer) -> Failure {
    let text = format!("there is no consumer to subscribe with: {error}");
    match error {
        NoConsumer::NotActive { .. } => Failure::unusable(&text),
        NoConsumer::Call(error) if error.kind.may_pass() => Failure::unusable(&text),
        _ => Failure::refused(&text),
    }
}
