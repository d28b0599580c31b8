//! What rules of Java's leave open and nobody can prevent: by which of them two processors overlap, if
//! by any. Pure.

use std::time::Duration;

use super::Kind;
use crate::simulation::world::FAILOVER;

/// A rule of Java's that opens a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::simulation) enum JavaRule {
    /// Its leader assigns, and its workers end a handoff, whatever the lease's counter does meanwhile.
    ForcedAssignment,
    /// Its own fence counts from the answer to a renewal; others count from the renewal.
    FenceFromAnswer,
    /// Reading back, it takes an earlier write of its own for the renewal that it has just sent.
    ReadBack,
    /// It starts on what it was given without renewing it first, however late it finds it.
    LateStart,
    /// It creates a lease if there is none, by a look from before the lease was deleted.
    OldLook,
}

impl JavaRule {
    /// As reports show it.
    pub(in crate::simulation) fn name(self) -> &'static str {
        match self {
            Self::ForcedAssignment => "forced assignment",
            Self::FenceFromAnswer => "fence from the answer",
            Self::ReadBack => "read back",
            Self::LateStart => "late start",
            Self::OldLook => "created by an old look",
        }
    }
}

/// A processor that goes on by a rule of Java's, after the time at which others may take its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::simulation) struct Overstay {
    /// From then on others may take it.
    pub(in crate::simulation) until: Duration,
    pub(in crate::simulation) rule: JavaRule,
}

/// One of two processors that overlap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) worker: &'a str,
    pub(super) kind: Kind,
    pub(super) overstay: Option<Overstay>,
    /// How its worker's lease became another's, if it did.
    pub(super) left: Option<&'a Left>,
}

/// How a lease passed from the worker that processed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) at: Duration,
    /// Who wrote that.
    pub(super) by: String,
    /// A Java worker did, or what stands for its leader.
    pub(super) by_java: bool,
    /// When the counter had last moved.
    pub(super) heard: Duration,
}

/// The rule by which both could be at work. `now`: when the second began.
pub(super) fn excuse(a: Side<'_>, b: Side<'_>, now: Duration) -> Option<JavaRule> {
    of(a, b, now).or_else(|| of(b, a, now))
}

/// The rule by which `gone` is at work although the lease is not its worker's any more.
fn of(gone: Side<'_>, other: Side<'_>, now: Duration) -> Option<JavaRule> {
    let left = gone.left?;
    let until = gone
        .overstay
        .map_or(left.heard + FAILOVER, |overstay| overstay.until);
    if left.by_java && other.kind == Kind::Java && left.at <= until {
        return Some(JavaRule::ForcedAssignment);
    }
    // One of ours starts on what another gave it when it may, not when it was given.
    let waits = other.kind == Kind::Rust && left.by != other.worker;
    let began = if waits { now } else { left.at };
    let overstay = gone.overstay.filter(|overstay| began > overstay.until);
    overstay.map(|overstay| overstay.rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn left(by: &str, second: u64) -> Left {
        Left {
            at: at(second),
            by: by.to_owned(),
            by_java: by.starts_with('j'),
            heard: at(100),
        }
    }

    fn side<'a>(worker: &'a str, left: Option<&'a Left>) -> Side<'a> {
        let kind = if worker.starts_with('j') {
            Kind::Java
        } else {
            Kind::Rust
        };
        let overstay = (kind == Kind::Java).then_some(Overstay {
            until: at(110),
            rule: JavaRule::FenceFromAnswer,
        });
        Side {
            worker,
            kind,
            overstay,
            left,
        }
    }

    #[test]
    fn one_of_ours_may_take_it_only_from_a_java_worker_that_overstays() {
        for (taken, expected) in [
            (109, None),
            (110, None),
            (111, Some(JavaRule::FenceFromAnswer)),
        ] {
            let left = left("r1", taken);
            let sides = (side("j1", Some(&left)), side("r1", None));
            // However late it starts.
            assert_eq!(excuse(sides.0, sides.1, at(120)), expected, "{taken}");
            assert_eq!(excuse(sides.1, sides.0, at(120)), expected, "{taken}");
        }
    }

    #[test]
    fn one_of_ours_that_was_given_it_waits_until_the_last_owner_is_fenced() {
        let left = left("j2", 105);
        let sides = (side("j1", Some(&left)), side("r1", None));
        assert_eq!(excuse(sides.0, sides.1, at(110)), None);
        let late = Some(JavaRule::FenceFromAnswer);
        assert_eq!(excuse(sides.0, sides.1, at(111)), late);
    }

    #[test]
    fn java_gives_by_force_what_its_owner_renews() {
        for by in ["j1", "j2", "j3"] {
            let left = left(by, 105);
            for owner in ["r1", "j1"] {
                let sides = (side(owner, Some(&left)), side("j2", None));
                let forced = Some(JavaRule::ForcedAssignment);
                assert_eq!(excuse(sides.0, sides.1, at(106)), forced, "{owner} {by}");
            }
        }
    }

    #[test]
    fn one_of_ours_is_never_excused_past_its_fence_nor_for_what_we_gave_away() {
        let expired = left("j1", 111);
        assert_eq!(
            excuse(side("r1", Some(&expired)), side("j1", None), at(112)),
            None
        );
        let given = left("r1", 105);
        for other in ["j1", "r2"] {
            let sides = (side("r1", Some(&given)), side(other, None));
            assert_eq!(excuse(sides.0, sides.1, at(106)), None, "{other}");
        }
        let both_own = (side("r1", None), side("j1", None));
        assert_eq!(excuse(both_own.0, both_own.1, at(106)), None);
    }
}
