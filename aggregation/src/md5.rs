//! MD5 of one message, or of several at a time.
//!
//! Each step of MD5 waits for the step before it, so that one message leaves most of a core's arithmetic units idle.
//! [`md5_each`] hashes eight messages side by side, each in its own lane of a vector. Without special instructions, a
//! vector of eight words is two vectors of four on x86-64 (SSE2) and AArch64 (NEON): two steps run at a time, which hides
//! part of the wait.

use std::array;

use md5::{Digest as _, Md5, block_api};
use wide::u32x8;

/// Number of bytes of an MD5 digest.
pub(crate) const DIGEST_LEN: usize = 16;

pub(crate) type Digest = [u8; DIGEST_LEN];

/// Messages that are hashed at a time.
const LANES: usize = 8;

/// Bytes that one compression takes in.
const BLOCK_LEN: usize = 64;

/// Where the last block holds the length of the message.
const LENGTH_AT: usize = BLOCK_LEN - size_of::<u64>();

/// Hashes one message.
pub(crate) fn md5(message: &[u8]) -> Digest {
    if message.len() >= LENGTH_AT {
        return Md5::digest(message).into();
    }
    // One block, as most partition keys are. The buffer of `Md5` would take a quarter of the time.
    let mut padded = [0; BLOCK_LEN];
    let block = Message::new(0, message).next_block(&mut padded);
    let mut state = INITIAL;
    block_api::compress(&mut state, std::slice::from_ref(block));
    let mut digest = [0; DIGEST_LEN];
    for (bytes, word) in digest.chunks_exact_mut(size_of::<u32>()).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

/// Hashes each of `messages` and calls `take` with its index and digest, in the order in which the digests are complete.
///
/// A lane whose message ends goes on with the next one, so messages may differ in length. Lanes idle only while the last
/// messages are hashed: put long ones first where there is a choice.
pub(crate) fn md5_each<'a>(
    messages: impl ExactSizeIterator<Item = &'a [u8]>,
    mut take: impl FnMut(usize, Digest),
) {
    // An empty lane costs as much as a full one. For one message the scalar code is faster.
    if messages.len() < 2 {
        messages.enumerate().for_each(|(index, message)| take(index, md5(message)));
        return;
    }
    let mut messages = messages.enumerate();
    let mut state = [u32x8::ZERO; 4];
    let mut lanes: [Option<Message<'a>>; LANES] = array::from_fn(|lane| {
        let (index, bytes) = messages.next()?;
        restart(&mut state, lane);
        Some(Message::new(index, bytes))
    });
    while lanes.iter().any(Option::is_some) {
        let mut padded = [[0; BLOCK_LEN]; LANES];
        let mut blocks = [&[0; BLOCK_LEN]; LANES];
        for ((lane, padded), block) in lanes.iter_mut().zip(&mut padded).zip(&mut blocks) {
            if let Some(message) = lane {
                *block = message.next_block(padded);
            }
        }
        compress(&mut state, &blocks);
        for (lane, slot) in lanes.iter_mut().enumerate() {
            let Some(message) = slot.take_if(|message| message.is_complete) else { continue };
            take(message.index, digest(&state, lane));
            if let Some((index, bytes)) = messages.next() {
                restart(&mut state, lane);
                *slot = Some(Message::new(index, bytes));
            }
        }
    }
}

/// A message and the part of it that is not hashed yet.
struct Message<'a> {
    index: usize,
    rest: &'a [u8],
    bits: u64,
    /// Whether the byte that ends the message was given out, and the length still was not.
    is_ended: bool,
    /// Whether all blocks were given out.
    is_complete: bool,
}

impl<'a> Message<'a> {
    #[inline]
    fn new(index: usize, bytes: &'a [u8]) -> Self {
        let bits = (bytes.len() as u64).wrapping_mul(8);
        Self { index, rest: bytes, bits, is_ended: false, is_complete: false }
    }

    /// The next block: of the message itself, or the end of it in `padded`, which is all zeros.
    #[inline]
    fn next_block<'b>(&mut self, padded: &'b mut [u8; BLOCK_LEN]) -> &'b [u8; BLOCK_LEN]
    where
        'a: 'b,
    {
        if let Some((block, rest)) = self.rest.split_first_chunk() {
            self.rest = rest;
            return block;
        }
        if !self.is_ended {
            padded[..self.rest.len()].copy_from_slice(self.rest);
            padded[self.rest.len()] = 0x80;
            self.is_ended = true;
            // No room for the length: it gets a block of its own.
            if self.rest.len() >= LENGTH_AT {
                self.rest = &[];
                return padded;
            }
        }
        padded[LENGTH_AT..].copy_from_slice(&self.bits.to_le_bytes());
        self.is_complete = true;
        padded
    }
}

/// The state before the first block: RFC 1321, section 3.3.
const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// Bits that the four steps of each round rotate by, in turn: RFC 1321, section 3.4.
const ROTATIONS: [[u32; 4]; 4] =
    [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// The first 32 bits of the fraction of |sin(step + 1)|, one for each step: RFC 1321, section 3.4.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

/// Sets the state of `lane` to that before a first block.
#[inline]
fn restart(state: &mut [u32x8; 4], lane: usize) {
    for (vector, word) in state.iter_mut().zip(INITIAL) {
        vector.as_mut_array()[lane] = word;
    }
}

/// The digest of the message whose last block `lane` took in.
#[inline]
fn digest(state: &[u32x8; 4], lane: usize) -> Digest {
    let mut digest = [0; DIGEST_LEN];
    for (bytes, vector) in digest.chunks_exact_mut(size_of::<u32>()).zip(state) {
        bytes.copy_from_slice(&vector.as_array()[lane].to_le_bytes());
    }
    digest
}

/// Takes one block of each lane into the state.
fn compress(state: &mut [u32x8; 4], blocks: &[&[u8; BLOCK_LEN]; LANES]) {
    let words: [u32x8; 16] = array::from_fn(|at| {
        u32x8::new(array::from_fn(|lane| {
            let (words, _) = blocks[lane].as_chunks();
            u32::from_le_bytes(words[at])
        }))
    });
    let mut next = *state;
    // Written out, so that each step has its constants and the words of the state stay in registers: a loop took twice as
    // long.
    macro_rules! round {
        ($round:literal, $mix:expr, $word:expr) => {
            round!($round, $mix, $word, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
        };
        ($round:literal, $mix:expr, $word:expr, $($step:literal)*) => {$(
            let added = words[$word($step) % 16] + u32x8::splat(SINES[16 * $round + $step]);
            next = step::<{ ROTATIONS[$round][$step % 4] }>(next, added, $mix);
        )*};
    }
    round!(0, |b, c, d| d ^ (b & (c ^ d)), |step: usize| step);
    round!(1, |b, c, d| c ^ (d & (b ^ c)), |step: usize| 5 * step + 1);
    round!(2, |b, c, d| b ^ c ^ d, |step: usize| 3 * step + 5);
    round!(3, |b, c, d: u32x8| c ^ (b | !d), |step: usize| 7 * step);
    for (vector, next) in state.iter_mut().zip(next) {
        *vector += next;
    }
}

/// One step. `mix` combines three words of the state; `added` is the word of the block and the constant of the step.
#[inline(always)]
fn step<const ROTATION: u32>(
    [a, b, c, d]: [u32x8; 4],
    added: u32x8,
    mix: impl Fn(u32x8, u32x8, u32x8) -> u32x8,
) -> [u32x8; 4] {
    // `b` is the result of the step before, so what does not need it is added first.
    let sum = a + added + mix(b, c, d);
    [d, b + (sum << ROTATION | sum >> (u32::BITS - ROTATION)), b, c]
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn check(messages: &[Vec<u8>]) {
        let mut digests = vec![None; messages.len()];
        md5_each(messages.iter().map(Vec::as_slice), |index, digest| {
            assert!(digests[index].replace(digest).is_none(), "message {index} was taken twice");
        });
        let expected: Vec<_> = messages.iter().map(|message| Some(md5(message))).collect();
        assert!(digests == expected);
        let of_crate = messages.iter().map(|message| Some(Digest::from(Md5::digest(message))));
        assert!(of_crate.eq(expected));
    }

    #[test]
    fn one_message_is_hashed_as_in_the_standard() {
        // RFC 1321, appendix A.5.
        assert_eq!(u128::from_be_bytes(md5(b"")), 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e);
        assert_eq!(u128::from_be_bytes(md5(b"abc")), 0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72);
    }

    #[test]
    fn messages_of_every_length_are_hashed_alike_in_lanes() {
        let message = |len: usize| (0..len).map(|at| (at * 7 + len) as u8).collect::<Vec<u8>>();
        check(&(0..=1_000).map(message).collect::<Vec<_>>());
        check(&(0..=1_000).rev().map(message).collect::<Vec<_>>());
        // Every number of messages from none to more than the lanes take.
        for count in 0..=3 * LANES {
            check(&(0..count).map(|at| message(at * 31)).collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn messages_are_hashed_alike_in_lanes(messages in vec(vec(any::<u8>(), 0..300), 0..20)) {
            check(&messages);
        }
    }
}
