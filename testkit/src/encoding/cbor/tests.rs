use base64_simd::STANDARD;
use ciborium::value::Integer;
use proptest::prelude::*;

use super::{Cbor, Json, from_json, to_json};

fn encoded(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// As the SDK for Java writes: maps and arrays have no length at their head, but an end.
fn encoded_without_lengths(value: &Cbor, bytes: &mut Vec<u8>) {
    match value {
        Cbor::Map(members) => {
            bytes.push(0xbf);
            for (name, value) in members {
                encoded_without_lengths(name, bytes);
                encoded_without_lengths(value, bytes);
            }
            bytes.push(0xff);
        }
        Cbor::Array(items) => {
            bytes.push(0x9f);
            for item in items {
                encoded_without_lengths(item, bytes);
            }
            bytes.push(0xff);
        }
        value => bytes.extend(encoded(value)),
    }
}

fn time(millis: i64) -> Cbor {
    Cbor::Tag(1, Box::new(millis.into()))
}

/// The same value in both.
fn value() -> impl Strategy<Value = (Cbor, Json)> {
    let leaf = prop_oneof![
        Just((Cbor::Null, Json::Null)),
        any::<bool>().prop_map(|value| (value.into(), value.into())),
        any::<i64>().prop_map(|number| (number.into(), number.into())),
        // Few digits: JSON is not read to the last bit.
        any::<i32>().prop_map(|number| {
            let number = f64::from(number) / 8.0;
            (number.into(), number.into())
        }),
        any::<String>().prop_map(|text| (Cbor::Text(text.clone()), Json::String(text))),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let member = prop_oneof![
            // No name that has a meaning.
            ("[a-z]{1,5}", inner.clone()),
            any::<Vec<u8>>().prop_map(|bytes| {
                let text = STANDARD.encode_to_string(&bytes);
                ("Data".to_owned(), (Cbor::Bytes(bytes), text.into()))
            }),
            ("[A-Z][a-z]{0,5}Timestamp", 0..4_000_000_000_000i64).prop_map(|(name, millis)| {
                (name, (time(millis), (millis as f64 / 1000.0).into()))
            }),
        ];
        let object = prop::collection::vec(member, 0..6).prop_map(|mut members| {
            // One of a name, and in the order in which `serde_json` gives them.
            members.sort_by(|one, other| one.0.cmp(&other.0));
            members.dedup_by(|one, other| one.0 == other.0);
            let cbor = members.iter().map(|(name, (cbor, _))| (name.clone().into(), cbor.clone()));
            let cbor = Cbor::Map(cbor.collect());
            let json = members.into_iter().map(|(name, (_, json))| (name, json));
            (cbor, Json::Object(json.collect()))
        });
        let array = prop::collection::vec(inner, 0..6).prop_map(|items| {
            let (cbor, json) = items.into_iter().unzip();
            (Cbor::Array(cbor), Json::Array(json))
        });
        prop_oneof![object, array]
    })
}

fn parsed(json: &[u8]) -> Json {
    serde_json::from_slice(json).unwrap()
}

/// Compares members whatever their order.
fn sorted(value: Cbor) -> Cbor {
    match value {
        Cbor::Map(members) => {
            let members = members.into_iter();
            let mut members: Vec<_> = members.map(|(name, value)| (name, sorted(value))).collect();
            members.sort_by(|one, other| one.0.as_text().cmp(&other.0.as_text()));
            Cbor::Map(members)
        }
        Cbor::Array(items) => Cbor::Array(items.into_iter().map(sorted).collect()),
        value => value,
    }
}

proptest! {
    #[test]
    fn a_value_is_the_same_in_both((cbor, json) in value()) {
        prop_assert_eq!(parsed(&to_json(&encoded(&cbor)).unwrap()), json.clone());
        let mut without_lengths = Vec::new();
        encoded_without_lengths(&cbor, &mut without_lengths);
        prop_assert_eq!(parsed(&to_json(&without_lengths).unwrap()), json.clone());
        let back = from_json(&serde_json::to_vec(&json).unwrap()).unwrap();
        let back: Cbor = ciborium::from_reader(&back[..]).unwrap();
        prop_assert_eq!(sorted(back), sorted(cbor));
    }

    #[test]
    fn any_bytes_are_json_or_an_error(bytes: Vec<u8>) {
        if let Ok(json) = to_json(&bytes) {
            parsed(&json);
        }
    }

    #[test]
    fn a_request_that_breaks_off_is_an_error((cbor, _) in value(), at: prop::sample::Index) {
        let whole = encoded(&cbor);
        prop_assert!(to_json(&whole[..at.index(whole.len())]).is_err());
    }
}

#[test]
fn a_request_of_the_sdk_for_java_is_read() {
    // {_ "StreamName": "orders", "Data": h'00ff', "Timestamp": 1(1767225600123)}
    let mut request = vec![0xbf, 0x6a];
    request.extend(b"StreamName\x66orders\x64Data\x42\x00\xff\x69Timestamp");
    request.extend([0xc1, 0x1b]);
    request.extend(1_767_225_600_123u64.to_be_bytes());
    request.push(0xff);
    let json = to_json(&request).unwrap();
    let expected = r#"{"StreamName":"orders","Data":"AP8=","Timestamp":1767225600.123}"#;
    assert_eq!(String::from_utf8(json).unwrap(), expected);
}

#[test]
fn bytes_in_pieces_are_one() {
    // (_ h'01', h'02')
    assert_eq!(to_json(b"\x5f\x41\x01\x41\x02\xff").unwrap(), b"\"AQI=\"");
}

#[test]
fn what_json_cannot_say_is_an_error() {
    let huge = Integer::from(u64::MAX);
    let text = |text: &str| Cbor::Text(text.to_owned());
    for (value, expected) in [
        (huge.into(), "64 bits"),
        (f64::NAN.into(), "not finite"),
        (Cbor::Tag(1, Box::new(text("now"))), "whole number"),
        (Cbor::Tag(1, Box::new(1.5.into())), "whole number"),
        (Cbor::Tag(32, Box::new(text("a:b"))), "tag 32"),
        (Cbor::Map(vec![(1.into(), 2.into())]), "name is no text"),
    ] {
        let error = to_json(&encoded(&value)).unwrap_err().to_string();
        assert!(error.contains(expected), "{value:?}: {error}");
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    let error = to_json(b"\xa0\xa0").unwrap_err().to_string();
    assert!(error.contains("1 bytes after the end"), "{error}");
}

#[test]
fn lengths_and_depths_that_lie_cost_nothing() {
    // Bytes, text, an array and a map of 2^62 items, and arrays in arrays.
    for kind in [0x5b, 0x7b, 0x9b, 0xbb] {
        let mut lie = vec![kind];
        lie.extend((1u64 << 62).to_be_bytes());
        to_json(&lie).unwrap_err();
    }
    to_json(&[0x81; 100_000]).unwrap_err();
}
