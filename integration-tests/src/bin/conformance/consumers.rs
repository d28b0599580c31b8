//! Consumers of enhanced fan-out: registered, described, listed, deregistered.

use aws_sdk_kinesis::types::ConsumerStatus;

use crate::case::{Verdict, cases};
use crate::check::{holds, refused, same, some};
use crate::kinesis::{Kinesis, LOOK_AGAIN};

cases! { Kinesis, "consumers":
    a_consumer_is_described_by_arn_and_by_name,
    a_consumer_is_registered_once,
    consumers_are_listed_page_by_page,
    a_deregistered_consumer_is_gone,
    an_unknown_consumer_is_not_found,
    a_summary_counts_consumers,
}

async fn a_consumer_is_described_by_arn_and_by_name(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let consumer = stream.consumer("app").await?;
    let prefix = format!("{}/consumer/app:", stream.arn);
    holds("the ARN is of the stream", consumer.consumer_arn.starts_with(&prefix))?;
    let describe = kinesis.describe_stream_consumer();
    let by_arn = describe.consumer_arn(&consumer.consumer_arn).send().await?;
    let described = some("consumer", by_arn.consumer_description)?;
    same("status", &described.consumer_status, &ConsumerStatus::Active)?;
    same("stream", &described.stream_arn, &stream.arn)?;
    let describe = kinesis.describe_stream_consumer().stream_arn(&stream.arn);
    let by_name = describe.consumer_name("app").send().await?;
    same("by name", by_name.consumer_description, Some(described))
}

async fn a_consumer_is_registered_once(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.consumer("app").await?;
    let again = kinesis.register_stream_consumer().stream_arn(&stream.arn);
    let again = again.consumer_name("app").send().await;
    refused("again", again, "ResourceInUseException")
}

async fn consumers_are_listed_page_by_page(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let names = ["a", "b", "c"];
    for name in names {
        stream.consumer(name).await?;
    }
    let list = || kinesis.list_stream_consumers().stream_arn(&stream.arn);
    let first = list().max_results(2).send().await?;
    same("first page", first.consumers().len(), 2)?;
    let token = some("token", first.next_token.clone())?;
    let second = list().next_token(token).send().await?;
    let both = first.consumers().iter().chain(second.consumers());
    let mut listed: Vec<_> = both.map(|consumer| consumer.consumer_name()).collect();
    listed.sort_unstable();
    same("both pages", listed, names)
}

async fn a_deregistered_consumer_is_gone(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let arn = stream.consumer("app").await?.consumer_arn;
    kinesis.deregister_stream_consumer().consumer_arn(&arn).send().await?;
    loop {
        let describe = kinesis.describe_stream_consumer().consumer_arn(&arn);
        match describe.send().await {
            Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
            gone => return refused("describe", gone, "ResourceNotFoundException"),
        }
    }
}

async fn an_unknown_consumer_is_not_found(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let describe = kinesis.describe_stream_consumer().stream_arn(&stream.arn);
    let unknown = describe.consumer_name("nobody").send().await;
    refused("unknown", unknown, "ResourceNotFoundException")
}

async fn a_summary_counts_consumers(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    same("at first", stream.summary().await?.consumer_count, Some(0))?;
    stream.consumer("app").await?;
    same("one", stream.summary().await?.consumer_count, Some(1))
}
