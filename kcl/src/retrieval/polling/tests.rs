//! Against an embedded Kinesis.

use std::time::SystemTime;

use aws_sdk_kinesis::primitives::Blob;
use kinesis_aggregation::HashKeyRange;
use kinesis_testkit::{Fault, LocalAws, ManualClock};

use super::*;
use crate::clock::SystemClock;
use crate::health::ProblemLog;
use crate::metrics::Meter;
use crate::retrieval::{ByteBudget, RawRecord};
use crate::sequence::SequenceNumber;
use crate::snapshot::Totals;

const STREAM: &str = "reads";
const SHARD: &str = "shardId-000000000000";

struct Reader {
    polling: Polling,
    budget: ShardBudget,
}

impl Reader {
    fn new(aws: &LocalAws, shard_id: &str, position: Position) -> Self {
        let config = ConsumerConfig::default()
            .with_kinesis_request_timeout(Duration::from_millis(500))
            .with_idle_time_between_reads(Duration::from_millis(200));
        let clock = Arc::new(SystemClock::default());
        let problems = Arc::new(ProblemLog::new(Arc::clone(&clock) as Arc<dyn Clock>));
        let totals = Arc::new(Totals::new(Meter::default(), problems));
        let status = Arc::new(ShardStatus::new(shard_id, totals));
        let retrieval = PollingRetrieval::new(&aws.kinesis(), STREAM, Arc::new(config), clock);
        let start = Start {
            status,
            position,
            seed: 1,
        };
        Self {
            polling: Polling::new(&retrieval, start),
            budget: ShardBudget::new(&ByteBudget::new(64 << 20)),
        }
    }

    async fn page(&mut self) -> Page {
        let read = self.polling.next_page(&self.budget);
        tokio::time::timeout(Duration::from_secs(60), read)
            .await
            .unwrap()
            .unwrap()
    }

    /// Reads until `records` have come, or the shard's end.
    async fn read(&mut self, records: usize) -> Vec<String> {
        let mut read = Vec::new();
        while read.len() < records {
            let page = self.page().await;
            read.extend(page.records.iter().map(text));
            if page.end.is_some() {
                break;
            }
        }
        read
    }
}

fn text(record: &RawRecord) -> String {
    String::from_utf8(record.data.to_vec()).unwrap()
}

async fn aws() -> LocalAws {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    aws
}

/// Puts `from..to` as text; answers with their sequence numbers.
async fn put(aws: &LocalAws, numbers: std::ops::Range<u32>) -> Vec<SequenceNumber> {
    let mut put = Vec::new();
    let client = aws.kinesis();
    for number in numbers {
        let request = client.put_record().stream_name(STREAM).partition_key("k");
        let output = request
            .data(Blob::new(number.to_string()))
            .send()
            .await
            .unwrap();
        put.push(output.sequence_number.parse().unwrap());
    }
    put
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

async fn called(aws: &LocalAws, operation: &str, times: u64) {
    while aws.calls(operation) < times {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
        let mut reader = Reader::new(&aws, SHARD, position.clone());
        let read = reader.read(expected.len()).await;
        assert_eq!(read, numbers(expected), "{position:?}");
    }
}

#[tokio::test]
async fn an_expired_iterator_goes_on_behind_the_last_record() {
    let clock = ManualClock::new(SystemClock::default().wall());
    let aws = LocalAws::builder()
        .clock(clock.clone())
        .build()
        .await
        .unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    put(&aws, 0..3).await;
    let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon);
    assert_eq!(reader.read(3).await, numbers(0..3));
    clock.advance(Duration::from_secs(600));
    put(&aws, 3..6).await;
    assert_eq!(reader.read(3).await, numbers(3..6));
    assert_eq!(aws.calls("GetShardIterator"), 2);
}

#[tokio::test]
async fn an_iterator_at_latest_that_expires_before_the_first_record_misses_nothing() {
    let clock = ManualClock::new(SystemClock::default().wall());
    let aws = LocalAws::builder()
        .clock(clock.clone())
        .build()
        .await
        .unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    put(&aws, 0..3).await;
    let mut reader = Reader::new(&aws, SHARD, Position::Latest);
    let reading = tokio::spawn(async move { reader.read(1).await });
    called(&aws, "GetRecords", 1).await;
    let cut = aws
        .faults()
        .add(Fault::cut_connection().operation("GetRecords"));
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
        // Not the truth: neither the stream nor the shard is gone.
        Fault::refuse("ResourceNotFoundException"),
        Fault::refuse("AccessDeniedException"),
    ] {
        let aws = aws().await;
        put(&aws, 0..10).await;
        let label = format!("{fault:?}");
        let times = if label.contains("Delay") { 1 } else { 2 };
        let injected = aws.faults().add(fault.operation("GetRecords").times(times));
        let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon);
        assert_eq!(reader.read(10).await, numbers(0..10), "{label}");
        assert_eq!(aws.faults().count(injected), times, "{label}");
    }
}

#[tokio::test]
async fn faults_of_get_shard_iterator_are_survived() {
    let aws = aws().await;
    put(&aws, 0..3).await;
    for fault in [
        Fault::throttle(),
        Fault::cut_connection(),
        Fault::internal_failure(),
    ] {
        aws.faults()
            .add(fault.operation("GetShardIterator").times(1));
    }
    let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon);
    assert_eq!(reader.read(3).await, numbers(0..3));
}

#[tokio::test]
async fn a_split_ends_the_shard_with_its_children() {
    let aws = aws().await;
    put(&aws, 0..3).await;
    let middle = 1u128 << 127;
    let split = aws
        .kinesis()
        .split_shard()
        .stream_name(STREAM)
        .shard_to_split(SHARD);
    split
        .new_starting_hash_key(middle.to_string())
        .send()
        .await
        .unwrap();
    let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon);
    let mut records = Vec::new();
    let children = loop {
        let page = reader.page().await;
        records.extend(page.records.iter().map(text));
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

#[tokio::test]
async fn a_deleted_stream_is_an_error() {
    let aws = aws().await;
    put(&aws, 0..3).await;
    let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon);
    assert_eq!(reader.read(3).await.len(), 3);
    aws.kinesis()
        .delete_stream()
        .stream_name(STREAM)
        .send()
        .await
        .unwrap();
    let Err(RetrievalError::StreamDeleted { stream }) =
        reader.polling.next_page(&reader.budget).await
    else {
        panic!("the stream is gone");
    };
    assert_eq!(stream, STREAM);
}

#[tokio::test]
async fn a_shard_that_the_stream_has_forgotten_ends_without_children() {
    let aws = aws().await;
    let mut reader = Reader::new(&aws, "shardId-000000000099", Position::TrimHorizon);
    let page = reader.page().await;
    assert!(page.records.is_empty());
    assert_eq!(page.end, Some(Vec::new()));
}

#[tokio::test]
async fn a_backlog_is_read_under_the_services_limits() {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let throttled = aws
        .faults()
        .add(Fault::throttle().operation("GetRecords").probability(0.5));
    put(&aws, 0..200).await;
    let mut reader = Reader::new(&aws, SHARD, Position::TrimHorizon);
    reader.polling.size = PageSize::new(50);
    assert_eq!(reader.read(200).await, numbers(0..200));
    assert!(aws.calls("GetRecords") >= 4 + aws.faults().count(throttled));
}
