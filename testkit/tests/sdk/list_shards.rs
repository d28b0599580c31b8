//! ListShards: filters and paging.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType};
use kinesis_testkit::{Clock, LocalAws, ManualClock};

use super::consumers::STREAM_ARN;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A stream whose shard 0 was split into 1 and 2 after an hour, which were merged into 3 after ten.
struct History {
    _aws: LocalAws,
    client: Client,
    clock: ManualClock,
    created: SystemTime,
}

impl History {
    async fn make() -> Self {
        let clock = ManualClock::default();
        let aws = LocalAws::builder().clock(clock.clone()).build().await.unwrap();
        let client = client(&aws);
        let created = clock.now();
        aws.create_stream(STREAM, 1).await.unwrap();
        clock.advance(HOUR);
        split(&client, SHARD_0, 1 << 127).await;
        clock.advance(9 * HOUR);
        merge(&client, SHARD_1, SHARD_2).await;
        Self { _aws: aws, client, clock, created }
    }

    /// The indexes of the shards a filter shows.
    async fn show(
        &self,
        kind: ShardFilterType,
        hours: Option<f64>,
        shard: Option<&str>,
    ) -> Vec<u32> {
        let created = DateTime::from(self.created).as_secs_f64();
        let time = hours.map(|hours| DateTime::from_secs_f64(created + hours * 3600.0));
        let filter = ShardFilter::builder()
            .r#type(kind)
            .set_timestamp(time)
            .set_shard_id(shard.map(str::to_owned))
            .build()
            .unwrap();
        let list = self.client.list_shards().stream_name(STREAM).shard_filter(filter);
        let shards = list.send().await.unwrap().shards.unwrap_or_default();
        shards.iter().map(|shard| shard.shard_id()[8..].parse().unwrap()).collect()
    }
}

#[tokio::test]
async fn every_filter_shows_the_shards_of_its_moment() {
    use ShardFilterType::{
        AfterShardId, AtLatest, AtTimestamp, AtTrimHorizon, FromTimestamp, FromTrimHorizon,
    };
    let history = History::make().await;
    let show = async |kind, hours| history.show(kind, hours, None).await;
    assert_eq!(show(FromTrimHorizon, None).await, [0, 1, 2, 3]);
    assert_eq!(show(AtTrimHorizon, None).await, [0]);
    assert_eq!(show(AtLatest, None).await, [3]);
    assert_eq!(history.show(AfterShardId, None, Some(SHARD_1)).await, [2, 3]);
    assert_eq!(show(AtTimestamp, Some(0.5)).await, [0]);
    assert_eq!(show(AtTimestamp, Some(5.0)).await, [1, 2]);
    assert_eq!(show(AtTimestamp, Some(-3.0)).await, [0], "earlier than the stream");
    assert_eq!(show(AtTimestamp, Some(1.0)).await, [0], "the split's own millisecond");
    assert_eq!(show(FromTimestamp, Some(0.5)).await, [0, 1, 2, 3]);
    assert_eq!(show(FromTimestamp, Some(5.0)).await, [1, 2, 3]);
    history.clock.advance(HOUR);
    assert_eq!(show(AtTimestamp, Some(10.5)).await, [3]);
    assert_eq!(show(FromTimestamp, Some(10.5)).await, [3]);
}

#[tokio::test]
async fn closed_shards_vanish_with_their_retention() {
    use ShardFilterType::{AtTimestamp, AtTrimHorizon, FromTimestamp, FromTrimHorizon};
    let history = History::make().await;
    let show = async |kind, hours| history.show(kind, hours, None).await;
    // Ten hours have passed. At 25.5 the split is past retention, at 34.5 the merge is.
    history.clock.advance(15 * HOUR + HOUR / 2);
    assert_eq!(show(FromTrimHorizon, None).await, [1, 2, 3]);
    assert_eq!(show(AtTrimHorizon, None).await, [1, 2]);
    assert_eq!(show(FromTimestamp, Some(0.0)).await, [1, 2, 3]);
    assert_eq!(show(AtTimestamp, Some(0.0)).await, [1, 2], "corrected to the trim horizon");
    let describe = history.client.describe_stream().stream_name(STREAM).send().await.unwrap();
    assert_eq!(describe.stream_description().unwrap().shards().len(), 3);
    let start = history.client.get_shard_iterator().stream_name(STREAM).shard_id(SHARD_0);
    let start = start.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await;
    assert_eq!(code(start), "ResourceNotFoundException");
    history.clock.advance(9 * HOUR);
    assert_eq!(show(FromTrimHorizon, None).await, [3]);
    assert_eq!(show(AtTrimHorizon, None).await, [3]);
}

#[tokio::test]
async fn shards_are_listed_page_by_page() {
    let clock = ManualClock::default();
    let aws = LocalAws::builder().clock(clock.clone()).build().await.unwrap();
    aws.create_stream(STREAM, 7).await.unwrap();
    let client = client(&aws);
    let mut seen = Vec::new();
    let mut page = client.list_shards().stream_name(STREAM).max_results(3).send().await.unwrap();
    while let Some(token) = page.next_token.take() {
        assert_eq!(page.shards().len(), 3);
        seen.extend(page.shards.take().unwrap());
        page = client.list_shards().next_token(token).max_results(3).send().await.unwrap();
    }
    seen.extend(page.shards.take().unwrap());
    assert_eq!(seen, shards(&client).await);

    let after = client.list_shards().stream_name(STREAM).exclusive_start_shard_id(SHARD_2);
    assert_eq!(after.send().await.unwrap().shards(), &seen[3..]);
    let token = client.list_shards().stream_name(STREAM).max_results(2).send().await.unwrap();
    let token = token.next_token.unwrap();
    let both = client.list_shards().stream_name(STREAM).next_token(&token).send().await;
    assert_eq!(code(both), "InvalidArgumentException");
    let filter = ShardFilter::builder().r#type(ShardFilterType::FromTrimHorizon).build().unwrap();
    let filtered = client.list_shards().next_token(&token).shard_filter(filter);
    assert_eq!(code(filtered.send().await), "InvalidArgumentException");
    let by_arn = client.list_shards().next_token(&token);
    let by_arn = by_arn.stream_arn(STREAM_ARN).send().await;
    assert_eq!(code(by_arn), "InvalidArgumentException");
    let created = client.list_shards().next_token(&token);
    let created = created.stream_creation_timestamp(DateTime::from(clock.now()));
    assert_eq!(code(created.send().await), "InvalidArgumentException");
    let bogus = client.list_shards().next_token("bogus").send().await;
    assert_eq!(code(bogus), "InvalidArgumentException");
    clock.advance(Duration::from_secs(301));
    let expired = client.list_shards().next_token(token).send().await;
    assert_eq!(code(expired), "ExpiredNextTokenException");
}

#[tokio::test]
async fn a_filter_goes_on_across_pages() {
    let (_aws, client) = with_stream(4).await;
    for shard in [SHARD_0, SHARD_1] {
        let at =
            range(shards(&client).await.iter().find(|found| found.shard_id() == shard).unwrap());
        split(&client, shard, at.0 + (at.1 - at.0) / 2).await;
    }
    let open = ShardFilter::builder().r#type(ShardFilterType::AtLatest).build().unwrap();
    let list = client.list_shards().stream_name(STREAM).shard_filter(open).max_results(4);
    let first = list.send().await.unwrap();
    let rest = client.list_shards().set_next_token(first.next_token.clone()).send().await.unwrap();
    let open: Vec<_> = first.shards().iter().chain(rest.shards()).collect();
    assert_eq!((first.shards().len(), open.len()), (4, 6));
    assert!(open.into_iter().all(is_open));
}

#[tokio::test]
async fn listings_that_cannot_be_are_refused() {
    let (_aws, client) = with_stream(1).await;
    let filtered =
        |filter: ShardFilter| client.list_shards().stream_name(STREAM).shard_filter(filter).send();
    let bare = |kind: &str| ShardFilter::builder().r#type(kind.into()).build().unwrap();
    for kind in ["AT_TIMESTAMP", "FROM_TIMESTAMP", "AFTER_SHARD_ID", "SOMETIMES"] {
        assert_eq!(code(filtered(bare(kind)).await), "ValidationException", "{kind}");
    }
    let none = client.list_shards().stream_name("none").send().await;
    assert_eq!(code(none), "ResourceNotFoundException");
    let nameless = client.list_shards().send().await;
    assert_eq!(code(nameless), "InvalidArgumentException");
    let another = client.list_shards().stream_name(STREAM);
    let another = another.stream_creation_timestamp(DateTime::from_secs(1)).send().await;
    assert_eq!(code(another), "ResourceNotFoundException");
}
