//! A key table of an aggregate: each key once, in order of first use, already in wire form.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use crate::wire::{bytes_field_len, put_varint};

/// A key table under construction.
///
/// The keys live in the wire form only. An open-addressing index of row numbers finds them, so a
/// record costs no allocation beyond the growth of the three buffers.
#[derive(Debug)]
pub(crate) struct KeyTable<S = RandomState> {
    /// Key of the protobuf field of a row.
    field: u8,
    wire: Vec<u8>,
    rows: Vec<Row>,
    /// Row number + 1, or 0 where free; a power of two long, at most half full.
    slots: Vec<u32>,
    /// Keys are the user's input: the hash is seeded, so that users cannot choose colliding keys.
    hasher: S,
}

#[derive(Debug)]
struct Row {
    hash: u64,
    start: usize,
    end: usize,
}

/// Where a key is, or where it would go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lookup {
    Row(u32),
    New { row: u32, hash: u64 },
}

impl Lookup {
    pub(crate) const fn row(self) -> u32 {
        match self {
            Self::Row(row) | Self::New { row, .. } => row,
        }
    }

    /// Bytes the table grows by if a key of `len` bytes with this lookup is taken.
    pub(crate) const fn growth(self, len: usize) -> usize {
        match self {
            Self::Row(_) => 0,
            Self::New { .. } => bytes_field_len(len),
        }
    }
}

impl KeyTable {
    pub(crate) fn new(field: u8) -> Self {
        Self::with_hasher(field, RandomState::default())
    }
}

impl<S: BuildHasher> KeyTable<S> {
    fn with_hasher(field: u8, hasher: S) -> Self {
        Self { field, wire: Vec::new(), rows: Vec::new(), slots: Vec::new(), hasher }
    }

    /// The rows as they stand on the wire.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.wire
    }

    pub(crate) fn lookup(&self, key: &[u8]) -> Lookup {
        let hash = self.hasher.hash_one(key);
        let mut slot = hash as usize;
        while let Some(taken) = self.slots.get(slot & self.slots.len().wrapping_sub(1)) {
            let Some(row) = taken.checked_sub(1) else {
                break;
            };
            let Row { hash: other, start, end } = self.rows[row as usize];
            if other == hash && self.wire[start..end] == *key {
                return Lookup::Row(row);
            }
            slot = slot.wrapping_add(1);
        }
        Lookup::New { row: self.rows.len() as u32, hash }
    }

    /// Adds `key` if the lookup, made since the last change, says it is new. The row's number.
    pub(crate) fn take(&mut self, key: &[u8], lookup: Lookup) -> u32 {
        if let Lookup::New { row, hash } = lookup {
            self.wire.push(self.field);
            put_varint(&mut self.wire, key.len() as u64);
            let start = self.wire.len();
            self.wire.extend_from_slice(key);
            self.rows.push(Row { hash, start, end: self.wire.len() });
            if self.rows.len() * 2 > self.slots.len() {
                self.grow();
            } else {
                Self::place(&mut self.slots, hash, row);
            }
        }
        lookup.row()
    }

    fn grow(&mut self) {
        self.slots.clear();
        self.slots.resize((self.rows.len() * 4).next_power_of_two(), 0);
        for (row, Row { hash, .. }) in self.rows.iter().enumerate() {
            Self::place(&mut self.slots, *hash, row as u32);
        }
    }

    fn place(slots: &mut [u32], hash: u64, row: u32) {
        let mask = slots.len() - 1;
        let mut slot = hash as usize & mask;
        while slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        slots[slot] = row + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::{BuildHasherDefault, Hasher};

    use super::*;
    use crate::wire::BYTES_1;

    #[test]
    fn thousands_of_keys_are_each_kept_once_in_order() {
        let mut table = KeyTable::new(BYTES_1);
        let mut model = HashMap::new();
        for i in 0..20_000_u32 {
            // Every key comes back several times, in another order than it came first.
            let key = (i.wrapping_mul(7919) % 5003).to_string();
            let lookup = table.lookup(key.as_bytes());
            let before = table.wire().len();
            let row = table.take(key.as_bytes(), lookup);
            let next = model.len() as u32;
            assert_eq!(row, *model.entry(key.clone()).or_insert(next));
            assert_eq!(table.wire().len() - before, lookup.growth(key.len()));
        }
        assert_eq!(model.len(), 5003);
        assert_eq!(table.rows.len(), 5003);
    }

    #[test]
    fn an_empty_key_is_a_key() {
        let mut table = KeyTable::new(BYTES_1);
        let lookup = table.lookup(b"");
        assert_eq!(table.take(b"", lookup), 0);
        assert_eq!(table.wire(), [BYTES_1, 0]);
        assert!(matches!(table.lookup(b""), Lookup::Row(0)));
    }

    /// Gives every key the same hash.
    #[derive(Default)]
    struct Collide;

    impl Hasher for Collide {
        fn write(&mut self, _: &[u8]) {}

        fn finish(&self) -> u64 {
            u64::MAX
        }
    }

    #[test]
    fn keys_of_the_same_hash_are_told_apart() {
        let mut table = KeyTable::with_hasher(BYTES_1, BuildHasherDefault::<Collide>::default());
        for round in 0..2 {
            for i in 0..100_u32 {
                let key = i.to_string();
                let lookup = table.lookup(key.as_bytes());
                assert_eq!(matches!(lookup, Lookup::New { .. }), round == 0);
                assert_eq!(table.take(key.as_bytes(), lookup), i);
            }
        }
    }
}
