//! The sink that writes to a Kinesis stream.

use kcl::{DeadLetter, DeadLetterSink as _, KinesisSink, SinkError};
use kinesis_testkit::{Fault, LocalAws};

use crate::{keys, letter};

const DEAD: &str = "dead-letters";

async fn aws() -> LocalAws {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(DEAD, 2).await.unwrap();
    aws
}

fn letters_in(aws: &LocalAws) -> Vec<DeadLetter> {
    let shards = aws.records(DEAD);
    let records = shards.iter().flat_map(|shard| &shard.records);
    records.map(|record| DeadLetter::from_json(&record.data).unwrap()).collect()
}

#[tokio::test]
async fn a_letter_has_the_key_of_its_record() {
    let aws = aws().await;
    let sink = KinesisSink::new(DEAD, &aws.sdk_config()).unwrap();
    let mut keyless = letter(2, "");
    keyless.partition_key = None;
    sink.write(&[letter(1, "customer-7"), keyless.clone()]).await.unwrap();
    let shards = aws.records(DEAD);
    let records = shards.iter().flat_map(|shard| &shard.records);
    let keys: Vec<_> = records.map(|record| record.partition_key.clone()).collect();
    assert!(keys.iter().any(|key| key == "customer-7"), "{keys:?}");
    assert_eq!(letters_in(&aws).len(), 2);
    assert!(letters_in(&aws).contains(&keyless));
}

#[tokio::test]
async fn faults_are_retried_within_the_write_and_only_what_failed_is_put_again() {
    for fault in [
        Fault::refuse_entry("ProvisionedThroughputExceededException").times(2),
        Fault::refuse_entry("InternalFailure").times(1),
        Fault::throttle().times(1),
        Fault::internal_failure().times(1),
        Fault::cut_connection().times(1),
    ] {
        let aws = aws().await;
        aws.faults().add(fault.operation("PutRecords"));
        let sink = KinesisSink::new(DEAD, &aws.sdk_config()).unwrap();
        let letters: Vec<_> = (0..20).map(|number| letter(number, &number.to_string())).collect();
        sink.write(&letters).await.unwrap();
        assert!(!aws.faults().injected().is_empty());
        assert_eq!(keys(&letters_in(&aws)), keys(&letters));
    }
}

#[tokio::test]
async fn a_lost_answer_writes_twice_with_the_same_key() {
    let aws = aws().await;
    aws.faults().add(Fault::response_lost().operation("PutRecords").times(1));
    let sink = KinesisSink::new(DEAD, &aws.sdk_config()).unwrap();
    sink.write(&[letter(1, "k")]).await.unwrap();
    let key = letter(1, "k").idempotency_key();
    assert_eq!(keys(&letters_in(&aws)), [key.clone(), key]);
}

#[tokio::test]
async fn a_large_letter_goes_by_reference_unless_the_stream_takes_it() {
    let aws = aws().await;
    let mut large = letter(1, "k");
    large.payload = Some(vec![7; 900_000].into());
    let sink = KinesisSink::new(DEAD, &aws.sdk_config()).unwrap();
    sink.write(&[large.clone(), letter(2, "k")]).await.unwrap();
    let written = letters_in(&aws);
    assert_eq!(written.len(), 2);
    let reference = written.iter().find(|letter| letter.payload.is_none()).unwrap();
    assert_eq!(reference.position, large.position);
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_an_error_that_names_it() {
    let aws = LocalAws::start().await.unwrap();
    let sink = KinesisSink::new(DEAD, &aws.sdk_config()).unwrap();
    let error = sink.write(&[letter(1, "k")]).await.unwrap_err();
    assert!(matches!(error, SinkError::Call { call: "PutRecords", .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(DEAD) && text.contains("ResourceNotFoundException"), "{text}");
    let invalid = KinesisSink::new("no stream", &aws.sdk_config()).unwrap_err();
    assert!(matches!(invalid, SinkError::Invalid { .. }), "{invalid}");
}

#[tokio::test]
async fn error_texts_hold_no_payload_and_no_key() {
    let aws = aws().await;
    let sink = KinesisSink::new(DEAD, &aws.sdk_config()).unwrap().with_max_record_bytes(600);
    let mut secret = letter(1, "secret key");
    secret.payload = Some("secret payload".into());
    secret.error = "e".repeat(3000);
    let error = sink.write(&[secret]).await.unwrap_err();
    assert!(matches!(error, SinkError::TooLarge { .. }), "{error}");
    assert!(!format!("{error} {error:?} {sink:?}").contains("secret"));
}
