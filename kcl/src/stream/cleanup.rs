//! Decides which leases of finished shards may be deleted. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::list::Shard;
use crate::lease::Lease;

/// Time for which a lease must have been seen finished before it is deleted. A worker that was suspended, or a
/// request that was delayed, may still be about to create the lease. While the lease exists, it cannot be
/// created again, so its shard is not processed again from the start.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(60);

/// Time at which each lease was first seen finished.
#[derive(Debug, Default)]
pub(crate) struct FinishedSince(BTreeMap<String, Duration>);

impl FinishedSince {
    /// Returns those of the `finished` leases that may be deleted.
    pub(super) fn due<'a>(&mut self, finished: Vec<&'a Lease>, now: Duration) -> Vec<&'a Lease> {
        let keys: BTreeSet<&str> = finished.iter().map(|lease| lease.shard_id()).collect();
        self.0.retain(|key, _| keys.contains(key.as_str()));
        let mut due = finished;
        due.retain(|lease| {
            let since = *self.0.entry(lease.key.clone()).or_insert(now);
            now.saturating_sub(since) >= KEPT_FOR
        });
        due
    }
}

/// Returns the leases that are no longer needed: those at `SHARD_END` whose parents have no lease left, if every
/// child has a lease with a checkpoint after its start, or if the shard itself has left the stream.
///
/// `shards` are all that the stream lists.
pub(super) fn finished<'a>(leases: &'a [Lease], shards: &[Shard]) -> Vec<&'a Lease> {
    let by_id: BTreeMap<&str, &Lease> =
        leases.iter().map(|lease| (lease.shard_id(), lease)).collect();
    let listed: BTreeMap<&str, &Shard> =
        shards.iter().map(|shard| (shard.id.as_str(), shard)).collect();
    let mut listed_children: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for shard in shards {
        for parent in &shard.parents {
            listed_children.entry(parent).or_default().insert(&shard.id);
        }
    }
    let is_finished = |lease: &&Lease| {
        let id = lease.shard_id();
        let mut parents =
            lease.parents.iter().chain(listed.get(id).into_iter().flat_map(|shard| &shard.parents));
        if !lease.has_ended() || parents.any(|parent| by_id.contains_key(parent.as_str())) {
            return false;
        }
        let mut children = listed_children.get(id).cloned().unwrap_or_default();
        if !listed.contains_key(id) && !shards.is_empty() {
            // It is past the stream's retention. Children that are still listed must have leases.
            return children.iter().all(|child| by_id.contains_key(child));
        }
        children.extend(lease.children.iter().map(String::as_str));
        !children.is_empty()
            && children
                .iter()
                .all(|child| by_id.get(child).is_some_and(|child| !child.checkpoint.is_initial()))
    };
    leases.iter().filter(is_finished).collect()
}

#[cfg(test)]
mod tests {
    use kinesis_aggregation::HashKeyRange;

    use super::*;
    use crate::checkpoint::Checkpoint;

    fn shard(id: &str, parents: &[&str]) -> Shard {
        Shard {
            id: id.to_owned(),
            parents: parents.iter().map(|id| (*id).to_owned()).collect(),
            hash_key_range: HashKeyRange::FULL,
            starting_sequence: "1".parse().unwrap(),
            open: false,
        }
    }

    fn lease(id: &str, checkpoint: &str, parents: &[&str], children: &[&str]) -> Lease {
        let mut lease = Lease::new(id, Checkpoint::parse(checkpoint, 0).unwrap());
        lease.parents = parents.iter().map(|id| (*id).to_owned()).collect();
        lease.children = children.iter().map(|id| (*id).to_owned()).collect();
        lease
    }

    fn ids(leases: &[Lease], shards: &[Shard]) -> Vec<String> {
        finished(leases, shards).iter().map(|lease| lease.key.clone()).collect()
    }

    #[test]
    fn a_finished_lease_is_kept_until_nobody_can_be_about_to_create_it() {
        let at = Duration::from_secs;
        let (a, b) = (lease("a", "SHARD_END", &[], &[]), lease("b", "SHARD_END", &[], &[]));
        let mut since = FinishedSince::default();
        assert!(since.due(vec![&a], at(100)).is_empty());
        assert!(since.due(vec![&a, &b], at(159)).is_empty());
        assert_eq!(since.due(vec![&a, &b], at(160)), [&a]);
        assert_eq!(since.due(vec![&b], at(219)), [&b], "since 159");
        assert!(since.due(vec![&a], at(300)).is_empty(), "it was not, meanwhile");
    }

    #[test]
    fn a_split_parent_goes_when_both_children_have_moved_on() {
        let shards = [shard("p", &[]), shard("a", &["p"]), shard("b", &["p"])];
        let table = |a: &str, b: &str| {
            [
                lease("p", "SHARD_END", &[], &["a", "b"]),
                lease("a", a, &["p"], &[]),
                lease("b", b, &["p"], &[]),
            ]
        };
        assert_eq!(ids(&table("5", "7"), &shards), ["p"]);
        assert_eq!(ids(&table("5", "SHARD_END"), &shards), ["p"]);
        for start in ["TRIM_HORIZON", "AT_TIMESTAMP", "LATEST"] {
            assert!(ids(&table("5", start), &shards).is_empty(), "{start}");
        }
        assert!(ids(&table("5", "7")[..2], &shards).is_empty(), "a child has no lease");
        let open = [lease("p", "9", &[], &["a", "b"]), table("5", "7")[1].clone()];
        assert!(ids(&open, &shards).is_empty(), "not ended");
    }

    #[test]
    fn merge_parents_go_together_and_never_before_their_own_parents() {
        let shards =
            [shard("g", &[]), shard("p", &["g"]), shard("q", &["g"]), shard("c", &["p", "q"])];
        let mut table = vec![
            lease("g", "SHARD_END", &[], &["p", "q"]),
            lease("p", "SHARD_END", &["g"], &["c"]),
            lease("q", "SHARD_END", &["g"], &["c"]),
            lease("c", "3", &["p", "q"], &[]),
        ];
        assert_eq!(ids(&table, &shards), ["g"]);
        table.remove(0);
        assert_eq!(ids(&table, &shards), ["p", "q"]);
    }

    #[test]
    fn children_are_taken_from_the_listing_too() {
        let shards = [shard("p", &[]), shard("a", &["p"]), shard("b", &["p"])];
        let table = [lease("p", "SHARD_END", &[], &["a"]), lease("a", "4", &["p"], &[])];
        assert!(ids(&table, &shards).is_empty(), "b is listed and has no lease");
    }

    #[test]
    fn a_shard_that_left_the_stream_goes_unless_a_listed_child_lacks_its_lease() {
        let table = [lease("p", "SHARD_END", &[], &[]), lease("x", "SHARD_END", &[], &["y"])];
        assert_eq!(ids(&table, &[shard("z", &[])]), ["p", "x"]);
        assert!(ids(&table, &[]).is_empty(), "an empty listing proves nothing");
        assert_eq!(ids(&table, &[shard("y", &["x"])]), ["p"]);
        assert!(ids(&[lease("p", "4", &[], &[])], &[shard("z", &[])]).is_empty(), "not ended");
        assert!(
            ids(&[lease("p", "SHARD_END", &[], &[])], &[shard("p", &[])]).is_empty(),
            "listed, and nothing known of its children"
        );
    }
}
