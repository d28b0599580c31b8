//! PutRecord and PutRecords: how much is too much, and what is malformed.

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};

use crate::case::{Verdict, cases};
use crate::check::{Failure, holds, refused, same};
use crate::kinesis::{Kinesis, SHARD_0, entry};

cases! { Kinesis, "put_limits":
    five_hundred_records_are_a_batch,
    one_more_is_none,
    a_batch_has_a_record_at_least,
    a_record_may_have_a_mebibyte_with_its_key,
    a_record_may_have_ten_mebibytes_where_allowed,
    a_batch_may_have_ten_mebibytes,
    a_batch_over_ten_mebibytes_is_refused,
    a_record_may_be_empty,
    a_key_has_a_character_at_least,
    a_key_has_256_characters_at_most,
    a_malformed_entry_refuses_its_batch,
}

const MEBIBYTE: usize = 1 << 20;

fn entries(count: usize) -> Result<Vec<PutRecordsRequestEntry>, Failure> {
    (0..count).map(|nth| entry(&nth.to_string(), "x")).collect()
}

async fn five_hundred_records_are_a_batch(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let batch = kinesis.put_records().stream_name(&stream.name);
    let answer = batch.set_records(Some(entries(500)?)).send().await?;
    same("failed", answer.failed_record_count, Some(0))?;
    same("results", answer.records.len(), 500)
}

async fn one_more_is_none(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let batch = kinesis.put_records().stream_name(&stream.name);
    let batch = batch.set_records(Some(entries(501)?)).send().await;
    refused("501", batch, "ValidationException")
}

async fn a_batch_has_a_record_at_least(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let batch = kinesis.put_records().stream_name(&stream.name);
    let batch = batch.set_records(Some(Vec::new())).send().await;
    refused("none", batch, "ValidationException")
}

async fn a_record_may_have_a_mebibyte_with_its_key(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let put = |size: usize| {
        let put = kinesis.put_record().stream_name(&stream.name);
        put.partition_key("key").data(Blob::new(vec![7; size])).send()
    };
    put(MEBIBYTE - 3).await?;
    let more = put(MEBIBYTE - 2).await;
    refused("a byte more", more, "InvalidArgumentException")
}

async fn a_record_may_have_ten_mebibytes_where_allowed(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.allow_records_of(10 * 1024).await?;
    let data: Vec<u8> = (0..10 * MEBIBYTE - 3).map(|at| (at % 251) as u8).collect();
    let put = kinesis.put_record().stream_name(&stream.name);
    let put = put.partition_key("key").data(Blob::new(data.clone()));
    put.send().await?;
    let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    let records = stream.read(start, 1).await?;
    holds("it comes back whole", records[0].data().as_ref() == data)
}

async fn a_batch_may_have_ten_mebibytes(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let full = (0..10).map(|_| entry("key", vec![7; MEBIBYTE - 3]));
    let full = full.collect::<Result<Vec<_>, _>>()?;
    let batch = kinesis.put_records().stream_name(&stream.name);
    let answer = batch.set_records(Some(full)).send().await?;
    same("results", answer.records.len(), 10)
}

async fn a_batch_over_ten_mebibytes_is_refused(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let full = (0..10).map(|_| entry("key", vec![7; MEBIBYTE - 3]));
    let mut over = full.collect::<Result<Vec<_>, _>>()?;
    over.push(entry("k", "x")?);
    let batch = kinesis.put_records().stream_name(&stream.name);
    let batch = batch.set_records(Some(over)).send().await;
    refused("two bytes more", batch, "InvalidArgumentException")
}

async fn a_record_may_be_empty(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.put(0, "").await?;
    same("records", stream.texts_of(SHARD_0, 1).await?, [""])
}

async fn a_key_has_a_character_at_least(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let put = kinesis.put_record().stream_name(&stream.name);
    let put = put.partition_key("").data(Blob::new("x")).send().await;
    refused("an empty key", put, "ValidationException")
}

async fn a_key_has_256_characters_at_most(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let put = |key: String| {
        let put = kinesis.put_record().stream_name(&stream.name);
        put.partition_key(key).data(Blob::new("x")).send()
    };
    // Characters, not bytes.
    put("é".repeat(256)).await?;
    refused("257", put("k".repeat(257)).await, "ValidationException")
}

async fn a_malformed_entry_refuses_its_batch(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let batch = kinesis.put_records().stream_name(&stream.name);
    let batch = batch.records(entry("good", "x")?).records(entry("", "y")?);
    refused("batch", batch.send().await, "ValidationException")?;
    stream.put(0, "z").await?;
    same("records", stream.texts_of(SHARD_0, 1).await?, ["z"])
}
