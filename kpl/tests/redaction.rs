//! No log line, error text or debug output holds data or keys: a run full of faults, with marks planted
//! in all records. One test, since the subscriber is that of the process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::error::Error;
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kinesis_aggregation::HashKey;
use kinesis_testkit::{Fault, LocalAws};
use kpl::{Producer, ProducerConfig, UserRecord};
use tracing_subscriber::fmt::MakeWriter;

const STREAM: &str = "orders";
/// Begins every payload and partition key; 15 bytes, so that base64 shows it whole.
const MARK: &str = "PLANTED-SECRET-";
/// `MARK` in base64.
const MARK_BASE64: &str = "UExBTlRFRC1TRUNSRVQt";

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    fn note(&self, text: &str) {
        let mut all = self.0.lock().unwrap();
        all.extend_from_slice(text.as_bytes());
        all.push(b'\n');
    }

    fn see(&self, what: &impl Debug) {
        self.note(&format!("{what:?}"));
    }

    fn error(&self, error: &(dyn Error + 'static)) {
        let causes = std::iter::successors(Some(error), |error| (*error).source());
        for error in causes {
            self.note(&format!("{error} {error:?}"));
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Capture {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn record(number: usize) -> UserRecord {
    let data = format!("{MARK}payload {number}");
    UserRecord::new(format!("{MARK}{number}"), data).with_explicit_hash_key(HashKey::new(HASH_KEY))
}

/// A hash key that no count or time looks like.
const HASH_KEY: u128 = 271_828_182_845_904_523_536_028;

/// A refusal that quotes a partition key.
fn quoting() -> String {
    format!(
        "1 validation error detected: Value '{MARK}1' at 'records.1.member.partitionKey' failed to satisfy constraint"
    )
}

/// Sends some records, and shows all that comes back.
async fn send(producer: &Producer, seen: &Capture) {
    for number in 0..3 {
        let record = record(number);
        seen.see(&record);
        match producer.send(record).await {
            Ok(delivery) => {
                seen.see(&delivery);
                match delivery.await {
                    Ok(written) => seen.see(&written),
                    Err(error) => {
                        seen.error(&error);
                        seen.see(&error.attempts());
                        seen.see(&error.cause());
                    }
                }
            }
            Err(error) => seen.error(&error),
        }
    }
}

#[tokio::test]
async fn nothing_planted_is_found_in_logs_errors_or_debug_output() {
    let logs = Capture::default();
    tracing_subscriber::fmt()
        .with_env_filter("kpl=trace,kinesis_aggregation=trace")
        .with_writer(logs.clone())
        .init();
    let seen = Capture::default();
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, 2).await.unwrap();
    let config = || {
        ProducerConfig::default()
            .with_record_ttl(Duration::from_millis(400))
            .with_request_timeout(Duration::from_millis(200))
    };
    let faults = || {
        [
            Fault::cut_response(),
            Fault::garbled_response(),
            Fault::cut_connection(),
            Fault::internal_failure(),
            Fault::delay(Duration::from_secs(1)),
            Fault::throttle(),
            Fault::refuse("AccessDeniedException"),
            Fault::refuse("ValidationException"),
            Fault::refuse("SomethingNew"),
            // The service's own words quote what it refuses.
            Fault::refuse("ValidationException").message(quoting()),
            Fault::refuse("SomethingNew").message(format!("{MARK}1 is not allowed here")),
        ]
    };
    for operation in ["PutRecords", "ListShards", "DescribeStreamSummary"] {
        // The other calls fail in the background, in one way.
        let kinds = if operation == "PutRecords" { usize::MAX } else { 1 };
        for fault in faults().into_iter().take(kinds) {
            let builder = Producer::builder(STREAM, &aws.sdk_config());
            let producer = builder.config(config()).build().await.unwrap();
            seen.see(&producer);
            let fault = aws.faults().add(fault.operation(operation).times(3));
            send(&producer, &seen).await;
            seen.see(&producer.close(Duration::from_secs(2)).await);
            aws.faults().remove(fault);
        }
    }
    for code in [
        "InternalFailure",
        "ProvisionedThroughputExceededException",
        "ValidationException",
        "SomethingNew",
    ] {
        let builder = Producer::builder(STREAM, &aws.sdk_config());
        let producer = builder.config(config()).build().await.unwrap();
        let fault = aws.faults().add(Fault::refuse_entry(code).message(quoting()).probability(0.7));
        send(&producer, &seen).await;
        let large = UserRecord::new(MARK, vec![b'x'; 12 << 20]);
        seen.error(&producer.send(large).await.unwrap_err());
        let wrong = UserRecord::new(MARK, "x").with_explicit_hash_key_text(&format!("{MARK}hash"));
        seen.note(&wrong.unwrap_err().to_string());
        seen.see(&producer.close(Duration::from_secs(2)).await);
        seen.error(&producer.send(record(1)).await.unwrap_err());
        aws.faults().remove(fault);
    }
    let (logs, seen) = (logs.text(), seen.text());
    assert!(logs.contains("PutRecords failed"), "the run had its faults");
    for (name, text) in [("logs", &logs), ("texts", &seen)] {
        let bytes = format!("{:?}", MARK.as_bytes());
        let forms = [MARK, MARK_BASE64, bytes.trim_matches(['[', ']']), &HASH_KEY.to_string()];
        for form in forms {
            let line = text.lines().find(|line| line.contains(form));
            assert_eq!(line, None, "{name} hold {form}");
        }
    }
}
