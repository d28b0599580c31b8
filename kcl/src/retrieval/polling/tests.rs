//! Against an embedded Kinesis.

use std::time::SystemTime;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{RecordDistributionStrategy, StreamMode, StreamModeDetails};
use kinesis_aggregation::HashKeyRange;
use kinesis_common::sync::Mutex;
use kinesis_testkit::{Fault, LocalAws, ManualClock};

use super::*;
use crate::checkpoint::Checkpoint;
use crate::clock::{SystemClock, TokioClock};
use crate::config::OnRecreatedStream;
use crate::current_stream::CurrentStream;
use crate::health::ProblemLog;
use crate::lease::StreamIdentity;
use crate::metrics::Meter;
use crate::progress::Progress;
use crate::retrieval::embedded::*;
use crate::retrieval::{ByteBudget, ShardBudget, pages};
use crate::sequence::SequenceNumber;
use crate::snapshot::Totals;

mod doubts;
mod refusals;
mod sharing;
mod skew;
mod trimmed;

fn polling(
    client: &Client,
    stream: Arc<CurrentStream>,
    config: ConsumerConfig,
    clock: Arc<dyn Clock>,
) -> PollingRetrieval {
    let (timeout, random) = (config.kinesis_request_timeout, Rng::with_seed(7));
    let (name, clock_of_check) = (STREAM.parse().unwrap(), Arc::clone(&clock));
    let check = StreamCheck::new(client, timeout, name, stream, clock_of_check, random);
    PollingRetrieval::new(check, Arc::new(config), clock)
}

impl Paused {
    async fn reader(&self, position: Position) -> Reader {
        let config = ConsumerConfig::default().with_kinesis_request_timeout(self.timeout);
        let clock = Arc::clone(&self.clock);
        Reader::with(&self.client(), SHARD, position, config, clock).await
    }
}

struct Reader {
    polling: Polling,
    pages: PageSender,
}

impl Reader {
    async fn new(aws: &LocalAws, shard_id: &str, position: Position) -> Self {
        let config = ConsumerConfig::default()
            .with_kinesis_request_timeout(Duration::from_millis(500))
            .with_idle_time_between_reads(Duration::from_millis(200));
        let clock = Arc::new(SystemClock);
        Self::with(&aws.kinesis(), shard_id, position, config, clock).await
    }

    async fn with(
        client: &Client,
        shard_id: &str,
        position: Position,
        config: ConsumerConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let status = status(shard_id, &clock);
        let stream = Arc::new(CurrentStream::new(
            identity(client).await,
            OnRecreatedStream::Error,
            Arc::clone(&clock),
        ));
        let retrieval = polling(client, stream, config, clock);
        let budget = ShardBudget::new(&ByteBudget::new(64 << 20));
        let (pages, _) = pages::channel(budget, Arc::clone(&status));
        let start = Start { status, position, stream: None, read_to: None, seed: 1 };
        Self { polling: Polling::new(&retrieval, start), pages }
    }

    async fn page(&mut self) -> Page {
        let read = self.polling.next_page(&self.pages);
        tokio::time::timeout(Duration::from_secs(3600), read).await.unwrap().unwrap()
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

async fn aws() -> LocalAws {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    aws
}

/// Puts numbers as text. Returns their sequence numbers.
async fn put(aws: &LocalAws, numbers: std::ops::Range<u32>) -> Vec<SequenceNumber> {
    put_by(&aws.kinesis(), numbers, 0).await
}

async fn called(aws: &LocalAws, operation: &str, times: u64) {
    while aws.calls(operation) < times {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_holds_the_memory_of_a_call_only_while_it_runs() {
    let aws = Paused::start().await;
    let Reader { mut polling, pages } = aws.reader(Position::Latest).await;
    let waiting = size_of_val(&polling.next_page(&pages));
    assert!(waiting < 1024, "{waiting} bytes");
}

#[tokio::test]
async fn each_position_starts_where_it_says() {
    let aws = aws().await;
    let put = put(&aws, 0..5).await;
    for (position, expected) in [
        (Position::TrimHorizon, 0..5),
        (Position::At(put[2].clone()), 2..5),
        (Position::After(put[2].clone()), 3..5),
        (Position::Time(SystemTime::UNIX_EPOCH), 0..5),
    ] {
        let mut reader = Reader::new(&aws, SHARD, position.clone()).await;
        let read = reader.read(expected.len()).await;
        assert_eq!(read, numbers(expected), "{position:?}");
    }
}

#[tokio::test]
async fn an_expired_iterator_goes_on_behind_the_last_record() {
    let clock = ManualClock::new(SystemClock.wall());
    let aws = LocalAws::builder().clock(clock.clone()).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    put(&aws, 0..3).await;
    let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon).await;
    assert_eq!(reader.read(3).await, numbers(0..3));
    clock.advance(Duration::from_secs(600));
    put(&aws, 3..6).await;
    assert_eq!(reader.read(3).await, numbers(3..6));
    assert_eq!(aws.calls("GetShardIterator"), 2);
}

#[tokio::test]
async fn an_iterator_at_latest_that_expires_before_the_first_record_misses_nothing() {
    let clock = ManualClock::new(SystemClock.wall());
    let aws = LocalAws::builder().clock(clock.clone()).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    put(&aws, 0..3).await;
    clock.advance(Duration::from_secs(10));
    let mut reader = Reader::new(&aws, SHARD, Position::Latest).await;
    let reading = tokio::spawn(async move { reader.read(1).await });
    called(&aws, "GetRecords", 1).await;
    let cut = aws.faults().add(Fault::cut_connection().operation("GetRecords"));
    clock.advance(Duration::from_secs(10));
    put(&aws, 3..4).await;
    clock.advance(Duration::from_secs(600));
    aws.faults().remove(cut);
    // A read in flight when the fault was added may have brought the record: then nothing expired.
    assert_eq!(reading.await.unwrap(), numbers(3..4));
}

#[tokio::test]
async fn every_fault_is_survived_without_loss() {
    for fault in [
        Fault::throttle(),
        Fault::internal_failure(),
        Fault::cut_connection(),
        Fault::response_lost(),
        Fault::delay(Duration::from_secs(5)).times(1),
        Fault::refuse("ExpiredIteratorException"),
        Fault::refuse("InvalidArgumentException"),
        // A false answer: neither the stream nor the shard is gone.
        Fault::refuse("ResourceNotFoundException"),
        Fault::refuse("AccessDeniedException"),
    ] {
        let aws = aws().await;
        put(&aws, 0..10).await;
        let label = format!("{fault:?}");
        let times = if label.contains("Delay") { 1 } else { 2 };
        let injected = aws.faults().add(fault.operation("GetRecords").times(times));
        let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon).await;
        assert_eq!(reader.read(10).await, numbers(0..10), "{label}");
        assert_eq!(aws.faults().count(injected), times, "{label}");
    }
}

#[tokio::test]
async fn faults_of_get_shard_iterator_are_survived() {
    let aws = aws().await;
    put(&aws, 0..3).await;
    for fault in [Fault::throttle(), Fault::cut_connection(), Fault::internal_failure()] {
        aws.faults().add(fault.operation("GetShardIterator").times(1));
    }
    let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon).await;
    assert_eq!(reader.read(3).await, numbers(0..3));
}

#[tokio::test]
async fn a_split_ends_the_shard_with_its_children() {
    let aws = aws().await;
    put(&aws, 0..3).await;
    let middle = 1u128 << 127;
    let split = aws.kinesis().split_shard().stream_name(STREAM).shard_to_split(SHARD);
    split.new_starting_hash_key(middle.to_string()).send().await.unwrap();
    let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon).await;
    let mut records = Vec::new();
    let children = loop {
        let page = reader.page().await;
        records.extend(texts(&page));
        if let Some(children) = page.end {
            break children;
        }
    };
    assert_eq!(records, numbers(0..3));
    let ranges: Vec<_> = children.iter().map(|child| child.hash_key_range).collect();
    assert_eq!(ranges.len(), 2);
    assert_eq!(ranges[0].start(), HashKeyRange::FULL.start());
    assert_eq!(ranges[1].start().get(), middle);
    assert!(children.iter().all(|child| child.parents == [SHARD]));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_gone_for_a_while_is_an_error() {
    let paused = Paused::start().await;
    let aws = &paused.aws;
    paused.put(0..3).await;
    let mut reader = paused.reader(Position::TrimHorizon).await;
    assert_eq!(reader.read(3).await.len(), 3);
    // One answer that says so is not believed.
    for operation in ["GetRecords", "DescribeStreamSummary"] {
        let fault = Fault::refuse("ResourceNotFoundException").operation(operation);
        aws.faults().add(fault.lasting(Duration::from_secs(5)));
    }
    paused.put(3..4).await;
    assert_eq!(reader.read(1).await, numbers(3..4));
    paused.client().delete_stream().stream_name(STREAM).send().await.unwrap();
    let Err(WorkerError::StreamDeleted { stream }) = reader.polling.next_page(&reader.pages).await
    else {
        panic!("the stream is gone");
    };
    assert_eq!(stream, STREAM);
}

#[tokio::test]
async fn a_shard_that_the_stream_has_forgotten_ends_without_children() {
    let aws = aws().await;
    let mut reader = Reader::new(&aws, "shardId-000000000099", Position::TrimHorizon).await;
    let page = reader.page().await;
    assert!(page.records.is_empty());
    assert_eq!(page.end, Some(Vec::new()));
}

#[tokio::test]
async fn a_backlog_is_read_under_the_services_limits() {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let throttled = aws.faults().add(Fault::throttle().operation("GetRecords").probability(0.5));
    put(&aws, 0..200).await;
    let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon).await;
    reader.polling.size = PageSize::new(50);
    assert_eq!(reader.read(200).await, numbers(0..200));
    assert!(aws.calls("GetRecords") >= 4 + aws.faults().count(throttled));
}

#[tokio::test]
async fn a_record_without_a_key_is_read_in_its_place() {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.kinesis();
    let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand);
    let create = client.create_stream().stream_name(STREAM);
    let create = create.stream_mode_details(mode.build().unwrap());
    create.send().await.unwrap();
    let update = client
        .update_stream_record_distribution_strategy()
        .stream_arn(identity(&client).await.arn)
        .record_distribution_strategy(RecordDistributionStrategy::Auto);
    update.send().await.unwrap();
    // The service places them, in one shard after the other: three in each of four.
    for number in 0..12 {
        let key = (number % 8 < 4).then(|| "k".to_owned());
        let request = client.put_record().stream_name(STREAM);
        let request = request.set_partition_key(key).data(Blob::new((number / 4).to_string()));
        request.send().await.unwrap();
    }
    let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon).await;
    let page = reader.page().await;
    let keys: Vec<_> = (0..3).map(|index| page.records.partition_key(index)).collect();
    assert_eq!(keys, [Some("k"), None, Some("k")]);
    assert_eq!(texts(&page), numbers(0..3));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_a_slow_link_cannot_carry_in_time_is_read_in_smaller_ones() {
    let paused = Paused::start().await;
    put_by(&paused.client(), 0..100, 10_000).await;
    // 1.3 MB in base64 take 33 s; a read may take 10 s.
    let slow = paused.aws.faults();
    let slow = slow.add(Fault::slow_response(40_000).operation("GetRecords"));
    let mut reader = paused.reader(Position::TrimHorizon).await;
    assert_eq!(reader.read(100).await, numbers(0..100));
    paused.aws.faults().remove(slow);
    put_by(&paused.client(), 100..300, 10_000).await;
    let calls = paused.aws.calls("GetRecords");
    assert_eq!(reader.read(200).await, numbers(100..300));
    let calls = paused.aws.calls("GetRecords") - calls;
    assert!(calls < 12, "the limit recovers: {calls} calls");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_always_breaks_off_shrinks_to_one_record() {
    let paused = Paused::start().await;
    paused.put(0..3).await;
    let cut = Fault::cut_response().operation("GetRecords").times(12);
    let cut = paused.aws.faults().add(cut);
    let mut reader = paused.reader(Position::TrimHorizon).await;
    assert_eq!(reader.page().await.records.len(), 1);
    assert_eq!(paused.aws.faults().count(cut), 12);
    assert_eq!(reader.read(2).await, numbers(1..3));
}
