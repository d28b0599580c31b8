//! Each case of what received data can be, by name.

use bytes::Bytes;
use kinesis_aggregation::{
    Aggregate, AggregateBuilder, Decoded, Decoder, DefectKind, HashKey, MalformedBody, PlainReason,
};
use prost::Message as _;

use crate::fuzz_bodies::oracle::{
    AggregatedRecord, Record, Tag, check_body, decode, kpl_frame, members,
};

fn record(partition_key: u64, explicit_hash_key: Option<u64>, data: &[u8]) -> Record {
    Record {
        partition_key_index: Some(partition_key),
        explicit_hash_key_index: explicit_hash_key,
        data: Some(data.to_vec()),
        tags: Vec::new(),
    }
}

fn aggregate_of(partition_keys: &[&str], explicit: &[&str], records: &[Record]) -> Bytes {
    let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    let message = AggregatedRecord {
        partition_key_table: owned(partition_keys),
        explicit_hash_key_table: owned(explicit),
        records: records.to_vec(),
    };
    kpl_frame(&message.encode_to_vec())
}

fn bytes_field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut field);
    field.extend_from_slice(content);
    field
}

#[track_caller]
fn assert_plain(data: Bytes, because: PlainReason) {
    match decode(data.clone()) {
        Decoded::Plain(plain, reason) => assert_eq!((plain, reason), (data, because)),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_malformed(body: &[u8], because: MalformedBody) {
    assert_plain(kpl_frame(body), PlainReason::Malformed(because));
}

#[track_caller]
fn assert_aggregate(data: Bytes) -> Aggregate {
    match decode(data) {
        Decoded::Aggregate(aggregate) => aggregate,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_defect(data: Bytes, kind: DefectKind, kept: &[&[u8]], dropped: u64) {
    let aggregate = assert_aggregate(data);
    let data: Vec<_> = aggregate.iter().map(|member| member.data()).collect();
    assert_eq!(data, kept);
    let defect = aggregate.defect().unwrap();
    assert_eq!(
        (defect.kind(), defect.index(), defect.dropped()),
        (kind, kept.len() as u64, dropped)
    );
}

#[test]
fn no_magic_is_a_plain_record() {
    assert_plain(Bytes::from_static(b"{\"any\": \"data\"}"), PlainReason::NoMagic);
    let mut other = aggregate_of(&["k"], &[], &[record(0, None, b"x")]).to_vec();
    other[3] ^= 1;
    assert_plain(other.into(), PlainReason::NoMagic);
}

#[test]
fn shorter_than_the_magic_is_a_plain_record() {
    for len in 0..4 {
        assert_plain(Bytes::from_static(&b"\xf3\x89\x9a\xc2"[..len]), PlainReason::NoMagic);
    }
}

#[test]
fn magic_with_at_most_sixteen_bytes_behind_it_is_a_plain_record() {
    for len in 0..=16 {
        let data = [&b"\xf3\x89\x9a\xc2"[..], &vec![7; len]].concat();
        assert_plain(data.into(), PlainReason::TooShort);
    }
    // Even where they are the right digest, of nothing.
    assert_plain(kpl_frame(b""), PlainReason::TooShort);
    assert_plain(AggregateBuilder::new(100).seal().into_bytes(), PlainReason::TooShort);
}

#[test]
fn digest_mismatch_is_a_plain_record() {
    let sound = aggregate_of(&["k"], &[], &[record(0, None, b"x")]);
    assert_eq!(assert_aggregate(sound.clone()).len(), 1);
    for at in 4..sound.len() {
        let mut damaged = sound.to_vec();
        damaged[at] ^= 0x10;
        assert_plain(damaged.into(), PlainReason::DigestMismatch);
    }
}

#[test]
fn truncated_protobuf_is_a_plain_record() {
    let sound = aggregate_of(&["k"], &["1"], &[record(0, Some(0), b"data")]);
    let body = &sound[4..sound.len() - 16];
    // The two tables end at 3 and 6; cut there, what is left is whole.
    for cut in (1..body.len()).filter(|cut| ![3, 6].contains(cut)) {
        assert_malformed(&body[..cut], MalformedBody::Truncated);
    }
}

#[test]
fn malformed_protobuf_is_a_plain_record() {
    assert_malformed(b"\x00", MalformedBody::InvalidField); // field number 0
    assert_malformed(b"\x0e", MalformedBody::InvalidField); // wire type 6
    assert_malformed(b"\x0f", MalformedBody::InvalidField); // wire type 7
    assert_malformed(b"\x80\x80\x80\x80\x10\x00", MalformedBody::InvalidField); // key over 32 bits
    assert_malformed(b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", MalformedBody::NumberTooLong);
    assert_malformed(b"\x2c", MalformedBody::UnbalancedGroup); // end of group 5, never begun
    assert_malformed(b"\x2b\x34", MalformedBody::UnbalancedGroup); // ... ended as group 6
    assert_malformed(b"\x2b", MalformedBody::Truncated); // group 5 without an end
    assert_malformed(b"plain text", MalformedBody::Truncated);
}

#[test]
fn a_length_beyond_any_memory_is_a_plain_record() {
    for field in [1_u8, 2, 3, 9] {
        for len in
            [&b"\x7f"[..], b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            let body = [&[field << 3 | 2], len, b"abc"].concat();
            assert_malformed(&body, MalformedBody::Truncated);
        }
    }
}

#[test]
fn missing_required_fields_are_a_plain_record() {
    assert_malformed(b"\x0a\x01k\x1a\x02\x08\x00", MalformedBody::MissingField); // no data
    assert_malformed(b"\x0a\x01k\x1a\x03\x1a\x01x", MalformedBody::MissingField); // no index
    assert_malformed(b"\x1a\x00", MalformedBody::MissingField);
    // A tag without its key.
    assert_malformed(b"\x0a\x01k\x1a\x07\x08\x00\x1a\x01x\x22\x00", MalformedBody::MissingField);
}

#[test]
fn non_utf8_key_is_a_plain_record() {
    assert_malformed(b"\x0a\x02\xc3\x28\x1a\x05\x08\x00\x1a\x01x", MalformedBody::NotUtf8);
    // Used by no record, and in the other table: the message is as broken.
    assert_malformed(b"\x0a\x01k\x0a\x01\xff\x1a\x05\x08\x00\x1a\x01x", MalformedBody::NotUtf8);
    assert_malformed(b"\x0a\x01k\x12\x01\xff\x1a\x05\x08\x00\x1a\x01x", MalformedBody::NotUtf8);
    // In a tag, which no decoder reads.
    for tag in [&b"\x0a\x01\xff"[..], b"\x0a\x01k\x12\x01\xff"] {
        let record = [&bytes_field(4, tag)[..], b"\x08\x00\x1a\x01x"].concat();
        let body = [b"\x0a\x01k", &bytes_field(3, &record)[..]].concat();
        assert_malformed(&body, MalformedBody::NotUtf8);
    }
}

#[test]
fn partition_key_index_out_of_table_keeps_the_members_before_it() {
    for index in [2, 1 << 31, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        let records = [
            record(0, None, b"0"),
            record(1, None, b"1"),
            record(index, None, b"2"),
            record(0, None, b"3"),
        ];
        let data = aggregate_of(&["a", "b"], &[], &records);
        assert_defect(data, DefectKind::PartitionKeyOutOfTable, &[b"0", b"1"], 2);
    }
}

#[test]
fn explicit_hash_key_index_out_of_table_keeps_the_members_before_it() {
    for index in [1, u64::from(u32::MAX) - 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        let records = [record(0, Some(0), b"0"), record(0, Some(index), b"1")];
        let data = aggregate_of(&["a"], &["7"], &records);
        assert_defect(data, DefectKind::ExplicitHashKeyOutOfTable, &[b"0"], 1);
    }
    let no_table = aggregate_of(&["a"], &[], &[record(0, Some(0), b"0")]);
    assert_defect(no_table, DefectKind::ExplicitHashKeyOutOfTable, &[], 1);
}

#[test]
fn explicit_hash_key_that_is_no_number_leaves_the_place_to_the_partition_key() {
    for text in [
        // What old JavaScript writers leave.
        "undefined",
        "null",
        "NaN",
        "[object Object]",
        "",
        "-1",
        "+1",
        "1.5",
        "340282366920938463463374607431768211456",
    ] {
        let records = [
            record(0, None, b"0"),
            record(1, Some(0), b"1"),
            record(0, Some(1), b"2"),
            record(1, Some(0), b"3"),
        ];
        let aggregate = assert_aggregate(aggregate_of(&["a", "b"], &[text, "7"], &records));
        let of = HashKey::of_partition_key;
        let found: Vec<_> = aggregate.iter().map(|m| (m.data(), m.hash_key())).collect();
        let expected =
            [(&b"0"[..], of("a")), (b"1", of("b")), (b"2", HashKey::new(7)), (b"3", of("b"))];
        assert_eq!(found, expected, "{text}");
        assert_eq!(aggregate.get(1).unwrap().explicit_hash_key(), None);
        assert_eq!((aggregate.invalid_hash_keys(), aggregate.defect()), (2, None));
        // The Java KCL keeps the first alone.
        let strict = aggregate.strict_defect().unwrap();
        let kind = DefectKind::InvalidExplicitHashKey;
        assert_eq!((strict.kind(), strict.index(), strict.dropped()), (kind, 1, 3));
        // Used by no member it does no harm.
        let unused = aggregate_of(&["a"], &[text, "3"], &[record(0, Some(1), b"0")]);
        let unused = assert_aggregate(unused);
        assert_eq!((unused.invalid_hash_keys(), unused.strict_defect()), (0, None));
        let explicit = unused.get(0).unwrap().explicit_hash_key();
        assert_eq!(explicit, Some(HashKey::new(3)));
    }
}

#[test]
fn a_page_is_decoded_as_its_records_one_by_one() {
    // Aggregates between plain records, damaged ones and one that does not unpack; more than are hashed at a time.
    let mut page = Vec::new();
    for len in 0..200 {
        let aggregate = aggregate_of(&["a"], &[], &[record(0, None, &vec![7; len])]);
        let mut damaged = aggregate.to_vec();
        damaged[4 + len % 4] ^= 1;
        page.extend([aggregate, Bytes::from_static(b"plain"), damaged.into()]);
        page.push(Bytes::from_static(b"\xc1KA\x9e\x01"));
    }
    let mut decoder = Decoder::new(0);
    let decoded: Vec<_> = decoder.decode_all(page.clone()).collect();
    assert_eq!(decoded.len(), 800);
    for (at, result) in decoded.into_iter().enumerate() {
        match (at % 4, result) {
            (0, Ok(Decoded::Aggregate(aggregate))) => {
                assert_eq!(aggregate.get(0).unwrap().data().len(), at / 4);
            }
            (1, Ok(Decoded::Plain(data, PlainReason::NoMagic))) => assert_eq!(data, "plain"),
            (2, Ok(Decoded::Plain(data, PlainReason::DigestMismatch))) => {
                assert_eq!(data, page[at]);
            }
            (3, Err(_)) => {}
            (_, result) => panic!("record {at}: {result:?}"),
        }
    }
    assert_eq!(decoder.decode_all(Vec::new()).len(), 0);
}

#[test]
fn a_defect_behind_an_explicit_hash_key_that_is_no_number_counts_in_both() {
    let records = [
        record(0, None, b"0"),
        record(0, Some(0), b"1"),
        record(9, None, b"2"),
        record(0, None, b"3"),
    ];
    let data = aggregate_of(&["a"], &["undefined"], &records);
    assert_defect(data.clone(), DefectKind::PartitionKeyOutOfTable, &[b"0", b"1"], 2);
    let strict = assert_aggregate(data).strict_defect().unwrap();
    assert_eq!((strict.index(), strict.dropped()), (1, 3));
}

#[test]
fn member_without_explicit_hash_key_beside_a_table_has_none() {
    let records = [record(0, None, b"0"), record(0, Some(0), b"1")];
    let aggregate = assert_aggregate(aggregate_of(&["a"], &["7"], &records));
    let keys: Vec<_> = aggregate.iter().map(|member| member.explicit_hash_key()).collect();
    assert_eq!(keys, [None, Some(HashKey::new(7))]);
    let keys: Vec<_> = aggregate.iter().map(|member| member.hash_key()).collect();
    assert_eq!(keys, [HashKey::of_partition_key("a"), HashKey::new(7)]);
}

#[test]
fn valid_aggregate_without_records_yields_nothing() {
    let aggregate = assert_aggregate(aggregate_of(&["a"], &[], &[]));
    assert!(aggregate.is_empty() && aggregate.defect().is_none());
    let only_unknown = assert_aggregate(kpl_frame(b"\x28\x01"));
    assert!(only_unknown.is_empty());
}

#[test]
fn sub_sequence_numbers_count_from_zero_in_order() {
    let records: Vec<_> = (0..300_u64).map(|i| record(i % 2, None, &i.to_be_bytes())).collect();
    let aggregate = assert_aggregate(aggregate_of(&["a", "b"], &[], &records));
    assert_eq!(aggregate.len(), 300);
    for (i, member) in aggregate.iter().enumerate() {
        assert_eq!(member.index(), i as u64);
        assert_eq!(member.data(), (i as u64).to_be_bytes());
        assert_eq!(member.partition_key(), ["a", "b"][i % 2]);
    }
}

#[test]
fn one_member_aggregate_is_taken_apart() {
    let aggregate = assert_aggregate(aggregate_of(&["a"], &[], &[record(0, None, b"x")]));
    assert_eq!(members(&aggregate), [("a".to_owned(), None, b"x".to_vec())]);
}

#[test]
fn unknown_fields_groups_and_tags_are_ignored() {
    let mut tagged = record(0, None, b"x");
    tagged.tags = vec![Tag { key: Some("k".into()), value: Some("v".into()) }];
    let mut body = Vec::new();
    // Varint, fixed64, bytes, fixed32, and a group that holds a group.
    let unknown = b"\x28\x96\x01\x29abcdefgh\x2a\x02hi\x2dabcd\x2b\x33\x30\x01\x34\x2c";
    body.extend_from_slice(unknown);
    body.extend_from_slice(b"\x0a\x01k");
    let record = [tagged.encode_to_vec(), unknown.to_vec()].concat();
    body.extend_from_slice(&[0x1a, record.len() as u8]);
    body.extend_from_slice(&record);
    body.extend_from_slice(unknown);
    let aggregate = assert_aggregate(kpl_frame(&body));
    assert_eq!(members(&aggregate), [("k".to_owned(), None, b"x".to_vec())]);
}

#[test]
fn groups_nested_up_to_the_limit_are_ignored_and_deeper_ones_refused() {
    // Each level takes one, the outermost field too.
    let nested = |depth: usize| [vec![0x2b; depth], vec![0x2c; depth]].concat();
    assert!(assert_aggregate(kpl_frame(&nested(100))).is_empty());
    let deeper = [vec![0x2b; 100], b"\x28\x00".to_vec(), vec![0x2c; 100]].concat();
    assert_malformed(&deeper, MalformedBody::TooDeep);
    assert_malformed(&nested(100_000), MalformedBody::TooDeep);
    // A record is a level, too, and a tag another one.
    let in_record =
        |depth: usize| bytes_field(3, &[nested(depth), b"\x08\x00\x1a\x00".to_vec()].concat());
    let in_tag = |depth: usize| {
        let tag = bytes_field(4, &[nested(depth), b"\x0a\x00".to_vec()].concat());
        bytes_field(3, &[tag, b"\x08\x00\x1a\x00".to_vec()].concat())
    };
    for (body, too_deep) in
        [(in_record(99), false), (in_record(100), true), (in_tag(98), false), (in_tag(99), true)]
    {
        check_body(&body);
        let reason = PlainReason::Malformed(MalformedBody::TooDeep);
        let plain = matches!(decode(kpl_frame(&body)), Decoded::Plain(_, r) if r == reason);
        assert_eq!(plain, too_deep);
    }
}

#[test]
fn known_field_of_another_type_is_an_unknown_field() {
    // Partition key table as varint and group; record as fixed32; index packed; data as varint.
    let body = b"\x08\x05\x0b\x0c\x1d\x01\x02\x03\x04\x0a\x01k\
        \x1a\x0a\x0a\x01\x07\x18\x09\x08\x00\x1a\x01x";
    let aggregate = assert_aggregate(kpl_frame(body));
    assert_eq!(members(&aggregate), [("k".to_owned(), None, b"x".to_vec())]);
    // Packed alone does not give the record its index.
    assert_malformed(b"\x0a\x01k\x1a\x06\x0a\x01\x00\x1a\x01x", MalformedBody::MissingField);
}

#[test]
fn of_a_field_given_twice_the_last_counts() {
    let body = b"\x0a\x01j\x0a\x01k\x12\x011\x12\x012\
        \x1a\x0f\x08\x00\x10\x00\x1a\x01x\x08\x01\x10\x01\x1a\x02yz";
    let aggregate = assert_aggregate(kpl_frame(body));
    assert_eq!(members(&aggregate), [("k".to_owned(), Some(2), b"yz".to_vec())]);
}

#[test]
fn table_rows_behind_the_records_are_found() {
    let body = b"\x1a\x07\x08\x01\x10\x00\x1a\x01x\x0a\x01j\x12\x015\x0a\x01k";
    let aggregate = assert_aggregate(kpl_frame(body));
    assert_eq!(members(&aggregate), [("k".to_owned(), Some(5), b"x".to_vec())]);
}

#[test]
fn payloads_are_slices_of_the_received_bytes() {
    let data = aggregate_of(&["a"], &[], &[record(0, None, b"payload")]);
    let Decoded::Aggregate(aggregate) = Decoder::new(0).decode(data.clone()).unwrap() else {
        panic!("an aggregate");
    };
    let kept = aggregate.get(0).unwrap().data_bytes();
    drop(aggregate);
    let received = data.as_ptr_range();
    assert!(received.contains(&kept.as_ptr()));
    assert_eq!(kept, "payload");
}

#[test]
fn debug_output_holds_no_payload() {
    let data = aggregate_of(&["secret"], &[], &[record(0, None, b"secret")]);
    let aggregate = assert_aggregate(data);
    let text = format!("{aggregate:?} {:?}", aggregate.get(0));
    assert!(!text.contains("secret") && !text.contains("115"), "{text}");
}
