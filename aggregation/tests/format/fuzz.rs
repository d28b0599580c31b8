//! The bodies of the fuzz targets on stable Rust, over seeded input: noise, golden records with
//! damage, and lists of records.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::fuzz_bodies;
use crate::golden::golden;

/// SplitMix64: seeded, so that a failure can be repeated.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, max_len: usize) -> Vec<u8> {
        let len = self.below(max_len);
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Bytes that are often a protobuf field of the format.
    fn fields(&mut self, max_len: usize) -> Vec<u8> {
        let keys = [0x08, 0x0a, 0x10, 0x12, 0x18, 0x1a, 0x22, 0x2b, 0x2c, 0x2d];
        let len = self.below(max_len);
        let mut byte = |_| match self.below(3) {
            0 => keys[self.below(keys.len())],
            1 => self.below(8) as u8,
            _ => self.next() as u8,
        };
        (0..len).map(&mut byte).collect()
    }

    fn damage(&mut self, data: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(data.len().max(1));
            match self.below(4) {
                0 => data.truncate(at),
                1 => data.insert(at.min(data.len()), self.next() as u8),
                2 if !data.is_empty() => drop(data.remove(at)),
                _ => {
                    if let Some(byte) = data.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
    }
}

/// Golden data of up to 12 KB (the large ones cost time and add nothing), whole and body alone.
fn seeds() -> Vec<Vec<u8>> {
    let sent = golden().into_iter().filter(|sent| sent.members.is_some());
    let data = sent.map(|sent| BASE64_STANDARD.decode(sent.data).unwrap());
    let small = data.filter(|data| data.len() < 12_000);
    let seeds: Vec<_> = small.flat_map(|d| [d[4..d.len() - 16].to_vec(), d]).collect();
    assert_eq!(seeds.len(), 8);
    seeds
}

#[test]
fn decode() {
    let mut noise = Noise(1);
    for _ in 0..4000 {
        fuzz_bodies::decode(&noise.bytes(64));
        fuzz_bodies::decode(&noise.fields(64));
    }
    for seed in seeds() {
        fuzz_bodies::decode(&seed);
        for _ in 0..60 {
            let mut data = seed.clone();
            noise.damage(&mut data);
            fuzz_bodies::decode(&data);
        }
    }
}

#[test]
fn frame() {
    let mut noise = Noise(2);
    for _ in 0..300 {
        fuzz_bodies::frame(&noise.bytes(200));
    }
    for seed in seeds() {
        let mut packed = zstd::bulk::compress(&seed, 1).unwrap();
        fuzz_bodies::frame(&packed);
        for _ in 0..10 {
            noise.damage(&mut packed);
            fuzz_bodies::frame(&packed);
        }
    }
}

#[test]
fn round_trip() {
    let mut noise = Noise(3);
    fuzz_bodies::round_trip(b"");
    for _ in 0..300 {
        fuzz_bodies::round_trip(&noise.bytes(4000));
    }
}
