use std::time::Duration;

use bytes::Bytes;
use kinesis_aggregation::HashKey;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

const SECRET: &str = "c2VjcmV0IHBheWxvYWQ=";

fn time() -> impl Strategy<Value = SystemTime> {
    let range = -62_135_596_800i64..=253_402_300_799;
    (range, prop_oneof![0..1_000_000_000u32, (0..1000u32).prop_map(|millis| millis * 1_000_000)])
        .prop_map(|(secs, nanos)| DateTime::from_secs_and_nanos(secs, nanos).try_into().unwrap())
}

prop_compose! {
    pub(in super::super) fn letters()(
        [application, worker_id, stream, shard_id, error] in any::<[String; 5]>(),
        [stream_arn, partition_key] in any::<[Option<String>; 2]>(),
        (sequence_number, sub_sequence_number) in any::<(u128, u64)>(),
        explicit_hash_key in option::of(any::<u128>().prop_map(HashKey::new)),
        (first_failure, last_failure, arrival) in (time(), time(), option::of(time())),
        payload in option::of(vec(any::<u8>(), 0..200).prop_map(Bytes::from)),
        condition in proptest::sample::select(&DeadLetterCondition::ALL[..]),
        (aggregated, attempts, redrives) in any::<(bool, u32, u32)>(),
        error_chain in vec(any::<String>(), 0..4),
    ) -> DeadLetter {
        let position = ExtendedSequenceNumber::new(
            sequence_number.to_string().parse().unwrap(),
            sub_sequence_number,
        );
        DeadLetter {
            application, worker_id, stream, stream_arn, shard_id, position, partition_key,
            explicit_hash_key, arrival, payload, aggregated, condition, attempts, error,
            error_chain, first_failure, last_failure, redrives,
        }
    }
}

fn letter() -> DeadLetter {
    let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let position = ExtendedSequenceNumber::new("4959".parse().unwrap(), 3);
    let mut letter = DeadLetter::new(
        "billing",
        "arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
        "shardId-000000000001",
        position,
        "secret payload",
        at(1_795_842_000_123),
    );
    letter.worker_id = "worker-1".into();
    letter.partition_key = Some("customer-7".into());
    letter.explicit_hash_key = Some(HashKey::new(42));
    letter.arrival = Some(at(1_795_841_990_000));
    letter.aggregated = true;
    letter.attempts = 3;
    letter.error = "the amount is not a number".into();
    letter.error_chain = vec!["invalid digit".into()];
    letter
}

fn value_of(letter: &DeadLetter) -> Value {
    serde_json::from_str(&letter.to_json()).unwrap()
}

/// The letter's JSON after a change.
fn changed(change: impl FnOnce(&mut Value)) -> Result<DeadLetter, InvalidDeadLetter> {
    let mut value = value_of(&letter());
    change(&mut value);
    DeadLetter::from_json(value.to_string().as_bytes())
}

proptest! {
    #[test]
    fn every_letter_comes_back_equal(letter in letters()) {
        let json = letter.to_json();
        prop_assert!(!json.contains('\n'));
        prop_assert_eq!(DeadLetter::from_json(json.as_bytes()), Ok(letter));
    }

    #[test]
    fn a_letter_within_the_limit_comes_back_equal(letter in letters(), spare in 0usize..3) {
        let limit = letter.to_json().len() + spare;
        let json = letter.to_json_within(limit);
        prop_assert_eq!(DeadLetter::from_json(json.as_bytes()), Ok(letter));
    }

    #[test]
    fn any_cut_letter_is_an_error(letter in letters(), part in 0.0..1.0f64) {
        let json = letter.to_json();
        let end = (json.len() as f64 * part) as usize;
        DeadLetter::from_json(&json.as_bytes()[..end]).unwrap_err();
    }

    #[test]
    fn any_input_gives_a_result(bytes in vec(any::<u8>(), 0..100)) {
        let _ = DeadLetter::from_json(&bytes);
    }
}

#[test]
fn a_letter_has_the_fields_of_lambdas_failure_record() {
    let expected = json!({
        "requestContext": {
            "requestId": "billing:orders:shardId-000000000001:4959:3",
            "functionArn": "billing",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 3,
        },
        "responseContext": {
            "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled",
        },
        "version": "1.0",
        "timestamp": "2026-11-28T05:00:00.123Z",
        "KinesisBatchInfo": {
            "shardId": "shardId-000000000001",
            "startSequenceNumber": "4959",
            "endSequenceNumber": "4959",
            "approximateArrivalOfFirstRecord": "2026-11-28T04:59:50.000Z",
            "approximateArrivalOfLastRecord": "2026-11-28T04:59:50.000Z",
            "batchSize": 1,
            "streamArn": "arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
        },
        "kcl": {
            "idempotencyKey": "billing:orders:shardId-000000000001:4959:3",
            "application": "billing",
            "worker": "worker-1",
            "stream": "arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
            "subSequenceNumber": 3,
            "aggregated": true,
            "partitionKey": "customer-7",
            "explicitHashKey": "42",
            "error": "the amount is not a number",
            "errorChain": ["invalid digit"],
            "firstFailure": "2026-11-28T05:00:00.123Z",
            "redrives": 0,
            "payload": SECRET,
        },
    });
    assert_eq!(value_of(&letter()), expected);
}

#[test]
fn a_letter_of_a_record_that_was_never_delivered_has_no_response() {
    let mut letter = letter();
    letter.attempts = 0;
    assert_eq!(value_of(&letter).get("responseContext"), None);
}

#[test]
fn unknown_fields_are_ignored() {
    let read = changed(|value| {
        value["new"] = json!({"a": 1});
        value["kcl"]["new"] = json!([1]);
        value["KinesisBatchInfo"]["new"] = json!("x");
    });
    assert_eq!(read, Ok(letter()));
}

#[test]
fn a_large_letter_goes_by_reference() {
    let mut letter = letter();
    letter.payload = Some(vec![7; 100_000].into());
    let json = letter.to_json_within(64 << 10);
    assert!(json.len() < 4096, "{}", json.len());
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["kcl"]["payloadOmitted"], json!(true));
    let read = DeadLetter::from_json(json.as_bytes()).unwrap();
    assert_eq!(read, DeadLetter { payload: None, ..letter });
}

#[test]
fn long_error_texts_give_way_before_the_payload() {
    let mut letter = letter();
    letter.error = "ä".repeat(100_000);
    letter.error_chain = vec!["cause ".repeat(1000); 100];
    let json = letter.to_json_within(64 << 10);
    assert!(json.len() <= 64 << 10, "{}", json.len());
    let read = DeadLetter::from_json(json.as_bytes()).unwrap();
    assert_eq!(read.payload, letter.payload);
    assert_eq!(read.position, letter.position);
    assert!(letter.error.starts_with(&read.error) && !read.error.is_empty());
}

#[test]
fn a_missing_field_is_named() {
    for path in [
        "requestContext",
        "requestContext.condition",
        "requestContext.approximateInvokeCount",
        "timestamp",
        "KinesisBatchInfo",
        "KinesisBatchInfo.shardId",
        "KinesisBatchInfo.startSequenceNumber",
        "kcl",
        "kcl.application",
        "kcl.worker",
        "kcl.stream",
        "kcl.subSequenceNumber",
        "kcl.aggregated",
        "kcl.error",
        "kcl.errorChain",
        "kcl.firstFailure",
        "kcl.redrives",
        "kcl.payload",
    ] {
        let error = changed(|value| {
            let (outer, name) = path.rsplit_once('.').unwrap_or(("", path));
            let outer = if outer.is_empty() { value } else { &mut value[outer] };
            outer.as_object_mut().unwrap().remove(name).unwrap();
        })
        .unwrap_err();
        assert_eq!(error, InvalidDeadLetter::Missing { field: path.to_owned() });
        assert!(error.to_string().contains(path));
    }
}

#[test]
fn a_wrong_value_is_named_and_not_shown() {
    for path in [
        "/requestContext/condition",
        "/requestContext/approximateInvokeCount",
        "/timestamp",
        "/KinesisBatchInfo/startSequenceNumber",
        "/KinesisBatchInfo/approximateArrivalOfFirstRecord",
        "/kcl",
        "/kcl/subSequenceNumber",
        "/kcl/aggregated",
        "/kcl/explicitHashKey",
        "/kcl/errorChain",
        "/kcl/firstFailure",
        "/kcl/redrives",
        "/kcl/payload",
    ] {
        let error = changed(|value| *value.pointer_mut(path).unwrap() = json!("secret!"));
        let error = error.unwrap_err();
        let field = path[1..].replace('/', ".");
        assert_eq!(error, InvalidDeadLetter::Field { field: field.clone() });
        assert!(error.to_string().contains(&field), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let too_many = changed(|value| value["kcl"]["redrives"] = json!(1u64 << 32));
    assert_eq!(too_many, Err(InvalidDeadLetter::Field { field: "kcl.redrives".into() }));
}

#[test]
fn broken_json_is_an_error_that_shows_nothing() {
    let json = letter().to_json();
    let inside_payload = json.find(SECRET).unwrap() + 6;
    for input in ["", "null", "[]", "secret", &json[..inside_payload], &format!("{json}x")] {
        let error = DeadLetter::from_json(input.as_bytes()).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("secret") && !text.contains("c2Vj"), "{text}");
    }
    assert_eq!(DeadLetter::from_json(b"[]"), Err(InvalidDeadLetter::NoObject));
}

#[test]
fn times_out_of_the_calendar_are_moved_into_it() {
    let mut letter = letter();
    letter.last_failure = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 42);
    assert!(letter.to_json().contains("9999-12-31T23:59:59.000Z"));
}
