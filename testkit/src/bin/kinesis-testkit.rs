//! The embedded Kinesis and DynamoDB on ports of the loopback address, for programs in any language.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use kinesis_testkit::{LocalAws, Service};

/// Serves an embedded Kinesis and DynamoDB on ports of 127.0.0.1, until SIGTERM or SIGINT.
///
/// When both serve it prints one line, `ready kinesis=URL dynamodb=URL`, with ` tls=URL` at its end
/// if asked for. Each port answers both services. Region and credentials can be anything; ARNs say
/// us-east-1. Everything is in memory, and gone at the end, unless it is kept with --data.
///
/// Faults are listed, added and cleared at run time by GET, POST and DELETE of /_testkit/faults, on
/// each port.
#[derive(Debug, Parser)]
struct Args {
    /// Port of Kinesis; 0: a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    kinesis_port: u16,
    /// Port of DynamoDB; 0: a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    dynamodb_port: u16,
    /// A stream to begin with, such as orders:4; can be given more than once. One that the data file
    /// has already stays as it is.
    #[arg(long = "stream", value_name = "NAME:SHARDS")]
    streams: Vec<NewStream>,
    /// Limit what goes into and out of a shard, as AWS does.
    #[arg(long)]
    shard_limits: bool,
    /// Let in only requests that are signed with this access key and secret.
    #[arg(long, value_name = "KEY:SECRET")]
    credentials: Option<AccessKey>,
    /// Deny an operation, such as kinesis:PutRecords or dynamodb:Query; can be given more than once.
    #[arg(long = "deny", value_name = "SERVICE:OPERATION")]
    denied: Vec<Denied>,
    /// Refuse requests that are signed for another region than us-east-1.
    #[arg(long)]
    check_region: bool,
    /// Refuse requests that are signed more than five minutes before or after the time of this host.
    #[arg(long)]
    check_time: bool,
    /// How long streams and consumers take to be created, changed and deleted, such as 500ms.
    /// [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    transition_time: Option<Duration>,
    /// How long a shard iterator can be used, such as 30s. [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    iterator_lifetime: Option<Duration>,
    /// Keep streams and tables in this file, and begin with what it holds. A kill loses what was done
    /// in the last second or so; a stop loses nothing.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Faults to begin with: a JSON array, as in the README.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Serve both over TLS too, with a certificate made at the start.
    #[arg(long)]
    tls: bool,
    /// Port of TLS; 0: a free one. [default: 0]
    #[arg(long, value_name = "PORT", requires = "tls")]
    tls_port: Option<u16>,
    /// Where to write the certificate for clients to trust, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls")]
    cert_out: Option<PathBuf>,
}

#[derive(Debug, Clone)]
struct NewStream {
    name: String,
    shards: u32,
}

impl FromStr for NewStream {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, shards) = text.rsplit_once(':').ok_or("write it as NAME:SHARDS")?;
        Ok(Self {
            name: name.to_owned(),
            shards: shards
                .parse()
                .map_err(|_| "the number of shards, after the colon, is not a number")?,
        })
    }
}

/// The only access key there is.
#[derive(Clone)]
struct AccessKey {
    id: String,
    secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, secret: _ } = self;
        f.debug_struct("AccessKey").field("id", id).finish_non_exhaustive()
    }
}

impl FromStr for AccessKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = text.split_once(':');
        let pair = pair.filter(|(id, secret)| !id.is_empty() && !secret.is_empty());
        let (id, secret) = pair.ok_or("write it as KEY:SECRET")?;
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }
}

/// An operation that is denied to every caller.
#[derive(Debug, Clone)]
struct Denied {
    service: Service,
    operation: String,
}

impl FromStr for Denied {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write it as kinesis:OPERATION or dynamodb:OPERATION";
        let (service, operation) = text.split_once(':').ok_or(wrong)?;
        let service = match service {
            "kinesis" => Service::Kinesis,
            "dynamodb" => Service::DynamoDb,
            _ => return Err(wrong),
        };
        if operation.is_empty() {
            return Err(wrong);
        }
        Ok(Self { service, operation: operation.to_owned() })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_sources(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    // From here on a signal is not lost, nor does it end the process in the middle.
    let stop = StopSignal::listen()?;
    let mut builder = LocalAws::builder()
        .kinesis_port(args.kinesis_port)
        .dynamodb_port(args.dynamodb_port)
        .shard_limits(args.shard_limits)
        .check_region(args.check_region)
        .check_time(args.check_time);
    if let Some(AccessKey { id, secret }) = args.credentials {
        builder = builder.credentials(id, secret);
    }
    for Denied { service, operation } in args.denied {
        builder = builder.deny(service, operation);
    }
    if let Some(time) = args.transition_time {
        builder = builder.transition_time(time);
    }
    if let Some(lifetime) = args.iterator_lifetime {
        builder = builder.iterator_ttl(lifetime);
    }
    if let Some(file) = &args.data {
        builder = builder.data(file);
    }
    if args.tls {
        builder = builder.tls_port(args.tls_port.unwrap_or(0));
    }
    let aws = builder.build().await?;
    for NewStream { name, shards } in &args.streams {
        match aws.create_stream(name, *shards).await {
            Ok(()) => {}
            // It was kept.
            Err(error) if args.data.is_some() && error.code == "ResourceInUseException" => {}
            Err(error) => return Err(format!("--stream {name}:{shards} was {error}").into()),
        }
    }
    if let Some(file) = &args.faults {
        let script = std::fs::read_to_string(file)
            .map_err(|error| format!("could not read {}: {error}", file.display()))?;
        let loaded = aws.faults().load(&script);
        loaded.map_err(|error| format!("{}: {}", file.display(), with_sources(&error)))?;
    }
    if let (Some(file), Some(certificate)) = (&args.cert_out, aws.certificate_pem()) {
        std::fs::write(file, certificate)
            .map_err(|error| format!("could not write {}: {error}", file.display()))?;
    }
    let (kinesis, dynamodb) = (aws.kinesis_url(), aws.dynamodb_url());
    let mut ready = format!("ready kinesis={kinesis} dynamodb={dynamodb}");
    if let Some(tls) = aws.tls_url() {
        write!(ready, " tls={tls}")?;
    }
    let mut stdout = io::stdout();
    writeln!(stdout, "{ready}")?;
    stdout.flush()?;
    stop.received().await?;
    aws.stop().map_err(|error| format!("the last state was not written: {error}"))?;
    Ok(())
}

fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// SIGTERM or SIGINT, or Ctrl-C where there are no signals.
struct StopSignal {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl StopSignal {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn received(mut self) -> io::Result<()> {
        tokio::select! {
            _ = self.terminate.recv() => Ok(()),
            _ = self.interrupt.recv() => Ok(()),
        }
    }
}

#[cfg(not(unix))]
impl StopSignal {
    fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn received(self) -> io::Result<()> {
        tokio::signal::ctrl_c().await
    }
}
