//! A complete worker of ours, on a simulated service and table, with user code of all kinds.

mod processor;
mod reads;
mod stopping;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kcl::internals::{InjectedReading, InjectedWorker, ShardLister, WorkerParts};
use kcl::{CheckpointPolicy, Clock, ConsumerConfig, InitialPosition, OnStop};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::processor::{Factory, Surroundings};
use self::reads::SimulatedReads;
use self::stopping::Stopping;
use super::fan_out;
use super::network::Network;
use super::process::{InProcess, Process, worker_id};
use super::world::{FAILOVER, World};

const SYNC_INTERVAL: Duration = Duration::from_secs(20);
/// Longest deadline of a planned stop, in milliseconds.
const LONGEST_DEADLINE: u64 = 60_000;
/// That deadline, what comes on top, and a start that is under way.
pub(super) const LONGEST_STOP: Duration = Duration::from_secs(120);

/// The settings of a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) on_stop: OnStop,
    /// Most leases that the worker holds.
    pub(super) max_leases: usize,
    /// Read units a second that the worker spends on scans.
    pub(super) table_reads: f64,
    /// The worker reads by enhanced fan-out.
    pub(super) by_fan_out: bool,
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
    let config = draw(&mut random, setting);
    let store = world.store(&name, &network).of_process(setting.seed);
    let surroundings = Surroundings {
        oracle: Arc::clone(&world.oracle),
        worker: name.clone(),
        process: Arc::clone(&process),
        user_code: Arc::clone(&user_code),
        network: Arc::clone(&network),
        checkpoint: config.checkpoint,
    };
    let worker = InjectedWorker::new(WorkerParts {
        worker_id: worker_id(&name).to_owned(),
        process: setting.seed,
        config,
        table_reads: setting.table_reads,
        store: Arc::new(store),
        lister: Arc::clone(&world.stream) as Arc<dyn ShardLister>,
        reading: reading(&world, &name, setting, network),
        clock: Arc::clone(&process) as Arc<dyn Clock>,
        coordination: Arc::new(InProcess(Arc::clone(&process))),
        processors: Arc::new(InProcess(Arc::clone(&user_code))),
    });
    while let Err(error) = worker.create_leases().await {
        world.oracle.step(&format!("{name} cannot start yet: {error}"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let for_coordination = random.u64(..);
    let factory = Factory::new(surroundings, random.u64(..));
    let deadline = Duration::from_millis(random.u64(..LONGEST_DEADLINE));
    let (tell, told) = watch::channel(None);
    let seeds = (for_coordination, random.u64(..));
    let mut run = std::pin::pin!(worker.run(factory, seeds, told));
    let stopping =
        Stopping { world: &world, name: &name, process: &process, user_code: &user_code };
    let outcome = tokio::select! {
        biased;
        outcome = &mut run => outcome,
        () = stop.cancelled() => {
            tell.send_replace(Some(deadline));
            stopping.judge(deadline, run).await
        }
        // Without that runtime, the worker stops as if it were asked to.
        () = user_code.ended() => stopping.judge(FAILOVER, run).await,
    };
    world.oracle.stopped(&name);
    match outcome {
        Err(error) if user_code.is_dead() => world.oracle.step(&format!("{name} ends: {error}")),
        Err(error) => world.oracle.violation(&format!("{name} ends: {error}")),
        Ok(_) => world.oracle.step(&format!("{name} has stopped")),
    }
}

fn reading(world: &World, name: &str, setting: Setting, network: Arc<Network>) -> InjectedReading {
    if !setting.by_fan_out {
        let stream = Arc::clone(&world.stream);
        return InjectedReading::By(Arc::new(SimulatedReads { stream, network }));
    }
    // A generator of its own, so that the other draws are those of a worker that polls.
    let mut random = Rng::with_seed(!setting.seed);
    let client = fan_out::client(&world.fan_out, name, &network, random.u64(..));
    InjectedReading::FanOut { client, seed: random.u64(..) }
}

/// The settings that matter here.
fn draw(random: &mut Rng, setting: Setting) -> ConsumerConfig {
    let mut millis = |from, to| Duration::from_millis(random.u64(from..to));
    let config = ConsumerConfig::default()
        .with_initial_position(InitialPosition::TrimHorizon)
        .with_failover_time(FAILOVER)
        .with_max_leases(setting.max_leases)
        .with_shard_sync_interval(SYNC_INTERVAL)
        .with_parent_poll_interval(millis(100, 2_000))
        .with_retry_initial_delay(millis(10, 1_000))
        .with_retry_max_delay(millis(1_000, 10_000))
        .with_on_stop(setting.on_stop);
    let checkpoint = match random.u32(..4) {
        0 => CheckpointPolicy::AfterBatch,
        1 => CheckpointPolicy::Interval(Duration::from_millis(random.u64(100..20_000))),
        _ => CheckpointPolicy::Manual,
    };
    // From less than a page to a page ahead for each shard.
    let buffered = random.usize(1_000..50_000);
    config.with_checkpoint(checkpoint).with_max_buffered_bytes(buffered)
}
