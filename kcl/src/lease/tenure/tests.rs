//! A tenure and its writer on the embedded DynamoDB, under a clock that the test moves.

use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use kinesis_testkit::{Fault, LocalAws, Service};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{ConsumerConfig, OnStop, TableConfig};
use crate::lease::client::for_leases;
use crate::lease::dynamodb::DynamoDbLeaseStore;
use crate::lease::store::{LeaseStore, Outcome};
use crate::lease::table::{Layout, ensure};
use crate::lease::writer::WriterContext;

const F: Duration = Duration::from_secs(10);
const KEY: &str = "shardId-0";

/// Stands still until the test moves it.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now()
    }
}

#[derive(Debug, Default)]
struct TestFleet {
    receiver: Option<String>,
    changes: AtomicUsize,
    store: Option<Arc<DynamoDbLeaseStore>>,
}

impl Fleet for TestFleet {
    fn receiver(&self) -> Option<String> {
        self.receiver.clone()
    }

    fn create_children<'a>(
        &'a self,
        _: &'a Lease,
        children: Vec<ChildShard>,
    ) -> BoxFuture<'a, Result<Vec<String>, LeaseStoreError>> {
        Box::pin(async move { Ok(children.into_iter().map(|child| child.shard_id).collect()) })
    }

    fn lease<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseStoreError>> {
        Box::pin(async move {
            match &self.store {
                Some(store) => store.get(key).await,
                None => Ok(None),
            }
        })
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}

struct Fixture {
    aws: LocalAws,
    store: Arc<DynamoDbLeaseStore>,
    clock: Arc<ManualClock>,
    context: WriterContext,
}

impl Fixture {
    async fn new(receiver: Option<&str>, on_stop: OnStop) -> Self {
        let aws = LocalAws::start().await.unwrap();
        let client = for_leases(&aws.dynamodb(), &ConsumerConfig::default());
        ensure(&client, "app", &TableConfig::default())
            .await
            .unwrap();
        let store = Arc::new(DynamoDbLeaseStore::new(
            client,
            "app".into(),
            Layout::OneTable,
        ));
        let clock = Arc::new(ManualClock::default());
        clock.advance(Duration::from_secs(100));
        let fleet = TestFleet {
            receiver: receiver.map(str::to_owned),
            store: Some(Arc::clone(&store)),
            ..TestFleet::default()
        };
        let context = WriterContext {
            worker_id: "me".into(),
            store: Arc::clone(&store) as Arc<dyn LeaseStore>,
            fleet: Arc::new(fleet),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            failover: F,
            on_stop,
            stopped: CancellationToken::new(),
        };
        store
            .create(&Lease::new(KEY, Checkpoint::TrimHorizon))
            .await
            .unwrap();
        Self {
            aws,
            store,
            clock,
            context,
        }
    }

    async fn item(&self) -> Lease {
        self.store.get(KEY).await.unwrap().unwrap()
    }

    async fn begin(&self) -> (Tenure, JoinHandle<()>) {
        let sent = self.clock.now();
        let lease = self
            .store
            .take(&self.item().await, "me")
            .await
            .unwrap()
            .applied()
            .unwrap();
        let (tenure, writer) = Tenure::begin(self.context.clone(), lease, sent);
        (tenure, tokio::spawn(writer.run()))
    }

    /// Waits until the item is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Lease) -> bool) -> Lease {
        for _ in 0..2000 {
            let item = self.item().await;
            if wanted(&item) {
                return item;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}: {:?}", self.item().await);
    }

    /// A leader elsewhere starts a handoff.
    async fn handed_to(&self, worker: &str) {
        let started = self.store.start_handoff(&self.item().await, worker).await;
        started.unwrap().applied().unwrap();
    }

    async fn taken_by(&self, worker: &str) -> Lease {
        self.store
            .take(&self.item().await, worker)
            .await
            .unwrap()
            .applied()
            .unwrap()
    }
}

/// A lease that this worker has just taken, and its running writer.
async fn held() -> (Fixture, Tenure, JoinHandle<()>) {
    let fixture = Fixture::new(None, OnStop::Keep).await;
    let (tenure, writer) = fixture.begin().await;
    (fixture, tenure, writer)
}

/// Waits until the writer has taken in the answer: were the clock moved before, it would come too
/// late for the fence.
async fn answered(tenure: &Tenure, counter: u64) {
    while tenure.lease().counter < counter {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn at(sequence: &str) -> Checkpoint {
    Checkpoint::parse(sequence, 0).unwrap()
}

#[track_caller]
fn is_lost(result: Result<(), CheckpointError>) {
    assert!(
        matches!(result, Err(CheckpointError::LeaseLost { .. })),
        "{result:?}"
    );
}

#[tokio::test]
async fn renews_at_half_the_failover_time_and_moves_the_fence() {
    let (fixture, tenure, _writer) = held().await;
    assert_eq!(
        tenure.fencing_token(),
        FencingToken {
            lease_key: KEY.into(),
            counter: 1
        }
    );
    tenure.record_bytes(10 * 1024);
    fixture.clock.advance(F / 2);
    let renewed = fixture.until("renewed", |lease| lease.counter == 2).await;
    assert_eq!(renewed.throughput, Some(2.0), "10 KiB in 5 s");
    answered(&tenure, 2).await;
    fixture.clock.advance(F / 2);
    answered(&tenure, 3).await;
    fixture.clock.advance(F / 2 - Duration::from_millis(1));
    assert!(tenure.is_held(), "fence counts from the renewals");
}

#[tokio::test]
async fn a_checkpoint_counts_as_a_renewal() {
    let (fixture, tenure, _writer) = held().await;
    for step in 1..=4u64 {
        fixture.clock.advance(F / 4);
        tenure.checkpoint(at(&step.to_string())).await.unwrap();
        assert_eq!(
            fixture.item().await.counter,
            1 + step,
            "no renewal besides the checkpoints"
        );
    }
    fixture.clock.advance(F - Duration::from_millis(1));
    assert!(tenure.is_held());
    assert_eq!(tenure.lease().checkpoint, at("4"));
}

#[tokio::test]
async fn the_fence_falls_when_the_table_is_silent_and_every_checkpoint_is_refused() {
    let (fixture, tenure, writer) = held().await;
    fixture
        .aws
        .faults()
        .add(Fault::cut_connection().service(Service::DynamoDb));
    fixture.clock.advance(F - Duration::from_millis(1));
    assert!(tenure.is_held());
    fixture.clock.advance(Duration::from_millis(1));
    assert!(!tenure.is_held(), "judged by the clock at once");
    tenure.lost().cancelled().await;
    fixture.aws.faults().clear();
    is_lost(tenure.checkpoint(at("5")).await);
    assert!(!writer.is_finished(), "until the consumer lets go");
    tenure.end(TenureEnd::Lost).await;
    writer.await.unwrap();
    is_lost(tenure.checkpoint(at("5")).await);
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::TrimHorizon);
}

#[tokio::test]
async fn a_brownout_shorter_than_the_fence_loses_nothing() {
    let (fixture, tenure, _writer) = held().await;
    let fault = fixture.aws.faults().add(
        Fault::throttle()
            .service(Service::DynamoDb)
            .operation("UpdateItem"),
    );
    fixture.clock.advance(F / 2);
    let error = tenure.checkpoint(at("5")).await.unwrap_err();
    assert!(
        matches!(error, CheckpointError::Throttled { .. }),
        "{error:?}"
    );
    assert!(error.is_retryable());
    fixture.aws.faults().remove(fault);
    fixture.clock.advance(F / 4);
    fixture.until("renewed", |lease| lease.counter > 1).await;
    tenure.checkpoint(at("5")).await.unwrap();
    assert!(tenure.is_held());
}

#[tokio::test]
async fn a_checkpoint_after_a_take_over_is_refused_and_overwrites_nothing() {
    let (fixture, tenure, _writer) = held().await;
    tenure.checkpoint(at("5")).await.unwrap();
    let taken = fixture.taken_by("other").await;
    is_lost(tenure.checkpoint(at("6")).await);
    assert!(!tenure.is_held() && tenure.lost().is_cancelled());
    assert_eq!(fixture.item().await, taken);
}

#[tokio::test]
async fn a_checkpointer_of_an_earlier_tenure_is_refused() {
    let (fixture, early, writer) = held().await;
    let clone = early.clone();
    early.end(TenureEnd::Lost).await;
    writer.await.unwrap();
    let (late, _writer) = fixture.begin().await;
    is_lost(clone.checkpoint(at("5")).await);
    is_lost(clone.prepare_checkpoint(at("5"), None).await);
    late.checkpoint(at("7")).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, at("7"));
    assert!(late.fencing_token() > early.fencing_token());
}

#[tokio::test]
async fn lost_answers_are_no_loss_even_when_the_whole_call_failed() {
    let (fixture, tenure, _writer) = held().await;
    let faults = fixture.aws.faults();
    // Answers of writes and of the read that follows are lost: the call fails, the write is done.
    let lose = || {
        let lost = Fault::response_lost().service(Service::DynamoDb);
        [
            faults.add(lost.clone().operation("UpdateItem")),
            faults.add(lost.operation("GetItem")),
        ]
    };
    let ids = lose();
    let error = tenure.checkpoint(at("5")).await.unwrap_err();
    assert!(
        matches!(
            error,
            CheckpointError::Store {
                retryable: true,
                ..
            }
        ),
        "{error:?}"
    );
    for id in ids {
        faults.remove(id);
    }
    assert_eq!(
        fixture.item().await.checkpoint,
        at("5"),
        "written nevertheless"
    );
    // The next write finds the counter one further, and knows why.
    tenure.checkpoint(at("6")).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, at("6"));

    let ids = lose();
    fixture.clock.advance(F / 2);
    // The renewal was done, and nobody heard of it.
    while faults.count(ids[0]) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for id in ids {
        faults.remove(id);
    }
    tenure.checkpoint(at("7")).await.unwrap();
    assert!(tenure.is_held());
}

#[tokio::test]
async fn a_throttled_retry_after_a_lost_answer_is_no_loss() {
    let (fixture, tenure, _writer) = held().await;
    let faults = fixture.aws.faults();
    let update = |fault: Fault| fault.service(Service::DynamoDb).operation("UpdateItem");
    // The first attempt is written and not answered; the retries are throttled.
    faults.add(update(Fault::response_lost()).times(1));
    let throttle = faults.add(update(Fault::throttle()).skip(1));
    let error = tenure.checkpoint(at("5")).await.unwrap_err();
    assert!(
        matches!(error, CheckpointError::Throttled { .. }),
        "{error:?}"
    );
    faults.remove(throttle);
    assert_eq!(fixture.item().await.checkpoint, at("5"), "written");
    tenure.checkpoint(at("6")).await.unwrap();
    assert!(tenure.is_held());
}

#[tokio::test]
async fn a_handoff_taken_back_renews_nothing_until_a_renewal_does() {
    let (fixture, tenure, _writer) = held().await;
    tenure.start_handoff("next");
    tenure.handoff_requested().cancelled().await;
    // A leader assigns it back: one more on the counter, as a renewal would leave it.
    let pending = fixture.item().await;
    let back = fixture.store.assign(&pending, "me", false).await.unwrap();
    assert_eq!(back.applied().unwrap().counter, 2);
    fixture.aws.faults().add(
        Fault::throttle()
            .service(Service::DynamoDb)
            .operation("UpdateItem")
            .skip(1),
    );
    fixture.clock.advance(F / 2);
    // The first write finds the counter moved, the next ones fail: nothing proved this worker alive.
    answered(&tenure, 2).await;
    assert!(tenure.is_held());
    fixture.clock.advance(F / 2);
    assert!(!tenure.is_held(), "the fence did not move");
}

#[tokio::test]
async fn a_handoff_taken_back_is_renewed_at_once() {
    let (fixture, tenure, _writer) = held().await;
    tenure.start_handoff("next");
    tenure.handoff_requested().cancelled().await;
    let pending = fixture.item().await;
    fixture.store.assign(&pending, "me", false).await.unwrap();
    fixture.clock.advance(F / 2);
    // Without another step of the clock.
    answered(&tenure, 3).await;
    fixture.clock.advance(F - Duration::from_millis(1));
    assert!(tenure.is_held());
}

#[tokio::test]
async fn a_checkpoint_that_nobody_heard_of_is_not_taken_back() {
    let (fixture, tenure, _writer) = held().await;
    let faults = fixture.aws.faults();
    let unheard = async |checkpoint: Checkpoint| {
        let lost = Fault::response_lost().service(Service::DynamoDb);
        let ids = [
            faults.add(lost.clone().operation("UpdateItem")),
            faults.add(lost.operation("GetItem")),
        ];
        tenure.checkpoint(checkpoint.clone()).await.unwrap_err();
        for id in ids {
            faults.remove(id);
        }
        assert_eq!(fixture.item().await.checkpoint, checkpoint, "written");
    };
    unheard(at("10")).await;
    tenure.prepare_checkpoint(at("12"), None).await.unwrap();
    let item = fixture.item().await;
    assert_eq!(item.checkpoint, at("10"));
    assert_eq!(item.pending.unwrap().checkpoint, at("12"));

    unheard(at("20")).await;
    let error = tenure.checkpoint(at("15")).await.unwrap_err();
    assert!(
        matches!(&error, CheckpointError::OutOfRange { lowest, .. } if *lowest == at("20")),
        "{error:?}"
    );

    // The renewal that is due now has no part in what follows.
    tenure.checkpoint(at("21")).await.unwrap();
    unheard(Checkpoint::ShardEnd).await;
    tenure.checkpoint(at("30")).await.unwrap_err();
    tenure.prepare_checkpoint(at("30"), None).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::ShardEnd);
    assert!(tenure.is_held());
}

#[tokio::test]
async fn a_checkpoint_never_goes_back() {
    let (fixture, tenure, _writer) = held().await;
    tenure.checkpoint(at("9")).await.unwrap();
    let error = tenure.checkpoint(at("8")).await.unwrap_err();
    assert!(
        matches!(error, CheckpointError::OutOfRange { .. }),
        "{error:?}"
    );
    tenure.checkpoint(Checkpoint::ShardEnd).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::ShardEnd);
}

#[tokio::test]
async fn two_phases_keep_the_state_until_the_checkpoint() {
    let (fixture, tenure, _writer) = held().await;
    let state = Some(Bytes::from_static(b"offsets"));
    tenure
        .prepare_checkpoint(at("5"), state.clone())
        .await
        .unwrap();
    let item = fixture.item().await;
    assert_eq!(
        item.pending,
        Some(PendingCheckpoint {
            checkpoint: at("5"),
            state
        })
    );
    assert_eq!(item.checkpoint, Checkpoint::TrimHorizon);
    tenure.checkpoint(at("5")).await.unwrap();
    assert_eq!(fixture.item().await.pending, None);
}

#[tokio::test]
async fn a_handoff_is_seen_at_the_next_write_and_transferred() {
    let (fixture, tenure, writer) = held().await;
    fixture.handed_to("next").await;
    assert!(!tenure.handoff_requested().is_cancelled());
    tenure.checkpoint(at("5")).await.unwrap();
    assert!(tenure.handoff_requested().is_cancelled());
    // Renewals and checkpoints go on while it drains.
    fixture.clock.advance(F / 2);
    fixture.until("renewed", |lease| lease.counter == 3).await;
    tenure.checkpoint(at("6")).await.unwrap();
    tenure.end(TenureEnd::Transfer).await;
    writer.await.unwrap();
    let item = fixture.item().await;
    assert_eq!(
        (item.owner.as_deref(), &item.checkpoint_owner),
        (Some("next"), &None)
    );
    assert!(item.was_released_to_owner() && item.checkpoint == at("6"));
    is_lost(tenure.checkpoint(at("7")).await);
}

#[tokio::test]
async fn a_renewal_sees_the_handoff_too_and_the_owner_can_start_one() {
    let (fixture, tenure, _writer) = held().await;
    fixture.handed_to("next").await;
    fixture.clock.advance(F / 2);
    tenure.handoff_requested().cancelled().await;
    assert!(tenure.is_held());

    let (fixture, tenure, _writer) = held().await;
    tenure.start_handoff("next");
    tenure.handoff_requested().cancelled().await;
    let item = fixture.item().await;
    assert_eq!(
        (item.owner.as_deref(), item.checkpoint_owner.as_deref()),
        (Some("next"), Some("me"))
    );
}

#[tokio::test]
async fn a_handoff_that_drags_on_is_forced_before_a_java_leader_would() {
    let (fixture, tenure, _writer) = held().await;
    tenure.start_handoff("next");
    tenure.handoff_requested().cancelled().await;
    let mut counter = fixture.item().await.counter;
    for _ in 0..4 {
        fixture.clock.advance(Duration::from_secs(6));
        counter = fixture
            .until("renewed", |lease| lease.counter > counter)
            .await
            .counter;
        answered(&tenure, counter).await;
        assert!(!tenure.lost().is_cancelled());
    }
    fixture.clock.advance(Duration::from_secs(1));
    tenure.lost().cancelled().await;
    let item = fixture
        .until("transferred", |lease| !lease.is_handoff_pending())
        .await;
    assert_eq!(item.owner.as_deref(), Some("next"));
    assert!(
        !item.was_released_to_owner(),
        "the processor may still be at work"
    );
    is_lost(tenure.checkpoint(at("9")).await);
}

#[tokio::test]
async fn a_forced_handoff_does_not_complete_a_later_one() {
    let (fixture, tenure, writer) = held().await;
    tenure.start_handoff("next");
    tenure.handoff_requested().cancelled().await;
    let mut lease = fixture.item().await;
    for _ in 0..4 {
        fixture.clock.advance(Duration::from_secs(6));
        let counter = lease.counter;
        lease = fixture
            .until("renewed", |lease| lease.counter > counter)
            .await;
        answered(&tenure, lease.counter).await;
    }
    // Back, and once more to the same worker.
    let back = fixture.store.assign(&lease, "me", false).await.unwrap();
    let again = fixture
        .store
        .start_handoff(&back.applied().unwrap(), "next")
        .await
        .unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    tenure.lost().cancelled().await;
    tenure.end(TenureEnd::Lost).await;
    writer.await.unwrap();
    assert_eq!(fixture.item().await, again.applied().unwrap());
}

#[tokio::test]
async fn an_aborted_processor_is_told_and_its_lease_is_not_released() {
    for (receiver, on_stop, owner) in [
        (Some("w2"), OnStop::HandOver, "w2"),
        (None, OnStop::HandOver, "me"),
        (Some("w2"), OnStop::Release, "me"),
        (Some("w2"), OnStop::Keep, "me"),
    ] {
        let fixture = Fixture::new(receiver, on_stop).await;
        let (tenure, writer) = fixture.begin().await;
        let delay = Fault::delay(Duration::from_millis(100)).service(Service::DynamoDb);
        let delay = fixture.aws.faults().add(delay.operation("UpdateItem"));
        let (ending, lost) = (tenure.clone(), tenure.lost());
        let ending = tokio::spawn(async move { ending.end(TenureEnd::Aborted).await });
        lost.cancelled().await;
        let told_first = fixture.item().await.owner.as_deref() == Some("me");
        assert!(told_first, "{on_stop:?}");
        ending.await.unwrap();
        writer.await.unwrap();
        fixture.aws.faults().remove(delay);
        let item = fixture.item().await;
        assert_eq!(item.owner.as_deref(), Some(owner), "{on_stop:?}");
        assert!(!item.was_released_to_owner(), "{on_stop:?}");
    }
}

#[tokio::test]
async fn giving_away_assigns_to_the_receiver_or_releases() {
    for (receiver, on_stop, owner) in [
        (Some("w2"), OnStop::HandOver, Some("w2")),
        (None, OnStop::HandOver, None),
        (Some("w2"), OnStop::Release, None),
        (Some("w2"), OnStop::Keep, Some("me")),
    ] {
        let fixture = Fixture::new(receiver, on_stop).await;
        let (tenure, writer) = fixture.begin().await;
        tenure.end(TenureEnd::GiveAway).await;
        writer.await.unwrap();
        let item = fixture.item().await;
        assert_eq!(item.owner.as_deref(), owner, "{on_stop:?}");
        assert_eq!(
            item.was_released_to_owner(),
            owner == Some("w2"),
            "{on_stop:?}"
        );
        tenure.end(TenureEnd::GiveAway).await;
        assert_eq!(fixture.item().await, item, "once");
    }
}

#[tokio::test]
async fn giving_away_completes_a_handoff_that_nobody_had_told_of() {
    for on_stop in [OnStop::HandOver, OnStop::Release] {
        let fixture = Fixture::new(Some("w2"), on_stop).await;
        let (tenure, _writer) = fixture.begin().await;
        fixture.handed_to("next").await;
        tenure.end(TenureEnd::GiveAway).await;
        let item = fixture.item().await;
        assert_eq!(
            (item.owner.as_deref(), &item.checkpoint_owner),
            (Some("next"), &None)
        );
    }
}

#[tokio::test]
async fn giving_away_what_was_taken_changes_nothing() {
    let fixture = Fixture::new(Some("w2"), OnStop::HandOver).await;
    let (tenure, _writer) = fixture.begin().await;
    let taken = fixture.taken_by("other").await;
    tenure.end(TenureEnd::GiveAway).await;
    assert_eq!(fixture.item().await, taken);
}

#[tokio::test]
async fn a_dropped_tenure_is_renewed_no_more() {
    let fixture = Fixture::new(None, OnStop::HandOver).await;
    let (tenure, writer) = fixture.begin().await;
    let lost = tenure.lost();
    drop(tenure);
    writer.await.unwrap();
    assert!(lost.is_cancelled());
    assert_eq!(fixture.item().await.counter, 1);
}

#[tokio::test]
async fn parents_have_ended_when_their_leases_are_gone_or_at_the_end() {
    let fixture = Fixture::new(None, OnStop::Keep).await;
    let mut child = Lease::new("child", Checkpoint::TrimHorizon);
    child.parents = [KEY.to_owned(), "gone".to_owned()].into();
    fixture.store.create(&child).await.unwrap();
    let child = fixture
        .store
        .take(&child, "me")
        .await
        .unwrap()
        .applied()
        .unwrap();
    let (tenure, _writer) = Tenure::begin(fixture.context.clone(), child, fixture.clock.now());
    assert!(!tenure.parents_ended().await.unwrap());
    let (parent, writer) = fixture.begin().await;
    parent.checkpoint(Checkpoint::ShardEnd).await.unwrap();
    parent.end(TenureEnd::ShardEnded).await;
    writer.await.unwrap();
    assert!(tenure.parents_ended().await.unwrap());
    let ended = fixture.item().await;
    assert!(matches!(
        fixture.store.delete(&ended).await.unwrap(),
        Outcome::Applied(_)
    ));
    assert!(tenure.parents_ended().await.unwrap());
}
