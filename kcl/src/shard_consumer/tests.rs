//! A consumer whose pages are always there, on a lease in memory.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::field::{Field, Visit};
use tracing::span;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::clock::SystemClock;
use crate::error::ProcessorError;
use crate::health::ProblemLog;
use crate::lease::{Lease, Recorder};
use crate::metrics::Meter;
use crate::processor::{RecordBatch, RecordProcessor, ShardEnd, Shutdown};
use crate::retrieval::{PageSender, Position, RawRecord, ShardSource, Start};
use crate::snapshot::Totals;

mod pause;
mod seek;

const SHARD: &str = "shardId-000000000000";
const PATIENCE: Duration = Duration::from_secs(60);

/// So many pages of so many records, each at once.
#[derive(Clone, Copy)]
struct Pages {
    pages: u64,
    records: u64,
}

impl Retrieval for Pages {
    fn open(&self, start: Start) -> Box<dyn ShardSource> {
        // Numbers are those of the records. After one of them, its page is over.
        let read = match &start.position {
            Position::After(last) => (last.as_str().parse::<u64>().unwrap() + 1) / self.records,
            Position::At(first) => first.as_str().parse::<u64>().unwrap() / self.records,
            _ => 0,
        };
        Box::new(Reader { all: *self, read })
    }
}

struct Reader {
    all: Pages,
    read: u64,
}

impl ShardSource for Reader {
    fn run(mut self: Box<Self>, pages: PageSender) -> BoxFuture<'static, Result<(), WorkerError>> {
        async move {
            while self.read < self.all.pages {
                let room = pages.room().await;
                let first = self.read * self.all.records;
                self.read += 1;
                let records = (first..first + self.all.records).map(|number| RawRecord {
                    sequence_number: number.to_string().parse().unwrap(),
                    partition_key: Some("key".to_owned()),
                    data: Bytes::from_static(b"data"),
                    arrival: None,
                });
                room.send(Page {
                    records: records.collect(),
                    millis_behind_latest: Some(60_000),
                    end: None,
                    held: pages.memory(1).await,
                });
            }
            std::future::pending().await
        }
        .boxed()
    }
}

/// What the processor of a test does with its calls, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Take,
    /// Checkpoint the first record, then fail.
    CheckpointOneAndFail,
    /// Checkpoint all, then fail.
    CheckpointAllAndFail,
    Fail,
    /// Wait for the shutdown token, then fail.
    WaitForShutdown,
    /// Wait for the test.
    Wait,
    /// In `initialize`: wait for the shutdown token, then fail.
    WaitInInitialize,
}

/// What a processor was given.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Attempt, and positions of the records, of each call.
    batches: Vec<(u32, Vec<String>)>,
    was_asked: bool,
    /// It waits in `initialize`.
    initializes: bool,
}

struct Processor {
    takes: Duration,
    deeds: Mutex<VecDeque<Deed>>,
    seen: watch::Sender<Seen>,
    go_on: Arc<Notify>,
}

impl Processor {
    async fn initialize(&self, shard: &ShardContext) -> Result<(), ProcessorError> {
        if self.deeds.lock().unwrap().front() != Some(&Deed::WaitInInitialize) {
            return Ok(());
        }
        self.seen.send_modify(|seen| seen.initializes = true);
        shard.shutdown_token().cancelled().await;
        assert!(!shard.cancellation().is_cancelled());
        Err("told to stop".into())
    }

    async fn process(&self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        let positions = batch.records().map(|record| record.position().to_string());
        let positions = positions.collect();
        self.seen.send_modify(|seen| seen.batches.push((batch.attempt(), positions)));
        let deed = self.deeds.lock().unwrap().pop_front();
        match deed.unwrap_or(Deed::Take) {
            Deed::Take => {
                tokio::time::sleep(self.takes).await;
                return Ok(());
            }
            Deed::CheckpointOneAndFail => {
                let first = batch.records().next().unwrap();
                batch.checkpointer().checkpoint_at(&first).await?;
            }
            Deed::CheckpointAllAndFail => batch.checkpointer().checkpoint().await?,
            Deed::Fail | Deed::WaitInInitialize => {}
            Deed::Wait => {
                self.go_on.notified().await;
                return Ok(());
            }
            Deed::WaitForShutdown => {
                batch.shutdown_token().cancelled().await;
                assert!(!batch.cancellation().is_cancelled());
            }
        }
        Err("told to fail".into())
    }
}

/// Shared by all processors that a factory makes.
struct Handle(Arc<Processor>);

impl RecordProcessor for Handle {
    async fn initialize(&mut self, shard: &ShardContext) -> Result<(), ProcessorError> {
        self.0.initialize(shard).await
    }

    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        self.0.process(batch).await
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        self.0.seen.send_modify(|seen| seen.was_asked = true);
        Ok(())
    }
}

struct Running {
    recorder: Recorder,
    status: Arc<ShardStatus>,
    seen: watch::Receiver<Seen>,
    go_on: Arc<Notify>,
    budget: Arc<ByteBudget>,
    consumer: JoinHandle<Result<ShardShutdown, WorkerError>>,
}

impl Running {
    fn start(pages: Pages, takes: Duration, deeds: &[Deed], config: ConsumerConfig) -> Self {
        let clock = Arc::new(SystemClock) as Arc<dyn Clock>;
        let lease = Lease::new(SHARD, Checkpoint::TrimHorizon);
        let (held_lease, recorder) = HeldLease::recorded(lease, Arc::clone(&clock));
        let problems = Arc::new(ProblemLog::new(Arc::clone(&clock)));
        let totals = Arc::new(Totals::new(Meter::default(), problems));
        let status = Arc::new(ShardStatus::new(SHARD, Arc::clone(held_lease.progress()), totals));
        let processor = Arc::new(Processor {
            takes,
            deeds: Mutex::new(deeds.iter().copied().collect()),
            seen: watch::Sender::default(),
            go_on: Arc::default(),
        });
        let go_on = Arc::clone(&processor.go_on);
        let seen = processor.seen.subscribe();
        let budget = ByteBudget::new(config.max_buffered_bytes);
        let worker = Worker {
            sinks: Sinks::default(),
            application: "application".into(),
            worker_id: "worker".into(),
            stream: "stream".into(),
            budget: Arc::clone(&budget),
            config: Arc::new(config),
            service_clock: ServiceClock::new(Arc::clone(&clock)),
            bounds: None,
            clock,
            retrieval: Arc::new(pages),
            factory: Arc::new(move |_: &ShardContext| Handle(Arc::clone(&processor))),
            executor: Arc::new(tokio::runtime::Handle::current()),
        };
        let may_relinquish = CancellationToken::new();
        may_relinquish.cancel();
        let consumer = ShardConsumer::new(
            Arc::new(worker),
            held_lease,
            Arc::clone(&status),
            may_relinquish,
            7,
        );
        Self { recorder, status, seen, go_on, budget, consumer: tokio::spawn(consumer.run()) }
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let wait = self.seen.wait_for(|seen| wanted(seen));
        let seen = tokio::time::timeout(PATIENCE, wait).await;
        seen.unwrap_or_else(|_| panic!("never: {what}")).unwrap().clone()
    }

    async fn stop(self) -> Vec<Checkpoint> {
        self.recorder.request_shutdown();
        let ended = tokio::time::timeout(PATIENCE, self.consumer).await;
        let outcome = ended.unwrap().unwrap().unwrap();
        assert_eq!(outcome, ShardShutdown::Released);
        self.recorder.checkpoints()
    }
}

fn config(policy: CheckpointPolicy) -> ConsumerConfig {
    ConsumerConfig::default()
        .with_checkpoint(policy)
        .with_retry_initial_delay(Duration::from_millis(1))
}

/// In real time: the next page is always there, and paused time would let every timer of no time come
/// first.
#[tokio::test]
async fn automatic_checkpoints_are_written_while_the_shard_is_behind() {
    let pages = Pages { pages: 100, records: 1 };
    let takes = Duration::from_millis(10);
    let interval = Duration::from_millis(50);
    for (policy, least) in [
        (CheckpointPolicy::AfterBatch, 99),
        // A second of batches, at least.
        (CheckpointPolicy::Interval(interval), 10),
    ] {
        let mut running = Running::start(pages, takes, &[], config(policy));
        running.until("all batches", |seen| seen.batches.len() == 100).await;
        let written = running.recorder.checkpoints().len();
        assert!(written >= least, "{policy:?}: {written}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_batch_that_fails_comes_again_behind_its_checkpoint() {
    let pages = Pages { pages: 2, records: 3 };
    let deeds = [Deed::CheckpointOneAndFail, Deed::Fail, Deed::Take, Deed::CheckpointAllAndFail];
    let policy = CheckpointPolicy::Manual;
    let mut running = Running::start(pages, Duration::ZERO, &deeds, config(policy));
    let seen = running.until("four calls", |seen| seen.batches.len() == 4).await;
    let expected = [
        (1, vec!["0:0", "1:0", "2:0"]),
        (2, vec!["1:0", "2:0"]),
        (3, vec!["1:0", "2:0"]),
        // All of it is checkpointed: it counts as done.
        (1, vec!["3:0", "4:0", "5:0"]),
    ];
    for ((attempt, positions), expected) in seen.batches.iter().zip(expected) {
        let positions: Vec<_> = positions.iter().map(String::as_str).collect();
        assert_eq!((*attempt, positions), expected);
    }
    let status = Arc::clone(&running.status);
    let all_done = async {
        while status.snapshot().records_delivered < 6 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all_done).await.unwrap();
    assert_eq!(status.snapshot().failures, 0);
    let checkpoints: Vec<_> = running.stop().await;
    let checkpoints: Vec<_> = checkpoints.iter().map(ToString::to_string).collect();
    assert_eq!(checkpoints, ["0:0", "5:0"]);
}

#[tokio::test]
async fn an_early_return_at_a_stop_is_no_failure() {
    let logs = Logs::default();
    let _logged = tracing::subscriber::set_default(logs.clone());
    let pages = Pages { pages: 2, records: 1 };
    let deeds = [Deed::WaitForShutdown];
    let policy = CheckpointPolicy::AfterBatch;
    let mut running = Running::start(pages, Duration::ZERO, &deeds, config(policy));
    running.until("a call", |seen| seen.batches.len() == 1).await;
    let (status, mut seen) = (Arc::clone(&running.status), running.seen.clone());
    assert_eq!(running.stop().await, [], "nothing is checkpointed for it");
    let seen = seen.borrow_and_update().clone();
    assert!(seen.was_asked);
    assert_eq!(seen.batches.len(), 1, "nothing is delivered after it");
    assert_eq!(status.snapshot().failures, 0);
    assert_eq!(status.problems().problems(), []);
    assert_eq!(logs.warnings(), [""; 0]);
}

#[tokio::test]
async fn a_stop_reaches_a_processor_that_is_initialized() {
    let logs = Logs::default();
    let _logged = tracing::subscriber::set_default(logs.clone());
    let pages = Pages { pages: 1, records: 1 };
    let deeds = [Deed::WaitInInitialize];
    let config = config(CheckpointPolicy::AfterBatch);
    let mut running = Running::start(pages, Duration::ZERO, &deeds, config);
    running.until("a call", |seen| seen.initializes).await;
    let (status, seen) = (Arc::clone(&running.status), running.seen.clone());
    assert_eq!(running.stop().await, []);
    assert_eq!(seen.borrow().batches, [], "nothing is delivered");
    assert_eq!(status.snapshot().failures, 0);
    assert_eq!(status.problems().problems(), []);
    assert_eq!(logs.warnings(), [""; 0]);
}

#[tokio::test]
async fn the_warning_of_a_failing_processor_has_its_records_and_the_next_attempt() {
    let logs = Logs::default();
    let _logged = tracing::subscriber::set_default(logs.clone());
    let pages = Pages { pages: 1, records: 3 };
    let deeds = [Deed::Fail; 2];
    let policy = CheckpointPolicy::Manual;
    let mut running = Running::start(pages, Duration::ZERO, &deeds, config(policy));
    running.until("three calls", |seen| seen.batches.len() == 3).await;
    running.stop().await;
    let warnings = logs.warnings();
    let [warning] = &warnings[..] else { panic!("limited in rate: {warnings:?}") };
    for part in [
        "shard_id=\"shardId-000000000000\"",
        "call=\"process_records\"",
        "first=0:0",
        "last=2:0",
        "retry_in=",
        "error=told to fail",
    ] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
}

#[tokio::test]
async fn the_warning_of_a_call_that_does_not_return_has_its_records() {
    let logs = Logs::default();
    let _logged = tracing::subscriber::set_default(logs.clone());
    let pages = Pages { pages: 1, records: 3 };
    let policy = CheckpointPolicy::Manual;
    let mut running = Running::start(pages, Duration::ZERO, &[Deed::Wait], config(policy));
    running.until("a call", |seen| seen.batches.len() == 1).await;
    let status = Arc::clone(&running.status);
    status.watch_over(None);
    status.watch_over(Some(PATIENCE));
    assert_eq!(logs.warnings(), [""; 0]);
    // With a limit of zero, each call is slow. The warnings are limited in rate.
    status.watch_over(Some(Duration::ZERO));
    status.watch_over(Some(Duration::ZERO));
    let warnings = logs.warnings();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    for part in [
        "shard_id=\"shardId-000000000000\"",
        "call=\"process_records\"",
        "running_for=",
        "first=0:0",
        "last=2:0",
    ] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    assert_eq!(status.problems().problems().len(), 1);
    running.go_on.notify_one();
    let is_over = async {
        while status.snapshot().call.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_over).await.unwrap();
    assert_eq!(status.problems().problems(), [], "it has returned");
    running.stop().await;
}

/// Keeps warnings and errors, of this thread.
#[derive(Debug, Clone, Default)]
struct Logs(Arc<Mutex<Vec<String>>>);

impl Logs {
    fn warnings(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl tracing::Subscriber for Logs {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}
