//! A decoded aggregate and its members, as views into the received bytes.

use std::fmt;

use bytes::Bytes;

use crate::decode::find_tag;
use crate::hash_key::{HashKey, hash_partition_keys};
use crate::wire::Span;

/// Stands for "no explicit hash key" in a member's entry. No table has so many rows: a row takes two
/// bytes of a message of at most 4 GiB.
pub(crate) const NO_KEY: u32 = u32::MAX;

/// A decoded aggregate: an index into the received bytes, nothing copied.
///
/// Members come in the order in which they were sent; a member's index is its sub-sequence number.
///
/// **Memory.** 16 bytes for each member and 8 for each key, beside the received bytes, which stay
/// alive as long as the aggregate or a slice from [`Member::data_bytes`].
#[derive(Clone)]
pub struct Aggregate {
    pub(crate) body: Bytes,
    pub(crate) partition_keys: Vec<Span>,
    /// `None` for a row that is no hash key.
    pub(crate) explicit_hash_keys: Vec<Option<Span>>,
    pub(crate) members: Vec<MemberEntry>,
    pub(crate) defect: Option<AggregateDefect>,
    /// Members that refer to a row that is no hash key: how many, and the index of the first.
    pub(crate) invalid_hash_keys: usize,
    pub(crate) first_invalid_hash_key: Option<usize>,
    pub(crate) compressed: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct MemberEntry {
    pub(crate) partition_key: u32,
    pub(crate) explicit_hash_key: u32,
    pub(crate) data: Span,
}

impl Aggregate {
    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member. A valid aggregate may be empty.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The member with this sub-sequence number.
    pub fn get(&self, index: usize) -> Option<Member<'_>> {
        self.members.get(index).map(|entry| Member { aggregate: self, entry, index })
    }

    /// The members in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Member<'_>> + DoubleEndedIterator {
        let members = self.members.iter().enumerate();
        members.map(|(index, entry)| Member { aggregate: self, entry, index })
    }

    /// The [hash key](Member::hash_key) of each member, in order. Each partition key is hashed once, and eight at a
    /// time.
    pub fn hash_keys(&self) -> Vec<HashKey> {
        let mut of_rows = Vec::new();
        if self.iter().any(|member| member.explicit_hash_key().is_none()) {
            let rows = self.partition_keys.iter().map(|span| self.text(*span));
            hash_partition_keys(rows, &mut of_rows);
        }
        let of_row = |member: &Member<'_>| of_rows[member.entry.partition_key as usize];
        self.iter().map(|m| m.explicit_hash_key().unwrap_or_else(|| of_row(&m))).collect()
    }

    /// Set if members were dropped because one of them is broken.
    ///
    /// As in the Java KCL (`AggregatorUtil`), the members before the broken one are kept. That one
    /// and all after it are dropped. A consumer should report it: records of the stream are missing.
    pub fn defect(&self) -> Option<AggregateDefect> {
        self.defect
    }

    /// Number of members whose explicit hash key is no decimal number from 0 to 2^128 - 1. Old
    /// JavaScript writers leave entries such as `undefined`.
    ///
    /// Their keys and data are intact. Each has no [explicit hash key](Member::explicit_hash_key), so
    /// that its partition key decides its [hash key](Member::hash_key).
    pub fn invalid_hash_keys(&self) -> u64 {
        self.invalid_hash_keys as u64
    }

    /// What the Java KCL (`AggregatorUtil`) would drop of this aggregate: as [`defect`](Self::defect),
    /// but the first member whose explicit hash key is no number counts as broken too.
    pub fn strict_defect(&self) -> Option<AggregateDefect> {
        let Some(first) = self.first_invalid_hash_key else {
            return self.defect;
        };
        let after = (self.members.len() - first) as u64;
        let dropped_already = self.defect.map_or(0, |defect| defect.dropped);
        Some(AggregateDefect {
            kind: DefectKind::InvalidExplicitHashKey,
            index: first as u64,
            dropped: after + dropped_already,
        })
    }

    /// Whether the aggregate came in the compressed frame.
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Memory in bytes that the aggregate takes beside the received bytes: its index, and the unpacked bytes of a
    /// compressed one.
    pub fn memory(&self) -> usize {
        self.members.capacity() * size_of::<MemberEntry>()
            + self.partition_keys.capacity() * size_of::<Span>()
            + self.explicit_hash_keys.capacity() * size_of::<Option<Span>>()
            + if self.compressed { self.body.len() } else { 0 }
    }

    fn text(&self, span: Span) -> &str {
        str::from_utf8(&self.body[span.range()]).expect("checked while decoding")
    }
}

impl fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregate")
            .field("len", &self.len())
            .field("size", &self.body.len())
            .field("compressed", &self.compressed)
            .field("defect", &self.defect)
            .finish_non_exhaustive()
    }
}

/// One record of an aggregate: a view, cheap to copy.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    aggregate: &'a Aggregate,
    entry: &'a MemberEntry,
    index: usize,
}

impl<'a> Member<'a> {
    /// The sub-sequence number: the index in the aggregate.
    pub fn index(&self) -> u64 {
        self.index as u64
    }

    /// The partition key the record was sent with.
    pub fn partition_key(&self) -> &'a str {
        self.aggregate.text(self.aggregate.partition_keys[self.entry.partition_key as usize])
    }

    /// The explicit hash key, if the user gave one that is a number.
    pub fn explicit_hash_key(&self) -> Option<HashKey> {
        if self.entry.explicit_hash_key == NO_KEY {
            return None;
        }
        let span = self.aggregate.explicit_hash_keys[self.entry.explicit_hash_key as usize]?;
        self.aggregate.text(span).parse().ok()
    }

    /// The hash key: the explicit one, else that of the partition key (an MD5, computed anew on each
    /// call). For all members take [`Aggregate::hash_keys`].
    pub fn hash_key(&self) -> HashKey {
        self.explicit_hash_key().unwrap_or_else(|| HashKey::of_partition_key(self.partition_key()))
    }

    /// The payload.
    pub fn data(&self) -> &'a [u8] {
        &self.aggregate.body[self.entry.data.range()]
    }

    /// The payload as a slice of the received bytes, to keep: nothing is copied, and the whole of
    /// the received (or unpacked) record stays in memory as long as the slice.
    pub fn data_bytes(&self) -> Bytes {
        self.aggregate.body.slice(self.entry.data.range())
    }

    /// The value of the first tag with this key: empty if the tag has none, `None` if there is no such tag.
    ///
    /// Tags are rare, so the index has none of them: each call reads the message up to this member.
    pub fn tag(&self, key: &str) -> Option<&'a str> {
        find_tag(&self.aggregate.body, self.index, key).ok().flatten()
    }
}

impl fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("index", &self.index)
            .field("size", &self.data().len())
            .finish_non_exhaustive()
    }
}

/// Why members of an aggregate were dropped, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("member {index} {kind}; it and all after it were dropped, {dropped} in all")]
pub struct AggregateDefect {
    pub(crate) kind: DefectKind,
    pub(crate) index: u64,
    pub(crate) dropped: u64,
}

impl AggregateDefect {
    /// What is wrong with the first member dropped.
    pub const fn kind(&self) -> DefectKind {
        self.kind
    }

    /// The sub-sequence number of the first member dropped.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many members were dropped, at least one.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// What is wrong with a member of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DefectKind {
    /// Its partition key is not in the table.
    #[error("has a partition key index out of the table")]
    PartitionKeyOutOfTable,
    /// Its explicit hash key is not in the table.
    #[error("has an explicit hash key index out of the table")]
    ExplicitHashKeyOutOfTable,
    /// Its explicit hash key is not a decimal number from 0 to 2^128 - 1; of
    /// [`Aggregate::strict_defect`] only.
    #[error("has an explicit hash key that is no decimal number from 0 to 2^128 - 1")]
    InvalidExplicitHashKey,
}
