//! SubscribeToShard.

use std::time::Duration;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::operation::subscribe_to_shard::builders::SubscribeToShardFluentBuilder;
use aws_sdk_kinesis::types::{
    Record, ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};

use crate::case::{Verdict, cases};
use crate::check::{Failure, holds, refused, same};
use crate::kinesis::{HALF, Kinesis, SHARD_0, Stream, texts};

cases! { Kinesis, "fan_out":
    records_are_pushed_from_the_start,
    records_are_pushed_from_a_number,
    records_are_pushed_as_they_come,
    a_subscription_goes_on_after_its_continuation_number,
    a_shard_that_has_ended_names_its_children_and_ends,
    a_shard_that_ends_names_its_children_and_ends,
    a_second_subscription_within_five_seconds_is_refused,
    a_second_subscription_after_five_seconds_takes_over,
    consumers_do_not_hinder_each_other,
    an_unknown_consumer_is_refused,
    a_shard_that_is_not_there_is_refused,
}

/// A stream of one shard with a consumer.
struct FanOut {
    stream: Stream,
    consumer: String,
}

impl FanOut {
    async fn new(kinesis: &Kinesis) -> Result<Self, Failure> {
        let stream = kinesis.stream(1).await?;
        let consumer = stream.consumer("app").await?.consumer_arn;
        Ok(Self { stream, consumer })
    }

    fn request(
        &self,
        kind: ShardIteratorType,
        number: Option<&str>,
    ) -> Result<SubscribeToShardFluentBuilder, Failure> {
        let start = StartingPosition::builder().r#type(kind);
        let start = start.set_sequence_number(number.map(str::to_owned)).build()?;
        let subscribe = self.stream.client.subscribe_to_shard();
        let subscribe = subscribe.consumer_arn(&self.consumer).shard_id(SHARD_0);
        Ok(subscribe.starting_position(start))
    }

    async fn subscribe(
        &self,
        kind: ShardIteratorType,
        number: Option<&str>,
    ) -> Result<Subscription, Failure> {
        Ok(Subscription(self.request(kind, number)?.send().await?))
    }
}

struct Subscription(SubscribeToShardOutput);

impl Subscription {
    /// None at the end.
    async fn next(&mut self) -> Result<Option<SubscribeToShardEvent>, Failure> {
        match self.0.event_stream.recv().await? {
            None => Ok(None),
            Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) => Ok(Some(event)),
            Some(other) => Err(Failure::new(format!("an odd event: {other:?}"))),
        }
    }

    /// So many records, and the last continuation number.
    async fn records(&mut self, count: usize) -> Result<(Vec<Record>, String), Failure> {
        let mut records = Vec::new();
        let mut continuation = String::new();
        while records.len() < count {
            let Some(event) = self.next().await? else {
                return Err(Failure::new("the subscription ended early"));
            };
            records.extend(event.records);
            continuation = event.continuation_sequence_number;
        }
        Ok((records, continuation))
    }

    async fn texts(&mut self, count: usize) -> Result<Vec<String>, Failure> {
        Ok(texts(&self.records(count).await?.0))
    }

    /// What is there to the end: records, and the ids of children.
    async fn rest(&mut self) -> Result<(Vec<Record>, Vec<String>), Failure> {
        let (mut records, mut children) = (Vec::new(), Vec::new());
        while let Some(event) = self.next().await? {
            records.extend(event.records);
            let shown = event.child_shards.unwrap_or_default();
            children.extend(shown.into_iter().map(|child| child.shard_id));
        }
        children.sort();
        Ok((records, children))
    }
}

const CHILDREN: [&str; 2] = ["shardId-000000000001", "shardId-000000000002"];

async fn records_are_pushed_from_the_start(kinesis: Kinesis) -> Verdict {
    let fan_out = FanOut::new(&kinesis).await?;
    let first = fan_out.stream.put(0, "a").await?;
    fan_out.stream.put(0, "b").await?;
    let mut pushed = fan_out.subscribe(ShardIteratorType::TrimHorizon, None).await?;
    let (records, _) = pushed.records(2).await?;
    same("records", texts(&records), ["a", "b"])?;
    same("number", &records[0].sequence_number, &first)
}

async fn records_are_pushed_from_a_number(kinesis: Kinesis) -> Verdict {
    let fan_out = FanOut::new(&kinesis).await?;
    fan_out.stream.put(0, "a").await?;
    let number = fan_out.stream.put(0, "b").await?;
    fan_out.stream.put(0, "c").await?;
    let at = ShardIteratorType::AtSequenceNumber;
    let mut pushed = fan_out.subscribe(at, Some(&number)).await?;
    same("records", pushed.texts(2).await?, ["b", "c"])
}

async fn records_are_pushed_as_they_come(kinesis: Kinesis) -> Verdict {
    let fan_out = FanOut::new(&kinesis).await?;
    fan_out.stream.put(0, "before").await?;
    let mut pushed = fan_out.subscribe(ShardIteratorType::Latest, None).await?;
    for data in ["a", "b"] {
        fan_out.stream.put(0, data).await?;
        same("records", pushed.texts(1).await?, [data])?;
    }
    Ok(())
}

async fn a_subscription_goes_on_after_its_continuation_number(kinesis: Kinesis) -> Verdict {
    let mut fan_out = FanOut::new(&kinesis).await?;
    fan_out.stream.put(0, "a").await?;
    let mut pushed = fan_out.subscribe(ShardIteratorType::TrimHorizon, None).await?;
    let (_, continuation) = pushed.records(1).await?;
    fan_out.stream.put(0, "b").await?;
    // Of another consumer: the first may not subscribe again so soon.
    fan_out.consumer = fan_out.stream.consumer("other").await?.consumer_arn;
    let after = ShardIteratorType::AfterSequenceNumber;
    let mut other = fan_out.subscribe(after, Some(&continuation)).await?;
    same("records", other.texts(1).await?, ["b"])
}

async fn a_shard_that_has_ended_names_its_children_and_ends(kinesis: Kinesis) -> Verdict {
    let fan_out = FanOut::new(&kinesis).await?;
    fan_out.stream.put(0, "a").await?;
    fan_out.stream.split(SHARD_0, HALF).await?;
    let mut pushed = fan_out.subscribe(ShardIteratorType::TrimHorizon, None).await?;
    let (records, children) = pushed.rest().await?;
    same("records", texts(&records), ["a"])?;
    same("children", children, CHILDREN)
}

async fn a_shard_that_ends_names_its_children_and_ends(kinesis: Kinesis) -> Verdict {
    let fan_out = FanOut::new(&kinesis).await?;
    let mut pushed = fan_out.subscribe(ShardIteratorType::Latest, None).await?;
    fan_out.stream.split(SHARD_0, HALF).await?;
    let (records, children) = pushed.rest().await?;
    same("records", records.len(), 0)?;
    same("children", children, CHILDREN)
}

async fn a_second_subscription_within_five_seconds_is_refused(kinesis: Kinesis) -> Verdict {
    let fan_out = FanOut::new(&kinesis).await?;
    let _first = fan_out.subscribe(ShardIteratorType::Latest, None).await?;
    let second = fan_out.request(ShardIteratorType::Latest, None)?;
    refused("second", second.send().await, "ResourceInUseException")
}

async fn a_second_subscription_after_five_seconds_takes_over(kinesis: Kinesis) -> Verdict {
    let fan_out = FanOut::new(&kinesis).await?;
    let mut first = fan_out.subscribe(ShardIteratorType::Latest, None).await?;
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    let mut second = fan_out.subscribe(ShardIteratorType::Latest, None).await?;
    fan_out.stream.put(0, "a").await?;
    same("records of the second", second.texts(1).await?, ["a"])?;
    // The first one ends, by itself or with an exception, and sees nothing more.
    loop {
        match first.0.event_stream.recv().await {
            Ok(None) => return Ok(()),
            Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => {
                holds("the first sees nothing more", event.records.is_empty())?;
            }
            Ok(Some(other)) => return Err(Failure::new(format!("an odd event: {other:?}"))),
            Err(SdkError::ServiceError(error)) => {
                return same("code", error.err().code(), Some("ResourceInUseException"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn consumers_do_not_hinder_each_other(kinesis: Kinesis) -> Verdict {
    let mut fan_out = FanOut::new(&kinesis).await?;
    let mut first = fan_out.subscribe(ShardIteratorType::Latest, None).await?;
    fan_out.consumer = fan_out.stream.consumer("other").await?.consumer_arn;
    let mut second = fan_out.subscribe(ShardIteratorType::Latest, None).await?;
    fan_out.stream.put(0, "a").await?;
    same("first", first.texts(1).await?, ["a"])?;
    same("second", second.texts(1).await?, ["a"])
}

async fn an_unknown_consumer_is_refused(kinesis: Kinesis) -> Verdict {
    let mut fan_out = FanOut::new(&kinesis).await?;
    fan_out.consumer = format!("{}/consumer/nobody:1795263013", fan_out.stream.arn);
    let unknown = fan_out.request(ShardIteratorType::Latest, None)?;
    refused("unknown", unknown.send().await, "ResourceNotFoundException")
}

async fn a_shard_that_is_not_there_is_refused(kinesis: Kinesis) -> Verdict {
    let fan_out = FanOut::new(&kinesis).await?;
    let nowhere = fan_out.request(ShardIteratorType::Latest, None)?;
    let nowhere = nowhere.shard_id("shardId-000000000009").send().await;
    refused("shard", nowhere, "ResourceNotFoundException")
}
