//! Many readers that doubt their stream at the same time.

use futures::future::join_all;

use super::*;

const READERS: usize = 2_000;

struct Doubters {
    paused: Paused,
    stream: Arc<CurrentStream>,
    watches: Vec<ShardWatch>,
    /// DescribeStreamSummary, before the first doubt.
    described: u64,
}

impl Doubters {
    /// Readers of shards that the stream does not have, but for the first one.
    async fn start(kind: FailureKind) -> Self {
        Self::with(kind, OnRecreatedStream::Error, true).await
    }

    /// `is_named`: the leases name their stream.
    async fn with(kind: FailureKind, on_recreated: OnRecreatedStream, is_named: bool) -> Self {
        let paused = Paused::start().await;
        let (client, clock) = (paused.client(), Arc::clone(&paused.clock));
        let problems = Arc::new(ProblemLog::new(Arc::clone(&clock)));
        let totals = Arc::new(Totals::new(Meter::default(), problems));
        let stream =
            Arc::new(CurrentStream::new(identity(&client).await, on_recreated, Arc::clone(&clock)));
        let retrieval = polling(&client, Arc::clone(&stream), ConsumerConfig::default(), clock);
        let watches = (0..READERS).map(|number| {
            let shard = format!("shardId-{number:012}");
            let start = Start {
                status: Arc::new(ShardStatus::new(
                    &shard,
                    Arc::new(Mutex::new(Progress::new(Checkpoint::TrimHorizon))),
                    Arc::clone(&totals),
                )),
                position: Position::TrimHorizon,
                stream: is_named.then(|| stream.identity()),
                read_to: None,
                seed: number as u64,
            };
            let mut watch = Polling::new(&retrieval, start).watch;
            watch.failed(kind);
            watch
        });
        Self {
            watches: watches.collect(),
            described: paused.aws.calls("DescribeStreamSummary"),
            paused,
            stream,
        }
    }

    fn described(&self) -> u64 {
        self.paused.aws.calls("DescribeStreamSummary") - self.described
    }

    async fn all(&mut self) -> Vec<Standing> {
        let watches = self.watches.iter_mut().map(ShardWatch::standing);
        let standings = join_all(watches).await.into_iter();
        standings.map(Result::unwrap).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn one_comparison_answers_all_that_doubt_at_a_time() {
    let mut doubters = Doubters::start(FailureKind::NewIterator).await;
    let standings = doubters.all().await;
    let sound = |standing: &Standing| matches!(standing, Standing::Sound);
    assert!(standings.iter().all(sound));
    // The first reader asks at once, for itself; the others wait for one call that begins after that.
    assert!(doubters.described() <= 2, "{}", doubters.described());

    // A later doubt needs a later answer.
    let before = doubters.described();
    doubters.watches[0].failed(FailureKind::NewIterator);
    assert!(sound(&doubters.watches[0].standing().await.unwrap()));
    assert_eq!(doubters.described(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn one_listing_answers_all_whose_shard_was_not_found() {
    let mut doubters = Doubters::start(FailureKind::NotFound).await;
    let standings = doubters.all().await;
    assert!(matches!(standings[0], Standing::Sound));
    let gone = |standing: &Standing| matches!(standing, Standing::ShardIsGone);
    assert!(standings[1..].iter().all(gone));
    // The first few readers ask alone, and all others share one listing.
    let listed = doubters.paused.aws.calls("ListShards");
    assert!(listed <= 3, "{listed} listings");
    // Before the listing, and again after it.
    assert!(doubters.described() <= 6, "{}", doubters.described());
}

#[tokio::test(start_paused = true)]
async fn a_failed_comparison_is_shared_too_and_not_repeated_at_once() {
    const OUTAGE: Duration = Duration::from_secs(60);
    let mut doubters = Doubters::start(FailureKind::NewIterator).await;
    let outage = Fault::throttle().operation("DescribeStreamSummary");
    doubters.paused.aws.faults().add(outage.lasting(OUTAGE));
    let clock = Arc::clone(&doubters.paused.clock);
    let began = clock.now();
    let watches = doubters.watches.iter_mut().enumerate();
    let settled = join_all(watches.map(|(number, watch)| async move {
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY, Rng::with_seed(number as u64));
        loop {
            match watch.standing().await.unwrap() {
                Standing::NotKnown(_) => tokio::time::sleep(backoff.next_delay()).await,
                standing => return standing,
            }
        }
    }));
    let settled = settled.await;
    assert!(settled.iter().all(|s| matches!(s, Standing::Sound)));
    let took = clock.now() - began;
    // Each call is attempted once. Calls are a second apart, and further apart while they fail.
    assert!(doubters.described() <= 40, "{}", doubters.described());
    assert!(took < OUTAGE + Duration::from_secs(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_dropped_while_it_asks_blocks_no_other() {
    let mut doubters = Doubters::start(FailureKind::NewIterator).await;
    let delay = Fault::delay(Duration::from_secs(3_600)).operation("DescribeStreamSummary");
    let delay = doubters.paused.aws.faults().add(delay.times(1));
    let mut dropped = doubters.watches.remove(0);
    let asking = tokio::spawn(async move { dropped.standing().await.map(drop) });
    while doubters.paused.aws.faults().count(delay) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let waiting = doubters.all();
    let abort = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        asking.abort();
    };
    let (standings, ()) = tokio::join!(waiting, abort);
    assert!(standings.iter().all(|s| matches!(s, Standing::Sound)));
    assert!(doubters.described() <= 3, "{}", doubters.described());
}

#[tokio::test(start_paused = true)]
async fn one_reading_of_the_retention_is_for_all_readers() {
    let doubters = Doubters::start(FailureKind::NewIterator).await;
    let read = doubters.watches.iter().map(ShardWatch::retention);
    let day = Duration::from_secs(24 * 3_600);
    for retention in join_all(read).await {
        assert_eq!(retention.unwrap(), day);
    }
    assert!(doubters.described() <= 2, "{}", doubters.described());
}

#[tokio::test(start_paused = true)]
async fn all_readers_of_a_deleted_stream_find_that_out_by_the_same_calls() {
    let mut doubters = Doubters::start(FailureKind::NotFound).await;
    let delete = doubters.paused.client().delete_stream().stream_name(STREAM);
    delete.send().await.unwrap();
    let clock = Arc::clone(&doubters.paused.clock);
    let began = clock.now();
    let watches = doubters.watches.iter_mut().enumerate();
    let ended = join_all(watches.map(|(number, watch)| async move {
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY, Rng::with_seed(number as u64));
        loop {
            match watch.standing().await {
                Ok(Standing::NotKnown(_)) => tokio::time::sleep(backoff.next_delay()).await,
                Ok(standing) => panic!("{standing:?}"),
                Err(error) => return error,
            }
        }
    }));
    let ended = ended.await;
    let is_deleted = |error: &WorkerError| matches!(error, WorkerError::StreamDeleted { .. });
    assert!(ended.iter().all(is_deleted));
    let took = clock.now() - began;
    // Ten seconds of answers that say so, and the pauses of the readers.
    assert!(doubters.described() <= 30, "{}", doubters.described());
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// Deletes the stream, and creates it again.
async fn created_again(paused: &Paused) -> StreamIdentity {
    let client = paused.client();
    let delete = client.delete_stream().stream_name(STREAM);
    delete.send().await.unwrap();
    // The streams differ in the time of their creation.
    tokio::time::sleep(Duration::from_secs(60)).await;
    paused.aws.create_stream(STREAM, 1).await.unwrap();
    identity(&client).await
}

/// Replaces the stream that the worker reads while a comparison waits for its answer.
async fn replace_during_comparison(aws: &LocalAws, stream: Arc<CurrentStream>, by: StreamIdentity) {
    let delay = Fault::delay(Duration::from_secs(2)).operation("DescribeStreamSummary");
    let delay = aws.faults().add(delay.times(1));
    while aws.faults().count(delay) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(by.created > stream.identity().created);
    stream.replace(by);
}

#[tokio::test(start_paused = true)]
async fn readers_that_ask_while_the_stream_is_replaced_do_not_take_the_new_one_for_theirs() {
    for kind in [FailureKind::NewIterator, FailureKind::NotFound] {
        for is_named in [true, false] {
            let mut doubters = Doubters::with(kind, OnRecreatedStream::StartOver, is_named).await;
            let by = created_again(&doubters.paused).await;
            let stream = Arc::clone(&doubters.stream);
            let watches = doubters.watches.iter_mut().map(ShardWatch::standing);
            let replaced = replace_during_comparison(&doubters.paused.aws, stream, by);
            let (standings, ()) = tokio::join!(join_all(watches), replaced);
            let waits = |s: &&Result<_, _>| !matches!(s, Ok(Standing::NotKnown(_)));
            let other = standings.iter().find(waits);
            assert!(other.is_none(), "{kind:?}, {is_named}: {other:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_retention_of_a_stream_that_replaced_that_of_the_lease_is_not_used() {
    for is_named in [true, false] {
        let (kind, on_recreated) = (FailureKind::NewIterator, OnRecreatedStream::StartOver);
        let doubters = Doubters::with(kind, on_recreated, is_named).await;
        let by = created_again(&doubters.paused).await;
        let stream = Arc::clone(&doubters.stream);
        let replaced = replace_during_comparison(&doubters.paused.aws, stream, by);
        let (retention, ()) = tokio::join!(doubters.watches[0].retention(), replaced);
        assert!(retention.is_err(), "{retention:?}");
    }
}
