//! What each shard of a worker does: idle, working, slow or stuck. Pure.

use std::fmt;
use std::time::Duration;

use crate::shard_state::ShardState;

/// Time without success from which on a shard is stuck.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(30);

/// What a shard of the worker does, and how far it is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShardHealth {
    /// Id of the shard.
    pub shard_id: String,
    /// What it does.
    pub activity: ShardActivity,
    /// The part that a slow or stuck shard waits for. `None` for every other shard.
    pub held_up_by: Option<HeldUpBy>,
    /// Time by which processing is behind. See [`ShardSnapshot::lag`](crate::ShardSnapshot::lag).
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::millis::serialize_option"))]
    pub lag: Option<Duration>,
    /// Time by which reading is behind. See
    /// [`ShardSnapshot::millis_behind_latest`](crate::ShardSnapshot::millis_behind_latest).
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::millis::serialize_option"))]
    pub millis_behind_latest: Option<Duration>,
    /// Time since the checkpoint moved. See
    /// [`ShardSnapshot::since_checkpoint`](crate::ShardSnapshot::since_checkpoint).
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::millis::serialize_option"))]
    pub since_checkpoint: Option<Duration>,
}

/// What a shard of the worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ShardActivity {
    /// It waits for its parents or its start time, its processor is initialised, or its first page is read.
    Starting,
    /// All records that the shard has are processed, or all up to [`until`](crate::ConsumerConfig::until).
    Idle,
    /// Records are processed, and the shard keeps up or catches up.
    Working,
    /// Records are processed, and for a minute the shard was more than ten seconds behind and did not catch up.
    Slow,
    /// No record is processed: a call of the processor has not returned for
    /// [`log_warning_for_task_after`](crate::ConsumerConfig::log_warning_for_task_after) (30 s if that is `None`), the
    /// same batch has failed or the shard could not be read for 30 s, or the shard stopped at a
    /// [gap](crate::OnTrimmedGap::StopShard) or at [records](crate::AfterRetries::StopShard) that cannot be processed.
    /// [`Health::problems`](crate::Health::problems) has the cause.
    Stuck,
    /// The application has [paused](crate::WorkerHandle::pause) it.
    Paused,
    /// The worker gives the shard up.
    Stopping,
}

/// Part of the worker that a slow or stuck shard waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum HeldUpBy {
    /// The processor: it is slower than records arrive, does not return, or fails.
    Processor,
    /// The reads: they are slower than records arrive, or fail.
    Reads,
}

/// What the activity of a shard is judged by.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) state: ShardState,
    /// Time since the present call of the processor began.
    pub(crate) call: Option<Duration>,
    /// Time from which on a call does not return.
    pub(crate) longest_call: Duration,
    /// Whether nothing is read because the application has paused the shard.
    pub(crate) is_paused: bool,
    /// Time since the first failure in a row of the processor.
    pub(crate) processor_fails: Option<Duration>,
    /// Time since the first failure in a row of the reads.
    pub(crate) reads_fail: Option<Duration>,
    /// Whether the shard has stopped at a gap.
    pub(crate) is_at_gap: bool,
    /// Whether the shard has stopped at records that cannot be processed.
    pub(crate) has_stopped_at_records: bool,
    /// Whether the worker holds records that are not processed.
    pub(crate) has_records: bool,
    /// Time by which the last answer was behind the tip. `None`: there was no answer.
    pub(crate) behind: Option<Duration>,
    /// What keeps the shard from catching up.
    pub(crate) falls_behind: Option<HeldUpBy>,
}

/// Judges what a shard does, and what it waits for if it is slow or stuck.
pub(crate) fn judge(facts: &Facts) -> (ShardActivity, Option<HeldUpBy>) {
    let lasts = |since: Option<Duration>| since.is_some_and(|since| since >= STUCK_AFTER);
    // A call may hang in any state, also the last one before the shard is given up.
    if facts.call.is_some_and(|call| call >= facts.longest_call) {
        return (ShardActivity::Stuck, Some(HeldUpBy::Processor));
    }
    // A batch or a read that failed is not tried again before the shard is resumed.
    if facts.state == ShardState::Processing && facts.is_paused {
        return (ShardActivity::Paused, None);
    }
    if facts.state == ShardState::Processing && facts.has_stopped_at_records {
        return (ShardActivity::Stuck, Some(HeldUpBy::Processor));
    }
    if lasts(facts.processor_fails) {
        return (ShardActivity::Stuck, Some(HeldUpBy::Processor));
    }
    match facts.state {
        ShardState::WaitingOnParents | ShardState::WaitingForStart | ShardState::Initializing => {
            (ShardActivity::Starting, None)
        }
        ShardState::Finished => (ShardActivity::Idle, None),
        ShardState::ShuttingDown(_) | ShardState::Done => (ShardActivity::Stopping, None),
        ShardState::Processing if facts.is_at_gap => (ShardActivity::Stuck, Some(HeldUpBy::Reads)),
        // Records that were fetched before are still processed.
        ShardState::Processing if lasts(facts.reads_fail) && !facts.has_records => {
            (ShardActivity::Stuck, Some(HeldUpBy::Reads))
        }
        ShardState::Processing => match facts.behind {
            _ if facts.falls_behind.is_some() => (ShardActivity::Slow, facts.falls_behind),
            _ if facts.has_records => (ShardActivity::Working, None),
            None => (ShardActivity::Starting, None),
            Some(Duration::ZERO) => (ShardActivity::Idle, None),
            Some(_) => (ShardActivity::Working, None),
        },
    }
}

impl fmt::Display for ShardActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Slow => "slow",
            Self::Stuck => "stuck",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
        })
    }
}

/// Writes the activity in words, with the lag and what the shard waits for.
impl fmt::Display for ShardHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shard_id, self.activity)?;
        if let Some(lag) = self.lag {
            write!(f, ", {lag:.1?} behind")?;
        }
        let text = match (self.activity, self.held_up_by) {
            (ShardActivity::Slow, Some(HeldUpBy::Processor)) => {
                "the processor takes longer than the records take to arrive: make it faster, or split the shard"
            }
            (ShardActivity::Slow, Some(HeldUpBy::Reads)) => {
                "the reads are slower than records arrive: look for throttled and failed reads"
            }
            (ShardActivity::Stuck, Some(HeldUpBy::Processor)) => {
                "the processor does not return or fails"
            }
            (ShardActivity::Stuck, Some(HeldUpBy::Reads)) => "the shard cannot be read",
            _ => return Ok(()),
        };
        write!(f, ": {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard_state::ShutdownReason;

    const SECOND: Duration = Duration::from_secs(1);

    /// A shard at the tip.
    fn facts() -> Facts {
        Facts {
            state: ShardState::Processing,
            call: None,
            longest_call: 60 * SECOND,
            is_paused: false,
            processor_fails: None,
            reads_fail: None,
            is_at_gap: false,
            has_stopped_at_records: false,
            has_records: false,
            behind: Some(Duration::ZERO),
            falls_behind: None,
        }
    }

    #[test]
    fn a_shard_without_records_is_idle_at_the_tip_only() {
        assert_eq!(judge(&facts()), (ShardActivity::Idle, None));
        let behind = Facts { behind: Some(SECOND), ..facts() };
        assert_eq!(judge(&behind), (ShardActivity::Working, None));
        let unread = Facts { behind: None, ..facts() };
        assert_eq!(judge(&unread), (ShardActivity::Starting, None));
    }

    #[test]
    fn a_shard_with_records_works_until_it_falls_behind() {
        let works = Facts { has_records: true, call: Some(SECOND), ..facts() };
        assert_eq!(judge(&works), (ShardActivity::Working, None));
        for held_up_by in [HeldUpBy::Processor, HeldUpBy::Reads] {
            let slow = Facts { falls_behind: Some(held_up_by), ..facts() };
            assert_eq!(judge(&slow), (ShardActivity::Slow, Some(held_up_by)));
        }
    }

    #[test]
    fn a_call_that_does_not_return_is_stuck_in_any_state() {
        for state in [
            ShardState::Initializing,
            ShardState::Processing,
            ShardState::ShuttingDown(ShutdownReason::Requested),
        ] {
            let hangs = Facts { state, call: Some(60 * SECOND), ..facts() };
            assert_eq!(judge(&hangs), (ShardActivity::Stuck, Some(HeldUpBy::Processor)));
            let returns = Facts { state, call: Some(59 * SECOND), ..facts() };
            assert_ne!(judge(&returns).0, ShardActivity::Stuck);
        }
    }

    #[test]
    fn a_batch_or_a_read_that_keeps_failing_is_stuck() {
        let young = STUCK_AFTER - SECOND;
        let fails = |since| Facts { processor_fails: Some(since), has_records: true, ..facts() };
        assert_eq!(judge(&fails(young)), (ShardActivity::Working, None));
        let stuck = (ShardActivity::Stuck, Some(HeldUpBy::Processor));
        assert_eq!(judge(&fails(STUCK_AFTER)), stuck);

        let fails = |since| Facts { reads_fail: Some(since), ..facts() };
        assert_eq!(judge(&fails(young)), (ShardActivity::Idle, None));
        let stuck = (ShardActivity::Stuck, Some(HeldUpBy::Reads));
        assert_eq!(judge(&fails(STUCK_AFTER)), stuck);
        let works = Facts { has_records: true, ..fails(STUCK_AFTER) };
        assert_eq!(judge(&works), (ShardActivity::Working, None), "of what was fetched before");
        let gap = Facts { is_at_gap: true, has_records: true, ..facts() };
        assert_eq!(judge(&gap), stuck);
        let stopped = Facts { has_stopped_at_records: true, ..facts() };
        assert_eq!(judge(&stopped), (ShardActivity::Stuck, Some(HeldUpBy::Processor)));
    }

    #[test]
    fn a_paused_shard_is_paused_whatever_it_waited_for_unless_a_call_hangs() {
        let paused = |facts| judge(&Facts { is_paused: true, has_records: true, ..facts });
        let fails = Some(STUCK_AFTER);
        for facts in [
            facts(),
            Facts { processor_fails: fails, reads_fail: fails, ..facts() },
            Facts { falls_behind: Some(HeldUpBy::Processor), ..facts() },
        ] {
            assert_eq!(paused(facts), (ShardActivity::Paused, None));
        }
        let hangs = Facts { call: Some(60 * SECOND), ..facts() };
        assert_eq!(paused(hangs).0, ShardActivity::Stuck);
        let stops = Facts { state: ShardState::ShuttingDown(ShutdownReason::Requested), ..facts() };
        assert_eq!(paused(stops).0, ShardActivity::Stopping);
    }

    #[test]
    fn a_shard_that_begins_or_ends_is_told_apart() {
        for (state, activity) in [
            (ShardState::WaitingOnParents, ShardActivity::Starting),
            (ShardState::WaitingForStart, ShardActivity::Starting),
            (ShardState::Initializing, ShardActivity::Starting),
            (ShardState::ShuttingDown(ShutdownReason::LeaseLost), ShardActivity::Stopping),
            (ShardState::Done, ShardActivity::Stopping),
        ] {
            assert_eq!(judge(&Facts { state, ..facts() }), (activity, None), "{state:?}");
        }
    }

    #[test]
    fn the_text_says_what_the_shard_waits_for() {
        let health = ShardHealth {
            shard_id: "shard-1".into(),
            activity: ShardActivity::Slow,
            held_up_by: Some(HeldUpBy::Processor),
            lag: Some(75 * SECOND),
            millis_behind_latest: None,
            since_checkpoint: None,
        };
        assert_eq!(
            health.to_string(),
            "shard-1: slow, 75.0s behind: the processor takes longer than the records take to arrive: make it \
             faster, or split the shard"
        );
        let idle =
            ShardHealth { activity: ShardActivity::Idle, held_up_by: None, lag: None, ..health };
        assert_eq!(idle.to_string(), "shard-1: idle");
    }
}
