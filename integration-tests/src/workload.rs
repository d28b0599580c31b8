//! The records that are sent: mixed sizes over skewed keys, the same for the same seed.

use bytes::{Bytes, BytesMut};

/// Bytes in front of the filler: the record's id.
const HEADER: usize = 8;

/// One record to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Unique in the run; the first eight bytes of the payload.
    pub id: u64,
    /// Partition key.
    pub key: String,
    /// Payload: id, then filler.
    pub data: Bytes,
}

/// An endless, seeded source of records: 90 % of 1 to 200 bytes, 9 % of 1 to 20 KB, 1 % of 100 to
/// 900 KB (each at least as long as its id), over 997 keys of which a few are busy.
#[derive(Debug)]
pub struct Workload {
    rng: fastrand::Rng,
    next: u64,
}

impl Workload {
    /// The records of `seed`, in order.
    pub fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), next: 0 }
    }
}

impl Iterator for Workload {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let id = self.next;
        self.next += 1;
        let size = match self.rng.u32(0..100) {
            0..90 => self.rng.usize(1..=200),
            90..99 => self.rng.usize(1_000..=20_000),
            _ => self.rng.usize(100_000..=900_000),
        };
        // The square of a uniform draw makes low keys busy.
        let draw = self.rng.f64();
        let key = format!("key-{}", (draw * draw * 997.0) as u32);
        let mut data = BytesMut::zeroed(size.max(HEADER));
        data[..HEADER].copy_from_slice(&id.to_be_bytes());
        self.rng.fill(&mut data[HEADER..]);
        Some(Item { id, key, data: data.freeze() })
    }
}

/// The id of a payload. `None` if this workload did not make it.
pub fn id_of(data: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*data.first_chunk::<HEADER>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_records() {
        let first: Vec<Item> = Workload::new(7).take(500).collect();
        assert_eq!(first, Workload::new(7).take(500).collect::<Vec<_>>());
        assert_ne!(first, Workload::new(8).take(500).collect::<Vec<_>>());
        assert_eq!(id_of(&first[499].data), Some(499));
    }

    #[test]
    fn sizes_follow_the_mix() {
        let sizes: Vec<usize> = Workload::new(1).take(20_000).map(|i| i.data.len()).collect();
        let share = |low: usize, high: usize| {
            sizes.iter().filter(|s| (low..=high).contains(*s)).count() as f64 / 20_000.0
        };
        assert!((0.88..0.92).contains(&share(0, 200)));
        assert!((0.08..0.10).contains(&share(1_000, 20_000)));
        assert!((0.005..0.015).contains(&share(100_000, 900_000)));
    }
}
