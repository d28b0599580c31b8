//! Against an embedded Kinesis.

mod consumers;
mod interruptions;

use std::time::SystemTime;

use aws_sdk_kinesis::types::ConsumerStatus;
use kinesis_testkit::Fault;

use super::*;
use crate::config::{FanOutConsumer, OnRecreatedStream};
use crate::current_stream::CurrentStream;
use crate::error::WorkerError;
use crate::retrieval::embedded::*;
use crate::retrieval::{ByteBudget, Page, Pages, Position, ShardBudget};
use crate::snapshot::ShardStatus;

const APPLICATION: &str = "billing";

impl Paused {
    async fn check(&self) -> StreamCheck {
        let identity = identity(&self.client()).await;
        let clock = Arc::clone(&self.clock);
        let stream = CurrentStream::new(identity, OnRecreatedStream::Error, Arc::clone(&clock));
        let (name, random) = (STREAM.parse().unwrap(), Rng::with_seed(7));
        StreamCheck::new(&self.client(), self.timeout, name, Arc::new(stream), clock, random)
    }

    async fn consumer(&self, wanted: &FanOutConsumer) -> StreamConsumer {
        let (clock, random) = (Arc::clone(&self.clock), Rng::with_seed(8));
        StreamConsumer::new(&self.check().await, APPLICATION, wanted, clock, random)
    }

    /// Subscribes to shards as a consumer that is active.
    async fn retrieval(&self) -> FanOutRetrieval {
        let consumer = self.consumer(&FanOutConsumer::default()).await;
        while consumer.find().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let config = ConsumerConfig::default().with_kinesis_request_timeout(self.timeout);
        FanOutRetrieval::new(
            &self.client(),
            self.check().await,
            consumer,
            &FanOutConfig::default(),
            Arc::new(config),
            Arc::clone(&self.clock),
            Rng::with_seed(9),
        )
    }

    async fn subscriber(&self, position: Position) -> Subscriber {
        self.subscriber_of(&self.retrieval().await, SHARD, position)
    }

    fn subscriber_of(
        &self,
        retrieval: &FanOutRetrieval,
        shard_id: &str,
        position: Position,
    ) -> Subscriber {
        let status = status(shard_id, &self.clock);
        let start =
            Start { status: Arc::clone(&status), position, stream: None, read_to: None, seed: 1 };
        let budget = ByteBudget::new(64 << 20);
        let pages = Pages::read(
            &tokio::runtime::Handle::current(),
            retrieval.open(start),
            ShardBudget::new(&budget),
            Arc::clone(&status),
        );
        Subscriber { pages, status, budget }
    }
}

/// A source of a shard, and the pages that it has read.
struct Subscriber {
    pages: Pages,
    status: Arc<ShardStatus>,
    budget: Arc<ByteBudget>,
}

impl Subscriber {
    async fn try_page(&mut self) -> Result<Page, WorkerError> {
        let page = tokio::time::timeout(Duration::from_secs(3600), self.pages.next()).await;
        page.expect("a page within an hour")
    }

    async fn page(&mut self) -> Page {
        self.try_page().await.unwrap()
    }

    /// Reads until `records` have come, or the shard's end.
    async fn read(&mut self, records: usize) -> Vec<String> {
        let mut read = Vec::new();
        while read.len() < records {
            let page = self.page().await;
            read.extend(texts(&page));
            if page.end.is_some() {
                break;
            }
        }
        read
    }
}

#[tokio::test(start_paused = true)]
async fn each_position_starts_where_it_says() {
    let aws = Paused::start().await;
    let put = aws.put(0..5).await;
    let retrieval = aws.retrieval().await;
    for (position, expected) in [
        (Position::TrimHorizon, 0..5),
        (Position::At(put[2].clone()), 2..5),
        (Position::After(put[2].clone()), 3..5),
        (Position::Time(SystemTime::UNIX_EPOCH), 0..5),
    ] {
        let mut subscriber = aws.subscriber_of(&retrieval, SHARD, position.clone());
        let read = subscriber.read(expected.len()).await;
        assert_eq!(read, numbers(expected), "{position:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn records_come_as_they_are_put() {
    let aws = Paused::start().await;
    let mut subscriber = aws.subscriber(Position::Latest).await;
    while aws.aws.subscriptions() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for number in 0..10 {
        aws.put(number..number + 1).await;
        assert_eq!(subscriber.read(1).await, numbers(number..number + 1));
    }
    assert_eq!(aws.aws.calls("SubscribeToShard"), 1);
    assert_eq!(aws.aws.calls("GetRecords"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_split_ends_the_shard_with_its_children() {
    let aws = Paused::start().await;
    aws.put(0..3).await;
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    assert_eq!(subscriber.read(3).await, numbers(0..3));
    aws.put(3..5).await;
    let middle = 1u128 << 127;
    let split = aws.client().split_shard().stream_name(STREAM).shard_to_split(SHARD);
    split.new_starting_hash_key(middle.to_string()).send().await.unwrap();
    let mut records = Vec::new();
    let children = loop {
        let page = subscriber.page().await;
        records.extend(texts(&page));
        if let Some(children) = page.end {
            break children;
        }
    };
    assert_eq!(records, numbers(3..5));
    assert_eq!(children.len(), 2);
    assert!(children.iter().all(|child| child.parents == [SHARD]));
    assert_eq!(children[1].hash_key_range.start().get(), middle);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_the_stream_has_forgotten_ends_without_children() {
    let aws = Paused::start().await;
    let retrieval = aws.retrieval().await;
    let mut subscriber =
        aws.subscriber_of(&retrieval, "shardId-000000000099", Position::TrimHorizon);
    let page = subscriber.page().await;
    assert!(page.records.is_empty());
    assert_eq!(page.end, Some(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_gone_is_an_error() {
    let aws = Paused::start().await;
    aws.put(0..3).await;
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    assert_eq!(subscriber.read(3).await.len(), 3);
    let delete = aws.client().delete_stream().stream_name(STREAM).enforce_consumer_deletion(true);
    delete.send().await.unwrap();
    let Err(WorkerError::StreamDeleted { stream }) = subscriber.try_page().await else {
        panic!("the stream is gone");
    };
    assert_eq!(stream, STREAM);
}
