//! A worker process is told to stop while records come in, and another takes its shards over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use kinesis_testkit::{LocalAws, Verdict};

use crate::Error;
use crate::worker_process::{Program, STREAM, Seen, State, Worker};

const SHARDS: usize = 4;
/// Records of a request.
const CHUNK: u64 = 50;
/// Gives up when nothing was seen for this long.
const STALLED: Duration = Duration::from_secs(120);

/// The result of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// The ledger's judgement.
    pub verdict: Verdict,
    /// Processors that the second worker started after the first was told to stop.
    pub taken_over: u64,
    /// Shards that the first worker had.
    pub left_behind: u64,
}

/// Two workers of `program`; the first gets SIGTERM in the middle of `records`.
pub async fn run(program: &Path, records: u64, failover: Duration) -> Result<Outcome, Error> {
    let aws = LocalAws::start().await?;
    aws.create_stream(STREAM, SHARDS as u32).await?;
    let seen = Arc::new(Seen::default());
    let program = Program {
        path: program,
        failover,
        deadline: Duration::from_secs(60),
        url: aws.kinesis_url(),
        fan_out: false,
        certificate: None,
    };
    let first = Worker::start(&program, 1, &seen)?;
    let second = Worker::start(&program, 2, &seen)?;
    let half = SHARDS / 2;
    let shared = seen.until(STALLED, |state| state.running(1) == half && state.running(2) == half);
    if !shared.await {
        return Err("the workers did not share the shards".into());
    }
    let started = seen.state().ownerships[&2];

    let mut stop = None;
    let mut first = Some(first);
    for begin in (0..records).step_by(CHUNK as usize) {
        if begin >= records / 2
            && let Some(first) = first.take()
        {
            stop = Some(tokio::spawn(first.terminate()));
        }
        put(&aws, &seen, begin..(begin + CHUNK).min(records)).await?;
    }
    if let Some(stop) = stop {
        stop.await??;
    }
    let settled = |state: &State| state.ledger.is_settled() && state.running(2) == SHARDS;
    seen.until(STALLED, settled).await;
    let taken_over = seen.state().ownerships[&2] - started;
    second.stop().await?;
    let verdict = seen.state().ledger.verdict();
    Ok(Outcome { verdict, taken_over, left_behind: half as u64 })
}

async fn put(aws: &LocalAws, seen: &Seen, ids: std::ops::Range<u64>) -> Result<(), Error> {
    let entries = ids.clone().map(|id| {
        PutRecordsRequestEntry::builder()
            .partition_key(format!("key-{}", id % 97))
            .data(Blob::from_maybe_shared(Bytes::copy_from_slice(&id.to_be_bytes())))
            .build()
    });
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let request = aws.kinesis().put_records().stream_name(STREAM);
    let output = request.set_records(Some(entries)).send().await?;
    if output.failed_record_count().unwrap_or_default() > 0 {
        return Err("a record was refused, though there are no limits".into());
    }
    let mut state = seen.state();
    ids.for_each(|id| state.ledger.acknowledged(id));
    drop(state);
    seen.changed.notify_waiters();
    Ok(())
}
