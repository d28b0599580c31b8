//! A worker of ours: all of it but the service and the table, with user code of all kinds.

mod processor;
mod reads;
mod stopping;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::processor::{Factory, Surroundings};
use self::reads::SimulatedReads;
use self::stopping::Stopping;
use super::network::Network;
use super::process::{InProcess, Process, worker_id};
use super::world::{FAILOVER, World};
use crate::clock::Clock;
use crate::config::{CheckpointPolicy, ConsumerConfig, InitialPosition, OnRecreatedStream, OnStop};
use crate::coordinator::{Coordinator, PreparedWorker};
use crate::current_stream::CurrentStream;
use crate::health::ProblemLog;
use crate::lease::{LeaseStore, StreamIdentity};
use crate::metrics::Meter;
use crate::retrieval::ByteBudget;
use crate::service_time::ServiceClock;
use crate::shard_consumer::Worker;
use crate::stream::{ShardLister, ShardSync};
use crate::worker::{self, View, ViewParts};
use crate::worker_state::StateSender;

/// To stop within, in milliseconds.
const LONGEST_DEADLINE: u64 = 60_000;
/// That deadline, what comes on top, and a start that is under way.
pub(super) const LONGEST_STOP: Duration = Duration::from_secs(120);

/// How a worker is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) on_stop: OnStop,
    /// It takes no more for itself.
    pub(super) max_leases: usize,
    /// Units a second that it spends on looks.
    pub(super) table_reads: f64,
    pub(super) seed: u64,
}

/// Runs a worker until it is told to stop. Within its process; `user_code`: the runtime in it of the
/// processors.
pub(super) async fn run(
    world: World,
    name: String,
    setting: Setting,
    process: Arc<Process>,
    user_code: Arc<Process>,
    network: Arc<Network>,
    stop: CancellationToken,
) {
    world.oracle.limit(&name, setting.max_leases);
    let mut random = Rng::with_seed(setting.seed);
    let config = Arc::new(draw(&mut random, setting));
    let store =
        Arc::new(world.store(&name, &network).of_process(setting.seed)) as Arc<dyn LeaseStore>;
    let sync = ShardSync {
        lister: Arc::clone(&world.stream) as Arc<dyn ShardLister>,
        store: Arc::clone(&store),
        position: InitialPosition::TrimHorizon,
        stream: Arc::new(CurrentStream::new(
            StreamIdentity { arn: "arn:simulated".to_owned(), created: 1 },
            OnRecreatedStream::default(),
            Arc::clone(&process) as Arc<dyn Clock>,
        )),
        has_entity_type: true,
        clock: Arc::clone(&process) as Arc<dyn Clock>,
        finished: Arc::default(),
    };
    while let Err(error) = sync.run().await {
        world.oracle.step(&format!("{name} cannot start yet: {error}"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let problems = Arc::new(ProblemLog::new(Arc::clone(&process) as Arc<dyn Clock>));
    let prepared = PreparedWorker {
        id: worker_id(&name).to_owned(),
        process: setting.seed,
        store,
        sync,
        clock: Arc::clone(&process) as Arc<dyn Clock>,
        service_clock: ServiceClock::new(Arc::clone(&process) as Arc<dyn Clock>),
        failover: FAILOVER,
        max_leases: setting.max_leases,
        table_reads: setting.table_reads,
        on_stop: setting.on_stop,
        sync_interval: Duration::from_secs(20),
        first_scan_delay: Duration::ZERO,
        seed: random.u64(..),
        meter: Meter::default(),
        problems: Arc::clone(&problems),
        fleet_mode: None,
        executor: Arc::new(InProcess(Arc::clone(&process))),
    };
    let coordinator = Coordinator::new(prepared);
    let surroundings = Surroundings {
        oracle: Arc::clone(&world.oracle),
        worker: name.clone(),
        process: Arc::clone(&process),
        user_code: Arc::clone(&user_code),
        network: Arc::clone(&network),
        checkpoint: config.checkpoint,
    };
    let budget = ByteBudget::new(config.max_buffered_bytes);
    let view = View::new(ViewParts {
        worker_id: worker_id(&name).to_owned(),
        budget: Arc::clone(&budget),
        fleet: coordinator.fleet_view(),
        states: StateSender::default(),
        clock: Arc::clone(&process) as Arc<dyn Clock>,
        config: Arc::clone(&config),
        meter: Meter::default(),
        problems,
    });
    let worker = Worker {
        application: "simulated".to_owned(),
        worker_id: worker_id(&name).to_owned(),
        stream: "simulated".to_owned(),
        clock: Arc::clone(&process) as Arc<dyn Clock>,
        config,
        retrieval: Arc::new(SimulatedReads { stream: Arc::clone(&world.stream), network }),
        budget,
        factory: Arc::new(Factory::new(surroundings, random.u64(..))),
        executor: Arc::new(InProcess(Arc::clone(&user_code))),
    };
    let deadline = Duration::from_millis(random.u64(..LONGEST_DEADLINE));
    let (tell, told) = watch::channel(None);
    let (seed, worker, view) = (random.u64(..), Arc::new(worker), Arc::new(view));
    let mut run = std::pin::pin!(worker::run(coordinator, worker, view, seed, told));
    let stopping =
        Stopping { world: &world, name: &name, process: &process, user_code: &user_code };
    let outcome = tokio::select! {
        biased;
        outcome = &mut run => outcome,
        () = stop.cancelled() => {
            tell.send_replace(Some(deadline));
            stopping.judge(deadline, run).await
        }
        // Without it, it stops as if it were asked to.
        () = user_code.ended() => stopping.judge(FAILOVER, run).await,
    };
    world.oracle.stopped(&name);
    match outcome {
        Err(error) if user_code.is_dead() => world.oracle.step(&format!("{name} ends: {error}")),
        Err(error) => world.oracle.violation(&format!("{name} ends: {error}")),
        Ok(_) => world.oracle.step(&format!("{name} has stopped")),
    }
}

/// The settings that matter here.
fn draw(random: &mut Rng, setting: Setting) -> ConsumerConfig {
    let mut millis = |from, to| Duration::from_millis(random.u64(from..to));
    let config = ConsumerConfig {
        failover_time: FAILOVER,
        max_leases: setting.max_leases,
        parent_poll_interval: millis(100, 2_000),
        retry_initial_delay: millis(10, 1_000),
        retry_max_delay: millis(1_000, 10_000),
        on_stop: setting.on_stop,
        ..ConsumerConfig::default()
    };
    ConsumerConfig {
        checkpoint: match random.u32(..4) {
            0 => CheckpointPolicy::AfterBatch,
            1 => CheckpointPolicy::Interval(Duration::from_millis(random.u64(100..20_000))),
            _ => CheckpointPolicy::Manual,
        },
        // From less than a page to a page ahead for each shard.
        max_buffered_bytes: random.usize(1_000..50_000),
        ..config
    }
}
