//! Decides from the lease table whether a worker of a bounded replay has something left to do. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::lease::Lease;

/// Whether a bounded replay has work for one worker, as that worker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// This worker has work, or may get some: a shard of its own has not finished, or no live worker has the lease of a
    /// shard that may have records.
    Working,
    /// All shards of this worker have finished, and other live workers hold the other leases.
    OthersWork,
    /// All shards of the stream have finished.
    Done,
}

/// `own`: whether each shard with a consumer in this worker has finished. `is_live`: whether the owner of a lease is
/// another worker that renews it.
pub(crate) fn standing(
    leases: &[Lease],
    own: &BTreeMap<String, bool>,
    is_live: impl Fn(&Lease) -> bool,
) -> Standing {
    let by_id: BTreeMap<&str, &Lease> =
        leases.iter().map(|lease| (lease.shard_id(), lease)).collect();
    let mut standing = if leases.is_empty() { Standing::Working } else { Standing::Done };
    for lease in leases {
        if lease.has_ended() {
            // The table is not read at one moment. A child whose lease was just created may be missing.
            if !lease.children.iter().all(|child| by_id.contains_key(child.as_str())) {
                return Standing::Working;
            }
            continue;
        }
        match own.get(lease.shard_id()) {
            Some(true) => {}
            _ if follows_a_finished_shard(lease, &by_id, own) => {}
            None if is_live(lease) => standing = Standing::OthersWork,
            _ => return Standing::Working,
        }
    }
    standing
}

/// Whether the shard waits for a parent that finished before its end. All records of the shard are beyond the bound.
fn follows_a_finished_shard(
    lease: &Lease,
    by_id: &BTreeMap<&str, &Lease>,
    own: &BTreeMap<String, bool>,
) -> bool {
    let mut seen = BTreeSet::new();
    let mut path: Vec<&str> = lease.parents.iter().map(String::as_str).collect();
    while let Some(id) = path.pop() {
        let Some(parent) = by_id.get(id).filter(|parent| !parent.has_ended()) else { continue };
        if own.get(id) == Some(&true) {
            return true;
        }
        if seen.insert(id) {
            path.extend(parent.parents.iter().map(String::as_str));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    fn lease(id: &str, owner: Option<&str>, parents: &[&str]) -> Lease {
        let mut lease = Lease::new(id, Checkpoint::TrimHorizon);
        lease.owner = owner.map(str::to_owned);
        lease.parents = parents.iter().map(|parent| (*parent).to_owned()).collect();
        lease
    }

    fn ended(id: &str, children: &[&str]) -> Lease {
        let mut lease = Lease::new(id, Checkpoint::ShardEnd);
        lease.children = children.iter().map(|child| (*child).to_owned()).collect();
        lease
    }

    /// The standing of the worker `me`. The worker `live` renews its leases, and `dead` does not.
    fn of(leases: &[Lease], own: &[(&str, bool)]) -> Standing {
        let own = own.iter().map(|(id, finished)| ((*id).to_owned(), *finished)).collect();
        standing(leases, &own, |lease| lease.owner.as_deref() == Some("live"))
    }

    #[test]
    fn a_worker_has_work_until_its_shards_have_finished_and_no_lease_is_left_over() {
        let mine = |id| lease(id, Some("me"), &[]);
        let two = [mine("a"), mine("b")];
        assert_eq!(of(&[], &[]), Standing::Working, "the table was not filled yet");
        assert_eq!(of(&two, &[("a", true), ("b", false)]), Standing::Working);
        assert_eq!(of(&two, &[("a", true)]), Standing::Working, "b was just acquired");
        assert_eq!(of(&two, &[("a", true), ("b", true)]), Standing::Done);
        for (owner, standing) in [
            (None, Standing::Working),
            (Some("dead"), Standing::Working),
            (Some("live"), Standing::OthersWork),
        ] {
            let leases = [mine("a"), lease("b", owner, &[])];
            assert_eq!(of(&leases, &[("a", true)]), standing, "{owner:?}");
        }
    }

    #[test]
    fn the_children_of_an_ended_shard_count() {
        let parent = ended("p", &["a", "b"]);
        let a = lease("a", Some("me"), &["p"]);
        assert_eq!(of(&[parent.clone(), a.clone()], &[("a", true)]), Standing::Working);
        let b = lease("b", Some("me"), &["p"]);
        assert_eq!(of(&[parent, a, b], &[("a", true), ("b", true)]), Standing::Done);
        assert_eq!(of(&[ended("gone", &[])], &[]), Standing::Done);
    }

    #[test]
    fn a_shard_that_waits_for_a_finished_one_has_nothing_to_do() {
        let leases =
            [lease("p", Some("me"), &[]), ended("q", &["c"]), lease("c", Some("me"), &["p", "q"])];
        assert_eq!(of(&leases, &[("p", true), ("c", false)]), Standing::Done);
        assert_eq!(of(&leases, &[("p", false), ("c", false)]), Standing::Working);
        let mut below = leases.to_vec();
        below.push(lease("d", None, &["c"]));
        assert_eq!(of(&below, &[("p", true), ("c", false)]), Standing::Done);
    }
}
