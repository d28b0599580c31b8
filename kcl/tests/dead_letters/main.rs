//! Dead letters against services: the sinks write, faults come, and a redrive reads them back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod http;
mod object_store;
mod redrive;
mod s3;
mod sqs;
mod stream;

use std::time::{Duration, SystemTime};

use kcl::{DeadLetter, ExtendedSequenceNumber};

const APPLICATION: &str = "billing";
const STREAM: &str = "orders";
const SHARD: &str = "shardId-000000000000";

/// A letter with a payload of text, and a key.
fn letter(number: u64, key: &str) -> DeadLetter {
    let position = ExtendedSequenceNumber::new(number.to_string().parse().unwrap(), 0);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_842_000 + number);
    let payload = format!("payload {number}");
    let mut letter = DeadLetter::new(APPLICATION, STREAM, SHARD, position, payload, at);
    letter.partition_key = Some(key.to_owned());
    letter.arrival = Some(at);
    letter
}

/// The idempotency keys in order.
fn keys<'a>(letters: impl IntoIterator<Item = &'a DeadLetter>) -> Vec<String> {
    let mut keys: Vec<_> = letters.into_iter().map(DeadLetter::idempotency_key).collect();
    keys.sort();
    keys
}
