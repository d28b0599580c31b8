//! Workers as processes of their own, and their reports.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kinesis_testkit::Ledger;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::Error;
use crate::consumer::Report;

/// The stream of every run.
pub(crate) const STREAM: &str = "orders";
/// The application of every run.
pub(crate) const APPLICATION: &str = "billing";

/// What all workers of a run have seen.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    /// Processors started, by worker.
    pub(crate) ownerships: HashMap<u64, u64>,
    /// Processors that were not told to stop, by worker and number.
    running: HashSet<(u64, u64)>,
    /// Processors that were asked to stop, by worker.
    pub(crate) asked: HashMap<u64, u64>,
    /// The last report of the health of each worker that was not healthy.
    pub(crate) health: HashMap<u64, Report>,
    /// Reports of planned stops, by worker.
    pub(crate) stopped: HashMap<u64, Report>,
}

impl State {
    /// Shards that a worker is processing.
    pub(crate) fn running(&self, worker: u64) -> usize {
        let of_worker = self.running.iter().filter(|(number, _)| *number == worker);
        of_worker.count()
    }

    fn note(&mut self, worker: u64, report: &Report) {
        match report {
            Report::Started { ownership, .. } => {
                *self.ownerships.entry(worker).or_default() += 1;
                self.running.insert((worker, *ownership));
            }
            Report::Delivered { .. } => {
                if let Some(delivery) = report.delivery(worker) {
                    self.ledger.delivered(delivery);
                }
            }
            Report::Released { ownership } => {
                self.running.remove(&(worker, *ownership));
                *self.asked.entry(worker).or_default() += 1;
            }
            Report::Ended { ownership } | Report::Lost { ownership } => {
                self.running.remove(&(worker, *ownership));
            }
            Report::Health { .. } => {
                self.health.insert(worker, report.clone());
            }
            Report::Stopped { .. } => {
                self.stopped.insert(worker, report.clone());
            }
        }
    }
}

/// The state, shared with the tasks that read the workers' reports.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    state: Mutex<State>,
    pub(crate) changed: Notify,
}

impl Seen {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done`. False if nothing changed for `stalled`.
    pub(crate) async fn until(&self, stalled: Duration, done: impl Fn(&State) -> bool) -> bool {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(&self.state()) {
                return true;
            }
            if tokio::time::timeout(stalled, changed).await.is_err() {
                return false;
            }
        }
    }
}

/// The program and the settings of a worker process.
#[derive(Debug, Clone)]
pub(crate) struct Program<'a> {
    /// The program whose `consume` command is a worker.
    pub(crate) path: &'a Path,
    /// Failover time of the workers.
    pub(crate) failover: Duration,
    /// Deadline of a planned stop.
    pub(crate) deadline: Duration,
    /// Where Kinesis and DynamoDB are.
    pub(crate) url: &'a str,
    /// Read by enhanced fan-out.
    pub(crate) fan_out: bool,
    /// A file with the only certificate that the workers trust. `None`: those of the system.
    pub(crate) certificate: Option<&'a Path>,
}

/// Sends a signal to a process.
pub(crate) async fn signal(process: &Child, name: &str) -> Result<(), Error> {
    let id = process.id().ok_or("the process has ended already")?;
    let kill = format!("kill -{name} {id}");
    let sent = Command::new("sh").args(["-c", &kill]).status().await?;
    if sent.success() {
        Ok(())
    } else {
        Err(format!("SIG{name} could not be sent to process {id}").into())
    }
}

/// A running worker.
pub(crate) struct Worker {
    number: u64,
    process: Child,
    reader: JoinHandle<Result<(), std::io::Error>>,
}

impl Worker {
    pub(crate) fn start(
        program: &Program<'_>,
        number: u64,
        seen: &Arc<Seen>,
    ) -> Result<Self, Error> {
        let mut command = Command::new(program.path);
        if let Some(certificate) = program.certificate {
            command.env("SSL_CERT_FILE", certificate);
        }
        let mut process = command
            .args([
                "consume",
                "--url",
                program.url,
                "--application",
                APPLICATION,
                "--stream",
                STREAM,
            ])
            .args(["--worker", &format!("worker-{number}")])
            .args(["--failover-ms", &program.failover.as_millis().to_string()])
            .args(["--deadline-ms", &program.deadline.as_millis().to_string()])
            .args(program.fan_out.then_some("--fan-out"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let out = process.stdout.take().ok_or("the worker has no standard output")?;
        let seen = Arc::clone(seen);
        let reader = tokio::spawn(async move {
            let mut lines = BufReader::new(out).lines();
            while let Some(line) = lines.next_line().await? {
                let Some(report) = Report::from_line(&line) else {
                    continue;
                };
                seen.state().note(number, &report);
                seen.changed.notify_waiters();
            }
            Ok(())
        });
        Ok(Self { number, process, reader })
    }

    /// Sends SIGKILL. Lines that the process had written to its pipe still count.
    pub(crate) async fn kill(mut self) -> Result<(), Error> {
        self.process.kill().await?;
        self.reader.await??;
        Ok(())
    }

    /// A planned stop.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        drop(self.process.stdin.take());
        self.ended().await
    }

    /// Sends SIGTERM, as an orchestrator does, and waits until the process has ended.
    pub(crate) async fn terminate(mut self) -> Result<(), Error> {
        signal(&self.process, "TERM").await?;
        self.ended().await
    }

    async fn ended(&mut self) -> Result<(), Error> {
        let status = self.process.wait().await?;
        (&mut self.reader).await??;
        if status.success() {
            Ok(())
        } else {
            Err(format!("worker-{} ended with {status}", self.number).into())
        }
    }
}
