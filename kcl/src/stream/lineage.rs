//! Ancestors and descendants of shards, by the graph of splits and merges. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::list::Shard;

/// The shards that a stream lists, with their parents and children.
pub(crate) struct Lineage<'a> {
    shards: BTreeMap<&'a str, &'a Shard>,
    children: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Lineage<'a> {
    pub(crate) fn new(shards: &'a [Shard]) -> Self {
        let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for shard in shards {
            for parent in &shard.parents {
                children.entry(parent).or_default().push(&shard.id);
            }
        }
        Self { shards: shards.iter().map(|shard| (shard.id.as_str(), shard)).collect(), children }
    }

    pub(crate) fn shard(&self, id: &str) -> Option<&'a Shard> {
        self.shards.get(id).copied()
    }

    /// The children of a shard that the stream lists.
    pub(crate) fn children(&self, id: &str) -> &[&'a str] {
        self.children.get(id).map_or(&[], Vec::as_slice)
    }

    /// The parents of a shard, whether the stream still lists them or not.
    pub(crate) fn parents(&self, id: &str) -> impl Iterator<Item = &'a str> {
        let shard = self.shards.get(id);
        shard.into_iter().flat_map(|shard| shard.parents.iter().map(String::as_str))
    }

    /// The listed shards that follow one of these.
    pub(crate) fn descendants<'b>(
        &self,
        of: impl IntoIterator<Item = &'b str>,
    ) -> BTreeSet<&'a str> {
        let children = |id: &str| self.children(id).to_vec();
        closure(of.into_iter().flat_map(children).collect(), children)
    }

    /// The listed shards that one of these follows.
    pub(crate) fn ancestors<'b>(&self, of: impl IntoIterator<Item = &'b str>) -> BTreeSet<&'a str> {
        let listed_parents = |id: &str| {
            let listed = self.parents(id).filter(|parent| self.shards.contains_key(parent));
            listed.collect::<Vec<_>>()
        };
        closure(of.into_iter().flat_map(listed_parents).collect(), listed_parents)
    }
}

/// All that `next` leads to from `path`, `path` included.
fn closure<'a>(mut path: Vec<&'a str>, next: impl Fn(&str) -> Vec<&'a str>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    while let Some(id) = path.pop() {
        if found.insert(id) {
            path.extend(next(id));
        }
    }
    found
}
