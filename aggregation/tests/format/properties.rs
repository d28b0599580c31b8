//! Properties, with `prost` as the oracle.

use kinesis_aggregation::{AggregateBuilder, Decoded, Decoder, HashKey, HashKeyRange};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::fuzz_bodies::oracle::{self, Given, Tag, check_body, kpl_frame};

fn given() -> impl Strategy<Value = Given> {
    let key = prop_oneof!["[a-c]", "\\PC{0,40}", "[a-z]{256}"];
    let explicit = prop_oneof![
        3 => Just(None),
        1 => (0..4_u128).prop_map(Some),
        1 => any::<(u128, u8)>().prop_map(|(key, shift)| Some(key >> (shift % 128))),
        1 => Just(Some(u128::MAX)),
    ];
    // Long ones, about where the length of their length changes, made of one byte: cheap to draw.
    let long = (any::<u8>(), 16_350..16_400_usize).prop_map(|(byte, len)| vec![byte; len]);
    let data = prop_oneof![4 => vec(any::<u8>(), 0..200), 1 => long];
    (key, explicit, data)
}

/// A field in wire form. `known` ones mean something to the message; the others must be ignored.
#[derive(Clone, Debug)]
struct Field {
    known: bool,
    wire: Vec<u8>,
}

fn bytes_field(number: u32, content: &[u8]) -> Field {
    let mut wire = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut wire);
    encode_varint(content.len() as u64, &mut wire);
    wire.extend_from_slice(content);
    Field { known: true, wire }
}

fn varint_field(number: u32, value: u64) -> Field {
    let mut wire = Vec::new();
    encode_key(number, WireType::Varint, &mut wire);
    encode_varint(value, &mut wire);
    Field { known: true, wire }
}

/// A field of any type but `known_type`, or of any type if the number is unknown.
fn unknown_field(known: &'static [(u32, WireType)]) -> impl Strategy<Value = Field> {
    let number = prop_oneof![1_u32..6, 1_u32..(1 << 29)];
    let group = vec((6_u32..20, any::<u64>()), 0..3);
    (number, any::<u64>(), vec(any::<u8>(), 0..20), group, 0..5_u8)
        .prop_map(|(number, value, content, group, wire_type)| match wire_type {
            0 => (number, WireType::Varint, varint_field(number, value).wire),
            1 => (number, WireType::LengthDelimited, bytes_field(number, &content).wire),
            2 => {
                let mut wire = Vec::new();
                encode_key(number, WireType::SixtyFourBit, &mut wire);
                wire.extend_from_slice(&value.to_le_bytes());
                (number, WireType::SixtyFourBit, wire)
            }
            3 => {
                let mut wire = Vec::new();
                encode_key(number, WireType::ThirtyTwoBit, &mut wire);
                wire.extend_from_slice(&(value as u32).to_le_bytes());
                (number, WireType::ThirtyTwoBit, wire)
            }
            _ => {
                let mut wire = Vec::new();
                encode_key(number, WireType::StartGroup, &mut wire);
                for (number, value) in group {
                    wire.extend(varint_field(number, value).wire);
                }
                encode_key(number, WireType::EndGroup, &mut wire);
                (number, WireType::StartGroup, wire)
            }
        })
        .prop_filter("a known field", |(number, wire_type, _)| {
            !known.contains(&(*number, *wire_type))
        })
        .prop_map(|(_, _, wire)| Field { known: false, wire })
}

/// A message with unknown fields and the same without.
type Both = (Vec<u8>, Vec<u8>);

/// Fields in any order with unknown ones between; gives the message with them and without.
fn message(
    fields: impl Strategy<Value = Vec<Field>>,
    known: &'static [(u32, WireType)],
) -> impl Strategy<Value = Both> {
    (fields, vec(unknown_field(known), 0..4))
        .prop_map(|(mut fields, unknown)| {
            fields.extend(unknown);
            fields
        })
        .prop_shuffle()
        .prop_map(|fields| {
            let all = fields.iter().flat_map(|field| field.wire.clone()).collect();
            let known = fields.iter().filter(|field| field.known);
            (all, known.flat_map(|field| field.wire.clone()).collect())
        })
}

const RECORD_FIELDS: &[(u32, WireType)] = &[
    (1, WireType::Varint),
    (2, WireType::Varint),
    (3, WireType::LengthDelimited),
    (4, WireType::LengthDelimited),
];

const MESSAGE_FIELDS: &[(u32, WireType)] = &[
    (1, WireType::LengthDelimited),
    (2, WireType::LengthDelimited),
    (3, WireType::LengthDelimited),
];

/// A record: required fields there, now and then twice or missing; indexes mostly in the table.
fn record() -> impl Strategy<Value = Both> {
    let index = prop_oneof![20 => 0..3_u64, 1 => 0..8_u64, 1 => any::<u64>()];
    let times = || prop_oneof![1 => Just(0..1), 60 => Just(1..2), 4 => Just(2..3)];
    let indexes = times().prop_flat_map(move |times| vec(index.clone(), times));
    let data = times().prop_flat_map(|times| vec(vec(any::<u8>(), 0..20), times));
    let explicit = vec(prop_oneof![20 => 0..3_u64, 1 => any::<u64>()], 0..2);
    let tag = ("[a-z]{0,3}", any::<bool>())
        .prop_map(|(key, value)| Tag { key: Some(key), value: value.then(|| "value".to_owned()) });
    let fields = (indexes, data, explicit, vec(tag, 0..2));
    let fields = fields.prop_map(|(indexes, data, explicit, tags)| {
        let mut fields: Vec<_> = indexes.into_iter().map(|i| varint_field(1, i)).collect();
        fields.extend(explicit.into_iter().map(|i| varint_field(2, i)));
        fields.extend(data.iter().map(|data| bytes_field(3, data)));
        fields.extend(tags.iter().map(|tag| bytes_field(4, &tag.encode_to_vec())));
        fields
    });
    message(fields, RECORD_FIELDS)
}

fn aggregated_record() -> impl Strategy<Value = Both> {
    let keys = vec("\\PC{0,5}", 3..5);
    let hash_key = prop_oneof![
        10 => any::<u128>().prop_map(|key| key.to_string()),
        1 => Just(String::new()),
        1 => "[0-9]{37,41}",
        1 => "\\PC{1,3}",
    ];
    (keys, vec(hash_key, 3..5), vec(record(), 0..6)).prop_flat_map(|(keys, hash_keys, records)| {
        let fields = |record: fn(&Both) -> &[u8]| {
            let mut fields: Vec<_> =
                keys.iter().map(|key| bytes_field(1, key.as_bytes())).collect();
            fields.extend(hash_keys.iter().map(|key| bytes_field(2, key.as_bytes())));
            fields.extend(records.iter().map(|both| bytes_field(3, record(both))));
            fields
        };
        // One order for both, so that the two messages say the same.
        let both = fields(|both| &both.0).into_iter().zip(fields(|both| &both.1));
        let unknown = vec(unknown_field(MESSAGE_FIELDS), 0..4);
        (Just(both.collect::<Vec<_>>()), unknown)
            .prop_map(|(mut fields, unknown)| {
                let nothing = Field { known: true, wire: Vec::new() };
                fields.extend(unknown.into_iter().map(|field| (field, nothing.clone())));
                fields
            })
            .prop_shuffle()
            .prop_map(|fields| {
                let all = fields.iter().flat_map(|(field, _)| field.wire.clone()).collect();
                (all, fields.iter().flat_map(|(_, field)| field.wire.clone()).collect())
            })
    })
}

fn decode(body: &[u8]) -> Decoded {
    oracle::decode(kpl_frame(body))
}

proptest! {
    #[test]
    fn encoding_is_what_prost_encodes(records in vec(given(), 0..30)) {
        let mut open = AggregateBuilder::new(usize::MAX);
        for (index, (key, explicit, data)) in records.iter().enumerate() {
            let explicit = explicit.map(HashKey::new);
            let predicted = open.size_with(key, explicit, data.len());
            prop_assert_eq!(open.push(key, explicit, data), Ok(index as u32));
            prop_assert_eq!(open.size(), predicted);
            let so_far = oracle::message(&records[..=index]);
            prop_assert_eq!(predicted, 4 + so_far.encoded_len() + 16);
        }
        let sealed = open.seal();
        prop_assert_eq!(sealed.body(), oracle::message(&records).encode_to_vec());
        prop_assert_eq!(sealed.bytes(), &kpl_frame(sealed.body()));
    }

    #[test]
    fn round_trip_under_a_limit(records in vec(given(), 1..30), max_size in 0..60_000_usize) {
        let mut decoder = Decoder::new(0);
        let mut received = Vec::new();
        let mut send = |open: AggregateBuilder| {
            let (size, len) = (open.size(), open.len());
            assert!(size <= max_size || len == 1);
            let sealed = open.seal();
            assert_eq!((sealed.bytes().len(), sealed.len()), (size, len));
            let Ok(Decoded::Aggregate(aggregate)) = decoder.decode(sealed.into_bytes()) else {
                panic!("an aggregate");
            };
            received.extend(oracle::members(&aggregate));
        };
        let mut open = AggregateBuilder::new(max_size);
        for (key, explicit, data) in &records {
            let explicit = explicit.map(HashKey::new);
            if let Err(full) = open.push(key, explicit, data) {
                prop_assert_eq!(full.size(), open.size_with(key, explicit, data.len()));
                send(std::mem::replace(&mut open, AggregateBuilder::new(max_size)));
                prop_assert_eq!(open.push(key, explicit, data), Ok(0));
            }
        }
        send(open);
        prop_assert_eq!(received, records);
    }

    /// Any order, unknown fields, known numbers of other types, fields twice, broken indexes.
    #[test]
    fn decoding_agrees_with_prost((all, known) in aggregated_record()) {
        check_body(&known);
        match (decode(&all), decode(&known)) {
            (Decoded::Aggregate(all), Decoded::Aggregate(known)) => {
                prop_assert_eq!(oracle::members(&all), oracle::members(&known));
                prop_assert_eq!(all.defect(), known.defect());
            }
            (Decoded::Plain(_, all), Decoded::Plain(_, known)) => prop_assert_eq!(all, known),
            (all, known) => prop_assert!(false, "with unknown fields {all:?}, without {known:?}"),
        }
    }

    #[test]
    fn decoding_agrees_with_prost_on_damage(
        (mut body, _) in aggregated_record(),
        at: prop::sample::Index,
        byte: u8,
        cut: bool,
    ) {
        let at = at.index(body.len());
        body[at] = byte;
        if cut {
            body.truncate(at);
        }
        check_body(&body);
    }

    #[test]
    fn arbitrary_bytes_are_read_as_prost_reads_them(body in vec(any::<u8>(), 0..40)) {
        check_body(&body);
    }

    #[test]
    fn a_member_lies_in_the_range_its_hash_key_says(records in vec(given(), 1..8), cut: u128) {
        let mut open = AggregateBuilder::new(usize::MAX);
        for (key, explicit, data) in &records {
            open.push(key, explicit.map(HashKey::new), data).unwrap();
        }
        let Decoded::Aggregate(aggregate) = oracle::decode(open.seal().into_bytes()) else {
            panic!("an aggregate");
        };
        let low = HashKeyRange::new(HashKey::MIN, HashKey::new(cut)).unwrap();
        for (member, (key, explicit, _)) in aggregate.iter().zip(&records) {
            let hash = explicit.unwrap_or_else(|| HashKey::of_partition_key(key).get());
            prop_assert_eq!(low.contains(member.hash_key()), hash <= cut);
        }
    }
}
