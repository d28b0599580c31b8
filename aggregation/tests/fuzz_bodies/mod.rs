//! What the fuzz targets do with their input. Also run by `cargo test`, over seeded input.
#![allow(unreachable_pub, missing_docs, reason = "shared with the fuzz crate, which exports it")]
#![allow(clippy::unwrap_used, reason = "a test")]

pub mod oracle;

use bytes::Bytes;
use kinesis_aggregation::{AggregateBuilder, Compressor, Decoded, Decoder, FrameError, HashKey};
use kinesis_aggregation::{SealedAggregate, looks_framed};
use prost::Message as _;

const MAX_DECOMPRESSED: usize = 64 * 1024;

/// Any bytes as received data, and any bytes as a body in a sound frame, held to `prost`.
pub fn decode(input: &[u8]) {
    let data = Bytes::copy_from_slice(input);
    match Decoder::new(MAX_DECOMPRESSED).decode(data.clone()) {
        Ok(Decoded::Plain(plain, _)) => assert_eq!(plain, data),
        Ok(Decoded::Aggregate(aggregate)) => {
            assert!(looks_framed(input));
            oracle::members(&aggregate);
        }
        Ok(_) => panic!("no other result"),
        Err(_) => assert!(looks_framed(input)),
    }
    oracle::check_body(input);
    page(input);
}

/// Any bytes as a page of records, some of them in a sound frame: decoded together as they are one by one.
fn page(mut input: &[u8]) {
    let mut page = Vec::new();
    while let Some((&[len, kind], rest)) = input.split_first_chunk() {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(len)));
        input = rest;
        page.push(match kind % 4 {
            0 => Bytes::copy_from_slice(content),
            1 => Bytes::from([&b"\xc1KA\x9e"[..], content].concat()),
            // The length of the digest's last block depends on that of the body.
            _ => oracle::kpl_frame(&content.repeat(usize::from(kind / 4))),
        });
    }
    let mut decoder = Decoder::new(MAX_DECOMPRESSED);
    let one_by_one: Vec<_> = page.iter().map(|data| decoder.decode(data.clone())).collect();
    let together = decoder.decode_all(page);
    assert_eq!(together.len(), one_by_one.len());
    for (found, expected) in together.zip(one_by_one) {
        match (found, expected) {
            (Ok(Decoded::Plain(data, reason)), Ok(Decoded::Plain(expected, because))) => {
                assert_eq!((data, reason), (expected, because));
            }
            (Ok(Decoded::Aggregate(found)), Ok(Decoded::Aggregate(expected))) => {
                assert_eq!(oracle::members(&found), oracle::members(&expected));
                assert_eq!(found.defect(), expected.defect());
            }
            (Err(found), Err(expected)) => assert_eq!(found.to_string(), expected.to_string()),
            (found, expected) => panic!("{found:?}, and by itself {expected:?}"),
        }
    }
}

/// Any bytes behind the compressed magic, and any damage to a sound compressed frame.
pub fn frame(input: &[u8]) {
    let mut decoder = Decoder::new(MAX_DECOMPRESSED);
    let behind = |header: &[u8], rest: &[u8]| Bytes::from([header, rest].concat());
    let mut any = |data: Bytes| match check_frame(&mut decoder, data) {
        Ok(members) => assert!(members.is_some(), "behind this magic nothing is plain"),
        Err(error) => assert!(!error.to_string().is_empty()),
    };
    any(behind(b"\xc1KA\x9e", input));
    any(behind(b"\xc1KA\x9e\x01\x01", input));
    // A header that fits the zstd frame behind it gets past the first checks.
    if let Ok(Some(size)) = zstd::zstd_safe::get_frame_content_size(input) {
        let header = [&b"\xc1KA\x9e\x01\x01"[..], &(size as u32).to_le_bytes()].concat();
        any(behind(&header, input));
    }

    let Some((&[at_0, at_1, flip], rest)) = input.split_first_chunk() else {
        return;
    };
    let mut open = AggregateBuilder::new(0);
    open.push("key", None, &rest.repeat(3)).unwrap();
    let sealed = open.seal_without_digest();
    let Some(sound) = Compressor::new(1).unwrap().compress(&sealed).unwrap() else {
        return;
    };
    let body_len = u32::try_from(sealed.body().len()).unwrap();
    assert_eq!(sound[6..10], body_len.to_le_bytes());
    let Ok(Some(given)) = check_frame(&mut decoder, sound.clone()) else { panic!("sound") };
    assert!(given == [("key".to_owned(), None, rest.repeat(3))]);

    let mut damaged = sound.to_vec();
    let at = usize::from(u16::from_le_bytes([at_0, at_1])) % damaged.len();
    damaged[at] ^= flip;
    if flip == 0 {
        damaged.truncate(at);
    }
    match check_frame(&mut decoder, damaged.into()) {
        // Damage to the magic makes it plain data.
        Ok(None) => assert!(at < 4),
        // What little zstd does not notice makes no difference.
        Ok(Some(read)) => assert!(read == given),
        Err(_) => assert!(at >= 4),
    }
    assert!(check_frame(&mut decoder, sound).is_ok(), "the decoder goes on after an error");
}

/// Decodes what may be a compressed frame; the members, or `None` if it is plain data.
fn check_frame(
    decoder: &mut Decoder,
    data: Bytes,
) -> Result<Option<Vec<oracle::Given>>, FrameError> {
    match decoder.decode(data.clone())? {
        Decoded::Aggregate(aggregate) => {
            assert!(aggregate.is_compressed());
            let members = oracle::members(&aggregate);
            let held: usize = members.iter().map(|(_, _, data)| data.len()).sum();
            assert!(held <= MAX_DECOMPRESSED);
            Ok(Some(members))
        }
        Decoded::Plain(plain, _) => {
            assert!(plain == data && !looks_framed(&data));
            Ok(None)
        }
        _ => panic!("no other result"),
    }
}

/// Reads the input as a list of records, encodes them and decodes them again.
pub fn round_trip(input: &[u8]) {
    let (max_size, records) = records(input);
    let mut decoder = Decoder::new(usize::MAX);
    let mut compressor = Compressor::new(1).unwrap();
    let mut open = AggregateBuilder::new(max_size);
    let mut first = 0;
    for (at, (partition_key, explicit, data)) in records.iter().enumerate() {
        let explicit = explicit.map(HashKey::new);
        let predicted = open.size_with(partition_key, explicit, data.len());
        match open.push(partition_key, explicit, data) {
            Ok(index) => {
                assert_eq!(index as usize, at - first);
                assert!(at == first || predicted <= max_size);
            }
            Err(full) => {
                assert!(at > first, "the first record always fits");
                assert!(full.size() == predicted && predicted > max_size);
                let full = std::mem::replace(&mut open, AggregateBuilder::new(max_size));
                check_sealed(&mut decoder, &mut compressor, full, &records[first..at]);
                first = at;
                assert_eq!(open.push(partition_key, explicit, data), Ok(0));
                continue;
            }
        }
        assert_eq!(open.size(), predicted);
        assert_eq!(open.len(), at - first + 1);
    }
    check_sealed(&mut decoder, &mut compressor, open, &records[first..]);
}

fn check_sealed(
    decoder: &mut Decoder,
    compressor: &mut Compressor,
    open: AggregateBuilder,
    records: &[oracle::Given],
) {
    let (size, len) = (open.size(), open.len());
    let undigested = open.seal_without_digest();
    assert_eq!((undigested.size(), undigested.len()), (size, len));
    assert!(oracle::members(&undigested.decode()) == records);
    let frame = compressor.compress(&undigested).unwrap();
    let sealed: SealedAggregate = undigested.add_digest();
    assert_eq!((sealed.bytes().len(), sealed.len(), len), (size, records.len(), records.len()));
    let message = oracle::message(records).encode_to_vec();
    assert!(sealed.body() == message, "the bytes of another encoder");
    assert_eq!(*sealed.bytes(), oracle::kpl_frame(&message));
    if records.is_empty() {
        return;
    }

    let mut check = |data: Bytes, is_compressed: bool| {
        let Ok(Decoded::Aggregate(aggregate)) = decoder.decode(data) else {
            panic!("an aggregate");
        };
        assert_eq!(aggregate.is_compressed(), is_compressed);
        assert_eq!(aggregate.defect(), None);
        assert!(oracle::members(&aggregate) == records);
    };
    check(sealed.bytes().clone(), false);
    if let Some(frame) = frame {
        assert!(frame.len() < size);
        check(frame, true);
    }
}

/// A size limit and records: keys from a small pool, so that they come back.
fn records(mut input: &[u8]) -> (usize, Vec<oracle::Given>) {
    let mut take = |n: usize| {
        let (taken, rest) = input.split_at_checked(n)?;
        input = rest;
        Some(taken)
    };
    let mut records = Vec::new();
    let Some(&[limit_0, limit_1]) = take(2) else {
        return (0, records);
    };
    let max_size = usize::from(u16::from_le_bytes([limit_0, limit_1]));
    while let Some(&[key, explicit, len]) = take(3) {
        let long = if key & 0xe0 == 0xe0 { 40 } else { 1 };
        let partition_key = format!("{key:x}é").repeat(long);
        let explicit = match explicit % 8 {
            0..4 => None,
            4 => Some(u128::MAX - u128::from(explicit)),
            _ => Some(u128::from(explicit) << (explicit % 120)),
        };
        let Some(data) = take(usize::from(len)) else {
            break;
        };
        records.push((partition_key, explicit, data.repeat(1 + usize::from(key % 3))));
    }
    (max_size, records)
}
