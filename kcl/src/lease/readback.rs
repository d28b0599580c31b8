//! What to make of the item that was found when a conditional write did not go through: pure.

use super::error::LeaseStoreError;
use super::model::Lease;
use super::store::{Outcome, Progress};

/// A conditional write, by what it should leave behind.
#[derive(Debug, Clone, Copy)]
pub enum Intent<'a> {
    Renew { owner: &'a str },
    Checkpoint { owner: &'a str, progress: &'a Progress },
    Take { owner: &'a str },
    Assign { to: &'a str, released: bool },
    StartHandoff { to: &'a str },
    Evict,
}

impl Intent<'_> {
    /// True if `seen` is what this write, by `process`, leaves of `before`: its answer was lost, and a
    /// retry found the condition gone.
    pub fn is_done(self, process: u64, before: &Lease, seen: &Lease) -> bool {
        let one_more = seen.counter == before.counter.wrapping_add(1);
        let own = one_more && !seen.is_anothers(process);
        match self {
            Self::Renew { owner } => own && seen.is_owned_by(owner),
            Self::Checkpoint { owner, progress } => {
                own && seen.is_owned_by(owner)
                    && seen.checkpoint == progress.checkpoint
                    && seen.pending == progress.pending
            }
            Self::Take { owner } => {
                own && seen.owner.as_deref() == Some(owner) && !seen.is_handoff_pending()
            }
            Self::Assign { to, released } => {
                let counter = if released {
                    // A renewal of one that releases to its own id leaves the same owner.
                    one_more && seen.was_released_to_owner()
                } else {
                    seen.counter > before.counter
                };
                counter && seen.owner.as_deref() == Some(to) && !seen.is_handoff_pending()
            }
            Self::StartHandoff { to } => {
                seen.owner.as_deref() == Some(to) && seen.checkpoint_owner == before.owner
            }
            Self::Evict => {
                let owner = before.is_handoff_pending().then(|| before.owner.clone()).flatten();
                one_more && seen.owner == owner && !seen.is_handoff_pending()
            }
        }
    }
}

/// What a write did whose answer was not a plain success. `refused`: its condition did not hold; else
/// it failed, perhaps after it was done. `seen`: the item as read since.
pub fn conclude(
    intent: Option<Intent<'_>>,
    process: u64,
    before: &Lease,
    seen: Option<Lease>,
    refused: bool,
    failure: LeaseStoreError,
) -> Result<Outcome, LeaseStoreError> {
    match seen {
        Some(seen) if intent.is_some_and(|intent| intent.is_done(process, before, &seen)) => {
            Ok(Outcome::AppliedBefore(seen))
        }
        seen if refused => Ok(Outcome::ConditionFailed(seen)),
        _ => Err(failure),
    }
}

/// What an owner makes of a refused write.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The lease is still its own: take over what was found and try again.
    Adopt(Box<Lease>),
    /// Somebody moved it.
    Lost,
}

/// `process` is that of the owner `me`. `unclear`: an earlier write of it may have been done.
pub fn judge(me: &str, process: u64, known: &Lease, seen: Option<Lease>, unclear: bool) -> Verdict {
    match seen {
        Some(seen)
            if seen.is_owned_by(me)
                && (seen.counter == known.counter
                    || (unclear
                        && seen.counter == known.counter.wrapping_add(1)
                        && !seen.is_anothers(process))) =>
        {
            Verdict::Adopt(Box::new(seen))
        }
        _ => Verdict::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::lease::model::Stamp;

    const P: u64 = 7;

    fn lease(owner: &str, checkpoint_owner: &str, counter: u64) -> Lease {
        let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Lease {
            owner: some(owner),
            checkpoint_owner: some(checkpoint_owner),
            counter,
            ..Lease::new("shardId-0", Checkpoint::TrimHorizon)
        }
    }

    #[test]
    fn a_write_is_done_only_if_owner_counter_and_checkpoint_are_as_it_leaves_them() {
        let before = lease("me", "", 4);
        let renew = Intent::Renew { owner: "me" };
        assert!(renew.is_done(P, &before, &lease("me", "", 5)));
        assert!(renew.is_done(P, &before, &lease("other", "me", 5)), "a handoff began meanwhile");
        assert!(!renew.is_done(P, &before, &lease("other", "", 5)), "another worker took it");
        assert!(!renew.is_done(P, &before, &lease("me", "", 6)), "lost and regained");
        assert!(!renew.is_done(P, &before, &lease("me", "other", 5)));
        assert!(!renew.is_done(P, &before, &before));

        let progress = Progress {
            checkpoint: Checkpoint::parse("7", 0).unwrap(),
            pending: None,
            throughput: None,
        };
        let checkpoint = Intent::Checkpoint { owner: "me", progress: &progress };
        assert!(!checkpoint.is_done(P, &before, &lease("me", "", 5)), "an older checkpoint");
        let written = Lease { checkpoint: progress.checkpoint.clone(), ..lease("me", "", 5) };
        assert!(checkpoint.is_done(P, &before, &written));

        let take = Intent::Take { owner: "w" };
        assert!(take.is_done(P, &lease("", "", 4), &lease("w", "", 5)));
        assert!(!take.is_done(P, &lease("", "", 4), &lease("v", "", 5)));

        let assign = Intent::Assign { to: "w", released: false };
        assert!(assign.is_done(P, &lease("w", "me", 4), &lease("w", "", 9)));
        assert!(!assign.is_done(P, &lease("w", "me", 4), &lease("w", "me", 9)));
        let release = Intent::Assign { to: "w", released: true };
        let released = |counter| Lease { released_at: Some(counter), ..lease("w", "", counter) };
        assert!(release.is_done(P, &before, &released(5)));
        assert!(!release.is_done(P, &before, &released(6)));
        assert!(
            !release.is_done(P, &before, &lease("w", "", 5)),
            "a renewal of its own, if it keeps the lease for its next process"
        );

        let handoff = Intent::StartHandoff { to: "w" };
        assert!(handoff.is_done(P, &before, &lease("w", "me", 4)));
        assert!(!handoff.is_done(P, &before, &lease("v", "me", 4)));

        assert!(Intent::Evict.is_done(P, &before, &lease("", "", 5)));
        assert!(Intent::Evict.is_done(P, &lease("w", "me", 4), &lease("w", "", 5)));
        assert!(!Intent::Evict.is_done(P, &before, &lease("w", "", 5)));
    }

    #[test]
    fn an_owner_adopts_only_what_is_still_its_own() {
        let known = lease("me", "", 4);
        let handoff = lease("other", "me", 4);
        assert_eq!(
            judge("me", P, &known, Some(handoff.clone()), false),
            Verdict::Adopt(handoff.into())
        );
        let landed = lease("me", "", 5);
        assert_eq!(
            judge("me", P, &known, Some(landed.clone()), true),
            Verdict::Adopt(landed.clone().into())
        );
        assert_eq!(judge("me", P, &known, Some(landed), false), Verdict::Lost);
        assert_eq!(judge("me", P, &known, Some(lease("other", "", 5)), true), Verdict::Lost);
        assert_eq!(judge("me", P, &known, Some(lease("me", "", 6)), true), Verdict::Lost);
        assert_eq!(judge("me", P, &known, None, true), Verdict::Lost);
    }

    #[test]
    fn what_another_process_of_the_same_id_wrote_is_not_its_own() {
        let known = lease("me", "", 4);
        let stamped =
            |process| Lease { stamp: Some(Stamp::after(4, process)), ..lease("me", "", 5) };
        let renew = Intent::Renew { owner: "me" };
        let take = Intent::Take { owner: "me" };
        for intent in [renew, take] {
            assert!(intent.is_done(P, &known, &stamped(P)));
            assert!(!intent.is_done(P, &known, &stamped(P + 1)), "{intent:?}");
        }
        let (own, others) = (stamped(P), stamped(P + 1));
        assert_eq!(judge("me", P, &known, Some(own.clone()), true), Verdict::Adopt(own.into()));
        assert_eq!(judge("me", P, &known, Some(others.clone()), true), Verdict::Lost);
        // What was written since is a leader's, or Java's.
        let since = Lease { counter: 6, ..others };
        assert!(renew.is_done(P, &lease("me", "", 5), &since));
    }
}
