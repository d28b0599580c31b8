//! The compressed frame: what it looks like, and every way in which it can be wrong.

use bytes::Bytes;
use kinesis_aggregation::{
    AggregateBuilder, Compressor, Decoded, Decoder, FrameError, MalformedBody, UndigestedAggregate,
};

use crate::fuzz_bodies::oracle;

fn sealed(records: usize) -> UndigestedAggregate {
    let mut open = AggregateBuilder::new(usize::MAX);
    for i in 0..records {
        let data = format!("{{\"event\": \"departure\", \"number\": {i}}}");
        open.push(&format!("key-{}", i % 5), None, data.as_bytes()).unwrap();
    }
    open.seal_without_digest()
}

fn frame(aggregate: &UndigestedAggregate) -> Vec<u8> {
    Compressor::new(3).unwrap().compress(aggregate).unwrap().unwrap().to_vec()
}

fn decode(limit: usize, data: Vec<u8>) -> Result<Decoded, FrameError> {
    Decoder::new(limit).decode(data.into())
}

/// A frame around any zstd content.
fn around(len: usize, zstd_frame: &[u8]) -> Vec<u8> {
    [b"\xc1KA\x9e\x01\x01", &(len as u32).to_le_bytes()[..], zstd_frame].concat()
}

fn zstd_frame(content: &[u8], checksum: bool, content_size: bool) -> Vec<u8> {
    let mut zstd = zstd::bulk::Compressor::new(1).unwrap();
    zstd.include_checksum(checksum).unwrap();
    zstd.include_contentsize(content_size).unwrap();
    zstd.compress(content).unwrap()
}

#[track_caller]
fn assert_corrupt(data: Vec<u8>) {
    match decode(1 << 20, data) {
        Err(FrameError::Corrupt { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_layout_is_as_documented() {
    let aggregate = sealed(100);
    let frame = frame(&aggregate);
    let len = u32::try_from(aggregate.body().len()).unwrap();
    assert_eq!(frame[..4], [0xc1, 0x4b, 0x41, 0x9e]);
    assert_eq!(frame[4..6], [1, 1]);
    assert_eq!(frame[6..10], len.to_le_bytes());
    let content = zstd::bulk::decompress(&frame[10..], len as usize).unwrap();
    assert_eq!(content, aggregate.body());
    assert!(std::str::from_utf8(&frame[..2]).is_err(), "no text begins so");
}

#[test]
fn a_compressed_aggregate_decodes_to_the_same_members() {
    let aggregate = sealed(500);
    let frame = frame(&aggregate);
    assert!(frame.len() * 3 < aggregate.size());
    let mut decoder = Decoder::new(aggregate.body().len());
    let Decoded::Aggregate(plain) = decoder.decode(aggregate.add_digest().into_bytes()).unwrap()
    else {
        panic!("an aggregate");
    };
    let Decoded::Aggregate(unpacked) = decoder.decode(frame.into()).unwrap() else {
        panic!("an aggregate");
    };
    assert!(unpacked.is_compressed() && !plain.is_compressed());
    assert_eq!(oracle::members(&unpacked), oracle::members(&plain));
}

#[test]
fn a_compressor_is_used_again_and_again() {
    let mut compressor = Compressor::new(1).unwrap();
    let mut decoder = Decoder::new(1 << 20);
    for records in [500, 20, 1000, 20] {
        let frame = compressor.compress(&sealed(records)).unwrap().unwrap();
        let Decoded::Aggregate(aggregate) = decoder.decode(frame).unwrap() else {
            panic!("an aggregate");
        };
        assert_eq!(aggregate.len(), records);
    }
}

#[test]
fn what_does_not_become_smaller_is_not_compressed() {
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    let mut open = AggregateBuilder::new(2000);
    open.push("k", None, &(0..1000).map(|_| noise()).collect::<Vec<_>>()).unwrap();
    let mut compressor = Compressor::new(19).unwrap();
    assert_eq!(compressor.compress(&open.seal_without_digest()).unwrap(), None);
    assert_eq!(compressor.compress(&AggregateBuilder::new(0).seal_without_digest()).unwrap(), None);
}

#[test]
fn a_level_zstd_does_not_have_is_refused() {
    match Compressor::new(23) {
        Err(error @ FrameError::InvalidLevel { level: 23, max: 22, .. }) => {
            assert!(error.to_string().contains("to 22"));
        }
        other => panic!("{other:?}"),
    }
    assert!(Compressor::new(0).is_ok() && Compressor::new(-5).is_ok());
}

#[test]
fn more_than_the_limit_is_refused_before_it_is_unpacked() {
    let aggregate = sealed(100);
    let len = aggregate.body().len();
    assert!(decode(len, frame(&aggregate)).is_ok());
    match decode(len - 1, frame(&aggregate)) {
        Err(FrameError::TooLarge { limit, actual }) => assert_eq!((limit, actual), (len - 1, len)),
        other => panic!("{other:?}"),
    }
    // Only the header is needed to say so.
    match decode(1 << 20, around(u32::MAX as usize, b"")) {
        Err(FrameError::TooLarge { actual, .. }) => assert_eq!(actual, u32::MAX as usize),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bomb_that_understates_its_size_is_corrupt() {
    let bomb = zstd_frame(&vec![0; 50 << 20], true, true);
    assert!(bomb.len() < 10_000);
    assert_corrupt(around(1000, &bomb));
    let silent = zstd_frame(&vec![0; 50 << 20], true, false);
    assert_corrupt(around(1000, &silent));
}

#[test]
fn an_unknown_version_or_codec_says_which() {
    let mut newer = frame(&sealed(10));
    newer[4] = 2;
    assert!(matches!(decode(1 << 20, newer), Err(FrameError::UnknownVersion { version: 2 })));
    let mut other = frame(&sealed(10));
    other[5] = 7;
    assert!(matches!(decode(1 << 20, other), Err(FrameError::UnknownCodec { codec: 7 })));
}

#[test]
fn truncation_anywhere_is_an_error_and_never_plain() {
    let whole = frame(&sealed(20));
    for cut in 4..whole.len() {
        assert_corrupt(whole[..cut].to_vec());
    }
}

/// One bit of zstd's header is unused and its window size does not matter here: flipping these
/// changes nothing. Whatever is read is what was written.
#[test]
fn a_flipped_bit_anywhere_gives_an_error_or_the_same_members() {
    let aggregate = sealed(20);
    let whole = frame(&aggregate);
    let Decoded::Aggregate(sound) = decode(1 << 20, whole.clone()).unwrap() else {
        panic!("an aggregate");
    };
    let mut errors = 0;
    for at in 4..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            match decode(1 << 20, damaged) {
                Err(_) => errors += 1,
                Ok(Decoded::Aggregate(read)) => {
                    assert_eq!(oracle::members(&read), oracle::members(&sound));
                }
                Ok(other) => panic!("byte {at}, bit {bit}: {other:?}"),
            }
        }
    }
    assert!(errors > (whole.len() - 4) * 8 - 10);
}

#[test]
fn bytes_behind_the_content_are_corrupt() {
    let mut longer = frame(&sealed(20));
    longer.push(0);
    assert_corrupt(longer);
    let two = [zstd_frame(b"", true, true), zstd_frame(b"", true, true)].concat();
    assert_corrupt(around(0, &two));
}

#[test]
fn a_content_without_checksum_or_size_is_corrupt() {
    let body = sealed(10).body().to_vec();
    assert!(decode(1 << 20, around(body.len(), &zstd_frame(&body, true, true))).is_ok());
    assert_corrupt(around(body.len(), &zstd_frame(&body, false, true)));
    assert_corrupt(around(body.len(), &zstd_frame(&body, true, false)));
    assert_corrupt(around(body.len() + 1, &zstd_frame(&body, true, true)));
    // A skippable frame unpacks to nothing, and so does no zstd frame at all.
    assert_corrupt(around(0, b"\x50\x2a\x4d\x18\x04\0\0\0abcd"));
    assert_corrupt(around(0, b""));
}

#[test]
fn a_content_that_is_no_aggregate_is_an_error_and_never_plain() {
    let frame = around(2, &zstd_frame(b"\x0a\x05", true, true));
    match decode(1 << 20, frame) {
        Err(FrameError::Malformed(reason)) => assert_eq!(reason, MalformedBody::Truncated),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_says_what_zstd_says() {
    let mut damaged = frame(&sealed(20));
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let error = decode(1 << 20, damaged).unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.to_string().contains("checksum"), "{source}");
}

#[test]
fn a_decoder_goes_on_after_an_error() {
    let sound = frame(&sealed(20));
    let mut damaged = sound.clone();
    damaged[40] ^= 0xff;
    let mut decoder = Decoder::new(1 << 20);
    assert!(decoder.decode(damaged.into()).is_err());
    assert!(matches!(decoder.decode(sound.into()), Ok(Decoded::Aggregate(_))));
    assert!(matches!(decoder.decode(Bytes::from_static(b"x")), Ok(Decoded::Plain(..))));
}
