//! What the encoder promises beyond the bytes, which the golden records and the properties hold.

use kinesis_aggregation::{AggregateBuilder, Decoded, HashKey, looks_framed};
use prost::Message as _;

use crate::fuzz_bodies::oracle::{self, AggregatedRecord, Tag, decode};

#[test]
fn the_first_record_always_fits_and_the_second_does_not() {
    let mut open = AggregateBuilder::new(0);
    let large = vec![7; 3 * 1024 * 1024];
    assert_eq!(open.push("k", None, &large), Ok(0));
    let before = open.size();
    let full = open.push("k", None, b"").unwrap_err();
    assert_eq!((full.size(), full.max_size()), (before + 6, 0));
    assert_eq!((open.size(), open.len()), (before, 1), "unchanged");
    let Decoded::Aggregate(aggregate) = decode(open.seal().into_bytes()) else {
        panic!("an aggregate");
    };
    assert_eq!(aggregate.get(0).unwrap().data(), large);
}

#[test]
fn an_aggregate_is_filled_to_the_last_byte() {
    let fill = |max_size| {
        let mut open = AggregateBuilder::new(max_size);
        while open.push("k", Some(HashKey::MAX), &[0; 9]).is_ok() {}
        (open.size(), open.len())
    };
    let (exact, len) = fill(1000);
    assert_eq!(fill(exact), (exact, len));
    assert_eq!(fill(exact - 1).1, len - 1);
}

#[test]
fn key_tables_that_outgrow_the_room_in_front_are_written_all_the_same() {
    // Long keys, each its own, small data: nearly all of the bytes are tables.
    let given: Vec<oracle::Given> =
        (0..400_u128).map(|i| (format!("{i:0>250}"), Some(u128::MAX - i), vec![i as u8])).collect();
    let mut open = AggregateBuilder::new(1 << 20);
    for (key, explicit, data) in &given {
        open.push(key, explicit.map(HashKey::new), data).unwrap();
    }
    let size = open.size();
    let sealed = open.seal();
    assert_eq!(sealed.bytes().len(), size);
    let Decoded::Aggregate(aggregate) = decode(sealed.into_bytes()) else {
        panic!("an aggregate");
    };
    assert_eq!(oracle::members(&aggregate), given);
}

#[test]
fn data_that_looks_framed_is_whole_inside_an_aggregate_of_one() {
    let mut inner = AggregateBuilder::new(100);
    inner.push("inner", None, b"x").unwrap();
    for data in [&inner.seal().into_bytes()[..], b"\xf3\x89\x9a\xc2", b"\xc1KA\x9e and more"] {
        assert!(looks_framed(data));
        let mut outer = AggregateBuilder::new(0);
        outer.push("outer", None, data).unwrap();
        let Decoded::Aggregate(aggregate) = decode(outer.seal().into_bytes()) else {
            panic!("an aggregate");
        };
        assert_eq!(oracle::members(&aggregate), [("outer".to_owned(), None, data.to_vec())]);
    }
    for data in [&b""[..], b"\xf3\x89\x9a", b"\xc1KA", b"text", b"\x28\xb5\x2f\xfd"] {
        assert!(!looks_framed(data));
    }
}

#[test]
fn hash_keys_are_written_in_decimal_without_leading_zeros() {
    let mut open = AggregateBuilder::new(100);
    open.push("k", Some("0042".parse().unwrap()), b"").unwrap();
    open.push("k", Some(HashKey::MIN), b"").unwrap();
    open.push("k", Some(HashKey::new(42)), b"").unwrap();
    let body = b"\x0a\x01k\x12\x0242\x12\x010\
        \x1a\x06\x08\x00\x10\x00\x1a\x00\x1a\x06\x08\x00\x10\x01\x1a\x00\x1a\x06\x08\x00\x10\x00\x1a\x00";
    assert_eq!(open.seal().body(), body);
}

/// Tags are read by the general decoder as they were given, the size is exact, and a tag of another member is not
/// mistaken.
#[test]
fn tags_are_written_and_read() {
    let mut open = AggregateBuilder::new(1000);
    open.push("a", None, b"none").unwrap();
    open.push_tagged("a", Some(HashKey::new(7)), b"one", &[("redrives", "2"), ("empty", "")])
        .unwrap();
    open.push_tagged("b", None, b"other", &[("redrives", "5"), ("redrives", "6")]).unwrap();
    open.push("b", None, b"last").unwrap();
    let size = open.size();
    let sealed = open.seal();
    assert_eq!(sealed.bytes().len(), size);

    let oracle = AggregatedRecord::decode(sealed.body()).unwrap();
    let tag = |key: &str, value: &str| Tag { key: Some(key.into()), value: Some(value.into()) };
    assert_eq!(oracle.records[1].tags, [tag("redrives", "2"), tag("empty", "")]);
    assert!(oracle.records[0].tags.is_empty() && oracle.records[3].tags.is_empty());

    let Decoded::Aggregate(read) = decode(sealed.into_bytes()) else {
        panic!("it is an aggregate");
    };
    let redrives: Vec<_> = read.iter().map(|member| member.tag("redrives")).collect();
    assert_eq!(redrives, [None, Some("2"), Some("5"), None]);
    assert_eq!(read.get(1).unwrap().tag("empty"), Some(""));
    assert_eq!(read.get(1).unwrap().tag("redrive"), None);
    assert_eq!(read.get(1).unwrap().data(), b"one");
    assert_eq!(read.get(1).unwrap().explicit_hash_key(), Some(HashKey::new(7)));
}

#[test]
fn a_tagged_record_that_does_not_fit_leaves_the_aggregate_as_it_was() {
    let mut open = AggregateBuilder::new(60);
    open.push("a", None, b"first").unwrap();
    let size = open.size();
    let error =
        open.push_tagged("a", None, b"", &[("key", "a value that is too long")]).unwrap_err();
    assert!(error.size() > 60);
    assert_eq!((open.size(), open.len()), (size, 1));
}
