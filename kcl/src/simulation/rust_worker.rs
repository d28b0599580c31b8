//! A worker of ours: the real coordination, and consumers as simple as can be that keep its rules.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::network::Network;
use super::oracle::Kind;
use super::process::{InProcess, Process, worker_id};
use super::world::{FAILOVER, World};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clock::Clock;
use crate::config::{InitialPosition, OnStop};
use crate::coordination::{Coordinator, Shared, SharedParts};
use crate::executor::Executor;
use crate::lease::{LeaseStore, StreamIdentity, Tenure, TenureEnd};
use crate::sequence::ExtendedSequenceNumber;
use crate::shard_sync::{ShardLister, ShardSync};

/// How a worker is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) on_stop: OnStop,
    pub(super) seed: u64,
}

/// Runs a worker until it is told to stop. Within its process.
pub(super) async fn run(
    world: World,
    name: String,
    setting: Setting,
    process: Arc<Process>,
    network: Arc<Network>,
    stop: CancellationToken,
) {
    let store =
        Arc::new(world.store(&name, &network).of_process(setting.seed)) as Arc<dyn LeaseStore>;
    let sync = ShardSync {
        lister: Arc::clone(&world.stream) as Arc<dyn ShardLister>,
        store: Arc::clone(&store),
        position: InitialPosition::TrimHorizon,
        stream: StreamIdentity {
            arn: "arn:simulated".to_owned(),
            created: 1,
        },
        has_entity_type: true,
        clock: Arc::clone(&process) as Arc<dyn Clock>,
        finished: Arc::default(),
    };
    while let Err(error) = sync.run().await {
        world
            .oracle
            .step(&format!("{name} cannot start yet: {error}"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut shared = Shared::new(SharedParts {
        worker_id: worker_id(&name).to_owned(),
        process: setting.seed,
        store,
        sync,
        clock: Arc::clone(&process) as Arc<dyn Clock>,
        failover: FAILOVER,
        max_leases: usize::MAX,
        table_reads: 5,
        on_stop: setting.on_stop,
        sync_interval: Duration::from_secs(20),
        seed: setting.seed,
    });
    shared.executor = Arc::new(InProcess(Arc::clone(&process))) as Arc<dyn Executor>;
    let coordinator = Coordinator::new(shared);
    let mut consumers = Consumers {
        world,
        name,
        process,
        stop: CancellationToken::new(),
        random: Rng::with_seed(setting.seed),
        running: JoinSet::new(),
    };
    let mut tenures = coordinator.start();
    let mut failed = std::pin::pin!(coordinator.failed());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            failure = &mut failed => {
                let what = format!("{}: coordination failed: {failure}", consumers.name);
                consumers.world.oracle.violation(&what);
                break;
            }
            Some(_) = consumers.running.join_next() => {}
            Some(tenure) = tenures.recv() => consumers.start(tenure),
        }
    }
    coordinator.leave().await;
    consumers.drain(&mut tenures).await;
    coordinator.stop().await;
}

struct Consumers {
    world: World,
    name: String,
    process: Arc<Process>,
    stop: CancellationToken,
    random: Rng,
    running: JoinSet<()>,
}

impl Consumers {
    fn start(&mut self, tenure: Tenure) {
        let begun = tenure.clone();
        let oracle = &self.world.oracle;
        let shard = tenure.shard_id().to_owned();
        let consumer = Consumer {
            id: oracle.begin(&self.name, Kind::Rust, &shard, begun),
            shard,
            world: self.world.clone(),
            name: self.name.clone(),
            process: Arc::clone(&self.process),
            stop: self.stop.clone(),
            random: self.random.fork(),
            position: 0,
            tenure,
        };
        let task = self.process.run(consumer.run());
        let (oracle, name) = (Arc::clone(&self.world.oracle), self.name.clone());
        self.running.spawn(async move {
            // Otherwise cancelled: the process has died.
            if task.await.is_err_and(|error| error.is_panic()) {
                oracle.violation(&format!("{name}: a consumer panicked"));
            }
        });
    }

    /// As the scheduler does.
    async fn drain(&mut self, tenures: &mut mpsc::Receiver<Tenure>) {
        self.stop.cancel();
        while !self.running.is_empty() {
            tokio::select! {
                biased;
                Some(_) = self.running.join_next() => {}
                Some(tenure) = tenures.recv() => tenure.end(TenureEnd::GiveAway).await,
            }
        }
        while let Ok(tenure) = tenures.try_recv() {
            tenure.end(TenureEnd::GiveAway).await;
        }
    }
}

/// Why a consumer stops.
enum Stopped {
    Lost,
    Requested,
    /// Nothing is left of the shard.
    Ended,
}

struct Consumer {
    id: u64,
    shard: String,
    world: World,
    name: String,
    process: Arc<Process>,
    stop: CancellationToken,
    random: Rng,
    /// The last record delivered, or checkpointed before.
    position: u64,
    tenure: Tenure,
}

impl Consumer {
    async fn run(mut self) {
        let why = if self.tenure.lease().has_ended() {
            Stopped::Ended
        } else {
            self.process().await
        };
        let oracle = Arc::clone(&self.world.oracle);
        let (id, tenure) = (self.id, self.tenure.clone());
        match why {
            Stopped::Lost => {
                self.haunt();
                oracle.end(id, "lost");
                tenure.end(TenureEnd::Lost).await;
            }
            Stopped::Requested => {
                // The last word, now and then after a long time.
                self.dawdle().await;
                let checkpointed = self.checkpoint(self.at()).await;
                self.haunt();
                oracle.end(
                    id,
                    if checkpointed {
                        "drained"
                    } else {
                        "drained, not said"
                    },
                );
                let handoff = self.tenure.handoff_requested().is_cancelled();
                let how = if handoff {
                    TenureEnd::Transfer
                } else {
                    TenureEnd::GiveAway
                };
                tenure.end(how).await;
            }
            Stopped::Ended => self.end().await,
        }
    }

    async fn process(&mut self) -> Stopped {
        loop {
            if matches!(self.tenure.parents_ended().await, Ok(true)) {
                break;
            }
            if let Some(why) = self.pause(1000, 1001).await {
                return why;
            }
        }
        if let Checkpoint::At(at) = &self.tenure.lease().checkpoint {
            self.position = at.sequence_number.as_str().parse().unwrap_or_default();
        }
        loop {
            // Fetching.
            if let Some(why) = self.pause(5, 300).await {
                return why;
            }
            let most = self.random.usize(1..8);
            let read = self.world.stream.read(&self.shard, self.position, most);
            let mut told = false;
            for sequence in &read.records {
                if !self.tenure.is_held() {
                    return Stopped::Lost;
                }
                self.world.oracle.delivered(self.id, *sequence);
                self.position = *sequence;
                told = true;
                // The processor works on, whatever it is told.
                let work = match self.random.u32(..200) {
                    0 => self.random.u64(1_000..15_000),
                    _ => self.random.u64(..20),
                };
                tokio::time::sleep(Duration::from_millis(work)).await;
            }
            if told && self.random.u32(..3) == 0 {
                self.checkpoint(self.at()).await;
            }
            if read.ended {
                return Stopped::Ended;
            }
        }
    }

    fn at(&self) -> Checkpoint {
        let number = self.position.to_string().parse();
        number.map_or(Checkpoint::TrimHorizon, |number| {
            Checkpoint::At(ExtendedSequenceNumber::new(number, 0))
        })
    }

    /// Waits, unless the shard is to be given up.
    async fn pause(&mut self, from: u64, to: u64) -> Option<Stopped> {
        let pause = Duration::from_millis(self.random.u64(from..to));
        let (lost, handoff) = (self.tenure.lost(), self.tenure.handoff_requested());
        tokio::select! {
            biased;
            () = lost.cancelled() => Some(Stopped::Lost),
            () = handoff.cancelled() => Some(Stopped::Requested),
            () = self.stop.cancelled() => Some(Stopped::Requested),
            () = tokio::time::sleep(pause) => (!self.tenure.is_held()).then_some(Stopped::Lost),
        }
    }

    /// Whether all that was delivered is checkpointed.
    async fn checkpoint(&mut self, checkpoint: Checkpoint) -> bool {
        if checkpoint <= self.tenure.lease().checkpoint || self.position == 0 {
            return true;
        }
        match self.tenure.checkpoint(checkpoint).await {
            Ok(()) => true,
            Err(CheckpointError::OutOfRange { .. }) => {
                let what = format!("{} finds {} past its own position", self.name, self.shard);
                self.world.oracle.violation(&what);
                false
            }
            Err(_) => false,
        }
    }

    /// A processor that takes its time when it is asked to stop.
    async fn dawdle(&mut self) {
        if self.random.u32(..10) == 0 {
            let work = Duration::from_millis(self.random.u64(1_000..40_000));
            tokio::time::sleep(work).await;
        }
    }

    /// The shard has ended: children first, then the end.
    async fn end(&mut self) {
        let oracle = Arc::clone(&self.world.oracle);
        let mut children = self.world.stream.children(&self.shard);
        if self.random.u32(..4) == 0 {
            // As a reader that was told of none.
            children.clear();
        }
        while self.tenure.record_children(children.clone()).await.is_err() {
            if let Some(why) = self.pause(100, 1000).await {
                return self.give_up(why).await;
            }
        }
        while !self.tenure.lease().has_ended() {
            if !self.tenure.is_held() {
                return self.give_up(Stopped::Lost).await;
            }
            let end = self.tenure.checkpoint(Checkpoint::ShardEnd);
            if end.await.is_ok() {
                break;
            }
            if let Some(why) = self.pause(100, 1000).await {
                return self.give_up(why).await;
            }
        }
        oracle.end(self.id, "shard end");
        self.tenure.end(TenureEnd::ShardEnded).await;
    }

    async fn give_up(&mut self, why: Stopped) {
        let (how, word) = match why {
            Stopped::Lost => (TenureEnd::Lost, "lost at its end"),
            _ if self.tenure.handoff_requested().is_cancelled() => {
                (TenureEnd::Transfer, "given up at its end")
            }
            _ => (TenureEnd::GiveAway, "given up at its end"),
        };
        self.world.oracle.end(self.id, word);
        self.tenure.end(how).await;
    }

    /// User code that keeps its checkpointer past the end of the tenure, and uses it later.
    fn haunt(&mut self) {
        if self.random.u32(..2) == 0 || self.position == 0 {
            return;
        }
        let (tenure, at) = (self.tenure.clone(), self.at());
        let later = Duration::from_millis(self.random.u64(..30_000));
        let (oracle, name) = (Arc::clone(&self.world.oracle), self.name.clone());
        self.process.run(async move {
            tokio::time::sleep(later).await;
            if tenure.checkpoint(at).await.is_ok() {
                let shard = tenure.shard_id();
                oracle.violation(&format!("{name} checkpoints {shard} after its tenure"));
            }
        });
    }
}
