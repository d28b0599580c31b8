//! The states of an owned shard, the transitions between them, and what becomes of its lease at the end. Pure.

use std::fmt;

/// State of an owned shard. The states are those of the Java library's `ConsumerStates`, without its waiting steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ShardState {
    /// Its parent shards have not been processed to their end.
    WaitingOnParents,
    /// The time at which it starts is in the future.
    WaitingForStart,
    /// The processor is being created and initialised.
    Initializing,
    /// Records are being delivered.
    Processing,
    /// All records up to [`until`](crate::ConsumerConfig::until) were processed. The worker keeps the lease.
    Finished,
    /// The worker is giving it up, for this reason.
    ShuttingDown(ShutdownReason),
    /// The worker has given it up.
    Done,
}

/// Reason for which a worker gives a shard up. A later one in this order replaces an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ShutdownReason {
    /// All records up to [`until`](crate::ConsumerConfig::until) were delivered. The worker keeps the lease until it ends.
    Finished,
    /// The worker stops, or the lease moves to another worker.
    Requested,
    /// All records of the shard were delivered.
    ShardEnd,
    /// The lease is lost: another worker has it, or it expired.
    LeaseLost,
}

/// Outcome of a planned stop for one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ShardShutdown {
    /// The processor stopped, and the lease was transferred to another worker, which continues at once.
    HandedOver {
        /// Id of that worker.
        to: String,
    },
    /// The processor stopped, and the lease has no owner: any worker may take it.
    Released,
    /// The processor stopped, and the lease waits for the next process of this worker id.
    Kept,
    /// The shard was processed to its end.
    Ended,
    /// The lease was lost before the stop could transfer it: another worker has it, or it expired.
    Lost,
    /// The processor stopped, and the lease could not be transferred. It still names this worker: another worker
    /// continues after the last checkpoint after the failover time.
    LeftToExpire {
        /// Reason for which it could not be transferred.
        cause: String,
    },
    /// The processor had not returned by the deadline and was aborted. The lease expires.
    Aborted,
}

/// Event that may change the state of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    ParentsEnded,
    StartReached,
    Initialized,
    ShutDown(ShutdownReason),
    /// The steps that the reason demands are done.
    Finished,
}

impl ShardState {
    /// The state of a lease that was just acquired.
    pub(crate) fn acquired(at_shard_end: bool) -> Self {
        if at_shard_end {
            Self::ShuttingDown(ShutdownReason::ShardEnd)
        } else {
            Self::WaitingOnParents
        }
    }

    /// Returns the next state. An event that does not apply to this state changes nothing.
    #[must_use]
    pub(crate) fn on(self, event: Event) -> Self {
        match (self, event) {
            (Self::Done, _) => Self::Done,
            (Self::Finished, Event::ShutDown(ShutdownReason::Finished)) => Self::Finished,
            (Self::ShuttingDown(was), Event::ShutDown(reason)) => {
                Self::ShuttingDown(was.max(reason))
            }
            (_, Event::ShutDown(reason)) => Self::ShuttingDown(reason),
            (Self::WaitingOnParents, Event::ParentsEnded) => Self::WaitingForStart,
            (Self::WaitingForStart, Event::StartReached) => Self::Initializing,
            (Self::Initializing, Event::Initialized) => Self::Processing,
            (Self::ShuttingDown(ShutdownReason::Finished), Event::Finished) => Self::Finished,
            (Self::ShuttingDown(_), Event::Finished) => Self::Done,
            (state, _) => state,
        }
    }
}

impl fmt::Display for ShardShutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HandedOver { to } => write!(f, "handed over to {to}"),
            Self::Released => f.write_str("released"),
            Self::Kept => f.write_str("kept for the next process of this worker id"),
            Self::Ended => f.write_str("processed to its end"),
            Self::Lost => f.write_str("lost before it could be transferred"),
            Self::LeftToExpire { cause } => write!(f, "left to expire: {cause}"),
            Self::Aborted => {
                f.write_str("aborted, because its processor did not return; the lease expires")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Finished, Initialized, ParentsEnded, ShutDown, StartReached};
    use ShardState::{
        Done, Finished as ReplayFinished, Initializing, Processing, ShuttingDown, WaitingForStart,
        WaitingOnParents,
    };
    use ShutdownReason::{LeaseLost, Requested, ShardEnd};
    use proptest::prelude::*;

    #[test]
    fn a_whole_life() {
        let mut state = ShardState::acquired(false);
        for (event, next) in [
            (ParentsEnded, WaitingForStart),
            (StartReached, Initializing),
            (Initialized, Processing),
            (ShutDown(ShardEnd), ShuttingDown(ShardEnd)),
            (Finished, Done),
        ] {
            state = state.on(event);
            assert_eq!(state, next);
        }
    }

    #[test]
    fn a_finished_shard_waits_until_it_is_given_up() {
        let mut state = Processing;
        for (event, next) in [
            (ShutDown(ShutdownReason::Finished), ShuttingDown(ShutdownReason::Finished)),
            (Finished, ReplayFinished),
            (Finished, ReplayFinished),
            (ShutDown(Requested), ShuttingDown(Requested)),
            (Finished, Done),
        ] {
            state = state.on(event);
            assert_eq!(state, next);
        }
        let finishing = ShuttingDown(ShutdownReason::Finished);
        assert_eq!(finishing.on(ShutDown(Requested)), ShuttingDown(Requested));
    }

    #[test]
    fn a_lease_at_shard_end_starts_at_its_end() {
        assert_eq!(ShardState::acquired(true), ShuttingDown(ShardEnd));
    }

    #[test]
    fn reasons_only_rise() {
        for (was, event, becomes) in [
            (Requested, ShardEnd, ShardEnd),
            (Requested, LeaseLost, LeaseLost),
            (ShardEnd, Requested, ShardEnd),
            (ShardEnd, LeaseLost, LeaseLost),
            (LeaseLost, Requested, LeaseLost),
            (LeaseLost, ShardEnd, LeaseLost),
        ] {
            assert_eq!(ShuttingDown(was).on(ShutDown(event)), ShuttingDown(becomes));
        }
    }

    #[test]
    fn every_state_can_be_given_up() {
        for state in [WaitingOnParents, WaitingForStart, Initializing, Processing] {
            for reason in [Requested, ShardEnd, LeaseLost] {
                assert_eq!(state.on(ShutDown(reason)), ShuttingDown(reason));
            }
        }
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            Just(ParentsEnded),
            Just(StartReached),
            Just(Initialized),
            Just(Finished),
            Just(ShutDown(ShutdownReason::Finished)),
            Just(ShutDown(Requested)),
            Just(ShutDown(ShardEnd)),
            Just(ShutDown(LeaseLost)),
        ];
        prop::collection::vec(event, 0..20)
    }

    fn rank(state: ShardState) -> u8 {
        match state {
            WaitingOnParents => 0,
            WaitingForStart => 1,
            Initializing => 2,
            Processing => 3,
            ShuttingDown(ShutdownReason::Finished) => 4,
            ReplayFinished => 5,
            ShuttingDown(reason) => 5 + reason as u8,
            Done => 10,
        }
    }

    proptest! {
        #[test]
        fn life_only_goes_forward_and_never_processes_before_the_parents(events in events()) {
            let mut state = ShardState::acquired(false);
            let mut parents_ended = false;
            for event in events {
                let next = state.on(event);
                prop_assert!(rank(next) >= rank(state));
                parents_ended |= event == ParentsEnded;
                prop_assert!(next != Processing || parents_ended);
                state = next;
            }
        }
    }
}
