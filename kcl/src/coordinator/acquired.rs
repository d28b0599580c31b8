//! Why this worker acquired a lease, for the log.

use std::time::Duration;

use super::fleet_view::FleetView;
use crate::lease::Lease;

/// How this worker came to a lease, and which worker had it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acquired {
    /// The worker that processed the shard before, as far as this worker observed.
    pub(crate) former_owner: Option<String>,
    /// Why the lease is this worker's: a sentence about the lease.
    pub(crate) why: String,
}

/// The process of this worker id before a restart did not release the lease.
const SILENT_FORMER_PROCESS: &str = "a former process of this worker had it and renews it no more";
const HANDED_OVER: &str = "its owner handed it over";

impl Acquired {
    /// Describes a lease that this worker is about to take, as it was last read.
    pub(crate) fn by_taking(lease: &Lease, fleet: &FleetView, me: &str, now: Duration) -> Self {
        let former_owner = lease.actual_owner().map(str::to_owned);
        let why = match &former_owner {
            Some(owner) if owner == me => SILENT_FORMER_PROCESS.to_owned(),
            Some(_) => {
                let history = fleet.history(lease);
                let silent = history.map(|history| history.time_since_renewal(lease, now));
                let silent = silent.unwrap_or_default();
                format!("it expired: not renewed for {silent:.1?}")
            }
            None if lease.counter > 0 => "its owner released it".to_owned(),
            None if lease.parents.is_empty() => "it is new".to_owned(),
            None => {
                let parents: Vec<&str> = lease.parents.iter().map(String::as_str).collect();
                format!("it is a child of {}", parents.join(" and "))
            }
        };
        Self { former_owner, why }
    }

    /// Describes a lease that names this worker as its owner.
    pub(crate) fn by_name(lease: &Lease, fleet: &FleetView, me: &str) -> Self {
        let history = fleet.history(lease);
        let former_owner = history.and_then(|history| history.previous_owner(lease));
        let was_mine = former_owner.as_deref().is_none_or(|owner| owner == me);
        let why = if fleet.held_before(lease) {
            "this process had it before"
        } else if history.is_some_and(|history| history.was_handed_over(lease)) {
            HANDED_OVER
        } else if lease.was_released_to_owner() && was_mine {
            "a former process of this worker released it to its next one"
        } else if lease.was_released_to_owner() {
            HANDED_OVER
        } else if was_mine && former_owner.is_some() {
            SILENT_FORMER_PROCESS
        } else {
            "a leader or another worker assigned it"
        };
        Self { former_owner, why: why.to_owned() }
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
            (lease(None, 0, &[]), "it is new"),
            (lease(None, 0, &["p", "q"]), "it is a child of p and q"),
            (lease(None, 3, &["p"]), "its owner released it"),
            (lease(Some("w2"), 3, &[]), "it expired: not renewed for 0.0ns"),
            (lease(Some("me"), 3, &[]), SILENT_FORMER_PROCESS),
        ] {
            assert_eq!(why(&lease), expected);
        }
    }
}
