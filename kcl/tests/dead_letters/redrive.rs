//! Redrive into a stream, read by the real consumer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use bytes::Bytes;
use futures::TryStreamExt as _;
use kcl::{
    ConsumerConfig, DeadLetter, DeadLetterSink as _, DeadLetterSource, ExtendedSequenceNumber,
    FileSink, FileSource, InitialPosition, Redrive, Scheduler, StoredLetter,
};
use kinesis_aggregation::{AggregateBuilder, HashKey};
use kinesis_testkit::{Fault, LocalAws};

use crate::{SHARD, STREAM, keys, letter};

/// A file of letters that is removed with its directory.
struct Letters(PathBuf);

impl Letters {
    async fn with(letters: &[DeadLetter]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("redrive-{}-{number}", std::process::id());
        let written = Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
        FileSink::new(written.path()).write(letters).await.unwrap();
        written
    }

    fn path(&self) -> PathBuf {
        self.0.join("letters.ndjson")
    }

    fn source(&self) -> FileSource {
        FileSource::new(self.path())
    }

    /// The letters that are still in the files.
    async fn left(&self) -> Vec<DeadLetter> {
        let mut source = self.source();
        let mut left = Vec::new();
        loop {
            let read = source.read().await.unwrap();
            if read.is_empty() {
                return left;
            }
            left.extend(read.into_iter().map(|stored| stored.letter.unwrap()));
        }
    }
}

impl Drop for Letters {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A record as the consumer sees it.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    key: String,
    hash_key: Option<HashKey>,
    data: Bytes,
    redrives: u32,
    position: ExtendedSequenceNumber,
}

/// Reads records of the stream with the real consumer.
async fn consume(aws: &LocalAws, count: usize) -> Vec<Seen> {
    let config = ConsumerConfig::default().with_initial_position(InitialPosition::TrimHorizon);
    let scheduler = Scheduler::standalone(STREAM, &aws.sdk_config()).config(config);
    let mut batches = scheduler.consume().await.unwrap();
    let worker = batches.worker().clone();
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = batches.try_next().await.unwrap().unwrap();
        for record in &batch {
            seen.push(Seen {
                key: record.partition_key().unwrap().to_owned(),
                hash_key: record.explicit_hash_key(),
                data: record.bytes(),
                redrives: record.redrives(),
                position: record.position(),
            });
        }
        batch.ack().await.unwrap();
    }
    worker.shutdown(Duration::from_secs(20)).await.unwrap();
    seen
}

async fn aws(shards: u32) -> LocalAws {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, shards).await.unwrap();
    aws
}

#[tokio::test]
async fn records_come_again_with_key_hash_key_and_mark() {
    let aws = aws(2).await;
    let mut first = letter(1, "customer-7");
    first.explicit_hash_key = Some(HashKey::MAX);
    let mut second = letter(2, "customer-8");
    second.redrives = 2;
    let mut keyless = letter(3, "");
    keyless.partition_key = None;
    let letters = Letters::with(&[first, second, keyless]).await;
    let report = Redrive::new(&aws.sdk_config()).run(&mut letters.source()).await.unwrap();
    assert_eq!((report.redriven, report.left()), (3, 0), "{report}");
    assert!(letters.left().await.is_empty());

    let mut seen = consume(&aws, 3).await;
    seen.sort_by(|a, b| a.data.cmp(&b.data));
    assert_eq!([&seen[0].key, &seen[1].key], ["customer-7", "customer-8"]);
    assert_eq!(seen[0].hash_key, Some(HashKey::MAX));
    assert_eq!((seen[1].hash_key, seen[2].key.len()), (None, 32));
    assert_eq!([1, 3, 1], [seen[0].redrives, seen[1].redrives, seen[2].redrives]);
    assert_eq!([&seen[0].data[..], &seen[2].data], [b"payload 1", b"payload 3"]);
}

#[tokio::test]
async fn a_record_that_was_not_redriven_has_no_mark() {
    let aws = aws(1).await;
    let mut open = AggregateBuilder::new(1000);
    open.push("k", None, b"member").unwrap();
    for data in [open.seal().into_bytes(), Bytes::from("plain")] {
        let put = aws.kinesis().put_record().stream_name(STREAM).partition_key("k");
        put.data(Blob::new(data)).send().await.unwrap();
    }
    let seen = consume(&aws, 2).await;
    assert_eq!(seen.iter().map(|seen| seen.redrives).collect::<Vec<_>>(), [0, 0]);
}

#[tokio::test]
async fn a_letter_at_the_limit_stays() {
    let aws = aws(1).await;
    let mut spent = letter(1, "a");
    spent.redrives = 3;
    let letters = Letters::with(&[spent.clone(), letter(2, "b")]).await;
    let redrive = Redrive::new(&aws.sdk_config());
    let report = redrive.run(&mut letters.source()).await.unwrap();
    assert_eq!((report.redriven, report.redriven_too_often), (1, 1), "{report}");
    assert_eq!(letters.left().await, [spent]);
    let report = redrive.with_max_redrives(4).run(&mut letters.source()).await.unwrap();
    assert_eq!((report.redriven, report.left()), (1, 0));
}

#[tokio::test]
async fn a_record_that_fails_again_and_again_is_redriven_three_times() {
    let aws = aws(1).await;
    let redrive = Redrive::new(&aws.sdk_config());
    let mut failing = letter(1, "k");
    for round in 1..=4 {
        let letters = Letters::with(&[failing.clone()]).await;
        let report = redrive.run(&mut letters.source()).await.unwrap();
        assert_eq!(report.redriven, u64::from(round <= 3), "{round}: {report}");
        if round <= 3 {
            // The consumer fails again with the record.
            let seen = consume(&aws, round).await.pop().unwrap();
            assert_eq!(seen.redrives, round as u32);
            failing.redrives = seen.redrives;
            failing.position = seen.position;
        }
    }
}

#[tokio::test]
async fn letters_of_a_key_keep_their_order() {
    let aws = aws(1).await;
    let all: Vec<_> =
        (0..30).map(|number| letter(number, ["a", "b"][number as usize % 2])).collect();
    let letters = Letters::with(&all).await;
    aws.faults().add(
        Fault::refuse_entry("ProvisionedThroughputExceededException")
            .operation("PutRecords")
            .probability(0.3)
            .times(10),
    );
    Redrive::new(&aws.sdk_config()).run(&mut letters.source()).await.unwrap();
    let seen = consume(&aws, 30).await;
    for key in ["a", "b"] {
        let of_key = |key: &str| {
            let of_key = all.iter().filter(|letter| letter.partition_key.as_deref() == Some(key));
            of_key.map(|letter| letter.payload.clone().unwrap()).collect::<Vec<_>>()
        };
        let data: Vec<_> =
            seen.iter().filter(|seen| seen.key == key).map(|seen| seen.data.clone()).collect();
        assert_eq!(data, of_key(key), "{key}");
    }
}

#[tokio::test]
async fn a_put_that_is_refused_leaves_the_letter_and_holds_its_key() {
    let aws = aws(1).await;
    let letters = Letters::with(&[letter(1, "a"), letter(2, "a"), letter(3, "b")]).await;
    // The first round has a letter of each key.
    let refused = Fault::refuse_entry("AccessDeniedException").operation("PutRecords").times(1);
    aws.faults().add(refused);
    let report = Redrive::new(&aws.sdk_config()).run(&mut letters.source()).await.unwrap();
    assert_eq!((report.redriven, report.failed, report.held), (1, 1, 1), "{report}");
    assert_eq!(keys(&letters.left().await), keys(&[letter(1, "a"), letter(2, "a")]));
    let report = Redrive::new(&aws.sdk_config()).run(&mut letters.source()).await.unwrap();
    assert_eq!((report.redriven, report.left()), (2, 0), "{report}");
}

#[tokio::test]
async fn a_letter_without_payload_is_completed_from_the_stream() {
    let aws = aws(1).await;
    let mut open = AggregateBuilder::new(1000);
    for data in ["zero", "one"] {
        open.push("k", None, data.as_bytes()).unwrap();
    }
    let mut numbers = Vec::new();
    for data in [Bytes::from("plain"), open.seal().into_bytes()] {
        let put = aws.kinesis().put_record().stream_name(STREAM).partition_key("k");
        numbers.push(put.data(Blob::new(data)).send().await.unwrap().sequence_number);
    }
    let reference = |number: &str, sub| {
        let mut letter = letter(1, "k");
        letter.position = ExtendedSequenceNumber::new(number.parse().unwrap(), sub);
        letter.payload = None;
        letter
    };
    let absent = reference(&numbers[1], 2);
    let mut no_shard = reference(&numbers[0], 0);
    no_shard.shard_id = "shardId-000000000099".into();
    no_shard.partition_key = Some("other".into());
    let all =
        [reference(&numbers[0], 0), reference(&numbers[1], 1), absent.clone(), no_shard.clone()];
    let letters = Letters::with(&all).await;
    let mut handled = Vec::new();
    let (redrive, mut source) = (Redrive::new(&aws.sdk_config()), letters.source());
    let report = redrive.run_with(&mut source, |letter| {
        handled.push(letter.payload.unwrap());
        async { Ok::<(), &str>(()) }
    });
    let report = report.await.unwrap();
    assert_eq!((report.redriven, report.gone), (2, 2), "{report}");
    assert_eq!(handled, ["plain", "one"]);
    assert_eq!(keys(&letters.left().await), keys(&[absent, no_shard]));
    assert_eq!(aws.records(STREAM)[0].shard_id, SHARD);
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_is_a_failure_and_not_a_loss() {
    let aws = aws(1).await;
    let put = aws.kinesis().put_record().stream_name(STREAM).partition_key("k");
    let number = put.data(Blob::new("data")).send().await.unwrap().sequence_number;
    let mut reference = letter(1, "k");
    reference.position = ExtendedSequenceNumber::new(number.parse().unwrap(), 0);
    reference.payload = None;
    let letters = Letters::with(&[reference]).await;
    let denied = Fault::refuse("AccessDeniedException").operation("GetRecords").times(1);
    aws.faults().add(denied);
    let redrive = Redrive::new(&aws.sdk_config());
    let report = redrive.run(&mut letters.source()).await.unwrap();
    assert_eq!((report.failed, report.gone), (1, 0), "{report}");
    let report = redrive.run(&mut letters.source()).await.unwrap();
    assert_eq!((report.redriven, report.left()), (1, 0), "{report}");
}

#[tokio::test]
async fn letters_can_be_decrypted_and_put_into_another_stream() {
    let aws = aws(1).await;
    aws.create_stream("replay", 1).await.unwrap();
    let rotate = |by: u8| {
        move |mut letter: DeadLetter| {
            let payload = letter.payload.unwrap();
            letter.payload = Some(payload.iter().map(|byte| byte.wrapping_add(by)).collect());
            letter
        }
    };
    let letters = Letters::with(&[]).await;
    FileSink::new(letters.path()).map(rotate(7)).write(&[letter(1, "k")]).await.unwrap();
    let stored = std::fs::read_to_string(letters.path()).unwrap();
    assert_ne!(DeadLetter::from_json(stored.as_bytes()).unwrap().payload, letter(1, "k").payload);
    let redrive = Redrive::new(&aws.sdk_config()).into_stream("replay").unwrap();
    let report = redrive.map(rotate(0u8.wrapping_sub(7))).run(&mut letters.source()).await.unwrap();
    assert_eq!(report.redriven, 1);
    let records = &aws.records("replay")[0].records;
    assert!(records[0].data.windows(9).any(|data| data == b"payload 1"));
    assert!(aws.records(STREAM)[0].records.is_empty());
}

/// A source whose removal fails.
struct Stuck(Vec<StoredLetter>);

impl DeadLetterSource for Stuck {
    type Error = &'static str;

    async fn read(&mut self) -> Result<Vec<StoredLetter>, Self::Error> {
        Ok(std::mem::take(&mut self.0))
    }

    async fn remove(&mut self, _: &[String]) -> Result<(), Self::Error> {
        Err("the store is down")
    }
}

#[tokio::test]
async fn a_source_that_fails_ends_the_redrive_with_its_counts() {
    let aws = aws(1).await;
    let stored = |number: u64| {
        StoredLetter::from_json(number.to_string(), letter(number, "k").to_json().as_bytes())
    };
    let mut source = Stuck(vec![StoredLetter::from_json("x", b"{}"), stored(1)]);
    let error = Redrive::new(&aws.sdk_config()).run(&mut source).await.unwrap_err();
    assert_eq!((error.report.unreadable, error.report.redriven), (1, 0));
    assert_eq!(error.source.to_string(), "the store is down");
}
