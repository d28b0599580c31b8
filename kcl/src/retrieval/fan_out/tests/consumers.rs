//! The consumer: registered, found by its name, or given.

use super::super::consumer::NoConsumer;
use super::*;

impl Paused {
    async fn register(&self, name: &str) -> String {
        let arn = identity(&self.client()).await.arn;
        let register = self.client().register_stream_consumer().stream_arn(arn);
        let registered = register.consumer_name(name).send().await.unwrap();
        registered.consumer.unwrap().consumer_arn
    }

    async fn registered(&self) -> usize {
        let arn = identity(&self.client()).await.arn;
        let list = self.client().list_stream_consumers().stream_arn(arn).send().await.unwrap();
        list.consumers.unwrap_or_default().len()
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_registered_once_and_used_when_it_is_active() {
    let aws = Paused::with(|aws| aws.transition_time(Duration::from_secs(3))).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let consumer = aws.consumer(&FanOutConsumer::default()).await;
    let mut tries = 0;
    let arn = loop {
        tries += 1;
        match consumer.find().await {
            Ok(arn) => break arn,
            Err(NoConsumer::NotActive { status, .. }) => {
                assert_eq!(status, ConsumerStatus::Creating.as_str());
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(tries > 3);
    assert!(arn.contains("/consumer/billing:"), "{arn}");
    assert_eq!(aws.consumer(&FanOutConsumer::default()).await.find().await.unwrap(), arn);
    assert_eq!(aws.registered().await, 1);
    assert_eq!(aws.aws.calls("RegisterStreamConsumer"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_was_registered_by_other_means_is_found_and_never_registered() {
    let aws = Paused::start().await;
    let discover = FanOutConsumer::Discover { name: Some("shared".into()) };
    let consumer = aws.consumer(&discover).await;
    let missing = consumer.find().await.unwrap_err();
    assert!(matches!(missing, NoConsumer::NotRegistered { name } if name == "shared"));
    let arn = aws.register("shared").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(consumer.find().await.unwrap(), arn);
    assert_eq!(aws.aws.calls("RegisterStreamConsumer"), 1, "that of the test");
}

#[tokio::test(start_paused = true)]
async fn a_given_arn_is_not_looked_up_and_must_be_one_of_the_stream() {
    let aws = Paused::start().await;
    let arn = aws.register("given").await;
    let consumer = aws.consumer(&FanOutConsumer::Arn(arn.clone())).await;
    assert_eq!(consumer.find().await.unwrap(), arn);
    assert_eq!(aws.aws.calls("DescribeStreamConsumer"), 0);
    let other = arn.replace(STREAM, "other");
    let refused = aws.consumer(&FanOutConsumer::Arn(other)).await.find().await.unwrap_err();
    assert!(matches!(refused, NoConsumer::OfAnotherStream { .. }), "{refused}");
    // The name of this stream is only the beginning of that of the other one.
    let longer = arn.replace(STREAM, &format!("{STREAM}-2"));
    let refused = aws.consumer(&FanOutConsumer::Arn(longer)).await.find().await.unwrap_err();
    assert!(matches!(refused, NoConsumer::OfAnotherStream { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_the_most_consumers_says_how_many() {
    let aws = Paused::start().await;
    for number in 0..20 {
        aws.register(&format!("other-{number}")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let refused = aws.consumer(&FanOutConsumer::default()).await.find().await.unwrap_err();
    let NoConsumer::TooMany { registered: 20, .. } = refused else {
        panic!("{refused}");
    };
    // A limit of calls is no limit of consumers.
    let few = Paused::start().await;
    few.aws
        .faults()
        .add(Fault::refuse("LimitExceededException").operation("RegisterStreamConsumer").times(1));
    let refused = few.consumer(&FanOutConsumer::default()).await.find().await.unwrap_err();
    assert!(matches!(refused, NoConsumer::Call(_)), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_was_deregistered_is_registered_again() {
    let aws = Paused::start().await;
    aws.put(0..3).await;
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    assert_eq!(subscriber.read(3).await, numbers(0..3));
    let arn = identity(&aws.client()).await.arn;
    let deregister = aws.client().deregister_stream_consumer().stream_arn(arn);
    deregister.consumer_name(APPLICATION).send().await.unwrap();
    aws.put(3..6).await;
    assert_eq!(subscriber.read(3).await, numbers(3..6));
    assert_eq!(aws.registered().await, 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_deregistered_at_the_end_only_if_the_settings_say_so() {
    let aws = Paused::start().await;
    let mut retrieval = aws.retrieval().await;
    retrieval.stopped(Duration::from_secs(5)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(aws.registered().await, 1);
    retrieval.deregister_on_stop = true;
    retrieval.stopped(Duration::from_secs(5)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(aws.registered().await, 0);
}
