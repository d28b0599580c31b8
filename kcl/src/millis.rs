//! Serializes the durations of snapshots and reports as whole milliseconds.

use std::time::Duration;

use serde::{Serialize as _, Serializer};

pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    whole_millis(*value).serialize(serializer)
}

pub(crate) fn serialize_option<S: Serializer>(
    value: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.map(whole_millis).serialize(serializer)
}

fn whole_millis(value: Duration) -> u64 {
    u64::try_from(value.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use kinesis_common::sync::Mutex;
    use serde_json::{Value, json};

    use crate::clock::SystemClock;
    use crate::health::{Health, Problem, ProblemKind, ProblemLog};
    use crate::lease_table::{CorruptLease, LeaseSnapshot, LeaseTableSnapshot};
    use crate::metrics::Meter;
    use crate::progress::Progress;
    use crate::sequence::ExtendedSequenceNumber;
    use crate::shard_state::{ShardState, ShutdownReason};
    use crate::snapshot::{ShardStatus, Totals};
    use crate::{Checkpoint, ShutdownReport, WhyNotRunning};

    fn data(value: impl serde::Serialize) -> Value {
        serde_json::to_value(value).unwrap()
    }

    #[test]
    fn what_a_worker_tells_is_data() {
        let problems = ProblemLog::new(Arc::new(SystemClock));
        let totals = Arc::new(Totals::new(Meter::default(), Arc::new(problems)));
        let progress = Arc::new(Mutex::new(Progress::new(Checkpoint::TrimHorizon)));
        let status = ShardStatus::new("shard-1", progress, Arc::clone(&totals));
        status.behind(Some(1500));
        status.enter(ShardState::ShuttingDown(ShutdownReason::LeaseLost));
        let snapshot = data(totals.snapshot("w1", vec![status.snapshot()], 7));
        assert_eq!(snapshot["worker_id"], json!("w1"));
        assert_eq!(snapshot["buffered_bytes"], json!(7));
        let shard = &snapshot["shards"][0];
        assert_eq!(shard["millis_behind_latest"], json!(1500));
        assert_eq!(shard["propagation_delay"]["count"], json!(0));
        assert_eq!(shard["records_per_second"], json!(0.0));
        assert_eq!(shard["state"], json!({"shutting_down": "lease_lost"}));

        let position = ExtendedSequenceNumber::new("42".parse().unwrap(), 3);
        let age = Duration::from_millis(1200);
        let table = data(LeaseTableSnapshot {
            age,
            leases: vec![LeaseSnapshot {
                shard_id: "shard-1".into(),
                owner: Some("w1".into()),
                pending_owner: None,
                counter: 9,
                checkpoint: Checkpoint::At(position.clone()),
                parents: vec![],
                children: vec!["shard-2".into()],
                owned_for: age,
                heartbeat_age: age,
                checkpoint_age: age,
            }],
            corrupt: vec![CorruptLease { key: "shard-3".into(), problem: "no counter".into() }],
        });
        assert_eq!(table["age"], json!(1200));
        assert_eq!(table["leases"][0]["checkpoint"], json!("42:3"));
        assert_eq!(table["corrupt"][0]["problem"], json!("no counter"));
        let expected = json!({"sequence_number": "42", "sub_sequence_number": 3});
        assert_eq!(data(position), expected);

        let problem = Problem {
            kind: ProblemKind::ReadsFailing,
            shard_id: Some("shard-1".into()),
            cause: "refused".into(),
            since: age,
            failures: 2,
        };
        let health =
            Health::new(vec![problem], vec![status.health(age, false)], Duration::from_secs(10));
        let health = data(health);
        assert_eq!(health["status"], json!("degraded"));
        let problem = json!({"kind": "reads_failing", "shard_id": "shard-1", "cause": "refused",
            "since": 1200, "failures": 2});
        assert_eq!(health["problems"], json!([problem]));
        let shard = json!({"shard_id": "shard-1", "activity": "stopping", "held_up_by": null,
            "lag": health["shards"][0]["lag"], "millis_behind_latest": 1500, "since_checkpoint": null});
        assert_eq!(health["shards"], json!([shard]));
        assert!(health["shards"][0]["lag"].as_u64() >= Some(1500));

        let report = ShutdownReport { drained: vec!["shard-1".into()], ..Default::default() };
        assert_eq!(data(report)["drained"], json!(["shard-1"]));
        let why = WhyNotRunning::OwnerSilent { worker: "w2".into(), heartbeat_age: age };
        let expected = json!({"owner_silent": {"worker": "w2", "heartbeat_age": 1200}});
        assert_eq!(data(why), expected);
        assert_eq!(data(WhyNotRunning::NotListed), json!("not_listed"));
        let problem = Problem {
            kind: ProblemKind::ShardSyncFailing,
            shard_id: None,
            cause: "refused".into(),
            since: age,
            failures: 2,
        };
        let expected = json!({"kind": "shard_sync_failing", "shard_id": null, "cause": "refused", "since": 1200, "failures": 2});
        assert_eq!(data(WhyNotRunning::Problem(problem)), json!({ "problem": expected }));
    }
}
