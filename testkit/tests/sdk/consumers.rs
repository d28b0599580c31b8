//! Registering, describing, listing and deregistering consumers.

use std::time::Duration;

use aws_sdk_kinesis::types::ConsumerStatus;
use kinesis_testkit::ManualClock;

use super::*;

pub(crate) const STREAM_ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

/// Registers a consumer of the stream; its ARN.
pub(crate) async fn register(client: &Client, name: &str) -> String {
    let register = client.register_stream_consumer().stream_arn(STREAM_ARN).consumer_name(name);
    let registered = register.send().await.unwrap();
    registered.consumer().unwrap().consumer_arn().to_owned()
}

async fn consumer_count(client: &Client) -> Option<i32> {
    let summary = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    summary.stream_description_summary().unwrap().consumer_count()
}

#[tokio::test]
async fn a_consumer_is_described_by_name_and_by_arn_until_it_is_deregistered() {
    let (_aws, client) = with_stream(1).await;
    let arn = register(&client, "app").await;
    let (prefix, registered) = arn.rsplit_once(':').unwrap();
    assert_eq!(prefix, format!("{STREAM_ARN}/consumer/app"));
    let registered: i64 = registered.parse().unwrap();
    assert_eq!(consumer_count(&client).await, Some(1));

    let describe = || client.describe_stream_consumer();
    let by_arn = describe().consumer_arn(&arn).send().await.unwrap();
    let described = by_arn.consumer_description().unwrap();
    assert_eq!(described.consumer_name(), "app");
    assert_eq!(described.consumer_arn(), arn);
    assert_eq!(described.stream_arn(), STREAM_ARN);
    assert_eq!(described.consumer_status(), &ConsumerStatus::Active);
    assert_eq!(described.consumer_creation_timestamp().secs(), registered);
    let by_name = describe().stream_arn(STREAM_ARN).consumer_name("app");
    assert_eq!(by_name.send().await.unwrap().consumer_description, by_arn.consumer_description);

    let nameless = describe().stream_arn(STREAM_ARN).send().await;
    assert_eq!(code(nameless), "InvalidArgumentException");
    let contrary = describe().consumer_arn(&arn).consumer_name("other");
    assert_eq!(code(contrary.send().await), "InvalidArgumentException");
    let unknown = describe().stream_arn(STREAM_ARN).consumer_name("other");
    assert_eq!(code(unknown.send().await), "ResourceNotFoundException");
    let unknown = describe().consumer_arn(format!("{STREAM_ARN}/consumer/app:1"));
    assert_eq!(code(unknown.send().await), "ResourceNotFoundException");

    let deregister = || client.deregister_stream_consumer().consumer_arn(&arn);
    deregister().send().await.unwrap();
    assert_eq!(code(deregister().send().await), "ResourceNotFoundException");
    let gone = describe().consumer_arn(&arn).send().await;
    assert_eq!(code(gone), "ResourceNotFoundException");
    assert_eq!(consumer_count(&client).await, Some(0));
    register(&client, "app").await;
}

#[tokio::test]
async fn a_registration_is_refused_for_its_name_its_stream_and_its_number() {
    let (_aws, client) = with_stream(1).await;
    let register_at = |arn: &str, name: &str| {
        client.register_stream_consumer().stream_arn(arn).consumer_name(name).send()
    };
    register(&client, "app").await;
    let again = register_at(STREAM_ARN, "app").await;
    assert_eq!(code(again), "ResourceInUseException");
    let malformed = register_at(STREAM_ARN, "my app").await;
    assert_eq!(code(malformed), "ValidationException");
    let elsewhere = register_at(&STREAM_ARN.replace(STREAM, "none"), "app").await;
    assert_eq!(code(elsewhere), "ResourceNotFoundException");
    for nth in 1..20 {
        register(&client, &format!("app-{nth}")).await;
    }
    let too_many = register_at(STREAM_ARN, "app-20").await;
    assert_eq!(code(too_many), "LimitExceededException");
}

#[tokio::test]
async fn consumers_are_listed_page_by_page_in_the_order_of_registration() {
    let clock = ManualClock::default();
    let aws = LocalAws::builder().clock(clock.clone()).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let client = client(&aws);
    let names = ["e", "c", "a", "d", "b"];
    for name in names {
        register(&client, name).await;
    }
    let list = || client.list_stream_consumers().stream_arn(STREAM_ARN).max_results(2);
    let (mut token, mut pages) = (None, Vec::new());
    loop {
        let page = list().set_next_token(token).send().await.unwrap();
        let names = page.consumers().iter().map(|consumer| consumer.consumer_name().to_owned());
        pages.push(names.collect::<Vec<_>>());
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(pages, [vec!["e", "c"], vec!["a", "d"], vec!["b"]]);

    let token = list().send().await.unwrap().next_token;
    let bogus = list().next_token("bogus").send().await;
    assert_eq!(code(bogus), "InvalidArgumentException");
    let created = client.describe_stream_summary().stream_arn(STREAM_ARN);
    let created = created.send().await.unwrap().stream_description_summary.unwrap();
    let both = list().set_next_token(token.clone());
    let both = both.stream_creation_timestamp(*created.stream_creation_timestamp());
    assert_eq!(code(both.send().await), "InvalidArgumentException");
    aws.create_stream("another", 1).await.unwrap();
    let other_stream = client.list_stream_consumers().set_next_token(token.clone());
    let other_stream = other_stream.stream_arn(STREAM_ARN.replace(STREAM, "another"));
    assert_eq!(code(other_stream.send().await), "InvalidArgumentException");
    // Tokens are of the operation that gave them.
    let shards = client.list_shards().set_next_token(token.clone()).send().await;
    assert_eq!(code(shards), "InvalidArgumentException");
    clock.advance(Duration::from_secs(301));
    let expired = list().set_next_token(token).send().await;
    assert_eq!(code(expired), "ExpiredNextTokenException");
}

#[tokio::test]
async fn consumers_take_time_to_come_and_go_where_transitions_do() {
    let clock = ManualClock::default();
    let transition = Duration::from_secs(5);
    let aws =
        LocalAws::builder().clock(clock.clone()).transition_time(transition).build().await.unwrap();
    let client = client(&aws);
    aws.create_stream(STREAM, 1).await.unwrap();
    clock.advance(transition);
    let arn = register(&client, "app").await;
    let status = async || {
        let described = client.describe_stream_consumer().consumer_arn(&arn).send().await.unwrap();
        described.consumer_description().unwrap().consumer_status().clone()
    };
    assert_eq!(status().await, ConsumerStatus::Creating);
    clock.advance(transition);
    assert_eq!(status().await, ConsumerStatus::Active);
    let deregister = || client.deregister_stream_consumer().consumer_arn(&arn);
    deregister().send().await.unwrap();
    assert_eq!(status().await, ConsumerStatus::Deleting);
    assert_eq!(code(deregister().send().await), "ResourceInUseException");
    clock.advance(transition);
    assert_eq!(consumer_count(&client).await, Some(0));
}

#[tokio::test]
async fn a_stream_with_consumers_is_deleted_only_by_force() {
    let (_aws, client) = with_stream(1).await;
    let arn = register(&client, "app").await;
    let delete = || client.delete_stream().stream_name(STREAM);
    assert_eq!(code(delete().send().await), "ResourceInUseException");
    let unforced = delete().enforce_consumer_deletion(false).send().await;
    assert_eq!(code(unforced), "ResourceInUseException");
    delete().enforce_consumer_deletion(true).send().await.unwrap();
    let gone = client.describe_stream_consumer().consumer_arn(arn).send().await;
    assert_eq!(code(gone), "ResourceNotFoundException");
}
