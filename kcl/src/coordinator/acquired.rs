//! Why this worker acquired a lease, for the log.

use std::fmt;
use std::time::Duration;

use super::fleet_view::FleetView;
use crate::lease::Lease;

/// How this worker came to a lease, and which worker had it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acquired {
    /// The worker that processed the shard before, as far as this worker observed.
    pub(crate) former_owner: Option<String>,
    pub(crate) why: Why,
}

/// Why a lease is this worker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// It was taken, and no worker had it before.
    New,
    /// It was taken, no worker had it before, and its shard was made of these parents.
    ChildOf(Vec<String>),
    /// It was taken after its owner had released it.
    Free,
    /// It was taken because its owner had not renewed it for this time.
    Expired(Duration),
    /// Its owner handed it over.
    HandedOver,
    /// A leader or another worker assigned it.
    Assigned,
    /// This process held it before, and no other worker since.
    HeldBefore,
    /// The process of this worker id before a restart released it to the next one.
    FormerProcess,
    /// The process of this worker id before a restart held it, and did not release it.
    SilentFormerProcess,
}

impl Acquired {
    /// Describes a lease that this worker is about to take, as it was last read.
    pub(crate) fn by_taking(lease: &Lease, fleet: &FleetView, me: &str, now: Duration) -> Self {
        let former_owner = lease.actual_owner().map(str::to_owned);
        let why = match &former_owner {
            Some(owner) if owner == me => Why::SilentFormerProcess,
            Some(_) => Why::Expired(fleet.time_since_renewal(lease, now)),
            None if lease.counter > 0 => Why::Free,
            None if lease.parents.is_empty() => Why::New,
            None => Why::ChildOf(lease.parents.iter().cloned().collect()),
        };
        Self { former_owner, why }
    }

    /// Describes a lease that names this worker as its owner.
    pub(crate) fn by_name(lease: &Lease, fleet: &FleetView, me: &str) -> Self {
        let former_owner = fleet.previous_owner(lease);
        let was_mine = former_owner.as_deref().is_none_or(|owner| owner == me);
        let why = if fleet.held_before(lease) {
            Why::HeldBefore
        } else if fleet.was_handed_over(lease) {
            Why::HandedOver
        } else if lease.was_released_to_owner() {
            if was_mine { Why::FormerProcess } else { Why::HandedOver }
        } else if was_mine && former_owner.is_some() {
            Why::SilentFormerProcess
        } else {
            Why::Assigned
        };
        Self { former_owner, why }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("it is new"),
            Self::ChildOf(parents) => write!(f, "it is a child of {}", parents.join(" and ")),
            Self::Free => f.write_str("its owner released it"),
            Self::Expired(silent) => write!(f, "it expired: not renewed for {silent:.1?}"),
            Self::HandedOver => f.write_str("its owner handed it over"),
            Self::Assigned => f.write_str("a leader or another worker assigned it"),
            Self::HeldBefore => f.write_str("this process had it before"),
            Self::FormerProcess => {
                f.write_str("a former process of this worker released it to its next one")
            }
            Self::SilentFormerProcess => {
                f.write_str("a former process of this worker had it and renews it no more")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    #[test]
    fn what_is_taken_is_new_a_child_released_or_expired() {
        let fleet = FleetView::new("me", 1, Duration::from_secs(10));
        let lease = |owner: Option<&str>, counter, parents: &[&str]| Lease {
            owner: owner.map(str::to_owned),
            counter,
            parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
            ..Lease::new("a", Checkpoint::TrimHorizon)
        };
        let why = |lease: &Lease| Acquired::by_taking(lease, &fleet, "me", Duration::ZERO).why;
        for (lease, expected) in [
            (lease(None, 0, &[]), Why::New),
            (lease(None, 0, &["p", "q"]), Why::ChildOf(vec!["p".into(), "q".into()])),
            (lease(None, 3, &["p"]), Why::Free),
            (lease(Some("w2"), 3, &[]), Why::Expired(Duration::ZERO)),
            (lease(Some("me"), 3, &[]), Why::SilentFormerProcess),
        ] {
            assert_eq!(why(&lease), expected);
        }
    }
}
