//! Answers of GetRecords that are read into one buffer.

use super::*;

#[tokio::test]
async fn records_are_read_into_one_buffer_in_both_encodings() {
    let refused = || refused("SerializationException");
    for (support, wire) in [
        (CborSupport::Full, Wire::Auto),
        (CborSupport::Full, Wire::Cbor),
        (CborSupport::Full, Wire::Json),
        (CborSupport::AnsweredInJson, Wire::Auto),
        (CborSupport::AnsweredInJson, Wire::Cbor),
        (refused(), Wire::Auto),
        (refused(), Wire::Json),
    ] {
        let case = format!("{support:?} {wire:?}");
        let aws = aws(support).await;
        let client = client(&aws, wire);
        for data in [&[7; 100_000], &b""[..]] {
            put(&client, data).await.unwrap();
        }
        let output = read(&client).await;
        let answer = read_into_buffer(&client, &iterator(&client).await).await.unwrap();
        assert_eq!(answer.millis_behind_latest, output.millis_behind_latest, "{case}");
        assert!(answer.next_shard_iterator.is_some(), "{case}");
        assert_eq!(answer.records.len(), 2, "{case}");
        for (at, record) in output.records().iter().enumerate() {
            assert_eq!(answer.records.data(at), record.data().as_ref(), "{case}");
            assert_eq!(answer.records.sequence_number(at), record.sequence_number(), "{case}");
            assert_eq!(answer.records.partition_key(at), record.partition_key(), "{case}");
            assert_eq!(answer.records.arrival_millis(at), Some(MILLIS as i64), "{case}");
        }
    }
}

#[tokio::test]
async fn a_failed_read_into_one_buffer_has_the_error_of_the_sdk() {
    let aws = aws(CborSupport::Full).await;
    for wire in [Wire::Cbor, Wire::Json] {
        let client = client(&aws, wire);
        put(&client, b"a").await.unwrap();
        let start = iterator(&client).await;
        let read = async || read_into_buffer(&client, &start).await;
        let code = "ProvisionedThroughputExceededException";
        let throttle = Fault::refuse(code).message("slow down");
        aws.faults().add(throttle.operation("GetRecords").times(1));
        let error = read().await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Some(code), Some("slow down")));
        let error = error.into_service_error();
        assert!(error.is_provisioned_throughput_exceeded_exception(), "{error:?}");
        for fault in [Fault::garbled_response(), Fault::cut_response()] {
            aws.faults().add(fault.operation("GetRecords").times(1));
            let error = read().await.unwrap_err();
            assert!(matches!(error, SdkError::ResponseError(_)), "{error:?}");
        }
        assert!(!read().await.unwrap().records.is_empty());
    }
}
