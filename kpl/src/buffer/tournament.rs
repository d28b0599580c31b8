//! Tournament tree: finds the largest or smallest of many values, and replaces a value, in logarithmic time. Pure.

/// A value that sums up the leaves below a node.
pub(crate) trait Node: Copy + PartialEq {
    /// Value of a leaf that is not set.
    const NONE: Self;

    fn join(left: Self, right: Self) -> Self;
}

/// A tree over numbered leaves.
#[derive(Debug)]
pub(crate) struct Tournament<N> {
    /// The root is at 1, and the children of `i` are at `2i` and `2i + 1`. The leaves fill the second half.
    nodes: Vec<N>,
}

impl<N: Node> Tournament<N> {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![N::NONE; 2] }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.nodes.len() / 2
    }

    pub(crate) fn root(&self) -> N {
        self.nodes[1]
    }

    pub(crate) fn get(&self, leaf: usize) -> N {
        let first = self.capacity();
        self.nodes.get(first + leaf).copied().unwrap_or(N::NONE)
    }

    pub(crate) fn set(&mut self, leaf: usize, value: N) {
        if leaf >= self.capacity() {
            let leaves: Vec<_> = (0..self.capacity()).map(|leaf| self.get(leaf)).collect();
            *self = Self::build(leaves.into_iter(), leaf + 1);
        }
        let mut node = self.capacity() + leaf;
        self.nodes[node] = value;
        while node > 1 {
            node /= 2;
            let joined = N::join(self.nodes[2 * node], self.nodes[2 * node + 1]);
            // The nodes above depend only on the value of this one.
            if self.nodes[node] == joined {
                break;
            }
            self.nodes[node] = joined;
        }
    }

    /// A tree of these leaves, with room for at least `capacity`.
    pub(crate) fn build(leaves: impl Iterator<Item = N>, capacity: usize) -> Self {
        let first = capacity.next_power_of_two();
        let mut nodes = vec![N::NONE; 2 * first];
        for (node, leaf) in nodes[first..].iter_mut().zip(leaves) {
            *node = leaf;
        }
        for node in (1..first).rev() {
            nodes[node] = N::join(nodes[2 * node], nodes[2 * node + 1]);
        }
        Self { nodes }
    }

    /// The first leaf for which `holds`. It must hold for a node if and only if it holds for a leaf below the node.
    pub(crate) fn first(&self, holds: impl Fn(N) -> bool) -> Option<usize> {
        self.descend(holds, |node| [2 * node, 2 * node + 1])
    }

    /// The last such leaf; see [`first`](Self::first).
    pub(crate) fn last(&self, holds: impl Fn(N) -> bool) -> Option<usize> {
        self.descend(holds, |node| [2 * node + 1, 2 * node])
    }

    fn descend(
        &self,
        holds: impl Fn(N) -> bool,
        children: impl Fn(usize) -> [usize; 2],
    ) -> Option<usize> {
        let mut node = 1;
        if !holds(self.nodes[node]) {
            return None;
        }
        while node < self.capacity() {
            let [preferred, other] = children(node);
            node = if holds(self.nodes[preferred]) { preferred } else { other };
        }
        Some(node - self.capacity())
    }
}

/// The largest of all leaves.
impl Node for usize {
    const NONE: Self = 0;

    fn join(left: Self, right: Self) -> Self {
        left.max(right)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_linear_search_finds(
            steps in proptest::collection::vec((0..40_usize, 0..20_usize), 1..100),
            least in 1..20_usize,
        ) {
            let mut tree = Tournament::new();
            let mut all = vec![0; 64];
            for (leaf, value) in steps {
                tree.set(leaf, value);
                all[leaf] = value;
                prop_assert_eq!(tree.root(), all.iter().copied().max().unwrap());
                let found = |value: &usize| *value >= least;
                prop_assert_eq!(tree.first(|node| node >= least), all.iter().position(found));
                prop_assert_eq!(tree.last(|node| node >= least), all.iter().rposition(found));
            }
        }
    }
}
