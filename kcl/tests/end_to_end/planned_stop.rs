//! A planned stop: its order, and what becomes of the leases in each mode.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeSerializationInterceptorContextRef;
use aws_sdk_dynamodb::config::{BehaviorVersion, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemInput;
use aws_sdk_dynamodb::operation::scan::ScanInput;
use aws_sdk_dynamodb::operation::update_item::UpdateItemInput;
use kcl::{CheckpointPolicy, ConsumerConfig, OnStop, ShardShutdown, WorkerHandle};
use tokio::time::sleep;

use crate::logs::Logs;
use crate::paused::{Paused, config};
use crate::probe::{Call, Deed, Probe};
use crate::setup::{APPLICATION, processing, put};

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(20);
/// The failover time.
const F: Duration = Duration::from_secs(10);

/// What a worker asked of the lease table, in order.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Intercept for Log {
    fn name(&self) -> &'static str {
        "Log"
    }

    fn read_before_serialization(
        &self,
        context: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let input = context.input();
        let entry = if let Some(update) = input.downcast_ref::<UpdateItemInput>() {
            let expression = update.update_expression().unwrap_or_default();
            let removed = expression.split_once("REMOVE").map(|(_, removed)| removed);
            match expression {
                _ if expression.contains("leaseOwner = ") => "give",
                _ if removed.is_some_and(|removed| removed.contains("leaseOwner")) => "release",
                _ if expression.contains("checkpoint = ") => "checkpoint",
                _ => "renew",
            }
        } else if input.downcast_ref::<DeleteItemInput>().is_some() {
            "delete the row"
        } else if let Some(scan) = input.downcast_ref::<ScanInput>() {
            match scan.consistent_read() {
                Some(true) => "look, consistently",
                _ => "look",
            }
        } else {
            return Ok(());
        };
        self.0.lock().unwrap().push(entry);
        Ok(())
    }
}

impl Log {
    /// What was asked since the last call, but for renewals.
    fn take(&self) -> Vec<&'static str> {
        let mut log = std::mem::take(&mut *self.0.lock().unwrap());
        log.retain(|entry| *entry != "renew");
        log
    }
}

struct Stage {
    paused: Paused,
    probe: Probe,
    log: Log,
}

impl Stage {
    async fn new(shards: u32) -> Self {
        Self { paused: Paused::start(shards).await, probe: Probe::new(), log: Log::default() }
    }

    /// A worker whose requests to the lease table are logged.
    async fn worker(&self, config: ConsumerConfig) -> WorkerHandle {
        let dynamodb =
            aws_sdk_dynamodb::config::Builder::from(&self.paused.aws.in_process_config())
                .behavior_version(BehaviorVersion::v2026_01_12())
                .interceptor(self.log.clone());
        let builder = self.paused.builder(&self.probe, config);
        let builder = builder.dynamodb_client(Client::from_conf(dynamodb.build()));
        builder.build().await.unwrap().spawn()
    }

    async fn other(&self, config: ConsumerConfig) -> WorkerHandle {
        let builder = self.paused.builder(&self.probe, config);
        builder.build().await.unwrap().spawn()
    }

    /// Returns the time until the condition holds. In paused time, what has not come after two minutes
    /// never comes.
    async fn until(&self, what: &str, condition: impl Fn() -> bool) -> Duration {
        let began = self.paused.now();
        while !condition() {
            let waited = self.paused.now() - began;
            assert!(waited < 120 * SECOND, "waited in vain: {what}");
            sleep(SECOND / 100).await;
        }
        self.paused.now() - began
    }

    async fn put(&self, ids: std::ops::Range<u64>) {
        put(&self.paused.aws, &self.probe, ids).await;
    }

    async fn owners(&self) -> Vec<Option<String>> {
        let client = Client::new(&self.paused.aws.in_process_config());
        let scan = client.scan().table_name(APPLICATION).consistent_read(true);
        let items = scan.send().await.unwrap().items.unwrap_or_default();
        let leases = items.iter().filter(|item| item.contains_key("checkpoint"));
        leases.map(|lease| Some(lease.get("leaseOwner")?.as_s().unwrap().clone())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_goes_behind_the_last_checkpoint_and_the_row_and_before_a_last_look() {
    for (on_stop, last) in [(OnStop::HandOver, "give"), (OnStop::Release, "release")] {
        let mut stage = Stage::new(2).await;
        stage.probe = Probe::new().without_checkpoints();
        // Apart from progress that renewals write, the only checkpoint is the one at the stop.
        let hourly = CheckpointPolicy::Interval(360 * F);
        let settings = |id| config(id).with_checkpoint(hourly).with_on_stop(on_stop);
        let leaver = stage.worker(settings("w1")).await;
        let other = stage.other(settings("w2")).await;
        let one_each = || processing(&leaver) == 1 && processing(&other) == 1;
        stage.until("one each", one_each).await;
        stage.put(0..100).await;
        stage.until("all records", || stage.probe.is_settled()).await;
        // The worker scans on its schedule now, and not at the moment of the stop.
        sleep(5 * SECOND + SECOND / 2).await;
        // No renewal has written the progress of these records.
        stage.put(100..200).await;
        stage.until("the last records", || stage.probe.is_settled()).await;

        let requested = || stage.probe.calls(Call::ShutdownRequested).len();
        let before = requested();
        stage.log.take();
        leaver.shutdown(DEADLINE).await.unwrap();
        // The processor is told at once, so its checkpoint waits for nothing.
        let mut log = stage.log.take();
        let checkpoint = log.iter().position(|entry| *entry == "checkpoint");
        let given = log.iter().position(|entry| *entry == last);
        assert!(checkpoint < given, "{on_stop:?}: {log:?}");
        log.retain(|entry| *entry != "checkpoint");
        assert_eq!(
            log,
            ["delete the row", "look, consistently", last, "look, consistently"],
            "{on_stop:?}"
        );
        assert_eq!(requested() - before, 1);
        stage.until("the other has both", || processing(&other) == 2).await;
        stage.probe.assert_exact();
        other.shutdown(DEADLINE).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn handed_over_or_released_a_shard_runs_elsewhere_within_seconds() {
    for on_stop in [OnStop::HandOver, OnStop::Release] {
        let stage = Stage::new(4).await;
        let settings = |id| config(id).with_on_stop(on_stop);
        let leaver = stage.worker(settings("w1")).await;
        let other = stage.other(settings("w2")).await;
        let two_each = || processing(&leaver) == 2 && processing(&other) == 2;
        stage.until("two each", two_each).await;
        stage.put(0..400).await;
        // In the middle of the records.
        let report = leaver.shutdown(DEADLINE).await.unwrap();
        assert_eq!((report.drained.len(), report.aborted.len()), (2, 0));
        let expected = match on_stop {
            OnStop::HandOver => ShardShutdown::HandedOver { to: "w2".into() },
            _ => ShardShutdown::Released,
        };
        assert!(report.shards.values().all(|outcome| *outcome == expected), "{report}");
        let owners = stage.owners().await;
        let kept = owners.iter().filter(|owner| owner.as_deref() == Some("w1"));
        assert_eq!(kept.count(), 0, "{on_stop:?}: {owners:?}");
        if on_stop == OnStop::HandOver {
            assert_eq!(owners, vec![Some("w2".to_owned()); 4]);
        }
        stage.put(400..800).await;
        let took = stage.until("the other has all", || processing(&other) == 4);
        let took = took.await;
        assert!(took < 3 * SECOND, "{on_stop:?}: {took:?}");
        stage.until("all records", || stage.probe.is_settled()).await;
        stage.probe.assert_exact();
        other.shutdown(DEADLINE).await.unwrap();
        assert_eq!(stage.owners().await, vec![None; 4], "no worker is left");
    }
}

#[tokio::test(start_paused = true)]
async fn kept_shards_wait_for_their_worker_and_for_others_only_until_they_expire() {
    let stage = Stage::new(2).await;
    let settings = |id| config(id).with_on_stop(OnStop::Keep);
    let first = stage.worker(settings("w1")).await;
    stage.until("it has both", || processing(&first) == 2).await;
    stage.put(0..100).await;
    stage.log.take();
    first.shutdown(DEADLINE).await.unwrap();
    let log = stage.log.take();
    // Released to its own id, for its next process.
    let asked = |what: &str| log.iter().filter(|entry| **entry == what).count();
    assert_eq!((asked("give"), asked("release")), (2, 0), "{log:?}");
    assert_eq!(stage.owners().await, vec![Some("w1".to_owned()); 2]);

    stage.put(100..200).await;
    let again = stage.worker(settings("w1")).await;
    let took = stage.until("it goes on", || processing(&again) == 2).await;
    assert!(took < SECOND, "at once: {took:?}");
    stage.until("all records", || stage.probe.is_settled()).await;
    again.shutdown(DEADLINE).await.unwrap();

    let other = stage.other(settings("w2")).await;
    let took = stage.until("it expires", || processing(&other) == 2).await;
    // A worker that has just started cannot know whether another was assigned the lease a moment ago.
    assert!((F..3 * F).contains(&took), "{took:?}");
    stage.put(200..300).await;
    stage.until("all records", || stage.probe.is_settled()).await;
    stage.probe.assert_exact();
    other.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_next_process_of_the_id_waits_for_the_failover_time() {
    let stage = Stage::new(2).await;
    let settings = || config("w1").with_on_stop(OnStop::Keep);
    let first = stage.worker(settings()).await;
    stage.until("it has both", || processing(&first) == 2).await;
    first.abort();
    // The table cannot tell whether the first one still runs.
    let again = stage.worker(settings()).await;
    let took = stage.until("it goes on", || processing(&again) == 2).await;
    assert!((F / 2..2 * F).contains(&took), "{took:?}");
    again.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_live_processes_of_one_id_never_process_a_shard_together() {
    let stage = Stage::new(2).await;
    let settings = || {
        let config = config("w1").with_on_stop(OnStop::Keep);
        config.with_checkpoint(CheckpointPolicy::AfterBatch)
    };
    let (first, second) = (stage.worker(settings()).await, stage.worker(settings()).await);
    let both = || processing(&first) + processing(&second);
    stage.until("all", || both() == 2).await;
    stage.put(0..200).await;
    let end = stage.paused.now() + 6 * F;
    while stage.paused.now() < end {
        assert!(both() <= 2);
        sleep(SECOND / 10).await;
    }
    stage.until("all records", || stage.probe.is_settled()).await;
    // The next process starts at once on the leases that this one keeps for their id.
    first.shutdown(DEADLINE).await.unwrap();
    let took = stage.until("the other", || processing(&second) == 2).await;
    assert!(took < 2 * SECOND, "{took:?}");
    stage.put(200..400).await;
    stage.until("all records", || stage.probe.is_settled()).await;
    stage.probe.assert_exact();
    second.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_after_a_stop_was_asked_for_is_a_warning_and_an_error_is_none() {
    for panics in [false, true] {
        let logs = Logs::capture();
        let deed = move |_: &str, _: &kcl::RecordBatch<'_>| {
            if panics { Deed::PanicAtStop } else { Deed::FailAtStop }
        };
        let stage = Stage { probe: Probe::new().script(deed), ..Stage::new(1).await };
        let worker = stage.other(config("w1")).await;
        stage.put(0..5).await;
        stage.until("the batch", || stage.probe.calls(Call::Waiting).len() == 1).await;
        worker.shutdown(DEADLINE).await.unwrap();
        let told = |level: &str| {
            let lines = logs.lines(level);
            lines
                .iter()
                .any(|line| line.contains("told to stop") && line.contains("process_records"))
        };
        assert_eq!((told("WARN"), told("INFO")), (panics, !panics), "{:?}", logs.lines(""));
        assert!(logs.lines("ERROR").is_empty(), "{:?}", logs.lines("ERROR"));
    }
}
