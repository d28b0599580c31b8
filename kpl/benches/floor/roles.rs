//! The parts that run as processes of their own: this program once more, with a subcommand.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use clap::{Args, Subcommand};
use kpl::Wire;
use rustix::time::{ClockId, clock_gettime};

use crate::{Error, floor, latency, memory, producer, sink};

/// How a child learns where the sink is and whom to trust.
const URL: &str = "SINK_URL";
const CERTIFICATE: &str = "SINK_CERTIFICATE";
/// How a child learns that requests are in JSON, and not in CBOR.
const JSON: &str = "SEND_JSON";

#[derive(Subcommand, Clone, Copy)]
#[command(hide = true)]
pub(crate) enum Role {
    /// Answers PutRecords.
    Sink {
        /// Takes requests and never answers PutRecords.
        #[arg(long)]
        stalled: bool,
    },
    /// Puts records with one loop.
    Floor(Put),
    /// Puts records with the producer.
    Producer(Put),
    /// Times the producer's receipts.
    AckLatency {
        #[arg(long)]
        seconds: u64,
    },
    /// Times the sink's answers.
    SinkLatency {
        #[arg(long)]
        seconds: u64,
    },
    /// Fills the buffer while nothing is answered.
    Stalled {
        #[arg(long)]
        record_bytes: usize,
        #[arg(long)]
        millis: u64,
    },
}

#[derive(Args, Clone, Copy)]
pub(crate) struct Put {
    #[arg(long)]
    pub(crate) record_bytes: usize,
    #[arg(long)]
    pub(crate) records: usize,
}

impl Role {
    pub(crate) fn put(record_bytes: usize, records: usize) -> Put {
        Put { record_bytes, records }
    }

    fn arguments(self) -> Vec<String> {
        let words = match self {
            Self::Sink { stalled: false } => "sink".to_owned(),
            Self::Sink { stalled: true } => "sink --stalled".to_owned(),
            Self::Floor(put) => format!("floor {put}"),
            Self::Producer(put) => format!("producer {put}"),
            Self::AckLatency { seconds } => format!("ack-latency --seconds {seconds}"),
            Self::SinkLatency { seconds } => format!("sink-latency --seconds {seconds}"),
            Self::Stalled { record_bytes, millis } => {
                format!("stalled --record-bytes {record_bytes} --millis {millis}")
            }
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

impl std::fmt::Display for Put {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { record_bytes, records } = self;
        write!(f, "--record-bytes {record_bytes} --records {records}")
    }
}

/// What a role measured, as the `name=value` words it printed.
pub(crate) struct Figures(HashMap<String, f64>);

impl Figures {
    /// A figure; not a number if the role did not print it.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(f64::NAN)
    }
}

/// The sink's process, until it is dropped.
pub(crate) struct Sink {
    child: Child,
    url: String,
    certificate: String,
    is_json: bool,
}

impl Sink {
    /// `is_json`: the encoding of the requests that the roles send to it.
    pub(crate) fn start(stalled: bool, is_json: bool) -> Result<Self, Error> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(Role::Sink { stalled }.arguments())
            .stdout(Stdio::piped())
            .spawn()?;
        // The certificate is the rest, up to an empty line.
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let url = lines.next().ok_or("the sink ended")??;
        let certificate = lines
            .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
            .collect::<Result<Vec<_>, _>>()?
            .join("\n");
        Ok(Self { child, url, certificate, is_json })
    }

    /// Runs a role against this sink, to its end.
    pub(crate) fn run(&self, role: Role) -> Result<Figures, Error> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(role.arguments())
            .env(URL, &self.url)
            .env(CERTIFICATE, &self.certificate)
            .envs(self.is_json.then_some((JSON, "")))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut printed = String::new();
        child.stdout.take().ok_or("no output")?.read_to_string(&mut printed)?;
        let status = child.wait()?;
        if !status.success() {
            return Err(format!("{:?} ended with {status}", role.arguments()).into());
        }
        let words = printed.split_whitespace();
        let figures = words.filter_map(|word| word.split_once('='));
        let figures = figures.filter_map(|(name, value)| Some((name.into(), value.parse().ok()?)));
        Ok(Figures(figures.collect()))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs this process as `role`.
pub(crate) fn play(role: Role) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match role {
            Role::Sink { stalled } => sink::serve(stalled).await,
            Role::Floor(put) => floor::run(put).await,
            Role::Producer(put) => producer::run(put).await,
            Role::AckLatency { seconds } => latency::of_the_producer(seconds).await,
            Role::SinkLatency { seconds } => latency::of_the_sink(seconds).await,
            Role::Stalled { record_bytes, millis } => memory::run(record_bytes, millis).await,
        }
    })
}

/// The encoding of both sides' requests.
pub(crate) fn wire() -> Wire {
    if std::env::var_os(JSON).is_some() { Wire::Json } else { Wire::Cbor }
}

pub(crate) fn sink_address() -> Result<(String, String), Error> {
    Ok((std::env::var(URL)?, std::env::var(CERTIFICATE)?))
}

/// CPU time of this process so far, all threads, user and system, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
