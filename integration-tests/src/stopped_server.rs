//! The server of Kinesis and DynamoDB stands still: two worker processes are told to stop meanwhile, or one reads by
//! enhanced fan-out and goes on when the server does.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::config::StalledStreamProtectionConfig;
use aws_sdk_kinesis::primitives::Blob;
use kinesis_testkit::{LocalAws, Verdict};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::Error;
use crate::consumer::Report;
use crate::worker_process::{Program, STREAM, Seen, State, Worker, signal};

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

/// Serves Kinesis and DynamoDB, and prints where, until standard input closes. With a file for the certificate, it
/// serves over TLS too, and prints both addresses.
///
/// # Errors
/// It cannot serve.
pub async fn serve(shards: u32, certificate: Option<&Path>) -> Result<(), Error> {
    let mut builder = LocalAws::builder();
    if certificate.is_some() {
        builder = builder.tls_port(0);
    }
    let aws = builder.build().await?;
    aws.create_stream(STREAM, shards).await?;
    if let (Some(file), Some(pem)) = (certificate, aws.certificate_pem()) {
        tokio::fs::write(file, pem).await?;
    }
    println!("{} {}", aws.kinesis_url(), aws.tls_url().unwrap_or_default());
    let closed = || std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    tokio::task::spawn_blocking(closed).await??;
    Ok(())
}

/// A server process. It ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    /// Where Kinesis and DynamoDB are.
    pub url: String,
    /// Where they are over TLS. Empty without a certificate.
    tls_url: String,
}

/// A process of `program` that [serves](serve).
///
/// # Errors
/// It cannot serve.
pub async fn server(
    program: &Path,
    shards: u32,
    certificate: Option<&Path>,
) -> Result<Server, Error> {
    let mut command = Command::new(program);
    command.args(["serve", "--shards", &shards.to_string()]);
    if let Some(file) = certificate {
        command.arg("--certificate").arg(file);
    }
    let mut process =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let out = process.stdout.take().ok_or("the server says nothing")?;
    let line = BufReader::new(out).lines().next_line().await?;
    let line = line.ok_or("the server has ended")?;
    let (url, tls_url) = line.split_once(' ').ok_or("the server does not say where it is")?;
    Ok(Server { process, url: url.to_owned(), tls_url: tls_url.to_owned() })
}

/// Two workers of `program` on a server process. It gets SIGSTOP, then the workers get SIGTERM, with
/// this deadline for their planned stops.
///
/// # Errors
/// The workers do not come to share the shards, or do not end.
pub async fn run(program: &Path, failover: Duration, deadline: Duration) -> Result<Outcome, Error> {
    let server = server(program, SHARDS, None).await?;
    let seen = Arc::new(Seen::default());
    let url = &*server.url;
    let program =
        Program { path: program, failover, deadline, url, fan_out: false, certificate: None };
    let workers = [Worker::start(&program, 1, &seen)?, Worker::start(&program, 2, &seen)?];
    put(url, &seen, 0..RECORDS).await?;
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
    signal(&server.process, "STOP").await?;
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

/// A worker of `program` reads by enhanced fan-out from a server process, over TLS if there is a file for its
/// certificate: then by HTTP/2, otherwise by HTTP/1.1. The server gets SIGSTOP until the worker reports that it cannot
/// read, and then SIGCONT, while records are put. Returns the ledger's judgement when all is processed and the worker is
/// healthy.
///
/// # Errors
/// The worker does not report what it should, does not end, or does not process all records.
pub async fn interrupt(program: &Path, certificate: Option<&Path>) -> Result<Verdict, Error> {
    let server = server(program, SHARDS, certificate).await?;
    let seen = Arc::new(Seen::default());
    let url = if certificate.is_some() { &server.tls_url } else { &server.url };
    let program = Program {
        path: program,
        // Longer than the connections take to be noticed as dead, so that the leases survive.
        failover: Duration::from_secs(120),
        deadline: Duration::from_secs(60),
        url,
        fan_out: true,
        certificate,
    };
    let worker = Worker::start(&program, 1, &seen)?;
    put(&server.url, &seen, 0..RECORDS).await?;
    if !seen.until(STALLED, |state| state.ledger.is_settled()).await {
        return Err("the worker does not read".into());
    }
    // While no processor writes a checkpoint: a processor that waits for DynamoDB takes no records, and what it does not
    // take is not read.
    signal(&server.process, "STOP").await?;
    let load = tokio::spawn({
        let (url, seen) = (server.url.clone(), Arc::clone(&seen));
        async move { put(&url, &seen, RECORDS..10 * RECORDS).await }
    });
    let fails = |state: &State| {
        matches!(state.health.get(&1), Some(Report::Health { reads_fail: true, .. }))
    };
    let noticed = seen.until(STALLED, fails).await;
    signal(&server.process, "CONT").await?;
    if !noticed {
        return Err("the worker does not notice that the server stands still".into());
    }
    load.await??;
    let recovered = seen.until(STALLED, |state| {
        let health = state.health.get(&1);
        state.ledger.is_settled() && matches!(health, Some(Report::Health { is_healthy: true, .. }))
    });
    if !recovered.await {
        return Err(format!("the worker does not recover: {:?}", seen.state().health).into());
    }
    worker.stop().await?;
    Ok(seen.state().ledger.verdict())
}

/// Puts records, one after the other.
async fn put(url: &str, seen: &Seen, ids: std::ops::Range<u64>) -> Result<(), Error> {
    // A put waits while the server stands still.
    let config = aws_sdk_kinesis::config::Builder::from(&crate::sdk_config(url))
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    let client = aws_sdk_kinesis::Client::from_conf(config.build());
    for id in ids {
        let request = client.put_record().stream_name(STREAM);
        let request = request.partition_key(format!("key-{}", id % 97));
        let data = Blob::new(id.to_be_bytes().to_vec());
        request.data(data).send().await?;
        seen.state().ledger.acknowledged(id);
        seen.changed.notify_waiters();
    }
    Ok(())
}
