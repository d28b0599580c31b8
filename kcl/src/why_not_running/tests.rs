//! Every answer, and the state that it describes.

use std::sync::{Arc, LazyLock};

use super::*;
use crate::clock::SystemClock;
use crate::lease_table::CorruptLease;

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

#[test]
fn a_paused_shard_says_so() {
    let paused = Asker { is_paused: true, ..asker(Some(ShardState::Processing)) };
    assert_eq!(why_not_running(SHARD, &paused, None), Some(WhyNotRunning::Paused));
}

fn asker(own: Option<ShardState>) -> Asker<'static> {
    Asker {
        worker_id: "me",
        failover: F,
        has_stopped: false,
        at_limit: false,
        stops_at_gaps: false,
        problems: &NOTHING,
        own,
        is_paused: false,
        starts_at: None,
    }
}

fn kind_of(why: Option<WhyNotRunning>) -> Option<ProblemKind> {
    match why {
        Some(WhyNotRunning::Problem(problem)) => Some(problem.kind),
        _ => None,
    }
}

/// The answer for [`SHARD`] with this lease and no consumer.
fn of(lease: LeaseSnapshot) -> WhyNotRunning {
    let table = table(vec![lease]);
    why_not_running(SHARD, &asker(None), Some(&table)).unwrap()
}

#[test]
fn what_fails_in_a_shard_of_this_worker_is_the_reason_by_its_weight() {
    let problems = problems();
    let of = |state, stops_at_gaps| {
        let asker = Asker { problems: &problems, stops_at_gaps, ..asker(Some(state)) };
        why_not_running(SHARD, &asker, None)
    };
    let ending = ShardState::ShuttingDown(ShutdownReason::ShardEnd);
    let lost = ShardState::ShuttingDown(ShutdownReason::LeaseLost);
    problems.failed(ProblemKind::ReadsFailing, Some(SHARD), "no key");
    assert_eq!(kind_of(of(ShardState::Processing, false)), Some(ProblemKind::ReadsFailing));
    problems.failed(ProblemKind::RecordsTrimmed, Some(SHARD), "a gap");
    assert_eq!(kind_of(of(ShardState::Processing, false)), Some(ProblemKind::ReadsFailing));
    assert_eq!(kind_of(of(ShardState::Processing, true)), Some(ProblemKind::RecordsTrimmed));
    assert_eq!(of(ShardState::Initializing, true), Some(WhyNotRunning::Starting));
    problems.failed(ProblemKind::ProcessorFailing, Some("another"), "no disk");
    assert_eq!(of(ShardState::Initializing, true), Some(WhyNotRunning::Starting));
    problems.failed(ProblemKind::ProcessorFailing, Some(SHARD), "no disk");
    for state in [ShardState::Processing, ShardState::Initializing, ending] {
        assert_eq!(kind_of(of(state, true)), Some(ProblemKind::ProcessorFailing), "{state:?}");
    }
    let reason = ShutdownReason::LeaseLost;
    assert_eq!(of(lost, true), Some(WhyNotRunning::ShuttingDown { reason }));
    for (kind, shard) in
        [(ProblemKind::ProcessorStuck, Some(SHARD)), (ProblemKind::RuntimeBlocked, None)]
    {
        problems.failed(kind, shard, "it waits");
        for state in [ShardState::Processing, ShardState::Initializing, ending, lost] {
            assert_eq!(kind_of(of(state, true)), Some(kind), "{state:?}");
        }
    }
}

#[test]
fn a_shard_that_starts_in_the_future_waits_and_does_not_fail() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let asker = Asker { starts_at: Some(time), ..asker(Some(ShardState::WaitingForStart)) };
    let why = why_not_running(SHARD, &asker, None);
    assert_eq!(why, Some(WhyNotRunning::WaitsForStart { time }));
    let text = why.unwrap().to_string();
    assert!(text.contains("waits until 2027-01-15T08:00:00Z"), "{text}");
}

#[test]
fn a_shard_that_is_processed_here_needs_no_reason() {
    let table = table(vec![lease(SHARD, Some("me"))]);
    let here = asker(Some(ShardState::Processing));
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
    let ask = |state| why_not_running(SHARD, &asker(Some(state)), Some(&table)).unwrap();
    assert_eq!(
        ask(ShardState::WaitingOnParents),
        WhyNotRunning::WaitsForParents {
            parents: vec!["p2".into(), "shardId-bad".into()],
            owner: Some("me".into()),
        }
    );
    assert_eq!(ask(ShardState::Initializing), WhyNotRunning::Starting);
    let reason = ShutdownReason::Requested;
    assert_eq!(ask(ShardState::ShuttingDown(reason)), WhyNotRunning::ShuttingDown { reason });
}

#[test]
fn any_other_shard_is_told_by_the_table() {
    let ask = |shard, table| why_not_running(shard, &asker(None), table).unwrap();
    assert_eq!(ask(SHARD, None), WhyNotRunning::NotKnownYet);
    let empty = table(Vec::new());
    assert_eq!(ask(SHARD, Some(&empty)), WhyNotRunning::NotListed);
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
fn a_blocked_runtime_is_the_reason_for_the_workers_own_leases_alone() {
    let problems = problems();
    problems.failed(ProblemKind::RuntimeBlocked, None, "blocking code");
    let asker = Asker { problems: &problems, ..asker(None) };
    let of = |owner| why_not_running(SHARD, &asker, Some(&table(vec![lease(SHARD, Some(owner))])));
    assert_eq!(kind_of(of("me")), Some(ProblemKind::RuntimeBlocked));
    assert!(matches!(of("w2"), Some(WhyNotRunning::LeasedBy { .. })));
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
        assert_eq!(kind_of(Some(why)), Some(ProblemKind::LeaseTableFailing));
    }
    assert_eq!(kind_of(Some(of(None))), Some(ProblemKind::LeaseTableFailing));
    assert!(matches!(of(Some(&ended)), WhyNotRunning::Finished { .. }));
    problems.recovered(ProblemKind::LeaseTableFailing, None);
    assert!(matches!(of(None), WhyNotRunning::NotKnownYet));
}

#[test]
fn what_fails_for_a_lease_that_is_not_held_is_the_reason() {
    let problems = problems();
    let asker = Asker { problems: &problems, ..asker(None) };
    let of = |leases| why_not_running(SHARD, &asker, Some(&table(leases)));
    let kinds = [
        ProblemKind::LeaseAcquisitionFailing,
        ProblemKind::ShardSyncFailing,
        ProblemKind::DuplicateWorkerId,
    ];
    for kind in kinds {
        problems.failed(kind, None, "refused");
    }
    let free = vec![lease(SHARD, None)];
    assert_eq!(kind_of(of(free)), Some(ProblemKind::LeaseAcquisitionFailing));
    assert_eq!(kind_of(of(Vec::new())), Some(ProblemKind::ShardSyncFailing));
    assert!(matches!(of(vec![lease(SHARD, Some("w2"))]), Some(WhyNotRunning::LeasedBy { .. })));
    problems.recovered(ProblemKind::LeaseAcquisitionFailing, None);
    let own = || vec![lease(SHARD, Some("me"))];
    assert_eq!(kind_of(of(own())), Some(ProblemKind::DuplicateWorkerId));
    problems.failed(ProblemKind::CorruptLease, Some(SHARD), "no counter");
    assert_eq!(kind_of(of(own())), Some(ProblemKind::CorruptLease));
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
    let problem = Problem {
        kind: ProblemKind::ProcessorFailing,
        shard_id: Some(SHARD.to_owned()),
        cause: "no disk".to_owned(),
        since: F,
        failures: 3,
    };
    let text = problem.to_string();
    assert!(text.ends_with("(no disk): fix the cause"), "{text}");
    assert_eq!(WhyNotRunning::Problem(problem).to_string(), text);
}
