//! A worker of either kind, in a process of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::event::{Kind, Lines};
use super::seen::Seen;
use crate::Error;

/// The paths of programs and files, and the settings of all workers.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The program `java`.
    pub java: PathBuf,
    /// Where `interop.Worker` and the Java library are.
    pub classpath: String,
    /// The program whose `consume` command is a worker of ours.
    pub program: PathBuf,
    /// Each worker's log goes into a file here.
    pub logs: PathBuf,
    /// Failover time of every worker.
    pub failover: Duration,
    /// How often a Java leader assigns.
    pub assignment: Duration,
}

/// The settings that the workers of one fleet share.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) url: String,
    pub(super) application: String,
    pub(super) stream: String,
    /// How a Java worker reads: `polling`, or its `default`.
    pub(super) retrieval: &'static str,
}

impl Settings {
    /// Its log.
    pub(super) fn log(&self, tools: &Tools, name: &str) -> PathBuf {
        tools.logs.join(format!("{}-{name}.log", self.application))
    }

    fn command(&self, tools: &Tools, kind: Kind, name: &str) -> Command {
        let failover = tools.failover.as_millis().to_string();
        let mut command = match kind {
            Kind::Rust => {
                let mut command = Command::new(&tools.program);
                command.args(["consume", "--url", &self.url, "--stamps"]);
                command.env("RUST_LOG", "kcl=info");
                command
            }
            Kind::Java => {
                let mut command = Command::new(&tools.java);
                // They start several at a time, on small machines.
                command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"]);
                command.args(["-cp", &tools.classpath, "interop.Worker"]);
                command.args(["--kinesis", &self.url, "--dynamodb", &self.url]);
                command.args(["--stamps", "true", "--retrieval", self.retrieval]);
                // These intervals are shorter than the library's own, and change nothing else.
                let assignment = tools.assignment.as_millis().to_string();
                command.args(["--assignment-ms", &assignment, "--shard-sync-ms", "1000"]);
                command.args(["--parent-poll-ms", "500", "--dispatch-ms", "200"]);
                command
            }
        };
        command.args(["--application", &self.application, "--stream", &self.stream]);
        command.args(["--worker", name, "--failover-ms", &failover]);
        command
    }
}

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    number: u32,
    pub(super) name: String,
    seen: Arc<Seen>,
    process: Child,
    /// Ends with the process's output.
    reader: JoinHandle<Result<(), std::io::Error>>,
}

impl Worker {
    pub(super) fn start(
        settings: &Settings,
        tools: &Tools,
        kind: Kind,
        name: &str,
        seen: &Arc<Seen>,
    ) -> Result<Self, Error> {
        let mut process = settings
            .command(tools, kind, name)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(settings.log(tools, name))?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        let number = seen.update(|state| state.join(name));
        let out = process.stdout.take().ok_or("no standard output")?;
        let noted = Arc::clone(seen);
        let reader = tokio::spawn(async move {
            let mut reader = Lines::new(number, kind);
            let mut lines = BufReader::new(out).lines();
            while let Some(line) = lines.next_line().await? {
                if let Some(event) = reader.read(&line) {
                    noted.update(|state| state.note(event));
                }
            }
            noted.update(|state| state.gone(number));
            Ok(())
        });
        Ok(Self { number, name: name.to_owned(), seen: Arc::clone(seen), process, reader })
    }

    /// Sends SIGKILL. Lines that the process had written to its pipe still count.
    pub(super) async fn kill(mut self) -> Result<(), Error> {
        self.seen.update(|state| state.release(self.number));
        self.process.kill().await?;
        Ok(self.reader.await??)
    }

    /// Sends SIGTERM, as an orchestrator does, and waits until the process has ended.
    pub(super) async fn terminate(mut self) -> Result<(), Error> {
        self.seen.update(|state| state.release(self.number));
        let id = self.process.id().ok_or("it has ended already")?;
        let kill = format!("kill -TERM {id}");
        let sent = Command::new("sh").args(["-c", &kill]).status().await?;
        let status = self.process.wait().await?;
        // A JVM that ends by the signal says so, after all its work is done.
        let ended = status.success() || status.code() == Some(128 + 15);
        if !sent.success() || !ended {
            return Err(format!("{} ended with {status}", self.name).into());
        }
        Ok(self.reader.await??)
    }
}
