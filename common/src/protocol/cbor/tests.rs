//! The format against bytes written by hand, and against another codec.

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::operation::get_shard_iterator::GetShardIteratorInput;
use aws_sdk_kinesis::operation::put_records::{PutRecordsInput, PutRecordsOutput};
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use aws_smithy_schema::codec::FinishSerializer;
use aws_smithy_schema::serde::ShapeSerializer;
use ciborium::value::Value;
use proptest::prelude::*;

use super::*;
use crate::protocol::records;
use crate::record_buffer::sequence_digits;
use crate::timestamp::whole_millis;

const MILLIS: i64 = 1_767_225_600_123;

fn written(input: &dyn SerializableStruct) -> Vec<u8> {
    let codec = CborCodec::for_request(input.schema(), input).unwrap();
    let mut writer = codec.create_serializer();
    writer.write_struct(input.schema(), input).unwrap();
    let body = writer.finish();
    assert_eq!(body.capacity(), body.len(), "nothing is copied again, and no memory is left over");
    body
}

fn entry(data: &[u8], key: &str, hash_key: Option<&str>) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder()
        .data(Blob::new(data))
        .partition_key(key)
        .set_explicit_hash_key(hash_key.map(str::to_owned))
        .build()
        .unwrap()
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// A map or an array without a length, as the AWS SDK for Java writes them.
fn without_lengths(value: &Value) -> Vec<u8> {
    match value {
        Value::Map(members) => {
            let members =
                members.iter().flat_map(|(name, value)| [encoded(name), without_lengths(value)]);
            [&[0xbf][..], &members.collect::<Vec<_>>().concat(), &[0xff]].concat()
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(without_lengths).collect();
            [&[0x9f][..], &items.concat(), &[0xff]].concat()
        }
        value => encoded(value),
    }
}

fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn time(millis: i64) -> Value {
    Value::Tag(1, Box::new(millis.into()))
}

fn record(number: &str, data: &[u8], arrival: Value) -> Value {
    map([
        ("SequenceNumber", number.into()),
        ("ApproximateArrivalTimestamp", arrival),
        ("Data", Value::Bytes(data.to_vec())),
        ("PartitionKey", "k".into()),
        ("EncryptionType", Value::Null),
    ])
}

/// Reads an answer as the SDK does, and into one buffer, which must have the same result.
fn get_records(body: &[u8]) -> Result<GetRecordsOutput, SerdeError> {
    let output = GetRecordsOutput::deserialize(&mut Reader::new(body));
    let copied = records::copied(&mut Reader::new(body), body.len());
    assert_eq!(output.is_ok(), copied.is_ok(), "{output:?} {copied:?}");
    // An answer without a body never comes here: it is refused before.
    let in_place = match body {
        [] => Ok(None),
        body => read_records(&body.to_vec().into()),
    };
    assert!(output.is_ok() == in_place.is_ok() || body.is_empty(), "{output:?} {in_place:?}");
    if let Ok(output) = &output {
        for answer in [copied.ok(), in_place.ok().flatten()].into_iter().flatten() {
            assert_eq!(answer.next_shard_iterator, output.next_shard_iterator);
            assert_eq!(answer.millis_behind_latest, output.millis_behind_latest);
            assert_eq!(answer.child_shards, output.child_shards);
            assert_eq!(answer.records.len(), output.records().len());
            for (at, record) in output.records().iter().enumerate() {
                let digits = sequence_digits(record.sequence_number()).unwrap_or_default();
                assert_eq!(answer.records.sequence_number(at), digits);
                let key = record.partition_key().filter(|key| !key.is_empty());
                assert_eq!(answer.records.partition_key(at), key);
                assert_eq!(answer.records.data(at), record.data().as_ref());
                let arrival = record.approximate_arrival_timestamp().and_then(whole_millis);
                assert_eq!(answer.records.arrival_millis(at), arrival);
            }
        }
    }
    output
}

fn is_in_place(body: &[u8]) -> bool {
    read_records(&body.to_vec().into()).unwrap().is_some()
}

fn arrival(value: Value) -> Option<DateTime> {
    let body = encoded(&map([("Records", Value::Array(vec![record("1", b"d", value)]))]));
    let output = get_records(&body).ok()?;
    output.records()[0].approximate_arrival_timestamp().copied()
}

#[test]
fn a_request_is_written_as_by_the_sdk_for_java() {
    let input = PutRecordsInput::builder()
        .records(entry(b"\x00\xff", "key", Some("7")))
        .stream_name("orders")
        .build()
        .unwrap();
    // {_ "Records": [_ {_ "Data": h'00ff', "ExplicitHashKey": "7", "PartitionKey": "key"}], "StreamName": "orders"}
    let expected = b"\xbf\x67Records\x9f\
        \xbf\x64Data\x42\x00\xff\x6fExplicitHashKey\x617\x6cPartitionKey\x63key\xff\
        \xff\x6aStreamName\x66orders\xff";
    assert_eq!(written(&input), expected);
}

#[test]
fn a_time_is_written_in_milliseconds_with_tag_1() {
    let input = GetShardIteratorInput::builder()
        .stream_name("s")
        .shard_id("0")
        .shard_iterator_type(ShardIteratorType::AtTimestamp)
        .timestamp(DateTime::from_millis(MILLIS))
        .build()
        .unwrap();
    let bytes = written(&input);
    let expected = [b"\x69Timestamp\xc1\x1b", &MILLIS.to_be_bytes()[..]].concat();
    assert!(bytes.windows(expected.len()).any(|part| part == expected), "{bytes:02x?}");
}

#[test]
fn an_answer_of_kinesis_is_read() {
    // {"Records": [{"SequenceNumber": "49", "Data": h'00ff', "PartitionKey": "k",
    //  "ApproximateArrivalTimestamp": 1(1767225600123)}], "MillisBehindLatest": 5, "NextShardIterator": "n"}
    let mut body = b"\xbf\x67Records\x9f\xbf\x6eSequenceNumber\x6249\x64Data\x42\x00\xff\
        \x6cPartitionKey\x61k\x78\x1bApproximateArrivalTimestamp\xc1\x1b"
        .to_vec();
    body.extend(MILLIS.to_be_bytes());
    body.extend(b"\xff\xff\x72MillisBehindLatest\x05\x71NextShardIterator\x61n\xff");
    let output = get_records(&body).unwrap();
    let record = &output.records()[0];
    assert_eq!(record.sequence_number(), "49");
    assert_eq!(record.data().as_ref(), b"\x00\xff");
    assert_eq!(record.partition_key(), Some("k"));
    assert_eq!(record.approximate_arrival_timestamp(), Some(&DateTime::from_millis(MILLIS)));
    assert_eq!(output.millis_behind_latest(), Some(5));
    assert_eq!(output.next_shard_iterator(), Some("n"));
    assert!(is_in_place(&body));
}

#[test]
fn records_may_have_other_members_than_the_record_before() {
    let number = |number: &str| ("SequenceNumber", number.into());
    let key = |key: &str| ("PartitionKey", key.into());
    let data = |data: u8| ("Data", Value::Bytes(vec![data]));
    let list = vec![
        map([number("1"), key("a"), data(1)]),
        map([number("2"), key("b"), data(2)]),
        map([data(3), number("3"), key("c")]),
        map([data(4), key("d"), ("Dat", 1.into()), number("4")]),
        map([data(5), key("e"), ("Data1", 1.into()), number("5")]),
        map(std::array::from_fn::<_, 12, _>(|_| ("a", 1.into()))),
        map([number("6"), data(6)]),
    ];
    let value = map([("Records", Value::Array(list))]);
    for body in [encoded(&value), without_lengths(&value)] {
        let output = get_records(&body).unwrap();
        let keys: Vec<_> = output.records().iter().map(|record| record.partition_key()).collect();
        assert_eq!(keys, [Some("a"), Some("b"), Some("c"), Some("d"), Some("e"), None, None]);
    }
}

#[test]
fn an_answer_at_the_end_of_a_shard_names_its_children() {
    let range = map([("StartingHashKey", "0".into()), ("EndingHashKey", "9".into())]);
    let child = map([
        ("ShardId", "shardId-1".into()),
        ("ParentShards", Value::Array(vec!["shardId-0".into()])),
        ("HashKeyRange", range),
    ]);
    let value =
        map([("Records", Value::Array(vec![])), ("ChildShards", Value::Array(vec![child]))]);
    for body in [encoded(&value), without_lengths(&value)] {
        let output = get_records(&body).unwrap();
        assert_eq!(output.child_shards()[0].shard_id(), "shardId-1");
    }
}

#[test]
fn parts_of_a_record_may_be_missing_or_odd() {
    let without_number = map([("Data", Value::Bytes(vec![1])), ("PartitionKey", "".into())]);
    let padded = record("0042", b"", Value::Null);
    let not_decimal = record("TRIM_HORIZON", b"d", time(MILLIS));
    let list = vec![without_number, padded, not_decimal];
    let output = get_records(&encoded(&map([("Records", Value::Array(list))]))).unwrap();
    assert_eq!(output.records().len(), 3);
    // Of a member that is given twice the last one counts.
    let records = |data| Value::Array(vec![record("1", data, time(MILLIS))]);
    let twice = map([("Records", records(b"a")), ("Records", records(b"b"))]);
    assert_eq!(get_records(&encoded(&twice)).unwrap().records()[0].data().as_ref(), b"b");
}

#[test]
fn times_of_emulators_are_understood() {
    let expected = DateTime::from_millis(MILLIS);
    let float = MILLIS as f64;
    for value in [
        time(MILLIS),
        Value::from(MILLIS),
        Value::from(float),
        Value::from(float / 1000.0),
        Value::Tag(1, Box::new((float / 1000.0).into())),
    ] {
        assert_eq!(arrival(value.clone()), Some(expected), "{value:?}");
    }
    let whole = DateTime::from_secs(MILLIS / 1000);
    assert_eq!(arrival(time(MILLIS / 1000)), Some(whole));
    for value in [
        Value::Tag(32, Box::new(MILLIS.into())),
        Value::from("now"),
        Value::from(f64::NAN),
        Value::from(u64::MAX),
        Value::Tag(1, Box::new(time(MILLIS))),
    ] {
        assert_eq!(arrival(value.clone()), None, "{value:?}");
    }
}

#[test]
fn numbers_pieces_nulls_and_unknown_members_are_understood() {
    let odd = map([("Inner", Value::Array(vec![map([("x", 1.into())]), Value::Null]))]);
    let value = map([
        ("Unknown", odd),
        ("NextShardIterator", Value::Null),
        ("MillisBehindLatest", Value::Float(86_400_000.0)),
        ("Records", Value::Array(vec![])),
    ]);
    for body in [encoded(&value), without_lengths(&value)] {
        let output = get_records(&body).unwrap();
        assert_eq!(output.millis_behind_latest(), Some(86_400_000));
        assert_eq!(output.next_shard_iterator(), None);
    }
    // {"NextShardIterator": (_ "ab", "c")}
    let pieces = b"\xa1\x71NextShardIterator\x7f\x62ab\x61c\xff";
    assert_eq!(get_records(pieces).unwrap().next_shard_iterator(), Some("abc"));
    // {"Records": [{"SequenceNumber": "1", "Data": (_ h'00', h'ff'), "PartitionKey": "k"}]}
    let pieces = b"\xa1\x67Records\x81\xa3\x6eSequenceNumber\x611\x64Data\x5f\x41\x00\x41\xff\xff\
        \x6cPartitionKey\x61k";
    assert_eq!(get_records(pieces).unwrap().records()[0].data().as_ref(), b"\x00\xff");
    assert!(!is_in_place(pieces));
    // A server that keeps the base64 of JSON.
    let in_base64 = map([("Records", Value::Array(vec![map([("Data", "AP8=".into())])]))]);
    assert!(!is_in_place(&encoded(&in_base64)));
    let output = get_records(&encoded(&in_base64)).unwrap();
    assert_eq!(output.records()[0].data().as_ref(), b"\x00\xff");
}

#[test]
fn what_is_no_answer_is_an_error() {
    let fractional = encoded(&map([("MillisBehindLatest", Value::Float(1.5))]));
    let data_as_text =
        encoded(&map([("Records", Value::Array(vec![map([("Data", "x".into())])]))]));
    let mut lies = b"\xa1\x67Records\x9b".to_vec();
    lies.extend((1_u64 << 62).to_be_bytes());
    for body in [
        &b"<html></html>"[..],
        b"{}",
        b"\xa0\xa0",
        b"\xbf",
        b"\xff",
        b"\x1c",
        b"\x80",
        &fractional,
        &data_as_text,
        &lies,
    ] {
        assert!(get_records(body).is_err(), "{body:02x?}");
    }
    assert!(get_records(&[0x81; 100_000]).is_err());
    let deep = [&b"\xa1\x67Unknown"[..], &[0x81; 100_000]].concat();
    assert!(get_records(&deep).is_err());
}

#[test]
fn an_error_has_code_and_message() {
    let error = |value: &Value| Reader::new(&encoded(value)).error_envelope().unwrap();
    let whole = error(&map([("__type", "A".into()), ("message", "m".into()), ("Other", 1.into())]));
    assert_eq!((whole.code.as_deref(), whole.message.as_deref()), (Some("A"), Some("m")));
    let odd = error(&map([("__type", 1.into()), ("Message", Value::Array(vec![]))]));
    assert_eq!((odd.code, odd.message), (None, None));
    assert!(Reader::new(b"\xa1\x66__type").error_envelope().is_err());
}

fn entries() -> impl Strategy<Value = Vec<(Vec<u8>, String, Option<u128>)>> {
    let data = prop::collection::vec(any::<u8>(), 0..300);
    prop::collection::vec((data, any::<String>(), any::<Option<u128>>()), 0..6)
}

proptest! {
    #[test]
    fn another_codec_reads_the_same_request(entries in entries(), stream: String, dry_run: Option<bool>) {
        let input = PutRecordsInput::builder()
            .set_records(Some(
                entries
                    .iter()
                    .map(|(data, key, hash_key)| {
                        entry(data, key, hash_key.map(|it| it.to_string()).as_deref())
                    })
                    .collect(),
            ))
            .stream_name(&*stream)
            .set_dry_run(dry_run)
            .build()
            .unwrap();
        let records = entries.into_iter().map(|(data, key, hash_key)| {
            let mut members = vec![("Data".into(), Value::Bytes(data))];
            members.extend(hash_key.map(|it| ("ExplicitHashKey".into(), it.to_string().into())));
            members.push(("PartitionKey".into(), key.into()));
            Value::Map(members)
        });
        let mut expected = vec![
            ("Records".into(), Value::Array(records.collect())),
            ("StreamName".into(), stream.into()),
        ];
        expected.extend(dry_run.map(|it| ("DryRun".into(), it.into())));
        let read: Value = ciborium::from_reader(&written(&input)[..]).unwrap();
        prop_assert_eq!(read, Value::Map(expected));
    }

    #[test]
    fn an_answer_of_another_codec_is_read_and_a_part_of_it_is_an_error(
        records in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), 0..1i64 << 41), 0..6),
        behind: i64,
        part: prop::sample::Index,
    ) {
        let list = records.iter().map(|(data, millis)| record("1", data, time(*millis))).collect();
        let value = map([("Records", Value::Array(list)), ("MillisBehindLatest", behind.into())]);
        for body in [encoded(&value), without_lengths(&value)] {
            let output = get_records(&body).unwrap();
            prop_assert_eq!(output.millis_behind_latest(), Some(behind));
            prop_assert_eq!(output.records().len(), records.len());
            for (record, (data, _)) in output.records().iter().zip(&records) {
                prop_assert_eq!(record.data().as_ref(), &data[..]);
            }
            // Nothing at all is an answer without a result.
            let part = part.index(body.len() - 1) + 1;
            prop_assert!(get_records(&body[..part]).is_err());
            let garbled = [&body[..part], b"\x00 garbage"].concat();
            prop_assert!(get_records(&garbled).is_err());
        }
    }

    #[test]
    fn any_bytes_are_an_answer_or_an_error(body: Vec<u8>) {
        let _ = get_records(&body);
        let _ = PutRecordsOutput::deserialize(&mut Reader::new(&body));
        let _ = Reader::new(&body).error_envelope();
    }
}
