//! One application on one stream: its workers, the signals to them, and the result.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::types::Shard;
use kinesis_testkit::LocalAws;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::event::Kind;
use super::judge::{Change, Judgement, judge};
use super::seen::{Seen, State};
use super::table::{self, Table};
use super::worker::{Settings, Tools, Worker};
use super::writer;
use crate::consumer::epoch_micros;
use crate::{Error, reshard};

const STREAM: &str = "orders";
pub(super) const SHARDS: usize = 4;
/// Time between two reads of the table.
const LOOK: Duration = Duration::from_millis(100);

/// A run of one application.
#[derive(Debug)]
pub(super) struct Fleet {
    tools: Tools,
    settings: Settings,
    aws: LocalAws,
    pub(super) seen: Arc<Seen>,
    begun: u64,
    limit: Duration,
    /// The scenes so far, with their times.
    scenes: Vec<(&'static str, u64)>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// A stream that is being written to, and no worker.
    pub(super) async fn new(
        tools: &Tools,
        application: &str,
        retrieval: &'static str,
        limit: Duration,
    ) -> Result<Self, Error> {
        let aws = LocalAws::start().await?;
        aws.create_stream(STREAM, SHARDS as u32).await?;
        let settings = Settings {
            url: aws.kinesis_url().to_owned(),
            application: application.to_owned(),
            stream: STREAM.to_owned(),
            retrieval,
        };
        let mut fleet = Self {
            tools: tools.clone(),
            settings,
            aws,
            seen: Arc::default(),
            begun: epoch_micros(),
            limit,
            scenes: Vec::new(),
            stop: CancellationToken::new(),
            tasks: Vec::new(),
        };
        fleet.write();
        fleet.watch();
        Ok(fleet)
    }

    fn write(&mut self) {
        let (kinesis, seen, stop) = (self.aws.kinesis(), Arc::clone(&self.seen), self.stop.clone());
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = writer::write(&kinesis, STREAM, &seen, &stop).await {
                seen.fail(format!("the writer failed: {error}"));
            }
        }));
    }

    fn watch(&mut self) {
        let (dynamodb, seen, stop) =
            (self.aws.dynamodb(), Arc::clone(&self.seen), self.stop.clone());
        let name = self.settings.application.clone();
        self.tasks.push(tokio::spawn(async move {
            while !stop.is_cancelled() {
                match table::look(&dynamodb, &name).await {
                    Ok(Some(table)) => seen.update(|state| state.table = table),
                    Ok(None) => {}
                    Err(error) => seen.fail(format!("the lease table cannot be read: {error}")),
                }
                stop.run_until_cancelled(tokio::time::sleep(LOOK)).await;
            }
        }));
    }

    pub(super) fn start(&self, kind: Kind, name: &str) -> Result<Worker, Error> {
        Worker::start(&self.settings, &self.tools, kind, name, &self.seen)
    }

    fn say(&self, what: &str) {
        let seconds =
            Duration::from_micros(epoch_micros().saturating_sub(self.begun)).as_secs_f64();
        println!("{:<10} {seconds:6.1} s  {what}", self.settings.application);
    }

    /// Begins a scene.
    pub(super) fn scene(&mut self, what: &'static str) {
        self.scenes.push((what, epoch_micros()));
        self.say(&format!("* {what}"));
    }

    /// Waits for a condition, and logs the time since the scene began.
    pub(super) async fn reach(
        &self,
        what: &str,
        done: impl Fn(&State) -> bool,
    ) -> Result<(), Error> {
        let now = epoch_micros();
        let left = self.limit.saturating_sub(Duration::from_micros(now - self.begun));
        if let Err(why) = self.seen.until(left, done).await {
            return Err(format!("still waited for: {what}; {why}").into());
        }
        let scene = self.scenes.last().map_or(self.begun, |(_, at)| *at);
        let took = Duration::from_micros(epoch_micros() - scene).as_secs_f64();
        self.say(&format!("  {what}: after {took:.1} s"));
        Ok(())
    }

    pub(super) fn table(&self) -> Table {
        self.seen.state().table.clone()
    }

    /// True if DynamoDB has the tables that Java workers before 3.5 used.
    pub(super) async fn has_old_tables(&self) -> Result<bool, Error> {
        let tables = self.aws.dynamodb().list_tables().send().await?;
        Ok(tables.table_names() != [self.settings.application.as_str()])
    }

    /// The lines of a worker's log that contain a text.
    pub(super) fn logged(&self, worker: &str, what: &str) -> Result<Vec<String>, Error> {
        let log = std::fs::read_to_string(self.settings.log(&self.tools, worker))?;
        let found = log.lines().filter(|line| line.contains(what));
        Ok(found.map(str::to_owned).collect())
    }

    /// Shards that are not closed, in the order of their ids.
    pub(super) async fn open_shards(&self) -> Result<Vec<String>, Error> {
        let open = reshard::open_shards(&self.aws.kinesis(), STREAM).await?;
        let mut ids: Vec<String> = open.iter().map(|s| s.shard_id().to_owned()).collect();
        ids.sort();
        Ok(ids)
    }

    /// Splits an open shard in the middle.
    pub(super) async fn split(&self, shard: &str) -> Result<(), Error> {
        let kinesis = self.aws.kinesis();
        let open = reshard::open_shards(&kinesis, STREAM).await?;
        let found: Option<&Shard> = open.iter().find(|open| open.shard_id() == shard);
        reshard::split(&kinesis, STREAM, found.ok_or("it is not open")?).await
    }

    /// Ends the writing. When all records were seen, stops the workers, and lets the oracle judge.
    pub(super) async fn finish(mut self, workers: Vec<Worker>) -> Result<Judgement, Error> {
        self.stop.cancel();
        for task in std::mem::take(&mut self.tasks) {
            task.await?;
        }
        self.scene("the end");
        self.reach("every record was seen", State::is_settled).await?;
        for worker in workers {
            worker.terminate().await?;
        }
        let parents = self.parents().await?;
        let state = self.seen.state();
        let judgement = judge(&state.events, &state.receipts, &parents);
        self.tell_changes(&state, &judgement.changes);
        Ok(judgement)
    }

    async fn parents(&self) -> Result<HashMap<String, Vec<String>>, Error> {
        let answer = self.aws.kinesis().list_shards().stream_name(STREAM).send().await?;
        let parents = answer.shards().iter().map(|shard| {
            let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
            let parents = parents.into_iter().flatten().map(str::to_owned).collect();
            (shard.shard_id().to_owned(), parents)
        });
        Ok(parents.collect())
    }

    /// How long shards were silent in each scene, by the workers they moved between.
    fn tell_changes(&self, state: &State, changes: &[Change]) {
        for (number, (scene, from)) in self.scenes.iter().enumerate() {
            let until = self.scenes.get(number + 1).map_or(u64::MAX, |(_, at)| *at);
            let mut moved: HashMap<(u32, u32), Vec<f64>> = HashMap::new();
            for change in changes.iter().filter(|c| (*from..until).contains(&c.at)) {
                let silences = moved.entry((change.from, change.to)).or_default();
                silences.push(change.silence.as_secs_f64());
            }
            let mut lines: Vec<String> = moved
                .iter()
                .map(|((from, to), silences)| {
                    let silences: Vec<String> =
                        silences.iter().map(|s| format!("{s:.1}")).collect();
                    let (from, to) = (state.name(*from), state.name(*to));
                    format!("{from} -> {to} {}", silences.join(" "))
                })
                .collect();
            lines.sort();
            if !lines.is_empty() {
                self.say(&format!("silence in s, {scene}: {}", lines.join(", ")));
            }
        }
    }
}
