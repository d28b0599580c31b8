//! Where each kind of shard iterator starts.

use std::time::Duration;

use aws_sdk_kinesis::operation::get_shard_iterator::builders::GetShardIteratorFluentBuilder;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;

use crate::case::{Verdict, cases};
use crate::check::{Failure, holds, refused, same, some};
use crate::kinesis::{Kinesis, SHARD_0, SHARD_1, Stream, texts};

cases! { Kinesis, "iterators":
    trim_horizon_is_the_first_record,
    latest_is_after_the_last_record,
    at_a_number_is_its_record,
    after_a_number_is_the_next_record,
    at_the_shards_first_number_is_the_first_record,
    at_a_time_is_the_record_of_that_time,
    at_a_time_between_records_is_the_later_one,
    at_a_time_before_all_records_is_the_first,
    at_a_time_after_all_records_is_none,
    a_time_to_come_is_refused,
    an_iterator_is_made_by_arn,
    a_number_of_another_shard_is_refused,
    a_malformed_number_is_refused,
    a_missing_number_is_refused,
    a_shard_that_is_not_there_is_refused,
    an_unknown_kind_is_refused,
}

/// A stream of one shard with records a, b and c, some time apart.
struct Three {
    stream: Stream,
    numbers: Vec<String>,
    /// In seconds.
    arrivals: Vec<f64>,
}

impl Three {
    async fn new(kinesis: &Kinesis) -> Result<Self, Failure> {
        let stream = kinesis.stream(1).await?;
        let mut numbers = Vec::new();
        for data in ["a", "b", "c"] {
            numbers.push(stream.put(0, data).await?);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
        let records = stream.read(start, 3).await?;
        let arrivals = records.iter().map(|record| {
            let arrival = record.approximate_arrival_timestamp();
            Ok(some("arrival", arrival)?.as_secs_f64())
        });
        Ok(Self { arrivals: arrivals.collect::<Result<_, Failure>>()?, stream, numbers })
    }

    fn at(&self, kind: ShardIteratorType) -> GetShardIteratorFluentBuilder {
        self.stream.iterator_at(SHARD_0, kind)
    }

    fn at_time(&self, seconds: f64) -> GetShardIteratorFluentBuilder {
        let at = self.at(ShardIteratorType::AtTimestamp);
        at.timestamp(DateTime::from_secs_f64(seconds))
    }

    /// The data of all records from there on, which is one page.
    async fn from(&self, start: GetShardIteratorFluentBuilder) -> Result<String, Failure> {
        let iterator = some("iterator", start.send().await?.shard_iterator)?;
        let page = self.stream.get(&iterator).await?;
        Ok(texts(&page.records).concat())
    }
}

async fn trim_horizon_is_the_first_record(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    let start = three.at(ShardIteratorType::TrimHorizon);
    same("records", &*three.from(start).await?, "abc")
}

async fn latest_is_after_the_last_record(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    let latest = three.stream.iterator(SHARD_0, ShardIteratorType::Latest).await?;
    three.stream.put(0, "d").await?;
    let records = three.stream.read(latest, 1).await?;
    same("records", texts(&records), ["d"])
}

async fn at_a_number_is_its_record(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    let at = three.at(ShardIteratorType::AtSequenceNumber);
    let at = at.starting_sequence_number(&three.numbers[1]);
    same("records", &*three.from(at).await?, "bc")
}

async fn after_a_number_is_the_next_record(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    for (nth, expected) in ["bc", "c", ""].into_iter().enumerate() {
        let after = three.at(ShardIteratorType::AfterSequenceNumber);
        let after = after.starting_sequence_number(&three.numbers[nth]);
        same("records", &*three.from(after).await?, expected)?;
    }
    Ok(())
}

async fn at_the_shards_first_number_is_the_first_record(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    let shards = three.stream.shards().await?;
    let range = some("range", shards[0].sequence_number_range())?;
    let at = three.at(ShardIteratorType::AtSequenceNumber);
    let at = at.starting_sequence_number(range.starting_sequence_number());
    same("records", &*three.from(at).await?, "abc")
}

async fn at_a_time_is_the_record_of_that_time(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    let at = three.at_time(three.arrivals[1]);
    same("records", &*three.from(at).await?, "bc")
}

async fn at_a_time_between_records_is_the_later_one(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    holds("arrivals rise", three.arrivals.is_sorted_by(|a, b| a < b))?;
    let between = three.at_time(f64::midpoint(three.arrivals[0], three.arrivals[1]));
    same("records", &*three.from(between).await?, "bc")
}

async fn at_a_time_before_all_records_is_the_first(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    for seconds in [three.arrivals[0] - 3600.0, 0.0] {
        let before = three.at_time(seconds);
        same("records", &*three.from(before).await?, "abc")?;
    }
    Ok(())
}

async fn at_a_time_after_all_records_is_none(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    let after = three.at_time(three.arrivals[2] + 0.05);
    same("records", &*three.from(after).await?, "")
}

async fn a_time_to_come_is_refused(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    let later = three.at_time(three.arrivals[2] + 3600.0).send().await;
    refused("in an hour", later, "InvalidArgumentException")
}

async fn an_iterator_is_made_by_arn(kinesis: Kinesis) -> Verdict {
    let three = Three::new(&kinesis).await?;
    let start = kinesis.get_shard_iterator().stream_arn(&three.stream.arn);
    let start = start.shard_id(SHARD_0);
    let start = start.shard_iterator_type(ShardIteratorType::TrimHorizon);
    same("records", &*three.from(start).await?, "abc")
}

async fn a_number_of_another_shard_is_refused(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    let number = stream.put(0, "x").await?;
    let at = stream.iterator_at(SHARD_1, ShardIteratorType::AtSequenceNumber);
    let at = at.starting_sequence_number(number).send().await;
    refused("number", at, "InvalidArgumentException")
}

async fn a_malformed_number_is_refused(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let at = stream.iterator_at(SHARD_0, ShardIteratorType::AtSequenceNumber);
    let at = at.starting_sequence_number("17").send().await;
    refused("number", at, "InvalidArgumentException")
}

async fn a_missing_number_is_refused(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let at = stream.iterator_at(SHARD_0, ShardIteratorType::AtSequenceNumber);
    refused("no number", at.send().await, "InvalidArgumentException")
}

async fn a_shard_that_is_not_there_is_refused(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let latest = stream.iterator_at("shardId-000000000009", ShardIteratorType::Latest);
    refused("shard", latest.send().await, "ResourceNotFoundException")
}

async fn an_unknown_kind_is_refused(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let somewhere = stream.iterator_at(SHARD_0, ShardIteratorType::from("SOMEWHERE"));
    refused("kind", somewhere.send().await, "ValidationException")
}
