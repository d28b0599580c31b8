//! The main job under load: records of mixed sizes through shards that split and merge, read by
//! worker processes of which one is killed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kinesis_testkit::{LocalAws, Verdict};
use kpl::{Delivery, Producer, UserRecord};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::worker_process::{Program, STREAM, Seen, Worker};
use crate::workload::Workload;
use crate::{Error, reshard};

/// A run of the main job.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// How many records are sent.
    pub records: u64,
    /// Seed of the sizes and keys.
    pub seed: u64,
    /// Failover time of the workers.
    pub failover: Duration,
    /// The program whose `consume` command is a worker.
    pub program: PathBuf,
    /// Give up when nothing was seen for this long.
    pub stalled: Duration,
}

/// The result of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// The ledger's judgement.
    pub verdict: Verdict,
    /// Deliveries that were repeated before a worker was killed. There must be none.
    pub redelivered_before_the_kill: u64,
    /// Records that the producer reported as failed.
    pub failed: u64,
    /// Bytes of payload sent.
    pub bytes: u64,
    /// Ids of acknowledged records that were never seen.
    pub lost_ids: Vec<u64>,
    /// Receipts that name a shard and sequence number where the stream has no such record.
    pub false_receipts: u64,
    /// Processors started, by worker.
    pub ownerships: HashMap<u64, u64>,
}

/// Runs the scenario; `progress` is told how many records were acknowledged and seen.
pub async fn run(
    scenario: &Scenario,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<Outcome, Error> {
    let aws = LocalAws::start().await?;
    aws.create_stream(STREAM, 3).await?;
    let seen = Arc::new(Seen::default());
    let program = Program {
        path: &scenario.program,
        failover: scenario.failover,
        deadline: Duration::from_secs(60),
        url: aws.kinesis_url(),
        fan_out: false,
        certificate: None,
    };
    let first = Worker::start(&program, 1, &seen)?;
    let second = Worker::start(&program, 2, &seen)?;
    if !seen.until(scenario.stalled, |state| state.ownerships.len() == 2).await {
        return Err("a worker got no shard".into());
    }

    let producer = Producer::builder(STREAM, &aws.sdk_config()).seed(scenario.seed).build().await?;
    let (open, receipts) = mpsc::channel(10_000);
    let collector = tokio::spawn(collect(receipts, Arc::clone(&seen), progress));
    let mut bytes = 0;
    let mut killed = None;
    let mut first = Some(first);
    let kinesis = aws.kinesis();
    let mut resharding: Vec<JoinHandle<Result<(), Error>>> = Vec::new();
    for item in Workload::new(scenario.seed).take(scenario.records as usize) {
        match item.id * 8 / scenario.records.max(1) {
            step @ (2 | 4) if resharding.len() < step as usize / 2 => {
                let kinesis = kinesis.clone();
                resharding.push(tokio::spawn(async move {
                    if step == 2 {
                        reshard::split_first(&kinesis, STREAM).await
                    } else {
                        reshard::merge_last_two(&kinesis, STREAM).await
                    }
                }));
            }
            3 if killed.is_none() => {
                killed = Some(seen.state().ledger.verdict().redelivered);
                if let Some(worker) = first.take() {
                    worker.kill().await?;
                }
            }
            _ => {}
        }
        bytes += item.data.len() as u64;
        let delivery = producer.send(UserRecord::new(item.key, item.data)).await?;
        open.send((item.id, delivery)).await?;
    }
    drop(open);
    producer.flush().await;
    for task in resharding {
        task.await??;
    }
    let collected = collector.await?;
    producer.close(Duration::from_secs(60)).await;
    seen.until(scenario.stalled, |state| state.ledger.is_settled()).await;
    second.stop().await?;

    let mut false_receipts = collected.receipts;
    for shard in aws.records(STREAM) {
        for record in shard.records {
            false_receipts.remove(&(shard.shard_id.clone(), record.sequence_number));
        }
    }
    let state = seen.state();
    Ok(Outcome {
        verdict: state.ledger.verdict(),
        redelivered_before_the_kill: killed.unwrap_or_default(),
        failed: collected.failed,
        bytes,
        lost_ids: state.ledger.lost_ids(),
        false_receipts: false_receipts.values().sum(),
        ownerships: state.ownerships.clone(),
    })
}

#[derive(Debug, Default)]
struct Collected {
    failed: u64,
    /// Receipts by the shard and sequence number that they name.
    receipts: HashMap<(String, String), u64>,
}

async fn collect(
    mut open: mpsc::Receiver<(u64, Delivery)>,
    seen: Arc<Seen>,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Collected {
    let mut collected = Collected::default();
    while let Some((id, delivery)) = open.recv().await {
        let Ok(receipt) = delivery.await else {
            collected.failed += 1;
            continue;
        };
        let place = (receipt.shard_id.to_string(), receipt.sequence_number.to_string());
        *collected.receipts.entry(place).or_default() += 1;
        let mut state = seen.state();
        state.ledger.acknowledged(id);
        if id % 128 == 0 {
            let verdict = state.ledger.verdict();
            progress(verdict.acknowledged, verdict.acknowledged - verdict.lost);
        }
        drop(state);
        seen.changed.notify_waiters();
    }
    collected
}
