//! The record of a dead letter, read from the stream again.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::ProvideErrorMetadata as _;
use aws_sdk_kinesis::types::{Record, ShardIteratorType};
use bytes::Bytes;
use kinesis_aggregation::{Decoded, Decoder};
use kinesis_common::error_text::{Request, error_text};
use kinesis_common::retry_class::RetryClass;
use kinesis_common::stream_name::StreamName;

use super::letter::DeadLetter;

/// Largest size to which a compressed record may grow: more than the 10 MiB of a record in the stream.
const MAX_DECOMPRESSED: usize = 64 << 20;
/// Reads of a shard that return no record before it is taken to hold none.
const EMPTY_READS: u32 = 20;

/// What became of the record of a letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Located {
    /// The payload.
    Found(Bytes),
    /// The stream does not hold the record any more.
    Gone,
}

/// Reads the payload of a letter's record from `stream`.
///
/// # Errors
/// The stream cannot be read at present.
pub(super) async fn locate(
    client: &Client,
    stream: &StreamName,
    letter: &DeadLetter,
) -> Result<Located, String> {
    let number = letter.position.sequence_number.as_str();
    let iterator = client
        .get_shard_iterator()
        .set_stream_name(stream.name())
        .set_stream_arn(stream.arn())
        .shard_id(&letter.shard_id)
        .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
        .starting_sequence_number(number);
    let mut iterator = match iterator.send().await {
        Ok(output) => output.shard_iterator,
        // The stream or the shard is gone, or the number belongs to an earlier stream of the same name.
        Err(error) if is_gone(error.code()) => return Ok(Located::Gone),
        Err(error) => return Err(error_text(&error, Request::WithoutRecords)),
    };
    // A read may return nothing although the record is there.
    for _ in 0..EMPTY_READS {
        let Some(at) = iterator else { break };
        let page = client.get_records().shard_iterator(at).limit(1).send().await;
        let page = page.map_err(|error| error_text(&error, Request::WithoutRecords))?;
        if let Some(record) = page.records().first() {
            // After the retention of the record, the iterator starts at a later one.
            let is_it = record.sequence_number() == number;
            let payload = if is_it { payload_of(record, letter) } else { None };
            return Ok(payload.map_or(Located::Gone, Located::Found));
        }
        iterator = page.next_shard_iterator;
    }
    Ok(Located::Gone)
}

fn is_gone(code: Option<&str>) -> bool {
    code == Some("InvalidArgumentException")
        || code.and_then(RetryClass::of) == Some(RetryClass::NotFound)
}

/// The user record of a letter in its Kinesis record.
fn payload_of(record: &Record, letter: &DeadLetter) -> Option<Bytes> {
    let data = Bytes::copy_from_slice(record.data().as_ref());
    let index = letter.position.sub_sequence_number;
    match Decoder::new(MAX_DECOMPRESSED).decode(data.clone()) {
        Ok(Decoded::Aggregate(aggregate)) => {
            Some(aggregate.get(usize::try_from(index).ok()?)?.data_bytes())
        }
        // What cannot be taken apart was delivered as it is.
        _ => (index == 0).then_some(data),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use aws_sdk_kinesis::primitives::Blob;
    use kinesis_aggregation::AggregateBuilder;

    use super::*;
    use crate::sequence::ExtendedSequenceNumber;

    fn record(data: impl Into<Vec<u8>>) -> Record {
        let record = Record::builder().sequence_number("7").data(Blob::new(data));
        record.partition_key("k").build().unwrap()
    }

    fn letter(sub_sequence_number: u64) -> DeadLetter {
        let position = ExtendedSequenceNumber::new("7".parse().unwrap(), sub_sequence_number);
        DeadLetter::new("app", "orders", "shardId-0", position, "", SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_user_record_is_found_in_its_aggregate() {
        let mut open = AggregateBuilder::new(1000);
        for data in ["zero", "one", "two"] {
            open.push("k", None, data.as_bytes()).unwrap();
        }
        let record = record(open.seal().into_bytes());
        assert_eq!(payload_of(&record, &letter(1)).as_deref(), Some(&b"one"[..]));
        assert_eq!(payload_of(&record, &letter(3)), None);
        assert_eq!(payload_of(&record, &letter(u64::MAX)), None);
    }

    #[test]
    fn a_plain_record_has_one_user_record() {
        assert_eq!(payload_of(&record("plain"), &letter(0)).as_deref(), Some(&b"plain"[..]));
        assert_eq!(payload_of(&record("plain"), &letter(1)), None);
        // The magic of a compressed frame, and nothing that can be read.
        let frame = [0xc1, b'K', b'A', 0x9e, 9];
        assert_eq!(payload_of(&record(frame), &letter(0)).as_deref(), Some(&frame[..]));
    }
}
