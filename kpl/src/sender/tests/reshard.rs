//! Reshards, and streams that replace one of the same name: which listings the producer makes, and where its records
//! end up.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Sends an aggregate of two records that `shard_id` writes.
async fn aggregate_written_by(
    shards: Vec<Shard>,
    shard_id: &'static str,
) -> (Arc<Scripted>, Vec<Listing>) {
    let service = Scripted::new(move |_, entries| {
        let outcome = |_: &Entry| EntryOutcome::Written {
            shard_id: shard_id.to_owned(),
            sequence_number: String::new(),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    // The stream is resharded after the start.
    *lock(&service.shards) = shards;
    let first = send(&producer, 0, "a").await;
    let second = send(&producer, 0, "b").await;
    first.await.unwrap();
    second.await.unwrap();
    let listings = lock(&service.listings).clone();
    (service, listings)
}

#[tokio::test(start_paused = true)]
async fn a_reshard_is_followed_by_listings_of_the_open_shards() {
    let shards = vec![
        shard("low", 0, u128::MAX / 2, false),
        shard("high", u128::MAX / 2 + 1, u128::MAX, false),
        shard("child", 0, u128::MAX, true),
    ];
    let (_, listings) = aggregate_written_by(shards, "child").await;
    assert!(listings.len() > 1);
    assert!(listings.iter().all(|listing| *listing == Listing::Open), "{listings:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_opened_and_closed_unseen_is_found_among_all() {
    let shards = vec![shard("brief", 0, u128::MAX, false), shard("child", 0, u128::MAX, true)];
    let (_, listings) = aggregate_written_by(shards, "brief").await;
    let all = listings.iter().filter(|listing| **listing == Listing::All);
    assert_eq!(all.count(), 1, "{listings:?}");
}

type Stream = Arc<Mutex<Vec<Shard>>>;

const QUARTER: u128 = u128::MAX / 4;

/// A service whose records go into the open shards of `stream`. It lists `shards`, whatever the stream has. The role
/// may not describe the stream.
fn writes_into(stream: &Stream) -> Arc<Scripted> {
    let stream = Arc::clone(stream);
    let service = Scripted::new(move |_, entries| {
        let shards = lock(&stream);
        let outcome = |entry: &Entry| {
            let mut open = shards.iter().filter(|shard| shard.is_open);
            match open.find(|shard| shard.range.contains(hash_key(entry))) {
                Some(taker) => EntryOutcome::Written {
                    shard_id: taker.id.to_string(),
                    sequence_number: String::new(),
                },
                None => refused("InternalFailure"),
            }
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    *lock(&service.describe_fails) = Some(refused_request("AccessDeniedException"));
    service
}

/// Sends two records at the same time. Returns the shards that took them.
async fn takers(producer: &Producer, keys: [u128; 2]) -> [String; 2] {
    let first = send(producer, keys[0], "first").await;
    let second = send(producer, keys[1], "second").await;
    [first.await, second.await].map(|receipt| receipt.unwrap().shard_id.to_string())
}

/// Two shards that were merged into a third.
fn merged() -> Vec<Shard> {
    vec![
        shard("0", 0, 2 * QUARTER, false),
        shard("1", 2 * QUARTER + 1, u128::MAX, false),
        shard("2", 0, u128::MAX, true),
    ]
}

/// A new stream with two shards of the same names.
fn new_stream() -> Vec<Shard> {
    vec![shard("0", 0, 2 * QUARTER, true), shard("1", 2 * QUARTER + 1, u128::MAX, true)]
}

/// The new stream after a split of its first shard.
fn new_stream_after_split() -> Vec<Shard> {
    vec![
        shard("0", 0, 2 * QUARTER, false),
        shard("1", 2 * QUARTER + 1, u128::MAX, true),
        shard("2", 0, QUARTER, true),
        shard("3", QUARTER + 1, 2 * QUARTER, true),
    ]
}

/// A producer that knows the shards of [`merged`].
async fn after_merge() -> (Stream, Arc<Scripted>, Producer) {
    let stream = Stream::new(Mutex::new(merged()));
    let service = writes_into(&stream);
    *lock(&service.shards) = new_stream();
    let config = ProducerConfig { shard_map_refresh_interval: 60 * SECOND, ..Default::default() };
    let producer = producer(Arc::clone(&service), config).await;
    *lock(&service.shards) = merged();
    assert_eq!(takers(&producer, [0, 1]).await, ["2", "2"]);
    (stream, service, producer)
}

/// Splits a shard of the new stream. An aggregate of records for both children is sent again.
async fn assert_split_is_noticed(stream: &Stream, service: &Scripted, producer: &Producer) {
    *lock(stream) = new_stream_after_split();
    *lock(&service.shards) = new_stream_after_split();
    let low_and_high = [0, 2 * QUARTER];
    assert_eq!(takers(producer, low_and_high).await, ["2", "3"]);
    assert_eq!(producer.stats().resent_for_wrong_shard, 2);
}

#[tokio::test(start_paused = true)]
async fn the_ranges_of_a_stream_that_another_replaced_judge_no_aggregate() {
    let (stream, service, producer) = after_merge().await;
    *lock(&stream) = new_stream();
    *lock(&service.shards) = new_stream();
    // The timer refreshes the map while the producer is idle.
    tokio::time::sleep(200 * SECOND).await;
    assert_split_is_noticed(&stream, &service, &producer).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_list_shards_does_not_find_is_forgotten() {
    let (stream, service, producer) = after_merge().await;
    *lock(&service.list_fails) = Some(refused_request("ResourceNotFoundException"));
    tokio::time::sleep(200 * SECOND).await;
    *lock(&service.list_fails) = None;
    // The new stream is split before it is first listed.
    assert_split_is_noticed(&stream, &service, &producer).await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_listed_late_is_looked_for_among_the_open_shards() {
    let parent = vec![shard("0", 0, u128::MAX, true)];
    let child = |id, start, end| shard(id, start, end, true);
    let half = 2 * QUARTER;
    let children = vec![child("1", 0, half), child("2", half + 1, u128::MAX)];
    let stream = Stream::new(Mutex::new(parent.clone()));
    let service = writes_into(&stream);
    *lock(&service.shards) = parent;
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    *lock(&stream) = children.clone();
    let late = async {
        tokio::time::sleep(5 * SECOND).await;
        *lock(&service.shards) = children;
    };
    let (shards, ()) = tokio::join!(takers(&producer, [0, 1]), late);
    assert_eq!(shards, ["1", "1"]);
    let listings = lock(&service.listings).clone();
    assert!(listings.len() > 5, "{listings:?}");
    let only_open = listings.iter().all(|listing| *listing == Listing::Open);
    assert!(only_open, "{listings:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_a_listing_left_out_is_listed_again_once_it_takes_a_record() {
    let stream = Stream::new(Mutex::new(new_stream()));
    let service = writes_into(&stream);
    *lock(&service.shards) = new_stream();
    let config = ProducerConfig { shard_map_refresh_interval: 600 * SECOND, ..Default::default() };
    let producer = producer(Arc::clone(&service), config).await;
    lock(&service.shards).truncate(1);
    tokio::time::sleep(800 * SECOND).await;
    *lock(&service.shards) = new_stream();
    let before = lock(&service.listings).len();
    let [taker, _] = takers(&producer, [u128::MAX, 0]).await;
    assert_eq!(taker, "1");
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(lock(&service.listings).len(), before + 1);
}
