//! GetRecords.

use std::time::Duration;

use aws_sdk_kinesis::types::ShardIteratorType;

use crate::case::{Verdict, cases};
use crate::check::{holds, refused, same, some};
use crate::kinesis::{Kinesis, SHARD_0, entry, texts};

cases! { Kinesis, "read":
    a_limit_is_kept_and_the_next_page_goes_on,
    a_limit_has_bounds,
    a_page_has_ten_thousand_records_at_most,
    a_page_has_ten_mebibytes_at_most,
    a_reader_knows_how_far_behind_it_is,
    a_reader_at_the_tip_sees_what_comes,
    an_iterator_can_be_used_again,
    a_bogus_iterator_is_refused,
    no_reader_passes_a_record_that_comes_later,
}

async fn a_limit_is_kept_and_the_next_page_goes_on(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    for data in ["a", "b", "c"] {
        stream.put(0, data).await?;
    }
    let mut iterator = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    for expected in ["ab", "c"] {
        let get = kinesis.get_records().shard_iterator(iterator).limit(2);
        let page = get.send().await?;
        same("page", texts(&page.records).concat(), expected)?;
        iterator = some("next iterator", page.next_shard_iterator)?;
    }
    Ok(())
}

async fn a_limit_has_bounds(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    for limit in [0, 10_001] {
        let get = kinesis.get_records().shard_iterator(&start).limit(limit);
        refused(&limit.to_string(), get.send().await, "ValidationException")?;
    }
    Ok(())
}

async fn a_page_has_ten_thousand_records_at_most(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    for _ in 0..21 {
        let entries = (0..500).map(|_| entry("k", "x")).collect::<Result<_, _>>()?;
        let batch = kinesis.put_records().stream_name(&stream.name);
        batch.set_records(Some(entries)).send().await?;
    }
    let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    let page = stream.get(&start).await?;
    same("records", page.records.len(), 10_000)?;
    let rest = stream.get(&some("next iterator", page.next_shard_iterator)?).await?;
    same("the rest", rest.records.len(), 500)
}

async fn a_page_has_ten_mebibytes_at_most(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    for _ in 0..2 {
        let entries = (0..6).map(|_| entry("key", vec![7; (1 << 20) - 3]));
        let entries = entries.collect::<Result<_, _>>()?;
        let batch = kinesis.put_records().stream_name(&stream.name);
        batch.set_records(Some(entries)).send().await?;
    }
    let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    let page = stream.get(&start).await?;
    same("records", page.records.len(), 10)?;
    let rest = stream.get(&some("next iterator", page.next_shard_iterator)?).await?;
    same("the rest", rest.records.len(), 2)
}

async fn a_reader_knows_how_far_behind_it_is(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.put(0, "a").await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.put(0, "b").await?;
    let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    let get = kinesis.get_records().shard_iterator(start).limit(1);
    let page = get.send().await?;
    let behind = some("millis behind", page.millis_behind_latest)?;
    holds("it is behind", behind > 0)?;
    let page = stream.get(&some("next iterator", page.next_shard_iterator)?).await?;
    same("at the tip", page.millis_behind_latest, Some(0))
}

async fn a_reader_at_the_tip_sees_what_comes(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    let empty = stream.get(&start).await?;
    same("at first", empty.records.len(), 0)?;
    stream.put(0, "a").await?;
    let next = some("next iterator", empty.next_shard_iterator)?;
    same("later", texts(&stream.read(next, 1).await?), ["a"])
}

async fn an_iterator_can_be_used_again(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.put(0, "a").await?;
    let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    for _ in 0..2 {
        same("records", texts(&stream.read(start.clone(), 1).await?), ["a"])?;
    }
    Ok(())
}

async fn a_bogus_iterator_is_refused(kinesis: Kinesis) -> Verdict {
    let bogus = kinesis.get_records().shard_iterator("bogus").send().await;
    refused("bogus", bogus, "InvalidArgumentException")
}

async fn no_reader_passes_a_record_that_comes_later(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let (writers, each) = (4, 15);
    let mut writing = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let stream = stream.clone();
        writing.spawn(async move {
            for nth in 0..each {
                stream.put(0, &format!("{writer}/{nth}")).await?;
            }
            Verdict::Ok(())
        });
    }
    let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    let tail = texts(&stream.read(start, writers * each).await?);
    while let Some(written) = writing.join_next().await {
        written??;
    }
    same("records", tail, stream.texts_of(SHARD_0, writers * each).await?)
}
