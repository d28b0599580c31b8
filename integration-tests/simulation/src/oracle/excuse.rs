//! The rule of the Java library, if any, by which two processors overlap. No worker of ours can prevent
//! what such a rule leaves open.

use std::time::Duration;

use kcl::internals::Lease;

use super::{FORCE, Kind, Processor, State};
use crate::process::worker_id;
use crate::world::FAILOVER;

/// Time after which no leader has to force a handoff. A worker of ours sees the handoff while its fence stands, and
/// completes it at most 25 s later.
const OURS_LETS_GO: Duration = FAILOVER.saturating_add(Duration::from_secs(25));

/// A rule of the Java library by which two workers may process one shard for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JavaRule {
    /// Its leader assigns, and its workers end a handoff, whatever the lease's counter does meanwhile.
    ForcedAssignment,
    /// A worker's own fence counts from the answer to a renewal. Other workers count from the renewal.
    FenceFromAnswer,
    /// A worker that reads a lease back takes an earlier write of its own for the renewal that it has just sent.
    ReadBack,
    /// A worker starts on a lease that it was assigned without renewing it first, however late it finds it.
    LateStart,
    /// A worker creates a lease if there is none, by a scan from before the lease was deleted.
    OldLook,
}

impl JavaRule {
    /// As reports show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ForcedAssignment => "forced assignment",
            Self::FenceFromAnswer => "fence from the answer",
            Self::ReadBack => "read back",
            Self::LateStart => "late start",
            Self::OldLook => "created by an old look",
        }
    }
}

/// A processor that goes on by a rule of the Java library after the time at which other workers may take its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overstay {
    /// The time from which on other workers may take the lease.
    pub(crate) until: Duration,
    pub(crate) rule: JavaRule,
}

/// One of two processors that overlap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) worker: &'a str,
    pub(super) kind: Kind,
    pub(super) overstay: Option<Overstay>,
    /// How the lease passed from its worker to another, if it did.
    pub(super) left: Option<&'a Left>,
}

/// How a lease passed from the worker that processed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) at: Duration,
    /// The worker that wrote that.
    pub(super) by: String,
    /// The writer was a Java worker or the leader that assigns by force.
    pub(super) by_java: bool,
    /// When the counter had last moved.
    pub(super) heard: Duration,
    /// Time since its worker was told to hand the lease over, without the time in which it was suspended.
    pub(super) told_for: Duration,
}

/// A pending handoff.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    since: Duration,
    /// How long its owner had been suspended until then, in all.
    slept: Duration,
}

/// The rule by which both could be at work. `now`: when the second began.
pub(super) fn excuse(a: Side<'_>, b: Side<'_>, now: Duration) -> Option<JavaRule> {
    of(a, b, now).or_else(|| of(b, a, now))
}

/// The rule by which `gone` is at work although the lease is not its worker's any more.
fn of(gone: Side<'_>, other: Side<'_>, now: Duration) -> Option<JavaRule> {
    let left = gone.left?;
    let until = gone.overstay.map_or(left.heard + FAILOVER, |overstay| overstay.until);
    let overdue = gone.kind == Kind::Rust && left.told_for > OURS_LETS_GO;
    if left.by_java && other.kind == Kind::Java && left.at <= until && !overdue {
        return Some(JavaRule::ForcedAssignment);
    }
    // A worker of ours starts on an assigned lease when the rules allow it, not when it is assigned.
    let waits = other.kind == Kind::Rust && left.by != other.worker;
    let began = if waits { now } else { left.at };
    let overstay = gone.overstay.filter(|overstay| began > overstay.until);
    overstay.map(|overstay| overstay.rule)
}

impl State {
    /// Notes which worker is to hand a lease over, and which no longer processes it.
    pub(super) fn pass(
        &mut self,
        now: Duration,
        by: &str,
        key: &str,
        before: Option<&Lease>,
        after: Option<&Lease>,
    ) {
        let pends = after.is_some_and(Lease::is_handoff_pending);
        let pending = match pends {
            true => self.pending.get(key).copied(),
            false => self.pending.remove(key),
        };
        let from = before.and_then(Lease::actual_owner);
        let slept = from.map_or(Duration::ZERO, |owner| self.slept(key, owner));
        if pends && pending.is_none() {
            let pending = Pending { since: now, slept };
            self.pending.insert(key.to_owned(), pending);
        }
        let to = after.and_then(Lease::actual_owner);
        if from == to {
            return;
        }
        if let Some(worker) = to {
            self.left.remove(&(key.to_owned(), worker.to_owned()));
        }
        if let (Some(worker), Some(before)) = (from, before) {
            let heard = self.moved.get(&(key.to_owned(), before.counter));
            let left = Left {
                at: now,
                by: by.to_owned(),
                by_java: by == FORCE || by.starts_with('j'),
                heard: heard.map_or(Duration::ZERO, |moved| moved.at),
                told_for: pending.map_or(Duration::ZERO, |pending| {
                    (now - pending.since).saturating_sub(slept.saturating_sub(pending.slept))
                }),
            };
            let from = (key.to_owned(), worker.to_owned());
            self.left.insert(from, left);
        }
    }

    /// The rule of Java's by which both could be at work, if there is one.
    pub(super) fn excuse(&self, a: &Processor, b: &Processor, now: Duration) -> Option<JavaRule> {
        let side = |processor: &'_ Processor| {
            let worker = worker_id(&processor.worker).to_owned();
            let left = (processor.shard.clone(), worker);
            self.left.get(&left)
        };
        let (left_a, left_b) = (side(a), side(b));
        excuse(a.side(left_a), b.side(left_b), now)
    }

    /// How long the process was suspended that has this processor, in all.
    fn slept(&self, shard: &str, owner: &str) -> Duration {
        let mut all = self.processors.values();
        let own = all.find(|one| one.shard == shard && worker_id(&one.worker) == owner);
        own.map_or(Duration::ZERO, |one| one.hold.slept())
    }
}

impl Processor {
    fn side<'a>(&'a self, left: Option<&'a Left>) -> Side<'a> {
        Side { worker: &self.worker, kind: self.kind, overstay: self.hold.overstay(), left }
    }
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
            told_for: Duration::ZERO,
        }
    }

    fn side<'a>(worker: &'a str, left: Option<&'a Left>) -> Side<'a> {
        let kind = if worker.starts_with('j') { Kind::Java } else { Kind::Rust };
        let overstay = (kind == Kind::Java)
            .then_some(Overstay { until: at(110), rule: JavaRule::FenceFromAnswer });
        Side { worker, kind, overstay, left }
    }

    #[test]
    fn one_of_ours_may_take_it_only_from_a_java_worker_that_overstays() {
        for (taken, expected) in [(109, None), (110, None), (111, Some(JavaRule::FenceFromAnswer))]
        {
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
    fn java_never_has_to_force_one_of_ours_that_was_told() {
        for (told_for, owner, excused) in [(35, "r1", true), (36, "r1", false), (36, "j1", true)] {
            let left = Left { told_for: at(told_for), ..left("j3", 105) };
            let sides = (side(owner, Some(&left)), side("j2", None));
            let forced = excused.then_some(JavaRule::ForcedAssignment);
            assert_eq!(excuse(sides.0, sides.1, at(106)), forced, "{owner} {told_for}");
        }
    }

    #[test]
    fn one_of_ours_is_never_excused_past_its_fence_nor_for_what_we_gave_away() {
        let expired = left("j1", 111);
        assert_eq!(excuse(side("r1", Some(&expired)), side("j1", None), at(112)), None);
        let given = left("r1", 105);
        for other in ["j1", "r2"] {
            let sides = (side("r1", Some(&given)), side(other, None));
            assert_eq!(excuse(sides.0, sides.1, at(106)), None, "{other}");
        }
        let both_own = (side("r1", None), side("j1", None));
        assert_eq!(excuse(both_own.0, both_own.1, at(106)), None);
    }
}
