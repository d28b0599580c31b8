//! Decisions about the item that is found when a conditional write did not plainly succeed.

use super::error::LeaseStoreError;
use super::model::Lease;
use super::store::{LeaseStore, LeaseWrite, Outcome};

impl LeaseWrite {
    /// True for the writes whose effect can be told from the item.
    fn is_recognizable(&self) -> bool {
        !matches!(self, Self::Create | Self::Replace { .. } | Self::SetFacts(_) | Self::Delete)
    }

    /// True if `seen` is what this write, by `process`, leaves of `before`. Then an earlier attempt was done, and
    /// its answer was lost.
    pub fn is_done(&self, process: u64, before: &Lease, seen: &Lease) -> bool {
        let one_more = seen.counter == before.counter.wrapping_add(1);
        let own = one_more && !seen.is_anothers(process);
        match self {
            Self::Renew { owner, .. } => own && seen.is_owned_by(owner),
            Self::Checkpoint { owner, checkpoint, pending, .. } => {
                own && seen.is_owned_by(owner)
                    && seen.checkpoint == *checkpoint
                    && seen.pending == *pending
            }
            Self::Move { owner, checkpoint, resume_from } => {
                own && seen.is_owned_by(owner)
                    && seen.checkpoint == *checkpoint
                    && seen.resume_from == *resume_from
                    && seen.pending.is_none()
            }
            Self::Take { owner } => {
                own && seen.owner.as_ref() == Some(owner) && !seen.is_handoff_pending()
            }
            Self::Assign { to, released } => {
                let counter = if *released {
                    // A worker may release a lease to its own id. Its renewals leave the same owner, but no
                    // mark.
                    one_more && seen.was_released_to_owner()
                } else {
                    seen.counter > before.counter
                };
                counter && seen.owner.as_ref() == Some(to) && !seen.is_handoff_pending()
            }
            Self::StartHandoff { to } => {
                seen.owner.as_ref() == Some(to) && seen.checkpoint_owner == before.owner
            }
            Self::Evict => {
                let owner = before.owner.as_ref().filter(|_| before.is_handoff_pending());
                one_more && seen.owner.as_ref() == owner && !seen.is_handoff_pending()
            }
            Self::Create | Self::Replace { .. } | Self::SetFacts(_) | Self::Delete => false,
        }
    }
}

/// Turns the answer to a write by `process` into its outcome. Reads the item if the answer does not tell whether
/// the write was done.
///
/// `answer` is never [`Outcome::AppliedBefore`]. It is [`Outcome::ConditionFailed`] with `None` if the service did
/// not return the item.
pub async fn read_back(
    store: &dyn LeaseStore,
    process: u64,
    known: &Lease,
    write: &LeaseWrite,
    answer: Result<Outcome, LeaseStoreError>,
) -> Result<Outcome, LeaseStoreError> {
    let (seen, failure) = match answer {
        Ok(Outcome::ConditionFailed(None)) => (store.get(&known.key).await?, None),
        Ok(Outcome::ConditionFailed(seen)) => (seen, None),
        Err(failure) if failure.is_ambiguous() && write.is_recognizable() => {
            match store.get(&known.key).await {
                Ok(seen) => (seen, Some(failure)),
                // The failure of the write says more than that of the read.
                Err(_) => return Err(failure),
            }
        }
        plain => return plain,
    };
    match (seen, failure) {
        (Some(seen), _) if write.is_done(process, known, &seen) => Ok(Outcome::AppliedBefore(seen)),
        (_, Some(failure)) => Err(failure),
        (seen, None) => Ok(Outcome::ConditionFailed(seen)),
    }
}

/// The lease that an owner goes on with after a refused write: the lease as it was found, if it is still the
/// owner's. `None`: another writer moved it, and it is lost.
///
/// `process` is that of the owner `me`. `unclear`: an earlier write of the owner may have been done.
pub fn adopt(
    me: &str,
    process: u64,
    known: &Lease,
    seen: Option<Lease>,
    unclear: bool,
) -> Option<Lease> {
    seen.filter(|seen| {
        let own_write =
            unclear && seen.counter == known.counter.wrapping_add(1) && !seen.is_anothers(process);
        seen.is_owned_by(me) && (seen.counter == known.counter || own_write)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::lease::model::Stamp;
    use crate::lease::store::OwnerReport;

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
        let renew = LeaseWrite::Renew { owner: "me".into(), report: OwnerReport::default() };
        assert!(renew.is_done(P, &before, &lease("me", "", 5)));
        assert!(renew.is_done(P, &before, &lease("other", "me", 5)), "a handoff began meanwhile");
        assert!(!renew.is_done(P, &before, &lease("other", "", 5)), "another worker took it");
        assert!(!renew.is_done(P, &before, &lease("me", "", 6)), "lost and regained");
        assert!(!renew.is_done(P, &before, &lease("me", "other", 5)));
        assert!(!renew.is_done(P, &before, &before));

        let seven = Checkpoint::parse("7", 0).unwrap();
        let checkpoint = LeaseWrite::Checkpoint {
            owner: "me".into(),
            checkpoint: seven.clone(),
            pending: None,
            report: OwnerReport::default(),
        };
        assert!(!checkpoint.is_done(P, &before, &lease("me", "", 5)), "an older checkpoint");
        let written = Lease { checkpoint: seven, ..lease("me", "", 5) };
        assert!(checkpoint.is_done(P, &before, &written));

        let take = LeaseWrite::Take { owner: "w".into() };
        assert!(take.is_done(P, &lease("", "", 4), &lease("w", "", 5)));
        assert!(!take.is_done(P, &lease("", "", 4), &lease("v", "", 5)));

        let assign = LeaseWrite::Assign { to: "w".into(), released: false };
        assert!(assign.is_done(P, &lease("w", "me", 4), &lease("w", "", 9)));
        assert!(!assign.is_done(P, &lease("w", "me", 4), &lease("w", "me", 9)));
        let release = LeaseWrite::Assign { to: "w".into(), released: true };
        let released = |counter| Lease { released_at: Some(counter), ..lease("w", "", counter) };
        assert!(release.is_done(P, &before, &released(5)));
        assert!(!release.is_done(P, &before, &released(6)));
        assert!(
            !release.is_done(P, &before, &lease("w", "", 5)),
            "a renewal of its own, if it keeps the lease for its next process"
        );

        let handoff = LeaseWrite::StartHandoff { to: "w".into() };
        assert!(handoff.is_done(P, &before, &lease("w", "me", 4)));
        assert!(!handoff.is_done(P, &before, &lease("v", "me", 4)));

        assert!(LeaseWrite::Evict.is_done(P, &before, &lease("", "", 5)));
        assert!(LeaseWrite::Evict.is_done(P, &lease("w", "me", 4), &lease("w", "", 5)));
        assert!(!LeaseWrite::Evict.is_done(P, &before, &lease("w", "", 5)));
    }

    #[test]
    fn an_owner_adopts_only_what_is_still_its_own() {
        let known = lease("me", "", 4);
        let adopted = |seen: &Lease, unclear| adopt("me", P, &known, Some(seen.clone()), unclear);
        let handoff = lease("other", "me", 4);
        assert_eq!(adopted(&handoff, false), Some(handoff));
        let landed = lease("me", "", 5);
        assert_eq!(adopted(&landed, true), Some(landed.clone()));
        assert_eq!(adopted(&landed, false), None);
        assert_eq!(adopted(&lease("other", "", 5), true), None);
        assert_eq!(adopted(&lease("me", "", 6), true), None);
        assert_eq!(adopt("me", P, &known, None, true), None);
    }

    #[test]
    fn what_another_process_of_the_same_id_wrote_is_not_its_own() {
        let known = lease("me", "", 4);
        let stamped =
            |process| Lease { stamp: Some(Stamp::after(4, process)), ..lease("me", "", 5) };
        let renew = LeaseWrite::Renew { owner: "me".into(), report: OwnerReport::default() };
        let take = LeaseWrite::Take { owner: "me".into() };
        for write in [&renew, &take] {
            assert!(write.is_done(P, &known, &stamped(P)));
            assert!(!write.is_done(P, &known, &stamped(P + 1)), "{write:?}");
        }
        let (own, others) = (stamped(P), stamped(P + 1));
        assert_eq!(adopt("me", P, &known, Some(own.clone()), true), Some(own));
        assert_eq!(adopt("me", P, &known, Some(others.clone()), true), None);
        // Later writes are a leader's, or a Java worker's.
        let since = Lease { counter: 6, ..others };
        assert!(renew.is_done(P, &lease("me", "", 5), &since));
    }
}
