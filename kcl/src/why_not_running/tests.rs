//! Every answer, and the state that it describes.

use std::sync::{Arc, LazyLock};

use super::*;
use crate::clock::SystemClock;
use crate::lease_table::CorruptLease;
use crate::snapshot::ProcessorCall;

/// Nothing fails.
static NOTHING: LazyLock<ProblemLog> = LazyLock::new(problems);

fn problems() -> ProblemLog {
    ProblemLog::new(Arc::new(SystemClock))
}

const F: Duration = Duration::from_secs(10);
const SHARD: &str = "shardId-000000000002";

fn lease(shard_id: &str, owner: Option<&str>) -> LeaseSnapshot {
    LeaseSnapshot {
        shard_id: shard_id.to_owned(),
        owner: owner.map(str::to_owned),
        pending_owner: None,
        counter: 1,
        checkpoint: Checkpoint::TrimHorizon,
        parents: Vec::new(),
        children: Vec::new(),
        owned_for: Duration::from_secs(7),
        heartbeat_age: Duration::from_secs(1),
        checkpoint_age: Duration::from_secs(1),
    }
}

fn table(leases: Vec<LeaseSnapshot>) -> LeaseTableSnapshot {
    LeaseTableSnapshot {
        age: Duration::ZERO,
        leases,
        corrupt: vec![CorruptLease {
            key: "shardId-bad".to_owned(),
            problem: "checkpoint is missing".to_owned(),
        }],
    }
}

fn own(state: ShardState, failures: u32) -> ShardSnapshot {
    ShardSnapshot {
        shard_id: SHARD.to_owned(),
        state,
        records_delivered: 0,
        millis_behind_latest: None,
        lag: None,
        batch_in_hand_for: None,
        call: None,
        failures,
        last_failure: (failures > 0).then(|| "no disk".to_owned()),
        read_failures: 0,
        last_read_failure: None,
        records_trimmed: None,
    }
}

fn asker(own: Option<ShardSnapshot>) -> Asker<'static> {
    Asker {
        worker_id: "me",
        failover: F,
        has_stopped: false,
        is_blocked: false,
        at_limit: false,
        slow_after: Some(F),
        stops_at_gaps: false,
        problems: &NOTHING,
        own,
    }
}

/// The answer for [`SHARD`] with this lease and no consumer.
fn of(lease: LeaseSnapshot) -> WhyNotRunning {
    let table = table(vec![lease]);
    why_not_running(SHARD, &asker(None), Some(&table)).unwrap()
}

#[test]
fn a_call_that_does_not_return_is_named_in_any_state() {
    let call = |running_for| ProcessorCall { name: "process_records", running_for };
    for (state, failures) in [
        (ShardState::Processing, 0),
        (ShardState::Processing, 3),
        (ShardState::Initializing, 0),
        (ShardState::ShuttingDown(ShutdownReason::Requested), 0),
    ] {
        let mut here = own(state, failures);
        here.call = Some(call(F));
        let slow = why_not_running(SHARD, &asker(Some(here.clone())), None);
        assert_eq!(
            slow,
            Some(WhyNotRunning::SlowCall { call: "process_records", since: F }),
            "{state:?}"
        );
        here.call = Some(call(F / 2));
        let quick = why_not_running(SHARD, &asker(Some(here.clone())), None);
        assert!(!matches!(quick, Some(WhyNotRunning::SlowCall { .. })));
        here.call = Some(call(F));
        let never = Asker { slow_after: None, ..asker(Some(here)) };
        let never = why_not_running(SHARD, &never, None);
        assert!(!matches!(never, Some(WhyNotRunning::SlowCall { .. })));
    }
}

#[test]
fn a_shard_that_is_processed_here_needs_no_reason() {
    let table = table(vec![lease(SHARD, Some("me"))]);
    let here = asker(Some(own(ShardState::Processing, 0)));
    assert_eq!(why_not_running(SHARD, &here, Some(&table)), None);
    assert_eq!(why_not_running(SHARD, &here, None), None);
    let stopped = Asker { has_stopped: true, ..here };
    assert_eq!(why_not_running(SHARD, &stopped, Some(&table)), Some(WhyNotRunning::WorkerStopped));
}

#[test]
fn a_shard_of_this_worker_is_told_by_its_consumer() {
    let table = table(vec![
        LeaseSnapshot {
            parents: vec!["p1".into(), "p2".into(), "gone".into(), "shardId-bad".into()],
            ..lease(SHARD, Some("me"))
        },
        LeaseSnapshot { checkpoint: Checkpoint::ShardEnd, ..lease("p1", None) },
        lease("p2", Some("w2")),
    ]);
    let ask = |state, failures| {
        let asker = asker(Some(own(state, failures)));
        why_not_running(SHARD, &asker, Some(&table)).unwrap()
    };
    assert_eq!(
        ask(ShardState::WaitingOnParents, 0),
        WhyNotRunning::WaitsForParents {
            parents: vec!["p2".into(), "shardId-bad".into()],
            owner: Some("me".into()),
        }
    );
    assert_eq!(ask(ShardState::Initializing, 0), WhyNotRunning::Starting);
    let reason = ShutdownReason::Requested;
    assert_eq!(ask(ShardState::ShuttingDown(reason), 0), WhyNotRunning::ShuttingDown { reason });
    for state in [
        ShardState::Processing,
        ShardState::Initializing,
        ShardState::ShuttingDown(ShutdownReason::ShardEnd),
    ] {
        let failing = ask(state, 4);
        let error = "no disk".to_owned();
        assert_eq!(failing, WhyNotRunning::Failing { failures: 4, error });
    }
}

#[test]
fn any_other_shard_is_told_by_the_table() {
    let ask = |shard, table| why_not_running(shard, &asker(None), table).unwrap();
    assert_eq!(ask(SHARD, None), WhyNotRunning::NotKnownYet);
    let empty = table(Vec::new());
    assert_eq!(ask(SHARD, Some(&empty)), WhyNotRunning::NotListed);
    let problem = "checkpoint is missing".to_owned();
    assert_eq!(ask("shardId-bad", Some(&empty)), WhyNotRunning::CorruptItem { problem });
    assert_eq!(
        of(LeaseSnapshot {
            checkpoint: Checkpoint::ShardEnd,
            children: vec!["c".into()],
            ..lease(SHARD, None)
        }),
        WhyNotRunning::Finished { children: vec!["c".into()] }
    );
    assert_eq!(
        of(LeaseSnapshot { pending_owner: Some("w3".into()), ..lease(SHARD, Some("w2")) }),
        WhyNotRunning::HandoffPending { from: "w2".into(), to: "w3".into() }
    );
    assert_eq!(of(lease(SHARD, Some("me"))), WhyNotRunning::WaitsForFormerOwner);
    let since = Duration::from_secs(7);
    assert_eq!(of(lease(SHARD, None)), WhyNotRunning::Unassigned { since, at_limit: false });
    let worker = || "w2".to_owned();
    assert_eq!(
        of(lease(SHARD, Some("w2"))),
        WhyNotRunning::LeasedBy { worker: worker(), since, heartbeat_age: Duration::from_secs(1) }
    );
    let heartbeat_age = F + Duration::from_millis(1);
    assert_eq!(
        of(LeaseSnapshot { heartbeat_age, ..lease(SHARD, Some("w2")) }),
        WhyNotRunning::OwnerSilent { worker: worker(), heartbeat_age }
    );
    // The last scan showed a renewal; scans of a large table are rare.
    let seen_long_ago = LeaseSnapshot { heartbeat_age, ..lease(SHARD, Some("w2")) };
    let table = LeaseTableSnapshot { age: heartbeat_age, ..table(vec![seen_long_ago]) };
    assert_eq!(
        why_not_running(SHARD, &asker(None), Some(&table)),
        Some(WhyNotRunning::LeasedBy { worker: worker(), since, heartbeat_age })
    );
}

#[test]
fn a_child_in_another_worker_waits_for_its_parents_too() {
    let child = LeaseSnapshot { parents: vec!["p".into()], ..lease(SHARD, Some("w2")) };
    let table = table(vec![child, lease("p", Some("w3"))]);
    let why = why_not_running(SHARD, &asker(None), Some(&table)).unwrap();
    assert_eq!(
        why.to_string(),
        "worker w2 has it and waits until its parents are finished (p): ask why p is not, if that \
         takes long"
    );
}

#[test]
fn a_runtime_that_runs_nothing_is_told_of_the_workers_own_shards() {
    let blocked = |own| Asker { is_blocked: true, ..asker(own) };
    let of = |asker: &Asker<'_>, owner| {
        why_not_running(SHARD, asker, Some(&table(vec![lease(SHARD, Some(owner))])))
    };
    for state in [ShardState::WaitingOnParents, ShardState::Processing] {
        let asker = blocked(Some(own(state, 0)));
        assert_eq!(of(&asker, "me"), Some(WhyNotRunning::RuntimeBlocked));
    }
    let asker = blocked(None);
    assert_eq!(of(&asker, "me"), Some(WhyNotRunning::RuntimeBlocked));
    assert!(matches!(of(&asker, "w2"), Some(WhyNotRunning::LeasedBy { .. })));
}

#[test]
fn what_the_table_said_before_an_outage_is_not_the_reason() {
    let problems = problems();
    let asker = Asker { problems: &problems, ..asker(None) };
    let of = |table: Option<&LeaseTableSnapshot>| why_not_running(SHARD, &asker, table).unwrap();
    let ended =
        table(vec![LeaseSnapshot { checkpoint: Checkpoint::ShardEnd, ..lease(SHARD, None) }]);
    problems.failed(ProblemKind::LeaseTableFailing, None, "connection refused");
    for owner in [None, Some("me"), Some("w2")] {
        let why = of(Some(&table(vec![lease(SHARD, owner)])));
        assert!(why.to_string().contains("(connection refused): check DynamoDB"), "{why:?}");
    }
    assert!(matches!(of(None), WhyNotRunning::LeaseTableUnreachable { .. }));
    assert!(matches!(of(Some(&ended)), WhyNotRunning::Finished { .. }));
    problems.recovered(ProblemKind::LeaseTableFailing, None);
    assert!(matches!(of(None), WhyNotRunning::NotKnownYet));
}

#[test]
fn a_lease_that_cannot_be_taken_or_made_and_one_of_another_process_are_told() {
    let problems = problems();
    let asker = Asker { problems: &problems, ..asker(None) };
    let of = |leases| why_not_running(SHARD, &asker, Some(&table(leases))).unwrap();
    let kinds = [
        ProblemKind::LeaseAcquisitionFailing,
        ProblemKind::ShardSyncFailing,
        ProblemKind::DuplicateWorkerId,
    ];
    for kind in kinds {
        problems.failed(kind, None, "refused");
    }
    let cannot_take = of(vec![lease(SHARD, None)]);
    assert!(
        matches!(&cannot_take, WhyNotRunning::LeaseTableUnreachable { error, .. } if error == "refused"),
        "{cannot_take:?}"
    );
    assert!(matches!(of(Vec::new()), WhyNotRunning::ShardSyncFailing { .. }));
    assert!(matches!(of(vec![lease(SHARD, Some("w2"))]), WhyNotRunning::LeasedBy { .. }));
    problems.recovered(ProblemKind::LeaseAcquisitionFailing, None);
    let shared = of(vec![lease(SHARD, Some("me"))]);
    assert!(matches!(shared, WhyNotRunning::LeasedByAnotherProcess { .. }), "{shared:?}");
}

#[test]
fn the_text_says_what_to_do() {
    let unassigned =
        |at_limit| WhyNotRunning::Unassigned { since: Duration::from_millis(2_340), at_limit };
    assert_eq!(
        unassigned(true).to_string(),
        "no worker has held its lease for 2.3s: this worker has max_leases already; raise that, or add a \
         worker"
    );
    let failing = WhyNotRunning::Failing { failures: 3, error: "no disk".to_owned() };
    assert!(failing.to_string().ends_with("mend the cause (no disk)"));
}
