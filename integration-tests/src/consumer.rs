//! A consumer worker as a process of its own, which reports every delivery on its standard output
//! and can be killed at any point.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kcl::{
    ConsumerConfig, FanOutConfig, HealthStatus, InitialPosition, ProblemKind, ProcessorError,
    RecordBatch, RecordProcessor, RetrievalMode, Scheduler, ShardContext, ShardEnd, ShardShutdown,
    Shutdown, WorkerHandle,
};
use kinesis_testkit::{Delivery, Position};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::{Error, workload};

/// The arguments of the process.
#[derive(Debug, Clone, clap::Args)]
pub struct ConsumerArgs {
    /// Endpoint that answers Kinesis and DynamoDB.
    #[arg(long)]
    pub url: String,
    /// Application, and so the lease table.
    #[arg(long)]
    pub application: String,
    /// Stream to read.
    #[arg(long)]
    pub stream: String,
    /// This worker.
    #[arg(long)]
    pub worker: String,
    /// Failover time of the fleet, in milliseconds.
    #[arg(long)]
    pub failover_ms: u64,
    /// Deadline of the planned stop, in milliseconds.
    #[arg(long, default_value_t = 60_000)]
    pub deadline_ms: u64,
    /// Read by enhanced fan-out.
    #[arg(long)]
    pub fan_out: bool,
    /// Begin each line with the time, in microseconds of the epoch.
    #[arg(long)]
    pub stamps: bool,
}

/// One line of a consumer's standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A processor started on a shard.
    Started {
        /// Number of the ownership in this process.
        ownership: u64,
        /// Its shard.
        shard: String,
    },
    /// A record was delivered.
    Delivered {
        /// Number of the ownership in this process.
        ownership: u64,
        /// The record's id.
        id: u64,
        /// Its position in the shard.
        position: Position,
        /// Its partition key.
        key: String,
    },
    /// A shard was read to its end.
    Ended {
        /// Number of the ownership in this process.
        ownership: u64,
    },
    /// A shard was given up on request.
    Released {
        /// Number of the ownership in this process.
        ownership: u64,
    },
    /// A lease was lost.
    Lost {
        /// Number of the ownership in this process.
        ownership: u64,
    },
    /// The health of the worker has changed. It was healthy at the start.
    Health {
        /// True if there is no problem.
        is_healthy: bool,
        /// True if a shard cannot be read.
        reads_fail: bool,
    },
    /// The planned stop is over.
    Stopped {
        /// Shards whose leases were given up in order.
        drained: u64,
        /// Shards whose processors stopped, and whose leases were left to expire.
        left_to_expire: u64,
        /// Shards whose processors were aborted.
        aborted: u64,
    },
}

impl Report {
    /// The line, without its end.
    pub fn to_line(&self) -> String {
        match self {
            Self::Started { ownership, shard } => format!("S {ownership} {shard}"),
            Self::Delivered { ownership, id, position, key } => format!(
                "D {ownership} {id} {} {} {key}",
                position.sequence_number, position.sub_sequence_number
            ),
            Self::Ended { ownership } => format!("E {ownership}"),
            Self::Released { ownership } => format!("R {ownership}"),
            Self::Lost { ownership } => format!("L {ownership}"),
            Self::Health { is_healthy, reads_fail } => {
                format!("H {} {}", u8::from(*is_healthy), u8::from(*reads_fail))
            }
            Self::Stopped { drained, left_to_expire, aborted } => {
                format!("T {drained} {left_to_expire} {aborted}")
            }
        }
    }

    /// Reads a line back; `None` for one that was cut off by a kill.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let mut number = || words.next()?.parse().ok();
        let ownership = number()?;
        if kind == "H" {
            return Some(Self::Health { is_healthy: ownership == 1, reads_fail: number()? == 1 });
        }
        if kind == "T" {
            return Some(Self::Stopped {
                drained: ownership,
                left_to_expire: number()?,
                aborted: number()?,
            });
        }
        Some(match kind {
            "S" => Self::Started { ownership, shard: words.next()?.to_owned() },
            "D" => Self::Delivered {
                ownership,
                id: words.next()?.parse().ok()?,
                position: Position {
                    sequence_number: words.next()?.to_owned(),
                    sub_sequence_number: words.next()?.parse().ok()?,
                },
                key: words.next()?.to_owned(),
            },
            "E" => Self::Ended { ownership },
            "R" => Self::Released { ownership },
            "L" => Self::Lost { ownership },
            _ => return None,
        })
    }

    /// The delivery that the line reports, for the ledger; ownerships of different processes must
    /// not collide, so the process adds its own number.
    pub fn delivery(&self, process: u64) -> Option<Delivery<'_>> {
        let Self::Delivered { ownership, id, position, key } = self else {
            return None;
        };
        Some(Delivery {
            ownership: process << 32 | ownership,
            id: *id,
            key,
            position: position.clone(),
        })
    }
}

/// Writes each report before it checkpoints, so nothing is checkpointed that was not reported.
struct Reporter {
    ownership: u64,
    stamps: bool,
}

impl Reporter {
    fn report(&self, reports: impl IntoIterator<Item = Report>) -> Result<(), ProcessorError> {
        let mut out = std::io::stdout().lock();
        for report in reports {
            if self.stamps {
                write!(out, "{} ", epoch_micros())?;
            }
            writeln!(out, "{}", report.to_line())?;
        }
        out.flush()?;
        Ok(())
    }
}

impl RecordProcessor for Reporter {
    async fn initialize(&mut self, shard: &ShardContext) -> Result<(), ProcessorError> {
        self.report([Report::Started {
            ownership: self.ownership,
            shard: shard.shard_id().to_owned(),
        }])
    }

    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        let mut reports = Vec::with_capacity(batch.len());
        for record in batch.records() {
            reports.push(Report::Delivered {
                ownership: self.ownership,
                id: workload::id_of(record.data()).ok_or("a payload that this run did not send")?,
                position: Position {
                    sequence_number: record.sequence_number().to_string(),
                    sub_sequence_number: record.sub_sequence_number(),
                },
                key: record
                    .partition_key()
                    .ok_or("a record without a key, which this run did not send")?
                    .to_owned(),
            });
        }
        self.report(reports)?;
        batch.checkpointer().checkpoint().await?;
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        self.report([Report::Ended { ownership: self.ownership }])?;
        end.checkpoint().await?;
        Ok(())
    }

    async fn lease_lost(&mut self) {
        // A closed pipe means that the parent has gone: the report has no reader.
        let _ = self.report([Report::Lost { ownership: self.ownership }]);
    }

    async fn shutdown_requested(&mut self, _shutdown: Shutdown<'_>) -> Result<(), ProcessorError> {
        // Each batch was checkpointed.
        self.report([Report::Released { ownership: self.ownership }])
    }
}

/// The time of the machine, so that the lines of several processes can be put in order.
#[allow(clippy::disallowed_methods, reason = "a process that has one clock")]
pub fn epoch_micros() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// Runs until SIGTERM comes or standard input closes, then stops as planned.
pub async fn consume(args: ConsumerArgs) -> Result<(), Error> {
    // The handler is in place before there is anything to stop.
    let mut terminated = signal(SignalKind::terminate())?;
    let ownerships = Arc::new(AtomicU64::new(0));
    let sdk_config = crate::sdk_config(&args.url);
    let failover = Duration::from_millis(args.failover_ms);
    let retrieval = match args.fan_out {
        true => RetrievalMode::FanOut(FanOutConfig::default()),
        false => RetrievalMode::Polling,
    };
    let worker = Scheduler::builder(&args.application, &args.stream, &sdk_config)
        .processor(move |_shard: &ShardContext| Reporter {
            ownership: ownerships.fetch_add(1, Ordering::Relaxed),
            stamps: args.stamps,
        })
        .config(
            ConsumerConfig::default()
                .with_retrieval(retrieval)
                .with_worker_id(args.worker)
                .with_initial_position(InitialPosition::TrimHorizon)
                .with_failover_time(failover)
                .with_dynamodb_request_timeout(failover / 4),
        )
        .build()
        .await?;
    let handle = worker.spawn();
    // A thread that the end of the runtime does not wait for.
    let (gone, parent_gone) = oneshot::channel();
    std::thread::spawn(move || {
        let read = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = gone.send(read);
    });
    let reporter = Reporter { ownership: 0, stamps: args.stamps };
    tokio::select! {
        _ = terminated.recv() => {}
        read = parent_gone => { read??; }
        reported = report_health(&handle, &reporter) => {
            return Err(reported.map_or_else(|error| error.to_string(), |never| match never {}).into());
        }
    }
    let deadline = Duration::from_millis(args.deadline_ms);
    let report = handle.shutdown(deadline).await?;
    let expires = |outcome: &&ShardShutdown| matches!(outcome, ShardShutdown::LeftToExpire { .. });
    let stopped = Report::Stopped {
        drained: report.drained.len() as u64,
        left_to_expire: report.shards.values().filter(expires).count() as u64,
        aborted: report.aborted.len() as u64,
    };
    reporter.report([stopped]).map_err(|error| error.to_string())?;
    Ok(())
}

/// Reports each change of the worker's health.
async fn report_health(
    worker: &WorkerHandle,
    reporter: &Reporter,
) -> Result<Infallible, ProcessorError> {
    let mut last = Report::Health { is_healthy: true, reads_fail: false };
    loop {
        let health = worker.health();
        let reads_fail =
            health.problems.iter().any(|problem| problem.kind == ProblemKind::ReadsFailing);
        let is_healthy = health.status == HealthStatus::Healthy;
        let now = Report::Health { is_healthy, reads_fail };
        if now != last {
            reporter.report([now.clone()])?;
            last = now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back() {
        let position = Position { sequence_number: "496".into(), sub_sequence_number: 3 };
        for report in [
            Report::Started { ownership: 1, shard: "shardId-000000000000".into() },
            Report::Delivered { ownership: 2, id: 77, position, key: "key-1".into() },
            Report::Ended { ownership: 3 },
            Report::Released { ownership: 4 },
            Report::Lost { ownership: 5 },
            Report::Health { is_healthy: true, reads_fail: false },
            Report::Health { is_healthy: false, reads_fail: true },
            Report::Stopped { drained: 1, left_to_expire: 2, aborted: 3 },
        ] {
            assert_eq!(Report::from_line(&report.to_line()), Some(report));
        }
        assert_eq!(Report::from_line("D 2 77 49"), None);
        assert_eq!(Report::from_line(""), None);
    }
}
