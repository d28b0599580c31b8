//! PutRecord and PutRecords: what is answered, and where records are then.

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::ShardIteratorType;

use crate::case::{Verdict, cases};
use crate::check::{holds, same, some};
use crate::kinesis::{HALF, Kinesis, SHARD_0, SHARD_1, entry, rises};

cases! { Kinesis, "put":
    a_record_is_answered_with_its_place,
    a_record_is_put_by_arn,
    a_record_comes_back_as_it_was_put,
    numbers_rise_within_a_shard,
    a_batch_keeps_its_order_within_a_shard,
    a_batch_is_answered_entry_by_entry,
    a_number_to_rise_above_is_taken,
    equal_records_are_two_records,
}

async fn a_record_is_answered_with_its_place(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    let put = kinesis.put_record().stream_name(&stream.name);
    let put = put.partition_key("k").explicit_hash_key(HALF.to_string());
    let put = put.data(Blob::new("data")).send().await?;
    same("shard", &*put.shard_id, SHARD_1)?;
    let start = stream.iterator(SHARD_1, ShardIteratorType::TrimHorizon).await?;
    let records = stream.read(start, 1).await?;
    same("number", &records[0].sequence_number, &put.sequence_number)
}

async fn a_record_is_put_by_arn(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let put = kinesis.put_record().stream_arn(&stream.arn);
    put.partition_key("k").data(Blob::new("one")).send().await?;
    let batch = kinesis.put_records().stream_arn(&stream.arn);
    batch.records(entry("k", "two")?).send().await?;
    same("records", stream.texts_of(SHARD_0, 2).await?, ["one", "two"])
}

async fn a_record_comes_back_as_it_was_put(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let data: Vec<u8> = (0..=255).collect();
    let key = "a key with \"quotes\", \\ and ü";
    let put = kinesis.put_record().stream_name(&stream.name);
    put.partition_key(key).data(Blob::new(data.clone())).send().await?;
    let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    let records = stream.read(start, 1).await?;
    same("key", records[0].partition_key(), Some(key))?;
    same("data", records[0].data().as_ref(), &data)?;
    some("arrival", records[0].approximate_arrival_timestamp()).map(drop)
}

async fn numbers_rise_within_a_shard(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let mut numbers = Vec::new();
    for nth in 0..3 {
        numbers.push(stream.put(nth, "x").await?);
        let batch = kinesis.put_records().stream_name(&stream.name);
        let batch = batch.records(entry("a", "x")?).records(entry("b", "x")?);
        let results = batch.send().await?.records;
        numbers.extend(results.into_iter().filter_map(|result| result.sequence_number));
    }
    same("numbers", numbers.len(), 9)?;
    let numbers: Vec<_> = numbers.iter().map(String::as_str).collect();
    holds("they rise", rises(&numbers))?;
    let digits = |number: &&str| number.bytes().all(|byte| byte.is_ascii_digit());
    holds("they are numbers", numbers.iter().all(digits))
}

async fn a_batch_keeps_its_order_within_a_shard(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let texts: Vec<_> = (0..100).map(|nth| format!("record {nth}")).collect();
    let entries = texts.iter().map(|text| entry(text, text.as_str()));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let batch = kinesis.put_records().stream_name(&stream.name);
    batch.set_records(Some(entries)).send().await?;
    same("records", stream.texts_of(SHARD_0, 100).await?, texts)
}

async fn a_batch_is_answered_entry_by_entry(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    let mut entries = Vec::new();
    for nth in 0..10 {
        let mut entry = entry("k", "x")?;
        let hash_key = if nth % 3 == 0 { HALF } else { 0 };
        entry.explicit_hash_key = Some(hash_key.to_string());
        entries.push(entry);
    }
    let batch = kinesis.put_records().stream_name(&stream.name);
    let answer = batch.set_records(Some(entries)).send().await?;
    same("failed", answer.failed_record_count, Some(0))?;
    let shards: Vec<_> = answer.records.iter().map(|result| result.shard_id()).collect();
    let expected: Vec<_> =
        (0..10).map(|nth| Some(if nth % 3 == 0 { SHARD_1 } else { SHARD_0 })).collect();
    same("shards", shards, expected)?;
    let clean = answer.records.iter().all(|result| result.error_code().is_none());
    holds("there are no errors", clean)
}

async fn a_number_to_rise_above_is_taken(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let first = stream.put(0, "x").await?;
    let put = kinesis.put_record().stream_name(&stream.name);
    let put = put.sequence_number_for_ordering(&first).partition_key("k");
    let second = put.data(Blob::new("y")).send().await?.sequence_number;
    holds("it rises", rises(&[&first, &second]))
}

async fn equal_records_are_two_records(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.put(0, "same").await?;
    stream.put(0, "same").await?;
    same("records", stream.texts_of(SHARD_0, 2).await?, ["same", "same"])
}
