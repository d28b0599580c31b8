//! DynamoDB refuses, or does not answer, for a while.

use std::time::Duration;

use kcl::{CheckpointPolicy, WorkerHandle};
use kinesis_testkit::{Fault, Service};
use tokio::time::sleep;

use crate::paused::{Paused, config};
use crate::probe::{Call, Probe};
use crate::setup::{processing, put};

const SECOND: Duration = Duration::from_secs(1);
/// The failover time.
const F: Duration = Duration::from_secs(10);

/// DynamoDB refuses everything.
fn refusing(lasting: Duration) -> Fault {
    Fault::brownout(lasting).service(Service::DynamoDb)
}

/// Nothing is answered, nor carried out: each attempt of a call waits out its time limit.
fn silent(lasting: Duration) -> Fault {
    let forever = Fault::delay(3600 * SECOND);
    forever.lasting(lasting).service(Service::DynamoDb)
}

/// Everything is carried out, and no answer arrives.
fn answerless(lasting: Duration) -> Fault {
    let lost = Fault::response_lost().lasting(lasting);
    lost.service(Service::DynamoDb)
}

/// Two workers, a shard each, whose library checkpoints after each batch.
struct Fleet {
    paused: Paused,
    probe: Probe,
    workers: [WorkerHandle; 2],
}

impl Fleet {
    async fn start() -> Self {
        let probe = Probe::new().without_checkpoints();
        Self::of(probe, CheckpointPolicy::AfterBatch).await
    }

    async fn of(probe: Probe, policy: CheckpointPolicy) -> Self {
        let paused = Paused::start(2).await;
        let worker = async |id| {
            let config = config(id).with_checkpoint(policy);
            paused.builder(&probe, config).build().await.unwrap().spawn()
        };
        let workers = [worker("w1").await, worker("w2").await];
        let fleet = Self { paused, probe, workers };
        fleet.until("one each", || fleet.one_each()).await;
        fleet
    }

    fn one_each(&self) -> bool {
        self.workers.iter().all(|worker| processing(worker) == 1)
    }

    /// In paused time, what has not come after ten minutes never comes.
    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        for _ in 0..6_000 {
            if condition() {
                return;
            }
            sleep(SECOND / 10).await;
        }
        panic!("waited in vain: {what}");
    }

    async fn put(&self, ids: std::ops::Range<u64>) {
        put(&self.paused.aws, &self.probe, ids).await;
    }

    async fn settled(&self) {
        self.until("all records", || self.probe.is_settled()).await;
        // The checkpoint comes right after.
        sleep(SECOND).await;
    }

    fn lost_leases(&self) -> usize {
        self.probe.calls(Call::LeaseLost).len()
    }

    /// Nothing skipped, nothing out of order, and no processor was given a record after the next one
    /// of its shard had started. Returns the number of records that came twice.
    fn verdict(&self) -> u64 {
        let seen = self.probe.seen();
        for shard in ["shardId-000000000000", "shardId-000000000001"] {
            let ownerships: Vec<_> =
                seen.iter().filter(|seen| seen.shard == shard).map(|seen| seen.ownership).collect();
            assert!(!ownerships.is_empty() && ownerships.is_sorted(), "{ownerships:?}");
        }
        let verdict = self.probe.verdict();
        assert_eq!((verdict.lost, verdict.out_of_order), (0, 0), "{verdict:?}");
        verdict.redelivered
    }

    async fn stop(self) {
        for worker in &self.workers {
            worker.shutdown(F).await.unwrap();
        }
    }
}

/// Shorter than half of the failover time and what a renewal may take.
async fn of_5_s(fault: Fault) {
    of_5_s_in(Fleet::start().await, fault).await;
}

async fn of_5_s_in(fleet: Fleet, fault: Fault) {
    fleet.put(0..100).await;
    fleet.settled().await;
    let fault = fleet.paused.aws.faults().add(fault);
    for round in 1..20 {
        fleet.put(round * 100..(round + 1) * 100).await;
        sleep(SECOND / 2).await;
    }
    fleet.settled().await;
    assert!(fleet.paused.aws.faults().count(fault) > 0);
    assert_eq!(fleet.lost_leases(), 0);
    assert_eq!(fleet.verdict(), 0, "exactly once");
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_of_5_s_is_not_noticed() {
    of_5_s(refusing(5 * SECOND)).await;
}

#[tokio::test(start_paused = true)]
async fn a_silence_of_5_s_is_not_noticed() {
    of_5_s(silent(5 * SECOND)).await;
}

#[tokio::test(start_paused = true)]
async fn answers_lost_for_5_s_are_not_noticed() {
    of_5_s(answerless(5 * SECOND)).await;
}

/// Their checkpoints fail for 5 s, and they return the error, as the README does.
#[tokio::test(start_paused = true)]
async fn processors_that_checkpoint_by_themselves_do_not_notice_one_of_5_s() {
    for fault in [refusing(5 * SECOND), answerless(5 * SECOND)] {
        let fleet = Fleet::of(Probe::new(), CheckpointPolicy::Manual).await;
        of_5_s_in(fleet, fault).await;
    }
}

/// A renewal is due F/2 after the last, and its attempts give up after 2 s each: one of them must fall
/// behind the silence and be answered before the fence. If none does, the fence falls, in time, and
/// the worker takes its lease back.
#[tokio::test(start_paused = true)]
async fn a_silence_of_5_s_is_survived_unless_it_begins_right_before_a_renewal() {
    for (tenths, seconds, lost) in [(10, 5, 0), (20, 5, 0), (30, 5, 0), (45, 4, 0), (45, 5, 2)] {
        let fleet = Fleet::start().await;
        let renewed = fleet.paused.now();
        fleet.put(0..100).await;
        fleet.until("all records", || fleet.probe.is_settled()).await;
        // The next checkpoint, which counts as a renewal, follows within the pause between two reads.
        let since = fleet.paused.now() - renewed;
        assert!(since < SECOND, "{since:?}");
        sleep(tenths * SECOND / 10 - since).await;
        fleet.paused.aws.faults().add(silent(seconds * SECOND));
        sleep(F).await;
        assert_eq!(fleet.lost_leases(), lost, "{seconds} s after {tenths}");
        fleet.put(100..200).await;
        fleet.settled().await;
        fleet.until("one each", || fleet.one_each()).await;
        assert_eq!(fleet.verdict(), 0, "exactly once");
        fleet.stop().await;
    }
}

/// Longer than the failover time: the fence falls. Returns the number of records that came twice.
async fn longer(fault: fn(Duration) -> Fault, lasting: Duration) -> u64 {
    let fleet = Fleet::start().await;
    fleet.put(0..100).await;
    fleet.settled().await;
    let began = fleet.paused.now();
    fleet.paused.aws.faults().add(fault(lasting));

    // Kinesis answers, and the leases are good for up to F: processing goes on.
    fleet.put(100..150).await;
    sleep(2 * SECOND).await;
    assert_eq!(fleet.probe.verdict().delivered, 150);
    assert_eq!(fleet.lost_leases(), 0);

    fleet.until("the fences", || fleet.lost_leases() == 2).await;
    let fell = fleet.paused.now() - began;
    assert!((F / 2..=F).contains(&fell), "{fell:?}");
    fleet.put(150..200).await;
    sleep(lasting - fell - SECOND).await;
    assert_eq!(fleet.probe.verdict().delivered, 150, "nothing without a lease");

    fleet.settled().await;
    fleet.until("both are back", || fleet.one_each()).await;
    let back = fleet.paused.now() - began - lasting;
    assert!(back < F + 10 * SECOND, "{back:?}");
    fleet.put(200..300).await;
    fleet.settled().await;
    let redelivered = fleet.verdict();
    fleet.stop().await;
    redelivered
}

#[tokio::test(start_paused = true)]
async fn one_of_15_s_stops_at_the_fence_and_resumes() {
    let redelivered = longer(refusing, 15 * SECOND).await;
    assert_eq!(redelivered, 50, "of these no checkpoint could be written");
}

#[tokio::test(start_paused = true)]
async fn one_of_5_min_stops_at_the_fence_and_resumes() {
    let redelivered = longer(refusing, 300 * SECOND).await;
    assert_eq!(redelivered, 50, "of these no checkpoint could be written");
}

#[tokio::test(start_paused = true)]
async fn a_silence_of_15_s_or_5_min_stops_at_the_fence_and_resumes() {
    for lasting in [15 * SECOND, 300 * SECOND] {
        let redelivered = longer(silent, lasting).await;
        assert_eq!(redelivered, 50, "of these no checkpoint could be written");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_lost_for_15_s_or_5_min_stop_at_the_fence_and_it_resumes() {
    for lasting in [15 * SECOND, 300 * SECOND] {
        let redelivered = longer(answerless, lasting).await;
        assert_eq!(redelivered, 0, "the checkpoints were written");
    }
}

/// Nothing is delivered while it lasts: then every record comes exactly once.
#[tokio::test(start_paused = true)]
async fn without_records_under_way_each_comes_once() {
    for fault in
        [refusing(15 * SECOND), refusing(300 * SECOND), silent(15 * SECOND), silent(300 * SECOND)]
    {
        let fleet = Fleet::start().await;
        fleet.put(0..100).await;
        fleet.settled().await;
        fleet.paused.aws.faults().add(fault);
        fleet.until("the fences", || fleet.lost_leases() == 2).await;
        fleet.put(100..200).await;
        fleet.settled().await;
        assert_eq!(fleet.verdict(), 0, "exactly once");
        fleet.stop().await;
    }
}

async fn planned_stop_in_the_middle(fault: Fault) {
    let fleet = Fleet::start().await;
    fleet.put(0..100).await;
    fleet.settled().await;
    fleet.paused.aws.faults().add(fault);
    let began = fleet.paused.now();
    // The worker can neither remove its row nor hand its lease over.
    fleet.workers[0].shutdown(F).await.unwrap();
    let took = fleet.paused.now() - began;
    assert!(took <= F + WorkerHandle::STOP_MARGIN, "{took:?}");
    fleet.put(100..200).await;
    fleet.until("all records", || fleet.probe.is_settled()).await;
    fleet.until("the other has both", || processing(&fleet.workers[1]) == 2).await;
    assert_eq!(fleet.verdict(), 0, "exactly once");
    fleet.workers[1].shutdown(F).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_planned_stop_in_the_middle_of_one_ends_and_others_go_on_behind_it() {
    planned_stop_in_the_middle(refusing(300 * SECOND)).await;
}

#[tokio::test(start_paused = true)]
async fn a_planned_stop_in_the_middle_of_a_silence_ends_too() {
    planned_stop_in_the_middle(silent(300 * SECOND)).await;
}
