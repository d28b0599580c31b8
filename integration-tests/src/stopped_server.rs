//! The server of Kinesis and DynamoDB stands still, and two worker processes are told to stop.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use kinesis_testkit::LocalAws;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::Error;
use crate::consumer::Report;
use crate::worker_process::{Program, STREAM, Seen, Worker, signal};

const SHARDS: u32 = 4;
const RECORDS: u64 = 200;
/// Gives up when nothing was seen for this long.
const STALLED: Duration = Duration::from_secs(120);

/// The result of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// Processors that were asked to stop after that.
    pub asked: u64,
    /// Shards of the two workers that their reports say were left to expire.
    pub left_to_expire: u64,
    /// Shards that are reported otherwise.
    pub otherwise: u64,
    /// From SIGTERM to the end of both processes.
    pub took: Duration,
}

/// Serves Kinesis and DynamoDB, and prints where, until standard input closes.
///
/// # Errors
/// It cannot serve.
pub async fn serve(shards: u32) -> Result<(), Error> {
    let aws = LocalAws::start().await?;
    aws.create_stream(STREAM, shards).await?;
    println!("{}", aws.kinesis_url());
    let closed = || std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    tokio::task::spawn_blocking(closed).await??;
    Ok(())
}

/// A process of `program` that [serves](serve), and where. It ends when it is dropped.
///
/// # Errors
/// It cannot serve.
pub async fn server(program: &Path, shards: u32) -> Result<(Child, String), Error> {
    let mut process = Command::new(program)
        .args(["serve", "--shards", &shards.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = process.stdout.take().ok_or("the server says nothing")?;
    let url = BufReader::new(out).lines().next_line().await?;
    Ok((process, url.ok_or("the server has ended")?))
}

/// Two workers of `program` on a server process. It gets SIGSTOP, then the workers get SIGTERM, with
/// this deadline for their planned stops.
///
/// # Errors
/// The workers do not come to share the shards, or do not end.
pub async fn run(program: &Path, failover: Duration, deadline: Duration) -> Result<Outcome, Error> {
    let (server, url) = server(program, SHARDS).await?;
    let seen = Arc::new(Seen::default());
    let program = Program { path: program, failover, deadline, url: &url };
    let workers = [Worker::start(&program, 1, &seen)?, Worker::start(&program, 2, &seen)?];
    put(&url, &seen).await?;
    let half = SHARDS as usize / 2;
    let shared = seen.until(STALLED, |state| {
        state.running(1) == half && state.running(2) == half && state.ledger.is_settled()
    });
    if !shared.await {
        return Err("the workers did not share the shards and the records".into());
    }
    // Shards may have moved before, to balance the workers.
    let asked = || seen.state().asked.values().sum::<u64>();
    let before = asked();
    signal(&server, "STOP").await?;
    let began = crate::consumer::epoch_micros();
    let [one, two] = workers;
    let ended = tokio::try_join!(one.terminate(), two.terminate());
    let took = Duration::from_micros(crate::consumer::epoch_micros() - began);
    ended?;
    let asked = asked() - before;
    let state = seen.state();
    let mut outcome = Outcome { asked, left_to_expire: 0, otherwise: 0, took };
    for report in state.stopped.values() {
        if let Report::Stopped { drained, left_to_expire, aborted } = report {
            outcome.left_to_expire += left_to_expire;
            outcome.otherwise += drained + aborted;
        }
    }
    Ok(outcome)
}

/// Puts the records, and waits until they are acknowledged.
async fn put(url: &str, seen: &Seen) -> Result<(), Error> {
    let client = aws_sdk_kinesis::Client::new(&crate::sdk_config(url));
    for id in 0..RECORDS {
        let request = client.put_record().stream_name(STREAM);
        let request = request.partition_key(format!("key-{}", id % 97));
        let data = Blob::new(id.to_be_bytes().to_vec());
        request.data(data).send().await?;
        seen.state().ledger.acknowledged(id);
        seen.changed.notify_waiters();
    }
    Ok(())
}
