//! What PutRecords and GetRecords carry over loopback, and the CPU time of each side.
//!
//! `cargo bench -p kinesis-testkit --bench throughput` prints, for each operation, the rate of 8 SDK
//! clients on testkit, of the same clients on a sink that answers without a look, and of bare
//! connections on testkit; with the CPU time of each side for a gigabyte of data, and the rate at
//! which two processors would be busy with that. The CPU times hold on a busy machine too, where the
//! rates do not.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark: a panic is a failure, and time is what it measures"
)]

mod bare;
mod cpu;
mod sdk;
mod sink;

use std::time::{Duration, Instant};

use aws_sdk_kinesis::types::ShardIteratorType;
use kinesis_testkit::LocalAws;

use self::cpu::CpuTime;
use self::sink::Sink;

const STREAM: &str = "orders";
const SHARDS: u32 = 4;
const CLIENTS: usize = 8;
const ENTRIES: usize = 500;
const RECORD: usize = 1024;
/// PutRecords of each client, each of half a megabyte.
const PUTS: usize = 150;
/// GetRecords of each client, each of up to ten megabytes.
const GETS: usize = 10;
/// Enough for a full page of GetRecords in every shard, and no more.
const CAPACITY: usize = 12 << 20;

fn main() {
    // Cargo passes `--bench`, and a filter may follow: a part of a line's name.
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let filter = filter.unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("client")
        .enable_all()
        .build()
        .unwrap();
    println!(
        "{:<28} {:>8} {:>14} {:>14} {:>18}",
        "", "MB/s", "client s/GB", "server s/GB", "MB/s of 2 CPUs"
    );
    let line = |name: &str, run: &mut dyn FnMut() -> usize| {
        if name.contains(&filter) {
            run(); // Warms connections, caches and the allocator.
            measure(name, run);
        }
    };
    let aws = runtime.block_on(prepared());
    let sdk = sdk::client(aws.kinesis_url());
    line("puts: SDK on testkit", &mut || runtime.block_on(sdk::put(&sdk)));
    let sink = Sink::start(sink::put_answer());
    let to_sink = sdk::client(sink.url());
    line("puts: SDK on a sink", &mut || runtime.block_on(sdk::put(&to_sink)));
    let address = aws.kinesis_url().trim_start_matches("http://");
    line("puts: bare on testkit", &mut || runtime.block_on(bare::put(address)));

    let iterators = runtime.block_on(iterators(&aws));
    line("gets: SDK on testkit", &mut || runtime.block_on(sdk::get(&sdk, &iterators)));
    let sink = Sink::start(sink::get_answer());
    let to_sink = sdk::client(sink.url());
    line("gets: SDK on a sink", &mut || runtime.block_on(sdk::get(&to_sink, &iterators)));
    line("gets: bare on testkit", &mut || runtime.block_on(bare::get(address, &iterators)));
}

/// Runs it, and prints what it moved.
fn measure(name: &str, run: &mut dyn FnMut() -> usize) {
    let (cpu, begin) = (CpuTime::now(), Instant::now());
    let megabytes = run() as f64 / 1e6;
    let (wall, cpu) = (begin.elapsed(), CpuTime::now().since(cpu));
    let per_gigabyte = |time: Duration| time.as_secs_f64() / megabytes * 1e3;
    let (client, server) = (per_gigabyte(cpu.client), per_gigabyte(cpu.server));
    println!(
        "{name:<28} {:>8.0} {client:>14.2} {server:>14.2} {:>18.0}",
        megabytes / wall.as_secs_f64(),
        2e3 / (client + server),
    );
}

/// A stream with a page of records in every shard, however few lines are run.
async fn prepared() -> LocalAws {
    let aws = LocalAws::builder().shard_capacity(CAPACITY);
    let aws = aws.build().await.unwrap();
    aws.create_stream(STREAM, SHARDS).await.unwrap();
    sdk::put(&sdk::client(aws.kinesis_url())).await;
    aws
}

/// One for each client.
async fn iterators(aws: &LocalAws) -> Vec<String> {
    let client = aws.kinesis();
    let mut iterators = Vec::new();
    for nth in 0..CLIENTS {
        let shard = format!("shardId-{:012}", nth % SHARDS as usize);
        let iterator = client
            .get_shard_iterator()
            .stream_name(STREAM)
            .shard_id(shard)
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        iterators.push(iterator.send().await.unwrap().shard_iterator.unwrap());
    }
    iterators
}

/// The data of a record: bytes that differ from record to record.
fn data(nth: usize) -> Vec<u8> {
    (0..RECORD).map(|at| (at * 31 + nth * 7) as u8).collect()
}

fn partition_key(nth: usize) -> String {
    format!("key-{nth}")
}
